"""The tables of the study of a real barrier, in workflow/scripts/barrier_tables.py."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from sgd_escape.estimation import Estimate, fit_line

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"


@pytest.fixture
def barrier_tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("barrier_tables")


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
