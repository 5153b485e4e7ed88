"""Exponents of SGD on fresh Gaussian data between two large thresholds, by two routes."""

import numpy as np
from ensembles import in_steps
from intervals import bounded

from sgd_escape.batches import GaussianIncrements, stream_key
from sgd_escape.chains import FreshRegression
from sgd_escape.estimation import Estimate, passage_steps
from sgd_escape.ladder import asymptotic_exponent
from sgd_escape.radial_theory import radial_passage_steps
from sgd_escape.splitting import exit_rates, loss_levels


def simulated_exponents(simulation: dict, confidence: float, seed: int) -> dict[str, tuple]:
    """By splitting and by transition matrix, their limit and Eq. (15), at every dimension."""
    eta, batch_size = simulation["learning_rate"], simulation["batch_size"]
    ratios, dims = np.array(simulation["loss_ratios"]), ("simulated_dimension",)
    found, matrix = [], []
    for d in simulation["dimensions"]:
        low, high = (_steps(simulation, d, c, confidence, seed) for c in ratios.tolist())
        found.append(_slope(low, high, np.log(ratios[1] / ratios[0])))
        steps = radial_passage_steps(ratios, eta, batch_size, d, nodes=simulation["nodes"]).mean
        matrix.append(np.diff(np.log(steps))[0] / np.diff(np.log(ratios))[0])
    limit = [asymptotic_exponent(eta, batch_size, d) for d in simulation["dimensions"]]
    return bounded("simulated_exponent", Estimate(*np.transpose(found)), dims) | {
        "matrix_exponent": (dims, np.array(matrix)),
        "tail_exponent": (dims, np.array(limit)),
        "printed_exponent": (dims, batch_size / eta + 1 - np.array(simulation["dimensions"]) / 2),
    }


def _steps(
    simulation: dict, dimension: int, loss_ratio: float, confidence: float, seed: int
) -> Estimate:
    eta = simulation["learning_rate"]
    chain = FreshRegression.of_dimension(dimension, eta)
    rates = exit_rates(
        chain,
        GaussianIncrements(simulation["batch_size"] * (dimension + 1)),
        loss_levels(float(chain.loss(chain.start)), loss_ratio, simulation["ensemble"]["bins"]),
        stream_key(seed, eta, simulation["batch_size"], dimension, loss_ratio),
        **in_steps(simulation["ensemble"], eta),
    )
    return passage_steps(rates, confidence)


def _slope(low: Estimate, high: Estimate, span: float) -> Estimate:
    """Slope of log τ; the half-widths of independent estimates add in squares, on either side."""
    (a, a_low, a_high), (b, b_low, b_high) = np.log(low), np.log(high)
    below, above = np.hypot(b - b_low, a_high - a), np.hypot(b_high - b, a - a_low)
    return Estimate(*(np.array([b - a, b - a - below, b - a + above]) / span))
