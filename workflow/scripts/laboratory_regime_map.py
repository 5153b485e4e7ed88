from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr

from sgd_escape import escape_theory, ladder, storage
from sgd_escape.config import threshold_grid
from sgd_escape.radial_theory import radial_passage_steps

study = snakemake.params.study
batch_size, window = study["batch_size"], study["window"]
temperatures, loss_ratio = map(threshold_grid, (study["temperatures"], study["thresholds"]))
dimensions = np.array(study["dimensions"])


def log_steps(rung, dimension, temperature):
    """Up to a constant, which no regime depends on; NaN where no matrix is made."""
    if rung != "fresh_data":
        return escape_theory.log_mean_first_passage_time(
            loss_ratio, temperature, dimension, exact_covariance=rung == "exact_covariance"
        )
    if dimension > 1:
        return np.full(len(loss_ratio), np.nan)
    case = (temperature * batch_size, batch_size, dimension)
    return np.log(radial_passage_steps(loss_ratio, *case, nodes=study["nodes"]).mean)


rungs = ["decoupled_noise", "exact_covariance", "fresh_data"]
grid = {"exact_rung": rungs, "dimension": dimensions, "temperature": temperatures}
shape = (*map(len, grid.values()), len(loss_ratio) - 2 * window)
regimes = ladder.Regime(*(np.empty(shape) for _ in ladder.Regime._fields))
for i, j, k in np.ndindex(shape[:3]):
    d, temperature = dimensions[j].item(), temperatures[k].item()
    exponent = escape_theory.escape_exponent(temperature, d)
    times = log_steps(rungs[i], d, temperature)
    found = ladder.regime(times, loss_ratio, temperature, exponent, window=window)
    for values, value in zip(regimes, found, strict=True):
        values[i, j, k] = value
storage.write(
    xr.Dataset(
        {
            name: ((*grid, "threshold"), values)
            for name, values in zip(
                ["power_law_ratio", "arrhenius_ratio", "power_law_gain"], regimes, strict=True
            )
        }
        | {"batch_size": ((), batch_size)},
        grid | {"threshold": loss_ratio[window:-window]},
        storage.attributes(study, equations="(4), (12), (15)"),
    ),
    snakemake.output[0],
    "regime_map",
)
