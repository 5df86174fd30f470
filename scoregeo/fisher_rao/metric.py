"""Fisher information as a metric of the library: every solver and operation applies to families of distributions."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Point, Scalar, Vector
from ..geodesics import AbstractBoundarySolver
from ..geodesics.base import default_solver
from ..metrics import AbstractMetric
from ..metrics.inner_products import AbstractInnerProduct
from .factored import pull_back
from .parameter_space import AbstractParameterSpace


class FisherRaoMetric(AbstractMetric):
    """The Fisher-Rao metric of ``family``: points are its parameters ``theta``, as `AbstractFamily.pack` makes them.

    With ``unconstrained=True`` points are ``family.to_unconstrained(theta)``: the same manifold in coordinates without
    a boundary, in which solvers find paths between far ends more easily.

    Without a ``solver``, geodesics between two points are in closed form where the family has one (`ClosedForm`), by
    `FibreSolver` between multivariate normal distributions, and by `SpectralNewton` otherwise and in unconstrained
    coordinates. The numbers of the family (of trials, of a Monte Carlo estimate) are traced like those of any metric.

    >>> from scoregeo import SpectralNewton, dist
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Normal
    >>> metric = FisherRaoMetric(Normal())
    >>> a, b = Normal().pack(mean=0.0, sd=1.0), Normal().pack(mean=1.0, sd=2.0)
    >>> round(float(dist(metric, a, b)), 5), round(float(dist(metric, a, b, solver=SpectralNewton())), 5)
    (1.18938, 1.18938)
    """

    family: AbstractParameterSpace
    unconstrained: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not isinstance(self.family, AbstractParameterSpace):
            raise TypeError(f"`family` must be a family such as Normal(), got {type(self.family).__name__}")

    def at(self, x: Point) -> AbstractInnerProduct:
        """The Fisher information at ``x``, as an operator."""
        if not self.unconstrained:
            return self.family.inner_product(x)
        theta = self.family.from_unconstrained(x)
        jacobian = jax.jacfwd(self.family.from_unconstrained)(x)
        return pull_back(self.family.inner_product(theta), jacobian)

    def domain(self, x: Point) -> Scalar:
        """Positive where the parameters are inside their domains; everywhere in unconstrained coordinates."""
        return jnp.ones((), x.dtype) if self.unconstrained else self.family.domain(x)

    def check(self, x: Point) -> None:
        """The family's `AbstractFamily.check_information`, at the parameters that ``x`` stands for."""
        self.family.check_information(self.family.from_unconstrained(x) if self.unconstrained else x)

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """The acceleration that the family has in closed form, otherwise the generic Lagrangian one."""
        closed = None if self.unconstrained else self.family.acceleration(x, v)
        return super().acceleration(x, v) if closed is None else closed


@functools.singledispatch
def family_solver(family: AbstractParameterSpace) -> AbstractBoundarySolver | None:
    """The solver made for the geodesics of ``family`` in its own parameters; ``None`` if there is none.

    A family with a solver of its own registers it: ``@family_solver.register(MyFamily)``.
    """
    return None


@default_solver.register(FisherRaoMetric)
def _(metric: FisherRaoMetric, *, length_only: bool = False) -> AbstractBoundarySolver:
    own = None if metric.unconstrained else family_solver(metric.family)
    return default_solver.dispatch(AbstractMetric)(metric, length_only=length_only) if own is None else own
