"""What notebooks and terminals show: of a result a small table and a small picture, as HTML that needs nothing else; of
work that takes long, a bar."""

import html
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

# Of Okabe & Ito, told apart by the colour-blind, and visible on a light and on a dark page.
_COLOURS = ("#D55E00", "#0072B2", "#999999")
_SIZE, _MARGIN = 150, 8
# So many curves and points are drawn at most, and curves at so many places.
_MOST_CURVES, _MOST_POINTS, _PLACES = 50, 400, 65


def page(title: str, rows: Sequence[tuple[str, str]], picture: str = "") -> str:
    """``title``, a table of names and values, and an SVG ``picture`` to the right of it."""
    lines = "".join(
        f'<tr><td style="text-align:left">{html.escape(name)}</td>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows
    )
    heading = f"<strong>{html.escape(title)}</strong>"
    left = f"<div>{heading}<table>{lines}</table></div>"
    return beside(left, picture)


def captioned(picture: str, what: str) -> str:
    """A small ``picture`` with ``what`` it shows in words, for it has no axes; nothing if there is no picture."""
    return (
        f'<div style="text-align:center">{picture}<div><small>{html.escape(what)}</small></div></div>'
        if picture
        else ""
    )


def beside(table: str, picture: str) -> str:
    """A ``table`` and to the right of it a ``picture``, if there is one."""
    return f'<div style="display:flex;gap:1.5em;align-items:center">{table}{picture}</div>' if picture else table


def grid(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None = None) -> str:
    """A table under a ``title``, with ``headings``; the first column is aligned to the left."""

    def line(cells: Sequence[str], tag: str) -> str:
        sides = ("left" if i == 0 else "right" for i in range(len(cells)))
        return "".join(
            f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    below = f"<div><small>{html.escape(caption)}</small></div>" if caption else ""
    return (
        f"<div><strong>{html.escape(title)}</strong><table><tr>{line(headings, 'th')}</tr>{body}</table>{below}</div>"
    )


def curves_svg(curves: np.ndarray, failed: np.ndarray | None = None) -> str:
    """Curves ``(k, n, d)`` and the straight lines between their ends; those that ``failed`` ``(k,)`` are dashed.

    Of more than two coordinates, the two principal ones. Empty for points that are not finite.
    """
    curves = np.asarray(curves, float)[:_MOST_CURVES]
    curves = curves[:, np.linspace(0, curves.shape[1] - 1, min(curves.shape[1], _PLACES)).round().astype(int)]
    dashed = np.zeros(len(curves), bool) if failed is None else np.asarray(failed)[: len(curves)]
    finite = np.isfinite(curves).all((1, 2))
    curves, dashed = curves[finite], dashed[finite]
    if not curves.size or curves.shape[2] < 2:
        return ""
    flat = _on_the_page(_planar(curves.reshape(-1, curves.shape[2]))).reshape(*curves.shape[:2], 2)
    parts = [_polyline(curve[[0, -1]], _COLOURS[2], "2 3") for curve in flat]
    parts += [_polyline(curve, _COLOURS[0], "4 3" if d else "") for curve, d in zip(flat, dashed, strict=True)]
    parts += [_dot(end, 3, _COLOURS[1]) for curve in flat for end in curve[[0, -1]]]
    return _svg(parts, "geodesic and straight line" if len(flat) == 1 else "geodesics and straight lines")


def points_svg(points: np.ndarray, what: str) -> str:
    """Points ``(n, 2)``, each axis with a scale of its own; ``what`` they are, in words. Empty for fewer than two."""
    points = _finite(points)
    if len(points) < 2:
        return ""
    flat = _on_the_page(points, equal=False)[:: -(-len(points) // _MOST_POINTS)]
    return _svg([_dot(point, 1.5, _COLOURS[1]) for point in flat], what)


def line_svg(points: np.ndarray, what: str) -> str:
    """A line through points ``(n, 2)``, as `points_svg`."""
    points = _finite(points)
    if len(points) < 2:
        return ""
    return _svg([_polyline(_on_the_page(points, equal=False), _COLOURS[0], "")], what)


def _finite(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, float)
    return points[np.isfinite(points).all(1)]


def _planar(points: np.ndarray) -> np.ndarray:
    """``(n, 2)``: the points, or their two principal coordinates."""
    if points.shape[1] == 2:
        return points
    centred = points - points.mean(0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T


def _on_the_page(points: np.ndarray, equal: bool = True) -> np.ndarray:
    """In pixels from the upper left corner; with one scale for both axes, unless they are not to be ``equal``."""
    low, high = points.min(0), points.max(0)
    extent = np.max(high - low) if equal else high - low
    scale = (_SIZE - 2 * _MARGIN) / np.where(extent > 0, extent, 1)
    return _SIZE / 2 + scale * (points - (low + high) / 2) * [1, -1]


def _polyline(points: np.ndarray, colour: str, dashes: str) -> str:
    at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dashes}"/>'


def _dot(point: np.ndarray, radius: float, colour: str) -> str:
    return f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius:g}" fill="{colour}"/>'


def _svg(parts: Sequence[str], label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SIZE}" height="{_SIZE}" viewBox="0 0 {_SIZE} {_SIZE}" '
        f'role="img" aria-label="{html.escape(label)}">{"".join(parts)}</svg>'
    )


def live_console() -> Any:
    """The ``rich.console.Console`` on which a bar can move: standard error, if that is a terminal, or the cell of a
    notebook. ``None`` elsewhere, and in a notebook without ipywidgets, where ``rich`` would show nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_jupyter:
        return console if importlib.util.find_spec("ipywidgets") else None
    return console if sys.stderr.isatty() else None


def live_bar(name: str, total: int, told: str) -> tuple[Any, Any] | None:
    """A bar of ``rich`` that has begun, with ``told`` beside it, and its task: ``bar.update(task, completed=...,
    told=...)``, and ``bar.stop()``. ``None`` where no bar can move."""
    if (console := live_console()) is None:
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}")]
    bar = Progress(*columns, TimeRemainingColumn(), console=console)
    task = bar.add_task(name, total=total, told=told)
    bar.start()
    return bar, task
