"""The spacetime of a diffusion model: points are noisy data with their noise level, distances are Fisher-Rao distances
of what they say about the clean data (Karczewski et al. 2026, arXiv 2505.17517).

A noisy point x_t = alpha x_0 + sigma eps is as informative as z = x_t / alpha, which is x_0 with noise of standard
deviation exp(-lambda / 2), where lambda = log(alpha^2 / sigma^2) is the log SNR. Given it, x_0 has a density

    p(x_0 | x_t) = p(x_0) exp(<eta, T(x_0)>) / Z,    T = (x_0, |x_0|^2),    eta = exp(lambda) (z, -1/2),         (1)

an exponential family. With the denoiser xhat(z, lambda) = E[x_0 | x_t] and its divergence in z, its expectations are

    mu = E[T | x_t] = (xhat, |xhat|^2 + exp(-lambda) div xhat),                                                 (2)

and its Fisher information on the points (x_t, lambda) is G = (d eta)^T (d mu). Neither G nor distances change when T is
measured from another origin. About xhat, where no large terms cancel, the inner product of u and w is

    e^lambda (dz[u] + (z - xhat) dlambda[u]) . dxhat[w] + dlambda[u] (dlambda[w] div - d div[w]) / 2,            (3)

and between two points a, b, measured from the midpoint c of their xhat, the symmetrised Kullback-Leibler divergence
KL(a|b) + KL(b|a), which is the squared distance of close points up to terms of fourth order, is

    (eta_b - eta_a).(mu_b - mu_a) = (e^lambda_b (z_b - c) - e^lambda_a (z_a - c)) . (xhat_b - xhat_a)
                                     - (e^lambda_b - e^lambda_a) (e^-lambda_b div_b - e^-lambda_a div_a) / 2.   (4)

For exact denoisers (3) is symmetric and positive definite. A learned one is not the posterior mean of any data: the
symmetric part of (3) is taken, which is what lengths depend on, but nothing makes it positive.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, PRNGKeyArray

from .._results import RESULTS
from .._types import (
    Matrix,
    Point,
    Points,
    Scalar,
    Vector,
    as_float,
    as_point,
    as_points,
    check_count,
    check_counts,
    check_finite,
    is_concrete,
)
from ..geodesics import AbstractBoundarySolver, AbstractStart, Geodesic, Polyline
from ..geodesics.boundary import check_fractions, check_metric
from ..geodesics.curves import AbstractCurve
from ..geodesics.elements import Path, polynomial_curve
from ..geodesics.nodal import smooth_path
from ..metrics import AbstractMetric
from ..metrics.inner_products import AbstractInnerProduct, DenseInnerProduct, safe_sqrt
from ..metrics.lagrangian import lagrangian_acceleration
from ..operations import dist
from ..scores.density import TracedFunction

# Up to this many coordinates, linear systems are solved with the matrix.
_DENSE = 64
# Part of the range of the schedule by which rounding may leave it.
_SLACK = 1e-5
_START_NODES = 65
# Below this divergence of the denoiser, per dimension, a noisy point says next to nothing about the clean one.
_FORGOTTEN = 0.02


def as_denoiser(source: Any) -> TracedFunction:
    """``source`` as a denoiser, see `SpacetimeMetric`; raises ``TypeError`` for what has no noise level."""
    if hasattr(source, "noised"):
        return TracedFunction(jax.tree_util.Partial(_tweedie, source), "denoiser")
    if hasattr(source, "score_at"):
        return TracedFunction(jax.tree_util.Partial(_from_network, source.score_at(1.0)), "denoiser")
    if hasattr(source, "conservative") or not callable(source):
        raise TypeError(
            "`denoiser` must be a function (z, noise_level) -> E[x_0 | z], a score with `noised`, or a DiffusionModel, "
            f"got {type(source).__name__}"
        )
    return TracedFunction(source, "denoiser")


# Tweedie's formula: E[x_0 | z] = z + noise_level^2 grad log p(z).


def _tweedie(score, z, noise_level):
    return z + noise_level**2 * score.noised(1.0, noise_level)(z)


def _from_network(score, z, noise_level):
    return z + noise_level**2 * eqx.tree_at(lambda s: s.noise_level, score, noise_level)(z)


class SpacetimeMetric(AbstractMetric):
    """The Fisher-Rao metric on the spacetime of a diffusion model (module docstring, equation 3).

    A point is ``(x_t, log_snr)``, flat ``(d + 1,)``: the noisy point as the schedule scales it, ``alpha x_0 + sigma
    eps``, and the log SNR ``log(alpha^2 / sigma^2)`` of its noise. Log SNR rather than time, because the geometry
    depends on nothing else: another schedule only scales ``x_t``. Distances have no unit.

    **Arguments**

    - ``denoiser``: a function ``(z, noise_level) -> E[x_0 | z]`` of ``z = x_t / alpha``, shape ``(d,)``, and the
      standard deviation ``sigma / alpha`` of its noise; a score that is known at every noise level (`GaussianScore`,
      `GaussianMixtureScore`, `KernelDensityScore`: anything with ``noised``); or a `DiffusionModel`. Its arrays are
      traced. Integrating geodesics (`shoot`) takes its third derivatives.
    - ``schedule``: a `scoregeo.diffusion` schedule, or any hashable object with ``t_min``, ``t_max``, ``alpha(t)``,
      ``log_snr(t)`` and ``time_at_log_snr(log_snr)``. A model's own by default.
    - ``probes``: estimate the divergence of the denoiser with so many random signs (Hutchinson with Rademacher
      probes), the same ones at all points, so that the estimate is one smooth metric. ``None`` is the exact divergence,
      with d derivatives in each evaluation.
    - ``key``: for the probes; needed with them.

    The domain is the range of log SNR of the schedule, its ends included. Spacetime is not complete: a geodesic may
    leave the domain at its noisy end, and far points then have no geodesic between them (`RESULTS.outside_domain`).

    `FlatPriorStart` is a path for solvers to start from. All solvers apply; `SpacetimeDescent` needs the fewest
    derivatives of the denoiser, which compiles several times faster, and is the one for large d.

    With a learned denoiser the metric is the symmetric part of (3): it is as good as the denoiser and its first
    derivatives, and where it is not positive, square roots and solves give NaN, and solvers say ``metric_nonfinite``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, dist
    >>> from scoregeo.diffusion import VP
    >>> from scoregeo.fisher_rao.spacetime import SpacetimeDescent, SpacetimeMetric
    >>> metric = SpacetimeMetric(GaussianScore(jnp.zeros(1), jnp.eye(1)), VP())
    >>> x, y = metric.point(jnp.array([-1.0]), log_snr=3.0), metric.point(jnp.array([1.0]), log_snr=2.0)
    >>> round(float(dist(metric, x, y, solver=SpacetimeDescent())), 2)
    4.53
    """

    denoiser: TracedFunction
    schedule: Any = eqx.field(static=True)
    probes: int | None = eqx.field(static=True)
    key_data: Array | None

    def __init__(
        self, denoiser: Any, schedule: Any = None, *, probes: int | None = None, key: PRNGKeyArray | None = None
    ):
        self.denoiser = as_denoiser(denoiser)
        self.schedule = as_schedule(schedule, denoiser)
        if probes is not None:
            check_count("probes", probes)
            if key is None:
                raise ValueError("`key` must be given with `probes`")
        self.probes = probes
        self.key_data = None if probes is None else jax.random.key_data(key)

    def point(self, x: Point, log_snr: float | Scalar) -> Point:
        """The point ``(alpha x, log_snr)`` of spacetime: the mean of clean data ``x`` ``(d,)`` with noise added.

        Raises ``ValueError`` for a ``log_snr`` outside the range of the schedule.
        """
        x = as_point(x, "x")
        log_snr = as_float(log_snr, "log_snr").astype(x.dtype)
        if log_snr.shape != ():
            raise ValueError(f"`log_snr` must be a scalar, got shape {log_snr.shape}")
        check_finite(log_snr, "log_snr")
        inside = self.domain(log_snr[None]) > 0
        if is_concrete(inside) and not inside:
            low, high = (float(end) for end in self.log_snr_range(x.dtype))
            raise ValueError(
                f"`log_snr` must be in the range of the schedule, {low:.4g} to {high:.4g}, got {float(log_snr):.4g}"
            )
        return jnp.append(self.alpha(log_snr) * x, log_snr)

    def log_snr_range(self, dtype: Any = None) -> tuple[Scalar, Scalar]:
        """The least and the largest log SNR of the schedule."""
        times = jnp.asarray(self.schedule.t_max, dtype), jnp.asarray(self.schedule.t_min, dtype)
        return tuple(self.schedule.log_snr(t) for t in times)

    def alpha(self, log_snr: Scalar) -> Scalar:
        """The factor of the data in ``x_t`` at this log SNR."""
        return self.schedule.alpha(self.schedule.time_at_log_snr(log_snr)).astype(log_snr.dtype)

    def domain(self, x: Point) -> Scalar:
        """How far the log SNR of ``x`` is from the nearer end of the schedule's range; negative outside."""
        low, high = self.log_snr_range(x.dtype)
        return jnp.minimum(x[-1] - low, high - x[-1]) + _SLACK * (high - low)

    def at(self, x: Point) -> "SpacetimeInnerProduct":
        """The inner product (3) at ``x``, as an operator."""
        return SpacetimeInnerProduct(self, x)

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """The generic Lagrangian acceleration."""
        return lagrangian_acceleration(self, x, v)

    def moments(self, x: Point) -> tuple[Vector, Vector, Scalar]:
        """At the point ``x`` ``(d + 1,)``: ``z = x_t / alpha``, the denoised ``E[x_0 | x_t]`` and its divergence in z.

        The expected squared distance of ``x_0`` from its mean is ``exp(-log_snr)`` times the divergence.
        """
        z, noise_level = x[:-1] / self.alpha(x[-1]), jnp.exp(-0.5 * x[-1])
        if self.probes is None:
            directions, count = jnp.eye(z.size, dtype=x.dtype), 1
        else:
            key = jax.random.wrap_key_data(self.key_data)
            directions, count = jax.random.rademacher(key, (self.probes, z.size), x.dtype), self.probes

        def denoise(z):
            value = jnp.asarray(self.denoiser(z, noise_level))
            if value.shape != z.shape:
                raise ValueError(f"`denoiser` must return shape {z.shape} for a point of that shape, got {value.shape}")
            return value.astype(x.dtype)

        denoised, derivatives = jax.vmap(lambda v: jax.jvp(denoise, (z,), (v,)), out_axes=(None, 0))(directions)
        return z, denoised, jnp.sum(directions * derivatives) / count


def as_schedule(schedule: Any, source: Any) -> Any:
    """``schedule``, or that of a model; raises ``TypeError`` naming what it lacks."""
    schedule = getattr(source, "schedule", None) if schedule is None else schedule
    needed = ("t_min", "t_max", "alpha", "log_snr", "time_at_log_snr")
    missing = [name for name in needed if not hasattr(schedule, name)]
    if missing:
        kind = type(schedule).__name__
        raise TypeError(f"`schedule` must be a schedule such as VP(), but {kind} has no {', '.join(missing)}")
    return schedule


class SpacetimeInnerProduct(AbstractInnerProduct):
    """The symmetric part of (3) at one point, as an operator.

    A norm costs one derivative of the denoiser and its divergence, a product two (one forward, one in reverse). Solves
    use the matrix for d < 64 and conjugate gradients beyond; determinants and square roots always use the matrix.
    """

    metric: SpacetimeMetric
    point: Point

    def squared_norm(self, v: Vector) -> Scalar:
        """``<v, v>``, from one derivative."""
        (z, denoised, divergence), (dz, dx, ddiv) = jax.jvp(self.metric.moments, (self.point,), (v,))
        precision = jnp.exp(self.point[-1])
        return precision * (dz + (z - denoised) * v[-1]) @ dx + 0.5 * v[-1] * (v[-1] * divergence - ddiv)

    def mv(self, v: Vector) -> Vector:
        """The covector ``G v``."""
        (z, denoised, divergence), (dz, dx, ddiv) = jax.jvp(self.metric.moments, (self.point,), (v,))
        precision = jnp.exp(self.point[-1])
        # Both halves of the symmetric part, (d eta)^T d mu v and (d mu)^T d eta v, in one pull-back.
        _, pull_back = jax.vjp(self.metric.moments, self.point)
        (pulled,) = pull_back((precision * dx, precision * (dz + (z - denoised) * v[-1]), -0.5 * v[-1]))
        along = precision * (z - denoised) @ dx + v[-1] * divergence - 0.5 * ddiv
        return 0.5 * pulled.at[-1].add(along)

    def matrix(self, dim: int) -> Matrix:
        """``G`` as a dense array, from ``d + 1`` derivatives."""
        moments = self.metric.moments
        derivative = jax.vmap(lambda v: jax.jvp(moments, (self.point,), (v,)), out_axes=(None, 0))
        (z, denoised, divergence), (dz, dx, ddiv) = derivative(jnp.eye(dim, dtype=self.point.dtype))
        dz = dz.at[-1].add(z - denoised)
        half = jnp.exp(self.point[-1]) * dz @ dx.T
        half = half.at[-1].add(-0.5 * ddiv).at[-1, -1].add(0.5 * divergence)
        return 0.5 * (half + half.T)

    def solve(self, w: Vector) -> Vector:
        """The vector ``G^-1 w``."""
        if w.size <= _DENSE:
            return self._dense().solve(w)
        scale = flat_prior_scale(self.metric, self.point)
        tol = 1e1 * float(jnp.finfo(w.dtype).eps)
        return jax.scipy.sparse.linalg.cg(self.mv, w, tol=tol, maxiter=10 * w.size, M=lambda r: r / scale**2)[0]

    def logdet(self) -> Scalar:
        """``log det G``, with the matrix."""
        return self._dense().logdet()

    def sqrt_mv(self, v: Vector) -> Vector:
        """``G^{1/2} v``, with the matrix."""
        return self._dense().sqrt_mv(v)

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        """``G^{-1/2} v``, with the matrix."""
        return self._dense().inv_sqrt_mv(v)

    def _dense(self) -> DenseInnerProduct:
        return DenseInnerProduct(self.matrix(self.point.size))


def flat_prior_scale(metric: SpacetimeMetric, x: Point) -> Vector:
    """The root of the diagonal of G at ``x`` if all clean data were equally likely: xhat = z, its divergence d."""
    noise = metric.alpha(x[-1]) * jnp.exp(-0.5 * x[-1])
    root = jnp.sqrt(jnp.asarray((x.size - 1) / 2, x.dtype))
    return jnp.append(jnp.full(x.size - 1, 1 / noise), root)


class FlatPriorStart(AbstractStart):
    """The geodesic that two points of spacetime would have if all clean data were equally likely: a half circle.

    With ``xhat = z`` spacetime is the hyperbolic half-space with coordinates ``z / sqrt(2 d)`` and the noise level
    ``exp(-log_snr / 2)``. That is the limit of little noise for all data, and a good path to start from: it goes
    through more noise where that is shorter. Where it would leave the domain it is cut off at the end of the schedule.

    Raises ``TypeError`` for a metric that is not a `SpacetimeMetric`.
    """

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        """The path from ``x`` to ``y``, both ``(d + 1,)``."""
        _check_spacetime(metric, "FlatPriorStart")
        levels = jnp.exp(-0.5 * jnp.stack([x[-1], y[-1]]))
        z = jnp.stack([x[:-1] / metric.alpha(x[-1]), y[:-1] / metric.alpha(y[-1])])
        squared = jnp.sum((z[1] - z[0]) ** 2) / (2 * (x.size - 1)) + (levels[1] - levels[0]) ** 2
        length = 2 * jnp.arcsinh(safe_sqrt(squared / (4 * levels[0] * levels[1])))
        # In (z, 1) / level, coordinates of the hyperboloid, a geodesic mixes its ends with these weights.
        t = jnp.asarray(np.linspace(0, 1, _START_NODES), x.dtype)[:, None]
        times = jnp.concatenate([1 - t, t], 1)
        small = length < 1e-4
        weights = jnp.where(small, times, jnp.sinh(times * length) / jnp.sinh(jnp.where(small, 1, length))) / levels
        total = jnp.sum(weights, 1)
        low, high = metric.log_snr_range(x.dtype)
        log_snr = jnp.clip(2 * jnp.log(total), low + 0.01 * (high - low), jnp.maximum(x[-1], y[-1]))
        noisy = jax.vmap(metric.alpha)(log_snr)[:, None] * (weights @ z) / total[:, None]
        # A point, not a cloud of rounding errors around it, which would have a length and a direction.
        nodes = jnp.where(jnp.all(x == y), x, jnp.concatenate([noisy, log_snr[:, None]], 1))
        return Polyline(nodes.at[0].set(x).at[-1].set(y))


def _check_spacetime(metric: Any, name: str) -> None:
    if not isinstance(metric, SpacetimeMetric):
        raise TypeError(f"`{name}` is for a SpacetimeMetric, got {type(metric).__name__}")


def jeffreys_divergences(metric: SpacetimeMetric, path: Points) -> Float[Array, " n_minus_1"]:
    """The symmetrised Kullback-Leibler divergences (4) of neighbours on ``path`` ``(n, d + 1)``, shape ``(n - 1,)``.

    One evaluation of the denoiser and its divergence for each point, no derivative of either.
    """
    path = as_points(path, "path")
    return _divergences(jax.vmap(metric.moments)(path), path[:, -1])


def _divergences(moments: tuple[Points, Points, Array], log_snrs: Float[Array, " n"]) -> Float[Array, " n_minus_1"]:
    """Equation (4) for neighbours, from the ``moments`` at all points."""
    z, denoised, divergence = moments
    precision = jnp.exp(log_snrs)
    middle = 0.5 * (denoised[1:] + denoised[:-1])
    eta = precision[1:, None] * (z[1:] - middle) - precision[:-1, None] * (z[:-1] - middle)
    spread = divergence / precision
    return jnp.sum(eta * jnp.diff(denoised, axis=0), -1) - 0.5 * jnp.diff(precision) * jnp.diff(spread)


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
    - ``max_steps``: of the minimiser.
    - ``tolerance``: solved when the gradient of the energy, relative to the path, is below this; default 1e-5 in
      float64, 2e-3 in float32. The length is wrong by the square of this.
    - ``rtol``: relative error of the length, as estimated in ``error``, above which the result is
      ``accuracy_not_reached``. ``length`` is extrapolated from all nodes and every second one, so that its error is
      of order ``1 / nodes^4``; ``error`` compares it with that from every second and every fourth one.

    ``stats``: ``iterations``, ``path_error``, and ``negative_segments``: how many segments have a negative squared
    length, which a learned denoiser can have; they count as zero. ``length`` and ``energy`` have the derivatives of the
    envelope theorem, up to terms of order ``1 / nodes^2``; those of the path are not given (it counts as constant).
    """

    nodes: int = eqx.field(static=True, default=65)
    minimiser: optx.AbstractMinimiser | None = None
    max_steps: int = eqx.field(static=True, default=1000)
    tolerance: float | None = eqx.field(static=True, default=None)
    rtol: float = eqx.field(static=True, default=1e-4)

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
        _check_spacetime(metric, "SpacetimeDescent")
        dtype, segments = x.dtype, self.nodes - 1
        tolerance = self.tolerance or (1e-5 if jnp.finfo(dtype).bits >= 64 else 2e-3)
        # What a denoiser closes over becomes explicit, or its derivatives would be lost in the loop: see `PathEnergy`.
        moments = eqx.filter_closure_convert(metric.moments, x)
        times = jnp.asarray(np.linspace(0, 1, self.nodes), dtype)
        start, _ = jax.vmap(init)(times)
        scale = jnp.sqrt(segments) * jax.vmap(lambda p: flat_prior_scale(metric, p))(0.5 * (start[1:] + start[:-1]))
        steps, inverse = jnp.diff(start, axis=0), 1 / scale**2
        # optimistix allocates the history of L-BFGS in the default precision, whatever that of its unknowns.
        working = jnp.result_type(float)
        flat = 0.5 * jnp.sum((scale * steps) ** 2).astype(working)
        unit = jnp.where((flat > 0) & jnp.isfinite(flat), flat, 1)
        arrays, static = eqx.partition(moments, eqx.is_array)
        fixed = jax.lax.stop_gradient((arrays, x, start, scale, steps, inverse, unit))

        def path(c, x, start, scale, steps, inverse):
            change = c.astype(dtype) / scale
            # The change must add up to nothing; least squares in the units of c takes it back so.
            change = change - inverse * (jnp.sum(change, 0) / jnp.sum(inverse, 0))
            inner = x + jnp.cumsum(steps + change, 0)[:-1]
            return jnp.concatenate([x[None], inner, start[-1:]])

        def energy(products):
            return 0.5 * products.size * jnp.sum(jnp.maximum(products, 0))

        def objective(c, args):
            arrays, *geometry, unit = args
            nodes = path(c, *geometry)
            products = _divergences(jax.vmap(eqx.combine(arrays, static))(nodes), nodes[:, -1])
            inside = jnp.all(jax.vmap(metric.domain)(nodes) > 0)
            return jnp.where(inside, energy(products).astype(working) / unit, jnp.inf)

        small = 1e-2 * tolerance
        minimiser = optx.LBFGS(rtol=small**2, atol=small, norm=optx.two_norm)
        minimiser = minimiser if self.minimiser is None else self.minimiser
        zero = jnp.zeros(steps.shape, working)
        solution = optx.minimise(objective, minimiser, zero, fixed, max_steps=self.max_steps, throw=False)
        c = jax.lax.stop_gradient(solution.value)
        # The energy is |c|^2 / 2 in the units of c, and the norm of c that of the path.
        at_end, gradient = jax.value_and_grad(objective)(c, fixed)
        relative = safe_sqrt(fixed[-1] * jnp.sum(gradient**2) / jnp.where(at_end > 0, 2 * at_end, 1)).astype(dtype)

        inner = jax.lax.stop_gradient(path(c, *fixed[1:-1]))[1:-1]
        nodes = jnp.concatenate([x[None], inner, y[None]])
        states = jax.vmap(moments)(nodes)
        products, *sparse = (
            _divergences(jax.tree.map(lambda a, k=k: a[::k], states), nodes[::k, -1]) for k in (1, 2, 4)
        )
        fine, coarse, coarser = (energy(p) for p in (products, *sparse))
        # Richardson: errors of order h^2 cancel, and what is left is of order h^4.
        total, rough = (4 * fine - coarse) / 3, (4 * coarse - coarser) / 3
        length = safe_sqrt(2 * total)
        change = jnp.abs(length - safe_sqrt(2 * rough)) / 15
        error = jax.lax.stop_gradient(3 * change + relative**2 * length)
        velocities = segments * jnp.diff(nodes, axis=0) - (y - x)
        basis, coefficients = smooth_path(x, y, velocities[:, None] / jnp.sqrt(segments).astype(dtype))
        curve = polynomial_curve(x, y, Path(coefficients, basis.breaks))
        points, velocities = jax.vmap(curve)(ts)
        mean = jnp.mean(products)
        residual = jnp.max(jnp.abs(products - mean)) / jnp.where(mean > 0, mean, 1)

        margins = jax.vmap(metric.domain)(nodes)
        least = states[2][jnp.argmin(nodes[:, -1])]
        low, high = metric.log_snr_range(dtype)
        converged = (relative <= tolerance) | (at_end == 0)
        result = RESULTS.where(error <= self.rtol * length, RESULTS.successful, RESULTS.accuracy_not_reached)
        unfinished = RESULTS.where(
            solution.stats["num_steps"] >= self.max_steps, RESULTS.solver_steps_reached, RESULTS.stalled
        )
        # Where a path that is still moving is at the border, or has forgotten the data, it is on its way out: there is
        # no geodesic, or it lies outside.
        leaving = (jnp.min(margins[1:-1]) < 0.01 * (high - low)) | (least < _FORGOTTEN * (x.size - 1))
        unfinished = RESULTS.where(leaving, RESULTS.outside_domain, unfinished)
        result = RESULTS.where(converged, result, unfinished)
        result = RESULTS.where(jnp.isfinite(length), result, RESULTS.metric_nonfinite)
        return Geodesic(
            ts=ts,
            points=points,
            velocities=velocities,
            length=length,
            energy=total,
            error=error,
            residual=jax.lax.stop_gradient(residual),
            result=RESULTS.where(jnp.min(margins) > 0, result, RESULTS.outside_domain),
            stats={
                "iterations": jnp.asarray(solution.stats["num_steps"], jnp.int32),
                "path_error": relative,
                "negative_segments": jnp.sum(products < 0),
            },
            curve=curve,
        )


def diffusion_edit_distance(
    metric: SpacetimeMetric,
    x: Point,
    y: Point,
    *,
    log_snr: float | Scalar,
    solver: AbstractBoundarySolver | None = None,
    init: AbstractStart | Geodesic | Points | None = None,
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
