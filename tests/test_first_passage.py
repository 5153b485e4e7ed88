from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from sgd_escape import SgdEscapeError
from sgd_escape.batches import Batches, Epoch, WithReplacement
from sgd_escape.chains import FunctionSpaceNetwork, LinearRegression, gaussian_regression
from sgd_escape.first_passage import FirstPassage, first_passage
from sgd_escape.networks import init_network

KEY = jax.random.key(21)
N = 60


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Script:
    """The loss after k steps is the k-th number of a list, and its last number from then on."""

    losses: Array

    lanes: ClassVar[int] = 3

    def initial_state(self) -> Array:
        return jnp.asarray(0)

    def step(self, state: Array, batch: Array) -> Array:
        return jnp.minimum(state + 1, len(self.losses) - 1)

    def loss(self, state: Array) -> Array:
        return self.losses[state]


def follow(
    losses: list[float], levels: list[float], *, max_steps: int = 100, block: int = 8, runs: int = 1
) -> FirstPassage:
    """First passage of a scripted loss that starts at 1."""
    return first_passage(
        Script(jnp.asarray([1.0, *losses])),
        WithReplacement(1, 1, block),
        np.array(levels),
        KEY,
        runs=range(runs),
        max_steps=max_steps,
    )


@pytest.fixture(scope="module")
def chain() -> LinearRegression:
    return gaussian_regression(jax.random.key(2), N, 2, 0.1)


def levels_of(chain: LinearRegression, *ratios: float) -> np.ndarray:
    return float(chain.minimum_loss) * np.array(ratios)


@partial(jax.jit, static_argnums=0)
def draw(batches: Batches, key: Array, block: Array) -> Array:
    return batches.draw(key, block)


def plain_loop(
    chain: LinearRegression, batches: Batches, levels: np.ndarray, run: int, max_steps: int
) -> tuple[list[int], int, bool]:
    """The same run in NumPy, with the loss summed over all samples after every step."""
    x, y, eta = (np.asarray(a) for a in (chain.inputs, chain.labels, chain.learning_rate))
    key = jax.random.fold_in(KEY, run)
    theta, passed, step, block = np.asarray(chain.minimum), [0] * len(levels), 0, 0
    while True:
        for batch in np.asarray(draw(batches, key, jnp.asarray(block))):
            step += 1
            with np.errstate(all="ignore"):
                error = x[batch] @ theta - y[batch]
                theta = theta - eta * (error @ x[batch]) / len(batch)
                loss = np.mean((x @ theta - y) ** 2) / 2
            finite = bool(np.isfinite(loss))
            for i, level in enumerate(levels):
                if not passed[i] and (loss > level or not finite):
                    passed[i] = step
            if all(passed) or step == max_steps:
                return passed, step, not finite
        block += 1


def assert_same(one: FirstPassage, other: FirstPassage) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("batches", "max_steps"),
    [
        (WithReplacement(N, 1), 200),
        (WithReplacement(N, 3, 16), 333),
        (Epoch(N, 4), 400),
        (Epoch(N, 7), 99),
    ],
    ids=str,
)
def test_the_engine_is_the_plain_loop_over_the_same_batches(
    chain: LinearRegression, batches: Batches, max_steps: int
) -> None:
    levels = levels_of(chain, 1.01, 1.1, 1.3, 1.6)
    runs = [4, 0, 17, 3, 90, 8, 9, 10]
    found = first_passage(chain, batches, levels, KEY, runs=runs, max_steps=max_steps)
    for i, run in enumerate(runs):
        passed, observed, diverged = plain_loop(chain, batches, levels, run, max_steps)
        assert found.first_passage_step[i].tolist() == passed
        assert found.observed_steps[i] == observed
        assert found.diverged[i] == diverged
    assert np.any(found.first_passage_step[:, 0] > 0)
    assert np.any(found.first_passage_step == 0)


@pytest.mark.parametrize("rate", [5.0, 3.0])
def test_a_diverging_chain_is_flagged_and_counts_as_passed_where_it_overflows(rate: float) -> None:
    chain = gaussian_regression(jax.random.key(2), N, 2, rate)
    levels = levels_of(chain, 1.5, 1e6, 1e300)
    batches = WithReplacement(N, 4, 32)
    found = first_passage(chain, batches, levels, KEY, runs=range(5), max_steps=5000)
    for run in range(5):
        passed, observed, _ = plain_loop(chain, batches, levels, run, 5000)
        assert found.first_passage_step[run].tolist() == passed
        assert found.observed_steps[run] == observed
    overflow = follow([2.0, 3.0, np.inf, 1.0], [1.5, 10.0, 20.0], runs=2)
    assert np.array_equal(overflow.first_passage_step, [[1, 3, 3]] * 2)
    assert np.array_equal(overflow.observed_steps, [3, 3])
    assert np.array_equal(overflow.diverged, [True, True])


@pytest.mark.parametrize("bad", [np.inf, np.nan, -np.inf])
def test_an_overflow_of_any_kind_passes_all_levels_and_ends_the_run(bad: float) -> None:
    found = follow([1.0] * 10 + [2.0, bad, 1.0], [1.5, 10.0])
    assert found.first_passage_step.tolist() == [[11, 12]]
    assert found.observed_steps.tolist() == [12]
    assert found.diverged.tolist() == [True]


def test_an_overflow_after_the_last_level_is_not_a_divergence() -> None:
    found = follow([2.0, np.inf], [1.2, 1.5])
    assert found.first_passage_step.tolist() == [[1, 1]]
    assert found.diverged.tolist() == [False]


def test_an_overflow_after_the_last_step_is_not_seen() -> None:
    found = follow([1.0, 1.0, np.nan], [1.5], max_steps=2)
    assert found.first_passage_step.tolist() == [[0]]
    assert found.observed_steps.tolist() == [2]
    assert found.diverged.tolist() == [False]


def test_a_finite_passage_of_all_levels_is_not_a_divergence(chain: LinearRegression) -> None:
    levels = levels_of(chain, 1.02, 1.1)
    found = first_passage(chain, WithReplacement(N, 1), levels, KEY, runs=range(9), max_steps=10**5)
    assert np.all(found.first_passage_step > 0)
    assert not np.any(found.diverged)


def test_steps_count_from_one() -> None:
    assert follow([2.0], [1.5]).first_passage_step.tolist() == [[1]]


def test_a_loss_equal_to_a_level_has_not_passed_it() -> None:
    found = follow([1.5, 1.5, 1.5000001], [1.5])
    assert found.first_passage_step.tolist() == [[3]]


@pytest.mark.parametrize("step", [7, 8, 9, 16, 17])
def test_a_passage_next_to_a_block_boundary_has_its_step(step: int) -> None:
    """Blocks hold eight steps."""
    found = follow([1.0] * (step - 1) + [3.0], [2.0])
    assert found.first_passage_step.tolist() == [[step]]
    assert found.observed_steps.tolist() == [step]


def test_levels_passed_in_one_step_share_it_and_a_later_fall_does_not_undo_them() -> None:
    found = follow([1.0, 4.5, 1.0, 2.5] + [1.0] * 20 + [9.0], [2.0, 3.0, 4.0, 5.0, 8.0])
    assert found.first_passage_step.tolist() == [[2, 2, 2, 25, 25]]
    assert found.observed_steps.tolist() == [25]


def test_levels_passed_in_different_blocks_keep_their_steps() -> None:
    rising = np.linspace(1.01, 3, 30).tolist()
    levels = [1.1, 1.5, 2.0, 2.9]
    expected = [1 + next(i for i, loss in enumerate(rising) if loss > c) for c in levels]
    assert follow(rising, levels).first_passage_step.tolist() == [expected]


@pytest.mark.parametrize(("max_steps", "passed"), [(12, 0), (13, 13), (14, 13), (16, 13), (17, 13)])
def test_a_passage_counts_up_to_and_including_the_last_step(max_steps: int, passed: int) -> None:
    found = follow([1.0] * 12 + [3.0], [2.0], max_steps=max_steps)
    assert found.first_passage_step.tolist() == [[passed]]
    assert found.observed_steps.tolist() == [passed or max_steps]


@pytest.mark.parametrize("max_steps", [1, 7, 8, 9, 16, 20])
def test_a_run_that_passes_nothing_is_censored_at_the_last_step(max_steps: int) -> None:
    found = follow([1.0], [2.0, 3.0], max_steps=max_steps, runs=5)
    assert not np.any(found.first_passage_step)
    assert np.array_equal(found.observed_steps, [max_steps] * 5)
    assert not np.any(found.diverged)


def test_a_run_that_passes_some_levels_is_observed_until_the_end() -> None:
    found = follow([1.0, 2.5], [2.0, 3.0], max_steps=20)
    assert found.first_passage_step.tolist() == [[2, 0]]
    assert found.observed_steps.tolist() == [20]


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 7, 10])
def test_every_run_of_the_queue_starts_afresh(runs: int) -> None:
    """A script has three lanes and no randomness, so all runs are alike."""
    found = follow([1.0] * 9 + [2.5, 1.0, 3.5], [2.0, 3.0], runs=runs)
    assert np.array_equal(found.first_passage_step, [[10, 12]] * runs)
    assert np.array_equal(found.observed_steps, [12] * runs)


@pytest.fixture(scope="module", params=[WithReplacement(N, 1, 32), Epoch(N, 2)], ids=str)
def hundred(
    request: pytest.FixtureRequest, chain: LinearRegression
) -> tuple[Batches, FirstPassage]:
    """Runs 0 to 99 in one call; 64 lanes, so that many start as another run's successor."""
    levels = levels_of(chain, 1.05, 1.2, 1.5)
    return request.param, first_passage(
        chain, request.param, levels, KEY, runs=range(100), max_steps=701
    )


def rows(found: FirstPassage, order: list[int]) -> FirstPassage:
    return FirstPassage(*(a[order] for a in found))


@pytest.mark.parametrize("blocks_at_once", [1, 7])
def test_the_blocks_at_once_change_no_bit(
    blocks_at_once: int, chain: LinearRegression, hundred: tuple[Batches, FirstPassage]
) -> None:
    batches, expected = hundred
    found = first_passage(
        chain,
        batches,
        levels_of(chain, 1.05, 1.2, 1.5),
        KEY,
        runs=range(100),
        max_steps=701,
        blocks_at_once=blocks_at_once,
    )
    assert_same(found, expected)


def test_shards_and_the_order_of_runs_change_no_bit(
    chain: LinearRegression, hundred: tuple[Batches, FirstPassage]
) -> None:
    batches, expected = hundred
    assert len(np.unique(expected.first_passage_step[:, 0])) > 10
    levels = levels_of(chain, 1.05, 1.2, 1.5)
    shards = [list(range(25 * k, 25 * k + 25)) for k in range(4)]
    for runs in [*shards, list(range(99, -1, -1)), [42]]:
        found = first_passage(chain, batches, levels, KEY, runs=runs, max_steps=701)
        assert_same(found, rows(expected, runs))


def test_fewer_levels_or_more_steps_change_no_passage(
    chain: LinearRegression, hundred: tuple[Batches, FirstPassage]
) -> None:
    batches, expected = hundred
    longer = first_passage(
        chain, batches, levels_of(chain, 1.05, 1.5), KEY, runs=range(100), max_steps=1500
    )
    cut = np.where(longer.first_passage_step <= 701, longer.first_passage_step, 0)
    assert np.array_equal(cut, expected.first_passage_step[:, [0, 2]])


def test_a_network_in_float32_passes_where_its_losses_along_the_batches_do() -> None:
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(N, 5)), jnp.float32)
    labels = jnp.asarray(np.sign(rng.normal(size=N)), jnp.float32)
    network = init_network(jax.random.key(0), [5, 4, 1])
    chain = FunctionSpaceNetwork.from_network(network, inputs, labels, 0.3)
    batches = WithReplacement(N, 1, 50)
    initial = float(chain.loss(chain.start))
    levels = initial * np.array([1.05, 1.3, 40.0])
    found = first_passage(chain, batches, levels, KEY, runs=[2, 0], max_steps=120)
    step, loss = jax.jit(chain.step), jax.jit(chain.loss)
    for i, run in enumerate([2, 0]):
        state, losses = chain.initial_state(), []
        for block in range(3):
            for batch in batches.draw(jax.random.fold_in(KEY, run), jnp.asarray(block)):
                state = step(state, batch)
                losses.append(float(loss(state)))
        above = np.array(losses[:120])[:, None] > levels
        expected = np.where(above.any(0), above.argmax(0) + 1, 0)
        assert np.array_equal(found.first_passage_step[i], expected)
    assert np.any(found.first_passage_step > 0)


def mean_passage_steps(chain: LinearRegression, ratio: float, points: int) -> float:
    """The mean number of steps at d = 1, B = 1 from the N maps θ → (1 - ηx²)θ + ηxy.

    Solves τ = 1 + Pτ on a grid of the θ below the threshold; between grid points τ is linear.
    """
    x, y = np.asarray(chain.inputs)[:, 0], np.asarray(chain.labels)
    eta, start = float(chain.learning_rate), float(chain.minimum[0])
    half = np.sqrt(2 * (ratio - 1) * float(chain.minimum_loss) / float(chain.hessian[0, 0]))
    grid = np.linspace(-half, half, points)
    transition = np.zeros((points, points))
    for i, theta in enumerate(start + grid):
        at = ((1 - eta * x**2) * theta + eta * x * y - start + half) / (grid[1] - grid[0])
        at = at[(at >= 0) & (at <= points - 1)]
        left = np.minimum(at.astype(int), points - 2)
        transition[i] += np.bincount(left, 1 - (at - left), points)
        transition[i] += np.bincount(left + 1, at - left, points)
    times = np.linalg.solve(np.eye(points) - transition / len(x), np.ones(points))
    return float(np.interp(0, grid, times))


@pytest.mark.parametrize(("learning_rate", "ratio"), [(0.1, 1.2), (0.3, 1.5)])
def test_the_mean_passage_time_is_that_of_the_transition_matrix(
    learning_rate: float, ratio: float
) -> None:
    chain = gaussian_regression(jax.random.key(8), 500, 1, learning_rate)
    expected = mean_passage_steps(chain, ratio, 401)
    # Linear interpolation errs by the square of the grid step.
    assert mean_passage_steps(chain, ratio, 201) == pytest.approx(expected, rel=0.01)
    found = first_passage(
        chain,
        WithReplacement(500, 1),
        levels_of(chain, ratio),
        KEY,
        runs=range(3000),
        max_steps=10**6,
    )
    steps = found.first_passage_step[:, 0]
    assert np.all(steps > 0)
    assert abs(steps.mean() - expected) < 4 * steps.std() / np.sqrt(3000)


@pytest.mark.parametrize(
    "levels",
    [[], [2.0, 2.0], [3.0, 2.0], [0.5, 2.0], [1.0], [np.nan], [2.0, np.nan], [2.0, np.inf]],
    ids=str,
)
def test_levels_must_increase_above_the_initial_loss(levels: list[float]) -> None:
    with pytest.raises(SgdEscapeError, match=r"levels above the initial loss 1,.*c > 1"):
        follow([2.0], levels)


@pytest.mark.parametrize("runs", [[], [1, 2, 1]], ids=str)
def test_every_run_has_its_own_index(runs: list[int], chain: LinearRegression) -> None:
    with pytest.raises(SgdEscapeError, match=r"at least one run and each run once, but got \["):
        first_passage(
            chain,
            WithReplacement(N, 1),
            levels_of(chain, 1.1),
            KEY,
            runs=runs,
            max_steps=10,
        )


@pytest.mark.parametrize("max_steps", [0, -3])
def test_at_least_one_step_is_needed(max_steps: int) -> None:
    with pytest.raises(SgdEscapeError, match=f"max_steps >= 1, but got {max_steps}"):
        follow([2.0], [1.5], max_steps=max_steps)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_start_without_a_finite_loss_is_refused(bad: float) -> None:
    with pytest.raises(SgdEscapeError, match=r"finite initial loss, but it is (nan|inf)"):
        first_passage(
            Script(jnp.asarray([bad, 1.0])),
            WithReplacement(1, 1),
            np.array([2.0]),
            KEY,
            runs=[0],
            max_steps=10,
        )
