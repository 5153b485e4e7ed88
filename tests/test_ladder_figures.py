import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from sgd_escape import ladder_figures
from sgd_escape.figure_style import COLOURS, encoded
from sgd_escape.ladder import APPROXIMATIONS, EXACT_RUNGS, RUNGS

CASE = ("dimension", "eta", "batch_size")
SIZES = {"dimension": 2, "eta": 2, "batch_size": 2}


def bounded(name: str, dims: tuple[str, ...], value: np.ndarray) -> dict[str, tuple]:
    return {f"{name}{part}": (dims, value + add) for part, add in zip(_PARTS, _WIDTH, strict=True)}


_PARTS, _WIDTH = ["", "_low", "_high"], [0.0, -0.2, 0.3]


def ladder() -> xr.Dataset:
    """Slopes that are the index of the rung plus 5, shares that are the index plus d."""
    grid = tuple(SIZES.values())
    slopes = np.arange(4.0).reshape(4, 1, 1, 1, 1) + 5 * np.ones((4, *grid, 3))
    shares = np.arange(5.0).reshape(5, 1, 1, 1) + np.array([1, 5])[None, :, None, None]
    shares = np.broadcast_to(shares, (5, *grid)).copy()
    shares[0, 1] = np.nan
    times = np.broadcast_to(np.arange(4.0).reshape(4, 1, 1, 1, 1), (4, *grid, 2))
    data = np.full((*grid, 1), 7.0)
    return xr.Dataset(
        {
            "local_slope": (("exact_rung", *CASE, "middle"), slopes),
            "weak_noise_slope": ((*CASE, "middle"), 20 * np.ones((*grid, 3))),
            "quasi_potential_slope": ((*CASE, "data_middle"), 15 * np.ones((*grid, 1))),
            "predicted_exponent": (CASE, 10 * np.ones(grid)),
            **bounded("data_local_slope", (*CASE, "data_middle"), data),
            **bounded("time_share", ("share", *CASE, "data_threshold"), times),
            **bounded("exponent_share", ("approximation", *CASE), shares),
        },
        {
            "dimension": [1, 5],
            "eta": [0.05, 0.1],
            "batch_size": [1, 2],
            "middle": [1.5, 2.0, 3.0],
            "data_middle": [2.0],
            "data_threshold": [1.5, 3.0],
            "exact_rung": list(EXACT_RUNGS),
            "rung": list(RUNGS),
            "approximation": list(APPROXIMATIONS),
            "share": list(APPROXIMATIONS[:-1]),
        },
    )


def regime_map() -> xr.Dataset:
    """Eq. (15) holds at the smaller T alone, Arrhenius nowhere; no matrix at d = 5."""
    dims = ("exact_rung", "dimension", "temperature", "threshold")
    ratio = np.ones((2, 2, 3, 3))
    ratio[:, :, 1:] = 2.0
    ratio[1, 1] = np.nan
    return xr.Dataset(
        {
            "power_law_ratio": (dims, ratio),
            "arrhenius_ratio": (dims, 3 * ratio),
            "power_law_gain": (dims, np.where(ratio < 2, 1.0, -1.0)),
        },
        {
            "exact_rung": ["decoupled_noise", "fresh_data"],
            "dimension": [1, 5],
            "temperature": [0.01, 0.03, 0.1],
            "threshold": [2.0, 4.0, 8.0],
        },
    )


def critical_dimension() -> xr.Dataset:
    dims = ("eta", "batch_size")
    exponents = np.broadcast_to([4.0, 2.0, 0.0], (2, 1, 3))
    return xr.Dataset(
        {
            **{
                name: (dims, [[40.0], [20.0]])
                for name in ["critical_dimension", "lyapunov_dimension", "mean_square_dimension"]
            },
            **dict.fromkeys(
                ["dimension", "exponent", "predicted_exponent", "exact_covariance_exponent"],
                ((*dims, "fraction"), exponents),
            ),
            **bounded("simulated_exponent", ("simulated_dimension",), np.array([3.0, 1.0])),
            "matrix_exponent": ("simulated_dimension", [3.1, 0.9]),
            "simulated_eta": 0.1,
            "simulated_batch_size": 1,
        },
        {
            "eta": [0.05, 0.1],
            "batch_size": [1],
            "fraction": [0.5, 0.8, 1.0],
            "simulated_dimension": [16, 18],
        },
    )


DRAWN = {
    "ladder": ladder,
    "error_budget": ladder,
    "regime_map": regime_map,
    "critical_dimension": critical_dimension,
}


@pytest.mark.parametrize("name", list(DRAWN))
def test_the_same_data_give_the_same_bytes(name: str) -> None:
    draw = getattr(ladder_figures, name)
    first, second = (encoded(draw(DRAWN[name]()), "png") for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")


def lines(axes: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}


def test_every_rung_has_its_curve_in_the_panel_of_its_case() -> None:
    figure = ladder_figures.ladder(ladder())
    assert len(figure.axes) == 4
    drawn = lines(figure.axes[3])
    assert drawn["fresh data, exact"] == pytest.approx(5)
    assert drawn["Eq. (12), exact"] == pytest.approx(8)
    assert drawn["$(B/\\eta)(c-1)$"] == pytest.approx(20)
    assert drawn["finite data, weak noise"] == pytest.approx(15)
    assert figure.axes[3].get_title() == r"$d=5$, $\eta=0.1$, $B=1$"


def test_shares_of_the_exponent_are_relative_and_unresolved_ones_are_left_out() -> None:
    """Of the 5 approximations at 2 dimensions all but one are known, over an exponent of 10."""
    figure = ladder_figures.error_budget(ladder())
    shown = [axes for axes in figure.axes if axes.get_visible()]
    # Two dimensions above, four cases below.
    assert len(shown) == 6
    heights = [container.lines[0].get_ydata() for container in shown[2].containers]
    assert [len(height) for height in heights] == [1, 2, 2, 2, 2]
    assert heights[4] == pytest.approx([0.5, 0.9])


def test_a_law_is_coloured_where_it_holds_alone() -> None:
    figure = ladder_figures.regime_map(regime_map())
    visible = [axes.get_visible() for axes in figure.axes]
    assert visible == [True, True, True, False]
    colours = {
        to_hex(patch.get_facecolor()[0])
        for patch in figure.axes[0].collections
        if len(patch.get_facecolor())
    }
    assert COLOURS[0].lower() in colours
    assert COLOURS[1].lower() not in colours


def test_the_exponents_stand_at_the_case_that_was_simulated() -> None:
    figure = ladder_figures.critical_dimension(critical_dimension())
    left, right = figure.axes
    drawn = lines(left)
    assert drawn[r"SGD, exact: $\alpha/2$"] == pytest.approx([4, 2, 0])
    assert drawn["matrix, finite $c$"] == pytest.approx([3.1, 0.9])
    vertical = [line for line in left.get_lines() if line.get_label() == "$n_c$, Eq. (16)"]
    assert vertical[0].get_xdata() == pytest.approx([20, 20])
    assert lines(right)[r"$B=1$, $\langle\log R\rangle=0$"] == pytest.approx([1, 1])
