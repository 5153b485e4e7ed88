import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape import SgdEscapeError
from sgd_escape.networks import (
    Convolution,
    Dense,
    MaxPool,
    Network,
    apply_network,
    forward_pass,
    glorot_uniform,
    init_convolutional_network,
    init_network,
)


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


def test_the_fans_of_a_convolution_count_the_points_of_its_kernel() -> None:
    weight = np.asarray(glorot_uniform(jax.random.key(2), 40, 60, (3, 3)))
    bound = np.sqrt(6 / (9 * (40 + 60)))
    assert weight.dtype == np.float32
    assert weight.shape == (3, 3, 40, 60)
    assert bound * (1 - 1e-3) < weight.max() <= bound * (1 + 1e-6)
    assert -bound * (1 + 1e-6) <= weight.min() < -bound * (1 - 1e-3)


def test_the_dense_networks_of_the_paper_have_their_numbers_of_parameters() -> None:
    counted = []
    for widths in ([784, 100, 100, 1], [784, 2000, 2000, 2000, 10]):
        network = jax.eval_shape(lambda k, w=widths: init_network(k, w), jax.random.key(0))
        counted.append(sum(a.size for a in jax.tree.leaves(network)))
    assert counted == [88_701, 785 * 2000 + 2 * 2001 * 2000 + 2001 * 10]


def test_the_convolutional_network_of_the_paper_halves_32_pixels_three_times() -> None:
    network = jax.eval_shape(
        lambda k: init_convolutional_network(k, 32, 3, [64, 128, 256], 10), jax.random.key(0)
    )
    stack = [Convolution, Convolution, Convolution, MaxPool]
    assert [type(layer) for layer in network] == 3 * stack + [Dense]
    shapes = [layer.weight.shape for layer in network if isinstance(layer, Convolution)]
    widths = [3, 64, 64, 64, 128, 128, 128, 256, 256, 256]
    assert shapes == [(3, 3, *pair) for pair in itertools.pairwise(widths)]
    assert network[-1].weight.shape == (4 * 4 * 256, 10)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    assert jax.eval_shape(apply_network, network, images).shape == (2, 10)


def test_a_convolutional_network_starts_without_biases_and_with_independent_layers() -> None:
    network = init_convolutional_network(jax.random.key(0), 4, 2, [2, 2], 3, layers_per_stack=2)
    layers = [layer for layer in network if not isinstance(layer, MaxPool)]
    assert not any(np.any(layer.bias) for layer in layers)
    weights = np.concatenate([np.ravel(layer.weight) for layer in layers])
    assert np.unique(weights).size == 4 * 9 * 2 * 2 + 2 * 3


@pytest.mark.parametrize("side", [30, 34])
def test_images_must_halve_once_a_stack(side: int) -> None:
    with pytest.raises(SgdEscapeError, match=rf"multiple of 4, but it is {side}; crop"):
        init_convolutional_network(jax.random.key(0), side, 3, [2, 2], 10)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_a_convolution_is_patches_times_weights(k: int) -> None:
    rng = np.random.default_rng(0)
    layer = Convolution(jnp.asarray(rng.normal(size=(k, k, 3, 4))), jnp.zeros(4))
    images = jnp.asarray(rng.normal(size=(5, 6, 7, 3)))
    patches_times_weights = layer.unfold(images) @ layer.weight.reshape(-1, 4)
    # Sums of at most 75 products in float64.
    np.testing.assert_allclose(layer.weighted_sums(images), patches_times_weights, atol=1e-13)


# 11 examples are summed one by one, 18 in groups of six.
@pytest.mark.parametrize(("k", "n"), [(1, 5), (2, 11), (3, 18), (5, 5)])
def test_the_derivatives_of_a_convolution_are_those_of_patches_times_weights(
    k: int, n: int
) -> None:
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(n, 6, 7, 3)))
    weight = jnp.asarray(rng.normal(size=(k, k, 3, 4)))
    errors = jnp.asarray(rng.normal(size=(n, 6, 7, 4)))

    def patches_times_weights(values: jax.Array, w: jax.Array) -> jax.Array:
        return Convolution(w, jnp.zeros(4)).unfold(values) @ w.reshape(-1, 4)

    def convolution(values: jax.Array, w: jax.Array) -> jax.Array:
        return Convolution(w, jnp.zeros(4)).weighted_sums(values)

    expected = jax.vjp(patches_times_weights, images, weight)[1](errors)
    for measured, e in zip(jax.vjp(convolution, images, weight)[1](errors), expected, strict=True):
        # Sums of at most 756 products in float64.
        np.testing.assert_allclose(measured, e, atol=1e-12)


def test_max_pooling_keeps_the_largest_value_of_every_window_and_channel() -> None:
    images = np.random.default_rng(0).normal(size=(3, 6, 4, 2))
    expected = np.array(
        [
            [[images[n, r : r + 2, c : c + 2].max((0, 1)) for c in (0, 2)] for r in (0, 2, 4)]
            for n in range(3)
        ]
    )
    assert np.array_equal(MaxPool(2).pool(jnp.asarray(images)), expected)


def convolutional() -> tuple[Network, jax.Array]:
    """A float64 network with every kind of layer and biases that are not zero, and images."""
    start = init_convolutional_network(jax.random.key(1), 4, 2, [3, 4], 2, layers_per_stack=2)
    network = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) + 0.1 * (a.ndim == 1), start)
    return network, jax.random.normal(jax.random.key(2), (5, 4, 4, 2), jnp.float64)


def test_a_convolutional_network_is_convolution_relu_and_pooling_in_turn() -> None:
    network, images = convolutional()
    values = images
    for layer in network[:-1]:
        if isinstance(layer, MaxPool):
            values = jax.lax.reduce_window(
                values, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
            )
        else:
            convolved = jax.lax.conv_general_dilated(
                values, layer.weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            values = jax.nn.relu(convolved + layer.bias[None, None, None])
    expected = values.reshape(5, -1) @ network[-1].weight + network[-1].bias[None]
    np.testing.assert_allclose(apply_network(network, images), expected, atol=1e-13)


def test_inputs_and_errors_of_the_layers_make_the_gradient_of_every_example() -> None:
    network, images = convolutional()
    passed = forward_pass(network, images)
    np.testing.assert_array_equal(passed.outputs, apply_network(network, images))
    errors = passed.back_propagate(jnp.cos(passed.outputs))

    def weighted_output(net: Network, image: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(apply_network(net, image[None])))

    gradients = jax.jit(jax.vmap(jax.grad(weighted_output), (None, 0)))(network, images)
    layers = [layer for layer in gradients if not isinstance(layer, MaxPool)]
    assert len(layers) == len(errors) == len(passed.layer_inputs) == 5
    weighted = [layer for layer in network if not isinstance(layer, MaxPool)]
    of_layers = zip(layers, weighted, passed.layer_inputs, errors, strict=True)
    for gradient, layer, values, error in of_layers:
        a, delta = (v.reshape(5, -1, v.shape[-1]) for v in (layer.unfold(values), error))
        weight = np.einsum("npi,npo->nio", a, delta)
        np.testing.assert_allclose(gradient.weight.reshape(weight.shape), weight, atol=1e-14)
        np.testing.assert_allclose(gradient.bias, np.sum(delta, axis=1), atol=1e-14)


def test_the_back_propagated_errors_are_the_slopes_of_the_outputs() -> None:
    """Finite differences, a route without automatic differentiation, through every layer."""
    network, images = convolutional()
    passed = forward_pass(network, images)
    errors = passed.back_propagate(jnp.ones_like(passed.outputs))
    weighted = [i for i, layer in enumerate(network) if not isinstance(layer, MaxPool)]
    step = 1e-6
    for index, delta in zip(weighted, errors, strict=True):
        layer = network[index]
        shift = step * jnp.sin(1.0 + jnp.arange(layer.bias.size))
        up, down = (
            (*network[:index], layer._replace(bias=layer.bias + s), *network[index + 1 :])
            for s in (shift, -shift)
        )
        difference = jnp.sum(apply_network(up, images) - apply_network(down, images))
        # A central difference errs by step² and by rounding/step; no kink lies within the step.
        expected = float(difference) / 2
        sloped = float(jnp.sum(delta.reshape(-1, shift.size), axis=0) @ shift)
        assert sloped == pytest.approx(expected, rel=1e-7)


def test_permuting_the_channels_between_two_convolutions_changes_nothing() -> None:
    network, images = convolutional()
    order = jnp.array([2, 0, 1])
    first, second, *rest = network
    permuted = (
        Convolution(first.weight[..., order], first.bias[order]),
        Convolution(second.weight[:, :, order], second.bias),
        *rest,
    )
    np.testing.assert_allclose(
        apply_network(permuted, images), apply_network(network, images), atol=1e-14
    )
