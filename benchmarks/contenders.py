"""The measured loops, one per process: python contenders.py NAME ARGUMENT prints JSON."""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from measurement import timed

from sgd_escape import storage
from sgd_escape.batches import WithReplacement
from sgd_escape.chains import (
    Chain,
    FunctionSpaceNetwork,
    GenericNetwork,
    LinearRegression,
    gaussian_regression,
)
from sgd_escape.datasets import parity_subset
from sgd_escape.first_passage import first_passage
from sgd_escape.networks import Network, init_network
from sgd_escape.splitting import exit_rates, loss_levels

N_SAMPLES = 10_000
NETWORK_BATCH_SIZE, NETWORK_LEARNING_RATE = 10, 0.006
# Two fillings of the lanes: no lane idles, as in a long study.
RUNS = 2 * LinearRegression.lanes
# A loss ratio that takes about 10⁶ steps.
BARRIER = 2.3


def parity_problem() -> tuple[Network, np.ndarray, np.ndarray]:
    """The study's data, and a network before training: its weights do not change the speed."""
    mnist = storage.read("results/data/mnist.nc", "dataset")
    inputs, labels = parity_subset(mnist["image"].values, mnist["label"].values, N_SAMPLES)
    return init_network(jax.random.key(0), (784, 10, 1)), inputs, labels


def save_parity_problem(path: str) -> dict[str, float]:
    """The same problem for a contender that has NumPy alone."""
    (hidden, output), inputs, labels = parity_problem()
    np.savez(
        path,
        inputs=inputs,
        labels=labels,
        hidden_weight=hidden.weight,
        hidden_bias=hidden.bias,
        output_weight=output.weight,
        output_bias=output.bias,
    )
    return {}


def function_space(steps: str) -> dict[str, float]:
    network, inputs, labels = parity_problem()
    chain = FunctionSpaceNetwork.from_network(network, inputs, labels, NETWORK_LEARNING_RATE)
    return _time_engine(chain, NETWORK_BATCH_SIZE, runs=1, steps=int(steps))


def full_forward_pass(steps: str) -> dict[str, float]:
    network, inputs, labels = parity_problem()
    rate = jnp.asarray(NETWORK_LEARNING_RATE, jnp.float32)
    chain = GenericNetwork(jnp.asarray(inputs), jnp.asarray(labels)[:, None], network, rate)
    return _time_engine(chain, NETWORK_BATCH_SIZE, runs=1, steps=int(steps))


def linear_regression(steps: str) -> dict[str, float]:
    chain = gaussian_regression(jax.random.key(0), N_SAMPLES, dimension=1, learning_rate=0.1)
    return _time_engine(chain, batch_size=1, runs=RUNS, steps=int(steps))


def _time_engine(chain: Chain, batch_size: int, *, runs: int, steps: int) -> dict[str, float]:
    """Steps a second, of all runs together, with levels out of reach: no run ends early."""
    initial_loss = float(chain.loss(chain.initial_state()))
    engine = partial(
        first_passage,
        chain,
        WithReplacement(N_SAMPLES, batch_size),
        initial_loss * np.geomspace(1e6, 1e7, 24),
        jax.random.key(1),
        runs=range(runs),
    )
    measured = timed(lambda max_steps: engine(max_steps=max_steps), steps)
    speed = runs * measured["steps_per_second"]
    return measured | {"steps_per_second": speed, "initial_loss": initial_loss}


def plain_passages(calls: str) -> dict[str, float]:
    """First passages a second to a loss ratio that plain simulation still reaches."""
    chain, batches = _regression()
    level = np.array([BARRIER * float(chain.minimum_loss)])
    found: list[float] = []

    def run(count: int) -> None:
        for index in range(count):
            record = first_passage(
                chain,
                batches,
                level,
                jax.random.key(index),
                runs=range(RUNS),
                max_steps=2**40,
            )
            found.extend(record.first_passage_step[:, 0].tolist())

    measured = timed(run, int(calls))
    speed = RUNS * measured["steps_per_second"]
    return measured | {"steps_per_second": speed, "log_mean": float(np.log(np.mean(found)))}


def splitting(calls: str) -> dict[str, float]:
    """The same passages a second, if times were exponential, for the same relative error."""
    chain, batches = _regression()
    levels = loss_levels(float(chain.minimum_loss), BARRIER, 40)
    sizes = {"particles": 40, "burn_in": 100, "steps": 400, "repetitions": 16}
    found: list[float] = []

    def run(count: int) -> None:
        for index in range(count):
            rates = exit_rates(chain, batches, levels, jax.random.key(index), **sizes)
            found.extend(rates.tolist())

    measured = timed(run, int(calls))
    worth = sizes["repetitions"] * (np.mean(found) / np.std(found)) ** 2
    speed = worth * measured["steps_per_second"]
    return measured | {"steps_per_second": speed, "log_mean": float(-np.log(np.mean(found)))}


def _regression() -> tuple[LinearRegression, WithReplacement]:
    chain = gaussian_regression(jax.random.key(0), N_SAMPLES, dimension=1, learning_rate=0.1)
    return chain, WithReplacement(N_SAMPLES, 1)


def numpy_loop(steps: str) -> dict[str, float]:
    """Linear regression with d = B = 1: all runs in one array, a Python loop over the steps."""
    generator = np.random.default_rng(0)
    inputs, labels = generator.standard_normal((2, N_SAMPLES))
    curvature = np.mean(inputs**2)
    minimum = np.mean(inputs * labels) / curvature
    minimum_loss = 0.5 * np.mean((inputs * minimum - labels) ** 2)

    def run(max_steps: int) -> None:
        theta = np.full(RUNS, minimum)
        for _ in range(max_steps):
            batch = generator.integers(N_SAMPLES, size=RUNS)
            x = inputs[batch]
            theta -= 0.1 * (x * theta - labels[batch]) * x
            loss = minimum_loss + 0.5 * curvature * (theta - minimum) ** 2
            if np.any(loss > 1e6 * minimum_loss):
                break

    measured = timed(run, int(steps))
    speed = RUNS * measured["steps_per_second"]
    return measured | {"steps_per_second": speed, "initial_loss": float(minimum_loss)}


CONTENDERS = {
    contender.__name__: contender
    for contender in (
        save_parity_problem,
        function_space,
        full_forward_pass,
        linear_regression,
        numpy_loop,
        plain_passages,
        splitting,
    )
}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](sys.argv[2])))
