from prologue import begin

begin(snakemake)

from first_passage_files import write_first_passage
from network_files import has_zero_loss, read_network, read_parity

from sgd_escape import storage
from sgd_escape.batches import SAMPLINGS, stream_key
from sgd_escape.chains import FunctionSpaceNetwork
from sgd_escape.config import threshold_grid
from sgd_escape.first_passage import first_passage, no_passage

params, wildcards = snakemake.params, snakemake.wildcards
study, pretraining_seed = params.study, int(wildcards.seed)
eta, batch_size = float(wildcards.eta), int(wildcards.B)
runs = range(int(wildcards.first), int(wildcards.last) + 1)

inputs, labels = read_parity(snakemake.input.data, params.n_samples)
network = read_network(snakemake.input.pretrained)
chain = FunctionSpaceNetwork.from_network(network, inputs, labels, eta)
initial_loss = float(chain.loss(chain.initial_state()))
loss_ratio = threshold_grid(study["thresholds"])
zero_loss = has_zero_loss(snakemake.input.pretrained)
record = (
    no_passage(len(runs), len(loss_ratio), study["max_steps"])
    if zero_loss
    else first_passage(
        chain,
        SAMPLINGS[study["sampling"]](params.n_samples, batch_size),
        loss_ratio * initial_loss,
        stream_key(params.seed, pretraining_seed, eta, batch_size),
        runs=runs,
        max_steps=study["max_steps"],
    )
)
write_first_passage(
    record,
    runs,
    loss_ratio,
    snakemake.output[0],
    storage.attributes(
        study | {"pretraining_seed": pretraining_seed}, seed=params.seed, equations="(2)"
    ),
    zero_loss=zero_loss,
    eta=eta,
    batch_size=batch_size,
    n_samples=params.n_samples,
    max_steps=study["max_steps"],
    initial_loss=initial_loss,
)
