import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from sgd_escape import (
    double_well_figures,
    figure_style,
    figures,
    laboratory_figures,
    network_figures,
    noise_figures,
)
from sgd_escape.figure_style import encoded

THRESHOLD = np.array([1.5, 2.0, 3.0])


def bounded(name: str, dims: tuple[str, ...], value: np.ndarray) -> dict[str, tuple]:
    return {
        name: (dims, value),
        f"{name}_low": (dims, value * 0.9),
        f"{name}_high": (dims, value * 1.2),
    }


def fits(**grid: list[float]) -> xr.Dataset:
    """First-passage fits whose means are exactly c^5 at every point of the grid."""
    dims, shape = tuple(grid), tuple(map(len, grid.values()))
    mean = np.broadcast_to(THRESHOLD**5, (*shape, THRESHOLD.size)).copy()
    one = np.ones(shape)
    return xr.Dataset(
        bounded("mean_first_passage_step", (*dims, "threshold"), mean)
        | bounded("exponent", dims, 5 * one)
        | bounded("arrhenius_slope", dims, 3 * one)
        | {
            "exact_first_passage_step": ((*dims, "threshold"), mean / 2),
            "intercept": (dims, 0 * one),
            "arrhenius_intercept": (dims, 0 * one),
            "exponent_above": ((*dims, "threshold"), np.broadcast_to([5, 5, np.nan], mean.shape)),
            "predicted_exponent": (dims, 4 * one),
            "predicted_intercept": (dims, 0.5 * one),
            "predicted_exponent_paper": (dims, 6 * one),
            "predicted_intercept_paper": (dims, -0.5 * one),
            "fit_low": (dims, 2.0 * one),
            "fit_high": (dims, 3.0 * one),
            "paper_curvature": 95.6,
            "paper_effective_dimension": 9.0,
            "curvature": 70.0,
            "effective_dimension": 15.0,
        },
        {"threshold": THRESHOLD, **grid},
    )


REGRESSION = fits(dimension=[1, 5], eta=[0.1], batch_size=[1])
NETWORK = fits(eta=[0.006, 0.009, 0.015], batch_size=[10])


def stationary() -> xr.Dataset:
    dims, exponent = ("eta", "batch_size"), np.array([[11.0, 21.0], [2.0, np.nan]])
    return xr.Dataset(
        bounded("exponent", dims, exponent)
        | bounded("exponent_likelihood", dims, exponent)
        | {"predicted_exponent": (dims, np.array([[11.0, 21.0], [2.0, 3.0]]))},
        {"eta": [0.1, 1.0], "batch_size": [1, 2]},
    )


def hessian() -> xr.Dataset:
    eigenvalue = np.sort(np.geomspace(1e-8, 70, 200))[::-1]
    return xr.Dataset({"eigenvalue": ("index", eigenvalue), "effective_dimension": 3.2})


def trained(seed: int) -> xr.Dataset:
    return xr.Dataset(
        {"training_loss": ("epoch", np.geomspace(0.3, 0.03, 50))}, attrs={"seed": seed}
    )


def compared(epoch: int) -> xr.Dataset:
    """Spectra of which one side ends in rounding of both signs."""
    exact = np.concatenate([np.geomspace(8, 1e-6, 28), [1e-17, -1e-16]])
    return xr.Dataset(
        {
            "epoch": epoch,
            "loss": 0.02,
            "eigenvalue_exact": ("index", exact),
            "eigenvalue_decoupled": ("index", np.geomspace(5, 1e-3, 30)),
            "rounding_floor": 8 * np.finfo(float).eps,
            "relative_distance": 0.123,
            "permuted_distance": 0.045,
            "overlap": 0.987,
            "correlation": -0.05,
        }
    )


def alignment(seed: int) -> xr.Dataset:
    """Noise 10 % above Eq. (6) in every direction, exact eigenvalues 1 % below."""
    eigenvalue, one = np.array([70.0, 20.0, 5.0]), np.ones(3)
    return xr.Dataset(
        bounded("noise_ratio", ("direction",), 1.1 * one)
        | {
            "eigenvalue": ("direction", eigenvalue),
            "exact_eigenvalue": ("direction", 0.99 * eigenvalue),
            "noise": ("direction", 1.1 * 2 * 0.03 * eigenvalue),
            "loss": 0.03,
            "trace_ratio": 1.1,
        },
        {"direction": [1, 2, 3]},
        {"seed": seed},
    )


LOSS = np.geomspace(2, 0.002, 7)
FILTERS = '{"filters": [4, 8], "layers_per_stack": 2, "n_samples": 60}'
HIDDEN_UNITS = '{"hidden_units": [20, 10], "n_samples": 200}'


def trained_with_noise(config: str, power: float) -> xr.Dataset:
    """N = 50 L^power, and a trace factor that makes Eq. (9) exact for ten outputs."""
    noise = 50 * LOSS**power
    return xr.Dataset(
        {
            "loss": ("epoch", LOSS),
            "noise_strength": ("epoch", noise),
            "trace_factor": ("trace_epoch", (10 * noise / (2 * LOSS))[::3]),
            "weighted_trace_factor": ("trace_epoch", (10 * noise / LOSS)[::3]),
            "outputs": 10,
        },
        {"epoch": np.arange(7), "trace_epoch": np.arange(7)[::3]},
        {"config": config},
    )


def noise_slopes(*, known: bool = True) -> xr.Dataset:
    """Slopes of which the stage "small" is not known unless `known`."""
    dims, stages = ("architecture", "stage"), ["late", "early", "intermediate", "small"]
    slope = np.array([[1.0, 0.5, 1.2, 2.0 if known else np.nan]] * 2)
    low = np.array([[0.001, 0.1, 0.05, 0.001 if known else np.inf]] * 2)
    high = np.array([[0.1, 3.0, 1.0, 0.01 if known else 0.0]] * 2)
    return xr.Dataset(
        bounded("slope", dims, slope)
        | {"loss_low": (dims, low), "loss_high": (dims, high), "factor": (dims, 25 * slope)},
        {"architecture": ["fc", "cnn"], "stage": stages},
    )


def window_slopes() -> xr.Dataset:
    """Slope 1 for one loss and 2 for the other, unknown in the first window."""
    slope = np.ones((2, 2, 3)) * np.array([1.0, 2.0])[:, None]
    slope[..., 0] = np.nan
    return xr.Dataset(
        bounded("window_slope", ("architecture", "loss_function", "window"), slope),
        {
            "architecture": ["fc", "cnn"],
            "loss_function": ["mean_square", "cross_entropy"],
            "window": [0.003, 0.01, 0.03],
        },
    )


def collapsed() -> xr.Dataset:
    """Two seeds, three cases, exponents exactly x - 4 and predicted as x - 6."""
    x, dims = np.array([[10.0, 14.0, 12.0], [11.0, 15.0, 13.0]]), ("seed", "case")
    return xr.Dataset(
        bounded("exponent", dims, x - 4)
        | bounded("predicted_exponent", dims, x - 6)
        | {
            "scaled_inverse_noise": (dims, x),
            "collapse_slope": 1.0,
            "collapse_dimension": 10.0,
            "effective_dimension": ("seed", [13.0, 15.0]),
            "eta": ("case", [0.01, 0.02, 0.03]),
            "batch_size": ("case", [5, 10, 20]),
        },
        {"seed": [3, 4]},
    )


def escape(seed: int) -> xr.Dataset:
    """An escape whose displacement lies to 0.5, 0.2 and 0.1 along three eigenvectors."""
    share = np.array([[0.4, 0.3, 0.1], [0.5, 0.2, 0.1]])
    return xr.Dataset(
        bounded("mean_loss_share", ("exit", "direction"), share)
        | bounded("drift", ("step",), np.array([-0.02, -0.05]))
        | bounded("mean_exit_overlap", (), np.array(0.95))
        | bounded("mean_final_overlap", (), np.array(0.9))
        | bounded("mean_exit_sharpness", (), np.array(1.02))
        | bounded("mean_final_sharpness", (), np.array(0.8))
        | {
            "mean_squared_share": (("exit", "direction"), share),
            "eigenvalue": ("direction", [70.0, 20.0, 5.0]),
            "curvature_trace": 140.0,
            "count": 2,
        },
        {"direction": [1, 2, 3], "exit": [1.5, 2.0], "step": [500, 15000]},
        {"seed": seed},
    )


def double_well() -> xr.Dataset:
    """Rates that are 10 % above the corrected theory at every temperature, and exact."""
    wells, dims = list(double_well_figures._WELLS), ("well", "temperature")
    one, factor = np.ones((6, 3)), np.array([1.0, 1.0, 0.6, 1.4, 0.7, 1.0])
    pair, series = np.array([[1.0, 2.0], [0.5, 1.0]]), ("series", "minimum")
    line = np.stack([np.linspace(1, 2, 5), np.linspace(0.5, 1, 5)])
    log_rates = {"sgd": -5 * pair, "gld": -8 * pair}
    variables = bounded("ratio_printed", dims, 1.1 * factor[:, None] * one)
    variables |= bounded("ratio_corrected", dims, 1.1 * one)
    variables |= bounded("ratio_exact", dims, one)
    variables |= bounded("limit_printed", ("well",), factor)
    variables |= bounded("limit_corrected", ("well",), one[:, 0])
    for noise, value in log_rates.items():
        variables |= bounded(f"{noise}_log_rate", series, value)
    return xr.Dataset(
        variables
        | {
            "exact_ratio_printed": (dims, 1.1 * factor[:, None] * one),
            "transverse_factor": ("well", factor),
            "contrast_minimum_loss": (series, pair),
            "line_minimum_loss": (("series", "point"), line),
            "sgd_log_rate_exact": (("series", "point"), -5 * line),
            "gld_log_rate_exact": (("series", "point"), -8 * line),
            "matched_log_rate_exact": (("series", "point"), -6 * line),
        },
        {"well": wells, "temperature": [0.2, 0.1, 0.05], "series": ["difference", "ratio"]},
    )


def splitting() -> xr.Dataset:
    """Splitting that is exact, and a simulation that is 10 % too short and ends early."""
    c, exact = np.array([1.2, 2.0, 4.0]), np.array([50.0, 1e5, 1e12])
    simulated = np.where(c < 3, 0.9 * exact, np.nan)
    return xr.Dataset(
        bounded("mean_first_passage_step", ("threshold",), exact)
        | bounded("simulated_first_passage_step", ("threshold",), simulated)
        | {"exact_first_passage_step": ("threshold", exact)},
        {"threshold": c},
    )


def weak_noise() -> xr.Dataset:
    """Passage times e^(VB/η) for each of three limits V, B = 2."""
    eta = np.array([0.1, 0.05, 0.025])
    limits = {"predicted": 0.5, "diffusion": 0.4, "exact_covariance": 0.3}
    steps = {name: np.exp(2 * value / eta) for name, value in limits.items()}
    return xr.Dataset(
        bounded("mean_first_passage_step", ("eta",), steps["predicted"])
        | {f"{name}_quasi_potential": value for name, value in limits.items()}
        | {
            "exact_first_passage_step": ("eta", steps["predicted"]),
            "diffusion_first_passage_step": ("eta", steps["diffusion"]),
            "exact_covariance_first_passage_step": ("eta", steps["exact_covariance"]),
            "batch_size": 2,
        },
        {"eta": eta},
    )


RUNS = (trained_with_noise(HIDDEN_UNITS, 1.0), trained_with_noise(FILTERS, 1.0))
DRAWN = {
    "splitting": lambda: laboratory_figures.splitting(splitting()),
    "weak_noise": lambda: laboratory_figures.weak_noise(weak_noise()),
    "collapse": lambda: network_figures.collapse(collapsed()),
    "escape_direction": lambda: network_figures.escape_direction(escape(2), escape(0)),
    "drift": lambda: network_figures.drift(escape(2), escape(0)),
    "fig1": lambda: noise_figures.fig1(*map(compared, [0, 50, 500])),
    "double_well": lambda: double_well_figures.double_well(double_well()),
    "contrast": lambda: double_well_figures.contrast(double_well()),
    "alignment": lambda: noise_figures.alignment(alignment(0), alignment(1)),
    "fig2": lambda: noise_figures.fig2(*RUNS, noise_slopes()),
    "fig5": lambda: noise_figures.fig5(*RUNS, noise_slopes(known=False)),
    "noise_slopes": lambda: noise_figures.noise_slopes(window_slopes()),
    "trace_factor": lambda: noise_figures.trace_factor(*RUNS),
    "fig3a": lambda: figures.fig3a(stationary()),
    "fig3b": lambda: figures.fig3b(REGRESSION),
    "fig3c": lambda: figures.fig3c(NETWORK),
    "fig4": figures.fig4,
    "fig6": lambda: figures.fig6(hessian()),
    "exponents": lambda: figures.exponents(NETWORK),
    "cutoff": lambda: figures.cutoff(REGRESSION, NETWORK),
    "residuals": lambda: figures.residuals(REGRESSION, NETWORK),
    "pretraining": lambda: figures.pretraining(trained(0), trained(1)),
}


def points(figure: Figure, panel: int = 0) -> list[np.ndarray]:
    """The coordinates of every series with error bars, one array (points, 2) each."""
    return [bars.lines[0].get_xydata() for bars in figure.axes[panel].containers]


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize(("picture_format", "magic"), [("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_the_same_data_give_the_same_bytes(name: str, picture_format: str, magic: bytes) -> None:
    first, second = (encoded(DRAWN[name](), picture_format) for _ in range(2))
    assert first == second
    assert first.startswith(magic)


def test_points_stand_where_the_means_are() -> None:
    for series in points(figures.fig3c(NETWORK)):
        np.testing.assert_allclose(series, np.stack([THRESHOLD, THRESHOLD**5], 1))


def test_error_bars_end_at_the_bounds() -> None:
    (bars, *_) = figures.fig3c(NETWORK).axes[0].containers
    ends = np.array(bars.lines[2][0].get_segments())[..., 1]
    np.testing.assert_allclose(ends, np.stack([0.9 * THRESHOLD**5, 1.2 * THRESHOLD**5], 1))


def test_the_dashed_line_is_equation_15_over_the_range_of_the_fit() -> None:
    lines = [line for line in figures.fig3c(NETWORK).axes[0].lines if line.get_linestyle() == "--"]
    drawn = [line.get_xydata() for line in lines if len(line.get_xydata())]
    assert len(drawn) == NETWORK.sizes["eta"]
    for line in drawn:
        np.testing.assert_allclose(line, [[c, np.exp(-0.5) * c**6] for c in [2.0, 3.0]])


def test_what_could_not_be_measured_is_not_drawn() -> None:
    _, _, first_of_eta_one, _ = points(figures.fig3a(stationary()))
    np.testing.assert_allclose(first_of_eta_one, [[1.0, 2.0]])
    unreached = NETWORK.copy(deep=True)
    unreached["mean_first_passage_step"][0, 0, 2] = np.inf
    assert [len(series) for series in points(figures.fig3c(unreached))] == [2, 3, 3]


def test_residuals_of_an_exact_power_law_are_one() -> None:
    figure = figures.residuals(REGRESSION, NETWORK)
    for panel in [0, 2]:
        for series in points(figure, panel):
            np.testing.assert_allclose(series, [[2.0, 1.0], [3.0, 1.0]])
    for series in points(figure, 1):
        np.testing.assert_allclose(series[:, 1], [2**5 / np.exp(3), 3**5 / np.exp(6)])


def test_the_noise_over_twice_the_loss_stands_against_the_curvature() -> None:
    left, middle, right = noise_figures.alignment(alignment(0), alignment(1)).axes
    seed, _, equality = (line.get_xydata() for line in left.lines)
    np.testing.assert_allclose(seed, np.array([[70.0, 77.0], [20.0, 22.0], [5.0, 5.5]]))
    np.testing.assert_allclose(equality[:, 0], equality[:, 1])
    (bars,) = middle.containers
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [[1, 1.1], [2, 1.1], [3, 1.1]])
    np.testing.assert_allclose(right.lines[0].get_ydata(), -1.0)


def test_noise_divided_by_its_factor_lies_on_the_loss_and_the_panel_names_the_network() -> None:
    fully_connected, convolutional, _ = noise_figures.fig2(*RUNS, noise_slopes()).axes
    loss, noise = (line.get_ydata() for line in fully_connected.lines)
    np.testing.assert_allclose(loss, LOSS)
    np.testing.assert_allclose(noise, 2 * LOSS)
    assert [axes.get_title("left") for axes in (fully_connected, convolutional)] == [
        "(a) Fashion-MNIST, $N=200$,\n784-20-10-10",
        "(b) CIFAR-10, $N=60$,\n2\N{MULTIPLICATION SIGN}[4], 2\N{MULTIPLICATION SIGN}[8]",
    ]


def test_lines_of_the_claimed_slopes_span_the_stages_that_were_fitted() -> None:
    panel = noise_figures.fig5(*RUNS, noise_slopes()).axes[2]
    dashed = [line for line in panel.lines if line.get_linestyle() == "--"]
    for line, (low, high), slope in zip(dashed, [(0.05, 1), (0.001, 0.01)], [1, 2], strict=True):
        inside = LOSS[(low <= LOSS) & (high >= LOSS)]
        ends, values = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        np.testing.assert_allclose(ends, [inside.min(), inside.max()])
        assert np.diff(np.log(values)) / np.diff(np.log(ends)) == pytest.approx(slope)
        assert "fitted" in str(line.get_label())


def test_a_stage_that_was_never_reached_has_no_line() -> None:
    panel = noise_figures.fig5(*RUNS, noise_slopes(known=False)).axes[2]
    assert [line.get_linestyle() for line in panel.lines].count("--") == 1


def test_each_loss_has_its_panel_of_slopes_with_only_the_windows_that_are_known() -> None:
    figure = noise_figures.noise_slopes(window_slopes())
    for panel, slope in enumerate([1, 2]):
        for series in points(figure, panel):
            np.testing.assert_allclose(series[:, 1], [slope, slope])


def test_both_sides_of_equation_9_coincide_where_it_is_exact() -> None:
    panel = noise_figures.trace_factor(*RUNS).axes[0]
    noise, factor, weighted = (line.get_xydata() for line in panel.lines[:3])
    np.testing.assert_allclose(noise[::3], factor)
    np.testing.assert_allclose(weighted[:, 1], 2 * factor[:, 1])
    assert panel.xaxis_inverted()


def test_exponents_stand_at_each_seeds_own_curvature_and_at_its_own_prediction() -> None:
    figure = network_figures.collapse(collapsed())
    left, right = (np.concatenate(points(figure, panel)) for panel in (0, 1))
    x = collapsed()["scaled_inverse_noise"].values.ravel()
    np.testing.assert_array_equal(left, np.column_stack([x, x - 4]))
    np.testing.assert_array_equal(right, np.column_stack([x - 6, x - 4]))
    fitted, theory = (
        line.get_xydata() for line in figure.axes[0].get_lines() if line.get_label()[0] in "sE"
    )
    np.testing.assert_allclose(fitted, [[10, 6], [15, 11]])
    np.testing.assert_allclose(theory, [[10, 4], [15, 9]])


def test_shares_of_the_last_exit_are_drawn_and_add_up_over_the_eigenvectors() -> None:
    figure = network_figures.escape_direction(escape(2), escape(0))
    np.testing.assert_array_equal(points(figure)[0][:, 1], [0.5, 0.2, 0.1])
    cumulated, marker = (line.get_xydata() for line in figure.axes[1].get_lines()[:2])
    np.testing.assert_allclose(cumulated, [[1, 0.5], [2, 0.7], [3, 0.8]])
    np.testing.assert_allclose(marker, [[2, 0.7]])
    equal = figure.axes[0].get_lines()[-1].get_ydata()
    np.testing.assert_allclose(equal, np.array([70, 20, 5]) / 140)


def test_the_surroundings_of_every_seed_are_drawn_in_their_order() -> None:
    figure = network_figures.drift(escape(2), escape(0))
    np.testing.assert_array_equal(points(figure)[1][:, 1], [-0.02, -0.05])
    values = np.concatenate(points(figure, 1))[:, 1]
    np.testing.assert_array_equal(values, [0.95, 0.9, 1.02, 0.8] * 2)


def test_splitting_stands_over_the_exact_times_and_a_simulation_where_it_was_made() -> None:
    figure = laboratory_figures.splitting(splitting())
    split, simulated = points(figure, 1)
    np.testing.assert_allclose(split[:, 1], [1, 1, 1])
    np.testing.assert_allclose(simulated[:, 1], [0.9, 0.9])
    np.testing.assert_allclose(points(figure)[0][:, 1], [50, 1e5, 1e12])


def test_pure_exponentials_lie_on_their_weak_noise_limits() -> None:
    figure = laboratory_figures.weak_noise(weak_noise())
    np.testing.assert_allclose(points(figure)[0][:, 1], 0.5)
    lines = [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]
    for limit in [0.5, 0.4, 0.3]:
        # The curve and its dashed limit, besides the points for SGD.
        assert sum(np.allclose(line, limit) for line in lines) == (3 if limit == 0.5 else 2)


def test_a_figure_leaves_the_style_of_the_session_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.fig4()
    assert {key: mpl.rcParams[key] for key in figure_style.STYLE} == {
        key: before[key] for key in figure_style.STYLE
    }


def test_more_series_than_colours_can_be_drawn() -> None:
    many = fits(dimension=list(range(1, 10)), eta=[0.1], batch_size=[1])
    assert len(points(figures.fig3b(many))) == 9


def test_an_unbounded_value_is_left_out_without_a_warning() -> None:
    unreached = NETWORK.copy(deep=True)
    for part in ["", "_high"]:
        unreached[f"mean_first_passage_step{part}"][0, 0, 2] = np.inf
    assert [len(series) for series in points(figures.fig3c(unreached))] == [2, 3, 3]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_eigenvalue_of_both_sides_is_in_a_bin_of_its_panel(count: int) -> None:
    figure = noise_figures.fig1(*map(compared, range(count)))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == count
    edges = noise_figures._edges((compared(0),))
    for axes in shown:
        for bars, name in zip(axes.patches[:2], noise_figures._SIDES, strict=True):
            heights = bars.get_xy()[1:-1:2, 1]
            assert heights.max() == np.histogram(compared(0)[name].clip(edges[0]), edges)[0].max()
    assert edges[0] < 8 * np.finfo(float).eps < 8 < edges[-1]


def test_a_training_that_diverged_has_a_panel_without_spectra() -> None:
    lost = compared(1).drop_vars("epoch") * np.nan
    first, second = noise_figures.fig1(compared(0), lost.assign(epoch=1)).axes
    assert [text.get_text() for text in second.texts] == ["no spectra, $L=nan$"]
    assert first.get_xlim() == noise_figures.fig1(compared(0)).axes[0].get_xlim()
    (alone,) = noise_figures.fig1(lost.assign(epoch=1)).axes
    assert not alone.patches


def test_the_panels_of_the_spectra_name_their_epoch_size_and_numbers() -> None:
    first, second = noise_figures.fig1(compared(0), compared(1)).axes
    assert first.get_title("left") == "(a) at initialization"
    assert second.get_title("left") == "(b) after 1 epoch"
    assert "N=30" in first.get_ylabel()
    assert (
        second.texts[0].get_text()
        == "$L=0.02$\ndistance 0.12 (0.04)\noverlap 0.99\ncorrelation \N{MINUS SIGN}0.05"
    )


def test_every_well_has_its_ratios_and_its_limit_in_each_panel() -> None:
    figure = double_well_figures.double_well(double_well())
    factor = double_well()["transverse_factor"].values
    for panel, of_printed in enumerate([factor, np.ones(6)]):
        ratios, limits = (
            [series for series in points(figure, panel) if len(series) == length]
            for length in (3, 1)
        )
        for ratio, limit, expected in zip(ratios, limits, of_printed, strict=True):
            np.testing.assert_allclose(ratio[:, 1], 1.1 * expected)
            np.testing.assert_allclose(ratio[:, 0], [0.2, 0.1, 0.05], atol=0.005)
            np.testing.assert_allclose(limit, [[0, expected]], atol=0.005)
    for series in points(figure, 2):
        np.testing.assert_allclose(series[:, 1], 1)


def test_the_contrast_is_drawn_in_decades_against_the_loss_at_the_minimum() -> None:
    figure = double_well_figures.contrast(double_well())
    for panel, minimum in enumerate([[1.0, 2.0], [0.5, 1.0]]):
        for series, slope in zip(points(figure, panel), [-5, -8], strict=True):
            expected = [[m, slope * m / np.log(10)] for m in minimum]
            np.testing.assert_allclose(series, expected)
        lines = [line for line in figure.axes[panel].lines if len(line.get_xydata()) == 5]
        for line, slope in zip(lines, [-5, -8, -6], strict=True):
            x, y = line.get_xydata().T
            np.testing.assert_allclose(y, slope * x / np.log(10))


def without_passages(fits: xr.Dataset) -> xr.Dataset:
    """The same fits if no run had passed: infinite means, exponents without a value."""
    fitted = ("exponent", "arrhenius", "intercept", "predicted_intercept")
    return fits.assign(
        {name: fits[name] * np.inf for name in fits if str(name).startswith("mean_first")}
        | {name: fits[name] * np.nan for name in fits if str(name).startswith(fitted)}
    )


def test_a_panel_without_a_number_says_so_instead_of_failing() -> None:
    regression, network = map(without_passages, (REGRESSION, NETWORK))
    for empty in [figures.fig3b(regression), figures.fig3c(network)]:
        encoded(empty, "png")
        assert [text.get_text() for text in empty.axes[0].texts] == ["no data"]
    for other in [figures.exponents(network), figures.cutoff(regression, network)]:
        encoded(other, "png")
    encoded(figures.residuals(regression, network), "png")
    full = figures.fig3c(NETWORK)
    encoded(full, "png")
    assert "no data" not in [text.get_text() for text in full.axes[0].texts]
