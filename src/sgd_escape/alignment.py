"""Eq. (6) itself: the covariance Σ of Eq. (8) against (2L/B) H, direction by direction."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from sgd_escape.curvature import jacobian
from sgd_escape.errors import SgdEscapeError
from sgd_escape.estimation import Bootstrap, Estimate
from sgd_escape.networks import Network, apply_network, in_float64


class GroupSums(NamedTuple):
    """Sums over the examples of each group, from which every number of Eq. (6) follows.

    With residuals r_μ = f - y, g_i = v_i·∇f(θ, x_μ) and i over the directions, `curvature` is
    Σ g_i², `noise` Σ (r g_i)², `gradient` Σ r g_i. The last column of the first two is all
    directions of the parameter space together, Σ |∇f|² and Σ r² |∇f|². `gradient_gram` holds the
    inner products of the groups' sums of r ∇f.
    """

    examples: Int[np.ndarray, " groups"]
    loss: Float[np.ndarray, " groups"]
    curvature: Float[np.ndarray, "groups columns"]
    noise: Float[np.ndarray, "groups columns"]
    gradient: Float[np.ndarray, "groups directions"]
    gradient_gram: Float[np.ndarray, "groups groups"]


class Alignment(NamedTuple):
    """Both sides of Eq. (6) along directions v_i and in the trace, and the neglected gradient.

    `curvature` is v_iᵀHv_i of Eq. (44), `noise` v_iᵀ(BΣ)v_i of Eq. (8) for B ≪ N, `ratio` is
    v_iᵀ(BΣ)v_i / (2L v_iᵀHv_i) and `trace_ratio` Tr(BΣ) / (2L Tr H). `exponent` is the γ of
    v_iᵀΣv_i ∝ (v_iᵀHv_i)^γ by least squares in logarithms. `gradient_fraction` is |∇L|² over
    (1/N) Σ |∇ℓ_μ|², and `gradient_fraction_along` the same for the components along v_i.
    """

    loss: float
    curvature: Float[np.ndarray, " directions"]
    noise: Float[np.ndarray, " directions"]
    curvature_trace: float
    noise_trace: float
    ratio: Estimate
    trace_ratio: Estimate
    exponent: Estimate
    gradient_fraction: float
    gradient_fraction_along: Float[np.ndarray, " directions"]


class Means(NamedTuple):
    """As `GroupSums`, over all examples; `gradient` is squared and has the same last column."""

    loss: Float[np.ndarray, " *rest"]
    curvature: Float[np.ndarray, "*rest columns"]
    noise: Float[np.ndarray, "*rest columns"]
    gradient: Float[np.ndarray, "*rest columns"]

    @property
    def covariance(self) -> np.ndarray:
        """BΣ of Eq. (8) for B ≪ N."""
        return np.asarray(self.noise - self.gradient)

    @property
    def ratio(self) -> np.ndarray:
        """BΣ over 2L times the curvature, 1 where Eq. (6) holds."""
        return np.asarray(self.covariance / (2 * self.loss[..., None] * self.curvature))

    @property
    def exponent(self) -> np.ndarray:
        """γ of BΣ ∝ curvature^γ over the directions, by least squares in logarithms."""
        noise, curvature = (np.log(a[..., :-1]) for a in [self.covariance, self.curvature])
        deviation = curvature - curvature.mean(-1, keepdims=True)
        return np.asarray((deviation * noise).sum(-1) / (deviation**2).sum(-1))


def group_sums(
    network: Network,
    inputs: Float[Array, "examples inputs"],
    labels: Float[Array, "examples 1"],
    directions: Float[np.ndarray, "directions parameters"],
    *,
    groups: int = 100,
) -> GroupSums:
    """The sums over `groups` runs of consecutive examples, in float64; fewer where N is smaller.

    For a network with one output and the mean-square loss. Only the gradients of one group are
    held at a time.
    """
    network, inputs, labels = in_float64((network, inputs, labels))
    bounds = np.linspace(0, len(inputs), min(groups, len(inputs)) + 1).astype(int)
    sums = [
        _sums_of_one_group(network, inputs[start:stop], labels[start:stop], directions)
        for start, stop in itertools.pairwise(bounds)
    ]
    loss, curvature, noise, gradient = map(np.stack, zip(*sums, strict=True))
    gram = gradient @ gradient.T
    return GroupSums(np.diff(bounds), loss, curvature, noise, gradient @ directions.T, gram)


def _sums_of_one_group(
    network: Network, inputs: Array, labels: Array, directions: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Loss, curvature and noise as in `GroupSums`, and the sum of r ∇f itself."""
    gradients = np.asarray(jacobian(network, inputs))
    residual = np.asarray(apply_network(network, inputs) - labels)[:, 0]
    squared = (gradients @ directions.T) ** 2
    squared = np.column_stack([squared, np.sum(gradients**2, axis=1)])
    loss = np.asarray(0.5 * np.sum(residual**2))
    return loss, squared.sum(axis=0), residual**2 @ squared, residual @ gradients


def means(sums: GroupSums, taken: Float[np.ndarray, "*rest groups"]) -> Means:
    """Over all examples, with each group taken so many times."""
    examples = (taken @ sums.examples)[..., None]
    norm = ((taken @ sums.gradient_gram) * taken).sum(-1, keepdims=True)
    squares = np.concatenate([(taken @ sums.gradient) ** 2, norm], axis=-1)
    return Means(
        taken @ sums.loss / examples[..., 0],
        taken @ sums.curvature / examples,
        taken @ sums.noise / examples,
        squares / examples**2,
    )


def alignment(sums: GroupSums, bootstrap: Bootstrap, *, zero_loss: bool = False) -> Alignment:
    """Eq. (6) from the sums over groups; intervals resample whole groups, directions held fixed.

    An interval says how much a number hangs on the images that were drawn. ∇L has none: it is
    zero, or not, at this minimum of this training set, and on other images it would not be small.
    Where the loss is zero, to rounding if `zero_loss` says so, both sides of Eq. (6) vanish: NaN.
    So is the ratio of a direction without noise, and then the exponent.
    Raises `SgdEscapeError` for fewer than two groups, or if a direction has no curvature.
    """
    groups, columns = sums.curvature.shape
    if groups < 2 or not np.all(sums.curvature.sum(axis=0) > 0):
        raise SgdEscapeError(
            "Eq. (6) with intervals needs two examples and curvature along every direction, but "
            f"there are {groups} groups of examples and the least curvature is "
            f"{sums.curvature.sum(axis=0).min():.3g}; lower network.alignment.directions"
        )
    whole = means(sums, np.ones(groups))

    def interval(number: Callable[[Means], np.ndarray], needed: slice | int) -> Estimate:
        if zero_loss or not np.all(whole.covariance[needed] > 0):
            return Estimate(*np.full((3, 1), np.nan)[:, 0])
        return bootstrap(lambda taken: number(means(sums, taken)), groups)

    def ratio(column: int) -> Estimate:
        return interval(lambda found: found.ratio[..., column], column)

    ratios = [ratio(column) for column in range(columns)]
    with np.errstate(invalid="ignore"):
        fraction = whole.gradient / np.where(zero_loss, np.nan, whole.noise)
    return Alignment(
        float(whole.loss),
        whole.curvature[:-1],
        whole.covariance[:-1],
        float(whole.curvature[-1]),
        float(whole.covariance[-1]),
        Estimate(*map(np.stack, zip(*ratios[:-1], strict=True))),
        ratios[-1],
        interval(lambda found: found.exponent, slice(None)),
        float(fraction[-1]),
        fraction[:-1],
    )
