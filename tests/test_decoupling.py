from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape import SgdEscapeError
from sgd_escape.curvature import jacobian
from sgd_escape.decoupling import (
    Spectra,
    correlation,
    permuted_distance,
    relative_distance,
    spectra,
)
from sgd_escape.estimation import Bootstrap
from sgd_escape.gradient_noise import output_gram
from sgd_escape.losses import mean_square_loss
from sgd_escape.networks import Network, apply_network, init_network

BOOTSTRAP = Bootstrap(0.95, 200, 0)


def problem(n: int) -> tuple[Network, jax.Array, np.ndarray]:
    """A 4-5-3-1 network of 47 parameters, inputs, and positive losses of the examples."""
    network = init_network(jax.random.key(2), [4, 5, 3, 1])
    network = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) + 0.1 * (a.ndim == 1), network)
    inputs = jax.random.normal(jax.random.key(3), (n, 4), jnp.float64)
    losses = mean_square_loss(apply_network(network, inputs), jnp.sign(inputs[:, :1]))
    return network, inputs, np.asarray(losses)


def both_sides(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The P × P matrices of Eq. (7), the gradients of f and the losses."""
    network, inputs, losses = problem(n)
    rows = np.asarray(jacobian(network, inputs))
    exact = sum(x * np.outer(g, g) for x, g in zip(losses, rows, strict=True)) / n
    decoupled = losses.mean() * rows.T @ rows / n
    return exact, decoupled, rows, losses


def gram_and_losses(n: int) -> tuple[np.ndarray, np.ndarray]:
    network, inputs, losses = problem(n)
    return output_gram(network, inputs), losses


def prescribed(exact: list[float], decoupled: list[float], floor: float = 1e-15) -> Spectra:
    return Spectra(np.array(exact), np.array(decoupled), floor, np.ones(1))


@pytest.mark.parametrize("n", [30, 80])
def test_the_spectra_by_the_n_by_n_route_are_those_of_the_parameter_matrices(n: int) -> None:
    exact, decoupled, _, losses = both_sides(n)
    measured = spectra(gram_and_losses(n)[0], losses, 3)
    common = min(n, 47)
    for matrix, eigenvalues in [
        (exact, measured.eigenvalue_exact),
        (decoupled, measured.eigenvalue_decoupled),
    ]:
        expected = np.linalg.eigvalsh(matrix)[::-1]
        assert eigenvalues.shape == (n,)
        assert np.all(np.diff(eigenvalues) <= 0)
        scale = expected[0]
        np.testing.assert_allclose(
            eigenvalues[:common], expected[:common], rtol=1e-10, atol=1e-14 * scale
        )
        np.testing.assert_allclose(eigenvalues[common:], 0, atol=1e-14 * scale)
        assert eigenvalues.sum() == pytest.approx(np.trace(matrix), rel=1e-12)


@pytest.mark.parametrize("n", [30, 80])
@pytest.mark.parametrize("directions", [1, 4, 10])
def test_the_principal_angles_are_those_of_the_parameter_matrices(n: int, directions: int) -> None:
    exact, decoupled, _, losses = both_sides(n)
    measured = spectra(gram_and_losses(n)[0], losses, directions)
    leading = [np.linalg.eigh(matrix)[1][:, -directions:] for matrix in (exact, decoupled)]
    cosine = np.linalg.svd(leading[0].T @ leading[1], compute_uv=False)
    np.testing.assert_allclose(measured.principal_cosine, cosine, rtol=1e-10)
    projectors = [vectors @ vectors.T for vectors in leading]
    overlap = np.trace(projectors[0] @ projectors[1]) / directions
    assert measured.overlap == pytest.approx(overlap, rel=1e-10)
    assert cosine[-1] < 0.999


def test_equal_losses_make_both_sides_the_same() -> None:
    gram, _ = gram_and_losses(30)
    measured = spectra(gram, np.full(30, 0.3), 5)
    np.testing.assert_allclose(measured.principal_cosine, 1, rtol=1e-12)
    assert measured.spectral_distance(1e-6) < 1e-9
    # Rounding decides which of two equal eigenvalues comes first: one step of 30.
    assert measured.distribution_distance(1e-6) < 1.01 / 30
    np.testing.assert_allclose(measured.eigenvalue_exact, measured.eigenvalue_decoupled, atol=1e-15)


def test_neither_the_scale_of_the_losses_nor_the_order_of_the_examples_matters() -> None:
    gram, losses = gram_and_losses(40)
    order = np.random.default_rng(0).permutation(40)
    first = spectra(gram, losses, 5)
    second = spectra(gram[np.ix_(order, order)], 7 * losses[order], 5)
    np.testing.assert_allclose(second.principal_cosine, first.principal_cosine, rtol=1e-10)
    np.testing.assert_allclose(
        second.eigenvalue_exact, 7 * first.eigenvalue_exact, atol=1e-13 * gram.max()
    )
    assert second.spectral_distance(1e-3) == pytest.approx(first.spectral_distance(1e-3))


def test_orthogonal_gradients_give_the_spectra_by_hand() -> None:
    trace, losses = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 2.0, 0.0, 5.0])
    gram = np.diag(trace)
    measured = spectra(gram, losses, 2)
    np.testing.assert_allclose(measured.eigenvalue_exact, [1.5, 1.25, 1.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(measured.eigenvalue_decoupled, [2.0, 1.5, 1.0, 0.5], rtol=1e-15)
    # The leading two of E are the second and the last example, those of D the first and the second.
    np.testing.assert_allclose(measured.principal_cosine, [1, 0], atol=1e-12)
    assert measured.overlap == pytest.approx(0.5)
    assert np.array_equal(gram, np.diag(trace))


def test_eigenvalues_beyond_the_rank_lie_at_the_rounding_floor() -> None:
    measured = spectra(*gram_and_losses(80), 3)
    assert measured.rounding_floor == np.finfo(float).eps * max(
        measured.eigenvalue_exact[0], measured.eigenvalue_decoupled[0]
    )
    for eigenvalues in (measured.eigenvalue_exact, measured.eigenvalue_decoupled):
        # An eigenvalue solver errs by a small multiple of the floor.
        assert np.all(np.abs(eigenvalues[47:]) < 20 * measured.rounding_floor)


def test_the_spectral_distance_is_taken_over_the_ranks_above_its_bound() -> None:
    measured = prescribed([10.0, 1.0, 1e-3, 1e-20], [1.0, 1.0, 1e-5, 1e-5])
    # The rank at which one side is rounding never enters; the third only below 1e-4.
    assert measured.spectral_distance(0.0) == pytest.approx(np.sqrt((1 + 0 + 4) / 3))
    assert measured.spectral_distance(0.99e-4) == pytest.approx(np.sqrt(5 / 3))
    assert measured.spectral_distance(0.01) == pytest.approx(np.sqrt(1 / 2))


def test_the_distribution_distance_is_that_of_the_leading_eigenvalues() -> None:
    measured = prescribed([4.0, 3.0, 1.0, 1e-9], [4.0, 3.5, 2.0, 1e-3])
    # Above 0.4 the distribution functions are 1/3, 1/3, 2/3, 2/3, 1 and 0, 1/3, 1/3, 2/3, 1.
    assert measured.distribution_distance(0.1) == pytest.approx(1 / 3)
    assert measured.distribution_distance(1e-4) == pytest.approx(1 / 4)
    assert prescribed([1e-3], [1.0]).distribution_distance(0.1) == 1


def test_the_distance_and_the_correlation_are_those_of_the_parameter_matrices() -> None:
    exact, decoupled, rows, losses = both_sides(30)
    gram = gram_and_losses(30)[0]
    distance = np.linalg.norm(exact - decoupled) / np.linalg.norm(exact)
    traces = np.sum(rows**2, axis=1)
    expected = np.corrcoef(losses, traces)[0, 1]
    assert 0.05 < abs(expected) < 0.95
    # 7 groups have different sizes.
    for groups in (7, 30):
        measured = relative_distance(gram, losses, BOOTSTRAP, groups=groups)
        assert measured.value == pytest.approx(distance, rel=1e-12)
        assert measured.low < distance < measured.high
        found = correlation(losses, traces, BOOTSTRAP, groups=groups)
        assert found.value == pytest.approx(expected, rel=1e-12)
        assert found.low < expected < found.high


def test_a_resample_counts_pairs_of_different_groups_twice_where_both_are_taken_twice() -> None:
    """Against the sums over pairs of examples written out, with the weights of the docstring."""
    gram, losses = gram_and_losses(12)

    def distance(taken: np.ndarray) -> np.ndarray:
        pairs = taken[..., :, None] * taken[..., None, :] * (1 - np.eye(12))
        total = taken.sum(-1)[..., None, None]
        weights = 12 * 11 * pairs / pairs.sum((-1, -2), keepdims=True)
        weights += 12 * np.eye(12) * taken[..., None] / total
        deviation = losses - (taken @ losses / taken.sum(-1))[..., None]
        squares = weights * gram**2
        difference = np.einsum("...i,...ij,...j->...", deviation, squares, deviation)
        exact = np.einsum("i,...ij,j->...", losses, squares, losses)
        return np.sqrt(np.maximum(difference, 0) / exact)

    expected = BOOTSTRAP(distance, 12)
    measured = relative_distance(gram, losses, BOOTSTRAP, groups=12)
    np.testing.assert_allclose(measured, expected, rtol=1e-9)


def test_a_resample_of_the_correlation_repeats_the_examples_that_it_takes_twice() -> None:
    gram, losses = gram_and_losses(12)
    pair = np.stack([losses, gram.diagonal()])

    def pearson(taken: np.ndarray) -> np.ndarray:
        rows = taken.reshape(-1, 12).astype(int)
        found = [np.corrcoef(np.repeat(pair, row, axis=1))[0, 1] for row in rows]
        return np.reshape(found, taken.shape[:-1])

    measured = correlation(losses, gram.diagonal(), BOOTSTRAP, groups=12)
    np.testing.assert_allclose(measured, BOOTSTRAP(pearson, 12), rtol=1e-9)


def test_the_permuted_distance_is_the_mean_over_all_permutations_of_the_losses() -> None:
    gram, losses = gram_and_losses(6)
    orders = np.array(list(permutations(range(6))))
    deviation = (losses - losses.mean())[orders]
    difference, exact = (
        np.mean(np.einsum("pi,ij,pj->p", values, gram**2, values))
        for values in (deviation, losses[orders])
    )
    expected = np.sqrt(difference / exact)
    assert permuted_distance(gram, losses) == pytest.approx(expected, rel=1e-12)


def drawn(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian gradients g of five parameters, and the losses 1 + cos(g_1)/2."""
    rows = np.random.default_rng(seed).normal(size=(n, 5))
    return rows @ rows.T, 1 + 0.5 * np.cos(rows[:, 0])


@pytest.fixture(scope="module")
def estimates() -> np.ndarray:
    """Relative distance and correlation with their intervals for 200 data sets."""
    found = []
    for seed in range(200):
        gram, losses = drawn(seed, 200)
        found.append(
            [
                relative_distance(gram, losses, BOOTSTRAP, groups=40),
                correlation(losses, gram.diagonal(), BOOTSTRAP, groups=40),
            ]
        )
    return np.array(found)


def test_intervals_of_the_correlation_cover_the_exact_one(estimates: np.ndarray) -> None:
    # Cov(cos g, g²) = -e^{-1/2}, Var cos g = (1 - e^{-1})²/2, and the trace has variance 10.
    exact = -np.exp(-0.5) / np.sqrt(10 * (1 - np.exp(-1)) ** 2 / 2)
    value, low, high = estimates[:, 1].T
    assert value.mean() == pytest.approx(exact, abs=4 * value.std() / np.sqrt(200) + 0.005)
    # 95 % with a standard error of 1.5 %; so small a sample loses some.
    assert 0.95 - 4 * 0.015 <= np.mean((low <= exact) & (exact <= high)) <= 1


def test_intervals_of_the_distance_cover_that_of_a_typical_data_set(
    estimates: np.ndarray,
) -> None:
    value, low, high = estimates[:, 0].T
    typical = np.median(value)
    assert 0.95 - 4 * 0.015 <= np.mean((low <= typical) & (typical <= high)) <= 1


@pytest.mark.parametrize(
    ("gram", "losses"),
    [([np.nan, 1.0], [1.0, 2.0]), ([1.0, 1.0], [1.0, np.inf]), ([1.0, 1.0], [0.0, 0.0])],
)
def test_the_decoupling_needs_finite_gradients_and_losses(
    gram: list[float], losses: list[float]
) -> None:
    message = r"finite losses that are not all zero.*train"
    with pytest.raises(SgdEscapeError, match=message):
        spectra(np.diag(gram), np.array(losses), 1)
    with pytest.raises(SgdEscapeError, match=message):
        relative_distance(np.diag(gram), np.array(losses), BOOTSTRAP, groups=2)


def test_directions_must_be_fewer_than_the_examples() -> None:
    with pytest.raises(SgdEscapeError, match=r"overlap of 3 leading .* there are 3; lower dir"):
        spectra(np.diag([3.0, 2.0, 1.0]), np.ones(3), 3)


def test_spans_of_fewer_eigenvalues_than_directions_have_no_overlap() -> None:
    """One loss alone leaves one eigenvalue above the rounding floor."""
    gram = np.diag([3.0, 2.0, 1.0])
    assert np.isnan(spectra(gram, np.array([1.0, 0.0, 0.0]), 2).overlap)
    assert np.isfinite(spectra(gram, np.array([1.0, 0.0, 0.0]), 1).overlap)
