"""Discrete SGD on isotropic Gaussian data in any dimension by transition matrix of |θ|.

A step's law depends on θ through |θ| alone and turns with θ, so |θ| is a Markov chain of its own:
what takes a d-dimensional simulation otherwise is a matrix with one state a cell of |θ|. As in
`discrete_theory` it holds transitions between different states only, and nothing is subtracted.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit, gammaln

from sgd_escape.discrete_theory import mean_passage
from sgd_escape.errors import SgdEscapeError
from sgd_escape.gaussian_kernel import check_step, log_gaussian_step_density, log_step_density

StepDensity = Callable[..., Float[np.ndarray, "..."]]


class PassageTable(NamedTuple):
    """Mean first-passage steps at each loss ratio, and estimates of the errors of their grid."""

    mean: Float[np.ndarray, " thresholds"]
    error: Float[np.ndarray, " thresholds"]


def radial_passage_steps(
    loss_ratios: Float[np.ndarray, " thresholds"],
    learning_rate: float,
    batch_size: int,
    dimension: int,
    *,
    gaussian_noise: bool = False,
    nodes: int = 120,
) -> PassageTable:
    """Mean steps from θ* until L > c·L(θ*), Gaussian data, mini-batches of B fresh examples.

    With `gaussian_noise` for steps of Eq. (4) of length Δt = η instead: SGD whose noise has been
    replaced by a Gaussian one of the same covariance. Solves (1 - P) τ = 1 for all thresholds with
    one matrix of about `nodes` cells, and one of half as many for an extrapolation in nodes⁻²; the
    error is the change between the two. Raises `SgdEscapeError` unless the loss ratios increase
    from above 1, η > 0, B >= 1 and d >= 1, or if the cells are too wide for the steps.
    """
    check_step(learning_rate, batch_size)
    if not (np.all(np.diff(loss_ratios, prepend=1) > 0) and dimension >= 1):
        raise SgdEscapeError(
            "passage times of |θ| need increasing loss ratios above 1 and a dimension of at least "
            f"1, but got {loss_ratios.tolist()} and {dimension}"
        )
    law = log_gaussian_step_density if gaussian_noise else log_step_density
    density = partial(law, learning_rate=learning_rate, batch_size=batch_size, dimension=dimension)
    bounds, ratio = np.sqrt(loss_ratios - 1), learning_rate / batch_size
    coarse, fine = (
        _passages(density, bounds, ratio, dimension, count) for count in (nodes // 2, nodes)
    )
    if not np.all((coarse > 0.3 * fine) & (coarse < 3 * fine)):
        raise SgdEscapeError(
            f"{nodes} cells of |θ| do not resolve the steps at learning rate {learning_rate} and "
            f"batch size {batch_size}: with half as many the passage time to c = "
            f"{loss_ratios[-1]:g} is {coarse[-1]:.3g}, not {fine[-1]:.3g} steps; raise the nodes"
        )
    return PassageTable(fine + (fine - coarse) / 3, np.abs(fine - coarse))


def radial_density(
    start: Float[np.ndarray, "*#shape"],
    end: Float[np.ndarray, "*#shape"],
    density: StepDensity,
    dimension: int,
) -> Float[np.ndarray, "..."]:
    """P(|θ'| | |θ|) from the log density of a step in ℝᵈ, which is averaged over directions.

    The angle between θ and θ' is integrated in its logit, which resolves the near-pole at
    θ' = θ where |θ'| is close to |θ|.
    """
    if dimension == 1:
        ends = [density(start, end - start, 0 * end), density(start, -end - start, 0 * end)]
        return np.asarray(np.exp(ends[0]) + np.exp(ends[1]))
    step = 0.3
    share = expit(np.arange(-14, 7, step))[(...,) + (None,) * max(start.ndim, end.ndim)]
    half, weight = np.pi * share / 2, step * np.pi * share * (1 - share)
    along = end - start - 2 * end * np.sin(half) ** 2
    across = end * np.sin(2 * half)
    log_area = np.log(2) + (dimension - 1) / 2 * np.log(np.pi) - gammaln((dimension - 1) / 2)
    log_ring = log_area + np.log(end) + (dimension - 2) * np.log(across)
    return np.asarray(np.sum(weight * np.exp(log_ring + density(start, along, across)), axis=0))


def _passages(
    density: StepDensity,
    bounds: Float[np.ndarray, " thresholds"],
    ratio: float,
    dimension: int,
    nodes: int,
) -> Float[np.ndarray, " thresholds"]:
    theta, width, counts = _cells(bounds, ratio, nodes)
    states = np.append(0.0, theta[: counts[-1]])
    transitions = np.empty((len(states), len(theta)))
    for row, start in enumerate(states):
        elsewhere = theta != start
        ends = theta[elsewhere]
        transitions[row] = 0
        transitions[row, elsewhere] = (
            radial_density(np.full(1, start), ends, density, dimension) * width[elsewhere]
        )
    return np.array([_passage(transitions, count) for count in counts])


def _passage(transitions: Float[np.ndarray, "states cells"], count: int) -> float:
    """From θ*, which is a state of its own that no transition enters, to beyond `count` cells."""
    within = np.zeros((count + 1, count + 1))
    within[:, 1:] = transitions[: count + 1, :count]
    return mean_passage(within, transitions[: count + 1, count:].sum(1))


def _cells(
    bounds: Float[np.ndarray, " thresholds"], ratio: float, nodes: int
) -> tuple[Float[np.ndarray, " cells"], Float[np.ndarray, " cells"], list[int]]:
    """Midpoints and widths of cells of |θ|, and how many of them lie within each bound.

    Between two bounds they are equal in arsinh |θ|, in which steps are alike everywhere, but
    shrink towards both, where a passage time is not smooth. Beyond the last they reach as far as
    a step does.
    """
    edges = np.arcsinh(np.append(0.0, bounds))
    farthest = bounds[-1] + 80 * ratio * np.sqrt(1 + bounds[-1] ** 2)
    farthest += 40 * ratio * (np.sqrt(1 + bounds[-1] ** 2) + bounds[-1])
    edges = np.append(edges, np.arcsinh(farthest))
    theta, width, counts = [], [], []
    for low, high in pairwise(edges):
        count = max(4, round(nodes * (high - low) / edges[-2]))
        s = (np.arange(count) + 0.5) / count
        u = low + (high - low) * s**2 * (3 - 2 * s)
        theta.append(np.sinh(u))
        width.append(np.cosh(u) * (high - low) * 6 * s * (1 - s) / count)
        counts.append(count)
    return np.concatenate(theta), np.concatenate(width), np.cumsum(counts[:-1]).tolist()
