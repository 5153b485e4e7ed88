import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape import discrete_theory
from sgd_escape.batches import GaussianIncrements, WithReplacement, stream_key
from sgd_escape.chains import FreshRegression, LinearRegression, gaussian_regression
from sgd_escape.errors import SgdEscapeError
from sgd_escape.escape_theory import mean_first_passage_time
from sgd_escape.estimation import passage_steps
from sgd_escape.first_passage import first_passage
from sgd_escape.landscapes import Quadratic
from sgd_escape.langevin import sgd_langevin
from sgd_escape.splitting import _resampled, exit_rates, loss_levels

SAMPLES = 1000


@pytest.fixture(scope="module")
def line() -> LinearRegression:
    return gaussian_regression(jax.random.key(1), SAMPLES, 1, 0.1)


def rates(
    chain: LinearRegression, loss_ratio: float, bins: int, *, batch_size: int = 1, **sizes: int
) -> np.ndarray:
    levels = loss_levels(float(chain.minimum_loss), loss_ratio, bins)
    batches = WithReplacement(len(chain.labels), batch_size)
    return exit_rates(chain, batches, levels, stream_key(0, loss_ratio), **sizes)


def exact_steps(chain: LinearRegression, loss_ratio: float) -> float:
    inputs, labels = np.asarray(chain.inputs[:, 0]), np.asarray(chain.labels)
    return discrete_theory.data_passage_steps(inputs, labels, loss_ratio, 0.1, nodes=800).mean


def within_four_errors(found: np.ndarray, expected: float) -> bool:
    return bool(abs(found.mean() - expected) < 4 * found.std(ddof=1) / np.sqrt(len(found)))


def test_intervals_cover_the_transition_matrix(line: LinearRegression) -> None:
    sizes = {"particles": 10, "burn_in": 150, "steps": 200}
    found = rates(line, 1.5, 6, **sizes, repetitions=2000)
    expected = exact_steps(line, 1.5)
    assert within_four_errors(found, 1 / expected)
    intervals = [passage_steps(group, 0.95) for group in found.reshape(200, 10)]
    covered = np.mean([e.low <= expected <= e.high for e in intervals])
    assert 0.90 <= covered <= 0.99


@pytest.mark.parametrize(
    ("learning_rate", "batch_size", "loss_ratio", "bins"),
    # The last passage takes 5·10⁹ steps, which no simulation reaches.
    [(0.1, 1, 2.0, 15), (0.3, 3, 2.0, 15), (0.025, 1, 1.5, 30)],
)
def test_fresh_data_pass_as_their_kernel_says(
    learning_rate: float, batch_size: int, loss_ratio: float, bins: int
) -> None:
    found = exit_rates(
        FreshRegression.of_dimension(1, learning_rate),
        GaussianIncrements(2 * batch_size),
        loss_levels(0.5, loss_ratio, bins),
        stream_key(6, batch_size, loss_ratio),
        particles=20,
        burn_in=400,
        steps=500,
        repetitions=20,
    )
    expected = discrete_theory.gaussian_passage_steps(loss_ratio, learning_rate, batch_size)
    # Of the rare passages each repetition sees some: they are not a few lucky ones.
    assert (found > 0).all()
    assert within_four_errors(found, 1 / expected.mean)


def test_splitting_and_brute_force_agree_in_several_dimensions() -> None:
    chain = gaussian_regression(jax.random.key(2), SAMPLES, 4, 0.1)
    sizes = {"particles": 20, "burn_in": 150, "steps": 400, "repetitions": 40}
    found = rates(chain, 1.5, 6, batch_size=2, **sizes)
    level = np.array([1.5 * float(chain.minimum_loss)])
    record = first_passage(
        chain, WithReplacement(SAMPLES, 2), level, stream_key(3), runs=range(400), max_steps=10**6
    )
    steps = record.first_passage_step[:, 0]
    assert (steps > 0).all()
    errors = np.hypot(
        found.std(ddof=1) / np.sqrt(len(found)) / found.mean(),
        steps.std(ddof=1) / np.sqrt(len(steps)) / steps.mean(),
    )
    assert abs(np.log(found.mean() * steps.mean())) < 4 * errors


def test_the_stochastic_equation_passes_as_its_quadrature_says() -> None:
    temperature, loss_ratio, step = 0.1, 2.0, 0.005
    well = Quadratic(jnp.eye(2), jnp.zeros(2), jnp.asarray(0.5))
    chain = sgd_langevin(
        well, jnp.zeros(2), jnp.eye(2), learning_rate=temperature, batch_size=1, step_size=step
    )
    found = exit_rates(
        chain,
        GaussianIncrements(2),
        loss_levels(0.5, loss_ratio, 8),
        stream_key(4),
        particles=20,
        burn_in=1500,
        steps=1500,
        repetitions=24,
    )
    time = mean_first_passage_time(np.array([loss_ratio]), temperature, 2)[0]
    # Between two steps the path may pass and come back, as if the bound lay farther out by 0.5826
    # standard deviations of a step (Broadie, Glasserman and Kou, 1997).
    slope = np.gradient(
        np.log(mean_first_passage_time(np.array([1.95, 2.0, 2.05]), temperature, 2))
    )
    spread = np.sqrt(2 * temperature * 0.5 * loss_ratio * step) * np.sqrt(
        2 * 0.5 * (loss_ratio - 1)
    )
    time *= np.exp(slope[1] / 0.05 * 0.5826 * spread / 0.5)
    assert within_four_errors(found, step / time)


def test_one_bin_is_plain_simulation(line: LinearRegression) -> None:
    sizes = {"particles": 50, "burn_in": 150, "steps": 500, "repetitions": 20}
    assert within_four_errors(rates(line, 1.3, 1, **sizes), 1 / exact_steps(line, 1.3))


def test_resampling_preserves_every_mean_and_the_weight_of_each_bin() -> None:
    draw = np.random.default_rng(0)
    levels = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    # The third bin is empty, the last holds a weight of 1e-20.
    loss = np.concatenate([draw.uniform(0, 2, 15), [3.5]])
    weight = np.append(draw.uniform(size=15), 1e-20)
    offsets = (np.arange(1000) + 0.5) / 1000
    chosen, after = jax.vmap(
        lambda u: _resampled(jnp.asarray(loss), jnp.asarray(weight), levels, jnp.full(4, u))
    )(jnp.asarray(offsets))
    per_particle = np.zeros(16)
    np.add.at(per_particle, np.asarray(chosen).ravel(), np.asarray(after).ravel() / 1000)
    # Systematic resampling with equally spaced offsets errs by less than one offset.
    np.testing.assert_allclose(per_particle, weight, atol=2e-3 * weight.max())
    assert per_particle[-1] == pytest.approx(1e-20, rel=1e-12)
    for bin_weight, low, high in [(weight[loss <= 1].sum(), 0, 4), (0, 8, 12), (1e-20, 12, 16)]:
        totals = np.asarray(after)[:, low:high].sum(1)
        np.testing.assert_allclose(totals, bin_weight, rtol=1e-12)


def test_a_repetition_depends_on_its_index_alone(line: LinearRegression) -> None:
    sizes = {"particles": 5, "burn_in": 10, "steps": 20}
    few, many = (rates(line, 1.5, 4, **sizes, repetitions=count) for count in (2, 3))
    np.testing.assert_array_equal(few, many[:2])


def test_a_step_that_overflows_has_passed() -> None:
    # In two dimensions ∞ - ∞ makes some of the losses NaN.
    chain = gaussian_regression(jax.random.key(5), SAMPLES, 2, 1e200)
    sizes = {"particles": 4, "burn_in": 0, "steps": 100, "repetitions": 2}
    found = rates(chain, 1.5, 3, **sizes)
    # Every run passes at its first step.
    np.testing.assert_allclose(found, 1, rtol=1e-12)


@pytest.mark.parametrize("levels", [[], [0.1, 1.0], [1.0, 1.0], [2.0, np.nan]])
def test_levels_that_do_not_rise_from_the_start_are_refused(
    line: LinearRegression, levels: list[float]
) -> None:
    with pytest.raises(SgdEscapeError, match="increasing levels above the value at the start"):
        exit_rates(
            line,
            WithReplacement(SAMPLES, 1),
            np.array(levels),
            stream_key(0),
            particles=2,
            burn_in=0,
            steps=1,
            repetitions=2,
        )


@pytest.mark.parametrize("wrong", [{"particles": 0}, {"steps": 0}, {"repetitions": 0}])
def test_empty_ensembles_are_refused(line: LinearRegression, wrong: dict[str, int]) -> None:
    sizes = {"particles": 2, "burn_in": 0, "steps": 1, "repetitions": 2} | wrong
    with pytest.raises(SgdEscapeError, match="at least one particle, step and repetition"):
        rates(line, 1.5, 2, **sizes)


@pytest.mark.parametrize("wrong", [(0.0, 2.0, 3), (1.0, 1.0, 3), (1.0, 2.0, 0)])
def test_levels_need_a_barrier(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(SgdEscapeError, match="loss ratio above 1 and at least one bin"):
        loss_levels(*wrong)


def test_levels_end_at_the_threshold_and_are_equal_in_the_logarithm() -> None:
    levels = loss_levels(0.5, 8.0, 3)
    np.testing.assert_allclose(levels, [1.0, 2.0, 4.0])
