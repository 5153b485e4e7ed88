import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from sgd_escape import SgdEscapeError
from sgd_escape.curvature import (
    Eigenpairs,
    SymmetricOperator,
    curved,
    effective_dimension,
    gap_dimension,
    gauss_newton_hessian,
    gauss_newton_operator,
    hessian_operator,
    jacobian,
    leading_eigenpairs,
    quadratic_forms,
    residual_term_operator,
    spectral_norm,
    spectrum,
    threshold_dimension,
)
from sgd_escape.networks import (
    Network,
    apply_network,
    init_convolutional_network,
    init_network,
)
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


def dense(matrix: SymmetricOperator) -> np.ndarray:
    return np.stack([matrix.product(row) for row in jnp.eye(matrix.size)])


def operator(matrix: np.ndarray) -> SymmetricOperator:
    return SymmetricOperator(Partial(jnp.matmul, jnp.asarray(matrix)), len(matrix))


def exact_hessian(network: Network, inputs: jax.Array, labels: jax.Array) -> np.ndarray:
    flat, unravel = ravel_pytree(network)
    return np.asarray(jax.hessian(lambda p: full_loss(unravel(p), inputs, labels))(flat))


def one_hidden_layer() -> Network:
    start = init_network(jax.random.key(5), [5, 4, 1])
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) + 0.1 * (a.ndim == 1), start)


def test_the_products_with_the_hessian_of_equation_44_are_those_of_the_matrix(
    network: Network, inputs: jax.Array
) -> None:
    matrix = dense(gauss_newton_operator(network, inputs))
    np.testing.assert_allclose(matrix, gauss_newton_hessian(network, inputs), atol=1e-13)


def test_the_products_with_the_exact_hessian_are_those_of_the_matrix(
    network: Network, inputs: jax.Array
) -> None:
    labels = jnp.sin(inputs[:, :1])
    expected = exact_hessian(network, inputs, labels)
    np.testing.assert_allclose(
        dense(hessian_operator(network, inputs, labels)), expected, atol=1e-13
    )


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_exact_hessian_is_that_of_equation_44_and_the_residual_term(
    outputs: int, inputs: jax.Array
) -> None:
    """Eq. (10), each term by a derivation of its own."""
    network = init_network(jax.random.key(7), [5, 4, 3, outputs])
    labels = jnp.sin(inputs[:, :outputs])
    first = dense(gauss_newton_operator(network, inputs))
    second = dense(residual_term_operator(network, inputs, labels))
    assert np.linalg.norm(second) > 0.01 * np.linalg.norm(first)
    np.testing.assert_allclose(
        dense(hessian_operator(network, inputs, labels)), first + second, atol=1e-13
    )


def test_the_residual_term_of_one_hidden_layer_couples_only_the_layers(
    inputs: jax.Array,
) -> None:
    """For f = relu(z)·a + c with z = xW + b it is (1/N) Σ r x 1[z > 0], between W and a only.

    Hence its eigenvalues are plus and minus the singular values of that block.
    """
    network = one_hidden_layer()
    labels = jnp.sin(inputs[:, :1])
    hidden, with_one = network[0], np.column_stack([inputs, np.ones(30)])
    active = np.asarray(inputs @ hidden.weight + hidden.bias[None] > 0)
    residual = np.asarray(apply_network(network, inputs) - labels)
    means = with_one.T @ (residual * active) / 30
    # One column for each output weight; W and b of its hidden unit only.
    block = np.zeros((24, 4))
    for unit in range(4):
        block[unit:20:4, unit] = means[:5, unit]
        block[20 + unit, unit] = means[5, unit]
    expected = np.zeros((29, 29))
    expected[:24, 24:28], expected[24:28, :24] = block, block.T

    found = residual_term_operator(network, inputs, labels)
    np.testing.assert_allclose(dense(found), expected, atol=1e-14)
    singular = np.linalg.svd(block, compute_uv=False)
    assert spectral_norm(found) == pytest.approx(singular[0], rel=1e-9)
    assert leading_eigenpairs(-found, 1).value[0] == pytest.approx(singular[0], rel=1e-9)


def test_lanczos_finds_the_leading_eigenpairs_that_lapack_finds(
    network: Network, inputs: jax.Array
) -> None:
    labels = jnp.sin(inputs[:, :1])
    for matrix in [
        gauss_newton_operator(network, inputs),
        hessian_operator(network, inputs, labels),
    ]:
        values, vectors = np.linalg.eigh(dense(matrix))
        found = leading_eigenpairs(matrix, 6)
        np.testing.assert_allclose(found.value, values[:-7:-1], rtol=1e-10)
        overlap = np.sum(found.vector * vectors.T[:-7:-1], axis=1)
        np.testing.assert_allclose(np.abs(overlap), 1, atol=1e-10)
        np.testing.assert_allclose(found.vector @ found.vector.T, np.eye(6), atol=1e-12)


def test_products_with_a_float32_network_are_taken_in_float64(
    network: Network, inputs: jax.Array
) -> None:
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (network, inputs))
    found = leading_eigenpairs(gauss_newton_operator(*single), 3).value
    np.testing.assert_allclose(found, spectrum(gauss_newton_hessian(*single))[:3], rtol=1e-12)


def test_lanczos_goes_on_until_crowded_eigenvalues_have_converged() -> None:
    # Relative gaps of 1/400: the first 30 iterations are far from enough.
    prescribed = np.linspace(0.5, 1, 200)[::-1]
    found = leading_eigenpairs(operator(with_spectrum(prescribed)), 5)
    np.testing.assert_allclose(found.value, prescribed[:5], rtol=1e-12)


def test_eigenvalues_that_did_not_converge_are_refused() -> None:
    matrix = operator(with_spectrum(np.linspace(0.5, 1, 200)))
    with pytest.raises(SgdEscapeError, match=r"5 leading .* after 40 Lanczos.*raise max_iter"):
        leading_eigenpairs(matrix, 5, max_iterations=40)


@pytest.mark.parametrize(
    ("prescribed", "count"),
    [
        ([7.0, 4.0, 2.0, *[0.0] * 30], 4),
        ([7.0, 7.0, 2.0, *[-1.0] * 30], 3),
        ([0.0] * 33, 1),
    ],
)
def test_a_closed_krylov_space_holds_every_different_eigenvalue_once(
    prescribed: list[float], count: int
) -> None:
    matrix = operator(with_spectrum(np.array(prescribed)))
    different = np.unique(prescribed)[::-1]
    np.testing.assert_allclose(leading_eigenpairs(matrix, count).value, different, atol=1e-12)
    np.testing.assert_array_equal(
        leading_eigenpairs(matrix, count + 5).value, leading_eigenpairs(matrix, count).value
    )


def test_only_directions_with_curvature_beyond_rounding_are_curved() -> None:
    pairs = Eigenpairs(np.array([3.0, 1e-15, 0.0, -2.0]), np.eye(4))
    np.testing.assert_array_equal(curved(pairs).value, [3.0])
    np.testing.assert_array_equal(curved(pairs).vector, np.eye(4)[:1])
    assert len(curved(Eigenpairs(np.zeros(2), np.eye(4)[:2])).value) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_products_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(SgdEscapeError, match=r"finite products Av.*pre-train it again"):
        leading_eigenpairs(operator(np.diag([1.0, 2.0, bad])), 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_spectral_norm_is_found_at_either_end(sign: int) -> None:
    matrix = with_spectrum(sign * np.array([-9.0, -1.0, 0.5, 3.0, 8.0]))
    assert spectral_norm(operator(matrix)) == pytest.approx(9, rel=1e-12)


def test_quadratic_forms_along_the_eigenvectors_are_the_eigenvalues() -> None:
    matrix = with_spectrum(np.array([-9.0, -1.0, 0.5, 3.0, 8.0]))
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(quadratic_forms(operator(matrix), 2 * vectors.T), 4 * values)


def test_products_with_the_hessian_of_convolutions_are_refused() -> None:
    network = init_convolutional_network(jax.random.key(0), 4, 1, (2,), 1, layers_per_stack=1)
    images, labels = jnp.ones((3, 4, 4, 1)), jnp.ones((3, 1))
    for make in [
        lambda: gauss_newton_operator(network, images),
        lambda: hessian_operator(network, images, labels),
        lambda: residual_term_operator(network, images, labels),
    ]:
        with pytest.raises(SgdEscapeError, match="need a dense network"):
            make()
