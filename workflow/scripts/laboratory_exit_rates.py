from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from barrier_cases import cases_of_dimension, exit_rates_of, labels

from sgd_escape import storage

study, seed = snakemake.params.study, snakemake.params.seed
wells = cases_of_dimension(study, int(snakemake.wildcards.d))
rates = np.concatenate([exit_rates_of(name, wells[name], study, seed) for name in wells])
of_case = [labels(name, case) for name in wells for case in wells[name]]
storage.write(
    xr.Dataset(
        {"exit_rate": (("case", "step_size", "repetition"), rates)},
        {"step_size": study["step_sizes"]}
        | {label: ("case", [case[label] for case in of_case]) for label in of_case[0]},
        storage.attributes(study, seed=seed, equations="(5), (12)"),
    ),
    snakemake.output[0],
    "exit_rates",
)
