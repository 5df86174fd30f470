"""Relative log density from a score alone."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_point, as_points, check_count
from .._numerics import program
from .._types import Point, Points, Scalar, Vector
from .base import AbstractScore, at_noise_level, check_score_value
from .density import as_score


@program
def log_prob_along(score: AbstractScore, points: Points) -> Float[Array, " n"]:
    """``log p(points[i]) - log p(points[0])`` along a path ``(n, d)``, as the line integral of the score; shape
    ``(n,)``.

    Trapezoidal rule, so the error falls with the square of the spacing. For a score that is not a gradient field the
    value depends on the path (Yu et al., CVPR 2025, use it along geodesics).

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.scores import log_prob_along
    >>> path = jnp.linspace(jnp.zeros(1), jnp.ones(1), 11)
    >>> round(float(log_prob_along(GaussianScore(jnp.zeros(1), jnp.eye(1)), path)[-1]), 4)
    -0.5
    """
    scores = jax.vmap(score)(points)
    steps = 0.5 * jnp.sum((scores[1:] + scores[:-1]) * jnp.diff(points, axis=0), -1)
    return jnp.concatenate([jnp.zeros(1, points.dtype), jnp.cumsum(steps)])


class LineIntegralScore(AbstractScore):
    """A score with a log density: the line integral of another score along the straight line from a base point.

        log p(x) - log p(base) = int_0^1 s(base + t (x - base)) . (x - base) dt                            (1)

    `log_prob` is (1) by Gauss's rule, and the score is the gradient of that: a gradient field by construction. It is
    ``score`` itself, up to the error of the rule, where that is a gradient field. Where it is not, as most learned
    scores, the integral depends on the path and so on ``base``, and its gradient is not ``score``; `spread` says by how
    much.

    **Arguments**

    - ``score``: an `AbstractScore`, or a function ``x -> s(x)``.
    - ``base``: the base point, shape ``(d,)``; where log p is zero. A point among the data, where the score is known
      best.
    - ``nodes``: evaluations of ``score`` for one of `log_prob`. A line that crosses k structures as wide as the noise
      level needs several times k.

    Source: Yu et al., CVPR 2025, for the use; base points and the spread over them are ours.

    >>> import jax.numpy as jnp
    >>> from scoregeo.scores import LineIntegralScore
    >>> score = LineIntegralScore(lambda x: -x, base=jnp.zeros(2))
    >>> round(float(score.log_prob(jnp.array([1.0, 2.0]))), 4)
    -2.5
    """

    score: AbstractScore
    base: Float[Array, " d"]
    nodes: int = eqx.field(static=True)
    conservative: bool = eqx.field(static=True)

    def __init__(self, score, base: Point, nodes: int = 32):
        self.score = as_score(score)
        self.base = as_point(base, "base")
        self.nodes = check_count("nodes", nodes)
        self.conservative = True

    def log_prob(self, x: Point) -> Scalar:
        """``log p(x) - log p(base)`` by equation (1)."""
        if x.shape != self.base.shape:
            raise ValueError(f"`x` must have shape {self.base.shape} to match `base`, got {x.shape}")
        times, weights = (jnp.asarray(part, x.dtype) for part in _gauss(self.nodes))
        base = self.base.astype(x.dtype)
        step = x - base
        scores = jax.vmap(lambda t: check_score_value(self.score(base + t * step), x))(times)
        return weights @ (scores @ step)

    def __call__(self, x: Point) -> Vector:
        """The gradient of `log_prob`, which is not ``score`` where that has curl."""
        return jax.grad(self.log_prob)(x)

    def spread(self, xs: Points, bases: Float[Array, "k d"]) -> Float[Array, " n"]:
        """How far log densities at ``xs`` ``(n, d)`` from different base points ``bases`` ``(k, d)`` are apart: their
        standard deviation over base points at each of ``xs``, in nats, shape ``(n,)``.

        The log densities from each base point are compared after subtraction of their mean over ``xs``, since they are
        known up to a constant. Zero for a gradient field, up to the error of the rule; elsewhere, what of `log_prob` is
        a matter of choice. Raises ``ValueError`` for fewer than two points in either.
        """
        xs, bases = as_points(xs, "xs", dim=self.base.size), as_points(bases, "bases", dim=self.base.size)
        for name, points in (("xs", xs), ("bases", bases)):
            if len(points) < 2:
                raise ValueError(f"`{name}` must be at least two points, got {len(points)}")
        return _spread(self, xs, bases)


@at_noise_level.register
def _(score: LineIntegralScore, noise_level: Scalar | float) -> LineIntegralScore:
    return LineIntegralScore(at_noise_level(score.score, noise_level), score.base, score.nodes)


@functools.cache
def _gauss(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and weights of Gauss's rule on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return (x + 1) / 2, w / 2


@program
def _spread(score: LineIntegralScore, xs: Points, bases: Float[Array, "k d"]) -> Float[Array, " n"]:
    def from_base(base):
        values = jax.lax.map(eqx.tree_at(lambda s: s.base, score, base).log_prob, xs)
        return values - jnp.mean(values)

    return jnp.std(jax.lax.map(from_base, bases), axis=0)


@functools.singledispatch
def with_log_prob(score: AbstractScore, like: Points, nodes: int = 32) -> AbstractScore:
    """A score that has ``log_prob``: ``score`` itself where it knows its log density, else the `LineIntegralScore` from
    the point of ``like`` ``(n, d)`` that is nearest to their mean.

    A type whose ``log_prob`` does not always work registers on this function.
    """
    return score if callable(getattr(score, "log_prob", None)) else by_line_integrals(score, like, nodes)


def by_line_integrals(score: AbstractScore, like: Points, nodes: int = 32) -> LineIntegralScore:
    """The `LineIntegralScore` of ``score`` from the point of ``like`` ``(n, d)`` that is nearest to their mean."""
    nearest = jnp.argmin(jnp.sum((like - jnp.mean(like, 0)) ** 2, -1))
    return LineIntegralScore(score, like[nearest], nodes)
