"""Geodesics of the spacetime of a diffusion model from its denoiser alone; notation and metric as in `spacetime`.

Between two points a and b, with c the midpoint of their denoised xhat, the symmetrised Kullback-Leibler divergence
KL(a|b) + KL(b|a), which is the squared distance of close points up to terms of fourth order, is

    (eta_b - eta_a).(mu_b - mu_a) = (e^lambda_b (z_b - c) - e^lambda_a (z_a - c)) . (xhat_b - xhat_a)
                                     - (e^lambda_b - e^lambda_a) (e^-lambda_b div_b - e^-lambda_a div_a) / 2.   (1)

A sum of these along a path is its energy, without any derivative of the denoiser but its divergence.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from ..._checks import as_point, as_points, check_counts, check_fractions, setting
from ..._numerics import frozen, safe_sqrt
from ..._results import RESULTS
from ..._types import Point, Points, Scalar, Vector
from ...geodesics import AbstractBoundarySolver, AbstractStart, Geodesic, Polyline
from ...geodesics.certificate import Measurement, speed_deviation
from ...geodesics.checks import Start, check_metric
from ...geodesics.curves import AbstractCurve
from ...geodesics.nodal.base import smooth_path
from ...geodesics.nodal.minimise import minimise
from ...geodesics.spectral.mesh import Path, polynomial_curve
from ...metrics import AbstractMetric
from ...operations import dist
from .metric import SpacetimeMetric, flat_prior_scale

_START_NODES = 65
# A noisy point says next to nothing about the clean one where the denoiser has less divergence than this per dimension.
_FORGOTTEN = 0.02
# The relative rounding error of what a denoiser computes, in units of the machine precision.
_ROUNDING = 1e2


class FlatPriorStart(AbstractStart):
    """The geodesic that two points of spacetime would have if all clean data were equally likely: a half circle.

    With ``xhat = z`` spacetime is the hyperbolic half-space with coordinates ``z / sqrt(2 d)`` and the noise level
    ``exp(-log_snr / 2)``. That is the limit of little noise for all data, and a good path to start from: it goes
    through more noise where that is shorter. Where it would leave the domain it is cut off at the end of the schedule.

    Raises ``TypeError`` for a metric that is not a `SpacetimeMetric`.
    """

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        """The path from ``x`` to ``y``, both ``(d + 1,)``."""
        metric = _check_spacetime(metric, "FlatPriorStart")
        levels = jnp.exp(-0.5 * jnp.stack([x[-1], y[-1]]))
        z = jnp.stack([x[:-1] / metric.alpha(x[-1]), y[:-1] / metric.alpha(y[-1])])
        squared = jnp.sum((z[1] - z[0]) ** 2) / (2 * (x.size - 1)) + (levels[1] - levels[0]) ** 2
        length = 2 * jnp.arcsinh(safe_sqrt(squared / (4 * levels[0] * levels[1])))
        # A geodesic mixes its ends with these weights in the coordinates (z, 1) / level of the hyperboloid.
        t = jnp.asarray(np.linspace(0, 1, _START_NODES), x.dtype)[:, None]
        times = jnp.concatenate([1 - t, t], 1)
        small = length < 1e-4
        weights = jnp.where(small, times, jnp.sinh(times * length) / jnp.sinh(jnp.where(small, 1, length))) / levels
        total = jnp.sum(weights, 1)
        low, high = metric.log_snr_range(x.dtype)
        log_snr = jnp.clip(2 * jnp.log(total), low + 0.01 * (high - low), jnp.maximum(x[-1], y[-1]))
        noisy = jax.vmap(metric.alpha)(log_snr)[:, None] * (weights @ z) / total[:, None]
        # Coincident ends have one point as path: rounding would make nodes around it, with a length and a direction.
        nodes = jnp.where(jnp.all(x == y), x, jnp.concatenate([noisy, log_snr[:, None]], 1))
        return Polyline(nodes.at[0].set(x).at[-1].set(y))


def _check_spacetime(metric: Any, name: str) -> SpacetimeMetric:
    if not isinstance(metric, SpacetimeMetric):
        raise TypeError(f"`{name}` is for a SpacetimeMetric, got {type(metric).__name__}")
    return metric


def jeffreys_divergences(metric: SpacetimeMetric, path: Points) -> Float[Array, " n_minus_1"]:
    """The symmetrised Kullback-Leibler divergences (1) of neighbours on ``path`` ``(n, d + 1)``, shape ``(n - 1,)``.

    One evaluation of the denoiser and its divergence for each point, no derivative of either.
    """
    path = as_points(path, "path")
    return _divergences(jax.vmap(metric.moments)(path), path[:, -1])[0]


def _divergences(
    moments: tuple[Points, Points, Array], log_snrs: Float[Array, " n"]
) -> tuple[Float[Array, " n_minus_1"], Scalar]:
    """Equation (1) for neighbours, from the ``moments`` at all points, and how far rounding may take it below zero."""
    z, denoised, divergence = moments
    precision = jnp.exp(log_snrs)
    middle = 0.5 * (denoised[1:] + denoised[:-1])
    eta = precision[1:, None] * (z[1:] - middle) - precision[:-1, None] * (z[:-1] - middle)
    spread = divergence / precision
    products = jnp.sum(eta * jnp.diff(denoised, axis=0), -1) - 0.5 * jnp.diff(precision) * jnp.diff(spread)
    # The differences of close points cancel, and have the rounding errors of the terms that are subtracted.
    eta, denoised, precision, spread = jax.lax.stop_gradient((eta, denoised, precision, spread))
    terms = jnp.linalg.norm(eta, axis=-1) * jnp.max(jnp.linalg.norm(denoised, axis=-1))
    terms = terms + jnp.abs(jnp.diff(precision)) * jnp.max(jnp.abs(spread))
    return products, _ROUNDING * jnp.finfo(products.dtype).eps * jnp.max(terms)


def spacetime_energy(metric: SpacetimeMetric, path: Points) -> Scalar:
    """The energy ``1/2 int <g', g'> dt`` of a path through ``path`` ``(n, d + 1)``, equal times apart, without the
    metric.

    ``(n - 1) / 2`` times the sum of `jeffreys_divergences`: exact up to terms of order ``1 / n^2`` (Karczewski et al.
    2026, sec. 4).
    """
    return 0.5 * (path.shape[0] - 1) * jnp.sum(jeffreys_divergences(metric, path))


class SpacetimeDescent(AbstractBoundarySolver):
    """Geodesics of a `SpacetimeMetric` without the metric, in any dimension: minimises `spacetime_energy` over nodes.

    A step costs one value and one gradient of the denoiser and its divergence at each node. The unknowns are the
    velocities between nodes, in units in which the energy of a flat prior (`FlatPriorStart`) has the identity as
    Hessian; settings do not depend on d, on the units of the data or on ``nodes``.

    **Arguments**

    - ``nodes``: points of the path, with both ends, at equal times; at least 9, and one more than a multiple of 4.
    - ``minimiser``: an ``optimistix.AbstractMinimiser``, such as ``optimistix.OptaxMinimiser(optax.adam(1e-1),
      rtol=1e-5, atol=1e-5)``; default limited-memory BFGS.
    - ``max_steps``: how many steps the minimiser may take.
    - ``tolerance``: solved when the gradient of the energy, relative to the path, is below this; default 1e-5 in
      float64, 2e-3 in float32. The length is wrong by the square of this.
    - ``rtol``: relative error of the length, as estimated in ``error``, above which the result is
      ``accuracy_not_reached``. ``length`` is extrapolated from all nodes and every second one, so that its error is
      of order ``1 / nodes^4``; ``error`` compares it with that from every second and every fourth one.

    Nothing makes the metric of a learned denoiser positive, so that squared lengths of segments can be negative. They
    count as zero, and where they are more than rounding there is no distance to find: the result is
    ``metric_nonfinite``, as it is for different points at a distance of zero.

    ``stats``: ``iterations``, ``path_error``, and ``negative_segments``, how many these are (rounding included).
    ``length`` and ``energy`` have the derivatives of the envelope theorem, up to terms of order ``1 / nodes^2``; those
    of the path are not given (it counts as constant).
    """

    nodes: int = setting(65)
    minimiser: optx.AbstractMinimiser | None = None
    max_steps: int = setting(1000)
    tolerance: float | None = setting(None)
    rtol: float = setting(1e-4)

    def __check_init__(self):
        check_counts(self, nodes=9, max_steps=1)
        check_fractions(self, "tolerance", "rtol")
        if self.nodes % 4 != 1:
            raise ValueError(f"`nodes` must be one more than a multiple of 4, got {self.nodes}")
        if not (self.minimiser is None or isinstance(self.minimiser, optx.AbstractMinimiser)):
            raise TypeError(f"`minimiser` must be an optimistix minimiser, got {type(self.minimiser).__name__}")

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        metric = _check_spacetime(metric, "SpacetimeDescent")
        tolerance = self.tolerance or (1e-5 if jnp.finfo(x.dtype).bits >= 64 else 2e-3)
        # What a denoiser closes over becomes explicit, or its derivatives would be lost in the loop: see `PathEnergy`.
        moments = eqx.filter_closure_convert(metric.moments, x)
        problem = _NodalEnergy.around(metric, moments, init, self.nodes, x)
        change, relative, converged, steps = self._minimise(problem, tolerance)
        inner = jax.lax.stop_gradient(problem.path(change))[1:-1]
        nodes = jnp.concatenate([x[None], inner, y[None]])
        states = jax.vmap(moments)(nodes)
        found = _measure(states, nodes)
        error = jax.lax.stop_gradient(3 * found.change + relative**2 * found.length)

        margins = jax.vmap(metric.domain)(nodes)
        measurement = Measurement(
            residual=speed_deviation(found.products, jnp.mean(found.products)),
            inside=jnp.min(margins) > 0,
            finite=jnp.isfinite(found.length),
            positive=jnp.all(found.products >= -found.rounding) & ((found.length > 0) | jnp.all(x == y)),
        )
        failures = [
            # A path that still moves, and is close to the border or where noise has replaced the data, is leaving the
            # domain: there is no geodesic, or it lies outside.
            (~converged & _is_leaving(metric, margins[1:-1], states[2], nodes), RESULTS.outside_domain),
            (~converged & (steps >= self.max_steps), RESULTS.solver_steps_reached),
            (~converged, RESULTS.stalled),
            (~(error <= self.rtol * found.length), RESULTS.accuracy_not_reached),
        ]
        return Geodesic.from_curve(
            _smooth_curve(x, y, nodes),
            ts,
            lambda *_: measurement,
            ends=(x, y),
            energy=found.energy,
            length=found.length,
            error=error,
            failures=failures,
            stats={
                "iterations": steps,
                "path_error": relative,
                "negative_segments": jnp.sum(found.products < 0),
            },
        )

    def _minimise(self, problem: "_NodalEnergy", tolerance: float) -> tuple[Points, Scalar, Array, Array]:
        """The unknowns of ``problem`` where its energy is least, the norm of the gradient there relative to that of the
        path, whether that is small enough, and how many steps it took. No derivative flows through any of them."""
        arrays, static = eqx.partition(frozen(problem), eqx.is_array)

        def objective(c, arrays):
            return eqx.combine(arrays, static).energy(c)

        small = 1e-2 * tolerance
        minimiser = optx.LBFGS(rtol=small**2, atol=small, norm=optx.two_norm)
        minimiser = minimiser if self.minimiser is None else self.minimiser
        # optimistix allocates the history of L-BFGS in the default precision, whatever that of its unknowns.
        zero = jnp.zeros(problem.steps.shape, problem.unit.dtype)
        c, steps = jax.lax.stop_gradient(minimise(objective, minimiser, zero, arrays, self.max_steps))
        # The energy is |c|^2 / 2 in the units of c, and the norm of c that of the path.
        at_end, gradient = jax.value_and_grad(objective)(c, arrays)
        relative = safe_sqrt(arrays.unit * jnp.sum(gradient**2) / jnp.where(at_end > 0, 2 * at_end, 1))
        relative = relative.astype(problem.x.dtype)
        return c, relative, (relative <= tolerance) | (at_end == 0), steps


class _NodalEnergy(eqx.Module):
    """The energy of a path through nodes as a function of unknowns ``c`` ``(n - 1, d + 1)``: the changes of the
    ``steps`` between the nodes of ``start``, times ``scale``. In these units the energy of a flat prior has the
    identity as Hessian."""

    metric: SpacetimeMetric
    moments: Callable[[Point], tuple[Vector, Vector, Scalar]]
    x: Point
    start: Points
    scale: Float[Array, "n_minus_1 d"]
    steps: Float[Array, "n_minus_1 d"]
    inverse: Float[Array, "n_minus_1 d"]
    unit: Scalar

    @classmethod
    def around(cls, metric: SpacetimeMetric, moments: Any, init: AbstractCurve, nodes: int, x: Point) -> "_NodalEnergy":
        """The energy of paths with so many ``nodes`` about the curve ``init`` from ``x``."""
        start, _ = jax.vmap(init)(jnp.asarray(np.linspace(0, 1, nodes), x.dtype))
        scale = jax.vmap(lambda p: flat_prior_scale(metric, p))(0.5 * (start[1:] + start[:-1]))
        scale = jnp.sqrt(nodes - 1) * scale
        steps = jnp.diff(start, axis=0)
        flat = 0.5 * jnp.sum((scale * steps) ** 2).astype(jnp.result_type(float))
        unit = jnp.where((flat > 0) & jnp.isfinite(flat), flat, 1)
        return cls(metric, moments, x, start, scale, steps, 1 / scale**2, unit)

    def path(self, c: Float[Array, "n_minus_1 d"]) -> Points:
        """The nodes ``(n, d + 1)``, from the first to the last of ``start``."""
        change = c.astype(self.x.dtype) / self.scale
        # The changes must add up to zero, or the path would end elsewhere: what is too much is taken back by least
        # squares in the units of c.
        change = change - self.inverse * (jnp.sum(change, 0) / jnp.sum(self.inverse, 0))
        inner = self.x + jnp.cumsum(self.steps + change, 0)[:-1]
        return jnp.concatenate([self.x[None], inner, self.start[-1:]])

    def energy(self, c: Float[Array, "n_minus_1 d"]) -> Scalar:
        """The energy in units of that of a flat prior; infinite for a path that leaves the domain."""
        nodes = self.path(c)
        products, _ = _divergences(jax.vmap(self.moments)(nodes), nodes[:, -1])
        inside = jnp.all(jax.vmap(self.metric.domain)(nodes) > 0)
        return jnp.where(inside, _energy(products).astype(self.unit.dtype) / self.unit, jnp.inf)


class _Measured(NamedTuple):
    """What is known of a path from its nodes: the divergences (1) of neighbours, how far rounding may take these below
    zero, the extrapolated energy and length, and the length minus that from half of the nodes, as an error."""

    products: Float[Array, " n_minus_1"]
    rounding: Scalar
    energy: Scalar
    length: Scalar
    change: Scalar


def _measure(states: tuple[Points, Points, Array], nodes: Float[Array, "n d_plus_1"]) -> _Measured:
    """The path through ``nodes``, measured by all of them, every second and every fourth one; ``states`` are the
    moments at ``nodes``."""
    (products, rounding), *sparse = (
        _divergences(jax.tree.map(lambda a, k=k: a[::k], states), nodes[::k, -1]) for k in (1, 2, 4)
    )
    fine, coarse, coarser = (_energy(p) for p in (products, *(p for p, _ in sparse)))
    # Richardson: errors of order h^2 cancel, and what is left is of order h^4.
    total, rough = (4 * fine - coarse) / 3, (4 * coarse - coarser) / 3
    length = safe_sqrt(2 * total)
    return _Measured(products, rounding, total, length, jnp.abs(length - safe_sqrt(2 * rough)) / 15)


def _energy(products: Float[Array, " n_minus_1"]) -> Scalar:
    return 0.5 * products.size * jnp.sum(jnp.maximum(products, 0))


def _smooth_curve(x: Point, y: Point, nodes: Points) -> AbstractCurve:
    """A smooth curve through ``nodes``, which are equal times apart."""
    segments = len(nodes) - 1
    velocities = segments * jnp.diff(nodes, axis=0) - (y - x)
    basis, coefficients = smooth_path(x, y, velocities[:, None] / jnp.sqrt(segments).astype(x.dtype))
    return polynomial_curve(x, y, Path(coefficients, basis.breaks))


def _is_leaving(metric: SpacetimeMetric, margins: Array, divergences: Array, nodes: Points) -> Array:
    """Whether a path is close to the border of the domain (inner ``margins``), or its noisiest node says nothing about
    the clean data (``divergences`` of the denoiser)."""
    low, high = metric.log_snr_range(nodes.dtype)
    least = divergences[jnp.argmin(nodes[:, -1])]
    return (jnp.min(margins) < 0.01 * (high - low)) | (least < _FORGOTTEN * (nodes.shape[1] - 1))


def diffusion_edit_distance(
    metric: SpacetimeMetric,
    x: Point,
    y: Point,
    *,
    log_snr: float | Scalar,
    solver: AbstractBoundarySolver | None = None,
    init: Start | None = None,
    throw: bool = True,
) -> Scalar:
    """The diffusion edit distance of clean data ``x`` and ``y``, both ``(d,)``: how much must be forgotten and learned
    again on the way from one to the other.

    It is the distance in spacetime between the points ``metric.point(x, log_snr)`` and ``metric.point(y, log_snr)``
    (Karczewski et al. 2026, sec. 5, "DiffED").

    **Arguments**

    - ``log_snr``: the noise level of both ends. Towards clean data the distance grows without bound, so it must be
      chosen; the paper takes 2 to 4 for images and 7 for molecules.
    - ``solver``: default `SpacetimeDescent`; ``init``: default `FlatPriorStart`.
    - ``throw``: as in `geodesic`. For the path itself call `geodesic` with the two points.

    Between far ends there may be no geodesic: paths get shorter as they leave spacetime through infinite noise. That is
    a ``RuntimeError`` (``RESULTS.outside_domain``); with ``throw=False``, the length of the best path found.
    """
    _check_spacetime(metric, "diffusion_edit_distance")
    x = as_point(x, "x")
    a, b = metric.point(x, log_snr), metric.point(as_point(y, "y", dim=x.size), log_snr)
    check_metric(metric, a)
    solver = SpacetimeDescent() if solver is None else solver
    return dist(metric, a, b, solver=solver, init=FlatPriorStart() if init is None else init, throw=throw)
