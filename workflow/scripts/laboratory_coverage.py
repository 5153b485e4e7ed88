from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from ensembles import in_steps
from intervals import bounded
from scipy.stats import binomtest

from sgd_escape import storage
from sgd_escape.batches import WithReplacement, stream_key
from sgd_escape.chains import gaussian_regression
from sgd_escape.discrete_theory import data_passage_steps
from sgd_escape.estimation import Estimate, passage_steps
from sgd_escape.splitting import exit_rates, loss_levels

study, seed = snakemake.params.study, snakemake.params.seed
confidence, intervals = snakemake.params.fits["confidence"], study["intervals"]
n_samples, eta, loss_ratio = study["n_samples"], study["learning_rate"], study["loss_ratio"]
chain = gaussian_regression(stream_key(seed, n_samples, 1), n_samples, 1, eta)
data = np.asarray(chain.inputs[:, 0]), np.asarray(chain.labels)

exact = data_passage_steps(*data, loss_ratio, eta, nodes=study["nodes"])
sizes = in_steps(study["ensemble"], eta)
rates = exit_rates(
    chain,
    WithReplacement(n_samples, 1),
    loss_levels(float(chain.minimum_loss), loss_ratio, study["ensemble"]["bins"]),
    stream_key(seed, eta, 1, loss_ratio),
    **sizes | {"repetitions": sizes["repetitions"] * intervals},
)
found = [passage_steps(group, confidence) for group in rates.reshape(intervals, -1)]
covered = sum(bool(e.low <= exact.mean <= e.high) for e in found)
bounds = binomtest(covered, intervals).proportion_ci(confidence)
storage.write(
    xr.Dataset(
        bounded("coverage", Estimate(*map(np.asarray, (covered / intervals, *bounds))))
        | bounded("mean_first_passage_step", passage_steps(rates, confidence))
        | {
            "exact_first_passage_step": ((), exact.mean),
            "exact_error": ((), exact.error),
            "intervals": ((), intervals),
        },
        attrs=storage.attributes(study | snakemake.params.fits, seed=seed, equations="(2)"),
    ),
    snakemake.output[0],
    "coverage",
)
