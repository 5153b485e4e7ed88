from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr

from sgd_escape import outcomes, storage
from sgd_escape.batches import WithReplacement, stream_key
from sgd_escape.chains import gaussian_regression, sample_states

study, seed = snakemake.params.study, snakemake.params.seed
etas, batch_sizes = study["learning_rates"], study["batch_sizes"]
data_key = stream_key(seed, study["n_samples"], 1)
theta = np.empty((len(etas), len(batch_sizes), study["samples"]))
for i, eta in enumerate(etas):
    chain = gaussian_regression(data_key, study["n_samples"], 1, eta)
    for j, batch_size in enumerate(batch_sizes):
        batches = WithReplacement(study["n_samples"], batch_size, study["interval"])
        states = sample_states(chain, batches, stream_key(seed, eta, batch_size), study["samples"])
        theta[i, j] = np.asarray(states)[:, 0]

storage.write(
    xr.Dataset(
        {
            "theta": (("eta", "batch_size", "sample"), theta),
            "hessian": ((), float(chain.hessian[0, 0])),
            "minimum": ((), float(chain.minimum[0])),
            "minimum_loss": ((), float(chain.minimum_loss)),
        },
        {"eta": np.asarray(etas, float), "batch_size": batch_sizes},
        storage.attributes(study, seed=seed, equations="(2)")
        | outcomes.attribute(outcomes.of_runs(~np.isfinite(theta).all(axis=-1))),
    ),
    snakemake.output[0],
    "stationary_samples",
)
