"""The JAX contenders of the noise: python noise_contenders.py NAME ARGUMENTS prints JSON.

Their problem is one .npz for all, written by `save_problem`: inputs, one-hot labels and the
weights of the network before training, which do not change the speed.
"""

import json
import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from measurement import timed

from sgd_escape import gradient_noise, storage
from sgd_escape.datasets import channel_inputs, flat_inputs, parity_subset
from sgd_escape.decoupling import Spectra, spectra
from sgd_escape.gradient_noise import output_gram
from sgd_escape.losses import mean_square_loss
from sgd_escape.networks import (
    MaxPool,
    Network,
    apply_network,
    init_convolutional_network,
    init_network,
)

CHECKED_EXAMPLES, DIRECTIONS = 100, 20
BATCH_SIZE, LEARNING_RATE, CHECKED_STEPS = 100, 0.1, 3
Problem = tuple[Network, np.ndarray, np.ndarray]
Sums = tuple[jax.Array, jax.Array, Network]


def initial_network(kind: str) -> Network:
    key = jax.random.key(0)
    if kind == "dense":
        return init_network(key, (784, 2000, 2000, 2000, 10))
    return init_convolutional_network(key, 32, 3, (64, 128, 256), 10)


def save_problem(path: str, kind: str, n_samples: str) -> dict[str, float]:
    name, file_kind, inputs_of = {
        "dense": ("fashion_mnist", "dataset", flat_inputs),
        "convolutional": ("cifar10", "color_dataset", channel_inputs),
    }[kind]
    data = storage.read(f"results/data/{name}.nc", file_kind)
    rows = slice(int(n_samples))
    labels = np.eye(10, dtype=np.float32)[data["label"].values[rows]]
    arrays = {f"array{i}": a for i, a in enumerate(jax.tree.leaves(initial_network(kind)))}
    np.savez(path, inputs=inputs_of(data["image"].values[rows]), labels=labels, **arrays)
    return {}


def load_problem(path: str, kind: str) -> Problem:
    saved = np.load(path)
    structure = jax.tree.structure(jax.eval_shape(lambda: initial_network(kind)))
    arrays = [jnp.asarray(saved[f"array{i}"]) for i in range(structure.num_leaves)]
    return structure.unflatten(arrays), saved["inputs"], saved["labels"]


def layerwise(path: str, kind: str, examples: str, examples_at_once: str) -> dict[str, float]:
    measure = partial(gradient_noise.noise_strength, examples_at_once=int(examples_at_once))

    def loss_and_noise(problem: Problem) -> tuple[float, float]:
        measured = measure(*problem, mean_square_loss)
        return measured.loss, measured.noise_strength

    return _time_noise(loss_and_noise, load_problem(path, kind), int(examples))


def per_example(path: str, kind: str, examples: str, examples_at_once: str) -> dict[str, float]:
    """vmap(grad): the gradient of every example, as many of them at once as are asked for."""
    at_once = int(examples_at_once)

    def loss_and_noise(problem: Problem) -> tuple[float, float]:
        network, inputs, labels = problem
        sums: Sums = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, network))
        for start in range(0, len(inputs), at_once):
            rows = slice(start, start + at_once)
            sums = _add_gradients(sums, network, inputs[rows], labels[rows])
        loss, squares, gradient = jax.tree.map(lambda total: total / len(inputs), sums)
        mean = sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))
        return float(loss), float(squares - mean)

    return _time_noise(loss_and_noise, load_problem(path, kind), int(examples))


@partial(jax.jit, donate_argnums=0)
def _add_gradients(sums: Sums, network: Network, inputs: jax.Array, labels: jax.Array) -> Sums:
    def of_one(parameters: Network, x: jax.Array, y: jax.Array) -> jax.Array:
        return mean_square_loss(_patches_network(parameters, x[None]), y[None])[0]

    losses, rows = jax.vmap(jax.value_and_grad(of_one), (None, 0, 0))(network, inputs, labels)
    squares = sum(jnp.sum(row**2, dtype=jnp.float64) for row in jax.tree.leaves(rows))
    total = jax.tree.map(lambda mean, row: mean + jnp.sum(row, axis=0), sums[2], rows)
    return sums[0] + jnp.sum(losses, dtype=jnp.float64), sums[1] + squares, total


def _patches_network(network: Network, values: jax.Array) -> jax.Array:
    """f(θ, x) with every convolution as patches @ weights, which vmap(grad) differentiates fast."""
    for depth, layer in enumerate(network):
        if isinstance(layer, MaxPool):
            values = layer.pool(values)
            continue
        unfolded = layer.unfold(values if depth == 0 else jax.nn.relu(values))
        values = unfolded @ layer.weight.reshape(unfolded.shape[-1], -1) + layer.bias
    return values


def _time_noise(
    loss_and_noise: Callable[[Problem], tuple[float, float]], problem: Problem, examples: int
) -> dict[str, float]:
    network, inputs, labels = problem
    measured = timed(lambda n: loss_and_noise((network, inputs[:n], labels[:n])), examples)
    few = network, inputs[:CHECKED_EXAMPLES], labels[:CHECKED_EXAMPLES]
    loss, noise = loss_and_noise(few)
    return measured | {"loss": loss, "noise_strength": noise}


def training_step(path: str, kind: str, examples: str) -> dict[str, float]:
    """Plain SGD, all steps in one compiled loop, batch after batch."""
    network, inputs, labels = load_problem(path, kind)
    batches = [a.reshape(-1, BATCH_SIZE, *a.shape[1:]) for a in (inputs, labels)]

    def batch_loss(parameters: Network, step: jax.Array | int) -> jax.Array:
        x, y = (jnp.asarray(b)[step % len(b)] for b in batches)
        return jnp.mean(mean_square_loss(apply_network(parameters, x), y))

    def advance(step: jax.Array, parameters: Network) -> Network:
        gradient = jax.grad(batch_loss)(parameters, step)
        return jax.tree.map(lambda p, g: p - jnp.float32(LEARNING_RATE) * g, parameters, gradient)

    train = jax.jit(lambda steps: jax.lax.fori_loop(0, steps, advance, network))
    measured = timed(lambda n: jax.block_until_ready(train(n // BATCH_SIZE)), int(examples))
    return measured | {"loss": float(batch_loss(train(CHECKED_STEPS), CHECKED_STEPS))}


def spectrum(examples: str) -> dict[str, float]:
    """Eq. (7) by the N × N route, 784-100-100-1."""
    network = init_network(jax.random.key(0), (784, 100, 100, 1))
    mnist = storage.read("results/data/mnist.nc", "dataset")
    inputs, labels = parity_subset(mnist["image"].values, mnist["label"].values, int(examples))
    losses = np.asarray(mean_square_loss(apply_network(network, inputs), labels[:, None]))

    def both_spectra(n: int) -> Spectra:
        return spectra(output_gram(network, inputs[:n]), losses[:n], DIRECTIONS)

    return timed(both_spectra, int(examples))


CONTENDERS = {
    contender.__name__: contender
    for contender in (save_problem, layerwise, per_example, training_step, spectrum)
}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](*sys.argv[2:])))
