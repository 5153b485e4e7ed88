"""One first-passage file in, everything that is estimated from it out."""

import numpy as np
import xarray as xr
from intervals import bounded

from sgd_escape import escape_theory, estimation, outcomes
from sgd_escape.estimation import Bootstrap, Estimate, Passages


def fit_case(
    record: xr.Dataset,
    fit_range: tuple[float, float],
    bootstrap: Bootstrap,
    predictions: dict[str, tuple[float, float]],
) -> xr.Dataset:
    """Mean passage steps per threshold, slopes and likelihoods of the models in `fit_range`.

    `predictions` holds pairs (h*, n) by the suffix of the variables that they give: the exponent
    of Eq. (15) with the most likely prefactor.
    """
    passages = _passages(record)
    fitted = passages.within(*fit_range)
    eta_over_batch = float(record["eta"]) / float(record["batch_size"])
    return xr.Dataset(
        _per_threshold(passages, bootstrap.confidence)
        | _fitted(fitted, bootstrap)
        | _predicted(fitted, eta_over_batch, predictions)
        | {
            "exponent_above": ("threshold", _exponent_above(passages, fit_range[1])),
            "diverged": int(record["diverged"].sum()),
            "runs": record.sizes["run"],
            "max_steps": int(record["max_steps"]),
            "fit_low": fit_range[0],
            "fit_high": fit_range[1],
        },
        {"threshold": passages.loss_ratio, "model": list(estimation.FEATURES)},
    )


def exponent_so_far(
    record: xr.Dataset, fit_range: tuple[float, float], bootstrap: Bootstrap
) -> Estimate | None:
    """The exponent as `fit_case` has it, or None while too few runs have passed."""
    passages = _passages(record).within(*fit_range)
    if not estimation.enough_passages(passages):
        return None
    return estimation.fit_model(passages, "power_law", bootstrap)[1]


def exact_case(record: xr.Dataset, fit_range: tuple[float, float], dimension: int) -> xr.Dataset:
    """Eq. (12) with H = I in d dimensions, no parameter free.

    Its mean passage steps, its slope over the same thresholds with the same weights (the numbers
    of passages), and the log-likelihood of the passages under it.
    """
    passages = _passages(record)
    eta = float(record["eta"])
    temperature = escape_theory.temperature(eta, float(record["batch_size"]), 1.0)
    steps = escape_theory.mean_first_passage_time(passages.loss_ratio, temperature, dimension) / eta
    inside, fitted = passages.inside(*fit_range), passages.within(*fit_range)
    passed = fitted.events.sum(0)
    seen = passed > 0
    slope = np.nan
    if np.count_nonzero(seen) > 1:
        slope = estimation.fit_slope(
            np.log(fitted.loss_ratio[seen]), passed[seen], passed[seen] * steps[inside][seen]
        ).slope
    return xr.Dataset(
        {
            "exact_first_passage_step": ("threshold", steps),
            "exact_exponent": float(slope),
            "exact_log_likelihood": estimation.exact_log_likelihood(fitted, steps[inside]),
        }
    )


def _passages(record: xr.Dataset) -> Passages:
    return Passages.from_steps(
        record["threshold"].values,
        record["first_passage_step"].values,
        record["observed_steps"].values,
    )


def _per_threshold(passages: Passages, confidence: float) -> dict[str, tuple]:
    events = passages.events.sum(0)
    mean = estimation.mean_passage_time(events, passages.exposure.sum(0), confidence)
    return bounded("mean_first_passage_step", mean, ("threshold",)) | {
        "events": ("threshold", events),
        "censored": ("threshold", len(passages.events) - events),
    }


def _fitted(passages: Passages, bootstrap: Bootstrap) -> dict[str, tuple]:
    if not estimation.enough_passages(passages):
        return _not_fitted()
    power, exponent = estimation.fit_model(passages, "power_law", bootstrap)
    arrhenius, slope = estimation.fit_model(passages, "arrhenius", bootstrap)
    log_likelihood = np.array([power.log_likelihood, arrhenius.log_likelihood])
    return (
        bounded("exponent", exponent)
        | bounded("arrhenius_slope", slope)
        | bounded("log_likelihood_difference", estimation.compare_models(passages, bootstrap))
        | {
            "intercept": ((), power.intercept),
            "arrhenius_intercept": ((), arrhenius.intercept),
            "log_likelihood": ("model", log_likelihood),
            # Two parameters each.
            "aic": ("model", 4 - 2 * log_likelihood),
        }
    )


def _not_fitted() -> dict[str, tuple]:
    """Too few passages are an outcome: numbers without a value."""
    none = Estimate(*np.full(3, np.nan))
    bounds = ["exponent", "arrhenius_slope", "log_likelihood_difference"]
    return {
        **{key: value for name in bounds for key, value in bounded(name, none).items()},
        **dict.fromkeys(["intercept", "arrhenius_intercept"], ((), np.nan)),
        **dict.fromkeys(["log_likelihood", "aic"], ("model", np.full(2, np.nan))),
    }


def fit_outcomes(fits: xr.Dataset, curvature: float | xr.DataArray) -> dict[str, str]:
    """The attribute of a file of fits: cases without an exponent, and unstable ones."""
    eta = fits["eta"].broadcast_like(fits["exponent"])
    return outcomes.attribute(
        {
            "too_few_passages": int(fits["exponent"].isnull().sum()),
            "unstable_learning_rates": int((eta * curvature > 2).sum()),
        }
    )


def _exponent_above(passages: Passages, high: float) -> np.ndarray:
    """The exponent fitted from each threshold up to `high`, where three thresholds were passed."""
    exponents = np.full(passages.loss_ratio.shape, np.nan)
    for index, low in enumerate(passages.loss_ratio):
        part = passages.within(low, high)
        events, exposure = part.events.sum(0), part.exposure.sum(0)
        if np.count_nonzero(events) >= 3:
            exponents[index] = estimation.fit_slope(np.log(part.loss_ratio), events, exposure).slope
    return exponents


def _predicted(
    passages: Passages, eta_over_batch: float, predictions: dict[str, tuple[float, float]]
) -> dict[str, float]:
    events, exposure = passages.events.sum(0), passages.exposure.sum(0)
    variables = {}
    for suffix, (curvature, dimension) in predictions.items():
        exponent = escape_theory.escape_exponent(eta_over_batch * curvature, dimension)
        intercept = np.nan
        if events.any():
            intercept = estimation.fit_intercept(
                np.log(passages.loss_ratio), events, exposure, exponent
            )
        variables[f"predicted_exponent{suffix}"] = exponent
        variables[f"predicted_intercept{suffix}"] = float(intercept)
    return variables
