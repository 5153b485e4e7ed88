"""h* and n of Eq. (15) with intervals, from sums over groups of examples at fixed eigenvectors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sgd_escape.errors import SgdEscapeError
from sgd_escape.estimation import Bootstrap, Estimate


class GroupCurvatures(NamedTuple):
    """Sums of the curvature of Eq. (44) over the examples of each group.

    `along` is Σ (v_i·∇f)² for the leading eigenvectors v_i by descending eigenvalue, `trace` is
    Σ |∇f|²; `rest` is Σ h_i² of the Hessian of all examples over the directions beyond `along`.
    """

    examples: Int[np.ndarray, " groups"]
    along: Float[np.ndarray, "groups directions"]
    trace: Float[np.ndarray, " groups"]
    rest: float


def outliers(
    sums: GroupCurvatures, taken: Float[np.ndarray, "*rest groups"]
) -> tuple[Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"]]:
    """h_1 = v_1ᵀHv_1 and n = (Σ h_i)²/Σ h_i² of Eq. (45), with each group taken so many times.

    The eigenvalues beyond the leading ones enter Σ h_i² by `rest` times the square of their sum
    over what it is with all groups: they grow alike. Σ h_i itself is exact.
    """
    examples = taken @ sums.examples
    along = taken @ sums.along / examples[..., None]
    trace = taken @ sums.trace / examples
    beyond = (sums.trace.sum() - sums.along.sum()) / sums.examples.sum()
    # A Hessian without any other direction has nothing to scale.
    growth = (trace - along.sum(-1)) / beyond if sums.rest > 0 else np.zeros(trace.shape)
    squares = np.sum(along**2, axis=-1) + sums.rest * growth**2
    return np.asarray(along[..., 0]), np.asarray(trace**2 / squares)


def estimated_outliers(sums: GroupCurvatures, bootstrap: Bootstrap) -> tuple[Estimate, Estimate]:
    """h_1 and n with intervals that resample whole groups. Raises as `predicted_exponent`."""
    return _resampled(sums, bootstrap, lambda h, n: h), _resampled(sums, bootstrap, lambda h, n: n)


def predicted_exponent(
    sums: GroupCurvatures, eta_over_batch: float, bootstrap: Bootstrap
) -> Estimate:
    """B/(ηh_1) + 1 - n/2 of Eq. (15) with n of Eq. (45); both vary together over the resamples.

    Raises `SgdEscapeError` for fewer than two groups or a Hessian without curvature.
    """
    return _resampled(sums, bootstrap, lambda h, n: 1 / (eta_over_batch * h) + 1 - n / 2)


def _resampled(
    sums: GroupCurvatures,
    bootstrap: Bootstrap,
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Estimate:
    groups, largest = len(sums.examples), sums.along[:, 0].sum()
    if groups < 2 or not largest > 0:
        raise SgdEscapeError(
            "h_1 and n with intervals need two groups of examples and a curved direction, but "
            f"there are {groups} groups and Σ (v_1·∇f)² is {largest:.3g}; take more examples, or "
            "pre-train the network again"
        )
    return bootstrap(lambda taken: statistic(*outliers(sums, taken)), groups)
