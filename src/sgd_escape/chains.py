"""Chains: everything whose loss the first-passage engine can watch.

A chain is a pytree of arrays with an initial state, a `step` and a full-data `loss`. `lanes` is how
many runs the engine advances side by side: it is part of the chain's arithmetic, hence fixed, so
that neither shards nor machines with more cores change a number.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sgd_escape.batches import Batches
from sgd_escape.networks import Dense, DenseNetwork, Network, apply_network
from sgd_escape.training import full_loss, sgd_step


@runtime_checkable
class Chain(Protocol):
    """A Markov chain with a loss; `batch` is whatever its source of randomness draws."""

    lanes: ClassVar[int]

    def initial_state(self) -> PyTree[Array]: ...

    def step(self, state: Any, batch: Array) -> Any: ...

    def loss(self, state: Any) -> Float[Array, ""]: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearRegression:
    """SGD on f(θ, x) = θᵀx with the full loss from sufficient statistics (section 5.3.1).

    L(θ) = L* + ½ (θ - θ*)ᵀ H (θ - θ*) costs O(d²) a step, not O(Nd). Starts at θ*.
    """

    inputs: Float[Array, "examples d"]
    labels: Float[Array, " examples"]
    hessian: Float[Array, "d d"]
    minimum: Float[Array, " d"]
    minimum_loss: Float[Array, ""]
    learning_rate: Float[Array, ""]

    lanes: ClassVar[int] = 64

    @classmethod
    def from_data(
        cls,
        inputs: Float[Array, "examples d"],
        labels: Float[Array, " examples"],
        learning_rate: float,
    ) -> "LinearRegression":
        """The chain of a data set: H = (1/N) Σ x xᵀ, H θ* = (1/N) Σ y x, L* = L(θ*)."""
        hessian = inputs.T @ inputs / len(labels)
        minimum = jnp.linalg.solve(hessian, inputs.T @ labels / len(labels))
        minimum_loss = 0.5 * jnp.mean((inputs @ minimum - labels) ** 2)
        return cls(inputs, labels, hessian, minimum, minimum_loss, jnp.asarray(learning_rate))

    def initial_state(self) -> Float[Array, " d"]:
        return self.minimum

    def step(
        self, state: Float[Array, " d"], batch: Int[Array, " batch_size"]
    ) -> Float[Array, " d"]:
        x = self.inputs[batch]
        error = jnp.sum(x * state[None], axis=-1) - self.labels[batch]
        return state - self.learning_rate / batch.size * jnp.sum(error[:, None] * x, axis=0)

    def loss(self, state: Float[Array, " d"]) -> Float[Array, ""]:
        shift = state - self.minimum
        curved = jnp.sum(self.hessian * shift[None], axis=-1)
        return self.minimum_loss + 0.5 * jnp.sum(shift * curved)


def gaussian_regression(
    key: Key[Array, ""], n_samples: int, dimension: int, learning_rate: float
) -> LinearRegression:
    """Section 5.3.1: inputs and labels i.i.d. standard normal, labels independent of inputs."""
    input_key, label_key = jax.random.split(key)
    inputs = jax.random.normal(input_key, (n_samples, dimension), jnp.float64)
    labels = jax.random.normal(label_key, (n_samples,), jnp.float64)
    return LinearRegression.from_data(inputs, labels, learning_rate)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FreshRegression:
    """SGD on linear regression whose every step draws new examples: section 5.3.1 with N → ∞.

    Inputs and labels are independent and standard normal, so that L(θ) = ½ (1 + |θ|²). Batches are
    `GaussianIncrements(B (d + 1))`, read as B rows of the d inputs and the label. Starts at θ* = 0.
    """

    start: Float[Array, " d"]
    learning_rate: Float[Array, ""]

    lanes: ClassVar[int] = 64

    @classmethod
    def of_dimension(cls, dimension: int, learning_rate: float) -> "FreshRegression":
        return cls(jnp.zeros(dimension, jnp.float64), jnp.asarray(learning_rate, jnp.float64))

    def initial_state(self) -> Float[Array, " d"]:
        return self.start

    def step(
        self, state: Float[Array, " d"], batch: Float[Array, " numbers"]
    ) -> Float[Array, " d"]:
        rows = batch.reshape(-1, state.size + 1)
        x, y = rows[:, :-1], rows[:, -1]
        error = jnp.sum(x * state[None], axis=-1) - y
        return state - self.learning_rate / len(rows) * jnp.sum(error[:, None] * x, axis=0)

    def loss(self, state: Float[Array, " d"]) -> Float[Array, ""]:
        return 0.5 * (1 + jnp.sum(state**2))


class FunctionSpaceState(NamedTuple):
    """A one-hidden-layer network seen through all N samples."""

    preactivation: Float[Array, "hidden examples"]
    output_weight: Float[Array, " hidden"]
    output_bias: Float[Array, ""]
    residual: Float[Array, " examples"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FunctionSpaceNetwork:
    """SGD on a one-hidden-layer ReLU network, in function space.

    Z = X W + b of all N samples is kept in place of W and b. A step with batch S changes it by
    -(η/B) D K[S, :], where K = X Xᵀ + 1 (the 1 is the bias) is computed once and D (hidden × B)
    holds the back-propagated errors. The loss over all N samples is then known after every
    step for the price of the output layer. Agrees with `GenericNetwork` to float32 rounding.
    """

    kernel: Float[Array, "examples examples"]
    labels: Float[Array, " examples"]
    start: FunctionSpaceState
    learning_rate: Float[Array, ""]

    lanes: ClassVar[int] = 1

    @classmethod
    def from_network(
        cls,
        network: DenseNetwork,
        inputs: Float[Array, "examples inputs"],
        labels: Float[Array, " examples"],
        learning_rate: float,
    ) -> "FunctionSpaceNetwork":
        """The chain that starts at `network`: two dense layers, one output."""
        inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)
        hidden, output = network
        preactivation = (inputs @ hidden.weight + hidden.bias[None]).T
        residual = apply_network(network, inputs)[:, 0] - labels
        start = FunctionSpaceState(preactivation, output.weight[:, 0], output.bias[0], residual)
        kernel = inputs @ inputs.T + 1
        return cls(kernel, labels, start, jnp.asarray(learning_rate, inputs.dtype))

    def initial_state(self) -> FunctionSpaceState:
        return self.start

    def step(
        self, state: FunctionSpaceState, batch: Int[Array, " batch_size"]
    ) -> FunctionSpaceState:
        rate = self.learning_rate / batch.size
        error = state.residual[batch]
        active = state.preactivation[:, batch]
        backward = self.backward(state, batch)
        preactivation = state.preactivation - (rate * backward) @ self.kernel[batch]
        output_weight = state.output_weight - rate * (jax.nn.relu(active) @ error)
        output_bias = state.output_bias - rate * jnp.sum(error)
        # Summed unit by unit, the loop over units fuses into one pass over the samples: XLA would
        # store every ReLU for a matrix product, a tenth of the step's time.
        output = sum(w * jax.nn.relu(z) for w, z in zip(output_weight, preactivation, strict=True))
        output = output + output_bias
        return FunctionSpaceState(preactivation, output_weight, output_bias, output - self.labels)

    def backward(
        self, state: FunctionSpaceState, batch: Int[Array, " batch_size"]
    ) -> Float[Array, "hidden batch_size"]:
        """D, the derivatives of the batch's losses by its pre-activations."""
        active = state.preactivation[:, batch] > 0
        return state.output_weight[:, None] * active * state.residual[batch][None]

    def loss(self, state: FunctionSpaceState) -> Float[Array, ""]:
        return 0.5 * jnp.mean(state.residual**2)


class TrackedState(NamedTuple):
    """A network in function space, and the weights that function space does without."""

    function_space: FunctionSpaceState
    hidden: Dense

    @property
    def network(self) -> DenseNetwork:
        """The network itself, in parameter space."""
        weight, bias = self.function_space.output_weight, self.function_space.output_bias
        return self.hidden, Dense(weight[..., None], bias[..., None])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrackedNetwork:
    """`FunctionSpaceNetwork` that knows where in parameter space it is.

    A step changes W by -(η/B) X_Sᵀ Dᵀ and b by -(η/B) D 1, which costs B rows of X only; the loss
    is still that of function space.
    """

    function_space: FunctionSpaceNetwork
    inputs: Float[Array, "examples inputs"]
    hidden: Dense

    lanes: ClassVar[int] = 1

    @classmethod
    def from_network(
        cls,
        network: DenseNetwork,
        inputs: Float[Array, "examples inputs"],
        labels: Float[Array, " examples"],
        learning_rate: float,
    ) -> "TrackedNetwork":
        """The chain that starts at `network`: two dense layers, one output."""
        chain = FunctionSpaceNetwork.from_network(network, inputs, labels, learning_rate)
        return cls(chain, jnp.asarray(inputs), network[0])

    def initial_state(self) -> TrackedState:
        return TrackedState(self.function_space.initial_state(), self.hidden)

    def step(self, state: TrackedState, batch: Int[Array, " batch_size"]) -> TrackedState:
        rate = self.function_space.learning_rate / batch.size
        backward = rate * self.function_space.backward(state.function_space, batch)
        weight = state.hidden.weight - (backward @ self.inputs[batch]).T
        hidden = Dense(weight, state.hidden.bias - backward.sum(axis=1))
        return TrackedState(self.function_space.step(state.function_space, batch), hidden)

    def loss(self, state: TrackedState) -> Float[Array, ""]:
        return self.function_space.loss(state.function_space)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GenericNetwork:
    """SGD on any network with a full forward pass a step: the reference for faster chains."""

    inputs: Float[Array, "examples inputs"]
    labels: Float[Array, "examples outputs"]
    start: Network
    learning_rate: Float[Array, ""]

    lanes: ClassVar[int] = 1

    def initial_state(self) -> Network:
        return self.start

    def step(self, state: Network, batch: Int[Array, " batch_size"]) -> Network:
        return sgd_step(state, self.inputs[batch], self.labels[batch], self.learning_rate)

    def loss(self, state: Network) -> Float[Array, ""]:
        return full_loss(state, self.inputs, self.labels)


@partial(jax.jit, static_argnames=("batches", "samples"))
def sample_states(
    chain: Chain, batches: Batches, key: Key[Array, ""], samples: int
) -> PyTree[Array]:
    """The state at the end of each of `samples` blocks of one run from the initial state."""

    def one_block(state: PyTree[Array], block: Array) -> tuple[PyTree[Array], PyTree[Array]]:
        state, _ = jax.lax.scan(
            lambda current, batch: (chain.step(current, batch), None),
            state,
            batches.draw(key, block),
        )
        return state, state

    return jax.lax.scan(one_block, chain.initial_state(), jnp.arange(samples))[1]
