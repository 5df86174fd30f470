"""Markov chains and Brownian motion in a metric: samplers with ``init`` and ``step``, as in blackjax."""

from .adaptation import AdaptedSampler, adapt_step_size
from .base import AbstractSampler, Info
from .brownian import BrownianPath, brownian_motion
from .chains import Samples, sample
from .divergence import inverse_divergence
from .geodesic_slice import GeodesicSlice, GeodesicSliceState
from .lagrangian import LagrangianMonteCarlo, LagrangianState
from .langevin import Langevin, LangevinState
from .targets import VolumeDensity, VolumeScore, riemannian_normal, with_volume

__all__ = [
    "AbstractSampler",
    "AdaptedSampler",
    "BrownianPath",
    "GeodesicSlice",
    "GeodesicSliceState",
    "Info",
    "LagrangianMonteCarlo",
    "LagrangianState",
    "Langevin",
    "LangevinState",
    "Samples",
    "VolumeDensity",
    "VolumeScore",
    "adapt_step_size",
    "brownian_motion",
    "inverse_divergence",
    "riemannian_normal",
    "sample",
    "with_volume",
]
