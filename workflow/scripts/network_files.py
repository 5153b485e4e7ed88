"""The files that the scripts on the network share, as the arrays that the package works on."""

import jax.numpy as jnp
import numpy as np

from sgd_escape import storage
from sgd_escape.datasets import parity_subset
from sgd_escape.networks import Dense, Network
from sgd_escape.outcomes import outcomes_of


def read_parity(path: str, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n_samples, 784) and labels ±1 (n_samples,) of the parity problem, float32."""
    dataset = storage.read(path, "dataset")
    return parity_subset(dataset["image"].values, dataset["label"].values, n_samples)


def read_network(path: str) -> Network:
    """The pre-trained 784-hidden-1 network."""
    stored = storage.read(path, "pretrained")
    array = {name: jnp.asarray(stored[name].values) for name in stored.data_vars}
    return (
        Dense(array["hidden_weight"], array["hidden_bias"]),
        Dense(array["output_weight"][:, None], array["output_bias"][None]),
    )


def has_zero_loss(path: str) -> bool:
    """Whether the loss of the pre-trained network is zero to rounding."""
    return "zero_loss" in outcomes_of(storage.read(path, "pretrained"))
