"""Measured rates of escape over a barrier beside their theories, as tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from barrier_cases import (
    COMMITTOR,
    Case,
    contrast_losses,
    exact_log_rate,
    labels,
    log_factor,
    matched_strength,
    printed_log_rate,
    study_cases,
    transverse_ratio,
)
from intervals import bounded
from scipy.stats import norm

from sgd_escape.barrier_theory import ConstantNoise
from sgd_escape.errors import SgdEscapeError
from sgd_escape.estimation import Estimate, fit_line, passage_steps

POINTS = 41


def rates_by_well(study: dict[str, Any], jobs: list[xr.Dataset]) -> dict[str, xr.Dataset]:
    """The rates of every case of `study_cases` under its name, found by their labels."""
    measured = xr.concat(jobs, "case")
    return {
        name: measured.isel(case=[_place(measured, labels(name, case)) for case in cases])
        for name, cases in study_cases(study).items()
    }


def _place(measured: xr.Dataset, wanted: dict[str, str | float]) -> int:
    # Numbers may differ in the last digit between machines.
    same = [
        measured[label].values == value
        if isinstance(value, str)
        else np.isclose(measured[label].values, value, rtol=1e-9)
        for label, value in wanted.items()
    ]
    found = np.flatnonzero(np.all(same, axis=0))
    if not len(found):
        raise SgdEscapeError(
            f"the files of exit rates hold no case with {wanted}. Delete them and run the same "
            "command again"
        )
    # A well that is in both series of the contrast has the same rates twice.
    return int(found[0])


def ratios(study: dict[str, Any], rates: Mapping[str, xr.Dataset], confidence: float) -> xr.Dataset:
    """Rates over theory for every well and temperature, and their limits as T → 0."""
    wells = {
        name: cases for name, cases in study_cases(study).items() if not name.startswith("contrast")
    }
    tables = [_of_well(cases, rates[name], study, confidence) for name, cases in wells.items()]
    return xr.concat(tables, xr.Variable("well", list(wells)))


def contrast(
    study: dict[str, Any], rates: Mapping[str, xr.Dataset], confidence: float
) -> xr.Dataset:
    """log κ of SGD and GLD over wells of one ΔL and of one L_s/L*, and its slopes."""
    losses = contrast_losses(study)
    dims, shape = ("series", "minimum"), np.shape(list(losses.values()))[:2]
    minimum_loss, saddle_loss = np.moveaxis(np.array(list(losses.values())), -1, 0)
    parts = study_cases(study)
    strength = parts["contrast_gld"][0].noise.strength
    # Over each series, what the rate is claimed to depend on for one of the two.
    x = np.stack(
        [np.log(saddle_loss / minimum_loss)[0], (saddle_loss - minimum_loss)[1] / strength]
    )
    table = xr.Dataset(
        {
            "contrast_minimum_loss": (dims, minimum_loss),
            "contrast_saddle_loss": (dims, saddle_loss),
            "contrast_strength": ((), strength),
            "contrast_slope_predicted": (
                "series",
                [-1 / study["contrast"]["temperature"] - 0.5, -1.0],
            ),
        },
        {"series": list(losses)},
    )
    for noise in ["sgd", "gld"]:
        passages = _log_rates(rates[f"contrast_{noise}"], confidence)
        log_rate = Estimate(*(np.log(COMMITTOR) + bound.reshape(shape) for bound in passages))
        slope = fit_line(x.T, Estimate(*(bound.T for bound in log_rate)), confidence).slope
        table = table.assign(
            bounded(f"{noise}_log_rate", log_rate, dims)
            | bounded(f"{noise}_slope", slope, ("series",))
        )
    return table.merge(_lines(study, losses))


def _lines(study: dict[str, Any], losses: Mapping[str, list[tuple[float, float]]]) -> xr.Dataset:
    """Exact log κ along both series, and that of the GLD whose D is matched at each minimum."""
    dims, temperature = ("series", "point"), study["contrast"]["temperature"]
    ends = [(min(pair)[0], max(pair)[0]) for pair in losses.values()]
    grid = {
        key: np.geomspace(*end, POINTS).tolist()
        for key, end in zip(["same_difference", "same_ratio"], ends, strict=True)
    }
    fine = study | {"contrast": study["contrast"] | grid}
    parts = study_cases(fine)
    matched = [
        Case(case.well, ConstantNoise(matched_strength(case.well, temperature)))
        for case in parts["contrast_gld"]
    ]
    cases = {"sgd": parts["contrast_sgd"], "gld": parts["contrast_gld"], "matched": matched}
    table = xr.Dataset({"line_minimum_loss": (dims, np.array(list(grid.values())))})
    return table.assign(
        {
            f"{name}_log_rate_exact": (
                dims,
                np.log(COMMITTOR) + np.reshape([exact_log_rate(c) for c in chosen], (2, POINTS)),
            )
            for name, chosen in cases.items()
        }
    )


def _of_well(
    cases: list[Case], rates: xr.Dataset, study: dict[str, Any], confidence: float
) -> xr.Dataset:
    temperature = np.array(study["temperatures"])
    passages = _log_rates(rates, confidence)
    exact = np.array([exact_log_rate(case) for case in cases])
    printed = np.array([printed_log_rate(case) for case in cases])
    factor = np.exp(log_factor(cases[0]))
    to_printed = Estimate(*(COMMITTOR * np.exp(bound - printed) for bound in passages))
    to_exact = Estimate(*(np.exp(bound - exact) for bound in passages))
    exact_ratio = COMMITTOR * np.exp(exact - printed)
    limit = limit_of(temperature, to_printed, exact_ratio, confidence)
    dims = ("temperature",)
    return xr.Dataset(
        bounded("rate", Estimate(*(COMMITTOR * np.exp(bound) for bound in passages)), dims)
        | bounded("ratio_printed", to_printed, dims)
        | bounded("ratio_corrected", Estimate(*(bound / factor for bound in to_printed)), dims)
        | bounded("ratio_exact", to_exact, dims)
        | bounded("limit_printed", limit)
        | bounded("limit_corrected", Estimate(*(bound / factor for bound in limit)))
        | bounded("mean_ratio_exact", _weighted_mean(to_exact, confidence))
        | {
            "exact_ratio_printed": (dims, exact_ratio),
            "transverse_ratio": ((), transverse_ratio(cases[0])),
            "transverse_factor": ((), factor),
        },
        {"temperature": temperature},
    )


def limit_of(
    temperature: np.ndarray, ratio: Estimate, expected: np.ndarray, confidence: float
) -> Estimate:
    """The straight line through the ratios at T = 0, weighted by their relative errors.

    A rate that happens to be low has a short interval, so the errors are those of the `expected`
    ratios, which are free of chance.
    """
    half_width = expected * (ratio.high - ratio.low) / (2 * ratio.value)
    symmetric = Estimate(ratio.value, ratio.value - half_width, ratio.value + half_width)
    return fit_line(temperature, symmetric, confidence).intercept


def _log_rates(rates: xr.Dataset, confidence: float) -> Estimate:
    """log of the passages per unit of time for vanishing steps: its error is linear in the step.

    The relative errors of both steps add in squares.
    """
    long, short = rates["step_size"].values
    weights = np.array([-short, long]) / (long - short)
    times = [
        [passage_steps(row, confidence)[:2] for row in case] for case in rates["exit_rate"].values
    ]
    value, low = np.moveaxis(np.array(times), -1, 0)
    log_rate = -np.log(value) @ weights
    width = np.sqrt((value / low - 1) ** 2 @ weights**2)
    return Estimate(log_rate, log_rate - width, log_rate + width)


def _weighted_mean(estimate: Estimate, confidence: float) -> Estimate:
    """By relative errors: a rate that happens to be low has a short interval."""
    quantile = norm.isf((1 - confidence) / 2)
    weight = (2 * quantile * estimate.value / (estimate.high - estimate.low)) ** 2
    mean = np.sum(weight * estimate.value) / np.sum(weight)
    width = mean * quantile / np.sqrt(np.sum(weight))
    return Estimate(mean, mean - width, mean + width)
