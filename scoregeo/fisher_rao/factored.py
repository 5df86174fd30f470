"""Fisher information by a factor, for parameters of which some direction says next to nothing.

The information of a Gamma distribution of shape k is to rounding a singular matrix from k = 1 / eps on: its entries
have lost what a factor R of F = R^T R still has to every digit. Norms are sums of squares, and never negative.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Matrix, Scalar, Vector
from ..metrics import DenseInnerProduct, DiagonalInnerProduct, as_dense
from ..metrics.inner_products import AbstractInnerProduct


class FactoredInnerProduct(AbstractInnerProduct):
    """``G = R^T R``, with ``factor`` R of shape ``(m, d)`` and of full column rank, m at least d; ``array`` is G, shape
    ``(d, d)``, whose entries may be known to more digits than the product has.

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao.factored import FactoredInnerProduct
    >>> factor = jnp.array([[1.0, 1.0], [0.0, 1e-6]])
    >>> product = FactoredInnerProduct(factor, factor.T @ factor)
    >>> round(float(product.norm(jnp.array([1.0, -1.0]))), 9)
    1e-06
    """

    factor: Float[Array, "m d"]
    array: Float[Array, "d d"]

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.array.shape[-1]

    def mv(self, v: Vector) -> Vector:
        return self.factor.T @ (self.factor @ v)

    def inner(self, v: Vector, w: Vector) -> Scalar:
        return jnp.sum((self.factor @ v) * (self.factor @ w))

    def squared_norm(self, v: Vector) -> Scalar:
        return jnp.sum((self.factor @ v) ** 2)

    def solve(self, w: Vector) -> Vector:
        return jax.scipy.linalg.cho_solve((self._triangle(), False), w)

    def logdet(self, dim: int | None = None) -> Scalar:
        return 2 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(self._triangle()))))

    def sqrt_mv(self, v: Vector) -> Vector:
        return self._power(v, 1)

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        return self._power(v, -1)

    def matrix(self, dim: int) -> Matrix:
        return self.array

    def _triangle(self) -> Matrix:
        """The upper triangular factor, which a factor that is upper triangular already is itself, up to signs."""
        return jnp.linalg.qr(self.factor, mode="r")

    def _power(self, v: Vector, exponent: int) -> Vector:
        _, values, rows = jnp.linalg.svd(self.factor, full_matrices=False)
        return rows.T @ (values**exponent * (rows @ v))


@as_dense.register
def _(inner_product: FactoredInnerProduct) -> Matrix:
    return inner_product.array


@functools.singledispatch
def as_factor(inner_product: AbstractInnerProduct) -> Float[Array, "m d"] | None:
    """A factor R of ``G = R^T R`` that an inner product has by its type; ``None`` for any other."""
    return None


@as_factor.register
def _(inner_product: FactoredInnerProduct) -> Float[Array, "m d"]:
    return inner_product.factor


@as_factor.register
def _(inner_product: DiagonalInnerProduct) -> Float[Array, "d d"]:
    return jnp.diag(jnp.sqrt(inner_product.diagonal))


def pull_back(inner_product: AbstractInnerProduct, jacobian: Float[Array, "d n"]) -> AbstractInnerProduct:
    """``J^T G J``: the inner product in other coordinates, with respect to which those of ``inner_product`` have the
    derivative ``jacobian`` J, shape ``(d, n)``."""
    array = jacobian.T @ jax.vmap(inner_product.mv, 1, 1)(jacobian)
    factor = as_factor(inner_product)
    return DenseInnerProduct(array) if factor is None else FactoredInnerProduct(factor @ jacobian, array)
