"""Annealing: from the geodesic at a large noise level down to that at the metric's own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_float, check_finite, is_concrete
from .._numerics import frozen
from .._results import RESULTS
from .._types import Point
from ..metrics import AbstractMetric, metric_at_noise_level
from .base import AbstractBoundarySolver
from .checks import check_solver
from .curves import AbstractCurve, Polyline, node_times
from .solution import Geodesic
from .spectral.solver import SpectralNewton


class Anneal(AbstractBoundarySolver):
    """Solves at a large noise level, and follows the geodesic down to the metric's own: ``Anneal([0.8, 0.4, 0.2])``.

    Noise fills the gaps between the data; the path found at one level is the start at the next. Which of several local
    geodesics this leads to is decided at the first level, where there are few.

    **Arguments**

    - ``levels``: noise levels ``(k,)``, positive and decreasing, above that of the metric, traced; the metric itself
      follows as the last. See `scoregeo.metrics.metric_at_noise_level` for the metrics that have others: those of
      networks, mixtures and kernel densities.
    - ``solver``: the solver on every level; default ``SpectralNewton()``. It is compiled twice, however many levels.

    A level where no geodesic is found hands on what the solver left, if that is finite, else its own start. ``stats``
    of the result adds ``converged_levels``. No derivative goes through the levels: the result does not depend on where
    it started.

    >>> import jax.numpy as jnp
    >>> from scoregeo import Anneal, KernelDensityScore, SpectralNewton, SteinMetric, geodesic
    >>> metric = SteinMetric(KernelDensityScore(jnp.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 0.5))
    >>> solver = Anneal([1.0, 0.7], SpectralNewton(max_elements=1, rtol=1e-3, path_rtol=1.0))
    >>> path = geodesic(metric, jnp.array([-1.0, 0.1]), jnp.array([1.0, 0.0]), solver=solver)
    >>> int(path.stats["converged_levels"])
    2
    """

    levels: Float[Array, " k"]
    solver: AbstractBoundarySolver

    def __init__(self, levels: ArrayLike, solver: AbstractBoundarySolver | None = None):
        self.levels = as_float(levels, "levels")
        if self.levels.ndim != 1 or self.levels.size == 0:
            raise ValueError(f"`levels` must have shape (k,) with k >= 1, got {self.levels.shape}")
        check_finite(self.levels, "levels")
        if is_concrete(self.levels):
            values = np.asarray(self.levels)
            if not (values > 0).all() or (np.diff(values) >= 0).any():
                raise ValueError(f"`levels` must be positive and decreasing, got {values.tolist()}")
        self.solver = SpectralNewton() if solver is None else solver
        check_solver(self.solver)

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        times = node_times(x.dtype)
        constant, start, end = frozen((metric, x, y))

        def follow(nodes, level):
            found = self.solver.solve(metric_at_noise_level(constant, level), start, end, Polyline(nodes), times)
            usable = jnp.all(jnp.isfinite(found.points))
            return jnp.where(usable, found.points, nodes), found.result == RESULTS.successful

        nodes = jax.lax.stop_gradient(jax.vmap(init)(times)[0])
        nodes, converged = jax.lax.scan(follow, nodes, self.levels.astype(x.dtype))
        result = self.solver.solve(metric, x, y, Polyline(nodes), ts)
        stats = {**result.stats, "converged_levels": jnp.sum(converged)}
        return eqx.tree_at(lambda g: g.stats, result, stats)
