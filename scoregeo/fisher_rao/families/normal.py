"""Normal distributions whose geodesics have closed forms: univariate, with independent components, with known mean.

Univariate (Rao 1945; Atkinson & Mitchell 1981): ``ds^2 = (dm^2 + 2 ds^2) / s^2``, so ``(m / sqrt 2, s)`` is a point of
the hyperbolic half-plane with factor 2, of curvature -1/2; independent components are a product. With known mean
(Skovgaard 1984): ``ds^2 = 1/2 tr((S^-1 dS)^2)``, the affine-invariant geometry of positive definite matrices.
"""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

from ..._checks import check_count, plain
from ..._results import RESULTS, first_failure
from ..._types import Matrix, Point, Scalar, Vector
from ...metrics import DenseInnerProduct, DiagonalInnerProduct
from ..base import AbstractExponentialFamily
from ..exact import AbstractExactFamily
from ..fitting import all_equal, average_and_deviation, covariance
from ..matrix_functions import gram_log, squared_log_norm, symmetric_expm
from ..supports import AbstractSupport, Positive, PositiveDefinite, Real
from .model_spaces import AbstractHalfPlaneFamily


class AbstractIndependentNormal(AbstractHalfPlaneFamily, AbstractExponentialFamily):
    """Independent normal components: ``theta`` is their means and then their standard deviations."""

    factor: ClassVar[float] = 2.0
    degenerate: ClassVar[str] = (
        "all samples are equal (in one component, where there are several), and the standard deviation would be zero"
    )

    def maximum_likelihood(self, samples: Float[Array, "n ..."], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """Means and standard deviations of the samples, the latter with the divisor n."""
        samples = samples.reshape(len(samples), -1)
        mean, sd = average_and_deviation(samples, weights)
        equal = jnp.any(all_equal(samples, weights) | ~(sd > 0))
        return jnp.concatenate([mean, sd]), first_failure([(equal, RESULTS.no_maximum)])

    @property
    @abc.abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """``()`` for one component, ``(dim,)`` for a vector."""

    def log_prob(self, theta: Point, x: Num[Array, "..."]) -> Scalar:
        """The log density at ``x``."""
        mean, sd = jnp.split(theta, 2)
        z = (jnp.reshape(jnp.asarray(x, theta.dtype), mean.shape) - mean) / sd
        return -jnp.sum(z**2 / 2 + jnp.log(sd) + math.log(2 * math.pi) / 2)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, "n ..."]:
        """``n`` samples."""
        mean, sd = jnp.split(theta, 2)
        z = jax.random.normal(key, (n, mean.size), theta.dtype)
        return (mean + sd * z).reshape(n, *self.sample_shape)

    def inner_product(self, theta: Point) -> DiagonalInnerProduct:
        """``1 / sd^2`` for the means, ``2 / sd^2`` for the standard deviations."""
        _, sd = jnp.split(theta, 2)
        return DiagonalInnerProduct(jnp.concatenate([1 / sd**2, 2 / sd**2]))

    def to_half_planes(self, theta: Point) -> Float[Array, "dim 2"]:
        """``(mean / sqrt 2, sd)`` of each component."""
        mean, sd = jnp.split(theta, 2)
        return jnp.stack([mean / math.sqrt(2), sd], 1)

    def from_half_planes(self, points: Float[Array, "dim 2"]) -> Point:
        """``(sqrt 2 x, y)``."""
        return jnp.concatenate([math.sqrt(2) * points[:, 0], points[:, 1]])

    def gap(self, a: Point, b: Point) -> Float[Array, "dim 2"]:
        """Differences of means and of standard deviations: the coordinates are linear in them."""
        return self.to_half_planes(b - a)

    def sufficient_statistic(self, x: Num[Array, "..."]) -> Vector:
        """``(x, x^2)``."""
        x = jnp.reshape(x, -1)
        return jnp.concatenate([x, x**2])

    def log_partition(self, eta: Vector) -> Scalar:
        """``-eta_1^2 / (4 eta_2) - log(-2 eta_2) / 2``, summed over the components."""
        first, second = jnp.split(eta, 2)
        return -jnp.sum(first**2 / (4 * second) + jnp.log(-2 * second) / 2)

    def natural(self, theta: Point) -> Vector:
        """``(mean / sd^2, -1 / (2 sd^2))``."""
        mean, sd = jnp.split(theta, 2)
        return jnp.concatenate([mean / sd**2, -1 / (2 * sd**2)])

    def from_natural(self, eta: Vector) -> Point:
        """``mean = -eta_1 / (2 eta_2)``, ``sd = 1 / sqrt(-2 eta_2)``."""
        first, second = jnp.split(eta, 2)
        return jnp.concatenate([-first / (2 * second), 1 / jnp.sqrt(-2 * second)])

    def expectation(self, theta: Point) -> Vector:
        """``(mean, mean^2 + sd^2)``."""
        mean, sd = jnp.split(theta, 2)
        return jnp.concatenate([mean, mean**2 + sd**2])


class Normal(AbstractIndependentNormal):
    """Univariate normal distributions: ``theta = (mean, sd)``. The hyperbolic plane of curvature -1/2.

    Natural parameters ``(mean / sd^2, -1 / (2 sd^2))`` for the statistic ``(x, x^2)``.

    >>> from scoregeo.fisher_rao import Normal
    >>> family = Normal()
    >>> a, b = family.pack(mean=0.0, sd=1.0), family.pack(mean=0.0, sd=2.0)
    >>> round(float(family.dist(a, b)), 4)  # sqrt(2) log 2
    0.9803
    """

    sample_shape: ClassVar[tuple[int, ...]] = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``mean``, real; ``sd``, positive."""
        return {"mean": Real(), "sd": Positive()}


class DiagonalNormal(AbstractIndependentNormal):
    """Normal distributions on R^dim with independent components: ``theta = (mean, sd)``, both ``(dim,)``.

    A product of hyperbolic planes. Not a totally geodesic part of all normal distributions, whose geodesics turn the
    covariance if the mean moves along more than one axis: `MultivariateNormal` has shorter distances then.

    **Arguments**

    - ``dim``: the number of components, an integer; raises ``ValueError`` if it is not positive.
    """

    dim: int = eqx.field(static=True, converter=plain)

    def __check_init__(self):
        check_count("dim", self.dim)

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``mean``, real; ``sd``, positive; both ``(dim,)``."""
        return {"mean": Real((self.dim,)), "sd": Positive((self.dim,))}

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(dim,)``."""
        return (self.dim,)


class CenteredNormal(AbstractExactFamily, AbstractExponentialFamily):
    """Normal distributions on R^dim with mean zero: ``theta`` is the lower triangle of ``cov``, row by row.

    Those with any other known mean have the same geometry. Distance ``sqrt(1/2 sum log^2 eig(A^-1 B))``; the manifold
    is complete, of curvature between -1/2 and 0. The statistic is the lower triangle of ``x x^T``, so ``theta`` itself
    is the expectation parameter; natural parameters are minus the lower triangle of the precision, halved on its
    diagonal: an entry beside the diagonal stands for two.

    **Arguments**

    - ``dim``: the number of components, an integer; raises ``ValueError`` if it is not positive.

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import CenteredNormal
    >>> family = CenteredNormal(2)
    >>> a, b = family.pack(cov=jnp.eye(2)), family.pack(cov=4.0 * jnp.eye(2))
    >>> round(float(family.dist(a, b)), 4)  # log 4
    1.3863
    """

    dim: int = eqx.field(static=True, converter=plain)
    degenerate: ClassVar[str] = (
        "the mean of x x^T is singular. Give samples that do not lie in a subspace: at least as many as `dim`"
    )

    def __check_init__(self):
        check_count("dim", self.dim)

    @property
    def _support(self) -> PositiveDefinite:
        return PositiveDefinite(self.dim)

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``cov``, symmetric and positive definite, ``(dim, dim)``."""
        return {"cov": self._support}

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(dim,)``."""
        return (self.dim,)

    def maximum_likelihood(self, samples: Float[Array, "n dim"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The mean of ``x x^T``."""
        cov, singular = covariance(samples, weights, jnp.zeros(self.dim, samples.dtype))
        return self._support.coordinates(cov), first_failure([(singular, RESULTS.no_maximum)])

    def log_prob(self, theta: Point, x: Num[Array, " dim"]) -> Scalar:
        """The log density at ``x``."""
        lower = jnp.linalg.cholesky(self._support.value(theta))
        z = _solve(lower, jnp.asarray(x, theta.dtype))
        return -z @ z / 2 - jnp.sum(jnp.log(jnp.diagonal(lower))) - self.dim * math.log(2 * math.pi) / 2

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, "n dim"]:
        """``n`` samples."""
        lower = jnp.linalg.cholesky(self._support.value(theta))
        return jax.random.normal(key, (n, self.dim), theta.dtype) @ lower.T

    def inner_product(self, theta: Point) -> DenseInnerProduct:
        """``1/2 tr(P E_k P E_l)`` with P the precision and E_k the change of the covariance with coordinate k."""
        precision = self._precision(theta)
        rows, columns = np.tril_indices(self.dim)

        def outer(i, j):
            return precision[jnp.ix_(i, j)]

        products = outer(rows, rows) * outer(columns, columns) + outer(rows, columns) * outer(columns, rows)
        return DenseInnerProduct(products / np.outer(self._halves, self._halves).astype(theta.dtype))

    def closed_squared_dist(self, a: Point, b: Point) -> Scalar:
        """``1/2 sum log^2 eig(A^-1 B)``."""
        return squared_log_norm(*self._relative(a, b)[1:])

    def contains(self, theta: Point) -> Bool[Array, ""]:
        """Whether the covariance has a Cholesky factor, as everything here needs."""
        return jnp.all(jnp.isfinite(jnp.linalg.cholesky(self._support.value(theta))))

    def closed_exp(self, theta: Point, v: Vector) -> Point:
        """``L expm(L^-1 V L^-T) L^T`` with ``L L^T`` the covariance; never leaves the family."""
        lower = jnp.linalg.cholesky(self._support.value(theta))
        return self._congruent(lower, symmetric_expm(_whiten(lower, self._support.value(v))))

    def path(self, a: Point, b: Point, t: Scalar) -> Point:
        """``L expm(t logm(L^-1 B L^-T)) L^T`` with ``L L^T = A``."""
        lower, factor, excess = self._relative(a, b)
        return self._congruent(lower, symmetric_expm(t * gram_log(factor, excess)))

    def sufficient_statistic(self, x: Num[Array, " dim"]) -> Vector:
        """The lower triangle of ``x x^T``."""
        return self._support.coordinates(jnp.outer(x, x))

    def log_partition(self, eta: Vector) -> Scalar:
        """``-log(det P) / 2``."""
        lower = jnp.linalg.cholesky(self._support.value(-eta * self._halves.astype(eta.dtype)))
        return -jnp.sum(jnp.log(jnp.diagonal(lower)))

    def natural(self, theta: Point) -> Vector:
        """Minus the lower triangle of the precision P, halved on its diagonal."""
        return -self._support.coordinates(self._precision(theta)) / self._halves.astype(theta.dtype)

    def from_natural(self, eta: Vector) -> Point:
        """The inverse of `natural`."""
        precision = self._support.value(-eta * self._halves.astype(eta.dtype))
        return self._support.coordinates(_inverse(precision))

    def expectation(self, theta: Point) -> Vector:
        """``theta`` itself."""
        return theta

    @property
    def _halves(self) -> np.ndarray:
        """Two on the diagonal, one beside it."""
        rows, columns = np.tril_indices(self.dim)
        return 1.0 + (rows == columns)

    def _precision(self, theta: Point) -> Float[Array, "k k"]:
        return _inverse(self._support.value(theta))

    def _congruent(self, lower: Matrix, inner: Matrix) -> Point:
        return self._support.coordinates(lower @ inner @ lower.T)

    def _relative(self, a: Point, b: Point) -> tuple[Float[Array, "k k"], Float[Array, "k k"], Float[Array, "k k"]]:
        """The Cholesky factor L of A, that of ``M = L^-1 B L^-T``, and ``M - I``."""
        # Both matrices are factorised in one call: two could run side by side (see `multivariate_normal.lift`).
        lower, other = jnp.linalg.cholesky(jnp.stack([self._support.value(a), self._support.value(b)]))
        both = _solve(lower, jnp.concatenate([self._support.value(b - a), other], 1))
        return lower, both[:, self.dim :], _solve(lower, both[:, : self.dim].T)


def _solve(lower: Matrix, x: Array) -> Array:
    return jax.scipy.linalg.solve_triangular(lower, x, lower=True)


def _inverse(matrix: Matrix) -> Matrix:
    inverse_factor = _solve(jnp.linalg.cholesky(matrix), jnp.eye(matrix.shape[0], dtype=matrix.dtype))
    return inverse_factor.T @ inverse_factor


def _whiten(lower: Matrix, matrix: Matrix) -> Matrix:
    """``L^-1 M L^-T``."""
    return _solve(lower, _solve(lower, matrix).T)
