"""What the theory predicts: Eqs. (15)-(17) and the exact passage time of Eq. (12).

`temperature` is T = ηh*/B throughout. Rates and times belong to the continuous time t = ηk of
Eq. (4); a number of steps is t/η.
"""

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.special import hyp2f1

from sgd_escape.errors import SgdEscapeError


def temperature(learning_rate: float, batch_size: float, curvature: float) -> float:
    """T = ηh*/B, dimensionless (section 5.3.1). Raises `SgdEscapeError` unless all are positive."""
    if not min(learning_rate, batch_size, curvature) > 0:
        raise SgdEscapeError(
            "the temperature needs a positive learning rate, batch size and curvature, but got "
            f"{learning_rate}, {batch_size} and {curvature}"
        )
    return learning_rate * curvature / batch_size


def stationary_exponent(temperature: float) -> float:
    """φ = 1 + B/(ηh*) of P_s(θ) ∝ L(θ)^-φ, Eq. (17)."""
    return 1 + 1 / temperature


def escape_exponent(temperature: float, effective_dimension: float) -> float:
    """B/(ηh*) + 1 - n/2, the power of L(θs)/L(θ*) in 1/κ, Eq. (15)."""
    return 1 / temperature + 1 - effective_dimension / 2


def critical_dimension(temperature: float) -> float:
    """n_c = 2 (B/(ηh*) + 1), beyond which a minimum is unstable, Eq. (16)."""
    return 2 * (1 / temperature + 1)


def log_escape_rate(
    loss_ratio: float,
    temperature: float,
    effective_dimension: float,
    minimum_curvature: float,
    saddle_curvature: float,
) -> float:
    """log κ of Eq. (15), κ per unit of t = ηk.

    κ ~ √(h_e* |h_e^s|)/(2π) · [L(θs)/L(θ*)]^-(B/(ηh_e*) + 1 - n/2), in the limit η/B → 0.
    """
    prefactor = 0.5 * np.log(minimum_curvature * abs(saddle_curvature)) - np.log(2 * np.pi)
    exponent = escape_exponent(temperature, effective_dimension)
    return float(prefactor - exponent * np.log(loss_ratio))


def mean_first_passage_time(
    loss_ratios: Float[np.ndarray, " thresholds"], temperature: float, effective_dimension: float
) -> Float[np.ndarray, " thresholds"]:
    """Exact mean time at which Eq. (12) with H = h·I in n dimensions first has L = c·L(θ*).

    Starting at the minimum, in units of 1/h (so ηk = result/h):

        τ(c) = 1/(nT) ∫_0^{log c} ₂F₁(1, 1 + 1/T; 1 + n/2; 1 - e^-w) dw.

    Derivation: y = L/L* obeys dy = [nTy - 2(y - 1)] ds + 2√(T y (y - 1)) dW in s = ht. Its mean
    passage time is the usual double integral over scale and speed (Gardiner, Handbook of
    Stochastic Methods, 5.2.7); the inner one is an incomplete beta function, and
    B(x; a, b) = x^a (1 - x)^b ₂F₁(1, a + b; a + 1; x)/a leaves an integrand without singularity,
    for every n > 0. For c → ∞ the slope d log τ/d log c tends to 1/T + 1 - n/2 where that is
    positive. Raises `SgdEscapeError` if a loss ratio is below 1.
    """
    loss_ratios = np.asarray(loss_ratios, dtype=float)
    if np.any(loss_ratios < 1):
        raise SgdEscapeError(
            f"a passage time needs loss ratios c >= 1, but the smallest is {loss_ratios.min()}"
        )
    n = effective_dimension

    def integrand(w: float) -> float:
        return float(hyp2f1(1.0, 1 + 1 / temperature, 1 + n / 2, -np.expm1(-w)))

    integrals = [
        quad(integrand, 0, np.log(c), epsabs=0, epsrel=1e-11, limit=200)[0] for c in loss_ratios
    ]
    return np.asarray(integrals) / (n * temperature)
