"""Whole figures, composed from the functions of this folder: what the demo and the command line write."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._checks import warn
from ..datasets import Dataset
from ..geodesics import Geodesic
from ..metrics import AbstractMetric, SteinMetric
from ..scores import log_prob_along
from .curves import geodesics
from .fields import density, tissot
from .images import image_strip

# Okabe & Ito's colours, which people who see colours differently tell apart; the first metric, the second, ...
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_STRAIGHT = "#333333"
# Part of the height of a picture that is seen to be missing.
_VISIBLE = 0.05

Paths = Mapping[str, Sequence[Geodesic]]
Truth = Callable[[int, np.ndarray], np.ndarray]


def suitable(
    dataset: Dataset, metric: AbstractMetric, paths: Paths, truth: Truth | None = None, *, score: Any = None
) -> tuple[str, Figure]:
    """The picture that suits the data, and what to call it: "strips" of images, the "metric" in the plane, or a
    "projection" for the rest.

    ``paths`` has the geodesics of each metric by its name, between the same pairs of points; ``metric`` gives ellipses,
    and ``score`` log p (by default that of the metric). ``truth(i, ts)`` are the points, in the units of the data,
    where the i-th path should be at times ``ts``, if anyone knows them.
    """
    if dataset.image_shape is not None:
        return "strips", strips(dataset, metric, paths, truth, score=score)
    if dataset.points.shape[1] == 2:
        return "metric", plane(dataset, metric, paths, score=score)
    return "projection", projection(dataset, paths)


def panels_size(n: int) -> tuple[float, float]:
    """Width and height of a figure of ``n`` axes side by side, in inches."""
    return 5.2 * n, 4.4


def panels(n: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with ``n`` axes side by side, for pictures that a command composes."""
    figure = Figure(figsize=panels_size(n), layout="constrained")
    return figure, list(figure.subplots(1, n, squeeze=False)[0])


def plane(dataset: Dataset, metric: Any, paths: Paths, *, score: Any = None) -> Figure:
    """A two-dimensional metric with geodesics against straight lines, and log p along both, of the ``score`` or, if
    that is ``None``, of the score of the metric."""
    score = metric.score if score is None else score
    points = np.asarray(dataset.points)
    margin = 0.15 * np.ptp(points, axis=0).max()
    xlim, ylim = ((lo - margin, hi + margin) for lo, hi in zip(points.min(0), points.max(0), strict=True))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    field, profile = figure.subplots(1, 2, width_ratios=(2.2, 1))
    # Not all scores know their density.
    log_prob = getattr(score, "log_prob", None)
    if log_prob is not None and score.conservative:
        density(field, log_prob, xlim, ylim)
    else:
        field.scatter(*points.T, s=2, c="#6BAED6", alpha=0.5, linewidths=0)
    tissot(field, metric, xlim, ylim)
    for (name, curves), color in zip(paths.items(), _COLORS, strict=False):
        geodesics(field, list(curves), straight=name == list(paths)[-1], colors=color, label=name)
    field.set_xlim(*xlim)
    field.set_ylim(*ylim)
    field.legend(loc="upper right", fontsize=9, framealpha=0.9)
    formula = " $G = I + \\lambda\\, s\\, s^T$" if isinstance(metric, SteinMetric) else ""
    field.set_title(f"Balls of the metric{formula} on the learned density", fontsize=11)
    _warn_of_curl([_profiles(profile, score, paths)])
    profile.set_title("$\\log p$ along the paths", fontsize=11)
    return figure


def strips(
    dataset: Dataset, metric: Any, paths: Paths, truth: Truth | None = None, *, columns: int = 11, score: Any = None
) -> Figure:
    """For each pair of points, images along the geodesic of every metric and along the straight line. Beside them log p
    along these or, where there is a ``truth``, their distance to it."""
    assert dataset.image_shape is not None  # of images only, says `suitable`
    pairs = len(next(iter(paths.values())))
    rows_of_pair = len(paths) + 1 + (truth is not None)
    figure = Figure(figsize=(13, (0.95 * rows_of_pair) * pairs + 0.3), layout="constrained")
    axes = figure.subplots(pairs, 2, width_ratios=(4.2, 1.2), squeeze=False)
    ts = np.linspace(0, 1, columns)
    clean = np.asarray(dataset.undo(dataset.points))
    gaps = []
    for i, (strip, profile) in enumerate(axes):
        mine = {name: [curves[i]] for name, curves in paths.items()}
        ends = next(iter(mine.values()))[0].points[jnp.array([0, -1])]
        line = ends[0] + ts[:, None] * (ends[1] - ends[0])
        rows = {name: dataset.undo(path.evaluate(ts)) for name, (path,) in mine.items()}
        rows["straight line"] = dataset.undo(line)
        if truth is None:
            gaps.append(_profiles(profile, metric.score if score is None else score, mine))
        else:
            rows["the truth"] = truth(i, ts)
            _distances(profile, dataset, mine, lambda ts, i=i: truth(i, ts))
        image_strip(strip, rows, dataset.image_shape, limits=(clean.min(), clean.max()))
        if i < pairs - 1:
            strip.set_xlabel("")
            profile.set_xlabel("")
        if i > 0:
            profile.get_legend().remove()
    _warn_of_curl(gaps)
    axes[0, 1].set_title("$\\log p$ along the paths" if truth is None else "distance to the truth", fontsize=10)
    return figure


def projection(dataset: Dataset, paths: Paths) -> Figure:
    """Geodesics and straight lines in the plane of the first two principal components of the data."""
    points = np.asarray(dataset.points)
    mean = points.mean(0)
    _, spread, axes = np.linalg.svd(points - mean, full_matrices=False)
    share = spread**2 / np.sum(spread**2)
    figure = Figure(figsize=(6, 5), layout="constrained")
    ax = figure.subplots()
    directions = axes[:2]
    if len(directions) == 1:
        # One dimension: show the path over time.
        for path, color, _ in _labelled(paths):
            ax.plot(path.ts, np.asarray(path.points)[:, 0], color=color)
            ax.plot([0, 1], np.asarray(path.points)[[0, -1], 0], "--", color=_STRAIGHT)
        ax.set_xlabel("$t$")
        ax.set_ylabel("$x$")
        return figure
    ax.scatter(*((points - mean) @ directions.T).T, s=4, c="#6BAED6", alpha=0.5, linewidths=0, label="data")
    for k, (path, color, label) in enumerate(_labelled(paths)):
        curve = (np.asarray(path.evaluate(np.linspace(0, 1, 200))) - mean) @ directions.T
        ax.plot(*curve.T, color=color, lw=2, label=label)
        ax.plot(*curve[[0, -1]].T, "--", color=_STRAIGHT, lw=1.2, label=None if k else "straight line")
    ax.set_xlabel(f"principal component 1 ({share[0]:.0%} of the variance)")
    ax.set_ylabel(f"principal component 2 ({share[1]:.0%})")
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(fontsize=9)
    return figure


def _labelled(paths: Paths) -> Iterator[tuple[Geodesic, str, str | None]]:
    """Every path with the colour of its metric, and the name of that for the first one of each."""
    for (name, curves), color in zip(paths.items(), _COLORS, strict=False):
        for path in curves:
            yield path, color, name if path is curves[0] else None


def _profiles(ax, score: Any, paths: Paths) -> tuple[float, float]:
    """log p relative to the start along geodesics (solid) and straight lines (dashed), by the line integral of the
    score. Returns how far apart the ends are that should be at one height, and the largest difference of heights."""
    ts = jnp.linspace(0, 1, 201)
    curves, lines = [], []
    for path, color, label in _labelled(paths):
        curves.append(np.asarray(log_prob_along(score, path.evaluate(ts))))
        ax.plot(ts, curves[-1], color=color, lw=1.5, label=label)
    for k, path in enumerate(next(iter(paths.values()))):
        line = jnp.linspace(path.points[0], path.points[-1], ts.size)
        style = {"color": _STRAIGHT, "lw": 1.5, "label": None if k else "straight line"}
        lines.append(np.asarray(log_prob_along(score, line)))
        ax.plot(ts, lines[-1], "--", **style)
    ax.set_ylabel("$\\log p(\\gamma(t)) - \\log p(\\gamma(0))$", fontsize=9)
    _finish(ax)
    if score.conservative:
        return 0.0, 0.0
    # Every metric has its path between the same end points as the straight line.
    gap = max(abs(curve[-1] - lines[k % len(lines)][-1]) for k, curve in enumerate(curves))
    return float(gap), float(max(map(np.ptp, curves + lines)))


def _warn_of_curl(gaps: Sequence[tuple[float, float]]) -> None:
    """Warn if log p at the end of a path, by the largest of ``gaps``, depends visibly on the path."""
    gap, height = max(gaps, default=(0.0, 0.0))
    if gap > _VISIBLE * height:
        warn(
            f"log p depends on the path, since the score has curl: along the geodesic and along the straight line to "
            f"the same end point it is {gap:.2g} nats apart, where the curves span {height:.2g}. A score without curl "
            "is learned with FitConfig(potential=True)",
        )


def _distances(ax, dataset: Dataset, paths: Paths, truth: Callable[[np.ndarray], np.ndarray]) -> None:
    """The distance to where a path should be, along geodesics (solid) and straight lines (dashed)."""
    ts = np.linspace(0, 1, 61)
    places = np.asarray(truth(ts))
    for path, color, label in _labelled(paths):
        away = np.asarray(dataset.undo(path.evaluate(ts))) - places
        ax.plot(ts, np.linalg.norm(away, axis=1), color=color, lw=1.5, label=label)
    ends = places[[0, -1]]
    away = ends[0] + ts[:, None] * (ends[1] - ends[0]) - places
    ax.plot(ts, np.linalg.norm(away, axis=1), "--", color=_STRAIGHT, lw=1.5, label="straight line")
    ax.set_ylabel("distance, in the units of the data", fontsize=9)
    _finish(ax)


def _finish(ax) -> None:
    ax.set_xlabel("$t$")
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8)
