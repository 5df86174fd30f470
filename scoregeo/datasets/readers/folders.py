"""Folders of images, whose sub-folders are classes. Pillow reads them, which comes with matplotlib."""

import collections
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .raw import Options, Raw, check_memory, listed

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm")
# Files that systems leave in folders, which nobody means.
_OF_SYSTEMS = ("thumbs.db", "desktop.ini")
_ADVICE = "`size` makes them smaller"


def read_folder(path: pathlib.Path, where: str, options: Options) -> Raw:
    """The images of a folder, in the order of their names; those of its sub-folders are labelled with the names of
    these. Files that are no images are left out, and named."""
    files, others = [], []
    for file in sorted(path.rglob("*")):
        inner = file.relative_to(path)
        if any(part.startswith(".") for part in inner.parts) or file.is_dir() or file.name.lower() in _OF_SYSTEMS:
            continue
        (files if file.suffix.lower() in SUFFIXES else others).append(inner)
    if not files:
        got = f"other files only: {listed(others)}" if others else "an empty folder"
        raise ValueError(f"{where} must be a folder with images ({', '.join(SUFFIXES)}), got {got}")
    loose = [inner for inner in files if len(inner.parts) == 1]
    labels, classes = None, None
    if len(loose) < len(files):
        if loose:
            raise ValueError(
                f"{where} must have its images in sub-folders, one for each class, or all beside each other, but "
                f"{len(loose)} of {len(files)} are in no sub-folder: {listed(loose)}"
            )
        classes, labels = np.unique([inner.parts[0] for inner in files], return_inverse=True)
        classes = tuple(map(str, classes))
    names = [str(inner) for inner in files]
    values = stack_images([lambda name=name: _open(path / name) for name in names], names, where, options)
    left_out = (
        [f"left out {len(others)} of {len(files) + len(others)} files, which are no images: {listed(others)}"]
        if others
        else []
    )
    return Raw(values=values, labels=labels, label_names=classes, left_out=left_out)


def _open(file: pathlib.Path) -> Any:
    from PIL import Image

    return Image.open(file)


def stack_images(makers: Sequence[Callable[[], Any]], names: Sequence[str], where: str, options: Options) -> np.ndarray:
    """Pillow's images as one array, ``(n, height, width)`` of greys or ``(n, height, width, 3)`` of colours.

    ``makers`` opens each; ``names`` are for messages. Raises ``ValueError`` that names the images which cannot be
    read, or have another size, other channels or other depths than most.
    """
    size = _as_size(options.size)
    if options.channels not in (None, 1, 3):
        raise ValueError(f"`channels` must be 1 (grey) or 3 (red, green, blue), got {options.channels!r}")
    arrays, kinds, sizes = [], [], []
    for make, name in zip(makers, names, strict=True):
        array, kind, shape = _read(make, name, where, size, options.channels)
        if not arrays:
            check_memory((len(makers), *array.shape), where, _ADVICE)
        arrays.append(array)
        kinds.append(kind)
        sizes.append(shape)
    _refuse_others(kinds, names, f"{where} must have images of one kind", "`channels` = 1 or 3 makes them alike")
    if size is None:
        _refuse_others(sizes, names, f"{where} must have images of one size", "`size` stretches them to one")
    return np.stack(arrays)


def _as_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Height and width."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(sides) not in (1, 2) or not all(isinstance(side, int | np.integer) and side >= 1 for side in sides):
        raise ValueError(f"`size` must be a number of pixels, or height and width, got {size!r}")
    return int(sides[0]), int(sides[-1])


def _read(
    make: Callable[[], Any], name: str, where: str, size: tuple[int, int] | None, channels: int | None
) -> tuple[np.ndarray, str, str]:
    """The pixels of one image; what kind it is, and its size, in words."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        opened = make()
        if opened is None:
            raise ValueError("it is missing")
        with opened as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"it has {image.n_frames} frames, save them as files")
            image = ImageOps.exif_transpose(image)  # cameras write which side is up beside the pixels
            image = _without_alpha(image)
            kind, image = _of_kind(image, channels)
            shape = f"{image.height} x {image.width}"
            return (np.asarray(image) if size is None else _resized(image, size)), kind, shape
    except UnidentifiedImageError as error:
        raise ValueError(f"{where} must hold images, but {name!r} is none, whatever its ending says") from error
    # Pillow raises all of these for broken files, and the last for what would be too large.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} must hold images, but {name!r} cannot be read: {error}") from error


def _without_alpha(image: Any) -> Any:
    """``image`` without a layer of transparency, in which nothing may be transparent."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        grey = image.convert("RGB")
        red, green, blue = grey.split()
        if red.tobytes() == green.tobytes() == blue.tobytes() and image.mode == "RGB":
            return red
    if image.mode not in ("LA", "RGBA", "PA", "La", "RGBa"):
        return image
    image = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    if image.getchannel("A").getextrema()[0] < 255:
        raise ValueError("parts of it are transparent, put it on a background")
    return image.convert("L" if image.mode == "LA" else "RGB")


def _of_kind(image: Any, channels: int | None) -> tuple[str, Any]:
    """What the pixels of ``image`` are, in words, and the image with such pixels."""
    if image.mode in ("1", "L"):
        kind, image = "grey", image.convert("L")
    elif image.mode.startswith("I") or image.mode == "F":
        kind = f"grey of type {np.asarray(image).dtype}"
    else:
        kind, image = "colour", image.convert("RGB")
    if channels is None or kind not in ("grey", "colour"):
        return kind, image
    return ("grey", image.convert("L")) if channels == 1 else ("colour", image.convert("RGB"))


def _resized(image: Any, size: tuple[int, int]) -> np.ndarray:
    """Pixels of an image stretched to ``size``, by a triangle filter as wide as a new pixel: without ringing."""
    from PIL import Image

    def of_plane(plane: Any) -> np.ndarray:
        plane = Image.fromarray(np.asarray(plane, np.float32))
        return np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR))

    return of_plane(image) if len(image.getbands()) == 1 else np.stack([of_plane(p) for p in image.split()], -1)


def _refuse_others(kinds: Sequence[str], names: Sequence[str], must: str, advice: str) -> None:
    counts = collections.Counter(kinds)
    if len(counts) > 1:
        most, n = counts.most_common(1)[0]
        others = [f"{name!r} {kind}" for kind, name in zip(kinds, names, strict=True) if kind != most]
        raise ValueError(f"{must}: {n} of {len(kinds)} are {most}, but not {listed(others)}; {advice}")
