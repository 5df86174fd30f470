"""What an inner product is made of: questions that solvers ask, and sums and scalings that keep the answers.

`as_diagonal`, `as_low_rank_update` and `as_dense` ask for a structure, and answer ``None`` for a type that does not
have it; `lifted` asks a metric what its distances do not fall below. `add` and `scale` combine two inner products, or
two metrics; `relaxed` leads from Euclid to an inner product.
All are `functools.singledispatch` functions: a type from anywhere answers a question by registering on it, and is then
served like the types of this package, in sums, in scalings and by the solvers. Which of the structures a type has must
not depend on values.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import safe_sqrt
from .._types import Matrix, Point, Scalar, Vector
from .inner_products import AbstractInnerProduct, DenseInnerProduct, DiagonalInnerProduct, IdentityPlusRankOne
from .low_rank import LowRankUpdate


def _positive(factor) -> Array:
    factor = jnp.asarray(factor)
    return jnp.where(factor > 0, factor, jnp.nan)


class Scaled(AbstractInnerProduct):
    """``factor * G`` with a positive scalar ``factor`` and the inner product G; any other factor becomes NaN.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import IdentityPlusRankOne, Scaled
    >>> product = Scaled(4.0, IdentityPlusRankOne(jnp.array([1.0, 0.0]), jnp.asarray(3.0)))
    >>> product.mv(jnp.array([1.0, 1.0])).tolist(), float(product.norm(jnp.array([0.0, 1.0])))
    ([16.0, 4.0], 2.0)
    """

    factor: Float[Array, ""] = eqx.field(converter=_positive)
    inner_product: AbstractInnerProduct

    @property
    def dim(self) -> int | None:
        """The dimension d, if the inner product knows it."""
        return self.inner_product.dim

    def mv(self, v: Vector) -> Vector:
        return self.factor * self.inner_product.mv(v)

    def squared_norm(self, v: Vector) -> Scalar:
        return self.factor * self.inner_product.squared_norm(v)

    def solve(self, w: Vector) -> Vector:
        return self.inner_product.solve(w) / self.factor

    def logdet(self, dim: int | None = None) -> Scalar:
        # A class that knows its dimension need not take it as an argument.
        logdet = self.inner_product.logdet() if self.dim is not None else self.inner_product.logdet(dim)
        dim = dim if self.dim is None else self.dim
        if dim is None:
            raise TypeError(f"`logdet` of {type(self).__name__} needs the dimension: call `logdet(dim)`")
        return dim * jnp.log(self.factor) + logdet

    def sqrt_mv(self, v: Vector) -> Vector:
        return jnp.sqrt(self.factor) * self.inner_product.sqrt_mv(v)

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        return self.inner_product.inv_sqrt_mv(v) / jnp.sqrt(self.factor)

    def matrix(self, dim: int) -> Matrix:
        return self.factor * self.inner_product.matrix(dim)


class Relaxed(AbstractInnerProduct):
    """``(1 - fraction) I + fraction G`` with the inner product G and a scalar ``fraction`` in [0, 1]: what `relaxed`
    makes of a type that does not relax in a way of its own.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DiagonalInnerProduct, Relaxed
    >>> Relaxed(DiagonalInnerProduct(jnp.array([3.0, 5.0])), jnp.asarray(0.5)).mv(jnp.ones(2)).tolist()
    [2.0, 3.0]
    """

    inner_product: AbstractInnerProduct
    fraction: Scalar | float

    @property
    def dim(self) -> int | None:
        """The dimension d, if the inner product knows it."""
        return self.inner_product.dim

    def mv(self, v: Vector) -> Vector:
        return (1 - self.fraction) * v + self.fraction * self.inner_product.mv(v)

    def squared_norm(self, v: Vector) -> Scalar:
        return (1 - self.fraction) * (v @ v) + self.fraction * self.inner_product.squared_norm(v)

    def matrix(self, dim: int) -> Matrix:
        matrix = self.inner_product.matrix(dim)
        return (1 - self.fraction) * jnp.eye(dim, dtype=matrix.dtype) + self.fraction * matrix


class Sum(AbstractInnerProduct):
    """``G + H`` of the inner products ``left`` G and ``right`` H, for structures that `add` cannot join.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DiagonalInnerProduct, IdentityPlusRankOne, Sum
    >>> product = Sum(DiagonalInnerProduct(jnp.array([1.0, 2.0])), IdentityPlusRankOne(jnp.ones(2), jnp.asarray(1.0)))
    >>> product.mv(jnp.array([1.0, 0.0])).tolist()
    [3.0, 1.0]
    """

    left: AbstractInnerProduct
    right: AbstractInnerProduct

    @property
    def dim(self) -> int | None:
        """The dimension d, if one of the two knows it."""
        return self.right.dim if self.left.dim is None else self.left.dim

    def mv(self, v: Vector) -> Vector:
        return self.left.mv(v) + self.right.mv(v)

    def squared_norm(self, v: Vector) -> Scalar:
        return self.left.squared_norm(v) + self.right.squared_norm(v)

    def matrix(self, dim: int) -> Matrix:
        return self.left.matrix(dim) + self.right.matrix(dim)


@functools.singledispatch
def as_diagonal(inner_product: AbstractInnerProduct) -> Vector | None:
    """The diagonal ``(d,)`` of an inner product that is diagonal by its type; ``None`` for any other.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DiagonalInnerProduct, Scaled, as_diagonal
    >>> as_diagonal(Scaled(2.0, DiagonalInnerProduct(jnp.array([1.0, 3.0])))).tolist()
    [2.0, 6.0]
    """
    return None


@as_diagonal.register
def _(inner_product: DiagonalInnerProduct) -> Vector:
    return inner_product.diagonal


@as_diagonal.register
def _(inner_product: LowRankUpdate) -> Vector | None:
    factors = inner_product.factors
    return None if factors.shape[0] else jnp.ones(factors.shape[1], factors.dtype)


@as_diagonal.register
def _(inner_product: Scaled) -> Vector | None:
    diagonal = as_diagonal(inner_product.inner_product)
    return None if diagonal is None else inner_product.factor * diagonal


@as_diagonal.register
def _(inner_product: Relaxed) -> Vector | None:
    diagonal = as_diagonal(inner_product.inner_product)
    return None if diagonal is None else (1 - inner_product.fraction) + inner_product.fraction * diagonal


@functools.singledispatch
def as_low_rank_update(inner_product: AbstractInnerProduct) -> tuple[Scalar | None, LowRankUpdate] | None:
    """``(scale, update)`` with ``G = scale * update``, for an inner product that is of this form by its type; ``None``
    for any other.

    A ``scale`` of ``None`` says that it is one, and so that G is at least the identity.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import IdentityPlusRankOne, Scaled, as_low_rank_update
    >>> product = IdentityPlusRankOne(jnp.array([1.0, 2.0]), jnp.asarray(5.0))
    >>> scale, update = as_low_rank_update(Scaled(2.0, product))
    >>> float(scale), update.factors.tolist(), update.weights.tolist()
    (2.0, [[1.0, 2.0]], [5.0])

    A class of your own:

    >>> from scoregeo import AbstractInnerProduct
    >>> from scoregeo.metrics import LowRankUpdate
    >>> class Pair(AbstractInnerProduct):
    ...     u: jnp.ndarray
    ...     def mv(self, v):
    ...         return v + self.u.T @ (self.u @ v)
    >>> @as_low_rank_update.register
    ... def _(pair: Pair):
    ...     return None, LowRankUpdate(pair.u, jnp.ones(2))
    """
    return None


@as_low_rank_update.register
def _(inner_product: LowRankUpdate) -> tuple[None, LowRankUpdate]:
    return None, inner_product


@as_low_rank_update.register
def _(inner_product: IdentityPlusRankOne) -> tuple[None, LowRankUpdate]:
    return None, LowRankUpdate(inner_product.vector[None], inner_product.strength[None])


@as_low_rank_update.register
def _(inner_product: Scaled) -> tuple[Scalar, LowRankUpdate] | None:
    answer = as_low_rank_update(inner_product.inner_product)
    if answer is None:
        return None
    scale, update = answer
    return inner_product.factor if scale is None else inner_product.factor * scale, update


@as_low_rank_update.register
def _(inner_product: Relaxed) -> tuple[Scalar | None, LowRankUpdate] | None:
    answer = as_low_rank_update(inner_product.inner_product)
    if answer is None:
        return None
    scale, update = answer
    f = inner_product.fraction
    if scale is None:
        return None, LowRankUpdate(update.factors, f * update.weights)
    # (1 - f) I + f s (I + A) = t (I + f s A / t) with t = 1 - f + f s.
    total = (1 - f) + f * scale
    return total, LowRankUpdate(update.factors, f * scale / total * update.weights)


@functools.singledispatch
def at_least_identity(inner_product: AbstractInnerProduct) -> bool:
    """Whether an inner product is the identity plus something positive by its type; values are not looked at, so that
    ``inner_product`` may be one of shapes (`jax.eval_shape`).

    The default asks whether it is such an update of low rank; a type that knows registers.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DiagonalInnerProduct, IdentityPlusRankOne, at_least_identity
    >>> at_least_identity(IdentityPlusRankOne(jnp.ones(2), jnp.asarray(1.0)))
    True
    >>> at_least_identity(DiagonalInnerProduct(jnp.ones(2)))
    False
    """
    answer = jax.eval_shape(as_low_rank_update, inner_product)
    return answer is not None and answer[0] is None


@functools.singledispatch
def as_dense(inner_product: AbstractInnerProduct) -> Matrix | None:
    """The array ``(d, d)`` of an inner product that holds it; ``None`` for any other, for which `matrix` makes one.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DenseInnerProduct, Scaled, as_dense
    >>> as_dense(Scaled(2.0, DenseInnerProduct(jnp.eye(2)))).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    return None


@as_dense.register
def _(inner_product: DenseInnerProduct) -> Matrix:
    return inner_product.array


@as_dense.register
def _(inner_product: Scaled) -> Matrix | None:
    array = as_dense(inner_product.inner_product)
    return None if array is None else inner_product.factor * array


@as_dense.register
def _(inner_product: Relaxed) -> Matrix | None:
    array = as_dense(inner_product.inner_product)
    return None if array is None else inner_product.matrix(array.shape[-1])


@functools.singledispatch
def relaxed(inner_product: AbstractInnerProduct, fraction: Scalar | float) -> AbstractInnerProduct:
    """What stands for ``inner_product`` on the way from Euclid to it: the inner product itself for a ``fraction`` of 1,
    about the identity for 1e-3.

    Solvers that continue from Euclid to a metric ask this at every point, for fractions that grow geometrically from
    1e-3 to 1. The default is ``(1 - fraction) I + fraction G``. A type with a path of its own registers; it keeps its
    structure on the way.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DiagonalInnerProduct, relaxed
    >>> relaxed(DiagonalInnerProduct(jnp.array([3.0, 5.0])), 0.5).mv(jnp.ones(2)).tolist()
    [2.0, 3.0]
    """
    return Relaxed(inner_product, fraction)


@functools.singledispatch
def scale(thing: Any, factor: Any) -> Any:
    """``factor * thing`` of an inner product or a metric, with the structure it has; ``factor`` is positive.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DiagonalInnerProduct, scale
    >>> scale(DiagonalInnerProduct(jnp.ones(2)), 3.0).diagonal.tolist()
    [3.0, 3.0]
    """
    raise TypeError(f"only inner products and metrics can be scaled, got {type(thing).__name__}")


@scale.register
def _(thing: AbstractInnerProduct, factor: Scalar | float) -> Scaled:
    return Scaled(factor, thing)


@scale.register
def _(thing: Scaled, factor: Scalar | float) -> Scaled:
    return Scaled(factor * thing.factor, thing.inner_product)


@scale.register
def _(thing: DiagonalInnerProduct, factor: Scalar | float) -> DiagonalInnerProduct:
    return DiagonalInnerProduct(_positive(factor) * thing.diagonal)


@scale.register
def _(thing: DenseInnerProduct, factor: Scalar | float) -> DenseInnerProduct:
    return DenseInnerProduct(_positive(factor) * thing.array)


@functools.singledispatch
def add(left: Any, right: Any) -> Any:
    """``left + right`` of two inner products or two metrics, with the structure that both have.

    Diagonal plus diagonal is diagonal, low rank plus low rank is low rank (``I + A`` and ``I + B`` make ``2 I + A +
    B``), anything plus dense is dense; the rest is a `Sum`. A type that can do better registers on this function, or
    answers one of the questions.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import IdentityPlusRankOne, add
    >>> a = IdentityPlusRankOne(jnp.array([1.0, 0.0]), jnp.asarray(2.0))
    >>> b = IdentityPlusRankOne(jnp.array([0.0, 1.0]), jnp.asarray(4.0))
    >>> both = add(a, b)
    >>> float(both.factor), both.inner_product.weights.tolist()
    (2.0, [1.0, 2.0])
    """
    raise TypeError(f"only inner products and metrics can be added, got {type(left).__name__}")


@add.register
def _(left: AbstractInnerProduct, right: AbstractInnerProduct) -> AbstractInnerProduct:
    answers = as_low_rank_update(left), as_low_rank_update(right)
    if answers[0] is not None and answers[1] is not None:
        return _add_low_rank(answers[0], answers[1])
    diagonals = as_diagonal(left), as_diagonal(right)
    if diagonals[0] is not None and diagonals[1] is not None:
        return DiagonalInnerProduct(diagonals[0] + diagonals[1])
    for some, other in ((left, right), (right, left)):
        array = as_dense(some)
        if array is not None:
            return DenseInnerProduct(array + other.matrix(array.shape[-1]))
    return Sum(left, right)


def _add_low_rank(left: tuple[Scalar | None, LowRankUpdate], right: tuple[Scalar | None, LowRankUpdate]) -> Scaled:
    """``s (I + A) + t (I + B) = (s + t) (I + (s A + t B) / (s + t))``."""
    (s, a), (t, b) = left, right
    one = jnp.ones((), jnp.result_type(a.factors, b.factors))
    s, t = one if s is None else s, one if t is None else t
    weights = jnp.concatenate([s / (s + t) * a.weights, t / (s + t) * b.weights])
    return Scaled(s + t, LowRankUpdate(jnp.concatenate([a.factors, b.factors]), weights))


@functools.singledispatch
def lifted(metric: Any, x: Point) -> Float[Array, " m"]:
    """Where ``x`` is in a Euclidean space of any dimension in which nothing is further apart than in ``metric``.

    The default is ``x`` itself for a metric that is at least Euclid's by its structure, and elsewhere one point for
    all. A metric that knows better registers: the graph of its feature, its least factor.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric
    >>> from scoregeo.metrics import lifted
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(1), jnp.eye(1)), 4.0)  # of the graph of 2 log p
    >>> (lifted(metric, jnp.array([2.0])) - lifted(metric, jnp.zeros(1))).round(4).tolist()
    [2.0, -4.0]
    """
    return x if at_least_identity(jax.eval_shape(metric.at, x)) else jnp.zeros(1, x.dtype)


def lower_bound(metric: Any, x: Point, y: Point) -> Scalar:
    """A length that no curve from ``x`` to ``y`` falls below in ``metric``: the distance where they are `lifted` to;
    zero where nothing is known."""
    return safe_sqrt(jnp.sum((lifted(metric, x) - lifted(metric, y)) ** 2))
