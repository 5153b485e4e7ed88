"""How every figure looks: fonts, sizes, colours, and the marks for simulation and theory.

Simulations are points with 95 % intervals, the paper's theory is dashed, exact answers are thin
solid lines.
"""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import rcsetup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

# Okabe and Ito's palette, distinct to colour-blind readers; markers tell the series apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: Any = {
    "axes.linewidth": 0.7,
    "axes.prop_cycle": rcsetup.cycler(color=COLOURS),
    "errorbar.capsize": 0,
    "figure.dpi": 200,
    "figure.figsize": (3.4, 2.7),
    "figure.constrained_layout.use": True,
    "font.family": "STIXGeneral",
    "font.size": 9,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 0.9,
    "lines.markersize": 3.2,
    "mathtext.fontset": "stix",
    "pdf.fonttype": 42,
    "svg.hashsalt": "sgd-escape",
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
}
THEORY: dict[str, Any] = {"linestyle": (0, (5, 2.5)), "linewidth": 0.9, "zorder": 1}
EXACT: dict[str, Any] = {"linestyle": "-", "linewidth": 0.6, "alpha": 0.8, "zorder": 1}
# Ticks of loss ratios.
ROUND_RATIOS = (1, 1.2, 1.5, 2, 3, 5, 7, 10, 20, 50, 100)
in_style = mpl.rc_context(STYLE)


@in_style
def encoded(figure: Figure, picture_format: str) -> bytes:
    """The file of a figure as "pdf" or "png", without the time of writing: its bytes repeat.

    A logarithmic panel without a number to draw, as where no run passed, says so.
    """
    for axes in figure.axes:
        _tell_if_empty(axes)
    content = io.BytesIO()
    metadata = {"pdf": {"CreationDate": None}, "png": {"Software": None}}[picture_format]
    figure.savefig(content, format=picture_format, metadata=metadata)
    return content.getvalue()


def _tell_if_empty(axes: Axes) -> None:
    """Give logarithmic axes without positive data some limits, which matplotlib cannot find."""
    empty = [
        name
        for name, axis in {"x": axes.xaxis, "y": axes.yaxis}.items()
        if axis.get_scale() == "log" and not min(axis.get_view_interval()) > 0
    ]
    axes.set(**{f"{name}lim": (1, 10) for name in empty})
    if empty:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center")


def single() -> tuple[Figure, Axes]:
    """A figure of one column with one panel."""
    figure = Figure()
    return figure, figure.subplots()


def colour_of(index: int) -> str:
    """The colour of the series of that index."""
    return COLOURS[index % len(COLOURS)]


def points(
    axes: Axes,
    x: np.ndarray,
    fits: xr.Dataset,
    name: str,
    index: int,
    label: str | None,
    *,
    hollow: bool = False,
) -> None:
    """Values of `name` with their intervals `name`_low to `name`_high, where both are finite."""
    value, low, high = (fits[f"{name}{part}"].values for part in ["", "_low", "_high"])
    known = np.isfinite(value) & np.isfinite(high)
    value, low, high = value[known], low[known], high[known]
    axes.errorbar(
        x[known],
        value,
        np.abs([value - low, high - value]),
        fmt=MARKERS[index % len(MARKERS)],
        color=colour_of(index),
        mfc="white" if hollow else None,
        elinewidth=0.8,
        mew=0.7,
        label=label,
        zorder=2,
    )


def plain_ticks(axes: Axes, which: str, ticks: list[float] | np.ndarray) -> None:
    """Ticks at these values only, written as plain numbers, on the axis "x" or "y"."""
    axis = getattr(axes, f"{which}axis")
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
