"""The first-passage files, as scripts write and gather them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sgd_escape import outcomes, storage
from sgd_escape.first_passage import FirstPassage


def write_first_passage(
    record: FirstPassage,
    runs: range,
    loss_ratio: np.ndarray,
    path: str,
    attributes: dict[str, Any],
    *,
    zero_loss: bool = False,
    **scalars: float,
) -> None:
    """The record of some runs as one first-passage file."""
    data = {
        "first_passage_step": (("run", "threshold"), record.first_passage_step),
        "observed_steps": ("run", record.observed_steps),
        "diverged": ("run", record.diverged),
    }
    scalar_data = {name: ((), value) for name, value in scalars.items()}
    coordinates = {"run": np.asarray(runs), "threshold": loss_ratio}
    counts = outcomes.of_runs(record.diverged) | {"zero_loss": int(zero_loss)}
    attributes = attributes | outcomes.attribute(counts)
    storage.write(xr.Dataset(data | scalar_data, coordinates, attributes), path, "first_passage")


def gathered(paths: Sequence[str]) -> xr.Dataset:
    """All runs of one case, in order, from the shards that share them."""
    shards = [storage.read(path, "first_passage") for path in paths]
    runs = xr.concat(
        shards, "run", data_vars="minimal", coords="minimal", compat="equals", join="exact"
    )
    counts = outcomes.outcomes_of(shards[0]) | outcomes.of_runs(runs["diverged"].values)
    return runs.sortby("run").assign_attrs(outcomes.attribute(counts))
