from prologue import begin

begin(snakemake)

import jax
import numpy as np
import xarray as xr
from network_files import read_parity

from sgd_escape import outcomes, storage
from sgd_escape.batches import SAMPLINGS, stream_key
from sgd_escape.networks import init_network
from sgd_escape.training import train

params, study, seed = snakemake.params, snakemake.params.study, int(snakemake.wildcards.seed)
inputs, labels = read_parity(snakemake.input.data, params.n_samples)
initial_key, batch_key = jax.random.split(stream_key(seed))
trained = train(
    init_network(initial_key, (inputs.shape[1], params.hidden_units, 1)),
    inputs,
    labels[:, None],
    SAMPLINGS[study["sampling"]](params.n_samples, study["batch_size"]),
    batch_key,
    learning_rate=study["learning_rate"],
    steps=study["steps"],
)
hidden, output = trained.network
training_loss = np.asarray(trained.training_loss, np.float64)
before_rectifier = np.asarray(hidden.weighted_sums(inputs) + hidden.bias)
storage.write(
    xr.Dataset(
        {
            "hidden_weight": (("input", "hidden"), hidden.weight),
            "hidden_bias": ("hidden", hidden.bias),
            "output_weight": ("hidden", output.weight[:, 0]),
            "output_bias": ((), output.bias[0]),
            "training_loss": ("epoch", training_loss),
            "loss": ((), training_loss[-1]),
        },
        attrs=storage.attributes(
            study | {"n_samples": params.n_samples, "hidden_units": params.hidden_units},
            seed=seed,
            equations="(1), (2)",
        )
        | outcomes.attribute(
            outcomes.of_examples(inputs, labels)
            | outcomes.of_minimum(training_loss[-1], labels, before_rectifier)
        ),
    ),
    snakemake.output[0],
    "pretrained",
)
