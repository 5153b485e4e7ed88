"""The Hessians of Eqs. (10) and (44), their spectra, and the number of outliers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, Float
from matfree.decomp import tridiag_sym

from sgd_escape.errors import SgdEscapeError
from sgd_escape.losses import mean_square_loss
from sgd_escape.networks import Convolution, Network, apply_network, in_float64


@jax.jit
def jacobian(
    network: Network, inputs: Float[Array, "examples inputs"]
) -> Float[Array, "examples parameters"]:
    """∇f(θ, x_μ) of a network with one output, ordered as `ravel_pytree` orders the network."""
    flat, unravel = ravel_pytree(network)

    def output(parameters: Float[Array, " parameters"], x: Float[Array, " inputs"]) -> Array:
        return apply_network(unravel(parameters), x[None])[0, 0]

    gradients: Array = jax.vmap(jax.grad(output), (None, 0))(flat, inputs)
    return gradients


def gauss_newton_hessian(
    network: Network, inputs: Float[Array, "examples inputs"], *, examples_at_once: int = 2000
) -> Float[np.ndarray, "parameters parameters"]:
    """H ≈ (1/N) Σ_μ ∇f(θ, x_μ) ∇f(θ, x_μ)ᵀ, Eq. (44), in float64.

    Only `examples_at_once` rows of the N × P matrix of gradients are held at a time.
    """
    network, inputs = in_float64((network, inputs))
    total: np.ndarray | float = 0.0
    for start in range(0, len(inputs), examples_at_once):
        rows = np.asarray(jacobian(network, inputs[start : start + examples_at_once]))
        total = total + rows.T @ rows
    return np.asarray(total / len(inputs))


def spectrum(hessian: Float[np.ndarray, "size size"]) -> Float[np.ndarray, " size"]:
    """All eigenvalues of a positive semidefinite matrix, descending, by LAPACK in float64.

    Rows that are exactly zero (weights of pixels that no example uses) carry exactly zero
    eigenvalues, so only the rest is diagonalized.
    Raises `SgdEscapeError` if an entry is not finite.
    """
    if not np.isfinite(hessian).all():
        raise SgdEscapeError(
            "the Hessian needs finite entries, but some are not: the network has NaN or "
            "infinite weights; pre-train it again"
        )
    used = np.flatnonzero(hessian.diagonal())
    positive = scipy.linalg.eigvalsh(
        hessian[np.ix_(used, used)], overwrite_a=True, check_finite=False
    )
    return np.sort(np.pad(positive, (0, len(hessian) - used.size)))[::-1]


def effective_dimension(eigenvalues: Float[np.ndarray, " size"]) -> float:
    """n = 1 / Σ p_i² with p_i = h_i / Σ_j h_j, Eq. (45)."""
    weights = eigenvalues / eigenvalues.sum()
    return float(1.0 / np.sum(weights**2))


def gap_dimension(eigenvalues: Float[np.ndarray, " size"], *, largest: int = 30) -> int:
    """The n ≤ `largest` that maximizes the relative gap h_n / h_{n+1} of descending eigenvalues.

    `largest` is the number of eigenvalues that Fig. 6(b) shows. Eigenvalues below machine
    precision times the largest are rounding and count as that floor.
    """
    floor = np.finfo(float).eps * eigenvalues[0]
    leading = np.maximum(eigenvalues[: largest + 1], floor)
    return int(np.argmax(leading[:-1] / leading[1:])) + 1


def threshold_dimension(
    eigenvalues: Float[np.ndarray, " size"], fractions: Float[np.ndarray, " fractions"]
) -> np.ndarray:
    """For each fraction, the number of eigenvalues above that fraction of the largest."""
    return np.asarray((eigenvalues > fractions[:, None] * eigenvalues.max()).sum(axis=1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SymmetricOperator:
    """A symmetric matrix A that is known by its products v ↦ Av only, in float64."""

    product: Partial
    size: int = field(metadata={"static": True})

    def __neg__(self) -> "SymmetricOperator":
        return SymmetricOperator(Partial(_negative, self.product), self.size)


class Eigenpairs(NamedTuple):
    """The largest eigenvalues, descending, and their unit eigenvectors as rows."""

    value: Float[np.ndarray, " count"]
    vector: Float[np.ndarray, "count parameters"]


def gauss_newton_operator(
    network: Network, inputs: Float[Array, "examples *inputs"]
) -> SymmetricOperator:
    """H of Eq. (44), summed over the outputs. Raises `SgdEscapeError` for convolutions."""
    return _operator(_gauss_newton, network, inputs)


def hessian_operator(
    network: Network,
    inputs: Float[Array, "examples *inputs"],
    labels: Float[Array, "examples outputs"],
) -> SymmetricOperator:
    """∇²L, the exact Hessian of the mean-square loss, Eq. (10).

    Raises `SgdEscapeError` for convolutions.
    """
    return _operator(_hessian, network, inputs, labels)


def residual_term_operator(
    network: Network,
    inputs: Float[Array, "examples *inputs"],
    labels: Float[Array, "examples outputs"],
) -> SymmetricOperator:
    """R = (1/N) Σ_μ [f(θ, x_μ) - y_μ] ∇²f(θ, x_μ), the last term of Eq. (10).

    Raises `SgdEscapeError` for convolutions.
    """
    return _operator(_residual_term, network, inputs, labels)


def leading_eigenpairs(
    matrix: SymmetricOperator, count: int, *, tolerance: float = 1e-9, max_iterations: int = 2000
) -> Eigenpairs:
    """The `count` largest eigenvalues h of a symmetric matrix A, without the matrix.

    Lanczos' method with full reorthogonalization, from a fixed random start, with more and more
    iterations until |Av - hv| ≤ `tolerance` max |h| for every pair, checked by products of their
    own. A multiple eigenvalue is found once; where fewer are different, there are fewer pairs.
    Raises `SgdEscapeError` if a product is not finite, or if the iterations do not suffice.
    """
    most = min(matrix.size, max_iterations)
    iterations = min(2 * count + 20, most)
    start = jax.random.normal(jax.random.key(0), (matrix.size,), jnp.float64)
    while True:
        pairs, scale = _ritz_pairs(count, *map(np.asarray, _lanczos(matrix, start, iterations)))
        products = np.asarray(_products(matrix, pairs.vector))
        error = np.linalg.norm(products - pairs.value[:, None] * pairs.vector, axis=1).max()
        if error <= tolerance * scale:
            return pairs
        if iterations == most:
            raise SgdEscapeError(
                f"the {count} leading eigenvalues need |Av - hv| below {tolerance * scale:.3g}, "
                f"but after {iterations} Lanczos iterations it is {error:.3g}; ask for fewer "
                "eigenvalues or raise max_iterations"
            )
        iterations = min(2 * iterations, most)


def curved(pairs: Eigenpairs) -> Eigenpairs:
    """The pairs, by descending h, whose h is positive beyond rounding."""
    kept = pairs.value > np.finfo(float).eps * pairs.vector.shape[1] * np.abs(pairs.value).max()
    return Eigenpairs(pairs.value[kept], pairs.vector[kept])


def spectral_norm(matrix: SymmetricOperator) -> float:
    """The largest |h| of a symmetric matrix, from both ends of its spectrum."""
    return float(max(leading_eigenpairs(end, 1).value[0] for end in [matrix, -matrix]))


def quadratic_forms(
    matrix: SymmetricOperator, vectors: Float[np.ndarray, "vectors size"]
) -> Float[np.ndarray, " vectors"]:
    """vᵀAv of every row v."""
    return np.asarray(np.sum(vectors * np.asarray(_products(matrix, vectors)), axis=1))


@partial(jax.jit, static_argnames="iterations")
def _lanczos(
    matrix: SymmetricOperator, start: Array, iterations: int
) -> tuple[Array, Array, Array]:
    """Orthonormal rows Q, and the diagonal of QAQᵀ with what stands beside it."""
    found = tridiag_sym(iterations, materialize=False, custom_vjp=False)(matrix.product, start)
    return found.Q_tall, *found.J_small


def _ritz_pairs(
    count: int, basis: np.ndarray, diagonal: np.ndarray, beside: np.ndarray
) -> tuple[Eigenpairs, float]:
    """The leading eigenpairs of the tridiagonal matrix, and its largest |h|."""
    scale = np.abs([diagonal[0], *beside[:1]]).max()
    # Where the Krylov space closes, what follows is rounding.
    closed = np.flatnonzero(~(beside > np.finfo(float).eps * basis.shape[1] * scale))
    kept = int(closed[0]) + 1 if closed.size else len(diagonal)
    if not np.isfinite(diagonal[:kept]).all():
        raise SgdEscapeError(
            "eigenvalues need finite products Av, but some are not: the network has NaN or "
            "infinite weights; pre-train it again"
        )
    values, vectors = scipy.linalg.eigh_tridiagonal(diagonal[:kept], beside[: kept - 1])
    leading = np.argsort(values)[::-1][:count]
    return Eigenpairs(values[leading], vectors.T[leading] @ basis[:kept]), np.abs(values).max()


@jax.jit
def _products(matrix: SymmetricOperator, vectors: Array) -> Array:
    products: Array = jax.lax.map(matrix.product, vectors)
    return products


def _operator(product: Callable[..., Array], network: Network, *data: Array) -> SymmetricOperator:
    if any(isinstance(layer, Convolution) for layer in network):
        raise SgdEscapeError(
            "products with a Hessian need a dense network, as convolutions have a backward "
            "derivative only, but the network has convolutions; use a dense one"
        )
    size = ravel_pytree(network)[0].size
    return SymmetricOperator(Partial(product, *in_float64((network, *data))), size)


def _negative(product: Partial, vector: Array) -> Array:
    opposite: Array = -product(vector)
    return opposite


def _gauss_newton(network: Network, inputs: Array, vector: Array) -> Array:
    outputs, flat = _outputs(network, inputs)
    _, along = jax.jvp(outputs, (flat,), (vector,))
    _, transposed = jax.vjp(outputs, flat)
    product: Array = transposed(along / len(inputs))[0]
    return product


def _hessian(network: Network, inputs: Array, labels: Array, vector: Array) -> Array:
    outputs, flat = _outputs(network, inputs)
    return _second_derivative(
        lambda p: jnp.mean(mean_square_loss(outputs(p), labels)), flat, vector
    )


def _residual_term(network: Network, inputs: Array, labels: Array, vector: Array) -> Array:
    outputs, flat = _outputs(network, inputs)
    weight = (outputs(flat) - labels) / len(inputs)
    return _second_derivative(lambda p: jnp.sum(weight * outputs(p)), flat, vector)


def _second_derivative(function: Callable[[Array], Array], flat: Array, vector: Array) -> Array:
    """Forward over reverse: the derivative of the gradient along a vector."""
    product: Array = jax.jvp(jax.grad(function), (flat,), (vector,))[1]
    return product


def _outputs(network: Network, inputs: Array) -> tuple[Callable[[Array], Array], Array]:
    flat, unravel = ravel_pytree(network)
    return lambda parameters: apply_network(unravel(parameters), inputs), flat
