import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape.losses import cross_entropy_loss, mean_square_loss, output_gradient


def test_the_loss_of_an_example_is_half_its_squared_error_summed_over_outputs() -> None:
    outputs = jnp.array([[1.0, -2.0], [0.5, 0.0], [3.0, 4.0]])
    labels = jnp.array([[0.0, 1.0], [0.5, 0.0], [0.0, 0.0]])
    assert np.array_equal(mean_square_loss(outputs, labels), [5.0, 0.0, 12.5])


def test_cross_entropy_is_minus_the_log_of_the_softmax_of_the_class() -> None:
    rng = np.random.default_rng(0)
    outputs, classes = rng.normal(scale=3, size=(50, 4)), rng.integers(4, size=50)
    softmax = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    labels = jnp.asarray(np.eye(4)[classes])
    losses = cross_entropy_loss(jnp.asarray(outputs), labels)
    np.testing.assert_allclose(losses, -np.log(softmax[np.arange(50), classes]), rtol=1e-12)
    gradient = output_gradient(cross_entropy_loss, jnp.asarray(outputs), labels)
    np.testing.assert_allclose(gradient, softmax - labels, atol=1e-14)


def test_equal_logits_have_the_cross_entropy_of_the_uniform_law() -> None:
    losses = cross_entropy_loss(jnp.full((3, 10), 7.0), jnp.eye(10)[:3])
    np.testing.assert_allclose(losses, np.log(10), rtol=1e-14)


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_cross_entropy_neither_overflows_nor_loses_small_losses_to_rounding(shift: float) -> None:
    """In float32 1 - softmax is zero below 6e-8, the loss and its derivative here are not."""
    outputs = jnp.array([[40.0, 0.0, 0.0], [0.0, 80.0, 0.0]], jnp.float32) + jnp.float32(shift)
    labels = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], jnp.float32)
    losses = cross_entropy_loss(outputs, labels)
    gradient = output_gradient(cross_entropy_loss, outputs, labels)
    assert losses.dtype == gradient.dtype == jnp.float32
    small = np.exp(-40)
    # An exponent of 40 carries a float32 rounding of 40 times 6e-8.
    np.testing.assert_allclose(losses, [2 * small, 80.0], rtol=1e-5)
    np.testing.assert_allclose(gradient[0], [-2 * small, small, small], rtol=1e-5)
    np.testing.assert_allclose(gradient[1], [-1.0, 1.0, 0.0], atol=1e-6)


def test_the_derivative_of_the_mean_square_loss_is_the_residual() -> None:
    outputs, labels = jnp.array([[1.0, -2.0], [0.5, 0.0]]), jnp.array([[0.0, 1.0], [0.5, 3.0]])
    gradient = output_gradient(mean_square_loss, outputs, labels)
    assert np.array_equal(gradient, outputs - labels)
