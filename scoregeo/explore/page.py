"""Pages to explore geometry in a browser: one file of HTML each, with everything in it."""

import functools
import html
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._atomic import replacing
from .._checks import as_points, check_count, is_number
from .._types import Point, Points, Vector
from ..fisher_rao import Normal
from ..scores import AbstractScore
from ..scores.density import as_score
from .grid import Grid, encode
from .levels import Level, levels_of, make_level
from .plane import Plane
from .references import choose_pairs, solve_references

# No page is larger, in bytes.
_LARGEST = 2_000_000
# So many points of the data are shown.
_SHOWN = 400
# The metrics of a page, in the order of its menu.
_METRICS = ("stein", "power", "score-jacobian")
# The scripts of each page, in the order in which they build on each other.
_SCRIPTS = {
    "score": (
        *("field.js", "metric.js", "solver.js", "graph.js", "geodesic.js"),
        *("picture.js", "controls.js", "score.js"),
    ),
    "normals": ("picture.js", "controls.js", "normals.js"),
}


def score_page(
    score: AbstractScore | Callable[[Point], Vector],
    data: Points | np.ndarray,
    *,
    noise_levels: Sequence[float] | float | None = None,
    plane: Plane | None = None,
    metric: str | None = None,
    noise_level: float | None = None,
    ratio: float = 100.0,
    resolution: int = 128,
    references: int = 3,
    title: str = "Geodesics of a score",
    unit: str = "units of the data",
) -> str:
    """A page of HTML on the geometry of a score: density, field, ellipses, and the geodesic between two points that
    follows while they are dragged.

    The page needs no server and no network: it has the score on a grid, and solves on that. It offers the Stein metric,
    a power of the density, and, in two dimensions at a known noise level, the score-Jacobian metric. It is computed in
    float64, whatever the default of JAX is: in float32 powers of the density overflow in the corners of a picture.

    **Arguments**

    - ``score``: an `AbstractScore`, or a function ``x -> s(x)``, in d >= 2 dimensions.
    - ``data``: ``(n, d)``, at least two points: they calibrate the metrics, as `recommend_strength` does, and some are
      shown.
    - ``noise_levels``: those of the slider, or one, in the units of the data; by default the score as it is. The score
      must be one that knows them, as a `NetworkScore` and a `KernelDensityScore` do.
    - ``plane``: for d > 2, the `Plane` to show; by default that of two principal components. Geodesics on the page are
      those of the plane, in the metric that it inherits.
    - ``metric``: which is shown at first, "stein", "power" or "score-jacobian"; by default the first that there is.
    - ``noise_level``: which of the ``noise_levels`` is shown at first, by default the one in the middle.
    - ``ratio``: how many times as much leaving the data costs at first; the slider goes from 1 to 10,000.
    - ``resolution``: steps of the grid along its longer side. A noise level should be two steps or more.
    - ``references``: for how many pairs of points the library solves the geodesic in each metric, shown beside the
      length that the page finds. Each metric takes some seconds to compile; 0 leaves that out.
    - ``title``, ``unit``: what to call the page, and the unit of length.

    Raises ``ValueError`` for data of another shape, a score that is not finite in the picture and around it, a grid
    that is too coarse for the score, and a page of more than 2 MB (fewer noise levels, or a coarser grid, make it
    smaller); ``TypeError`` for noise levels that are no numbers, or of a score that knows one only.

    >>> import jax
    >>> from scoregeo import datasets, explore
    >>> moons = datasets.two_moons(jax.random.key(0), 100)
    >>> page = explore.score_page(moons.score, moons.points, resolution=64, references=0)
    >>> page.startswith("<!DOCTYPE html>")
    True
    """
    if not (is_number(ratio) and 1 < ratio <= 1e4):
        raise ValueError(f"`ratio` must be above 1 and at most 10000, got {ratio!r}")
    check_count("resolution", resolution, 16)
    check_count("references", references, 0)
    with jax.enable_x64(True):
        points = jnp.asarray(np.asarray(as_points(data, "data"), np.float64))
        if len(points) < 2 or points.shape[1] < 2:
            raise ValueError(f"`data` must have shape (n, d) with n, d >= 2, got {points.shape}")
        levels = levels_of(as_score(score), noise_levels)
        level = _level_at(noise_level, [noise for noise, _ in levels])
        about = _score_page(levels, level, points, plane, metric, ratio, resolution, references)
    return _assemble("score", title, about | {"unit": unit})


def _score_page(
    scores: Sequence[tuple[float | None, AbstractScore]],
    level: int,
    points: Points,
    plane: Plane | None,
    metric: str | None,
    ratio: float,
    resolution: int,
    references: int,
) -> dict[str, Any]:
    """What a page is about, of arguments that are checked already; call with float64 enabled."""
    plane = plane or (Plane.whole() if points.shape[1] == 2 else Plane.principal(points))
    if plane.dim != points.shape[1]:
        raise ValueError(f"`plane` must be one of {points.shape[1]} dimensions, as `data` have, got {plane.dim}")
    shown = plane.coordinates(np.asarray(points))
    grid = Grid.around(shown, resolution)
    levels = [make_level(noise, at, points, plane, grid) for noise, at in scores]
    absent = _absent(levels, plane)
    kinds = [kind for kind in _METRICS if kind not in absent]
    if metric is not None and metric not in kinds:
        why = f": {absent[metric]}" if metric in absent else ""
        raise ValueError(f"`metric` must be one of {', '.join(kinds)}, got {metric}{why}")
    ends = shown if plane.marked is None else plane.marked
    pairs = choose_pairs(grid, levels[level], ends, ratio, max(references, 1))
    solved = (
        solve_references(levels, kinds, points, plane, grid, pairs[:references], level, ratio) if references else []
    )
    some = shown[:: -(-len(shown) // _SHOWN)]
    return {
        "grid": grid.to_dict(),
        "view": grid.view,
        "levels": [at.to_dict() for at in levels],
        "level": level,
        "metrics": kinds,
        "metric": metric or kinds[0],
        "absent": absent,
        "ratio": ratio,
        "points": encode(some),
        "start": pairs[0].tolist(),
        "references": [reference.to_dict() for reference in solved],
        "dimension": plane.dim,
        "axes": ("x₁", "x₂") if plane.is_whole else ("u₁", "u₂"),
        "plane": None if plane.is_whole else plane.description,
        "missed": max(at.missed for at in levels),
    }


def _level_at(noise: float | None, known: Sequence[float | None]) -> int:
    """Which of the ``known`` noise levels is ``noise``, by default the one in the middle."""
    if noise is None:
        return len(known) // 2
    close = [i for i, level in enumerate(known) if level is not None and abs(level / noise - 1) < 1e-6]
    if not close:
        raise ValueError(f"`noise_level` must be one of {', '.join(map(str, known))}, got {noise!r}")
    return close[0]


def _absent(levels: list[Level], plane: Plane) -> dict[str, str]:
    """Which metrics there are not at all levels, and why, for readers of the page."""
    absent: dict[str, str] = {}
    for level in levels:
        if isinstance(level.power, str):
            at = "" if level.noise is None else f"at noise level {level.noise:g} "
            absent.setdefault("power", at + level.power)
    if plane.dim > 2:
        absent["score-jacobian"] = "it needs all components of the score, of which a slice has two"
    elif any(level.noise is None for level in levels):
        absent["score-jacobian"] = "it needs a score that knows its noise level"
    return absent


def normals_page(title: str = "Geodesics between normal distributions") -> str:
    """A page of HTML on the Fisher-Rao geometry of normal distributions N(m, s^2): two of them as points of the
    half-plane, the geodesic between them, their distance, and the densities along it.

    Everything on it is a closed form. It shows the distance that `Normal` gives for the first pair beside its own.

    >>> from scoregeo import explore
    >>> "Fisher-Rao" in explore.normals_page()
    True
    """
    ends = np.array([[-1.5, 0.5], [2.0, 1.0]])
    length = float(Normal().dist(*ends))
    return _assemble("normals", title, {"start": ends.tolist(), "length": length})


def write_page(path: str | pathlib.Path, page: str) -> None:
    """Write a page to a file that ends in .html: it is whole, or not there. Raises ``ValueError`` for another
    ending."""
    path = pathlib.Path(path)
    if path.suffix != ".html":
        raise ValueError(f"`path` must end in .html, got {path}")
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


@functools.cache
def asset(name: str) -> str:
    """The text of one of the files that pages are made of."""
    return (resources.files("scoregeo.explore") / "assets" / name).read_text(encoding="utf-8")


def _assemble(kind: str, title: str, about: dict[str, Any]) -> str:
    """The page of this kind, with its style, its scripts and what it is ``about`` in it."""
    # In a script, "</script" and "<!--" mean something to a browser, wherever they stand.
    data = json.dumps(about, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "title": html.escape(title),
        "style": asset("page.css"),
        "data": data,
        "script": '"use strict";\n' + "\n".join(asset(name) for name in _SCRIPTS[kind]),
    }
    whole = asset("page.html").replace("{{body}}", asset(f"{kind}.html"))
    # All parts at once: nothing in one is taken for the name of another.
    page = re.sub(r"\{\{(title|style|script|data)\}\}", lambda name: parts[name[1]], whole)
    size = len(page.encode())
    if size > _LARGEST:
        raise ValueError(
            f"the page has {size / 1e6:.1f} MB, but must have {_LARGEST / 1e6:g} at most: take fewer `noise_levels`, "
            "or a smaller `resolution`"
        )
    return page
