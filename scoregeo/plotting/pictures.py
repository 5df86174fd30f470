"""Whole figures, composed from the functions of this folder: what the demo and the command line write."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ..datasets import Dataset
from ..geodesics import Geodesic
from ..metrics import SteinMetric
from ..scores import log_prob_along
from .curves import geodesics
from .fields import density, tissot
from .images import image_strip

_GEODESIC, _STRAIGHT = "#D55E00", "#333333"


def suitable(dataset: Dataset, metric: SteinMetric, paths: Sequence[Geodesic]) -> tuple[str, Figure]:
    """The picture that suits the data, and what to call it: "strips" of images, the "metric" in the plane, or a
    "projection" for the rest."""
    if dataset.image_shape is not None:
        return "strips", strips(dataset, metric, paths)
    if dataset.points.shape[1] == 2:
        return "metric", plane(dataset, metric, paths)
    return "projection", projection(dataset, paths)


def plane(dataset: Dataset, metric: SteinMetric, paths: Sequence[Geodesic]) -> Figure:
    """A two-dimensional metric with geodesics against straight lines, and log p along both."""
    points = np.asarray(dataset.points)
    margin = 0.15 * np.ptp(points, axis=0).max()
    xlim, ylim = ((lo - margin, hi + margin) for lo, hi in zip(points.min(0), points.max(0), strict=True))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    field, profile = figure.subplots(1, 2, width_ratios=(2.2, 1))
    # Not all scores know their density.
    log_prob = getattr(metric.score, "log_prob", None)
    if log_prob is not None and metric.score.conservative:
        density(field, log_prob, xlim, ylim)
    else:
        field.scatter(*points.T, s=2, c="#6BAED6", alpha=0.5, linewidths=0)
    tissot(field, metric, xlim, ylim)
    geodesics(field, list(paths))
    field.set_xlim(*xlim)
    field.set_ylim(*ylim)
    field.legend(loc="upper right", fontsize=9, framealpha=0.9)
    field.set_title("Balls of the metric $G = I + \\lambda\\, s\\, s^T$ on the learned density", fontsize=11)
    _profiles(profile, metric, paths)
    profile.set_title("$\\log p$ along the paths", fontsize=11)
    return figure


def strips(dataset: Dataset, metric: SteinMetric, paths: Sequence[Geodesic], *, columns: int = 11) -> Figure:
    """For each path, images along the geodesic above and the straight line below, with log p along both beside them."""
    assert dataset.image_shape is not None  # of images only, says `suitable`
    figure = Figure(figsize=(13, 1.9 * len(paths) + 0.3), layout="constrained")
    axes = figure.subplots(len(paths), 2, width_ratios=(4.2, 1), squeeze=False)
    ts = np.linspace(0, 1, columns)
    lines = [np.linspace(path.points[0], path.points[-1], columns) for path in paths]
    clean = np.asarray(dataset.undo(dataset.points))
    for (strip, profile), path, line in zip(axes, paths, lines, strict=True):
        rows = {"geodesic": dataset.undo(path.evaluate(ts)), "straight line": dataset.undo(jnp.asarray(line))}
        image_strip(strip, rows, dataset.image_shape, limits=(clean.min(), clean.max()))
        _profiles(profile, metric, [path])
        if profile is not axes[-1, 1]:
            strip.set_xlabel("")
            profile.set_xlabel("")
        if profile is not axes[0, 1]:
            profile.get_legend().remove()
    axes[0, 1].set_title("$\\log p$ along the paths", fontsize=10)
    return figure


def projection(dataset: Dataset, paths: Sequence[Geodesic]) -> Figure:
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
        for path in paths:
            ax.plot(path.ts, np.asarray(path.points)[:, 0], color=_GEODESIC)
            ax.plot([0, 1], np.asarray(path.points)[[0, -1], 0], "--", color=_STRAIGHT)
        ax.set_xlabel("$t$")
        ax.set_ylabel("$x$")
        return figure
    ax.scatter(*((points - mean) @ directions.T).T, s=4, c="#6BAED6", alpha=0.5, linewidths=0, label="data")
    for path in paths:
        curve = (np.asarray(path.evaluate(np.linspace(0, 1, 200))) - mean) @ directions.T
        first = path is paths[0]
        ax.plot(*curve.T, color=_GEODESIC, lw=2, label="geodesic" if first else None)
        ax.plot(*curve[[0, -1]].T, "--", color=_STRAIGHT, lw=1.2, label="straight line" if first else None)
    ax.set_xlabel(f"principal component 1 ({share[0]:.0%} of the variance)")
    ax.set_ylabel(f"principal component 2 ({share[1]:.0%})")
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(fontsize=9)
    return figure


def _profiles(ax, metric: SteinMetric, paths: Sequence[Geodesic]) -> None:
    """log p relative to the start along geodesics (solid) and straight lines (dashed), by the line integral of the
    score."""
    ts = jnp.linspace(0, 1, 201)
    for path in paths:
        line = jnp.linspace(path.points[0], path.points[-1], ts.size)
        first = path is paths[0]
        curves = ((path.evaluate(ts), "-", _GEODESIC, "geodesic"), (line, "--", _STRAIGHT, "straight line"))
        for points, style, color, label in curves:
            ax.plot(
                ts, log_prob_along(metric.score, points), style, color=color, lw=1.5, label=label if first else None
            )
    ax.set_xlabel("$t$")
    ax.set_ylabel("$\\log p(\\gamma(t)) - \\log p(\\gamma(0))$", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8)
