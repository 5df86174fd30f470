"""Inner products at one point: the algebra of G without G.

Each class declares a structure and exploits it: one evaluation of the metric serves products, solves, determinants and
square roots. A class needs `mv` alone; everything else has a default. What structure a class has is asked through the
functions of `structure`, never by its type.
"""

import abc
import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from .._checks import warn
from .._cholesky import solve_positive
from .._numerics import safe_sqrt
from .._types import Matrix, Scalar, Vector

# The largest dimension for which a default forms the matrix of G without a warning.
MAX_DENSE = 64


class AbstractInnerProduct(eqx.Module):
    """A symmetric positive definite matrix G on R^d, as an operator. Vectors and covectors have shape ``(d,)``.

    `mv` is the one method to write. The others have defaults: `solve` forms the matrix up to d = 64 and takes conjugate
    gradients beyond; `logdet`, `sqrt_mv` and `inv_sqrt_mv` form the matrix in any dimension, with a ``UserWarning``
    beyond d = 64, once for each class and method, when they are traced.

    A class that knows its dimension says so in ``dim``; otherwise ``logdet`` has to be told.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo import AbstractInnerProduct
    >>> class Reflected(AbstractInnerProduct):
    ...     a: jax.Array
    ...     def mv(self, v):
    ...         return 3.0 * v - 2.0 * (self.a @ v) * self.a
    >>> product = Reflected(jnp.array([0.6, 0.8]))
    >>> product.solve(product.mv(jnp.array([1.0, 2.0]))).round(4).tolist()
    [1.0, 2.0]
    >>> round(float(product.logdet(dim=2)), 4)  # log 3
    1.0986
    """

    dim: ClassVar[int | None] = None

    @abc.abstractmethod
    def mv(self, v: Vector) -> Vector:
        """The covector ``G v``."""

    def solve(self, w: Vector) -> Vector:
        """The vector ``G^-1 w``.

        The default uses the matrix up to d = 64, where an indefinite G gives NaN. Beyond, it takes conjugate gradients:
        about as many products as the root of the condition number of G, and nothing d x d. NaN where these do not
        converge.
        """
        if w.size <= MAX_DENSE:
            return self._dense(w.size, w.dtype).solve(w)
        return _conjugate_gradients(self, w)

    def logdet(self, dim: int | None = None) -> Scalar:
        """``log det G``. ``dim`` is d, for classes that do not know it; raises ``TypeError`` where it is missing."""
        dim = self.dim if dim is None else dim
        if dim is None:
            raise TypeError(
                f"`logdet` of {type(self).__name__} needs the dimension: call `logdet(dim)`, or give the class a `dim`"
            )
        self._warn_of_matrix("logdet", dim)
        return self._dense(dim).logdet()

    def sqrt_mv(self, v: Vector) -> Vector:
        """``G^{1/2} v``, the symmetric square root: its Euclidean norm is the norm of ``v``."""
        self._warn_of_matrix("sqrt_mv", v.size)
        return self._dense(v.size, v.dtype).sqrt_mv(v)

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        """``G^{-1/2} v``: maps standard normal vectors to vectors with covariance ``G^-1``."""
        self._warn_of_matrix("inv_sqrt_mv", v.size)
        return self._dense(v.size, v.dtype).inv_sqrt_mv(v)

    def inner(self, v: Vector, w: Vector) -> Scalar:
        """``<v, w> = v^T G w``."""
        return v @ self.mv(w)

    def squared_norm(self, v: Vector) -> Scalar:
        """``<v, v>``."""
        return self.inner(v, v)

    def norm(self, v: Vector) -> Scalar:
        """``sqrt(<v, v>)``, with gradient zero at zero."""
        return safe_sqrt(self.squared_norm(v))

    def matrix(self, dim: int) -> Matrix:
        """``G`` as a dense ``(dim, dim)`` array: for small dimensions, tests and pictures."""
        floats = [leaf for leaf in jax.tree.leaves(self) if eqx.is_inexact_array(leaf)]
        dtype = jnp.result_type(*(floats or [float]))
        return jax.vmap(self.mv)(jnp.eye(dim, dtype=dtype))

    def _dense(self, dim: int, dtype=None) -> "DenseInnerProduct":
        matrix = self.matrix(dim)
        return DenseInnerProduct(matrix if dtype is None else matrix.astype(dtype))

    def _warn_of_matrix(self, method: str, dim: int) -> None:
        if dim > MAX_DENSE:
            _warn_of_matrix(f"{type(self).__module__}.{type(self).__qualname__}", method, dim)


@functools.cache  # a class and method are warned of once
def _warn_of_matrix(name: str, method: str, dim: int) -> None:
    warn(
        f"{name}.{method} is the default, which forms a {dim} x {dim} matrix: write `{method}` for the structure of "
        "the class",
    )


def _conjugate_gradients(product: AbstractInnerProduct, w: Vector) -> Vector:
    """``G^-1 w`` by products with G alone; NaN where the residual does not become small."""
    eps = float(jnp.finfo(w.dtype).eps)
    operator = lx.FunctionLinearOperator(
        product.mv, jax.ShapeDtypeStruct(w.shape, w.dtype), lx.positive_semidefinite_tag
    )
    # To half of the digits, and to the others of what that leaves: all of them at once may not be within the reach of
    # rounding, and steps beyond that end in NaN.
    solver = lx.CG(rtol=0.0, atol=eps**0.5, max_steps=10 * w.size)

    def once(b: Vector) -> Vector:
        # lineax compares each entry with a tolerance of its own: the size of `b` is taken out first. The solution is
        # linear in `b`, so that the size may count as a constant.
        size = _size(b)
        return lx.linear_solve(operator, b / size, solver, throw=False).value * size

    v = once(w)
    v = v + once(w - product.mv(v))
    residual = jax.lax.stop_gradient(jnp.max(jnp.abs(product.mv(v) - w)))
    return jnp.where(residual <= eps**0.5 * _size(w), v, jnp.nan)


def _size(w: Vector) -> Scalar:
    """The largest entry; one where all are zero."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(w)))
    return jnp.where(size > 0, size, 1)


class IdentityPlusRankOne(AbstractInnerProduct):
    """``G = I + strength u u^T`` with ``vector`` u of shape ``(d,)``: everything in O(d), nothing d x d.

    By Sherman & Morrison, with L = 1 + strength |u|^2: ``G^-1 = I - strength u u^T / L``, ``det G = L``.
    The square roots use ``(sqrt(L) - 1) / |u|^2 = strength / (1 + sqrt(L))``, which is exact at u = 0 too.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import IdentityPlusRankOne
    >>> product = IdentityPlusRankOne(jnp.array([1.0, 0.0]), jnp.asarray(3.0))
    >>> product.sqrt_mv(jnp.array([1.0, 1.0])).tolist()
    [2.0, 1.0]
    """

    vector: Float[Array, " d"]
    strength: Float[Array, ""]

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.vector.shape[-1]

    def _excess(self) -> Scalar:
        return self.strength * (self.vector @ self.vector)

    def _add(self, v: Vector, factor: Scalar) -> Vector:
        return v + (factor * (self.vector @ v)) * self.vector

    def mv(self, v: Vector) -> Vector:
        return self._add(v, self.strength)

    def solve(self, w: Vector) -> Vector:
        return self._add(w, -self.strength / (1 + self._excess()))

    def logdet(self, dim: int | None = None) -> Scalar:
        return jnp.log1p(self._excess())

    def sqrt_mv(self, v: Vector) -> Vector:
        return self._add(v, self.strength / (1 + jnp.sqrt(1 + self._excess())))

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        root = jnp.sqrt(1 + self._excess())
        return self._add(v, -self.strength / (root * (1 + root)))


class DiagonalInnerProduct(AbstractInnerProduct):
    """``G = diag(diagonal)``, with positive ``diagonal`` of shape ``(d,)``.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DiagonalInnerProduct
    >>> float(DiagonalInnerProduct(jnp.array([4.0, 9.0])).norm(jnp.array([1.0, 0.0])))
    2.0
    """

    diagonal: Float[Array, " d"]

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.diagonal.shape[-1]

    def mv(self, v: Vector) -> Vector:
        return self.diagonal * v

    def solve(self, w: Vector) -> Vector:
        return w / self.diagonal

    def logdet(self, dim: int | None = None) -> Scalar:
        return jnp.sum(jnp.log(self.diagonal))

    def sqrt_mv(self, v: Vector) -> Vector:
        return jnp.sqrt(self.diagonal) * v

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        return v / jnp.sqrt(self.diagonal)

    def matrix(self, dim: int) -> Matrix:
        # The diagonal may be infinite, at the boundary of a family of distributions: a product with zero would be NaN.
        return jnp.diag(self.diagonal)


class DenseInnerProduct(AbstractInnerProduct):
    """``G`` as a dense symmetric positive definite array of shape ``(d, d)``; for small dimensions.

    Solves, determinants and square roots of an indefinite array are NaN.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import DenseInnerProduct
    >>> DenseInnerProduct(jnp.array([[2.0, 1.0], [1.0, 1.0]])).solve(jnp.array([1.0, 0.0])).round(4).tolist()
    [1.0, -1.0]
    """

    array: Float[Array, "d d"]

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.array.shape[-1]

    def mv(self, v: Vector) -> Vector:
        return self.array @ v

    def solve(self, w: Vector) -> Vector:
        return solve_positive(self.array, w)

    def logdet(self, dim: int | None = None) -> Scalar:
        return 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(self.array))))

    def _power(self, v: Vector, exponent: float) -> Vector:
        values, vectors = jnp.linalg.eigh(self.array)
        return vectors @ (values**exponent * (vectors.T @ v))

    def sqrt_mv(self, v: Vector) -> Vector:
        return self._power(v, 0.5)

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        return self._power(v, -0.5)
