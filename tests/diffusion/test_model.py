"""The trained model: scores at noise levels, one trace, and files that are whole or refused."""

import json
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo.datasets import Standardization
from scoregeo.diffusion import VP, DamagedModelError, Denoiser, DiffusionModel, FitConfig, Potential, TrainingHistory
from scoregeo.diffusion import files as model_files
from scoregeo.scores import NetworkScore

X = jnp.array([0.3, -0.6, 0.2])


@pytest.fixture
def make(mlp):
    """Makes untrained models with random weights."""

    def make(seed=0, wrap=Potential, dtype=jnp.float64, **kwargs):
        denoiser = Denoiser(wrap(mlp(seed=seed, dtype=dtype)), 0.8, jnp.array([0.1, 0.2, 0.3], dtype))
        history = TrainingHistory.empty().append(10, 0.5, float("nan")).append(20, 0.4, 0.6)
        return DiffusionModel(denoiser, FitConfig(schedule=VP()), history=history, **kwargs)

    return make


class TestScore:
    @pytest.mark.slow
    def test_it_is_that_of_the_denoiser(self, make):
        model = make()
        score = model.score_at(0.3)
        assert isinstance(score, NetworkScore)
        np.testing.assert_allclose(score(X), model.denoiser.score(X, jnp.array(0.3)), rtol=1e-12)
        np.testing.assert_allclose(jax.grad(score.log_prob)(X), score(X), rtol=1e-10)

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_it_returns_the_type_of_the_point(self, make, dtype):
        assert make(dtype=jnp.float32).score_at(0.3)(X.astype(dtype)).dtype == dtype

    def test_conservative_is_passed_on(self, make):
        for wrap, expected in ((Potential, True), (lambda net: net, False)):
            model = make(wrap=wrap)
            assert model.conservative is expected
            assert model.score_at(0.3).conservative is expected

    def test_one_trace_for_levels_and_weights(self, make):
        traces = []

        @jax.jit
        def evaluate(model, sigma, x):
            traces.append(1)
            return model.score_at(sigma)(x)

        values = [evaluate(make(seed), sigma, X) for seed, sigma in ((0, 0.1), (0, 0.2), (1, 0.2))]
        assert len(traces) == 1
        assert len({float(value[0]) for value in values}) == 3

    @pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan"), float("inf")])
    def test_a_level_that_is_not_positive_is_refused(self, make, sigma):
        with pytest.raises(ValueError, match=f"`sigma` must be a positive noise level .*got {sigma}"):
            make().score_at(sigma)

    @pytest.mark.parametrize("sigma", [1e-4, 1e3])
    def test_a_level_that_was_not_trained_is_refused(self, make, sigma):
        with pytest.raises(ValueError, match=r"`sigma` must be a noise level that the model knows, from .* got"):
            make().score_at(sigma)

    def test_a_level_that_is_no_number_is_refused(self, make):
        with pytest.raises(ValueError, match=r"`sigma` must be a scalar, got shape \(2,\)"):
            make().score_at(jnp.ones(2))
        with pytest.raises(TypeError, match="`sigma` must be an array of numbers, got str"):
            make().score_at("high")

    def test_derivative_in_the_noise_level(self, make):
        model, h = make(), 1e-6
        slope = jax.jvp(lambda s: model.score_at(s)(X), (jnp.array(0.3),), (jnp.array(1.0),))[1]
        expected = (model.score_at(0.3 + h)(X) - model.score_at(0.3 - h)(X)) / (2 * h)
        np.testing.assert_allclose(slope, expected, rtol=1e-7)


class TestFiles:
    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
    @pytest.mark.parametrize("standardization", [None, Standardization(X, 2.0), Standardization(X, X**2)])
    def test_round_trip(self, make, tmp_path, dtype, standardization):
        model = make(dtype=dtype, standardization=standardization)
        model.save(tmp_path / "new" / "model")
        loaded = DiffusionModel.load(tmp_path / "new" / "model")
        assert sorted(os.listdir(tmp_path / "new" / "model")) == ["config.json", "model.safetensors"]
        assert bool(eqx.tree_equal(loaded.weights, model.weights))
        assert loaded.graphdef == model.graphdef
        assert loaded.config == model.config
        assert loaded.history.to_dict() == model.history.to_dict()
        assert bool(eqx.tree_equal(loaded.standardization, standardization))
        np.testing.assert_array_equal(loaded.score_at(0.2)(X), model.score_at(0.2)(X))

    def test_a_network_may_be_less_precise_than_the_points(self, mlp, tmp_path):
        """As it is after training a float32 network on float64 data."""
        model = DiffusionModel(Denoiser(Potential(mlp(dtype=jnp.float32)), 0.8, jnp.zeros(3, jnp.float64)), FitConfig())
        model.save(tmp_path)
        loaded = DiffusionModel.load(tmp_path)
        assert bool(eqx.tree_equal(loaded.weights, model.weights))
        assert loaded.score_at(0.2)(X).dtype == jnp.float64
        np.testing.assert_array_equal(loaded.score_at(0.2)(X), model.score_at(0.2)(X))

    def test_loading_does_not_compile_again(self, make, tmp_path):
        traces = []

        @jax.jit
        def evaluate(score):
            traces.append(1)
            return score(X)

        make().save(tmp_path)
        assert (evaluate(make().score_at(0.2)) == evaluate(DiffusionModel.load(tmp_path).score_at(0.2))).all()
        assert len(traces) == 1

    def test_saving_again_replaces(self, make, tmp_path):
        make(0).save(tmp_path)
        make(1).save(tmp_path)
        assert bool(eqx.tree_equal(DiffusionModel.load(tmp_path).weights, make(1).weights))
        assert len(os.listdir(tmp_path)) == 2

    def test_a_network_of_ones_own_is_given_on_loading(self, tmp_path):
        model = DiffusionModel(Denoiser(Affine(3.0), 0.8), FitConfig())
        model.save(tmp_path)
        with pytest.raises(TypeError, match="give `network`, a module like it"):
            DiffusionModel.load(tmp_path)
        loaded = DiffusionModel.load(tmp_path, network=Affine(0.0))
        np.testing.assert_array_equal(loaded.score_at(0.5)(X), model.score_at(0.5)(X))

    def test_a_failure_leaves_the_old_model(self, make, tmp_path, monkeypatch):
        """The disk is full after the first of two files: both old ones are still there, and nothing else."""
        make(0).save(tmp_path)
        calls = []

        def full(descriptor):
            calls.append(descriptor)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(model_files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            make(1).save(tmp_path)
        assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
        assert bool(eqx.tree_equal(DiffusionModel.load(tmp_path).weights, make(0).weights))

    def test_a_folder_that_cannot_be_written(self, make, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("here")
        with pytest.raises(NotADirectoryError, match="`directory` must be a directory that can be written to"):
            make().save(tmp_path / "file")
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(PermissionError, match=r"`directory` .* is read-only"):
            make().save(tmp_path / "model")
        assert os.listdir(tmp_path) == ["file"]

    def test_an_unknown_directory(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=f"`directory` must be a model directory .*{tmp_path / 'none'} does not exist"
        ):
            DiffusionModel.load(tmp_path / "none")


def change_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))


def rename_an_array(path):
    """A whole pair of files whose weights have another name."""
    config = json.loads((path / "config.json").read_text())
    arrays = model_files.read_weights(path, config["weights_sha256"])
    arrays["denoiser.other"] = arrays.pop("denoiser.net.net.head.bias")
    model_files.write_model(path, config, arrays)


def change_a_shape(path):
    config = json.loads((path / "config.json").read_text())
    arrays = model_files.read_weights(path, config["weights_sha256"])
    arrays["denoiser.mean"] = arrays["denoiser.mean"][:2]
    model_files.write_model(path, config, arrays)


def mix_two_saves(path, make):
    make(1).save(path / "other")
    os.replace(path / "other" / "model.safetensors", path / "model.safetensors")


DAMAGE = {
    "config missing": (lambda path, _: (path / "config.json").unlink(), "config.json is missing"),
    "config garbled": (
        lambda path, _: (path / "config.json").write_text("{"),
        "config.json is damaged: it is not JSON",
    ),
    "config binary": (lambda path, _: (path / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is damaged"),
    "config a list": (lambda path, _: (path / "config.json").write_text("[]"), "must hold a dictionary, got list"),
    "not a model": (
        lambda path, _: (path / "config.json").write_text("{}"),
        "is not a model of this version of scoregeo",
    ),
    "another version": (lambda path, _: change_config(path, version=99), "is not a model of this version of scoregeo"),
    "setting unknown": (lambda path, _: change_config(path, fit={"speed": 1}), "no settings .*speed"),
    "setting garbled": (lambda path, _: change_config(path, history=3), "is damaged"),
    "dtype unknown": (lambda path, _: change_config(path, dtype="float7"), "is damaged"),
    "network garbled": (
        lambda path, _: change_config(path, network={"kind": "MLP"}),
        "`network` of kind MLP must have",
    ),
    "standardization lost": (lambda path, _: change_config(path, standardization=True), "standardization.mean"),
    "weights missing": (lambda path, _: (path / "model.safetensors").unlink(), "model.safetensors is missing"),
    "weights garbled": (lambda path, _: (path / "model.safetensors").write_bytes(b"1234567890"), "SHA-256"),
    "weights cut": (
        lambda path, _: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-9]),
        "SHA-256",
    ),
    "names wrong": (
        lambda path, _: rename_an_array(path),
        r"missing \['denoiser.net.net.head.bias'\], unexpected \['denoiser.o",
    ),
    "shape wrong": (lambda path, _: change_a_shape(path), r"'denoiser.mean' must have shape \(3,\).*got \(2,\)"),
    "two saves": (mix_two_saves, "SHA-256"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_refused(damage, make, tmp_path):
    hurt, message = DAMAGE[damage]
    make().save(tmp_path)
    hurt(tmp_path, make)
    with pytest.raises(DamagedModelError, match=message) as caught:
        DiffusionModel.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_weights_that_are_no_safetensors(tmp_path, make):
    """Garbage with the right digest: still a clear error."""
    import hashlib

    make().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1234567890")
    change_config(tmp_path, weights_sha256=hashlib.sha256(b"1234567890").hexdigest())
    with pytest.raises(DamagedModelError, match="it is not a safetensors file"):
        DiffusionModel.load(tmp_path)


def test_float64_weights_need_float64(make, tmp_path):
    make().save(tmp_path)
    with jax.enable_x64(False), pytest.raises(TypeError, match=r"are float64; call jax\.config\.update"):
        DiffusionModel.load(tmp_path)


class Affine(nnx.Module):
    """A network that is not of this package."""

    dim = 3

    def __init__(self, slope):
        self.slope = nnx.Param(jnp.asarray(slope))

    def __call__(self, x, c_noise):
        return self.slope[...] * x + c_noise
