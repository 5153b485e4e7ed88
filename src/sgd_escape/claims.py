"""The paper's claims, decided by rules written down before the study ran (workflow/claims.yaml)."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import yaml
from jsonschema import Draft202012Validator

from sgd_escape.config import flatten
from sgd_escape.errors import SgdEscapeError
from sgd_escape.ladder import APPROXIMATIONS

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE)

_SYMBOLS = {"dimension": "d", "batch_size": "B", "threshold": "c"}
_DIGITS = 6


class Row(NamedTuple):
    """One measured number beside its prediction; `suffix` completes the claim's id."""

    suffix: str
    predicted: float
    measured: float
    low: float
    high: float


class Claim(NamedTuple):
    """One line of results/claims.csv."""

    id: str
    reference: str
    statement: str
    predicted: float
    measured: float
    low: float
    high: float
    verdict: str
    fidelity: str


class Datasets(NamedTuple):
    """What the claims are decided on.

    Files of the pre-trained networks are keyed by the seed, those of `decoupling` by the epoch and
    those of the laboratory by the study.
    """

    stationary: xr.Dataset
    fit_linear_regression: xr.Dataset
    fit_network: xr.Dataset
    pretrained: Mapping[int, xr.Dataset]
    hessian: Mapping[int, xr.Dataset]
    fit_noise: xr.Dataset
    decoupling: Mapping[int, xr.Dataset]
    alignment: Mapping[int, xr.Dataset]
    network_collapse: xr.Dataset
    escape: Mapping[int, xr.Dataset]
    laboratory: Mapping[str, xr.Dataset]


def cases(dataset: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    """Every point of a dataset with its label, such as "eta=0.006,B=10"."""
    for position in np.ndindex(*dataset.sizes.values()):
        point = dataset.isel(dict(zip(dataset.sizes, position, strict=True)))
        labels = (f"{_SYMBOLS.get(str(d), d)}={_shown(point[d].item())}" for d in dataset.sizes)
        yield ",".join(labels), point


def _shown(coordinate: float | str) -> str:
    return coordinate if isinstance(coordinate, str) else f"{coordinate:g}"


def _stage(stage: str) -> Callable[[Datasets, str | float], Iterator[Row]]:
    """Slopes of log N against log L over one stage of the trainings."""
    return lambda found, predicted: _against(
        found.fit_noise[["slope", "slope_low", "slope_high"]].sel(stage=stage), "slope", predicted
    )


def _against(dataset: xr.Dataset, name: str, predicted: str | float) -> Iterator[Row]:
    table = xr.Dataset(
        {
            "measured": dataset[name],
            "low": dataset[f"{name}_low"],
            "high": dataset[f"{name}_high"],
            "predicted": dataset[predicted] if isinstance(predicted, str) else predicted,
        }
    )
    for label, point in cases(table):
        suffix = f"[{label}]" if label else ""
        yield Row(suffix, *(float(point[field]) for field in Row._fields[1:]))


def _exact(numbers: xr.DataArray, predicted: str | float) -> Iterator[Row]:
    """Numbers that have no interval, such as the farthest of several."""
    for label, point in cases(numbers.to_dataset(name="measured")):
        value = float(point["measured"])
        yield Row(f"[{label}]", float(predicted), value, value, value)


def _each_seed(
    datasets: Mapping[int, xr.Dataset],
    measure: Callable[[xr.Dataset], float],
    predicted: str | float,
) -> Iterator[Row]:
    for seed, dataset in datasets.items():
        expected = dataset[predicted] if isinstance(predicted, str) else predicted
        value = float(measure(dataset))
        yield Row(f"[seed={seed}]", float(expected), value, value, value)


def _each_epoch(
    datasets: Mapping[int, xr.Dataset], name: str, predicted: str | float
) -> Iterator[Row]:
    """A number of every epoch; one without bounds is exact for its network."""
    for epoch, dataset in datasets.items():
        exact = {f"{name}{part}": dataset[name] for part in ["_low", "_high"]}
        numbers = exact | dict(dataset.data_vars)
        expected = dataset[predicted] if isinstance(predicted, str) else predicted
        bounds = (float(numbers[f"{name}{part}"]) for part in ["", "_low", "_high"])
        yield Row(f"[epoch={epoch}]", float(expected), *bounds)


def _each_seed_against(
    datasets: Mapping[int, xr.Dataset],
    name: str,
    predicted: str | float,
    chosen: Callable[[xr.Dataset], int] | None = None,
) -> Iterator[Row]:
    """The scalar `name` of every seed, or its value at the direction that is chosen."""
    for seed, dataset in datasets.items():
        point = dataset.isel(direction=chosen(dataset)) if chosen else dataset
        for row in _against(point, name, predicted):
            yield row._replace(suffix=f"[seed={seed}]")


def _each_collapse_case(dataset: xr.Dataset, name: str, predicted: str | float) -> Iterator[Row]:
    """A number of every seed and (η, B), labelled with all three."""
    for seed in dataset["seed"].values:
        for index in range(dataset.sizes["case"]):
            point = dataset.sel(seed=seed).isel(case=index)
            label = f"seed={seed},eta={point['eta'].item():g},B={point['batch_size'].item()}"
            for row in _against(point.drop_vars(["seed", "eta", "batch_size"]), name, predicted):
                yield row._replace(suffix=f"[{label}]")


def _collapse(name: str) -> Callable[[Datasets, str | float], Iterator[Row]]:
    """A number of all seeds and (η, B) together."""
    return lambda found, predicted: (
        row._replace(suffix="") for row in _against(found.network_collapse, name, predicted)
    )


def _at_last_exit(name: str) -> Callable[[Datasets, str | float], Iterator[Row]]:
    """A mean over runs at the highest c, along the sharpest direction if it has directions."""
    return lambda found, predicted: _each_seed_against(
        {seed: escape.isel(exit=-1) for seed, escape in found.escape.items()},
        name,
        predicted,
        (lambda _: 0) if name == "mean_loss_share" else None,
    )


def _stationary_ratio(dataset: xr.Dataset) -> xr.Dataset:
    """Mean over the batch sizes of the exponent over its prediction; errors add in squares."""
    predicted, exponent = dataset["predicted_exponent"], dataset["exponent"]

    def half_width(bound: str) -> xr.DataArray:
        squares = ((exponent - dataset[bound]) / predicted) ** 2
        return squares.sum("batch_size", skipna=False) ** 0.5 / exponent.sizes["batch_size"]

    ratio = (exponent / predicted).mean("batch_size", skipna=False)
    low, high = ratio - half_width("exponent_low"), ratio + half_width("exponent_high")
    return xr.Dataset({"ratio": ratio, "ratio_low": low, "ratio_high": high})


def _ratio_where(
    dataset: xr.Dataset, chosen: Callable[[xr.DataArray], xr.DataArray], predicted: str | float
) -> Iterator[Row]:
    ratio = _stationary_ratio(dataset)
    return _against(ratio.isel(eta=chosen(ratio["eta"]).values), "ratio", predicted)


def _dimension_slope(found: Datasets, predicted: str | float) -> Iterator[Row]:
    # One or two dimensions leave no line with an error, and the fit then holds none.
    if "dimension_slope" in found.fit_linear_regression:
        yield from _against(found.fit_linear_regression, "dimension_slope", predicted)


def _drift(pretrained: xr.Dataset) -> float:
    """Change of a line through the last tenth of the epochs, relative to their mean loss."""
    loss = pretrained["training_loss"].values
    last = loss[-max(loss.size // 10, 2) :]
    if last.size < 2:
        return math.nan
    slope = np.polyfit(np.arange(last.size), last, 1)[0]
    return float(slope * (last.size - 1) / last.mean())


def _bulk_fraction(hessian: xr.Dataset) -> float:
    eigenvalue = hessian["eigenvalue"].values
    return float(np.mean(eigenvalue < 0.01 * eigenvalue.max()))


def _over_exact(study: xr.Dataset, name: str) -> xr.Dataset:
    """Mean passage steps of a study of the laboratory over the exact ones."""
    return xr.Dataset(
        {
            f"ratio{part}": study[f"{name}{part}"] / study["exact_first_passage_step"]
            for part in ["", "_low", "_high"]
        }
    )


def _barrier(
    found: Datasets, name: str, predicted: str | float, *, same_curvature: bool = False
) -> Iterator[Row]:
    """A number of every double well, or of those with the `same_curvature` h_i^s = h_i*."""
    study = found.laboratory["double_well"]
    names = [f"{name}{part}" for part in ["", "_low", "_high"]]
    if same_curvature:
        study = study.sel(well=study["transverse_ratio"] == 1)
    return _against(study[names], name, predicted)


def _slope_of_contrast(noise: str, series: str) -> Callable[[Datasets, str | float], Iterator[Row]]:
    """The slope of log κ over wells of one ΔL or of one L_s/L*."""
    return lambda found, predicted: _against(
        found.laboratory["double_well"].sel(series=series, drop=True), f"{noise}_slope", predicted
    )


def _ladder_exponent(rung: str) -> Callable[[Datasets, str | float], Iterator[Row]]:
    """The exponent fitted to the passage times of one rung of the ladder."""
    names = [*(f"exponent{part}" for part in ["", "_low", "_high"]), "predicted_exponent"]
    return lambda found, predicted: _against(
        found.laboratory["ladder"][names].sel(rung=rung, drop=True), "exponent", predicted
    )


def _ladder_share(approximation: str) -> Callable[[Datasets, str | float], Iterator[Row]]:
    """What one approximation adds to the exponent, over the exponent of Eq. (15)."""

    def rows(found: Datasets, predicted: str | float) -> Iterator[Row]:
        study = found.laboratory["ladder"].sel(approximation=approximation, drop=True)
        ends = {
            f"share{part}": study[f"exponent_share{part}"] / study["predicted_exponent"]
            for part in ["", "_low", "_high"]
        }
        return _against(xr.Dataset(ends), "share", predicted)

    return rows


def _regime_share(
    name: str, holds: Callable[[xr.DataArray], xr.DataArray]
) -> Callable[[Datasets, str | float], Iterator[Row]]:
    """Fraction of the map, at T <= 0.1 and 2 <= c <= 10, in which a law holds."""

    def rows(found: Datasets, predicted: str | float) -> Iterator[Row]:
        study = found.laboratory["regime_map"]
        inside = (study["threshold"] >= 2) & (study["threshold"] <= 10)
        values = study[name].sel(threshold=inside, temperature=study["temperature"] <= 0.1)
        # Where Eq. (15) has no positive exponent its law does not hold, though its ratio is NaN;
        # where nothing is known, as for discrete SGD in d > 1, which takes long, there is no claim.
        known = study["arrhenius_ratio"].notnull().any(["temperature", "threshold"])
        share = holds(values).mean(["temperature", "threshold"]).where(known)
        return (row for row in _exact(share, predicted) if math.isfinite(row.measured))

    return rows


def _critical(name: str) -> Callable[[Datasets, str | float], Iterator[Row]]:
    """An exact number of the study of the critical dimension, and what is predicted beside it."""

    def rows(found: Datasets, predicted: str | float) -> Iterator[Row]:
        study = found.laboratory["critical_dimension"]
        exact = {f"{name}{part}": study[name] for part in ["_low", "_high"]}
        return _against(study.assign(exact)[[name, *exact, str(predicted)]], name, predicted)

    return rows


def _farthest(alignment: xr.Dataset) -> int:
    """The direction whose noise over that of Eq. (6) is farthest from 1."""
    return int(np.argmax(np.abs(alignment["noise_ratio"].values - 1)))


# What a claim can be about, given the claim's `predicted`: a number or the name of a variable.
QUANTITIES: dict[str, Callable[[Datasets, str | float], Iterable[Row]]] = {
    "stationary_exponent": lambda found, predicted: _against(
        found.stationary, "exponent", predicted
    ),
    "stationary_exponent_likelihood": lambda found, predicted: _against(
        found.stationary, "exponent_likelihood", predicted
    ),
    "stationary_ratio_below_one": lambda found, predicted: _ratio_where(
        found.stationary, lambda eta: eta < 1, predicted
    ),
    "stationary_ratio_at_one": lambda found, predicted: _ratio_where(
        found.stationary, lambda eta: eta == 1, predicted
    ),
    "linear_regression_exponent": lambda found, predicted: _against(
        found.fit_linear_regression, "exponent", predicted
    ),
    "linear_regression_dimension_slope": _dimension_slope,
    "linear_regression_log_likelihood_difference": lambda found, predicted: _against(
        found.fit_linear_regression, "log_likelihood_difference", predicted
    ),
    "network_exponent": lambda found, predicted: _against(found.fit_network, "exponent", predicted),
    "network_log_likelihood_difference": lambda found, predicted: _against(
        found.fit_network, "log_likelihood_difference", predicted
    ),
    "network_fitted_curvature": lambda found, predicted: _against(
        found.fit_network, "fitted_curvature", predicted
    ),
    "network_fitted_dimension": lambda found, predicted: _against(
        found.fit_network, "fitted_effective_dimension", predicted
    ),
    "pretrained_loss": lambda found, predicted: _each_seed(
        found.pretrained, lambda pretrained: float(pretrained["loss"]), predicted
    ),
    "pretrained_drift": lambda found, predicted: _each_seed(found.pretrained, _drift, predicted),
    "parameter_count": lambda found, predicted: _each_seed(
        found.hessian, lambda hessian: hessian["eigenvalue"].size, predicted
    ),
    "largest_eigenvalue": lambda found, predicted: _each_seed(
        found.hessian, lambda hessian: float(hessian["eigenvalue"].max()), predicted
    ),
    "effective_dimension": lambda found, predicted: _each_seed(
        found.hessian, lambda hessian: float(hessian["effective_dimension"]), predicted
    ),
    "gap_dimension": lambda found, predicted: _each_seed(
        found.hessian, lambda hessian: float(hessian["gap_dimension"]), predicted
    ),
    "bulk_fraction": lambda found, predicted: _each_seed(found.hessian, _bulk_fraction, predicted),
    "decoupling_distribution_distance": lambda found, predicted: _each_epoch(
        found.decoupling, "distribution_distance", predicted
    ),
    "decoupling_eigenvalue_factor": lambda found, predicted: _each_epoch(
        found.decoupling, "eigenvalue_factor", predicted
    ),
    "decoupling_overlap": lambda found, predicted: _each_epoch(
        found.decoupling, "overlap", predicted
    ),
    "decoupling_relative_distance": lambda found, predicted: _each_epoch(
        found.decoupling, "relative_distance", predicted
    ),
    "decoupling_correlation": lambda found, predicted: _each_epoch(
        found.decoupling, "correlation", predicted
    ),
    "noise_slope_early": _stage("early"),
    "noise_slope_late": _stage("late"),
    "noise_slope_intermediate": _stage("intermediate"),
    "noise_slope_small": _stage("small"),
    "trace_factor_ratio": lambda found, predicted: _exact(
        found.fit_noise["farthest_trace_ratio"], predicted
    ),
    "noise_trace_ratio": lambda found, predicted: _each_seed_against(
        found.alignment, "trace_ratio", predicted
    ),
    "noise_ratio_sharpest": lambda found, predicted: _each_seed_against(
        found.alignment, "noise_ratio", predicted, lambda _: 0
    ),
    "noise_ratio_farthest": lambda found, predicted: _each_seed_against(
        found.alignment, "noise_ratio", predicted, _farthest
    ),
    "noise_exponent": lambda found, predicted: _each_seed_against(
        found.alignment, "noise_exponent", predicted
    ),
    "gradient_fraction": lambda found, predicted: _each_seed(
        found.alignment, lambda alignment: float(alignment["gradient_fraction"]), predicted
    ),
    "residual_norm": lambda found, predicted: _each_seed(
        found.alignment, lambda alignment: float(alignment["residual_norm"]), predicted
    ),
    "collapse_slope": _collapse("collapse_slope"),
    "collapse_dimension": _collapse("collapse_dimension"),
    "collapse_scatter": _collapse("collapse_scatter"),
    "collapse_scatter_ratio": _collapse("collapse_scatter_ratio"),
    "collapse_exponent_ratio": lambda found, predicted: _each_collapse_case(
        found.network_collapse, "ratio", predicted
    ),
    "collapse_log_likelihood_difference": lambda found, predicted: _each_collapse_case(
        found.network_collapse, "log_likelihood_difference", predicted
    ),
    "escape_sharpest_share": _at_last_exit("mean_loss_share"),
    "escape_subspace_share": _at_last_exit("mean_subspace_share"),
    "escape_overlap": _at_last_exit("mean_exit_overlap"),
    "final_sharpness": lambda found, predicted: _each_seed_against(
        found.escape, "mean_final_sharpness", predicted
    ),
    "minimum_drift": lambda found, predicted: _each_seed_against(
        {seed: escape.isel(step=-1) for seed, escape in found.escape.items()}, "drift", predicted
    ),
    "exact_curvature": lambda found, predicted: _each_seed(
        {seed: found.isel(direction=0) for seed, found in found.alignment.items()},
        lambda sharpest: float(sharpest["exact_eigenvalue"]),
        predicted,
    ),
    "splitting_ratio": lambda found, predicted: _against(
        _over_exact(found.laboratory["splitting"], "mean_first_passage_step"), "ratio", predicted
    ),
    "simulation_ratio": lambda found, predicted: _against(
        _over_exact(found.laboratory["splitting"], "simulated_first_passage_step").dropna(
            "threshold", how="all"
        ),
        "ratio",
        predicted,
    ),
    "splitting_coverage": lambda found, predicted: [
        Row("", float(predicted), *[float(found.laboratory["coverage"]["coverage"])] * 3)
    ],
    "barrier_printed": lambda found, predicted: _barrier(
        found, "limit_printed", predicted, same_curvature=True
    ),
    "barrier_corrected": lambda found, predicted: _barrier(found, "limit_corrected", predicted),
    "barrier_exact": lambda found, predicted: _barrier(found, "mean_ratio_exact", predicted),
    **{
        f"contrast_{noise}_same_{series}": _slope_of_contrast(noise, series)
        for noise in ["sgd", "gld"]
        for series in ["difference", "ratio"]
    },
    "ladder_exponent_finite_data": _ladder_exponent("finite_data"),
    "ladder_exponent_diffusion": _ladder_exponent("decoupled_noise"),
    **{f"ladder_share_{name}": _ladder_share(name) for name in APPROXIMATIONS},
    "regime_power_law": _regime_share("power_law_ratio", lambda ratio: abs(ratio - 1) < 0.1),
    "regime_arrhenius": _regime_share("arrhenius_ratio", lambda ratio: abs(ratio - 1) < 0.1),
    "regime_power_law_gain": _regime_share("power_law_gain", lambda gain: gain > 0),
    "lyapunov_dimension": _critical("lyapunov_dimension"),
    "mean_square_dimension": _critical("mean_square_dimension"),
    "tail_exponent": lambda found, predicted: _against(
        found.laboratory["critical_dimension"][
            [*(f"simulated_exponent{part}" for part in ["", "_low", "_high"]), str(predicted)]
        ],
        "simulated_exponent",
        predicted,
    ),
    "weak_noise_growth": lambda found, predicted: _against(
        found.laboratory["weak_noise"], "quasi_potential", predicted
    ),
}

_TEXT = {"type": "string", "minLength": 1}
_NUMBER = {"type": "number"}
_TOLERANCE = {
    "type": "object",
    "properties": {name: {"type": "number", "minimum": 0} for name in ("relative", "absolute")},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
_PROPERTIES = {
    "id": {"type": "string", "pattern": "^[a-z0-9-]+$"},
    "reference": _TEXT,
    "statement": _TEXT,
    "quantity": {"enum": list(QUANTITIES)},
    "predicted": {"type": ["number", "string"]},
    "rule": {
        "type": "object",
        "properties": {
            "within": _TOLERANCE,
            "range": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2},
            "above": _NUMBER,
            "below": _NUMBER,
        },
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    },
    "reason": _TEXT,
    "sizes": {"type": "array", "items": _TEXT},
}
_VALIDATOR = Draft202012Validator(
    {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": _PROPERTIES,
            "required": list(_PROPERTIES),
            "additionalProperties": False,
        },
    }
)


def load_claims(path: str | Path) -> list[dict[str, Any]]:
    """Read and check a list of claims as in workflow/claims.yaml.

    Raises `SgdEscapeError` when it is no YAML, lacks or misspells a key, names an unknown quantity
    or rule, gives a range upside down, or repeats an id.
    """
    try:
        claims = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    # ValueError: a date that does not exist; RecursionError: brackets within brackets.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        message = " ".join(str(error).split())
        raise SgdEscapeError(f"{path} cannot be read as YAML: {message}. Correct it") from error
    for mistake in _VALIDATOR.iter_errors(claims):
        place = "".join(f"[{key}]" for key in mistake.absolute_path)
        raise SgdEscapeError(f"{path}: claims{place}: {mistake.message}. Correct it")
    for name, count in Counter(claim["id"] for claim in claims).items():
        if count > 1:
            raise SgdEscapeError(f"{path}: the id {name} stands {count} times. Rename all but one")
    for claim in claims:
        lowest, highest = claim["rule"].get("range", (0, 1))
        if lowest >= highest:
            raise SgdEscapeError(
                f"{path}: {claim['id']} needs a range with the smaller number first, but has "
                f"[{lowest}, {highest}]. Put them in increasing order"
            )
    return list(claims)


def verdict(rule: Mapping[str, Any], predicted: float, low: float, high: float) -> str:
    """Decide a claim by its rule from the interval [low, high] of the measured value.

    `within` a band around the prediction, or a `range` without it: an interval inside the closed
    band is reproduced, one that does not meet it is not. `above` a bound: an interval above it is
    reproduced, one below it is not; `below` is the opposite. All else is inconclusive, and so is
    what is not finite, or upside down: the inverse of an interval around 0 leads through ∞.
    """
    if not np.isfinite([predicted, low, high]).all() or low > high:
        return INCONCLUSIVE
    if "above" in rule:
        holds, fails = low > rule["above"], high < rule["above"]
    elif "below" in rule:
        holds, fails = high < rule["below"], low > rule["below"]
    else:
        lowest, highest = _band(rule, predicted)
        holds, fails = lowest <= low and high <= highest, high < lowest or low > highest
    return REPRODUCED if holds else NOT_REPRODUCED if fails else INCONCLUSIVE


def _band(rule: Mapping[str, Any], predicted: float) -> tuple[float, float]:
    if "range" in rule:
        lowest, highest = rule["range"]
        return lowest, highest
    tolerance = rule["within"]
    width = tolerance.get("absolute", tolerance.get("relative", 0) * abs(predicted))
    return predicted - width, predicted + width


def fidelity(sizes: Iterable[str], config: Mapping[str, Any], paper: Mapping[str, Any]) -> str:
    """The word exact if the study has the paper's sizes under these dotted keys, else what differs.

    Without any keys the experiment is not one of the paper's, but "beyond the paper". Raises
    `SgdEscapeError` if the paper states no size under a key.
    """
    ours, theirs, prefixes = flatten(config), flatten(paper), list(sizes)
    if not prefixes:
        return "beyond the paper"
    scaled: dict[str, None] = {}
    for prefix in prefixes:
        keys = [key for key in theirs if f"{key}.".startswith(f"{prefix}.")]
        if not keys:
            raise SgdEscapeError(
                f"a claim depends on the size {prefix}, but config/paper.yaml states none of that "
                "name. Correct it in workflow/claims.yaml"
            )
        scaled |= {
            f"{key} {ours.get(key)} (paper {theirs[key]})": None
            for key in keys
            if ours.get(key) != theirs[key]
        }
    return f"scaled: {'; '.join(scaled)}" if scaled else "exact"


def evaluate(
    claims: Iterable[Mapping[str, Any]],
    datasets: Datasets,
    config: Mapping[str, Any],
    paper: Mapping[str, Any],
) -> list[Claim]:
    """Decide every claim of `load_claims`; one without any measurement is inconclusive.

    Raises `SgdEscapeError` if a dataset lacks what a claim is about.
    """
    decided = []
    for claim in claims:
        for row in _rows(claim, datasets):
            case = dict(pair.split("=") for pair in row.suffix[1:-1].split(",") if pair)
            scale = fidelity((size.format(**case) for size in claim["sizes"]), config, paper)
            decided.append(
                Claim(
                    claim["id"] + row.suffix,
                    claim["reference"],
                    claim["statement"],
                    *row[1:],
                    verdict(claim["rule"], row.predicted, row.low, row.high),
                    scale,
                )
            )
    return decided


def _rows(claim: Mapping[str, Any], datasets: Datasets) -> list[Row]:
    try:
        rows = list(QUANTITIES[claim["quantity"]](datasets, claim["predicted"]))
    except KeyError as error:
        raise SgdEscapeError(
            f"the claim {claim['id']} needs a variable that its file does not hold: {error}. "
            "Delete that file and run the same command again"
        ) from error
    if rows:
        return rows
    predicted = claim["predicted"] if isinstance(claim["predicted"], int | float) else math.nan
    return [Row("", float(predicted), math.nan, math.nan, math.nan)]


def summary(claims: Iterable[Claim]) -> dict[str, int]:
    """How many claims have each verdict, all three always there."""
    counts = Counter(claim.verdict for claim in claims)
    return {name: counts[name] for name in VERDICTS}


def to_csv(claims: Iterable[Claim]) -> str:
    """The text of results/claims.csv; numbers with six significant digits, nan where none is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Claim._fields)
    for claim in claims:
        writer.writerow(f"{x:.{_DIGITS}g}" if isinstance(x, float) else x for x in claim)
    return text.getvalue()


def from_csv(text: str) -> list[Claim]:
    """What `to_csv` wrote. Raises `SgdEscapeError` if it is something else."""
    try:
        header, *lines = list(csv.reader(io.StringIO(text))) or [[]]
        if header != list(Claim._fields):
            raise ValueError(f"its header is {header}")
        return [
            Claim(*line[:3], *map(float, line[3:7]), *line[7:])  # type: ignore[arg-type]
            for line in lines
        ]
    except (TypeError, ValueError, csv.Error) as error:
        raise SgdEscapeError(
            f"a table of claims needs the columns {', '.join(Claim._fields)}, but {error}. "
            "Delete it and run the same command again"
        ) from error
