"""Mean first-passage times beyond brute force, by splitting: the weighted ensemble.

Particles with weights follow a chain. After every step those within one bin of the loss are
resampled to a fixed number of equal weights, so that bins which the chain visits once in 10¹²
steps are as full as those at the minimum. Resampling preserves every expectation: whatever the
bins, the weight that passes the last level is an unbiased estimate of the probability to do so
(Huber and Kim, Biophysical Journal 70, 97 (1996); Zhang, Jasnow and Zuckerman, Journal of Chemical
Physics 132, 054107 (2010)).

What passes starts again at the minimum. By renewal theory the weight per step then tends to 1/τ, τ
the mean first-passage time from there: no rate theory and no ideal transition state enter, and the
overshoot of a discrete step is that of the chain (Hill, Free Energy Transduction in Biology, 1977).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from sgd_escape.batches import Batches
from sgd_escape.chains import Chain
from sgd_escape.errors import SgdEscapeError


class _Ensemble(NamedTuple):
    """Particles, their weights, which sum to 1, and the weight that has passed since burn-in."""

    state: PyTree[Array]
    weight: Float[Array, " particles"]
    passed: Float[Array, ""]


def loss_levels(minimum_loss: float, loss_ratio: float, bins: int) -> Float[np.ndarray, " bins"]:
    """Upper ends of `bins` bins from L* to c L*, equal in log L: a power law fills them evenly.

    Raises `SgdEscapeError` unless L* > 0, c > 1 and bins >= 1.
    """
    if not (minimum_loss > 0 and loss_ratio > 1 and bins >= 1):
        raise SgdEscapeError(
            "levels of the loss need a positive minimal loss, a loss ratio above 1 and at least "
            f"one bin, but got {minimum_loss}, {loss_ratio} and {bins}"
        )
    return np.asarray(minimum_loss * np.geomspace(1, loss_ratio, bins + 1)[1:])


def exit_rates(
    chain: Chain,
    batches: Batches,
    levels: Float[np.ndarray, " bins"],
    key: Key[Array, ""],
    *,
    particles: int,
    burn_in: int,
    steps: int,
    repetitions: int,
) -> Float[np.ndarray, " repetitions"]:
    """Independent unbiased estimates of 1/τ, τ the mean steps from the start to the last level.

    `levels` are the upper ends of the bins of the chain's loss, the last of which is to be passed;
    each holds `particles`. A repetition averages the weight that passes over `steps` steps after
    `burn_in`. That must be long against the time in which the chain forgets its start, 1/(ηh) for
    SGD near a minimum; until then fewer pass. A loss that is not finite has passed.

    Repetition r draws from the stream `fold_in(key, r)`. Raises `SgdEscapeError` if the levels are
    not finite, increasing and above the initial loss, or if a number is not positive.
    """
    _check(chain, levels, particles, burn_in, steps, repetitions)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(repetitions, dtype=jnp.uint32))
    span = jnp.asarray([burn_in, burn_in + steps], jnp.int64)
    passed = _passed(chain, batches, jnp.asarray(levels), keys, span, particles)
    return np.asarray(passed) / steps


def _check(
    chain: Chain,
    levels: Float[np.ndarray, " bins"],
    particles: int,
    burn_in: int,
    steps: int,
    repetitions: int,
) -> None:
    initial = float(chain.loss(chain.initial_state()))
    rising = np.diff(np.concatenate([[initial], levels])) > 0
    if len(levels) == 0 or not (rising.all() and np.isfinite(levels).all()):
        raise SgdEscapeError(
            "splitting needs finite, increasing levels above the value at the start "
            f"{initial:.6g}, but got {np.asarray(levels).tolist()}; choose a threshold c > 1"
        )
    if min(particles, steps, repetitions) < 1 or burn_in < 0:
        raise SgdEscapeError(
            "splitting needs at least one particle, step and repetition, and no negative burn-in, "
            f"but got {particles}, {steps}, {repetitions} and {burn_in}"
        )


@partial(jax.jit, static_argnames=("batches", "particles"))
def _passed(
    chain: Chain,
    batches: Batches,
    levels: Float[Array, " bins"],
    keys: Key[Array, " repetitions"],
    span: Int[Array, " 2"],
    particles: int,
) -> Float[Array, " repetitions"]:
    """The weight that passes within the steps of `span`, for each repetition."""
    slots, length = particles * len(levels), batches.steps_per_block

    def one_repetition(key: Key[Array, ""]) -> Float[Array, ""]:
        walk, choice = jax.random.split(key)
        streams = jax.vmap(partial(jax.random.fold_in, walk))(jnp.arange(slots, dtype=jnp.uint32))

        def one_block(block: Array, ensemble: _Ensemble) -> _Ensemble:
            drawn = jax.vmap(lambda stream: batches.draw(stream, block))(streams)
            offsets = jax.random.uniform(
                jax.random.fold_in(choice, block), (length, len(levels)), jnp.float64
            )
            counted = _within(span, block * length + jnp.arange(length))

            def one_step(current: _Ensemble, step: tuple[Array, ...]) -> tuple[_Ensemble, None]:
                return _advance(chain, levels, current, *step), None

            steps = (jnp.swapaxes(drawn, 0, 1), offsets, counted)
            after: _Ensemble = jax.lax.scan(one_step, ensemble, steps)[0]
            return after

        start = _Ensemble(
            jax.tree.map(lambda a: jnp.repeat(a[None], slots, 0), chain.initial_state()),
            jnp.full(slots, 1 / slots),
            jnp.zeros(()),
        )
        final: _Ensemble = jax.lax.fori_loop(0, -(-span[1] // length), one_block, start)
        return final.passed

    rates: Array = jax.lax.map(one_repetition, keys)
    return rates


def _within(span: Int[Array, " 2"], index: Int[Array, " steps"]) -> Bool[Array, " steps"]:
    return (index >= span[0]) & (index < span[1])


def _advance(
    chain: Chain,
    levels: Float[Array, " bins"],
    ensemble: _Ensemble,
    batch: Array,
    offset: Float[Array, " bins"],
    counted: Bool[Array, ""],
) -> _Ensemble:
    """A step of every particle, a new start for those that pass, and resampling."""
    state = jax.vmap(chain.step)(ensemble.state, batch)
    loss = jax.vmap(chain.loss)(state)
    passes = ~(loss <= levels[-1])
    passed = jnp.sum(jnp.where(passes & counted, ensemble.weight, 0))
    initial = chain.initial_state()
    state = jax.tree.map(
        lambda a, first: jnp.where(passes.reshape(-1, *[1] * first.ndim), first[None], a),
        state,
        initial,
    )
    loss = jnp.where(passes, chain.loss(initial), loss)
    chosen, weight = _resampled(loss, ensemble.weight, levels, offset)
    state = jax.tree.map(lambda a: a[chosen], state)
    return _Ensemble(state, weight, ensemble.passed + passed)


def _resampled(
    loss: Float[Array, " particles"],
    weight: Float[Array, " particles"],
    levels: Float[Array, " bins"],
    offset: Float[Array, " bins"],
) -> tuple[Int[Array, " particles"], Float[Array, " particles"]]:
    """Which particles go on, and their weights: systematic resampling within each bin.

    Along the particles in the order of their bins, each bin that is not empty has length 1, so
    a weight of 10⁻²⁰ is resolved as well as one of 1. Slots of an empty bin have weight 0.
    """
    bins, slots = len(levels), len(loss)
    place = jnp.searchsorted(levels, loss, side="left")
    of_bin = jnp.zeros(bins).at[place].add(weight)
    # One sort of integers that hold bin and particle: XLA sorts pairs up to ten times slower.
    order = jnp.sort(place.astype(jnp.int64) * slots + jnp.arange(slots, dtype=jnp.int32)) % slots
    share = weight / jnp.where(of_bin > 0, of_bin, 1)[place]
    ends = jnp.cumsum(share[order])
    occupied = of_bin > 0
    particles = slots // bins
    within = (jnp.arange(particles)[None] + offset[:, None]) / particles
    position = (jnp.cumsum(occupied) - occupied)[:, None] + within
    index = jnp.searchsorted(ends, position.ravel(), side="right")
    return order[jnp.minimum(index, slots - 1)], jnp.repeat(of_bin / particles, particles)
