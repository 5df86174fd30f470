"""The interface of a score: a vector field ``s(x) = grad log p(x)`` on data space."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._types import Point, Vector


class AbstractScore(eqx.Module):
    """A score function ``s : R^d -> R^d``, as an immutable pytree whose parameters are traced.

    **Fields**

    - ``conservative``: static. ``True`` promises that the Jacobian of the score is symmetric at every point, because
      the score is the gradient of a function by construction. Learned networks are usually not; then formulas need a
      curl term.

    Scores that know their log density (up to a constant) also have ``log_prob(x) -> scalar``.
    """

    conservative: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def __call__(self, x: Point) -> Vector:
        """The score at one point ``x`` of shape ``(d,)``; the result has the same shape. Use ``jax.vmap`` for
        batches."""


def check_score_value(value: Any, x: Point) -> Vector:
    """``value`` as the score at ``x``, in the precision of ``x``.

    Raises ``ValueError`` if its shape is not that of ``x``, ``TypeError`` if it does not hold real numbers.
    """
    value = jnp.asarray(value)
    if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise TypeError(f"`score` must return real numbers, got dtype {value.dtype}")
    if value.shape != x.shape:
        raise ValueError(f"`score` must return shape {x.shape} for a point of shape {x.shape}, got {value.shape}")
    return value.astype(x.dtype)
