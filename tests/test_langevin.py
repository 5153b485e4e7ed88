from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_banded
from scipy.optimize import brentq

from sgd_escape import SgdEscapeError
from sgd_escape.batches import GaussianIncrements
from sgd_escape.chains import Chain, LinearRegression, sample_states
from sgd_escape.escape_theory import mean_first_passage_time
from sgd_escape.first_passage import first_passage
from sgd_escape.landscapes import DoubleWell, Quadratic, committor_plane
from sgd_escape.langevin import (
    BasinExit,
    Langevin,
    LangevinState,
    change_time,
    gaussian_regression_langevin,
    gradient_langevin,
    matched_diffusion,
    regression_langevin,
    sgd_langevin,
    states_after,
)

KEY = jax.random.key(31)
ETA, BATCH = 0.12, 3
HESSIAN = np.array([[2.0, 0.5], [0.5, 1.0]])


def quadratic(hessian: np.ndarray, minimum_loss: float) -> Quadratic:
    minimum = 0.3 * jnp.arange(len(hessian), dtype=float)
    return Quadratic(jnp.asarray(hessian), minimum, jnp.asarray(minimum_loss))


def sgd_on_quadratic(
    hessian: np.ndarray, *, learning_rate: float = ETA, step_size: float = 0.05
) -> Langevin:
    """Eq. (12) with L* = 0.7."""
    landscape = quadratic(hessian, 0.7)
    rates = {"learning_rate": learning_rate, "batch_size": BATCH, "step_size": step_size}
    return sgd_langevin(landscape, landscape.minimum, landscape.hessian, **rates)


def data() -> LinearRegression:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 2)) * [1.0, 1.5] + 0.3
    labels = inputs @ [1.0, -1.0] + rng.normal(size=40)
    return LinearRegression.from_data(jnp.asarray(inputs), jnp.asarray(labels), ETA)


def gld(landscape: Quadratic | DoubleWell, diffusion: float, step_size: float) -> Langevin:
    return gradient_langevin(landscape, landscape.minimum, diffusion=diffusion, step_size=step_size)


@dataclass(frozen=True)
class Equation:
    """A chain beside its noise covariance a unit of t, as the paper writes it."""

    chain: Langevin
    covariance: Callable[[np.ndarray], np.ndarray]


def equation_12() -> Equation:
    chain = sgd_on_quadratic(HESSIAN)
    shift = np.asarray(chain.start)

    def covariance(theta: np.ndarray) -> np.ndarray:
        loss = 0.7 + (theta - shift) @ HESSIAN @ (theta - shift) / 2
        return 2 * ETA * loss / BATCH * HESSIAN

    return Equation(chain, covariance)


def equation_5() -> Equation:
    return Equation(gld(quadratic(HESSIAN, 0.7), 0.3, 0.05), lambda theta: 0.6 * np.eye(2))


def equation_4_gaussian() -> Equation:
    """Σ/B from the fourth moments E[x_i x_j x_k x_l] of a normal vector, summed as they stand."""
    unit = np.eye(3)
    pairs = np.einsum("ij,kl->ijkl", unit, unit)
    fourth = pairs + pairs.transpose(0, 2, 1, 3) + pairs.transpose(0, 3, 2, 1)

    def covariance(theta: np.ndarray) -> np.ndarray:
        spread = np.einsum("ijkl,k,l->ij", fourth, theta, theta) + unit
        return ETA / BATCH * (spread - np.outer(theta, theta))

    rates = {"learning_rate": ETA, "batch_size": BATCH, "step_size": 0.05}
    return Equation(gaussian_regression_langevin(3, **rates), covariance)


def equation_4_data() -> Equation:
    regression = data()
    x, y = np.asarray(regression.inputs), np.asarray(regression.labels)

    def covariance(theta: np.ndarray) -> np.ndarray:
        gradients = x * (x @ theta - y)[:, None]
        return ETA / BATCH * np.cov(gradients, rowvar=False, bias=True)

    return Equation(regression_langevin(regression, batch_size=BATCH, step_size=0.05), covariance)


EQUATIONS = [equation_12, equation_5, equation_4_gaussian, equation_4_data]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_noise_has_the_covariance_of_its_equation(equation: Callable[[], Equation]) -> None:
    chain, covariance = equation().chain, equation().covariance
    for theta in jax.random.normal(KEY, (3, len(chain.start)), jnp.float64):
        amplitude = np.asarray(chain.amplitude(theta, chain.landscape.loss(theta)))
        expected = covariance(np.asarray(theta))
        np.testing.assert_allclose(amplitude @ amplitude.T, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_step_is_that_of_euler_and_maruyama(equation: Callable[[], Equation]) -> None:
    chain = equation().chain
    theta, noise = jax.random.normal(KEY, (2, len(chain.start)), jnp.float64)
    after = chain.step(LangevinState(theta, jnp.asarray(4.0)), noise)
    gradient = chain.landscape.hessian @ (theta - chain.landscape.minimum)
    amplitude = chain.amplitude(theta, chain.landscape.loss(theta))
    expected = theta - 0.05 * gradient + np.sqrt(0.05) * amplitude @ noise
    np.testing.assert_allclose(after.position, expected, rtol=1e-12)
    assert float(after.time) == pytest.approx(4.05, rel=1e-15)


def test_in_changed_time_the_step_is_that_of_equation_14_with_additive_noise() -> None:
    """dθ = -∇log L dτ + √(2ηH*/B) dW and dt = dτ/L."""
    chain = change_time(sgd_on_quadratic(HESSIAN), 0.02)
    theta, noise = 3 * jax.random.normal(KEY, (2, 2), jnp.float64)
    after = chain.step(LangevinState(theta, jnp.asarray(4.0)), noise)
    gradient = jax.grad(lambda point: jnp.log(chain.landscape.loss(point)))(theta)
    values, vectors = np.linalg.eigh(HESSIAN)
    root = vectors * np.sqrt(2 * ETA / BATCH * values) @ vectors.T
    expected = theta - 0.02 * gradient + np.sqrt(0.02) * root @ noise
    np.testing.assert_allclose(after.position, expected, rtol=1e-12)
    loss = float(chain.landscape.loss(theta))
    assert float(after.time) == pytest.approx(4 + 0.02 / loss, rel=1e-14)


@partial(jax.jit, static_argnames=("walkers", "steps"))
def walk(chain: Langevin, walkers: int, steps: int) -> LangevinState:
    """The states of independent walkers after each step, time first."""
    increments = GaussianIncrements(len(chain.start), steps)
    noise = jax.vmap(increments.draw, (None, 0))(KEY, jnp.arange(walkers))
    start = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (walkers, *leaf.shape)), chain.initial_state()
    )

    def step(state: LangevinState, batch: jax.Array) -> tuple[LangevinState, LangevinState]:
        state = jax.vmap(chain.step)(state, batch)
        return state, state

    return jax.lax.scan(step, start, jnp.swapaxes(noise, 0, 1))[1]


def polynomial_mean(
    covariance: Callable[[np.ndarray], np.ndarray], second_moment: np.ndarray, origin: np.ndarray
) -> np.ndarray:
    """E Σ(θ) of a Σ that is quadratic in θ - θ*, from E (θ - θ*) = 0 and E (θ - θ*)(θ - θ*)ᵀ.

    Averaging Σ over ±√d times the columns of a root of the second moment is exact.
    """
    values, vectors = np.linalg.eigh(second_moment)
    columns = np.sqrt(len(values) * np.maximum(values, 0)) * vectors
    points = [origin + sign * column for column in columns.T for sign in (1, -1)]
    return np.mean([covariance(point) for point in points], axis=0)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_noise_has_the_exact_strength_after_any_number_of_steps(
    equation: Callable[[], Equation],
) -> None:
    """S' = (I - ΔtH) S (I - ΔtH) + Δt E Σ: the strength enters the exponent, no √2 may be lost."""
    chain, covariance = equation().chain, equation().covariance
    hessian, minimum = (np.asarray(a) for a in (chain.landscape.hessian, chain.landscape.minimum))
    walkers, steps = 20000, 40
    positions = np.asarray(walk(chain, walkers, steps).position)
    drift = np.eye(len(minimum)) - 0.05 * hessian
    expected = 0 * hessian
    for k in range(1, steps + 1):
        mean_noise = polynomial_mean(covariance, expected, minimum)
        expected = drift @ expected @ drift + 0.05 * mean_noise
        if k not in (1, 2, 10, steps):
            continue
        shift = positions[k - 1] - minimum
        products = shift[:, :, None] * shift[:, None, :]
        error = products.std(0) / np.sqrt(walkers)
        assert np.all(abs(products.mean(0) - expected) < 4 * error)
        assert np.all(abs(shift.mean(0)) < 4 * shift.std(0) / np.sqrt(walkers))
        assert np.all(error.diagonal() < 0.05 * expected.diagonal())


def test_stepped_by_eta_equation_4_has_the_stationary_variance_of_sgd_on_fresh_data() -> None:
    """(η/B)/(2 - η(1 + (d + 1)/B)) a component, of section 5.3.1's SGD."""
    rates = {"learning_rate": 0.4, "batch_size": 2, "step_size": 0.4}
    chain = gaussian_regression_langevin(3, **rates)
    squares = np.mean(np.asarray(walk(chain, 20000, 40).position)[-1] ** 2, axis=-1)
    # (1 - η)² + 4η²/B = 0.68 a step leaves 2e-7 of the start after 40.
    error = squares.std() / np.sqrt(20000)
    assert abs(squares.mean() - 0.2 / (2 - 0.4 * 3)) < 4 * error


def test_the_matched_gld_has_the_trace_of_the_noise_at_the_minimum() -> None:
    chain = equation_12().chain
    diffusion = matched_diffusion(0.7, jnp.asarray(HESSIAN), ETA, BATCH)
    expected = np.trace(equation_12().covariance(np.asarray(chain.start)))
    isotropic = gld(chain.landscape, diffusion, 0.05)
    amplitude = isotropic.amplitude(chain.start, jnp.asarray(0.7))
    assert float(jnp.sum(amplitude**2)) == pytest.approx(expected, rel=1e-13)


def test_flat_directions_are_frozen() -> None:
    """Where H* has no curvature there is neither drift nor noise."""
    flat = np.array([1.0, -1.0]) / np.sqrt(2)
    chain = sgd_on_quadratic(np.eye(2) - np.outer(flat, flat))
    shift = np.asarray(walk(chain, 20000, 40).position) - np.asarray(chain.start)
    # Rounding of 1e-16 a step.
    assert abs(shift @ flat).max() < 1e-12
    assert shift.std() > 0.1


def test_rotating_the_landscape_and_the_noise_rotates_the_run() -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))
    chain = sgd_on_quadratic(HESSIAN)
    minimum = rotation @ chain.start
    landscape = Quadratic(
        jnp.asarray(rotation @ HESSIAN @ rotation.T), minimum, chain.landscape.minimum_loss
    )
    rates = {"learning_rate": ETA, "batch_size": BATCH, "step_size": 0.05}
    rotated = sgd_langevin(landscape, minimum, landscape.hessian, **rates)
    noise = GaussianIncrements(2, 200).draw(KEY, 0)
    end, rotated_end = (follow(c, n) for c, n in ((chain, noise), (rotated, noise @ rotation.T)))
    np.testing.assert_allclose(rotated_end.position, rotation @ end.position, rtol=1e-11)


@jax.jit
def follow(chain: Chain, noise: jax.Array) -> LangevinState:
    """The last state along the given noise."""
    return jax.lax.scan(
        lambda state, batch: (chain.step(state, batch), None), chain.initial_state(), noise
    )[0]


@jax.jit
def follow_all(chain: Chain, noise: jax.Array) -> LangevinState:
    return jax.vmap(follow, (None, 0))(chain, noise)


def coarse(noise: np.ndarray, factor: int) -> np.ndarray:
    """The same Wiener paths in steps `factor` times as long, in units of their own √Δt."""
    paths, steps, n = noise.shape
    return noise.reshape(paths, steps // factor, factor, n).sum(2) / np.sqrt(factor)


def fitted_order(step_sizes: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(step_sizes), np.log(errors), 1)[0])


FINEST = 512


@dataclass(frozen=True)
class GeometricBrownianMotion:
    """Eq. (12) with L = ½hθ², which is dθ = -hθ dt + σ|θ| dW with σ = h√(η/B), to t = 1."""

    h: float
    learning_rate: float

    @property
    def sigma(self) -> float:
        return self.h * np.sqrt(self.learning_rate)

    def chain(self, step_size: float) -> Langevin:
        landscape = quadratic(np.array([[self.h]]), 0.0)
        rates = {"learning_rate": self.learning_rate, "batch_size": 1, "step_size": step_size}
        return sgd_langevin(landscape, jnp.array([1.0]), landscape.hessian, **rates)

    def solve(self) -> tuple[np.ndarray, dict[float, np.ndarray]]:
        """θ = exp(-(h + σ²/2) + σW) of 20000 paths, and the scheme's θ by step size."""
        noise = np.asarray(jax.random.normal(KEY, (20000, FINEST, 1), jnp.float64))
        wiener = noise.sum(1)[:, 0] / np.sqrt(FINEST)
        exact = np.exp(-(self.h + self.sigma**2 / 2) + self.sigma * wiener)
        schemes = {}
        for factor in (4, 8, 16, 32):
            ends = follow_all(self.chain(factor / FINEST), jnp.asarray(coarse(noise, factor)))
            np.testing.assert_allclose(ends.time, 1, rtol=1e-12)
            schemes[factor / FINEST] = np.asarray(ends.position)[:, 0]
        return exact, schemes


def test_with_the_noise_of_equation_12_the_scheme_converges_strongly_at_order_one_half() -> None:
    # Strong noise, σ² = h, so that its error and not the drift's, of order one, is the larger.
    exact, schemes = GeometricBrownianMotion(0.5, 2.0).solve()
    errors = [np.mean(abs(scheme - exact)) for scheme in schemes.values()]
    assert fitted_order(list(schemes), errors) == pytest.approx(0.5, abs=0.1)


def test_with_the_noise_of_equation_12_the_scheme_converges_weakly_at_order_one() -> None:
    motion = GeometricBrownianMotion(1.5, 0.2)
    exact, schemes = motion.solve()
    biases = []
    for step_size, scheme in schemes.items():
        # The exact solution of the same path takes most of the fluctuation away.
        difference = scheme**2 - exact**2
        error = difference.std() / np.sqrt(len(exact))
        factor = (1 - 1.5 * step_size) ** 2 + motion.sigma**2 * step_size
        expected = factor ** round(1 / step_size) - np.exp(-3 + motion.sigma**2)
        assert abs(difference.mean() - expected) < 4 * error
        biases.append(-difference.mean())
    assert fitted_order(list(schemes), biases) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("equation", ["14", "5"])
def test_with_additive_noise_the_scheme_converges_strongly_at_order_one(equation: str) -> None:
    well = DoubleWell.from_curvatures(1.0, 1.5, 3.0, -1.0, [2.0], [3.0])

    def chain(step_size: float) -> Langevin:
        if equation == "5":
            return gld(well, 0.05, step_size)
        return change_time(sgd_on_quadratic(HESSIAN), step_size)

    noise = np.asarray(jax.random.normal(KEY, (500, FINEST, 2), jnp.float64))
    reference, fine, rough = (
        follow_all(chain(factor / FINEST), jnp.asarray(coarse(noise, factor)))
        for factor in (1, 8, 32)
    )
    for part in ("position", "time") if equation == "14" else ("position",):
        errors = [np.mean(abs(getattr(e, part) - getattr(reference, part))) for e in (fine, rough)]
        # Errors of 8 - 1 and 32 - 1 finest steps read as an order of 1.07.
        assert fitted_order([8, 32], errors) == pytest.approx(1.07, abs=0.1)


@dataclass(frozen=True)
class Times:
    """Passage times t of independent runs: their mean and its standard error."""

    mean: float
    error: float

    @classmethod
    def measure(cls, chain: Chain, level: float, runs: int, dimension: int) -> "Times":
        increments = GaussianIncrements(dimension)
        steps = first_passage(
            chain, increments, np.array([level]), KEY, runs=range(runs), max_steps=10**7
        )
        assert not steps.diverged.any()
        last = steps.first_passage_step[:, 0]
        assert last.min() > 0
        inner = chain.chain if isinstance(chain, BasinExit) else chain
        if inner.time_changed:
            times = np.asarray(states_after(chain, increments, KEY, range(runs), last).time)
        else:
            times = last * float(inner.step_size)
        return cls(times.mean(), times.std() / np.sqrt(runs))

    def agrees_with(self, expected: float) -> bool:
        return abs(self.mean - expected) < 4 * self.error


def isotropic(curvature: float, minimum_loss: float, temperature: float, n: int) -> Langevin:
    """Eq. (12) with H = h·I, stepped by 0.005/h."""
    landscape = quadratic(curvature * np.eye(n), minimum_loss)
    return sgd_langevin(
        landscape,
        landscape.minimum,
        landscape.hessian,
        learning_rate=temperature / curvature,
        batch_size=1,
        step_size=0.005 / curvature,
    )


def monitored_ratio(ratio: float, noise: float, step_size: float, curvature: float) -> float:
    """The threshold that discrete monitoring of c = L/L* amounts to, per unit of L*.

    Checked at steps of Δt only, a path is seen to cross r = |θ - θ*| as if it stood at
    r + 0.5826 √(noise Δt) (Broadie, Glasserman and Kou 1997); c = 1 + ½hr².
    """
    radius = np.sqrt(2 * (ratio - 1) / curvature) + 0.5826 * np.sqrt(noise * step_size)
    return 1 + curvature * radius**2 / 2


SETTINGS = [
    (int(n), float(t), float(h))
    for n, t, h in zip(
        [1, 1, 1, 1, 1, 4, 4, 4, 4, 4],
        np.random.default_rng(7).uniform(0.15, 0.5, 10),
        np.random.default_rng(8).uniform(0.5, 3.0, 10),
        strict=True,
    )
]


@pytest.mark.parametrize(("n", "temperature", "curvature"), SETTINGS)
def test_passage_times_of_equation_12_and_14_are_those_of_the_closed_form(
    n: int, temperature: float, curvature: float
) -> None:
    """Eq. (12) in t directly, Eq. (14) mapped from τ to t, at a threshold with hτ(c) = 5."""

    def closed_form(ratio: float) -> float:
        return float(mean_first_passage_time(np.array([ratio]), temperature, n)[0])

    ratio = brentq(lambda c: closed_form(c) - 5, 1.001, 50)
    chain = isotropic(curvature, 1.0, temperature, n)
    step_size = float(chain.step_size)
    # The noise at the threshold is 2TL in t and 2T in τ, and L* = 1.
    in_t = (chain, 2 * temperature * ratio)
    in_tau = (change_time(chain, step_size), 2 * temperature)
    for current, noise in (in_t, in_tau):
        expected = closed_form(monitored_ratio(ratio, noise, step_size, curvature)) / curvature
        assert Times.measure(current, ratio, 500, n).agrees_with(expected)


def mean_exit_time(
    drift: Callable[[np.ndarray], np.ndarray],
    variance: Callable[[np.ndarray], np.ndarray],
    left: float,
    start: float,
    right: float,
) -> float:
    """Exact for dx = b dt + √v dW between absorbing ends: bτ' + ½vτ'' = -1, by differences."""
    x = np.linspace(left, right, 8001)
    width = x[1] - x[0]
    b, v = drift(x[1:-1]) / (2 * width), variance(x[1:-1]) / (2 * width**2)
    bands = np.zeros((3, len(b)))
    bands[0, 1:], bands[1], bands[2, :-1] = (b + v)[:-1], -2 * v, (v - b)[1:]
    times = solve_banded((1, 1), bands, -np.ones(len(b)))
    return float(np.interp(start, x[1:-1], times))


def test_the_exit_time_by_differences_is_the_closed_form() -> None:
    t, c = 0.2, 2.0
    edge = np.sqrt(2 * (c - 1))
    time = mean_exit_time(lambda x: -x, lambda x: 2 * t * (1 + x**2 / 2), -edge, 0.0, edge)
    expected = float(mean_first_passage_time(np.array([c]), t, 1)[0])
    assert time == pytest.approx(expected, rel=1e-6)


def test_with_the_exact_covariance_gaussian_regression_passes_at_the_exact_time() -> None:
    """T = 0.1, d = 1, c = 1.5: 24.3 where Eq. (12) has 35.6, for BΣ = 1 + 2θ² and not 1 + θ²."""
    rates = {"learning_rate": 0.1, "batch_size": 1}

    def exact(edge: float) -> float:
        return mean_exit_time(lambda x: -x, lambda x: 0.1 * (1 + 2 * x**2), -edge, 0.0, edge)

    edge, step_size = np.sqrt(0.5), 0.01
    assert exact(edge) == pytest.approx(24.3, abs=0.05)
    chain = gaussian_regression_langevin(1, **rates, step_size=step_size)
    monitored = exact(edge + 0.5826 * np.sqrt(0.2 * step_size))
    assert Times.measure(chain, 0.75, 1500, 1).agrees_with(monitored)


def test_with_the_covariance_of_the_data_regression_passes_at_the_exact_time() -> None:
    """One input, skew: the noise is a quadratic polynomial of θ that is not even about θ*."""
    rng = np.random.default_rng(5)
    x = rng.exponential(size=(30, 1))
    y = rng.exponential(size=30)
    regression = LinearRegression.from_data(jnp.asarray(x), jnp.asarray(y), 0.05)
    h, minimum, loss = (
        float(np.squeeze(a))
        for a in (regression.hessian, regression.minimum, regression.minimum_loss)
    )

    def variance(shift: np.ndarray) -> np.ndarray:
        gradients = x * (x * (shift + minimum)[None] - y[:, None])
        return 0.05 * gradients.var(axis=0)

    step_size = 0.02
    edge = np.sqrt(2 * 0.3 * loss / h)
    ends = edge * np.array([-1, 1])
    left, right = ends + np.sign(ends) * 0.5826 * np.sqrt(variance(ends) * step_size)
    expected = mean_exit_time(lambda shift: -h * shift, variance, left, 0.0, right)
    chain = regression_langevin(regression, batch_size=1, step_size=step_size)
    assert Times.measure(chain, 1.3 * loss, 300, 1).agrees_with(expected)


def stationary_positions(chain: Langevin) -> np.ndarray:
    """Positions of 1000 walkers at 8 times, after 8 blocks of approach to the stationary law."""
    increments = GaussianIncrements(len(chain.start))
    keys = jax.random.split(KEY if chain.time_changed else jax.random.key(32), 1000)
    states = jax.vmap(lambda key: sample_states(chain, increments, key, 16))(keys)
    return np.asarray(states.position[:, 8:]) - np.asarray(chain.start)


def reweighted(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Σ wf/Σ w over independent walkers and its standard error."""
    total = weights.mean()
    mean = (weights * values).mean() / total
    residual = (weights * (values - mean)).mean(axis=1) / total
    return mean, residual.std() / np.sqrt(len(residual))


def features(shift: np.ndarray, loss: np.ndarray) -> list[np.ndarray]:
    """A histogram of the loss, and moments whose means converge for any tail."""
    edges = [0.7, 0.8, 0.95, 1.2, np.inf]
    bins = [(low <= loss) & (loss < high) for low, high in pairwise(edges)]
    return [*bins, 1 / loss, np.log(loss), shift[..., 0] ** 2 / loss, shift[..., 1] ** 2 / loss]


def test_the_stationary_law_of_equation_12_is_that_of_14_over_the_loss() -> None:
    """Eq. (43), P_s ∝ P~_s/L, with unequal curvatures: neither law is known in closed form."""
    chain = sgd_on_quadratic(HESSIAN, learning_rate=0.5, step_size=0.02)
    samples = {c.time_changed: stationary_positions(c) for c in (chain, change_time(chain, 0.014))}
    losses = {
        changed: 0.7 + np.einsum("wti,ij,wtj->wt", shift, HESSIAN, shift) / 2
        for changed, shift in samples.items()
    }
    once = np.ones_like(losses[False])
    plain, changed = (features(samples[c], losses[c]) for c in (False, True))
    unweighted = []
    for one, other in zip(plain, changed, strict=True):
        mean, error = reweighted(one, once)
        mapped, mapped_error = reweighted(other, 1 / losses[True])
        assert abs(mean - mapped) < 4 * np.hypot(error, mapped_error)
        unweighted.append((reweighted(other, once)[0] - mean) / error)
    assert np.max(np.abs(unweighted)) > 10


def test_the_stationary_law_is_that_of_equation_17() -> None:
    """P_s ∝ L^-φ with φ = 1 + 1/T, where E L*/L = 1 - n/(2φ)."""
    chain = isotropic(2.0, 0.7, 0.4, 2)
    for current in (replace(chain, step_size=jnp.asarray(0.01)), change_time(chain, 0.007)):
        inverse = 0.7 / (0.7 + np.sum(stationary_positions(current) ** 2, axis=-1))
        weights = inverse if current.time_changed else np.ones_like(inverse)
        mean, error = reweighted(inverse, weights)
        assert abs(mean - (1 - 1 / 3.5)) < 4 * error
        assert error < 0.004


def test_the_states_after_the_passage_steps_have_just_passed() -> None:
    chain = change_time(isotropic(1.0, 1.0, 0.4, 1), 0.02)
    increments = GaussianIncrements(1)
    levels = np.array([2.0])
    found = first_passage(chain, increments, levels, KEY, runs=range(500), max_steps=10**6)
    steps = found.first_passage_step[:, 0]
    after = states_after(chain, increments, KEY, range(500), steps)
    before = states_after(chain, increments, KEY, range(500), steps - 1)
    losses, losses_before = (np.asarray(jax.vmap(chain.loss)(s)) for s in (after, before))
    assert np.all(losses > 2)
    assert np.all(losses_before <= 2)
    # One step of dτ more, at the loss before it.
    np.testing.assert_allclose(after.time - before.time, 0.02 / losses_before, rtol=1e-8)


def test_states_do_not_depend_on_which_runs_are_replayed_together() -> None:
    chain = change_time(isotropic(1.0, 1.0, 0.4, 1), 0.02)
    increments, rng = GaussianIncrements(1), np.random.default_rng(0)
    steps, order = rng.permutation(500), rng.permutation(500)
    states = states_after(chain, increments, KEY, range(500), steps)
    shuffled = states_after(chain, increments, KEY, order.tolist(), steps[order])
    np.testing.assert_array_equal(shuffled.position, states.position[order])
    assert float(states.time[np.argmin(steps)]) == 0
    one_block = int(np.flatnonzero(steps == 128)[0])
    noise = increments.draw(jax.random.fold_in(KEY, one_block), 0)
    alone = follow(chain, noise)
    np.testing.assert_allclose(states.position[one_block], alone.position, rtol=1e-11)
    np.testing.assert_allclose(states.time[one_block], alone.time, rtol=1e-12)


TEMPERATURE = 0.25


def exit_chains(well: DoubleWell) -> dict[str, tuple[Langevin, float]]:
    """Eqs. (12), (14) and (5) at T = 0.25, with the plane where the committor is 0.99."""
    rate = TEMPERATURE / float(well.minimum_curvature)
    rates = {"learning_rate": rate, "batch_size": 1, "step_size": 0.01}
    sgd = sgd_langevin(well, well.minimum, well.minimum_hessian, **rates)
    minimum_loss = float(well.minimum_loss)
    diffusion = matched_diffusion(minimum_loss, well.minimum_hessian, rate, 1)
    power_law = committor_plane(well, lambda loss: np.log(loss) / TEMPERATURE)
    arrhenius = committor_plane(well, lambda loss: loss / diffusion)
    return {
        "12": (sgd, power_law),
        "14": (change_time(sgd, 0.01 * minimum_loss), power_law),
        "5": (gld(well, diffusion, 0.01), arrhenius),
    }


def exact_time_in_one_dimension(well: DoubleWell, chain: Langevin, plane: float) -> float:
    """The time from the minimum to the plane, whatever lies beyond three half-widths."""
    width = -float(well.minimum[0])

    @jax.jit
    @jax.vmap
    def drift_and_variance(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, slope = jax.value_and_grad(well.loss)(x[None])
        return -slope[0], chain.amplitude(x[None], loss)[0, 0] ** 2

    def part(index: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: np.asarray(drift_and_variance(jnp.asarray(x))[index])

    return mean_exit_time(part(0), part(1), -3 * width, -width, plane * width)


@pytest.mark.parametrize("equation", ["12", "5"])
def test_the_exit_from_a_one_dimensional_well_takes_the_exact_time(equation: str) -> None:
    well = DoubleWell.from_curvatures(0.8, 1.2, 2.0, -1.0)
    chains = exit_chains(well)
    chain, plane = chains[equation]
    expected = exact_time_in_one_dimension(well, chain, plane)
    assert Times.measure(BasinExit(chain, well), plane, 1000, 1).agrees_with(expected)


def test_where_the_logarithm_separates_a_second_dimension_only_slows_the_clock() -> None:
    """h_i^s/h_i* = L_s/L*: in τ the exit is one-dimensional, and dt = dτ/L holds 1/(1 + ½κz²).

    z is stationary with density (1 + ½κz²)^(-1/T_i), T_i = ηh_i/B, so that this factor has the
    mean 1 - T_i/2.
    """
    alone = DoubleWell.from_curvatures(0.8, 1.2, 2.0, -1.0)
    well = DoubleWell.from_curvatures(0.8, 1.2, 2.0, -1.0, [4.0], [6.0])
    chain, plane = exit_chains(well)["14"]
    one_dimensional = exact_time_in_one_dimension(alone, exit_chains(alone)["12"][0], plane)
    expected = one_dimensional * (1 - 2 * TEMPERATURE / 2)
    assert Times.measure(BasinExit(chain, well), plane, 500, 2).agrees_with(expected)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EndedByReturn(BasinExit):
    """A run that comes back to its first minimum ends, with a loss that is not finite."""

    def loss(self, state: LangevinState) -> jax.Array:
        coordinate = super().loss(state)
        return jnp.where(coordinate < -1, jnp.inf, coordinate)


def arrivals_at_the_other_minimum(saddle: float, probability: float) -> float:
    """The fraction of 1000 runs of Eq. (12) from the plane, with h_i* = 4 and h_i^s = `saddle`."""
    well = DoubleWell.from_curvatures(0.8, 1.2, 2.0, -1.0, [4.0], [saddle])
    plane = committor_plane(well, lambda loss: np.log(loss) / TEMPERATURE, probability)
    chain, _ = exit_chains(well)["12"]
    chain = EndedByReturn(replace(chain, start=-plane * well.minimum), well)
    found = first_passage(
        chain, GaussianIncrements(2), np.array([1.0]), KEY, runs=range(1000), max_steps=10**6
    )
    assert np.all(found.first_passage_step > 0)
    return 1 - found.diverged.mean()


@pytest.mark.parametrize("probability", [0.7, 0.99])
def test_from_the_plane_a_run_reaches_the_other_minimum_with_the_committors_probability(
    probability: float,
) -> None:
    error = np.sqrt(probability * (1 - probability) / 1000)
    assert abs(arrivals_at_the_other_minimum(6.0, probability) - probability) < 4 * error


def test_where_the_logarithm_does_not_separate_the_plane_is_still_beyond_return() -> None:
    """z_⊥ lowers the barrier of log L by a part of order T, here 1/4 of what is left."""
    assert 0.95 < arrivals_at_the_other_minimum(4.0, 0.99) < 0.99


@pytest.mark.parametrize("transverse", [(1.0, 1.0), (4.0, 4.0), (1.0, 3.0), (4.0, 1.5)], ids=str)
def test_every_run_leaves_a_two_dimensional_well(transverse: tuple[float, float]) -> None:
    well = DoubleWell.from_curvatures(0.8, 1.2, 2.0, -1.0, *([h] for h in transverse))
    chain, plane = exit_chains(well)["14"]
    times = Times.measure(BasinExit(chain, well), plane, 500, 2)
    assert np.isfinite(times.mean)
    # Exit times are close to exponential: their spread is their mean.
    assert times.error * np.sqrt(500) == pytest.approx(times.mean, rel=0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "needs a positive learning rate, but got 0.0"),
        ({"batch_size": -1}, "needs a positive batch size, but got -1"),
        ({"step_size": np.inf}, "needs a positive step size, but got inf"),
    ],
)
def test_a_number_that_is_not_positive_is_refused(changes: dict[str, float], message: str) -> None:
    rates = {"learning_rate": ETA, "batch_size": BATCH, "step_size": 0.05, **changes}
    landscape = quadratic(HESSIAN, 0.7)
    with pytest.raises(SgdEscapeError, match=message):
        sgd_langevin(landscape, landscape.minimum, landscape.hessian, **rates)
    with pytest.raises(SgdEscapeError, match=message):
        gaussian_regression_langevin(2, **rates)


def test_a_diffusion_that_is_not_positive_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match=r"positive diffusion coefficient, but got 0.0"):
        gld(quadratic(HESSIAN, 0.7), 0.0, 0.1)


def test_a_curvature_with_a_negative_eigenvalue_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match=r"no negative eigenvalues.*-0.5; take the Hessian"):
        sgd_on_quadratic(np.diag([1.0, -0.5]))


def test_samples_that_can_be_fitted_without_error_have_no_noise_to_simulate() -> None:
    few = data()
    regression = replace(few, inputs=few.inputs[:2], labels=few.labels[:2])
    with pytest.raises(SgdEscapeError, match=r"in 2 dimensions needs more samples.*but got 2,"):
        regression_langevin(regression, batch_size=1, step_size=0.1)


def test_time_is_not_changed_where_the_loss_vanishes() -> None:
    chain = GeometricBrownianMotion(1.5, 0.2).chain(0.1)
    at_minimum = replace(chain, start=chain.landscape.minimum)
    with pytest.raises(SgdEscapeError, match=r"needs a positive loss, but at the start it is 0.0"):
        change_time(at_minimum, 0.1)
