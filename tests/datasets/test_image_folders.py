"""Folders of images, which Pillow wrote."""

import numpy as np
import pytest
from PIL import Image

from scoregeo.datasets import load
from scoregeo.datasets.files import read_points
from scoregeo.datasets.readers import raw

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 5, 4), np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 5, 4, 3), np.uint8)


def write(folder, images, name="image-{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(i))
    return folder


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".PNG", ".ppm"])
def test_every_pixel(tmp_path, images, ending):
    data = load(write(tmp_path / "faces", images, "{}" + ending))
    assert (data.name, data.image_shape, data.labels) == ("faces", images.shape[1:], None)
    np.testing.assert_allclose(data.undo(data.points).reshape(images.shape), images, atol=1e-10)
    assert len(np.unique(data.standardization.mean)) == 1


def test_sub_folders_are_classes(tmp_path):
    for name, part in (("cats", GREY[:2]), ("apes", GREY[2:5]), ("dogs/old", GREY[5:])):
        write(tmp_path / name, part)
    data = load(tmp_path)
    assert (data.labels.tolist(), data.label_names) == ([0, 0, 0, 1, 1, 2], ("apes", "cats", "dogs"))
    np.testing.assert_allclose(data.undo(data.points).reshape(GREY.shape), GREY[[2, 3, 4, 0, 1, 5]], atol=1e-10)
    write(tmp_path, GREY[:1], "loose{}.png")
    with pytest.raises(ValueError, match=r"sub-folders, .* but 1 of 7 are in no sub-folder: loose0\.png"):
        load(tmp_path)


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_other_modes(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray((257 * GREY[0].astype(int)).astype(np.uint16))
        expected = 257.0 * GREY[0]
    elif mode == "F":
        image, expected = Image.fromarray(GREY[0] / np.float32(7)), GREY[0] / np.float32(7)
    else:
        image = Image.fromarray(GREY[0] if mode in ("1", "LA") else COLOUR[0]).convert(mode)
        expected = np.asarray(image.convert("L" if mode in ("1", "LA") else "RGB"))
    image.save(tmp_path / "a.tif")
    found = read_points(tmp_path)
    np.testing.assert_array_equal(found.points.reshape(found.image_shape), expected)


@pytest.mark.parametrize(("images", "channels"), [(GREY, 3), (COLOUR, 1)], ids=["to colour", "to grey"])
def test_channels(tmp_path, images, channels):
    found = read_points(write(tmp_path, images), channels=channels)
    mode = "RGB" if channels == 3 else "L"
    expected = np.stack([np.asarray(Image.fromarray(image).convert(mode)) for image in images])
    np.testing.assert_array_equal(found.points.reshape(expected.shape), expected)


@pytest.mark.parametrize("size", [3, [7], (2, 3), (10, 8)])
def test_size(tmp_path, size):
    """A constant stays constant, and nothing leaves the range of the pixels; Pillow's own filter says the same."""
    sides = (size, size) if isinstance(size, int) else (size[0], size[-1])
    found = read_points(write(tmp_path, [np.full((6, 9, 3), 77, np.uint8), *COLOUR[:1]]), size=size)
    assert found.image_shape == (*sides, 3)
    np.testing.assert_allclose(found.points[0], 77, rtol=1e-6)
    assert 0 <= found.points.min() <= found.points.max() <= 255
    expected = Image.fromarray(COLOUR[0]).resize(sides[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found.points[1].reshape(found.image_shape), np.asarray(expected), atol=1.01)


def test_photographs_are_turned_upright(tmp_path):
    image, exif = Image.fromarray(np.repeat(GREY[0], 16).reshape(5, 64)), Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "a.png", exif=exif)
    found = read_points(tmp_path)
    np.testing.assert_array_equal(found.points.reshape(found.image_shape), np.rot90(np.asarray(image), -1))


def test_other_files_are_left_out_and_named(tmp_path):
    write(tmp_path, GREY)
    for name in ("notes.txt", "labels.csv", ".hidden", "Thumbs.db"):
        (tmp_path / name).write_text("no image")
    with pytest.warns(UserWarning, match=r"left out 2 of 8 files, which are no images: labels\.csv, notes\.txt"):
        assert len(load(tmp_path).points) == 6


def _another_size(folder):
    Image.fromarray(GREY[0, :3]).save(folder / "z.png")


def _colour(folder):
    Image.fromarray(COLOUR[0]).save(folder / "z.png")


def _deep(folder):
    Image.fromarray(GREY[0].astype(np.uint16)).save(folder / "z.png")


def _frames(folder):
    Image.fromarray(GREY[0]).save(folder / "z.gif", save_all=True, append_images=[Image.fromarray(GREY[1])])


def _transparent(folder):
    Image.fromarray(np.dstack([COLOUR[0], GREY[0]])).save(folder / "z.png")


def _too_large(folder):
    """A header of 100,000 x 100,000 pixels, and nothing behind it."""
    Image.fromarray(GREY[0]).save(folder / "z.bmp")
    content = bytearray((folder / "z.bmp").read_bytes())
    content[18:26] = np.array([100_000, 100_000], "<i4").tobytes()
    (folder / "z.bmp").write_bytes(content)


def _cut_off(folder):
    content = (folder / "image-0.png").read_bytes()
    (folder / "z.png").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_another_size, r"one size: 6 of 7 are 5 x 4, but not 'z\.png' 3 x 4; `size` stretches them to one"),
        (_colour, r"one kind: 6 of 7 are grey, but not 'z\.png' colour; `channels` = 1 or 3 makes them alike"),
        (_deep, r"one kind: 6 of 7 are grey, but not 'z\.png' grey of type uint16"),
        (_frames, r"'z\.gif' cannot be read: it has 2 frames"),
        (_transparent, r"'z\.png' cannot be read: parts of it are transparent"),
        (_too_large, r"'z\.bmp' cannot be read: Image size \(10000000000 pixels\) exceeds limit"),
        (_cut_off, r"'z\.png' cannot be read"),
        (lambda folder: (folder / "z.jpg").write_text("text"), r"'z\.jpg' is none, whatever its ending says"),
    ],
)
def test_refusals(tmp_path, spoil, message):
    spoil(write(tmp_path, GREY))
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "`size` must be a number of pixels, or height and width, got 0"),
        ({"size": (2, 3, 4)}, r"`size` must be .*, got \(2, 3, 4\)"),
        ({"channels": 2}, r"`channels` must be 1 \(grey\) or 3 \(red, green, blue\), got 2"),
        ({"columns": ["x"]}, "`columns` is for .* but .* is a folder of images"),
    ],
)
def test_refused_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, GREY), **options)


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match=r"must be a folder with images .*, got an empty folder"):
        load(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"got other files only: a\.txt"):
        load(tmp_path)


def test_size_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "MOST_BYTES", 500)
    with pytest.raises(ValueError, match=r"unpacked, got shape \(6, 5, 4\), which is .* `size` makes them smaller"):
        load(write(tmp_path, GREY))
