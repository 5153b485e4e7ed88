"""Discrete SGD on linear regression in one dimension by transition matrix: no SDE, no simulation.

Gaussian data (`gaussian_kernel`): the density of a step, on cells of |θ|. Data of finite N: at
B = 1 a step is one of N affine maps, θ' = θ - η (x² θ - x y), on nodes of θ - θ*.

A matrix here holds transitions between different states only. What stays follows from their
sum, so a kernel with a pole at θ' = θ needs no care, and nothing is subtracted anywhere: a time of
10²⁰ steps has as many correct digits as one of ten.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgd_escape.errors import SgdEscapeError
from sgd_escape.gaussian_kernel import (
    check_step,
    exit_probability,
    log_transition_density,
    tail_index,
)


class PassageSteps(NamedTuple):
    """A mean first-passage time in steps, and an estimate of the error that its grid makes."""

    mean: float
    error: float


class StationaryLaw(NamedTuple):
    """A stationary law on cells: P(θ in cell i) = probability[i], hence density probability/width.

    `escape` is the probability that a step would leave the range of the nodes. Such steps are not
    made, which changes the law by as much.
    """

    theta: Float[np.ndarray, " nodes"]
    width: Float[np.ndarray, " nodes"]
    probability: Float[np.ndarray, " nodes"]
    escape: float


def gaussian_passage_steps(
    loss_ratio: float, learning_rate: float, batch_size: int, *, nodes: int = 400
) -> PassageSteps:
    """Mean steps from θ* until L > c·L(θ*), Gaussian data, mini-batches of B fresh examples.

    Solves (1 - P) τ = 1, P the kernel within |θ| <= √(c - 1), by a midpoint rule of `nodes` and of
    half as many, extrapolated. The error falls as nodes⁻³ for B = 1, where the kernel has a
    logarithmic pole, and as nodes⁻⁴ for B > 1. Raises `SgdEscapeError` unless c > 1, η > 0, B >= 1
    and `nodes` is a multiple of 4 from 8.
    """
    check_step(learning_rate, batch_size)
    _check(loss_ratio, nodes)
    bound = np.sqrt(loss_ratio - 1)

    def steps(count: int) -> float:
        theta, width = _nodes_within(bound, count)
        # The start is a state of its own that no transition enters.
        theta, width = np.append(0.0, theta), np.append(0.0, width)
        transitions = _folded_transitions(theta, width, learning_rate, batch_size)
        exits = exit_probability(theta, bound, learning_rate, batch_size)
        return mean_passage(transitions, exits)

    return _extrapolated(steps, nodes, order=3 if batch_size == 1 else 4)


def gaussian_stationary_law(
    learning_rate: float, batch_size: int, *, nodes: int = 800, reach: float = 1e4
) -> StationaryLaw:
    """Stationary law of |θ| for Gaussian data, on cells of equal width in arsinh(θ √B/η).

    They resolve the kernel at the minimum and in the power-law tail alike, out to `reach`.
    Raises `SgdEscapeError` if there is no stationary law, as `tail_index` does.
    """
    tail_index(learning_rate, batch_size)
    scale = learning_rate / np.sqrt(batch_size)
    step = np.arcsinh(reach / scale) / nodes
    s = (np.arange(nodes) + 0.5) * step
    theta, width = scale * np.sinh(s), scale * np.cosh(s) * step
    probability = stationary_weights(_folded_transitions(theta, width, learning_rate, batch_size))
    exits = exit_probability(theta, reach, learning_rate, batch_size)
    return StationaryLaw(theta, width, probability, float(probability @ exits))


def data_passage_steps(
    inputs: Float[np.ndarray, " examples"],
    labels: Float[np.ndarray, " examples"],
    loss_ratio: float,
    learning_rate: float,
    *,
    nodes: int = 400,
) -> PassageSteps:
    """Mean steps from θ* until L > c·L(θ*) for SGD with B = 1 on these very examples.

    Each step draws one of the N examples uniformly, with replacement. A new state between two
    nodes is shared among them by linear interpolation, which errs as nodes⁻². Raises
    `SgdEscapeError` unless c > 1, η > 0 and `nodes` is a multiple of 4 from 8, or if no example
    leads out.
    """
    check_step(learning_rate, 1)
    _check(loss_ratio, nodes)
    hessian, minimum, minimum_loss = _minimum(inputs, labels)
    bound = np.sqrt(2 * minimum_loss * (loss_ratio - 1) / hessian)

    def steps(count: int) -> float:
        _, transitions, exits = _data_transitions(
            inputs, labels - minimum * inputs, learning_rate, bound, count
        )
        if not exits.any():
            raise SgdEscapeError(
                f"no example leads from below c = {loss_ratio} to above it at learning rate "
                f"{learning_rate}, so that threshold is never passed; lower it"
            )
        return mean_passage(transitions, exits)

    return _extrapolated(steps, nodes, order=2)


def data_stationary_law(
    inputs: Float[np.ndarray, " examples"],
    labels: Float[np.ndarray, " examples"],
    learning_rate: float,
    *,
    reach: float,
    nodes: int = 800,
) -> StationaryLaw:
    """Stationary law of θ for SGD with B = 1 on these very examples, within |θ - θ*| <= `reach`.

    Raises `SgdEscapeError` unless η > 0; `nodes` is the even number of intervals.
    """
    check_step(learning_rate, 1)
    _, minimum, _ = _minimum(inputs, labels)
    shift, transitions, exits = _data_transitions(
        inputs, labels - minimum * inputs, learning_rate, reach, nodes
    )
    probability = stationary_weights(transitions)
    order = np.argsort(shift)
    width = np.full(nodes + 1, 2 * reach / nodes)
    width[[0, -1]] /= 2
    return StationaryLaw(
        minimum + shift[order], width, probability[order], float(probability @ exits)
    )


def stationary_weights(
    transitions: Float[np.ndarray, "states states"],
) -> Float[np.ndarray, " states"]:
    """The stationary law of a Markov chain from its transitions between different states.

    The elimination of Grassmann, Taksar and Heyman (Operations Research 33, 1107, 1985), whose
    weights have small relative errors however small they are. The diagonal is not read. Raises
    `SgdEscapeError` if the chain cannot come back from some state towards state 0.
    """
    p = transitions.copy()
    leaving = np.ones(len(p))
    for k in range(len(p) - 1, 0, -1):
        leaving[k] = p[k, :k].sum()
        if not leaving[k] > 0:
            raise SgdEscapeError(
                f"a stationary law needs a way back from every state, but state {k} of {len(p)} "
                "has none towards state 0; use more nodes or a smaller range"
            )
        p[:k, :k] += np.outer(p[:k, k], p[k, :k] / leaving[k])
    weights = np.ones(len(p))
    for k in range(1, len(p)):
        weights[k] = weights[:k] @ p[:k, k] / leaving[k]
    return np.asarray(weights / weights.sum())


def _folded_transitions(
    theta: Float[np.ndarray, " states"],
    width: Float[np.ndarray, " states"],
    learning_rate: float,
    batch_size: int,
) -> Float[np.ndarray, "states states"]:
    """Transitions of |θ| between cells; those from a cell to itself are zero."""
    start, end = theta[:, None], theta[None]
    same = np.eye(len(theta), dtype=bool)
    density = np.zeros(same.shape)
    for sign in (1, -1):
        elsewhere = np.where(same, start + 1, sign * end)
        density += np.exp(log_transition_density(start, elsewhere, learning_rate, batch_size))
    return np.asarray(np.where(same, 0, density) * width[None])


def _nodes_within(
    bound: float, count: int
) -> tuple[Float[np.ndarray, " count"], Float[np.ndarray, " count"]]:
    """Midpoints and widths of [0, bound], with dθ/ds ∝ (1 - s²)².

    The passage time behaves as x log x at a distance x from the bound; where cells shrink like
    this, neither that nor the end of the midpoint rule shows.
    """
    s = (np.arange(count) + 0.5) / count
    theta = bound * s * (15 - 10 * s**2 + 3 * s**4) / 8
    return theta, bound * 15 / 8 * (1 - s**2) ** 2 / count


def _minimum(
    inputs: Float[np.ndarray, " examples"], labels: Float[np.ndarray, " examples"]
) -> tuple[float, float, float]:
    """h, θ* and L* of L(θ) = L* + h/2 (θ - θ*)²."""
    hessian = float(np.mean(inputs**2))
    minimum = float(np.mean(inputs * labels)) / hessian
    return hessian, minimum, float(np.mean((labels - minimum * inputs) ** 2)) / 2


def _data_transitions(
    inputs: Float[np.ndarray, " examples"],
    residuals: Float[np.ndarray, " examples"],
    learning_rate: float,
    bound: float,
    intervals: int,
) -> tuple[
    Float[np.ndarray, " states"],
    Float[np.ndarray, "states states"],
    Float[np.ndarray, " states"],
]:
    """Nodes of θ - θ* from the middle outwards, transitions between them, probabilities to exit."""
    grid = np.linspace(-bound, bound, intervals + 1)
    transitions, exits = np.zeros((len(grid), len(grid))), np.zeros(len(grid))
    for i, shift in enumerate(grid):
        image = shift - learning_rate * inputs * (inputs * shift - residuals)
        inside = image[np.abs(image) <= bound]
        exits[i] = np.mean(np.abs(image) > bound)
        cell, share = np.divmod((inside + bound) * intervals / (2 * bound), 1)
        cell = cell.astype(int)
        # One place more, for the right neighbour of the last node, whose share is zero.
        near, far = (
            np.bincount(*placed, len(grid) + 1)[:-1]
            for placed in ((cell, 1 - share), (cell + 1, share))
        )
        transitions[i] = near + far
    outwards = np.argsort(np.abs(grid), kind="stable")
    transitions = transitions[np.ix_(outwards, outwards)] / len(inputs)
    return grid[outwards], transitions, exits[outwards]


def mean_passage(
    transitions: Float[np.ndarray, "states states"], exits: Float[np.ndarray, " states"]
) -> float:
    """Mean steps from state 0 to an exit: if each exit restarts there, the time between two."""
    restarting = transitions.copy()
    restarting[:, 0] += exits
    return float(1 / (stationary_weights(restarting) @ exits))


def _extrapolated(steps: Callable[[int], float], nodes: int, order: int) -> PassageSteps:
    """Richardson's extrapolation in nodes^-order, and the change from half as many nodes.

    That change is several times the error left: where two orders cancel, less would not cover it.
    """
    coarse, fine = steps(nodes // 2), steps(nodes)
    return PassageSteps(fine + (fine - coarse) / (2**order - 1), abs(fine - coarse))


def _check(loss_ratio: float, nodes: int) -> None:
    if not loss_ratio > 1:
        raise SgdEscapeError(f"a passage time needs a loss ratio above 1, not {loss_ratio}")
    if nodes < 8 or nodes % 4:
        raise SgdEscapeError(f"the number of nodes must be a multiple of 4 from 8, not {nodes}")
