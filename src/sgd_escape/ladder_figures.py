"""Figures of the ladder from finite data to the power law: rungs, regimes, critical dimension."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sgd_escape.figure_style import (
    COLOURS,
    EXACT,
    MARKERS,
    THEORY,
    colour_of,
    in_style,
    plain_ticks,
    points,
)

_RUNGS = {
    "fresh_data": "fresh data, exact",
    "gaussian_noise": "Gaussian noise, exact",
    "exact_covariance": "Eq. (4), exact",
    "decoupled_noise": "Eq. (12), exact",
}
_APPROXIMATIONS = {
    "infinite_data": "infinite data",
    "gaussian_noise": "Gaussian noise",
    "continuous_time": "continuous time",
    "decoupled_noise": "decoupled noise",
    "weak_noise": "weak noise, large $c$",
}
_RATIO = r"$c=L(\theta^s)/L(\theta^*)$"
_DATA = 6


@in_style
def ladder(study: xr.Dataset) -> Figure:
    """Local exponents of all rungs against c: a column for each d, a row for each η, smallest B."""
    rows, columns = study.sizes["eta"], study.sizes["dimension"]
    figure = Figure(figsize=(0.5 + 1.6 * columns, 0.7 + 1.7 * rows))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        case = study.isel(eta=row, dimension=column, batch_size=0)
        _slopes(axes, case)
        axes.set_title(_named(case, "dimension", "eta", "batch_size"), fontsize=8)
    highest = 4 * float(study["predicted_exponent"].max())
    grid[0, 0].set(xscale="log", yscale="log", ylim=(0.4, highest))
    plain_ticks(grid[0, 0], "x", [1.5, 3.0, 7.0])
    plain_ticks(grid[0, 0], "y", [1, 3, 10, 30])
    for axes in grid[-1]:
        axes.set_xlabel(_RATIO)
    for axes in grid[:, 0]:
        axes.set_ylabel(r"$\mathrm{d}\log\tau/\mathrm{d}\log c$")
    _legend_below(figure, grid[0, 0], 4)
    return figure


@in_style
def error_budget(study: xr.Dataset) -> Figure:
    """What each approximation adds to log τ (top, largest η, smallest B) and to the exponent."""
    cases = [
        study.isel(eta=eta, batch_size=batch_size)
        for eta in range(study.sizes["eta"])
        for batch_size in range(study.sizes["batch_size"])
    ]
    columns = max(study.sizes["dimension"], len(cases))
    figure = Figure(figsize=(0.5 + 1.6 * columns, 4.4))
    grid = figure.subplots(2, columns, squeeze=False, sharey="row")
    for axes, (_, case) in zip(
        grid[0], study.isel(eta=-1, batch_size=0).groupby("dimension"), strict=False
    ):
        _times(axes, case.squeeze("dimension"))
    for axes, case in zip(grid[1], cases, strict=False):
        _exponents(axes, case)
    for axes in [*grid[0, study.sizes["dimension"] :], *grid[1, len(cases) :]]:
        axes.set_visible(False)
    grid[0, 0].set_yscale("symlog", linthresh=1)
    grid[0, 0].set_ylabel(r"added to $\log\tau$")
    grid[1, 0].set_yscale("symlog", linthresh=1)
    grid[1, 0].set_ylabel("added to the exponent,\nover that of Eq. (15)")
    _legend_below(figure, grid[1, 0], len(_APPROXIMATIONS))
    return figure


@in_style
def regime_map(study: xr.Dataset) -> Figure:
    """Where the local slope is that of a law within 10 %: a row for each exact answer."""
    rungs = [str(rung) for rung in study["exact_rung"].values]
    columns = study.sizes["dimension"]
    figure = Figure(figsize=(0.6 + 1.6 * columns, 0.6 + 1.6 * len(rungs)))
    grid = figure.subplots(len(rungs), columns, sharex=True, sharey=True, squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        case = study.isel(exact_rung=row, dimension=column)
        if np.isfinite(case["arrhenius_ratio"]).any():
            _regimes(axes, case)
            title = f"$d={int(case['dimension'])}$, {_SHORT[rungs[row]]}"
            axes.set_title(title, fontsize=8)
        else:
            axes.set_visible(False)
    c = study["threshold"].values
    grid[0, 0].set(xscale="log", yscale="log", ylim=(c[0], c[-1]))
    plain_ticks(grid[0, 0], "x", [0.02, 0.05, 0.1, 0.3])
    plain_ticks(grid[0, 0], "y", [2, 5, 10, 20])
    for axes in grid[:, 0]:
        axes.set_ylabel("$c$")
    for column in range(columns):
        shown = [axes for axes in grid[:, column] if axes.get_visible()]
        shown[-1].set_xlabel(r"$T=\eta h/B$")
        shown[-1].tick_params(labelbottom=True)
    handles = [Patch(color=colour, alpha=0.6, label=label) for colour, label in _LAWS.values()]
    handles.append(Patch(fill=False, hatch="////", lw=0, label="power law fits better"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


_SHORT = {
    "decoupled_noise": "Eq. (12)",
    "exact_covariance": "Eq. (4)",
    "fresh_data": "SGD, $B=1$",
}
_LAWS = {
    "power_law_ratio": (COLOURS[0], "Eq. (15) within 10 %"),
    "arrhenius_ratio": (COLOURS[1], r"$(B/\eta h)\,(c-1)$ within 10 %"),
}


@in_style
def critical_dimension(study: xr.Dataset) -> Figure:
    """(a) exponents at c → ∞ against d, where simulated; (b) critical dimensions over n_c."""
    figure = Figure(figsize=(6.8, 2.9))
    left, right = figure.subplots(1, 2)
    simulated = study[["simulated_eta", "simulated_batch_size"]]
    eta, batch_size = (value.item() for value in simulated.data_vars.values())
    case = study.sel(eta=eta, batch_size=batch_size)
    _tail_exponents(left, case)
    for index, batch_size in enumerate(study["batch_size"].values):
        of_size = study.sel(batch_size=batch_size)
        for name, hollow in [("lyapunov_dimension", False), ("mean_square_dimension", True)]:
            right.plot(
                of_size["eta"],
                of_size[name] / of_size["critical_dimension"],
                MARKERS[index] + "-",
                color=colour_of(index),
                mfc="white" if hollow else None,
                label=f"$B={batch_size}$, {_LIMITS[name]}",
            )
    right.axhline(1, color="0.3", **THEORY, label="Eq. (16)")
    right.set(xscale="log", xlabel=r"$\eta$", ylabel="critical dimension / $n_c$", ylim=(0, 1.1))
    plain_ticks(right, "x", study["eta"].values)
    right.legend(loc="lower left")
    for axes, name in [(left, "a"), (right, "b")]:
        axes.set_title(f"({name})", loc="left", fontsize=9)
    return figure


_LIMITS = {
    "lyapunov_dimension": r"$\langle\log R\rangle=0$",
    "mean_square_dimension": r"$\langle R^2\rangle=1$",
}


def _slopes(axes: Axes, case: xr.Dataset) -> None:
    for index, (rung, label) in enumerate(_RUNGS.items()):
        line = case["local_slope"].sel(exact_rung=rung)
        axes.plot(case["middle"], line, color=colour_of(index), label=label)
    axes.plot(case["middle"], case["weak_noise_slope"], ":", color="0.4", label="$(B/\\eta)(c-1)$")
    limit = case["quasi_potential_slope"]
    x, colour = case["data_middle"], colour_of(_DATA)
    axes.plot(x, limit, "-.", lw=0.8, color=colour, label="finite data, weak noise")
    exponent = float(case["predicted_exponent"])
    if exponent > 0:
        axes.axhline(exponent, color="0.3", **THEORY)
    axes.plot([], [], color="0.3", **THEORY, label="Eq. (15)")
    points(axes, case["data_middle"].values, case, "data_local_slope", _DATA, "SGD, finite data")


def _times(axes: Axes, case: xr.Dataset) -> None:
    c = case["data_threshold"].values
    for index, name in enumerate(_APPROXIMATIONS):
        if name in case["share"].values:
            share = case.sel(share=name)
            axes.plot(c, share["time_share"], "-", lw=0.5, color=colour_of(index))
            points(axes, c, share, "time_share", index, None)
    axes.axhline(0, color="0.3", **EXACT)
    axes.set(xscale="log", xlabel=_RATIO)
    axes.set_title(_named(case, "dimension", "eta", "batch_size"), fontsize=8)
    plain_ticks(axes, "x", [1.5, 3.0, 7.0])


def _exponents(axes: Axes, case: xr.Dataset) -> None:
    place = np.arange(case.sizes["dimension"])
    bounds = [f"exponent_share{part}" for part in ["", "_low", "_high"]]
    relative = case[bounds] / case["predicted_exponent"]
    for index, (name, label) in enumerate(_APPROXIMATIONS.items()):
        shift = 0.12 * (index - 2)
        share = relative.sel(approximation=name)
        points(axes, place + shift, share, "exponent_share", index, label)
    axes.axhline(0, color="0.3", **EXACT)
    axes.axhspan(-0.1, 0.1, color="0.92", zorder=0)
    axes.set(xlabel="$d$", xticks=place, xticklabels=case["dimension"].values)
    axes.set_title(_named(case, "eta", "batch_size"), fontsize=8)


def _regimes(axes: Axes, case: xr.Dataset) -> None:
    place = case["temperature"].values, case["threshold"].values
    for name, (colour, _) in _LAWS.items():
        deviation = abs(case[name].transpose("threshold", "temperature").values - 1)
        if np.nanmin(deviation) < 0.1:
            axes.contourf(
                *place, np.nan_to_num(deviation, nan=9), [0, 0.1], colors=[colour], alpha=0.6
            )
    gain = case["power_law_gain"].transpose("threshold", "temperature").values
    if np.nanmax(gain) > 0:
        axes.contourf(*place, gain, [0, np.inf], colors="none", hatches=["////"])


def _tail_exponents(axes: Axes, case: xr.Dataset) -> None:
    d = case["dimension"].values
    axes.plot(d, case["exponent"], color=COLOURS[0], label=r"SGD, exact: $\alpha/2$")
    axes.plot(
        d, case["exact_covariance_exponent"], color=COLOURS[2], label="Eq. (4), exact covariance"
    )
    axes.plot(d, case["predicted_exponent"], color="0.3", **THEORY, label="Eq. (15)")
    x = case["simulated_dimension"].values
    axes.plot(x, case["matrix_exponent"], "_", color=COLOURS[0], ms=7, label="matrix, finite $c$")
    points(axes, x, case, "simulated_exponent", 1, "splitting, finite $c$")
    lines: dict[str, tuple[str, Any]] = {
        "critical_dimension": ("$n_c$, Eq. (16)", "--"),
        "lyapunov_dimension": (_LIMITS["lyapunov_dimension"], "-"),
        "mean_square_dimension": (_LIMITS["mean_square_dimension"], ":"),
    }
    for name, (label, style) in lines.items():
        axes.axvline(float(case[name]), color="0.5", lw=0.7, ls=style, label=label)
    axes.set(xlabel="$d$", ylabel=r"$\mathrm{d}\log\tau/\mathrm{d}\log c$", ylim=(-0.5, None))
    axes.legend(fontsize=6.5, loc="upper right", frameon=True, edgecolor="none")


def _named(case: xr.Dataset, *names: str) -> str:
    symbols = {"dimension": "d", "eta": r"\eta", "batch_size": "B"}
    return ", ".join(f"${symbols[name]}={case[name].item():g}$" for name in names)


def _legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
