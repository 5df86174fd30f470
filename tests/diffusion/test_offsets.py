"""Data far from zero, as dates, coordinates and times are: nothing loses digits while JAX has float64 disabled."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scoregeo.cli import main
from scoregeo.datasets import Dataset, Standardization, load
from scoregeo.diffusion import (
    DDIM,
    MLP,
    Denoiser,
    DiffusionModel,
    FitConfig,
    evaluate_held_out,
    fit,
    memorization,
)
from scoregeo.diffusion.files import flatten, write_model

# Julian dates, metres of a map projection, Unix seconds: mean and standard deviation.
UNITS = [(2460000.37, 0.01), (5.4e6, 1.0), (1.7e9, 100.0)]
NAMES = ["julian", "metres", "unix"]
QUICK = FitConfig(steps=2, chunk_steps=2, batch_size=16, width=4, depth=1, learning_rate=1e-9)


@pytest.fixture(autouse=True)
def single():
    with jax.enable_x64(False):
        yield


def draws(mean, scale, n=400):
    return mean + scale * np.random.default_rng(0).normal(size=(n, 1))


def at_scale(scale):
    return dataclasses.replace(QUICK, schedule=dataclasses.replace(QUICK.schedule, sigma_max=80 * scale))


@pytest.mark.parametrize(("mean", "scale"), UNITS, ids=NAMES)
class TestEveryDoor:
    def test_standardisation_there_and_back(self, mean, scale):
        x = draws(mean, scale)
        units = Standardization.fit(x)
        np.testing.assert_allclose(units.mean, x.mean(0), rtol=1e-15)
        z = units.apply(x)
        assert isinstance(z, jax.Array)
        np.testing.assert_allclose(z, (x - x.mean(0)) / x.std(0), atol=1e-6)
        np.testing.assert_allclose(units.undo(z), x, rtol=0, atol=1e-5 * scale)

    def test_a_file(self, mean, scale, tmp_path):
        x = draws(mean, scale)
        np.save(tmp_path / "x.npy", x)
        data = load(tmp_path / "x.npy")
        np.testing.assert_allclose(data.undo(data.points), x, rtol=0, atol=1e-5 * scale)

    def test_a_model_on_disk(self, mean, scale, tmp_path):
        units = Standardization([mean], scale)
        DiffusionModel(Denoiser(MLP(1, 4, 1, key=jax.random.key(0)), 1.0), QUICK, standardization=units).save(tmp_path)
        loaded = DiffusionModel.load(tmp_path).standardization
        assert (loaded.mean.dtype, loaded.mean[0], loaded.scale) == (np.float64, mean, scale)

    @pytest.mark.slow
    def test_training_on_the_points_as_they_are(self, mean, scale, tmp_path):
        """A network that has hardly learned anything gives the normal density of the data."""
        x, config = draws(mean, scale, 4000), at_scale(scale)
        model = trained_on(x, config, x, tmp_path)
        samples = model.sample(jax.random.key(0), 1000, sampler=DDIM(steps=20))
        assert samples.dtype == np.float64
        np.testing.assert_allclose((samples.mean(), samples.std()), (mean, scale), rtol=0, atol=0.15 * scale)
        report = evaluate_held_out(model, x[:500], np.array([0.3, 1.0]) * scale, key=jax.random.key(1))
        np.testing.assert_allclose(report.calibration, 1, atol=0.15)
        assert abs(memorization(samples, x[:1000], x[1000:2000]).gap) < 0.5


def trained_on(data, config, x, folder):
    """A model of ``data``, saved and loaded, whose likelihoods are those of the points ``x``."""
    with pytest.warns(UserWarning, match="`data` have a mean of .* and a standard deviation of .* float32"):
        fit(data, config, progress=False).save(folder / "model")
    model, scale = DiffusionModel.load(folder / "model"), x.std()
    # What is set aside or held out differs, and with it the mean, but not by more than its standard error.
    np.testing.assert_allclose(model.mean, x.mean(0), rtol=0, atol=0.1 * scale)
    deviation = np.hypot(model.denoiser.sigma_data[...], config.schedule.sigma_min)
    expected = stats.norm(model.mean, deviation).logpdf(x[:20])[:, 0]
    np.testing.assert_allclose(model.log_prob(x[:20]).log_prob, expected, atol=5e-3)
    return model


class TestDates:
    """What was checked above for one way of giving data."""

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["file", "batches"])
    def test_other_sources_of_points(self, kind, tmp_path):
        mean, scale = UNITS[0]
        x = draws(mean, scale, 4000)
        np.save(tmp_path / "x.npy", x)
        data = {
            "file": np.load(tmp_path / "x.npy", mmap_mode="r"),
            "batches": iter(x[: 131 * 16].reshape(131, 16, 1)),
        }[kind]
        trained_on(data, at_scale(scale), x, tmp_path)

    @pytest.mark.slow
    def test_scores_where_float64_is_enabled_later(self):
        """As the commands do it, which certify geodesics of float32 networks in double precision."""
        mean, scale = UNITS[0]
        with pytest.warns(UserWarning, match="`data` have a mean"):
            model = fit(draws(mean, scale), at_scale(scale), progress=False)
        with jax.enable_x64(True):
            x = jnp.asarray(model.mean + scale)
            score = np.asarray(model.score_at(scale)(x))
        assert score.dtype == np.float64
        spread = float(model.denoiser.sigma_data[...])
        np.testing.assert_allclose(score, -scale / (scale**2 + spread**2), rtol=1e-5)

    @pytest.mark.slow
    def test_commands(self, tmp_path):
        mean, scale = UNITS[0]
        x = draws(mean, scale)
        options = ["--steps", "2", "--chunk-steps", "2", "--width", "4", "--learning-rate", "1e-9"]
        np.save(tmp_path / "x.npy", x)
        model = str(tmp_path / "model")
        main(["train", "--data", str(tmp_path / "x.npy"), "--out", model, *options])
        main(["sample", "--model", model, "--n", "1000", "--out", str(tmp_path / "samples.npy")])
        samples = np.load(tmp_path / "samples.npy")
        np.testing.assert_allclose((samples.mean(), samples.std()), (mean, scale), rtol=0, atol=0.15 * scale)
        main(["likelihood", "--model", model, "--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "nats.npy")])
        # The densities of the normal distribution with the moments of the points.
        expected = stats.norm(x.mean(), x.std()).logpdf(x)[:, 0]
        np.testing.assert_allclose(np.load(tmp_path / "nats.npy").mean(), expected.mean(), atol=0.05)


class TestWarnings:
    def test_where_float32_has_lost_the_digits_already(self):
        x = draws(*UNITS[0])
        units, single = Standardization.fit(x), jnp.asarray(x)
        with pytest.warns(UserWarning, match="`x` is float32 and has a mean of 2460000"):
            Standardization.fit(single)
        with pytest.warns(UserWarning, match=r"`x` is float32.* 2460000.*column 0"):
            units.apply(single)
        with pytest.warns(UserWarning, match="`points` have a mean of 2460000"):
            Dataset(x, "dates")

    def test_columns_are_looked_at_one_by_one(self):
        x = np.concatenate([np.random.default_rng(1).normal(size=(400, 1)), draws(5.4e6, 1.0)], 1)
        with pytest.warns(UserWarning, match=r"mean of 5399999\.98 .* \(column 1\)"):
            fit(x, QUICK, progress=False)

    @pytest.mark.slow
    @pytest.mark.parametrize("x", [draws(2020.0, 10.0), np.append(draws(0, 1), draws(2.5e6, 0.0), 1)])
    def test_silent_where_there_are_digits_and_for_constants(self, x):
        Dataset(x, "years")
        fit(x, QUICK, progress=False)

    def test_a_file_of_an_older_version_says_what_it_has_lost(self, tmp_path):
        """They held the mean in float32, off by up to 0.125 days here."""
        units = Standardization([2460000.37], 0.01)
        model = DiffusionModel(Denoiser(MLP(1, 4, 1, key=jax.random.key(0)), 1.0), QUICK, standardization=units)
        model.save(tmp_path)
        arrays = {name: np.asarray(array) for name, array in flatten({"denoiser": model.weights}).items()}
        arrays |= {f"standardization.{name}": np.float32(getattr(units, name)) for name in ("mean", "scale")}
        config = json.loads((tmp_path / "config.json").read_text())
        write_model(tmp_path, config, arrays)
        with pytest.warns(UserWarning, match="`standardization` of the model has a mean of 2460000.* train"):
            loaded = DiffusionModel.load(tmp_path)
        np.testing.assert_array_equal(loaded.standardization.mean, np.float32(2460000.37))


def test_traced_it_has_the_type_of_the_points():
    units, x = Standardization([2.0], 4.0), jnp.array([10.0])
    for function, expected in ((units.apply, 2.0), (units.undo, 42.0)):
        result = jax.jit(lambda x, f=function: f(x))(x)
        assert (result.dtype, result[0]) == (np.float32, expected)
    assert jax.jit(lambda units: units.apply(x))(units)[0] == 2.0


def test_a_mean_or_units_that_do_not_fit_are_refused():
    denoiser = Denoiser(MLP(2, 4, 1, key=jax.random.key(0)), 1.0)
    with pytest.raises(ValueError, match=r"`mean` must have shape \(2,\), got \(3,\)"):
        DiffusionModel(denoiser, QUICK, mean=np.zeros(3))
    with pytest.raises(TypeError, match=r"`condition_units` must be a scoregeo.datasets.Standardization, got int"):
        DiffusionModel(denoiser, QUICK, condition_units=3)
