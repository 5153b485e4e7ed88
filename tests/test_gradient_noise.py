from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sgd_escape import SgdEscapeError
from sgd_escape.batches import Batches, Epoch, WithReplacement
from sgd_escape.curvature import jacobian
from sgd_escape.gradient_noise import (
    noise_covariance,
    noise_strength,
    output_gram,
    squared_norm_and_gradient,
    trace_factor,
)
from sgd_escape.losses import PerExampleLoss, cross_entropy_loss, mean_square_loss
from sgd_escape.networks import (
    Network,
    apply_network,
    init_convolutional_network,
    init_network,
)

LOSSES = [mean_square_loss, cross_entropy_loss]
Problem = tuple[Network, jax.Array, jax.Array]


def with_biases(network: Network, dtype: type) -> Network:
    return jax.tree.map(lambda a: jnp.asarray(a, dtype) + dtype(0.1) * (a.ndim == 1), network)


def dense(seed: int, dtype: type = np.float64) -> Problem:
    """A random dense network of random sizes, and one-hot labelled examples."""
    rng = np.random.default_rng(seed)
    *widths, classes = rng.integers(2, 20, size=rng.integers(2, 5)).tolist()
    n = int(rng.integers(2, 40))
    network = with_biases(init_network(jax.random.key(seed), [*widths, classes]), dtype)
    labels = np.eye(classes)[rng.integers(classes, size=n)]
    return network, jnp.asarray(rng.normal(size=(n, widths[0])), dtype), jnp.asarray(labels, dtype)


def convolutional(seed: int, dtype: type = np.float64) -> Problem:
    """Two stacks of two convolutions, the second on few pixels and wide, and examples."""
    rng = np.random.default_rng(seed)
    channels, width, classes = rng.integers(2, 5, size=3).tolist()
    n = int(rng.integers(6, 12))
    network = init_convolutional_network(
        jax.random.key(seed), 4, channels, [width, 16], classes, layers_per_stack=2
    )
    labels = np.eye(classes)[rng.integers(classes, size=n)]
    images = jnp.asarray(rng.uniform(size=(n, 4, 4, channels)), dtype)
    return with_biases(network, dtype), images, jnp.asarray(labels, dtype)


def one_output(n: int) -> tuple[Network, jax.Array, np.ndarray]:
    """A 4-5-3-1 network of 47 parameters, inputs, and positive losses of the examples."""
    network = with_biases(init_network(jax.random.key(2), [4, 5, 3, 1]), np.float64)
    inputs = jax.random.normal(jax.random.key(3), (n, 4), jnp.float64)
    losses = mean_square_loss(apply_network(network, inputs), jnp.sign(inputs[:, :1]))
    return network, inputs, np.asarray(losses)


def gradients(problem: Problem, loss: PerExampleLoss) -> np.ndarray:
    """∇ℓ_μ of every example by automatic differentiation, in float64."""
    network, inputs, labels = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), problem)
    flat, unravel = ravel_pytree(network)

    def of_one(p: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return loss(apply_network(unravel(p), x[None]), y[None])[0]

    return np.asarray(jax.jit(jax.vmap(jax.grad(of_one), (None, 0, 0)))(flat, inputs, labels))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make", [dense, convolutional])
@pytest.mark.parametrize("seed", range(3))
# float64: sums of about a thousand products. float32: the bound.
@pytest.mark.parametrize(("dtype", "rel"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_the_layerwise_noise_strength_is_that_of_the_per_example_gradients(
    loss: PerExampleLoss, make: Callable[..., Problem], seed: int, dtype: type, rel: float
) -> None:
    problem = make(seed, dtype)
    rows = gradients(problem, loss)
    measured = noise_strength(*problem, loss)
    mean_squared, squared_mean = np.mean(np.sum(rows**2, axis=1)), np.sum(rows.mean(0) ** 2)
    assert measured.mean_squared_gradient == pytest.approx(mean_squared, rel=rel)
    assert measured.squared_mean_gradient == pytest.approx(squared_mean, rel=rel)
    centred = np.mean(np.sum((rows - rows.mean(0)) ** 2, axis=1))
    assert measured.noise_strength == pytest.approx(centred, rel=rel)
    network, inputs, labels = problem
    full = float(jnp.mean(loss(jax.jit(apply_network)(network, inputs), labels)))
    assert measured.loss == pytest.approx(full, rel=rel)


@pytest.mark.parametrize("examples_at_once", [1, 3, 7, 8, 100])
def test_the_noise_strength_does_not_depend_on_the_examples_at_once(examples_at_once: int) -> None:
    problem = convolutional(0)
    whole = noise_strength(*problem, cross_entropy_loss)
    chunked = noise_strength(*problem, cross_entropy_loss, examples_at_once=examples_at_once)
    np.testing.assert_allclose(chunked, whole, rtol=1e-12)


def test_examples_that_are_all_alike_make_no_noise() -> None:
    network, inputs, labels = dense(1)
    alike = jnp.repeat(inputs[:1], 9, axis=0), jnp.repeat(labels[:1], 9, axis=0)
    measured = noise_strength(network, *alike, mean_square_loss)
    assert abs(measured.noise_strength) < 1e-14 * measured.mean_squared_gradient


@pytest.mark.parametrize(
    ("positions", "fan_in", "outputs"),
    # The Gram matrices of the positions are the smaller of the two in the second and the third.
    [(16, 9, 2), (4, 18, 16), (1, 7, 5), (1, 7, 1), (30, 1, 1)],
)
def test_the_norm_of_a_layers_gradient_is_the_same_by_both_routes(
    positions: int, fan_in: int, outputs: int
) -> None:
    rng = np.random.default_rng(0)
    a, delta = rng.normal(size=(positions, fan_in)), rng.normal(size=(positions, outputs))
    expected = np.sum((a.T @ delta) ** 2) + np.sum(delta.sum(0) ** 2)
    norm, gradient = squared_norm_and_gradient(jnp.asarray(a), jnp.asarray(delta))
    assert float(norm) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, delta.T @ a, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("make", [dense, convolutional])
@pytest.mark.parametrize("examples_at_once", [3, 100])
def test_the_trace_factor_sums_the_squared_gradients_of_all_outputs(
    make: Callable[..., Problem], examples_at_once: int
) -> None:
    network, inputs, labels = make(0)
    flat, unravel = ravel_pytree(network)
    of_all = jax.jit(jax.jacrev(lambda p: apply_network(unravel(p), inputs)))(flat)
    traces = np.sum(np.asarray(of_all) ** 2, axis=(1, 2))
    losses = np.asarray(cross_entropy_loss(apply_network(network, inputs), labels))
    factor = trace_factor(
        network, inputs, labels, cross_entropy_loss, examples_at_once=examples_at_once
    )
    assert factor.mean == pytest.approx(traces.mean(), rel=1e-12)
    assert factor.weighted == pytest.approx(np.average(traces, weights=losses), rel=1e-12)


def test_with_one_output_the_noise_is_twice_the_loss_times_the_weighted_trace_factor() -> None:
    """|∇ℓ_μ|² = 2 ℓ_μ |∇f|² for each example: no approximation but that ∇L∇Lᵀ is set apart."""
    network, inputs, _ = one_output(20)
    labels = jnp.sin(inputs[:, :1])
    measured = noise_strength(network, inputs, labels, mean_square_loss)
    factor = trace_factor(network, inputs, labels, mean_square_loss)
    predicted = 2 * measured.loss * factor.weighted
    assert measured.mean_squared_gradient == pytest.approx(predicted, rel=1e-12)


def test_equal_losses_make_the_noise_twice_the_loss_times_the_trace_factor() -> None:
    """Eq. (9): with |f - y| the same for every example Eq. (7) is exact; ∇L∇Lᵀ is set apart."""
    network, inputs, _ = one_output(20)
    labels = apply_network(network, inputs) + 0.3 * jnp.sign(inputs[:, :1])
    measured = noise_strength(network, inputs, labels, mean_square_loss)
    predicted = 2 * measured.loss * trace_factor(network, inputs, labels, mean_square_loss).mean
    assert measured.mean_squared_gradient == pytest.approx(predicted, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make", [dense, convolutional])
def test_the_trace_of_the_covariance_times_b_is_the_noise_strength(
    make: Callable[..., Problem], loss: PerExampleLoss
) -> None:
    problem = make(2)
    covariance = noise_covariance(*problem, loss, 7, replacement=True)
    measured = noise_strength(*problem, loss)
    assert 7 * np.trace(covariance) == pytest.approx(measured.noise_strength, rel=1e-12)


@pytest.mark.parametrize("examples_at_once", [3, 2000])
@pytest.mark.parametrize(("replacement", "factor"), [(True, 1 / 4), (False, (12 - 4) / 11 / 4)])
def test_the_covariance_is_that_of_equation_8(
    replacement: bool, factor: float, examples_at_once: int
) -> None:
    network, inputs, _ = one_output(12)
    problem = network, inputs, jnp.sign(inputs[:, :1])
    expected = factor * np.cov(gradients(problem, mean_square_loss), rowvar=False, bias=True)
    covariance = noise_covariance(
        *problem, mean_square_loss, 4, replacement=replacement, examples_at_once=examples_at_once
    )
    np.testing.assert_allclose(covariance, expected, atol=1e-13 * np.trace(expected))


def test_a_batch_of_all_examples_has_no_noise_without_replacement() -> None:
    network, inputs, labels = dense(1)
    covariance = noise_covariance(
        network, inputs, labels, mean_square_loss, len(inputs), replacement=False
    )
    assert not covariance.any()


@pytest.mark.parametrize("batch_size", [0, 13])
def test_a_batch_without_replacement_must_fit_into_the_examples(batch_size: int) -> None:
    network, inputs, _ = one_output(12)
    with pytest.raises(SgdEscapeError, match=rf"from 1 to the 12 examples, but it is {batch_size}"):
        noise_covariance(
            network, inputs, inputs[:, :1], mean_square_loss, batch_size, replacement=False
        )


@pytest.mark.parametrize(
    ("batches", "replacement"),
    [(WithReplacement(9, 3, 1), True), (Epoch(9, 3), False)],
    ids=["with replacement", "without"],
)
def test_gradients_of_drawn_batches_have_the_covariance_of_equation_8(
    batches: Batches, replacement: bool
) -> None:
    network = with_biases(init_network(jax.random.key(0), [2, 2, 1]), np.float64)
    inputs = jax.random.normal(jax.random.key(1), (9, 2), jnp.float64)
    labels = jnp.sign(inputs[:, :1])
    flat, unravel = ravel_pytree(network)

    @jax.jit
    @jax.vmap
    def gradient(block: jax.Array) -> jax.Array:
        # The first step of a pass: the steps of one pass depend on each other.
        batch = batches.draw(jax.random.key(4), block)[0]

        def batch_loss(p: jax.Array) -> jax.Array:
            outputs = apply_network(unravel(p), inputs[batch])
            return jnp.mean(mean_square_loss(outputs, labels[batch]))

        return jax.grad(batch_loss)(flat)

    drawn = np.asarray(gradient(jnp.arange(40_000)))
    drawn = drawn - gradients((network, inputs, labels), mean_square_loss).mean(0)
    products = drawn[:, :, None] * drawn[:, None, :]
    expected = noise_covariance(
        network, inputs, labels, mean_square_loss, 3, replacement=replacement
    )
    standard_error = products.std(0) / np.sqrt(len(drawn))
    # Entries of units that no example reaches are zero on both sides.
    assert np.all(np.abs(products.mean(0) - expected) <= 4 * standard_error + 1e-15)
    assert np.count_nonzero(standard_error) > 40
    # The factor (N - B)/(N - 1) = 3/4 is many standard errors away from 1.
    largest = np.argmax(expected)
    assert standard_error.flat[largest] < 0.02 * expected.flat[largest]


def test_the_gram_matrix_is_that_of_the_gradients_of_the_output() -> None:
    network, inputs, _ = one_output(30)
    rows = np.asarray(jacobian(network, inputs))
    # Sums of 47 products of order one in float64.
    np.testing.assert_allclose(output_gram(network, inputs), rows @ rows.T, atol=1e-12)


def test_the_gram_matrix_of_a_float32_network_is_computed_in_float64() -> None:
    network, inputs, _ = one_output(30)
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (network, inputs))
    rows = np.asarray(jacobian(*jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), single)))
    np.testing.assert_allclose(output_gram(*single), rows @ rows.T, atol=1e-12)


def test_networks_of_several_outputs_or_of_images_have_no_such_gram_matrix() -> None:
    network, inputs, _ = dense(1)
    with pytest.raises(SgdEscapeError, match=r"dense layers and one output, but .* is Dense"):
        output_gram(network, inputs)
    images = init_convolutional_network(jax.random.key(0), 2, 1, [2], 1, layers_per_stack=1)
    with pytest.raises(SgdEscapeError, match=r"Convolution, MaxPool, Dense with 1 outputs"):
        output_gram(images, jnp.zeros((3, 4)))
