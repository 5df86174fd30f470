"""Searches by Optuna: what is judged, what they find and what they refuse."""

import dataclasses
import json
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoregeo as sg
from scoregeo.adapters.optuna import DistanceToData, metric_of, search_metric, search_network
from scoregeo.adapters.optuna.metric import default_noise_levels
from scoregeo.diffusion import FitConfig, PowerEMA, evaluate_jacobian, fit
from scoregeo.geodesics.base import AbstractBoundarySolver
from scoregeo.geodesics.certificate import Measurement
from scoregeo.geodesics.curves import Polyline

pytest.importorskip("optuna")


# --- Metrics: an arc of Gaussians, whose straight lines leave the data ------------------------------------------------


def on_arc(angles):
    return np.stack([np.cos(angles), np.sin(angles)], -1)


MEANS = jnp.asarray(on_arc(np.linspace(0.2, np.pi - 0.2, 12)))


def mixture(variance):
    return sg.GaussianMixtureScore(jnp.full(12, 1 / 12), MEANS, jnp.tile(variance * jnp.eye(2), (12, 1, 1)))


ARC = mixture(0.002)
POINTS, HELD_OUT = (ARC.sample(jax.random.key(k), 200) for k in (0, 1))
ANGLES = np.random.default_rng(0).uniform([0.3, 1.8], [1.3, 2.8], (6, 2))
PAIRS = np.stack([on_arc(ANGLES[:, 0]), on_arc(ANGLES[:, 1])], 1)
POWER, OBJECTIVE = sg.ConformalMetric.power, DistanceToData(HELD_OUT)
FRAMES = 7


class Bow(AbstractBoundarySolver):
    """Bends a straight line towards the unit circle, the more the smaller the noise level of the metric is; fails where
    the path begins right of ``limit``. Compiles in a moment."""

    limit: float = 2.0

    def solve(self, metric, x, y, init, ts):
        line = x + jnp.linspace(0, 1, 2 * FRAMES + 3)[:, None] * (y - x)
        curve = Polyline(bent(line, metric.args[0], jnp))
        causes = [(x[0] > self.limit, sg.RESULTS.stalled)]
        measure = lambda *_: Measurement(jnp.zeros((), x.dtype))  # noqa: E731
        energy = jnp.sum((y - x) ** 2)
        return sg.Geodesic.from_curve(curve, ts, measure, ends=(x, y), energy=energy, stats={}, causes=causes)


def bent(line, noise_level, xp=np):
    return line + (1 - noise_level) * (line / xp.linalg.norm(line, axis=-1, keepdims=True) - line)


def bows(score, noise_level, data, ratio):
    """A metric that says no more than its noise level."""
    return sg.ConformalMetric(nothing, jnp.asarray(noise_level))


def nothing(x, level):
    return 0 * level


def straight_lines(pairs):
    return pairs[:, :1] + np.linspace(0, 1, FRAMES + 2)[:, None] * (pairs[:, 1:] - pairs[:, :1])


def judged(paths):
    """The objective, by all distances."""
    return np.linalg.norm(paths[:, 1:-1, None] - np.asarray(HELD_OUT), axis=-1).min(-1).mean(-1)


QUICK = {"solver": Bow(), "frames": FRAMES, "noise_levels": (0.01, 1.0), "ratios": (2.0, 1e3), "progress": False}
SEARCH = {"model": ARC, "family": bows, "data": POINTS, "pairs": PAIRS, "objective": OBJECTIVE} | QUICK


def test_values_are_means_over_all_pairs_and_pruned_ones_over_the_first_batches():
    found = search_metric(**SEARCH, n_trials=12, batch_size=2)
    states = [trial.state for trial in found.trials]
    assert len(states) == 12
    assert {*states} == {"complete", "pruned"}
    for trial in found.trials:
        assert trial.seen == 6 if trial.state == "complete" else trial.seen in (2, 4)
        assert trial.facts["converged"] == 1
        values = judged(bent(straight_lines(PAIRS), trial.settings["noise_level"]))
        np.testing.assert_allclose(trial.value, values[: trial.seen].mean(), rtol=1e-9)
    complete = [trial for trial in found.trials if trial.state == "complete"]
    assert found.value == min(trial.value for trial in complete)
    assert found.value < 0.5 * judged(straight_lines(PAIRS)).mean()
    assert (found.settings, found.converged) == (min(complete, key=lambda trial: trial.value).settings, 1)
    assert float(found.metric.args[0]) == found.settings["noise_level"]
    # Batches that do not divide the number of pairs change nothing.
    for size in (4, 10):
        again = search_metric(**SEARCH, n_trials=1, batch_size=size)
        np.testing.assert_allclose(again.trials[0].value, found.trials[0].value, rtol=1e-12)


@pytest.mark.slow
def test_a_search_of_metrics_goes_on_and_refuses_another(tmp_path):
    path = tmp_path / "arc.db"
    found = search_metric(**SEARCH, n_trials=3, storage=path)
    more = search_metric(**SEARCH, n_trials=5, storage=path)
    assert more.trials[:3] == found.trials
    at_once = search_metric(**SEARCH, n_trials=5).trials
    assert [(t.settings, t.value) for t in more.trials] == [(t.settings, t.value) for t in at_once]
    wider = mixture(0.003)
    for change, names in (
        ({"data": POINTS[:-1]}, "data"),
        ({"objective": DistanceToData(POINTS)}, "objective.points"),
        ({"model": wider}, r"model\.\w+"),
        ({"family": POWER}, "family"),
        ({"solver": Bow(3.0)}, r"solver\.limit"),
        ({"ratios": (2.0, 1e4)}, r"ratios: \(2.0, 10000.0\) here, \[2.0, 1000.0\] there"),
    ):
        with pytest.raises(ValueError, match=f"of another: {names}"):
            search_metric(**SEARCH | change, n_trials=10, storage=path)


def test_the_report():
    found = search_metric(**SEARCH, n_trials=2)
    text = str(found)
    assert text.splitlines()[0].strip() == "distance to held-out data"
    assert "best of 2 trials, 0 of them ended early: noise_level " in text
    assert "100% of its pairs were solved" in text
    assert sum(line.rstrip().endswith("best") for line in text.splitlines()) == 1
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert kept["settings"] == found.settings
    assert kept["trials"][1]["settings"] == found.trials[1].settings


def test_what_does_not_converge_counts_as_a_multiple_of_the_straight_line():
    """No success, however good the path looks; where nothing converges, there is no result."""
    failing = QUICK | {"solver": Bow(0.5), "failure": 3.0}
    lost = PAIRS[:, 0, 0] > 0.5
    assert 0 < lost.sum() < 6
    found = search_metric(**SEARCH | failing, n_trials=1)
    straight = judged(straight_lines(PAIRS))
    values = judged(bent(straight_lines(PAIRS), found.settings["noise_level"]))
    expected = np.where(lost, 3 * np.maximum(straight, straight.mean()), values)
    np.testing.assert_allclose(found.value, expected.mean(), rtol=1e-9)
    assert found.converged == pytest.approx(1 - lost.mean())
    with pytest.raises(RuntimeError, match="none of 2 trials solved any pair: no solve converged"):
        search_metric(**SEARCH | failing | {"pairs": PAIRS[lost]}, n_trials=2)

    def impossible(score, noise_level, data, ratio):
        raise ValueError("the data are not to my liking")

    with pytest.raises(RuntimeError, match="solved any pair: the data are not to my liking"):
        search_metric(**SEARCH | {"family": impossible}, n_trials=2)


def test_warnings_of_metrics_are_kept_beside_the_trials():
    def doubtful(*settings):
        warnings.warn("out of reach", stacklevel=2)
        return bows(*settings)

    with pytest.warns(UserWarning, match="out of reach"):  # once, of the metric that is returned
        found = search_metric(**SEARCH | {"family": doubtful}, n_trials=1)
    assert found.trials[0].facts["warning"] == "out of reach"


@pytest.mark.slow
def test_a_metric_is_found_whose_geodesics_keep_to_the_data():
    """With the solver and the metric that are used: the paths that are judged are those of single solves."""
    seen = []

    def objective(paths, indices):
        seen.append(paths)
        return OBJECTIVE(paths, indices)

    settings = {"frames": FRAMES, "batch_size": 6, "ratios": (2.0, 1e4), "progress": False}
    found = search_metric(ARC, POWER, POINTS, PAIRS, objective, n_trials=10, **settings)
    assert found.converged == 1
    assert found.value < 0.5 * judged(straight_lines(PAIRS)).mean()
    ts, solver = jnp.linspace(0, 1, FRAMES + 2), sg.SpectralNewton(rtol=1e-3, path_rtol=1e-2)
    metric = metric_of(ARC, POWER, POINTS, **found.settings)
    paths = jax.jit(jax.vmap(lambda x, y: sg.geodesic(metric, x, y, solver=solver, ts=ts).points))(
        *PAIRS.swapaxes(0, 1)
    )
    assert min(np.abs(other - paths).max() for other in seen) < 1e-6
    np.testing.assert_allclose(found.value, judged(np.asarray(paths)).mean(), rtol=1e-6)


def test_families():
    """Classes with a strength, and the score Jacobian, whose noise level a mixture does not know."""
    stein = metric_of(ARC, sg.SteinMetric, POINTS, 0.2, 5.0)
    score = ARC.noised(1.0, 0.2)
    np.testing.assert_allclose(
        stein.strength, sg.recommend_strength(sg.SteinMetric, score, POINTS, ratio=5.0), rtol=1e-12
    )
    jacobian = metric_of(ARC, sg.ScoreJacobianMetric, POINTS, 0.2, 101.0)
    assert (float(jacobian.noise_level), float(jacobian.strength)) == (0.2, 100.0)
    power = metric_of(ARC, POWER, POINTS, 0.2, 50.0)
    assert float(power.log_factor.ratio) == 50
    with pytest.raises(TypeError, match="`family` must make an AbstractMetric, got int"):
        metric_of(ARC, lambda *_: 3, POINTS, 0.2, 50.0)
    with pytest.raises(TypeError, match=r"`family` must be a class of metrics of a score, .* got LandMetric\.fit"):
        metric_of(ARC, sg.LandMetric.fit, POINTS, 0.2, 50.0)


def test_default_noise_levels():
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2)
    spread = np.sqrt((10**2 - 1) / 12)
    np.testing.assert_allclose(default_noise_levels(None, grid), (spread / 8, spread))
    np.testing.assert_allclose(default_noise_levels(None, grid / 8)[0], spread / 64)
    fine = np.random.default_rng(0).normal(size=(10_000, 2))
    low, high = default_noise_levels(None, fine)
    assert low == pytest.approx(0.02 * high)
    with pytest.raises(ValueError, match="`data` must be at least two different points"):
        default_noise_levels(None, np.ones((3, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": PAIRS[:, 0]}, r"`pairs` must have shape \(n, 2, d\)"),
        ({"pairs": PAIRS[:0]}, r"`pairs` must have shape \(n, 2, d\)"),
        ({"data": np.zeros((3, 3))}, r"`data` must have shape \(n, 2\)"),
        ({"ratios": (10.0, 1.0)}, r"`ratios` must be two positive numbers \(low, high\)"),
        ({"ratios": (0.5, 2.0)}, "`ratios` must be at least 1"),
        ({"noise_levels": (0.0, 1.0)}, "`noise_levels` must be two positive numbers"),
        ({"noise_levels": 0.1}, "`noise_levels` must be two positive numbers"),
        ({"failure": 0.5}, "`failure` must be a number of at least 1"),
        ({"frames": 0}, "`frames` must be an integer"),
        ({"batch_size": 0}, "`batch_size` must be an integer"),
        ({"n_trials": 0}, "`n_trials` must be an integer"),
        ({"seed": -1}, "`seed` must be an integer"),
        ({"objective": lambda paths, indices: -np.ones(len(paths))}, "`objective` must return a finite value of at"),
        ({"objective": lambda paths, indices: np.ones(1)}, "`objective` must return .* for each of 6 paths"),
    ],
)
def test_unusable_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        search_metric(**SEARCH | change)


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'needs Optuna: pip install "scoregeo\[tune\]"'):
        search_metric(**SEARCH)
    with pytest.raises(ImportError, match=r"scoregeo\[tune\]"):
        search_network(POINTS, HELD_OUT, [0.2])


# --- Networks ---------------------------------------------------------------------------------------------------------

TINY = FitConfig(steps=60, chunk_steps=20, batch_size=32, potential=False, warmup_steps=5, checkpoint_every=1000)
RANGES = {"widths": (4, 8), "depths": (1, 2), "learning_rates": (1e-3, 1e-2)}


@pytest.mark.slow
def test_a_network_is_found_and_is_that_of_a_training_without_looks(tmp_path):
    """Trainings that were judged in between end with the weights of those that were not."""
    settings = {"n_trials": 3, "storage": tmp_path / "network.db", "progress": False, **RANGES}
    found = search_network(np.asarray(POINTS, np.float32), HELD_OUT, [0.1, 0.3], TINY, **settings)
    assert found.config == dataclasses.replace(TINY, **found.settings)
    assert all(t.seen == 60 for t in found.trials if t.state == "complete")
    model = fit(np.asarray(POINTS, np.float32), found.config, progress=False)
    report = evaluate_jacobian(model, HELD_OUT, [0.1, 0.3], key=jax.random.key(0), draws=4)
    np.testing.assert_allclose(found.value, report.loss.mean(), rtol=1e-6)
    assert json.loads(json.dumps(found.to_dict()))["config"]["width"] == found.settings["width"]
    more = dataclasses.replace(TINY, steps=80)
    with pytest.raises(ValueError, match=r"of another: config.steps: 80 here, 60 there"):
        search_network(np.asarray(POINTS, np.float32), HELD_OUT, [0.1, 0.3], more, **settings)


@pytest.mark.slow
def test_trainings_that_diverge_have_no_value():
    settings = RANGES | {"learning_rates": (1e30, 1e31), "n_trials": 1, "progress": False}
    with pytest.raises(RuntimeError, match="none of 1 trials was completed"):
        search_network(np.asarray(POINTS, np.float32), HELD_OUT, [0.1], TINY, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": np.zeros((3, 3))}, r"`held_out` must have shape \(n, 2\)"),
        ({"sigmas": [-1.0]}, "`sigmas` must be a sequence of positive"),
        ({"widths": (8, 4)}, "`widths` must be two positive numbers"),
        ({"depths": (1, 2.5)}, "`depths` must be an integer"),
        ({"looks": 0}, "`looks` must be an integer"),
        ({"config": FitConfig(ema=PowerEMA(snapshots=4))}, "`config` must have an `ema` without snapshots"),
    ],
)
def test_unusable_arguments_of_networks(change, message):
    arguments = {"data": POINTS, "held_out": HELD_OUT, "sigmas": [0.1], "config": TINY, "n_trials": 1}
    with pytest.raises(ValueError, match=message):
        search_network(**arguments | change)


def test_a_config_is_a_config():
    with pytest.raises(TypeError, match="`config` must be a FitConfig, got dict"):
        search_network(POINTS, HELD_OUT, [0.1], {})
