"""The figures of a real barrier: dataset in, Matplotlib figure out."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgd_escape.figure_style import EXACT, THEORY, colour_of, in_style, plain_ticks, points

_WELLS = {
    "line": "$n=1$",
    "equal": r"$n=2$, $h_i^s=h_i^*=h_e^*$",
    "proportional": r"$n=2$, $h_i^s>h_i^*=h_e^*$",
    "widening": r"$n=2$, $h_i^s<h_i^*=h_e^*$",
    "unbalanced": r"$n=2$, $h_i^s=h_i^*\neq h_e^*$",
    "gld": "GLD, $n=1$",
}
_NOISES = {"sgd": "Eq. (12)", "gld": "GLD, one $D$"}
_MATCHED: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 1.0}


@in_style
def double_well(study: xr.Dataset) -> Figure:
    """Rates of escape over the theory's against T, a panel for the prefactor of each.

    (a) Eq. (15) or Kramers' rate as printed, with the limits that the corrected prefactor predicts;
    (b) the corrected prefactor; both with fitted limits at T = 0. (c) the exact rate.
    """
    figure = Figure(figsize=(6.8, 3.1))
    panels = figure.subplots(1, 3)
    for index, (name, label) in enumerate(_WELLS.items()):
        well = study.sel(well=name)
        exact = {
            "printed": well["exact_ratio_printed"],
            "corrected": well["exact_ratio_printed"] / well["transverse_factor"],
            "exact": xr.ones_like(well["exact_ratio_printed"]),
        }
        for axes, theory in zip(panels, exact, strict=True):
            _against_temperature(axes, well, f"ratio_{theory}", exact[theory], index, label)
        for axes, theory in zip(panels[:2], exact, strict=False):
            _limit(axes, well, f"limit_{theory}", index)
        panels[0].axhline(float(well["transverse_factor"]), color=colour_of(index), **THEORY)
    for axes in panels[1:]:
        axes.axhline(1, color="0.3", **THEORY)
    names = ["Eq. (15) as printed", "corrected prefactor", "exact"]
    for letter, axes, name in zip("abc", panels, names, strict=True):
        axes.set(xlabel=r"$T=\eta h_e^*/B$", xlim=(-0.012, None))
        axes.set_title(f"({letter}) {name}", loc="left", fontsize=9)
    panels[0].set_ylabel(r"rate / theory")
    handles, labels = panels[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


@in_style
def contrast(study: xr.Dataset) -> Figure:
    """log κ of Eq. (12) and of GLD over wells of (a) one ΔL and (b) one L_s/L*, against L*."""
    figure = Figure(figsize=(6.8, 2.8))
    panels = figure.subplots(1, 2, sharey=True)
    titles = [r"same $\Delta L$", r"same $L(\theta^s)/L(\theta^*)$"]
    for letter, axes, series, title in zip("ab", panels, study["series"], titles, strict=True):
        of_series = study.sel(series=series)
        lines = of_series["line_minimum_loss"]
        for index, (noise, label) in enumerate(_NOISES.items()):
            exact = of_series[f"{noise}_log_rate_exact"]
            axes.plot(lines, exact / np.log(10), color=colour_of(index), **EXACT)
            rates = of_series[[f"{noise}_log_rate{part}" for part in ["", "_low", "_high"]]]
            minimum = of_series["contrast_minimum_loss"].values
            points(axes, minimum, rates / np.log(10), f"{noise}_log_rate", index, label)
        matched = of_series["matched_log_rate_exact"] / np.log(10)
        axes.plot(lines, matched, label="GLD, $D$ matched at each $L^*$", **_MATCHED)
        axes.set(xscale="log", xlabel=r"$L(\theta^*)$")
        plain_ticks(axes, "x", of_series["contrast_minimum_loss"].values)
        axes.set_title(f"({letter}) {title}", loc="left", fontsize=9)
    panels[0].set_ylabel(r"$\log_{10}\kappa$")
    panels[1].legend()
    return figure


def _against_temperature(
    axes: Axes, well: xr.Dataset, name: str, exact: xr.DataArray, index: int, label: str
) -> None:
    temperature = well["temperature"].values
    axes.plot(temperature, exact, color=colour_of(index), **EXACT)
    # Side by side, where several wells share a ratio.
    shift = 0.0015 * (index - (len(_WELLS) - 1) / 2)
    points(axes, temperature + shift, well, name, index, label)


def _limit(axes: Axes, well: xr.Dataset, name: str, index: int) -> None:
    shift = 0.0015 * (index - (len(_WELLS) - 1) / 2)
    limit = well[[f"{name}{part}" for part in ["", "_low", "_high"]]].expand_dims("limit")
    points(axes, np.array([shift]), limit, name, index, None, hollow=True)
