"""One step of SGD on Gaussian data in one dimension: its law, and what that alone decides.

Section 5.3.1 with N → ∞: inputs and labels are i.i.d. standard normal, so that h = 1, θ* = 0,
L(θ)/L* = 1 + θ² and, with a = η/B, exactly

    θ' = θ - a (W θ - Z),   W ~ χ²_B,   Z given W ~ N(0, W).

For inputs of variance h and a minimal loss L*, read η as ηh and θ as (θ - θ*) √(h/2L*).
"""

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit, gammaln, kve, logsumexp, ndtr

from sgd_escape.errors import SgdEscapeError


def log_transition_density(
    start: Float[np.ndarray, "*#shape"],
    end: Float[np.ndarray, "*#shape"],
    learning_rate: float,
    batch_size: int,
) -> Float[np.ndarray, "..."]:
    """log P(θ' | θ) of a step on Gaussian data, θ' ≠ θ: the pole of B = 1 lies there.

    With ν = (B - 1)/2, δ = θ' - θ, g = √(1 + θ²) and z = g|δ|/a, integrating W out leaves

        P(θ' | θ) = √(2/π) / (a 2^(B/2) Γ(B/2)) · (|δ|/(a g))^ν K_ν(z) e^(-δθ/a).
    """
    a, order = learning_rate / batch_size, (batch_size - 1) / 2
    growth = np.sqrt(1 + start**2)
    z = growth * np.abs(end - start) / a
    log_norm = 0.5 * np.log(2 / np.pi) - np.log(a) - gammaln(batch_size / 2)
    log_norm -= batch_size / 2 * np.log(2)
    # z + δθ/a without the cancellation that a large θ would bring.
    inwards = (end - start) * start < 0
    rate = np.where(inwards, 1 / (growth + np.abs(start)), growth + np.abs(start))
    decay = np.abs(end - start) * rate / a
    log_norm = log_norm + order * np.log(z / growth**2)
    return np.asarray(log_norm + _log_scaled_bessel_k(order, z) - decay)


def exit_probability(
    start: Float[np.ndarray, " points"], bound: float, learning_rate: float, batch_size: int
) -> Float[np.ndarray, " points"]:
    """P(|θ'| > bound | θ) of a step on Gaussian data.

    θ' given W is Gaussian. W is integrated by the trapezoidal rule, which in log √W converges
    faster than any power, however close to the bound the start is.
    """
    a = learning_rate / batch_size
    low, high = 0.5 * np.log(batch_size) - 0.5 - 60 / batch_size, np.log(np.sqrt(batch_size) + 40)
    step = 0.02 / max(1, np.sqrt(batch_size) / 10)
    s = np.exp(np.arange(low, high, step))
    log_weight = batch_size * np.log(s) - s**2 / 2 + (1 - batch_size / 2) * np.log(2)
    weight = step * np.exp(log_weight - gammaln(batch_size / 2))
    centre, spread = start[:, None] * (1 - a * s[None] ** 2), a * s[None]
    beyond = ndtr((centre - bound) / spread) + ndtr((-centre - bound) / spread)
    return np.asarray(beyond @ weight)


def stationary_variance(learning_rate: float, batch_size: int) -> float:
    """⟨θ²⟩ = (η/B) / (2 - η (1 + 2/B)) of the stationary law for Gaussian data.

    From ⟨θ'²⟩ = ⟨(1 - aW)²⟩⟨θ²⟩ + a²⟨Z²⟩ with ⟨W⟩ = ⟨Z²⟩ = B, ⟨W²⟩ = B² + 2B. Raises
    `SgdEscapeError` where it is infinite, which is where the tail index is 2 or less.
    """
    check_step(learning_rate, batch_size)
    remainder = 2 - learning_rate * (1 + 2 / batch_size)
    if not remainder > 0:
        raise SgdEscapeError(
            f"a finite variance needs a learning rate below {2 / (1 + 2 / batch_size):g} at batch "
            f"size {batch_size}, but it is {learning_rate}"
        )
    return learning_rate / batch_size / remainder


def tail_index(learning_rate: float, batch_size: int) -> float:
    """Kesten's α > 0, ⟨|1 - ηW/B|^α⟩ = 1: P(|θ| > x) falls as x^-α, Gaussian data.

    Kesten, Acta Mathematica 131, 207 (1973); for SGD Gürbüzbalaban et al., arXiv 2006.04740.
    Raises `SgdEscapeError` if ⟨log|1 - ηW/B|⟩ >= 0: then there is no stationary law.
    """
    check_step(learning_rate, batch_size)
    # log⟨|1 - ηW/B|^α⟩ is convex in α and 0 at 0, so its sign near 0 is that of its slope.
    low = 1e-6
    if _log_moment(low, learning_rate, batch_size) >= 0:
        raise SgdEscapeError(
            "a stationary law needs ⟨log|1 - ηW/B|⟩ < 0, but a learning rate of "
            f"{learning_rate} at batch size {batch_size} makes the chain diverge; lower it"
        )
    high = 1.0
    while _log_moment(high, learning_rate, batch_size) < 0:
        high *= 2
    return float(brentq(_log_moment, low, high, (learning_rate, batch_size), xtol=1e-12))


def check_step(learning_rate: float, batch_size: int) -> None:
    """Raises `SgdEscapeError` unless η > 0 and B >= 1."""
    if not (learning_rate > 0 and batch_size >= 1):
        raise SgdEscapeError(
            "a step of SGD needs a positive learning rate and a batch size of at least 1, but they "
            f"are {learning_rate} and {batch_size}"
        )


def _log_scaled_bessel_k(
    order: float, z: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """log K_order(z) + z."""
    if order < 20:
        # SciPy's K ends near 1e9, where the first term of its expansion errs by less than 1e-9.
        far = np.sqrt(np.pi / (2 * z)) * (1 + (order**2 - 0.25) / (2 * z))
        return np.log(np.where(z < 1e7, kve(order, np.minimum(z, 1e7)), far))
    # K overflows; its expansion for large orders errs by 5e-9 at 20 (DLMF 10.41.4).
    root = np.hypot(1, z / order)
    p, p2 = 1 / root, 1 / root**2
    u1 = p * (3 - 5 * p2) / 24
    u2 = p2 * (81 + p2 * (-462 + 385 * p2)) / 1152
    u3 = p * p2 * (30375 + p2 * (-369603 + p2 * (765765 - 425425 * p2))) / 414720
    u4 = 349922430 + p2 * (-446185740 + 185910725 * p2)
    u4 = p2**2 * (4465125 + p2 * (-94121676 + p2 * u4)) / 39813120
    series = 1 - u1 / order + u2 / order**2 - u3 / order**3 + u4 / order**4
    exponent = order / (root + z / order) + order * np.log(z / order / (1 + root))
    return np.asarray(0.5 * np.log(np.pi / (2 * order) / root) - exponent + np.log(series))


def _log_moment(power: float, learning_rate: float, batch_size: int) -> float:
    """log⟨|1 - ηW/B|^power⟩, double-exponential on either side of the zero of 1 - ηW/B.

    In s = √W the integrand has no other singularity, and the rule takes that one away.
    """
    zero = np.sqrt(batch_size / learning_rate)
    reach = np.sqrt(2 * power + batch_size) + 20
    # In s the integrand is about 1 wide wherever it is: its steps must stay below.
    step = 0.1 / (20 + zero + reach)
    t = np.arange(-3.5, 3.5, step)
    x, rest = expit(np.pi * np.sinh(t)), expit(-np.pi * np.sinh(t))
    weight = np.log(step * np.pi * np.cosh(t) * x * rest)
    s = np.concatenate([zero * x, zero + reach * x])
    weight = np.concatenate([weight + np.log(zero), weight + np.log(reach)])
    distance = np.concatenate([zero * rest, reach * x])
    log_factor = np.log(distance * (s + zero) / zero**2)
    log_density = (batch_size - 1) * np.log(s) - s**2 / 2 - gammaln(batch_size / 2)
    log_density += (1 - batch_size / 2) * np.log(2)
    return float(logsumexp(weight + log_density + power * log_factor))
