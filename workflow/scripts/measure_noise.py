from prologue import begin

begin(snakemake)

import jax
import numpy as np
import xarray as xr
from architectures import ARCHITECTURES, LOSSES
from training_files import job_checkpoint

from sgd_escape import outcomes, storage
from sgd_escape.batches import passes, stream_key
from sgd_escape.noise_dynamics import noise_dynamics, spaced_epochs

study, wildcards = snakemake.params.study, snakemake.wildcards
initial_key, batch_key = jax.random.split(stream_key(study["seed"]))
architecture = ARCHITECTURES[wildcards.architecture]
inputs, labels = architecture.read(snakemake.input.data, study["n_samples"])
checkpoint = job_checkpoint(snakemake)
trace_epochs = spaced_epochs(study["epochs"], study["trace_factors"])
measured = noise_dynamics(
    architecture.init(initial_key, inputs.shape, labels.shape[1], study),
    inputs,
    labels,
    passes(study["sampling"], study["n_samples"], study["batch_size"]),
    batch_key,
    LOSSES[wildcards.loss],
    checkpoint,
    learning_rate=study["learning_rate"],
    epochs=study["epochs"],
    trace_epochs=trace_epochs,
    examples_at_once=architecture.examples_at_once,
)
zero_loss = sum(outcomes.is_zero(loss, np.asarray(labels)) for loss in measured.loss)
storage.write(
    xr.Dataset(
        {
            "loss": ("epoch", measured.loss),
            "noise_strength": ("epoch", measured.noise_strength),
            "squared_mean_gradient": ("epoch", measured.squared_mean_gradient),
            "trace_factor": ("trace_epoch", measured.trace_factor[trace_epochs]),
            "weighted_trace_factor": (
                "trace_epoch",
                measured.weighted_trace_factor[trace_epochs],
            ),
            "outputs": ((), labels.shape[1]),
            "diverged": ((), bool(np.isnan(measured.loss[-1]))),
        },
        {"epoch": np.arange(study["epochs"] + 1), "trace_epoch": trace_epochs},
        storage.attributes(study, seed=study["seed"], equations="(8), (9)")
        | {"architecture": wildcards.architecture, "loss_function": wildcards.loss}
        | outcomes.attribute(
            outcomes.of_runs(np.isnan(measured.loss[-1:])) | {"zero_loss": zero_loss}
        ),
    ),
    snakemake.output[0],
    "noise",
)
checkpoint.remove()
