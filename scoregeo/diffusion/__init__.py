"""How a network learns a score: schedules, networks, training, samples, likelihoods, and how good the score is."""

from .callbacks import EarlyStop, JSONLines
from .conditioning import drop_condition
from .config import FitConfig
from .conversions import convert
from .dit import DiT
from .ema import AbstractEMA, ConstantEMA, PowerEMA, WarmupEMA
from .evaluation import ScoreReport, evaluate_score
from .files import DamagedModelError
from .guidance import GuidedScore
from .held_out import HeldOutReport, MemorizationReport, evaluate_held_out, memorization
from .history import TrainingHistory
from .likelihood import Likelihood, log_prob
from .losses import asymmetry_penalty, denoising_loss, second_order_loss, stable_loss
from .model import DiffusionModel
from .networks import MLP, Potential
from .noise_levels import AbstractNoiseLevels, LogitNormalTimes, LogNormalLevels, UniformTimes
from .parameterization import Denoiser
from .posthoc import posthoc_ema
from .samplers import DDIM, AnnealedLangevin, DPMSolver, Heun, PredictorCorrector
from .sampling import AbstractSampler, LearnedMarginalScore, ProbabilityFlow, ReverseSDE
from .schedules import EDM, VE, VP, AbstractSchedule, Cosine, RectifiedFlow, SubVP
from .targets import Posterior
from .training import TrainingDiverged, TrainingInterrupted, fit
from .unet import UNet
from .weightings import (
    AbstractWeighting,
    EDMWeighting,
    LearnedWeighting,
    LikelihoodWeighting,
    MinSNRWeighting,
    SimpleWeighting,
)

__all__ = [
    "DDIM",
    "EDM",
    "MLP",
    "VE",
    "VP",
    "AbstractEMA",
    "AbstractNoiseLevels",
    "AbstractSampler",
    "AbstractSchedule",
    "AbstractWeighting",
    "AnnealedLangevin",
    "ConstantEMA",
    "Cosine",
    "DPMSolver",
    "DamagedModelError",
    "Denoiser",
    "DiT",
    "DiffusionModel",
    "EDMWeighting",
    "EarlyStop",
    "FitConfig",
    "GuidedScore",
    "HeldOutReport",
    "Heun",
    "JSONLines",
    "LearnedMarginalScore",
    "LearnedWeighting",
    "Likelihood",
    "LikelihoodWeighting",
    "LogNormalLevels",
    "LogitNormalTimes",
    "MemorizationReport",
    "MinSNRWeighting",
    "Posterior",
    "Potential",
    "PowerEMA",
    "PredictorCorrector",
    "ProbabilityFlow",
    "RectifiedFlow",
    "ReverseSDE",
    "ScoreReport",
    "SimpleWeighting",
    "SubVP",
    "TrainingDiverged",
    "TrainingHistory",
    "TrainingInterrupted",
    "UNet",
    "UniformTimes",
    "WarmupEMA",
    "asymmetry_penalty",
    "convert",
    "denoising_loss",
    "drop_condition",
    "evaluate_held_out",
    "evaluate_score",
    "fit",
    "log_prob",
    "memorization",
    "posthoc_ema",
    "second_order_loss",
    "stable_loss",
]
