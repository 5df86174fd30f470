"""Graph metrics: what a function of the point charges for changing its value.

With F = Df, the Jacobian ``(m, d)`` of a feature f,

    G(x) = floor I + lam F(x)^T F(x)                                                                     (1)

is, for ``floor`` = 1, the metric of the graph ``x -> (x, sqrt(lam) f(x))`` in R^(d+m), which m = 1, f = log p makes the
Stein metric, and f = sigma^2 s, the step of a denoiser, the score Jacobian metric (Saito & Matsubara 2025, with the
identity added). Geodesics (Gauss's formula: the acceleration of the lift is normal to the graph):

    G x'' = - lam F^T D^2 f(v, v)                                                                        (2)

All of it by Jacobian-vector and vector-Jacobian products: nothing of size m x d or d x d is formed, but where one of
the two is small.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_scalar, is_concrete, is_real
from .._function import TracedFunction, as_arguments
from .._numerics import is_traced
from .._types import Matrix, Point, Scalar, Vector
from ..scores import AbstractScore, at_noise_level
from ..scores.base import check_score_value, noise_level_of
from ..scores.density import as_score
from .base import AbstractMetric, metric_at_noise_level, warn_of_far_points
from .calibration import Contrast, strength_rule
from .inner_products import AbstractInnerProduct
from .low_rank import LowRankUpdate
from .structure import add, as_low_rank_update, at_least_identity, lifted, scale

# Features of at most so many values are solved for by Woodbury.
MAX_RANK = 8


class GraphInnerProduct(AbstractInnerProduct):
    """Equation (1) at the point ``x``, with ``floor`` one where it is ``None``; ``feature`` takes a point to ``(m,)``,
    and ``strength`` may be ``(m,)`` too, one for each value.

    Where the feature is not finite, so is nothing else. Solves, determinants and roots are those of a `LowRankUpdate`
    for features of few values, and the defaults of `AbstractInnerProduct` for others.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GraphMetric
    >>> product = GraphMetric(lambda x: x**2, strength=2.0).at(jnp.array([1.0, 0.0]))
    >>> product.mv(jnp.array([1.0, 1.0])).tolist()
    [9.0, 1.0]
    """

    feature: TracedFunction
    x: Point
    strength: Scalar | Float[Array, " m"]
    floor: Scalar | None = None

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.x.shape[-1]

    @property
    def rank(self) -> int:
        """The number m of values of the feature."""
        return jax.eval_shape(self.feature, self.x).shape[-1]

    def push(self, v: Vector) -> Float[Array, " m"]:
        """``F v``, by one JVP."""
        return _push(self.feature, self.x, v)

    def jacobian(self) -> Float[Array, "m d"]:
        """``F``, from as many products as its smaller side: where d or m is small."""
        if self.rank < self.dim:
            value, pull = jax.vjp(self.feature, self.x)
            rows = jax.vmap(lambda row: pull(row)[0])(jnp.eye(value.size, dtype=value.dtype))
            return jnp.where(jnp.all(jnp.isfinite(value)), rows, jnp.nan)
        return jax.vmap(self.push, out_axes=1)(jnp.eye(self.dim, dtype=self.x.dtype))

    def mv(self, v: Vector) -> Vector:
        value, pushforward = jax.linearize(self.feature, self.x)
        pushed = jnp.where(jnp.all(jnp.isfinite(value)), pushforward(v), jnp.nan)
        (pulled,) = jax.linear_transpose(pushforward, self.x)(self.strength * pushed)
        return self._floored(v) + pulled

    def squared_norm(self, v: Vector) -> Scalar:
        pushed = self.push(v)
        return self._floored(v) @ v + pushed @ (self.strength * pushed)

    def _floored(self, v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return v if self.floor is None else self.floor * v

    def solve(self, w: Vector) -> Vector:
        low_rank = self._low_rank()
        if low_rank is None:
            return super().solve(w)
        solved = low_rank.solve(w)
        return solved if self.floor is None else solved / self.floor

    def logdet(self, dim: int | None = None) -> Scalar:
        low_rank = self._low_rank()
        if low_rank is None:
            return super().logdet(dim)
        return low_rank.logdet() + (0 if self.floor is None else self.dim * jnp.log(self.floor))

    def sqrt_mv(self, v: Vector) -> Vector:
        low_rank = self._low_rank()
        if low_rank is None:
            return super().sqrt_mv(v)
        root = low_rank.sqrt_mv(v)
        return root if self.floor is None else root * jnp.sqrt(self.floor)

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        low_rank = self._low_rank()
        if low_rank is None:
            return super().inv_sqrt_mv(v)
        root = low_rank.inv_sqrt_mv(v)
        return root if self.floor is None else root / jnp.sqrt(self.floor)

    def matrix(self, dim: int) -> Matrix:
        rows = self.jacobian()
        identity = jnp.eye(dim, dtype=rows.dtype)
        return self._floored(identity) + rows.T @ (jnp.reshape(self.strength, (-1, 1)) * rows)

    def _low_rank(self) -> LowRankUpdate | None:
        """``G / floor``, where that is the identity and few rows."""
        rank = self.rank
        if rank > MAX_RANK or rank >= self.dim:
            return None
        strength = self.strength if self.floor is None else self.strength / self.floor
        return LowRankUpdate(self.jacobian(), jnp.broadcast_to(strength, (rank,)))


def _push(feature: Callable, x: Point, v: Vector) -> Float[Array, " m"]:
    """``Df(x) v``; NaN where f(x) is not finite, of which derivatives alone may know nothing."""
    value, pushed = jax.jvp(feature, (x,), (v,))
    return jnp.where(jnp.all(jnp.isfinite(value)), pushed, jnp.nan)


@as_low_rank_update.register
def _(inner_product: GraphInnerProduct) -> tuple[Scalar | None, LowRankUpdate] | None:
    low_rank = inner_product._low_rank()
    return None if low_rank is None else (inner_product.floor, low_rank)


@at_least_identity.register
def _(inner_product: GraphInnerProduct) -> bool:
    return inner_product.floor is None


@scale.register
def _(thing: GraphInnerProduct, factor: Scalar | float) -> GraphInnerProduct:
    factor = jnp.where(jnp.asarray(factor) > 0, factor, jnp.nan)
    floor = factor if thing.floor is None else factor * thing.floor
    return GraphInnerProduct(thing.feature, thing.x, factor * thing.strength, floor)


class _Joined(eqx.Module):
    """The values of two features in one array."""

    left: TracedFunction
    right: TracedFunction

    def __call__(self, x: Point) -> Float[Array, " m"]:
        return jnp.concatenate([self.left(x), self.right(x)])


@add.register
def _(left: GraphInnerProduct, right: AbstractInnerProduct) -> AbstractInnerProduct:
    """At the same point: two features are one, and a multiple of the identity is more floor."""
    low_rank = as_low_rank_update(right)
    one = jnp.ones((), left.x.dtype)
    floor = one if left.floor is None else left.floor
    if low_rank is not None and low_rank[1].factors.shape[0] == 0:
        more = one if low_rank[0] is None else low_rank[0]
        return GraphInnerProduct(left.feature, left.x, left.strength, floor + more)
    if not isinstance(right, GraphInnerProduct):
        return add.dispatch(AbstractInnerProduct)(left, right)
    feature = TracedFunction(_Joined(left.feature, right.feature), "feature")
    strength = [jnp.broadcast_to(part.strength, (part.rank,)) for part in (left, right)]
    floor = floor + (one if right.floor is None else right.floor)
    return GraphInnerProduct(feature, left.x, jnp.concatenate(strength), floor)


class AbstractGraphMetric(AbstractMetric):
    """Equation (1) for some `feature`: inner products by JVP and VJP, and geodesics by (2).

    ``strength`` is what multiplies ``F^T F``, and ``floor`` the identity; a ``floor`` of ``None`` is one.
    """

    strength: eqx.AbstractVar[Float[Array, ""]]
    floor: eqx.AbstractVar[Float[Array, ""] | None]

    @abc.abstractmethod
    def feature(self, x: Point) -> Float[Array, " m"]:
        """The values at ``x`` for whose change the metric charges, shape ``(m,)``."""

    def at(self, x: Point) -> GraphInnerProduct:
        """The inner product at ``x``, whose products evaluate the feature."""
        # Arrays that the feature closes over become leaves of what is returned: their derivatives are not lost.
        feature = TracedFunction(eqx.filter_closure_convert(self.feature, x), "feature")
        floor = None if self.floor is None else self.floor.astype(x.dtype)
        return GraphInnerProduct(feature, x, self.strength.astype(x.dtype), floor)

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """Equation (2): a JVP of a JVP, a VJP, and a solve."""
        _, bend = jax.jvp(lambda y: _push(self.feature, y, v), (x,), (v,))
        (force,) = jax.vjp(self.feature, x)[1](bend)
        return -self.strength.astype(x.dtype) * self.at(x).solve(force)

    def check(self, x: Point) -> None:
        """Raise ``ValueError`` where the feature at ``x`` is not finite, and warn where ``x`` is far from the data that
        a score of the metric knows. The matrix is symmetric by construction."""
        warn_of_far_points(self, x)
        if not is_concrete(x) or is_traced(self):
            return
        value = _feature_at(self, x)
        if not is_concrete(value):  # the feature closes over something that is traced
            return
        value = np.asarray(value)
        bad = int((~np.isfinite(value)).sum())
        if bad:
            raise ValueError(
                f"the feature of `metric` must be finite, but {bad} of its {value.size} values are not at x = {x}"
            )


@lifted.register
def _(metric: AbstractGraphMetric, x: Point) -> Float[Array, " m"]:
    """The graph: metric (1) is what Euclid's metric of R^(d+m) makes of it."""
    base = x if metric.floor is None else jnp.sqrt(metric.floor.astype(x.dtype)) * x
    return jnp.concatenate([base, jnp.sqrt(metric.strength.astype(x.dtype)) * metric.feature(x)])


@eqx.filter_jit
def _feature_at(metric: AbstractGraphMetric, x: Point) -> Float[Array, " m"]:
    return metric.feature(x)


def feature_value(value: Any, x: Point, name: str) -> Float[Array, " m"]:
    """``value`` of the function ``name`` at ``x`` as an array ``(m,)`` in the precision of ``x``; a scalar is one
    value.

    Raises ``ValueError`` for any other shape, ``TypeError`` if it does not hold real numbers.
    """
    value = jnp.asarray(value)
    if not is_real(value.dtype):
        raise TypeError(f"`{name}` must return real numbers, got dtype {value.dtype}")
    if value.ndim > 1 or value.size == 0:
        raise ValueError(
            f"`{name}` must return a scalar or shape (m,) with m >= 1 for a point of shape {x.shape}, got {value.shape}"
        )
    return value.astype(x.dtype).reshape(-1)


class GraphMetric(AbstractGraphMetric):
    """``G(x) = I + strength F^T F`` with F the Jacobian of ``feature``: distance is Euclidean plus a charge for what
    the feature changes by.

    It is the metric of the graph ``x -> (x, sqrt(strength) feature(x))``: no distance is below that of the lifted end
    points, and it grows with ``strength``. A feature of up to 8 values (``log p`` gives the Stein metric) is treated as
    an update of low rank; beyond, everything is matrix-free above d = 64.

    **Arguments**

    - ``feature``: function ``(x, *args)`` to a scalar or to shape ``(m,)``, smooth; see `FunctionScore` for what it may
      be.
    - ``*args``: arrays or pytrees of arrays passed on to it, traced.
    - ``strength``: non-negative scalar, traced, with units length^2 over those of the feature squared. 0 is Euclid.

    Raises ``ValueError`` for a negative or non-finite ``strength``, and where it is used for a feature of another shape
    or one that is not finite at an end point.

    >>> import jax.numpy as jnp
    >>> from scoregeo import dist, GraphMetric
    >>> plane = GraphMetric(lambda x: 2.0 * x[0])  # the plane z = 2 x over the (x, y) plane
    >>> round(float(dist(plane, jnp.zeros(2), jnp.array([2.0, 1.0]))), 4)  # sqrt(2^2 + 1^2 + 4^2)
    4.5826
    """

    function: TracedFunction
    args: tuple
    strength: Float[Array, ""]
    floor: None

    def __init__(self, feature: Callable[..., Array], *args: Any, strength: ArrayLike = 1.0):
        self.function = TracedFunction(feature, "feature")
        self.args = as_arguments(args, "args")
        self.strength = as_scalar(strength, "strength")
        self.floor = None

    def feature(self, x: Point) -> Float[Array, " m"]:
        """The feature at ``x``, as an array ``(m,)``."""
        return feature_value(self.function(x, *self.args), x, "feature")


class ScoreJacobianMetric(AbstractGraphMetric):
    """``G(x) = I + strength noise_level^4 J^T J`` with J the Jacobian of the score: leaving the data costs, in every
    normal direction.

    ``noise_level^2 s(x)`` is the step of the denoiser, and its Jacobian about -1 on directions normal to the data, 0 on
    tangent ones: so a step away from the data costs ``1 + strength`` times what one along them does, in squared length.
    The score need not be a gradient field.

    **Arguments**

    - ``score``: an `AbstractScore`, or a function ``x -> s(x)``.
    - ``noise_level``: standard deviation of the noise in the density whose score it is, in the units of the data,
      traced. May be left out for a score that knows it (a `NetworkScore`).
    - ``strength``: non-negative, traced, without units.

    Raises ``ValueError`` for a noise level that is missing, not positive, or another one than the score was made for,
    and for a negative or non-finite ``strength``.

    Saito & Matsubara 2025, arXiv 2504.20288, for ``J^T J``, which alone is flat; the graph of the denoiser's step is
    not.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, ScoreJacobianMetric, dist
    >>> score = GaussianScore(jnp.zeros(2), jnp.diag(jnp.array([1.0, 0.01])))  # data along the first axis
    >>> metric = ScoreJacobianMetric(score, noise_level=0.1, strength=99.0)
    >>> round(float(dist(metric, jnp.zeros(2), jnp.array([1.0, 0.0]))), 2)
    1.0
    >>> round(float(dist(metric, jnp.zeros(2), jnp.array([0.0, 1.0]))), 2)
    10.0
    """

    score: AbstractScore
    noise_level: Float[Array, ""]
    strength: Float[Array, ""]
    floor: None

    def __init__(
        self,
        score: AbstractScore | Callable[[Point], Vector],
        noise_level: ArrayLike | None = None,
        strength: ArrayLike = 100.0,
    ):
        self.score = as_score(score)
        self.noise_level = noise_level_of(self.score, noise_level)
        self.strength = as_scalar(strength, "strength")
        self.floor = None

    def feature(self, x: Point) -> Vector:
        """``noise_level^2 s(x)``."""
        return self.noise_level.astype(x.dtype) ** 2 * check_score_value(self.score(x), x)


@strength_rule(ScoreJacobianMetric)
def _(score: Any, places: Contrast, ratio: Scalar) -> Scalar:
    """``1 + strength`` across the data, 1 along them, whatever the data and their units are."""
    return ratio - 1


@metric_at_noise_level.register
def _(metric: ScoreJacobianMetric, noise_level: Scalar | float) -> ScoreJacobianMetric:
    return ScoreJacobianMetric(at_noise_level(metric.score, noise_level), noise_level, metric.strength)
