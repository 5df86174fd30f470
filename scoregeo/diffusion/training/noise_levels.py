r"""Which noise levels are trained on: distributions, drawn through their quantile functions.

A schedule has a distribution of its own (``training_levels``). These are for choosing another one, with any schedule.
"""

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_finite_numbers
from ..._types import Scalar
from ..schedules import AbstractSchedule, uniform_draws


class AbstractNoiseLevels(eqx.Module):
    """A distribution of noise levels; called with ``(key, n, schedule)`` it draws from it.

    Subclasses have a field ``stratified``: whether the ``n`` draws are one from each of ``n`` equally likely parts (in
    increasing order), or independent. The mean of any loss is the same, and its variance is less with stratified draws.
    """

    stratified: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def quantile(self, u: Scalar, schedule: AbstractSchedule) -> Scalar:
        """The noise level that is not exceeded with probability ``u`` in (0, 1)."""

    def __call__(self, key: PRNGKeyArray, n: int, schedule: AbstractSchedule, dtype: Any = None) -> Float[Array, " n"]:
        """``n`` noise levels, in the units of the data."""
        return self.quantile(uniform_draws(key, n, dtype, stratified=self.stratified), schedule)


class UniformTimes(AbstractNoiseLevels):
    """Times uniform in ``[t_min, t_max]`` of the schedule."""

    stratified: bool = True

    def __check_init__(self):
        _check_fields(self)

    def quantile(self, u, schedule):
        return schedule.noise_level(schedule.t_min + (schedule.t_max - schedule.t_min) * u)


class LogNormalLevels(AbstractNoiseLevels):
    """Noise levels with ``log sigma ~ N(mean, std^2)``, whatever the schedule (Karras et al. 2022).

    **Arguments**

    - ``mean``, ``std``: moments of the logarithm of the noise level; the defaults suit data whose standard
      deviation is about 0.5 to 1.
    - ``stratified``: whether to draw one level from each of ``n`` equally likely parts.
    """

    mean: float = -1.2
    std: float = 1.2
    stratified: bool = True

    def __check_init__(self):
        _check_fields(self)

    def quantile(self, u, schedule):
        return jnp.exp(self.mean + self.std * ndtri(u))


class LogitNormalTimes(AbstractNoiseLevels):
    """Times with ``logit((t - t_min)/(t_max - t_min)) ~ N(mean, std^2)``: few at both ends of the schedule (Esser et
    al. 2024, arXiv 2403.03206, sec. 3.1).

    **Arguments**

    - ``mean``, ``std``: moments of the logit of the time; a positive ``mean`` favours large noise.
    - ``stratified``: whether to draw one level from each of ``n`` equally likely parts.
    """

    mean: float = 0.0
    std: float = 1.0
    stratified: bool = True

    def __check_init__(self):
        _check_fields(self)

    def quantile(self, u, schedule):
        fraction = jax.nn.sigmoid(self.mean + self.std * ndtri(u))
        return schedule.noise_level(schedule.t_min + (schedule.t_max - schedule.t_min) * fraction)


def _check_fields(levels: AbstractNoiseLevels) -> None:
    for field in dataclasses.fields(levels):
        value = getattr(levels, field.name)
        if field.name == "stratified":
            if not isinstance(value, bool):
                raise ValueError(f"`stratified` must be True or False, got {value!r}")
            continue
        check_finite_numbers(levels, field.name)
        if field.name == "std" and value <= 0:
            raise ValueError(f"`std` must be positive, got {value!r}")
