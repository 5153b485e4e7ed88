"""From SGD on a finite data set to the power law, one approximation at a time: docs/ladder.md.

Section 5.3.1, linear regression on standard normal data: h = 1, n = d. A rung is a passage time
in steps from θ* to the threshold c = L/L*; each differs from the one above it by one approximation.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from sgd_escape.errors import SgdEscapeError
from sgd_escape.escape_theory import log_mean_first_passage_time
from sgd_escape.estimation import FEATURES, Estimate, fit_slope
from sgd_escape.gaussian_kernel import lyapunov_exponent, tail_index
from sgd_escape.radial_theory import radial_passage_steps

EXACT_RUNGS = ("fresh_data", "gaussian_noise", "exact_covariance", "decoupled_noise")
RUNGS = ("finite_data", *EXACT_RUNGS, "power_law")
# What leads from each rung to the next; the last changes a slope but has no passage time.
APPROXIMATIONS = (
    "infinite_data",
    "gaussian_noise",
    "continuous_time",
    "decoupled_noise",
    "weak_noise",
)


class ExactTimes(NamedTuple):
    """log τ of `EXACT_RUNGS`, τ in steps, and what the grids of two matrices differ by.

    The difference is relative to τ, before extrapolation; 0 for closed forms.
    """

    log_steps: Float[np.ndarray, "rungs thresholds"]
    grid_error: Float[np.ndarray, "rungs thresholds"]


class Budget(NamedTuple):
    """The finite data sets' means over the sets, and what every approximation adds to them.

    A share is the next rung less this one, along the first axis in the order of `APPROXIMATIONS`;
    those of log τ lack the last. Exponents have the first axis `RUNGS`.
    """

    log_steps: Estimate
    local_slope: Estimate
    exponent: Estimate
    time_share: Estimate
    exponent_share: Estimate


def exact_log_steps(
    loss_ratios: Float[np.ndarray, " thresholds"],
    learning_rate: float,
    batch_size: int,
    dimension: int,
    *,
    nodes: int,
) -> ExactTimes:
    """log of the mean passage steps for `EXACT_RUNGS`.

    Fresh Gaussian data, N → ∞; Gaussian noise of the same covariance at every step; Eq. (4) with
    this covariance; Eq. (12). The first two by a matrix of about `nodes` cells, the others in
    closed form, τ/η steps. Raises `SgdEscapeError` as these do.
    """
    case = (learning_rate, batch_size, dimension)
    discrete = [
        radial_passage_steps(loss_ratios, *case, gaussian_noise=noise, nodes=nodes)
        for noise in (False, True)
    ]
    temperature = learning_rate / batch_size
    continuous = [
        log_mean_first_passage_time(
            loss_ratios, temperature, dimension, exact_covariance=covariance
        )
        - np.log(learning_rate)
        for covariance in (True, False)
    ]
    errors = [table.error / table.mean for table in discrete]
    return ExactTimes(
        np.stack([np.log(table.mean) for table in discrete] + continuous),
        np.stack(errors + [np.zeros(len(loss_ratios))] * len(continuous)),
    )


def slopes_between(
    log_steps: Float[np.ndarray, "*rest thresholds"],
    loss_ratios: Float[np.ndarray, " thresholds"],
) -> Float[np.ndarray, "*rest intervals"]:
    """Δ log τ/Δ log c from each threshold to the next."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.diff(log_steps, axis=-1) / np.diff(np.log(loss_ratios)))


def fitted_exponent(
    log_steps: Float[np.ndarray, "*rest thresholds"],
    loss_ratios: Float[np.ndarray, " thresholds"],
    used: Bool[np.ndarray, "*#rest thresholds"],
) -> Float[np.ndarray, "*rest"]:
    """Slope of log τ on log c by least squares over the thresholds `used`.

    NaN where there are fewer than three, through two of which any power law would pass.
    """
    number = used.sum(-1, keepdims=True)
    count = np.maximum(number, 1)
    x = np.where(used, np.log(loss_ratios), 0)
    x = np.where(used, x - x.sum(-1, keepdims=True) / count, 0)
    squares = np.sum(x**2, axis=-1)
    products = np.sum(x * np.where(used, log_steps, 0), axis=-1)
    enough = number[..., 0] >= 3
    return np.asarray(np.where(enough, products / np.where(enough, squares, 1), np.nan))


def mean_over_sets(values: Float[np.ndarray, "data_sets *rest"], confidence: float) -> Estimate:
    """Mean over data sets with Student's interval, which holds their spread; NaN where one is not.

    Raises `SgdEscapeError` with fewer than two data sets.
    """
    sets = len(values)
    if sets < 2:
        raise SgdEscapeError(f"a spread over data sets needs two or more, but got {sets}; add some")
    with np.errstate(invalid="ignore"):
        mean = np.where(np.isfinite(values).all(0), values.mean(0), np.nan)
        error = np.std(values, axis=0, ddof=1) / np.sqrt(sets)
        width = stats.t.isf((1 - confidence) / 2, sets - 1) * error
    return Estimate(mean, mean - width, mean + width)


def budget(
    data: Float[np.ndarray, "data_sets *grid thresholds"],
    exact: Float[np.ndarray, "rungs *grid thresholds"],
    power_law: Float[np.ndarray, "*grid"],
    loss_ratios: Float[np.ndarray, " thresholds"],
    fit_range: tuple[float, float],
    confidence: float,
) -> Budget:
    """The budget from log τ of the finite data sets and of `EXACT_RUNGS` at the same thresholds.

    `power_law` is the exponent of Eq. (15). Exponents are fitted within `fit_range`; those of the
    data sets, and what they are compared with, over those thresholds that all of the sets resolve.
    Raises `SgdEscapeError` as `mean_over_sets` does.
    """
    inside = (loss_ratios >= fit_range[0]) & (loss_ratios <= fit_range[1])
    resolved = inside & np.isfinite(data).all(0)
    fitted = mean_over_sets(fitted_exponent(data, loss_ratios, resolved[None]), confidence)
    beside = fitted_exponent(exact[0], loss_ratios, resolved)
    log_steps = mean_over_sets(data, confidence)
    every = np.broadcast_to(inside, exact.shape)
    known = np.concatenate([fitted_exponent(exact, loss_ratios, every), power_law[None]])
    return Budget(
        log_steps,
        mean_over_sets(slopes_between(data, loss_ratios), confidence),
        Estimate(*(np.concatenate([bound[None], known]) for bound in fitted)),
        _shares(log_steps, exact[0], exact),
        _shares(fitted, beside, known),
    )


def _shares(
    first: Estimate, beside: Float[np.ndarray, "*rest"], others: Float[np.ndarray, "rungs *rest"]
) -> Estimate:
    """Differences of neighbouring rungs; only the first has an interval, turned around."""
    rest = np.diff(others, axis=0)
    ends = first.value, first.high, first.low
    return Estimate(*(np.concatenate([(beside - end)[None], rest]) for end in ends))


def asymptotic_exponent(learning_rate: float, batch_size: int, dimension: float) -> float:
    """α/2 of `tail_index`, to which d log τ/d log c of SGD on fresh data tends for c → ∞.

    Beyond the Lyapunov dimension it is 0: the chain leaves however far the threshold is.
    """
    if lyapunov_exponent(learning_rate, batch_size, dimension) >= 0:
        return 0.0
    return tail_index(learning_rate, batch_size, dimension) / 2


class Regime(NamedTuple):
    """Which law an exact passage time follows at each threshold but the outermost.

    `power_law` is d log τ/d log c over the exponent of Eq. (15), `arrhenius` is d log τ/dc over
    B/η, `gain` that of `power_law_gain` in a window around the threshold.
    """

    power_law: Float[np.ndarray, " inner"]
    arrhenius: Float[np.ndarray, " inner"]
    gain: Float[np.ndarray, " inner"]


def regime(
    log_steps: Float[np.ndarray, " thresholds"],
    loss_ratios: Float[np.ndarray, " thresholds"],
    temperature: float,
    exponent: float,
    *,
    window: int,
) -> Regime:
    """The regime at all thresholds that have `window` neighbours on either side.

    The power law's ratio is NaN where Eq. (15) has no positive exponent. Raises `SgdEscapeError`
    unless 1 <= window and there are more than 2·window thresholds.
    """
    if not 1 <= window <= (len(loss_ratios) - 1) // 2:
        raise SgdEscapeError(
            f"a window of {window} thresholds on either side needs at least one and more than "
            f"{2 * window} in all, but there are {len(loss_ratios)}; add thresholds"
        )
    slope = np.gradient(log_steps, np.log(loss_ratios))[window:-window]
    inner = loss_ratios[window:-window]
    windows = (slice(i, i + 2 * window + 1) for i in range(len(inner)))
    gain = [power_law_gain(loss_ratios[around], log_steps[around]) for around in windows]
    power_law = slope / exponent if exponent > 0 else np.full(len(inner), np.nan)
    return Regime(power_law, temperature * slope / inner, np.array(gain))


def power_law_gain(
    loss_ratios: Float[np.ndarray, " thresholds"],
    log_steps: Float[np.ndarray, "*rest thresholds"],
) -> Float[np.ndarray, "*rest"]:
    """Expected log-likelihood, a passage, of the power law less that of Arrhenius.

    Both laws are fitted by maximum likelihood to exponential times of the exact means, one passage
    at each threshold: what `compare_models` tends to with many runs.
    """
    # The scale of τ is in α of both laws.
    exposure = np.exp(log_steps - log_steps.max(-1, keepdims=True))
    events = np.ones(loss_ratios.shape)
    power, arrhenius = (
        fit_slope(feature(loss_ratios), events, exposure).log_likelihood
        for feature in FEATURES.values()
    )
    return np.asarray((power - arrhenius) / len(loss_ratios))
