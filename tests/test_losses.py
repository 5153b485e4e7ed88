import jax.numpy as jnp
import numpy as np

from sgd_escape.losses import mean_square_loss


def test_the_loss_of_an_example_is_half_its_squared_error_summed_over_outputs() -> None:
    outputs = jnp.array([[1.0, -2.0], [0.5, 0.0], [3.0, 4.0]])
    labels = jnp.array([[0.0, 1.0], [0.5, 0.0], [0.0, 0.0]])
    assert np.array_equal(mean_square_loss(outputs, labels), [5.0, 0.0, 12.5])
