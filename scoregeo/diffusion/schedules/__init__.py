"""Noise schedules: how much signal and how much noise a diffused point has at time ``t``."""

from .base import EDM, SCHEDULES, VE, VP, AbstractSchedule, Cosine, RectifiedFlow, SubVP, uniform_draws

__all__ = ["EDM", "SCHEDULES", "VE", "VP", "AbstractSchedule", "Cosine", "RectifiedFlow", "SubVP", "uniform_draws"]
