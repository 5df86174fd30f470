"""What 0.1.0 saved is read: a model, and the checkpoint of a run that was interrupted after half of its steps.

Release 0.1.0 wrote both to ``fixtures/0.1.0``: ``fit(POINTS, CONFIG).save("model")``, and the same call with
``checkpoint_dir="checkpoint"`` and a callback that raises ``KeyboardInterrupt`` after the first chunk.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from scoregeo.datasets import Standardization
from scoregeo.diffusion import (
    VP,
    DiffusionModel,
    FitConfig,
    LearnedWeighting,
    LogNormalLevels,
    PowerEMA,
    fit,
)

SAVED = pathlib.Path(__file__).parent / "fixtures" / "0.1.0"
INDEX = np.arange(40)
# Multiples of 1/8, so that they are the same on every machine: a checkpoint belongs to its data by their digest.
POINTS = (np.stack([7 * INDEX % 16, 5 * INDEX % 11], 1) / 8 - 0.75).astype("float32")
CONFIG = FitConfig(
    steps=8,
    batch_size=8,
    chunk_steps=4,
    warmup_steps=2,
    width=3,
    depth=1,
    ema=PowerEMA(),
    weighting=LearnedWeighting(),
    schedule=VP(),
    levels=LogNormalLevels(std=1.0),
    checkpoint_every=4,
)


@pytest.mark.slow
def test_a_model_is_read():
    model = DiffusionModel.load(SAVED / "model")
    assert model.config == CONFIG
    np.testing.assert_allclose(model.score_at(0.3)(POINTS[0]), [2.88911, 1.915233], rtol=1e-5)
    np.testing.assert_allclose(model.history.train_loss, [0.84841347, 1.00165534], rtol=1e-6)


def test_a_model_is_written_as_it_was(tmp_path):
    DiffusionModel.load(SAVED / "model").save(tmp_path)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (SAVED / "model" / name).read_bytes()


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path):
    folder = shutil.copytree(SAVED / "checkpoint", tmp_path / "checkpoint")
    resumed, whole = fit(POINTS, CONFIG, checkpoint_dir=folder, progress=False), DiffusionModel.load(SAVED / "model")
    # The first chunk comes from the file bit for bit; the second one is computed here.
    assert resumed.history.train_loss[0] == whole.history.train_loss[0]
    np.testing.assert_allclose(resumed.history.train_loss, whole.history.train_loss, rtol=1e-4)
    for one, other in zip(jax.tree.leaves(resumed.weights), jax.tree.leaves(whole.weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_is_written_as_it_was(tmp_path):
    fit(POINTS, CONFIG, checkpoint_dir=tmp_path, progress=False)
    here, there = (
        json.loads((folder / "4" / "state" / "_METADATA").read_text())["tree_metadata"]
        for folder in (tmp_path, SAVED / "checkpoint")
    )
    assert here == there
    here, there = (
        json.loads((folder / "4" / "about" / "metadata").read_text()) for folder in (tmp_path, SAVED / "checkpoint")
    )
    assert {name: here[name] for name in ("config", "data", "network")} == {
        name: there[name] for name in ("config", "data", "network")
    }


def test_a_model_keeps_the_axes_of_its_coordinates(tmp_path):
    units = Standardization(np.array([1.0, 2.0, 3.0]), 2.0, np.eye(3)[[2, 0]])
    model = fit(POINTS, CONFIG, standardization=units)
    model.save(tmp_path)
    found = DiffusionModel.load(tmp_path).standardization
    np.testing.assert_array_equal(found.axes, units.axes)
    np.testing.assert_array_equal(found.undo(POINTS), units.undo(POINTS))
