"""Figures of the laboratory: exact answers beside approximations and simulations."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from sgd_escape.figure_style import (
    EXACT,
    ROUND_RATIOS,
    THEORY,
    colour_of,
    in_style,
    plain_ticks,
    points,
)


@in_style
def splitting(study: xr.Dataset) -> Figure:
    """Mean passage steps by splitting and by simulation; and their ratio to the exact ones."""
    figure = Figure(figsize=(6.8, 2.7))
    left, right = figure.subplots(1, 2)
    c, exact = study["threshold"].values, study["exact_first_passage_step"]
    left.plot(c, exact, color="0.3", **EXACT, label="transition matrix, exact")
    ratios = study / exact
    for index, (name, label) in enumerate(
        [("mean", "splitting"), ("simulated", "plain simulation")]
    ):
        points(left, c, study, f"{name}_first_passage_step", index, label)
        shift = 1 + 0.006 * (2 * index - 1)
        points(right, c * shift, ratios, f"{name}_first_passage_step", index, None)
    right.axhline(1, color="0.3", **EXACT)
    for axes in (left, right):
        axes.set(xscale="log", xlabel=r"$c=L(\theta^s)/L(\theta^*)$")
        plain_ticks(axes, "x", [ratio for ratio in ROUND_RATIOS if c[0] <= ratio <= c[-1]])
    left.set(yscale="log", ylabel=r"mean first-passage step $t_p$")
    right.set(ylabel="$t_p$ / exact")
    left.legend()
    return figure


@in_style
def weak_noise(study: xr.Dataset) -> Figure:
    """(η/B) log τ as η falls at fixed B: which weak-noise limit does SGD have?"""
    figure = Figure(figsize=(3.4, 2.9))
    axes = figure.subplots()
    eta = study["eta"].values
    scale = study["eta"] / study["batch_size"]
    reduced = xr.Dataset(
        {name: scale * np.log(study[name]) for name in study if "_step" in str(name)}
    )
    points(axes, eta, reduced, "mean_first_passage_step", 0, "SGD, splitting")
    for index, (name, limit, label) in enumerate(
        [
            ("exact", "predicted", "SGD, transition matrix"),
            ("diffusion", "diffusion", "Eq. (12)"),
            ("exact_covariance", "exact_covariance", "Eq. (4), exact covariance"),
        ]
    ):
        line = reduced[f"{name}_first_passage_step"]
        axes.plot(eta, line, color=colour_of(index), **EXACT, label=label)
        value = float(study[f"{limit}_quasi_potential"])
        axes.axhline(value, color=colour_of(index), **THEORY)
    axes.axhline(np.nan, color="0.3", **THEORY, label="limits, $\\eta\\to 0$")
    highest = float(reduced["exact_first_passage_step"].max())
    axes.set(
        xlabel=r"$\eta$",
        ylabel=r"$(\eta/B)\,\log\tau$",
        xlim=(0, None),
        ylim=(None, 1.25 * highest),
    )
    axes.legend(loc="upper left", ncols=2)
    return figure
