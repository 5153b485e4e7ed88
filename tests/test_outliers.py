import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape import SgdEscapeError
from sgd_escape.alignment import group_sums
from sgd_escape.curvature import effective_dimension, gauss_newton_hessian
from sgd_escape.escape_theory import escape_exponent
from sgd_escape.estimation import Bootstrap
from sgd_escape.networks import Network, in_float64, init_network
from sgd_escape.outliers import (
    GroupCurvatures,
    estimated_outliers,
    outliers,
    predicted_exponent,
)

BOOTSTRAP = Bootstrap(confidence=0.95, resamples=500, seed=0)
GROUPS, KEPT = 15, 4
Problem = tuple[Network, jax.Array, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A 6-4-1 network, 60 examples, and the spectrum of their Hessian."""
    network = in_float64(init_network(jax.random.key(0), [6, 4, 1]))
    network = jax.tree.map(lambda a: a + 0.1 * (a.ndim == 1), network)
    inputs = jax.random.normal(jax.random.key(1), (60, 6), jnp.float64)
    values, vectors = np.linalg.eigh(gauss_newton_hessian(network, inputs))
    return network, inputs, values[::-1], vectors.T[::-1]


def sums_of(problem: Problem, kept: int) -> GroupCurvatures:
    network, inputs, values, vectors = problem
    sums = group_sums(network, inputs, jnp.zeros((60, 1)), vectors[:kept], groups=GROUPS)
    rest = float(np.sum(values[kept:] ** 2))
    return GroupCurvatures(sums.examples, sums.curvature[:, :-1], sums.curvature[:, -1], rest)


@pytest.mark.parametrize("kept", [1, KEPT, 33])
def test_all_examples_give_the_outliers_of_the_spectrum(problem: Problem, kept: int) -> None:
    values = problem[2]
    curvature, dimension = outliers(sums_of(problem, kept), np.ones(GROUPS))
    assert curvature == pytest.approx(values[0], rel=1e-10)
    assert dimension == pytest.approx(effective_dimension(values), rel=1e-10)


def test_resampled_examples_give_the_curvatures_of_their_own_hessian(problem: Problem) -> None:
    network, inputs, values, vectors = problem
    taken = np.random.default_rng(1).multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS)).astype(float)
    repeated = np.repeat(np.asarray(inputs), np.repeat(taken, 4).astype(int), axis=0)
    hessian = gauss_newton_hessian(network, jnp.asarray(repeated))
    along = np.einsum("ip,pq,iq->i", vectors, hessian, vectors)
    curvature, dimension = outliers(sums_of(problem, 33), taken)
    assert curvature == pytest.approx(along[0], rel=1e-10)
    assert dimension == pytest.approx(hessian.trace() ** 2 / np.sum(along**2), rel=1e-6)
    assert abs(curvature / values[0] - 1) > 0.02
    # What is not kept grows alike.
    _, few = outliers(sums_of(problem, KEPT), taken)
    grown = (hessian.trace() - along[:KEPT].sum()) / values[KEPT:].sum()
    squares = np.sum(along[:KEPT] ** 2) + np.sum(values[KEPT:] ** 2) * grown**2
    assert few == pytest.approx(hessian.trace() ** 2 / squares, rel=1e-10)


def test_the_predicted_exponent_is_that_of_its_outliers(problem: Problem) -> None:
    sums = sums_of(problem, KEPT)
    curvature, dimension = estimated_outliers(sums, BOOTSTRAP)
    found = predicted_exponent(sums, 0.01, BOOTSTRAP)
    expected = escape_exponent(0.01 * float(curvature.value), float(dimension.value))
    assert found.value == pytest.approx(expected, rel=1e-12)
    for estimate in (curvature, dimension, found):
        assert estimate.low < estimate.value < estimate.high


def test_the_interval_of_the_exponent_is_that_of_the_curvature_where_it_dominates(
    problem: Problem,
) -> None:
    """At vanishing η/B the exponent is B/(ηh_1), whose interval is that of 1/h_1."""
    sums, ratio = sums_of(problem, KEPT), 1e-9
    curvature, _ = estimated_outliers(sums, BOOTSTRAP)
    found = predicted_exponent(sums, ratio, BOOTSTRAP)
    # A quantile between two resamples is interpolated before or after 1/h.
    assert found.low * ratio == pytest.approx(1 / curvature.high, rel=5e-3)
    assert found.high * ratio == pytest.approx(1 / curvature.low, rel=5e-3)


def test_one_group_has_no_interval(problem: Problem) -> None:
    sums = sums_of(problem, KEPT)
    one = GroupCurvatures(sums.examples[:1], sums.along[:1], sums.trace[:1], sums.rest)
    with pytest.raises(SgdEscapeError, match="there are 1 groups"):
        predicted_exponent(one, 0.01, BOOTSTRAP)


def test_a_flat_minimum_has_no_outliers(problem: Problem) -> None:
    sums = sums_of(problem, KEPT)
    with pytest.raises(SgdEscapeError, match=r"Σ \(v_1·∇f\)² is 0; take"):
        estimated_outliers(sums._replace(along=0 * sums.along), BOOTSTRAP)


def test_without_a_group_the_outliers_are_those_of_the_other_examples(problem: Problem) -> None:
    network, inputs, _, vectors = problem
    taken = np.ones(GROUPS)
    taken[2] = 0
    kept = np.delete(np.asarray(inputs), np.s_[8:12], axis=0)
    hessian = gauss_newton_hessian(network, jnp.asarray(kept))
    along = np.einsum("ip,pq,iq->i", vectors, hessian, vectors)
    found = outliers(sums_of(problem, 33), np.stack([taken, 2 * taken]))
    np.testing.assert_allclose(found[0], along[0], rtol=1e-10)
    np.testing.assert_allclose(found[1], hessian.trace() ** 2 / np.sum(along**2), rtol=1e-6)
