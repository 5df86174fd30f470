"""Networks for images that ``scoregeo train`` makes, and the shape that their models keep."""

import json

import numpy as np
import pytest
from PIL import Image

from scoregeo import cli
from scoregeo.cli._network import IMAGES_FILE, NetworkOptions, keep_image_shape, kept_image_shape
from scoregeo.cli.models import train
from scoregeo.datasets import digits
from scoregeo.diffusion import Denoiser, DiffusionModel, DiT, FitConfig, Potential, TrainingHistory, UNet
from scoregeo.plotting import image_grid

TRAIN = ["--steps", "4", "--chunk-steps", "4", "--batch-size", "8", "--warmup-steps", "1"]
SMALL = ["--network", "unet", "--net-width", "4", "--multipliers", "1", "--blocks", "1", "--heads", "1"]


@pytest.mark.slow
def test_networks_by_name():
    labels = np.array([0, 2, 1])
    unet = NetworkOptions(network="unet", net_width=8, multipliers=(1, 2), blocks=1, heads=2)
    made = unet.make(64, (8, 8), labels, FitConfig(potential=False))
    assert isinstance(made, UNet)
    assert (made.shape, made.width, made.classes, made.dim) == ((8, 8, 1), 8, 3, 64)
    dit = NetworkOptions(network="dit", net_width=16, blocks=3, patch=4, attention="linear", image_shape=(8, 8, 3))
    made = dit.make(192, None, None, FitConfig())
    assert isinstance(made, Potential)
    assert isinstance(made.net, DiT)
    assert (made.net.shape, made.net.depth, made.net.attention) == ((8, 8, 3), 3, "linear")
    assert NetworkOptions(image_shape=(8, 8)).make(64, None, None, FitConfig()) is None


def test_options_that_do_not_fit():
    with pytest.raises(ValueError, match=r"`--image-shape` must be height, width .* 64 numbers, got \(8, 9\)"):
        NetworkOptions(network="unet", image_shape=(8, 9)).make(64, None, None, FitConfig())
    with pytest.raises(ValueError, match="`--image-shape` must be given for `--network dit`"):
        NetworkOptions(network="dit").make(64, None, None, FitConfig())
    with pytest.raises(ValueError, match="`--net-width`, `--patch` need `--network unet` or `dit`, got mlp"):
        NetworkOptions(net_width=8, patch=1).make(64, None, None, FitConfig())


def pixels_of_digits(n):
    data = digits()
    return np.asarray(data.undo(data.points))[:n], np.asarray(data.labels)[:n]


@pytest.fixture
def untrained(monkeypatch):
    """What ``train`` gives to `fit`, which here makes the model of a training without steps."""
    given = []

    def fit(points, config, *, network, standardization, **settings):
        given.append((points, settings | {"standardization": standardization, "dtype": compute_dtype_of(network)}))
        history = TrainingHistory(np.array([4]), np.ones(1), np.ones(1))
        return DiffusionModel(Denoiser(network, 1.0), config, standardization=standardization, history=history)

    monkeypatch.setattr(train, "fit", fit)
    return given


def compute_dtype_of(network):
    return getattr(network, "net", network).compute_dtype


@pytest.mark.slow
def test_vectors_that_an_option_makes_images_of_with_classes_in_a_file(tmp_path, untrained):
    pixels, labels = pixels_of_digits(60)
    np.savez(tmp_path / "images.npz", x=pixels, other=labels)
    np.save(tmp_path / "labels.npy", labels)
    model = tmp_path / "model"
    words = ["--data", tmp_path / "images.npz", "--key", "x", "--image-shape", 8, 8]
    words += ["--labels", tmp_path / "labels.npy", "--out", model]
    cli.main(["train", *map(str, words), *TRAIN, *SMALL, "--no-potential"])
    ((points, settings),) = untrained
    np.testing.assert_allclose(settings["standardization"].undo(points), pixels, atol=1e-4)
    np.testing.assert_array_equal(settings["conditions"], labels)
    kept = DiffusionModel.load(model)
    assert isinstance(kept.denoiser.net, UNet)
    assert (kept.denoiser.net.shape, kept.denoiser.net.classes) == ((8, 8, 1), 10)
    assert kept_image_shape(model, kept) == (8, 8)


@pytest.mark.slow
def test_a_folder_of_images_to_pictures(tmp_path, capsys):
    """Whose sub-folders are classes."""
    pixels, labels = pixels_of_digits(30)
    for i, (image, label) in enumerate(zip(pixels.reshape(-1, 8, 8), labels, strict=True)):
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 / 16 * image).astype(np.uint8)).save(tmp_path / "images" / str(label) / f"{i}.png")
    words = ["--data", tmp_path / "images", "--labels", "data"]
    model, half = tmp_path / "model", ["--no-potential", "--compute-dtype", "bfloat16", "--accumulation", "2"]
    cli.main(["train", *map(str, words), "--out", str(model), *TRAIN, *SMALL, *half])
    kept = DiffusionModel.load(model)
    assert (kept.denoiser.net.shape, kept.denoiser.net.compute_dtype) == ((8, 8, 1), None)
    assert (kept.denoiser.net.classes, kept.config.accumulation) == (10, 2)
    assert kept_image_shape(model, kept) == (8, 8)
    grid = ["--out", str(tmp_path / "some.npy"), "--picture", str(tmp_path / "grid.png"), "--n", "9"]
    cli.main(["sample", "--model", str(model), *grid, "--sampler", "heun", "--steps", "4", "--condition", "7"])
    assert np.load(tmp_path / "some.npy").shape == (9, 64)
    with Image.open(tmp_path / "grid.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    np.save(tmp_path / "held_out.npy", pixels[:20])
    cli.main(["evaluate", "--model", str(model), "--data", str(tmp_path / "held_out.npy"), "--samples", "0"])
    assert "denoising of 20 held-out points" in capsys.readouterr().out


@pytest.mark.slow
def test_arithmetic_in_half_precision_ends_with_training(tmp_path, untrained):
    """Of a network in a potential, made for images that say their shape."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(40, 1, 16, 1)))
    words = ["--network", "dit", "--net-width", "8", "--blocks", "1", "--heads", "2", "--patch", "4"]
    half = ["--compute-dtype", "bfloat16", "--attention", "focus"]
    cli.main(["train", "--data", str(tmp_path / "images.npy"), "--out", str(tmp_path / "m"), *TRAIN, *words, *half])
    network = DiffusionModel.load(tmp_path / "m").denoiser.net.net
    assert (network.shape, network.compute_dtype, network.attention) == ((1, 16, 1), None, "focus")
    assert [settings["dtype"] for _, settings in untrained] == ["bfloat16"]


def test_the_shape_of_images_is_kept_with_their_classes(tmp_path):
    class Other:
        dim, standardization = 12, None

    keep_image_shape(tmp_path, (3, 4), ("cat", "dog"))
    assert json.loads((tmp_path / IMAGES_FILE).read_text()) == {"image_shape": [3, 4], "label_names": ["cat", "dog"]}
    assert kept_image_shape(tmp_path, Other()) == (3, 4)
    for text, message in (("{}", "is not what scoregeo wrote"), ('{"image_shape": [5, 5]}', "images of shape")):
        (tmp_path / IMAGES_FILE).write_text(text)
        with pytest.raises(ValueError, match=message):
            kept_image_shape(tmp_path, Other())
    keep_image_shape(tmp_path, None, None)
    assert not (tmp_path / IMAGES_FILE).exists()


def test_a_grid_shows_every_image_where_it_belongs():
    images = np.arange(7.0)[:, None] * np.ones((7, 4))
    shown = image_grid(images, (2, 2), columns=3).axes[0].images[0].get_array()
    assert shown.shape == (8, 8)
    centers = np.ma.filled(shown[::3, ::3], np.nan)
    np.testing.assert_array_equal(centers, [[0, 1, 2], [3, 4, 5], [6, 0, 0]])
    with pytest.raises(ValueError, match="`images` must have shape"):
        image_grid(np.zeros(4), (2, 2))
    with pytest.raises(ValueError, match="`columns`"):
        image_grid(images, (2, 2), columns=0)
