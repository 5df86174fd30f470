"""The tangent space of the data: an operator, and a basis. Equations are those of the package's docstring."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jax.experimental.sparse.linalg import lobpcg_standard
from jaxtyping import Array, Float

from .._checks import as_point, check_count
from .._numerics import program, with_own_settings
from .._types import Matrix, Point, Scalar, Vector
from ..scores import AbstractScore
from ..scores.base import field, noise_level_of
from ..scores.density import as_score

# LAPACK takes all cores for larger matrices.
_MAX_EIGH = 128
# Products with a Jacobian that are made side by side.
_BATCH = 128


def check_arguments(score: Any, x: Any, noise_level: Any) -> tuple[AbstractScore, Point, Scalar]:
    """Score, point and noise level, each as such; a noise level of ``None`` is the one that the score knows."""
    score, x = as_score(score), as_point(x, "x")
    noise_level = noise_level_of(score, noise_level).astype(x.dtype)
    jax.eval_shape(lambda score, x: field(score)(x), score, x)
    return score, x, noise_level


def check_dimension(k: Any, x: Point, least: int = 1) -> int:
    """``k`` as the dimension of a manifold in the space of ``x``."""
    k = check_count("k", k, least)
    if k > x.size:
        raise ValueError(f"`k` must be at most the dimension {x.size} of the points, got {k}")
    return k


def projector_mv(score: AbstractScore, x: Point, noise_level: Scalar) -> Callable[[Vector], Vector]:
    """Products with P of equation (2), with the symmetric part of J."""
    _, push = jax.linearize(field(score), x)
    if score.conservative:
        return lambda v: v + noise_level**2 * push(v)
    pull = jax.linear_transpose(push, x)
    return lambda v: v + noise_level**2 / 2 * (push(v) + pull(v)[0])


def all_products(mv: Callable[[Vector], Vector], vectors: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """``mv`` of every row, so many side by side that memory is bounded."""
    return jax.lax.map(mv, vectors, batch_size=min(_BATCH, vectors.shape[0]))


@with_own_settings
def tangent_projector(
    score: AbstractScore | Callable[[Point], Vector], x: Point, noise_level: float | Scalar | None = None
) -> lx.FunctionLinearOperator:
    """The operator ``P = I + noise_level^2 J`` at ``x``: nearly the projector on the tangent space of the data.

    **Arguments**

    - ``score``: the score of the noised data, an `AbstractScore` or a function of a point.
    - ``x``: a point on or near the data, shape ``(d,)``.
    - ``noise_level``: that of the score, in the units of x; ``None`` asks the score (a `NetworkScore` knows it).

    Returns a symmetric operator of lineax, with ``mv(v)`` for one product (a Jacobian-vector product of the score, and
    where that is not conservative a vector-Jacobian product: J is symmetrised) and ``as_matrix()`` for small d. With an
    exact score its eigenvalues are between 0 and, on a convex manifold, about 1; a learned one has negative ones too.
    Raises ``ValueError`` for a noise level that is missing, not positive, or another one than the score knows, and for
    wrong shapes.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.manifold import tangent_projector
    >>> line = GaussianScore(jnp.zeros(2), jnp.diag(jnp.array([0.99, 0.0]) + 0.01))  # with noise of 0.1
    >>> v = jnp.array([1.0, 1.0])
    >>> round(float(v @ tangent_projector(line, jnp.zeros(2), 0.1).mv(v)), 3)
    0.99
    """
    score, x, noise_level = check_arguments(score, x, noise_level)
    structure = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return lx.FunctionLinearOperator(projector_mv(score, x, noise_level), structure, lx.symmetric_tag)


def tangent_space(
    score: AbstractScore | Callable[[Point], Vector], x: Point, k: int, noise_level: float | Scalar | None = None
) -> Float[Array, "k d"]:
    """An orthonormal basis ``(k, d)`` of the tangent space of the data at ``x``: the k leading eigenvectors of P.

    ``k`` is the dimension of the data (see `intrinsic_dimension`); other arguments and errors as in
    `tangent_projector`. The basis is one of many of that space; eigenvalues decrease. By the matrix of P up to d = 128
    or where k is not small against d; beyond, by products with P alone (LOBPCG, Knyazev 2001), NaN where these do not
    converge. Do not differentiate: eigenvalues of P are nearly equal.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.manifold import tangent_space
    >>> line = GaussianScore(jnp.zeros(2), jnp.diag(jnp.array([0.99, 0.0]) + 0.01))
    >>> abs(tangent_space(line, jnp.zeros(2), 1, noise_level=0.1)).round(3).tolist()
    [[1.0, 0.0]]
    """
    score, x, noise_level = check_arguments(score, x, noise_level)
    return _tangent_space(score, x, noise_level, check_dimension(k, x))


@program
def _tangent_space(score, x, noise_level, k):
    return leading_eigenvectors(projector_mv(score, x, noise_level), k, x)


def leading_eigenvectors(mv: Callable[[Vector], Vector], k: int, like: Vector) -> Float[Array, "k d"]:
    """The eigenvectors of the k largest eigenvalues of a symmetric matrix given by its products."""
    d, dtype = like.size, like.dtype
    if d <= _MAX_EIGH or 5 * k >= d:  # LOBPCG has to have room for a few blocks
        matrix: Matrix = all_products(mv, jnp.eye(d, dtype=dtype))
        return jnp.linalg.eigh((matrix + matrix.T) / 2)[1][:, ::-1][:, :k].T
    start = jax.random.normal(jax.random.key(0), (d, k), dtype)
    values, vectors, _ = lobpcg_standard(lambda block: all_products(mv, block.T).T, start)
    missed = jnp.linalg.norm(all_products(mv, vectors.T) - values[:, None] * vectors.T)
    return jnp.where(missed < jnp.finfo(dtype).eps ** 0.5 * k * jnp.max(jnp.abs(values)), vectors, jnp.nan).T
