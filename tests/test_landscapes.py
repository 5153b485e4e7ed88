from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from sgd_escape import SgdEscapeError
from sgd_escape.landscapes import DoubleWell, Landscape, Quadratic, committor_plane

POINTS = jax.random.normal(jax.random.key(5), (200, 3), jnp.float64)
# (L*, L_s, h_e*, h_e^s, h_i*, h_i^s): the minimum sharper, as sharp as a quartic's, and flatter;
# transverse curvatures that grow towards the saddle, fall, and stay.
CURVATURES = [
    (1.0, 1.5, 6.0, -1.0, (2.0, 3.0), (3.0, 2.0)),
    (0.2, 2.0, 2.0, -1.0, (1.0, 1.0), (10.0, 1.0)),
    (3.0, 3.3, 0.5, -2.0, (0.4, 5.0), (0.3, 7.0)),
]
LOSSES = pytest.mark.parametrize("arguments", CURVATURES, ids=["sharp", "quartic", "flat"])


def one_dimensional(**changes: float) -> DoubleWell:
    known = {"minimum_loss": 1.0, "saddle_loss": 1.5, "minimum_curvature": 3.0}
    return DoubleWell.from_curvatures(**{**known, "saddle_curvature": -1.0, **changes})


@jax.jit
def losses_of(landscape: Landscape, points: jax.Array) -> jax.Array:
    return jax.vmap(landscape.loss)(points)


@jax.jit
def derivatives(landscape: Landscape, points: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Losses, gradients and Hessians at the points."""
    loss = landscape.loss
    return losses_of(landscape, points), *(
        jax.vmap(f(loss))(points) for f in (jax.grad, jax.hessian)
    )


def test_a_quadratic_loss_has_its_minimum_and_its_curvature() -> None:
    root = np.random.default_rng(0).normal(size=(3, 3))
    hessian, minimum = root @ root.T, np.array([1.0, -2.0, 0.5])
    landscape = Quadratic(jnp.asarray(hessian), jnp.asarray(minimum), jnp.asarray(0.7))
    losses, gradients, hessians = derivatives(landscape, POINTS)
    shift = np.asarray(POINTS) - minimum
    quadratic = np.einsum("mi,ij,mj->m", shift, hessian, shift) / 2
    np.testing.assert_allclose(losses, 0.7 + quadratic, rtol=1e-13)
    np.testing.assert_allclose(gradients, shift @ hessian, rtol=1e-11)
    np.testing.assert_allclose(hessians, np.tile(hessian, (200, 1, 1)), rtol=1e-12)


@LOSSES
def test_a_double_well_has_its_losses_and_curvatures_at_the_minima_and_the_saddle(
    arguments: tuple[Any, ...],
) -> None:
    minimum_loss, saddle_loss, h_e, h_s, transverse, transverse_saddle = arguments
    well = DoubleWell.from_curvatures(*arguments)
    points = jnp.stack([well.minimum, -well.minimum, 0 * well.minimum])
    losses, gradients, hessians = derivatives(well, points)
    np.testing.assert_allclose(losses, [minimum_loss, minimum_loss, saddle_loss], rtol=1e-12)
    np.testing.assert_allclose(gradients, 0, atol=1e-12)
    at_minimum, at_saddle = np.diag([h_e, *transverse]), np.diag([h_s, *transverse_saddle])
    expected = [at_minimum, at_minimum, at_saddle]
    np.testing.assert_allclose(hessians, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(well.minimum_hessian, at_minimum)


@LOSSES
def test_the_coordinate_is_minus_one_zero_and_one_at_the_three_points(
    arguments: tuple[Any, ...],
) -> None:
    well = DoubleWell.from_curvatures(*arguments)
    for scale in (1.0, 0.0, -1.0):
        assert float(well.coordinate(scale * well.minimum)) == pytest.approx(-scale, rel=1e-15)
    assert np.all(well.minimum[1:] == 0)


@LOSSES
def test_a_double_well_is_even_and_nowhere_below_its_minimum(arguments: tuple[Any, ...]) -> None:
    well = DoubleWell.from_curvatures(*arguments)
    wide = 3 * POINTS * -well.minimum[0]
    losses = losses_of(well, wide)
    assert float(losses.min()) > arguments[0]
    mirrored = wide * jnp.array([[-1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(losses_of(well, mirrored), losses)


@LOSSES
def test_along_the_escape_direction_the_loss_falls_rises_falls_and_rises(
    arguments: tuple[Any, ...],
) -> None:
    well = DoubleWell.from_curvatures(*arguments)
    s = np.linspace(-3, 3, 1001)[1:-1]
    path = jnp.asarray(s)[:, None] * -well.minimum[None]
    slope = np.asarray(derivatives(well, path)[1])[:, 0]
    distance = np.minimum(abs(s), abs(abs(s) - 1))
    expected = np.sign(s) * np.sign(s**2 - 1)
    # Rounding decides the sign on the critical points themselves.
    assert np.all((slope * expected >= 0)[distance > 1e-3])


@LOSSES
def test_gradient_descent_ends_in_the_minimum_of_its_side(arguments: tuple[Any, ...]) -> None:
    well = DoubleWell.from_curvatures(*arguments)
    start = POINTS * -well.minimum[0] / 2
    gradient = jax.vmap(jax.grad(well.loss))

    def descend(theta: jax.Array, _: None) -> tuple[jax.Array, None]:
        return theta - 0.01 * gradient(theta), None

    # Along the slowest direction 50 time units of curvature 0.4 leave e^-20.
    end = jax.jit(lambda theta: jax.lax.scan(descend, theta, length=5000)[0])(start)
    expected = jnp.sign(start[:, :1]) * -well.minimum[None]
    np.testing.assert_allclose(end, expected, atol=1e-4)


def test_twice_as_sharp_a_minimum_as_the_saddle_is_the_quartic_double_well() -> None:
    """V = L_s - |h_s| z²/2 + h_s² z⁴/(16 (L_s - L*)), whose minima have the curvature 2|h_s|."""
    well = one_dimensional(minimum_curvature=1.4, saddle_curvature=-0.7)
    z = np.linspace(-4, 4, 41)
    expected = 1.5 - 0.35 * z**2 + 0.49 * z**4 / (16 * 0.5)
    losses = losses_of(well, jnp.asarray(z)[:, None])
    np.testing.assert_allclose(losses, expected, rtol=1e-13)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_equal_transverse_curvatures_separate_the_loss_and_proportional_ones_its_logarithm(
    logarithmic: bool,
) -> None:
    """Eq. (33) needs h_i^s = h_i*, Eq. (19) a separable U = log L."""
    saddle = 2.0 * 1.5 if logarithmic else 2.0
    well = DoubleWell.from_curvatures(1.0, 1.5, 3.0, -1.0, [2.0], [saddle])
    loss, gradient, hessian = (np.asarray(a) for a in derivatives(well, POINTS[:, :2]))
    mixed = {
        "L": hessian[:, 0, 1],
        "log L": hessian[:, 0, 1] / loss - gradient[:, 0] * gradient[:, 1] / loss**2,
    }
    separable, coupled = ("log L", "L") if logarithmic else ("L", "log L")
    assert abs(mixed[separable]).max() < 1e-12
    assert abs(mixed[coupled]).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimum_loss": 0.0}, r"needs 0 < L\* < L_s.*got L\* = 0.0 and L_s = 1.5"),
        ({"saddle_loss": 1.0}, r"needs 0 < L\* < L_s.*got L\* = 1.0 and L_s = 1.0"),
        ({"saddle_loss": np.inf}, r"needs 0 < L\* < L_s.*L_s = inf"),
        ({"minimum_curvature": 0.0}, r"curves upwards.*got h_e\* = 0.0 and h_e\^s = -1.0"),
        ({"saddle_curvature": 1.0}, r"curves upwards.*got h_e\* = 3.0 and h_e\^s = 1.0"),
        ({"transverse_minimum": [1.0]}, r"as many positive transverse.*got \[\] and \[1.0\]"),
        (
            {"transverse_minimum": [1.0], "transverse_saddle": [-1.0]},
            r"as many positive transverse.*got \[-1.0\] and \[1.0\]",
        ),
    ],
)
def test_an_impossible_double_well_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SgdEscapeError, match=message):
        one_dimensional(**changes)


def test_without_a_force_the_committor_is_linear() -> None:
    plane = committor_plane(one_dimensional(), lambda loss: 0 * loss, 0.99)
    assert plane == pytest.approx(0.98, abs=1e-12)


@pytest.mark.parametrize("probability", [0.6, 0.99])
@pytest.mark.parametrize("noise", ["proportional to the loss", "constant"])
def test_the_committor_is_reached_at_its_plane(noise: str, probability: float) -> None:
    def exponent(loss: np.ndarray) -> np.ndarray:
        return np.log(loss) / 0.1 if noise == "proportional to the loss" else loss / 0.05

    well = one_dimensional()

    def density(s: float) -> float:
        loss = losses_of(well, -s * well.minimum[None])
        return float(np.exp(exponent(np.asarray(loss[0])) - exponent(np.array(1.5))))

    plane = committor_plane(well, exponent, probability)
    before, whole = (quad(density, -1, end, epsrel=1e-10, points=[0])[0] for end in (plane, 1))
    # Trapezoids of width 1e-4 on a curve of width above 0.1 err by 1e-7.
    assert before / whole == pytest.approx(probability, abs=1e-6)


def test_weaker_noise_brings_the_plane_closer_to_the_saddle() -> None:
    planes = [committor_plane(one_dimensional(), lambda loss, t=t: loss / t) for t in (0.2, 0.05)]
    # The committor is a Gaussian integral there, whose width goes with the root of the noise.
    assert planes[0] / planes[1] == pytest.approx(2, rel=0.25)
    assert 0 < planes[1] < planes[0] < 1


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_a_plane_has_a_committor_between_a_half_and_one(probability: float) -> None:
    with pytest.raises(SgdEscapeError, match=f"between 1/2 and 1, but {probability} was asked"):
        committor_plane(one_dimensional(), np.log, probability)
