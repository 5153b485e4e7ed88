from prologue import begin

begin(snakemake)

import xarray as xr
from barrier_tables import contrast, rates_by_well, ratios

from sgd_escape import storage

params = snakemake.params
jobs = [storage.read(path, "exit_rates") for path in snakemake.input.rates]
rates = rates_by_well(params.study, jobs)
tables = [make(params.study, rates, params.fits["confidence"]) for make in (ratios, contrast)]
attributes = storage.attributes(
    {"study": params.study, "fits": params.fits}, seed=params.seed, equations="(5), (12), (15)"
)
storage.write(xr.merge(tables).assign_attrs(attributes), snakemake.output[0], "double_well")
