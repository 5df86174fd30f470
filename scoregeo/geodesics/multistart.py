"""Several local geodesics may connect two points: solve from several starts and keep the shortest."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._checks import check_count
from .._numerics import frozen
from .._results import RESULTS, first_failure
from .._types import Point, Points, Scalar, Vector
from ..metrics import AbstractMetric
from .base import AbstractBoundarySolver
from .checks import check_solver
from .curves import AbstractCurve, Polyline, node_times
from .solution import Geodesic, curve_of
from .spectral.solver import SpectralNewton
from .starts import AbstractStart, StraightLine, bent_line

# Two paths whose points come closer than this, relative to the longest way between them, are the same geodesic.
_SAME = 1e-3


class MultiStart(AbstractBoundarySolver):
    """Solves from several starts, side by side, and returns the shortest geodesic found.

    Starts are the one given as ``init`` (or the straight line), the straight line, and lines bent sideways: towards and
    away from where geodesics through the middle turn (the acceleration there), and, for d > 2, to random sides.

    **Arguments**

    - ``solver``: the solver to start; default ``SpectralNewton()``.
    - ``bends``: how many bent lines. Their heights grow from half the distance between the end points.
    - ``starts``: further rules, such as ``(GraphInit(points),)``.

    ``stats`` of the result adds ``local_geodesics``, the number of distinct geodesics among the converged solves, and
    ``converged_starts``. That a shortest one was found is not guaranteed: more starts find more.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, MultiStart, SteinMetric, geodesic
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)), 1.0)
    >>> found = geodesic(metric, jnp.array([2.0, 0.0]), jnp.array([-2.0, 0.1]), solver=MultiStart(bends=2))
    >>> int(found.stats["local_geodesics"])  # round the mode on either side
    2
    """

    solver: AbstractBoundarySolver
    bends: int = eqx.field(static=True)
    starts: tuple[AbstractStart, ...]

    def __init__(
        self,
        solver: AbstractBoundarySolver | None = None,
        *,
        bends: int = 6,
        starts: tuple[AbstractStart, ...] | list[AbstractStart] = (),
    ):
        self.solver = SpectralNewton() if solver is None else solver
        check_solver(self.solver)
        self.bends = check_count("bends", bends, 0)
        self.starts = tuple(starts)
        for start in self.starts:
            if not isinstance(start, AbstractStart):
                raise TypeError(f"`starts` must be rules such as GraphInit(points), got {type(start).__name__}")

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        t = node_times(x.dtype)
        curves = [init, StraightLine()(metric, x, y)]
        curves += [bent_line(x, y, offset) for offset in _offsets(metric, x, y, self.bends)]
        for start in self.starts:
            start.check(x.size)
            curves.append(start(metric, x, y))
        # The solves are frozen: derivatives would cost as much for each, and be NaN where one of them failed.
        constants = frozen((metric, x, y))
        nodes = jax.lax.stop_gradient(jnp.stack([jax.vmap(curve)(t)[0] for curve in curves]))
        found = jax.vmap(lambda nodes: self.solver.solve(*constants, Polyline(nodes), t))(nodes)

        converged = found.result == RESULTS.successful
        # The shortest paths often have sharp bends and miss their accuracy by a little: they compete too. If all solves
        # failed, the shortest finite path is kept.
        geodesics = converged | (found.result == RESULTS.accuracy_not_reached)
        finite = jnp.isfinite(found.length)
        order = jnp.where(geodesics | (~jnp.any(geodesics) & finite), found.length, jnp.inf)
        best = jax.tree.map(lambda leaf: leaf[jnp.argmin(order)], found)
        result = self.solver.solve(metric, x, y, curve_of(best), ts)
        # A solver that starts from its own geodesic stays there; if it left, the result is not the shortest.
        slack = 10 * (best.error + result.error) + 1e-6 * best.length
        left = jnp.isfinite(best.length) & (jax.lax.stop_gradient(result.length) > best.length + slack)
        failed = result.result != RESULTS.successful
        code = first_failure([(failed, result.result), (left, RESULTS.ends_missed)])
        stats = {
            "local_geodesics": count_distinct(found.points, converged),
            "converged_starts": jnp.sum(converged),
        }
        return eqx.tree_at(lambda g: (g.stats, g.result), result, (result.stats | stats, code))


def _offsets(metric: AbstractMetric, x: Point, y: Point, bends: int) -> list[Vector]:
    """By how much the bent lines leave the straight one half-way; the same for the way back, so `dist` is symmetric."""
    chord = y - x
    squared = chord @ chord
    safe = jnp.where(squared > 0, squared, 1)

    def sideways(direction: Vector, otherwise: Vector) -> Vector:
        before = jnp.linalg.norm(direction)
        direction = direction - (direction @ chord) / safe * chord
        norm = jnp.linalg.norm(direction)
        usable = jnp.isfinite(norm) & (norm > 1e-6 * before)
        return jnp.where(usable, direction / jnp.where(usable, norm, 1), otherwise)

    keys = jax.random.split(jax.random.key(0), max(1, (bends + 1) // 2))
    sides = [sideways(jax.random.normal(key, x.shape, x.dtype), jnp.zeros_like(x)) for key in keys]
    sides[0] = sideways(metric.acceleration((x + y) / 2, chord), sides[0])
    heights = [0.5 * (1 + i // 2) * (1 if i % 2 == 0 else -1) for i in range(bends)]
    return [height * jnp.sqrt(squared) * sides[i // 2] for i, height in enumerate(heights)]


def count_distinct(paths: Float[Array, "s k d"], converged: Bool[Array, " s"]) -> Int[Array, ""]:
    """How many of the ``converged`` ``paths``, sampled at the same times, differ from all before them."""

    def gap(a: Points, b: Points) -> Scalar:
        extent = jnp.max(jnp.linalg.norm(a - a[:1], axis=-1))
        return jnp.max(jnp.linalg.norm(a - b, axis=-1)) / jnp.where(extent > 0, extent, 1)

    gaps = jax.vmap(lambda a: jax.vmap(lambda b: gap(a, b))(paths))(paths)
    earlier = jnp.tril(jnp.ones_like(gaps, bool), -1) & converged
    repeated = jnp.any(earlier & (gaps < _SAME), 1)
    return jnp.sum(converged & ~repeated)
