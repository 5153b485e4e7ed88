"""Losses whose minima and saddles are known, for the stochastic equations of the theory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgd_escape.errors import SgdEscapeError

jax.config.update("jax_enable_x64", True)


@runtime_checkable
class Landscape(Protocol):
    """A smooth loss of n parameters; gradient and Hessian are its derivatives by JAX."""

    def loss(self, theta: Float[Array, " n"]) -> Float[Array, ""]: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quadratic:
    """L(θ) = L* + ½ (θ - θ*)ᵀ H (θ - θ*), the loss of linear regression."""

    hessian: Float[Array, "n n"]
    minimum: Float[Array, " n"]
    minimum_loss: Float[Array, ""]

    def loss(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        shift = theta - self.minimum
        return self.minimum_loss + 0.5 * jnp.sum(shift * jnp.sum(self.hessian * shift[None], -1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DoubleWell:
    """Two equal minima at (∓ℓ, 0) and a saddle at 0 with prescribed losses and curvatures.

    With θ = (z_e, z_⊥) and V the profile along the escape direction,

        L(θ) = V(z_e) + ½ Σ_i k_i(z_e) z_i²,      k_i = h_i* (V/L*)^{p_i},
        dV/dv = ℓ² (v - 1) [K + (A - K)(1 - v)² + (C - K) v²],      v = (z_e/ℓ)², V(0) = L_s,

    where A = |h_e^s|/2, C = h_e*/4 and K is the smaller of them.

    Derivation: the bracket is at least K > 0, so 0 and ±ℓ are the only zeros of V'. It is A at
    v = 0 and C at v = 1, so V'' is 2 dV/dv/ℓ² = -2A at the saddle and 4 d²V/dv²/ℓ² = 4C at the
    minima. V falls by ℓ² [K/2 + (A - K)/4 + (C - K)/12] = L_s - L* from v = 0 to 1, which gives ℓ.
    For A = C, which is h_e* = 2|h_e^s|, this is the quartic double well.

    V is L* at the minima and L_s at the saddle, so p_i = log(h_i^s/h_i*)/log(L_s/L*) gives k_i its
    two values. p_i = 0 is h_i^s = h_i*, as Eq. (33) has it, with L separable; p_i = 1 is
    h_i^s/h_i* = L_s/L*, and in two dimensions log L is then separable, as Eq. (19) has it.
    For p_i < 0 the valley widens beyond the minima as well, where V > L_s: strong noise finds room
    there, and in the time τ of Eq. (13) its excursions are long.

    Every k_i is positive, so ∂L/∂z_i = 0 means z_i = 0: there are no other critical points. The
    loss is even in z_e: the basins are z_e < 0 and z_e > 0, and the committor on z_e = 0 is ½.
    """

    minimum_loss: Float[Array, ""]
    saddle_loss: Float[Array, ""]
    minimum_curvature: Float[Array, ""]
    saddle_curvature: Float[Array, ""]
    transverse_minimum: Float[Array, " transverse"]
    transverse_saddle: Float[Array, " transverse"]

    @classmethod
    def from_curvatures(
        cls,
        minimum_loss: float,
        saddle_loss: float,
        minimum_curvature: float,
        saddle_curvature: float,
        transverse_minimum: Sequence[float] = (),
        transverse_saddle: Sequence[float] = (),
    ) -> "DoubleWell":
        """The well of L*, L_s, h_e* > 0, h_e^s < 0 and n - 1 pairs h_i*, h_i^s > 0.

        Raises `SgdEscapeError` unless 0 < L* < L_s and the curvatures have these signs.
        """
        if not 0 < minimum_loss < saddle_loss < np.inf:
            raise SgdEscapeError(
                "a double well needs 0 < L* < L_s, the losses at its minimum and its saddle, but "
                f"got L* = {minimum_loss} and L_s = {saddle_loss}"
            )
        if not (0 < minimum_curvature < np.inf and -np.inf < saddle_curvature < 0):
            raise SgdEscapeError(
                "a double well curves upwards at its minimum and downwards at its saddle, but got "
                f"h_e* = {minimum_curvature} and h_e^s = {saddle_curvature}"
            )
        pairs = [*transverse_minimum, *transverse_saddle]
        if len(transverse_minimum) != len(transverse_saddle) or not all(
            0 < h < np.inf for h in pairs
        ):
            raise SgdEscapeError(
                "a double well needs as many positive transverse curvatures at the saddle as at "
                f"the minimum, but got {list(transverse_saddle)} and {list(transverse_minimum)}"
            )
        losses = (minimum_loss, saddle_loss, minimum_curvature, saddle_curvature)
        fields = (*losses, transverse_minimum, transverse_saddle)
        return cls(*(jnp.asarray(value, jnp.float64) for value in fields))

    @property
    def minimum(self) -> Float[Array, " n"]:
        """θ* = (-ℓ, 0)."""
        rest = jnp.zeros_like(self.transverse_minimum)
        return jnp.concatenate([-self._half_width()[None], rest])

    @property
    def minimum_hessian(self) -> Float[Array, "n n"]:
        """H(θ*), diagonal."""
        return jnp.diag(jnp.append(self.minimum_curvature, self.transverse_minimum))

    def loss(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        profile, curvatures = self.along(theta[0])
        return profile + 0.5 * jnp.sum(curvatures * theta[1:] ** 2)

    def along(self, z_e: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, " transverse"]]:
        """V and the k_i at a point of the path z_⊥ = 0."""
        profile = self._profile(z_e / self._half_width())
        power = jnp.log(self.transverse_saddle / self.transverse_minimum) / jnp.log(
            self.saddle_loss / self.minimum_loss
        )
        return profile, self.transverse_minimum * (profile / self.minimum_loss) ** power

    def coordinate(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """z_e/ℓ: -1 at the minimum, 0 on the boundary of its basin, 1 at the other minimum."""
        return theta[0] / self._half_width()

    def _shape(self) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        """K, A - K and C - K."""
        saddle, minimum = -self.saddle_curvature / 2, self.minimum_curvature / 4
        smaller = jnp.minimum(saddle, minimum)
        return smaller, saddle - smaller, minimum - smaller

    def _half_width(self) -> Float[Array, ""]:
        both, saddle, minimum = self._shape()
        depth = both / 2 + saddle / 4 + minimum / 12
        return jnp.sqrt((self.saddle_loss - self.minimum_loss) / depth)

    def _profile(self, coordinate: Float[Array, ""]) -> Float[Array, ""]:
        both, saddle, minimum = self._shape()
        v = coordinate**2
        integral = (
            both * (v**2 / 2 - v)
            + saddle * ((v - 1) ** 4 - 1) / 4
            + minimum * (v**4 / 4 - v**3 / 3)
        )
        return self.saddle_loss + self._half_width() ** 2 * integral


@jax.jit
def path_values(
    well: DoubleWell, z_e: Float[Array, " points"]
) -> tuple[
    Float[Array, " points"],
    Float[Array, " points"],
    Float[Array, "points transverse"],
    Float[Array, "points transverse"],
]:
    """V, V', k and k' at points of the path z_⊥ = 0."""
    one = jnp.ones(())
    at_points = jax.vmap(lambda x: jax.jvp(well.along, (x,), (one,)))(z_e)
    (profile, curvatures), (slope, curvature_slope) = at_points
    return profile, slope, curvatures, curvature_slope


def committor_plane(
    well: DoubleWell,
    exponent: Callable[[Float[np.ndarray, " points"]], Float[np.ndarray, " points"]],
    probability: float = 0.99,
) -> float:
    """The coordinate beyond the saddle where the committor on the most probable path is reached.

    The committor, the probability to reach the other minimum before this one, is along z_⊥ = 0

        q(s) = ∫_{-1}^s e^{E(L(x))} dx / ∫_{-1}^1 e^{E(L(x))} dx

    with `exponent` E(L) = log(L)/T for Eq. (12), T = ηh_e*/B, and E(L) = L/D for Eq. (5) (Gardiner,
    Handbook of Stochastic Methods, 5.2.7). Exact in one dimension and where z_e and z_⊥ separate;
    else right as the noise vanishes. Raises `SgdEscapeError` unless ½ < probability < 1.
    """
    if not 0.5 < probability < 1:
        raise SgdEscapeError(
            "a plane beyond the saddle has a committor between 1/2 and 1, but "
            f"{probability} was asked for"
        )
    points = np.linspace(-1, 1, 20001)
    path = jnp.asarray(points)[:, None] * -well.minimum[None]
    exponents = exponent(np.asarray(jax.vmap(well.loss)(path)))
    density = np.exp(exponents - exponents.max())
    # Trapezoids: the integrand is smooth on the scale of a grid this fine.
    committor = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(np.interp(probability, committor / committor[-1], points))
