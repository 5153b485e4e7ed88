"""What scripts that train for long share: networks as files, and where they resume."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import xarray as xr

from sgd_escape import storage
from sgd_escape.checkpoints import Checkpoint
from sgd_escape.networks import Convolution, Dense, MaxPool, Network

LAYERS = {"Dense": Dense, "Convolution": Convolution}


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
    """The checkpoint of this job: it depends on its rule, wildcards, params, data and code.

    And on what its arithmetic runs on, as another version or device rounds differently.
    """
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in snakemake.input]
    identity = {
        "rule": snakemake.rule,
        "wildcards": dict(snakemake.wildcards),
        "params": dict(snakemake.params),
        "inputs": digests,
        "arithmetic": [jax.__version__, jax.default_backend(), snakemake.threads],
    }
    return Checkpoint(".cache/checkpoints", identity)
