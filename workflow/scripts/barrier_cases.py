"""The wells of the study of a real barrier: their parameters in, rates and theory out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sgd_escape import escape_theory
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
from sgd_escape.landscapes import DoubleWell, committor_plane, path_values
from sgd_escape.langevin import BasinExit, Langevin, gradient_langevin, sgd_langevin
from sgd_escape.splitting import exit_rates

# Walls this many half widths from the saddle, where the losses of our wells are above 100 L_s.
WALL = 2.0
# So many steps in one block of increments, whatever the interval.
BLOCK = 40
# The committor of the plane where an escape ends: of the passages so many go on to the other side.
COMMITTOR = 0.99


class Case(NamedTuple):
    """A double well with its noise."""

    well: DoubleWell
    noise: Noise

    @property
    def plane(self) -> float:
        return committor_plane(self.well, self.noise.exponent, COMMITTOR)

    def chain(self, step_size: float) -> Langevin:
        start = self.well.minimum
        if isinstance(self.noise, ConstantNoise):
            diffusion = self.noise.strength
            return gradient_langevin(self.well, start, diffusion=diffusion, step_size=step_size)
        return sgd_langevin(
            self.well,
            start,
            self.well.minimum_hessian,
            learning_rate=self.noise.temperature / float(self.well.minimum_curvature),
            batch_size=1,
            step_size=step_size,
        )


def study_cases(study: dict[str, Any]) -> dict[str, list[Case]]:
    """The cases of every well, of GLD in one dimension and of the contrast, by name."""
    minimum_loss, saddle_loss = study["minimum_loss"], study["saddle_loss"]
    transverse: dict[str, list[float]] = {"line": [], **study["transverse"]}
    wells = {
        name: _well(study, minimum_loss, saddle_loss, pair) for name, pair in transverse.items()
    }
    cases = {
        name: [Case(well, LossNoise(t)) for t in study["temperatures"]]
        for name, well in wells.items()
    }
    cases["gld"] = [
        Case(wells["line"], ConstantNoise(matched_strength(wells["line"], t)))
        for t in study["temperatures"]
    ]
    temperature = study["contrast"]["temperature"]
    strength = matched_strength(wells["line"], temperature)
    contrasted = [
        _well(study, *losses, []) for series in contrast_losses(study).values() for losses in series
    ]
    noises: dict[str, Noise] = {"sgd": LossNoise(temperature), "gld": ConstantNoise(strength)}
    return cases | {
        f"contrast_{name}": [Case(well, noise) for well in contrasted]
        for name, noise in noises.items()
    }


def cases_of_dimension(study: dict[str, Any], dimension: int) -> dict[str, list[Case]]:
    """Those of one job: what has one dimension is compiled once."""
    return {
        name: cases
        for name, cases in study_cases(study).items()
        if cases[0].well.minimum.size == dimension
    }


def labels(name: str, case: Case) -> dict[str, str | float]:
    """What a case of this name is told by in a file."""
    return {
        "well": name,
        "noise_parameter": float(case.noise[0]),
        "minimum_loss": float(case.well.minimum_loss),
        "saddle_loss": float(case.well.saddle_loss),
    }


def contrast_losses(study: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """L* and L_s with the ΔL of the well of the study, and with its L_s/L*."""
    minimum_loss, saddle_loss = study["minimum_loss"], study["saddle_loss"]
    difference, ratio = saddle_loss - minimum_loss, saddle_loss / minimum_loss
    contrast = study["contrast"]
    return {
        "difference": [(loss, loss + difference) for loss in contrast["same_difference"]],
        "ratio": [(loss, loss * ratio) for loss in contrast["same_ratio"]],
    }


def matched_strength(well: DoubleWell, temperature: float) -> float:
    """D of the GLD whose noise at the minimum has the trace of Eq. (12)'s at T = ηh_e*/B."""
    mean = float(jnp.trace(well.minimum_hessian)) / len(well.minimum_hessian)
    return temperature * float(well.minimum_loss) * mean / float(well.minimum_curvature)


def exit_rates_of(
    name: str, cases: list[Case], study: dict[str, Any], seed: int
) -> Float[np.ndarray, "case step_size repetition"]:
    """Passages of the plane per unit of time."""
    contrast = name.startswith("contrast")
    duration = (study["contrast"] if contrast else study["ensemble"])["duration"]
    return np.array(
        [
            [_rates_at(case, study, seed, duration, size) for size in study["step_sizes"]]
            for case in cases
        ]
    )


def exact_log_rate(case: Case) -> float:
    """log of the exact rate of passages of the plane in one or two dimensions."""
    half_width, on_path = _half_width(case.well), _on_path(case.well)
    ends = {
        "wall": -WALL * half_width,
        "start": -half_width,
        "plane": case.plane * half_width,
    }
    if case.well.transverse_minimum.size == 0:
        return -log_exit_time(on_path, case.noise, **ends)
    anisotropy = float(case.well.transverse_minimum[0] / case.well.minimum_curvature)
    of_noise = anisotropy if isinstance(case.noise, LossNoise) else 1.0
    return -log_valley_exit_time(on_path, case.noise, of_noise, **ends)


def printed_log_rate(case: Case) -> float:
    """log κ of Eq. (15) or of Kramers, with equal transverse curvatures."""
    well, noise = case.well, case.noise
    curvatures = float(well.minimum_curvature), float(well.saddle_curvature)
    if isinstance(noise, ConstantNoise):
        barrier = float(well.saddle_loss - well.minimum_loss)
        return escape_theory.log_kramers_rate(barrier, noise.strength, *curvatures)
    ratio = float(well.saddle_loss / well.minimum_loss)
    dimension = 1 + well.transverse_minimum.size
    return escape_theory.log_escape_rate(ratio, noise.temperature, dimension, *curvatures)


def transverse_ratio(case: Case) -> float:
    """h_i^s/h_i*, which the proof of Eq. (15) has as 1; 1 in one dimension."""
    return float(np.prod(case.well.transverse_saddle / case.well.transverse_minimum))


def log_factor(case: Case) -> float:
    """log of what the prefactor of `printed_log_rate` lacks as the noise vanishes."""
    well = case.well
    pair = np.asarray(well.transverse_minimum), np.asarray(well.transverse_saddle)
    if isinstance(case.noise, ConstantNoise):
        return escape_theory.log_transverse_factor(*pair)
    curvatures = np.append(float(well.minimum_curvature), pair[0])
    ends = {"minimum": -_half_width(well), "saddle": 0.0}
    return log_valley_factor(_on_path(well), curvatures, **ends)


def _well(
    study: dict[str, Any], minimum_loss: float, saddle_loss: float, transverse: list[float]
) -> DoubleWell:
    """`transverse` is [h_i*, h_i^s], or empty for one dimension."""
    curvatures = study["minimum_curvature"], study["saddle_curvature"]
    pair = transverse[:1], transverse[1:]
    return DoubleWell.from_curvatures(minimum_loss, saddle_loss, *curvatures, *pair)


def _rates_at(
    case: Case, study: dict[str, Any], seed: int, duration: float, step_size: float
) -> Float[np.ndarray, " repetition"]:
    ensemble, interval = study["ensemble"], study["interval"]
    steps = round(interval / step_size)
    levels = np.linspace(-1, case.plane, ensemble["bins"] + 1)[1:]
    well = case.well
    # The noise enters by its kind too: T and D may be the same number.
    kind = float(isinstance(case.noise, ConstantNoise))
    labels = [step_size, kind, *case.noise, float(well.minimum_loss), float(well.saddle_loss)]
    labels += [*np.append(well.transverse_minimum, well.transverse_saddle)]
    rates = exit_rates(
        BasinExit(case.chain(step_size), well),
        GaussianIncrements(steps * well.minimum.size, max(BLOCK // steps, 1)),
        levels,
        stream_key(seed, *labels),
        particles=ensemble["particles"],
        burn_in=round(ensemble["burn_in"] / interval),
        steps=round(duration / interval),
        repetitions=ensemble["repetitions"],
    )
    return np.asarray(rates / (steps * step_size))


def _half_width(well: DoubleWell) -> float:
    return -float(well.minimum[0])


def _on_path(well: DoubleWell) -> Callable[[np.ndarray], PathValues]:
    return lambda z_e: PathValues(*map(np.asarray, path_values(well, jnp.asarray(z_e))))
