"""Classifier-free guidance: away from what all data share, towards what a condition asks for."""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from ..._checks import as_float, check_finite, is_concrete
from ..._types import Point, Scalar, Vector
from ..schedules import AbstractSchedule
from .base import MarginalScore


class GuidedScore(eqx.Module):
    """The score ``s_u + weight (s_c - s_u)`` for any sampler, from a conditional and an unconditional one (Ho &
    Salimans 2022, arXiv 2207.12598).

    ``weight`` 0 is unconditional, 1 conditional; above 1 samples are more typical of the condition and less diverse.
    (Ho & Salimans write ``w`` for ``weight - 1``.) The result is the score of ``p_u (p_c/p_u)^weight`` at each noise
    level, and these are not the marginals of one diffusion: samples follow no density that is known, and `log_prob` is
    that of the flow.

    **Arguments**

    - ``conditional``, ``unconditional``: marginal scores ``(x_t, t) -> (d,)``, such as `LearnedMarginalScore`.
    - ``weight``: finite scalar; may be traced.
    - ``interval``: noise levels ``(low, high)``, ``0 <= low < high``, in the units of the data: guidance acts where
      ``low < sigma/alpha <= high``, elsewhere the score is the conditional one (Kynkaanniemi et al. 2024, arXiv
      2404.07724). The default is everywhere. A sampler with fixed steps does not evaluate ``unconditional`` outside.
    - ``schedule``: the schedule of the two scores, needed with ``interval``.

    Raises ``ValueError`` naming the argument for anything else.

    >>> import jax.numpy as jnp
    >>> from scoregeo.diffusion import EDM, GuidedScore
    >>> guided = GuidedScore(lambda x, t: 1 - x, lambda x, t: -x, 2.0, interval=(0.1, 1.0), schedule=EDM())
    >>> [guided(jnp.zeros(1), jnp.asarray(t)).item() for t in (0.5, 5.0)]
    [2.0, 1.0]
    """

    conditional: MarginalScore
    unconditional: MarginalScore
    weight: Float[Array, ""]
    interval: Float[Array, "2"] | None
    schedule: AbstractSchedule | None

    def __init__(
        self,
        conditional: MarginalScore,
        unconditional: MarginalScore,
        weight: float | Scalar,
        *,
        interval: Any = None,
        schedule: AbstractSchedule | None = None,
    ):
        for name, score in (("conditional", conditional), ("unconditional", unconditional)):
            if not callable(score):
                raise TypeError(f"`{name}` must be a callable (x, t) -> score, got {type(score).__name__}")
        self.conditional, self.unconditional = conditional, unconditional
        self.weight = as_float(weight, "weight")
        if self.weight.shape != ():
            raise ValueError(f"`weight` must be a scalar, got shape {self.weight.shape}")
        check_finite(self.weight, "weight")
        self.interval, self.schedule = None, schedule
        if interval is not None:
            if not isinstance(schedule, AbstractSchedule):
                raise ValueError(f"`interval` needs the `schedule` of the scores, got {schedule!r}")
            self.interval = as_float(interval, "interval")
            if self.interval.shape != (2,):
                raise ValueError(f"`interval` must be two noise levels (low, high), got shape {self.interval.shape}")
            if is_concrete(self.interval):
                low, high = np.asarray(self.interval).tolist()
                if not 0 <= low < high or math.isnan(high):
                    raise ValueError(f"`interval` must be (low, high) with 0 <= low < high, got {(low, high)}")

    def __call__(self, x: Point, t: Scalar) -> Vector:
        """The guided score at ``x``, shape ``(d,)``, and time ``t``."""
        weight = self.weight.astype(x.dtype)

        def guided(x):
            unconditional = self.unconditional(x, t)
            return unconditional + weight * (self.conditional(x, t) - unconditional)

        if self.interval is None:
            return guided(x)
        assert self.schedule is not None  # an interval without a schedule is refused
        level = self.schedule.noise_level(t)
        inside = (self.interval[0] < level) & (level <= self.interval[1])
        return jax.lax.cond(inside, guided, lambda x: self.conditional(x, t), x)
