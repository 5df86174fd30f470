"""Families of distributions, as manifolds: the points are parameters, the metric is Fisher information."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

from .._numerics import with_own_settings
from .._results import RESULTS, raise_if_failed
from .._types import Point, Scalar, Vector
from ..geodesics import AbstractBoundarySolver, Geodesic, geodesic
from ..geodesics.checks import Start, Times, check_times
from ..geodesics.solution import raise_unless_successful
from ..operations import dist, exp, log, squared_dist
from .fitting import LogLikelihood, fit, minimise
from .metric import FisherRaoMetric
from .parameter_space import AbstractParameterSpace


class AbstractFamily(AbstractParameterSpace):
    """A family of distributions with parameters ``theta``, flat ``(size,)``.

    `exp`, `log`, `dist`, `squared_dist` and `geodesic` are those of ``FisherRaoMetric(family)``: in closed form where
    the family has one, otherwise by a solver. Points are flat; for batches use ``jax.vmap``. All of them raise
    ``ValueError`` for points outside the family, where values are known, and ``RuntimeError`` with advice if a solve
    fails; with ``throw=False`` a failed solve is NaN, or for `geodesic` a code in ``result``.

    Families are pytrees, some with traced arrays (numbers of trials, outcomes): compile a method with
    ``equinox.filter_jit(family.dist)`` or ``jax.jit(lambda a, b: family.dist(a, b))``, not ``jax.jit(family.dist)``.
    """

    @property
    @abc.abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample ``x``: ``()`` for univariate families."""

    @abc.abstractmethod
    def log_prob(self, theta: Point, x: Num[Array, "..."]) -> Scalar:
        """The log density (or log probability) of one sample; minus infinity outside the support."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Num[Array, "n ..."]:
        """``n`` independent samples, shape ``(n, *sample_shape)``; integers from families of counts."""

    # In words: what samples must be, and what it means that no distribution is most likely.
    sample_bound = "finite"
    degenerate: ClassVar[str] = "the likelihood grows without end"

    def in_support(self, x: Num[Array, "..."]) -> Bool[Array, ""]:
        """Whether `fit` takes ``x`` as a sample: one that has positive density, and leaves the likelihood bounded."""
        return jnp.all(jnp.isfinite(x))

    def maximum_likelihood(
        self, samples: Float[Array, "n ..."], weights: Float[Array, " n"], start: Vector | None = None
    ) -> tuple[Point, RESULTS]:
        """The formula of `fit`, for samples and weights that have been checked, and a code. The default minimises minus
        the log likelihood in unconstrained coordinates, from ``start``, by default zero."""
        start = jnp.zeros(self.dof, samples.dtype) if start is None else start.astype(samples.dtype)
        u, result = minimise(LogLikelihood(), start, (self, samples, weights))
        return self.from_unconstrained(u), result

    @with_own_settings
    def fit(self, samples: Any, weights: Any = None, *, throw: bool = True, with_result: bool = False) -> Any:
        """The most likely distribution: the ``theta`` ``(size,)`` that maximises ``sum(weights * log_prob(samples))``.

        Differentiable with respect to samples and weights; for several sets of samples use ``jax.vmap``.

        **Arguments**

        - ``samples``: shape ``(n, *sample_shape)``, of integers or floating-point numbers, whose type ``theta`` has.
        - ``weights``: how often each sample counts, shape ``(n,)``, not negative; only ratios matter. Default: once
          each. Samples of weight zero may be anything.
        - ``throw``: raise ``RuntimeError`` with advice if there is no maximum, or the search for it fails; inside a
          trace the value is NaN then, and its derivatives zero. With ``False``, NaN, or the best point found.
        - ``with_result``: return the pair of the value, as with ``throw=False``, and its `RESULTS` code:
          ``no_maximum``; or ``on_boundary``, which is no failure: a distribution with some probability 0 or 1.

        Raises ``ValueError`` naming the sample or weight that is refused, where values are known; inside a trace the
        code is ``no_maximum`` then.

        >>> import jax.numpy as jnp
        >>> from scoregeo.fisher_rao import Normal
        >>> a = Normal().fit(jnp.array([1.0, 2.0, 3.0, 6.0]))
        >>> [round(float(value), 4) for value in a]  # mean and standard deviation
        [3.0, 1.8708]
        """
        return fit(self, samples, weights, throw, with_result)

    def closed_exp(self, theta: Point, v: Vector) -> Point | None:
        """`exp` where it is known in closed form, else ``None``; of a point and a vector that have been checked."""
        return None

    @with_own_settings
    def exp(self, theta: Point, v: Vector, *, throw: bool = True, **settings: Any) -> Point:
        """The exponential map: where the geodesic with velocity ``v`` is at time 1, shape ``(size,)``.

        In closed form where there is one, unless ``settings`` are given: those of `scoregeo.shoot`, which then solves
        the geodesic equation.
        """
        theta, v = self.check_tangent(theta, v)
        closed = None if settings else self.closed_exp(theta, v)
        return exp(FisherRaoMetric(self), theta, v, throw=throw, **settings) if closed is None else closed

    @with_own_settings
    def log(
        self,
        a: Point,
        b: Point,
        *,
        solver: AbstractBoundarySolver | None = None,
        init: Start | None = None,
        throw: bool = True,
    ) -> Vector:
        """The logarithmic map: the velocity at ``a`` of the geodesic to ``b``, shape ``(size,)``. Arguments as in
        `geodesic`. In closed form, NaN where ``a`` is on the boundary of the family (a probability that is zero), where
        no velocity tells geodesics apart."""
        return self._answer(self._known_log, log, a, b, solver, init, throw)

    @with_own_settings
    def dist(
        self,
        a: Point,
        b: Point,
        *,
        solver: AbstractBoundarySolver | None = None,
        init: Start | None = None,
        throw: bool = True,
    ) -> Scalar:
        """The Fisher-Rao distance, the length of the geodesic from ``a`` to ``b``; its gradient at coincident points is
        zero. Arguments as in `geodesic`. In closed form, NaN outside the family.

        >>> from scoregeo.fisher_rao import Gamma
        >>> family = Gamma()
        >>> a, b = family.pack(shape=1.0, rate=1.0), family.pack(shape=3.0, rate=2.0)
        >>> round(float(family.dist(a, b)), 4)
        0.9915
        """
        return self._answer(self._known_dist, dist, a, b, solver, init, throw)

    @with_own_settings
    def squared_dist(
        self,
        a: Point,
        b: Point,
        *,
        solver: AbstractBoundarySolver | None = None,
        init: Start | None = None,
        throw: bool = True,
    ) -> Scalar:
        """The square of `dist`, smooth at coincident points, where its Hessian is twice the Fisher information.
        Arguments as in `geodesic`. In closed form, NaN outside the family."""
        return self._answer(self._known_squared_dist, squared_dist, a, b, solver, init, throw)

    @with_own_settings
    def geodesic(
        self,
        a: Point,
        b: Point,
        ts: Times | None = None,
        *,
        solver: AbstractBoundarySolver | None = None,
        init: Start | None = None,
        throw: bool = True,
    ) -> Geodesic:
        """The geodesic from ``a`` to ``b``, sampled at ``ts`` (default 65 equal times).

        ``solver``: takes the place of the closed form, where there is one; default the solver made for the family
        (`FibreSolver`), else `SpectralNewton`. ``init`` as in `scoregeo.geodesic`; closed forms and solvers made for a
        family do not need it, and leave it unused. ``throw``: raise ``RuntimeError`` if the solve fails, or a closed
        form has lost its digits; inside a trace the numbers are NaN then, and ``result`` says so.
        """
        a, b = self.check_pair(a, b)
        known = self._known_geodesic(a, b, check_times(ts, a.dtype)) if solver is None else None
        if known is None:
            return geodesic(FisherRaoMetric(self), a, b, solver=solver, init=init, ts=ts, throw=throw)
        return raise_unless_successful(known) if throw else known

    # What `AbstractExactFamily` knows of points that have been checked.

    def _known_log(self, a: Point, b: Point) -> Vector | None:
        return None

    def _known_dist(self, a: Point, b: Point) -> Scalar | None:
        return None

    def _known_squared_dist(self, a: Point, b: Point) -> Scalar | None:
        return None

    def _known_geodesic(self, a: Point, b: Point, ts: Float[Array, " n"]) -> Geodesic | None:
        return None

    def _answer(
        self, known: Callable, operation: Callable, a: Any, b: Any, solver: Any, init: Any, throw: bool
    ) -> Array:
        """What is ``known`` in closed form, or ``operation`` of the metric by a solver: NaN where that fails."""
        a, b = self.check_pair(a, b)
        value = known(a, b) if solver is None else None
        if value is not None:
            return value
        value, result = operation(FisherRaoMetric(self), a, b, solver=solver, init=init, with_result=True)
        value = jnp.where(result == RESULTS.successful, value, jnp.nan)
        return raise_if_failed(value, result) if throw else value


class AbstractExponentialFamily(AbstractFamily):
    """A family with densities ``h(x) exp(<eta, T(x)> - A(eta))``: it has natural parameters ``eta`` and expectation
    parameters ``mu = E[T(x)] = grad A(eta)``, dual affine coordinates of the same manifold.

    The Fisher matrix is the Hessian of A in natural coordinates, and its inverse in expectation coordinates.
    """

    @abc.abstractmethod
    def sufficient_statistic(self, x: Num[Array, "..."]) -> Vector:
        """``T(x)`` of one sample, shape ``(dof,)``."""

    @abc.abstractmethod
    def log_partition(self, eta: Vector) -> Scalar:
        """``A(eta)``, convex."""

    @abc.abstractmethod
    def natural(self, theta: Point) -> Vector:
        """The natural parameters ``eta`` at ``theta``, shape ``(dof,)``."""

    @abc.abstractmethod
    def from_natural(self, eta: Vector) -> Point:
        """The point with natural parameters ``eta``."""

    @abc.abstractmethod
    def expectation(self, theta: Point) -> Vector:
        """The expectation parameters ``mu = E[T(x)]`` at ``theta``, shape ``(dof,)``."""
