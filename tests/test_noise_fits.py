"""The estimates from one training, in workflow/scripts/noise_fits.py."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from sgd_escape.estimation import Bootstrap

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
STAGES = {"late": 10.0, "intermediate": [0.1, 1.0], "small": 0.01, "blocks": 10}
BOOTSTRAP = Bootstrap(confidence=0.95, resamples=200, seed=0)
EPOCHS = 400


@pytest.fixture
def noise_fits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("noise_fits")


def training(loss_function: str, *, diverged: bool = False) -> xr.Dataset:
    """L falls from 5 to 1e-3; N is constant above L = 1, then 50 L, and below 0.1 it is 500 L²."""
    loss = np.geomspace(5, 1e-3, EPOCHS)
    noise = np.where(loss > 1, 50, np.where(loss > 0.1, 50 * loss, 500 * loss**2))
    if diverged:
        loss[EPOCHS // 2 :] = noise[EPOCHS // 2 :] = np.nan
    trace_epoch = np.array([0, 10, 100, EPOCHS - 1])
    # Eq. (9) for 4 outputs, times 1, 3, 1/5 and 2.
    factor = 4 * (noise / (2 * loss))[trace_epoch] / np.array([1, 3, 0.2, 2])
    return xr.Dataset(
        {
            "loss": ("epoch", loss),
            "noise_strength": ("epoch", noise),
            "trace_factor": ("trace_epoch", factor),
            "weighted_trace_factor": ("trace_epoch", 2 * factor),
            "outputs": 4,
        },
        {"epoch": np.arange(EPOCHS), "trace_epoch": trace_epoch},
        {"loss_function": loss_function},
    )


def test_the_stages_of_cross_entropy_are_its_losses_of_intermediate_and_small_size(
    noise_fits: ModuleType,
) -> None:
    fitted = noise_fits.fit_stages(training("cross_entropy"), STAGES, BOOTSTRAP)
    assert list(fitted["stage"].values) == ["intermediate", "small"]
    np.testing.assert_allclose(fitted["slope"], [1, 2], rtol=1e-9)
    np.testing.assert_allclose(fitted["loss_low"], [0.1, 0.001], rtol=0.03)
    np.testing.assert_allclose(fitted["loss_high"], [1, 0.01], rtol=0.03)
    assert float(fitted["factor"].sel(stage="intermediate")) == pytest.approx(50)


def test_the_late_stage_of_the_mean_square_loss_is_its_last_decade_and_early_is_the_rest(
    noise_fits: ModuleType,
) -> None:
    fitted = noise_fits.fit_stages(training("mean_square"), STAGES, BOOTSTRAP)
    late, early = fitted.sel(stage="late"), fitted.sel(stage="early")
    assert float(late["slope"]) == pytest.approx(2)
    np.testing.assert_allclose([late["loss_low"], late["loss_high"]], [0.001, 0.01], rtol=0.03)
    assert int(late["epochs"]) + int(early["epochs"]) == EPOCHS
    assert 0.5 < float(early["slope"]) < 1.9


def test_windows_are_half_decades_and_those_with_few_epochs_have_no_slope(
    noise_fits: ModuleType,
) -> None:
    fitted = noise_fits.fit_windows(training("cross_entropy"), BOOTSTRAP)
    slope = fitted["window_slope"].values
    np.testing.assert_allclose(np.diff(np.log10(fitted["window"])), 0.5)
    inside = (fitted["window"].values > 0.1) & (fitted["window"].values < 1)
    np.testing.assert_allclose(slope[inside], 1, rtol=1e-9)
    below = (fitted["window"].values > 0.001) & (fitted["window"].values < 0.1)
    np.testing.assert_allclose(slope[below], 2, rtol=1e-9)
    assert np.isnan(slope[fitted["window_epochs"].values < 20]).all()


def test_the_trace_ratio_is_that_of_one_output_and_the_farthest_is_by_its_factor(
    noise_fits: ModuleType,
) -> None:
    fitted = noise_fits.fit_trace_factors(training("mean_square"))
    assert float(fitted["trace_ratio_least"]) == pytest.approx(0.2)
    assert float(fitted["trace_ratio_most"]) == pytest.approx(3)
    assert float(fitted["trace_ratio"]) == pytest.approx(1.5)
    assert float(fitted["farthest_trace_ratio"]) == pytest.approx(0.2)
    assert float(fitted["weighted_trace_ratio"]) == pytest.approx(0.75)


def test_a_training_that_diverged_is_fitted_up_to_then(noise_fits: ModuleType) -> None:
    run = training("mean_square", diverged=True)
    fitted = noise_fits.fit_stages(run, STAGES, BOOTSTRAP)
    assert int(fitted["epochs"].sum()) == EPOCHS // 2
    traces = noise_fits.fit_trace_factors(run)
    assert float(traces["trace_ratio"]) == pytest.approx(1)
    assert np.isfinite(float(traces["farthest_trace_ratio"]))


def test_epochs_without_loss_change_no_number_of_the_others(noise_fits: ModuleType) -> None:
    """A loss of 1e-16 is the rounding of float32 labels of mean square 1/4."""
    run = training("mean_square")
    silent = run.copy(deep=True)
    for name in ["loss", "noise_strength"]:
        silent[name][-3:] = [np.inf, 1e-16, 0]
    kept = noise_fits.with_noise(silent)
    # The last epoch is one of the traces.
    xr.testing.assert_identical(kept, run.isel(epoch=slice(-3), trace_epoch=slice(-1)))
