"""Escape over a saddle: exact exit times at any noise, and the prefactor along a curved valley.

A valley is a loss L(x, z) = V(x) + ½ Σ k_i(x) z_i² whose minimum and saddle lie on the path z = 0.
Times belong to the continuous time t = ηk of Eq. (4). The derivations are in docs/barrier.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre
from scipy.integrate import solve_ivp
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from sgd_escape.errors import SgdEscapeError

Grid = Float[np.ndarray, "xs zs"]

# Half the width of the domain across a valley, in units of √(2L/k): there the law has fallen by
# 37^-(1/T + 1), which is 1e-8 at T = 0.25.
_WIDTH = 6.0


class PathValues(NamedTuple):
    """V, V', k and k' at points of the path z = 0."""

    loss: Float[np.ndarray, " points"]
    slope: Float[np.ndarray, " points"]
    curvature: Float[np.ndarray, "points transverse"]
    curvature_slope: Float[np.ndarray, "points transverse"]


OnPath = Callable[[Float[np.ndarray, " points"]], PathValues]


class LossNoise(NamedTuple):
    """Eq. (12) along the path: noise √(2a) dW with a = TL, T = ηh_e*/B, and ∫ dL/a = log(L)/T."""

    temperature: float

    def exponent(self, loss: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
        return np.asarray(np.log(loss) / self.temperature)

    def diffusion(self, loss: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
        return self.temperature * loss


class ConstantNoise(NamedTuple):
    """Eq. (5), GLD: a = D and ∫ dL/a = L/D."""

    strength: float

    def exponent(self, loss: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
        return loss / self.strength

    def diffusion(self, loss: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
        return np.full_like(loss, self.strength)


Noise = LossNoise | ConstantNoise


def log_exit_time(
    on_path: OnPath, noise: Noise, *, wall: float, start: float, plane: float, panels: int = 100
) -> float:
    """log of the mean time in which dx = -V'dt + √(2a(V)) dW goes from `start` to `plane`, exact.

        τ = ∫_start^plane e^{E(V(y))} ∫_wall^y e^{-E(V(z))}/a(V(z)) dz dy,    E the exponent,

    with a reflecting `wall`, to be put where e^{-E} is negligible (Gardiner, Handbook of Stochastic
    Methods, 5.2.7). Gauss and Legendre's rule of eight points on `panels` on either side of the
    start. Raises `SgdEscapeError` unless wall < start < plane.
    """
    _check_order(wall, start, plane)
    sides = np.linspace(wall, start, panels + 1), np.linspace(start, plane, panels + 1)
    edges = np.concatenate([sides[0], sides[1][1:]])
    nodes, weights = legendre.leggauss(8)
    half = np.diff(edges)[:, None] / 2
    loss = on_path((edges[:-1, None] + half * (1 + nodes[None])).ravel()).loss.reshape(-1, 8)
    exponent = noise.exponent(loss)
    lowest, highest = exponent.min(), exponent[panels:].max()
    speed = half * np.exp(lowest - exponent) / noise.diffusion(loss)
    before = np.concatenate([[0], np.cumsum(speed @ weights)[:-1]])
    inner = before[:, None] + speed @ _integration_matrix(nodes).T
    outer = (half * np.exp(np.minimum(exponent - highest, 0)) * inner)[panels:]
    return float(highest - lowest + np.log(np.sum(outer @ weights)))


def log_valley_factor(
    on_path: OnPath,
    curvatures: Float[np.ndarray, " n"],
    *,
    minimum: float,
    saddle: float,
    offset: float = 1e-6,
) -> float:
    """log of the factor that Eq. (15) lacks for Eq. (12) in a valley, in the limit η/B → 0.

    `curvatures` are those of the noise, H* = diag(h_e*, h_i*), that along the path first. With
    ε = η/B and P_s = C e^{-Φ/ε}, Φ = φ(x) + ½ Σ w_i(x) z_i², the Fokker-Planck equation gives
    φ' = V'/(h_e* V) and, along the path uphill, dx/dt = V', from w_i = 1/L* at the minimum

        ½ dw_i/dt = k_i w_i - h_i* V w_i² + (k_i' - k_i V'/V) V'/(2h_e* V).

    The factor is ∏ (w_i L_s)^-½ exp ∫ (k_i - h_i* V w_i) dt with L_s and w_i at the saddle. For
    h_i* = h_e* it is ∏ √(h_i*/h_i^s), that of `escape_theory.log_transverse_factor`. The approach
    is that of Bouchet and Reygner, arXiv 1507.02104. Integrates from `offset` times the length of
    the path beside the minimum to as much before the saddle. Raises `SgdEscapeError` if the
    path does not rise all the way, or if some w_i is not positive at the saddle.
    """
    begin, end = minimum + offset * (saddle - minimum), saddle - offset * (saddle - minimum)
    minimum_loss, saddle_loss = on_path(np.array([minimum, saddle])).loss
    if not np.all(on_path(np.linspace(begin, end, 101)).slope * (end - begin) > 0):
        raise SgdEscapeError(
            "a path of escape rises from the minimum to the saddle, but the loss does not rise "
            f"everywhere between {minimum} and {saddle}"
        )
    h_e, h_i = curvatures[0], curvatures[1:]

    def uphill(_: float, state: Float[np.ndarray, " state"]) -> Float[np.ndarray, " state"]:
        loss, slope, k, k_slope = (values[0] for values in on_path(state[:1]))
        w = state[1 : 1 + len(h_i)]
        excess = k - h_i * loss * w
        turning = (k_slope - k * slope / loss) * slope / (2 * h_e * loss)
        return np.concatenate([[slope], 2 * (excess * w + turning), excess])

    def arrival(_: float, state: Float[np.ndarray, " state"]) -> float:
        return float(state[0] - end)

    def divergence(_: float, state: Float[np.ndarray, " state"]) -> float:
        return float(np.min(state[1 : 1 + len(h_i)], initial=0) * minimum_loss + 100)

    arrival.terminal = divergence.terminal = True  # type: ignore[attr-defined]
    initial = np.concatenate([[begin], np.full(len(h_i), 1 / minimum_loss), np.zeros(len(h_i))])
    events = (arrival, divergence)
    path = solve_ivp(uphill, (0, np.inf), initial, "LSODA", events=events, rtol=1e-10, atol=1e-12)
    w, integral = np.split(path.y[1:, -1], 2)
    if not np.all(w > 0):
        raise SgdEscapeError(
            "the most probable path leaves the floor of the valley, about which the prefactor is "
            f"expanded: transverse noise of curvatures {h_i} is too strong beside h_e* = {h_e} "
            "for curvatures of the loss that fall this much towards the saddle"
        )
    return float(np.sum(integral - np.log(w * saddle_loss) / 2))


def log_valley_exit_time(
    on_path: OnPath,
    noise: Noise,
    anisotropy: float,
    *,
    wall: float,
    start: float,
    plane: float,
    cells: int = 80,
) -> float:
    """log of the mean time from (start, 0) to x = plane in a valley of two dimensions.

    Solves the backward equation -∇L·∇τ + a(L) (∂_x² + ϱ ∂_z²) τ = -1, where the `anisotropy` ϱ is
    h_i*/h_e* for Eq. (12) and 1 for Eq. (5); τ = 0 on the plane, and no slope on the wall, on the
    axis z = 0 and far across the valley (Gardiner, Handbook of Stochastic Methods, 5.4). Finite
    differences of second order, fitted exponentially (Scharfetter and Gummel, IEEE Transactions on
    Electron Devices 16, 64 (1969)), on `cells` from start to plane and on twice as many,
    extrapolated. Raises `SgdEscapeError` unless wall < start < plane, or if the noise is so weak
    that rounding reaches the fourth digit.
    """
    _check_order(wall, start, plane)
    coarse, fine = (
        _log_backward_solution(on_path, noise, anisotropy, (wall, start, plane), n)
        for n in (cells, 2 * cells)
    )
    return fine + (fine - coarse) / 3


def _log_backward_solution(
    on_path: OnPath,
    noise: Noise,
    anisotropy: float,
    ends: tuple[float, float, float],
    cells: int,
) -> float:
    wall, start, plane = ends
    step = (plane - start) / cells
    outside = int(np.ceil((start - wall) / step))
    path = on_path(start + step * np.arange(-outside, cells))
    v, slope = path.loss[:, None], path.slope[:, None]
    k, k_slope = path.curvature, path.curvature_slope
    # z = s sinh ζ: cells that are fine at the axis and widen with the tails of the law.
    at_start = noise.diffusion(v[outside])[0] / k[outside, 0]
    scale = np.sqrt(2 * anisotropy * at_start)
    zeta = np.linspace(0, np.arcsinh(_WIDTH * np.sqrt(2 * np.max(v / k)) / scale), cells // 2)[None]
    z, stretch = scale * np.sinh(zeta), scale * np.cosh(zeta)
    loss = v + k * z**2 / 2
    diffusion = noise.diffusion(loss)
    across = anisotropy * diffusion / stretch**2
    tau = _mean_exit_times(
        _rates(-slope - k_slope * z**2 / 2, diffusion, step),
        _rates(-k * z / stretch - across * np.tanh(zeta), across, zeta[0, 1]),
    )
    return float(np.log(tau[outside, 0]))


def _rates(drift: Grid, diffusion: Grid, step: float) -> tuple[Grid, Grid]:
    """Of the jumps to the neighbours below and above that stand for drift ∂ + diffusion ∂²."""
    peclet = drift * step / diffusion
    with np.errstate(invalid="ignore"):
        above = np.where(abs(peclet) < 1e-8, 1 + peclet / 2, -peclet / np.expm1(-peclet))
    return diffusion / step**2 * (above - peclet), diffusion / step**2 * above


def _mean_exit_times(along: tuple[Grid, Grid], across: tuple[Grid, Grid]) -> Grid:
    """Of jumps with these rates, out of the upper end of the xs; every other edge reflects."""
    index = np.arange(along[0].size).reshape(along[0].shape)
    out = along[0] + along[1] + across[0] + across[1]
    turned = across[0].T, across[1].T
    out[:, -1] -= across[1][:, -1]
    entries = [(index, index, out), *_jumps(index, *along), *_jumps(index.T, *turned)]
    row, column, value = (np.concatenate([e[i].ravel() for e in entries]) for i in range(3))
    matrix = csc_matrix((value, (row, column)), (out.size, out.size))
    tau = np.asarray(spsolve(matrix, np.ones(out.size))).reshape(out.shape)
    # Each row is wrong by rounding, like a particle that is lost at so small a rate.
    rounding = np.finfo(float).eps * np.median(out) * np.max(np.abs(tau))
    if not (np.all(tau > 0) and rounding < 1e-4):
        raise SgdEscapeError(
            f"an exit time of {np.max(np.abs(tau)):.3g} cannot be told from rounding by finite "
            "differences in two dimensions; raise the noise"
        )
    return tau


def _jumps(index: np.ndarray, below: Grid, above: Grid) -> list[tuple[np.ndarray, ...]]:
    """Rows, columns and entries of the jumps along the first axis, mirrored at its lower end."""
    mirrored = (index[0], index[1], -below[0])
    return [mirrored, (index[1:], index[:-1], -below[1:]), (index[:-1], index[1:], -above[:-1])]


def _check_order(wall: float, start: float, plane: float) -> None:
    if not wall < start < plane:
        raise SgdEscapeError(
            "an exit needs wall < start < plane along the path, but they are "
            f"{wall}, {start} and {plane}"
        )


def _integration_matrix(nodes: Float[np.ndarray, " nodes"]) -> Float[np.ndarray, "nodes nodes"]:
    """Row i gives ∫_{-1}^{node i} of the polynomial through values at the nodes."""
    to_values = legendre.legvander(nodes, len(nodes) - 1)
    integrals = legendre.legint(np.eye(len(nodes)), lbnd=-1)
    return np.asarray(legendre.legvander(nodes, len(nodes)) @ integrals @ np.linalg.inv(to_values))
