r"""Samplers with fixed steps: `Heun`, `DDIM`, `DPMSolver`, `PredictorCorrector`, `AnnealedLangevin`.

All of them stop at the sampling levels of the schedule and work in the scaled variable ``y = x/alpha``, which is the
data plus noise of standard deviation ``r = sigma/alpha``, whatever the schedule (`sampling`):

    S(y; r) = alpha s_t(alpha y)             the score of ``y``                                   (1)
    D(y; r) = y + r^2 S(y; r)                the denoiser, ``E[x_0 | y]``                         (2)
    dy/dr = -r S(y; r)                       the probability flow                                 (3)

A method that was published for one schedule is here its form in ``(y, r)``. The denoising step that ends every sample
is that of `sample_path`.
"""

import math
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..._checks import check_counts, check_number, is_number
from ..._types import Point, Scalar, Vector
from ..schedules import AbstractSchedule
from .base import AbstractSampler, MarginalScore

ScaledScore = Callable[[Point, Scalar], Vector]


class Heun(AbstractSampler):
    """The second-order sampler of Karras et al. 2022 (arXiv 2206.00364, Algorithm 2): Heun's method for (3), with
    churn.

    Churn raises the noise level by a factor ``1 + gamma`` before a step, ``gamma = min(churn/steps, sqrt(2) - 1)``,
    and adds the noise that belongs to it; new noise corrects errors of the score and of earlier steps.

    **Arguments**

    - ``steps``: number of steps, at least 1; each evaluates the score twice.
    - ``churn``: ``S_churn``; 0 is deterministic, and then the sampler converges with order 2.
    - ``churn_min``, ``churn_max``: the noise levels between which there is churn, ``S_tmin`` and ``S_tmax``.
    - ``churn_noise``: factor of the standard deviation of the new noise, ``S_noise``.
    """

    steps: int = 32
    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __check_init__(self):
        check_counts(self, steps=1)
        for name in ("churn", "churn_min"):
            check_number(self, name, lambda value: value >= 0, "not negative")
        check_number(self, "churn_noise", lambda value: value > 0, "positive")
        if not (is_number(self.churn_max) or self.churn_max == math.inf):
            raise ValueError(f"`churn_max` must be a number, got {self.churn_max!r}")
        if not self.churn_max > self.churn_min:
            raise ValueError(f"`churn_max` must be greater than `churn_min` = {self.churn_min}, got {self.churn_max}")

    def solve(self, score, schedule, x, key):
        """See `AbstractSampler.solve`; without churn ``key`` is not used."""
        most = min(self.churn / self.steps, math.sqrt(2) - 1)

        def step(score, y, level, following, key):
            if most > 0:
                raised = level * jnp.where((level >= self.churn_min) & (level <= self.churn_max), 1 + most, 1.0)
                noise = self.churn_noise * jax.random.normal(key, y.shape, y.dtype)
                y, level = y + jnp.sqrt(raised**2 - level**2) * noise, raised
            slope = -level * score(y, level)
            slope_after = -following * score(y + (following - level) * slope, following)
            return y + (following - level) * (slope + slope_after) / 2

        return _through_levels(step, score, schedule, self.steps, x, key)


class DDIM(AbstractSampler):
    """Denoising diffusion implicit models (Song, Meng & Ermon 2021, arXiv 2010.02502, equation 12).

    A step goes to ``D + sqrt(r'^2 - c^2) (y - D)/r + c z`` with ``c = eta r' sqrt(1 - r'^2/r^2)`` and new noise ``z``:
    of the noise at ``r'``, the part ``c`` is drawn anew.

    **Arguments**

    - ``steps``: number of steps, at least 1, with one evaluation of the score each.
    - ``eta``: in [0, 1]. 0 is deterministic and converges with order 1 to the probability flow; 1 is the ancestral
      sampler of DDPM (Ho et al. 2020) and converges to the reverse stochastic equation.
    """

    steps: int = 64
    eta: float = 0.0

    def __check_init__(self):
        check_counts(self, steps=1)
        check_number(self, "eta", lambda value: 0 <= value <= 1, "in [0, 1]")

    def solve(self, score, schedule, x, key):
        """See `AbstractSampler.solve`; with ``eta = 0`` ``key`` is not used."""

        def step(score, y, level, following, key):
            return _ancestral(score, y, level, following, key, self.eta)

        return _through_levels(step, score, schedule, self.steps, x, key)


class DPMSolver(AbstractSampler):
    """DPM-Solver++(2M): the deterministic multistep method of Lu et al. 2022 (arXiv 2211.01095, Algorithm 2).

    It integrates the linear part of (3) exactly and extrapolates the denoiser in ``-log r`` from the last two levels:
    order 2 for one evaluation of the score a step.

    **Arguments**

    - ``steps``: number of steps, at least 1. The first is of order 1 (`DDIM`).
    """

    steps: int = 32

    def __check_init__(self):
        check_counts(self, steps=1)

    def solve(self, score, schedule, x, key):
        """See `AbstractSampler.solve`; ``key`` is not used."""

        def step(score, state, level, following, key):
            del key
            y, last_denoised, last_level = state
            pull = level**2 * score(y, level)
            denoised = y + pull
            # The first step has no level before it: infinity makes its weight zero.
            weight = jnp.log(level / following) / (2 * jnp.log(last_level / level))
            y = y + (1 - following / level) * (pull + weight * (denoised - last_denoised))
            return y, denoised, level

        memory = (jnp.zeros_like(x), jnp.asarray(jnp.inf, x.dtype))
        return _through_levels(step, score, schedule, self.steps, x, key, memory)


class PredictorCorrector(AbstractSampler):
    """Predictor-corrector sampling (Song et al. 2021, arXiv 2011.13456, Algorithm 1): to the next noise level by an
    ancestral step (`DDIM` with ``eta = 1``), then Langevin dynamics at that level.

    **Arguments**

    - ``steps``: number of predictor steps, at least 1.
    - ``corrections``: Langevin steps after each of them, at least 1; the score is evaluated once for each.
    - ``snr``: signal-to-noise ratio of a Langevin step, in (0, 1). The step is ``y + e S + sqrt(2 e) z`` with
      ``e = 2 (snr r)^2``. Song et al. have the ratio of the norms of noise and score, averaged over a batch, in place
      of ``r``; where noise dominates they are the same, and ``r`` does not couple the samples.
    """

    steps: int = 256
    corrections: int = 1
    snr: float = 0.16

    def __check_init__(self):
        _check_langevin(self)

    def solve(self, score, schedule, x, key):
        """See `AbstractSampler.solve`."""

        def step(score, y, level, following, key):
            predict, correct = jax.random.split(key)
            y = _ancestral(score, y, level, following, predict, 1.0)
            return _langevin(score, y, following, correct, self.corrections, self.snr)

        return _through_levels(step, score, schedule, self.steps, x, key)


class AnnealedLangevin(AbstractSampler):
    """Annealed Langevin dynamics (Song & Ermon 2019, arXiv 1907.05600, Algorithm 1): Langevin steps at one noise level
    after the other, without any step from level to level.

    Only slow annealing is right: the noise falls by a factor from level to level, and the Langevin steps at a level
    must reach what it is there. `PredictorCorrector` needs far fewer evaluations of the score.

    **Arguments**

    - ``steps``: number of noise levels after that of the start, at least 1.
    - ``corrections``: Langevin steps at each of them, at least 1; the score is evaluated once for each.
    - ``snr``: size of a Langevin step, as in `PredictorCorrector`; Song & Ermon's ``epsilon`` is
      ``4 (snr sigma_L)^2``.
    """

    steps: int = 256
    corrections: int = 5
    snr: float = 0.22

    def __check_init__(self):
        _check_langevin(self)

    def solve(self, score, schedule, x, key):
        """See `AbstractSampler.solve`."""

        def step(score, y, level, following, key):
            del level
            return _langevin(score, y, following, key, self.corrections, self.snr)

        return _through_levels(step, score, schedule, self.steps, x, key)


def scaled_score(score: MarginalScore, schedule: AbstractSchedule) -> ScaledScore:
    """The score (1) of ``y = x/alpha``, a function of ``y`` and of the noise level ``r``."""

    def scaled(y, level):
        t = schedule.time_at(level)
        alpha = schedule.alpha(t)
        return alpha * score(alpha * y, t)

    return scaled


def _through_levels(
    step: Callable,
    score: MarginalScore,
    schedule: AbstractSchedule,
    steps: int,
    x: Point,
    key: PRNGKeyArray,
    memory: tuple | None = None,
) -> tuple[Point, Any]:
    """From ``x`` at ``t_max`` through all sampling levels by ``step(score, y, level, next level, key) -> y``; with
    ``memory``, ``y`` stands for the tuple ``(y, *memory)``."""
    scaled = scaled_score(score, schedule)
    levels = schedule.sampling_levels(steps + 1, x.dtype)
    t_max, t_min = (jnp.asarray(t, x.dtype) for t in (schedule.t_max, schedule.t_min))
    y = x / schedule.alpha(t_max)

    def body(state, inputs):
        return step(scaled, state, *inputs), None

    state, _ = jax.lax.scan(
        body, y if memory is None else (y, *memory), (levels[:-1], levels[1:], jax.random.split(key, steps))
    )
    return schedule.alpha(t_min) * (state[0] if isinstance(state, tuple) else state), diffrax.RESULTS.successful


def _ancestral(score: ScaledScore, y: Point, level: Scalar, following: Scalar, key: PRNGKeyArray, eta: float) -> Point:
    """A step of `DDIM`, in the form that does not cancel where the levels are close."""
    if eta == 0:
        return y + level * (level - following) * score(y, level)
    ratio = following / level
    new = eta * following * jnp.sqrt(1 - ratio**2)
    kept = following * jnp.sqrt(1 - eta**2 * (1 - ratio**2))
    return y + level * (level - kept) * score(y, level) + new * jax.random.normal(key, y.shape, y.dtype)


def _check_langevin(sampler: PredictorCorrector | AnnealedLangevin) -> None:
    check_counts(sampler, steps=1, corrections=1)
    check_number(sampler, "snr", lambda value: 0 < value < 1, "in (0, 1)")


def _langevin(score: ScaledScore, y: Point, level: Scalar, key: PRNGKeyArray, steps: int, snr: float) -> Point:
    """Langevin dynamics for the law of ``y`` at one noise level; its variance is too large by about ``(snr r)^2``."""
    size = 2 * (snr * level) ** 2

    def body(y, key):
        return y + size * score(y, level) + jnp.sqrt(2 * size) * jax.random.normal(key, y.shape, y.dtype), None

    return jax.lax.scan(body, y, jax.random.split(key, steps))[0]
