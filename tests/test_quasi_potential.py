from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad

from sgd_escape import SgdEscapeError
from sgd_escape.quasi_potential import (
    data_hamiltonian,
    data_quasi_potential,
    gaussian_hamiltonian,
    gaussian_quasi_potential,
)

HESSIAN = np.array([[2.0, 0.3], [0.3, 0.7]])


@pytest.mark.parametrize("loss_ratio", [1.01, 1.5, 3.0, 50.0])
@pytest.mark.parametrize("minimum_loss", [0.5, 0.02])
@pytest.mark.parametrize("hessian", [np.eye(1), 4 * np.eye(1), HESSIAN])
def test_for_gaussian_data_the_barrier_is_that_of_the_linear_loss(
    loss_ratio: float, minimum_loss: float, hessian: np.ndarray
) -> None:
    barrier = gaussian_quasi_potential(loss_ratio, hessian, minimum_loss)
    assert barrier == pytest.approx(loss_ratio - 1, rel=1e-6)


def test_in_one_dimension_the_hamiltonian_is_the_logarithm_of_a_quadratic() -> None:
    """W ~ χ²_1 and Z given W ~ N(0, W): ⟨e^(p(Z - Wθ))⟩ = ⟨e^(W(p²/2 - pθ))⟩, h = 2L* = 1."""
    theta, p = 0.8, 1.1
    value = gaussian_hamiltonian(np.array([theta]), np.array([p]), np.eye(1), 0.5)
    assert value == pytest.approx(-0.5 * np.log(1 + 2 * p * theta - p**2), rel=1e-13)


def test_the_hamiltonian_of_gaussian_data_is_a_gaussian_average() -> None:
    """A product rule over x₁, x₂ and e, 40 nodes each, is a data set with weights."""
    shift, momentum, minimum_loss = np.array([0.2, -0.3]), np.array([0.3, 0.1]), 0.4
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    points = np.array(list(product(nodes, repeat=3)))
    probability = np.prod(list(product(weights, repeat=3)), axis=1)
    x = points[:, :2] @ np.linalg.cholesky(HESSIAN).T
    exponent = (x @ momentum) * (np.sqrt(2 * minimum_loss) * points[:, 2] - x @ shift)
    expected = np.log(probability @ np.exp(exponent))
    value = gaussian_hamiltonian(shift, momentum, HESSIAN, minimum_loss)
    assert value == pytest.approx(expected, rel=1e-8)


def test_the_gradient_of_the_action_is_a_root_in_every_direction() -> None:
    shift = np.array([0.7, -1.9])
    assert gaussian_hamiltonian(shift, shift / 0.3, HESSIAN, 0.3) == pytest.approx(0, abs=1e-13)
    assert abs(gaussian_hamiltonian(shift, 1.1 * shift / 0.3, HESSIAN, 0.3)) > 0.1


def test_the_hamiltonian_is_infinite_where_the_average_diverges() -> None:
    assert gaussian_hamiltonian(np.array([0.5]), np.array([9.0]), np.eye(1), 0.5) == np.inf


def test_the_slope_of_the_hamiltonian_at_zero_is_the_drift() -> None:
    """-p·∇L = -p·Hδ, for Gaussian data and a data set."""
    rng = np.random.default_rng(1)
    shift, momentum = np.array([0.4, 0.9]), 1e-6 * np.array([1.0, -2.0])
    value = gaussian_hamiltonian(shift, momentum, HESSIAN, 0.5)
    assert value == pytest.approx(-momentum @ HESSIAN @ shift, rel=1e-4)
    x, residuals = rng.normal(size=(50, 2)), rng.normal(size=50)
    gradient = x.T @ (x @ shift - residuals) / 50
    value = data_hamiltonian(shift, momentum, x, residuals)
    assert value == pytest.approx(-momentum @ gradient, rel=1e-4)


@pytest.mark.parametrize("loss_ratio", [1.1, 1.6, 1.9])
def test_two_examples_by_the_inverse_function(loss_ratio: float) -> None:
    """x = 1, y = ±1: H = log cosh p - pδ, whose root is δ(p) = log cosh(p)/p. By parts,

    ∫ p dδ = p(δ_end) δ_end - ∫_0^p_end δ(p) dp.
    """
    end = np.sqrt(loss_ratio - 1)
    low, high = 1e-9, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        below = np.logaddexp(middle, -middle) - np.log(2) < middle * end
        low, high = (middle, high) if below else (low, middle)
    area = quad(lambda p: (np.logaddexp(p, -p) - np.log(2)) / p, 0, low, epsabs=0, limit=200)[0]
    value = data_quasi_potential(np.ones((2, 1)), np.array([1.0, -1.0]), loss_ratio)
    assert value == pytest.approx(low * end - area, rel=1e-7)


def test_a_place_that_nothing_pushes_out_of_is_refused() -> None:
    with pytest.raises(SgdEscapeError, match="needs examples that push outwards all the way"):
        data_quasi_potential(np.ones((2, 1)), np.array([1.0, -1.0]), 2.5)


@pytest.mark.parametrize("bad", [1.0, 0.3])
def test_a_quasi_potential_needs_a_threshold_above_the_minimum(bad: float) -> None:
    with pytest.raises(SgdEscapeError, match=f"needs a loss ratio above 1, not {bad}"):
        gaussian_quasi_potential(bad, np.eye(1), 0.5)
    with pytest.raises(SgdEscapeError, match=f"needs a loss ratio above 1, not {bad}"):
        data_quasi_potential(np.ones((2, 1)), np.array([1.0, -1.0]), bad)


@pytest.mark.parametrize("curvatures", [[1.7], [2.0, 0.5]])
def test_data_drawn_from_the_gaussian_have_its_quasi_potential(curvatures: list[float]) -> None:
    """With every example also at (x, -y), θ* = 0 and both ways out are equally far."""
    rng = np.random.default_rng(20261123)
    values = []
    for _ in range(8):
        x = rng.normal(size=(1500, len(curvatures))) * np.sqrt(curvatures)
        y = rng.normal(size=1500)
        values.append(data_quasi_potential(np.concatenate([x, x]), np.concatenate([y, -y]), 1.4))
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert error < 0.015
    # The bias of order 1/N is a hundredth of the scatter.
    assert abs(np.mean(values) - 0.4) < 4 * error


def test_the_quasi_potential_does_not_depend_on_units() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(300, 2)) * [1.5, 1], rng.normal(size=300)
    value = data_quasi_potential(x, y, 1.5)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert data_quasi_potential(3 * x @ turn, 7 * y, 1.5) == pytest.approx(value, rel=1e-7)


def test_the_cheaper_of_both_ways_out_counts() -> None:
    """Mirrored data exchange the two ways, of which two large examples make one cheap."""
    x = np.concatenate([np.random.default_rng(6).normal(size=100), [3.0, 3.0]])[:, None]
    y = np.concatenate([np.random.default_rng(9).normal(size=100), [4.0, 4.0]])
    value = data_quasi_potential(x, y, 1.5)
    assert data_quasi_potential(-x, y, 1.5) == pytest.approx(value, rel=1e-9)
    assert value < 0.45
