import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape import SgdEscapeError
from sgd_escape.batches import Batches, Epoch, WithReplacement
from sgd_escape.networks import Dense, Network, init_network
from sgd_escape.training import full_loss, sgd_step, train

KEY = jax.random.key(5)


def linear_network(weight: np.ndarray, bias: float) -> Network:
    return (Dense(jnp.asarray(weight)[:, None], jnp.asarray([bias])),)


def data(n: int, inputs: int, dtype: type = np.float64) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, inputs))
    return jnp.asarray(x, dtype), jnp.asarray(np.sign(x[:, :1]) + 0.1, dtype)


def as_float64(network: Network) -> Network:
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), network)


def linear_gradients(weight: np.ndarray, bias: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """∇ℓ_μ of f = x·w + b by hand, examples × (w, b)."""
    error = x @ weight + bias - y
    return error[:, None] * np.column_stack([x, np.ones(len(x))])


def step_of(network: Network, x: jax.Array, y: jax.Array, rate: float) -> np.ndarray:
    """The change of (w, b) of a linear network in one step."""
    (old,), (new,) = network, sgd_step(network, x, y, rate)
    return np.append(new.weight - old.weight, new.bias - old.bias)


def test_the_full_loss_is_half_the_mean_squared_error() -> None:
    x, y = data(40, 3)
    weight, bias = np.array([1.0, -2.0, 0.5]), 0.3
    expected = np.mean((np.asarray(x) @ weight + bias - np.asarray(y)[:, 0]) ** 2) / 2
    loss = float(full_loss(linear_network(weight, bias), x, y))
    assert loss == pytest.approx(expected, rel=1e-13)


def test_a_step_is_the_learning_rate_times_the_mean_gradient_of_the_batch() -> None:
    x, y = data(8, 3)
    weight, bias = np.array([1.0, -2.0, 0.5]), 0.3
    gradient = linear_gradients(weight, bias, np.asarray(x), np.asarray(y)[:, 0]).mean(0)
    step = step_of(linear_network(weight, bias), x, y, 0.07)
    np.testing.assert_allclose(step, -0.07 * gradient, rtol=1e-12)


def test_a_step_of_a_deep_network_is_minus_eta_times_the_slope_of_the_loss() -> None:
    x, y = data(12, 3)
    network = as_float64(init_network(KEY, [3, 5, 4, 1]))
    after = sgd_step(network, x, y, 1.0)
    direction = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size) + 1.0).reshape(a.shape), network)
    h = 1e-6

    def along(t: float) -> jax.Array:
        return full_loss(jax.tree.map(lambda p, v: p + t * v, network, direction), x, y)

    products = jax.tree.map(lambda p, q, v: jnp.sum((p - q) * v), network, after, direction)
    slope = float((along(h) - along(-h)) / (2 * h))
    # A central difference errs by h² and by rounding/h, both below 1e-9.
    assert float(sum(jax.tree.leaves(products))) == pytest.approx(slope, rel=1e-7)


def test_over_all_batches_the_step_has_the_mean_and_covariance_of_equation_8() -> None:
    """All N^B batches with replacement: mean -η∇L, covariance η²/B times that of ∇ℓ_μ."""
    x, y = data(5, 2)
    weight, bias, rate, batch_size = np.array([0.7, -0.4]), 0.2, 0.3, 3
    network = linear_network(weight, bias)
    gradients = linear_gradients(weight, bias, np.asarray(x), np.asarray(y)[:, 0])
    batches = jnp.asarray(list(itertools.product(range(5), repeat=batch_size)))

    def change(batch: jax.Array) -> jax.Array:
        (new,) = sgd_step(network, x[batch], y[batch], rate)
        return jnp.concatenate([new.weight[:, 0] - weight, new.bias - bias])

    steps = np.asarray(jax.vmap(change)(batches))
    np.testing.assert_allclose(steps.mean(0), -rate * gradients.mean(0), rtol=1e-12)
    expected = rate**2 / batch_size * np.cov(gradients, rowvar=False, bias=True)
    np.testing.assert_allclose(np.cov(steps, rowvar=False, bias=True), expected, rtol=1e-11)


@pytest.mark.parametrize("batches", [Epoch(33, 8), WithReplacement(33, 8, 4)], ids=str)
def test_training_is_the_plain_loop_over_the_same_batches(batches: Batches) -> None:
    x, y = data(33, 4, np.float32)
    start = network = init_network(KEY, [4, 6, 1])
    losses = []
    for block in range(3):
        for batch in batches.draw(KEY, jnp.asarray(block)):
            network = sgd_step(network, x[batch], y[batch], jnp.float32(0.05))
        losses.append(full_loss(network, x, y))
    trained = train(
        start, x, y, batches, KEY, learning_rate=0.05, steps=3 * batches.steps_per_block
    )
    # Twelve float32 steps whose sums may be taken in another order.
    np.testing.assert_allclose(trained.training_loss, losses, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(trained.network), jax.tree.leaves(network), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_last_recorded_loss_is_that_of_the_network_returned_and_training_lowers_it() -> None:
    x, y = data(60, 4, np.float32)
    start = init_network(KEY, [4, 6, 1])
    trained = train(start, x, y, Epoch(60, 10), KEY, learning_rate=0.05, steps=60)
    assert trained.training_loss.shape == (10,)
    last = float(full_loss(trained.network, x, y))
    # The same float32 mean, compiled within the loop and outside of it.
    assert float(trained.training_loss[-1]) == pytest.approx(last, rel=1e-6)
    assert trained.training_loss[-1] < trained.training_loss[0] < full_loss(start, x, y)


@pytest.mark.parametrize("steps", [0, 5, 7])
def test_training_needs_a_whole_number_of_passes(steps: int) -> None:
    x, y = data(60, 4, np.float32)
    network = init_network(KEY, [4, 2, 1])
    with pytest.raises(SgdEscapeError, match=rf"passes of 6 steps, but {steps} .* multiple of 6"):
        train(network, x, y, Epoch(60, 10), KEY, learning_rate=0.05, steps=steps)


def test_training_that_diverges_says_so() -> None:
    x, y = data(60, 4, np.float32)
    network = init_network(KEY, [4, 6, 1])
    with pytest.raises(SgdEscapeError, match=r"finite loss, but .* at learning rate 500"):
        train(network, x, y, Epoch(60, 10), KEY, learning_rate=500.0, steps=60)
