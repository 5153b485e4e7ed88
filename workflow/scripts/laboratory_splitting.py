from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from ensembles import in_steps
from intervals import bounded

from sgd_escape import storage
from sgd_escape.batches import WithReplacement, stream_key
from sgd_escape.chains import gaussian_regression
from sgd_escape.config import threshold_grid
from sgd_escape.discrete_theory import data_passage_steps
from sgd_escape.estimation import Estimate, Passages, mean_passage_time, passage_steps
from sgd_escape.first_passage import first_passage
from sgd_escape.splitting import exit_rates, loss_levels

study, seed = snakemake.params.study, snakemake.params.seed
confidence, brute_force = snakemake.params.fits["confidence"], study["brute_force"]
n_samples, eta = study["n_samples"], study["learning_rate"]
loss_ratio = threshold_grid(study["thresholds"])
chain = gaussian_regression(stream_key(seed, n_samples, 1), n_samples, 1, eta)
batches, minimum_loss = WithReplacement(n_samples, 1), float(chain.minimum_loss)
data = np.asarray(chain.inputs[:, 0]), np.asarray(chain.labels)

exact = np.array([data_passage_steps(*data, c, eta, nodes=study["nodes"]) for c in loss_ratio])
split = [
    passage_steps(
        exit_rates(
            chain,
            batches,
            loss_levels(minimum_loss, c, study["ensemble"]["bins"]),
            stream_key(seed, eta, 1, c),
            **in_steps(study["ensemble"], eta),
        ),
        confidence,
    )
    for c in loss_ratio.tolist()
]
within_reach = exact[:, 0] <= brute_force["max_mean"]
record = first_passage(
    chain,
    batches,
    loss_ratio[within_reach] * minimum_loss,
    stream_key(seed, eta, 1),
    runs=range(brute_force["runs"]),
    max_steps=100 * brute_force["max_mean"],
)
passages = Passages.from_steps(
    loss_ratio[within_reach], record.first_passage_step, record.observed_steps
)
mean = mean_passage_time(passages.events.sum(0), passages.exposure.sum(0), confidence)
unseen = np.full(np.count_nonzero(~within_reach), np.nan)
simulated = Estimate(*(np.append(bound, unseen) for bound in mean))

storage.write(
    xr.Dataset(
        bounded("mean_first_passage_step", Estimate(*np.transpose(split)), ("threshold",))
        | bounded("simulated_first_passage_step", simulated, ("threshold",))
        | {
            "exact_first_passage_step": ("threshold", exact[:, 0]),
            "exact_error": ("threshold", exact[:, 1]),
            "eta": ((), eta),
        },
        {"threshold": loss_ratio},
        storage.attributes(study | snakemake.params.fits, seed=seed, equations="(2)"),
    ),
    snakemake.output[0],
    "splitting",
)
