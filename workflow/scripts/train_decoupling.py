from prologue import begin

begin(snakemake)

import jax
import jax.numpy as jnp
from network_files import read_parity
from training_files import job_checkpoint, network_dataset

from sgd_escape import storage
from sgd_escape.batches import passes, stream_key
from sgd_escape.checkpoints import resumable
from sgd_escape.networks import init_network
from sgd_escape.training import train_one_pass

study = snakemake.params.study
epochs = study["epochs"]
inputs, labels = map(jnp.asarray, read_parity(snakemake.input.data, study["n_samples"]))
batches = passes(study["sampling"], study["n_samples"], study["batch_size"])
initial_key, batch_key = jax.random.split(stream_key(study["seed"]))
rate = jnp.float32(study["learning_rate"])


def advance(networks, block):
    """Those networks whose epoch has come stay as they are; the others are one and the same."""
    trained = train_one_pass(networks[-1], inputs, labels[:, None], batches, batch_key, block, rate)
    return tuple(
        trained if epoch > block else kept for epoch, kept in zip(epochs, networks, strict=True)
    )


initial = init_network(initial_key, (inputs.shape[1], *study["hidden_units"], 1))
checkpoint = job_checkpoint(snakemake)
networks = resumable(advance, (initial,) * len(epochs), epochs[-1], checkpoint)
attributes = storage.attributes(study, seed=study["seed"], equations="(1), (2)")
for path, epoch, network in zip(snakemake.output, epochs, networks, strict=True):
    storage.write(network_dataset(network, attributes | {"epoch": epoch}), path, "network")
checkpoint.remove()
