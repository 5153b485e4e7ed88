from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.special import beta, betainc

from sgd_escape import SgdEscapeError
from sgd_escape.escape_theory import (
    critical_dimension,
    escape_exponent,
    local_slope,
    log_escape_rate,
    log_kramers_rate,
    log_mean_first_passage_time,
    log_transverse_factor,
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
    (0.02, 1, 50.0),
    (0.02, 30, 50.0),
    (0.02, 30, 1.01),
    (0.1, 15, 50.0),
    (1.0, 1, 50.0),
    (1.0, 30, 50.0),
    # Where a hypergeometric function of SciPy loses half its digits.
    (0.0357911448, 26.753098896, 11.832299886),
]


def log_scale_and_speed(c: float, t: float, n: float) -> float:
    """log ∫_1^c s(y) ∫_1^y m(z) dz dy; y - 1 = q² takes the singularity at y = 1 away.

    From the drift nTy - 2(y - 1) and the squared noise 4Ty(y - 1) of y = L/L*: the scale density
    is s = (y - 1)^(-n/2) y^(1/T) and the speed density m = 1/(2Ty(y - 1)s).
    """

    largest = np.log(c) / t

    def outer(q: float) -> float:
        log_scale = np.log(2) + (1 - n) * np.log(q) + np.log1p(q * q) / t

        def inner(u: float) -> float:
            r = q * u
            log_speed = (n - 1) * np.log(r) - (1 / t + 1) * np.log1p(r * r) - np.log(t)
            return q * np.exp(log_scale + log_speed - largest)

        return quad(inner, 0, 1, epsabs=0, epsrel=1e-10, limit=200)[0]

    integral = quad(outer, 0, np.sqrt(c - 1), epsabs=0, epsrel=1e-10, limit=200)[0]
    return largest + np.log(integral)


def incomplete_beta(c: float, t: float, n: float) -> float:
    a, b = n / 2, 1 / t - n / 2 + 1

    def integrand(q: float) -> float:
        y = 1 + q * q
        return 2 * q ** (1 - n) * y ** (1 / t) * betainc(a, b, 1 - 1 / y) * beta(a, b)

    return quad(integrand, 0, np.sqrt(c - 1), epsabs=0, epsrel=1e-11, limit=200)[0] / (2 * t)


def tau(c: float, t: float, n: float) -> float:
    return float(mean_first_passage_time(np.array([c]), t, n)[0])


def slope(c: float, t: float, n: float, *, exact: bool = False) -> float:
    return float(local_slope(np.array([c]), t, n, exact_covariance=exact)[0])


def exact_tau(c: float, t: float, n: float) -> float:
    return float(np.exp(log_mean_first_passage_time(np.array([c]), t, n, exact_covariance=True)[0]))


@pytest.mark.parametrize(("t", "n", "c"), CASES)
def test_the_passage_time_is_the_double_integral_over_scale_and_speed(
    t: float, n: float, c: float
) -> None:
    assert np.log(tau(c, t, n)) == pytest.approx(log_scale_and_speed(c, t, n), abs=1e-8)


def test_both_routes_agree_wherever_one_looks() -> None:
    rng = np.random.default_rng(20261123)
    for _ in range(60):
        t, n = np.exp(rng.uniform(np.log(0.02), 0)), rng.uniform(0.5, 30)
        c = 1 + np.exp(rng.uniform(np.log(0.01), np.log(49)))
        assert np.log(tau(c, t, n)) == pytest.approx(log_scale_and_speed(c, t, n), abs=1e-8)


@pytest.mark.parametrize("c", [1.2, 40.0])
def test_nothing_happens_at_the_critical_dimension(c: float) -> None:
    """The slope at large c vanishes there, but the time at any c is smooth in n."""
    n = critical_dimension(0.2)
    below, at, above = (tau(c, 0.2, n + shift) for shift in (-1e-6, 0, 1e-6))
    assert below - at == pytest.approx(at - above, rel=1e-3)


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


@pytest.mark.parametrize(("c", "known"), [(1.5, 5.31), (2.0, 5.67)])
def test_the_known_slopes_at_t_01_and_five_dimensions(c: float, known: float) -> None:
    assert abs(slope(c, 0.1, 5) - known) <= 0.005


@pytest.mark.parametrize(("t", "n"), [(0.1, 1), (0.1, 5), (0.2, 4), (0.5, 2)])
def test_for_high_thresholds_the_slope_tends_to_the_papers_exponent(t: float, n: float) -> None:
    exponent = escape_exponent(t, n)
    errors = [abs(slope(c, t, n) - exponent) for c in (300.0, 3000.0)]
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


@pytest.mark.parametrize(("t", "n"), [(0.002, 1), (0.002, 30)])
def test_the_logarithm_of_the_passage_time_holds_where_the_time_overflows(
    t: float, n: float
) -> None:
    log_time = log_mean_first_passage_time(np.array([50.0]), t, n)[0]
    assert log_time > 1500
    assert log_time == pytest.approx(log_scale_and_speed(50.0, t, n), abs=1e-8)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("t", "n", "c"), CASES)
def test_the_local_slope_is_the_derivative_of_the_passage_time(
    t: float, n: float, c: float, exact: bool
) -> None:
    # A central difference errs by h² times the third derivative, of order log(c)^-2 and 1/T².
    h = 1e-4 * np.log(c)
    ratios = np.array([c * np.exp(-h), c * np.exp(h)])
    below, above = log_mean_first_passage_time(ratios, t, n, exact_covariance=exact)
    assert slope(c, t, n, exact=exact) == pytest.approx((above - below) / (2 * h), rel=1e-6)


def exact_covariance(theta: np.ndarray) -> np.ndarray:
    """B Σ for inputs and labels from N(0, 1)."""
    return (1 + theta @ theta) * np.eye(len(theta)) + np.outer(theta, theta)


def test_the_exact_covariance_is_that_of_gaussian_data() -> None:
    rng = np.random.default_rng(20261123)
    x, y, theta = rng.normal(size=(200_000, 3)), rng.normal(size=200_000), np.array([0.8, -0.5, 0])
    gradients = (x @ theta - y)[:, None] * x - theta
    products = np.einsum("ki,kj->kij", gradients, gradients)
    error = products.std(axis=0) / np.sqrt(len(x))
    assert np.all(np.abs(products.mean(axis=0) - exact_covariance(theta)) < 4 * error)


@pytest.mark.parametrize(
    ("t", "n", "c"), [(0.1, 1, 2.0), (0.1, 5, 10.0), (0.5, 3, 50.0), (0.05, 15, 3.0)]
)
def test_the_passage_time_with_the_exact_noise_solves_its_backward_equation(
    t: float, n: int, c: float
) -> None:
    """a τ' + b τ'' = 1 in r = |θ|², a = Tr(TBΣ) - 2r and b = 2T θᵀBΣθ, τ counted from below."""

    def slopes(log_r: float, values: np.ndarray) -> list[float]:
        r, theta = np.exp(log_r), np.zeros(n)
        theta[-1] = np.sqrt(r)
        covariance = exact_covariance(theta)
        drift = t * np.trace(covariance) - 2 * r
        spread = 2 * t * theta @ covariance @ theta
        return [r * values[1], r * (1 - drift * values[1]) / spread]

    # The regular solution starts as r/(nT); what differs from it dies out as r^(-n/2).
    start = 1e-9
    span, values = (np.log(start), np.log(c - 1)), [start / (n * t), 1 / (n * t)]
    solution = solve_ivp(slopes, span, values, "DOP853", rtol=1e-10, atol=0)
    assert exact_tau(c, t, n) == pytest.approx(solution.y[0, -1], rel=1e-7)


@pytest.mark.parametrize(("c", "time", "rounding"), [(1.5, 24.3, 0.05), (2.0, 192, 0.5)])
def test_the_known_times_with_the_exact_noise(c: float, time: float, rounding: float) -> None:
    assert abs(exact_tau(c, 0.1, 1) - time) <= rounding


@pytest.mark.parametrize(("t", "n"), [(0.1, 1), (0.1, 5), (0.2, 4), (0.5, 2)])
def test_with_the_exact_noise_the_slope_tends_to_another_exponent(t: float, n: float) -> None:
    exponent = 1 / (2 * t) + 3 / 4 - n / 4
    errors = [abs(slope(c, t, n, exact=True) - exponent) for c in (3000.0, 30000.0)]
    # The next order is 1/c smaller, or c to minus the exponent, 1.25 at least.
    assert errors[1] < 1e-3
    assert errors[1] < errors[0] / 5


def test_close_to_the_minimum_both_noises_are_the_same() -> None:
    c = 1 + 1e-7
    assert exact_tau(c, 0.3, 4.5) == pytest.approx(tau(c, 0.3, 4.5), rel=1e-5)


@pytest.mark.parametrize("bad", [(0.0, 1.0), (0.1, 0.0), (-0.1, 2.0)])
def test_a_passage_time_needs_temperature_and_dimension(bad: tuple[float, float]) -> None:
    with pytest.raises(SgdEscapeError, match="needs a positive temperature and dimension"):
        mean_first_passage_time(np.array([2.0]), *bad)


def test_a_local_slope_at_the_minimum_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match="needs loss ratios c > 1, but one of them is 1"):
        local_slope(np.array([1.0, 2.0]), 0.1, 1)


H, BEYOND = 2.0, 0.5


def barrier(x: float) -> float:
    """ΔL from a minimum of curvature H at 0 by a saddle of curvature -H(1 + BEYOND) at 1."""
    return H * (x**2 / 2 + (BEYOND - 1) * x**3 / 3 - BEYOND * x**4 / 4)


def passage_over_the_barrier(
    log_scale: Callable[[float], float], log_speed: Callable[[float], float]
) -> float:
    """log ∫_0^1.5 s(x) ∫_-1.5^x m(z) dz dx: from the minimum to well beyond the saddle."""
    # Midpoints, cumulated: the error is of the cell squared over the peaks' width squared, 1e-5.
    x = np.arange(-1.5, 1.5, 3e-4) + 1.5e-4
    top = log_scale(1.0) + log_speed(0.0)
    speed = np.exp(np.array([log_speed(z) for z in x]) - log_speed(0.0))
    scale = np.exp(np.array([log_scale(z) for z in x]) - log_scale(1.0))
    inner = np.cumsum(speed) - speed / 2
    return float(top + np.log(np.sum((scale * inner)[x > 0]) * 3e-4**2))


def test_equation_15_is_the_passage_time_over_a_barrier_in_one_dimension() -> None:
    """Of Eq. (12), with generator -L' d/dx + TL d²/dx²: s = L^(1/T) and m = L^(-1/T - 1)/T."""
    errors = []
    for t in (0.02, 0.01):
        time = passage_over_the_barrier(
            lambda x, t=t: np.log1p(barrier(x)) / t,
            lambda x, t=t: -(1 / t + 1) * np.log1p(barrier(x)) - np.log(t),
        )
        rate = log_escape_rate(1 + barrier(1.0), t, 1, H, -H * (1 + BEYOND))
        errors.append(abs(time + rate))
    # Laplace's method errs by order T.
    assert errors[0] < 0.1
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)


def test_kramers_rate_is_the_passage_time_over_a_barrier_in_one_dimension() -> None:
    """Of Eq. (5), with generator -L' d/dx + D d²/dx²: s = e^(L/D) and m = e^(-L/D)/D."""
    errors = []
    for noise in (0.02, 0.01):
        time = passage_over_the_barrier(
            lambda x, d=noise: barrier(x) / d, lambda x, d=noise: -barrier(x) / d - np.log(d)
        )
        rate = log_kramers_rate(barrier(1.0), noise, H, -H * (1 + BEYOND))
        errors.append(abs(time + rate))
    assert errors[0] < 0.1
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)


def test_equal_transverse_curvatures_leave_equation_15_as_printed() -> None:
    assert log_transverse_factor(np.array([2.0, 5.0]), np.array([2.0, 5.0])) == 0


def test_the_transverse_factor_by_hand() -> None:
    # √(8/2) √(3/27) = 2/3.
    factor = log_transverse_factor(np.array([8.0, 3.0]), np.array([2.0, 27.0]))
    assert factor == pytest.approx(np.log(2 / 3), rel=1e-14)


def test_where_log_l_is_separable_transverse_directions_drop_out() -> None:
    """Eq. (19): U_i'' = h_i*/L* along the whole path, hence h_i^s = h_i* L(θs)/L(θ*)."""
    ratio, t, curvatures = 3.0, 0.2, np.array([0.5, 2.0, 7.0])
    alone = log_escape_rate(ratio, t, 1, 4.0, -9.0)
    together = log_escape_rate(ratio, t, 4, 4.0, -9.0)
    together += log_transverse_factor(curvatures, curvatures * ratio)
    assert together == pytest.approx(alone, rel=1e-14)


@pytest.mark.parametrize("bad", [([1.0, -2.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 2.0])])
def test_transverse_curvatures_must_be_positive(bad: tuple[list[float], list[float]]) -> None:
    with pytest.raises(
        SgdEscapeError, match="need to be positive at the minimum and at the saddle"
    ):
        log_transverse_factor(np.array(bad[0]), np.array(bad[1]))
