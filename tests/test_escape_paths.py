import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sgd_escape.curvature import gauss_newton_hessian
from sgd_escape.escape_paths import Origin, departures, lowered_losses, surroundings
from sgd_escape.networks import Network, apply_network, in_float64, init_network

DIRECTIONS, COUNT = 5, 3


@pytest.fixture(scope="module")
def origin() -> Origin:
    """A 6-4-1 network in float64 that fits its labels exactly, so Eq. (44) is the Hessian."""
    network = in_float64(init_network(jax.random.key(0), [6, 4, 1]))
    network = jax.tree.map(lambda a: a + 0.1 * (a.ndim == 1), network)
    inputs = jax.random.normal(jax.random.key(1), (60, 6), jnp.float64)
    labels = apply_network(network, inputs)
    return Origin.at(network, inputs, labels, directions=DIRECTIONS, outliers=COUNT)


def moved(origin: Origin, shift: np.ndarray) -> Network:
    flat, unravel = ravel_pytree(origin.network)
    return unravel(flat + jnp.asarray(shift))


def across(origin: Origin) -> np.ndarray:
    """A unit vector orthogonal to the leading eigenvectors."""
    vectors = origin.pairs.vector
    vector = np.random.default_rng(2).normal(size=vectors.shape[1])
    vector -= vector @ vectors.T @ vectors
    return vector / np.linalg.norm(vector)


def test_a_displacement_is_made_of_its_components_along_the_eigenvectors(origin: Origin) -> None:
    first, third, fifth = origin.pairs.vector[[0, 2, 4]]
    shift = 2 * first + third + 3 * fifth + 5 * across(origin)
    found = departures([moved(origin, 0.01 * shift), moved(origin, -0.02 * shift)], origin)
    np.testing.assert_allclose(found.length, [0.01 * 39**0.5, 0.02 * 39**0.5], rtol=1e-10)
    expected = [[4 / 39, 0, 1 / 39, 0, 9 / 39]] * 2
    np.testing.assert_allclose(found.squared_share, expected, atol=1e-12)
    np.testing.assert_allclose(found.subspace_share, 5 / 39, rtol=1e-10)


@pytest.mark.parametrize("direction", range(DIRECTIONS))
def test_the_loss_rises_by_half_h_z_squared_along_an_eigenvector(
    origin: Origin, direction: int
) -> None:
    shift = 1e-5 * origin.pairs.vector[direction]
    found = departures([moved(origin, shift)], origin)
    expected = np.eye(DIRECTIONS)[direction]
    # The terms beyond the quadratic one are smaller by the length of the displacement.
    np.testing.assert_allclose(found.loss_share[0], expected, atol=1e-3)
    assert found.loss[0] == pytest.approx(0.5e-10 * origin.pairs.value[direction], rel=1e-3)


def test_the_shares_of_the_loss_add_up_where_it_is_quadratic(origin: Origin) -> None:
    shift = np.array([3.0, 1.0, -2.0, 0.5, 1.0]) @ origin.pairs.vector
    found = departures([moved(origin, 1e-5 * shift)], origin)
    assert found.loss_share.sum() == pytest.approx(1, abs=1e-3)
    assert found.squared_share.sum() == pytest.approx(1, rel=1e-9)


def test_no_network_has_no_departures(origin: Origin) -> None:
    found = departures([], origin)
    assert found.loss.shape == found.length.shape == found.subspace_share.shape == (0,)
    assert found.loss_share.shape == found.squared_share.shape == (0, DIRECTIONS)


def test_overlap_and_sharpness_are_those_of_the_matrices(origin: Origin) -> None:
    networks = [moved(origin, 0.3 * across(origin)), moved(origin, 1.5 * across(origin))]
    matrices = [gauss_newton_hessian(n, origin.inputs) for n in [origin.network, *networks]]
    values, vectors = zip(*map(np.linalg.eigh, matrices), strict=True)
    leading = [vector[:, -COUNT:] for vector in vectors]
    cosines = [np.linalg.svd(leading[0].T @ there)[1] for there in leading[1:]]
    expected = np.mean(np.square(cosines), axis=1)
    found = surroundings(networks, origin)
    assert expected[1] < expected[0] < 0.999
    np.testing.assert_allclose(found.overlap, expected, atol=1e-7)
    np.testing.assert_allclose(found.sharpness, [v[-1] / values[0][-1] for v in values[1:]])


def test_the_surroundings_of_the_minimum_are_its_own(origin: Origin) -> None:
    assert surroundings([origin.network], origin).overlap[0] == pytest.approx(1, abs=1e-9)
    assert surroundings([origin.network], origin).sharpness[0] == pytest.approx(1, abs=1e-9)


def test_the_spans_of_unrelated_networks_overlap_little(origin: Origin) -> None:
    other = in_float64(init_network(jax.random.key(9), [6, 4, 1]))
    assert surroundings([other], origin).overlap[0] < 0.7


@pytest.mark.parametrize("direction", [0, 2])
def test_descent_lowers_the_loss_at_the_rate_of_its_direction(
    origin: Origin, direction: int
) -> None:
    rate, steps = 0.05, 7
    start = moved(origin, 1e-5 * origin.pairs.vector[direction])
    factor = (1 - rate * origin.pairs.value[direction]) ** (2 * steps)
    before = departures([start], origin).loss[0]
    lowered = lowered_losses([start], origin, learning_rate=rate, steps=steps)[0]
    assert lowered == pytest.approx(factor * before, rel=1e-2)
    assert 0.001 < factor < 0.9


def test_a_network_that_did_not_move_has_no_direction(origin: Origin) -> None:
    found = departures([moved(origin, across(origin)), origin.network], origin)
    np.testing.assert_array_equal(np.isnan(found.length), [False, True])
    np.testing.assert_array_equal(np.isnan(found.squared_share).all(axis=1), [False, True])
    np.testing.assert_array_equal(np.isnan(found.loss_share).any(axis=1), [False, True])
    np.testing.assert_array_equal(np.isnan(found.subspace_share), [False, True])


def test_a_network_that_diverged_has_no_direction(origin: Origin) -> None:
    diverged = [moved(origin, np.nan * across(origin)), moved(origin, np.inf * across(origin))]
    found = departures(diverged, origin)
    assert np.isnan(found.squared_share).all()
    assert np.isnan(found.subspace_share).all()
    assert np.isnan(surroundings(diverged, origin)).all()
    assert np.isnan(lowered_losses(diverged, origin, learning_rate=0.01, steps=2)).all()


def test_a_descent_that_is_not_stable_lowers_no_loss(origin: Origin) -> None:
    start, limit = moved(origin, across(origin)), 2 / origin.pairs.value[0]
    assert np.isnan(lowered_losses([start], origin, learning_rate=1.001 * limit, steps=2)).all()
    assert np.isfinite(lowered_losses([start], origin, learning_rate=0.999 * limit, steps=2)).all()


def test_a_network_about_to_diverge_has_no_lowered_loss_and_the_others_keep_theirs(
    origin: Origin,
) -> None:
    """So far away that a stable rate is no longer one, as after a few steps of unstable SGD."""
    near, far = moved(origin, 0.01 * across(origin)), moved(origin, 1e9 * across(origin))
    lowered = lowered_losses([near, far, near], origin, learning_rate=0.05, steps=50)
    np.testing.assert_array_equal(np.isfinite(lowered), [True, False, True])
    assert lowered[0] == lowered_losses([near], origin, learning_rate=0.05, steps=50)[0]
