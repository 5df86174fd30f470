"""Between the two scores: Fisher information of what a data score knows.

The Stein score s(x) = grad_x log p(x) is a derivative with respect to data, a Fisher score one with respect to
parameters. They meet twice. For the location family p(x - theta) the Fisher score is -s, so that its information,

    F = E_p[s s^T] = -E_p[H],    H the Jacobian of s,                                                          (1)

is the same at all theta (of a Gaussian: the inverse covariance), and the Stein metric I + strength s s^T is
I + strength F in the mean. And the marginals p_t of a diffusion dx = f x dt + g dw are a family with the one parameter
t, whose Fisher score the Fokker-Planck equation gives by the data score of p_t,

    d/dt log p_t = -f (d + x . s) + g^2/2 (div s + |s|^2),                                                     (2)

so that the curve t -> p_t has the Fisher-Rao length  int sqrt(E_{p_t}[(d/dt log p_t)^2]) dt  (3), an upper bound of the
distance between its ends. (Cover & Thomas 2006, sec. 17.7; Song et al. 2021, arXiv 2011.13456.)
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_float, as_points, check_count, is_concrete, warn
from .._numerics import safe_sqrt
from .._types import Matrix, Points, Scalar
from ..scores import GaussianScore
from ..scores.density import as_score
from .multivariate_normal.family import MultivariateNormal
from .spacetime.metric import as_denoiser

# A Monte Carlo estimate with a relative standard error above this deserves a warning.
_LARGE = 0.1


class LocationFisher(NamedTuple):
    """An estimate of the matrix (1), ``(d, d)``, with the standard error of each entry, ``(d, d)``."""

    matrix: Matrix
    standard_error: Matrix


class Estimate(NamedTuple):
    """A Monte Carlo estimate with its standard error."""

    value: Scalar
    standard_error: Scalar


def location_fisher(score: Any, samples: Points) -> LocationFisher:
    """The Fisher information ``E[s s^T]`` of the location family ``p(x - theta)``, from samples of p; equation (1).

    **Arguments**

    - ``score``: the score of p, an `AbstractScore` or a function ``x -> s(x)``.
    - ``samples``: independent draws of p, ``(n, d)``, n at least 2.

    **Returns** the matrix, in inverse squared units of the data, and the standard error of its entries. Warns
    (``UserWarning``) with the standard error, outside ``jit``, if that of the trace is more than a tenth of it, or if
    there are no more samples than dimensions, so that the matrix is singular.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.fisher_rao import location_fisher
    >>> score = GaussianScore(jnp.zeros(1), jnp.array([[4.0]]))
    >>> estimate = location_fisher(score, score.sample(jax.random.key(0), 10_000))
    >>> bool(abs(estimate.matrix[0, 0] - 1 / 4) < 3 * estimate.standard_error[0, 0])
    True
    """
    score, samples = as_score(score), _check_samples(samples)
    n, d = samples.shape
    s = jax.vmap(score)(samples)
    matrix = s.T @ s / n
    # The entries are means of s_i s_j: their variances need the means of the squares.
    variance = (s**2).T @ (s**2) / n - matrix**2
    _warn(_mean(jnp.sum(s**2, -1)), n, "E[s s^T]", singular=n <= d)
    return LocationFisher(matrix, safe_sqrt(variance / (n - 1)))


def location_fisher_trace(score: Any, samples: Points) -> Estimate:
    """The trace ``E[|s|^2]`` of `location_fisher` with its standard error: no d x d matrix. Arguments and warning as
    there."""
    score, samples = as_score(score), _check_samples(samples)
    estimate = _mean(jax.vmap(lambda x: jnp.sum(score(x) ** 2))(samples))
    _warn(estimate, samples.shape[0], "E[|s|^2]")
    return estimate


def marginal_length(
    denoiser: Any,
    schedule: Any,
    t0: float | Scalar,
    t1: float | Scalar,
    samples: Points,
    *,
    key: PRNGKeyArray,
    nodes: int = 32,
) -> Estimate:
    """The Fisher-Rao length (3) of the path of marginals ``p_t`` of a diffusion, from ``t0`` to ``t1``: how many
    standard deviations of statistical evidence separate the ends, along the way that noise takes.

    It depends on the schedule: shrinking the data by ``alpha`` changes ``p_t`` too.

    **Arguments**

    - ``denoiser``: as for `SpacetimeMetric`: a score with ``noised``, a `DiffusionModel`, or a function ``(z,
      noise_level) -> E[x_0 | z]``. The divergence of the score is exact, by d derivatives.
    - ``schedule``: a `scoregeo.diffusion` schedule, or any hashable object with ``t_min``, ``t_max``, ``alpha(t)``,
      ``sigma(t)``, ``drift(t)``, ``squared_diffusion(t)``, ``log_snr(t)``, ``time_at_log_snr(log_snr)``.
    - ``t0``, ``t1``: times between ``t_min`` and ``t_max``, in either order.
    - ``samples``: independent draws of the clean data, ``(n, d)``; ``key``: for the noise that is added to them. The
      same samples and noise serve all times.
    - ``nodes``: of the Gauss-Legendre rule in log SNR.

    **Returns** length and standard error (of the Monte Carlo, by the delta method; not of the rule). Warns as
    `location_fisher` does. Raises ``ValueError`` for times outside the schedule (outside ``jit``; there they are not
    looked at).
    """
    denoiser, samples = as_denoiser(denoiser), _check_samples(samples)
    check_count("nodes", nodes)
    n, dtype = samples.shape[0], samples.dtype
    ends = jnp.stack([schedule.log_snr(_time(t, name, schedule, dtype)) for t, name in ((t0, "t0"), (t1, "t1"))])
    at, weights = np.polynomial.legendre.leggauss(nodes)
    log_snrs = ends[0] + (ends[1] - ends[0]) * jnp.asarray((at + 1) / 2, dtype)
    weights = jnp.abs(ends[1] - ends[0]) * jnp.asarray(weights / 2, dtype)
    squares = _squared_fisher_scores(denoiser, schedule, samples, key, log_snrs)
    speeds = safe_sqrt(jnp.mean(squares, 1))
    length = weights @ speeds
    # The slopes say how much one sample adds to the length, to first order.
    slopes = weights / jnp.where(speeds > 0, 2 * speeds, 1)
    spread = jnp.std(slopes @ squares, ddof=1)
    estimate = Estimate(length, spread / jnp.sqrt(n).astype(dtype))
    _warn(estimate, n, "the Fisher-Rao length of the marginals")
    return estimate


@eqx.filter_jit
def _squared_fisher_scores(
    denoiser: Any, schedule: Any, samples: Points, key: PRNGKeyArray, log_snrs: Float[Array, " m"]
) -> Float[Array, "m n"]:
    """The squares of (2), with the log SNR as the parameter, at every noise level and noisy sample."""
    d, dtype = samples.shape[1], samples.dtype
    noise = jax.random.normal(key, samples.shape, dtype)

    def squared_scores(log_snr):
        t, rate = jax.jvp(schedule.time_at_log_snr, (log_snr,), (jnp.ones_like(log_snr),))
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        level = sigma / alpha

        def score(x):
            return (alpha * denoiser(x / alpha, level).astype(dtype) - x) / sigma**2

        def one(x):
            s, jacobian = score(x), jax.jacfwd(score)(x)
            growth = 0.5 * schedule.squared_diffusion(t) * (jnp.trace(jacobian) + s @ s)
            return rate**2 * (growth - schedule.drift(t) * (d + x @ s)) ** 2

        return jax.vmap(one)(alpha * samples + sigma * noise)

    return jax.lax.map(squared_scores, log_snrs)


def marginal_dist(score: GaussianScore, schedule: Any, t0: float | Scalar, t1: float | Scalar) -> Scalar:
    """The Fisher-Rao distance, among all normal distributions, of the marginals at ``t0`` and ``t1`` of Gaussian data.

    The marginals are ``N(alpha mean, alpha^2 cov + sigma^2 I)``. For data that are not Gaussian there is no finite
    family to measure in: see `marginal_length`. Raises ``TypeError`` for a score that is not a `GaussianScore`, and
    ``ValueError`` for times outside the schedule, as there.
    """
    if not isinstance(score, GaussianScore):
        raise TypeError(f"`score` must be a GaussianScore, whose marginals are normal, got {type(score).__name__}")
    family = MultivariateNormal(score.mean.size)
    ends = []
    for t, name in ((t0, "t0"), (t1, "t1")):
        t = _time(t, name, schedule, score.mean.dtype)
        marginal = score.noised(schedule.alpha(t), schedule.sigma(t))
        ends.append(family.pack(marginal.mean, marginal.cov))
    return family.dist(*ends)


def _check_samples(samples: Any) -> Points:
    samples = as_points(samples, "samples")
    if samples.shape[0] < 2:
        raise ValueError(f"`samples` must have at least 2 points for a standard error, got {samples.shape[0]}")
    return samples


def _time(t: Any, name: str, schedule: Any, dtype: Any) -> Scalar:
    t = as_float(t, name)
    if t.shape != ():
        raise ValueError(f"`{name}` must be a scalar time, got shape {t.shape}")
    # The ends of the schedule are rounded as t is, so that they are always inside.
    least, most = (jnp.asarray(end, t.dtype) for end in (schedule.t_min, schedule.t_max))
    if is_concrete(t) and not least <= t <= most:
        raise ValueError(f"`{name}` must be between t_min and t_max of the schedule, {least:g} and {most:g}, got {t:g}")
    return t.astype(dtype)


def _mean(values: Any) -> Estimate:
    return Estimate(jnp.mean(values), jnp.std(values, ddof=1) / jnp.sqrt(values.size).astype(values.dtype))


def _warn(estimate: Estimate, n: int, what: str, singular: bool = False) -> None:
    """Say so if ``n`` samples were too few; silent under ``jit``, where there is no number to say."""
    if not (is_concrete(estimate.value) and is_concrete(estimate.standard_error)):
        return
    value, error = float(estimate.value), float(estimate.standard_error)
    if singular or error > _LARGE * abs(value):
        warn(
            f"{n} samples are few: the estimate of {what} has the standard error {error:.3g}"
            + (" in its trace, and is singular" if singular else f" (its value is {value:.3g})"),
        )
