"""The Hessian of Eq. (44), its spectrum, and estimators of the number of its outliers."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from sgd_escape.errors import SgdEscapeError
from sgd_escape.networks import Network, apply_network


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
    network, inputs = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (network, inputs))
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
