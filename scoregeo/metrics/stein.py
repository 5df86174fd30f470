"""The Stein metric: what the score does to data space (Perone 2023, 2024; Azeglio & Di Bernardo 2025).

    G(x) = I + lam s(x) s(x)^T,      L = 1 + lam |s|^2                                                   (1)

Geodesic equation, with J = ds/dx (Hartmann, Girolami & Klami 2022 for the first; the second keeps the curl of s):

    s a gradient field:    x'' = - lam (v^T J v) s / L                                                   (2)
    any s:                 x'' = - G^-1 [ lam (v^T J v) s + lam (s.v) (J - J^T) v ]                      (3)

Using (2) for a learned, unconstrained network is wrong: its Jacobian is not symmetric.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_float, check_finite, is_concrete
from .._types import Point, Vector
from ..scores import AbstractScore
from ..scores.base import check_score_value
from ..scores.density import as_score
from .base import AbstractMetric
from .inner_products import IdentityPlusRankOne


class SteinMetric(AbstractMetric):
    """``G(x) = I + strength s(x) s(x)^T``: distance is Euclidean plus a charge for changing log p.

    If s = grad f, this is the metric of the graph of ``sqrt(strength) f``. Moving along level sets of the density, in
    flat tails or over saddles is free; crossing levels is not.

    **Arguments**

    - ``score``: an `AbstractScore`, or a function ``x -> s(x)`` (wrapped in `FunctionScore`, taken as not
      conservative).
    - ``strength``: non-negative scalar with units length^2, traced. 0 is Euclid; a multiple of the squared noise level
      of the score makes the metric scale-free. Raises ``ValueError`` if negative or not finite.

    >>> import jax.numpy as jnp
    >>> from scoregeo import SteinMetric
    >>> metric = SteinMetric(lambda x: -x, strength=2.0)
    >>> metric.at(jnp.array([1.0, 0.0])).mv(jnp.array([1.0, 1.0])).tolist()
    [3.0, 1.0]
    """

    score: AbstractScore
    strength: Float[Array, ""]

    def __init__(self, score: AbstractScore | Callable[[Point], Vector], strength: ArrayLike = 1.0):
        self.score = as_score(score)
        self.strength = as_float(strength, "strength").astype(jnp.result_type(float))
        if self.strength.ndim != 0:
            raise ValueError(f"`strength` must be a scalar, got shape {self.strength.shape}")
        check_finite(self.strength, "strength")
        if is_concrete(self.strength) and float(self.strength) < 0:
            raise ValueError(f"`strength` must be non-negative, got {float(self.strength)}")
        # A traced value cannot be looked at now; a negative one must not pass for a metric later.
        self.strength = jnp.where(self.strength < 0, jnp.nan, self.strength)

    def _score(self, x: Point) -> Vector:
        return check_score_value(self.score(x), x)

    def at(self, x: Point) -> IdentityPlusRankOne:
        """The inner product at ``x``, from one evaluation of the score."""
        return IdentityPlusRankOne(self._score(x), self.strength.astype(x.dtype))

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """Equation (2) with one JVP for a conservative score, (3) with one JVP and one VJP otherwise."""
        strength = self.strength.astype(x.dtype)
        if self.score.conservative:
            s, jv = jax.jvp(self._score, (x,), (v,))
            return -(strength * (v @ jv) / (1 + strength * (s @ s))) * s
        s, pushforward = jax.linearize(self._score, x)
        jv = pushforward(v)
        (vj,) = jax.linear_transpose(pushforward, x)(v)
        return IdentityPlusRankOne(s, strength).solve(-strength * ((v @ jv) * s + (s @ v) * (jv - vj)))
