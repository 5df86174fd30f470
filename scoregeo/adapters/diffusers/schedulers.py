r"""diffusers' schedulers: which noise a network was trained on, and what it was trained to say.

At step ``t`` of ``T`` a network for discrete steps saw ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps`` where ``a_t``
(``alphas_cumprod``) is the product of ``1 - beta`` up to ``t``. In units of the data that is noise of standard
deviation ``r_t = sqrt((1 - a_t)/a_t)``. Between steps, ``log r`` is linear in ``t``.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._checks import check_choice, check_count, is_number
from ..._types import Scalar
from ...diffusion.schedules import VE, AbstractSchedule
from ...diffusion.schedules.base import AbstractUniformTime

PREDICTIONS = ("epsilon", "sample", "v_prediction", "score")
# Discrete steps, whatever the steps of sampling; what they are trained on is the same.
_DISCRETE = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler")
_CONTINUOUS = "ScoreSdeVeScheduler"
# The largest beta of the squared cosine, which would be 1 in the end.
_LARGEST_BETA = 0.999


def _squared_cosine(n: int) -> np.ndarray:
    """Nichol & Dhariwal 2021 (arXiv 2102.09672, eq. 17)."""
    product = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - product[1:] / product[:-1], _LARGEST_BETA)


_BETAS: dict[str, Callable[[float, float, int], np.ndarray]] = {
    "linear": np.linspace,
    "scaled_linear": lambda start, end, n: np.linspace(start**0.5, end**0.5, n) ** 2,
    "squaredcos_cap_v2": lambda start, end, n: _squared_cosine(n),
    "sigmoid": lambda start, end, n: start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, n))),
}


class DiscreteVP(AbstractUniformTime):
    """The variance-preserving path of diffusers' discrete schedulers, made continuous: ``alpha(t)^2`` is their
    ``alphas_cumprod[t]`` at integer ``t`` from 0 to ``steps - 1``, and the logarithm of the noise level is linear
    between (Ho et al. 2020, arXiv 2006.11239).

    **Arguments**

    - ``beta_schedule``: ``"linear"``, ``"scaled_linear"``, ``"squaredcos_cap_v2"`` or ``"sigmoid"``.
    - ``beta_start``, ``beta_end``: the first and the last beta (not used by ``"squaredcos_cap_v2"``).
    - ``steps``: number of betas, at least 2.
    - ``trained_betas``: the betas themselves, in (0, 1), instead of all this.
    - ``zero_snr``: rescale them so that there is no signal at the last step (Lin et al. 2024, arXiv 2305.08891), which
      is left out here, because its noise level is infinite.

    >>> from scoregeo.adapters.diffusers import DiscreteVP
    >>> schedule = DiscreteVP()
    >>> [f"{schedule.noise_level(t):.3f}" for t in (schedule.t_min, schedule.t_max)]
    ['0.010', '157.407']
    """

    beta_schedule: str = eqx.field(static=True, default="linear")
    beta_start: float = eqx.field(static=True, default=1e-4)
    beta_end: float = eqx.field(static=True, default=0.02)
    steps: int = eqx.field(static=True, default=1000)
    trained_betas: tuple[float, ...] | None = eqx.field(static=True, default=None)
    zero_snr: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_choice("beta_schedule", self.beta_schedule, _BETAS)
        check_count("steps", self.steps, 2)
        for name in ("beta_start", "beta_end"):
            if not (is_number(getattr(self, name)) and 0 < getattr(self, name) < 1):
                raise ValueError(f"`{name}` must be in (0, 1), got {getattr(self, name)!r}")
        betas = self.trained_betas
        if betas is not None and (len(betas) < 2 or not all(is_number(b) and 0 < b < 1 for b in betas)):
            raise ValueError(f"`trained_betas` must be at least two numbers in (0, 1), got {betas!r}")

    @property
    def t_min(self) -> float:
        """0, the step with the least noise."""
        return 0.0

    @property
    def t_max(self) -> float:
        """The last step with a finite noise level."""
        return float(len(_log_levels(self)) - 1)

    def alpha(self, t):
        return 1 / jnp.sqrt(1 + self.noise_level(t) ** 2)

    def sigma(self, t):
        return self.noise_level(t) * self.alpha(t)

    def noise_level(self, t):
        t, levels = self._levels(t)
        return jnp.exp(jnp.interp(t, jnp.arange(len(levels), dtype=levels.dtype), levels))

    def drift(self, t):
        return -(self.sigma(t) ** 2) * self._rate(t)

    def squared_diffusion(self, t):
        return 2 * self.sigma(t) ** 2 * self._rate(t)

    def time_at(self, noise_level):
        noise_level, levels = self._levels(noise_level)
        return jnp.interp(jnp.log(noise_level), levels, jnp.arange(len(levels), dtype=levels.dtype))

    def _levels(self, x: Any) -> tuple[Scalar, Array]:
        """``x`` and the logarithms of the noise levels, in the same precision."""
        x = jnp.asarray(x)
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
        return x, jnp.asarray(_log_levels(self), x.dtype)

    def _rate(self, t: Scalar) -> Scalar:
        """``d log r/dt``, constant between steps."""
        t, levels = self._levels(t)
        before = jnp.clip(jnp.floor(t).astype(int), 0, len(levels) - 2)
        return levels[before + 1] - levels[before]


@functools.lru_cache(maxsize=32)
def _log_levels(schedule: DiscreteVP) -> np.ndarray:
    """``log r`` at every step whose noise level is finite, in float64."""
    betas = schedule.trained_betas
    if betas is None:
        betas = _BETAS[schedule.beta_schedule](schedule.beta_start, schedule.beta_end, schedule.steps)
    product = np.cumprod(1 - np.asarray(betas, np.float64))
    if schedule.zero_snr:
        root = np.sqrt(product)
        product = (((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2)[:-1]
    return 0.5 * (np.log1p(-product) - np.log(product))


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """What a scheduler says of a network.

    **Fields**

    - ``schedule``: the noise that it was trained on, a `DiscreteVP` or a ``VE``.
    - ``prediction``: what it says: ``"epsilon"``, ``"sample"``, ``"v_prediction"`` or ``"score"``.
    - ``learned_variance``: whether half of its output is a variance, which is left out.
    """

    schedule: AbstractSchedule
    prediction: str = "epsilon"
    learned_variance: bool = False

    def __post_init__(self):
        check_choice("prediction", self.prediction, PREDICTIONS)
        if not isinstance(self.schedule, DiscreteVP | VE):
            raise TypeError(f"`schedule` must be a DiscreteVP or a VE, got {type(self.schedule).__name__}")

    def timestep(self, noise_level: Scalar) -> Scalar:
        """What the network is told at a noise level in units of the data: the step, or for ``VE`` the level itself."""
        return noise_level if isinstance(self.schedule, VE) else self.schedule.time_at(noise_level)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scheduler":
        """The scheduler of a ``scheduler_config.json``; raises ``ValueError`` for one that is not known."""
        name = values.get("_class_name")
        if name == _CONTINUOUS:
            return cls(VE(values.get("sigma_min", 0.01), values.get("sigma_max", 1348.0)), "score")
        if name not in _DISCRETE:
            known = ", ".join((*_DISCRETE, _CONTINUOUS))
            raise ValueError(f"`scheduler` must be one of {known}, got {name!r}")
        names = {"num_train_timesteps": "steps", "rescale_betas_zero_snr": "zero_snr"}
        fields = {field.name for field in dataclasses.fields(DiscreteVP)}
        given = {names.get(key, key): value for key, value in values.items() if names.get(key, key) in fields}
        if given.get("trained_betas") is not None:
            given["trained_betas"] = tuple(map(float, given["trained_betas"]))
        prediction = check_choice("prediction_type", values.get("prediction_type", "epsilon"), PREDICTIONS[:3])
        learned = values.get("variance_type") in ("learned", "learned_range")
        return cls(DiscreteVP(**given), prediction, learned)

    def to_dict(self) -> dict[str, Any]:
        """The settings of diffusers' ``DDPMScheduler`` or ``ScoreSdeVeScheduler`` for this one."""
        s = self.schedule
        if isinstance(s, VE):
            return {"_class_name": _CONTINUOUS, "sigma_min": s.sigma_min, "sigma_max": s.sigma_max}
        assert isinstance(s, DiscreteVP)
        return {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": s.steps,
            "beta_schedule": s.beta_schedule,
            "beta_start": s.beta_start,
            "beta_end": s.beta_end,
            "trained_betas": None if s.trained_betas is None else list(s.trained_betas),
            "rescale_betas_zero_snr": s.zero_snr,
            "prediction_type": self.prediction,
            "variance_type": "learned_range" if self.learned_variance else "fixed_small",
        }
