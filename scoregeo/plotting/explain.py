"""One figure that says what a geodesic is, and how far it is to be trusted."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._results import status_name
from ..geodesics import Geodesic, verify
from ..geodesics.checks import check_metric
from ..metrics import AbstractMetric
from ..scores import log_prob_along
from .curves import geodesics
from .fields import tissot
from .images import image_strip

_GEODESIC, _STRAIGHT = "#D55E00", "#333333"
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
