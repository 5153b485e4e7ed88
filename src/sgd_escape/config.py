"""The configuration: its closed schema, its cross-checks and the threshold grid."""

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import Float
from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from sgd_escape.errors import SgdEscapeError

KeyPath = tuple[Any, ...]

_MOST_ROUNDS = 100

# Far beyond any study, and far below what takes long to check or to print.
_MOST_VALUES = 100_000
_DEEPEST = 20
_MOST_BITS = 10_000
# Numbers of an array: 80 GB in double precision.
_LARGEST_ARRAY = 10**10


class Mistake(NamedTuple):
    """A break of the schema: the key, the keyword of the schema that refuses it, and the value."""

    path: KeyPath
    keyword: str
    value: Any


class Contradiction(NamedTuple):
    """Values that do not go together: the key to change and the rest of the sentence."""

    path: KeyPath
    message: str


def load_schema(path: str | Path) -> dict[str, Any]:
    """Read a JSON schema written as YAML."""
    schema: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return schema


def validate(config: Any, schema: Mapping[str, Any]) -> None:
    """Check a whole configuration against the closed schema, then its values with one another.

    Raises SgdEscapeError for the first problem in the order of the document: one line with the
    dotted key, what it needs, what it is and what to do. A missing key counts as standing at
    the end of its mapping, so that a mistyped key is reported before the key it should have been.
    """
    _refuse_what_cannot_be_shown(config)
    mistakes = [_mistake(error) for error in _Validator(schema).iter_errors(config)]
    if mistakes:
        first = min(mistakes, key=lambda mistake: _position(config, mistake.path))
        raise SgdEscapeError(f"configuration: {_dotted(first.path)} {_explain(first, schema)}")
    contradictions = list(_contradictions(config))
    if contradictions:
        path, message = min(contradictions, key=lambda found: _position(config, found.path))
        raise SgdEscapeError(f"configuration: {_dotted(path)} {message}")


def _refuse_what_cannot_be_shown(config: Any) -> None:
    """Stop at what neither jsonschema nor a message survives: aliases of YAML that hold themselves
    or double at each level, and numbers beyond Python's limit for printing.
    """
    waiting: list[tuple[KeyPath, Any]] = [((), config)]
    count = 0
    while waiting:
        path, value = waiting.pop()
        count += 1
        if count > _MOST_VALUES or len(path) > _DEEPEST:
            raise SgdEscapeError(
                f"configuration: {_dotted(path[:1])} holds more than {_MOST_VALUES} values or more "
                f"than {_DEEPEST} levels, as an alias of YAML that holds itself does. "
                "Write out its values."
            )
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise SgdEscapeError(
                f"configuration: {_dotted(path)} holds a whole number of more than "
                f"{_MOST_BITS} bits. Change it."
            )
        if isinstance(value, Mapping):
            waiting += [((*path, "key"), key) for key in value]
            waiting += [
                ((*path, key if isinstance(key, str) else "key"), below)
                for key, below in value.items()
            ]
        elif isinstance(value, list):
            waiting += [((*path, index), below) for index, below in enumerate(value)]


def threshold_grid(thresholds: Mapping[str, Any]) -> Float[np.ndarray, " threshold"]:
    """Loss ratios c = L(theta_s)/L(theta*), equally spaced in log c, both ends included.

    `thresholds` has the keys `min`, `max` (loss ratios) and `count`.
    """
    return np.geomspace(thresholds["min"], thresholds["max"], thresholds["count"])


def flatten(config: Mapping[str, Any]) -> dict[str, object]:
    """Every value of the nested configuration under its dotted key; lists stay whole."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{below}": leaf for below, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def _is_integer(_checker: object, value: object) -> bool:
    # JSON schema takes 100.0 for an integer; range() and file names do not.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: object, value: object) -> bool:
    return _is_integer(checker, value) or (isinstance(value, float) and math.isfinite(value))


def _is_mapping(_checker: object, value: object) -> bool:
    return isinstance(value, Mapping)


_Validator = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number, "object": _is_mapping}
    ),
)


def _mistake(error: Any) -> Mistake:
    path, value = tuple(error.absolute_path), error.instance
    if error.validator == "additionalProperties":
        path += (next(key for key in value if key not in error.schema["properties"]),)
    elif error.validator == "required":
        path += (next(key for key in error.validator_value if key not in value),)
    return Mistake(path, error.validator, value)


def _position(config: Any, path: KeyPath) -> list[int]:
    position: list[int] = []
    for key in path:
        keys = list(config) if isinstance(config, Mapping) else list(range(len(config)))
        if key not in keys:
            return [*position, len(keys)]
        position.append(keys.index(key))
        config = config[key]
    return position


def _dotted(path: KeyPath) -> str:
    dotted = ""
    for key in path:
        dotted += f"[{key}]" if dotted and _is_integer(None, key) else f".{_shortened(str(key))}"
    return dotted.removeprefix(".") or "the top level"


def _shortened(text: str) -> str:
    # One line whatever a user's key or value holds.
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _explain(mistake: Mistake, schema: Mapping[str, Any]) -> str:
    path, keyword, value = mistake
    if keyword == "additionalProperties":
        return _explain_unknown(path[-1], list(_subschema(schema, path[:-1])["properties"]))
    subschema = _subschema(schema, path)
    needed = _needed(subschema)
    if keyword == "required":
        return f"is missing; it needs {needed}. Add it{_default(schema, path)}."
    if keyword == "uniqueItems":
        second = next(index for index, entry in enumerate(value) if entry in value[:index])
        return (
            f"needs {needed}, but {_shown(value[second])} is repeated: entries "
            f"[{value.index(value[second])}] and [{second}] are equal. Remove one of them."
        )
    advice = _number_advice(value, subschema) or f"Change it{_default(schema, path)}."
    return f"needs {needed}, but is {_shown(value)}. {advice}"


def _explain_unknown(key: object, known: list[str]) -> str:
    nearest = difflib.get_close_matches(str(key), known, n=1)
    if nearest:
        return f"is not a known key; did you mean {nearest[0]!r}? Rename or remove it."
    return f"is not a known key; the keys here are {', '.join(known)}. Rename or remove it."


def _subschema(schema: Mapping[str, Any], path: KeyPath) -> Mapping[str, Any]:
    found = schema
    for key in path:
        found = found["items"] if _is_integer(None, key) else found["properties"][key]
        if "$ref" in found:
            found = {**schema["$defs"][found["$ref"].removeprefix("#/$defs/")], **found}
    return found


def _needed(subschema: Mapping[str, Any]) -> str:
    if "enum" in subschema:
        return "one of " + ", ".join(subschema["enum"])
    if isinstance(subschema["type"], list):
        return f"{_needed({**subschema, 'type': subschema['type'][0]})}, or null"
    match subschema["type"]:
        case "object":
            return "a mapping with the keys " + ", ".join(subschema["properties"])
        case "array":
            least, most = subschema["minItems"], subschema["maxItems"]
            size = f"{least}" if least == most else f"{least} to {most}"
            return f"a list of {size}{' different' * ('uniqueItems' in subschema)} entries"
        case "integer" | "number" as kind:
            noun = "a whole number" if kind == "integer" else "a finite number"
            return f"{noun}, {' and '.join(_bounds(subschema))}"
        case _:
            return "a text on one line that is not empty"


def _bounds(subschema: Mapping[str, Any]) -> Iterator[str]:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "multipleOf": "a multiple of",
    }
    return (f"{word} {subschema[bound]}" for bound, word in words.items() if bound in subschema)


def _shown(value: object) -> str:
    match value:
        case None:
            return "empty (null)"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {_shortened(value)!r}"
        case Mapping():
            return f"a mapping with {len(value)} keys"
        case list():
            return f"a list with {len(value)} entries" if value else "an empty list"
        case int() if value.bit_length() > 128:
            return "a whole number of more than 38 digits"
        case _:
            return _shortened(str(value))


def _default(schema: Mapping[str, Any], path: KeyPath) -> str:
    key_path = path[:-1] if path and _is_integer(None, path[-1]) else path
    subschema = _subschema(schema, key_path)
    # A mapping that several places share has its default as a whole, in each place.
    defaults = _subschema(schema, key_path[:-1]).get("default", {}) | (
        {key_path[-1]: subschema["default"]} if "default" in subschema else {}
    )
    if not key_path or key_path[-1] not in defaults:
        return ": write its keys, indented, below it"
    return f"; the default of {key_path[-1]} is {_shortened(json.dumps(defaults[key_path[-1]]))}"


def _number_advice(value: object, subschema: Mapping[str, Any]) -> str | None:
    """What to write for a number that YAML read as text: '0.1' in quotes, or 1e-2."""
    kinds = subschema.get("type", ())
    if not isinstance(value, str) or not {"integer", "number"} & {*np.atleast_1d(kinds)}:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    whole_needed = "integer" in kinds
    if math.isnan(number) or (whole_needed and number % 1):
        return None
    if abs(number) > 1e18 or 0 < abs(number) < 1e-18:
        return None
    plain = np.format_float_positional(number, trim="-")
    mantissa, exponent_mark, exponent = value.strip().lower().partition("e")
    if not exponent_mark or whole_needed:
        return f"Write {plain} without quotes."
    point = "" if "." in mantissa else ".0"
    return (
        f"YAML reads an exponent only after a decimal point and with a sign: write "
        f"{mantissa}{point}e{int(exponent):+d} or {plain}, without quotes."
    )


def _contradictions(config: Mapping[str, Any]) -> Iterator[Contradiction]:
    data, network = config["data"], config["network"]
    if data["sources"] == ["folder"] and data["folder"] is None:
        yield Contradiction(
            ("data", "sources"),
            "is [folder] alone, which needs data.folder, but that is null. "
            "Set data.folder to the folder with the files, or add mirror or registry.",
        )
    for name, section in config["linear_regression"].items():
        path = ("linear_regression", name, "batch_sizes")
        yield from _large_batches(path, section["batch_sizes"], path[:2], section["n_samples"])
    stationary = config["linear_regression"]["stationary"]
    if stationary["samples"] % stationary["blocks"]:
        yield Contradiction(
            ("linear_regression", "stationary", "blocks"),
            f"is {stationary['blocks']}, but must divide the {stationary['samples']} samples into "
            "equal blocks. Choose a divisor of linear_regression.stationary.samples.",
        )
    passage = ("linear_regression", "first_passage")
    yield from _large_dimensions(passage, config["linear_regression"]["first_passage"])
    for name, key in (("pretraining", "batch_size"), ("first_passage", "batch_sizes")):
        path = ("network", name, key)
        yield from _large_batches(path, network[name][key], path[:1], network["n_samples"])
    yield from _partial_pass(network["pretraining"], network["n_samples"])
    yield from _noise_contradictions(config["noise"])
    yield from _alignment_contradictions(network)
    yield from _collapse_contradictions(network)
    yield from _escape_contradictions(network)
    yield from _decoupling_contradictions(config["decoupling"])
    for study in ("linear_regression", "network"):
        yield from _passage_contradictions((study, "first_passage"), config[study]["first_passage"])
    path = ("laboratory", "splitting", "thresholds")
    yield from _threshold_contradictions(path, config["laboratory"]["splitting"]["thresholds"])
    yield from _ladder_contradictions(config["laboratory"]["ladder"])
    yield from _regime_contradictions(config["laboratory"]["regime_map"])
    yield from _critical_contradictions(config["laboratory"]["critical_dimension"])
    yield from _double_well_contradictions(config["laboratory"]["double_well"])
    yield from _large_arrays(config)


def _large_arrays(config: Mapping[str, Any]) -> Iterator[Contradiction]:
    """Sizes that are within their limits one by one, but not together."""
    regression, ladder = config["linear_regression"], config["laboratory"]["ladder"]
    stationary = regression["stationary"]
    cases = len(stationary["learning_rates"]) * len(stationary["batch_sizes"])
    arrays: list[tuple[KeyPath, int, str, int]] = [
        (
            ("linear_regression", "stationary", "samples"),
            stationary["samples"],
            "learning rates times batch sizes",
            cases,
        )
    ]
    for path, study in [
        (("linear_regression", "first_passage"), regression["first_passage"]),
        (("laboratory", "ladder"), ladder),
    ]:
        largest = max(study["dimensions"])
        arrays.append(((*path, "n_samples"), study["n_samples"], "the largest dimension", largest))
    for path, value, other, factor in arrays:
        if value * factor > _LARGEST_ARRAY:
            yield Contradiction(
                path,
                f"is {value}, which times {other} = {factor} is an array of {value * factor:.1e} "
                f"numbers, but at most {_LARGEST_ARRAY:.0e} (80 GB) are taken. Lower one of them.",
            )


def _double_well_contradictions(study: Mapping[str, Any]) -> Iterator[Contradiction]:
    path: KeyPath = ("laboratory", "double_well")
    minimum, saddle = study["minimum_loss"], study["saddle_loss"]
    if minimum >= saddle:
        yield Contradiction(
            (*path, "saddle_loss"),
            f"is {saddle}, but must be above minimum_loss = {minimum}. Raise it.",
        )
    series = study["contrast"]
    if len(series["same_ratio"]) != len(series["same_difference"]):
        yield Contradiction(
            (*path, "contrast", "same_ratio"),
            f"has {len(series['same_ratio'])} losses, but must have as many as same_difference, "
            f"{len(series['same_difference'])}. Add or remove some.",
        )
    longer, shorter = study["step_sizes"]
    if longer <= shorter:
        yield Contradiction(
            (*path, "step_sizes"),
            f"is [{longer}, {shorter}], but needs the longer step first and a shorter one second. "
            "Put them in decreasing order.",
        )
    steps = np.divide(study["interval"], study["step_sizes"])
    if np.any(np.abs(steps - np.round(steps)) > 1e-9) or np.any(steps < 0.5):
        yield Contradiction(
            (*path, "interval"),
            f"is {study['interval']}, but must be a multiple of both step_sizes = "
            f"[{longer}, {shorter}]. Choose a multiple of both.",
        )


def _ladder_contradictions(ladder: Mapping[str, Any]) -> Iterator[Contradiction]:
    path = ("laboratory", "ladder")
    yield from _large_dimensions(path, ladder)
    yield from _large_batches(
        (*path, "batch_sizes"), ladder["batch_sizes"], path, ladder["n_samples"]
    )
    if ladder["data_nodes"] % 4:
        yield Contradiction(
            (*path, "data_nodes"),
            f"is {ladder['data_nodes']}, but must be a multiple of 4: results with half as many "
            "nodes are extrapolated. Choose a multiple.",
        )
    unordered = list(_threshold_contradictions((*path, "thresholds"), ladder["thresholds"]))
    grid = threshold_grid(ladder["thresholds"])[:: ladder["data_every"]]
    yield from unordered or _fit_range_contradictions((*path, "fit_range"), ladder, grid)


def _regime_contradictions(regime: Mapping[str, Any]) -> Iterator[Contradiction]:
    path, window = ("laboratory", "regime_map"), regime["window"]
    yield from _threshold_contradictions((*path, "temperatures"), regime["temperatures"])
    yield from _threshold_contradictions((*path, "thresholds"), regime["thresholds"])
    # A map needs more than one threshold on either axis.
    if regime["thresholds"]["count"] < 2 * window + 2:
        yield Contradiction(
            (*path, "window"),
            f"is {window}, but a map of two thresholds with as many on either side needs "
            f"thresholds.count >= {2 * window + 2}. Lower it or raise the count.",
        )


def _critical_contradictions(study: Mapping[str, Any]) -> Iterator[Contradiction]:
    path = ("laboratory", "critical_dimension", "simulation")
    yield from _threshold_contradictions((*path[:2], "fractions"), study["fractions"])
    for key in ("learning_rate", "batch_size"):
        values = study["batch_sizes" if key == "batch_size" else "learning_rates"]
        if study["simulation"][key] not in values:
            yield Contradiction(
                (*path, key),
                f"is {study['simulation'][key]}, but must be one of the study's {values}, whose "
                "exact exponents stand beside the simulation. Add it there or change it.",
            )
    low, high = study["simulation"]["loss_ratios"]
    if low >= high:
        yield Contradiction(
            (*path, "loss_ratios"),
            f"is [{low}, {high}], but needs the smaller c first and the larger second. "
            "Put them in increasing order.",
        )


def _alignment_contradictions(network: Mapping[str, Any]) -> Iterator[Contradiction]:
    directions = network["alignment"]["directions"]
    if directions >= network["n_samples"]:
        yield Contradiction(
            ("network", "alignment", "directions"),
            f"is {directions}, but must be below network.n_samples = {network['n_samples']}: the "
            "Hessian of Eq. (44) has no more curved directions than examples. "
            "Lower it or raise n_samples.",
        )


def _collapse_contradictions(network: Mapping[str, Any]) -> Iterator[Contradiction]:
    for index, case in enumerate(network["collapse"]["cases"]):
        path = ("network", "collapse", "cases", index, "batch_size")
        yield from _large_batches(path, case["batch_size"], path[:1], network["n_samples"])


def _escape_contradictions(network: Mapping[str, Any]) -> Iterator[Contradiction]:
    study, path = network["escape"], ("network", "escape")
    yield from _large_batches(
        (*path, "batch_size"), study["batch_size"], path[:1], network["n_samples"]
    )
    for key, why in [("exits", "a run passes them"), ("steps", "a run takes them")]:
        if study[key] != sorted(study[key]):
            yield Contradiction(
                (*path, key), f"is {study[key]}, but {why} in order. Put them in increasing order."
            )
    if study["followed"] > study["runs"]:
        yield Contradiction(
            (*path, "followed"),
            f"is {study['followed']}, but at most the runs = {study['runs']} can be followed. "
            "Lower it or raise runs.",
        )


def _decoupling_contradictions(study: Mapping[str, Any]) -> Iterator[Contradiction]:
    n_samples, epochs = study["n_samples"], study["epochs"]
    yield from _large_batches(
        ("decoupling", "batch_size"), study["batch_size"], ("decoupling",), n_samples
    )
    if epochs != sorted(epochs):
        yield Contradiction(
            ("decoupling", "epochs"),
            f"is {epochs}, but training passes them in order. Put them in increasing order.",
        )
    for key, what, most in [
        ("directions", "below", n_samples - 1),
        ("groups", "at most", n_samples),
    ]:
        if study[key] > most:
            yield Contradiction(
                ("decoupling", key),
                f"is {study[key]}, but must be {what} decoupling.n_samples = {n_samples}. "
                "Lower it or raise n_samples.",
            )


def _noise_contradictions(noise: Mapping[str, Any]) -> Iterator[Contradiction]:
    for architecture in ("fc", "cnn"):
        owner, n_samples = ("noise", architecture), noise[architecture]["n_samples"]
        yield from _large_batches(("noise", "batch_size"), noise["batch_size"], owner, n_samples)
    low, high = noise["stages"]["intermediate"]
    if low >= high:
        yield Contradiction(
            ("noise", "stages", "intermediate"),
            f"is [{low}, {high}], but needs the smaller loss first and the larger second. "
            "Put them in increasing order.",
        )


def _large_batches(
    path: KeyPath, sizes: int | list[int], owner: KeyPath, n_samples: int
) -> Iterator[Contradiction]:
    entries = (
        [((*path, index), size) for index, size in enumerate(sizes)]
        if isinstance(sizes, list)
        else [(path, sizes)]
    )
    for entry, size in entries:
        if size > n_samples:
            yield Contradiction(
                entry,
                f"is {size}, but a batch holds at most the {_dotted(owner)}.n_samples = "
                f"{n_samples} examples of the training set. Lower it or raise n_samples.",
            )


def _partial_pass(pretraining: Mapping[str, Any], n_samples: int) -> Iterator[Contradiction]:
    # A batch larger than the data is a contradiction of its own.
    steps_per_pass = max(n_samples // pretraining["batch_size"], 1)
    if pretraining["sampling"] == "epoch" and pretraining["steps"] % steps_per_pass:
        yield Contradiction(
            ("network", "pretraining", "steps"),
            f"is {pretraining['steps']}, but must be a multiple of the {steps_per_pass} steps of a "
            "pass over the training set. Choose a multiple, or another batch_size.",
        )


def _large_dimensions(path: KeyPath, study: Mapping[str, Any]) -> Iterator[Contradiction]:
    for index, dimension in enumerate(study["dimensions"]):
        if dimension >= study["n_samples"]:
            yield Contradiction(
                (*path, "dimensions", index),
                f"is {dimension}, but must be below {_dotted(path)}.n_samples "
                f"= {study['n_samples']}, else the loss at the minimum is zero. "
                "Lower it or raise n_samples.",
            )


def _passage_contradictions(path: KeyPath, passage: Mapping[str, Any]) -> Iterator[Contradiction]:
    runs, shards = passage["runs"], passage["shards"]
    if shards > runs:
        yield Contradiction(
            (*path, "shards"),
            f"is {shards}, but every shard needs at least one of the runs = {runs}. "
            "Lower it or raise runs.",
        )
    if passage["exponent_width"] is not None and passage["max_runs"] < runs:
        yield Contradiction(
            (*path, "max_runs"),
            f"is {passage['max_runs']}, but the runs = {runs} come first, before any are added. "
            "Raise it, lower runs, or set exponent_width to null.",
        )
    if passage["exponent_width"] is not None and passage["max_runs"] > _MOST_ROUNDS * runs:
        yield Contradiction(
            (*path, "max_runs"),
            f"is {passage['max_runs']}, but the runs = {runs} are added at most {_MOST_ROUNDS} "
            "times, as each time all are looked at. Raise runs or lower it.",
        )
    unordered = list(_threshold_contradictions((*path, "thresholds"), passage["thresholds"]))
    grid = threshold_grid(passage["thresholds"])
    yield from unordered or _fit_range_contradictions((*path, "fit_range"), passage, grid)


def _threshold_contradictions(
    path: KeyPath, thresholds: Mapping[str, Any]
) -> Iterator[Contradiction]:
    lowest, highest, count = thresholds["min"], thresholds["max"], thresholds["count"]
    if not np.all(np.diff(threshold_grid(thresholds)) > 0):
        yield Contradiction(
            (*path, "max"),
            f"is {highest}, but must exceed min = {lowest} by enough to hold {count} different "
            "values. Raise max or lower min.",
        )


def _fit_range_contradictions(
    path: KeyPath, passage: Mapping[str, Any], grid: Float[np.ndarray, " threshold"]
) -> Iterator[Contradiction]:
    low, high = passage["fit_range"]
    inside = np.count_nonzero((low <= grid) & (grid <= high))
    if low >= high:
        yield Contradiction(
            path,
            f"is [{low}, {high}], but needs the smaller c first and the larger second. "
            "Put them in increasing order.",
        )
    elif inside < 3:
        yield Contradiction(
            path,
            f"is [{low}, {high}] and contains {inside} of the {grid.size} thresholds from "
            f"{grid[0]:g} to {grid[-1]:g}, but telling two laws apart needs at least 3. "
            "Widen it or raise thresholds.count.",
        )
