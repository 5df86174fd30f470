"""What an inner product is made of: questions that solvers ask, and sums and scalings that keep the answers.

`as_diagonal`, `as_low_rank_update` and `as_dense` ask for a structure, and answer ``None`` for a type that does not
have it. `add` and `scale` combine two inner products, or two metrics. All are `functools.singledispatch` functions: a
type from anywhere answers a question by registering on it, and is then served like the types of this package, in sums,
in scalings and by the solvers. Which of the structures a type has must not depend on values.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Matrix, Scalar, Vector
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


def at_least_identity(inner_product: AbstractInnerProduct) -> bool:
    """Whether an inner product is the identity plus something positive by its type; values are not looked at, so that
    ``inner_product`` may be one of shapes (`jax.eval_shape`).

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


@functools.singledispatch
def scale(thing: Any, factor: Scalar) -> Any:
    """``factor * thing`` of an inner product or a metric, with the structure it has; ``factor`` is positive.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DiagonalInnerProduct, scale
    >>> scale(DiagonalInnerProduct(jnp.ones(2)), 3.0).diagonal.tolist()
    [3.0, 3.0]
    """
    raise TypeError(f"only inner products and metrics can be scaled, got {type(thing).__name__}")


@scale.register
def _(thing: AbstractInnerProduct, factor: Scalar) -> Scaled:
    return Scaled(factor, thing)


@scale.register
def _(thing: Scaled, factor: Scalar) -> Scaled:
    return Scaled(factor * thing.factor, thing.inner_product)


@scale.register
def _(thing: DiagonalInnerProduct, factor: Scalar) -> DiagonalInnerProduct:
    return DiagonalInnerProduct(_positive(factor) * thing.diagonal)


@scale.register
def _(thing: DenseInnerProduct, factor: Scalar) -> DenseInnerProduct:
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
