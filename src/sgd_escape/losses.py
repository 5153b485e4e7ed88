"""Per-example losses of a network's outputs, and their derivatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PerExampleLoss = Callable[[Array, Array], Array]


def mean_square_loss(
    outputs: Float[Array, "examples outputs"], labels: Float[Array, "examples outputs"]
) -> Float[Array, " examples"]:
    """ℓ_μ = ½ |f(θ, x_μ) - y_μ|², so that L = (1/N) Σ ℓ_μ is Eq. (1)."""
    return 0.5 * jnp.sum((outputs - labels) ** 2, axis=-1)


def cross_entropy_loss(
    outputs: Float[Array, "examples classes"], labels: Float[Array, "examples classes"]
) -> Float[Array, " examples"]:
    """ℓ_μ = -log softmax(f)_c = log(1 + Σ_{j≠c} e^{f_j - f_c}), c the class of a one-hot label.

    The second form keeps its relative precision, and that of its derivative, at losses below
    machine precision, where N ∝ L² is to be seen (Appendix D).
    """
    margins = outputs - jnp.sum(labels * outputs, axis=-1, keepdims=True)
    return jax.nn.softplus(jax.nn.logsumexp(jnp.where(labels > 0, -jnp.inf, margins), axis=-1))


def output_gradient(
    loss: PerExampleLoss,
    outputs: Float[Array, "examples outputs"],
    labels: Float[Array, "examples outputs"],
) -> Float[Array, "examples outputs"]:
    """∂ℓ_μ/∂f of every example: f - y for mean-square, softmax(f) - y for cross-entropy."""
    gradient: Array = jax.grad(lambda f: jnp.sum(loss(f, labels)))(outputs)
    return gradient
