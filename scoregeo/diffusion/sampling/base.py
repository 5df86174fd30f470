r"""Drawing samples: from noise to data along a schedule, with diffrax.

The marginals of ``x_t = alpha x_0 + sigma eps`` are those of the ordinary and of the stochastic equation (Song et al.
2021)

    dx/dt = f x - g^2 s_t(x)/2                     (probability flow)                             (1)
    dx = (f x - g^2 s_t(x)) dt + g dw              (backwards in time)                            (2)

with the score ``s_t`` of the marginal at time ``t``. A network that knows the score ``s(.; r)`` of data with noise
``r`` added knows it for every schedule: ``s_t(x) = s(x/alpha; sigma/alpha)/alpha``.

Both are integrated in ``u = -log(sigma/alpha)``, which grows from the noise to the data and in which the equations are
equally stiff at all noise levels: with ``dt/du = -2 sigma^2/g^2`` (schedules, equation 3)

    dx/du = -(2 sigma^2/g^2) f x + sigma^2 s       (1')
    dx = (-(2 sigma^2/g^2) f x + 2 sigma^2 s) du + sqrt(2) sigma dw_u                             (2')

The last step, from the smallest noise level to none, is the denoiser: ``x_0 = (x + sigma^2 s)/alpha``.

`samplers` has the methods with steps of their own.
"""

import abc
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_count, check_counts, check_number, is_concrete
from ..._types import Point, Points, Scalar, Vector
from ...scores import NetworkScore
from ..schedules import AbstractSchedule

MarginalScore = Callable[[Point, Scalar], Vector]


class LearnedMarginalScore(eqx.Module):
    """The score of ``x_t`` at time ``t`` on the path of a schedule, from a network that knows the noise level only.

    **Arguments**

    - ``score``: the network's score at any noise level (its own is replaced).
    - ``schedule``: gives ``alpha`` and ``sigma``.
    """

    score: NetworkScore
    schedule: AbstractSchedule

    def __call__(self, x: Point, t: Scalar) -> Vector:
        """The score at ``x``, shape ``(d,)``, and time ``t``."""
        alpha = self.schedule.alpha(t)
        score = eqx.tree_at(lambda s: s.noise_level, self.score, self.schedule.noise_level(t))
        return score(x / alpha) / alpha


class AbstractSampler(eqx.Module):
    """How to get from noise to data. A sampler implements `solve` for one point; the rest is written once."""

    @abc.abstractmethod
    def solve(
        self, score: MarginalScore, schedule: AbstractSchedule, x: Point, key: PRNGKeyArray
    ) -> tuple[Point, diffrax.RESULTS]:
        """From ``x`` at time ``schedule.t_max`` to time ``schedule.t_min``, and how the integration ended."""


class ProbabilityFlow(AbstractSampler):
    """Samples by the probability flow ordinary differential equation (1), with adaptive steps.

    **Arguments**

    - ``rtol``, ``atol``: tolerances of the integration; ``atol`` is in the units of the data.
    - ``solver``: a diffrax solver for ordinary differential equations.
    - ``max_steps``: most steps for one sample.
    """

    rtol: float = 1e-4
    atol: float = 1e-4
    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    max_steps: int = 1000

    def __check_init__(self):
        check_number(self, "rtol", lambda value: value > 0, "positive")
        check_number(self, "atol", lambda value: value > 0, "positive")
        check_counts(self, max_steps=1)

    def solve(self, score, schedule, x, key):
        """See `AbstractSampler.solve`; ``key`` is not used, the map from noise to data is deterministic."""
        del key

        def velocity(u, x, score):
            t, rate, sigma = _clock(schedule, u)
            return -rate * schedule.drift(t) * x + sigma**2 * score(x, t)

        u0, u1 = _span(schedule, x.dtype)
        # A score that is not finite would shrink the step for ever: dtmin ends it with a result.
        control = diffrax.PIDController(rtol=self.rtol, atol=self.atol, dtmin=1e-8, force_dtmin=False)
        term = diffrax.ODETerm(velocity)
        solution = diffrax.diffeqsolve(
            term,
            self.solver,
            u0,
            u1,
            None,
            x,
            score,
            stepsize_controller=control,
            max_steps=self.max_steps,
            throw=False,
        )
        assert solution.ys is not None  # diffrax keeps the end unless it is told not to
        return solution.ys[-1], solution.result


class ReverseSDE(AbstractSampler):
    """Samples by the reverse stochastic differential equation (2), with fixed steps between the schedule's sampling
    levels.

    **Arguments**

    - ``steps``: number of steps, at least 1; more are closer to the equation.
    - ``solver``: a diffrax solver for stochastic differential equations that converges for additive noise (its Ito and
      Stratonovich forms are the same): `diffrax.Heun`, or `diffrax.Euler` for Euler-Maruyama.

    Samples can be differentiated in forward mode only; `ProbabilityFlow` has both modes.
    """

    steps: int = 256
    solver: diffrax.AbstractSolver = diffrax.Heun()

    def __check_init__(self):
        check_counts(self, steps=1)

    def solve(self, score, schedule, x, key):
        """See `AbstractSampler.solve`."""

        def drift(u, x, score):
            t, rate, sigma = _clock(schedule, u)
            return -rate * schedule.drift(t) * x + 2 * sigma**2 * score(x, t)

        def diffusion(u, x, score):
            _, _, sigma = _clock(schedule, u)
            return lx.DiagonalLinearOperator(jnp.full_like(x, jnp.sqrt(2.0) * sigma))

        us = -jnp.log(schedule.sampling_levels(self.steps + 1, x.dtype))
        # Every step asks for its own increment once, so the path needs no memory of them.
        noise = diffrax.UnsafeBrownianPath(shape=jax.ShapeDtypeStruct(x.shape, x.dtype), key=key)
        terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, noise))
        solution = diffrax.diffeqsolve(
            terms, self.solver, us[0], us[-1], None, x, score,
            stepsize_controller=diffrax.StepTo(us), max_steps=self.steps + 1, adjoint=diffrax.ForwardMode(),
            throw=False,
        )  # fmt: skip
        assert solution.ys is not None  # diffrax keeps the end unless it is told not to
        return solution.ys[-1], solution.result


def sample_path(
    sampler: AbstractSampler,
    score: MarginalScore,
    schedule: AbstractSchedule,
    mean: Float[Array, " d"],
    key: PRNGKeyArray,
    n: int,
) -> Points:
    """``n`` samples, shape ``(n, d)``, given the marginal score as a pytree callable ``(x_t, t) -> (d,)``.

    The start is ``alpha mean + sigma eps`` at ``t_max``; ``mean``, the mean of the data, also sets dimension and dtype.
    Under ``jit``, samples whose integration failed are NaN; outside, any such sample raises ``RuntimeError``.
    """
    n = check_count("n", n)
    samples, failed = _sample(sampler, score, schedule, mean, key, n)
    if is_concrete(failed) and bool(failed.any()):
        raise RuntimeError(
            f"{int(failed.sum())} of {n} samples failed: the score was not finite, or {type(sampler).__name__} ran out "
            "of steps. Check the score on noise (`model.score_at(sigma)` for large `sigma`), or try looser tolerances "
            "or more steps."
        )
    return samples


@eqx.filter_jit
def _sample(sampler, score, schedule, mean, key, n):
    start_key, path_key = jax.random.split(key)
    t_min = jnp.asarray(schedule.t_min, mean.dtype)
    start = schedule.prior_sample(start_key, mean, n)

    def one(x, key):
        x, result = sampler.solve(score, schedule, x, key)
        x = (x + schedule.sigma(t_min) ** 2 * score(x, t_min)) / schedule.alpha(t_min)
        failed = (result != diffrax.RESULTS.successful) | ~jnp.isfinite(x).all()
        return jnp.where(failed, jnp.nan, x), failed

    return jax.vmap(one)(start, jax.random.split(path_key, n))


def _span(schedule: AbstractSchedule, dtype: Any) -> tuple[Scalar, Scalar]:
    """The range of ``u = -log(noise level)``."""
    u0, u1 = (-jnp.log(schedule.noise_level(jnp.asarray(t, dtype))) for t in (schedule.t_max, schedule.t_min))
    return u0, u1


def _clock(schedule: AbstractSchedule, u: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """At ``u``: the time ``t``, the positive rate ``-dt/du = 2 sigma^2/g^2``, and ``sigma(t)``."""
    t = schedule.time_at(jnp.exp(-u))
    sigma = schedule.sigma(t)
    return t, 2 * sigma**2 / schedule.squared_diffusion(t), sigma
