"""The spacetime of a diffusion model: points are noisy data with their noise level, distances are Fisher-Rao distances
of what they say about the clean data (Karczewski et al. 2026, arXiv 2505.17517).

A noisy point x_t = alpha x_0 + sigma eps is as informative as z = x_t / alpha, which is x_0 with noise of standard
deviation exp(-lambda / 2), where lambda = log(alpha^2 / sigma^2) is the log SNR. Given it, x_0 has a density

    p(x_0 | x_t) = p(x_0) exp(<eta, T(x_0)>) / Z,    T = (x_0, |x_0|^2),    eta = exp(lambda) (z, -1/2),         (1)

an exponential family. With the denoiser xhat(z, lambda) = E[x_0 | x_t] and its divergence in z, its expectations are

    mu = E[T | x_t] = (xhat, |xhat|^2 + exp(-lambda) div xhat),                                                 (2)

and its Fisher information on the points (x_t, lambda) is G = (d eta)^T (d mu). Neither G nor distances change when T is
measured from another origin. About xhat, where no large terms cancel, the inner product of u and w is

    e^lambda (dz[u] + (z - xhat) dlambda[u]) . dxhat[w] + dlambda[u] (dlambda[w] div - d div[w]) / 2.            (3)

For exact denoisers (3) is symmetric and positive definite. A learned one is not the posterior mean of any data: the
symmetric part of (3) is taken, which is what lengths depend on, but nothing makes it positive.
"""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import as_float, as_point, check_count, check_finite, is_concrete
from ..._function import TracedFunction
from ..._protocols import NoisedScore, NoiseSchedule, ScoreField, ScoreModel, missing_members, some_noise_level
from ..._types import Matrix, Point, Scalar, Vector
from ...metrics import AbstractMetric
from ...metrics.inner_products import AbstractInnerProduct

# Up to this many coordinates, linear systems are solved with the matrix.
_DENSE = 64
# By how much of the schedule's range rounding may leave it.
_SLACK = 1e-5


def as_denoiser(source: Any) -> TracedFunction:
    """``source`` as a denoiser, see `SpacetimeMetric`; raises ``TypeError`` for what takes no noise level."""
    if isinstance(source, NoisedScore):
        return TracedFunction(jax.tree_util.Partial(_tweedie, source), "denoiser")
    if isinstance(source, ScoreModel):
        return TracedFunction(
            jax.tree_util.Partial(_from_network, source.score_at(some_noise_level(source))), "denoiser"
        )
    if isinstance(source, ScoreField) or not callable(source):
        raise TypeError(
            "`denoiser` must be a function (z, noise_level) -> E[x_0 | z], a score with `noised`, or a DiffusionModel, "
            f"got {type(source).__name__}"
        )
    try:
        inspect.signature(source).bind(None, None)
    except ValueError:  # a function without a signature
        pass
    except TypeError as error:
        raise TypeError(
            f"`denoiser` must take two arguments (z, noise_level) and return E[x_0 | z], but for the one given: {error}"
        ) from error
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
    >>> from scoregeo.fisher_rao import SpacetimeDescent, SpacetimeMetric
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
        self.key_data = None if probes is None or key is None else jax.random.key_data(key)

    def point(self, x: Point, log_snr: float | Scalar) -> Float[Array, " d+1"]:
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

    def moments(self, x: Point) -> tuple[Float[Array, " d-1"], Float[Array, " d-1"], Scalar]:
        """At the point ``x`` ``(d + 1,)``: ``z = x_t / alpha``, the denoised ``E[x_0 | x_t]`` and its divergence in z.

        The expected squared distance of ``x_0`` from its mean is ``exp(-log_snr)`` times the divergence.
        """
        z, noise_level = x[:-1] / self.alpha(x[-1]), jnp.exp(-0.5 * x[-1])
        if self.probes is None:
            directions, count = jnp.eye(z.size, dtype=x.dtype), 1
        else:
            assert self.key_data is not None  # given with `probes`
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
    missing = missing_members(schedule, NoiseSchedule)
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

    @property
    def dim(self) -> int:
        """The dimension, ``d + 1``."""
        return self.point.size

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
            return super().solve(w)
        scale = flat_prior_scale(self.metric, self.point)
        tol = 1e1 * float(jnp.finfo(w.dtype).eps)
        return jax.scipy.sparse.linalg.cg(self.mv, w, tol=tol, maxiter=10 * w.size, M=lambda r: r / scale**2)[0]


def flat_prior_scale(metric: SpacetimeMetric, x: Point) -> Vector:
    """The root of the diagonal of G at ``x`` if all clean data were equally likely: xhat = z, its divergence d."""
    noise = metric.alpha(x[-1]) * jnp.exp(-0.5 * x[-1])
    root = jnp.sqrt(jnp.asarray((x.size - 1) / 2, x.dtype))
    return jnp.append(jnp.full(x.size - 1, 1 / noise), root)
