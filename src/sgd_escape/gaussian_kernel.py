"""One step of SGD on Gaussian data: its law, and what that alone decides.

Section 5.3.1 with N → ∞: inputs and labels are i.i.d. standard normal, so that H = I, θ* = 0,
L(θ)/L* = 1 + |θ|² and, with a = η/B, exactly in one dimension

    θ' = θ - a (W θ - Z),   W ~ χ²_B,   Z given W ~ N(0, W).

In d dimensions the part of θ' along θ has this law too, with |θ| for θ, and the part across is
N(0, a² (1 + |θ|²) W) in each of the d - 1 other directions, independently given W. Derivation: a
step is -a Σ_b e_b x_b with the errors e_b = x_b·θ - y_b. Given these, the components of x_b across
θ are standard normal, the one along it is normal of mean e_b |θ|/(1 + |θ|²) and of variance
1/(1 + |θ|²), and Σ_b e_b² is (1 + |θ|²) W.

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


def log_step_density(
    start: Float[np.ndarray, "*#shape"],
    along: Float[np.ndarray, "*#shape"],
    across: Float[np.ndarray, "*#shape"],
    learning_rate: float,
    batch_size: int,
    dimension: int,
) -> Float[np.ndarray, "..."]:
    """log P(θ' - θ) in ℝᵈ of a step on Gaussian data from |θ| = `start`, θ' ≠ θ.

    `along` is the component of θ' - θ along θ (outwards), `across` the length of the rest. With
    ν = (B - d)/2, g² = 1 + |θ|² and m² = along² + across²/g², integrating W out leaves

        P = 2 (2πa²)^(-d/2) g^(1-d) / (2^(B/2) Γ(B/2)) · (m/ag)^ν K_ν(gm/a) e^(-|θ| along/a).
    """
    a, order = learning_rate / batch_size, (batch_size - dimension) / 2
    growth = np.sqrt(1 + start**2)
    path = np.sqrt((growth * along) ** 2 + across**2)
    log_norm = np.log(2) - dimension / 2 * np.log(2 * np.pi * a**2) - gammaln(batch_size / 2)
    log_norm = log_norm - batch_size / 2 * np.log(2) - (dimension - 1) * np.log(growth)
    # gm + |θ| along without the cancellation that a large θ would bring.
    inwards = (along**2 + across**2) / (path + np.abs(along) * start)
    decay = np.where(along < 0, inwards, path + along * start) / a
    log_norm = log_norm + order * np.log(path / (a * growth**2))
    return np.asarray(log_norm + _log_scaled_bessel_k(abs(order), path / a) - decay)


def log_gaussian_step_density(
    start: Float[np.ndarray, "*#shape"],
    along: Float[np.ndarray, "*#shape"],
    across: Float[np.ndarray, "*#shape"],
    learning_rate: float,
    batch_size: float,
    dimension: int,
) -> Float[np.ndarray, "..."]:
    """The same for a step of Eq. (4) of length Δt = η: Gaussian, with the covariance of SGD.

    With mean -ηθ and BΣ = (1 + |θ|²) I + θθᵀ, its variance along θ is (η²/B) (1 + 2|θ|²) and
    across it (η²/B) (1 + |θ|²).
    """
    unit = learning_rate**2 / batch_size
    wide, narrow = unit * (1 + 2 * start**2), unit * (1 + start**2)
    squares = (along + learning_rate * start) ** 2 / wide + across**2 / narrow
    volume = dimension * np.log(2 * np.pi) + np.log(wide) + (dimension - 1) * np.log(narrow)
    return np.asarray(-(squares + volume) / 2)


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


def tail_index(learning_rate: float, batch_size: int, dimension: float = 1) -> float:
    """Kesten's α > 0, ⟨R^α⟩ = 1: P(|θ| > x) falls as x^-α, Gaussian data.

    Far from the minimum a step multiplies |θ| by R, independent of all before, with

        R² = (1 - aW)² + a²WQ,   a = η/B,   W ~ χ²_B, Q ~ χ²_{d-1} independent.

    Hence τ(c) ~ c^(α/2). As ⟨R²⟩ = 1 - 2η + η² (1 + (d + 1)/B), α = 2 where η (1 + (d + 1)/B) = 2.
    Kesten, Acta Mathematica 131, 207 (1973); for SGD Gürbüzbalaban et al., arXiv 2006.04740.
    Raises `SgdEscapeError` if ⟨log R⟩ >= 0: then there is no stationary law.
    """
    check_step(learning_rate, batch_size)
    # log⟨R^α⟩ is convex in α and 0 at 0, so its sign near 0 is that of its slope.
    low = 1e-6
    if _log_moment(low, learning_rate, batch_size, dimension) >= 0:
        raise SgdEscapeError(
            f"a stationary law needs ⟨log R⟩ < 0, but in dimension {dimension} a learning rate of "
            f"{learning_rate} at batch size {batch_size} makes the chain diverge; lower it"
        )
    high = 1.0
    while _log_moment(high, learning_rate, batch_size, dimension) < 0:
        high *= 2
    case = (learning_rate, batch_size, dimension)
    return float(brentq(_log_moment, low, high, case, xtol=1e-12))


def lyapunov_exponent(learning_rate: float, batch_size: int, dimension: float) -> float:
    """⟨log R⟩ of `tail_index`, the rate a step at which |θ| grows far from the minimum."""
    check_step(learning_rate, batch_size)
    log_multiplier, log_weight = _multiplier(0.0, learning_rate, batch_size, dimension)
    return float(np.sum(np.exp(log_weight) * log_multiplier))


def lyapunov_dimension(learning_rate: float, batch_size: int) -> float:
    """The d, between whole numbers too, at which ⟨log R⟩ = 0: beyond it the minimum holds nothing.

    There α = 0, so τ(c) stops growing as a power of c, which Eq. (16) says of d = n_c. Raises
    `SgdEscapeError` where even d = 2 is beyond it.
    """

    def exponent(dimension: float) -> float:
        return lyapunov_exponent(learning_rate, batch_size, dimension)

    if exponent(2) >= 0:
        raise SgdEscapeError(
            f"a learning rate of {learning_rate} at batch size {batch_size} makes the chain "
            "diverge in every dimension from 2, so that no critical one can be told; lower it"
        )
    high = 4.0
    while exponent(high) < 0:
        high *= 2
    return float(brentq(exponent, high / 2, high, xtol=1e-9))


def mean_square_dimension(learning_rate: float, batch_size: int) -> float:
    """The d at which η (1 + (d + 1)/B) = 2, beyond which ⟨|θ|²⟩ grows without bound: α = 2."""
    check_step(learning_rate, batch_size)
    return batch_size * (2 / learning_rate - 1) - 1


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


def _log_moment(power: float, learning_rate: float, batch_size: int, dimension: float) -> float:
    """log⟨R^power⟩."""
    log_multiplier, log_weight = _multiplier(power, learning_rate, batch_size, dimension)
    return float(logsumexp(log_weight + power * log_multiplier))


def _multiplier(
    power: float, learning_rate: float, batch_size: int, dimension: float
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """log R and the logarithms of the weights of a rule for averages that grow as R^power."""
    if dimension == 1:
        return _multiplier_on_a_line(power, learning_rate, batch_size)
    a = learning_rate / batch_size
    root, root_weight = _chi(batch_size, power)
    side, side_weight = _chi(dimension - 1, power)
    squares = (1 - a * root[:, None] ** 2) ** 2 + (a * root[:, None] * side[None]) ** 2
    return 0.5 * np.log(squares).ravel(), (root_weight[:, None] + side_weight[None]).ravel()


def _chi(
    freedom: float, power: float
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """s and log weights of a trapezoidal rule in log s for averages over s² ~ χ²_freedom."""
    step = 0.05 / max(1, np.sqrt(freedom + power) / 10)
    low = 0.5 * np.log(freedom) - 0.5 - 40 / freedom
    s = np.exp(np.arange(low, np.log(np.sqrt(freedom + 2 * power) + 12), step))
    log_weight = freedom * np.log(s) - s**2 / 2 + (1 - freedom / 2) * np.log(2)
    return s, log_weight + np.log(step) - gammaln(freedom / 2)


def _multiplier_on_a_line(
    power: float, learning_rate: float, batch_size: int
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """`_multiplier` for d = 1, double-exponential on either side of the zero of 1 - ηW/B.

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
    return log_factor, weight + log_density
