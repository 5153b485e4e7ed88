from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtri

from sgd_escape import SgdEscapeError
from sgd_escape.discrete_theory import (
    data_passage_steps,
    data_stationary_law,
    gaussian_passage_steps,
    gaussian_stationary_law,
    stationary_weights,
)
from sgd_escape.gaussian_kernel import stationary_variance, tail_index


def simulated_steps(
    step: Callable[[np.ndarray], np.ndarray], passed: Callable[[np.ndarray], np.ndarray], runs: int
) -> tuple[float, float]:
    """Mean number of steps until `passed`, from θ = 0, and its standard error."""
    theta, first = np.zeros(runs), np.zeros(runs, dtype=int)
    k = 0
    while np.any(first == 0):
        k += 1
        running = first == 0
        theta[running] = step(theta[running])
        first[running & passed(theta)] = k
    return float(first.mean()), float(first.std() / np.sqrt(runs))


def regression_data(samples: int) -> tuple[np.ndarray, np.ndarray]:
    x, noise = np.random.default_rng(20261123).normal(size=(2, samples))
    return 1.3 * x, 0.4 * x + 0.7 * noise


@pytest.mark.parametrize(
    ("learning_rate", "batch_size", "loss_ratio"), [(0.3, 1, 1.6), (0.5, 3, 1.4), (1.2, 8, 1.5)]
)
def test_gaussian_data_by_brute_force(
    learning_rate: float, batch_size: int, loss_ratio: float
) -> None:
    rng = np.random.default_rng(7)

    def step(theta: np.ndarray) -> np.ndarray:
        x, y = rng.normal(size=(2, len(theta), batch_size))
        return theta - learning_rate * np.mean((theta[:, None] * x - y) * x, axis=1)

    mean, error = simulated_steps(step, lambda theta: 1 + theta**2 > loss_ratio, 20_000)
    exact = gaussian_passage_steps(loss_ratio, learning_rate, batch_size, nodes=100)
    assert exact.error < 0.01 * error
    assert abs(mean - exact.mean) < 4 * error


@pytest.mark.parametrize(("learning_rate", "loss_ratio"), [(0.2, 1.5), (0.3, 1.7)])
def test_a_finite_data_set_by_brute_force(learning_rate: float, loss_ratio: float) -> None:
    x, y = regression_data(40)
    minimum = x @ y / (x @ x)
    minimum_loss = np.mean((x * minimum - y) ** 2) / 2
    hessian = np.mean(x**2)
    rng = np.random.default_rng(8)

    def step(shift: np.ndarray) -> np.ndarray:
        drawn = rng.integers(len(x), size=len(shift))
        theta = minimum + shift
        return shift - learning_rate * (theta * x[drawn] - y[drawn]) * x[drawn]

    def passed(shift: np.ndarray) -> np.ndarray:
        return minimum_loss + hessian / 2 * shift**2 > loss_ratio * minimum_loss

    mean, error = simulated_steps(step, passed, 20_000)
    exact = data_passage_steps(x, y, loss_ratio, learning_rate, nodes=400)
    # With 40 examples the time is a staircase, on which the grid errs by chance.
    assert exact.error < error
    assert abs(mean - exact.mean) < 4 * error


@pytest.mark.parametrize(("loss_ratio", "time", "rounding"), [(1.5, 78.4, 0.05), (2.0, 3221, 0.5)])
def test_the_known_times_of_gaussian_data(loss_ratio: float, time: float, rounding: float) -> None:
    assert abs(0.1 * gaussian_passage_steps(loss_ratio, 0.1, 1).mean - time) <= rounding


def test_a_data_set_of_quantiles_behaves_as_gaussian_data() -> None:
    """All pairs of 200 quantiles of the normal law, by maps, against its density."""
    quantiles = ndtri((np.arange(200) + 0.5) / 200)
    # Midpoints of equal probability miss a part of the variance: 1 is restored.
    quantiles /= quantiles.std()
    x, y = (grid.ravel() for grid in np.meshgrid(quantiles, quantiles))
    maps = data_passage_steps(x, y, 1.5, 0.3, nodes=200)
    density = gaussian_passage_steps(1.5, 0.3, 1)
    # The tail beyond the last quantile, 3 standard deviations, is what remains.
    assert maps.mean == pytest.approx(density.mean, rel=0.01)


@pytest.mark.parametrize(
    ("learning_rate", "batch_size", "order"), [(0.05, 1, 3), (0.1, 1, 3), (0.3, 2, 4), (1.0, 10, 4)]
)
def test_refined_cells_converge_at_their_order(
    learning_rate: float, batch_size: int, order: int
) -> None:
    errors = [
        gaussian_passage_steps(1.5, learning_rate, batch_size, nodes=n).error for n in (100, 200)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_refined_nodes_of_a_data_set_converge_at_second_order() -> None:
    x, y = regression_data(4000)
    errors = [data_passage_steps(x, y, 1.3, 0.2, nodes=n).error for n in (64, 128)]
    # Steps of the staircase of 4000 maps blur the order somewhat.
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize(
    ("learning_rate", "batch_size", "loss_ratio"),
    [(0.1, 1, 2.0), (0.3, 3, 1.2), (0.05, 1, 1.4), (0.1, 1, 1.3)],
)
def test_the_error_of_the_grid_is_within_its_estimate(
    learning_rate: float, batch_size: int, loss_ratio: float
) -> None:
    reference = gaussian_passage_steps(loss_ratio, learning_rate, batch_size, nodes=400).mean
    for nodes in (48, 100):
        steps = gaussian_passage_steps(loss_ratio, learning_rate, batch_size, nodes=nodes)
        assert abs(steps.mean - reference) <= steps.error


def test_extrapolation_leaves_a_small_part_of_the_change() -> None:
    reference = gaussian_passage_steps(2.0, 0.1, 1).mean
    steps = gaussian_passage_steps(2.0, 0.1, 1, nodes=100)
    assert abs(steps.mean - reference) < steps.error / 50


def test_two_maps_by_hand() -> None:
    """x = 1, y = ±1: θ' = θ/10 ± 0.9, so every start within 0.8 of 0 leaves at once."""
    steps = data_passage_steps(np.ones(2), np.array([1.0, -1.0]), 1.64, 0.9, nodes=64)
    assert steps.mean == pytest.approx(1, rel=1e-12)


def test_a_threshold_that_no_example_reaches_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match=r"no example leads from below c = 2\.5 to above"):
        data_passage_steps(np.ones(2), np.array([1.0, -1.0]), 2.5, 0.5)


def test_the_logarithm_of_the_time_grows_as_the_linear_loss_for_small_steps() -> None:
    """Not as log c: η d log τ/dc → 1 at B = 1, by times up to 10²²."""
    slopes = []
    for learning_rate in (0.05, 0.025, 0.0125):
        low, high = (
            np.log(gaussian_passage_steps(c, learning_rate, 1, nodes=200).mean) for c in (1.3, 1.7)
        )
        slopes.append(learning_rate * (high - low) / 0.4)
    errors = np.abs(np.array(slopes) - 1)
    # The prefactor's own dependence on c adds a term of order η.
    assert errors[-1] < 0.03
    assert np.all(errors[1:] / errors[:-1] < 0.6)


@pytest.mark.parametrize(("learning_rate", "batch_size"), [(0.1, 1), (0.3, 4), (1.0, 10)])
def test_the_stationary_law_has_its_exact_second_and_fourth_moment(
    learning_rate: float, batch_size: int
) -> None:
    law = gaussian_stationary_law(learning_rate, batch_size)
    second, fourth = (law.probability @ law.theta**power for power in (2, 4))
    a, b = learning_rate / batch_size, batch_size
    w = np.cumprod(np.append(1.0, b + 2 * np.arange(4)))
    # ⟨Z²|W⟩ = W and ⟨Z⁴|W⟩ = 3W²; the even moments of (1 - aW)θ + aZ.
    both = w[1] - 2 * a * w[2] + a**2 * w[3]
    contraction = 1 - 4 * a * w[1] + 6 * a**2 * w[2] - 4 * a**3 * w[3] + a**4 * w[4]
    variance = stationary_variance(learning_rate, batch_size)
    exact = (6 * a**2 * both * variance + 3 * a**4 * w[2]) / (1 - contraction)
    assert second == pytest.approx(variance, rel=1e-5)
    assert fourth == pytest.approx(exact, rel=1e-5)
    assert law.probability.sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("learning_rate", "batch_size"), [(0.5, 1), (1.0, 4), (2.0, 10)])
def test_the_tail_of_the_stationary_law_falls_with_the_tail_index(
    learning_rate: float, batch_size: int
) -> None:
    law = gaussian_stationary_law(learning_rate, batch_size, nodes=400)
    power = np.log(law.probability / law.width)
    far = (law.theta > 100) & (law.theta < 1000)
    slope = np.polyfit(np.log(law.theta[far]), power[far], 1)[0]
    assert slope == pytest.approx(-1 - tail_index(learning_rate, batch_size), abs=0.02)


def test_steps_beyond_the_reach_are_counted() -> None:
    near, far = (
        gaussian_stationary_law(0.5, 1, nodes=400, reach=reach).escape for reach in (10.0, 100.0)
    )
    # P(|θ| > x) ~ x^-α.
    assert near / far == pytest.approx(10 ** tail_index(0.5, 1), rel=0.1)


def test_the_stationary_law_of_a_data_set_has_its_exact_mean_and_variance() -> None:
    """⟨δ²⟩ (2ηh - η²⟨x⁴⟩) = η²⟨x²e²⟩ of δ' = (1 - ηx²)δ + ηxe, and ⟨δ⟩ = 0."""
    x, y = regression_data(100)
    minimum = x @ y / (x @ x)
    residual = y - minimum * x
    rate = 0.1
    exact = rate * np.mean((x * residual) ** 2) / (2 * np.mean(x**2) - rate * np.mean(x**4))
    errors = []
    for nodes in (200, 400):
        law = data_stationary_law(x, y, rate, reach=2.0, nodes=nodes)
        shift = law.theta - minimum
        assert law.probability @ shift == pytest.approx(0, abs=1e-9)
        assert law.escape < 1e-9
        assert law.width.sum() == pytest.approx(4, rel=1e-12)
        errors.append(law.probability @ shift**2 / exact - 1)
    # Linear interpolation adds a variance of order nodes⁻².
    assert 0 < errors[1] < 0.01
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.4)


def test_the_stationary_weights_are_the_eigenvector() -> None:
    p = np.random.default_rng(3).random((30, 30))
    p /= p.sum(axis=1, keepdims=True)
    weights = stationary_weights(p)
    assert weights @ p == pytest.approx(weights, rel=1e-13)


def test_small_stationary_weights_keep_their_digits() -> None:
    """A walk down by 1 and up by 10⁻³⁰: by detailed balance each weight is 10⁻³⁰ of the last."""
    p = np.diag(np.full(9, 1e-30), 1) + np.diag(np.ones(9), -1)
    weights = stationary_weights(p)
    assert weights[1:] / weights[:-1] == pytest.approx(np.full(9, 1e-30), rel=1e-13)


def test_a_state_without_a_way_back_is_refused() -> None:
    with pytest.raises(
        SgdEscapeError, match="way back from every state, but state 2 of 3 has none"
    ):
        stationary_weights(np.array([[0, 1.0, 0], [0.5, 0, 0.5], [0, 0, 1.0]]))


def test_a_chain_that_diverges_has_no_stationary_law() -> None:
    with pytest.raises(SgdEscapeError, match="makes the chain diverge"):
        gaussian_stationary_law(4.0, 1)


@pytest.mark.parametrize("bad", [1.0, 0.5, -2.0])
def test_a_passage_needs_a_threshold_above_the_minimum(bad: float) -> None:
    x, y = regression_data(5)
    with pytest.raises(SgdEscapeError, match=f"needs a loss ratio above 1, not {bad}"):
        gaussian_passage_steps(bad, 0.1, 1)
    with pytest.raises(SgdEscapeError, match=f"needs a loss ratio above 1, not {bad}"):
        data_passage_steps(x, y, bad, 0.1)


@pytest.mark.parametrize("bad", [4, 50, 0])
def test_the_grid_needs_halves_with_a_middle(bad: int) -> None:
    with pytest.raises(SgdEscapeError, match=f"multiple of 4 from 8, not {bad}"):
        gaussian_passage_steps(1.5, 0.1, 1, nodes=bad)


def test_a_data_set_needs_a_learning_rate() -> None:
    x, y = regression_data(5)
    with pytest.raises(SgdEscapeError, match="needs a positive learning rate"):
        data_passage_steps(x, y, 1.5, 0.0)
    with pytest.raises(SgdEscapeError, match="needs a positive learning rate"):
        data_stationary_law(x, y, -0.1, reach=1.0)
