"""One training with its noise strength in, everything that is estimated from it out."""

import itertools
from typing import Any

import numpy as np
import xarray as xr
from intervals import bounded

from sgd_escape.estimation import Bootstrap, log_log_slope

# Every half of a decade of the loss. Fewer blocks than for a stage, since it holds fewer epochs.
WINDOW_EDGES = 10.0 ** np.arange(-4, 1.25, 0.5)
WINDOW_BLOCKS = 10


def with_noise(run: xr.Dataset) -> xr.Dataset:
    """The epochs whose loss and noise are not zero to rounding, nor infinite or NaN.

    One-hot labels have the mean square 1 over the number of outputs.
    """
    rounding = np.finfo(np.float32).eps ** 2 / float(run["outputs"])
    finite = np.isfinite(run["loss"]) & np.isfinite(run["noise_strength"])
    kept = finite & (run["loss"] > rounding) & (run["noise_strength"] > 0)
    traced = np.isin(run["trace_epoch"], run["epoch"][kept])
    return run.isel(epoch=kept.values, trace_epoch=traced)


def fit_stages(run: xr.Dataset, stages: dict[str, Any], bootstrap: Bootstrap) -> xr.Dataset:
    """The slope of log N against log L over each stage that the loss of the training has."""
    if run.attrs["loss_function"] == "cross_entropy":
        limits = {"intermediate": stages["intermediate"], "small": (0, stages["small"])}
    else:
        late = stages["late"] * float(run["loss"].min())
        limits = {"late": (0, late), "early": (late, np.inf)}
    fitted = []
    for low, high in limits.values():
        inside = _between(run, low, high)
        loss, noise = inside["loss"].values, inside["noise_strength"].values
        fitted.append(
            _slope(inside, stages["blocks"], bootstrap).assign(
                loss_low=loss.min(initial=np.inf),
                loss_high=loss.max(initial=0),
                # Of the line of slope 1 through the points, in logarithms.
                factor=np.exp(np.mean(np.log(noise / loss))) if loss.size else np.nan,
            )
        )
    return xr.concat(fitted, xr.Variable("stage", list(limits)))


def fit_windows(run: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """The slope in every window of the loss that holds enough epochs."""
    fitted = [
        _slope(_between(run, low, high), WINDOW_BLOCKS, bootstrap)
        for low, high in itertools.pairwise(WINDOW_EDGES)
    ]
    middles = np.sqrt(WINDOW_EDGES[:-1] * WINDOW_EDGES[1:])
    table = xr.concat(fitted, xr.Variable("window", middles))
    return table.rename({name: f"window_{name}" for name in table.data_vars})


def fit_trace_factors(run: xr.Dataset) -> xr.Dataset:
    """N over 2L/K times both trace factors: the median and the range over the epochs.

    `farthest_trace_ratio` is that of the plain factor that is off by most, up or down.
    """
    there = run.sel(epoch=run["trace_epoch"])
    there = there.isel(trace_epoch=np.isfinite(there["trace_factor"].values))
    there = there.sel(epoch=there["trace_epoch"])
    ratios = {}
    for weighted in ["", "weighted_"]:
        decoupled = 2 * there["loss"] * there[f"{weighted}trace_factor"] / there["outputs"]
        ratio = there["noise_strength"].values / decoupled.values
        ratios |= {
            f"{weighted}trace_ratio": ((), np.median(ratio)),
            f"{weighted}trace_ratio_least": ((), ratio.min()),
            f"{weighted}trace_ratio_most": ((), ratio.max()),
        }
    least, most = (ratios[f"trace_ratio_{end}"][1] for end in ["least", "most"])
    farthest = max(least, most, key=lambda ratio: abs(np.log(ratio)))
    return xr.Dataset(ratios | {"farthest_trace_ratio": ((), farthest)})


def _between(run: xr.Dataset, low: float, high: float) -> xr.Dataset:
    return run.isel(epoch=((run["loss"] >= low) & (run["loss"] <= high)).values)


def _slope(run: xr.Dataset, blocks: int, bootstrap: Bootstrap) -> xr.Dataset:
    slope = log_log_slope(run["loss"].values, run["noise_strength"].values, blocks, bootstrap)
    return xr.Dataset(bounded("slope", slope) | {"epochs": run.sizes["epoch"]})
