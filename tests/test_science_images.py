"""The studies of images and of peers: paths, judges, splits, and what is told of failures."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import EuclideanMetric
from scoregeo.datasets import Dataset
from scoregeo.diffusion import EDM, LatentFlow


def test_noise_diffusion_of_normal_data(science):
    """The flow of N(0, I) keeps z = x / sqrt(1 + level^2), so equation (1) is the path itself."""
    methods, level = science("_images.methods"), 1.5
    schedule = EDM()
    latent = LatentFlow(lambda x, t: -x / (1 + t**2), schedule, jnp.zeros(3), 1.0)
    start = methods.NoiseDiffusion(types.SimpleNamespace(latent=lambda: latent), level)
    x, y = jnp.array([1.0, -0.5, 3.5]), jnp.array([0.2, 2.5, -1.0])
    curve = start(EuclideanMetric(), x, y)
    for t in (0.25, 0.5):
        a, b = np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)
        mu, nu = 1.2 * a / (a + b), 1.2 * b / (a + b)
        c = np.sqrt(1 + level**2)
        expected = a * np.clip(x, -2, 2) + b * np.clip(y, -2, 2) + (mu - a) * x / c + (nu - b) * y / c
        assert np.allclose(curve(t)[0], np.clip(expected, -2, 2), atol=2e-3)
    assert np.allclose(curve(0.0)[0], x)
    assert np.allclose(curve(1.0)[0], y)


def test_distances_to_held_out_images(science):
    random = np.random.default_rng(0)
    frames, images = random.normal(size=(2, 3, 4)), random.normal(size=(5, 4))
    found = science("_images.judges").held_out_distance(frames, images)
    nearest = [[min(np.sum((f - i) ** 2) for i in images) for f in path] for path in frames]
    assert np.allclose(found, np.sqrt(np.mean(nearest, 1)))


def test_digits_are_in_one_part(science, monkeypatch):
    science("_study")
    interpolation = science("interpolation")
    monkeypatch.setattr(interpolation, "trained", lambda *_: None)
    monkeypatch.setattr(interpolation, "classifiers", lambda *_: (None, None, None))
    random = np.random.default_rng(0)
    everything = Dataset(random.normal(size=(60, 6)), "some", labels=random.integers(3, size=60))
    study = interpolation.Digits(pathlib.Path(), 1, everything, (20, 15), components=4)
    parts = [np.asarray(study.points), study.judges[0], study.ends[0]]
    assert [len(part) for part in parts] == [20, 15, 25]
    assert parts[2].shape == (25, 4)
    assert len(np.unique(np.concatenate(parts).round(9), axis=0)) == 60
    tuning, reported = ({tuple(x) for p in study.pairs("classes", 30, s) for x in p[:2]} for s in (0, 1))
    assert tuning
    assert not tuning & reported


@pytest.mark.parametrize("family", ["power", "jacobian", "decoder"])
def test_peers_are_told_the_metric(family, science):
    """A squared norm for each of them, the factors for GEORCE in a conformal metric: against the matrix."""
    science("_study")
    problems, competitors = science("problems"), science("competitors")
    (problem,) = problems.problems([f"{family}-2" if family == "decoder" else f"{family}-three_modes"])
    x, v = jnp.array([0.3, -0.2]), jnp.array([1.0, 0.4])
    matrix = problem.metric.at(x).matrix(2)
    assert np.isclose(problem.squared_norm(problem.score, problem.strength, x, v), v @ matrix @ v)
    easy = problem.family(problem.score, 1e-9).at(x).matrix(2)
    assert np.allclose(easy, easy[0, 0] * np.eye(2), atol=1e-6)
    if family != "power":
        return
    points, forces = jax.random.normal(jax.random.key(0), (2, 5, 2))
    found = []
    for method in (competitors.Georce, competitors.ConformalGeorce):
        one = method(problem, (5, 1e-3), problems.Clock())
        matrices = one.matrices(problem.score, problem.strength, points)
        found.append(one.direction(matrices, problem.strength, forces, (jnp.zeros(2), jnp.ones(2))))
    assert np.allclose(*found)


def test_failures_of_peers_are_kept(science, tmp_path):
    peers, study = science("peers"), science("_study")
    met = {"seconds": 0.2, "setting": "8"}
    not_met = {"seconds": None, "status": "out of time", "note": "", "best_error": 3e-5}
    found = {
        "verdicts": {
            "scoregeo": {"1e-04": met, "1e-06": met, "1e-08": not_met},
            "finslerax": {"1e-04": met | {"seconds": 0.5}, "1e-06": not_met, "1e-08": not_met},
        },
        "attempts": [
            {"competitor": "scoregeo", "length": 2.0, "status": "converged", "seconds": 0.2},
            {"competitor": "finslerax", "length": 2.2, "status": "converged", "seconds": 0.5},
        ],
        "reference": {"length": 2.0, "source": "known"},
    }
    table = study.Table(tmp_path / "peers.csv", 0)
    for method in ("finslerax", "scoregeo"):
        peers.add(table, "decoder-2", method, found)
    assert study.value(table.rows, "decoder-2/finslerax", "ratio_4") == 2.5
    assert study.value(table.rows, "decoder-2/finslerax", "met_6") == 0
    assert study.value(table.rows, "decoder-2/finslerax", "error") == 0.1
    shown = peers.tables(table.rows)
    assert "| decoder-2 | 200.0 ms | – |" in shown["target_four"]
    assert "| 2.5 |" in shown["target_four"]
    assert "out of time (1e-01)" in shown["target_six"]
    assert peers.figure(table.rows).axes
