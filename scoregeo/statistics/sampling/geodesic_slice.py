"""Slice sampling along geodesics (Durmus, Gruffaz, Hasenpflug & Rudolf 2023, arXiv 2312.00417; Williams et al. 2025,
arXiv 2502.21190).

With p a density with respect to the Riemannian volume: draw a level u below p(x), a direction uniform on the unit
sphere of the tangent space, and a point on the geodesic in this direction, uniform in arc length on the part around x
where p exceeds u (Neal 2003: stepping out, then shrinkage). The geodesic flow keeps the volume of the unit tangent
bundle, so that p is invariant; a density pi with respect to Lebesgue's measure has ``p = pi / sqrt(det G)``.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, PRNGKeyArray

from ..._checks import as_scalar, check_count
from ..._numerics import by_precision, with_own_settings
from ..._types import Point, Scalar, Vector
from ...geodesics.initial_value import Stops, integrate
from ...metrics import AbstractMetric
from .base import AbstractSampler, Info, check_start, inside_domain
from .divergence import logdet
from .targets import Target, as_density

# Shrinkage cuts the bracket at a random place: after so many cuts it is shorter than rounding.
_MAX_SHRINKS = 128


class GeodesicSliceState(eqx.Module):
    """Where a chain is: ``position`` ``(d,)``, and ``log_density`` there, with respect to the volume of the metric."""

    position: Point
    log_density: Scalar


class GeodesicSlice(AbstractSampler):
    """Slice sampling along geodesics: a new point anywhere on the part of a random geodesic that is dense enough.

    Every step moves, and no gradient of the density is needed; long steps follow the metric, and may lead from mode to
    mode where this makes the way between them short.

    **Arguments**

    - ``metric``: the metric, whose geodesics are integrated by diffrax.
    - ``log_prob``: the target density with respect to Lebesgue's measure, up to a constant: a function ``x -> log p``
      or a score with ``log_prob``. See `with_volume` for densities with respect to the volume of the metric.
    - ``width``: length of the first bracket, in units of the metric, positive, traced: about the width of the density.
    - ``expansions``: the bracket grows to at most so many widths. Geodesics of this length are integrated in each step,
      so that many widths cost time where few would do.
    - ``rtol``: relative tolerance of the integration; default 1e-6, in float32 1e-5. ``max_steps``: of it, in each of
      two directions. A step whose geodesic cannot be integrated stays where it is, and is ``info.diverged``.

    Where a geodesic leaves the domain of the metric it ends.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, GaussianScore
    >>> from scoregeo.statistics import GeodesicSlice
    >>> sampler = GeodesicSlice(EuclideanMetric(), GaussianScore(jnp.zeros(2), jnp.eye(2)), width=2.0)
    >>> state, info = eqx.filter_jit(sampler.step)(jax.random.key(0), sampler.init(jnp.ones(2)))
    >>> bool(info.accepted)
    True
    """

    metric: AbstractMetric
    target: Any
    width: Scalar
    expansions: int = eqx.field(static=True)
    rtol: Scalar | None
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        metric: AbstractMetric,
        log_prob: Target,
        width: ArrayLike,
        *,
        expansions: int = 4,
        rtol: ArrayLike | None = None,
        max_steps: int = 256,
    ):
        self.metric = metric
        self.target = as_density(log_prob, "GeodesicSlice")
        self.width = as_scalar(width, "width", positive=True)
        self.expansions = check_count("expansions", expansions)
        self.rtol = None if rtol is None else as_scalar(rtol, "rtol", positive=True)
        self.max_steps = check_count("max_steps", max_steps)

    @with_own_settings
    def init(self, x: Point) -> GeodesicSliceState:
        """The state of a chain at ``x``, ``(d,)``."""
        x = check_start(self.metric, x)
        return GeodesicSliceState(x, self._log_density(x))

    @with_own_settings
    def step(self, key: PRNGKeyArray, state: GeodesicSliceState) -> tuple[GeodesicSliceState, Info]:
        """A point of a random geodesic through the position."""
        keys = jax.random.split(key, 5)
        x = state.position
        width = self.width.astype(x.dtype)
        noise = jax.random.normal(keys[0], x.shape, x.dtype)
        direction = self.metric.at(x).inv_sqrt_mv(noise / jnp.linalg.norm(noise))
        level = state.log_density - jax.random.exponential(keys[1], (), x.dtype)
        # The bracket of x among the lattice points -k, ..., expansions - k, moved to the left by a part of one.
        k = jax.random.randint(keys[2], (), 0, self.expansions)
        lattice = width * (jnp.arange(self.expansions + 1) - k - jax.random.uniform(keys[3], (), x.dtype))
        point_at, solved = self._geodesic(x, direction, -lattice[0], lattice[-1])

        def state_at(s: Scalar) -> GeodesicSliceState:
            point = point_at(s)
            return GeodesicSliceState(point, self._log_density(point))

        inside = jax.vmap(lambda s: state_at(s).log_density)(lattice) > level
        new, found = _shrink(keys[4], state_at, level, *_step_out(lattice, k, inside), state)
        good = solved & found & jnp.isfinite(state.log_density)
        chosen = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state)
        return chosen, Info(good.astype(x.dtype), good, ~good)

    def _log_density(self, x: Point) -> Scalar:
        """log p with respect to the volume; minus infinity where there is no point, or no metric."""
        value = jnp.asarray(self.target.log_prob(x), x.dtype) - logdet(self.metric.at(x), x) / 2
        return inside_domain(self.metric, x, jnp.where(jnp.isnan(value), -jnp.inf, value))

    def _geodesic(
        self, x: Point, direction: Vector, back: Scalar, ahead: Scalar
    ) -> tuple[Callable[[Scalar], Point], Bool[Array, ""]]:
        """The geodesic through ``x``, as a function of arc length from ``-back`` to ``ahead``, NaN beyond where it
        leaves the domain; and whether it was integrated."""
        tolerance = by_precision(x.dtype, 1e-6, 1e-5) if self.rtol is None else self.rtol.astype(x.dtype)
        least = by_precision(x.dtype, 1e-10, 1e-6)
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance / 10, dtmin=least, force_dtmin=False)
        signs = jnp.asarray([-1, 1], x.dtype)
        lengths = jnp.stack([back, ahead])

        def one(scaled: Scalar):
            velocity = scaled * direction
            solution = integrate(
                self.metric,
                x,
                velocity,
                jnp.zeros((), x.dtype),
                jnp.ones((), x.dtype),
                saveat=diffrax.SaveAt(t1=True, dense=True),
                solver=diffrax.Tsit5(),
                stepsize_controller=controller,
                adjoint=diffrax.RecursiveCheckpointAdjoint(),
                max_steps=self.max_steps,
                event=Stops(self.metric, x, velocity, None).diffrax_event(),
            )
            assert solution.ts is not None  # asked for by `saveat`
            solved = (solution.result == diffrax.RESULTS.successful) | diffrax.is_event(solution.result)
            return solution.interpolation, solution.ts[0].astype(x.dtype), solved

        interpolations, t_ends, solved = jax.vmap(one)(signs * lengths)

        def point_at(s: Scalar) -> Point:
            times = signs * s / jnp.maximum(lengths, jnp.finfo(x.dtype).tiny)
            within = jnp.clip(times, 0, t_ends)
            points = jax.vmap(lambda interpolation, t: interpolation.evaluate(t)[0])(interpolations, within).astype(
                x.dtype
            )
            side = jnp.where(s < 0, 0, 1)
            return jnp.where(times[side] <= t_ends[side], points[side], jnp.nan)

        return point_at, jnp.all(solved)


def _step_out(lattice: Vector, k: Array, inside: Bool[Array, " n"]) -> tuple[Scalar, Scalar]:
    """The ends of the bracket: the lattice points nearest to the position, which lies after the ``k``-th, that are not
    inside the slice; the last ones where there is none."""
    i = jnp.arange(lattice.size)
    left = jnp.max(jnp.where((i <= k) & ~inside, i, 0))
    right = jnp.min(jnp.where((i > k) & ~inside, i, lattice.size - 1))
    return lattice[left], lattice[right]


def _shrink(
    key: PRNGKeyArray,
    state_at: Callable[[Scalar], GeodesicSliceState],
    level: Scalar,
    left: Scalar,
    right: Scalar,
    start: GeodesicSliceState,
) -> tuple[GeodesicSliceState, Bool[Array, ""]]:
    """A state in the slice, uniform on the part of the bracket that remains; and whether one was found."""

    def go_on(carry):
        *_, found, count = carry
        return ~found & (count < _MAX_SHRINKS)

    def body(carry):
        left, right, _, _, count = carry
        u = jax.random.uniform(jax.random.fold_in(key, count), (), left.dtype)
        s = left + u * (right - left)
        state = state_at(s)
        # Where it is not in the slice, it is an end of the next bracket, which keeps zero.
        return jnp.where(s < 0, s, left), jnp.where(s < 0, right, s), state, state.log_density > level, count + 1

    first = left, right, start, jnp.asarray(False), jnp.asarray(0)
    _, _, state, found, _ = jax.lax.while_loop(go_on, body, first)
    return state, found
