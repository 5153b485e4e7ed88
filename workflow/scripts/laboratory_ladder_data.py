from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from data_passages import data_log_steps

from sgd_escape import storage
from sgd_escape.config import threshold_grid

study, seed, dimension = snakemake.params.study, snakemake.params.seed, int(snakemake.wildcards.d)
loss_ratio = threshold_grid(study["thresholds"])[:: study["data_every"]]
grid = {
    "data_set": np.arange(study["data_sets"]),
    "eta": np.array(study["learning_rates"], float),
    "batch_size": np.array(study["batch_sizes"]),
}
log_steps = np.empty([*map(len, grid.values()), len(loss_ratio)])
for place in np.ndindex(log_steps.shape[:-1]):
    case = (values[index].item() for values, index in zip(grid.values(), place, strict=True))
    log_steps[place] = data_log_steps(loss_ratio, study, seed, dimension, *case)
storage.write(
    xr.Dataset(
        {"log_steps": ((*grid, "data_threshold"), log_steps), "dimension": dimension},
        grid | {"data_threshold": loss_ratio},
        storage.attributes(study, seed=seed, equations="(2)"),
    ),
    snakemake.output[0],
    "ladder_data",
)
