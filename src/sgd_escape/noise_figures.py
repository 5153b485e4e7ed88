"""The figures of the noise: dataset in, Matplotlib figure out. They neither read nor estimate."""

import json
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

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

_LOSS, _NOISE = COLOURS[0], COLOURS[1]
_BINS_PER_DECADE = 4


@in_style
def fig1(*compared: xr.Dataset) -> Figure:
    """Fig. 1: spectra of both sides of Eq. (7), a panel for each epoch of training."""
    columns = min(len(compared), 3)
    rows = -(-len(compared) // columns)
    figure = Figure(figsize=(0.4 + 2.25 * columns, 0.2 + 2.4 * rows))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels, unused = grid.flat[: len(compared)], grid.flat[len(compared) :]
    edges = _edges(compared)
    for name, axes, spectra in zip("abcdef", panels, compared, strict=False):
        _spectra(axes, spectra, edges)
        epoch = int(spectra["epoch"])
        stage = f"after {epoch} epoch{'s' * (epoch > 1)}" if epoch else "at initialization"
        axes.set_title(f"({name}) {stage}", loc="left", fontsize=9)
    for axes in panels[-columns:]:
        axes.set_xlabel("eigenvalue")
        axes.tick_params(labelbottom=True)
    for axes in unused:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"count, of $N={compared[0].sizes['index']}$")
    panels[0].set(xscale="log", yscale="log", xlim=(edges[0], edges[-1]), ylim=(0.7, None))
    panels[0].set_ylim(top=4 * panels[0].get_ylim()[1])
    panels[0].set_xticks(
        [10.0**power for power in range(-32, 32, 4) if edges[0] < 10.0**power < edges[-1]]
    )
    panels[0].xaxis.set_minor_locator(NullLocator())
    legends = (axes.get_legend_handles_labels() for axes in panels)
    if legend := next((legend for legend in legends if legend[1]), None):
        figure.legend(*legend, loc="outside lower center", ncols=len(legend[1]))
    return figure


@in_style
def fig2(fully_connected: xr.Dataset, convolutional: xr.Dataset, fits: xr.Dataset) -> Figure:
    """Fig. 2: mean-square loss and noise strength along two trainings, and one against the other.

    Left and middle against the epoch, right N against L of the convolutional network.
    """
    figure = Figure(figsize=(6.8, 2.6))
    left, middle, right = figure.subplots(1, 3)
    late = fits.sel(stage="late")
    _dynamics(left, fully_connected, late.sel(architecture="fc"))
    _dynamics(middle, convolutional, late.sel(architecture="cnn"))
    _noise_against_loss(right, convolutional, [(late.sel(architecture="cnn"), 1)])
    _name_panels([left, middle, right], [fully_connected, convolutional, convolutional])
    return figure


@in_style
def fig5(fully_connected: xr.Dataset, convolutional: xr.Dataset, fits: xr.Dataset) -> Figure:
    """Fig. 5: the same for the cross-entropy loss; (c) and (d) N against L of both networks."""
    figure = Figure(figsize=(6.8, 4.8))
    grid = figure.subplots(2, 2)
    for column, (run, architecture) in enumerate([(fully_connected, "fc"), (convolutional, "cnn")]):
        intermediate, small = (
            fits.sel(architecture=architecture, stage=stage) for stage in ["intermediate", "small"]
        )
        _dynamics(grid[0, column], run, intermediate)
        _noise_against_loss(grid[1, column], run, [(intermediate, 1), (small, 2)])
    _name_panels(list(grid.flat), 2 * [fully_connected, convolutional])
    return figure


@in_style
def trace_factor(fully_connected: xr.Dataset, convolutional: xr.Dataset) -> Figure:
    """N/2L and (1/K)(1/N) Σ |∇f|² against the mean-square loss: equal by Eq. (9)."""
    figure = Figure(figsize=(6.8, 2.6))
    panels = figure.subplots(1, 2)
    for axes, run in zip(panels, [fully_connected, convolutional], strict=True):
        there = run.sel(epoch=run["trace_epoch"])
        axes.plot(run["loss"], run["noise_strength"] / (2 * run["loss"]), ".", ms=2.5, color=_NOISE)
        for name, style in _TRACES.items():
            axes.plot(there["loss"], there[name] / float(run["outputs"]), **style)
        axes.set(xscale="log", yscale="log", xlabel=r"$L(\theta)$, falling in training")
        for which in "xy":
            _decade_ticks(axes, which)
        axes.invert_xaxis()
    panels[0].plot([], [], ".", color=_NOISE, label=r"$\mathcal{N}/2L$")
    panels[0].legend(loc="upper left")
    _name_panels(list(panels), [fully_connected, convolutional])
    return figure


@in_style
def alignment(*seeds: xr.Dataset) -> Figure:
    """Eq. (6) along the leading eigenvectors, one series a seed; intervals for the first of them.

    (a) noise over 2L against the eigenvalue; (b) their ratio by rank, with that of the traces;
    (c) eigenvalues of the exact Hessian relative to those of Eq. (44).
    """
    figure = Figure(figsize=(6.8, 2.4))
    left, middle, right = figure.subplots(1, 3)
    for index, run in enumerate(seeds):
        curvature, label = run["eigenvalue"].values, f"seed {run.attrs['seed']}"
        _series(left, curvature, run["noise"] / (2 * run["loss"]), index, label)
        if index:
            _series(middle, run["direction"], run["noise_ratio"], index, None, alpha=0.45)
        deviation = 100 * (run["exact_eigenvalue"] / curvature - 1)
        _series(right, curvature, deviation, index, None)
    _ratios(middle, seeds[0])
    _equality(left, np.concatenate([run["eigenvalue"].values for run in seeds]))
    right.axhline(0, color="0.3", **THEORY)
    right.set(xscale="log", xlabel="$h_i$, Eq. (44)", ylabel=r"exact$\,/\,$Eq. (44) $-$ 1 (%)")
    for axes, name in zip([left, middle, right], "abc", strict=True):
        axes.set_title(f"({name})", loc="left", fontsize=9)
    for axes, which in [(left, "x"), (left, "y"), (right, "x")]:
        _decade_ticks(axes, which)
    return figure


def _edges(compared: tuple[xr.Dataset, ...]) -> np.ndarray:
    """Bins equally wide in the logarithm, in whole decades around all that is not rounding."""
    known = [spectra for spectra in compared if np.isfinite(spectra["rounding_floor"])]
    lowest = min((float(spectra["rounding_floor"]) for spectra in known), default=1)
    highest = max((float(spectra[name][0]) for spectra in known for name in _SIDES), default=1)
    low, high = int(np.floor(np.log10(lowest))) - 1, int(np.ceil(np.log10(highest))) + 1
    return np.logspace(low, high, (high - low) * _BINS_PER_DECADE + 1)


_SIDES: dict[str, dict[str, Any]] = {
    "eigenvalue_exact": {
        "histtype": "stepfilled",
        "color": COLOURS[5],
        "alpha": 0.75,
        "label": r"exact, $\frac{1}{N}\sum\ell_\mu C_f^{(\mu)}$",
    },
    "eigenvalue_decoupled": {
        "histtype": "step",
        "color": COLOURS[1],
        "linewidth": 1.0,
        "label": r"decoupled, $\frac{L}{N}\sum C_f^{(\mu)}$",
    },
}


def _spectra(axes: Axes, spectra: xr.Dataset, edges: np.ndarray) -> None:
    if not np.isfinite(spectra["rounding_floor"]):
        text = f"no spectra, $L={float(spectra['loss']):.2g}$"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center")
        return
    for name, style in _SIDES.items():
        # What lies outside is rounding, of either sign.
        values = np.clip(spectra[name].values, edges[0], edges[-1])
        axes.hist(values, edges.tolist(), **style)
    floor = float(spectra["rounding_floor"])
    axes.axvspan(edges[0], floor, color="0.9", zorder=0)
    axes.axvline(floor, color="0.45", linewidth=0.7, label="rounding floor")
    numbers = [
        f"$L={float(spectra['loss']):.2g}$",
        f"distance {float(spectra['relative_distance']):.2f}"
        f" ({float(spectra['permuted_distance']):.2f})",
        f"overlap {float(spectra['overlap']):.2f}",
        f"correlation {float(spectra['correlation']):.2f}".replace("-", "\N{MINUS SIGN}"),
    ]
    axes.annotate(
        "\n".join(numbers),
        (floor, 0.96),
        (5, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        size=7.5,
    )


@in_style
def noise_slopes(fits: xr.Dataset) -> Figure:
    """Slope of log N against log L in every half of a decade of L: where is N ∝ L, where N ∝ L²?"""
    figure = Figure(figsize=(6.8, 2.5))
    panels = figure.subplots(1, 2, sharey=True)
    for name, axes, loss in zip("ab", panels, ["mean_square", "cross_entropy"], strict=True):
        of_loss = fits.sel(loss_function=loss)
        for index, (architecture, label) in enumerate(_ARCHITECTURES.items()):
            shift = 10 ** (0.04 * (index - 0.5))
            slopes = of_loss.sel(architecture=architecture)
            points(axes, slopes["window"].values * shift, slopes, "window_slope", index, label)
        for slope in [1, 2] if loss == "cross_entropy" else [1]:
            axes.axhline(slope, color="0.3", **THEORY)
        axes.set(xscale="log", xlabel=r"$L(\theta)$, falling in training")
        axes.invert_xaxis()
        axes.set_title(f"({name}) {loss.replace('_', '-')}", loc="left", fontsize=9)
    panels[0].set_ylabel(r"$\mathrm{d}\log\mathcal{N}/\mathrm{d}\log L$")
    panels[0].legend()
    return figure


_ARCHITECTURES = {"fc": "fully connected", "cnn": "convolutional"}


_TRACES: dict[str, dict[str, Any]] = {
    "trace_factor": {
        "marker": "o",
        "linestyle": "",
        "color": _LOSS,
        "mfc": "white",
        "mew": 0.8,
        "label": r"$\frac{1}{KN}\sum_{\mu,k}|\nabla f_k|^2$",
    },
    "weighted_trace_factor": {
        "marker": "^",
        "linestyle": "",
        "color": COLOURS[2],
        "mfc": "white",
        "mew": 0.8,
        "label": r"$\frac{1}{KNL}\sum_{\mu,k}\ell_\mu|\nabla f_k|^2$",
    },
}


def _dynamics(axes: Axes, run: xr.Dataset, stage: xr.Dataset) -> None:
    """Both against the epoch, N divided so that it lies on L where N ∝ L is fitted."""
    factor = float(stage["factor"])
    axes.plot(run["epoch"], run["loss"], color=_LOSS, label="$L$")
    if np.isfinite(factor):
        label = rf"$\mathcal{{N}}/{factor:.3g}$"
        axes.plot(run["epoch"], run["noise_strength"] / factor, "--", color=_NOISE, label=label)
    axes.set(yscale="log", xlabel="epoch")
    _decade_ticks(axes, "y")
    axes.legend(loc="upper right")


def _noise_against_loss(axes: Axes, run: xr.Dataset, stages: list[tuple[xr.Dataset, int]]) -> None:
    """N against L at every epoch, with lines of the claimed slopes where the slopes are fitted."""
    loss, noise = run["loss"].values, run["noise_strength"].values
    axes.plot(loss, noise, "-", color="0.8", linewidth=0.5)
    axes.plot(loss, noise, ".", ms=2.5, color=_LOSS)
    for (stage, slope), colour in zip(stages, [_NOISE, COLOURS[2]], strict=False):
        inside = (loss >= stage["loss_low"].item()) & (loss <= stage["loss_high"].item())
        if not inside.any():
            continue
        ends = np.array([loss[inside].min(), loss[inside].max()])
        middle = np.exp(np.mean(np.log(noise[inside] / loss[inside] ** slope)))
        label = rf"$\propto L^{{{slope}}}$" if slope > 1 else r"$\propto L$"
        label += f", fitted {_with_interval(stage)}"
        axes.plot(ends, 1.6 * middle * ends**slope, color=colour, **THEORY, label=label)
    axes.set(xscale="log", yscale="log", xlabel=r"$L(\theta)$", ylabel=r"$\mathcal{N}$")
    for which in "xy":
        _decade_ticks(axes, which)
    axes.set_ylim(top=3 * np.nanmax(noise))
    axes.legend(loc="upper left")


def _with_interval(stage: xr.Dataset) -> str:
    value, low, high = (float(stage[f"slope{part}"]) for part in ["", "_low", "_high"])
    if not np.isfinite(value):
        return "too few epochs"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]".replace("-", "\N{MINUS SIGN}")


def _network(run: xr.Dataset) -> str:
    """What was trained on what, from the attributes of its file."""
    study = json.loads(run.attrs["config"])
    if run.get("diverged"):
        study["n_samples"] = f"{study['n_samples']}$, diverged after epoch ${_last_epoch(run)}"
    if "filters" in study:
        stacks = ", ".join(f"{study['layers_per_stack']}×[{width}]" for width in study["filters"])
        return f"CIFAR-10, $N={study['n_samples']}$,\n{stacks}"
    hidden = "-".join(map(str, study["hidden_units"]))
    return f"Fashion-MNIST, $N={study['n_samples']}$,\n784-{hidden}-10"


def _last_epoch(run: xr.Dataset) -> int:
    return int(run["epoch"].values[np.isfinite(run["loss"].values)][-1])


def _name_panels(panels: list[Axes], runs: list[xr.Dataset]) -> None:
    for name, axes, run in zip("abcd"[: len(panels)], panels, runs, strict=True):
        axes.set_title(f"({name}) {_network(run)}", loc="left", fontsize=8)


def _series(
    axes: Axes,
    x: np.ndarray | xr.DataArray,
    y: np.ndarray | xr.DataArray,
    index: int,
    label: str | None,
    alpha: float = 0.8,
) -> None:
    marker = MARKERS[index % len(MARKERS)]
    axes.plot(
        x,
        y,
        marker,
        color=colour_of(index),
        alpha=alpha,
        ms=2.6,
        mew=0,
        label=label,
        zorder=2 - 0.1 * index,
    )


def _ratios(axes: Axes, run: xr.Dataset) -> None:
    points(axes, run["direction"].values, run, "noise_ratio", 0, None)
    trace = float(run["trace_ratio"])
    axes.axhline(trace, color=colour_of(0), **EXACT, label=f"traces, {trace:.2f}")
    axes.axhline(1, color="0.3", **THEORY, label="Eq. (6)")
    axes.set(xlabel="$i$", ylabel=r"$v_i^{\mathrm{T}}B\Sigma v_i\,/\,2Lh_i$")
    # Room for the key.
    axes.set_ylim(0.65 * axes.dataLim.ymin, None)
    axes.legend(loc="lower right")


def _equality(axes: Axes, values: np.ndarray) -> None:
    ends = np.array([values.min() * 0.9, values.max() * 1.1])
    axes.plot(ends, ends, color="0.3", **THEORY, label="Eq. (6)")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="$h_i$, Eq. (44)",
        ylabel=r"$v_i^{\mathrm{T}}B\Sigma v_i\,/\,2L$",
    )
    axes.legend(loc="upper left", handletextpad=0.4)


def _decade_ticks(axes: Axes, which: str) -> None:
    """Plain numbers where the axis is too short for powers of ten alone."""
    low, high = getattr(axes, f"get_{which}lim")()
    if high > 200 * low:
        return
    ticks = [factor * 10.0**power for power in range(-8, 9) for factor in (1, 2, 5)]
    plain_ticks(axes, which, [tick for tick in ticks if low <= tick <= high])
