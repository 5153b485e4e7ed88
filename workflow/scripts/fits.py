"""One first-passage file in, everything that is estimated from it out."""

import numpy as np
import xarray as xr

from sgd_escape import escape_theory, estimation
from sgd_escape.estimation import Bootstrap, Estimate, Passages


def fit_case(
    record: xr.Dataset,
    fit_range: tuple[float, float],
    bootstrap: Bootstrap,
    predictions: dict[str, tuple[float, float]],
) -> xr.Dataset:
    """Mean passage steps per threshold, slopes and likelihoods of the models in `fit_range`.

    `predictions` holds pairs (h*, n) by the suffix of the variables that they give: the exponent
    of Eq. (15) with the most likely prefactor. That of suffix "" also gives Eq. (12)'s exact time.
    """
    passages = Passages.from_steps(
        record["threshold"].values,
        record["first_passage_step"].values,
        record["observed_steps"].values,
    )
    eta = float(record["eta"])
    batch_size = float(record["batch_size"])
    curvature, dimension = predictions[""]
    exact = escape_theory.mean_first_passage_time(
        passages.loss_ratio, escape_theory.temperature(eta, batch_size, curvature), dimension
    ) / (curvature * eta)
    fitted = passages.within(*fit_range)
    return xr.Dataset(
        _per_threshold(passages, exact, bootstrap.confidence)
        | _fitted(fitted, bootstrap)
        | _likelihoods(fitted, exact[passages.inside(*fit_range)])
        | _predicted(fitted, eta / batch_size, predictions)
        | {
            "diverged": int(record["diverged"].sum()),
            "runs": record.sizes["run"],
            "max_steps": int(record["max_steps"]),
            "fit_low": fit_range[0],
            "fit_high": fit_range[1],
        },
        {"threshold": passages.loss_ratio, "model": [*estimation.FEATURES, "exact"]},
    )


def bounded(name: str, estimate: Estimate, dims: tuple[str, ...] = ()) -> dict[str, tuple]:
    """A value and its interval as the three variables name, name_low and name_high."""
    return {
        f"{name}{part}": (dims, value)
        for part, value in zip(["", "_low", "_high"], estimate, strict=True)
    }


def _per_threshold(passages: Passages, exact: np.ndarray, confidence: float) -> dict[str, tuple]:
    events = passages.events.sum(0)
    mean = estimation.mean_passage_time(events, passages.exposure.sum(0), confidence)
    return bounded("mean_first_passage_step", mean, ("threshold",)) | {
        "events": ("threshold", events),
        "censored": ("threshold", len(passages.events) - events),
        "exact_first_passage_step": ("threshold", exact),
    }


def _fitted(passages: Passages, bootstrap: Bootstrap) -> dict[str, tuple]:
    power, exponent = estimation.fit_model(passages, "power_law", bootstrap)
    arrhenius, slope = estimation.fit_model(passages, "arrhenius", bootstrap)
    return (
        bounded("exponent", exponent)
        | bounded("arrhenius_slope", slope)
        | bounded("log_likelihood_difference", estimation.compare_models(passages, bootstrap))
        | {"intercept": ((), power.intercept), "arrhenius_intercept": ((), arrhenius.intercept)}
    )


def _predicted(
    passages: Passages, eta_over_batch: float, predictions: dict[str, tuple[float, float]]
) -> dict[str, float]:
    events, exposure = passages.events.sum(0), passages.exposure.sum(0)
    variables = {}
    for suffix, (curvature, dimension) in predictions.items():
        exponent = escape_theory.escape_exponent(eta_over_batch * curvature, dimension)
        intercept = estimation.fit_intercept(
            np.log(passages.loss_ratio), events, exposure, exponent
        )
        variables[f"predicted_exponent{suffix}"] = exponent
        variables[f"predicted_intercept{suffix}"] = float(intercept)
    return variables


def _likelihoods(passages: Passages, exact: np.ndarray) -> dict[str, tuple]:
    events, exposure = passages.events.sum(0), passages.exposure.sum(0)
    log_likelihood = [
        float(estimation.fit_slope(feature(passages.loss_ratio), events, exposure).log_likelihood)
        for feature in estimation.FEATURES.values()
    ] + [estimation.exact_log_likelihood(passages, exact)]
    parameters = np.array([2] * len(estimation.FEATURES) + [0])
    return {
        "log_likelihood": ("model", log_likelihood),
        "aic": ("model", 2 * parameters - 2 * np.array(log_likelihood)),
    }
