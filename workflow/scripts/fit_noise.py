from prologue import begin

begin(snakemake)

import xarray as xr
from noise_fits import fit_stages, fit_trace_factors, fit_windows, with_noise

from sgd_escape import storage
from sgd_escape.estimation import Bootstrap

params, losses = snakemake.params, ["mean_square", "cross_entropy"]
bootstrap = Bootstrap(params.fits["confidence"], params.fits["resamples"], params.seed)
fitted = []
for architecture in params.architectures:
    runs = [
        with_noise(storage.read(snakemake.input[f"{architecture}_{loss}"], "noise"))
        for loss in losses
    ]
    stages = xr.concat([fit_stages(run, params.stages, bootstrap) for run in runs], "stage")
    windows = xr.concat(
        [fit_windows(run, bootstrap) for run in runs], xr.Variable("loss_function", losses)
    )
    fitted.append(xr.merge([stages, windows, fit_trace_factors(runs[0])]))
attributes = storage.attributes(
    {"fits": params.fits, "stages": params.stages}, seed=params.seed, equations="(9)"
)
storage.write(
    xr.concat(fitted, xr.Variable("architecture", params.architectures)).assign_attrs(attributes),
    snakemake.output[0],
    "fit",
)
