"""The Stein metric: what the score does to data space (Perone 2023, 2024; Azeglio & Di Bernardo 2025).

    G(x) = I + lam s(x) s(x)^T,      L = 1 + lam |s|^2                                                   (1)

Geodesic equation, with J = ds/dx (Hartmann, Girolami & Klami 2022 for the first; the second keeps the curl of s):

    s a gradient field:    x'' = - lam (v^T J v) s / L                                                   (2)
    any s:                 x'' = - G^-1 [ lam (v^T J v) s + lam (s.v) (J - J^T) v ]                      (3)

Using (2) for a learned, unconstrained network is wrong: its Jacobian is not symmetric.

Several scores, such as those of several noise levels, are stacked: with a sum over them,

    G(x) = I + sum_k lam_k s_k s_k^T,    G x'' = - sum_k lam_k [ (v^T J_k v) s_k + (s_k.v) (J_k - J_k^T) v ]   (4)
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_float, as_scalar, check_finite, is_concrete
from .._types import Point, Scalar, Vector
from ..scores import AbstractScore
from ..scores.base import field
from ..scores.density import as_score
from .base import AbstractMetric
from .calibration import Contrast, squared_score, strength_rule
from .inner_products import IdentityPlusRankOne
from .low_rank import LowRankUpdate
from .structure import lifted


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
        self.strength = as_scalar(strength, "strength")

    def at(self, x: Point) -> IdentityPlusRankOne:
        """The inner product at ``x``, from one evaluation of the score."""
        return IdentityPlusRankOne(field(self.score)(x), self.strength.astype(x.dtype))

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """Equation (2) with one JVP for a conservative score, (3) with one JVP and one VJP otherwise."""
        strength = self.strength.astype(x.dtype)
        if self.score.conservative:
            s, jv = jax.jvp(field(self.score), (x,), (v,))
            return -(strength * (v @ jv) / (1 + strength * (s @ s))) * s
        s, pushforward = jax.linearize(field(self.score), x)
        jv = pushforward(v)
        (vj,) = jax.linear_transpose(pushforward, x)(v)
        return IdentityPlusRankOne(s, strength).solve(-strength * ((v @ jv) * s + (s @ v) * (jv - vj)))


class StackedSteinMetric(AbstractMetric):
    """``G(x) = I + sum_k strengths_k s_k(x) s_k(x)^T``: the charges of several Stein metrics, an update of rank k.

    Scores at several noise levels see normal directions that a single one leaves free where it vanishes.

    **Arguments**

    - ``scores``: k of them, each an `AbstractScore` or a function ``x -> s(x)``.
    - ``strengths``: ``(k,)``, non-negative, with units length^2, traced; multiples of the squared noise levels make the
      metric scale-free.

    Raises ``ValueError`` for no scores, another number of strengths, or one that is negative or not finite.

    >>> import jax.numpy as jnp
    >>> from scoregeo import StackedSteinMetric
    >>> metric = StackedSteinMetric([lambda x: -x, lambda x: jnp.ones(2)], [2.0, 1.0])
    >>> metric.at(jnp.array([1.0, 0.0])).mv(jnp.array([1.0, 1.0])).tolist()
    [5.0, 3.0]
    """

    scores: tuple[AbstractScore, ...]
    strengths: Float[Array, " k"]

    def __init__(self, scores: Sequence[AbstractScore | Callable[[Point], Vector]], strengths: ArrayLike):
        self.scores = tuple(as_score(score) for score in scores)
        if not self.scores:
            raise ValueError("`scores` must hold at least one score, got none")
        strengths = as_float(strengths, "strengths").astype(jnp.result_type(float))
        if strengths.shape != (len(self.scores),):
            raise ValueError(
                f"`strengths` must have shape ({len(self.scores)},), one for each score, got {strengths.shape}"
            )
        check_finite(strengths, "strengths")
        if is_concrete(strengths) and float(strengths.min()) < 0:
            raise ValueError(f"`strengths` must be non-negative, got {float(strengths.min())}")
        self.strengths = jnp.where(strengths < 0, jnp.nan, strengths)

    def at(self, x: Point) -> LowRankUpdate:
        """The inner product at ``x``, from one evaluation of every score."""
        rows = jnp.stack([field(score)(x) for score in self.scores])
        return LowRankUpdate(rows, self.strengths.astype(x.dtype))

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """Equation (4): for each score one JVP and, unless it is conservative, one VJP."""
        strengths = self.strengths.astype(x.dtype)
        rows, force = [], jnp.zeros_like(x)
        for score, strength in zip(self.scores, strengths, strict=True):
            s, pushforward = jax.linearize(field(score), x)
            jv = pushforward(v)
            force = force + strength * (v @ jv) * s
            if not score.conservative:
                (vj,) = jax.linear_transpose(pushforward, x)(v)
                force = force + strength * (s @ v) * (jv - vj)
            rows.append(s)
        return -LowRankUpdate(jnp.stack(rows), strengths).solve(force)


@strength_rule(SteinMetric)
def _(score: Any, places: Contrast, ratio: Scalar) -> Scalar:
    """The dearest direction costs ``1 + strength |s|^2``, the cheapest one 1."""
    return (ratio - 1) / places.high_off(squared_score(as_score(score)), "|s|^2")


@lifted.register
def _(metric: SteinMetric, x: Point) -> Float[Array, " m"]:
    return _graph(x, (metric.score,), metric.strength[None])


@lifted.register
def _(metric: StackedSteinMetric, x: Point) -> Float[Array, " m"]:
    return _graph(x, metric.scores, metric.strengths)


def _graph(x: Point, scores: Sequence[AbstractScore], strengths: Float[Array, " k"]) -> Float[Array, " m"]:
    """``x`` with the values of ``sqrt(strength) log p`` for the scores that are gradients of a log density they
    know."""
    heights = [x]
    for score, strength in zip(scores, strengths.astype(x.dtype), strict=True):
        height = _known_log_prob(score, x)
        if height is not None:
            heights.append(jnp.sqrt(strength) * height.astype(x.dtype)[None])
    return jnp.concatenate(heights)


def _known_log_prob(score: Any, x: Point) -> Scalar | None:
    if not score.conservative:
        return None
    try:
        jax.eval_shape(score.log_prob, x)
    except (AttributeError, TypeError):  # no such method, or one that only some networks serve
        return None
    return score.log_prob(x)
