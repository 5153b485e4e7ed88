from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from sgd_escape import SgdEscapeError
from sgd_escape.gaussian_kernel import (
    exit_probability,
    log_transition_density,
    lyapunov_dimension,
    lyapunov_exponent,
    mean_square_dimension,
    stationary_variance,
    tail_index,
)

STEPS = [(0.1, 1), (1.0, 2), (0.3, 5), (0.7, 45)]


def density(end: float, start: float, learning_rate: float, batch_size: int) -> float:
    return float(
        np.exp(
            log_transition_density(np.array([start]), np.array([end]), learning_rate, batch_size)[0]
        )
    )


def integrated(
    function: Callable[[float], float],
    start: float,
    learning_rate: float,
    batch_size: int,
    low: float,
    high: float,
) -> float:
    """∫ function(θ') P(θ'|θ) dθ'; the pole at θ is an end of both parts."""
    parts = [(low, min(start, high)), (max(start, low), high)]
    return sum(
        quad(
            lambda end: function(end) * density(end, start, learning_rate, batch_size),
            *part,
            epsabs=1e-13,
            epsrel=1e-10,
            limit=200,
        )[0]
        for part in parts
        if part[0] < part[1]
    )


@pytest.mark.parametrize(("learning_rate", "batch_size"), STEPS)
@pytest.mark.parametrize("start", [0.3, -1.2])
def test_the_density_has_the_moments_of_a_step(
    learning_rate: float, batch_size: int, start: float
) -> None:
    """⟨θ'⟩ = (1 - η)θ and ⟨(θ' - ⟨θ'⟩)²⟩ = η²/B (1 + 2θ²), of BΣ = 1 + θ² + θ² in one dimension."""
    mean, variance = (
        (1 - learning_rate) * start,
        learning_rate**2 / batch_size * (1 + 2 * start**2),
    )
    far = 40 * learning_rate * (1 + abs(start))

    def moment(function: Callable[[float], float]) -> float:
        return integrated(function, start, learning_rate, batch_size, start - far, start + far)

    assert moment(lambda end: 1.0) == pytest.approx(1, abs=1e-7)
    assert moment(lambda end: end) == pytest.approx(mean, abs=1e-7)
    assert moment(lambda end: (end - mean) ** 2) == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize(("learning_rate", "batch_size"), STEPS)
def test_the_density_is_a_mixture_of_gaussians(learning_rate: float, batch_size: int) -> None:
    a, start, end = learning_rate / batch_size, 0.8, 0.83

    def mixed(w: float) -> float:
        given = norm.pdf(end, (1 - a * w) * start, a * np.sqrt(w))
        return float(given * chi2.pdf(w, batch_size))

    middle = [1e-3, 0.1, batch_size]
    expected = sum(
        quad(mixed, low, high, epsabs=0, epsrel=1e-9, limit=200)[0]
        for low, high in zip([0, *middle], [*middle, batch_size + 200], strict=True)
    )
    # The expansion of K for large orders errs by 5e-9.
    assert density(end, start, learning_rate, batch_size) == pytest.approx(expected, rel=2e-8)


@pytest.mark.parametrize("batch_size", [1, 3, 30])
def test_far_from_the_minimum_the_density_keeps_its_integral(batch_size: int) -> None:
    """There K's argument passes SciPy's range of 1e9, and θ'/θ = 1 - ηW/B: a χ² law."""
    start, learning_rate = 1e6, 0.1
    ends = start * np.array([0.99, 0.95, 0.8])
    law = chi2.pdf((1 - ends / start) * batch_size / learning_rate, batch_size)
    values = [density(end, start, learning_rate, batch_size) for end in ends]
    assert values == pytest.approx(law * batch_size / learning_rate / start, rel=1e-7)


@pytest.mark.parametrize(("learning_rate", "batch_size"), STEPS)
@pytest.mark.parametrize("start", [0.0, 0.4, 0.999])
def test_what_does_not_stay_within_the_bound_leaves(
    learning_rate: float, batch_size: int, start: float
) -> None:
    inside = integrated(lambda end: 1.0, start, learning_rate, batch_size, -1.0, 1.0)
    outside = exit_probability(np.array([start]), 1.0, learning_rate, batch_size)[0]
    assert inside + outside == pytest.approx(1, abs=1e-8)


def test_a_small_exit_probability_keeps_its_digits() -> None:
    # From 0, θ' is aZ: P(|Z| > 30) with Z a product of two standard normals; K_0 is its density.
    expected = 2 * quad(lambda z: density(0.1 * z, 0.0, 0.1, 1) * 0.1, 30, 90, epsabs=0)[0]
    assert 1e-14 < expected < 1e-12
    assert exit_probability(np.zeros(1), 3.0, 0.1, 1)[0] == pytest.approx(expected, rel=1e-8)


def test_the_stationary_variance_is_kept_by_a_step() -> None:
    learning_rate, batch_size, rng = 0.4, 2, np.random.default_rng(4)
    variance = stationary_variance(learning_rate, batch_size)
    theta = np.sqrt(variance) * rng.normal(size=400_000)
    x, y = rng.normal(size=(2, 400_000, batch_size))
    step = learning_rate * np.mean(x * (x * theta[:, None] - y), axis=1)
    squares = (theta - step) ** 2
    assert abs(squares.mean() - variance) < 4 * squares.std() / np.sqrt(len(squares))


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_the_tail_index_is_two_where_the_variance_becomes_infinite(batch_size: int) -> None:
    edge = 2 / (1 + 2 / batch_size)
    assert tail_index(edge, batch_size) == pytest.approx(2, abs=1e-9)
    with pytest.raises(SgdEscapeError, match=f"needs a learning rate below {edge:g}"):
        stationary_variance(1.001 * edge, batch_size)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_tail_index_is_four_where_the_fourth_moment_becomes_infinite(batch_size: int) -> None:
    """⟨(1 - ηW/B)⁴⟩ = 1 with ⟨W^k⟩ = B(B + 2)...(B + 2k - 2)."""
    m = np.cumprod(1 + 2 * np.arange(4) / batch_size)
    roots = np.polynomial.Polynomial([-4, 6 * m[1], -4 * m[2], m[3]]).roots()
    edge = float(roots[np.abs(roots.imag) < 1e-12].real.min())
    assert tail_index(edge, batch_size) == pytest.approx(4, abs=1e-9)


@pytest.mark.parametrize(
    ("learning_rate", "batch_size"), [(0.1, 1), (1.0, 10), (2.2, 3), (0.05, 400)]
)
def test_the_tail_index_makes_the_moment_of_the_contraction_one(
    learning_rate: float, batch_size: int
) -> None:
    power = tail_index(learning_rate, batch_size)
    a = learning_rate / batch_size

    def moment(s: float) -> float:
        log_factor = power * np.log(abs(1 - a * s**2))
        return np.exp(log_factor + chi2.logpdf(s**2, batch_size)) * 2 * s

    zero = 1 / np.sqrt(a)
    ends = np.linspace(0, zero + np.sqrt(2 * power + batch_size) + 20, 20)
    ends = np.sort(np.append(ends, zero))
    parts = [quad(moment, *part, limit=200)[0] for part in pairwise(ends)]
    assert sum(parts) == pytest.approx(1, rel=1e-6)


def test_for_small_steps_the_tail_index_is_that_of_one_large_input() -> None:
    """With W = v/η, ⟨|1 - ηW|^α⟩ ~ e^((1/η) max_v (ηα log(v - 1) - v/2)), which is 1 for

    ηα = x/2, log x = 1 + 1/x: the rare step that jumps across the minimum makes the tail.
    """
    limit = brentq(lambda x: np.log(x) - 1 - 1 / x, 1, 10) / 2
    errors = [abs(rate * tail_index(rate, 1) - limit) for rate in (0.02, 0.01, 0.005)]
    assert errors[0] < 0.02
    # The Gaussian integral around that maximum errs by order η.
    assert np.allclose(np.divide(errors[:-1], errors[1:]), 2, atol=0.2)


def test_a_chain_that_diverges_has_no_tail_index() -> None:
    with pytest.raises(SgdEscapeError, match="batch size 1 makes the chain diverge"):
        tail_index(4.0, 1)


@pytest.mark.parametrize("bad", [(0.0, 1), (-0.1, 1), (0.1, 0)])
def test_a_step_needs_a_learning_rate_and_a_batch(bad: tuple[float, int]) -> None:
    with pytest.raises(SgdEscapeError, match="positive learning rate and a batch size of at least"):
        tail_index(*bad)


@pytest.mark.parametrize(("learning_rate", "batch_size"), [(0.1, 1), (0.4, 4), (0.5, 1)])
def test_the_tail_index_is_two_at_the_mean_square_dimension(
    learning_rate: float, batch_size: int
) -> None:
    """⟨R²⟩ = 1 - 2η + η² (1 + (d + 1)/B) = 1, by two routes: moments of χ², and quadrature."""
    dimension = mean_square_dimension(learning_rate, batch_size)
    assert learning_rate * (1 + (dimension + 1) / batch_size) == pytest.approx(2, rel=1e-12)
    assert tail_index(learning_rate, batch_size, dimension) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize(("learning_rate", "batch_size", "dimension"), [(0.1, 1, 5), (0.5, 3, 2)])
def test_the_growth_far_from_the_minimum_is_that_of_random_matrices(
    learning_rate: float, batch_size: int, dimension: int
) -> None:
    """R = |(I - (η/B) Σ xxᵀ) e| for a unit vector e: the average of log R, and of R^α, over x."""
    x = np.random.default_rng(3).normal(size=(200_000, batch_size, dimension))
    moved = -learning_rate / batch_size * np.einsum("rb,rbd->rd", x[:, :, 0], x)
    moved[:, 0] += 1
    growth = np.log(np.linalg.norm(moved, axis=1))
    error = growth.std() / np.sqrt(len(growth))
    exponent = lyapunov_exponent(learning_rate, batch_size, dimension)
    assert abs(growth.mean() - exponent) < 4 * error
    # Far below α the moment has a finite variance: log⟨R^p⟩ is convex, so negative before α.
    power = tail_index(learning_rate, batch_size, dimension)
    assert np.mean(np.exp(0.5 * power * growth)) < 1 - 4 * error


def test_beyond_the_lyapunov_dimension_nothing_holds() -> None:
    critical = lyapunov_dimension(0.1, 1)
    assert lyapunov_exponent(0.1, 1, critical) == pytest.approx(0, abs=1e-8)
    assert 0 < tail_index(0.1, 1, critical - 0.01) < 0.05
    with pytest.raises(SgdEscapeError, match="makes the chain diverge"):
        tail_index(0.1, 1, critical + 0.01)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_for_small_steps_the_lyapunov_dimension_is_the_mean_square_one(batch_size: int) -> None:
    """As η → 0 with ηd/B fixed, |x|² is ever closer to d, so that R is no longer random.

    Fluctuations of |x|² are of relative order d^(-1/2), so what is left is of order η.
    """
    gaps = [
        lyapunov_dimension(rate, batch_size) - mean_square_dimension(rate, batch_size)
        for rate in (0.02, 0.01)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.1)


def test_a_step_that_diverges_in_every_dimension_has_no_lyapunov_dimension() -> None:
    with pytest.raises(SgdEscapeError, match="no critical one can be told; lower it"):
        lyapunov_dimension(4.0, 1)
