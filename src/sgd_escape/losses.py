"""Per-example losses."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_square_loss(
    outputs: Float[Array, "examples outputs"], labels: Float[Array, "examples outputs"]
) -> Float[Array, " examples"]:
    """ℓ_μ = ½ |f(θ, x_μ) - y_μ|², so that L = (1/N) Σ ℓ_μ is Eq. (1)."""
    return 0.5 * jnp.sum((outputs - labels) ** 2, axis=-1)
