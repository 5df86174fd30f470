"""The independent certificate of a geodesic: re-integrate it with diffrax and see where that leads."""

import diffrax
import jax
import jax.numpy as jnp

from .._numerics import program
from .._types import Scalar
from ..metrics import AbstractMetric
from .initial_value import end_state
from .solution import Geodesic


@program
def verify(metric: AbstractMetric, geodesic: Geodesic, *, max_steps: int = 1024) -> Scalar:
    """The largest relative defect of ``geodesic`` when each segment between its samples is integrated again with
    diffrax.

    Every sample ``(point, velocity)`` is integrated to the time of the next one (Tsit5, rtol 1e-10 in float64, 1e-6 in
    float32) and compared with it; differences of points and of velocities are measured in the metric there and divided
    by the length of the geodesic. Segments are judged one by one, as in multiple shooting, so that unstable geodesics
    are judged fairly: the defect does not include the growth of small differences from one end to the other. Zero for a
    geodesic of length zero; infinite where the integration fails. Works for every solver's result, because it uses only
    ``ts``, ``points`` and ``velocities``.
    """
    if geodesic.ts.ndim != 1:
        raise ValueError("`geodesic` must be a single one: use jax.vmap for a batch")
    if geodesic.ts.size < 2:
        raise ValueError(f"`geodesic` must have at least two samples, got ts of shape {geodesic.ts.shape}")

    def defect(t0, t1, x, v, x_next, v_next):
        adjoint = diffrax.DirectAdjoint()
        (x_end, v_end), solved = end_state(metric, x, v, t0, t1, adjoint=adjoint, max_steps=max_steps)
        inner_product = metric.at(x_next)
        difference = jnp.maximum(inner_product.norm(x_end - x_next), inner_product.norm(v_end - v_next))
        return jnp.where(solved & jnp.isfinite(difference), difference, jnp.inf)

    ts, points, velocities = geodesic.ts, geodesic.points, geodesic.velocities
    defects = jax.vmap(defect)(ts[:-1], ts[1:], points[:-1], velocities[:-1], points[1:], velocities[1:])
    largest = jnp.max(defects)
    return jnp.where(geodesic.length > 0, largest / jnp.where(geodesic.length > 0, geodesic.length, 1), largest)
