"""Figures that explain: what a geodesic is and how far it is to be trusted, and how a solve went."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .._results import status_name
from ..geodesics import Geodesic, SolveHistory, verify
from ..geodesics.checks import check_metric
from ..metrics import AbstractMetric
from ..scores import log_prob_along
from .curves import geodesics
from .fields import tissot
from .images import image_strip

_GEODESIC, _STRAIGHT = "#D55E00", "#333333"
_ENERGY, _REFUSED, _ERROR, _OTHER = "#0072B2", "#D55E00", "#009E73", "#555555"
# So many coordinates, those that vary most, are drawn where there are more than two and the points are no images.
_COORDINATES = 8


def explain(
    metric: AbstractMetric, path: Geodesic, *, image_shape: Sequence[int] | None = None, check: bool = True
) -> Figure:
    """A figure of a geodesic in any dimension: the path, log p along it, its speed, and its certificate in words.

    **Arguments**

    - ``metric``: the metric in which ``path`` was solved.
    - ``path``: one `Geodesic`, with dense output.
    - ``image_shape``: ``(h, w)`` or ``(h, w, c)`` where points are images: the path is a strip of them.
    - ``check``: whether to integrate the geodesic equation again, from the start of the path, and say how far from its
      end that arrives (`verify`).

    In the plane the path is drawn over ellipses of the metric; of more coordinates the eight that vary most are drawn
    over time. log p is the integral of the score along the curve, so it is shown where the metric has a ``score``. The
    speed, in the metric, of a geodesic is constant: what it does otherwise is error, in per cent of its mean.

    Raises ``ValueError`` for a batch of geodesics, or one whose points are not finite.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric, shoot
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> path = shoot(metric, jnp.array([-1.0, 1.0]), jnp.array([2.5, -0.5]))
    >>> len(explain(metric, path).axes)
    4
    """
    if np.ndim(path.points) != 2:
        raise ValueError(f"`path` must be one geodesic, got a batch of shape {np.shape(path.points)[:-2]}: take one")
    if not np.isfinite(np.asarray(path.points)).all():
        raise ValueError(f"`path` must have finite points; its status is {status_name(path.result)}")
    check_metric(metric, path.points[0])
    ts = jnp.linspace(0.0, 1.0, 201, dtype=path.points.dtype)
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    ((shown, words), (profile, speed)) = figure.subplots(2, 2, width_ratios=(1.35, 1), height_ratios=(1.3, 1))
    _draw_path(shown, metric, path, ts, image_shape)
    _log_prob(profile, metric, path, ts)
    _speed(speed, metric, path, ts)
    words.axis("off")
    lines = certificate(metric, path, ts, check)
    width = max(len(name) for name, _ in lines)
    words.text(0, 1, "\n".join(f"{name:<{width}}  {value}" for name, value in lines), va="top", family="monospace")
    return figure


def certificate(metric: AbstractMetric, path: Geodesic, ts: Any, check: bool = True) -> list[tuple[str, str]]:
    """What is known about ``path``, as names and values in words, the most important first."""
    straight = jnp.linspace(path.points[0], path.points[-1], ts.size)
    step = path.points[-1] - path.points[0]
    speeds = jnp.sqrt(jax.vmap(lambda x: metric.at(x).squared_norm(step))(straight))
    line = float(jnp.trapezoid(speeds, ts))
    lines = [
        ("status", str(status_name(path.result))),
        ("length", f"{float(path.length):.6g}"),
        ("  estimated error", f"{float(path.error):.0e}"),
        ("straight line, in the metric", f"{line:.6g}"),
        ("straight line, Euclidean", f"{float(jnp.linalg.norm(step)):.6g}"),
        ("speed varies by", f"{float(path.residual):.0e} (relative)"),
    ]
    if check:
        lines.append(("integrated again, misses by", f"{float(verify(metric, path)):.0e} (relative)"))
    work = ("elements", "newton_steps", "metric_evaluations", "evaluations", "iterations")
    lines += [(name.replace("_", " "), str(np.asarray(path.stats[name]).item())) for name in work if name in path.stats]
    return lines


def _draw_path(ax: Axes, metric: AbstractMetric, path: Geodesic, ts: Any, image_shape: Sequence[int] | None) -> None:
    if image_shape is not None:
        straight = np.linspace(path.points[0], path.points[-1], 9)
        image_strip(ax, {"geodesic": np.asarray(path.evaluate(ts[::25])), "straight line": straight}, image_shape)
        return
    points = np.asarray(path.evaluate(ts))
    if points.shape[1] == 2:
        geodesics(ax, path)
        low, high = points.min(0), points.max(0)
        margin = 0.25 * max((high - low).max(), 1e-12)
        tissot(ax, metric, (low[0] - margin, high[0] + margin), (low[1] - margin, high[1] + margin), n=12)
        ax.legend(loc="best", fontsize=8)
        return
    most = np.sort(np.argsort(np.ptp(points, axis=0))[::-1][:_COORDINATES])
    for place, i in enumerate(most):
        (line,) = ax.plot(ts, points[:, i], lw=1.6, color=f"C{place}", label=f"$x_{{{i + 1}}}$")
        ax.plot([0, 1], points[[0, -1], i], "--", lw=0.8, color=line.get_color())
    ax.set_xlabel("$t$")
    few = "" if len(most) == points.shape[1] else f" ({len(most)} of {points.shape[1]}, those that vary most)"
    ax.set_title(f"coordinates{few}; dashed: straight line", fontsize=10)
    ax.legend(fontsize=8, ncols=2)


def _log_prob(ax: Axes, metric: AbstractMetric, path: Geodesic, ts: Any) -> None:
    score = getattr(metric, "score", None)
    if score is None:
        ax.axis("off")
        ax.text(
            0,
            1,
            "The metric has no `score` of its own: log p along the path is not shown.",
            va="top",
            fontsize=9,
            wrap=True,
        )
        return
    straight = jnp.linspace(path.points[0], path.points[-1], ts.size)
    ax.plot(ts, log_prob_along(score, path.evaluate(ts)), color=_GEODESIC, lw=1.8, label="geodesic")
    ax.plot(ts, log_prob_along(score, straight), "--", color=_STRAIGHT, lw=1.2, label="straight line")
    ax.set_xlabel("$t$")
    ax.set_ylabel("$\\log p(\\gamma(t)) - \\log p(\\gamma(0))$")
    ax.legend(fontsize=8)


def _speed(ax: Axes, metric: AbstractMetric, path: Geodesic, ts: Any) -> None:
    points, velocities = path.evaluate(ts), path.velocity(ts)
    squared = jax.vmap(lambda x, v: metric.at(x).squared_norm(v))(points, velocities)
    speeds = np.sqrt(np.maximum(np.asarray(squared, np.float64), 0))
    mean = speeds.mean()
    ax.plot(ts, 100 * (speeds / mean - 1) if mean > 0 else speeds, color="#0072B2", lw=1.2)
    ax.axhline(0, color="#999999", lw=0.8, zorder=0)
    ax.set_xlabel("$t$")
    ax.set_ylabel("speed in the metric,\nper cent from its mean")


def convergence_figure(history: SolveHistory) -> Figure:
    """A figure of a `solve_history`: how far the energy is from its last value, errors, steps, and elements.

    Above, the energy of the path relative to the last one, and the estimated errors of path and length, over the
    points at which the metric was evaluated; in the middle the part of each Newton step that was tried, crosses where
    it was refused; below the number of elements. Steps of a continuation are shaded.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric
    >>> from scoregeo.geodesics import solve_history
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> history = solve_history(metric, jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7]))
    >>> len(convergence_figure(history).axes)
    3
    """
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(2.4, 1, 0.8))
    at = history.metric_evaluations
    final = history.energy[-1]
    length = np.sqrt(2 * final)
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = (
            ("energy, from its last value", np.abs(history.energy / final - 1), _ENERGY, "o-"),
            ("estimated error of the path", history.path_error, _OTHER, ".:"),
            ("estimated error of the length", history.error / length, _ERROR, "s--"),
        )
    for label, values, colour, style in curves:
        # Zero and infinity have no place on a logarithmic axis.
        shown = np.where((values > 0) & np.isfinite(values), values, np.nan)
        above.semilogy(at, shown, style, color=colour, label=label, markersize=4, linewidth=1.3)
    above.set_ylabel("relative")
    above.legend(fontsize=9)
    for mask, colour, marker, label in (
        (history.accepted, _ENERGY, "o", "accepted"),
        (~history.accepted, _REFUSED, "x", "refused"),
    ):
        middle.semilogy(at[mask], history.step_size[mask], marker, color=colour, label=label, markersize=5)
    middle.set_ylim(min(0.5, float(history.step_size.min()) / 2), 2)
    middle.set_ylabel("part of\nthe step")
    middle.legend(fontsize=9)
    below.step(at, history.elements, where="mid", color=_OTHER)
    below.set(xlabel="points at which the metric was evaluated", ylabel="elements", ylim=(0, None))
    below.yaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (above, middle, below):
        _shade(ax, at, history.attempt > 0)
        ax.grid(alpha=0.3)
    above.set_title(
        f"{history.status}: {history.newton_steps[-1]} Newton steps, {history.cg_steps[-1]} of CG, length {length:.6g}"
    )
    return figure


def _shade(ax: Axes, at: np.ndarray, where: np.ndarray) -> None:
    """Grey where a continuation was under way."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(int)))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        ax.axvspan(float(at[max(first - 1, 0)]), float(at[last - 1]), color="#000000", alpha=0.07, linewidth=0)
