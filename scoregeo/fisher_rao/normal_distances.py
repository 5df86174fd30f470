"""Distances between multivariate normal distributions, in closed form: to compare with, and bounds of, Fisher-Rao.

All take ``(mean1, cov1, mean2, cov2)``, shapes ``(d,)``, ``(d, d)``, and raise ``ValueError`` if a covariance is not
symmetric positive definite or shapes do not match; for points of `MultivariateNormal`, ``hellinger(*family.unpack(a),
*family.unpack(b))``. They are accurate for close distributions too: with S = L L^T and R = L1^-1 L2, whatever is small
is computed from small numbers, as in

    tr(S1^-1 S2) + tr(S2^-1 S1) - 2 d = |R - R^-T|_F^2.                                                      (1)

Distances (not divergences) have gradient zero at coincident distributions, where they have a kink.

Reverse-mode derivatives of `jeffreys` and `calvo_oller` for thousands of pairs in one program meet a deadlock of jaxlib
0.10 on CPU with several threads; ``NPROC=1`` in the environment, one thread for XLA, avoids it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array

from .._checks import as_point
from .._numerics import by_precision, safe_sqrt, with_own_settings
from .._types import Matrix, Point, Scalar, Vector
from .matrix_functions import cholesky_gap, squared_log_norm
from .supports import PositiveDefinite


class _Pair(NamedTuple):
    """Cholesky factors L1, L2, the difference of means, ``z`` = L1^-1 (mean2 - mean1), and R and its ``inverse`` as
    differences from the identity, which those of close covariances have to more digits: ``gap``, ``inverse_gap``."""

    lower1: Matrix
    lower2: Matrix
    difference: Vector
    z: Vector
    inverse: Matrix
    gap: Matrix
    inverse_gap: Matrix
    same: Array
    close: Array

    def asymmetry(self) -> Matrix:
        """``R - R^-T`` of (1)."""
        return self.gap - self.inverse_gap.T


def _pair(mean1: Any, cov1: Any, mean2: Any, cov2: Any) -> _Pair:
    mean1 = as_point(mean1, "mean1")
    mean2 = as_point(mean2, "mean2", dim=mean1.size)
    support = PositiveDefinite(mean1.size)
    cov1, cov2 = support.check(cov1, "cov1"), support.check(cov2, "cov2")
    dtype = jnp.result_type(mean1, cov1, mean2, cov2)
    mean1, cov1, mean2, cov2 = (value.astype(dtype) for value in (mean1, cov1, mean2, cov2))
    lower1, lower2 = jnp.linalg.cholesky(jnp.stack([cov1, cov2]))
    difference = mean2 - mean1
    solved = solve_triangular(lower1, jnp.concatenate([lower2, difference[:, None]], 1), lower=True)
    same = jnp.all(difference == 0) & jnp.all(cov1 == cov2)
    after = lower1 + 0 * solved[0, 0]  # one call of LAPACK after the other: see `multivariate_normal.lift`
    excess = solve_triangular(after, solve_triangular(after, cov2 - cov1, lower=True).T, lower=True)
    close = jnp.max(jnp.abs(excess)) < 0.1 / mean1.size
    identity = jnp.eye(mean1.size, dtype=dtype)
    gap = jnp.where(close, cholesky_gap(jnp.where(close, excess, 0)), solved[:, :-1] - identity)
    inverse = solve_triangular(jnp.where(close, identity + gap, solved[:, :-1]), identity, lower=True)
    inverse_gap = jnp.where(close, -inverse @ gap, inverse - identity)
    return _Pair(lower1, lower2, difference, solved[:, -1], inverse, gap, inverse_gap, same, close)


def _exponential_excess(x: Array) -> Array:
    """``exp(x) - 1 - x``, relative to it where ``x`` is small too."""
    small = jnp.abs(x) < 0.3
    s = jnp.where(small, x, 0)
    series = jnp.ones_like(x)
    for n in range(15, 2, -1):
        series = 1 + s / n * series
    return jnp.where(small, s**2 / 2 * series, jnp.expm1(x) - x)


def kullback_leibler(mean1: Point, cov1: Matrix, mean2: Point, cov2: Matrix) -> Scalar:
    """The Kullback-Leibler divergence ``E_1[log p1 - log p2]``, in nats; not symmetric."""
    at = _pair(mean1, cov1, mean2, cov2)
    z = at.inverse @ at.z
    small = jnp.where(at.close, jnp.diagonal(at.inverse_gap), 0)
    logs = jnp.where(at.close, jnp.log1p(small), jnp.log(jnp.diagonal(at.inverse)))
    return 0.5 * (z @ z + jnp.sum(jnp.tril(at.inverse_gap, -1) ** 2) + jnp.sum(_exponential_excess(2 * logs)))


def jeffreys(mean1: Point, cov1: Matrix, mean2: Point, cov2: Matrix) -> Scalar:
    """The Jeffreys divergence: the sum of the Kullback-Leibler divergences both ways."""
    at = _pair(mean1, cov1, mean2, cov2)
    back = at.inverse @ at.z
    return 0.5 * (at.z @ at.z + back @ back + jnp.sum(at.asymmetry() ** 2))


def sqrt_jeffreys(mean1: Point, cov1: Matrix, mean2: Point, cov2: Matrix) -> Scalar:
    """The square root of `jeffreys`: an upper bound of the Fisher-Rao distance, equal to it to first order."""
    same = _pair(mean1, cov1, mean2, cov2).same
    return safe_sqrt(jnp.where(same, 0, jeffreys(mean1, cov1, mean2, cov2)))


def calvo_oller(mean1: Point, cov1: Matrix, mean2: Point, cov2: Matrix) -> Scalar:
    """A lower bound of the Fisher-Rao distance: the distance ``sqrt(1/2 sum_i log^2 l_i)``, l the eigenvalues of
    ``P1^-1 P2``, of the positive definite matrices ``P = [[1, m^T], [m, S + m m^T]]``.

    Exact for equal means (Calvo & Oller, J. Multivariate Analysis 35, 1990). Differentiable twice.
    """
    at = _pair(mean1, cov1, mean2, cov2)
    # P = N N^T with N = [[1, 0], [m, L]]; l are the eigenvalues of C C^T with C = N1^-1 N2 = I + E.
    d = at.z.size
    change = jnp.zeros((d + 1, d + 1), at.z.dtype).at[1:, 0].set(at.z).at[1:, 1:].set(at.gap)
    excess = change + change.T + change @ change.T
    squared = squared_log_norm(change + jnp.eye(d + 1, dtype=at.z.dtype), excess)
    return safe_sqrt(jnp.where(at.same, 0, squared))


def hellinger(mean1: Point, cov1: Matrix, mean2: Point, cov2: Matrix) -> Scalar:
    """The Hellinger distance ``sqrt(1 - int sqrt(p1 p2))``, between 0 and 1."""
    at = _pair(mean1, cov1, mean2, cov2)
    # Bhattacharyya: 1/8 z^T M^-1 z + 1/2 log(det M / sqrt(det S1 det S2)), M = (S1 + S2) / 2, whitened by L2. The
    # second part is 1/4 log det(I + Y^T Y / 4), Y = R - R^-T.
    mean_cov = (jnp.eye(at.z.size, dtype=at.z.dtype) + at.inverse @ at.inverse.T) / 2
    w = solve_triangular(jnp.linalg.cholesky(mean_cov), at.inverse @ at.z, lower=True)
    y = at.asymmetry()
    exponent = w @ w / 8 + _logdet_one_plus(y.T @ y / 4) / 4
    return safe_sqrt(jnp.where(at.same, 0, -jnp.expm1(-exponent)))


def _logdet_one_plus(y: Matrix) -> Scalar:
    """``log det(I + y)`` of a positive semidefinite ``y``, to relative accuracy for a small one: by elimination on
    ``y``."""

    def eliminate(y, k):
        return y - jnp.outer(y[:, k], y[:, k]) / (1 + y[k, k]), jnp.log1p(y[k, k])

    return jnp.sum(jax.lax.scan(eliminate, y, jnp.arange(y.shape[0]))[1])


def wasserstein(mean1: Point, cov1: Matrix, mean2: Point, cov2: Matrix) -> Scalar:
    """The 2-Wasserstein distance: ``W^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)``, in the units of the
    samples.

    The second part is ``|L1 - L2 Q|_F^2`` with the orthogonal matrix Q that makes it smallest (Procrustes): the
    transpose of the orthogonal factor of the polar decomposition of ``L1^T L2``. With L2 = L1 (I + D), D small, and
    Q = I + T the rotation (Cayley) of the skew part of that factor, it is ``|L1 (D + T + D T)|_F^2``: at a minimum, to
    which Q need not be closer.
    """
    at = _pair(mean1, cov1, mean2, cov2)
    turn = _orthogonal_factor(at.lower1.T @ at.lower2).T
    skew = (turn - turn.T) / 2
    rotation = jnp.linalg.solve(jnp.eye(at.z.size, dtype=skew.dtype) - skew / 2, skew)
    near = at.lower1 @ (at.gap + rotation + at.gap @ rotation)
    very_close = jnp.max(jnp.abs(at.gap)) < by_precision(skew.dtype, 1e-4, 1e-3)
    rest = jnp.where(at.close & very_close, near, at.lower1 - at.lower2 @ turn)
    return safe_sqrt(jnp.where(at.same, 0, at.difference @ at.difference + jnp.sum(rest**2)))


@jax.custom_jvp
def _orthogonal_factor(k: Matrix) -> Matrix:
    """The orthogonal W of the polar decomposition ``k = P W``."""
    left, _, right = jnp.linalg.svd(k)
    return left @ right


@_orthogonal_factor.defjvp
@with_own_settings
def _orthogonal_factor_jvp(primals, tangents):
    """``dW = Z W`` with ``P Z + Z P = dk W^T - W dk^T``: smooth, to any order, also at repeated singular values."""
    (k,), (dk,) = primals, tangents
    w = _orthogonal_factor(k)
    p = k @ w.T
    p = (p + p.T) / 2
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(p))

    def solve(_, b):
        return vectors @ ((vectors.T @ b @ vectors) / (values[:, None] + values)) @ vectors.T

    z = jax.lax.custom_linear_solve(lambda z: p @ z + z @ p, dk @ w.T - w @ dk.T, solve, symmetric=True)
    return w, z @ w
