"""Passage times of SGD on one finite Gaussian data set, for all thresholds."""

import numpy as np
from ensembles import in_steps

from sgd_escape.batches import WithReplacement, stream_key
from sgd_escape.chains import LinearRegression, gaussian_regression
from sgd_escape.discrete_theory import data_passage_steps
from sgd_escape.estimation import passage_steps
from sgd_escape.splitting import exit_rates, loss_levels


def data_log_steps(
    loss_ratio: np.ndarray,
    study: dict,
    seed: int,
    dimension: int,
    data_set: int,
    eta: float,
    batch_size: int,
) -> np.ndarray:
    """log τ in steps at each threshold; NaN from the first on that splitting does not resolve.

    By transition matrix where there is one, d = B = 1. A threshold is resolved where the interval
    of its rate, over the repetitions, does not reach 0.
    """
    data_key = stream_key(seed, study["n_samples"], dimension, data_set)
    chain = gaussian_regression(data_key, study["n_samples"], dimension, eta)
    if dimension == batch_size == 1:
        inputs, labels = np.asarray(chain.inputs)[:, 0], np.asarray(chain.labels)
        steps = [
            data_passage_steps(inputs, labels, c, eta, nodes=study["data_nodes"]).mean
            for c in loss_ratio.tolist()
        ]
        return np.log(steps)
    log_steps = np.full(len(loss_ratio), np.nan)
    for index, c in enumerate(loss_ratio.tolist()):
        key = stream_key(seed, eta, batch_size, dimension, data_set, c)
        rates = _rates(chain, study, c, batch_size, key)
        if not (rates.any() and np.isfinite(passage_steps(rates, study["confidence"]).high)):
            break
        log_steps[index] = -np.log(rates.mean())
    return log_steps


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
