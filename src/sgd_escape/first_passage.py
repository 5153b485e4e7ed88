"""First-passage steps of a chain's loss: one engine for every chain.

A fixed number of lanes advances side by side. A lane whose run is over takes the next run of
the queue, so the lanes stay full and the compiled program, hence the arithmetic of a run, does not
depend on how many runs there are.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from sgd_escape.batches import Batches
from sgd_escape.chains import Chain
from sgd_escape.errors import SgdEscapeError


class FirstPassage(NamedTuple):
    """What was seen of each run; steps count from 1 and 0 means censored."""

    first_passage_step: Int[np.ndarray, "runs thresholds"]
    observed_steps: Int[np.ndarray, " runs"]
    diverged: Bool[np.ndarray, " runs"]


class _Progress(NamedTuple):
    """Lanes (which run, where) and the record of all runs; run == n_runs marks an idle lane."""

    run: Int[Array, " lanes"]
    block: Int[Array, " lanes"]
    state: PyTree[Array]
    next_run: Int[Array, ""]
    first_passage_step: Int[Array, "runs thresholds"]
    observed_steps: Int[Array, " runs"]
    diverged: Bool[Array, " runs"]


def first_passage(
    chain: Chain,
    batches: Batches,
    levels: Float[np.ndarray, " thresholds"],
    key: Key[Array, ""],
    *,
    runs: Sequence[int],
    max_steps: int,
    blocks_at_once: int = 64,
) -> FirstPassage:
    """The first step at which each run's full-data loss exceeds each of the increasing `levels`.

    Every run starts from `chain.initial_state()`; run r draws its batches from the stream
    `fold_in(key, r)`. The loss is checked after every step. A run ends when it has passed all
    levels, at `max_steps`, or when its loss is no longer finite: the overflow lies above every
    level, so those not passed before are passed at that step, and the run counts as diverged.

    `blocks_at_once` is the number of blocks between two interruptible moments; like the order and
    number of `runs`, it changes no result. Raises `SgdEscapeError` if `levels` is empty, not
    finite, not increasing, or not above the initial loss, if a run is repeated, or if the initial
    loss is not finite.
    """
    _check(chain, levels, runs, max_steps)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.asarray(runs, jnp.uint32))
    progress = _start(chain, len(runs), len(levels))
    limit = jnp.asarray(max_steps, jnp.int64)
    while bool(jnp.any(progress.run < len(runs))):
        progress = _advance(
            chain, batches, jnp.asarray(levels), keys, limit, progress, blocks_at_once
        )
    return FirstPassage(
        np.asarray(progress.first_passage_step),
        np.asarray(progress.observed_steps),
        np.asarray(progress.diverged),
    )


def no_passage(runs: int, thresholds: int, max_steps: int) -> FirstPassage:
    """The record of runs from a minimum of zero loss, where no step of Eq. (2) moves them.

    Every example's gradient has its residual as a factor, so that all of them vanish.
    """
    return FirstPassage(
        np.zeros((runs, thresholds), np.int64),
        np.full(runs, max_steps, np.int64),
        np.zeros(runs, bool),
    )


def _check(
    chain: Chain, levels: Float[np.ndarray, " thresholds"], runs: Sequence[int], max_steps: int
) -> None:
    initial_loss = float(chain.loss(chain.initial_state()))
    if not np.isfinite(initial_loss):
        raise SgdEscapeError(
            f"first passage needs a finite initial loss, but it is {initial_loss}: the starting "
            "weights hold NaN or infinity; make them again"
        )
    rising = np.diff(np.concatenate([[initial_loss], levels])) > 0
    if len(levels) == 0 or not (rising.all() and np.isfinite(levels).all()):
        raise SgdEscapeError(
            "first passage needs finite, increasing loss levels above the initial loss "
            f"{initial_loss:.6g}, but got {np.asarray(levels).tolist()}; choose thresholds c > 1"
        )
    if len(runs) == 0 or len(set(runs)) < len(runs):
        raise SgdEscapeError(
            f"first passage needs at least one run and each run once, but got {list(runs)}; "
            "give every run its own index"
        )
    if max_steps < 1:
        raise SgdEscapeError(
            f"first passage needs max_steps >= 1, but got {max_steps}; raise max_steps"
        )


def _start(chain: Chain, n_runs: int, n_levels: int) -> _Progress:
    lanes = jnp.arange(chain.lanes)
    state = jax.tree.map(
        lambda a: jnp.broadcast_to(a, (chain.lanes, *a.shape)).copy(), chain.initial_state()
    )
    return _Progress(
        run=jnp.minimum(lanes, n_runs),
        block=jnp.zeros_like(lanes),
        state=state,
        next_run=jnp.asarray(chain.lanes, jnp.int64),
        first_passage_step=jnp.zeros((n_runs, n_levels), jnp.int64),
        observed_steps=jnp.zeros(n_runs, jnp.int64),
        diverged=jnp.zeros(n_runs, bool),
    )


@partial(jax.jit, static_argnames=("batches", "blocks"), donate_argnames="progress")
def _advance(
    chain: Chain,
    batches: Batches,
    levels: Float[Array, " thresholds"],
    keys: Key[Array, " runs"],
    max_steps: Int[Array, ""],
    progress: _Progress,
    blocks: int,
) -> _Progress:
    def unfinished(loop: tuple[Array, _Progress]) -> Array:
        return (loop[0] < blocks) & jnp.any(loop[1].run < len(keys))

    def one_block(loop: tuple[Array, _Progress]) -> tuple[Array, _Progress]:
        count, current = loop
        batch = jax.vmap(batches.draw)(keys[current.run], current.block)
        state, losses = _losses(chain, current.state, batch)
        current, ended = _watch(current._replace(state=state), losses, levels, max_steps)
        return count + 1, _refill(chain, current, ended)

    return jax.lax.while_loop(unfinished, one_block, (jnp.asarray(0), progress))[1]


def _losses(
    chain: Chain, state: PyTree[Array], batch: Array
) -> tuple[PyTree[Array], Float[Array, "steps lanes"]]:
    """Advance all lanes by a block; the loss after every step."""

    def step(current: PyTree[Array], indices: Array) -> tuple[PyTree[Array], Array]:
        current = jax.vmap(chain.step)(current, indices)
        return current, jax.vmap(chain.loss)(current)

    return jax.lax.scan(step, state, jnp.swapaxes(batch, 0, 1))


def _watch(
    current: _Progress,
    losses: Float[Array, "steps lanes"],
    levels: Float[Array, " thresholds"],
    max_steps: Int[Array, ""],
) -> tuple[_Progress, Bool[Array, " lanes"]]:
    """Record the passages of one block and tell which lanes' runs have ended.

    The running maximum of the loss is sorted, so the number of its entries that are not above
    a level is the number of steps before the passage.
    """
    steps = losses.shape[0]
    record = jax.lax.cummax(jnp.where(jnp.isfinite(losses), losses, jnp.inf)).T
    before = jax.vmap(lambda r: jnp.searchsorted(r, levels, side="right"))(record)
    overflow = jax.vmap(lambda r: jnp.searchsorted(r, jnp.inf, side="left"))(record)
    step = current.block[:, None] * steps + before + 1
    known = current.first_passage_step.at[current.run].get(mode="fill", fill_value=0)
    passed_now = (known == 0) & (before < steps) & (step <= max_steps)
    known = jnp.where(passed_now, step, known)
    last = known[:, -1]
    ended = (current.run < len(current.diverged)) & (
        (last > 0) | ((current.block + 1) * steps >= max_steps)
    )
    observed = jnp.where(ended, jnp.where(last > 0, last, max_steps), 0)
    diverged = passed_now[:, -1] & (before[:, -1] == overflow)
    watched = current._replace(
        first_passage_step=current.first_passage_step.at[current.run].set(known, mode="drop"),
        observed_steps=current.observed_steps.at[current.run].set(observed, mode="drop"),
        diverged=current.diverged.at[current.run].set(diverged, mode="drop"),
    )
    return watched, ended


def _refill(chain: Chain, current: _Progress, ended: Bool[Array, " lanes"]) -> _Progress:
    """Give each lane whose run ended the next run of the queue, from the initial state."""
    order = jnp.cumsum(ended)
    fresh = jnp.minimum(current.next_run + order - 1, len(current.diverged))

    def restart(old: Array, initial: Array) -> Array:
        return jnp.where(ended.reshape(-1, *[1] * initial.ndim), initial[None], old)

    return current._replace(
        run=jnp.where(ended, fresh, current.run),
        block=jnp.where(ended, 0, current.block + 1),
        state=jax.tree.map(restart, current.state, chain.initial_state()),
        next_run=current.next_run + order[-1],
    )
