"""What the theory predicts: Eqs. (15)-(17) and exact passage times of the SDEs (4) and (12).

`temperature` is T = ηh*/B throughout. Rates and times belong to the continuous time t = ηk of
Eq. (4); a number of steps is t/η.
"""

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.special import betainc, betaln, hyp2f1

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
    """log κ of Eq. (15), which is Eq. (40), κ per unit of t = ηk.

    κ ~ √(h_e* |h_e^s|)/(2π) · [L(θs)/L(θ*)]^-(B/(ηh_e*) + 1 - n/2), in the limit η/B → 0.

    The proof takes h_i^s = h_i* in the directions i ≠ e; where they differ, add
    `log_transverse_factor`.
    """
    exponent = escape_exponent(temperature, effective_dimension)
    return _log_attempts(minimum_curvature, saddle_curvature) - float(exponent * np.log(loss_ratio))


def log_kramers_rate(
    loss_barrier: float, noise_strength: float, minimum_curvature: float, saddle_curvature: float
) -> float:
    """log κ of GLD, Eq. (5), κ per unit of t: κ ~ √(h_e* |h_e^s|)/(2π) · e^(-ΔL/D) as D → 0.

    `loss_barrier` is ΔL = L(θs) - L(θ*), `noise_strength` is D. In more dimensions add
    `log_transverse_factor`, as for Eq. (15). Hänggi, Talkner and Borkovec, Reviews of Modern
    Physics 62, 251 (1990).
    """
    return _log_attempts(minimum_curvature, saddle_curvature) - loss_barrier / noise_strength


def log_transverse_factor(
    minimum_curvatures: Float[np.ndarray, " transverse"],
    saddle_curvatures: Float[np.ndarray, " transverse"],
) -> float:
    """log ∏_{i≠e} √(h_i*/h_i^s): what Eq. (15) and Kramers' rate lack where h_i^s ≠ h_i*.

    Derivation: Eq. (33) integrates e^(-B h_i^s z²/(2ηh_i* L(θs))) over z with h_i^s = h_i*. A U
    that is separable, Eq. (19), has h_i^s = h_i* L(θs)/L(θ*) instead; with this factor, Eq. (15)
    then has the exponent of n = 1. Raises `SgdEscapeError` unless all are positive.
    """
    if not (np.all(minimum_curvatures > 0) and np.all(saddle_curvatures > 0)):
        raise SgdEscapeError(
            "transverse curvatures need to be positive at the minimum and at the saddle, but they "
            f"are {minimum_curvatures} and {saddle_curvatures}"
        )
    return float(0.5 * np.sum(np.log(minimum_curvatures) - np.log(saddle_curvatures)))


def _log_attempts(minimum_curvature: float, saddle_curvature: float) -> float:
    return float(0.5 * np.log(minimum_curvature * abs(saddle_curvature)) - np.log(2 * np.pi))


def mean_first_passage_time(
    loss_ratios: Float[np.ndarray, " thresholds"], temperature: float, effective_dimension: float
) -> Float[np.ndarray, " thresholds"]:
    """Exact mean time at which Eq. (12) with H = h·I in n dimensions first has L = c·L(θ*).

    Starting at the minimum, in units of 1/h (so ηk = result/h):

        τ(c) = 1/(nT) ∫_0^{log c} ₂F₁(1, 1 + 1/T; 1 + n/2; 1 - e^-w) dw.

    Derivation: r = h|θ - θ*|²/(2L*) = L/L* - 1 obeys, in s = ht and with γ = 1,

        dr = [nT(1 + r) - 2r] ds + 2 √(T r (1 + γr)) dW.

    Its mean passage time is the double integral over scale and speed (Gardiner, Handbook of
    Stochastic Methods, 5.2.7) with scale density r^(-n/2) (1 + γr)^q, q = 1/T. The inner one is
    an incomplete beta function, and B(x; a, b) = x^a (1 - x)^b ₂F₁(1, a + b; a + 1; x)/a leaves an
    integrand without singularity in w = log(1 + γr), for every n > 0. For c → ∞ the slope
    d log τ/d log c tends to 1/T + 1 - n/2 where that is positive. Raises `SgdEscapeError` if a loss
    ratio is below 1 or T or n is not positive.
    """
    logs = log_mean_first_passage_time(loss_ratios, temperature, effective_dimension)
    return np.asarray(np.exp(logs))


def log_mean_first_passage_time(
    loss_ratios: Float[np.ndarray, " thresholds"],
    temperature: float,
    effective_dimension: float,
    *,
    exact_covariance: bool = False,
) -> Float[np.ndarray, " thresholds"]:
    """The logarithm of `mean_first_passage_time`, or of that of Eq. (4) with the exact noise.

    For i.i.d. Gaussian inputs of variance h and labels (section 5.3.1, N → ∞) the noise is not that
    of Eq. (6). With u = √(h/2L*) (θ - θ*) it is, by Wick's theorem,

        B Σ = 2L* h [(1 + |u|²) I + u uᵀ],

    so that r = |u|² has the drift nT(1 + r) + Tr - 2r and γ = 2 above, q = 1/(2T) + (n - 1)/4, and

        τ(c) = 1/(2nT) ∫_0^{log(2c - 1)} ₂F₁(1, 1 + q; 1 + n/2; 1 - e^-w) dw

    has the asymptotic slope 1/(2T) + 3/4 - n/4. At c = 1 the logarithm is -inf.
    """
    n, span, power = _reduction(loss_ratios, temperature, effective_dimension, exact_covariance)
    factor = np.log(n * temperature * (2 if exact_covariance else 1))
    return np.array([_log_integral(end, power, n) - factor for end in span])


def local_slope(
    loss_ratios: Float[np.ndarray, " thresholds"],
    temperature: float,
    effective_dimension: float,
    *,
    exact_covariance: bool = False,
) -> Float[np.ndarray, " thresholds"]:
    """d log τ/d log c of `log_mean_first_passage_time`, from the integrand at its upper end.

    Raises `SgdEscapeError` as that does, and at c = 1, where the slope is infinite.
    """
    n, span, power = _reduction(loss_ratios, temperature, effective_dimension, exact_covariance)
    if np.any(span == 0):
        raise SgdEscapeError("a local slope needs loss ratios c > 1, but one of them is 1")
    logs = [_log_integrand(end, power, n) - _log_integral(end, power, n) for end in span]
    # dw/d log c = γc/(1 + γ(c - 1)).
    widening = np.asarray(loss_ratios) * (2 if exact_covariance else 1) * np.exp(-span)
    return np.asarray(np.exp(logs) * widening)


def _reduction(
    loss_ratios: Float[np.ndarray, " thresholds"],
    temperature: float,
    effective_dimension: float,
    exact_covariance: bool,
) -> tuple[float, Float[np.ndarray, " thresholds"], float]:
    """n, the upper ends log(1 + γ(c - 1)), and the power q of the scale density."""
    if np.any(loss_ratios < 1):
        raise SgdEscapeError(
            f"a passage time needs loss ratios c >= 1, but the smallest is {loss_ratios.min()}"
        )
    if not (temperature > 0 and effective_dimension > 0):
        raise SgdEscapeError(
            "a passage time needs a positive temperature and dimension, but they are "
            f"{temperature} and {effective_dimension}"
        )
    if exact_covariance:
        power = 1 / (2 * temperature) + (effective_dimension - 1) / 4
        return effective_dimension, np.log1p(2 * (loss_ratios - 1)), power
    return effective_dimension, np.log(loss_ratios), 1 / temperature


def _log_integral(end: float, power: float, n: float) -> float:
    """log ∫_0^end ₂F₁(1, 1 + q; 1 + n/2; 1 - e^-w) dw, scaled by the integrand's largest value."""
    if end == 0:
        return -np.inf
    top = _log_integrand(end, power, n)
    # At low temperature all of it lies near the end, where `quad` must be told to look.
    near_end = [end - width / power for width in (100, 10) if width / power < end]
    scaled = quad(
        lambda w: np.exp(_log_integrand(w, power, n) - top),
        0,
        end,
        epsabs=0,
        epsrel=1e-11,
        limit=200,
        points=near_end or None,
    )[0]
    return float(top + np.log(scaled))


def _log_integrand(w: float, power: float, n: float) -> float:
    x, a, b = -np.expm1(-w), n / 2, power + 1 - n / 2
    if b <= 0 or x * (1 + power) < 1:
        return float(np.log(hyp2f1(1.0, 1 + power, 1 + a, x)))
    # Here SciPy's ₂F₁ loses digits or overflows; the incomplete beta function does neither.
    return float(np.log(a * betainc(a, b, x)) + betaln(a, b) - a * np.log(x) + b * w)
