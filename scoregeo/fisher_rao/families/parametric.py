"""Families given by users: the Fisher information of any log density, by automatic differentiation.

With the Fisher score u = grad_theta log p(x; theta), of which only values are needed,

    F(theta) = E[ u u^T ] = sum_i w_i u_i u_i^T,                                                           (1)

and an expectation is a set of points x_i with weights w_i (`ExactSum`, `Quadrature`, `MonteCarlo`).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_count, check_finite, is_concrete, warn
from ..._function import TracedFunction
from ..._numerics import with_own_settings
from ..._types import Matrix, Point, Points, Scalar, Vector
from ...metrics.inner_products import DenseInnerProduct
from ..base import AbstractFamily
from ..fitting import fit
from ..supports import AbstractSupport, Real
from .expectations import AbstractExpectation, MonteCarlo

# How far from one the total probability of outcomes or nodes may be, in float32 and in float64.
_MASS = {32: 1e-4, 64: 1e-6}
# The relative standard error of an entry of a Fisher matrix above which users are warned.
_COARSE = 0.1


def _fisher_scores(family: AbstractFamily, theta: Point, x: Array) -> Points:
    return jax.vmap(jax.grad(family.log_prob), (None, 0))(theta, x)


class ParametricFamily(AbstractFamily):
    """The family of a user's log density. Its Fisher matrix is (1), by automatic differentiation.

    **Arguments**

    - ``log_prob``: function ``(theta, x) -> scalar`` of the flat parameters, shape ``(size,)``, and one sample, shape
      ``sample_shape``: the normalised log density, or log probability. A callable pytree has its arrays traced.
    - ``sample``: function ``(key, theta, n) -> (n, *sample_shape)``, for Monte Carlo and for `sample`.
    - ``parameters``: the parameters by name and where each may be, such as ``{"mean": Real(), "sd": Positive()}``, or
      the number of them, all real. Of a `Simplex` all probabilities are coordinates: take the metric
      ``FisherRaoMetric(family, unconstrained=True)``, in coordinates where they keep summing to one.
    - ``sample_shape``: of one sample; ``()`` for numbers.
    - ``expectation``: `ExactSum`, `Quadrature` or `MonteCarlo`; default ``MonteCarlo()`` with ``sample``.

    At values that are known (not under ``jit``) the Fisher matrix is checked: ``ValueError`` if it is degenerate,
    naming a direction in which the distribution does not change, or if the probabilities of an exact sum or quadrature
    do not add up to one; a warning with the standard error where Monte Carlo is coarser than 10%. `geodesic`, `dist`
    and the like check their end points so before they solve, `pairwise_dist` and `compare` their first point. Solvers
    do not know values: between the end points and under ``jit`` the matrix is NaN where the probabilities do not add up
    to one, and the solve ends with ``metric_nonfinite``; a degenerate or coarse matrix is not noticed.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import ParametricFamily, Positive, Quadrature, Real
    >>> def log_prob(theta, x):
    ...     return jax.scipy.stats.logistic.logpdf(x, theta[0], theta[1])
    >>> parameters = {"location": Real(), "scale": Positive()}
    >>> logistic = ParametricFamily(log_prob, parameters=parameters, expectation=Quadrature())
    >>> matrix = logistic.fisher(logistic.pack(location=0.0, scale=1.0))
    >>> [round(float(value), 3) for value in jnp.diagonal(matrix)]  # 1/3, 1/3 + pi^2/9
    [0.333, 1.43]
    """

    density: TracedFunction
    sampler: TracedFunction | None
    supports: tuple[tuple[str, AbstractSupport], ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    expectation: AbstractExpectation

    def __init__(
        self,
        log_prob: Callable[[Point, Array], Scalar],
        sample: Callable[[PRNGKeyArray, Point, int], Array] | None = None,
        *,
        parameters: Mapping[str, AbstractSupport] | int,
        sample_shape: tuple[int, ...] = (),
        expectation: AbstractExpectation | None = None,
    ):
        self.density = TracedFunction(log_prob, "log_prob")
        self.sampler = None if sample is None else TracedFunction(sample, "sample")
        if isinstance(parameters, Mapping):
            wrong = [name for name, support in parameters.items() if not isinstance(support, AbstractSupport)]
            if wrong or not parameters:
                raise TypeError(
                    "`parameters` must be a number or supports by name, such as {'sd': Positive()}, got "
                    f"{dict(parameters)!r}"
                )
            self.supports = tuple(parameters.items())
        else:
            check_count("parameters", parameters)
            self.supports = (("theta", Real((parameters,))),)
        self.shape = tuple(sample_shape)
        if expectation is None and sample is not None:
            expectation = MonteCarlo()
        if not isinstance(expectation, AbstractExpectation):
            raise TypeError(
                "`expectation` must be ExactSum(outcomes), Quadrature(low, high) or MonteCarlo(samples, key), which "
                f"needs `sample`; got {expectation!r}"
            )
        if isinstance(expectation, MonteCarlo) and sample is None:
            raise ValueError("`expectation` is MonteCarlo, which needs a function `sample`")
        self.expectation = expectation

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """The ``parameters`` that were given."""
        return dict(self.supports)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The ``sample_shape`` that was given."""
        return self.shape

    def log_prob(self, theta: Point, x: Array) -> Scalar:
        """The function given as ``log_prob``."""
        value = jnp.asarray(self.density(theta, x))
        if value.shape != ():
            raise ValueError(
                f"`log_prob` must return a scalar for one sample of shape {self.shape}, got shape {value.shape}"
            )
        return value.astype(theta.dtype)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Array:
        """The function given as ``sample``."""
        if self.sampler is None:
            raise ValueError("this family was made without a function `sample`")
        x = jnp.asarray(self.sampler(key, theta, n))
        if x.shape != (n, *self.shape):
            raise ValueError(f"`sample` must return shape {(n, *self.shape)} for n = {n}, got {x.shape}")
        return x

    @with_own_settings
    def fit(
        self, samples: Any, weights: Any = None, *, init: Any = None, throw: bool = True, with_result: bool = False
    ) -> Any:
        """`AbstractFamily.fit`, by Newton's method in unconstrained coordinates, damped by the scores of the samples.

        ``init``: the point to start from, by default the one with unconstrained coordinates zero: reals are zero,
        positive numbers one. It finds a local maximum of the likelihood.
        """
        start = () if init is None else (self.to_unconstrained(self.check(init, "init")),)
        return fit(self, samples, weights, throw, with_result, *start)

    def inner_product(self, theta: Point) -> DenseInnerProduct:
        """The Fisher information (1)."""
        return DenseInnerProduct(self._checked(theta)[0])

    def fisher_with_error(self, theta: Point) -> tuple[Matrix, Matrix]:
        """The Fisher information at ``theta`` and the standard errors of its entries, both ``(size, size)``. The errors
        are zero for sums and quadrature, which have no statistical error."""
        return self._checked(self.check(theta))

    def check_information(self, theta: Point) -> None:
        """``ValueError`` and warning of the Fisher matrix at ``theta``, as above; none outside the family, which
        solvers report."""
        inside = self.domain(theta) > 0
        if is_concrete(inside) and inside:
            self._checked(theta)

    def check_pair(self, a: Any, b: Any) -> tuple[Point, Point]:
        """``a`` and ``b`` as points of the family. Raises ``ValueError`` if its coordinates have a sum to keep."""
        self._check_coordinates()
        return super().check_pair(a, b)

    def check_tangent(self, theta: Any, v: Any) -> tuple[Point, Vector]:
        """``theta`` as a point and ``v`` as a vector at it. Raises ``ValueError`` if coordinates have a sum to keep."""
        self._check_coordinates()
        return super().check_tangent(theta, v)

    def _check_coordinates(self) -> None:
        # The log density is defined beside the simplex too, and geodesics of its Fisher matrix would leave the simplex.
        if self.dof < self.size:
            raise ValueError(
                "geodesics of this family need coordinates in which probabilities keep summing to one: take "
                "FisherRaoMetric(family, unconstrained=True), with points family.to_unconstrained(theta)"
            )

    def _checked(self, theta: Point) -> tuple[Matrix, Matrix]:
        x, weights = self.expectation.points(self, theta)
        u = _fisher_scores(self, theta, x)
        # Weights are multiplied in first: far nodes of a quadrature have tiny ones, and scores whose squares overflow.
        matrix = (weights[:, None] * u).T @ u
        error = jnp.zeros_like(matrix)
        if isinstance(self.expectation, MonteCarlo):
            n = self.expectation.samples
            second = (u**2).T @ (u**2) / n
            error = jnp.sqrt(jnp.maximum(second - matrix**2, 0) / (n - 1))
        else:
            mass, tolerance = jnp.sum(weights), _MASS[jnp.finfo(weights.dtype).bits]
            if is_concrete(mass):
                self._check_mass(float(mass), tolerance)
            matrix = jnp.where(jnp.abs(mass - 1) <= tolerance, matrix, jnp.nan)
        if is_concrete(matrix):
            names = self._coordinate_names()
            check_nondegenerate(matrix, names, self._directions(theta))
            _warn_if_coarse(self.expectation, np.asarray(matrix), np.asarray(error), names)
        return matrix, error

    def _check_mass(self, mass: float, tolerance: float) -> None:
        if not abs(mass - 1) <= tolerance:
            kind = type(self.expectation).__name__
            raise ValueError(
                f"the probabilities of `log_prob` must add up to one, but {kind} gives {mass:.8g}: `log_prob` must be "
                f"normalised, and the outcomes or nodes must be where the probability is (and close enough together)"
            )

    def _directions(self, theta: Point) -> Float[np.ndarray, "size dof"]:
        """Columns that span the directions in which ``theta`` can move: not all, where probabilities sum to one."""
        if self.dof == self.size:
            return np.eye(self.size)
        return np.asarray(jax.jacfwd(self.from_unconstrained)(self.to_unconstrained(theta)))

    def _coordinate_names(self) -> list[str]:
        return [
            name if support.size == 1 else f"{name}[{i}]"
            for name, support in self.supports
            for i in range(support.size)
        ]


def check_nondegenerate(
    matrix: Matrix | np.ndarray, names: list[str], directions: Float[np.ndarray, "size dof"]
) -> None:
    """Raise ``ValueError`` if the Fisher matrix of the coordinates ``names`` is not positive definite, up to rounding,
    on the span of the columns of ``directions``.

    The message names the direction in which the distribution does not change. Judged after scaling to unit information,
    so that units do not matter.
    """
    matrix = np.asarray(matrix)
    if not np.isfinite(matrix).all():
        raise ValueError(
            "the Fisher matrix is not finite: the derivative of `log_prob` with respect to theta must be finite where "
            "the samples are"
        )
    if not np.isfinite(directions).all():  # at the boundary of the family
        return
    restricted = directions.T @ matrix @ directions
    # A direction without information may be left with the rounding errors of the whole matrix.
    diagonal, rounding = np.diagonal(restricted), 100 * len(names) * np.finfo(matrix.dtype).eps
    floor = rounding * np.diagonal(directions.T @ np.diag(np.diagonal(matrix)) @ directions)
    seen = diagonal > floor
    scale = np.where(seen, np.sqrt(np.maximum(diagonal, 0)), 1)
    values, vectors = np.linalg.eigh(np.where(np.outer(seen, seen), restricted / scale[:, None] / scale, 0))
    if values[0] > rounding:
        return
    direction = directions @ (vectors[:, 0] / scale)
    direction = direction / direction[np.argmax(np.abs(direction))]
    terms = [f"{d:+.3g} {name}" for d, name in zip(direction, names, strict=True) if abs(d) > 1e-3]
    raise ValueError(
        "the Fisher matrix is degenerate: the distribution does not change in the direction "
        f"{' '.join(terms)} (with Monte Carlo, there may also be too few samples)"
    )


def _warn_if_coarse(expectation, matrix, error, names):
    scale = np.sqrt(np.outer(np.diagonal(matrix), np.diagonal(matrix)))
    relative = error / scale
    i, j = np.unravel_index(np.argmax(relative), relative.shape)
    if relative[i, j] > _COARSE:
        needed = math.ceil(expectation.samples * (relative[i, j] / _COARSE) ** 2)
        warn(
            f"Monte Carlo with {expectation.samples} samples gives the Fisher information of ({names[i]}, {names[j]}) "
            f"as {matrix[i, j]:.3g} with standard error {error[i, j]:.2g}: take about {needed} samples",
        )


def empirical_fisher(family: AbstractFamily, theta: Point, data: Array) -> Matrix:
    """The mean of ``u u^T`` over ``data``, shape ``(n, *sample_shape)``, instead of over the distribution; shape
    ``(size, size)``.

    The Fisher information at ``theta`` only where the data come from that distribution: elsewhere it is another matrix
    (Kunstner, Hennig & Balles 2019).

    Raises ``ValueError`` for data that are not finite or have no density, where values are known.
    """
    theta = family.check(theta)
    data = jnp.asarray(data)
    if data.ndim == 0 or data.shape[1:] != family.sample_shape or len(data) == 0:
        raise ValueError(f"`data` must have shape {('n', *family.sample_shape)} with n >= 1, got {data.shape}")
    check_finite(data, "data")
    log_prob = jax.vmap(family.log_prob, (None, 0))(theta, data)
    if is_concrete(log_prob):
        bad = ~np.isfinite(np.asarray(log_prob))
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(
                f"`data` must be where the density is positive and finite, but {bad.sum()} of {len(data)} samples are "
                f"not (first at {(first,)}, of log density {float(log_prob[first])})"
            )
    u = _fisher_scores(family, theta, data)
    return u.T @ u / len(data)
