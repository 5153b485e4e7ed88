"""The decoupling approximation of Eq. (7), tested by spectra, subspaces and matrix norms.

Both sides of Eq. (7) are P × P: E = (1/N) Σ ℓ_μ C_f^(μ) and D = (L/N) Σ C_f^(μ). With the Gram
matrix K_μν = ∇f_μᵀ∇f_ν everything here is N × N.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Float, Int

from sgd_escape.errors import SgdEscapeError
from sgd_escape.estimation import Bootstrap, Estimate


class Spectra(NamedTuple):
    """The eigenvalues of both sides of Eq. (7) and the angles between their leading eigenvectors.

    N eigenvalues each, descending; the others of the P × P matrices are zero. Those below
    `rounding_floor`, machine precision times the largest, are rounding and may be negative.
    `principal_cosine` holds the cosines of the principal angles between the spans of the leading
    eigenvectors of E and of D, descending.
    """

    eigenvalue_exact: Float[np.ndarray, " examples"]
    eigenvalue_decoupled: Float[np.ndarray, " examples"]
    rounding_floor: float
    principal_cosine: Float[np.ndarray, " directions"]

    @property
    def overlap(self) -> float:
        """The mean squared cosine: 1 for equal subspaces, directions/P for random ones."""
        return float(np.mean(self.principal_cosine**2))

    def spectral_distance(self, fraction: float) -> float:
        """Root mean square of log₁₀(λ_i of E / λ_i of D) over the ranks i.

        Those enter at which either eigenvalue exceeds `fraction` times the largest and both exceed
        the rounding floor.
        """
        exact, decoupled = self.eigenvalue_exact, self.eigenvalue_decoupled
        lowest = fraction * max(exact[0], decoupled[0])
        kept = (np.maximum(exact, decoupled) > lowest) & (
            np.minimum(exact, decoupled) > self.rounding_floor
        )
        return float(np.sqrt(np.mean(np.log10(exact[kept] / decoupled[kept]) ** 2)))

    def distribution_distance(self, fraction: float) -> float:
        """Kolmogorov-Smirnov distance of the eigenvalues above `fraction` times the largest.

        The largest difference between their distribution functions, each normalized to its own
        number of eigenvalues there. One if only one side has any.
        """
        exact, decoupled = self.eigenvalue_exact, self.eigenvalue_decoupled
        lowest = fraction * max(exact[0], decoupled[0])
        exact, decoupled = exact[exact > lowest], decoupled[decoupled > lowest]
        if not (exact.size and decoupled.size):
            return 1.0
        values = np.concatenate([exact, decoupled])
        of_exact, of_decoupled = (
            np.searchsorted(np.sort(side), values, "right") / side.size
            for side in (exact, decoupled)
        )
        return float(np.max(np.abs(of_exact - of_decoupled)))


def spectra(
    gram: Float[np.ndarray, "examples examples"],
    losses: Float[np.ndarray, " examples"],
    directions: int,
) -> Spectra:
    """Eq. (7) by the N × N route, from K of `output_gram` and the losses ℓ_μ.

    With the gradients of f as the columns of G, E = A Aᵀ for A = G √ℓ/√N and D = B Bᵀ for
    B = G √(L/N), so the nonzero eigenvalues are those of AᵀA = (1/N) √ℓ K √ℓ and of
    BᵀB = (L/N) K. From their unit eigenvectors u and w those of E and D follow as A u/√λ and
    B w/√κ. The inner product uᵀAᵀB w/√(λκ) is √(κ/λ) Σ_μ u_μ √(ℓ_μ/L) w_μ, since
    K w = (N κ/L) w. Memory: one N × N matrix besides K.
    Where fewer than `directions` eigenvalues lie above the rounding floor, their eigenvectors are
    not defined and the cosines NaN. Raises `SgdEscapeError` if a number is not finite, if every
    loss is zero, or if there are no more examples than `directions`.
    """
    losses = _checked(gram, losses)
    n, mean = len(losses), losses.mean()
    _check_directions(directions, n)
    root = np.sqrt(losses / n)
    matrix = gram * root[:, None]
    matrix *= root
    exact = _eigenvalues(matrix)
    np.multiply(gram, mean / n, out=matrix)
    decoupled = _eigenvalues(matrix)
    floor = float(np.finfo(np.float64).eps * max(exact[0], decoupled[0]))
    if directions > min(np.sum(exact > floor), np.sum(decoupled > floor)):
        return Spectra(exact, decoupled, floor, np.full(directions, np.nan))
    u = _leading_eigenvectors(lambda v: root * (gram @ (root * v)), n, directions)
    w = _leading_eigenvectors(lambda v: gram @ v, n, directions)
    inner = (u * np.sqrt(losses / mean)[:, None]).T @ w
    inner *= np.sqrt(decoupled[:directions] / exact[:directions, None])
    return Spectra(exact, decoupled, floor, np.minimum(scipy.linalg.svdvals(inner), 1.0))


def _checked(gram: np.ndarray, losses: np.ndarray) -> np.ndarray:
    losses = np.asarray(losses, np.float64)
    if not (np.isfinite(gram).all() and np.isfinite(losses).all() and losses.any()):
        raise SgdEscapeError(
            "the decoupling of Eq. (7) needs finite gradients and finite losses that are not all "
            "zero, but these are not; train the network again or for fewer epochs"
        )
    return losses


def _eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """Descending; overwrites the matrix, whose transpose LAPACK takes without a copy."""
    return scipy.linalg.eigvalsh(matrix.T, overwrite_a=True, check_finite=False)[::-1]


def _check_directions(directions: int, n_samples: int) -> None:
    if directions >= n_samples:
        raise SgdEscapeError(
            f"the overlap of {directions} leading directions needs more examples than those, but "
            f"there are {n_samples}; lower directions or take more examples"
        )


def _leading_eigenvectors(
    multiply: Callable[[np.ndarray], np.ndarray], size: int, count: int
) -> np.ndarray:
    """Those of the largest eigenvalues, largest first, by Lanczos from a fixed start."""
    start = np.random.default_rng(0).normal(size=size)
    operator = scipy.sparse.linalg.LinearOperator((size, size), multiply, dtype=np.float64)
    _, vectors = scipy.sparse.linalg.eigsh(operator, k=count, which="LA", v0=start)
    return np.asarray(vectors[:, ::-1])


def relative_distance(
    gram: Float[np.ndarray, "examples examples"],
    losses: Float[np.ndarray, " examples"],
    bootstrap: Bootstrap,
    *,
    groups: int,
) -> Estimate:
    """|E - D| / |E| in the Frobenius norm, with its interval over groups of examples.

    |Σ_μ w_μ C_f^(μ)|² = Σ_μν w_μ K_μν² w_ν. Two copies of a group in a resample are no two groups:
    their K would be that of a group with itself, which is larger. So a resample that takes group
    g n_g times weighs the pair g ≠ h by n_g n_h, the pair (g, g) by n_g and not by n_g², and both
    kinds are scaled to as many pairs as the examples have.
    Raises `SgdEscapeError` if a number is not finite, or if every loss is zero.
    """
    losses = _checked(gram, losses)
    mean = losses.mean()
    deviation, one = losses - mean, np.ones(len(losses))
    starts = _group_starts(len(losses), groups)
    deviations, mixed, ones = _group_forms(gram, starts, deviation, one)
    shifts, sizes = (np.add.reduceat(values, starts) for values in (deviation, one))

    def distance(taken: np.ndarray) -> np.ndarray:
        shift = (taken @ shifts) / (taken @ sizes)
        dd, d1, ones_ = (_form(taken, blocks) for blocks in (deviations, mixed, ones))
        difference = dd - 2 * shift * d1 + shift**2 * ones_
        exact = dd + 2 * mean * d1 + mean**2 * ones_
        return np.asarray(np.sqrt(np.maximum(difference, 0) / exact))

    return bootstrap(distance, groups)


def permuted_distance(
    gram: Float[np.ndarray, "examples examples"], losses: Float[np.ndarray, " examples"]
) -> float:
    """The relative distance that is left when the examples exchange their losses at random.

    Eq. (7) then holds but for the scatter of N examples. The square root of the ratio of the means,
    over all permutations, of |E - D|² and |E|²: with v the variance of ℓ over the examples, s the
    sum of K_μν² and t that of its diagonal, they are v [t - (s - t)/(N - 1)] and that plus L² s.
    """
    total, own = float(np.vdot(gram, gram)), float(np.sum(gram.diagonal() ** 2))
    difference = float(losses.var()) * (own - (total - own) / (len(losses) - 1))
    return float(np.sqrt(max(difference, 0.0) / (difference + losses.mean() ** 2 * total)))


def correlation(
    losses: Float[np.ndarray, " examples"],
    traces: Float[np.ndarray, " examples"],
    bootstrap: Bootstrap,
    *,
    groups: int,
) -> Estimate:
    """The correlation of ℓ_μ with tr C_f^(μ) = K_μμ, with its interval over groups of examples.

    The trace of Eq. (7) says that it is zero: tr E - tr D is the covariance of the two.
    """
    x, y = losses - losses.mean(), traces - traces.mean()
    starts = _group_starts(len(losses), groups)
    sums = np.add.reduceat(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y]), starts, axis=1)

    def pearson(taken: np.ndarray) -> np.ndarray:
        n, *moments = np.moveaxis(taken @ sums.T, -1, 0)
        x_mean, y_mean, xx, yy, xy = (moment / n for moment in moments)
        variances = (xx - x_mean**2) * (yy - y_mean**2)
        return np.asarray((xy - x_mean * y_mean) / np.sqrt(variances))

    return bootstrap(pearson, groups)


def _group_starts(n_samples: int, groups: int) -> Int[np.ndarray, " groups"]:
    """Where groups of consecutive examples start whose sizes differ by one at most."""
    return np.arange(groups) * n_samples // groups


def _group_forms(
    gram: np.ndarray, starts: np.ndarray, a: np.ndarray, b: np.ndarray
) -> Float[np.ndarray, "3 groups groups"]:
    """Σ a_μ K_μν² a_ν, Σ a_μ K_μν² b_ν and Σ b_μ K_μν² b_ν over μ and ν in each pair of groups."""
    forms = np.empty((3, len(starts), len(starts)))
    for group, rows in enumerate(np.split(np.arange(len(a)), starts[1:])):
        squares = gram[rows] ** 2
        by_a, by_b = a[rows] @ squares, b[rows] @ squares
        products = np.stack([by_a * a, by_a * b, by_b * b])
        forms[:, group] = np.add.reduceat(products, starts, axis=1)
    return forms


def _form(taken: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    groups, own = len(blocks), blocks.diagonal()
    between = np.einsum("...g,...g->...", taken @ blocks, taken) - taken**2 @ own
    total = taken.sum(-1)
    pairs = total**2 - np.sum(taken**2, axis=-1)
    return np.asarray(groups * (groups - 1) * between / pairs + groups * (taken @ own) / total)
