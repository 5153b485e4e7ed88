"""The limit η → 0 of discrete SGD at fixed B: quasi-potentials from the actual law of its noise.

With B examples a step drawn independently, ⟨e^(B p·Δθ/η)⟩ = e^(B H(θ, p)) holds exactly for

    H(θ, p) = log⟨e^(-p·∇ℓ(θ))⟩ over single examples.

The cheapest way out of θ* has an action V, H(θ, ∇V/B) = 0, and log τ ~ V/η (Freidlin and Wentzell,
Random Perturbations of Dynamical Systems, on averages of small jumps). No Gaussian takes the place
of the noise here, as one does in Eq. (4); for Eq. (12) V would be (B/h*) log c.

Quasi-potentials are in units of B/h*, h* the largest curvature: log τ ~ (B/(ηh*)) × result.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.optimize import brentq

from sgd_escape.errors import SgdEscapeError


def gaussian_hamiltonian(
    shift: Float[np.ndarray, " d"],
    momentum: Float[np.ndarray, " d"],
    hessian: Float[np.ndarray, "d d"],
    minimum_loss: float,
) -> float:
    """H at θ = θ* + shift for inputs x ~ N(0, H) and independent residuals e ~ N(0, 2L*).

    -p·∇ℓ = (p·x)(e - x·δ), δ the shift; averaging over e, then x, leaves

        H = -½ log det(I + H (pδᵀ + δpᵀ - 2L* ppᵀ)),

    and inf where that has a negative eigenvalue. At p = δ/L* the average over e is 1 for every x:
    H vanishes there whatever the law of the inputs, and V = B|δ|²/(2L*).
    """
    tilt = np.outer(momentum, shift)
    tilt = tilt + tilt.T - 2 * minimum_loss * np.outer(momentum, momentum)
    root = np.linalg.cholesky(hessian)
    eigenvalues = np.linalg.eigvalsh(root.T @ tilt @ root)
    if eigenvalues[0] <= -1:
        return np.inf
    return float(-0.5 * np.sum(np.log1p(eigenvalues)))


def data_hamiltonian(
    shift: Float[np.ndarray, " d"],
    momentum: Float[np.ndarray, " d"],
    inputs: Float[np.ndarray, "examples d"],
    residuals: Float[np.ndarray, " examples"],
) -> float:
    """H at θ = θ* + shift for examples drawn uniformly, with replacement; residuals at θ*."""
    exponent = (inputs @ momentum) * (residuals - inputs @ shift)
    largest = exponent.max()
    return float(largest + np.log(np.mean(np.exp(exponent - largest))))


def gaussian_quasi_potential(
    loss_ratio: float, hessian: Float[np.ndarray, "d d"], minimum_loss: float
) -> float:
    """V at L = c·L* for Gaussian data, from the root of H along the Hessian's sharpest direction.

    Equals c - 1, Arrhenius in the linear loss. Raises `SgdEscapeError` unless c > 1.
    """
    return _along_sharpest(
        lambda shift, momentum: gaussian_hamiltonian(shift, momentum, hessian, minimum_loss),
        loss_ratio,
        hessian,
        minimum_loss,
    )


def data_quasi_potential(
    inputs: Float[np.ndarray, "examples d"],
    labels: Float[np.ndarray, " examples"],
    loss_ratio: float,
) -> float:
    """V at L = c·L* for these very examples, along the Hessian's sharpest direction, cheaper sign.

    Exact for d = 1. For d > 1 the momentum is held along that direction, which bounds the action of
    this straight path from below. Raises `SgdEscapeError` unless c > 1, or if no example pushes
    outwards somewhere on the path: then small steps never take it.
    """
    hessian = inputs.T @ inputs / len(inputs)
    residuals = labels - inputs @ np.linalg.solve(hessian, inputs.T @ labels / len(inputs))
    return _along_sharpest(
        lambda shift, momentum: data_hamiltonian(shift, momentum, inputs, residuals),
        loss_ratio,
        hessian,
        float(np.mean(residuals**2)) / 2,
    )


def _along_sharpest(
    hamiltonian: Callable[[Float[np.ndarray, " d"], Float[np.ndarray, " d"]], float],
    loss_ratio: float,
    hessian: Float[np.ndarray, "d d"],
    minimum_loss: float,
) -> float:
    if not loss_ratio > 1:
        raise SgdEscapeError(f"a quasi-potential needs a loss ratio above 1, not {loss_ratio}")
    curvatures, directions = np.linalg.eigh(hessian)
    end = np.sqrt(2 * minimum_loss * (loss_ratio - 1) / curvatures[-1])

    def momentum(distance: float, direction: Float[np.ndarray, " d"]) -> float:
        def along(size: float) -> float:
            return hamiltonian(distance * direction, size * direction)

        return _nonzero_root(along, distance / minimum_loss)

    # The momentum is that of one example, V/B per length.
    actions = [
        quad(momentum, 0, end, args=(sign * directions[:, -1],), epsrel=1e-9)[0] for sign in (1, -1)
    ]
    return float(curvatures[-1] * min(actions))


def _nonzero_root(hamiltonian: Callable[[float], float], guess: float) -> float:
    """The zero at p > 0 of a convex H with H(0) = 0 and H'(0) < 0."""
    low = guess
    while hamiltonian(low) >= 0:
        low /= 2
    high = 2 * low
    while hamiltonian(high) < 0:
        high *= 2
        if high > 1e6 * guess:
            raise SgdEscapeError(
                "a quasi-potential needs examples that push outwards all the way to the threshold, "
                "but somewhere on it there is none; lower the loss ratio"
            )
    # Where H is infinite, any positive value brackets the root as well.
    return float(brentq(lambda size: min(hamiltonian(size), 1.0), low, high, xtol=1e-12 * guess))
