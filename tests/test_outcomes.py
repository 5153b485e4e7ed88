import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from sgd_escape import storage
from sgd_escape.first_passage import FirstPassage
from sgd_escape.outcomes import (
    MEANINGS,
    attribute,
    of_examples,
    of_minimum,
    of_runs,
    outcomes_of,
)

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
INPUTS = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([1, -1, 1, 1, -1, 1], np.float32)


def test_only_what_occurred_is_named_and_a_file_gives_it_back() -> None:
    named = attribute({"diverged": 3, "all_diverged": 0})
    assert json.loads(named["outcomes"]) == {"diverged": 3}
    assert outcomes_of(xr.Dataset(attrs=named)) == {"diverged": 3}
    assert outcomes_of(xr.Dataset()) == {}


def test_a_name_without_a_meaning_is_refused() -> None:
    with pytest.raises(KeyError, match="no outcome with a meaning"):
        attribute({"diverge": 3})


def test_repeated_inputs_are_counted_wherever_they_stand() -> None:
    assert of_examples(INPUTS, LABELS) == {"constant_labels": 0, "duplicate_samples": 0}
    repeated = INPUTS[[0, 1, 0, 2, 1, 0]]
    assert of_examples(repeated, LABELS)["duplicate_samples"] == 3
    # One coordinate makes another example.
    repeated[5, 3] += 1
    assert of_examples(repeated, LABELS)["duplicate_samples"] == 2


def test_labels_are_constant_only_if_all_are_equal() -> None:
    assert of_examples(INPUTS, np.full(6, -1, np.float32))["constant_labels"] == 1
    assert of_examples(INPUTS, np.array([1, 1, 1, 1, 1, -1], np.float32))["constant_labels"] == 0


def test_a_loss_is_zero_where_residuals_are_below_the_rounding_of_the_labels() -> None:
    """A residual of one unit in the last place of labels of 1 is the least float32 can show."""
    alive = np.ones((6, 2), np.float32)
    one_unit = np.finfo(np.float32).eps ** 2
    for loss, zero in [(0.0, 1), (0.5 * one_unit, 1), (2 * one_unit, 0), (0.1, 0)]:
        assert of_minimum(loss, LABELS, alive)["zero_loss"] == zero
    assert of_minimum(2 * one_unit, 10 * LABELS, alive)["zero_loss"] == 1
    assert of_minimum(0.0, 0 * LABELS, alive)["zero_loss"] == 1


def test_a_unit_is_dead_if_no_example_activates_it() -> None:
    before = np.repeat(np.array([[-1, -1, 0], [2, -3, 0]], np.float32), 3, axis=0)
    assert of_minimum(0.1, LABELS, before)["dead_units"] == 2


def test_divergence_is_counted_and_told_apart_where_nothing_stayed_finite() -> None:
    assert of_runs(np.array([0, 1, 0])) == {"diverged": 1, "all_diverged": 0}
    assert of_runs(np.ones((2, 2), bool)) == {"diverged": 4, "all_diverged": 4}
    assert of_runs(np.zeros(3, bool)) == {"diverged": 0, "all_diverged": 0}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


@pytest.mark.parametrize(
    ("diverged", "named"),
    [
        ([[0, 0], [0, 0]], {"zero_loss": 1}),
        ([[1, 0], [1, 1]], {"zero_loss": 1, "diverged": 3}),
        ([[1, 1], [1, 1]], {"zero_loss": 1, "diverged": 4, "all_diverged": 4}),
        # All runs of one shard are not all runs.
        ([[1, 1], [0, 0]], {"zero_loss": 1, "diverged": 2}),
    ],
)
def test_gathered_shards_carry_the_outcomes_of_all_runs(diverged, named, script, tmp_path) -> None:
    files = script("first_passage_files")
    paths = [str(tmp_path / f"{shard}.nc") for shard in range(2)]
    for shard, path in enumerate(paths):
        record = FirstPassage(
            first_passage_step=np.array([[1, 2], [1, 3]]),
            observed_steps=np.array([2, 3]),
            diverged=np.array(diverged[shard], bool),
        )
        files.write_first_passage(
            record,
            range(2 * shard, 2 * shard + 2),
            np.array([1.5, 2.0]),
            path,
            storage.attributes({}, seed=0, equations="(2)"),
            zero_loss=True,
            **{"eta": 0.1, "batch_size": 1, "n_samples": 9, "max_steps": 5, "initial_loss": 1.0},
        )
    assert outcomes_of(files.gathered(paths)) == named


def test_learning_rates_beyond_two_over_the_curvature_are_unstable(script) -> None:
    """One curvature for all cases, or one for each."""
    fits = xr.Dataset(
        {"exponent": ("case", [3.0, np.nan, np.nan]), "eta": ("case", [0.1, 0.19, 0.3])}
    )
    fit_outcomes = script("fits").fit_outcomes
    named = outcomes_of(xr.Dataset(attrs=fit_outcomes(fits, 10.0)))
    assert named == {"too_few_passages": 2, "unstable_learning_rates": 1}
    of_each = xr.DataArray([25.0, 15.0, 6.0], dims="case")
    named = outcomes_of(xr.Dataset(attrs=fit_outcomes(fits, of_each)))
    assert named == {"too_few_passages": 2, "unstable_learning_rates": 2}


def test_every_meaning_is_a_sentence_on_one_line() -> None:
    for name, meaning in MEANINGS.items():
        assert name.isidentifier()
        assert len(meaning) > 20
        assert "\n" not in meaning
