"""Inner products at one point: the algebra of G without G.

Each class declares a structure and exploits it: one evaluation of the metric serves products, solves, determinants and
square roots. Solvers read the structure from the type (`IdentityPlusRankOne`, `DiagonalInnerProduct`,
`DenseInnerProduct`).
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import safe_sqrt
from .._types import Matrix, Scalar, Vector


class AbstractInnerProduct(eqx.Module):
    """A symmetric positive definite matrix G on R^d, as an operator. Vectors and covectors have shape ``(d,)``."""

    @abc.abstractmethod
    def mv(self, v: Vector) -> Vector:
        """The covector ``G v``."""

    @abc.abstractmethod
    def solve(self, w: Vector) -> Vector:
        """The vector ``G^-1 w``."""

    @abc.abstractmethod
    def logdet(self) -> Scalar:
        """``log det G``."""

    @abc.abstractmethod
    def sqrt_mv(self, v: Vector) -> Vector:
        """``G^{1/2} v``, the symmetric square root: its Euclidean norm is the norm of ``v``."""

    @abc.abstractmethod
    def inv_sqrt_mv(self, v: Vector) -> Vector:
        """``G^{-1/2} v``: maps standard normal vectors to vectors with covariance ``G^-1``."""

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
        dtype = jnp.result_type(*jax.tree.leaves(self))
        return jax.vmap(self.mv)(jnp.eye(dim, dtype=dtype))


class IdentityPlusRankOne(AbstractInnerProduct):
    """``G = I + strength u u^T`` with ``vector`` u of shape ``(d,)``: everything in O(d), nothing d x d.

    By Sherman & Morrison, with L = 1 + strength |u|^2: ``G^-1 = I - strength u u^T / L``, ``det G = L``.
    The square roots use ``(sqrt(L) - 1) / |u|^2 = strength / (1 + sqrt(L))``, which is exact at u = 0 too.
    """

    vector: Float[Array, " d"]
    strength: Float[Array, ""]

    def _excess(self) -> Scalar:
        return self.strength * (self.vector @ self.vector)

    def _add(self, v: Vector, factor: Scalar) -> Vector:
        return v + (factor * (self.vector @ v)) * self.vector

    def mv(self, v: Vector) -> Vector:
        return self._add(v, self.strength)

    def solve(self, w: Vector) -> Vector:
        return self._add(w, -self.strength / (1 + self._excess()))

    def logdet(self) -> Scalar:
        return jnp.log1p(self._excess())

    def sqrt_mv(self, v: Vector) -> Vector:
        return self._add(v, self.strength / (1 + jnp.sqrt(1 + self._excess())))

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        root = jnp.sqrt(1 + self._excess())
        return self._add(v, -self.strength / (root * (1 + root)))


class DiagonalInnerProduct(AbstractInnerProduct):
    """``G = diag(diagonal)``, with positive ``diagonal`` of shape ``(d,)``."""

    diagonal: Float[Array, " d"]

    def mv(self, v: Vector) -> Vector:
        return self.diagonal * v

    def solve(self, w: Vector) -> Vector:
        return w / self.diagonal

    def logdet(self) -> Scalar:
        return jnp.sum(jnp.log(self.diagonal))

    def sqrt_mv(self, v: Vector) -> Vector:
        return jnp.sqrt(self.diagonal) * v

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        return v / jnp.sqrt(self.diagonal)

    def matrix(self, dim: int) -> Matrix:
        # Not from products with zero: the diagonal may be infinite, at the boundary of a family of distributions.
        return jnp.diag(self.diagonal)


class DenseInnerProduct(AbstractInnerProduct):
    """``G`` as a dense symmetric positive definite array of shape ``(d, d)``; for small dimensions."""

    array: Float[Array, "d d"]

    def mv(self, v: Vector) -> Vector:
        return self.array @ v

    def solve(self, w: Vector) -> Vector:
        return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(self.array), w)

    def logdet(self) -> Scalar:
        return 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(self.array))))

    def _power(self, v: Vector, exponent: float) -> Vector:
        values, vectors = jnp.linalg.eigh(self.array)
        return vectors @ (values**exponent * (vectors.T @ v))

    def sqrt_mv(self, v: Vector) -> Vector:
        return self._power(v, 0.5)

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        return self._power(v, -0.5)
