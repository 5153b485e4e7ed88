"""Passage times of SGD on one finite Gaussian data set, for all thresholds, and their limit."""

import contextlib

import numpy as np
from ensembles import in_steps

from sgd_escape.batches import WithReplacement, stream_key
from sgd_escape.chains import LinearRegression, gaussian_regression
from sgd_escape.discrete_theory import data_passage_steps
from sgd_escape.errors import SgdEscapeError
from sgd_escape.estimation import Estimate, passage_steps
from sgd_escape.quasi_potential import data_quasi_potential
from sgd_escape.splitting import exit_rates, loss_levels


def data_log_steps(
    loss_ratio: np.ndarray,
    study: dict,
    seed: int,
    dimension: int,
    data_set: int,
    eta: float,
    batch_size: int,
) -> Estimate:
    """log τ in steps at each threshold; NaN from the first on that splitting does not resolve.

    By transition matrix where there is one, d = B = 1, else with the interval over repetitions. A
    threshold is resolved where that of its rate does not reach 0.
    """
    chain = _chain(study, seed, dimension, data_set, eta)
    if dimension == batch_size == 1:
        inputs, labels = np.asarray(chain.inputs)[:, 0], np.asarray(chain.labels)
        steps = [
            data_passage_steps(inputs, labels, c, eta, nodes=study["data_nodes"]).mean
            for c in loss_ratio.tolist()
        ]
        return Estimate(*[np.log(steps)] * 3)
    log_steps = np.full((3, len(loss_ratio)), np.nan)
    for index, c in enumerate(loss_ratio.tolist()):
        key = stream_key(seed, eta, batch_size, dimension, data_set, c)
        rates = _rates(chain, study, c, batch_size, key)
        if not rates.any():
            break
        steps = passage_steps(rates, study["confidence"])
        if not np.isfinite(steps.high):
            break
        log_steps[:, index] = np.log(steps)
    return Estimate(*log_steps)


def quasi_potentials(
    loss_ratio: np.ndarray, study: dict, seed: int, dimension: int, data_set: int
) -> np.ndarray:
    """Limit of (η/B) log τ for η → 0; NaN where no example pushes outwards all the way.

    `data_quasi_potential` over h*: exact for d = 1, of a straight path for d > 1.
    """
    chain = _chain(study, seed, dimension, data_set, study["learning_rates"][0])
    inputs, labels = np.asarray(chain.inputs), np.asarray(chain.labels)
    sharpest = np.linalg.eigvalsh(inputs.T @ inputs / len(inputs))[-1]
    found = np.full(len(loss_ratio), np.nan)
    for index, c in enumerate(loss_ratio.tolist()):
        with contextlib.suppress(SgdEscapeError):
            found[index] = data_quasi_potential(inputs, labels, c) / sharpest
    return found


def _chain(study: dict, seed: int, dimension: int, data_set: int, eta: float) -> LinearRegression:
    key = stream_key(seed, study["n_samples"], dimension, data_set)
    return gaussian_regression(key, study["n_samples"], dimension, eta)


def _rates(
    chain: LinearRegression, study: dict, loss_ratio: float, batch_size: int, key: object
) -> np.ndarray:
    return exit_rates(
        chain,
        WithReplacement(study["n_samples"], batch_size),
        loss_levels(float(chain.minimum_loss), loss_ratio, study["ensemble"]["bins"]),
        key,
        **in_steps(study["ensemble"], float(chain.learning_rate)),
    )
