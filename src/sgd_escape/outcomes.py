"""Outcomes that are no error but change what a number means: named in the file, told in the report.

A file carries them as its attribute `outcomes`, JSON from name to count.
"""

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

MEANINGS = {
    "constant_labels": "all labels are equal: the output's bias alone fits them",
    "duplicate_samples": "examples whose input is that of an earlier one",
    "dead_units": "hidden units that no example activates: their weights have no gradient",
    "zero_loss": "L(theta*), or the loss of so many epochs of a training, is zero to rounding: SGD "
    "has no noise there and never leaves, c is not defined, and Eq. (13) would need the paper's "
    "epsilon",
    "unstable_learning_rates": "cases with eta h_1 > 2, where gradient descent itself leaves the "
    "minimum: Eq. (15) does not apply",
    "diverged": "runs or trainings whose loss or parameter became infinite or NaN; a run counts as "
    "passed there, a spectrum does not exist",
    "all_diverged": "no run stayed finite: lower the learning rate",
    "too_few_passages": "cases without an exponent, since fewer than two runs passed more than the "
    "lowest threshold: raise max_steps, or lower thresholds.max and fit_range",
    "undefined_overlaps": "spectra with fewer eigenvalues above the rounding floor than "
    "directions: their spans have no overlap",
    "flat_directions": "leading directions without curvature: no ratio to it is given",
    "noiseless_directions": "leading directions without noise: no exponent of the noise is given",
}


def attribute(counts: Mapping[str, int | np.integer | np.bool_]) -> dict[str, str]:
    """The attribute `outcomes` from counts by name, of which those that are 0 are left out.

    Raises KeyError for a name that has no meaning.
    """
    unknown = counts.keys() - MEANINGS.keys()
    if unknown:
        raise KeyError(f"{min(unknown)} is no outcome with a meaning")
    named = {name: int(count) for name, count in counts.items() if count}
    return {"outcomes": json.dumps(named, sort_keys=True)}


def outcomes_of(dataset: xr.Dataset) -> dict[str, int]:
    """Counts by name that a file carries; none if it has no such attribute."""
    named: dict[str, int] = json.loads(dataset.attrs.get("outcomes", "{}"))
    return named


def of_examples(
    inputs: Float[np.ndarray, "examples ..."], labels: Float[np.ndarray, "examples ..."]
) -> dict[str, int]:
    """Labels that are all equal (1 or 0), and examples that repeat an earlier one's input."""
    rows = np.ascontiguousarray(inputs).reshape(len(inputs), -1)
    # Rows as opaque bytes: sorting them is much faster than by columns.
    opaque = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    return {
        "constant_labels": int(np.all(labels == labels[:1])),
        "duplicate_samples": len(rows) - len(np.unique(opaque)),
    }


def of_minimum(
    loss: float | np.floating,
    labels: Float[np.ndarray, "examples ..."],
    before_rectifier: Float[np.ndarray, "examples units"],
) -> dict[str, int]:
    """Whether the mean-square loss is zero to rounding (1 or 0), and hidden units that are dead."""
    return {
        "zero_loss": int(is_zero(loss, labels)),
        "dead_units": int(np.sum(np.max(before_rectifier, axis=0) <= 0)),
    }


def is_zero(loss: float | np.floating, labels: Float[np.ndarray, "examples ..."]) -> bool:
    """Whether a mean-square loss is zero to rounding.

    The outputs are of the labels' size, so their rounding error in the precision of the labels
    leaves residuals of eps times that: no smaller loss can be told from zero.
    """
    rounding = np.finfo(labels.dtype).eps ** 2 * float(np.mean(np.square(labels)))
    return bool(loss <= rounding)


def of_runs(diverged: Bool[np.ndarray, "*runs"] | Int[np.ndarray, "*runs"]) -> dict[str, int]:
    """How many of the runs diverged, and whether all did (their number, else 0)."""
    count = int(np.count_nonzero(diverged))
    return {"diverged": count, "all_diverged": count if count == np.size(diverged) else 0}
