import copy
import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator
from snakemake.utils import update_config

from sgd_escape import SgdEscapeError
from sgd_escape.config import flatten, load_schema, threshold_grid, validate

ROOT = Path(__file__).parents[1]
OVERLAYS = sorted((ROOT / "config").glob("*.yaml"))
BAD_CONFIGS = yaml.safe_load((ROOT / "tests/bad_configs.yaml").read_text(encoding="utf-8"))
SCHEMA = load_schema(ROOT / "workflow/schemas/config.schema.yaml")


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def config() -> dict[str, Any]:
    return read(ROOT / "config.yaml")


def changed(config: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(config)
    for dotted, value in case.get("set", {}).items():
        section, key = parent(config, dotted)
        section[key] = value
    for dotted in case.get("delete", []):
        section, key = parent(config, dotted)
        del section[key]
    return config


def parent(config: dict[str, Any], dotted: object) -> tuple[dict[str, Any], Any]:
    if not isinstance(dotted, str):
        return config, dotted
    *above, key = dotted.split(".")
    for name in above:
        config = config[name]
    return config, key


def properties(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, property_schema in schema.get("properties", {}).items():
        yield prefix + key, property_schema
        yield from properties(property_schema, f"{prefix}{key}.")


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from subschemas(value)


def error_of(config: Any) -> str:
    with pytest.raises(SgdEscapeError) as caught:
        validate(config, SCHEMA)
    return str(caught.value)


def test_the_schema_is_a_valid_draft_2020_12_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_is_closed_and_complete_at_every_level() -> None:
    objects = [schema for schema in subschemas(SCHEMA) if schema.get("type") == "object"]
    assert len(objects) > 5
    for schema in objects:
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])


def test_every_key_of_the_schema_is_described_and_every_value_has_its_unit() -> None:
    for name, schema in properties(SCHEMA):
        assert schema["description"].endswith("."), name
        if "properties" not in schema:
            assert re.search(r"\(.+\)\.$", schema["description"]), name


def test_every_number_of_the_schema_has_a_limit_on_both_sides() -> None:
    numbers = [s for s in subschemas(SCHEMA) if s.get("type") in ("integer", "number")]
    assert numbers
    for schema in numbers:
        assert {"minimum", "exclusiveMinimum"} & set(schema), schema
        assert {"maximum", "exclusiveMaximum"} & set(schema), schema


def test_every_list_of_the_schema_has_a_limited_length() -> None:
    for schema in subschemas(SCHEMA):
        if schema.get("type") == "array":
            assert schema["minItems"] >= 1
            assert schema["maxItems"] <= 100


def test_the_defaults_of_the_schema_are_config_yaml(config: dict[str, Any]) -> None:
    values = {n: s["default"] for n, s in properties(SCHEMA) if "properties" not in s}
    assert list(flatten(values).items()) == list(flatten(config).items())


def test_config_yaml_is_valid(config: dict[str, Any]) -> None:
    validate(config, SCHEMA)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_config_yaml_with_an_overlay_is_valid(overlay: Path, config: dict[str, Any]) -> None:
    update_config(config, read(overlay))
    validate(config, SCHEMA)


@pytest.mark.parametrize(
    "case",
    [
        {"set": {"data.folder": "/data/mnist", "data.sources": ["folder"]}},
        {"set": {"linear_regression.first_passage.sampling": "epoch"}},
        {"set": {"linear_regression.stationary.learning_rates": [1]}},
        {
            "set": {
                "network.n_samples": 20,
                "network.alignment.directions": 19,
                "network.pretraining.batch_size": 20,
                "network.first_passage.batch_sizes": [20],
            }
        },
        {"set": {"network.first_passage.runs": 4, "network.first_passage.shards": 4}},
        {
            "set": {
                "network.first_passage.thresholds": {"min": 1.0001, "max": 16.0, "count": 5},
                "network.first_passage.fit_range": [3.9, 16],
            }
        },
        {
            "set": {
                "linear_regression.first_passage.thresholds": {"min": 2.0, "max": 8.0, "count": 3},
                "linear_regression.first_passage.fit_range": [2, 8],
            }
        },
        {
            "set": {
                "linear_regression.first_passage.n_samples": 50,
                "linear_regression.first_passage.dimensions": [49],
                "linear_regression.first_passage.batch_sizes": [50],
            }
        },
    ],
    ids=lambda case: ", ".join(case["set"]),
)
def test_values_at_the_edge_of_what_is_allowed_pass(
    case: dict[str, Any], config: dict[str, Any]
) -> None:
    validate(changed(config, case), SCHEMA)


def test_any_mapping_may_hold_the_configuration(config: dict[str, Any]) -> None:
    frozen = {k: MappingProxyType(v) if isinstance(v, dict) else v for k, v in config.items()}
    validate(MappingProxyType(frozen), SCHEMA)


def test_validation_leaves_the_configuration_as_it_was(config: dict[str, Any]) -> None:
    before = copy.deepcopy(config)
    validate(config, SCHEMA)
    assert config == before


@pytest.mark.parametrize("case", BAD_CONFIGS, ids=lambda case: case["name"])
def test_a_bad_configuration_stops_with_one_clear_line(
    case: dict[str, Any], config: dict[str, Any]
) -> None:
    message = error_of(changed(config, case))
    assert re.match("configuration: .*" + case["message"], message)
    assert len(message.splitlines()) == 1
    assert len(message) < 400


def test_the_corpus_of_bad_configurations_is_large_and_its_names_differ() -> None:
    names = [case["name"] for case in BAD_CONFIGS]
    assert len(names) >= 60
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("content", [None, [], "text", 3], ids=str)
def test_a_file_without_keys_is_refused(content: object) -> None:
    assert "the top level needs a mapping with the keys seed, data" in error_of(content)


def test_a_list_longer_than_a_hundred_is_refused(config: dict[str, Any]) -> None:
    config["network"]["pretraining"]["seeds"] = list(range(101))
    assert "seeds needs a list of 1 to 100 different entries, but is a list with 101" in error_of(
        config
    )


def test_the_first_problem_follows_the_order_of_the_file_not_of_the_schema(
    config: dict[str, Any],
) -> None:
    wrong = config | {"seed": -1, "fits": None}
    assert error_of(wrong).startswith("configuration: seed ")
    assert error_of(dict(reversed(wrong.items()))).startswith("configuration: fits ")


@pytest.mark.parametrize("text", ["1e-2", "1E-2", "2e1", "1.25e-3", ".5e-1", "+3e-4"])
def test_yaml_reads_the_number_that_the_message_says_to_write(
    text: str, config: dict[str, Any]
) -> None:
    assert isinstance(yaml.safe_load(text.replace("-", "")), str)
    config["network"]["pretraining"]["learning_rate"] = text
    exponent_form, plain_form = re.search(
        r"write (\S+) or (\S+), without quotes", error_of(config)
    ).groups()
    assert yaml.safe_load(exponent_form) == float(text)
    assert yaml.safe_load(plain_form) == float(text)


def test_the_threshold_grid_is_equally_spaced_in_log_c_and_holds_both_ends() -> None:
    grid = threshold_grid({"min": 2.0, "max": 32.0, "count": 5})
    np.testing.assert_allclose(grid, [2, 4, 8, 16, 32], rtol=1e-14)
    assert grid[0] == 2.0
    assert grid[-1] == 32.0


def test_flatten_joins_keys_with_dots_and_keeps_lists_whole() -> None:
    nested = {"a": 1, "b": {"c": [1, {"d": 2}], "e": {"f": None}}}
    assert flatten(nested) == {"a": 1, "b.c": [1, {"d": 2}], "b.e.f": None}
