"""Figures of the network beyond the paper's: they neither read nor estimate."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgd_escape.figure_style import EXACT, MARKERS, THEORY, colour_of, in_style, points

_SHOWN = 15
_SURROUNDINGS = ("exit_overlap", "final_overlap", "exit_sharpness", "final_sharpness")


@in_style
def collapse(fits: xr.Dataset) -> Figure:
    """Exponents of all seeds and cases: against B/(ηh_1), and against Eq. (15) with intervals."""
    figure = Figure(figsize=(6.8, 3.1))
    left, right = figure.subplots(1, 2, sharey=True)
    for colour, seed in enumerate(fits["seed"].values):
        for marker in range(fits.sizes["case"]):
            case = fits.sel(seed=seed).isel(case=marker)
            x = float(case["scaled_inverse_noise"])
            _exponent(left, case, x, np.zeros((2, 1)), colour, marker)
            predicted = float(case["predicted_exponent"])
            _exponent(right, case, predicted, _errors(case, "predicted_exponent"), colour, marker)
    _lines(left, fits)
    limits = [
        float(fits["predicted_exponent_low"].min()),
        float(fits["predicted_exponent_high"].max()),
    ]
    right.plot(limits, limits, color="0.3", **THEORY)
    left.set(xlabel=r"$B/(\eta h_1)$", ylabel="exponent, measured")
    right.set(xlabel="exponent by Eq. (15)")
    _keys(right, fits)
    return _named(figure)


@in_style
def escape_direction(*escapes: xr.Dataset) -> Figure:
    """What a displacement at first passage is made of, eigenvector by eigenvector."""
    figure = Figure(figsize=(6.8, 2.9))
    left, right = figure.subplots(1, 2)
    for index, escape in enumerate(escapes):
        last, label = escape.isel(exit=-1), f"seed {escape.attrs['seed']}"
        first = last.isel(direction=slice(_SHOWN))
        x = first["direction"].values + 0.13 * (index - len(escapes) // 2)
        points(left, x, first, "mean_loss_share", index, label)
        cumulated = last["mean_squared_share"].cumsum("direction")
        right.plot(last["direction"], cumulated, color=colour_of(index), label=label)
        count = min(int(last["count"]), last.sizes["direction"])
        right.plot(count, cumulated[count - 1], MARKERS[index % 7], color=colour_of(index))
    reference = escapes[0].isel(direction=slice(_SHOWN))
    equal = reference["eigenvalue"] / reference["curvature_trace"]
    left.plot(reference["direction"], equal, color="0.3", **THEORY, label=r"$h_i/\mathrm{Tr}\,H$")
    ratio = float(reference["exit"][-1])
    left.set(xlabel="$i$", ylabel=rf"$h_iz_i^2/\,2(L-L^*)$ at $c={ratio:g}$")
    right.set(xlabel="$i$", ylabel=r"share of $|\theta-\theta^*|^2$ in $v_1,\ldots,v_i$")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend()
    return _named(figure)


@in_style
def drift(*escapes: xr.Dataset) -> Figure:
    """The minimum below a run against time: its loss, and the overlap of the leading spaces."""
    figure = Figure(figsize=(6.8, 2.9))
    left, right = figure.subplots(1, 2)
    for index, escape in enumerate(escapes):
        label, step = f"seed {escape.attrs['seed']}", escape["step"].values
        shift = index - len(escapes) // 2
        points(left, step * 1.05**shift, escape, "drift", index, label)
        left.plot(step * 1.05**shift, escape["drift"], color=colour_of(index), **EXACT)
        for position, name in enumerate(_SURROUNDINGS):
            at = np.array([position + 0.08 * shift])
            points(right, at, escape.expand_dims("one"), f"mean_{name}", index, None)
    left.axhline(0, color="0.3", **THEORY)
    left.set(xscale="log", xlabel="step", ylabel="loss of the minimum below, relative change")
    right.axhline(1, color="0.3", **THEORY)
    right.set(xlim=(-0.5, 3.5), ylim=(0, None), ylabel=r"relative to $\theta^*$")
    when = [f"$c={float(escapes[0]['exit'][-1]):g}$", f"step {step[-1]}"]
    right.set_xticks(
        range(4), [f"{what}\n{at}" for what in ["overlap", "$h_1$"] for at in when], fontsize=8
    )
    left.legend()
    return _named(figure)


def _exponent(
    axes: Axes, case: xr.Dataset, x: float, x_errors: np.ndarray, colour: int, marker: int
) -> None:
    axes.errorbar(
        x,
        float(case["exponent"]),
        _errors(case, "exponent"),
        x_errors,
        fmt=MARKERS[marker % len(MARKERS)],
        color=colour_of(colour),
        elinewidth=0.6,
    )


def _errors(case: xr.Dataset, name: str) -> np.ndarray:
    value, low, high = (float(case[f"{name}{part}"]) for part in ["", "_low", "_high"])
    return np.abs([[value - low], [high - value]])


def _lines(axes: Axes, fits: xr.Dataset) -> None:
    """The line through all points, and Eq. (15) with the range of n over the seeds."""
    x = np.array([fits["scaled_inverse_noise"].min(), fits["scaled_inverse_noise"].max()])
    slope, dimension = float(fits["collapse_slope"]), float(fits["collapse_dimension"])
    fitted = f"slope {slope:.2f}, $n={dimension:.1f}$"
    axes.plot(x, slope * x + 1 - dimension / 2, color="0.3", **EXACT, label=fitted)
    own = fits["effective_dimension"].values
    axes.plot(x, x + 1 - own.mean() / 2, color="0.3", **THEORY, label="Eq. (15), mean $n$")
    axes.fill_between(x, x + 1 - own.max() / 2, x + 1 - own.min() / 2, color="0.9", zorder=0)
    axes.legend()


def _keys(axes: Axes, fits: xr.Dataset) -> None:
    for colour, seed in enumerate(fits["seed"].values):
        axes.plot([], [], color=colour_of(colour), label=f"seed {seed}")
    for marker in range(fits.sizes["case"]):
        eta, batch_size = (fits[name].values[marker] for name in ["eta", "batch_size"])
        label = rf"$\eta={eta:g}$, $B={batch_size}$"
        axes.plot([], [], MARKERS[marker % len(MARKERS)], color="0.3", label=label)
    axes.legend(ncols=2, loc="upper left")


def _named(figure: Figure) -> Figure:
    for axes, name in zip(figure.axes, "ab", strict=True):
        axes.set_title(f"({name})", loc="left", fontsize=9)
    return figure
