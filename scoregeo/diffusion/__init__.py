"""How a network learns a score: schedules, networks, training, samples, likelihoods, and how good the score is."""

from .config import FitConfig
from .conversions import convert
from .distillation import distill
from .evaluation.base import ScoreReport, evaluate_score
from .evaluation.held_out import HeldOutReport, MemorizationReport, evaluate_held_out, memorization
from .evaluation.jacobian import JacobianReport, evaluate_jacobian
from .files import DamagedModelError
from .history import TrainingHistory
from .model import DiffusionModel
from .networks.conditioning import drop_condition
from .networks.denoiser import Denoiser
from .networks.dit import DiT
from .networks.mlp import MLP
from .networks.potential import Potential
from .networks.unet import UNet
from .sampling.base import AbstractSampler, LearnedMarginalScore, ProbabilityFlow, ReverseSDE
from .sampling.guidance import GuidedScore
from .sampling.latent import LatentFlow
from .sampling.likelihood import Likelihood, log_prob
from .sampling.samplers import DDIM, AnnealedLangevin, DPMSolver, Heun, PredictorCorrector
from .schedules import EDM, VE, VP, AbstractSchedule, Cosine, RectifiedFlow, SubVP
from .training.callbacks import EarlyStop, JSONLines
from .training.ema import AbstractEMA, ConstantEMA, PowerEMA, WarmupEMA
from .training.fit import TrainingDiverged, TrainingInterrupted, fit
from .training.losses import asymmetry_penalty, denoising_loss, second_order_loss, stable_loss
from .training.noise_levels import AbstractNoiseLevels, LogitNormalTimes, LogNormalLevels, UniformTimes
from .training.posthoc import posthoc_ema
from .training.targets import Posterior
from .training.weightings import (
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
    "JacobianReport",
    "LatentFlow",
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
    "distill",
    "drop_condition",
    "evaluate_held_out",
    "evaluate_jacobian",
    "evaluate_score",
    "fit",
    "log_prob",
    "memorization",
    "posthoc_ema",
    "second_order_loss",
    "stable_loss",
]
