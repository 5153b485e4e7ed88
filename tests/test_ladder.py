import numpy as np
import pytest

from sgd_escape import SgdEscapeError, ladder
from sgd_escape.discrete_theory import gaussian_passage_steps
from sgd_escape.escape_theory import escape_exponent, local_slope, log_mean_first_passage_time
from sgd_escape.estimation import FEATURES, fit_slope
from sgd_escape.gaussian_kernel import lyapunov_dimension, mean_square_dimension

RATIOS = np.geomspace(1.5, 6.0, 9)


def test_all_rungs_meet_where_many_examples_are_averaged_and_the_threshold_is_near() -> None:
    """B = 40 makes the noise Gaussian, and at c - 1 of a few T θ is too small to change it.

    Only the monitoring at steps is left: it adds 0.58 √(ηT) to |θ| = √(4T), Broadie, Glasserman
    and Kou (1997), which is 0.58 √(η/4) or 3 % at η = 0.01, and some times that in τ.
    """
    near = 1 + 0.01 / 40 * np.array([2.0, 4.0])
    steps = ladder.exact_log_steps(near, 0.01, 40, 3, nodes=60).log_steps
    fresh, gaussian, covariance, decoupled = steps
    assert np.all(np.abs(fresh - gaussian) < 0.005)
    assert np.all(np.abs(covariance - decoupled) < 0.001)
    assert np.all((gaussian - covariance > 0.03) & (gaussian - covariance < 0.2))


def test_the_error_of_the_grid_falls_with_the_square_of_its_cells() -> None:
    """The two grids of a matrix differ by ~ 1/nodes²; closed forms have no grid."""
    coarse, fine = (
        ladder.exact_log_steps(np.array([2.0]), 0.2, 2, 3, nodes=nodes).grid_error[:, 0]
        for nodes in (32, 64)
    )
    assert np.all((coarse[:2] / fine[:2] > 3) & (coarse[:2] / fine[:2] < 5))
    assert np.all(coarse[2:] == 0)


def test_the_closed_forms_are_in_steps() -> None:
    steps = ladder.exact_log_steps(np.array([2.0]), 0.1, 2, 3, nodes=32).log_steps
    time = log_mean_first_passage_time(np.array([2.0]), 0.05, 3)
    assert np.exp(steps[3] - time) == pytest.approx(10, rel=1e-12)


def test_only_the_first_rung_knows_that_the_noise_is_not_gaussian() -> None:
    """In one dimension it is the matrix of `discrete_theory`, to the error of the grid."""
    steps = ladder.exact_log_steps(np.array([2.0]), 0.2, 2, 1, nodes=60).log_steps
    exact = np.log(gaussian_passage_steps(2.0, 0.2, 2).mean)
    assert steps[0] == pytest.approx(exact, abs=0.01)
    assert np.all(np.abs(steps[1:] - exact) > 0.5)


def test_slopes_between_thresholds_are_those_of_the_integrand() -> None:
    """A difference quotient is the derivative between its ends, to second order in log c."""
    middle = np.sqrt(RATIOS[1:] * RATIOS[:-1])
    found = ladder.slopes_between(log_mean_first_passage_time(RATIOS, 0.1, 5), RATIOS)
    assert found == pytest.approx(local_slope(middle, 0.1, 5), rel=0.01)


def test_a_power_law_has_its_exponent_whatever_thresholds_are_used() -> None:
    log_steps = np.stack([3 + 7 * np.log(RATIOS), 1 - 2 * np.log(RATIOS)])
    used = np.stack([RATIOS > 1.6, RATIOS < 3])
    assert ladder.fitted_exponent(log_steps, RATIOS, used) == pytest.approx([7, -2])
    unresolved = np.where(used, log_steps, np.nan)
    assert ladder.fitted_exponent(unresolved, RATIOS, used) == pytest.approx([7, -2])
    # Through two thresholds any power law would pass.
    three, two = np.arange(9) < 3, np.arange(9) < 2
    assert ladder.fitted_exponent(log_steps, RATIOS, three[None]) == pytest.approx([7, -2])
    assert np.isnan(ladder.fitted_exponent(log_steps, RATIOS, two[None])).all()


def test_exponents_by_least_squares_are_those_of_a_polynomial_fit() -> None:
    log_steps = np.random.default_rng(3).normal(size=9)
    used = (RATIOS > 1.7) & (RATIOS < 5)
    expected = np.polyfit(np.log(RATIOS)[used], log_steps[used], 1)[0]
    assert ladder.fitted_exponent(log_steps, RATIOS, used) == pytest.approx(expected)


def test_the_interval_over_data_sets_covers_their_mean() -> None:
    """Student's interval of normal numbers covers 95 % of the time: 4 standard errors of 2000."""
    values = np.random.default_rng(1).normal(2.0, 3.0, size=(4, 2000))
    mean = ladder.mean_over_sets(values, 0.95)
    coverage = np.mean((mean.low < 2) & (mean.high > 2))
    assert abs(coverage - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)


def test_one_data_set_without_a_time_leaves_the_mean_unknown() -> None:
    mean = ladder.mean_over_sets(np.array([[1.0, 2.0], [3.0, np.nan]]), 0.95)
    assert mean.value[0] == 2
    assert np.isnan([bound[1] for bound in mean]).all()


def test_the_shares_add_up_to_the_power_law() -> None:
    rng = np.random.default_rng(2)
    data, exact = rng.normal(size=(3, 2, 9)), rng.normal(size=(4, 2, 9))
    power_law = np.array([8.5, 6.0])
    found = ladder.budget(data, exact, power_law, RATIOS, (1.5, 6.0), 0.95)
    first = found.exponent.value[0]
    assert first + found.exponent_share.value.sum(0) == pytest.approx(power_law)
    assert found.log_steps.value + found.time_share.value.sum(0) == pytest.approx(exact[3])
    # More of the finite data's exponent is less of a share: the interval turns around.
    assert found.exponent_share.low[0] == pytest.approx(
        found.exponent.value[1] - found.exponent.high[0]
    )
    assert np.all(found.exponent_share.low[0] < found.exponent_share.high[0])
    assert found.time_share.low[1:] == pytest.approx(found.time_share.high[1:])


def test_data_are_compared_with_fresh_ones_where_they_are_resolved() -> None:
    """A kink above c = 3, where one data set has no time, is seen by the exact exponents alone."""
    log_ratios = np.log(RATIOS)
    kinked = 5 * log_ratios + 3 * np.maximum(log_ratios - np.log(3), 0)
    exact = np.stack(4 * [kinked[None]])
    data = np.stack(3 * [6 * log_ratios[None]])
    data[1, 0, RATIOS > 3] = np.nan
    found = ladder.budget(data, exact, np.array([8.5]), RATIOS, (1.5, 6.0), 0.95)
    assert found.exponent.value[0] == pytest.approx(6)
    assert found.exponent_share.value[0] == pytest.approx(-1)
    assert found.exponent.value[1] > 5.5
    assert np.isnan(found.log_steps.value[0, RATIOS > 3]).all()


def test_a_law_is_recognised_and_its_slope_is_one() -> None:
    power, arrhenius = 8.5 * np.log(RATIOS), 10 * (RATIOS - 1)
    of_power = ladder.regime(power, RATIOS, 0.1, 8.5, window=2)
    of_arrhenius = ladder.regime(arrhenius, RATIOS, 0.1, 8.5, window=2)
    assert of_power.power_law == pytest.approx(1)
    # d(c - 1)/d log c by central differences is c sinh(h)/h, h the spacing of log c.
    spacing = np.log(RATIOS[1] / RATIOS[0])
    assert of_arrhenius.arrhenius == pytest.approx(np.sinh(spacing) / spacing)
    assert np.all(of_power.gain > 0)
    assert np.all(of_arrhenius.gain < 0)
    assert len(of_power.gain) == len(RATIOS) - 4


def test_the_gain_is_the_expected_difference_of_log_likelihoods() -> None:
    """Against a direct search for both laws on simulated exponential times."""
    log_steps = 4 * np.log(RATIOS) + 2 * (RATIOS - 1)
    gain = ladder.power_law_gain(RATIOS, log_steps)
    times = np.random.default_rng(4).exponential(np.exp(log_steps), size=(20_000, len(RATIOS)))
    runs = np.ones_like(times).sum(0)
    power, arrhenius = (
        fit_slope(feature(RATIOS), runs, times.sum(0)).log_likelihood
        for feature in FEATURES.values()
    )
    # log-likelihood ratios of 1.8e5 passages scatter by about the root of their number.
    assert gain == pytest.approx((power - arrhenius) / times.size, abs=4 / np.sqrt(times.size))
    assert abs(gain) > 8 / np.sqrt(times.size)


def test_no_power_law_where_the_exponent_is_not_positive() -> None:
    exponent = escape_exponent(0.5, 10)
    assert exponent < 0
    found = ladder.regime(np.log(RATIOS), RATIOS, 0.5, exponent, window=1)
    assert np.isnan(found.power_law).all()


def test_the_exponent_at_infinite_thresholds_ends_at_the_lyapunov_dimension() -> None:
    critical = lyapunov_dimension(0.2, 1)
    assert ladder.asymptotic_exponent(0.2, 1, critical + 0.1) == 0
    assert 0 < ladder.asymptotic_exponent(0.2, 1, critical - 0.1) < 0.2
    assert ladder.asymptotic_exponent(0.2, 1, mean_square_dimension(0.2, 1)) == pytest.approx(1)


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match="two or more, but got 1; add some"):
        ladder.mean_over_sets(np.ones((1, 3)), 0.95)
    for window in (0, 5):
        with pytest.raises(SgdEscapeError, match=f"a window of {window} thresholds on either side"):
            ladder.regime(np.log(RATIOS), RATIOS, 0.1, 1.0, window=window)
