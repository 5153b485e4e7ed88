"""Dense and convolutional ReLU networks: initialization, forward pass, back-propagated errors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sgd_escape.errors import SgdEscapeError

# Exact references need float64; every array of a network states its own float32.
jax.config.update("jax_enable_x64", True)


class Dense(NamedTuple):
    """One layer x ↦ x W + b; an image is flattened first."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def unfold(self, values: Float[Array, "examples *inputs"]) -> Float[Array, "examples fan_in"]:
        """What multiplies the weights: the values themselves, flat."""
        return values.reshape(len(values), -1)

    def weighted_sums(
        self, values: Float[Array, "examples *inputs"]
    ) -> Float[Array, "examples outputs"]:
        """x W, without the bias."""
        return self.unfold(values) @ self.weight


class Convolution(NamedTuple):
    """A k × k cross-correlation of stride 1, padded with zeros so that the image keeps its size.

    An even k is padded by one more row below and one more column on the right.
    """

    weight: Float[Array, "k k channels outputs"]
    bias: Float[Array, " outputs"]

    def unfold(
        self, values: Float[Array, "examples rows columns channels"]
    ) -> Float[Array, "examples rows columns fan_in"]:
        """What multiplies the weights: the k × k patch around every pixel, as shifted slices."""
        k, (_, rows, columns, _) = len(self.weight), values.shape
        padded = jnp.pad(values, ((0, 0), *_borders(k), (0, 0)))
        shifted = [
            padded[:, row : row + rows, column : column + columns]
            for row in range(k)
            for column in range(k)
        ]
        return jnp.concatenate(shifted, axis=-1)

    def weighted_sums(
        self, values: Float[Array, "examples rows columns channels"]
    ) -> Float[Array, "examples rows columns outputs"]:
        """`unfold(values)` @ W, without the bias and without holding the patches."""
        return _convolve(values, self.weight)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MaxPool:
    """The largest value of every `size` × `size` window, window beside window."""

    size: int = field(metadata={"static": True})

    def pool(
        self, values: Float[Array, "examples rows columns channels"]
    ) -> Float[Array, "examples pooled_rows pooled_columns channels"]:
        examples, rows, columns, channels = values.shape
        windows = (examples, rows // self.size, self.size, columns // self.size, self.size)
        return values.reshape(*windows, channels).max(axis=(2, 4))


Layer = Dense | Convolution | MaxPool
Network = tuple[Layer, ...]
DenseNetwork = tuple[Dense, ...]
Tree = TypeVar("Tree")


def in_float64(tree: Tree) -> Tree:
    """The same networks and arrays in float64, for exact references."""
    widened: Tree = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)
    return widened


@jax.custom_vjp
def _convolve(values: Array, weight: Array) -> Array:
    return _correlate(values, weight, _borders(len(weight)))


def _convolve_and_keep(values: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(values, weight), (values, weight)


def _back_convolve(kept: tuple[Array, Array], errors: Array) -> tuple[Array, Array]:
    """The gradients by the values and by the weights, convolutions themselves.

    XLA on a CPU brings convolutions into the order of axes that its fast kernel needs only
    outside loops; left to automatic differentiation a training step inside `scan` took 30 times
    as long. So the axes are transposed here, of few examples at a time: then they stay in cache.
    """
    values, weight = kept
    border = _borders(len(weight))
    flipped = weight[::-1, ::-1].transpose(0, 1, 3, 2)
    by_values = _correlate(errors, flipped, [(after, before) for before, after in border])

    def add(total: Array, few: tuple[Array, ...]) -> tuple[Array, None]:
        images, kernels = few[0].transpose(3, 1, 2, 0), few[1].transpose(1, 2, 0, 3)
        return total + _correlate(images, kernels, border), None

    size = max(size for size in range(1, 9) if len(values) % size == 0)
    groups = tuple(a.reshape(-1, size, *a.shape[1:]) for a in (values, errors))
    k, _, channels, outputs = weight.shape
    nothing = jnp.zeros((channels, k, k, outputs), weight.dtype)
    by_weight, _ = jax.lax.scan(add, nothing, groups)
    return by_values, by_weight.transpose(1, 2, 0, 3)


_convolve.defvjp(_convolve_and_keep, _back_convolve)


def _correlate(values: Array, weight: Array, border: Sequence[tuple[int, int]]) -> Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(values, weight, (1, 1), border, dimension_numbers=axes)


def _borders(k: int) -> list[tuple[int, int]]:
    return 2 * [((k - 1) // 2, k // 2)]


def glorot_uniform(
    key: Key[Array, ""], inputs: int, outputs: int, kernel: tuple[int, ...] = ()
) -> Float[Array, "*kernel {inputs} {outputs}"]:
    """Weights drawn uniformly from ±√(6 / (fan in + fan out)), float32.

    The fans are `inputs` and `outputs` times the number of points of `kernel`.
    Source: Glorot and Bengio, AISTATS 2010, Eq. (16).
    """
    bound = jnp.sqrt(6.0 / (math.prod(kernel) * (inputs + outputs))).astype(jnp.float32)
    return jax.random.uniform(key, (*kernel, inputs, outputs), jnp.float32, -bound, bound)


def init_network(key: Key[Array, ""], widths: Sequence[int]) -> DenseNetwork:
    """A dense network of the given widths (input first), Glorot weights and zero biases."""
    keys = jax.random.split(key, len(widths) - 1)
    return tuple(
        Dense(glorot_uniform(k, inputs, outputs), jnp.zeros(outputs, jnp.float32))
        for k, inputs, outputs in zip(keys, widths[:-1], widths[1:], strict=True)
    )


def init_convolutional_network(
    key: Key[Array, ""],
    side: int,
    channels: int,
    widths: Sequence[int],
    outputs: int,
    *,
    layers_per_stack: int = 3,
    kernel_size: int = 3,
) -> Network:
    """Stacks `layers_per_stack` × [width, k, k, 1], MaxPool(2) after each, and a dense output.

    `widths` holds one width a stack (section 5.2: 64, 128, 256); images are `side` × `side` with
    `channels`. Glorot weights and zero biases.
    Raises `SgdEscapeError` if the image cannot be halved once a stack.
    """
    if side % 2 ** len(widths):
        raise SgdEscapeError(
            f"{len(widths)} stacks halve the image {len(widths)} times, so its side must be a "
            f"multiple of {2 ** len(widths)}, but it is {side}; crop the images or use fewer widths"
        )
    keys = iter(jax.random.split(key, layers_per_stack * len(widths) + 1))
    network: list[Layer] = []
    for width in widths:
        for _ in range(layers_per_stack):
            weight = glorot_uniform(next(keys), channels, width, (kernel_size, kernel_size))
            network.append(Convolution(weight, jnp.zeros(width, jnp.float32)))
            channels = width
        network.append(MaxPool(2))
    pixels = (side // 2 ** len(widths)) ** 2
    weight = glorot_uniform(next(keys), pixels * channels, outputs)
    return (*network, Dense(weight, jnp.zeros(outputs, jnp.float32)))


def apply_network(
    network: Network, inputs: Float[Array, "examples *inputs"]
) -> Float[Array, "examples outputs"]:
    """f(θ, x): ReLU after every layer but the last, which has no activation (section 5.1)."""
    values = inputs
    for depth, layer in enumerate(network):
        values, _ = _advance(layer, depth == 0, values)
    return values


class ForwardPass(NamedTuple):
    """What one forward pass leaves for the gradients of its examples.

    `layer_inputs` holds, for each layer with weights, the values that enter it; `layer.unfold`
    makes of them the vectors a that multiply the weights: one position for a dense layer, the
    patch of every pixel for a convolution. `back_propagate` takes ∂g_μ/∂f (examples × outputs) of
    any function g of the outputs and returns, for the same layers, the errors δ = ∂g_μ/∂z of the
    pre-activations z. The gradient of one example is Σ a δᵀ for the weights (fan in × outputs) and
    Σ δ for the bias, over positions.
    """

    outputs: Float[Array, "examples outputs"]
    layer_inputs: tuple[Float[Array, "examples *inputs"], ...]
    back_propagate: Callable[
        [Float[Array, "examples outputs"]],
        tuple[Float[Array, "examples *positions layer_outputs"], ...],
    ]


def forward_pass(network: Network, inputs: Float[Array, "examples *inputs"]) -> ForwardPass:
    """f(θ, x) with the inputs of every layer, and the way back."""
    values, pulls, layer_inputs = inputs, [], []
    for depth, layer in enumerate(network):
        values, pull, entering = jax.vjp(partial(_advance, layer, depth == 0), values, has_aux=True)
        pulls.append(pull)
        layer_inputs.append(entering)

    def back_propagate(error: Array) -> tuple[Array, ...]:
        errors = []
        for layer, pull in zip(network[:0:-1], pulls[:0:-1], strict=True):
            if not isinstance(layer, MaxPool):
                errors.append(error)
            (error,) = pull(error)
        return (error, *reversed(errors))

    weighted = tuple(a for a in layer_inputs if a is not None)
    return ForwardPass(values, weighted, back_propagate)


def _advance(layer: Layer, first: bool, values: Array) -> tuple[Array, Array | None]:
    """From one layer's pre-activations to the next one's, and what enters it if it has weights.

    ReLU is monotone, so it commutes with max-pooling: pooled first, it meets fewer values.
    """
    if isinstance(layer, MaxPool):
        return layer.pool(values), None
    entering = values if first else jax.nn.relu(values)
    sums = layer.weighted_sums(entering)
    return sums + layer.bias.reshape((1,) * (sums.ndim - 1) + (-1,)), entering
