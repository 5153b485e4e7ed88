"""The files that the scripts on the network share, as the arrays that the package works on."""

import hashlib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from sgd_escape import storage
from sgd_escape.checkpoints import Checkpoint
from sgd_escape.datasets import parity_subset
from sgd_escape.networks import Convolution, Dense, MaxPool, Network

LAYERS = {"Dense": Dense, "Convolution": Convolution}


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


def network_dataset(network: Network, attributes: dict[str, Any]) -> xr.Dataset:
    """Any network as a dataset of the kind "network"."""
    arrays = {
        f"{name}_{depth}": ([f"{name}_{depth}_dim{axis}" for axis in range(array.ndim)], array)
        for depth, layer in enumerate(network)
        if not isinstance(layer, MaxPool)
        for name, array in layer._asdict().items()
    }
    names = [f"MaxPool {a.size}" if isinstance(a, MaxPool) else type(a).__name__ for a in network]
    return xr.Dataset(arrays, attrs=attributes | {"layers": ", ".join(names)})


def read_layers(path: str) -> Network:
    """The network that `network_dataset` described."""
    stored = storage.read(path, "network")

    def layer(depth: int, name: str) -> Any:
        kind, _, size = name.partition(" ")
        if kind == "MaxPool":
            return MaxPool(int(size))
        arrays = (jnp.asarray(stored[f"{part}_{depth}"].values) for part in ["weight", "bias"])
        return LAYERS[kind](*arrays)

    return tuple(layer(depth, name) for depth, name in enumerate(stored.layers.split(", ")))


def job_checkpoint(snakemake: Any) -> Checkpoint:
    """The checkpoint of this job: it depends on its rule, wildcards, params, data and code."""
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in snakemake.input]
    identity = {
        "rule": snakemake.rule,
        "wildcards": dict(snakemake.wildcards),
        "params": dict(snakemake.params),
        "inputs": digests,
    }
    return Checkpoint(".cache/checkpoints", identity)
