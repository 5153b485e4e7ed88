"""Estimates with intervals: mean passage times under censoring, exponents, model comparison.

A model says log τ(c) = α + β g(c) for the mean τ of the exponential passage time to c: the power
law has g = log c (β is the exponent of Eq. (15)), Arrhenius has g = c - 1. Passages of one run at
several thresholds are nested, so the sum of their log-likelihoods is a composite one; intervals
come from a bootstrap over whole runs, which respects the nesting.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import stats
from scipy.special import digamma, logsumexp, softmax

from sgd_escape.errors import SgdEscapeError

FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "power_law": np.log,
    "arrhenius": lambda loss_ratio: loss_ratio - 1,
}
# Resampled numbers at a time, 80 MB; how they are divided changes no interval.
_LARGEST_BATCH = 10**7


class Estimate(NamedTuple):
    """A value and its interval."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Passages(NamedTuple):
    """Censored first-passage times of independent runs at a list of loss ratios.

    `events` is 1 where the run passed; `exposure` is the number of steps it was watched before.
    """

    loss_ratio: Float[np.ndarray, " thresholds"]
    events: Int[np.ndarray, "runs thresholds"]
    exposure: Int[np.ndarray, "runs thresholds"]

    @classmethod
    def from_steps(
        cls,
        loss_ratio: Float[np.ndarray, " thresholds"],
        first_passage_step: Int[np.ndarray, "runs thresholds"],
        observed_steps: Int[np.ndarray, " runs"],
    ) -> "Passages":
        """From the record of `first_passage`: step 0 means censored after `observed_steps`."""
        passed = first_passage_step > 0
        exposure = np.where(passed, first_passage_step, observed_steps[:, None])
        return cls(loss_ratio, passed.astype(np.int64), exposure)

    def inside(self, low: float, high: float) -> Bool[np.ndarray, " thresholds"]:
        """Which thresholds have low ≤ c ≤ high."""
        return np.asarray((self.loss_ratio >= low) & (self.loss_ratio <= high))

    def within(self, low: float, high: float) -> "Passages":
        """The thresholds with low ≤ c ≤ high."""
        kept = self.inside(low, high)
        return Passages(self.loss_ratio[kept], self.events[:, kept], self.exposure[:, kept])


class Bootstrap(NamedTuple):
    """How intervals are made: confidence level, number of resamples, seed of the resampling."""

    confidence: float
    resamples: int
    seed: int

    def __call__(
        self, statistic: Callable[[Float[np.ndarray, "... units"]], np.ndarray], units: int
    ) -> Estimate:
        """A bias-corrected and accelerated interval over resampled units.

        `statistic` maps how often each unit is taken to a value, over the last axis. Source:
        Efron, JASA 82, 171 (1987), as `scipy.stats.bootstrap` does it.
        """

        def of_indices(indices: np.ndarray, axis: int) -> np.ndarray:
            taken = np.apply_along_axis(np.bincount, axis, indices, minlength=units)
            return np.asarray(statistic(taken.astype(float)))

        # Between infinite values of a statistic the interpolated quantile is infinite or undefined.
        with np.errstate(invalid="ignore"):
            result = stats.bootstrap(
                (np.arange(units),),
                of_indices,
                n_resamples=self.resamples,
                confidence_level=self.confidence,
                vectorized=True,
                batch=max(_LARGEST_BATCH // units, 1),
                method="BCa",
                rng=np.random.default_rng(self.seed),
            )
        low, high = map(np.asarray, result.confidence_interval)
        return Estimate(np.asarray(statistic(np.ones(units))), low, high)


def mean_passage_time(
    events: Num[np.ndarray, " ..."], exposure: Num[np.ndarray, " ..."], confidence: float
) -> Estimate:
    """Maximum-likelihood mean exposure/events of exponential times under right-censoring.

    2·exposure/τ follows χ² with 2·events degrees of freedom if watching ends at an event and with
    between that and 2·events + 2 if it ends at a fixed time; 2·events + 1 is the customary middle
    (Cox, Biometrika 40, 354 (1953)). Without any event the value is infinite and only the lower
    bound is finite, exposure/(-log(1 - confidence)).
    """
    events, exposure = np.asarray(events, dtype=float), np.asarray(exposure, dtype=float)
    tail = (1 - confidence) / 2
    freedom = 2 * events + 1
    with np.errstate(divide="ignore"):
        value = exposure / events
    none = events == 0
    low = np.where(
        none, exposure / -np.log(1 - confidence), 2 * exposure / stats.chi2.isf(tail, freedom)
    )
    high = np.where(none, np.inf, 2 * exposure / stats.chi2.ppf(tail, freedom))
    return Estimate(value, low, high)


def passage_steps(rates: Float[np.ndarray, " repetitions"], confidence: float) -> Estimate:
    """Mean first-passage steps from the rates that `splitting.exit_rates` gives.

    One over the mean rate, with Student's interval of that mean: it is the mean of the rates that
    is unbiased, not that of their inverses. An interval of the rate that reaches 0 has no upper end
    in τ. Raises `SgdEscapeError` with fewer than two repetitions, or if none of them saw a passage.
    """
    if len(rates) < 2 or not np.any(rates > 0):
        raise SgdEscapeError(
            "a passage time with an interval needs two repetitions or more, with a passage in at "
            f"least one, but of {len(rates)} there was one in {np.count_nonzero(rates)}. Raise the "
            "number of bins, particles or steps"
        )
    mean, error = float(np.mean(rates)), float(stats.sem(rates))
    width = stats.t.isf((1 - confidence) / 2, len(rates) - 1) * error
    slowest = 1 / (mean - width) if mean > width else np.inf
    return Estimate(*map(np.asarray, (1 / mean, 1 / (mean + width), slowest)))


def mean_over_runs(values: Float[np.ndarray, "runs *rest"], confidence: float) -> Estimate:
    """The mean over the first axis with Student's interval; NaN with fewer than two runs."""
    count = len(values)
    if count < 2:
        return Estimate(*np.full((3, *values.shape[1:]), np.nan))
    width = stats.t.isf((1 - confidence) / 2, count - 1) * stats.sem(values, axis=0)
    return _gaussian(values.mean(axis=0), width)


def log_log_slope(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    blocks: int,
    bootstrap: Bootstrap,
) -> Estimate:
    """Slope of log y on log x by least squares, for a series of points in their order.

    Neighbours in a series resemble each other, so the interval resamples `blocks` of consecutive
    points. NaN with fewer than two points a block, or where all x are equal.
    """
    if len(x) < 2 * blocks or np.ptp(x) == 0:
        return Estimate(*np.full((3, 1), np.nan)[:, 0])
    log_x, log_y = np.log(x) - np.log(x).mean(), np.log(y)
    moments = np.stack([np.ones(len(x)), log_x, log_y, log_x**2, log_x * log_y])
    edges = np.arange(blocks) * len(x) // blocks
    of_blocks = np.add.reduceat(moments, edges, axis=1)

    def slope(taken: Float[np.ndarray, "... blocks"]) -> np.ndarray:
        one, of_x, of_y, of_xx, of_xy = np.moveaxis(taken @ of_blocks.T, -1, 0)
        return np.asarray((one * of_xy - of_x * of_y) / (one * of_xx - of_x**2))

    return bootstrap(slope, blocks)


class Slope(NamedTuple):
    """Maximum-likelihood intercept α and slope β, and the log-likelihood there."""

    intercept: np.ndarray
    slope: np.ndarray
    log_likelihood: np.ndarray


def fit_slope(
    feature: Float[np.ndarray, " thresholds"],
    events: Num[np.ndarray, "*rest thresholds"],
    exposure: Num[np.ndarray, "*rest thresholds"],
) -> Slope:
    """Maximize Σ_c [-D_c log τ_c - E_c/τ_c] for log τ_c = α + β g_c, D events, E exposure.

    For given β the best α is log(Σ E_c e^{-β g_c} / Σ D_c). Setting the derivative in β to zero
    says that the mean of g weighted by E_c e^{-β g_c}, which decreases with β, equals the mean of
    g over the events. All passages at the lowest threshold, or none, leave β = ∞.
    """
    total = _total(events)
    target = events @ feature / total

    # Bisection in u, where β = sinh(u)/range of g, reaches every slope that a float can hold.
    low, high = np.full(target.shape, -40.0), np.full(target.shape, 40.0)
    for _ in range(100):
        middle = (low + high) / 2
        too_flat = _tilted_mean(feature, exposure, np.sinh(middle) / np.ptp(feature)) > target
        low, high = np.where(too_flat, middle, low), np.where(too_flat, high, middle)
    slope = np.asarray(np.sinh(middle) / np.ptp(feature))
    intercept = fit_intercept(feature, events, exposure, slope)
    likelihood = -total * (1 + intercept) - slope * (events @ feature)
    bounded = events[..., feature > feature.min()].any(-1)
    return Slope(intercept, np.where(bounded, slope, np.inf), likelihood)


def _total(events: np.ndarray) -> np.ndarray:
    # A resample may hold no passage; its likelihood tends to that of a vanishing number.
    return np.asarray(np.maximum(events.sum(-1), np.finfo(float).eps))


def fit_intercept(
    feature: Float[np.ndarray, " thresholds"],
    events: Num[np.ndarray, "*rest thresholds"],
    exposure: Num[np.ndarray, "*rest thresholds"],
    slope: np.ndarray | float,
) -> np.ndarray:
    """The most likely α = log(Σ E_c e^{-β g_c} / Σ D_c) at a given slope β."""
    log_tilt = _log_tilt(feature, exposure, slope)
    return np.asarray(logsumexp(log_tilt, axis=-1) - np.log(_total(events)))


def _log_tilt(feature: np.ndarray, exposure: np.ndarray, slope: np.ndarray | float) -> np.ndarray:
    return np.asarray(np.log(exposure) - np.multiply.outer(slope, feature))


def _tilted_mean(
    feature: np.ndarray, exposure: np.ndarray, slope: np.ndarray | float
) -> np.ndarray:
    return np.asarray(softmax(_log_tilt(feature, exposure, slope), axis=-1) @ feature)


def fit_model(passages: Passages, model: str, bootstrap: Bootstrap) -> tuple[Slope, Estimate]:
    """Slope β of one of `FEATURES` with its interval over whole runs.

    Raises `SgdEscapeError` if fewer than two runs passed more than the lowest threshold.
    """
    _check_passages(passages)
    feature = FEATURES[model](passages.loss_ratio)

    def slope(taken: np.ndarray) -> np.ndarray:
        return fit_slope(feature, taken @ passages.events, taken @ passages.exposure).slope

    runs = len(passages.events)
    best = fit_slope(feature, passages.events.sum(0), passages.exposure.sum(0))
    return best, bootstrap(slope, runs)


def enough_passages(passages: Passages) -> bool:
    """Whether a slope and its interval exist: two runs passed more than the lowest threshold."""
    # The bootstrap leaves each run out in turn, so the slope must not hang on a single one.
    return _passed_above_lowest(passages) >= 2


def _passed_above_lowest(passages: Passages) -> int:
    return int(np.count_nonzero(passages.events[:, 1:].any(axis=1)))


def _check_passages(passages: Passages) -> None:
    if enough_passages(passages):
        return
    passed, above_lowest = passages.events.sum(0), _passed_above_lowest(passages)
    lowest = passages.loss_ratio[0]
    bound = mean_passage_time(passed[:1], passages.exposure.sum(0)[:1], 0.95).low[0]
    raise SgdEscapeError(
        "a slope with an interval needs two runs that passed more than the lowest threshold, but "
        f"of the {len(passages.events)} runs {passed[0]} passed c = {lowest:.4g} and "
        f"{above_lowest} passed the next, within "
        f"{passages.exposure.max()} steps (at c = {lowest:.4g} the mean passage time is only "
        f"known to exceed {bound:.3g} steps, 95 %). Raise max_steps or lower thresholds.max "
        "and fit_range"
    )


def reason_to_stop(
    exponent: Estimate | None, width: float, *, runs_after_next_round: int, max_runs: int
) -> str | None:
    """Why no runs are added to those that gave this exponent, or None where some are.

    The rule of a fixed-width interval (Chow and Robbins, Ann. Math. Stat. 36, 457 (1965)): as many
    runs as it takes for `high - low` to be at most `width`, but no more than `max_runs`. An
    `exponent` of None stands for too few passages to have one.
    """
    if exponent is not None and exponent.high - exponent.low <= width:
        return "the interval is narrow enough"
    if runs_after_next_round > max_runs:
        return "max_runs leaves no room for another round"
    return None


def compare_models(passages: Passages, bootstrap: Bootstrap) -> Estimate:
    """Log-likelihood of the power law less that of Arrhenius, with its interval over whole runs.

    Both models have two parameters, so this is half their difference in AIC. It is a composite
    likelihood: read the interval, not the size.
    """
    _check_passages(passages)

    def difference(taken: np.ndarray) -> np.ndarray:
        events, exposure = taken @ passages.events, taken @ passages.exposure
        power, arrhenius = (
            fit_slope(feature(passages.loss_ratio), events, exposure).log_likelihood
            for feature in FEATURES.values()
        )
        return np.asarray(power - arrhenius)

    return bootstrap(difference, len(passages.events))


class Line(NamedTuple):
    """A straight line a + b x with intervals."""

    intercept: Estimate
    slope: Estimate


def fit_line(
    x: Float[np.ndarray, " points *rest"],
    y: Estimate,
    confidence: float,
) -> Line:
    """Weighted least squares through estimates, along their first axis.

    The half-widths of the intervals of `y` are taken as Gaussian; so are the line's intervals.
    Where the points scatter about the line by more than that, χ² above its degrees of freedom ν,
    the scatter itself gives the intervals, with the quantile of Student's t for ν. A point without
    a finite value and interval is left out; with fewer than two the line is NaN.
    """
    quantile = stats.norm.isf((1 - confidence) / 2)
    x = x.reshape(len(x), *[1] * (y.value.ndim - 1)) if x.ndim == 1 else x
    width, known = y.high - y.low, np.isfinite(y.value + y.low + y.high)
    weight = np.where(known, (2 * quantile / np.where(known, width, 1)) ** 2, 0)
    value = np.where(known, y.value, 0)
    total, x_sum, y_sum = weight.sum(0), (weight * x).sum(0), (weight * value).sum(0)
    determinant = total * (weight * x**2).sum(0) - x_sum**2
    determinant = np.where(known.sum(0) > 1, determinant, np.nan)
    slope = (total * (weight * x * value).sum(0) - x_sum * y_sum) / determinant
    intercept = (y_sum - slope * x_sum) / np.where(total > 0, total, np.nan)
    freedom = np.maximum(known.sum(0) - 2, 1)
    scatter = np.sqrt((weight * (value - intercept - slope * x) ** 2).sum(0) / freedom)
    student = stats.t.isf((1 - confidence) / 2, freedom)
    width = np.where(scatter > 1, student * scatter, quantile)
    return Line(
        _gaussian(intercept, width * np.sqrt((weight * x**2).sum(0) / determinant)),
        _gaussian(slope, width * np.sqrt(total / determinant)),
    )


def _gaussian(value: np.ndarray | float, half_width: np.ndarray | float) -> Estimate:
    return Estimate(*map(np.asarray, (value, value - half_width, value + half_width)))


def jackknife(
    statistic: Callable[[Bool[np.ndarray, " units"]], np.ndarray], units: int, confidence: float
) -> Estimate:
    """A statistic of independent units with the interval of leaving each of them out in turn.

    `statistic` maps which units are kept to numbers. With t_i those without unit i of the u, their
    variance is (u - 1)/u Σ (t_i - mean t)², and the quantile Student's for u - 1 (Tukey, Annals of
    Mathematical Statistics 29, 614 (1958)). It serves for few units, of which there are not enough
    resamples. NaN with fewer than two.
    """
    value = np.asarray(statistic(np.ones(units, dtype=bool)))
    if units < 2:
        return _gaussian(value, np.nan)
    without = np.stack([statistic(np.arange(units) != left_out) for left_out in range(units)])
    error = np.sqrt((units - 1) * without.var(axis=0))
    return _gaussian(value, stats.t.isf((1 - confidence) / 2, units - 1) * error)


def relative_scatter(x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]) -> float:
    """Root mean square distance of points from their least-squares line, over the mean of y.

    The square is over the number of points less two. Those whose y is not finite are left out;
    with fewer than three there is none, NaN.
    """
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(x) < 3:
        return np.nan
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(np.sqrt(np.sum(residual**2) / (len(x) - 2)) / np.mean(y))


class Outliers(NamedTuple):
    """What Eq. (15) makes of measured exponents: h* and n."""

    curvature: Estimate
    effective_dimension: Estimate


def curvature_and_dimension(
    batch_size_over_eta: Float[np.ndarray, "etas batch_sizes"],
    exponent: Estimate,
    confidence: float,
) -> Outliers:
    """h* and n from the line exponent = (B/η)/h* + 1 - n/2 of Eq. (15), over η at each B."""
    line = fit_line(batch_size_over_eta, exponent, confidence)
    slope, intercept = line.slope, line.intercept
    return Outliers(
        Estimate(1 / slope.value, 1 / slope.high, 1 / slope.low),
        Estimate(*(2 * (1 - bound) for bound in (intercept.value, intercept.high, intercept.low))),
    )


def exact_log_likelihood(passages: Passages, mean_steps: Float[np.ndarray, " thresholds"]) -> float:
    """Σ_c [-D_c log τ_c - E_c/τ_c] for a theory's mean steps τ_c, no parameter free."""
    events, exposure = passages.events.sum(0), passages.exposure.sum(0)
    return float(np.sum(-events * np.log(mean_steps) - exposure / mean_steps))


def stationary_exponent_likelihood(
    log_loss_ratio: Float[np.ndarray, "blocks samples"], bootstrap: Bootstrap
) -> Estimate:
    """Maximum-likelihood φ of P(θ) ∝ L(θ)^-φ in d = 1 from samples of log[L(θ)/L*].

    This is an exponential family whose mean parameter is E log(L/L*) = ψ(φ) - ψ(φ - 1/2) (θ is
    Student-distributed), so φ follows from the mean of the samples. They come in blocks that are
    long against their correlation time; the interval resamples blocks.
    """
    block_mean = log_loss_ratio.mean(1)

    def exponent(taken: np.ndarray) -> np.ndarray:
        return _invert_mean(np.asarray(taken @ block_mean / taken.sum(-1)))

    return bootstrap(exponent, len(block_mean))


def _invert_mean(mean: np.ndarray) -> np.ndarray:
    """The φ > 1/2 with ψ(φ) - ψ(φ - 1/2) = mean, by bisection in log(φ - 1/2)."""
    low, high = np.full(np.shape(mean), -30.0), np.full(np.shape(mean), 30.0)
    for _ in range(80):
        middle = (low + high) / 2
        above = digamma(np.exp(middle) + 0.5) - digamma(np.exp(middle)) > mean
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.exp(middle) + 0.5)


def stationary_exponent_histogram(
    theta: Float[np.ndarray, "blocks samples"],
    log_loss: Callable[[np.ndarray], np.ndarray],
    bootstrap: Bootstrap,
    *,
    bins: int,
    min_count: int,
) -> Estimate:
    """φ by the paper's route (section 5.3.1): a straight line through log counts against log L.

    The histogram has equal bins over the central 99.9 % of the samples; bins with at least
    `min_count` samples enter, weighted by their count, the inverse variance of a log count.
    """
    low, high = np.quantile(theta, [0.0005, 0.9995])
    edges = np.linspace(low, high, bins + 1)
    counts = np.stack([np.histogram(block, edges)[0] for block in theta])
    kept = counts.sum(0) >= min_count
    log_level = log_loss((edges[1:] + edges[:-1])[kept] / 2)

    def exponent(taken: np.ndarray) -> np.ndarray:
        return np.asarray(-_weighted_slope(log_level, taken @ counts[:, kept]))

    return bootstrap(exponent, len(theta))


def _weighted_slope(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    y = np.log(np.maximum(counts, 0.5))
    total = counts.sum(-1, keepdims=True)
    x_mean = (counts * x).sum(-1, keepdims=True) / total
    y_mean = (counts * y).sum(-1, keepdims=True) / total
    return np.asarray(
        (counts * (x - x_mean) * (y - y_mean)).sum(-1) / (counts * (x - x_mean) ** 2).sum(-1)
    )
