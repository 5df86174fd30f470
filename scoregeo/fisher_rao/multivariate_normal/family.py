"""The multivariate normal family, and its geodesics by the lift to positive definite matrices (see `lift`)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_count, check_fractions, plain, setting
from ..._numerics import frozen, safe_sqrt
from ..._results import RESULTS, first_failure
from ..._types import Matrix, Point, Scalar, Vector
from ...geodesics import AbstractBoundarySolver, Geodesic
from ...geodesics.certificate import Measurement
from ...geodesics.curves import AbstractCurve
from ...metrics import AbstractMetric
from ...metrics.inner_products import AbstractInnerProduct
from ..base import AbstractExponentialFamily
from ..fitting import all_equal, average, covariance
from ..metric import FisherRaoMetric, family_solver
from ..supports import AbstractSupport, PositiveDefinite, Real
from .lift import End, energy, geodesic_from_identity, initial_velocity, minimise

# The rounding of ends, in units of eps times the largest singular value. Ends may be missed by a tenth of this; random
# pairs, with covariances of condition number 10, miss theirs by up to 0.4 of what is allowed.
_ROUNDING = 1000


class NormalInnerProduct(AbstractInnerProduct):
    """The Fisher information of N(m, S): ``|dm|^2 = dm^T S^-1 dm``, ``|dS|^2 = 1/2 tr (S^-1 dS)^2``; O(d^3), not
    O(d^6).

    In the coordinates of `MultivariateNormal`: entries of ``dS`` off the diagonal are there once and count twice.
    """

    cov: Float[Array, "d d"]
    lower: Float[Array, "d d"]

    def mv(self, v: Vector) -> Vector:
        dm, ds = _split(v, self.cov.shape[0])
        half = cho_solve((self.lower, True), jnp.concatenate([dm[:, None], ds], 1))
        return _join_covector(half[:, 0], cho_solve((self.lower, True), half[:, 1:].T) / 2)

    def inner(self, v: Vector, w: Vector) -> Scalar:
        (a, x), (b, y) = self._whitened(v), self._whitened(w)
        return a @ b + jnp.sum(x * y) / 2

    def squared_norm(self, v: Vector) -> Scalar:
        # A sum of squares is not negative, whatever the rounding.
        dm, ds = self._whitened(v)
        return jnp.sum(dm**2) + jnp.sum(ds**2) / 2

    def _whitened(self, v: Float[Array, " p"]) -> tuple[Vector, Matrix]:
        """``v`` in coordinates in which the covariance is the identity."""
        dm, ds = _split(v, self.cov.shape[0])
        half = solve_triangular(self.lower, jnp.concatenate([dm[:, None], ds], 1), lower=True)
        return half[:, 0], solve_triangular(self.lower, half[:, 1:].T, lower=True)

    def solve(self, w: Vector) -> Vector:
        dm, ds = _split_covector(w, self.cov.shape[0])
        return _join(self.cov @ dm, 2 * self.cov @ ds @ self.cov)

    @property
    def dim(self) -> int:
        """The number of parameters."""
        d = self.cov.shape[0]
        return d * (d + 3) // 2

    def logdet(self, dim: int | None = None) -> Scalar:
        d = self.cov.shape[0]
        return -2 * (d + 2) * jnp.sum(jnp.log(jnp.diagonal(self.lower))) - d * jnp.log(2.0).astype(self.cov.dtype)


class MultivariateNormal(AbstractExponentialFamily):
    """Normal distributions on R^dim. ``theta``: the mean ``(dim,)``, then the lower triangle of the covariance ``(dim,
    dim)``, row by row.

    Geodesics from a point and a velocity have a closed form (`exp`). Between two points they need a minimisation over
    ``dim (dim - 1) / 2`` numbers (`FibreSolver`), done to rounding in about five Newton steps: `dist`, `log` and
    `geodesic` do that, are differentiable, and are made for ``jax.vmap``.

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import MultivariateNormal
    >>> family = MultivariateNormal(2)
    >>> a = family.pack(mean=[0.0, 0.0], cov=jnp.eye(2))
    >>> b = family.pack(mean=[1.0, 2.0], cov=[[2.0, 0.5], [0.5, 1.0]])
    >>> round(float(family.dist(a, b)), 5)
    2.00747
    """

    dim: int = eqx.field(static=True, converter=plain)
    degenerate: ClassVar[str] = (
        "the covariance of the samples is singular. Give samples that do not lie in a plane: at least `dim + 1` of "
        "them; or take DiagonalNormal"
    )

    def __check_init__(self):
        check_count("dim", self.dim)

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``mean`` and ``cov``."""
        return {"mean": Real((self.dim,)), "cov": PositiveDefinite(self.dim)}

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(dim,)``."""
        return (self.dim,)

    def maximum_likelihood(self, samples: Float[Array, "n dim"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """Mean and covariance of the samples, the latter with the divisor n."""
        mean = average(samples, weights)
        center = jax.lax.stop_gradient(mean)
        square, singular = covariance(samples, weights, center)
        cov = square - jnp.outer(mean - center, mean - center)  # zero, but its second derivatives are not
        few = (jnp.sum(weights > 0) <= self.dim) | jnp.any(all_equal(samples, weights))
        return _join(mean, cov), first_failure([(singular | few, RESULTS.no_maximum)])

    def log_prob(self, theta: Point, x: Float[Array, " dim"]) -> Scalar:
        """The log density at ``x``."""
        mean, cov = self.unpack(theta)
        lower = jnp.linalg.cholesky(cov)
        z = solve_triangular(lower, x - mean, lower=True)
        return -0.5 * (z @ z + self.dim * jnp.log(2 * jnp.pi)) - jnp.sum(jnp.log(jnp.diagonal(lower)))

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, "n dim"]:
        """``n`` independent samples."""
        mean, cov = self.unpack(theta)
        return mean + jax.random.normal(key, (n, self.dim), theta.dtype) @ jnp.linalg.cholesky(cov).T

    def inner_product(self, theta: Point) -> NormalInnerProduct:
        """The Fisher information."""
        cov = self.unpack(theta)[1]
        return NormalInnerProduct(cov, jnp.linalg.cholesky(cov))

    def sufficient_statistic(self, x: Float[Array, " dim"]) -> Vector:
        """``x`` and the lower triangle of ``x x^T``."""
        return _join(x, jnp.outer(x, x))

    def log_partition(self, eta: Vector) -> Scalar:
        """``A(eta)``."""
        first, precision = self._precision(eta)
        lower = jnp.linalg.cholesky(precision)
        z = solve_triangular(lower, first, lower=True)
        return 0.5 * (z @ z + self.dim * jnp.log(2 * jnp.pi)) - jnp.sum(jnp.log(jnp.diagonal(lower)))

    def natural(self, theta: Point) -> Vector:
        """``S^-1 m`` and ``-S^-1 / 2``, its entries below the diagonal twice, as they meet ``x x^T`` twice."""
        mean, cov = self.unpack(theta)
        precision = jnp.linalg.inv(cov)
        return _join_covector(precision @ mean, -precision / 2)

    def from_natural(self, eta: Vector) -> Point:
        """The point with natural parameters ``eta``."""
        first, precision = self._precision(eta)
        cov = jnp.linalg.inv(precision)
        return _join(cov @ first, cov)

    def expectation(self, theta: Point) -> Vector:
        """``m`` and the lower triangle of ``S + m m^T``."""
        mean, cov = self.unpack(theta)
        return _join(mean, cov + jnp.outer(mean, mean))

    def _precision(self, eta: Float[Array, " p"]) -> tuple[Vector, Matrix]:
        first, second = _split_covector(eta, self.dim)
        return first, -2 * second

    def acceleration(self, theta: Point, v: Vector) -> Vector:
        """The geodesic equation: ``m'' = S' S^-1 m'``, ``S'' = S' S^-1 S' - m' m'^T``."""
        cov = self.unpack(theta)[1]
        dm, ds = self.unpack(v)
        change = ds @ jnp.linalg.inv(cov)
        return _join(change @ dm, change @ ds - jnp.outer(dm, dm))

    def closed_exp(self, theta: Point, v: Vector) -> Point:
        """The formula of `exp`, for a point and a vector that have been checked."""
        mean, cov = self.unpack(theta)
        dm, ds = self.unpack(v)
        lower = jnp.linalg.cholesky(cov)
        half = solve_triangular(lower, jnp.concatenate([dm[:, None], ds], 1), lower=True)
        w = solve_triangular(lower, half[:, 1:].T, lower=True)
        return NormalCurve(mean, lower, half[:, 0], w)(jnp.ones((), theta.dtype))[0]


class NormalCurve(AbstractCurve):
    """The geodesic from N(``mean``, ``lower lower^T``) with initial velocity ``(u, w)`` in coordinates in which that is
    N(0, I)."""

    mean: Vector
    lower: Matrix
    u: Vector
    w: Matrix
    backwards: bool = eqx.field(static=True, default=False)

    def __call__(self, t: Scalar) -> tuple[Point, Vector]:
        m, s, dm, ds = geodesic_from_identity(self.u, self.w, 1 - t if self.backwards else t)
        point = _join(self.mean + self.lower @ m, _symmetric(self.lower @ s @ self.lower.T))
        velocity = _join(self.lower @ dm, _symmetric(self.lower @ ds @ self.lower.T))
        return point, -velocity if self.backwards else velocity

    def reverse(self) -> "NormalCurve":
        return NormalCurve(self.mean, self.lower, self.u, self.w, not self.backwards)


class FibreSolver(AbstractBoundarySolver):
    """Geodesics between multivariate normal distributions: Newton's method on their lift to positive definite matrices.

    For ``FisherRaoMetric(MultivariateNormal(dim))`` in the parameters of the family only; raises ``TypeError`` for
    other metrics. The starting path is not used. In dimension 1 there is nothing to minimise.

    **Arguments**

    - ``tolerance``: solved when the next Newton step is below this, relative to the distance; bounds the relative error
      of the path, that of the length is its square. Default 1e-10 in float64, 1e-4 in float32.
    - ``max_steps``: evaluations of the function that is minimised.

    **Returns** (`solve`) a `Geodesic`, to rounding: its matrices have condition numbers up to about exp(1.4 dist),
    which bounds how far apart distributions may be. ``residual``: the relative deviation of the squared speed, or the
    defect at the end if that is larger (for close points, relative to what rounding of the ends allows);
    ``stats``: ``newton_steps``, ``path_error``. ``result``: ``successful``,
    ``stalled``, ``solver_steps_reached``, ``metric_nonfinite``, or ``outside_domain`` for a covariance that is not
    positive definite. ``length`` is differentiable twice, and the path once, in both modes.

    >>> import jax.numpy as jnp
    >>> from scoregeo import dist
    >>> from scoregeo.fisher_rao import FibreSolver, FisherRaoMetric, MultivariateNormal
    >>> family = MultivariateNormal(2)
    >>> a, b = family.pack([0.0, 0.0], jnp.eye(2)), family.pack([0.0, 0.0], 4 * jnp.eye(2))
    >>> round(float(dist(FisherRaoMetric(family), a, b, solver=FibreSolver())), 5)  # log 4
    1.38629
    """

    uses_init: ClassVar[bool] = False
    tolerance: float | None = setting(None)
    max_steps: int = setting(60)

    def __check_init__(self):
        check_fractions(self, "tolerance")
        check_count("max_steps", self.max_steps)

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        if not isinstance(metric, FisherRaoMetric) or metric.unconstrained:
            raise TypeError("`FibreSolver` solves for a FisherRaoMetric in the parameters of its family only")
        family = metric.family
        if not isinstance(family, MultivariateNormal):
            raise TypeError(f"`FibreSolver` is for MultivariateNormal, not for {type(family).__name__}")
        eps = float(jnp.finfo(x.dtype).eps)
        tolerance = self.tolerance if self.tolerance is not None else (1e-10 if eps < 1e-12 else 1e-4)

        (mean, cov), (mean_y, cov_y) = family.unpack(x), family.unpack(y)
        lower, lower_y = jnp.linalg.cholesky(jnp.stack([cov, cov_y]))
        whitened = solve_triangular(lower, jnp.concatenate([(mean_y - mean)[:, None], lower_y], 1), lower=True)
        m, r = whitened[:, 0], whitened[:, 1:]
        after = lower + 0 * m[0]  # one call of LAPACK after the other: see `lift`
        excess = solve_triangular(after, solve_triangular(after, cov_y - cov, lower=True).T, lower=True)
        target = End.of(*jax.lax.stop_gradient((m, r, excess)))
        found = minimise(target, tolerance, self.max_steps)
        u, w, _ = initial_velocity(m, r, found.a, target)
        # Rounding would give equal points a distance of about 1e-16, with a gradient: the value is subtracted from
        # itself. It is no constant zero, because its Hessian must be the Fisher information.
        half_square = energy(m, r, u, w)
        half_square = jnp.where(jnp.all(x == y), half_square - jax.lax.stop_gradient(half_square), half_square)
        length = safe_sqrt(2 * half_square)
        curve = NormalCurve(mean, lower, u, w)
        points, velocities = jax.vmap(curve)(jnp.append(ts, 1))

        # How good the solution is: nothing is differentiated from here on.
        squared, end = jax.lax.stop_gradient((2 * half_square, y))
        visited, vectors = jax.lax.stop_gradient((points, velocities))
        vectors = vectors.at[-1].set(visited[-1] - end)
        norms = jax.vmap(lambda p, v: family.inner_product(p).squared_norm(v))(visited.at[-1].set(end), vectors)
        # The ends of close points are rounded, which is not a failure of the solve.
        unit = jnp.maximum(squared, (_ROUNDING * eps * found.largest) ** 2 / tolerance)
        # Close ends are compared to all digits that whitening leaves; the logarithms of others are absolutely accurate.
        scale = jnp.where(target.close, safe_sqrt(squared), 1 + safe_sqrt(squared))
        rounding = 4 * eps * (found.largest + _whitening(frozen(lower) + 0 * found.decrement)) * scale
        residual = jnp.maximum(jnp.max(jnp.abs(norms[:-1] - squared)) / unit, safe_sqrt(norms[-1] / unit))
        path_error = safe_sqrt(found.decrement / unit)
        error = safe_sqrt(squared) * path_error**2 / 2 + rounding

        outside = jnp.all(jnp.isfinite(x) & jnp.isfinite(y)) & ~jnp.all(jnp.isfinite(lower) & jnp.isfinite(lower_y))
        return Geodesic.from_curve(
            curve,
            ts,
            lambda *_: Measurement(residual),
            ends=(x, y),
            energy=half_square,
            length=length,
            error=error,
            samples=(points[:-1], velocities[:-1]),
            causes=[
                (outside, RESULTS.outside_domain),
                (found.result != RESULTS.successful, found.result),
            ],
            failures=[(~(residual <= 0.1 * tolerance**0.5), RESULTS.stalled)],
            stats={"newton_steps": found.steps, "path_error": path_error},
        )


@family_solver.register(MultivariateNormal)
def _(family: MultivariateNormal) -> FibreSolver:
    return FibreSolver()


# Coordinates. A tangent vector has the entries of dS below the diagonal once; a covector has them twice.
def _join(mean: Vector, matrix: Matrix) -> Float[Array, " p"]:
    return jnp.concatenate([mean, matrix[np.tril_indices(mean.size)]])


def _split(v: Float[Array, " p"], d: int) -> tuple[Vector, Matrix]:
    return v[:d], PositiveDefinite(d).value(v[d:])


def _join_covector(mean: Vector, matrix: Matrix) -> Float[Array, " p"]:
    return _join(mean, 2 * matrix - jnp.diag(jnp.diagonal(matrix)))


def _split_covector(w: Float[Array, " p"], d: int) -> tuple[Vector, Matrix]:
    mean, matrix = _split(w, d)
    return mean, (matrix + jnp.diag(jnp.diagonal(matrix))) / 2


def _whitening(lower: Matrix) -> Scalar:
    """By how much rounding grows where ``lower`` is divided by: Skeel's condition number, of both sides of a
    covariance."""
    inverse = solve_triangular(lower, jnp.eye(lower.shape[0], dtype=lower.dtype), lower=True)
    return jnp.max(jnp.sum(jnp.abs(inverse) @ jnp.abs(lower), 1)) ** 2


def _symmetric(matrix: Matrix) -> Matrix:
    return (matrix + matrix.T) / 2
