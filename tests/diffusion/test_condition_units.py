"""Vectors that condition may come in any units: the model standardises them, as it is told in training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.diffusion import DDIM, MLP, DiffusionModel, FitConfig, evaluate_held_out, fit
from scoregeo.diffusion.files import flatten, write_model

# A year, a temperature in kelvin, micrometres in metres, and Unix seconds: mean and standard deviation.
UNITS = {"year": (2005.0, 10.0), "kelvin": (293.0, 4.0), "metres": (3e-6, 1e-6), "unix": (1.7e9, 100.0)}
CONFIG = FitConfig(steps=30, batch_size=32, width=8, depth=1, chunk_steps=30, learning_rate=0.03)
X = np.array([0.3, -0.4])


@pytest.fixture(scope="module")
def data():
    """Points whose first coordinate is about their condition, a standard normal number."""
    random = np.random.default_rng(0)
    conditions = random.normal(size=(500, 1))
    return conditions * [1.0, 0.0] + 0.2 * random.normal(size=(500, 2)), conditions


@pytest.fixture(scope="module")
def plain(data):
    return fit(data[0], CONFIG, conditions=data[1], progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_units_change_nothing(data, plain, unit):
    """Scores, guidance, samples and likelihoods are those of the same conditions as standard normal numbers."""
    mean, scale = UNITS[unit]
    model = fit(data[0], CONFIG, conditions=mean + scale * data[1], progress=False)
    condition, same = np.array([mean + 1.5 * scale]), np.array([1.5])
    expected = plain.score_at(0.3, same)(X)
    assert np.linalg.norm(plain.score_at(0.3)(X) - expected) > 0.05  # the condition does tell something
    np.testing.assert_allclose(model.score_at(0.3, condition)(X), expected, rtol=1e-4)
    key, sampler = jax.random.key(0), DDIM(steps=4)
    for settings in ({}, {"guidance": 2.0}, {"guidance": 2.0, "interval": (0.1, 1.0)}):
        one, other = (
            each.sample(key, 3, sampler=sampler, condition=c, **settings)
            for each, c in ((model, condition), (plain, same))
        )
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_likelihood_and_evaluation(data, plain):
    mean, scale = UNITS["kelvin"]
    model = fit(data[0], CONFIG, conditions=mean + scale * data[1], progress=False)
    condition, same = np.array([mean + scale]), np.array([1.0])
    values = [each.log_prob(X, condition=c).log_prob for each, c in ((model, condition), (plain, same))]
    np.testing.assert_allclose(*values, rtol=1e-4)
    reports = [
        evaluate_held_out(each, data[0][:20], (0.3,), key=jax.random.key(0), condition=c)
        for each, c in ((model, condition), (plain, same))
    ]
    np.testing.assert_allclose(reports[0].loss, reports[1].loss, rtol=1e-4)


@pytest.fixture(scope="module")
def model(data):
    return fit(data[0], CONFIG, conditions=2005 + 10 * data[1], progress=False)


@pytest.mark.slow
def test_every_way_to_give_one(data, plain, model):
    expected = plain.score_at(0.3, np.array([0.5]))(X)
    for condition in ([2010], np.array([2010]), jnp.array([2010.0]), (np.array([2010.0]), True)):
        np.testing.assert_allclose(model.score_at(0.3, condition)(X), expected, rtol=1e-4)
    traced = jax.vmap(lambda c: model.score_at(0.3, c)(jnp.asarray(X)))(jnp.array([[2010.0], [2020.0]]))
    np.testing.assert_allclose(traced[0], expected, rtol=1e-4)
    for nothing in ((np.array([np.nan]), False), (np.array([2010.0]), False)):
        np.testing.assert_allclose(model.score_at(0.3, nothing)(X), model.score_at(0.3)(X), rtol=1e-12)
    with pytest.raises(ValueError, match=r"`condition` of this MLP must be a vector of shape \(1,\)"):
        model.score_at(0.3, np.ones(2))


def test_the_map_is_that_of_the_points_trained_on_and_travels(data, model, tmp_path):
    units = model.condition_units
    np.testing.assert_allclose((units.mean[0], units.scale[0]), (2005, 10), rtol=0.1)
    model.save(tmp_path)
    loaded = DiffusionModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.condition_units.mean, units.mean)
    condition = np.array([2010.0])
    np.testing.assert_array_equal(loaded.score_at(0.3, condition)(X), model.score_at(0.3, condition)(X))
    np.testing.assert_array_equal(
        loaded.with_compute_dtype(None).score_at(0.3, condition)(X), model.score_at(0.3, condition)(X)
    )


def test_models_without_the_map_get_conditions_as_they_are(model, tmp_path):
    """As version 0.1 wrote them."""
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["condition_units"]
    write_model(tmp_path, config, {name: np.asarray(a) for name, a in flatten({"denoiser": model.weights}).items()})
    loaded = DiffusionModel.load(tmp_path)
    assert loaded.condition_units is None
    condition = jnp.array([0.5])
    expected = model.denoiser.score(jnp.asarray(X), jnp.array(0.3), condition)
    np.testing.assert_allclose(loaded.score_at(0.3, condition)(X), expected, rtol=1e-12)


def test_batches_and_networks_that_are_given_are_told_the_same(data):
    """Of batches, the first few give the map."""
    network = MLP(2, 8, 1, condition_dim=1, key=jax.random.key(0))
    rows = np.random.default_rng(1).integers(0, 500, (100, 32))
    scores = []
    for shift, scale in ((0.0, 1.0), (2005.0, 10.0)):
        batches = ((data[0][row], shift + scale * data[1][row]) for row in rows)
        model = fit(batches, CONFIG, network=network, progress=False)
        scores.append(model.score_at(0.3, np.array([shift + 0.5 * scale]))(X))
    np.testing.assert_allclose(*scores, rtol=1e-4)


def test_labels_have_no_units(data):
    model = fit(data[0], CONFIG, conditions=(data[1][:, 0] > 0).astype(int), progress=False)
    assert model.condition_units is None
