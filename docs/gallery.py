"""Draws the pictures of the gallery, docs/images/gallery, by the scripts in examples/.

    uv run python docs/gallery.py            # all of them, about a quarter of an hour on two cores
    uv run python docs/gallery.py own_metric # or some

Each script runs as its page shows it, in an empty folder; its picture is made 600 pixels wide, in few colours, so that
a page of many loads quickly. The one of galaxies is left out: see its docstring.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from PIL import Image, ImageChops

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
WIDTH, STRIP, COLOURS = 600, 1000, 128


def shrink(picture: pathlib.Path, to: pathlib.Path) -> None:
    """Write ``picture`` to ``to`` without its white margins, 600 pixels wide (a strip 1000), in few colours."""
    with Image.open(picture) as image:
        rgb = image.convert("RGB")
    left, top, right, bottom = ImageChops.invert(rgb).getbbox() or (0, 0, *rgb.size)
    rgb = rgb.crop((max(left - 8, 0), max(top - 8, 0), min(right + 8, rgb.width), min(bottom + 8, rgb.height)))
    width = min(STRIP if rgb.width > 3 * rgb.height else WIDTH, rgb.width)
    rgb = rgb.resize((width, round(rgb.height * width / rgb.width)), Image.Resampling.LANCZOS)
    rgb.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(to, optimize=True)


def draw(name: str) -> None:
    """Run one example and keep its picture."""
    with tempfile.TemporaryDirectory() as folder:
        picture = pathlib.Path(folder) / "picture.png"
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--out", str(picture)]
        subprocess.run(command, cwd=folder, env={**os.environ, "MPLBACKEND": "Agg"}, check=True)
        shrink(picture, HERE / "images" / "gallery" / f"{name}.png")


if __name__ == "__main__":
    (HERE / "images" / "gallery").mkdir(exist_ok=True)
    for example in sys.argv[1:] or sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "galaxies"):
        print(f"== {example}", flush=True)
        draw(example)
