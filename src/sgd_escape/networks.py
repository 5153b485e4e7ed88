"""Dense ReLU networks: initialization and forward pass."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

# Exact references need float64; every array of a network states its own float32.
jax.config.update("jax_enable_x64", True)


class Dense(NamedTuple):
    """One layer x ↦ x W + b."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]


Network = tuple[Dense, ...]


def glorot_uniform(
    key: Key[Array, ""], inputs: int, outputs: int
) -> Float[Array, "{inputs} {outputs}"]:
    """Weights drawn uniformly from ±√(6 / (inputs + outputs)), float32.

    Source: Glorot and Bengio, AISTATS 2010, Eq. (16).
    """
    bound = jnp.sqrt(6.0 / (inputs + outputs)).astype(jnp.float32)
    return jax.random.uniform(key, (inputs, outputs), jnp.float32, -bound, bound)


def init_network(key: Key[Array, ""], widths: Sequence[int]) -> Network:
    """A dense network of the given widths (input first), Glorot weights and zero biases."""
    keys = jax.random.split(key, len(widths) - 1)
    return tuple(
        Dense(glorot_uniform(k, inputs, outputs), jnp.zeros(outputs, jnp.float32))
        for k, inputs, outputs in zip(keys, widths[:-1], widths[1:], strict=True)
    )


def apply_network(
    network: Network, inputs: Float[Array, "examples inputs"]
) -> Float[Array, "examples outputs"]:
    """f(θ, x): ReLU after every layer but the last, which has no activation (section 5.1)."""
    *hidden, last = network
    for layer in hidden:
        inputs = jax.nn.relu(inputs @ layer.weight + layer.bias[None])
    return inputs @ last.weight + last.bias[None]
