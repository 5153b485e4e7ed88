import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape.networks import Dense, apply_network, glorot_uniform, init_network


def test_glorot_weights_are_float32_and_fill_their_bounds() -> None:
    weight = np.asarray(glorot_uniform(jax.random.key(0), 300, 100))
    bound = np.sqrt(6 / 400)
    assert weight.dtype == np.float32
    assert weight.shape == (300, 100)
    # The largest of 30000 uniform numbers is within 1e-3 of the bound but for e^-30.
    assert bound * (1 - 1e-3) < weight.max() <= bound * (1 + 1e-6)
    assert -bound * (1 + 1e-6) <= weight.min() < -bound * (1 - 1e-3)


def test_glorot_weights_have_variance_two_over_fan_in_plus_fan_out() -> None:
    weight = np.asarray(glorot_uniform(jax.random.key(1), 300, 100), np.float64)
    # Var u² = 4/45 for u uniform on ±1.
    standard_error = 6 / 400 * np.sqrt(4 / 45 / weight.size)
    assert abs(np.mean(weight**2) - 2 / 400) < 4 * standard_error
    assert abs(weight.mean()) < 4 * np.sqrt(2 / 400 / weight.size)


def test_a_network_has_the_widths_asked_for_and_zero_biases() -> None:
    network = init_network(jax.random.key(0), [7, 4, 4, 3])
    assert [layer.weight.shape for layer in network] == [(7, 4), (4, 4), (4, 3)]
    assert [layer.bias.shape for layer in network] == [(4,), (4,), (3,)]
    for layer in network:
        assert layer.weight.dtype == layer.bias.dtype == jnp.float32
        assert not np.any(layer.bias)


def test_layers_of_one_network_are_drawn_independently() -> None:
    first, second = init_network(jax.random.key(0), [5, 5, 5])
    assert np.unique(np.concatenate([first.weight, second.weight])).size == 50


def test_the_same_key_gives_the_same_network_and_another_key_another() -> None:
    one, same, other = (init_network(jax.random.key(k), [3, 2]) for k in (0, 0, 1))
    assert np.array_equal(one[0].weight, same[0].weight)
    assert not np.any(one[0].weight == other[0].weight)


@pytest.mark.parametrize("widths", [[6, 2], [6, 5, 1], [6, 5, 4, 3]])
def test_the_forward_pass_is_relu_on_all_layers_but_the_last(widths: list[int]) -> None:
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=s), rng.normal(size=s[1])) for s in itertools.pairwise(widths)]
    inputs = rng.normal(size=(50, 6))
    expected = inputs
    for depth, (weight, bias) in enumerate(layers):
        expected = expected @ weight + bias
        if depth < len(layers) - 1:
            expected = np.where(expected > 0, expected, 0)
    network = tuple(Dense(jnp.asarray(w), jnp.asarray(b)) for w, b in layers)
    assert expected.min() < 0
    # Sums of at most six products in float64.
    np.testing.assert_allclose(
        apply_network(network, jnp.asarray(inputs)), expected, rtol=1e-12, atol=1e-13
    )


def test_a_network_is_positively_homogeneous_between_its_layers() -> None:
    first, last = init_network(jax.random.key(3), [4, 6, 1])
    inputs = jax.random.normal(jax.random.key(4), (20, 4), jnp.float32)
    moved = (
        Dense(4 * first.weight, 4 * first.bias),
        Dense(last.weight / 4, last.bias),
    )
    # Powers of two scale without rounding.
    assert np.array_equal(apply_network((first, last), inputs), apply_network(moved, inputs))
