"""Relative log density from a score alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Points
from .base import AbstractScore


@eqx.filter_jit
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
