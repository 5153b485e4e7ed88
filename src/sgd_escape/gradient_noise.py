"""The noise of SGD: its strength, its covariance of Eq. (8) and the Gram matrix of ∇f."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from sgd_escape.errors import SgdEscapeError
from sgd_escape.losses import PerExampleLoss, output_gradient
from sgd_escape.networks import (
    Convolution,
    Dense,
    MaxPool,
    Network,
    apply_network,
    forward_pass,
    in_float64,
)


class NoiseStrength(NamedTuple):
    """L(θ) and the two terms of the noise strength, over all N examples."""

    loss: float
    mean_squared_gradient: float
    squared_mean_gradient: float

    @property
    def noise_strength(self) -> float:
        """N = (1/N) Σ_μ |∇ℓ_μ|² - |∇L|², B times the trace of Σ for B ≪ N (section 5.2)."""
        return self.mean_squared_gradient - self.squared_mean_gradient


class _Sums(NamedTuple):
    loss: Array
    squared_norm: Array
    gradient: tuple[tuple[Array, Array], ...]


def noise_strength(
    network: Network,
    inputs: Float[Array, "examples *inputs"],
    labels: Float[Array, "examples outputs"],
    loss: PerExampleLoss,
    *,
    examples_at_once: int = 100,
) -> NoiseStrength:
    """The noise strength from the inputs and errors of the layers, without per-example gradients.

    Memory is that of `examples_at_once` examples, whatever their number. Sums over chunks are
    taken in float64, everything else in the precision of the network.
    """
    layers = _weighted(network)
    sums = _Sums(
        jnp.zeros(()),
        jnp.zeros(()),
        tuple((jnp.zeros(_fans(layer)), jnp.zeros(layer.bias.size)) for layer in layers),
    )
    for rows in _chunks(len(inputs), examples_at_once):
        # Chunks that wait in XLA's queue would hold their inputs: memory would grow with N.
        sums = jax.block_until_ready(_add_chunk(loss, sums, network, inputs[rows], labels[rows]))
    mean = jax.tree.map(lambda total: np.asarray(total) / len(inputs), sums)
    squared_mean = sum(float(np.sum(g**2)) for g in jax.tree.leaves(mean.gradient))
    return NoiseStrength(float(mean.loss), float(mean.squared_norm), squared_mean)


class TraceFactor(NamedTuple):
    """(1/N) Σ_μ t_μ of t_μ = Σ_k |∇f_k(θ, x_μ)|², plain and weighted with ℓ_μ / L.

    With one output `mean` is the factor of section 5.2 in N ≈ 2L × (1/N) Σ ∇fᵀ∇f. With K outputs
    whose residuals are uncorrelated and equally large that factor is 1/K of it. By Eq. (7)
    `weighted` is the same number; without Eq. (7), but with such residuals, it takes its place.
    """

    mean: float
    weighted: float


def trace_factor(
    network: Network,
    inputs: Float[Array, "examples *inputs"],
    labels: Float[Array, "examples outputs"],
    loss: PerExampleLoss,
    *,
    examples_at_once: int = 100,
) -> TraceFactor:
    """The trace of (1/N) Σ_μ C_f^(μ), summed over the outputs, and of (1/NL) Σ_μ ℓ_μ C_f^(μ).

    One backward pass for every output.
    """
    chunks = _chunks(len(inputs), examples_at_once)
    # As arrays of NumPy, so that no chunk waits for another while it holds memory.
    sums = [np.asarray(_traces(loss, network, inputs[rows], labels[rows])) for rows in chunks]
    traces, losses, products = np.sum(sums, axis=0)
    return TraceFactor(float(traces / len(inputs)), float(products / losses))


def squared_norm_and_gradient(
    layer_inputs: Float[Array, "positions fan_in"], errors: Float[Array, "positions outputs"]
) -> tuple[Float[Array, ""], Float[Array, "outputs fan_in"]]:
    """|∂ℓ_μ/∂W|² + |∂ℓ_μ/∂b|² and (∂ℓ_μ/∂W)ᵀ of one layer and one example.

    From the layer's unfolded inputs a and its back-propagated errors δ. |Σ_p a_p δ_pᵀ|² is taken
    from that sum or from the Gram matrices of the positions, Σ_pq (a_p·a_q)(δ_p·δ_q), whichever
    is smaller.
    """
    (positions, fan_in), outputs = layer_inputs.shape, errors.shape[-1]
    bias = jnp.sum(jnp.sum(errors, axis=0) ** 2)
    # In this order, the shorter axis first, XLA multiplies twice as fast on a CPU.
    gradient = errors.T @ layer_inputs
    if positions * (fan_in + outputs) < fan_in * outputs:
        return jnp.sum((layer_inputs @ layer_inputs.T) * (errors @ errors.T)) + bias, gradient
    return jnp.sum(gradient**2) + bias, gradient


@partial(jax.jit, static_argnames="loss", donate_argnames="sums")
def _add_chunk(
    loss: PerExampleLoss, sums: _Sums, network: Network, inputs: Array, labels: Array
) -> _Sums:
    passed = forward_pass(network, inputs)
    errors = passed.back_propagate(output_gradient(loss, passed.outputs, labels))
    squared_norm, gradient = sums.squared_norm, []
    of_layers = zip(_weighted(network), passed.layer_inputs, errors, sums.gradient, strict=True)
    for layer, values, delta, (weight, bias) in of_layers:
        norms, weight_sum = _norms_and_sum(layer, values, delta)
        squared_norm = squared_norm + jnp.sum(norms, dtype=jnp.float64)
        bias_sum = jnp.sum(delta.reshape(-1, bias.size), axis=0)
        gradient.append((weight + weight_sum, bias + bias_sum))
    total = sums.loss + jnp.sum(loss(passed.outputs, labels), dtype=jnp.float64)
    return _Sums(total, squared_norm, tuple(gradient))


@partial(jax.jit, static_argnames="loss")
def _traces(loss: PerExampleLoss, network: Network, inputs: Array, labels: Array) -> Array:
    """The sums over the examples of t_μ, ℓ_μ and ℓ_μ t_μ."""
    passed = forward_pass(network, inputs)

    def of_one_output(direction: Array) -> Array:
        errors = passed.back_propagate(jnp.broadcast_to(direction[None], passed.outputs.shape))
        of_layers = zip(_weighted(network), passed.layer_inputs, errors, strict=True)
        return sum((_norms_and_sum(*of_layer)[0] for of_layer in of_layers), jnp.zeros(len(inputs)))

    outputs = passed.outputs.shape[-1]
    traces = jax.lax.map(of_one_output, jnp.eye(outputs, dtype=passed.outputs.dtype)).sum(0)
    losses = loss(passed.outputs, labels).astype(jnp.float64)
    return jnp.sum(jnp.stack([traces, losses, losses * traces]), axis=1)


def _norms_and_sum(layer: Dense | Convolution, values: Array, errors: Array) -> tuple[Array, Array]:
    """The examples' |∂ℓ_μ/∂W|² + |∂ℓ_μ/∂b|², and the sum over examples of ∂ℓ_μ/∂W, transposed.

    The patches of a convolution are by far its largest array: they are made for one example at a
    time, in the processor's cache.
    """
    if isinstance(layer, Dense):
        a = layer.unfold(values)
        return jnp.sum(errors**2, axis=-1) * (jnp.sum(a**2, axis=-1) + 1), errors.T @ a

    def add(total: Array, one: tuple[Array, Array]) -> tuple[Array, Array]:
        a, delta = (v.reshape(-1, v.shape[-1]) for v in (layer.unfold(one[0][None]), one[1]))
        norm, gradient = squared_norm_and_gradient(a, delta)
        return total + gradient, norm

    nothing = jnp.zeros(_fans(layer), errors.dtype)
    total, norms = jax.lax.scan(add, nothing, (values, errors))
    return norms, total


def _weighted(network: Network) -> list[Dense | Convolution]:
    return [layer for layer in network if not isinstance(layer, MaxPool)]


def _fans(layer: Dense | Convolution) -> tuple[int, int]:
    """Outputs and fan in, the shape of a weight's gradient as it is computed here."""
    return layer.bias.size, layer.weight.size // layer.bias.size


def noise_covariance(
    network: Network,
    inputs: Float[Array, "examples *inputs"],
    labels: Float[Array, "examples outputs"],
    loss: PerExampleLoss,
    batch_size: int,
    *,
    replacement: bool,
    examples_at_once: int = 2000,
) -> Float[np.ndarray, "parameters parameters"]:
    """Σ of Eq. (8), the covariance of a mini-batch's gradient, in float64.

    Without replacement Σ = (1/B) (N - B)/(N - 1) [(1/N) Σ_μ ∇ℓ_μ ∇ℓ_μᵀ - ∇L ∇Lᵀ]. With replacement
    the factor (N - B)/(N - 1) is absent, which is also the form of Eq. (8) for B ≪ N. Ordered as
    `ravel_pytree` orders the network; for networks whose P × P matrix fits into memory.
    Raises `SgdEscapeError` if a batch without replacement cannot be drawn from the examples.
    """
    n_samples = len(inputs)
    if not replacement and not 1 <= batch_size <= n_samples:
        raise SgdEscapeError(
            f"batches without replacement need a size from 1 to the {n_samples} examples, but it "
            f"is {batch_size}; change the size or draw with replacement"
        )
    network, inputs, labels = in_float64((network, inputs, labels))
    parameters = ravel_pytree(network)[0].size
    second, mean = np.zeros((parameters, parameters)), np.zeros(parameters)
    for rows in _chunks(n_samples, examples_at_once):
        gradients = np.asarray(_loss_gradients(loss, network, inputs[rows], labels[rows]))
        second += gradients.T @ gradients / n_samples
        mean += gradients.sum(axis=0) / n_samples
    finite_population = 1 if replacement else (n_samples - batch_size) / max(n_samples - 1, 1)
    return (second - np.outer(mean, mean)) * (finite_population / batch_size)


@partial(jax.jit, static_argnames="loss")
def _loss_gradients(
    loss: PerExampleLoss, network: Network, inputs: Array, labels: Array
) -> Float[Array, "examples parameters"]:
    flat, unravel = ravel_pytree(network)

    def of_one(parameters: Array, x: Array, y: Array) -> Array:
        return loss(apply_network(unravel(parameters), x[None]), y[None])[0]

    gradients: Array = jax.vmap(jax.grad(of_one), (None, 0, 0))(flat, inputs, labels)
    return gradients


def output_gram(
    network: Network, inputs: Float[Array, "examples inputs"]
) -> Float[np.ndarray, "examples examples"]:
    """K_μν = ∇f(θ, x_μ)ᵀ∇f(θ, x_ν) = Σ_layers (A Aᵀ)∘(Δ Δᵀ) of dense layers with one output.

    A holds a layer's inputs and a column of ones for the bias, Δ the errors of f. In float64; its
    memory is three N × N matrices.
    Raises `SgdEscapeError` for other networks.
    """
    outputs = len(network[-1].bias) if isinstance(network[-1], Dense) else 0
    if outputs != 1 or not all(isinstance(layer, Dense) for layer in network):
        kinds = ", ".join(type(layer).__name__ for layer in network)
        raise SgdEscapeError(
            f"the Gram matrix of ∇f needs dense layers and one output, but the network is {kinds} "
            f"with {outputs} outputs; use a dense network with one output"
        )
    gram = np.zeros((len(inputs), len(inputs)))
    for a, delta in zip(*_output_errors(*in_float64((network, inputs))), strict=True):
        gram += _layer_gram(np.asarray(a), np.asarray(delta))
    return gram


def _layer_gram(layer_inputs: np.ndarray, errors: np.ndarray) -> np.ndarray:
    # A function of its own, so that no layer's matrices outlive the next one's.
    gram: np.ndarray = layer_inputs @ layer_inputs.T
    gram += 1
    gram *= errors @ errors.T
    return gram


@jax.jit
def _output_errors(network: Network, inputs: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    passed = forward_pass(network, inputs)
    return passed.layer_inputs, passed.back_propagate(jnp.ones_like(passed.outputs))


def _chunks(n_samples: int, examples_at_once: int) -> Iterator[slice]:
    for start in range(0, n_samples, examples_at_once):
        yield slice(start, start + examples_at_once)
