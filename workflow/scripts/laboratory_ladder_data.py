from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from data_passages import data_log_steps, quasi_potentials
from intervals import bounded

from sgd_escape import storage
from sgd_escape.config import threshold_grid
from sgd_escape.estimation import Estimate

study, seed, dimension = snakemake.params.study, snakemake.params.seed, int(snakemake.wildcards.d)
loss_ratio = threshold_grid(study["thresholds"])[:: study["data_every"]]
grid = {
    "data_set": np.arange(study["data_sets"]),
    "eta": np.array(study["learning_rates"], float),
    "batch_size": np.array(study["batch_sizes"]),
}
shape = tuple(map(len, grid.values()))
log_steps = np.empty((3, *shape, len(loss_ratio)))
for place in np.ndindex(shape):
    case = (values[index].item() for values, index in zip(grid.values(), place, strict=True))
    log_steps[:, *place] = data_log_steps(loss_ratio, study, seed, dimension, *case)
potential = np.stack(
    [quasi_potentials(loss_ratio, study, seed, dimension, n) for n in grid["data_set"].tolist()]
)
storage.write(
    xr.Dataset(
        bounded("log_steps", Estimate(*log_steps), (*grid, "data_threshold"))
        | {
            "data_quasi_potential": (("data_set", "data_threshold"), potential),
            "dimension": dimension,
        },
        grid | {"data_threshold": loss_ratio},
        storage.attributes(study, seed=seed, equations="(2)"),
    ),
    snakemake.output[0],
    "ladder_data",
)
