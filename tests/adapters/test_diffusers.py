"""Folders of diffusers against what torch computed (see make_golden.py), as models, and what is refused."""

import json
import pickle
import re
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_check import PLACE, errors, golden
from safetensors.numpy import load_file, save_file

from scoregeo import GaussianScore, PullbackMetric, SpectralNewton, SteinMetric, geodesic, verify
from scoregeo.adapters.diffusers import (
    DiffusersNetwork,
    DiscreteVP,
    Scheduler,
    UNet2DModel,
    UNetSettings,
    load_autoencoder,
    load_diffusers,
    save_diffusers,
)
from scoregeo.adapters.diffusers.layers import GroupNorm
from scoregeo.datasets import Standardization
from scoregeo.diffusion import (
    DDIM,
    MLP,
    VE,
    DamagedModelError,
    Denoiser,
    DiffusionModel,
    FitConfig,
    evaluate_score,
    fit,
)

NAMES = ("ddpm", "scale_shift", "fourier", "skip", "resnets")  # of which the last two have schedulers like the others
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def models():
    return {name: load_diffusers(PLACE / name) for name in NAMES}


@pytest.fixture
def folder(tmp_path):
    """A copy that a test may change."""
    shutil.copytree(PLACE / "fourier", tmp_path / "pipeline")
    return tmp_path / "pipeline"


@jax.jit
def value_of(score, x):
    return score(x)


@jax.jit
def values_of(score, xs):
    return jax.vmap(score)(xs)


def assert_same(model, other, error=0.0):
    """The same structure, and the same weights up to rounding."""
    assert model.graphdef == other.graphdef
    assert model.schedule == other.schedule
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=error), model.weights, other.weights)


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# --- The network ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_value_and_derivatives_are_those_of_torch(models, name):
    _, expected, t = golden(name)
    network = models[name].denoiser.net.unet
    found = errors(lambda x: network(x, jnp.float32(t)), expected)
    assert max(found.values()) < 1e-5, found


def test_normalisation_of_a_large_image_loses_few_digits():
    """Flax's, whose numbers are added one by one here, is 1.4e-6 off (in the mean), and this 8e-8."""
    images = 0.5 + jax.random.normal(jax.random.key(0), (2, 1, 256, 256, 8))
    layer = GroupNorm(8, 2, epsilon=1e-6, rngs=nnx.Rngs(0))
    scale, bias = jnp.arange(1, 9, dtype=jnp.float32), jnp.arange(8, dtype=jnp.float32)
    layer.scale[...], layer.bias[...] = scale, bias
    same = nnx.GroupNorm(8, 2, epsilon=1e-6, use_fast_variance=False, rngs=nnx.Rngs(0))
    nnx.update(same, nnx.state(layer))
    exact = jax.vmap(same)(images)
    np.testing.assert_allclose(jax.vmap(layer)(images), exact, rtol=1e-9, atol=1e-12)
    found = jax.jit(jax.vmap(layer))(images.astype(jnp.float32))
    assert found.dtype == jnp.float32
    assert jnp.sqrt(jnp.mean(((found - exact) / scale) ** 2)) < 3e-7


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[:3])
def test_score_at_a_noise_level(models, name):
    """What torch's network says at a timestep, as the score of the data with noise added."""
    _, expected, t = golden(name)
    model, x, value = models[name], expected["x"].reshape(-1).astype(float), expected["value"].reshape(-1)
    if name == "fourier":  # is told the noise level, sees the point itself and says its score
        level, point, score = t, x, value
    else:
        level = model.schedule.noise_level(float(t))
        point, clear = x / model.schedule.alpha(float(t)), model.schedule.alpha(float(t))
        score = -(value if name == "ddpm" else clear * value + level * clear * x) / level
    found = value_of(model.score_at(level), jnp.asarray(point))
    np.testing.assert_allclose(found, score, atol=1e-5 * np.abs(score).max())
    if name != "ddpm":
        return
    single = value_of(model.score_at(level), jnp.asarray(point, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, score, atol=1e-4 * np.abs(score).max())


@pytest.mark.slow
def test_other_noise_levels_and_weights_do_not_compile_again(models):
    traces = []

    @jax.jit
    def value(score, x):
        traces.append(1)
        return score(x)

    x = jnp.ones(64)
    first = value(models["fourier"].score_at(0.5), x)
    second = value(load_diffusers(PLACE / "fourier").score_at(0.7), x)
    assert len(traces) == 1
    assert not jnp.allclose(first, second)
    batch = jax.jit(jax.vmap(lambda sigma: models["fourier"].score_at(sigma)(x)))(jnp.array([0.5, 0.7]))
    np.testing.assert_allclose(batch, [first, second], rtol=1e-9)


# --- Schedulers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [DiscreteVP(), DiscreteVP("squaredcos_cap_v2", steps=50), DiscreteVP(trained_betas=(0.1, 0.3, 0.2), zero_snr=True)],
)
def test_discrete_schedule(schedule):
    """The equations of every schedule, between the steps too."""
    ts = jnp.linspace(schedule.t_min, schedule.t_max, 7)[:-1] + 0.01
    alpha, sigma, drift, diffusion = (
        jax.vmap(getattr(schedule, name))(ts) for name in ("alpha", "sigma", "drift", "squared_diffusion")
    )
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-12)
    np.testing.assert_allclose(drift, jax.vmap(jax.grad(lambda t: jnp.log(schedule.alpha(t))))(ts), rtol=1e-9)
    growth = jax.vmap(jax.grad(lambda t: schedule.sigma(t) ** 2))(ts)
    np.testing.assert_allclose(diffusion, growth - 2 * drift * sigma**2, rtol=1e-9)
    np.testing.assert_allclose(jax.vmap(schedule.time_at)(sigma / alpha), ts, rtol=1e-9)


def test_linear_betas_are_products():
    betas = np.linspace(1e-4, 0.02, 1000)
    products = np.cumprod(1 - betas)
    alphas = jax.vmap(DiscreteVP().alpha)(jnp.arange(1000.0))
    np.testing.assert_allclose(alphas**2, products, rtol=1e-10)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, Scheduler(VE(0.01, 1348.0), "score")),
        (
            {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "prediction_type": "sample"},
            Scheduler(DiscreteVP("scaled_linear"), "sample"),
        ),
        (
            {"_class_name": "DDPMScheduler", "trained_betas": [0.1, 0.2], "variance_type": "learned"},
            Scheduler(DiscreteVP(trained_betas=(0.1, 0.2)), "epsilon", True),
        ),
    ],
)
def test_scheduler_settings(settings, expected):
    found = Scheduler.from_dict(settings)
    assert found == expected
    assert Scheduler.from_dict(found.to_dict()) == found


# --- Files ------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(models, tmp_path):
    for name, model in models.items():
        save_diffusers(model, tmp_path / name)
        theirs, ours = (load_file(place / name / "unet" / WEIGHTS) for place in (PLACE, tmp_path))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) and ours[key].dtype == np.float32 for key in theirs)
        assert_same(load_diffusers(tmp_path / name), model)
        index = json.loads((tmp_path / name / "model_index.json").read_text())
        assert index["_class_name"] == ("ScoreSdeVePipeline" if name in ("fourier", "skip") else "DDPMPipeline")


def test_shards_old_names_and_half_precision(models, folder):
    tensors = load_file(PLACE / "ddpm" / "unet" / WEIGHTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): value for key, value in tensors.items()}
    assert any(".proj_attn." in name for name in tensors)
    shutil.copytree(PLACE / "ddpm", folder, dirs_exist_ok=True)
    (folder / "unet" / WEIGHTS).unlink()
    shards = {
        "first.safetensors": dict(list(tensors.items())[::2]),
        "second.safetensors": dict(list(tensors.items())[1::2]),
    }
    for file, part in shards.items():
        save_file(part, folder / "unet" / file)
    places = {name: file for file, part in shards.items() for name in part}
    index = folder / "unet" / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_same(load_diffusers(folder), models["ddpm"])

    lost = {name: "first.safetensors" for name in places}
    index.write_text(json.dumps({"weight_map": lost}))
    with pytest.raises(DamagedModelError, match="names tensors that are not in their files"):
        load_diffusers(folder)
    index.write_text(json.dumps({"weight_map": lost | {"x": "third.safetensors"}}))
    with pytest.raises(DamagedModelError, match=r"third.safetensors does not exist"):
        load_diffusers(folder)
    index.write_text(json.dumps({"weight_map": places}))
    second = folder / "unet" / "second.safetensors"
    second.write_bytes(second.read_bytes()[:-40])
    with pytest.raises(DamagedModelError, match=r"second.safetensors is damaged: tensor"):
        load_diffusers(folder)

    for dtype, error in ((np.float16, 1e-3), (jnp.bfloat16, 1e-2)):
        index.unlink(missing_ok=True)
        save_file(
            {k: v.astype(dtype) for k, v in tensors.items()},
            folder / "unet" / "diffusion_pytorch_model.fp16.safetensors",
        )
        half = load_diffusers(folder)
        assert half.dtype == jnp.float32
        assert_same(half, models["ddpm"], error)


def test_a_folder_of_the_network_alone(models, folder):
    assert_same(load_diffusers(folder / "unet"), models["fourier"])  # the scheduler is beside it
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(FileNotFoundError, match=r"give the settings of the scheduler.*DDPMScheduler"):
        load_diffusers(folder / "unet")
    model = load_diffusers(folder / "unet", scheduler={"_class_name": "ScoreSdeVeScheduler"}, sample_size=(4, 8))
    assert model.dim == 32
    assert model.schedule == VE(0.01, 1348.0)


@pytest.mark.parametrize(
    ("file", "values", "error", "message"),
    [
        ("unet", {"down_block_types": ["KDownBlock2D"] * 2}, ValueError, "`down_block_types` must be one of DownBl"),
        ("unet", {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, ValueError, "must all or none have Skip in"),
        ("unet", {"up_block_types": ["SkipUpBlock2D"] * 2}, ValueError, "`out_channels` must be 3 for SkipUpBlock2D"),
        ("unet", {"norm_num_groups": None}, ValueError, "`norm_num_groups` must be an integer of at least 1"),
        ("unet", {"up_block_types": ["UpBlock2D"]}, ValueError, "`up_block_types` must have one entry for each"),
        ("unet", {"mid_block_type": "Other"}, ValueError, "`mid_block_type` must be one of UNetMidBlock2D, None"),
        ("unet", {"time_embedding_type": "learned"}, ValueError, "`time_embedding_type` must be one of positional"),
        ("unet", {"act_fn": "elu"}, ValueError, "`act_fn` must be one of silu, swish, gelu"),
        ("unet", {"downsample_type": "pool"}, ValueError, "`downsample_type` must be one of conv, resnet"),
        ("unet", {"num_class_embeds": 10}, ValueError, "`num_class_embeds` must be null"),
        ("unet", {"norm_num_groups": 3}, ValueError, "`norm_num_groups` must divide"),
        ("unet", {"add_attention": True}, ValueError, "`attention_head_dim` must be at most"),
        ("unet", {"sample_size": None}, ValueError, "`sample_size` must be a positive integer"),
        ("unet", {"sample_size": 7}, ValueError, "`sample_size` must be a positive integer, or two, divisible by 2"),
        ("unet", {"out_channels": 3}, ValueError, "1 tensors have wrong shapes|2 tensors have wrong shapes"),
        ("unet", {"_class_name": "UNet2DConditionModel"}, ValueError, "those of a UNet2DModel, got"),
        ("unet", {"block_out_channels": [4, 8]}, DamagedModelError, "2 tensors are missing"),
        ("unet", {"layers_per_block": 2}, DamagedModelError, r"tensors are missing \(.*, \.\.\.\), 0 are not known"),
        ("scheduler", {"_class_name": "EulerDiscreteScheduler"}, ValueError, "`scheduler` must be one of DDPM"),
        ("scheduler", {"_class_name": "DDPMScheduler", "beta_schedule": "laplace"}, ValueError, "`beta_schedule`"),
        ("scheduler", {"_class_name": "DDPMScheduler", "prediction_type": "flow"}, ValueError, "`prediction_type`"),
        ("scheduler", {"_class_name": "DDPMScheduler", "beta_end": 2.0}, ValueError, r"`beta_end` must be in \(0, 1\)"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(folder, file, values, error, message):
    change(folder / file / ("config.json" if file == "unet" else "scheduler_config.json"), **values)
    with pytest.raises(error, match=message):
        load_diffusers(folder)


@pytest.mark.parametrize(
    ("file", "name", "value", "known"),
    [
        ("unet/config", "down_block_types", ["KDownBlock2D"] * 2, ("DownBlock2D", "AttnSkipDownBlock2D")),
        ("unet/config", "up_block_types", ["CrossAttnUpBlock2D"] * 2, ("UpBlock2D", "ResnetUpsampleBlock2D")),
        ("unet/config", "mid_block_type", "UNetMidBlock2DCrossAttn", ("UNetMidBlock2D", "None")),
        (
            "scheduler/scheduler_config",
            "_class_name",
            "EulerDiscreteScheduler",
            ("DDIMScheduler", "DDPMScheduler"),
        ),
    ],
)
def test_unknown_parts_are_named_with_those_that_are_known(folder, file, name, value, known):
    change(folder / f"{file}.json", **{name: value})
    with pytest.raises(ValueError, match="must be one of") as error:
        load_diffusers(folder)
    said, got = str(error.value).split(", got ")
    assert (value if isinstance(value, str) else value[0]) in got
    assert set(known) <= set(re.findall(r"\w+", said))


def test_unknown_settings_are_named(folder):
    change(folder / "unet" / "config.json", decay=0.9999, power=0.75)  # of an average, as training scripts write it
    load_diffusers(folder)
    change(folder / "unet" / "config.json", attention_type="new")
    with pytest.warns(UserWarning, match=r"settings that are not known here are left out: \['attention_type'\]"):
        load_diffusers(folder)


def test_tensors_that_do_not_fit(folder):
    file = folder / "unet" / WEIGHTS
    tensors = load_file(file)
    save_file(tensors | {"spare.weight": np.zeros(3, np.float32)}, file)
    with pytest.raises(DamagedModelError, match=r"0 tensors are missing, 1 are not known \(spare.weight\)"):
        load_diffusers(folder)
    save_file({name: tensor.astype(int) for name, tensor in tensors.items()}, file)
    with pytest.raises(DamagedModelError, match=r"must hold floating-point numbers, got I64"):
        load_diffusers(folder)


def test_the_first_five_wrong_shapes_are_named(folder):
    file = folder / "unet" / WEIGHTS
    save_file({n: np.append(t, 0.0) if n.endswith(".bias") else t for n, t in load_file(file).items()}, file)
    with pytest.raises(DamagedModelError, match=r"\d+ tensors have wrong shapes \(.*, \.\.\.\)$") as error:
        load_diffusers(folder)
    assert len(re.findall(r"[\w.]+\.bias \(\d,\) for \(\d,\)", str(error.value))) == 5


@pytest.mark.parametrize(
    "about",
    [
        None,
        [],
        {},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
    ],
)
def test_a_header_that_makes_no_sense(folder, about):
    header = json.dumps({"w": about}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    (folder / "unet" / WEIGHTS).write_bytes(content)
    with pytest.raises(DamagedModelError, match=rf"{WEIGHTS} is damaged: .*'w'"):
        load_diffusers(folder)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(60), pickle.dumps(list(range(20)))])
def test_a_pickle_that_says_it_is_none(folder, content):
    """As torch writes it, a zip file, and as it did before."""
    (folder / "unet" / WEIGHTS).write_bytes(content)
    with pytest.raises(DamagedModelError, match=rf"{WEIGHTS} is damaged: it is not a whole safetensors file"):
        load_diffusers(folder)


@pytest.mark.parametrize("kept", [0, 5, 200, -40])
def test_a_truncated_file(folder, kept):
    file = folder / "unet" / WEIGHTS
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DamagedModelError, match=rf"{WEIGHTS} is damaged"):
        load_diffusers(folder)


def test_files_that_are_refused(folder, tmp_path):
    file = folder / "unet" / WEIGHTS
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"\.bin is a pickle.*use_safetensors=False\)\.save_pretrained"):
        load_diffusers(folder)
    for load, name in ((load_diffusers, "UNet2DModel"), (load_autoencoder, "AutoencoderKL")):
        with pytest.raises(ValueError, match=rf"model.ckpt is a pickle.*`{name}\.from_pretrained"):
            load(tmp_path / "model.ckpt")
    file.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match="has no other file of weights"):
        load_diffusers(folder)
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(DamagedModelError, match=r"config.json is damaged: it is not JSON"):
        load_diffusers(folder)
    with pytest.raises(FileNotFoundError, match="must be a folder that diffusers wrote"):
        load_diffusers(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="`dtype` must be a floating-point type of at least single"):
        load_diffusers(folder, dtype=jnp.bfloat16)


# --- Autoencoders -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def autoencoder():
    return load_autoencoder(PLACE / "autoencoder")


@pytest.mark.slow
def test_autoencoder_is_that_of_torch(autoencoder):
    expected = load_file(PLACE / "autoencoder" / "expected.safetensors")
    network = nnx.merge(autoencoder.graphdef, autoencoder.weights)
    for part in ("encode", "decode"):
        arrays = {name.removeprefix(f"{part}."): array for name, array in expected.items() if name.startswith(part)}
        found = errors(lambda x, part=part: getattr(network, part)(x[None])[0], arrays)
        assert max(found.values()) < 1e-5, (part, found)
    x, latents = (expected[f"encode.{name}"].reshape(-1) for name in ("x", "value"))
    np.testing.assert_allclose(value_of(autoencoder.encode, x), latents, atol=1e-5)
    assert autoencoder.shape == (8, 8, 1)
    assert autoencoder.latent_shape == (4, 4, 2)
    with pytest.raises(ValueError, match=r"`z` must have shape \(32,\)"):
        autoencoder.decode(jnp.zeros(16))


def test_autoencoder_files(autoencoder, tmp_path):
    save_diffusers(autoencoder, tmp_path / "vae")
    again = load_autoencoder(tmp_path)
    assert again.settings == autoencoder.settings
    jax.tree.map(np.testing.assert_array_equal, again.weights, autoencoder.weights)
    weights = tmp_path / "vae" / WEIGHTS
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"`AutoencoderKL\.from_pretrained"):
        load_autoencoder(tmp_path)
    weights.with_suffix(".bin").rename(weights)
    change(tmp_path / "vae" / "config.json", sample_size=16)
    assert load_autoencoder(tmp_path, sample_size=(4, 8)).latent_shape == (2, 4, 2)
    change(tmp_path / "vae" / "config.json", up_block_types=["AttnUpDecoderBlock2D"] * 2)
    with pytest.raises(ValueError, match="`up_block_types` must be one of UpDecoderBlock2D"):
        load_autoencoder(tmp_path)
    with pytest.raises(ValueError, match="those of a AutoencoderKL, got those of a UNet2DModel"):
        load_autoencoder(PLACE / "ddpm" / "unet")
    with pytest.raises(TypeError, match="must be a DiffusionModel or an AutoencoderKL, got dict"):
        save_diffusers({}, tmp_path)


QUICK = SpectralNewton(rtol=1e-3, path_rtol=1e-1, max_elements=1, degree=6, continuation=0)


@pytest.mark.slow
def test_geodesics_of_latents(autoencoder):
    """Lengths in the latent space are those of the curves of images, and no curve nearby is shorter."""
    metric = PullbackMetric(autoencoder.decode, floor=1e-2)
    a, b = 0.3 * jax.random.normal(jax.random.key(0), (2, 32), jnp.float32)
    result = geodesic(metric, a, b, solver=QUICK, ts=jnp.linspace(0, 1, 60, dtype=jnp.float32))
    assert result.points.dtype == jnp.float32

    @jax.jit
    def length(model, curve):
        images = jax.vmap(model.decode)(curve)
        steps = jnp.sum(jnp.diff(images, axis=0) ** 2, 1) + 1e-2 * jnp.sum(jnp.diff(curve, axis=0) ** 2, 1)
        return jnp.sqrt(steps).sum()

    np.testing.assert_allclose(length(autoencoder, result.points), result.length, rtol=2e-3)
    straight = length(autoencoder, jnp.linspace(a, b, 60))
    assert float(result.length) < float(straight) * (1 + 1e-5)


# --- Models -----------------------------------------------------------------------------------------------------------

SMALL = {
    "sample_size": 4,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


def small_network(prediction="v_prediction", **settings):
    unet = nnx.jit(lambda key: UNet2DModel(SMALL | settings, key=key))(jax.random.key(0))
    return DiffusersNetwork(unet, Scheduler(DiscreteVP(), prediction))


def without_weights(prediction="v_prediction", **settings):
    return DiffusersNetwork(UNet2DModel(SMALL | settings), Scheduler(DiscreteVP(), prediction))


@pytest.mark.slow
def test_networks_that_do_not_fit_their_scheduler():
    with pytest.raises(ValueError, match="`out_channels` must be 1 for 1 `in_channels`"):
        without_weights(out_channels=2)
    with pytest.raises(TypeError, match="`unet` must be a UNet2DModel"):
        DiffusersNetwork(GaussianScore(jnp.zeros(2), jnp.eye(2)), Scheduler(DiscreteVP()))
    with pytest.raises(TypeError, match="`scheduler` must be a Scheduler"):
        DiffusersNetwork(without_weights().unet, DiscreteVP())
    with pytest.raises(ValueError, match="`prediction` must be one of epsilon, sample"):
        without_weights("noise")
    with pytest.raises(TypeError, match="`schedule` must be a DiscreteVP or a VE"):
        Scheduler(FitConfig().schedule)
    network = without_weights()
    with pytest.raises(ValueError, match=r"`x` must have shape \(16,\)"):
        network(jnp.zeros(15), 0.0)
    with pytest.raises(ValueError, match="takes no conditions"):
        network(jnp.zeros(16), 0.0, 3)
    assert UNetSettings.from_dict(network.unet.settings.to_dict()) == network.unet.settings


@pytest.mark.slow
def test_a_network_that_fit_trained_is_a_pipeline(tmp_path):
    """Smooth normal images: what was learned comes closer to the true score, is written and read back."""
    places = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(16, 2)
    covariance = np.exp(-0.25 * ((places[:, None] - places) ** 2).sum(-1)) + 0.02 * np.eye(16)
    x = np.random.default_rng(0).multivariate_normal(np.full(16, 0.3), covariance, 2000).astype(np.float32)
    units = Standardization.fit(x, per_feature=False)
    data = units.apply(x)
    config = FitConfig(steps=300, batch_size=64, schedule=DiscreteVP(), holdout=0.0, chunk_steps=100)
    model = fit(data, config, network=small_network(), progress=False)
    truth = GaussianScore(jnp.zeros(16), jnp.asarray(covariance / float(units.scale) ** 2))
    untrained = MLP(16, width=4, depth=1, key=jax.random.key(0))
    isotropic = DiffusionModel(Denoiser(untrained, 1.0), FitConfig())  # that of N(0, I)
    learned, before = (evaluate_score(m, truth, [1.0], key=jax.random.key(3), n=200) for m in (model, isotropic))
    assert float(learned.score_error[0]) < 0.6 * float(before.score_error[0])
    save_diffusers(model, tmp_path)
    again = load_diffusers(tmp_path)
    points = jnp.asarray(data[:4], jnp.float32)
    for sigma in (0.05, 0.5, 20.0):
        mine, theirs = (values_of(m.score_at(sigma), points) for m in (model, again))
        np.testing.assert_allclose(theirs, mine, atol=1e-5 * float(jnp.abs(mine).max()))
    with pytest.raises(ValueError, match="must be of data of mean zero and standard deviation one"):
        save_diffusers(eqx.tree_at(lambda m: m.weights["sigma_data"], model, jnp.array(3.0)), tmp_path)
    with pytest.raises(TypeError, match="`model` must have a DiffusersNetwork"):
        save_diffusers(isotropic, tmp_path)


@pytest.mark.slow
def test_geodesics_and_samples_of_a_loaded_model(models):
    model = models["fourier"]
    samples = model.sample(jax.random.key(0), 2, sampler=DDIM(steps=20))
    assert samples.shape == (2, 64)
    assert samples.dtype == jnp.float32
    metric = SteinMetric(model.score_at(1.0), 0.1)
    x, y = 0.3 * jax.random.normal(jax.random.key(1), (2, 64), jnp.float32)
    result = geodesic(metric, x, y, solver=QUICK)
    assert float(verify(metric, result)) < 1e-2
    assert float(result.length) >= float(jnp.linalg.norm(x - y))
    np.testing.assert_allclose(geodesic(metric, y, x, solver=QUICK).length, result.length, rtol=1e-3)
