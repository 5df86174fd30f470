"""The inverse Stein metric: moving across the levels of the density is cheap, moving along them costs as in Euclid.

    G(x) = I - lam s s^T / L = (I + lam s s^T)^-1,      L = 1 + lam |s|^2,      log det G = - log L      (1)

Geodesics, by Lagrange's equation for T = 1/2 (|v|^2 - lam (s.v)^2 / L), with J = ds/dx and b = lam s.v / L:

    G x'' = b J v + J^T (b^2 s - b v) + (lam / L) (v.J v - 2 b s.J v) s                                  (2)
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_scalar
from .._types import Point, Scalar, Vector
from ..scores import AbstractScore
from ..scores.base import field
from ..scores.density import as_score
from .base import AbstractMetric
from .calibration import Contrast, squared_score, strength_rule
from .inner_products import AbstractInnerProduct, IdentityPlusRankOne


class InverseInnerProduct(AbstractInnerProduct):
    """``G = H^-1`` of the inner product ``inverse`` H, by whose closed forms everything is done.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import IdentityPlusRankOne, InverseInnerProduct
    >>> product = InverseInnerProduct(IdentityPlusRankOne(jnp.array([1.0, 0.0]), jnp.asarray(3.0)))
    >>> product.mv(jnp.ones(2)).tolist(), product.solve(jnp.ones(2)).tolist()
    ([0.25, 1.0], [4.0, 1.0])
    """

    inverse: AbstractInnerProduct

    @property
    def dim(self) -> int | None:
        """The dimension d, if the inverse knows it."""
        return self.inverse.dim

    def mv(self, v: Vector) -> Vector:
        return self.inverse.solve(v)

    def solve(self, w: Vector) -> Vector:
        return self.inverse.mv(w)

    def logdet(self, dim: int | None = None) -> Scalar:
        return -(self.inverse.logdet() if self.dim is not None else self.inverse.logdet(dim))

    def sqrt_mv(self, v: Vector) -> Vector:
        return self.inverse.inv_sqrt_mv(v)

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        return self.inverse.sqrt_mv(v)


class InverseSteinMetric(AbstractMetric):
    """``G(x) = I - strength s s^T / (1 + strength |s|^2)``, the inverse of what `SteinMetric` is: distance is Euclidean
    less what moving along the score saves.

    Paths prefer to climb and descend where the score is large, that is off the data (the tangent-penalising form of
    Perone 2024, used by samplers). No distance exceeds Euclid's.

    **Arguments**

    - ``score``: an `AbstractScore`, or a function ``x -> s(x)``, which need not be a gradient field.
    - ``strength``: non-negative scalar with units length^2, traced. Raises ``ValueError`` if negative or not finite.

    >>> import jax.numpy as jnp
    >>> from scoregeo import InverseSteinMetric
    >>> metric = InverseSteinMetric(lambda x: -x, strength=3.0)
    >>> metric.at(jnp.array([1.0, 0.0])).mv(jnp.array([1.0, 1.0])).tolist()
    [0.25, 1.0]
    """

    score: AbstractScore
    strength: Float[Array, ""]

    def __init__(self, score: AbstractScore | Callable[[Point], Vector], strength: ArrayLike = 1.0):
        self.score = as_score(score)
        self.strength = as_scalar(strength, "strength")

    def at(self, x: Point) -> InverseInnerProduct:
        """The inner product at ``x``, from one evaluation of the score."""
        return InverseInnerProduct(IdentityPlusRankOne(field(self.score)(x), self.strength.astype(x.dtype)))

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """Equation (2): one JVP and one VJP."""
        strength = self.strength.astype(x.dtype)
        s, pushforward = jax.linearize(field(self.score), x)
        jv = pushforward(v)
        part = strength / (1 + strength * (s @ s))
        b = part * (s @ v)
        (pulled,) = jax.linear_transpose(pushforward, x)(b * (b * s - v))
        force = b * jv + pulled + part * (v @ jv - 2 * b * (s @ jv)) * s
        return force + (strength * (s @ force)) * s


@strength_rule(InverseSteinMetric)
def _(score: Any, places: Contrast, ratio: Scalar) -> Scalar:
    """The dearest direction costs 1, the cheapest one on the data ``1 / (1 + strength |s|^2)``."""
    return (ratio - 1) / places.median_on(squared_score(as_score(score)), "|s|^2")
