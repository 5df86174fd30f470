"""Pictures that move: a figure drawn again for each of several values, as a GIF or a film."""

import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib.animation
from matplotlib.figure import Figure

from .._atomic import replacing


def write_animation(
    path: str | os.PathLike[str],
    draw: Callable[[Figure, Any], Any],
    values: Iterable[Any],
    *,
    figsize: tuple[float, float] = (6.0, 4.5),
    dpi: int = 100,
    fps: int = 10,
) -> pathlib.Path:
    """Write an animation whose frames ``draw`` makes, one for each of the ``values``; returns the path.

    **Arguments**

    - ``path``: ``.gif``, or ``.mp4`` where ffmpeg is installed. It is written under another name and renamed.
    - ``draw``: a function ``(figure, value)`` that draws one frame on an empty figure: a metric at one strength, ratio
      or noise level, a fan of one radius. Let axes have the same limits in every frame, and put the value in the title.
    - ``values``: what sweeps.
    - ``figsize``, ``dpi``, ``fps``: size in inches, dots per inch, frames per second.

    Raises ``ValueError`` for another ending, no values, or where ffmpeg is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_animation(
    ...         f"{folder}/grow.gif", lambda figure, r: figure.subplots().plot([0, r]), [1, 2, 3], figsize=(1, 1)
    ...     )
    ...     file.stat().st_size > 100
    True
    """
    path, values = pathlib.Path(path), list(values)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"`path` must end in .gif or .mp4, got {path.name}")
    if not values:
        raise ValueError("`values` must hold at least one value, got none")
    if path.suffix == ".mp4" and not matplotlib.animation.FFMpegWriter.isAvailable():
        raise ValueError(f"`path` must end in .gif, since ffmpeg, which makes films, is not installed; got {path.name}")
    make = matplotlib.animation.PillowWriter if path.suffix == ".gif" else matplotlib.animation.FFMpegWriter
    writer, figure = make(fps=fps), Figure(figsize=figsize, layout="constrained")
    draw(figure, values[0])  # before the writer begins: without a frame it ends with an error of its own
    with replacing(path) as temporary, writer.saving(figure, str(temporary), dpi):
        writer.grab_frame()
        for value in values[1:]:
            figure.clear()
            draw(figure, value)
            writer.grab_frame()
    return path
