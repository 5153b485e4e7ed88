from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import beta, betainc

from sgd_escape import SgdEscapeError
from sgd_escape.escape_theory import (
    critical_dimension,
    escape_exponent,
    log_escape_rate,
    mean_first_passage_time,
    stationary_exponent,
    temperature,
)

CASES = [
    (1.0, 1, 3.0),
    (0.1, 1, 1.05),
    (0.1, 1, 2.0),
    (0.1, 5, 1.5),
    (0.1, 5, 10.0),
    (0.1, 15, 10.0),
    (0.3, 2, 4.0),
    (0.1, 12.7, 3.0),
    (0.02, 10, 2.0),
    (0.5, 8, 5.0),
    (0.05, 0.5, 1.8),
]


def scale_and_speed(c: float, t: float, n: float) -> float:
    """∫_1^c s(y) ∫_1^y m(z) dz dy with y - 1 = q², which takes the singularity at y = 1 away.

    From the drift nTy - 2(y - 1) and the squared noise 4Ty(y - 1) of y = L/L*: the scale density
    is s = (y - 1)^(-n/2) y^(1/T) and the speed density m = 1/(2Ty(y - 1)s).
    """

    def outer(q: float) -> float:
        log_scale = np.log(2) + (1 - n) * np.log(q) + np.log1p(q * q) / t

        def inner(u: float) -> float:
            r = q * u
            log_speed = (n - 1) * np.log(r) - (1 / t + 1) * np.log1p(r * r) - np.log(t)
            return q * np.exp(log_scale + log_speed)

        return quad(inner, 0, 1, epsabs=0, epsrel=1e-10, limit=200)[0]

    return quad(outer, 0, np.sqrt(c - 1), epsabs=0, epsrel=1e-10, limit=200)[0]


def incomplete_beta(c: float, t: float, n: float) -> float:
    a, b = n / 2, 1 / t - n / 2 + 1

    def integrand(q: float) -> float:
        y = 1 + q * q
        return 2 * q ** (1 - n) * y ** (1 / t) * betainc(a, b, 1 - 1 / y) * beta(a, b)

    return quad(integrand, 0, np.sqrt(c - 1), epsabs=0, epsrel=1e-11, limit=200)[0] / (2 * t)


def tau(c: float, t: float, n: float) -> float:
    return float(mean_first_passage_time(np.array([c]), t, n)[0])


def local_slope(c: float, t: float, n: float) -> float:
    # A central difference in log c errs by the square of its step.
    h = 1e-4
    return (np.log(tau(c * np.exp(h), t, n)) - np.log(tau(c * np.exp(-h), t, n))) / (2 * h)


@pytest.mark.parametrize(("t", "n", "c"), CASES)
def test_the_passage_time_is_the_double_integral_over_scale_and_speed(
    t: float, n: float, c: float
) -> None:
    assert tau(c, t, n) == pytest.approx(scale_and_speed(c, t, n), rel=1e-8)


@pytest.mark.parametrize(("t", "n", "c"), [case for case in CASES if 1 / case[0] + 1 > case[1] / 2])
def test_the_passage_time_is_the_integral_over_an_incomplete_beta_function(
    t: float, n: float, c: float
) -> None:
    assert tau(c, t, n) == pytest.approx(incomplete_beta(c, t, n), rel=1e-8)


def test_the_passage_time_solves_its_backward_equation() -> None:
    """[nTy - 2(y - 1)] τ' + 2Ty(y - 1) τ'' = 1 where τ(c) counts time spent below c."""
    t, n, h = 0.2, 3.0, 1e-3
    for y in (1.3, 2.0, 3.5):
        below, at, above = mean_first_passage_time(np.array([y - h, y, y + h]), t, n)
        first, second = (above - below) / (2 * h), (above - 2 * at + below) / h**2
        left = (n * t * y - 2 * (y - 1)) * first + 2 * t * y * (y - 1) * second
        # Central differences err by h² times a fourth derivative, relative to terms of order τ.
        assert left == pytest.approx(1, abs=1e-5 * max(first, 1))


@pytest.mark.parametrize(("t", "n"), [(0.1, 1), (0.3, 4.5)])
def test_close_to_the_minimum_the_loss_grows_at_the_rate_of_the_noise(t: float, n: float) -> None:
    """E dL/L* = nT ds there, whence τ ≈ (c - 1)/(nT)."""
    c = 1 + 1e-7
    assert tau(c, t, n) == pytest.approx((c - 1) / (n * t), rel=1e-5)


def test_at_the_minimum_no_time_passes() -> None:
    assert tau(1.0, 0.1, 5) == 0


@pytest.mark.parametrize(("c", "time", "rounding"), [(1.5, 35.6, 0.05), (2.0, 574, 0.5)])
def test_the_known_times_at_t_01_and_one_dimension(c: float, time: float, rounding: float) -> None:
    assert abs(tau(c, 0.1, 1) - time) <= rounding


@pytest.mark.parametrize(("c", "slope"), [(1.5, 5.31), (2.0, 5.67)])
def test_the_known_slopes_at_t_01_and_five_dimensions(c: float, slope: float) -> None:
    assert abs(local_slope(c, 0.1, 5) - slope) <= 0.005


@pytest.mark.parametrize(("t", "n"), [(0.1, 1), (0.1, 5), (0.2, 4), (0.5, 2)])
def test_for_high_thresholds_the_slope_tends_to_the_papers_exponent(t: float, n: float) -> None:
    exponent = escape_exponent(t, n)
    errors = [abs(local_slope(c, t, n) - exponent) for c in (300.0, 3000.0)]
    # The integrand's next order is 1/c smaller, so the error falls by ten with c.
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 5


def test_the_passage_time_grows_with_the_threshold_and_falls_with_noise_and_dimension() -> None:
    ratios = np.linspace(1.1, 4, 20)
    times = mean_first_passage_time(ratios, 0.2, 3)
    assert np.all(np.diff(times) > 0)
    assert np.all(mean_first_passage_time(ratios, 0.21, 3) < times)
    assert np.all(mean_first_passage_time(ratios, 0.2, 3.1) < times)


def test_the_passage_times_do_not_depend_on_their_order_or_company() -> None:
    ratios = np.array([3.0, 1.2, 2.0])
    together = mean_first_passage_time(ratios, 0.1, 5)
    assert np.array_equal(together, [tau(c, 0.1, 5) for c in ratios])


@pytest.mark.parametrize("bad", [0.99, -3.0])
def test_a_loss_ratio_below_one_is_refused(bad: float) -> None:
    with pytest.raises(SgdEscapeError, match=f"ratios c >= 1, but the smallest is {bad}"):
        mean_first_passage_time(np.array([2.0, bad]), 0.1, 1)


def test_the_temperature_is_eta_h_over_b() -> None:
    assert temperature(0.1, 4, 20.0) == pytest.approx(0.5, rel=1e-15)


@pytest.mark.parametrize("bad", [(0.0, 1, 1.0), (0.1, 0, 1.0), (0.1, 1, -2.0)])
def test_the_temperature_needs_positive_factors(bad: tuple[float, float, float]) -> None:
    with pytest.raises(SgdEscapeError, match="positive learning rate, batch size and curvature"):
        temperature(*bad)


@pytest.mark.parametrize(
    ("formula", "arguments", "value"),
    [
        (stationary_exponent, (0.1,), 11),
        (stationary_exponent, (2.0,), 1.5),
        (escape_exponent, (0.1, 1), 10.5),
        (escape_exponent, (0.1, 5), 8.5),
        (escape_exponent, (0.1, 15), 3.5),
        (critical_dimension, (0.1,), 22),
        (critical_dimension, (2.0,), 3),
    ],
)
def test_the_papers_exponents(
    formula: Callable[..., float], arguments: tuple[float, ...], value: float
) -> None:
    assert formula(*arguments) == pytest.approx(value, rel=1e-14)


def test_the_escape_exponent_vanishes_at_the_critical_dimension() -> None:
    assert escape_exponent(0.37, critical_dimension(0.37)) == pytest.approx(0, abs=1e-14)


def test_the_stationary_law_is_normalizable_in_the_dimensions_below_the_critical_one() -> None:
    """∫ L^-φ r^(n-1) dr converges for 2φ > n, which is n < n_c."""
    assert 2 * stationary_exponent(0.37) == pytest.approx(critical_dimension(0.37), rel=1e-15)


@pytest.mark.parametrize("saddle_curvature", [9.0, -9.0])
def test_the_escape_rate_of_equation_15_by_hand(saddle_curvature: float) -> None:
    # √(4·9)/2π · 2^-(5 + 1 - 1) = 6/(2π)/32.
    rate = np.exp(log_escape_rate(2.0, 0.2, 2, 4.0, saddle_curvature))
    assert rate == pytest.approx(6 / (2 * np.pi) / 32, rel=1e-14)


def test_the_logarithm_of_the_escape_rate_holds_where_the_rate_underflows() -> None:
    expected = -np.log(2 * np.pi) - 1e5 * np.log(3.0)
    assert log_escape_rate(3.0, 1e-5, 2, 1.0, 1.0) == pytest.approx(expected, rel=1e-12)
