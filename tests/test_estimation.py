from collections.abc import Callable

import numpy as np
import pytest
from scipy import optimize, stats

from sgd_escape import SgdEscapeError, estimation
from sgd_escape.estimation import (
    FEATURES,
    Bootstrap,
    Estimate,
    Passages,
    compare_models,
    curvature_and_dimension,
    enough_passages,
    exact_log_likelihood,
    fit_intercept,
    fit_line,
    fit_model,
    fit_slope,
    jackknife,
    log_log_slope,
    mean_over_runs,
    mean_passage_time,
    passage_steps,
    reason_to_stop,
    relative_scatter,
    stationary_exponent_histogram,
    stationary_exponent_likelihood,
)

RATIOS = np.geomspace(1.2, 3.0, 6)
BOOTSTRAP = Bootstrap(confidence=0.95, resamples=400, seed=1)


def nested_steps(mean: np.ndarray, runs: int, rng: np.random.Generator) -> np.ndarray:
    """First-passage steps of runs that need an exponential time from one threshold to the next."""
    increments = rng.exponential(np.diff(mean, prepend=0), (runs, len(mean)))
    return np.ceil(np.cumsum(increments, axis=1)).astype(np.int64)


def censored(ratios: np.ndarray, steps: np.ndarray, max_steps: int) -> Passages:
    seen = np.where(steps <= max_steps, steps, 0)
    observed = np.minimum(steps[:, -1], max_steps)
    return Passages.from_steps(ratios, seen, observed)


def power_law_passages(runs: int, seed: int, exponent: float = 4.0) -> Passages:
    rng = np.random.default_rng(seed)
    steps = nested_steps(200 * RATIOS**exponent, runs, rng)
    # Thirty per cent of the runs do not reach the last threshold.
    return censored(RATIOS, steps, int(np.quantile(steps[:, -1], 0.7)))


def test_a_censored_passage_was_watched_for_all_steps_and_another_until_it_passed() -> None:
    steps = np.array([[3, 10], [7, 0], [0, 0]])
    passages = Passages.from_steps(np.array([1.5, 2.0]), steps, np.array([10, 40, 40]))
    assert np.array_equal(passages.events, [[1, 1], [1, 0], [0, 0]])
    assert np.array_equal(passages.exposure, [[3, 10], [7, 40], [40, 40]])


def test_the_thresholds_within_a_range_include_both_ends() -> None:
    whole = power_law_passages(5, 0)
    part = whole.within(RATIOS[1], RATIOS[3])
    assert np.array_equal(part.loss_ratio, RATIOS[1:4])
    assert np.array_equal(part.events, whole.events[:, 1:4])
    assert np.array_equal(part.exposure, whole.exposure[:, 1:4])


def test_the_mean_of_a_hundred_times_is_known_to_minus_17_and_plus_23_percent() -> None:
    value, low, high = mean_passage_time(np.array([100]), np.array([100.0]), 0.95)
    assert value == 1
    # χ² with 201 and with 200 degrees of freedom differ by half a per cent.
    np.testing.assert_allclose([low[0], high[0]], [0.83, 1.23], atol=0.01)


def test_the_interval_of_the_mean_is_that_of_chi_square_by_hand() -> None:
    value, low, high = mean_passage_time(np.array([5]), np.array([300.0]), 0.9)
    assert value == pytest.approx(60)
    # χ² with 11 degrees of freedom has its 5 % and 95 % points at 4.575 and 19.675.
    np.testing.assert_allclose([low[0], high[0]], [600 / 19.675, 600 / 4.575], rtol=2e-4)


def test_without_any_passage_only_a_lower_bound_is_known() -> None:
    value, low, high = mean_passage_time(np.array([0, 4]), np.array([3e5, 3e5]), 0.95)
    assert value[0] == high[0] == np.inf
    # The probability to see nothing, e^(-exposure/low), is then 5 %.
    assert np.exp(-3e5 / low[0]) == pytest.approx(0.05, rel=1e-12)
    assert np.isfinite(high[1])


def test_the_interval_covers_the_mean_of_censored_exponential_times() -> None:
    rng = np.random.default_rng(0)
    times = rng.exponential(1.0, (2000, 100))
    limit = -np.log(0.3)
    events, exposure = (times < limit).sum(1), np.minimum(times, limit).sum(1)
    value, low, high = mean_passage_time(events, exposure, 0.95)
    coverage = np.mean((low < 1) & (high > 1))
    print(f"coverage of the mean of 100 times with 30 % censored: {coverage:.4f}")
    # Four standard errors of 2000 repetitions at 95 %.
    assert abs(coverage - 0.95) < 0.0195
    assert abs(np.mean(high < 1) - 0.025) < 0.014
    assert abs(np.mean(low > 1) - 0.025) < 0.014
    assert abs(value.mean() - 1) < 0.03


def test_the_interval_of_a_mean_rate_is_students_by_hand() -> None:
    # Mean 2, standard error 1/√3; t of two degrees of freedom is 0.8165 at 0.75, 4.303 at 0.975.
    found = passage_steps(np.array([1.0, 2.0, 3.0]), 0.5)
    width = 0.8165 / np.sqrt(3)
    np.testing.assert_allclose(found, (0.5, 1 / (2 + width), 1 / (2 - width)), rtol=1e-4)
    assert passage_steps(np.array([1.0, 2.0, 3.0]), 0.95).high == np.inf


@pytest.mark.parametrize("rates", [[0.1], [0.0, 0.0, 0.0]])
def test_a_passage_time_needs_several_rates_with_a_passage(rates: list[float]) -> None:
    with pytest.raises(SgdEscapeError, match="two repetitions or more, with a passage"):
        passage_steps(np.array(rates), 0.95)


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 3.5, 12.0])
@pytest.mark.parametrize("model", FEATURES)
def test_means_that_follow_a_model_give_its_slope_and_intercept(
    model: str, exponent: float
) -> None:
    feature = FEATURES[model](RATIOS)
    events = np.array([100.0, 90, 80, 40, 10, 3])
    exposure = events * np.exp(1.7 + exponent * feature)
    fit = fit_slope(feature, events, exposure)
    # Bisection ends at 2^-80 of its bracket, so only rounding of the sums is left.
    assert float(fit.slope) == pytest.approx(exponent, abs=1e-11)
    assert float(fit.intercept) == pytest.approx(1.7, abs=1e-11)


def test_the_fit_solves_the_score_equations_and_maximizes_the_likelihood() -> None:
    passages = power_law_passages(40, 3)
    feature = np.log(RATIOS)
    events, exposure = passages.events.sum(0).astype(float), passages.exposure.sum(0).astype(float)
    fit = fit_slope(feature, events, exposure)
    expected_events = exposure * np.exp(-fit.intercept - fit.slope * feature)
    assert expected_events.sum() == pytest.approx(events.sum(), rel=1e-11)
    assert expected_events @ feature == pytest.approx(events @ feature, rel=1e-10)

    def loss(x: np.ndarray) -> float:
        log_tau = x[0] + x[1] * feature
        return float(np.sum(events * log_tau + exposure * np.exp(-log_tau)))

    other = optimize.minimize(loss, [5.0, 3.0], method="Nelder-Mead", options={"xatol": 1e-7})
    # The likelihood is flat at its maximum: its error is the square of that of the place.
    assert -other.fun == pytest.approx(float(fit.log_likelihood), rel=1e-9)
    np.testing.assert_allclose(other.x, [fit.intercept, fit.slope], rtol=1e-4)


def test_the_likelihood_of_the_fit_is_that_of_a_theory_with_the_fitted_means() -> None:
    passages = power_law_passages(40, 3)
    feature = np.log(RATIOS)
    fit, _ = fit_model(passages, "power_law", BOOTSTRAP)
    fitted = np.exp(fit.intercept + fit.slope * feature)
    best = exact_log_likelihood(passages, fitted)
    assert best == pytest.approx(float(fit.log_likelihood), rel=1e-12)
    for factor in (0.99, 1.01):
        assert exact_log_likelihood(passages, factor * fitted) < best
        assert exact_log_likelihood(passages, fitted * RATIOS ** (factor - 1)) < best


def test_the_exact_likelihood_by_hand() -> None:
    passages = Passages(
        np.array([1.5, 2.0]), np.array([[1, 0], [1, 1]]), np.array([[3, 9], [5, 8]])
    )
    # -2 log 4 - 8/4 - log 10 - 17/10.
    expected = -2 * np.log(4) - 2 - np.log(10) - 1.7
    assert exact_log_likelihood(passages, np.array([4.0, 10.0])) == pytest.approx(expected)


def test_the_intercept_at_a_given_slope_balances_events_and_exposure() -> None:
    passages = power_law_passages(40, 3)
    feature = np.log(RATIOS)
    events, exposure = passages.events.sum(0), passages.exposure.sum(0)
    intercept = fit_intercept(feature, events, exposure, 2.5)
    expected_events = exposure * np.exp(-intercept - 2.5 * feature)
    assert expected_events.sum() == pytest.approx(events.sum(), rel=1e-12)
    fit = fit_slope(feature, events, exposure)
    assert float(fit_intercept(feature, events, exposure, fit.slope)) == float(fit.intercept)


def test_many_fits_at_once_are_the_fits_one_by_one() -> None:
    rng = np.random.default_rng(5)
    events = rng.integers(1, 50, (4, 3, 6)).astype(float)
    exposure = events * rng.uniform(10, 1000, (4, 3, 6))
    together = fit_slope(np.log(RATIOS), events, exposure)
    for i in np.ndindex(4, 3):
        alone = fit_slope(np.log(RATIOS), events[i], exposure[i])
        for one, other in zip(together, alone, strict=True):
            assert one[i] == pytest.approx(float(other), rel=1e-9)


def test_the_unit_of_time_moves_the_intercept_only() -> None:
    passages = power_law_passages(40, 3)
    events, exposure = passages.events.sum(0).astype(float), passages.exposure.sum(0).astype(float)
    one, other = (fit_slope(np.log(RATIOS), events, k * exposure) for k in (1, 100))
    assert float(one.slope) == pytest.approx(float(other.slope), rel=1e-10)
    assert float(other.intercept - one.intercept) == pytest.approx(np.log(100), rel=1e-10)


@pytest.mark.parametrize("count", [1, 3, 7, 49])
def test_passages_at_the_lowest_threshold_only_leave_an_infinite_slope(count: int) -> None:
    ratios = np.geomspace(1.1, 3, 4)
    events = np.array([count, 0, 0, 0], dtype=float)
    fit = fit_slope(np.log(ratios), events, np.array([30.0, 100, 100, 100]))
    assert fit.slope == np.inf


def test_a_bootstrap_of_counts_is_the_bootstrap_of_the_data() -> None:
    data = np.random.default_rng(4).exponential(size=40)
    found = BOOTSTRAP(lambda taken: taken @ data / taken.sum(-1), 40)
    expected = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=400,
        confidence_level=0.95,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.value == pytest.approx(data.mean(), rel=1e-14)
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)


def test_a_bootstrap_is_the_same_every_time_and_depends_on_its_seed() -> None:
    passages = power_law_passages(30, 7)
    one, same, other = (
        fit_model(passages, "power_law", Bootstrap(0.95, 100, seed))[1] for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_the_fitted_slope_is_the_middle_of_its_interval_and_a_wider_confidence_widens_it() -> None:
    passages = power_law_passages(50, 2)
    fit, narrow = fit_model(passages, "power_law", Bootstrap(0.5, 400, 1))
    _, wide = fit_model(passages, "power_law", BOOTSTRAP)
    assert narrow.value == pytest.approx(float(fit.slope), rel=1e-12)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_order_of_runs_does_not_change_the_fit() -> None:
    passages = power_law_passages(50, 2)
    turned = Passages(RATIOS, passages.events[::-1], passages.exposure[::-1])
    one, other = (fit_model(p, "arrhenius", BOOTSTRAP)[0] for p in (passages, turned))
    assert float(one.slope) == pytest.approx(float(other.slope), rel=1e-12)


def nested_study(rng: np.random.Generator) -> tuple[np.ndarray, int, float]:
    """Mean steps, where runs are cut off, and the slope that infinitely many of them have."""
    mean = 200 * RATIOS**4
    many = nested_steps(mean, 10**6, rng)
    max_steps = int(np.quantile(many[:, -1], 0.7))
    truth = censored(RATIOS, many, max_steps)
    slope = fit_slope(np.log(RATIOS), truth.events.sum(0), truth.exposure.sum(0)).slope
    return mean, max_steps, float(slope)


def assert_covered(intervals: list[Estimate], slope: float) -> None:
    covered = np.mean([one.low <= slope <= one.high for one in intervals])
    below = np.mean([one.high < slope for one in intervals])
    print(f"coverage of the slope {slope:.3f}: {covered:.4f}, below {below:.4f}")
    # Four standard errors of 400 repetitions at 95 %, and at 2.5 % on each side.
    assert abs(covered - 0.95) < 0.044
    assert abs(below - 0.025) < 0.031


def test_the_interval_over_runs_covers_the_slope_of_nested_censored_times() -> None:
    rng = np.random.default_rng(11)
    mean, max_steps, slope = nested_study(rng)
    samples = (censored(RATIOS, nested_steps(mean, 100, rng), max_steps) for _ in range(400))
    assert_covered([fit_model(one, "power_law", BOOTSTRAP)[1] for one in samples], slope)


def test_the_interval_at_which_runs_cease_to_be_added_covers_the_slope() -> None:
    rng = np.random.default_rng(7)
    mean, max_steps, slope = nested_study(rng)

    def stopped(width: float, runs: int) -> Estimate:
        steps = nested_steps(mean, 12 * runs, rng)
        for so_far in range(runs, len(steps) + 1, runs):
            passages = censored(RATIOS, steps[:so_far], max_steps)
            exponent = fit_model(passages, "power_law", BOOTSTRAP)[1]
            after = so_far + runs
            if reason_to_stop(exponent, width, runs_after_next_round=after, max_runs=len(steps)):
                break
        return exponent

    intervals = [stopped(0.8, 50) for _ in range(400)]
    assert max(one.high - one.low for one in intervals) <= 0.8
    assert_covered(intervals, slope)


@pytest.mark.parametrize(("model", "sign"), [("power_law", 1), ("arrhenius", -1)])
def test_the_model_that_made_the_data_has_the_higher_likelihood(model: str, sign: int) -> None:
    ratios = np.geomspace(1.2, 10, 8)
    feature = FEATURES[model](ratios)
    mean = np.exp(3 + 8 * feature / feature[-1])
    steps = nested_steps(mean, 200, np.random.default_rng(3))
    difference = compare_models(censored(ratios, steps, 10**6), BOOTSTRAP)
    assert sign * difference.low > 0
    assert sign * difference.high > 0
    assert difference.low < difference.value < difference.high


def test_the_difference_of_models_is_that_of_their_likelihoods() -> None:
    passages = power_law_passages(50, 2)
    power, arrhenius = (fit_model(passages, m, BOOTSTRAP)[0] for m in ("power_law", "arrhenius"))
    difference = compare_models(passages, BOOTSTRAP)
    assert difference.value == pytest.approx(
        float(power.log_likelihood - arrhenius.log_likelihood), rel=1e-9
    )


def few_passages(low: int, high: int) -> Passages:
    """Of 100 runs `low` pass c = 1.5 and `high` of those pass c = 2."""
    steps = np.zeros((100, 2), dtype=np.int64)
    steps[:low, 0] = 100 + np.arange(low)
    steps[:high, 1] = 2000
    return Passages.from_steps(np.array([1.5, 2.0]), steps, np.full(100, 5000))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (3, 0), (40, 1)])
def test_a_slope_needs_two_runs_that_passed_more_than_the_lowest_threshold(
    low: int, high: int
) -> None:
    pattern = (
        rf"of the 100 runs {low} passed c = 1.5 and {high} passed the next, within 5000 steps "
        r".* exceed .* steps, 95 %\)\. Raise max_steps or lower thresholds\.max"
    )
    with pytest.raises(SgdEscapeError, match=pattern):
        fit_model(few_passages(low, high), "power_law", BOOTSTRAP)
    with pytest.raises(SgdEscapeError, match=pattern):
        compare_models(few_passages(low, high), BOOTSTRAP)


def test_a_slope_that_hangs_on_two_runs_is_bounded_below_only() -> None:
    """One resample in seven holds neither of the two runs, and any slope would fit it."""
    fit, interval = fit_model(few_passages(40, 2), "power_law", BOOTSTRAP)
    assert np.isfinite(fit.slope)
    assert 0 < interval.low < fit.slope
    assert interval.high == np.inf


def test_resamples_without_any_passage_do_not_disturb_the_interval() -> None:
    fit, interval = fit_model(few_passages(2, 2), "power_law", BOOTSTRAP)
    assert np.isfinite(fit.slope)
    assert interval.low <= fit.slope <= interval.high


def test_resamples_without_any_passage_do_not_disturb_the_comparison() -> None:
    steps = np.zeros((100, 3), dtype=np.int64)
    steps[:3] = [[100, 900, 2000], [150, 400, 3000], [40, 700, 0]]
    passages = Passages.from_steps(np.array([1.5, 2.0, 3.0]), steps, np.full(100, 5000))
    difference = compare_models(passages, BOOTSTRAP)
    assert np.all(np.isfinite(difference))
    assert difference.low <= difference.value <= difference.high


def student(exponent: float, shape: tuple[int, int], seed: int) -> np.ndarray:
    """z with P(z) ∝ (1 + z²)^-φ: z = t/√ν, t of ν = 2φ - 1 degrees of freedom; L/L* = 1 + z²."""
    freedom = 2 * exponent - 1
    t = stats.t.rvs(freedom, size=shape, random_state=np.random.default_rng(seed))
    return t / np.sqrt(freedom)


def within_four_errors(estimate: Estimate, truth: float) -> bool:
    """A 95 % interval is 1.96 standard errors to each side."""
    error = (estimate.high - estimate.low) / (2 * 1.96)
    assert error < 0.1 * truth
    return bool(abs(estimate.value - truth) < 4 * error)


@pytest.mark.parametrize("exponent", [1.5, 4.0, 11.0])
def test_maximum_likelihood_finds_the_exponent_of_student_samples(exponent: float) -> None:
    samples = np.log1p(student(exponent, (50, 400), 0) ** 2)
    estimate = stationary_exponent_likelihood(samples, BOOTSTRAP)
    assert within_four_errors(estimate, exponent)
    # The same φ by the likelihood itself, n log B(φ - ½, ½) + φ Σ log(L/L*).
    mean = samples.mean()
    direct = optimize.minimize_scalar(
        lambda p: p * mean - (stats.beta.logpdf(0.5, p - 0.5, 0.5) + (p - 1.5 - 0.5) * np.log(2)),
        bounds=(0.6, 100),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert estimate.value == pytest.approx(direct.x, rel=1e-6)


def test_blocks_are_the_units_of_the_interval_of_the_exponent() -> None:
    """Repeating every block twenty times over adds samples but no knowledge."""
    blocks = np.log1p(student(4.0, (40, 50), 1) ** 2)
    one = stationary_exponent_likelihood(blocks, BOOTSTRAP)
    repeated = stationary_exponent_likelihood(np.tile(blocks, (1, 20)), BOOTSTRAP)
    np.testing.assert_allclose(one, repeated, rtol=1e-9)
    split = stationary_exponent_likelihood(blocks.reshape(400, 5), BOOTSTRAP)
    assert split.value == pytest.approx(float(one.value), rel=1e-9)


@pytest.mark.parametrize("exponent", [2.0, 11.0])
def test_a_line_through_the_histogram_finds_the_exponent_of_student_samples(
    exponent: float,
) -> None:
    theta = student(exponent, (100, 5000), 2)
    estimate = stationary_exponent_histogram(
        theta, lambda z: np.log1p(z**2), BOOTSTRAP, bins=100, min_count=50
    )
    assert within_four_errors(estimate, exponent)


def test_the_unit_of_the_loss_does_not_change_the_exponent_of_the_histogram() -> None:
    theta = student(4.0, (20, 1000), 2)
    one, other = (
        stationary_exponent_histogram(
            theta, lambda z, k=k: np.log(k * (1 + z**2)), BOOTSTRAP, bins=40, min_count=10
        )
        for k in (1.0, 7.0)
    )
    np.testing.assert_allclose(one, other, rtol=1e-10)


def test_bins_with_few_samples_do_not_enter_the_line() -> None:
    theta = student(4.0, (20, 1000), 2)
    seen: list[int] = []

    def log_loss(z: np.ndarray) -> np.ndarray:
        seen.append(len(z))
        return np.log1p(z**2)

    low, high = np.quantile(theta, [0.0005, 0.9995])
    counts = np.histogram(theta, np.linspace(low, high, 41))[0]
    # The least count that a bin may have is itself enough.
    for min_count in (1, int(np.sort(counts)[20]), int(np.sort(counts)[-4])):
        stationary_exponent_histogram(theta, log_loss, BOOTSTRAP, bins=40, min_count=min_count)
        assert seen[-1] == np.count_nonzero(counts >= min_count)
    assert seen[0] > seen[1] > seen[2] > 2


def line_estimate(value: np.ndarray, half_width: np.ndarray) -> Estimate:
    return Estimate(value, value - half_width, value + half_width)


def test_a_line_through_estimates_is_weighted_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, error = np.linspace(1, 4, 6), rng.uniform(0.1, 0.5, 6)
    # Half of what the errors allow, so that the scatter does not widen the intervals.
    y = 2 - 3 * x + 0.5 * error * rng.normal(size=6)
    quantile = stats.norm.ppf(0.975)
    line = fit_line(x, line_estimate(y, quantile * error), 0.95)
    (slope, intercept), covariance = np.polyfit(x, y, 1, w=1 / error, cov="unscaled")
    for found, value, variance in zip(
        (line.slope, line.intercept), (slope, intercept), covariance.diagonal(), strict=True
    ):
        assert float(found.value) == pytest.approx(value, rel=1e-10)
        half_width = quantile * np.sqrt(variance)
        assert float(found.high - found.value) == pytest.approx(half_width, rel=1e-10)
        assert float(found.value - found.low) == pytest.approx(half_width, rel=1e-10)


def test_scatter_beyond_the_intervals_widens_those_of_the_line() -> None:
    rng = np.random.default_rng(3)
    x, error = np.linspace(1, 4, 8), rng.uniform(0.1, 0.5, 8)
    y = 2 - 3 * x + 20 * error * rng.normal(size=8)
    quantile = stats.norm.ppf(0.975)
    line = fit_line(x, line_estimate(y, quantile * error), 0.95)
    _, covariance = np.polyfit(x, y, 1, w=1 / error, cov=True)
    half_width = stats.t.ppf(0.975, 6) * np.sqrt(covariance[0, 0])
    assert float(line.slope.high - line.slope.value) == pytest.approx(half_width, rel=1e-10)


@pytest.mark.parametrize("points", [4, 5])
def test_the_line_covers_the_truth_when_its_points_scatter_more_than_they_say(points: int) -> None:
    rng = np.random.default_rng(points)
    x = np.linspace(1, 4, points)
    y = 2 - 3 * x[:, None] + rng.normal(size=(points, 2000))
    slope = fit_line(x, line_estimate(y, np.full(y.shape, 0.01)), 0.95).slope
    # Four standard errors of 2000 repetitions.
    assert abs(np.mean((slope.low < -3) & (slope.high > -3)) - 0.95) < 0.0195


def test_lines_run_along_the_first_axis() -> None:
    rng = np.random.default_rng(1)
    x, y, half_width = rng.normal(size=(3, 5, 2))
    together = fit_line(x, line_estimate(y, abs(half_width)), 0.95)
    for i in range(2):
        alone = fit_line(x[:, i], line_estimate(y[:, i], abs(half_width[:, i])), 0.95)
        for whole, one in zip(together, alone, strict=True):
            for a, b in zip(whole, one, strict=True):
                assert a[i] == pytest.approx(float(b), rel=1e-10)
    shared = fit_line(x[:, 0], line_estimate(y, abs(half_width)), 0.95)
    assert shared.slope.value[0] == pytest.approx(float(together.slope.value[0]), rel=1e-10)


def test_exponents_on_the_line_of_equation_15_give_its_curvature_and_dimension() -> None:
    ratio = np.array([[1000.0, 2000.0], [1300.0, 2600.0], [2000.0, 4000.0]])
    exponent = ratio / 80 + 1 - 13 / 2
    half_width = np.full((3, 2), 0.2)
    found = curvature_and_dimension(ratio, line_estimate(exponent, half_width), 0.95)
    np.testing.assert_allclose(found.curvature.value, 80, rtol=1e-10)
    np.testing.assert_allclose(found.effective_dimension.value, 13, rtol=1e-10)
    for estimate in found:
        assert np.all(estimate.low < estimate.value)
        assert np.all(estimate.value < estimate.high)


def test_the_intervals_of_curvature_and_dimension_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    repetitions = 2000
    ratio = np.repeat(np.linspace(700, 2000, 8)[:, None], repetitions, axis=1)
    exponent = ratio / 80 + 1 - 13 / 2 + 0.5 * rng.normal(size=ratio.shape)
    half_width = np.full(ratio.shape, 0.5 * stats.norm.ppf(0.975))
    found = curvature_and_dimension(ratio, line_estimate(exponent, half_width), 0.95)
    for estimate, truth in zip(found, (80, 13), strict=True):
        coverage = np.mean((estimate.low < truth) & (truth < estimate.high))
        # Four standard errors below; above, what widening by the scatter adds.
        assert 0.95 - 0.0195 < coverage < 0.995


@pytest.mark.parametrize("model", ["power_law", "arrhenius"])
@pytest.mark.parametrize("rise", [1.0, 80.0, 200.0])
def test_no_slope_is_too_steep_to_be_found(model: str, rise: float) -> None:
    """`rise` is how far log τ grows over the thresholds."""
    feature = FEATURES[model](np.linspace(9.5, 10, 6))
    slope = rise / np.ptp(feature)
    events = np.array([100.0, 90, 50, 20, 3, 1])
    exposure = events * np.exp(slope * (feature - feature[0]))
    assert float(fit_slope(feature, events, exposure).slope) == pytest.approx(slope, rel=1e-9)


def test_the_slope_of_an_exact_power_is_its_exponent_with_an_interval_of_no_width() -> None:
    x = np.geomspace(0.01, 1, 60)
    slope = log_log_slope(x, 3 * x**1.7, 10, Bootstrap(0.95, 200, 0))
    np.testing.assert_allclose(slope, 1.7, rtol=1e-9)


def test_the_log_log_slope_is_that_of_numpy() -> None:
    rng = np.random.default_rng(4)
    x = np.exp(rng.normal(size=97))
    y = x**0.8 * np.exp(0.3 * rng.normal(size=97))
    expected = np.polyfit(np.log(x), np.log(y), 1)[0]
    slope = log_log_slope(x, y, 12, Bootstrap(0.95, 100, 0))
    assert slope.value == pytest.approx(expected, rel=1e-9)
    assert slope.low < expected < slope.high


def test_a_resample_of_blocks_has_the_slope_of_the_points_it_takes() -> None:
    rng = np.random.default_rng(5)
    x, y = np.exp(rng.normal(size=(2, 40)))
    taken = np.array([2.0, 0.0, 1.0, 1.0])

    class OneResample(Bootstrap):
        def __call__(self, statistic: Callable[[np.ndarray], np.ndarray], units: int) -> Estimate:
            assert units == 4
            return Estimate(*[statistic(taken)] * 3)

    expected = np.polyfit(np.log(x), np.log(y), 1, w=np.sqrt(np.repeat(taken, 10)))[0]
    slope = log_log_slope(x, y, 4, OneResample(0.95, 1, 0))
    assert slope.value == pytest.approx(expected, rel=1e-9)


def test_intervals_of_the_slope_allow_for_the_memory_of_a_series() -> None:
    # An autoregression with a memory of 20 points: blocks of 50 hold it, blocks of 2 do not.
    rng = np.random.default_rng(8)
    x = np.exp(np.linspace(0, 3, 1000))
    covered = {20: 0, 500: 0}
    for _ in range(60):
        steps, errors = rng.normal(size=1000), np.zeros(1000)
        for index in range(1, 1000):
            errors[index] = 0.95 * errors[index - 1] + 0.1 * steps[index]
        for blocks in covered:
            slope = log_log_slope(x, x * np.exp(errors), blocks, Bootstrap(0.95, 100, 0))
            covered[blocks] += bool(slope.low <= 1 <= slope.high)
    # 4 standard errors of a proportion of 0.9 in 60 trials are 0.15.
    assert covered[20] >= 0.75 * 60
    assert covered[500] <= 0.7 * 60


@pytest.mark.parametrize(("points", "same"), [(0, False), (19, False), (30, True)])
def test_too_few_points_or_equal_ones_have_no_slope(points: int, same: bool) -> None:
    x = np.ones(points) if same else np.linspace(1, 2, points)
    slope = log_log_slope(x, x + 1, 10, Bootstrap(0.95, 100, 0))
    assert np.isnan(slope).all()


def test_the_mean_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, (7, 4))
    found = mean_over_runs(values, 0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose(found.value, values.mean(0))
    np.testing.assert_allclose([found.low, found.high], expected)


@pytest.mark.parametrize("count", [0, 1])
def test_a_mean_of_less_than_two_values_is_not_known(count: int) -> None:
    for bound in mean_over_runs(np.ones((count, 3)), 0.95):
        assert bound.shape == (3,)
        assert np.isnan(bound).all()


def test_leaving_out_units_gives_students_interval_of_their_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, (5, 4))
    found = jackknife(lambda kept: values[kept].mean(axis=0), 5, 0.9)
    for bound, expected in zip(found, mean_over_runs(values, 0.9), strict=True):
        np.testing.assert_allclose(bound, expected, rtol=1e-10)


def test_leaving_out_units_covers_the_slope_where_the_points_of_a_unit_move_together() -> None:
    """Five units of four points: an interval over points, as of `fit_line`, is far too short."""
    generator = np.random.default_rng(4)
    x = np.linspace(5, 20, 4) * generator.uniform(0.8, 1.2, (600, 5, 1))
    tilt = generator.normal(0, 0.1, (600, 5, 1))
    y = x - 3 + tilt * (x - 12.5) + generator.normal(0, 0.1, x.shape)
    covered = {"units": 0, "points": 0}
    for a, b in zip(x, y, strict=True):

        def slope(kept: np.ndarray, a: np.ndarray = a, b: np.ndarray = b) -> np.ndarray:
            return np.polyfit(a[kept].ravel(), b[kept].ravel(), 1)[0]

        ours = jackknife(slope, 5, 0.95)
        points = fit_line(a.ravel(), line_estimate(b.ravel(), np.full(20, 0.1)), 0.95).slope
        covered["units"] += bool(ours.low < 1 < ours.high)
        covered["points"] += bool(points.low < 1 < points.high)
    # 4 standard errors of 600 proportions are 0.036; with five units a slope is not yet Gaussian.
    assert 0.88 < covered["units"] / 600 < 0.986
    assert covered["points"] < 0.85 * 600


def test_a_single_unit_has_a_value_without_an_interval() -> None:
    found = jackknife(lambda kept: np.array([1.0, 2.0]) * kept.sum(), 1, 0.95)
    np.testing.assert_array_equal(found.value, [1.0, 2.0])
    assert np.isnan([found.low, found.high]).all()


def test_the_scatter_about_a_line_is_that_which_was_put_in() -> None:
    generator = np.random.default_rng(1)
    x = generator.uniform(5, 20, 30)
    y = 2 * x - 3 + generator.normal(0, 1.5, 30)
    found = relative_scatter(x, y)
    # For least squares, Σ (residual)² = Σ (y - mean)² (1 - correlation²).
    squares = np.sum((y - y.mean()) ** 2) * (1 - np.corrcoef(x, y)[0, 1] ** 2)
    assert found == pytest.approx(np.sqrt(squares / 28) / y.mean())
    # 1.5 over the mean, known to 1/√56 of itself: 4 standard errors.
    assert found * y.mean() == pytest.approx(1.5, rel=4 / 56**0.5)


def test_points_on_a_line_do_not_scatter() -> None:
    x = np.arange(1.0, 8.0)
    assert relative_scatter(x, 3 * x - 2) == pytest.approx(0, abs=1e-7)


def narrow_to(width: float) -> Estimate:
    return Estimate(*map(np.asarray, (3.0, 2.0, 2.0 + width)))


@pytest.mark.parametrize(
    ("exponent", "after_next", "reason"),
    [
        (narrow_to(0.5), 200, "narrow enough"),
        (narrow_to(0.5), 400, "narrow enough"),
        (narrow_to(0.6), 300, None),
        (narrow_to(0.6), 301, "no room"),
        (narrow_to(np.inf), 300, None),
        (narrow_to(np.nan), 300, None),
        (None, 300, None),
        (None, 301, "no room"),
    ],
)
def test_runs_are_added_while_the_interval_is_wide_and_the_budget_lasts(
    exponent: Estimate | None, after_next: int, reason: str | None
) -> None:
    found = reason_to_stop(exponent, 0.5, runs_after_next_round=after_next, max_runs=300)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(("low", "high", "enough"), [(40, 2, True), (40, 1, False), (5, 0, False)])
def test_a_slope_needs_two_runs_above_the_lowest_threshold(
    low: int, high: int, enough: bool
) -> None:
    assert enough_passages(few_passages(low, high)) == enough


def test_a_line_leaves_out_points_without_a_number() -> None:
    x = np.arange(5.0)
    y = line_estimate(np.array([1.0, 3.1, 4.9, 7.2, 9.0]), np.full(5, 0.2))
    kept = np.array([True, False, True, True, False])
    holes = Estimate(np.where(kept, y.value, np.nan), y.low, np.where(kept, y.high, np.inf))
    found = fit_line(x, holes, 0.95)
    alone = fit_line(x[kept], Estimate(*(bound[kept] for bound in y)), 0.95)
    pairs = zip([*found.slope, *found.intercept], [*alone.slope, *alone.intercept], strict=True)
    for one, other in pairs:
        assert one == pytest.approx(other, rel=1e-12)


@pytest.mark.parametrize("known", [0, 1])
def test_there_is_no_line_through_fewer_than_two_points(known: int) -> None:
    y = np.where(np.arange(4) < known, 1.0, np.nan)
    line = fit_line(np.arange(4.0), Estimate(y, y - 1, y + 1), 0.95)
    assert np.isnan([*line.slope, *line.intercept]).all()


def test_scatter_leaves_out_points_without_a_number() -> None:
    x, y = np.arange(6.0), np.array([1, 2.2, np.nan, 4.1, 4.9, np.inf])
    kept = np.isfinite(y)
    assert relative_scatter(x, y) == pytest.approx(relative_scatter(x[kept], y[kept]), rel=1e-12)
    assert np.isnan(relative_scatter(x[:3], y[:3]))


def test_how_resamples_are_divided_changes_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).exponential(size=31)
    whole = BOOTSTRAP(lambda taken: taken @ values, 31)
    monkeypatch.setattr(estimation, "_LARGEST_BATCH", 31 * 7)
    assert BOOTSTRAP(lambda taken: taken @ values, 31) == whole
