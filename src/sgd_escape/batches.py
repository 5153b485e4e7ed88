"""Randomness as a function of a key and a position, so that any part of a stream can be redrawn.

A stream is cut into blocks of `steps_per_block` steps. Block j of the stream with key k depends on
(k, j) alone: neither on how many blocks are drawn together nor on who draws them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

jax.config.update("jax_enable_x64", True)

Sampling = Literal["with_replacement", "epoch"]


@runtime_checkable
class Batches(Protocol):
    """A rule that turns (key, block) into what the block's steps take: indices, or noise."""

    @property
    def steps_per_block(self) -> int: ...

    def draw(
        self, key: Key[Array, ""], block: Int[Array, ""] | int
    ) -> Int[Array, "steps batch_size"] | Float[Array, "steps dimension"]: ...


@dataclass(frozen=True)
class WithReplacement:
    """B independent uniform indices a step: the ensemble of Eq. (8) for B ≪ N."""

    n_samples: int
    batch_size: int
    steps_per_block: int = 128

    def draw(
        self, key: Key[Array, ""], block: Int[Array, ""] | int
    ) -> Int[Array, "steps batch_size"]:
        shape = (self.steps_per_block, self.batch_size)
        return jax.random.randint(
            jax.random.fold_in(key, block), shape, 0, self.n_samples, jnp.int32
        )


@dataclass(frozen=True)
class Epoch:
    """A fresh permutation a pass, cut into ⌊N/B⌋ disjoint batches; a block is one pass."""

    n_samples: int
    batch_size: int

    @property
    def steps_per_block(self) -> int:
        return self.n_samples // self.batch_size

    def draw(
        self, key: Key[Array, ""], block: Int[Array, ""] | int
    ) -> Int[Array, "steps batch_size"]:
        order = jax.random.permutation(jax.random.fold_in(key, block), self.n_samples)
        used = self.steps_per_block * self.batch_size
        return order[:used].reshape(self.steps_per_block, self.batch_size).astype(jnp.int32)


@dataclass(frozen=True)
class GaussianIncrements:
    """`dimension` independent standard normal numbers a step, float64: the ξ of ΔW = ξ√Δt."""

    dimension: int
    steps_per_block: int = 128

    def draw(
        self, key: Key[Array, ""], block: Int[Array, ""] | int
    ) -> Float[Array, "steps dimension"]:
        shape = (self.steps_per_block, self.dimension)
        return jax.random.normal(jax.random.fold_in(key, block), shape, jnp.float64)


SAMPLINGS: dict[str, Callable[[int, int], Batches]] = {
    "with_replacement": WithReplacement,
    "epoch": Epoch,
}


def passes(sampling: Sampling, n_samples: int, batch_size: int) -> Batches:
    """Batches of which a block is one pass, ⌊N/B⌋ steps, also where draws are independent."""
    if sampling == "epoch":
        return Epoch(n_samples, batch_size)
    return WithReplacement(n_samples, batch_size, n_samples // batch_size)


def stream_key(seed: int, *labels: float) -> Key[Array, ""]:
    """The key of the stream that belongs to `seed` and the numbers `labels`, such as (η, B).

    Each label enters by the bits of its float64, so that streams of different labels are
    independent and the key does not depend on how a configuration spells a number.
    """
    key = jax.random.key(seed)
    for word in np.asarray(labels, dtype=np.float64).view(np.uint32):
        key = jax.random.fold_in(key, word)
    return key
