from prologue import begin

begin(snakemake)

import xarray as xr

from sgd_escape import storage

shards = [storage.read(path, "first_passage") for path in snakemake.input.shards]
gathered = xr.concat(
    shards, "run", data_vars="minimal", coords="minimal", compat="equals", join="exact"
)
storage.write(gathered.sortby("run"), snakemake.output[0], "first_passage")
