from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from fits import bounded

from sgd_escape import storage
from sgd_escape.estimation import Bootstrap, Estimate, log_log_slope

params, stages = snakemake.params, snakemake.params.stages
bootstrap = Bootstrap(params.fits["confidence"], params.fits["resamples"], params.seed)


def bounds(run: xr.Dataset) -> dict[str, tuple[float, float]]:
    """The range of the loss, for each stage of a training."""
    if run.attrs["loss_function"] == "cross_entropy":
        return {"intermediate": stages["intermediate"], "small": (0, stages["small"])}
    late = stages["late"] * float(run["loss"].min())
    return {"late": (0, late), "early": (late, np.inf)}


def fit_stage(run: xr.Dataset, low: float, high: float) -> xr.Dataset:
    inside = run.isel(epoch=((run["loss"] >= low) & (run["loss"] <= high)).values)
    loss, noise = inside["loss"].values, inside["noise_strength"].values
    return xr.Dataset(
        bounded("slope", log_log_slope(loss, noise, stages["blocks"], bootstrap))
        | {
            "epochs": loss.size,
            "loss_low": loss.min(initial=np.inf),
            "loss_high": loss.max(initial=0),
            # Of the line of slope 1 through the points, in logarithms.
            "factor": np.exp(np.mean(np.log(noise / loss))) if loss.size else np.nan,
        }
    )


def fit_trace(run: xr.Dataset) -> xr.Dataset:
    """N over 2L (1/K) (1/N) sum |grad f|^2: its median and its range over the epochs."""
    there = run.sel(epoch=run["trace_epoch"])
    decoupled = 2 * there["loss"].values * run["trace_factor"].values / float(run["outputs"])
    ratio = there["noise_strength"].values / decoupled
    return xr.Dataset(bounded("trace_ratio", Estimate(np.median(ratio), ratio.min(), ratio.max())))


fitted = []
for architecture in params.architectures:
    runs = {
        loss: storage.read(snakemake.input[f"{architecture}_{loss}"], "noise")
        for loss in ["mean_square", "cross_entropy"]
    }
    by_stage = {
        stage: fit_stage(run, *limits)
        for run in runs.values()
        for stage, limits in bounds(run).items()
    }
    table = xr.concat(by_stage.values(), xr.Variable("stage", list(by_stage)))
    fitted.append(table.merge(fit_trace(runs["mean_square"])))

storage.write(
    xr.concat(fitted, xr.Variable("architecture", params.architectures)).assign_attrs(
        storage.attributes({"fits": params.fits, "stages": stages}, seed=params.seed)
    ),
    snakemake.output[0],
    "fit",
)
