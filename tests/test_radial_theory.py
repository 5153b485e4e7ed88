from functools import partial

import numpy as np
import pytest

from sgd_escape import SgdEscapeError
from sgd_escape.discrete_theory import gaussian_passage_steps
from sgd_escape.gaussian_kernel import (
    log_gaussian_step_density,
    log_step_density,
    log_transition_density,
)
from sgd_escape.radial_theory import radial_density, radial_passage_steps

LAWS = [log_step_density, log_gaussian_step_density]


def steps(
    rng: np.random.Generator, theta: np.ndarray, eta: float, batch_size: int, gaussian: bool
) -> np.ndarray:
    """SGD on fresh Gaussian data, or with Gaussian noise of BΣ = (1 + |θ|²) I + θθᵀ."""
    runs, dimension = theta.shape
    if gaussian:
        wide = np.sqrt(1 + np.sum(theta**2, axis=1, keepdims=True))
        noise = wide * rng.normal(size=theta.shape) + theta * rng.normal(size=(runs, 1))
        return theta - eta * theta + eta / np.sqrt(batch_size) * noise
    x = rng.normal(size=(runs, batch_size, dimension))
    error = np.einsum("rbd,rd->rb", x, theta) - rng.normal(size=(runs, batch_size))
    return theta - eta / batch_size * np.einsum("rb,rbd->rd", error, x)


def radial_moments(
    law: object, start: float, eta: float, batch_size: int, dimension: int
) -> tuple[float, float]:
    """∫ P(r) dr and ∫ r² P(r) dr, on either side of the near-pole at r = start."""
    density = partial(law, learning_rate=eta, batch_size=batch_size, dimension=dimension)  # type: ignore[call-overload]
    # Double-exponential towards the near-pole, which is logarithmic.
    t = np.arange(-30, 4.5, 0.01)
    gap = np.exp(t)
    outer = np.stack([start + gap, start - gap])
    inside = outer > 0
    values = radial_density(
        np.full(1, start), np.where(inside, outer, 1).ravel(), density, dimension
    ).reshape(outer.shape)
    weight = np.where(inside, values, 0) * gap[None] * 0.01
    return float(weight.sum()), float((weight * outer**2).sum())


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("eta", "batch_size", "dimension"), [(0.1, 1, 5), (0.3, 4, 3), (0.2, 3, 8)]
)
def test_the_law_of_the_radius_has_the_moments_of_a_step(
    law: object, eta: float, batch_size: int, dimension: int
) -> None:
    """⟨|θ'|²⟩ = (1 - η)²|θ|² + (η²/B) Tr[(1 + |θ|²) I + θθᵀ], of both noises alike."""
    start = 1.4
    trace = dimension * (1 + start**2) + start**2
    expected = (1 - eta) ** 2 * start**2 + eta**2 / batch_size * trace
    total, square = radial_moments(law, start, eta, batch_size, dimension)
    # The trapezoidal rule is cut at |θ'| = 0, where both sides end.
    assert total == pytest.approx(1, abs=2e-5)
    assert square == pytest.approx(expected, rel=5e-5)


def test_in_one_dimension_the_step_density_is_that_of_the_kernel() -> None:
    start, end = np.array([0.3, 2.0, 40.0]), np.array([-0.4, 2.1, 30.0])
    for eta, batch_size in [(0.1, 1), (0.5, 6)]:
        ours = log_step_density(start, end - start, 0 * end, eta, batch_size, 1)
        assert ours == pytest.approx(log_transition_density(start, end, eta, batch_size), rel=1e-10)


@pytest.mark.parametrize(("eta", "batch_size"), [(0.1, 1), (0.2, 2)])
def test_one_dimension_agrees_with_the_matrix_of_each_threshold(
    eta: float, batch_size: int
) -> None:
    """Two grids and two quadratures: one matrix for all thresholds, and one for each."""
    ratios = np.array([1.3, 2.0, 4.0])
    table = radial_passage_steps(ratios, eta, batch_size, 1, nodes=240)
    exact = [gaussian_passage_steps(c, eta, batch_size).mean for c in ratios]
    # Most of what the two grids differ by is taken away by the extrapolation.
    assert np.all(np.abs(table.mean - exact) < 0.2 * table.error)
    assert np.all(table.error < 0.01 * table.mean)


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize(("eta", "batch_size", "dimension"), [(0.3, 1, 3), (0.4, 2, 6)])
def test_passages_by_brute_force(
    eta: float, batch_size: int, dimension: int, gaussian: bool
) -> None:
    rng, ratios = np.random.default_rng(5), np.array([1.4, 2.0])
    table = radial_passage_steps(
        ratios, eta, batch_size, dimension, gaussian_noise=gaussian, nodes=60
    )
    theta, first, k = np.zeros((20_000, dimension)), np.zeros((20_000, 2), dtype=int), 0
    while np.any(first == 0):
        k += 1
        theta = steps(rng, theta, eta, batch_size, gaussian)
        passed = 1 + np.sum(theta**2, axis=1)[:, None] > ratios[None]
        first[passed & (first == 0)] = k
        theta[first[:, 1] > 0] = 0
    error = first.std(axis=0) / np.sqrt(len(first))
    assert np.all(table.error < 0.02 * table.mean)
    assert np.all(np.abs(first.mean(axis=0) - table.mean) < 4 * error)


def test_finer_cells_converge_at_second_order() -> None:
    ratios = np.array([1.5, 3.0])
    errors = [radial_passage_steps(ratios, 0.2, 2, 3, nodes=n).error for n in (32, 64)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize(
    ("ratios", "dimension"), [([1.0, 2.0], 3), ([2.0, 2.0], 3), ([3.0, 2.0], 3), ([2.0], 0)]
)
def test_thresholds_that_do_not_increase_and_no_dimension_are_refused(
    ratios: list[float], dimension: int
) -> None:
    with pytest.raises(SgdEscapeError, match="increasing loss ratios above 1 and a dimension"):
        radial_passage_steps(np.array(ratios), 0.1, 1, dimension)


def test_a_learning_rate_of_zero_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match="positive learning rate"):
        radial_passage_steps(np.array([2.0]), 0.0, 1, 3)


def test_cells_wider_than_a_step_are_refused() -> None:
    with pytest.raises(SgdEscapeError, match=r"60 cells of .* do not resolve the steps .* raise"):
        radial_passage_steps(np.array([2.0]), 0.02, 2, 3, gaussian_noise=True, nodes=60)
