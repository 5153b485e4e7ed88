"""Loss and noise strength along a training: Figs. 2 and 5."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sgd_escape.batches import Batches
from sgd_escape.checkpoints import Checkpoint, resumable
from sgd_escape.gradient_noise import noise_strength, trace_factor
from sgd_escape.losses import PerExampleLoss
from sgd_escape.networks import Network
from sgd_escape.training import train_one_pass


class NoiseDynamics(NamedTuple):
    """Over all N examples, at the initialization (epoch 0) and after each epoch.

    `noise_strength` is (1/N) Σ |∇ℓ_μ|² - |∇L|², `squared_mean_gradient` its second term |∇L|², and
    `trace_factor` and `weighted_trace_factor` are those of `gradient_noise.TraceFactor`, NaN at the
    epochs where they were not asked for.
    """

    loss: Float[np.ndarray, " epochs"]
    noise_strength: Float[np.ndarray, " epochs"]
    squared_mean_gradient: Float[np.ndarray, " epochs"]
    trace_factor: Float[np.ndarray, " epochs"]
    weighted_trace_factor: Float[np.ndarray, " epochs"]


def noise_dynamics(
    network: Network,
    inputs: Float[np.ndarray, "examples *inputs"],
    labels: Float[np.ndarray, "examples outputs"],
    batches: Batches,
    key: Key[Array, ""],
    loss: PerExampleLoss,
    checkpoint: Checkpoint,
    *,
    learning_rate: float,
    epochs: int,
    trace_epochs: Sequence[int],
    examples_at_once: int,
) -> NoiseDynamics:
    """Train for `epochs` passes and measure before the first and after each.

    Killed, it goes on from `checkpoint`, bit for bit. A training that diverges is an outcome: from
    the epoch on after which its loss or its noise strength is not finite, all numbers are NaN.
    """
    x, y, rate = jnp.asarray(inputs), jnp.asarray(labels), jnp.float32(learning_rate)

    def measure_and_train(
        state: tuple[Network, NoiseDynamics], epoch: int
    ) -> tuple[Network, NoiseDynamics]:
        current, measured = state
        noise = noise_strength(current, x, y, loss, examples_at_once=examples_at_once)
        if not np.isfinite([noise.loss, noise.noise_strength]).all():
            return current, measured
        trace = (np.nan, np.nan)
        if epoch in trace_epochs:
            trace = trace_factor(current, x, y, loss, examples_at_once=examples_at_once)
        row = (noise.loss, noise.noise_strength, noise.squared_mean_gradient, *trace)
        measured = NoiseDynamics(*(array.copy() for array in measured))
        for array, value in zip(measured, row, strict=True):
            array[epoch] = value
        if epoch < epochs:
            current = train_one_pass(current, x, y, batches, key, epoch, rate, loss)
        return current, measured

    measured = NoiseDynamics(*(np.full(epochs + 1, np.nan) for _ in NoiseDynamics._fields))
    return resumable(measure_and_train, (network, measured), epochs + 1, checkpoint)[1]


def spaced_epochs(epochs: int, count: int) -> list[int]:
    """0, `epochs`, and whole numbers between, `count` > 2 at most, evenly in their logarithm."""
    return sorted({0, *np.rint(np.geomspace(1, epochs, count - 1)).astype(int).tolist()})
