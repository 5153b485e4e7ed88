"""The figures of the escape: dataset in, Matplotlib figure out. They neither read nor estimate."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgd_escape.figure_style import (
    COLOURS,
    EXACT,
    MARKERS,
    ROUND_RATIOS,
    THEORY,
    colour_of,
    in_style,
    plain_ticks,
    points,
    single,
)


@in_style
def fig3a(stationary: xr.Dataset) -> Figure:
    """Fig. 3(a): exponent φ of the stationary distribution against B, by fit and by Eq. (17)."""
    figure, axes = single()
    batch_size = stationary["batch_size"].values
    for index, eta in enumerate(stationary["eta"].values):
        row, colour = stationary.sel(eta=eta), colour_of(index)
        points(axes, batch_size, row, "exponent", index, rf"$\eta={eta:g}$")
        points(axes, batch_size * 1.06, row, "exponent_likelihood", index, None, hollow=True)
        axes.plot(batch_size, row["predicted_exponent"], color=colour, **THEORY)
    axes.plot([], [], color="0.3", **THEORY, label=r"$1+B/(\eta h^*)$, Eq. (17)")
    axes.plot([], [], "o", color="0.3", mfc="white", label="maximum likelihood")
    axes.set(xscale="log", yscale="log", xlabel="$B$", ylabel=r"exponent $\phi$")
    plain_ticks(axes, "x", batch_size)
    axes.legend()
    return figure


@in_style
def fig3b(fits: xr.Dataset) -> Figure:
    """Fig. 3(b): mean first-passage step of linear regression against c, for several d."""
    figure, axes = single()
    cases = fits.stack(case=["dimension", "eta", "batch_size"])
    several = fits.sizes["eta"] * fits.sizes["batch_size"] > 1
    for index in range(cases.sizes["case"]):
        case = cases.isel(case=index)
        dimension, eta, batch_size = case["case"].item()
        label = f"$d={dimension}$"
        if several:
            label += rf", $\eta={eta:g}$, $B={batch_size}$"
        _passage_times(axes, case, index, label, "")
        exact = case["exact_first_passage_step"].values
        shown = exact <= _highest(case["mean_first_passage_step"].values) * 3
        axes.plot(fits["threshold"][shown], exact[shown], color=colour_of(index), **EXACT)
    _passage_axes(axes, fits)
    _line_key(axes, r"$c^{\,B/(\eta h^*)+1-d/2}$, Eq. (15)")
    axes.plot([], [], color="0.3", **EXACT, label="Eq. (12), exact")
    axes.legend()
    return figure


@in_style
def fig3c(fits: xr.Dataset) -> Figure:
    """Fig. 3(c): mean first-passage step of the network against c, for several η."""
    figure, axes = single()
    cases = fits.stack(case=["eta", "batch_size"])
    for index in range(cases.sizes["case"]):
        case = cases.isel(case=index)
        eta, batch_size = case["case"].item()
        label = rf"$\eta={eta:g}$"
        if fits.sizes["batch_size"] > 1:
            label += f", $B={batch_size}$"
        _passage_times(axes, case, index, label, "_paper")
    _passage_axes(axes, fits)
    _line_key(axes, f"Eq. (15), {_paper_values(fits)}")
    axes.legend()
    return figure


@in_style
def fig4() -> Figure:
    """Fig. 4: the escape over a barrier along the most probable path, a schematic."""
    figure, axes = single()
    position = np.linspace(-0.82, 2.45, 400)
    barrier, crossing = 1.5, 2.25
    potential = position**2 * (3 * barrier - 2 * position)
    axes.plot(position, potential, color=COLOURS[0], linewidth=1.3)
    top = barrier**3
    axes.hlines(top, 0, barrier, color="0.4", linestyle=":", linewidth=0.8)
    axes.hlines(0, 0, crossing, color="0.4", linestyle=":", linewidth=0.8)
    axes.plot([0, barrier, crossing], [0, top, 0], "o", color="black")
    axes.annotate("", (0, top), (0, 0), arrowprops={"arrowstyle": "<->", "lw": 0.8})
    axes.text(0.05, 0.8 * top, r"$\Delta U=\log\frac{L(\theta^s)}{L(\theta^*)}$", va="bottom")
    axes.annotate(
        "",
        (2.05, top + 0.45),
        (0.75, top + 0.45),
        arrowprops={"arrowstyle": "->", "color": COLOURS[1], "lw": 1.2},
    )
    axes.text(1.4, top + 0.62, r"escape, rate $\kappa$", color=COLOURS[1], ha="center")
    for x, y, text in [
        (0, -0.75, r"$0$"),
        (barrier, -0.75, r"$z_e^s$"),
        (crossing - 0.12, -0.75, r"$z_e^c$"),
    ]:
        axes.text(x, y, text, ha="center")
    axes.vlines(barrier, -0.35, top, color="0.4", linestyle=":", linewidth=0.8)
    axes.set(
        xlabel=r"$z_e$, along the escape path",
        ylabel=r"$U_e(z_e)=\log L-\log L(\theta^*)$",
        ylim=(-1.1, top + 1.3),
        xlim=(-1.2, 2.7),
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


@in_style
def fig6(hessian: xr.Dataset) -> Figure:
    """Fig. 6: (a) histogram of all eigenvalues of Eq. (44); (b) the leading thirty."""
    figure = Figure(figsize=(6.8, 2.7))
    left, right = figure.subplots(1, 2)
    eigenvalues = hessian["eigenvalue"].values
    left.hist(eigenvalues, bins=80, color=COLOURS[0], log=True)
    left.set(xlabel="eigenvalue $h_i$", ylabel=f"count, of $P={eigenvalues.size}$")
    leading = eigenvalues[:30]
    right.plot(np.arange(1, leading.size + 1), leading, "o", color=COLOURS[0])
    dimension = float(hessian["effective_dimension"])
    right.axvline(dimension, color=COLOURS[1], **THEORY, label=f"Eq. (45), $n={dimension:.1f}$")
    right.set(xlabel="$i$", ylabel="$h_i$", ylim=(0, None))
    right.annotate(f"$h_1={leading[0]:.1f}$", (1, leading[0]), (6, -3), textcoords="offset points")
    right.legend(loc="upper right")
    for axes, name in zip([left, right], "ab", strict=True):
        axes.set_title(f"({name})", loc="left", fontsize=9)
    return figure


@in_style
def exponents(fits: xr.Dataset) -> Figure:
    """Measured exponents of the network against B/η: Eq. (15) says a line of slope 1/h*."""
    figure, axes = single()
    cases = fits.stack(case=["eta", "batch_size"])
    ratio = cases["batch_size"].values / cases["eta"].values
    points(axes, ratio, cases, "exponent", 0, "measured")
    x = np.array([ratio.min() * 0.95, ratio.max() * 1.03])
    own = f"$h_1={float(fits['curvature']):.1f}$, $n={float(fits['effective_dimension']):.1f}$"
    for suffix, colour, label in [
        ("_paper", COLOURS[1], f"paper, {_paper_values(fits)}"),
        ("", COLOURS[2], f"this network, {own}"),
    ]:
        line = np.polyfit(ratio, cases[f"predicted_exponent{suffix}"].values, 1)
        axes.plot(x, np.polyval(line, x), color=colour, **THEORY, label=label)
    axes.set(xlabel=r"$B/\eta$", ylabel=r"$\mathrm{d}\log t_p/\mathrm{d}\log c$")
    axes.legend()
    return figure


@in_style
def cutoff(regression: xr.Dataset, network: xr.Dataset) -> Figure:
    """Exponents fitted from a lower end of c upwards, against that end: where is a power law?"""
    figure = Figure(figsize=(6.8, 2.9))
    panels = figure.subplots(1, 2)
    for axes, fits, by, symbol in zip(
        panels, (regression, network), ("dimension", "eta"), ("d", r"\eta"), strict=True
    ):
        cases = _cases(fits)
        for index in range(cases.sizes["case"]):
            case = cases.isel(case=index)
            label = f"${symbol}={case[by].item():g}$"
            marker = MARKERS[index % len(MARKERS)]
            drawn = axes.plot(fits["threshold"], case["exponent_above"], marker, label=label)
            axes.axhline(float(case["predicted_exponent"]), color=drawn[0].get_color(), **THEORY)
        axes.axvline(float(cases["fit_low"][0]), color="0.6", linewidth=0.7)
        # Too few passages leave no exponent, and then no highest one.
        highest = 1.35 * _highest(cases["exponent_above"].values) or None
        axes.set(xscale="log", xlabel="lower end of the fit, $c$", ylim=(0, highest))
        shown = cases["threshold"].values[np.isfinite(cases["exponent_above"].values).any(1)]
        plain_ticks(axes, "x", [c for c in ROUND_RATIOS if c <= np.max(shown, initial=1)])
        axes.legend(ncols=2)
    panels[0].set_ylabel("exponent")
    return figure


@in_style
def residuals(regression: xr.Dataset, network: xr.Dataset) -> Figure:
    """Measured over fitted passage steps in the range of the fit: power law and Arrhenius."""
    figure = Figure(figsize=(6.8, 4.6))
    grid = figure.subplots(2, 2, sharey="row", sharex="row")
    for row, (fits, by, symbol) in zip(
        grid, [(regression, "dimension", "d"), (network, "eta", r"\eta")], strict=True
    ):
        _residual_row(row, fits, by, symbol)
    for axes, name in zip(grid.flat, "abcd", strict=True):
        axes.set_title(f"({name}) {axes.get_title()}", loc="left", fontsize=9)
        axes.set_title("")
    return figure


@in_style
def pretraining(*trained: xr.Dataset) -> Figure:
    """Full-data loss against epochs of pre-training, one curve a seed."""
    figure, axes = single()
    for run in trained:
        epochs = np.arange(1, run.sizes["epoch"] + 1)
        axes.plot(epochs, run["training_loss"], label=f"seed {run.attrs['seed']}")
    axes.axhline(0.035, color="0.3", **THEORY, label="paper, 0.035")
    axes.set(xscale="log", yscale="log", xlabel="epoch", ylabel=r"$L(\theta)$")
    axes.legend()
    return figure


def _passage_times(axes: Axes, case: xr.Dataset, index: int, label: str, suffix: str) -> None:
    """Means with intervals, and Eq. (15)'s slope through them over the range of the fit."""
    threshold = case["threshold"].values
    points(axes, threshold, case, "mean_first_passage_step", index, label)
    reached = threshold[np.isfinite(case["mean_first_passage_step"].values)]
    line = reached[(reached >= float(case["fit_low"])) & (reached <= float(case["fit_high"]))]
    exponent, intercept = (
        float(case[f"predicted_{part}{suffix}"]) for part in ["exponent", "intercept"]
    )
    axes.plot(line, np.exp(intercept) * line**exponent, color=colour_of(index), **THEORY)


def _passage_axes(axes: Axes, fits: xr.Dataset) -> None:
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=r"$c=L(\theta^s)/L(\theta^*)$",
        ylabel=r"mean first-passage step $t_p$",
    )
    largest = fits["threshold"].values[-1]
    plain_ticks(axes, "x", [c for c in ROUND_RATIOS if c <= largest])


def _paper_values(fits: xr.Dataset) -> str:
    curvature, dimension = (
        float(fits[f"paper_{name}"]) for name in ["curvature", "effective_dimension"]
    )
    return f"$h^*={curvature:g}$, $n={dimension:g}$"


def _line_key(axes: Axes, label: str) -> None:
    axes.plot([], [], color="0.3", **THEORY, label=label)


def _highest(values: np.ndarray) -> float:
    return float(np.max(values, initial=0, where=np.isfinite(values)))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _cases(fits: xr.Dataset) -> xr.Dataset:
    return fits.stack(
        case=[name for name in ["dimension", "eta", "batch_size"] if name in fits.dims]
    )


def _residual_row(row: np.ndarray, fits: xr.Dataset, by: str, symbol: str) -> None:
    cases = _cases(fits)
    threshold = fits["threshold"].values
    models = [
        ("power law", "exponent", "intercept", np.log(threshold)),
        ("Arrhenius", "arrhenius_slope", "arrhenius_intercept", threshold - 1),
    ]
    for axes, (title, slope, intercept, feature) in zip(row, models, strict=True):
        for index in range(cases.sizes["case"]):
            case = cases.isel(case=index)
            kept = (threshold >= float(case["fit_low"])) & (threshold <= float(case["fit_high"]))
            model = np.exp(float(case[intercept]) + float(case[slope]) * feature)
            relative = xr.Dataset(
                {
                    f"ratio{part}": case[f"mean_first_passage_step{part}"] / model
                    for part in ["", "_low", "_high"]
                }
            )
            label = f"${symbol}={case[by].item():g}$"
            points(axes, threshold[kept], relative.isel(threshold=kept), "ratio", index, label)
        axes.axhline(1, color="0.3", linewidth=0.7)
        axes.set(xscale="log", yscale="log", xlabel="$c$", title=title)
        shown = threshold[kept]
        plain_ticks(axes, "x", [c for c in ROUND_RATIOS if shown[0] <= c <= shown[-1]])
    row[0].set_ylabel(r"$t_p$ / fit")
    row[1].legend(ncols=2)
