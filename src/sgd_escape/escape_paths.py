"""Where in parameter space runs go: along which eigenvectors, and above which minimum."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from sgd_escape.curvature import Eigenpairs, curved, gauss_newton_operator, leading_eigenpairs
from sgd_escape.networks import Network, in_float64
from sgd_escape.training import full_loss, sgd_step


class Origin(NamedTuple):
    """The minimum θ* from which runs start, with the leading eigenvectors of Eq. (44) there.

    The first `outliers` of them are the n of Assumption 4.6.
    """

    network: Network
    inputs: Float[Array, "examples inputs"]
    labels: Float[Array, "examples 1"]
    pairs: Eigenpairs
    outliers: int

    @classmethod
    def at(
        cls,
        network: Network,
        inputs: Float[Array, "examples inputs"],
        labels: Float[Array, "examples 1"],
        *,
        directions: int,
        outliers: int,
    ) -> "Origin":
        """The minimum at `network`, with eigenpairs for the directions and for the outliers."""
        operator = gauss_newton_operator(network, inputs)
        pairs = curved(leading_eigenpairs(operator, max(directions, outliers)))
        return cls(network, jnp.asarray(inputs), jnp.asarray(labels), pairs, outliers)


class Departures(NamedTuple):
    """How displacements δ = θ - θ* are made up of their components z_i = v_i·δ along eigenvectors.

    `squared_share` is z_i²/|δ|², and `subspace_share` its sum over the n outliers. `loss_share` is
    ½h_i z_i² over L(θ) - L(θ*); where L is quadratic with its minimum at θ*, its sum over all
    directions is 1.
    """

    loss: Float[np.ndarray, " networks"]
    length: Float[np.ndarray, " networks"]
    squared_share: Float[np.ndarray, "networks directions"]
    loss_share: Float[np.ndarray, "networks directions"]
    subspace_share: Float[np.ndarray, " networks"]


def departures(networks: Sequence[Network], origin: Origin) -> Departures:
    """The displacements of some networks from the origin, in float64.

    A displacement that is zero, or not finite after a divergence, has no direction: NaN.
    """
    start = _flat(origin.network)
    shift = np.reshape([_flat(network) - start for network in networks], (-1, start.size))
    length = np.linalg.norm(shift, axis=1)
    directed = (length > 0) & np.isfinite(length)
    shift, length = np.where(directed[:, None], shift, 0), np.where(directed, length, np.nan)
    loss = np.asarray([_loss(network, origin) for network in networks], float)
    along_squared = (shift @ origin.pairs.vector.T) ** 2
    squared_share = along_squared / length[:, None] ** 2
    increase = np.where(directed, loss - _loss(origin.network, origin), np.nan)
    return Departures(
        loss,
        length,
        squared_share,
        0.5 * origin.pairs.value * along_squared / increase[:, None],
        squared_share[:, : origin.outliers].sum(axis=1),
    )


class Surroundings(NamedTuple):
    """The Hessian of Eq. (44) at some networks against that at θ*.

    `overlap` is the mean squared cosine between the spans of the n leading eigenvectors: 1 where
    it did not turn, n/P for random ones. `sharpness` is the largest eigenvalue over that at θ*.
    """

    overlap: Float[np.ndarray, " networks"]
    sharpness: Float[np.ndarray, " networks"]


def surroundings(networks: Sequence[Network], origin: Origin) -> Surroundings:
    """Overlap and sharpness at each network; NaN where it has diverged."""
    found = [_around(network, origin) for network in networks]
    return Surroundings(*np.reshape(found, (-1, 2)).T.astype(float))


def _around(network: Network, origin: Origin) -> tuple[float, float]:
    if not np.isfinite(_flat(network)).all():
        return np.nan, np.nan
    there = leading_eigenpairs(gauss_newton_operator(network, origin.inputs), origin.outliers)
    cosines = there.vector @ origin.pairs.vector[: origin.outliers].T
    return np.sum(cosines**2) / origin.outliers, there.value[0] / origin.pairs.value[0]


def lowered_losses(
    networks: Sequence[Network], origin: Origin, *, learning_rate: float, steps: int
) -> Float[np.ndarray, " networks"]:
    """The loss after gradient descent on all examples from each network.

    In the time t = η·steps it relaxes directions with h ≫ 1/t, those of the fluctuations, and
    leaves those with h ≪ 1/t. A network that diverges, or that was about to, has none: NaN. So
    have all where the descent is not stable at θ*, that is if η h_1 > 2.
    """
    if learning_rate * origin.pairs.value[0] > 2:
        return np.full(len(networks), np.nan)
    rate = jnp.asarray(learning_rate, origin.inputs.dtype)

    def lowered(network: Network) -> float:
        return _loss(_descend(network, origin.inputs, origin.labels, rate, steps), origin)

    losses = np.asarray([lowered(network) for network in networks])
    return np.where(np.isfinite(losses), losses, np.nan)


def _flat(network: Network) -> np.ndarray:
    return np.asarray(ravel_pytree(in_float64(network))[0])


def _loss(network: Network, origin: Origin) -> float:
    return float(_full_loss(*in_float64((network, origin.inputs, origin.labels))))


_full_loss = jax.jit(full_loss)


@partial(jax.jit, static_argnames="steps")
def _descend(
    network: Network, inputs: Array, labels: Array, learning_rate: Array, steps: int
) -> Network:
    def step(_: Array, current: Network) -> Network:
        return sgd_step(current, inputs, labels, learning_rate)

    low: Network = jax.lax.fori_loop(0, steps, step, network)
    return low
