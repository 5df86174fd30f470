"""Protocols: the objects of the package that they describe have what they ask for."""

import jax.numpy as jnp
import pytest

from scoregeo import EuclideanMetric, GaussianMixtureScore, GaussianScore
from scoregeo._protocols import NoisedScore, NoiseSchedule, ScoreField, ScoreModel, missing_members
from scoregeo.diffusion import EDM, VE, VP, Cosine, DiffusionModel, RectifiedFlow, SubVP


@pytest.mark.parametrize("schedule", [VP(), VE(), SubVP(), Cosine(), EDM(), RectifiedFlow()], ids=str)
def test_schedules(schedule):
    assert isinstance(schedule, NoiseSchedule)
    assert missing_members(schedule, NoiseSchedule) == []


def test_scores():
    score = GaussianScore(jnp.zeros(2), jnp.eye(2))
    mixture = GaussianMixtureScore(jnp.ones(1), jnp.zeros((1, 2)), jnp.eye(2)[None])
    for known in (score, mixture):
        assert isinstance(known, NoisedScore)
        assert isinstance(known, ScoreField)
        assert not isinstance(known, ScoreModel)
    assert issubclass(DiffusionModel, ScoreModel)
    assert not isinstance(EuclideanMetric(), NoisedScore | ScoreField | ScoreModel)


def test_missing_members():
    class Half:
        t_max = 1.0

        def log_snr(self, t):
            return -t

    assert missing_members(Half(), NoiseSchedule) == ["t_min", "alpha", "time_at_log_snr"]
    assert missing_members(None, NoiseSchedule) == ["t_min", "t_max", "alpha", "log_snr", "time_at_log_snr"]
