"""Configurations that nobody would write: accepted, or refused in one line, and nothing else."""

import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sgd_escape import SgdEscapeError
from sgd_escape.config import load_schema, validate

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
SCHEMA = load_schema(ROOT / "workflow/schemas/config.schema.yaml")


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value of a configuration, the whole of it included."""
    yield path
    below = enumerate(node) if isinstance(node, list) else getattr(node, "items", tuple)()
    for key, value in below:
        yield from places(value, (*path, key))


PLACES = list(places(CONFIG))
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["1e-2", "1_000", "٣", "0x10", "1e999", "nan", "a\nb", "\u2028", "\x1b[31m", "$(touch pwned)"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 200),
    st.sampled_from([2**53, 2**63, -(2**64), 10**40, 10**4000]),
    st.floats(),
    st.floats(0, 3),
    TEXTS,
    st.binary(max_size=5),
    st.dates(),
    st.datetimes(),
)
KEYS = TEXTS | st.integers() | st.none() | st.booleans() | st.floats() | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=5) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=12,
)


def at(config: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


def refusal(config: Any) -> str | None:
    """The message for a wrong configuration, None for a right one."""
    try:
        validate(config, SCHEMA)
    except SgdEscapeError as error:
        return str(error)
    return None


def assert_clear(message: str | None) -> None:
    if message is not None:
        assert message.startswith("configuration: ")
        assert message.isprintable()
        assert message.endswith(".")
        assert len(message) < 700


@given(st.sampled_from(PLACES), VALUES)
def test_any_value_in_any_place_is_accepted_or_refused_in_one_line(path, value):
    config = copy.deepcopy(CONFIG)
    if path:
        at(config, path[:-1])[path[-1]] = value
    else:
        config = value
    message = refusal(config)
    assert_clear(message)
    if message and path:
        assert re.split(r"[.\[]", message.split()[1])[0] in CONFIG


@given(st.lists(st.tuples(st.sampled_from(PLACES[1:]), VALUES), min_size=2, max_size=6))
def test_several_wrong_values_are_refused_in_one_line(changes):
    config = copy.deepcopy(CONFIG)
    for path, value in changes:
        try:
            at(config, path[:-1])[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    assert_clear(refusal(config))


@given(st.sampled_from([path for path in PLACES if isinstance(at(CONFIG, path), dict)]), KEYS)
@example(("data",), math.nan)
def test_an_unknown_key_is_named_wherever_it_stands(path, key):
    config = copy.deepcopy(CONFIG)
    assume(key not in at(config, path))
    at(config, path)[key] = 1
    message = refusal(config)
    assert_clear(message)
    assert "is not a known key" in message


@given(st.sampled_from([path for path in PLACES if path and isinstance(path[-1], str)]))
def test_a_missing_key_is_named(path):
    config = copy.deepcopy(CONFIG)
    del at(config, path[:-1])[path[-1]]
    message = refusal(config)
    assert_clear(message)
    assert f"{path[-1]} is missing; it needs " in message


HOLDS_ITSELF = yaml.safe_load("&a [*a]")
DOUBLES = yaml.safe_load(
    "[&a0 [1, 2], " + ", ".join(f"&a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 100)) + "]"
)


@pytest.mark.parametrize(
    ("value", "needs"),
    [
        (HOLDS_ITSELF, "more than 100000 values or more than 20 levels"),
        (DOUBLES, "more than 100000 values or more than 20 levels"),
        (yaml.safe_load("&a {b: *a}"), "more than 100000 values or more than 20 levels"),
        (yaml.safe_load("[" * 60 + "]" * 60), "more than 100000 values or more than 20 levels"),
        (10**5000, "a whole number of more than 10000 bits"),
        ([1, {2: 10**5000}], "a whole number of more than 10000 bits"),
        ({10**5000: 2}, "a whole number of more than 10000 bits"),
    ],
    ids=["itself", "doubles", "mapping", "deep", "number", "list", "key"],
)
@pytest.mark.parametrize("path", [("seed",), ("network", "pretraining", "seeds"), ("new",)])
def test_what_no_message_can_show_is_refused_too(value, needs, path):
    config = copy.deepcopy(CONFIG)
    at(config, path[:-1])[path[-1]] = value
    message = refusal(config)
    assert_clear(message)
    assert message.startswith(f"configuration: {path[0]}")
    assert f" holds {needs}" in message


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    return {**SCHEMA["$defs"].get(reference, {}), **schema}


def number(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if schema["type"] == "integer":
        factor = schema.get("multipleOf", 1)
        return st.integers(-(-least // factor), most // factor).map(lambda whole: whole * factor)
    return st.floats(
        least,
        most,
        exclude_min="minimum" not in schema,
        exclude_max="maximum" not in schema,
    )


def drawn(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, whether or not they go together."""
    schema = resolved(schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "object":
            return st.fixed_dictionaries(
                {key: drawn(below) for key, below in schema["properties"].items()}
            )
        case "array":
            size = {"min_size": schema["minItems"], "max_size": min(schema["maxItems"], 4)}
            distinct = str if "uniqueItems" in schema else None
            # Mappings whose keys stand in one order, so that equal ones look alike.
            entries = drawn(schema["items"]).map(
                lambda entry: dict(sorted(entry.items())) if isinstance(entry, dict) else entry
            )
            return st.lists(entries, unique_by=distinct, **size)
        case ["string", "null"]:
            texts = st.text(min_size=1, max_size=9)
            return st.none() | texts.filter(lambda text: re.search(schema["pattern"], text))
        case "integer" | "number":
            return number(schema)
        case ["number", "null"]:
            return st.none() | number(schema | {"type": "number"})


@given(st.sampled_from([path for path in PLACES if len(path) in (1, 2)]), st.data())
def test_what_the_schema_allows_is_accepted_or_contradicts_itself(path, data):
    schema = SCHEMA
    for key in path:
        schema = resolved(schema)["properties"][key]
    config = copy.deepcopy(CONFIG)
    at(config, path[:-1])[path[-1]] = data.draw(drawn(schema))
    message = refusal(config)
    assert_clear(message)
    assert message is None or not re.search(r"needs (an? |one of |\d)", message)
