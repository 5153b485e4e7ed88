"""The stochastic differential equations of the paper as chains, by the Euler-Maruyama scheme.

Time is the continuous time t = ηk of Eq. (4) throughout, and every noise is Itô's. A chain that is
stepped by Δt = η has the mean and the covariance of an SGD step: Eq. (4) is then SGD with
Gaussian noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key, PyTree

from sgd_escape.batches import Batches
from sgd_escape.chains import Chain, LinearRegression
from sgd_escape.errors import SgdEscapeError
from sgd_escape.landscapes import DoubleWell, Landscape, Quadratic


class LangevinState(NamedTuple):
    """Where a run is, and at which time t."""

    position: Float[Array, " n"]
    time: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Langevin:
    """dθ = -∇L dt + A(θ) dW, stepped by θ' = θ - ∇L Δt + A(θ) ξ √Δt with ξ ~ N(0, I).

    `amplitude` gives A(θ) from θ and L(θ); its batches are `GaussianIncrements`. `step_size` is Δt.
    Where the time is changed it is Δτ instead, with dτ = L dt, Eq. (13): the step of length
    Δt = Δτ/L(θ) is the Euler-Maruyama step of length Δτ of dθ~ = -∇log L dτ + A/√L dW~, which
    for the noise of Eq. (12) is Eq. (14). The state's time is t in both cases.
    """

    landscape: Landscape
    amplitude: Callable[..., Float[Array, "n n"]]
    start: Float[Array, " n"]
    step_size: Float[Array, ""]
    time_changed: bool = field(default=False, metadata={"static": True})

    lanes: ClassVar[int] = 64

    def initial_state(self) -> LangevinState:
        return LangevinState(self.start, jnp.zeros_like(self.step_size))

    def step(self, state: LangevinState, batch: Float[Array, " n"]) -> LangevinState:
        loss, gradient = jax.value_and_grad(self.landscape.loss)(state.position)
        duration = self.step_size / loss if self.time_changed else self.step_size
        kick = jnp.sum(self.amplitude(state.position, loss) * batch[None], axis=-1)
        position = state.position - duration * gradient + jnp.sqrt(duration) * kick
        return LangevinState(position, state.time + duration)

    def loss(self, state: LangevinState) -> Float[Array, ""]:
        return self.landscape.loss(state.position)


def sgd_langevin(
    landscape: Landscape,
    start: Float[Array, " n"],
    curvature: Float[Array, "n n"],
    *,
    learning_rate: float,
    batch_size: float,
    step_size: float,
) -> Langevin:
    """Eq. (12): dθ = -∇L dt + √(2ηL(θ)H*/B) dW with `curvature` H*, the Hessian at the minimum.

    Raises `SgdEscapeError` if a number is not positive or H* has a negative eigenvalue; zero
    eigenvalues are directions without noise.
    """
    ratio = _noise_ratio(learning_rate, batch_size)
    root = jnp.sqrt(2 * ratio) * _square_root(curvature)
    return _chain(landscape, Partial(_loss_amplitude, root), start, step_size)


def change_time(chain: Langevin, step_size: float) -> Langevin:
    """The chain in the time τ of Eq. (13), stepped by Δτ: Eq. (14) if the chain is Eq. (12).

    Raises `SgdEscapeError` if Δτ or the loss at the start is not positive (section 3.2: at L = 0
    the time τ stands still).
    """
    loss = float(chain.landscape.loss(chain.start))
    if not loss > 0:
        raise SgdEscapeError(
            f"the change of time dτ = L dt needs a positive loss, but at the start it is {loss}; "
            "add a small constant to the loss"
        )
    return replace(chain, step_size=_positive("step size", step_size), time_changed=True)


def gradient_langevin(
    landscape: Landscape, start: Float[Array, " n"], *, diffusion: float, step_size: float
) -> Langevin:
    """Eq. (5), GLD: dθ = -∇L dt + √(2D) dW. Raises `SgdEscapeError` if D or Δt is not positive."""
    amplitude = Partial(_isotropic_amplitude, _positive("diffusion coefficient", diffusion))
    return _chain(landscape, amplitude, start, step_size)


def matched_diffusion(
    minimum_loss: float, curvature: Float[Array, "n n"], learning_rate: float, batch_size: float
) -> float:
    """D of the GLD whose noise has the trace of Eq. (12)'s at the minimum: nD = (η/B) L* Tr H*."""
    trace = float(jnp.trace(curvature))
    return learning_rate / batch_size * minimum_loss * trace / curvature.shape[0]


def gaussian_regression_langevin(
    dimension: int, *, learning_rate: float, batch_size: float, step_size: float
) -> Langevin:
    """Eq. (4) for linear regression on infinitely many i.i.d. standard normal inputs and labels.

    L(θ) = ½(1 + |θ|²), and the noise is exact: BΣ(θ) = (1 + |θ|²) I + θθᵀ, where Eq. (6) has
    (1 + |θ|²) I. Derivation: with e = θᵀx - y, BΣ = E[e²xxᵀ] - θθᵀ, and by Isserlis' theorem
    E[e²xxᵀ] = E[e²] E[xxᵀ] + 2 E[ex] E[ex]ᵀ = (1 + |θ|²) I + 2θθᵀ.
    """
    ratio = _noise_ratio(learning_rate, batch_size)
    origin = jnp.zeros(dimension, jnp.float64)
    landscape = Quadratic(jnp.eye(dimension, dtype=jnp.float64), origin, jnp.asarray(0.5))
    return _chain(landscape, Partial(_gaussian_data_amplitude, ratio), origin, step_size)


def regression_langevin(
    chain: LinearRegression, *, batch_size: float, step_size: float
) -> Langevin:
    """Eq. (4) for the chain's own data, with the covariance of batches drawn with replacement.

    BΣ = (1/N) Σ ∇ℓ∇ℓᵀ - ∇L∇Lᵀ is a quadratic polynomial of φ = θ - θ*, since ∇ℓ = x(xᵀφ - r) with
    the residual r = y - xᵀθ*. Its coefficients, d⁴ numbers, are computed once. Raises
    `SgdEscapeError` if a number is not positive or if there are no more samples than parameters.
    """
    ratio = _noise_ratio(float(chain.learning_rate), batch_size)
    x = chain.inputs
    if len(x) <= x.shape[1]:
        raise SgdEscapeError(
            f"the noise of regression in {x.shape[1]} dimensions needs more samples than that, but "
            f"got {len(x)}, which can be fitted without error; raise n_samples"
        )
    residual = chain.labels - x @ chain.minimum
    outer = x[:, :, None] * x[:, None, :]
    moments = (
        jnp.einsum("mij,mk,ml->ijkl", outer, x, x) / len(x),
        jnp.einsum("mij,mk,m->ijk", outer, x, residual) / len(x),
        jnp.einsum("mij,m->ij", outer, residual**2) / len(x),
    )
    amplitude = Partial(_data_amplitude, ratio, moments, chain.hessian, chain.minimum)
    landscape = Quadratic(chain.hessian, chain.minimum, chain.minimum_loss)
    return _chain(landscape, amplitude, chain.minimum, step_size)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BasinExit:
    """A chain on a double well, watched by z_e/ℓ and not by its loss.

    The first passage of a level that `committor_plane` gives is then the exit from the basin: the
    run starts at -1, and from that plane it goes on to the other minimum.

    A batch may hold the increments of several steps of the chain, one after the other: a step of
    this chain is then all of them, and the exit is only looked for after the last.
    """

    chain: Langevin
    well: DoubleWell

    lanes: ClassVar[int] = Langevin.lanes

    def initial_state(self) -> LangevinState:
        return self.chain.initial_state()

    def step(self, state: LangevinState, batch: Float[Array, " increments"]) -> LangevinState:
        def one_step(current: LangevinState, increments: Array) -> tuple[LangevinState, None]:
            return self.chain.step(current, increments), None

        after: LangevinState = jax.lax.scan(
            one_step, state, batch.reshape(-1, state.position.size)
        )[0]
        return after

    def loss(self, state: LangevinState) -> Float[Array, ""]:
        return self.well.coordinate(state.position)


def states_after(
    chain: Chain,
    batches: Batches,
    key: Key[Array, ""],
    runs: Sequence[int],
    steps: Int[np.ndarray, " runs"],
) -> PyTree[Array]:
    """The states of the runs of `first_passage` after `steps` steps each, by running them again.

    The steps of a first passage become its time t = `states_after(...).time`.
    """
    # Runs of like length side by side, so that few lanes wait for the longest; idle lanes fill the
    # last group, so that its arithmetic is that of the others.
    order = np.argsort(steps, kind="stable")
    idle = (0, -len(order) % chain.lanes)
    sorted_runs, sorted_steps = (np.pad(np.asarray(a)[order], idle) for a in (runs, steps))
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.asarray(sorted_runs, jnp.uint32))
    states = _replay(chain, batches, keys, jnp.asarray(sorted_steps))
    return jax.tree.map(lambda leaf: leaf[np.argsort(order)], states)


@partial(jax.jit, static_argnames="batches")
def _replay(
    chain: Chain, batches: Batches, keys: Key[Array, " runs"], steps: Int[Array, " runs"]
) -> PyTree[Array]:
    length = batches.steps_per_block

    def one_run(run: tuple[Array, Array]) -> PyTree[Array]:
        key, last = run

        def one_block(block: Array, state: PyTree[Array]) -> PyTree[Array]:
            def one_step(current: PyTree[Array], drawn: tuple[Array, Array]) -> tuple[Any, None]:
                index, batch = drawn
                following = chain.step(current, batch)
                return jax.tree.map(partial(jnp.where, index < last), following, current), None

            drawn = (block * length + jnp.arange(length), batches.draw(key, block))
            return jax.lax.scan(one_step, state, drawn)[0]

        return jax.lax.fori_loop(0, -(-last // length), one_block, chain.initial_state())

    return jax.lax.map(one_run, (keys, steps), batch_size=chain.lanes)


def _chain(
    landscape: Landscape,
    amplitude: Callable[..., Float[Array, "n n"]],
    start: Float[Array, " n"],
    step_size: float,
) -> Langevin:
    return Langevin(landscape, amplitude, start, _positive("step size", step_size))


def _positive(name: str, value: float) -> Float[Array, ""]:
    if not 0 < value < float("inf"):
        raise SgdEscapeError(f"a Langevin equation needs a positive {name}, but got {value}")
    return jnp.asarray(value, jnp.float64)


def _noise_ratio(learning_rate: float, batch_size: float) -> Float[Array, ""]:
    return _positive("learning rate", learning_rate) / _positive("batch size", batch_size)


def _square_root(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    rounding = 1e-12 * float(jnp.max(jnp.abs(eigenvalues)))
    if float(eigenvalues[0]) < -rounding:
        raise SgdEscapeError(
            "a noise covariance has no negative eigenvalues, but the curvature matrix has "
            f"{float(eigenvalues[0]):.6g}; take the Hessian at a minimum"
        )
    # The root of a zero that is rounded to 1e-16 would be a noise of 1e-8.
    roots = jnp.sqrt(jnp.where(eigenvalues > rounding, eigenvalues, 0))
    root: Array = vectors * roots[None] @ vectors.T
    return root


def _loss_amplitude(
    root: Float[Array, "n n"], theta: Float[Array, " n"], loss: Float[Array, ""]
) -> Float[Array, "n n"]:
    return jnp.sqrt(loss) * root


def _isotropic_amplitude(
    diffusion: Float[Array, ""], theta: Float[Array, " n"], loss: Float[Array, ""]
) -> Float[Array, "n n"]:
    return jnp.sqrt(2 * diffusion) * jnp.eye(theta.size, dtype=theta.dtype)


def _gaussian_data_amplitude(
    ratio: Float[Array, ""], theta: Float[Array, " n"], loss: Float[Array, ""]
) -> Float[Array, "n n"]:
    # The root of aI + θθᵀ has eigenvalues √a and, along θ, √(a + |θ|²).
    squared = jnp.sum(theta**2)
    across, along = jnp.sqrt(1 + squared), jnp.sqrt(1 + 2 * squared)
    projected = theta[:, None] * theta[None] / (across + along)
    return jnp.sqrt(ratio) * (across * jnp.eye(theta.size, dtype=theta.dtype) + projected)


def _data_amplitude(
    ratio: Float[Array, ""],
    moments: tuple[Array, Array, Array],
    hessian: Float[Array, "n n"],
    minimum: Float[Array, " n"],
    theta: Float[Array, " n"],
    loss: Float[Array, ""],
) -> Float[Array, "n n"]:
    fourth, third, second = moments
    shift = theta - minimum
    gradient = hessian @ shift
    spread = fourth @ shift @ shift - 2 * third @ shift + second
    root: Array = jnp.linalg.cholesky(spread - gradient[:, None] * gradient[None])
    return jnp.sqrt(ratio) * root
