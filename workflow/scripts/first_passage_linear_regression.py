from prologue import begin

begin(snakemake)

from first_passage_files import write_first_passage

from sgd_escape import storage
from sgd_escape.batches import SAMPLINGS, stream_key
from sgd_escape.chains import gaussian_regression
from sgd_escape.config import threshold_grid
from sgd_escape.first_passage import first_passage

study, seed, wildcards = snakemake.params.study, snakemake.params.seed, snakemake.wildcards
dimension, eta, batch_size = int(wildcards.d), float(wildcards.eta), int(wildcards.B)
runs = range(int(wildcards.first), int(wildcards.last) + 1)

data_key = stream_key(seed, study["n_samples"], dimension)
chain = gaussian_regression(data_key, study["n_samples"], dimension, eta)
initial_loss = float(chain.minimum_loss)
loss_ratio = threshold_grid(study["thresholds"])
record = first_passage(
    chain,
    SAMPLINGS[study["sampling"]](study["n_samples"], batch_size),
    loss_ratio * initial_loss,
    stream_key(seed, eta, batch_size),
    runs=runs,
    max_steps=study["max_steps"],
)
write_first_passage(
    record,
    runs,
    loss_ratio,
    snakemake.output[0],
    storage.attributes(study | {"dimension": dimension}, seed=seed, equations="(2)"),
    eta=eta,
    batch_size=batch_size,
    n_samples=study["n_samples"],
    max_steps=study["max_steps"],
    initial_loss=initial_loss,
)
