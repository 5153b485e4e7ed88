"""Plain SGD, Eq. (2), on a network: one pass over the data at a time."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sgd_escape.batches import Batches
from sgd_escape.errors import SgdEscapeError
from sgd_escape.losses import PerExampleLoss, mean_square_loss
from sgd_escape.networks import Network, apply_network


class Trained(NamedTuple):
    """A network and the full-data loss L(θ) after each block of steps."""

    network: Network
    training_loss: Float[Array, " epochs"]


def full_loss(
    network: Network,
    inputs: Float[Array, "examples *inputs"],
    labels: Float[Array, "examples outputs"],
    loss: PerExampleLoss = mean_square_loss,
) -> Float[Array, ""]:
    """L(θ) = (1/N) Σ ℓ_μ over all given examples; Eq. (1) for the mean-square loss."""
    return jnp.mean(loss(apply_network(network, inputs), labels))


def sgd_step(
    network: Network,
    inputs: Float[Array, "batch_size *inputs"],
    labels: Float[Array, "batch_size outputs"],
    learning_rate: Float[Array, ""] | float,
    loss: PerExampleLoss = mean_square_loss,
) -> Network:
    """θ - η ∇L_B with L_B = (1/B) Σ ℓ_μ.

    Eq. (2) prints 1/(2B) although ℓ_μ already holds ½; read literally it would halve η.
    """
    gradient = jax.grad(full_loss)(network, inputs, labels, loss)
    updated: Network = jax.tree.map(lambda p, g: p - learning_rate * g, network, gradient)
    return updated


@partial(jax.jit, static_argnames=("batches", "loss"))
def train_one_pass(
    network: Network,
    inputs: Float[Array, "examples *inputs"],
    labels: Float[Array, "examples outputs"],
    batches: Batches,
    key: Key[Array, ""],
    block: Int[Array, ""] | int,
    learning_rate: Float[Array, ""],
    loss: PerExampleLoss = mean_square_loss,
) -> Network:
    """The network after one block of `batches` (one pass over the data for `Epoch`).

    It depends on the block's number and not on who trained up to it, so that training may stop
    after any block and go on later, bit for bit.
    """

    def step(current: Network, batch: Int[Array, " batch_size"]) -> tuple[Network, None]:
        return sgd_step(current, inputs[batch], labels[batch], learning_rate, loss), None

    return jax.lax.scan(step, network, batches.draw(key, block))[0]


def train(
    network: Network,
    inputs: Float[Array, "examples *inputs"],
    labels: Float[Array, "examples outputs"],
    batches: Batches,
    key: Key[Array, ""],
    *,
    learning_rate: float,
    steps: int,
    loss: PerExampleLoss = mean_square_loss,
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
    inputs, labels, rate = jnp.asarray(inputs), jnp.asarray(labels), jnp.float32(learning_rate)
    training_loss = []
    for block in range(blocks):
        network = train_one_pass(network, inputs, labels, batches, key, block, rate, loss)
        training_loss.append(_full_loss(network, inputs, labels, loss))
    if not bool(jnp.isfinite(training_loss[-1])):
        raise SgdEscapeError(
            f"training needs a finite loss, but it became {training_loss[-1]} at "
            f"learning rate {learning_rate}; lower the learning rate"
        )
    return Trained(network, jnp.stack(training_loss))


_full_loss = partial(jax.jit, static_argnames="loss")(full_loss)
