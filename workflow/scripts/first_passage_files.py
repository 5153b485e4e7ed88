"""The first-passage file that two scripts write."""

from typing import Any

import numpy as np
import xarray as xr

from sgd_escape import storage
from sgd_escape.first_passage import FirstPassage


def write_first_passage(
    record: FirstPassage,
    runs: range,
    loss_ratio: np.ndarray,
    path: str,
    attributes: dict[str, Any],
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
    storage.write(xr.Dataset(data | scalar_data, coordinates, attributes), path, "first_passage")
