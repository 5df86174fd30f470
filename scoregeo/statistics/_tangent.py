"""Logarithms of many points at once, warm: what every statistic that works in a tangent space is made of."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import as_float, as_points, check_count, check_weights, is_number
from .._numerics import by_precision
from .._results import RESULTS, first_failure
from .._types import Point, Points, Scalar, Vector
from ..geodesics import AbstractBoundarySolver, AbstractStart, geodesic
from ..geodesics.base import default_solver
from ..geodesics.checks import check_metric, check_rule, check_solver
from ..geodesics.curves import AbstractCurve, node_times
from ..metrics import AbstractMetric

# By how much a geodesic that was solved anew has to have less energy, to be another one.
_SHORTER = 1e-6


class SmoothPath(AbstractCurve):
    """The cubic spline through ``nodes`` ``(k, d)`` with ``velocities`` ``(k, d)`` there, at equally spaced times.

    Close enough to the path it was sampled from that a solver which starts from it is done at once.
    """

    nodes: Float[Array, "*batch k d"]
    velocities: Float[Array, "*batch k d"]

    def __call__(self, t: Scalar) -> tuple[Point, Vector]:
        """Point and velocity at time ``t``."""
        segments = self.nodes.shape[0] - 1
        i = jnp.clip(jnp.floor(t * segments).astype(jnp.int32), 0, segments - 1)
        u, gap = t * segments - i, self.nodes[i + 1] - self.nodes[i]
        # What the velocities at both ends have in excess of that of the straight segment.
        a, b = self.velocities[i] / segments - gap, self.velocities[i + 1] / segments - gap
        point = self.nodes[i] + u * gap + u * (1 - u) * ((1 - u) * a - u * b)
        rate = gap + (1 - u) * (1 - 3 * u) * a + u * (3 * u - 2) * b
        return point, segments * rate

    def reverse(self) -> "SmoothPath":
        """The same curve walked backwards."""
        return SmoothPath(self.nodes[::-1], -self.velocities[::-1])


class Logs(NamedTuple):
    """Geodesics from one point to ``n`` others: their logarithms, energies, lengths, what these are known to, how each
    solve ended, and the paths to start the next solves from."""

    vectors: Points
    energies: Float[Array, " n"]
    lengths: Float[Array, " n"]
    errors: Float[Array, " n"]
    results: RESULTS
    paths: SmoothPath


def starting_paths(
    metric: AbstractMetric, m: Point | Points, xs: Points, solver: AbstractBoundarySolver, start: AbstractStart
) -> SmoothPath:
    """The curves of ``start`` from ``m``, one point or ``(n, d)``, to ``xs`` ``(n, d)``, as paths to begin with."""
    t = _times(solver, xs.dtype)
    return SmoothPath(*jax.vmap(lambda m, x: jax.vmap(start(metric, m, x))(t))(jnp.broadcast_to(m, xs.shape), xs))


def _times(solver: AbstractBoundarySolver, dtype: Any) -> Float[Array, " k"]:
    """Where paths are kept: only at their ends, if no solve starts from them."""
    return node_times(dtype) if solver.uses_init else jnp.asarray([0, 1], dtype)


def moved(paths: SmoothPath, m: Point | Points) -> SmoothPath:
    """``paths`` with their starts moved to ``m``, and their ends where they were."""
    t = jnp.linspace(0, 1, paths.nodes.shape[1], dtype=m.dtype)[:, None]
    shift = (m - paths.nodes[:, 0])[:, None]
    return SmoothPath(paths.nodes + (1 - t) * shift, paths.velocities - shift)


def logs(
    metric: AbstractMetric, m: Point | Points, xs: Points, solver: AbstractBoundarySolver, paths: SmoothPath
) -> Logs:
    """`Logs` from ``m``, one point or ``(n, d)``, to ``xs`` ``(n, d)``, solved side by side from ``paths``."""

    def one(m, x, path):
        return geodesic(metric, m, x, solver=solver, init=path, ts=_times(solver, x.dtype), throw=False)

    found = jax.vmap(one)(jnp.broadcast_to(m, xs.shape), xs, paths)
    kept = jax.lax.stop_gradient(SmoothPath(found.points, found.velocities))
    return Logs(found.velocities[:, 0], found.energy, found.length, found.error, found.result, kept)


def nothing(xs: Points, paths: SmoothPath) -> Logs:
    """`Logs` of which only the paths to start from are known."""
    none = jnp.zeros(xs.shape[0], xs.dtype)
    codes = jax.tree.map(lambda code: jnp.full(xs.shape[0], code), RESULTS.successful)
    return Logs(jnp.zeros_like(xs), none, none, none, codes, paths)


def kept_shorter(
    new: Logs, old: Logs, weights: Float[Array, " n"], again: Bool[Array, ""]
) -> tuple[Logs, Bool[Array, ""]]:
    """``new``; where ``again``, that has been solved anew at the same points, the better ones of both, and whether one
    of those that count is a new one.

    A geodesic is better than a failed solve, whose energy means nothing; of two of a kind the shorter one is.
    """
    good, was_good = (
        (at.results == RESULTS.successful) | (at.results == RESULTS.accuracy_not_reached) for at in (new, old)
    )
    shorter = jnp.where(good == was_good, new.energies < (1 - _SHORTER) * old.energies, good)
    take_old = again & ~shorter
    both = jax.tree.map(lambda a, b: jnp.where(_wide(take_old, a), b, a), new, old)
    return both, again & jnp.any(shorter & (weights > 0))


def all_known(at: Logs, weights: Float[Array, " n"]) -> Bool[Array, ""]:
    """Whether all paths that count are finite."""
    return jnp.all(jnp.all(jnp.isfinite(at.paths.nodes), (1, 2)) | (weights == 0))


def weighted_sum(weights: Float[Array, " n"], values: Float[Array, "n ..."]) -> Array:
    """Of values, those without weight left out: they may be NaN."""
    weights = _wide(weights, values)
    return jnp.sum(jnp.where(weights == 0, 0, weights * values), 0)


def _wide(rows: Array, like: Array) -> Array:
    return rows.reshape(rows.shape + (1,) * (like.ndim - 1))


def failure(results: RESULTS, counted: Bool[Array, " n"]) -> RESULTS:
    """The code of the first of ``results`` ``(n,)`` that is a failure, among those ``counted``."""
    failed = (results != RESULTS.successful) & counted
    first = jnp.argmax(failed)
    return first_failure([(jnp.any(failed), jax.tree.map(lambda code: code[first], results))])


def check_sample(metric: Any, xs: Any, weights: Any, name: str = "xs") -> tuple[Points, Float[Array, " n"]]:
    """``xs`` as points ``(n, d)`` on which ``metric`` can be evaluated, and ``weights`` divided by their sum.

    Raises ``ValueError`` for weights of another shape, negative, not finite, all zero, or of a sum that overflows.
    Traced weights, which have no value yet, become NaN where they would be refused.
    """
    xs = as_points(xs, name)
    n = xs.shape[0]
    check_metric(metric, xs[0])
    if weights is None:
        return xs, jnp.full(n, 1 / n, xs.dtype)
    weights = as_float(weights, "weights").astype(xs.dtype)
    check_weights(weights, n, f"of `{name}`")
    total = jnp.sum(weights)
    valid = jnp.all(weights >= 0) & (total > 0) & jnp.isfinite(total)
    return xs, jnp.where(valid, weights / jnp.where(valid, total, 1), jnp.nan)


def check_ways(metric: Any, dim: int, solver: Any, start: Any) -> tuple[AbstractBoundarySolver, AbstractStart]:
    """The solver and the starting rule of the inner geodesics, with their defaults."""
    solver = default_solver(metric) if solver is None else solver
    check_solver(solver)
    try:
        return solver, check_rule(start, dim)
    except TypeError as error:
        raise TypeError(str(error).replace("`init`", "`start`")) from error


def check_effort(gtol: Any, max_steps: Any, dtype: Any, defaults: tuple[float, float]) -> tuple[float, int]:
    """``gtol``, by default the first of ``defaults`` in float64 and the second in float32, and ``max_steps``."""
    gtol = by_precision(dtype, *defaults) if gtol is None else gtol
    if not (is_number(gtol) and gtol > 0):
        raise ValueError(f"`gtol` must be a positive number, got {gtol!r}")
    return float(gtol), check_count("max_steps", max_steps)
