"""How a network learns a score: schedules, preconditioned denoisers, training, samples, and how good the score is."""

from .config import FitConfig
from .evaluation import ScoreReport, evaluate_score
from .files import DamagedModelError
from .held_out import HeldOutReport, MemorizationReport, evaluate_held_out, memorization
from .losses import denoising_loss
from .model import DiffusionModel, TrainingHistory
from .networks import MLP, Potential
from .parameterization import Denoiser
from .sampling import AbstractSampler, ProbabilityFlow, ReverseSDE
from .schedules import EDM, VP, AbstractSchedule
from .training import TrainingDiverged, TrainingInterrupted, fit

__all__ = [
    "EDM",
    "MLP",
    "VP",
    "AbstractSampler",
    "AbstractSchedule",
    "DamagedModelError",
    "Denoiser",
    "DiffusionModel",
    "FitConfig",
    "HeldOutReport",
    "MemorizationReport",
    "Potential",
    "ProbabilityFlow",
    "ReverseSDE",
    "ScoreReport",
    "TrainingDiverged",
    "TrainingHistory",
    "TrainingInterrupted",
    "denoising_loss",
    "evaluate_held_out",
    "evaluate_score",
    "fit",
    "memorization",
]
