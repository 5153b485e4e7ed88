"""Plain SGD, Eq. (2), on a network: pre-training with the loss recorded after every pass."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sgd_escape.batches import Batches
from sgd_escape.errors import SgdEscapeError
from sgd_escape.losses import mean_square_loss
from sgd_escape.networks import Network, apply_network


class Trained(NamedTuple):
    """A network and the full-data loss L(θ) after each block of steps."""

    network: Network
    training_loss: Float[Array, " epochs"]


def full_loss(
    network: Network, inputs: Float[Array, "examples inputs"], labels: Float[Array, "examples 1"]
) -> Float[Array, ""]:
    """L(θ) of Eq. (1) over all given examples."""
    return jnp.mean(mean_square_loss(apply_network(network, inputs), labels))


def sgd_step(
    network: Network,
    inputs: Float[Array, "batch_size inputs"],
    labels: Float[Array, "batch_size 1"],
    learning_rate: Float[Array, ""] | float,
) -> Network:
    """θ - η ∇L_B with L_B = (1/B) Σ ℓ_μ.

    Eq. (2) prints 1/(2B) although ℓ_μ already holds ½; read literally it would halve η.
    """
    gradient = jax.grad(full_loss)(network, inputs, labels)
    updated: Network = jax.tree.map(lambda p, g: p - learning_rate * g, network, gradient)
    return updated


def train(
    network: Network,
    inputs: Float[Array, "examples inputs"],
    labels: Float[Array, "examples 1"],
    batches: Batches,
    key: Key[Array, ""],
    *,
    learning_rate: float,
    steps: int,
) -> Trained:
    """SGD for `steps` iterations from `network`.

    `training_loss[j]` is the loss over all examples after block j of `batches` (one pass for
    `Epoch`). Raises `SgdEscapeError` if the final loss is not finite, or if `steps` is not a
    whole number of blocks.
    """
    blocks, rest = divmod(steps, batches.steps_per_block)
    if rest or not blocks:
        raise SgdEscapeError(
            f"training needs a whole number of passes of {batches.steps_per_block} steps, "
            f"but {steps} steps were asked for; choose a multiple of {batches.steps_per_block}"
        )
    rate = jnp.float32(learning_rate)
    trained: Trained = _train(network, inputs, labels, batches, key, rate, blocks)
    if not bool(jnp.isfinite(trained.training_loss[-1])):
        raise SgdEscapeError(
            f"training needs a finite loss, but it became {trained.training_loss[-1]} at "
            f"learning rate {learning_rate}; lower the learning rate"
        )
    return trained


@partial(jax.jit, static_argnames=("batches", "blocks"))
def _train(
    network: Network,
    inputs: Float[Array, "examples inputs"],
    labels: Float[Array, "examples 1"],
    batches: Batches,
    key: Key[Array, ""],
    rate: Float[Array, ""],
    blocks: int,
) -> Trained:
    def step(current: Network, batch: Int[Array, " batch_size"]) -> tuple[Network, None]:
        return sgd_step(current, inputs[batch], labels[batch], rate), None

    def one_pass(current: Network, block: Int[Array, ""]) -> tuple[Network, Float[Array, ""]]:
        current, _ = jax.lax.scan(step, current, batches.draw(key, block))
        return current, full_loss(current, inputs, labels)

    return Trained(*jax.lax.scan(one_pass, network, jnp.arange(blocks)))
