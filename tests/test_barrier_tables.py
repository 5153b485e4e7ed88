"""The tables of the study of a real barrier, in workflow/scripts/barrier_tables.py."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from scipy import stats

from sgd_escape import SgdEscapeError
from sgd_escape.estimation import Estimate, fit_line

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"


@pytest.fixture
def barrier_tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("barrier_tables")


def study() -> dict[str, Any]:
    text = (SCRIPTS.parents[1] / "config.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["laboratory"]["double_well"]


def rates_file(barrier_cases: ModuleType, dimension: int) -> xr.Dataset:
    """A file of one job, whose rates are numbers that tell the case."""
    wells = barrier_cases.cases_of_dimension(study(), dimension)
    of_case = [barrier_cases.labels(name, case) for name in wells for case in wells[name]]
    rates = [
        [[10 * case["noise_parameter"] + case["minimum_loss"] + len(case["well"]) * 100] * 3] * 2
        for case in of_case
    ]
    return xr.Dataset(
        {"exit_rate": (("case", "step_size", "repetition"), rates)},
        {"step_size": [0.08, 0.02]}
        | {label: ("case", [case[label] for case in of_case]) for label in of_case[0]},
    )


def test_rates_find_their_case_in_whatever_order_the_files_hold_them(
    barrier_tables: ModuleType,
) -> None:
    barrier_cases = importlib.import_module("barrier_cases")
    jobs = [rates_file(barrier_cases, dimension) for dimension in (2, 1)]
    turned = [job.isel(case=slice(None, None, -1)) for job in jobs]
    for files in (jobs, turned):
        found = barrier_tables.rates_by_well(study(), files)
        for name, cases in barrier_cases.study_cases(study()).items():
            expected = [
                10 * case.noise[0] + float(case.well.minimum_loss) + len(name) * 100
                for case in cases
            ]
            np.testing.assert_allclose(found[name]["exit_rate"].values[:, 1, 2], expected)
            assert set(found[name]["well"].values) == {name}


def test_rates_of_another_study_are_refused(barrier_tables: ModuleType) -> None:
    barrier_cases = importlib.import_module("barrier_cases")
    job = rates_file(barrier_cases, 1)
    with pytest.raises(SgdEscapeError, match=r"hold no case with .*'well': 'equal'"):
        barrier_tables.rates_by_well(study(), [job])


def test_the_limit_of_ratios_with_relative_errors_is_right_on_average(
    barrier_tables: ModuleType,
) -> None:
    temperature = np.array([0.25, 0.18, 0.125, 0.1, 0.08, 0.0625])
    expected, error = 1 + 0.5 * temperature, 0.2
    generator = np.random.default_rng(0)
    chance = generator.gamma(error**-2, error**2, (1000, len(temperature)))
    # Each interval is as long as its ratio says, not as the expected one would.
    width = stats.norm.isf(0.025) * error
    ratios = [
        Estimate(*(expected * row * (1 + shift * width) for shift in (0, -1, 1))) for row in chance
    ]
    limits = np.array([barrier_tables.limit_of(temperature, r, expected, 0.95) for r in ratios])
    bound = 4 * stats.sem(limits[:, 0])
    assert limits[:, 0].mean() == pytest.approx(1, abs=bound)
    covered = np.mean((limits[:, 1] < 1) & (limits[:, 2] > 1))
    # Four standard errors below; above, what widening by the scatter adds.
    assert 0.95 - 0.028 < covered < 0.99
    by_width = [fit_line(temperature, ratio, 0.95).intercept.value for ratio in ratios]
    assert np.mean(by_width) < 1 - bound
