import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape import SgdEscapeError
from sgd_escape.alignment import Alignment, GroupSums, alignment, group_sums, means
from sgd_escape.curvature import (
    gauss_newton_hessian,
    gauss_newton_operator,
    jacobian,
    leading_eigenpairs,
)
from sgd_escape.estimation import Bootstrap
from sgd_escape.gradient_noise import noise_covariance, noise_strength, trace_factor
from sgd_escape.losses import mean_square_loss
from sgd_escape.networks import Network, apply_network, in_float64, init_network

BOOTSTRAP = Bootstrap(confidence=0.95, resamples=500, seed=0)
PARAMETERS = 6 * 4 + 4 + 4 + 1


@pytest.fixture(scope="module")
def network() -> Network:
    """A 6-4-1 network in float64 whose biases are not zero: 33 parameters."""
    start = in_float64(init_network(jax.random.key(0), [6, 4, 1]))
    return jax.tree.map(lambda a: a + 0.1 * (a.ndim == 1), start)


@pytest.fixture(scope="module")
def inputs() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (53, 6), jnp.float64)


@pytest.fixture(scope="module")
def directions(network: Network, inputs: jax.Array) -> np.ndarray:
    return leading_eigenpairs(gauss_newton_operator(network, inputs), 5).vector


def measured(
    network: Network, inputs: jax.Array, labels: jax.Array, directions: np.ndarray
) -> Alignment:
    return alignment(group_sums(network, inputs, labels, directions), BOOTSTRAP)


def test_both_sides_of_equation_6_are_those_of_the_matrices(
    network: Network, inputs: jax.Array, directions: np.ndarray
) -> None:
    labels = jnp.sin(inputs[:, :1])
    found = measured(network, inputs, labels, directions)
    hessian = gauss_newton_hessian(network, inputs)
    # With B = 1 and replacement it is BΣ for B ≪ N.
    noise = noise_covariance(network, inputs, labels, mean_square_loss, 1, replacement=True)
    loss = float(mean_square_loss(apply_network(network, inputs), labels).mean())
    expected = [np.einsum("ip,pq,iq->i", directions, a, directions) for a in (noise, hessian)]
    np.testing.assert_allclose([found.noise, found.curvature], expected, rtol=1e-10)
    np.testing.assert_allclose(found.ratio.value, expected[0] / (2 * loss * expected[1]))
    assert found.trace_ratio.value == pytest.approx(np.trace(noise / hessian.trace()) / 2 / loss)
    slope = np.polyfit(*np.log(expected[::-1]), 1)[0]
    assert found.exponent.value == pytest.approx(slope, rel=1e-9)


def test_the_traces_are_those_of_the_layerwise_route(
    network: Network, inputs: jax.Array, directions: np.ndarray
) -> None:
    labels = jnp.sin(inputs[:, :1])
    found = measured(network, inputs, labels, directions)
    layerwise = noise_strength(network, inputs, labels, mean_square_loss)
    assert found.noise_trace == pytest.approx(layerwise.noise_strength, rel=1e-12)
    assert found.loss == pytest.approx(layerwise.loss, rel=1e-12)
    factor = trace_factor(network, inputs, labels, mean_square_loss)
    assert found.curvature_trace == pytest.approx(factor.mean, rel=1e-12)
    fraction = layerwise.squared_mean_gradient / layerwise.mean_squared_gradient
    assert found.gradient_fraction == pytest.approx(fraction, rel=1e-10)


def test_components_along_all_directions_add_up_to_the_trace(
    network: Network, inputs: jax.Array
) -> None:
    everywhere, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(PARAMETERS, PARAMETERS)))
    sums = group_sums(network, inputs, jnp.sin(inputs[:, :1]), everywhere)
    np.testing.assert_allclose(sums.noise[:, :-1].sum(1), sums.noise[:, -1], rtol=1e-12)
    np.testing.assert_allclose(sums.curvature[:, :-1].sum(1), sums.curvature[:, -1], rtol=1e-12)
    np.testing.assert_allclose(sums.gradient @ sums.gradient.T, sums.gradient_gram, atol=1e-12)


def test_equation_6_is_exact_for_residuals_of_one_size_and_a_vanishing_gradient(
    network: Network, inputs: jax.Array, directions: np.ndarray
) -> None:
    """Every image twice, with labels as far above as below the output: ℓ is constant, ∇L = 0."""
    twice, sign = jnp.repeat(inputs, 2, axis=0), jnp.tile(jnp.array([[0.3], [-0.3]]), (53, 1))
    sums = group_sums(network, twice, apply_network(network, twice) + sign, directions, groups=53)
    found = means(sums, np.ones(53))
    assert found.loss == pytest.approx(0.3**2 / 2)
    np.testing.assert_allclose(found.ratio, 1, rtol=1e-12)
    assert found.exponent == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.gradient, 0, atol=1e-25)


def test_a_residual_that_grows_along_a_direction_raises_the_noise_there(
    network: Network, inputs: jax.Array, directions: np.ndarray
) -> None:
    """⟨r²g²⟩/⟨r²⟩⟨g²⟩ is the kurtosis of g where r = g, and ∇L is then the curvature."""
    outputs = apply_network(network, inputs)
    along = np.asarray(jacobian(network, inputs)) @ directions[0]
    found = measured(network, inputs, outputs - jnp.asarray(along)[:, None], directions)
    second, fourth = np.mean(along**2), np.mean(along**4)
    expected = (fourth - second**2) / second**2
    assert found.ratio.value[0] == pytest.approx(expected, rel=1e-10)
    assert found.gradient_fraction_along[0] == pytest.approx(second**2 / fourth, rel=1e-10)


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_the_noise_is_proportional_to_the_loss_at_fixed_alignment(
    factor: float, network: Network, inputs: jax.Array, directions: np.ndarray
) -> None:
    outputs = apply_network(network, inputs)
    residual = jnp.cos(inputs[:, 1:2])
    one = measured(network, inputs, outputs - residual, directions)
    other = measured(network, inputs, outputs - factor * residual, directions)
    np.testing.assert_allclose(other.noise, factor**2 * one.noise, rtol=1e-10)
    np.testing.assert_allclose(np.stack(other.ratio), np.stack(one.ratio), rtol=1e-9)
    np.testing.assert_allclose(np.stack(other.exponent), np.stack(one.exponent), rtol=1e-9)


@pytest.mark.parametrize("groups", [1, 7, 53, 1000])
def test_the_number_of_groups_changes_no_total(
    groups: int, network: Network, inputs: jax.Array, directions: np.ndarray
) -> None:
    labels = jnp.sin(inputs[:, :1])
    whole = group_sums(network, inputs, labels, directions, groups=1)
    parts = group_sums(network, inputs, labels, directions, groups=groups)
    assert len(parts.examples) == min(groups, 53)
    for total, part in zip(whole, parts, strict=True):
        np.testing.assert_allclose(part.sum(0).sum(-1), total.sum(0).sum(-1), rtol=1e-10)


def test_the_interval_of_the_trace_ratio_is_that_of_linear_error_propagation(
    network: Network,
) -> None:
    inputs = jax.random.normal(jax.random.key(4), (4000, 6), jnp.float64)
    residual = jax.random.normal(jax.random.key(5), (4000, 1), jnp.float64)
    labels = apply_network(network, inputs) - residual
    found = measured(network, inputs, labels, np.eye(PARAMETERS)[-5:])
    square = np.asarray(residual)[:, 0] ** 2
    norm = np.sum(np.asarray(jacobian(network, inputs)) ** 2, axis=1)
    noise = square * norm
    relative = noise / noise.mean() - square / square.mean() - norm / norm.mean()
    error = relative.std() / np.sqrt(4000) * noise.mean() / (square.mean() * norm.mean())
    half_width = (found.trace_ratio.high - found.trace_ratio.low) / 2
    # A standard deviation from 100 groups is known to 1/√200, a 95 % quantile from 500 resamples
    # to about 6 %: together 9 %, four times.
    assert half_width == pytest.approx(1.96 * error, rel=0.37)
    # Independent residuals decouple, Eq. (7); |∇L|² takes off about P/N.
    assert found.trace_ratio.value == pytest.approx(1, abs=4 * error)


def prescribed(curvature: np.ndarray, noise: np.ndarray) -> GroupSums:
    """Twenty equal groups of ten examples with loss ½ and no gradient."""
    columns = [np.tile(10 * np.append(a, a.sum()), (20, 1)) for a in (curvature, noise)]
    ten, nothing = np.full(20, 10), np.zeros((20, curvature.size))
    return GroupSums(ten, ten / 2, *columns, nothing, np.zeros((20, 20)))


@pytest.mark.parametrize("power", [0.0, 1.0, 1.7])
def test_the_exponent_of_a_prescribed_power_law_is_found(power: float) -> None:
    curvature = np.geomspace(80, 1, 30)
    found = means(prescribed(curvature, 3 * curvature**power), np.ones((2, 20)))
    np.testing.assert_allclose(found.exponent, [power] * 2, atol=1e-12)
    np.testing.assert_allclose(found.ratio[:, :-1], [3 * curvature ** (power - 1)] * 2)


def test_a_group_taken_twice_counts_twice(
    network: Network, inputs: jax.Array, directions: np.ndarray
) -> None:
    labels = jnp.sin(inputs[:, :1])
    sums = group_sums(network, inputs, labels, directions, groups=53)
    taken = np.arange(53) % 3
    repeated = jnp.repeat(jnp.arange(53), jnp.asarray(taken))
    again = group_sums(network, inputs[repeated], labels[repeated], directions, groups=1)
    for weighted, plain in zip(
        means(sums, taken.astype(float)), means(again, np.ones(1)), strict=True
    ):
        np.testing.assert_allclose(weighted, plain, rtol=1e-10)


def test_a_direction_without_curvature_is_refused(network: Network, inputs: jax.Array) -> None:
    dark = inputs.at[:, 0].set(0)
    directions = np.eye(PARAMETERS)[:3]
    sums = group_sums(network, dark, jnp.sin(inputs[:, :1]), directions)
    with pytest.raises(SgdEscapeError, match=r"curvature is 0; lower network\.alignment\.direc"):
        alignment(sums, BOOTSTRAP)


def test_a_direction_without_noise_costs_the_exponent_and_its_own_ratio_alone() -> None:
    sums = prescribed(np.array([4.0, 2.0, 1.0]), np.array([4.0, 0.0, 2.0]))
    # Groups that differ, of the same mean.
    weights = np.linspace(0.5, 1.5, 20)[:, None]
    found = alignment(sums._replace(noise=sums.noise * weights), BOOTSTRAP)
    np.testing.assert_allclose(found.ratio.value, [1, np.nan, 2])
    assert np.isfinite(found.ratio.high[[0, 2]]).all()
    assert float(found.trace_ratio.value) == pytest.approx(6 / 7)
    assert np.isnan(found.exponent).all()


def test_a_single_example_is_refused(
    network: Network, inputs: jax.Array, directions: np.ndarray
) -> None:
    sums = group_sums(network, inputs[:1], inputs[:1, :1], directions)
    with pytest.raises(SgdEscapeError, match=r"needs two examples .* there are 1 groups"):
        alignment(sums, BOOTSTRAP)
