from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from sgd_escape import SgdEscapeError
from sgd_escape.barrier_theory import (
    ConstantNoise,
    LossNoise,
    Noise,
    PathValues,
    log_exit_time,
    log_valley_exit_time,
    log_valley_factor,
)
from sgd_escape.batches import GaussianIncrements, stream_key
from sgd_escape.escape_theory import (
    log_escape_rate,
    log_kramers_rate,
    log_mean_first_passage_time,
    log_transverse_factor,
)
from sgd_escape.estimation import passage_steps
from sgd_escape.landscapes import DoubleWell, committor_plane, path_values
from sgd_escape.langevin import BasinExit, sgd_langevin
from sgd_escape.splitting import exit_rates

OnPath = Callable[[np.ndarray], PathValues]
LOSSES, CURVATURES = (1.0, 2.5), (2.0, -1.0)


def well_of(*transverse: float) -> DoubleWell:
    """The double well of the study; `transverse` is h_i* and h_i^s."""
    return DoubleWell.from_curvatures(*LOSSES, *CURVATURES, transverse[:1], transverse[1:])


def on_path_of(well: DoubleWell) -> OnPath:
    return lambda z_e: PathValues(*map(np.asarray, path_values(well, jnp.asarray(z_e))))


def half_width(well: DoubleWell) -> float:
    return -float(well.minimum[0])


def parabola(x: np.ndarray) -> PathValues:
    return PathValues(1 + x**2 / 2, x, np.ones((x.size, 1)), np.zeros((x.size, 1)))


def ends(well: DoubleWell, noise: Noise) -> dict[str, float]:
    length = half_width(well)
    plane = committor_plane(well, noise.exponent) * length
    return {"wall": -2 * length, "start": -length, "plane": plane}


@cache
def factor(h_e: float, h_i: float, saddle: float) -> float:
    well = well_of(h_i, saddle)
    curvatures = np.array([h_e, h_i])
    return log_valley_factor(on_path_of(well), curvatures, minimum=-half_width(well), saddle=0.0)


def ratio_to_theory(temperature: float, h_i: float, saddle: float) -> float:
    """Exact rate of transitions over Eq. (15) with the corrected prefactor."""
    well, noise = well_of(h_i, saddle), LossNoise(temperature)
    time = log_valley_exit_time(on_path_of(well), noise, h_i / 2, **ends(well, noise))
    law = log_escape_rate(LOSSES[1] / LOSSES[0], temperature, 2, *CURVATURES)
    return 0.99 * float(np.exp(-time - law - factor(2.0, h_i, saddle)))


def test_the_values_on_the_path_are_those_of_the_loss() -> None:
    well = well_of(3.0, 0.7)
    x = jnp.linspace(-3, 3, 7)
    loss, slope, curvature, curvature_slope = path_values(well, x)
    points, h = jnp.stack([x, 0 * x], 1), 1e-5
    losses, slopes = (jax.jit(jax.vmap(f))(points) for f in (well.loss, jax.grad(well.loss)))
    hessian = jax.jit(jax.vmap(lambda theta: jax.hessian(well.loss)(theta)[1, 1]))
    before, here, after = (hessian(points + jnp.array([[d, 0.0]])) for d in (-h, 0, h))
    np.testing.assert_allclose(loss, losses, rtol=1e-14)
    np.testing.assert_allclose(slope, slopes[:, 0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(curvature[:, 0], here, rtol=1e-13)
    # Central differences: h² times a third derivative of order 100.
    difference = (after - before) / (2 * h)
    np.testing.assert_allclose(curvature_slope[:, 0], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("temperature", "plane"), [(0.5, 1.0), (0.1, 2.5)])
def test_the_exit_time_from_a_parabola_is_the_passage_time_of_its_loss(
    temperature: float, plane: float
) -> None:
    """From 0 to ±plane; a wall at 0 makes of both exits one."""
    time = log_exit_time(parabola, LossNoise(temperature), wall=-1e-9, start=0.0, plane=plane)
    closed = log_mean_first_passage_time(np.array([1 + plane**2 / 2]), temperature, 1)[0]
    assert time == pytest.approx(closed, abs=1e-8)


def test_the_exit_time_is_the_double_integral_by_another_quadrature() -> None:
    well, noise = well_of(), ConstantNoise(0.3)
    on_path, places = on_path_of(well), ends(well, noise)

    def density(y: float) -> float:
        loss = on_path(np.array([y])).loss
        return float(np.exp(noise.exponent(loss))[0])

    def outer(y: float) -> float:
        inside = quad(lambda z: 1 / density(z), places["wall"], y, epsabs=0, epsrel=1e-9)[0]
        return density(y) * inside / 0.3

    expected = quad(outer, places["start"], places["plane"], epsrel=1e-8)[0]
    assert log_exit_time(on_path, noise, **places) == pytest.approx(np.log(expected), abs=1e-7)


@pytest.mark.parametrize("noise", [LossNoise(0.002), ConstantNoise(0.001)])
def test_an_exit_time_beyond_all_floats_keeps_its_logarithm(noise: Noise) -> None:
    """At T = 0.002 the barrier is 458 T, at D = 0.001 it is 1500 D, and Eq. (15) is a limit."""
    well = well_of()
    law = (
        log_escape_rate(2.5, 0.002, 1, *CURVATURES)
        if isinstance(noise, LossNoise)
        else log_kramers_rate(1.5, 0.001, *CURVATURES)
    )
    rate = np.log(0.99) - log_exit_time(on_path_of(well), noise, **ends(well, noise))
    assert rate == pytest.approx(law, abs=1e-3)


@pytest.mark.parametrize("noise", [LossNoise, ConstantNoise])
def test_the_rate_in_one_dimension_tends_to_equation_15_or_to_kramers(
    noise: type[LossNoise] | type[ConstantNoise],
) -> None:
    """The correction is of the order of the noise: it falls about fourfold with it."""
    well = well_of()
    errors = []
    for strength in (0.02, 0.005):
        law = (
            log_escape_rate(2.5, strength, 1, *CURVATURES)
            if noise is LossNoise
            else log_kramers_rate(1.5, strength, *CURVATURES)
        )
        time = log_exit_time(on_path_of(well), noise(strength), **ends(well, noise(strength)))
        errors.append(np.log(0.99) - time - law)
    assert abs(errors[1]) < 0.01
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("saddle", [2.0, 5.0, 0.5])
def test_equal_noise_in_all_directions_gives_the_factor_of_detailed_balance(saddle: float) -> None:
    expected = log_transverse_factor(np.array([2.0]), np.array([saddle]))
    assert factor(2.0, 2.0, saddle) == pytest.approx(expected, abs=1e-8)


def test_a_separable_logarithm_of_the_loss_keeps_that_factor_for_any_noise() -> None:
    """U = log L is separable for h_i^s/h_i* = L_s/L*, and then there is detailed balance."""
    for h_i in (0.5, 8.0):
        expected = log_transverse_factor(np.array([h_i]), np.array([2.5 * h_i]))
        assert factor(2.0, h_i, 2.5 * h_i) == pytest.approx(expected, abs=1e-8)


def test_transverse_directions_multiply() -> None:
    pair = DoubleWell.from_curvatures(*LOSSES, *CURVATURES, [0.5, 3.0], [0.5, 4.0])
    noise = np.array([2.0, 0.5, 3.0])
    both = log_valley_factor(on_path_of(pair), noise, minimum=-half_width(pair), saddle=0.0)
    assert both == pytest.approx(factor(2.0, 0.5, 0.5) + factor(2.0, 3.0, 4.0), abs=1e-7)


def test_transverse_noise_that_is_slow_or_fast_moves_the_factor_from_one_in_both_directions() -> (
    None
):
    """Where Eq. (15), for h_i^s = h_i*, has 1 whatever h_i*/h_e*."""
    assert np.exp(factor(2.0, 0.5, 0.5)) == pytest.approx(0.696, abs=0.001)
    assert np.exp(factor(2.0, 4.0, 4.0)) == pytest.approx(1.664, abs=0.001)


@pytest.mark.parametrize(("h_i", "saddle"), [(2.0, 2.0), (2.0, 5.0), (0.5, 0.5), (4.0, 4.0)])
def test_the_exact_rate_in_a_valley_tends_to_the_corrected_prefactor(
    h_i: float, saddle: float
) -> None:
    """Two routes, the backward equation and the Riccati equation; corrections are O(T)."""
    high, low = (ratio_to_theory(t, h_i, saddle) for t in (0.125, 0.0625))
    # The line through both leaves terms of the order of T², with coefficients of a few.
    assert low == pytest.approx(1, abs=0.05)
    assert 2 * low - high == pytest.approx(1, abs=0.025)


def test_finite_differences_converge_at_second_order() -> None:
    well, noise = well_of(0.5, 0.5), LossNoise(0.16)
    on_path, places = on_path_of(well), ends(well, noise)
    # The extrapolated values differ by the fourth order of the coarser grid.
    coarse, fine, finest = (
        log_valley_exit_time(on_path, noise, 0.25, **places, cells=n) for n in (20, 40, 80)
    )
    assert abs(fine - finest) < 2e-3
    assert abs(fine - finest) < abs(coarse - fine) / 4


def test_without_coupling_two_dimensions_are_one() -> None:
    """GLD in a separable loss."""
    well, noise = well_of(2.0, 2.0), ConstantNoise(0.25)
    on_path, places = on_path_of(well), ends(well, noise)
    one = log_exit_time(on_path, noise, **places)
    two = log_valley_exit_time(on_path, noise, 1.0, **places)
    assert two == pytest.approx(one, abs=1e-3)


def chain_exit_steps(well: DoubleWell, temperature: float, step_size: float) -> float:
    """Mean steps of Euler's scheme in one dimension to the plane, by its transition matrix."""
    noise, nodes = LossNoise(temperature), 600
    places = ends(well, noise)
    edges = np.linspace(places["wall"], places["plane"], nodes + 1)
    x = (edges[1:] + edges[:-1]) / 2
    path = on_path_of(well)(x)
    mean, spread = x - path.slope * step_size, np.sqrt(2 * noise.diffusion(path.loss) * step_size)
    density = norm.pdf((x[None] - mean[:, None]) / spread[:, None]) / spread[:, None]
    times = np.linalg.solve(np.eye(nodes) - density * (edges[1] - edges[0]), np.ones(nodes))
    return float(np.interp(places["start"], x, times))


@pytest.mark.parametrize("temperature", [0.16, 0.0625])
def test_the_error_of_the_step_is_linear_and_small_after_extrapolation(temperature: float) -> None:
    """What the study extrapolates, at its step sizes."""
    well, noise = well_of(), LossNoise(temperature)
    exact = log_exit_time(on_path_of(well), noise, **ends(well, noise))
    sizes = np.array([0.08, 0.02, 0.005])
    rates = [np.exp(exact) / (chain_exit_steps(well, temperature, dt) * dt) for dt in sizes]
    linear = [
        (a * y - b * x) / (a - b)
        for a, b, x, y in zip(sizes, sizes[1:], rates, rates[1:], strict=False)
    ]
    assert abs(linear[0] - 1) < 0.006
    assert abs(linear[1] - 1) < 0.003


def test_splitting_gives_the_exact_rate_where_detailed_balance_is_broken() -> None:
    """h_i* = h_e*/4; of the steps of 0.02, 2 % are left in one dimension."""
    well, noise, step_size, interval = well_of(0.5, 0.5), LossNoise(0.16), 0.02, 4
    start, curvature = well.minimum, well.minimum_hessian
    chain = sgd_langevin(
        well, start, curvature, learning_rate=0.08, batch_size=1, step_size=step_size
    )
    places = ends(well, noise)
    rates = exit_rates(
        BasinExit(chain, well),
        GaussianIncrements(2 * interval, 32),
        np.linspace(-1, places["plane"] / half_width(well), 13)[1:],
        stream_key(7),
        particles=24,
        burn_in=125,
        steps=500,
        repetitions=8,
    )
    # 4 standard errors are the half-width of a 99.5 % interval of 8 repetitions.
    time = [float(v) * interval * step_size for v in passage_steps(rates, 0.995)]
    exact = np.exp(log_valley_exit_time(on_path_of(well), noise, 0.25, **places))
    assert time[1] * 0.98 < exact < time[2] * 1.02


def test_several_increments_are_several_steps() -> None:
    well = well_of(2.0, 5.0)
    chain = sgd_langevin(
        well, well.minimum, well.minimum_hessian, learning_rate=0.1, batch_size=1, step_size=0.02
    )
    increments = jax.random.normal(jax.random.key(0), (3, 2), jnp.float64)
    state = chain.initial_state()
    for increment in increments:
        state = chain.step(state, increment)
    together = BasinExit(chain, well).step(chain.initial_state(), increments.ravel())
    np.testing.assert_allclose(together.position, state.position, rtol=1e-14)
    assert float(together.time) == pytest.approx(0.06)


@pytest.mark.parametrize("places", [(0.0, -1.0, 1.0), (-2.0, 1.0, 0.0)])
def test_an_exit_needs_its_places_in_order(places: tuple[float, float, float]) -> None:
    wall, start, plane = places
    message = f"wall < start < plane.*they are {wall}, {start} and {plane}"
    with pytest.raises(SgdEscapeError, match=message):
        log_exit_time(parabola, LossNoise(0.1), wall=wall, start=start, plane=plane)
    with pytest.raises(SgdEscapeError, match=message):
        log_valley_exit_time(parabola, LossNoise(0.1), 1.0, wall=wall, start=start, plane=plane)


def test_noise_too_weak_for_finite_differences_is_refused() -> None:
    well, noise = well_of(2.0, 2.0), LossNoise(0.02)
    with pytest.raises(SgdEscapeError, match=r"cannot be told from rounding.*raise the noise"):
        log_valley_exit_time(on_path_of(well), noise, 1.0, **ends(well, noise))


def test_a_path_that_falls_is_refused() -> None:
    well = well_of(2.0, 2.0)
    with pytest.raises(SgdEscapeError, match=r"the loss does not rise everywhere between 0.0 and"):
        log_valley_factor(
            on_path_of(well), np.array([2.0, 2.0]), minimum=0.0, saddle=half_width(well)
        )


def test_a_path_that_leaves_the_floor_of_the_valley_is_refused() -> None:
    """Strong transverse noise in a valley that widens: there Φ has no minimum across the path."""
    with pytest.raises(SgdEscapeError, match="leaves the floor of the valley"):
        factor(2.0, 8.0, 2.0)
