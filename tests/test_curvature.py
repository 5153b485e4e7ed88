import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sgd_escape import SgdEscapeError
from sgd_escape.curvature import (
    effective_dimension,
    gap_dimension,
    gauss_newton_hessian,
    jacobian,
    spectrum,
    threshold_dimension,
)
from sgd_escape.networks import Network, apply_network, init_network
from sgd_escape.training import full_loss


@pytest.fixture
def network() -> Network:
    """A 5-4-3-1 network in float64 whose biases are not zero: 43 parameters."""
    start = init_network(jax.random.key(0), [5, 4, 3, 1])
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) + 0.1 * (a.ndim == 1), start)


@pytest.fixture
def inputs() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (30, 5), jnp.float64)


def gradients_one_by_one(network: Network, inputs: jax.Array) -> np.ndarray:
    flat, unravel = ravel_pytree(network)
    rows = [
        jax.jacobian(lambda p, x=x: apply_network(unravel(p), x[None])[0, 0])(flat) for x in inputs
    ]
    return np.stack(rows)


def with_spectrum(eigenvalues: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues), len(eigenvalues))))
    return (rotation * eigenvalues) @ rotation.T


def test_the_jacobian_holds_the_gradient_of_the_output_at_every_example(
    network: Network, inputs: jax.Array
) -> None:
    rows = jacobian(network, inputs)
    assert rows.shape == (30, 43)
    np.testing.assert_allclose(rows, gradients_one_by_one(network, inputs), atol=1e-14)


def test_the_hessian_of_equation_44_is_the_mean_outer_product_of_gradients(
    network: Network, inputs: jax.Array
) -> None:
    rows = gradients_one_by_one(network, inputs)
    expected = sum(np.outer(g, g) for g in rows) / 30
    # Sums of thirty products of order one in float64.
    np.testing.assert_allclose(gauss_newton_hessian(network, inputs), expected, atol=1e-12)


@pytest.mark.parametrize("examples_at_once", [1, 7, 30, 31])
def test_the_hessian_does_not_depend_on_the_examples_at_once(
    examples_at_once: int, network: Network, inputs: jax.Array
) -> None:
    whole = gauss_newton_hessian(network, inputs)
    chunked = gauss_newton_hessian(network, inputs, examples_at_once=examples_at_once)
    np.testing.assert_allclose(chunked, whole, atol=1e-13)


def test_the_hessian_of_a_float32_network_is_computed_in_float64(
    network: Network, inputs: jax.Array
) -> None:
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (network, inputs))
    exact = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), single)
    hessian = gauss_newton_hessian(*single)
    assert hessian.dtype == np.float64
    np.testing.assert_allclose(hessian, gauss_newton_hessian(*exact), atol=1e-14)


def test_the_hessian_of_a_linear_model_is_the_exact_one(inputs: jax.Array) -> None:
    network = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float64), init_network(jax.random.key(2), [5, 1])
    )
    labels = jnp.sin(inputs[:, :1])
    flat, unravel = ravel_pytree(network)
    exact = jax.hessian(lambda p: full_loss(unravel(p), inputs, labels))(flat)
    np.testing.assert_allclose(gauss_newton_hessian(network, inputs), exact, atol=1e-12)


def test_at_an_interpolating_minimum_the_hessian_is_the_exact_one(
    network: Network, inputs: jax.Array
) -> None:
    """Eq. (44) drops residual times curvature, which vanishes where every residual does."""
    labels = apply_network(network, inputs)
    flat, unravel = ravel_pytree(network)
    exact = jax.hessian(lambda p: full_loss(unravel(p), inputs, labels))(flat)
    np.testing.assert_allclose(gauss_newton_hessian(network, inputs), exact, atol=1e-12)


def test_the_gram_matrix_of_the_gradients_has_the_same_nonzero_spectrum(
    network: Network, inputs: jax.Array
) -> None:
    rows = np.asarray(jacobian(network, inputs))
    gram = np.linalg.eigvalsh(rows @ rows.T / len(rows))[::-1]
    eigenvalues = spectrum(gauss_newton_hessian(network, inputs))
    assert eigenvalues.shape == (43,)
    np.testing.assert_allclose(eigenvalues[:30], gram, rtol=1e-10, atol=1e-13 * gram[0])
    np.testing.assert_allclose(eigenvalues[30:], 0, atol=1e-13 * gram[0])


def test_the_spectrum_is_descending_and_sums_to_the_trace(
    network: Network, inputs: jax.Array
) -> None:
    hessian = gauss_newton_hessian(network, inputs)
    eigenvalues = spectrum(hessian)
    assert np.all(np.diff(eigenvalues) <= 0)
    assert eigenvalues.sum() == pytest.approx(np.trace(hessian), rel=1e-12)


def test_a_prescribed_spectrum_is_found_again() -> None:
    prescribed = np.geomspace(1e3, 1e-3, 12)
    # Absolute errors of a symmetric solver are machine precision times the largest eigenvalue.
    np.testing.assert_allclose(spectrum(with_spectrum(prescribed)), prescribed, atol=1e-11)


def test_rows_that_are_zero_carry_eigenvalues_that_are_exactly_zero() -> None:
    prescribed = np.array([5.0, 3.0, 2.0, 0.5])
    hessian = np.zeros((9, 9))
    used = [0, 3, 4, 8]
    hessian[np.ix_(used, used)] = with_spectrum(prescribed)
    before = hessian.copy()
    eigenvalues = spectrum(hessian)
    np.testing.assert_allclose(eigenvalues[:4], prescribed, rtol=1e-13)
    assert np.array_equal(eigenvalues[4:], np.zeros(5))
    assert np.array_equal(hessian, before)


def test_pixels_that_are_always_dark_give_the_spectrum_without_them(network: Network) -> None:
    inputs = jax.random.normal(jax.random.key(1), (60, 5), jnp.float64)
    dark = inputs.at[:, 2].set(0)
    hessian = gauss_newton_hessian(network, dark)
    assert np.count_nonzero(hessian.diagonal()) < 43
    np.testing.assert_allclose(
        spectrum(hessian), np.linalg.eigvalsh(hessian)[::-1], atol=1e-13 * np.trace(hessian)
    )


def test_a_hessian_of_zeros_has_a_spectrum_of_zeros() -> None:
    assert np.array_equal(spectrum(np.zeros((3, 3))), np.zeros(3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_hessian_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(SgdEscapeError, match=r"Hessian needs finite entries.*pre-train it again"):
        spectrum(np.array([[1.0, 0.0], [0.0, bad]]))


@pytest.mark.parametrize("k", [1, 2, 13])
def test_k_equal_eigenvalues_have_effective_dimension_k(k: int) -> None:
    eigenvalues = np.concatenate([np.full(k, 3.7), np.zeros(20)])
    assert effective_dimension(eigenvalues) == pytest.approx(k, rel=1e-14)


@pytest.mark.parametrize(
    ("eigenvalues", "n"),
    [
        # (Σ h)² / Σ h² by hand.
        ([3.0, 1.0], 16 / 10),
        ([4.0, 2.0, 1.0, 1.0], 64 / 22),
        ([10.0, 1.0, 1.0, 1.0, 1.0, 1.0], 225 / 105),
    ],
)
def test_the_effective_dimension_of_prescribed_spectra(eigenvalues: list[float], n: float) -> None:
    assert effective_dimension(np.array(eigenvalues)) == pytest.approx(n, rel=1e-14)
    assert effective_dimension(7 * np.array(eigenvalues)) == pytest.approx(n, rel=1e-14)


def test_the_gap_dimension_counts_the_eigenvalues_before_the_largest_relative_gap() -> None:
    bulk = np.geomspace(1.0, 1e-6, 100)
    assert gap_dimension(np.concatenate([[90.0, 40.0, 20.0, 12.0], bulk])) == 4
    assert gap_dimension(np.concatenate([[90.0], bulk])) == 1
    assert gap_dimension(np.array([8.0, 4.0, 3.0])) == 1


def test_the_gap_dimension_looks_no_further_than_asked() -> None:
    eigenvalues = np.array([100.0, 50.0, 40.0, 30.0, 1.0, 0.9, 0.001])
    assert gap_dimension(eigenvalues, largest=3) == 1
    assert gap_dimension(eigenvalues, largest=4) == 4
    assert gap_dimension(eigenvalues, largest=6) == 6


@pytest.mark.parametrize("rest", [0.0, 1e-17, -1e-15])
def test_the_gap_dimension_of_a_matrix_of_low_rank_is_its_rank(rest: float) -> None:
    eigenvalues = np.array([100.0, 60.0, 50.0, rest, rest, rest])
    assert gap_dimension(eigenvalues) == 3


def test_the_threshold_dimension_counts_eigenvalues_above_each_fraction_of_the_largest() -> None:
    eigenvalues = np.array([100.0, 50.0, 10.0, 1.0, 0.5, 0.0])
    fractions = np.array([0.001, 0.01, 0.05, 0.5, 0.9])
    assert np.array_equal(threshold_dimension(eigenvalues, fractions), [5, 3, 3, 1, 1])
