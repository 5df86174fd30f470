r"""The density of a diffusion model, by the probability flow.

Along ``dy/dr = -r S(y; r)`` (`samplers`, equation 3) the log density changes by minus the divergence of the velocity
(Chen et al. 2018; Song et al. 2021, arXiv 2011.13456, section 4.3). What is integrated, from the noise level at which
the density is wanted to that of ``t_max``, is the difference to a Gaussian: with the mean ``m`` and the covariance
``Q diag(v) Q^T`` of the data, ``w = log r`` and ``c^2 = v + r^2``, for each coordinate,

    z = Q^T (y - m)/c                                                                             (1)
    dz/dw = -(r^2/c) (Q^T S + z/c)                                                                (2)
    log p(y; r) = log N(z_end; 0, I) + int div(dz/dw) dw - sum log c(r)                           (3)

Data that are this Gaussian have velocity zero: steps and rounding errors go into what the model knows beyond mean and
covariance. The normal density in (3) stands for the law of ``z`` at ``t_max``, which is not known. What this leaves out
falls with the largest noise level ``R``. In root mean square over the data and to leading order, the log density is off
by ``|m - m_true|/R`` from a wrong mean, by ``|cov - cov_true|_F/(sqrt(2) R^2)`` from a wrong (or isotropic) covariance,
and with the right ones by the third cumulants of the data over ``R^3``.
"""

from collections.abc import Callable
from typing import Any, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._checks import as_float, check_finite, is_concrete, is_integer
from ..._numerics import minus, with_own_settings
from ..._protocols import CentredModel, some_noise_level
from ..._types import Point, Points, Scalar
from ..schedules import AbstractSchedule
from .base import LearnedMarginalScore, MarginalScore, ProbabilityFlow
from .samplers import scaled_score

_FLOW = ProbabilityFlow(rtol=3e-6, atol=3e-6)


class Likelihood(eqx.Module):
    """Log densities by the probability flow; arrays of shape ``(n,)``, or scalars for one point.

    **Fields**

    - ``log_prob``: log density of the data with noise ``sigma`` added, in nats and in the units of the data; NaN where
      the integration failed.
    - ``standard_error``: standard error of ``log_prob``, from the spread over the random probes: zero for the exact
      trace, NaN for one probe.
    - ``evaluations``: how often the velocity was evaluated, with one score and, for each coordinate (exact trace) or
      probe, one derivative of it.
    - ``result``: how the integration ended, a code of ``diffrax.RESULTS``.
    """

    log_prob: Float[Array, "..."]
    standard_error: Float[Array, "..."]
    evaluations: Int[Array, "..."]
    result: diffrax.RESULTS
    dim: int = eqx.field(static=True)

    def bits_per_dim(self, bin_width: Any = 1.0) -> Float[Array, "..."]:
        """Negative log-likelihood in bits for each dimension, ``-(log_prob/d + log bin_width)/log 2``.

        **Arguments**

        - ``bin_width``: distance between neighbouring values of discrete data in the units of ``x``, positive; a
          scalar, or ``(d,)``. For 8-bit data scaled to [0, 1] it is ``1/256`` (an offset of 8 bits), scaled to
          [-1, 1] it is ``2/256``. With data to which uniform noise of that width was added, the mean is an upper
          bound for the bits of the discrete data (Theis et al. 2016). The default is for continuous data.
        """
        bin_width = as_float(bin_width, "bin_width")
        if bin_width.shape not in ((), (self.dim,)):
            raise ValueError(f"`bin_width` must be a scalar or have shape ({self.dim},), got {bin_width.shape}")
        if is_concrete(bin_width) and not (np.isfinite(bin_width).all() and (np.asarray(bin_width) > 0).all()):
            raise ValueError(f"`bin_width` must be positive and finite, got {bin_width}")
        offset = jnp.mean(jnp.log(bin_width)).astype(self.log_prob.dtype)
        return -(self.log_prob / self.dim + offset) / jnp.log(jnp.asarray(2.0, self.log_prob.dtype))


def log_prob(
    model: Any,
    x: Point | Points | np.ndarray,
    schedule: AbstractSchedule | None = None,
    *,
    mean: Point | np.ndarray | None = None,
    variance: Array | float | None = None,
    sigma: Scalar | float | None = None,
    probes: int | None = None,
    gaussian: bool = False,
    key: PRNGKeyArray | None = None,
    condition: Any = None,
    flow: ProbabilityFlow = _FLOW,
    throw: bool = True,
) -> Likelihood:
    """The log density of the data with a little noise added, from their score at all noise levels.

    It is the density at ``x`` of ``x_0 + sigma eps``, which for small ``sigma`` is that of the data ``x_0`` if they
    have a smooth one. It is not extrapolated to ``sigma = 0``. How: see `likelihood`.

    **Arguments**

    - ``model``: a `DiffusionModel`, or a marginal score ``(x_t, t) -> (d,)``, such as `LearnedMarginalScore`: a pytree
      whose arrays are traced.
    - ``x``: ``(d,)`` or ``(n, d)``, in the units of the data. Integrated in the precision that it has in JAX; the mean
      of a model is subtracted before, from a NumPy array in float64.
    - ``schedule``: the path; for a model its own by default.
    - ``mean``, ``variance``: moments of the data, for the density at the largest noise level. ``variance`` is a scalar,
      ``(d,)``, or the covariance ``(d, d)``; with the covariance the density at ``t_max`` is most accurate. For a model
      its mean and the square of its ``sigma_data`` by default; for a score they must be given, those of the data that
      meet the condition if it is a conditional one.
    - ``sigma``: the noise level, a positive scalar in the units of the data, may be traced; by default that of
      ``schedule.t_min``, where samples end.
    - ``probes``: estimate the trace of the Jacobian of the score with so many random directions (Hutchinson), the same
      ones all along the path of a point. ``None`` is the exact trace, with ``d`` derivatives in each evaluation. Only
      the difference to the Gaussian of ``variance`` is estimated: with the covariance of the data estimates vary less.
    - ``gaussian``: draw normal directions; by default they are random signs (Rademacher), which have less variance.
    - ``key``: for the directions; needed with ``probes``.
    - ``condition``: what the density is conditioned on, if the model takes conditions; not for a marginal score. The
      moments are still those of all the data unless given.
    - ``flow``: tolerances, solver and most steps for one point. The tolerances are of the log density in nats and of
      ``z`` in standard deviations; by default both are 3e-6. The solver must be an explicit Runge-Kutta method.
    - ``throw``: outside ``jit``, raise ``RuntimeError`` if the integration failed for any point. Otherwise such points
      have NaN and a code in ``result``.

    Raises ``ValueError`` or ``TypeError`` naming the argument that is missing or wrong. The result can be
    differentiated in reverse mode.

    >>> import jax.numpy as jnp
    >>> from scoregeo.diffusion import VP, log_prob
    >>> standard = lambda x, t: -x  # VP keeps N(0, I) as it is
    >>> likelihood = log_prob(standard, jnp.zeros((3, 2)), VP(), mean=jnp.zeros(2), variance=1.0)
    >>> bool((abs(likelihood.log_prob + jnp.log(2 * jnp.pi)) < 1e-3).all())
    True
    """
    # A model is asked in coordinates that begin at its mean: see `DiffusionModel.centred`.
    origin, model = (model.mean, model.centred()) if isinstance(model, CentredModel) else (None, model)
    score, schedule, mean, variance = _as_marginal(model, schedule, mean, variance, condition, origin)
    given, x = x, as_float(x, "x")
    if x.ndim not in (1, 2) or x.shape[-1] != mean.size or x.size == 0:
        raise ValueError(f"`x` must have shape ({mean.size},) or (n, {mean.size}), got {x.shape}")
    check_finite(x, "x")
    x = x if origin is None else minus(given, origin, x.dtype)
    sigma = _check_sigma(sigma, schedule, x.dtype)
    if probes is not None and not (is_integer(probes) and probes >= 1):
        raise ValueError(f"`probes` must be None (exact trace) or an integer of at least 1, got {probes!r}")
    if probes is not None and key is None:
        raise ValueError("`key` is needed for the random directions of `probes`")
    if not (isinstance(flow, ProbabilityFlow) and isinstance(flow.solver, diffrax.AbstractERK)):
        raise TypeError(f"`flow` must be a ProbabilityFlow with an explicit Runge-Kutta method, got {flow!r}")

    mean, variance = mean.astype(x.dtype), variance.astype(x.dtype)
    points = x.reshape(-1, mean.size)
    likelihood = _log_prob(score, points, schedule, mean, variance, sigma, key, probes, gaussian, flow)
    if throw and is_concrete(likelihood.log_prob) and (failed := jnp.isnan(likelihood.log_prob)).any():
        raise RuntimeError(
            f"the log density of {int(failed.sum())} of {failed.size} points failed: the score was not finite, or the "
            "integration ran out of steps. Check the score on noise (`model.score_at(sigma)` for large `sigma`), or "
            "try `flow=ProbabilityFlow(...)` with looser tolerances or more `max_steps`."
        )
    return jax.tree.map(lambda leaf: leaf[0], likelihood) if x.ndim == 1 else likelihood


def _as_marginal(
    model: Any, schedule: Any, mean: Any, variance: Any, condition: Any, origin: Any
) -> tuple[MarginalScore, AbstractSchedule, Array, Array]:
    """The marginal score, the schedule and the moments of the data, in coordinates that begin at ``origin``."""
    learned = hasattr(model, "score_at")
    if not learned and not callable(model):
        raise TypeError(f"`model` must be a DiffusionModel or a marginal score (x, t), got {type(model).__name__}")
    if not learned and condition is not None:
        raise ValueError("`condition` is for a DiffusionModel; give the marginal score under that condition instead")
    if learned:
        schedule = model.schedule if schedule is None else schedule
        if mean is None:
            mean = model.denoiser.mean[...] if origin is None else origin
        variance = model.denoiser.sigma_data[...] ** 2 if variance is None else variance
    if not isinstance(schedule, AbstractSchedule):
        raise TypeError(f"`schedule` must be a schedule such as EDM() or VP(), got {type(schedule).__name__}")
    if mean is None or variance is None:
        raise ValueError("`mean` and `variance` of the data are needed when `model` is a score")
    given, mean = mean, as_float(mean, "mean")
    if mean.ndim != 1:
        raise ValueError(f"`mean` must have shape (d,), got {mean.shape}")
    check_finite(mean, "mean")
    mean = mean if origin is None else minus(given, origin, mean.dtype)
    variance = as_float(variance, "variance")
    if variance.shape not in ((), (mean.size,), (mean.size, mean.size)):
        raise ValueError(f"`variance` must have shape (), (d,) or (d, d) with d = {mean.size}, got {variance.shape}")
    check_finite(variance, "variance")
    if is_concrete(variance):
        least = np.linalg.eigvalsh(variance).min() if variance.ndim == 2 else np.min(variance)
        if least <= 0:
            raise ValueError(f"`variance` must be positive (definite), but its smallest value is {least:.3g}")
    score = LearnedMarginalScore(_conditional(model, condition), schedule) if learned else cast(MarginalScore, model)
    return score, schedule, mean, variance


def _conditional(model: Any, condition: Any) -> Any:
    level = some_noise_level(model)
    return model.score_at(level) if condition is None else model.score_at(level, condition)


def _check_sigma(sigma: Any, schedule: AbstractSchedule, dtype: Any) -> Scalar:
    """The noise level at which the density is wanted."""
    if sigma is None:
        return schedule.noise_level(jnp.asarray(schedule.t_min, dtype))
    sigma = as_float(sigma, "sigma").astype(dtype)
    if sigma.shape != ():
        raise ValueError(f"`sigma` must be a scalar, got shape {sigma.shape}")
    largest = schedule.noise_level(jnp.asarray(schedule.t_max, dtype))
    if is_concrete(sigma) and is_concrete(largest) and not 0 < float(sigma) < float(largest):
        raise ValueError(f"`sigma` must be positive and below the largest noise level, {largest}, got {sigma}")
    return sigma


@eqx.filter_jit
@with_own_settings
def _log_prob(score, points, schedule, mean, variance, sigma, key, probes, gaussian, flow):
    dim, dtype = points.shape[1], points.dtype
    basis = None
    if variance.ndim == 2:
        variance, basis = jnp.linalg.eigh(variance)
    directions = None if probes is None else _directions(key, (len(points), probes, dim), dtype, gaussian)
    rates = diffrax.ODETerm(_rates(schedule, mean, variance, basis))
    control = diffrax.PIDController(rtol=flow.rtol, atol=flow.atol, dtmin=1e-8, force_dtmin=False, norm=_largest_rms)
    start, end = jnp.log(sigma), jnp.log(schedule.noise_level(jnp.asarray(schedule.t_max, dtype)))
    z = points - mean[None] if basis is None else (points - mean[None]) @ basis
    z = z / jnp.broadcast_to(_spread(variance, sigma), (1, dim))

    def one(z, directions):
        integrals = jnp.zeros(1 if directions is None else directions.shape[0], dtype)
        solution = diffrax.diffeqsolve(
            rates, flow.solver, start, end, 0.1, (z, integrals), (score, directions),
            stepsize_controller=control, max_steps=flow.max_steps, throw=False,
        )  # fmt: skip
        assert solution.ys is not None  # diffrax keeps the end unless it is told not to
        z, integrals = (leaf[-1] for leaf in solution.ys)
        # Equation (3).
        normal = -0.5 * (jnp.vdot(z, z) + dim * jnp.log(2 * jnp.pi).astype(dtype))
        volume = jnp.sum(jnp.broadcast_to(jnp.log(_spread(variance, sigma)), (dim,)))
        value = normal + jnp.mean(integrals) - volume
        error = jnp.zeros((), dtype) if directions is None else _standard_error(integrals)
        failed = (solution.result != diffrax.RESULTS.successful) | ~jnp.isfinite(value)
        return jnp.where(failed, jnp.nan, value), error, solution.stats["num_steps"], solution.result

    values, errors, steps, results = jax.vmap(one)(z, directions)
    tableau = flow.solver.tableau
    # A method whose last stage is the first of the next step evaluates that one once.
    evaluations = steps * (tableau.num_stages - 1) + 1 if tableau.fsal else steps * tableau.num_stages
    return Likelihood(values, errors, evaluations, results, dim)


def _directions(key: PRNGKeyArray, shape: tuple[int, int, int], dtype: Any, gaussian: bool) -> Float[Array, "n k d"]:
    """Random directions for each point: normal ones, or signs."""
    draw = jax.random.normal if gaussian else jax.random.rademacher
    return draw(key, shape, dtype)


def _spread(variance: Array, level: Scalar) -> Array:
    """The standard deviation ``c`` of equation (1), a scalar or one for each coordinate."""
    return jnp.sqrt(variance + level**2)


def _rates(schedule: AbstractSchedule, mean: Point, variance: Array, basis: Array | None) -> Callable:
    """The rates of ``z`` and of the integrals in (3), along the columns of ``basis`` (all axes for ``None``)."""

    def velocity(z, w, score):
        """Equation (2)."""
        level = jnp.exp(w)
        c = _spread(variance, level)
        y = c * z if basis is None else basis @ (c * z)
        s = scaled_score(score, schedule)(mean + y, level)
        return -(level**2) / c * ((s if basis is None else s @ basis) + z / c)

    def rates(w, state, args):
        score, directions = args
        z = state[0]
        value, derivatives = _derivatives(lambda z: velocity(z, w, score), z, directions)
        if directions is None:
            return value, jnp.trace(derivatives)[None]
        return value, jnp.sum(directions * derivatives, -1)

    return rates


def _standard_error(integrals: Float[Array, " k"]) -> Scalar:
    """The standard error of the mean over the probes; NaN for one probe."""
    k, dtype = integrals.size, integrals.dtype
    return jnp.std(integrals, ddof=1) / jnp.sqrt(k).astype(dtype) if k > 1 else jnp.full((), jnp.nan, dtype)


def _derivatives(field: Callable, z: Point, directions: Points | None) -> tuple[Array, Array]:
    """The field at ``z``, and its derivatives along ``directions`` (all coordinates if ``None``), a row each."""
    directions = jnp.eye(z.size, dtype=z.dtype) if directions is None else directions
    return jax.vmap(lambda v: jax.jvp(field, (z,), (v,)), out_axes=(None, 0))(directions)


def _largest_rms(scaled_error: Any) -> Scalar:
    """The larger of the errors of position and log density: one norm over both would lose the latter among many
    coordinates."""
    position, integrals = scaled_error
    return jnp.maximum(optx.rms_norm(position), optx.rms_norm(integrals))
