"""Fisher information as a metric of the library: every solver and operation applies to families of distributions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Point, Scalar, Vector
from ..geodesics import AbstractBoundarySolver, Geodesic
from ..geodesics.curves import AbstractCurve
from ..metrics import AbstractMetric
from ..metrics.inner_products import AbstractInnerProduct, DenseInnerProduct
from ..metrics.lagrangian import lagrangian_acceleration
from .base import AbstractExactFamily, AbstractFamily, closed_geodesic


class FisherRaoMetric(AbstractMetric):
    """The Fisher-Rao metric of ``family``: points are its parameters ``theta``, as `AbstractFamily.pack` makes them.

    With ``unconstrained=True`` points are ``family.to_unconstrained(theta)``: the same manifold in coordinates without
    a boundary, in which solvers find paths between far ends more easily.

    Geodesics are solved numerically; where the family has them in closed form, ``solver=ClosedForm()`` takes those.
    The numbers of the family (of trials, of a Monte Carlo estimate) are traced like those of any metric.

    >>> import jax.numpy as jnp
    >>> from scoregeo import dist
    >>> from scoregeo.fisher_rao import ClosedForm, FisherRaoMetric, Normal
    >>> metric = FisherRaoMetric(Normal())
    >>> a, b = Normal().pack(mean=0.0, sd=1.0), Normal().pack(mean=1.0, sd=2.0)
    >>> round(float(dist(metric, a, b)), 5), round(float(dist(metric, a, b, solver=ClosedForm())), 5)
    (1.18938, 1.18938)
    """

    family: AbstractFamily
    unconstrained: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not isinstance(self.family, AbstractFamily):
            raise TypeError(f"`family` must be a family such as Normal(), got {type(self.family).__name__}")

    def at(self, x: Point) -> AbstractInnerProduct:
        """The Fisher information at ``x``, as an operator."""
        if not self.unconstrained:
            return self.family.inner_product(x)
        theta = self.family.from_unconstrained(x)
        jacobian = jax.jacfwd(self.family.from_unconstrained)(x)
        product = self.family.inner_product(theta)
        return DenseInnerProduct(jacobian.T @ jax.vmap(product.mv, 1, 1)(jacobian))

    def domain(self, x: Point) -> Scalar:
        """Positive where the parameters are inside their domains; everywhere in unconstrained coordinates."""
        return jnp.ones((), x.dtype) if self.unconstrained else self.family.domain(x)

    def check(self, x: Point) -> None:
        """The family's `AbstractFamily.check_information`, at the parameters that ``x`` stands for."""
        self.family.check_information(self.family.from_unconstrained(x) if self.unconstrained else x)

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """That of the family if it has a closed form, else the generic Lagrangian one."""
        closed = None if self.unconstrained else self.family.acceleration(x, v)
        return lagrangian_acceleration(self, x, v) if closed is None else closed


class ClosedForm(AbstractBoundarySolver):
    """The closed form of geodesics of a `FisherRaoMetric` whose family has one; exact up to rounding.

    Raises ``TypeError`` for any other metric. The starting path is not used.
    """

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """The geodesic from ``x`` to ``y``, sampled at ``ts``."""
        if not isinstance(metric, FisherRaoMetric) or metric.unconstrained:
            raise TypeError("`ClosedForm` solves for a FisherRaoMetric in the parameters of its family only")
        if not isinstance(metric.family, AbstractExactFamily):
            raise TypeError(
                f"the geodesics of {type(metric.family).__name__} have no closed form: use SpectralNewton(), or "
                "FibreSolver() for MultivariateNormal"
            )
        return closed_geodesic(metric.family, x, y, ts)
