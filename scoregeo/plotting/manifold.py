"""Pictures of what a score says about the manifold of its data."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .._checks import as_float
from ..manifold import knee as find_knee
from ..manifold.levels import check_levels
from .fields import check_axes


class DimensionArtists(NamedTuple):
    """What `dimension_curve` draws: ``curve``, ``band`` (``None`` for one point), ``knee`` (``None`` without one) and
    ``truth`` (``None`` if not given)."""

    curve: Line2D
    band: PolyCollection | None
    knee: Line2D | None
    truth: Line2D | None


def dimension_curve(
    ax: Axes,
    noise_levels: Any,
    dimensions: Any,
    *,
    knee: bool = True,
    truth: float | None = None,
    units: str = "data",
    **style: Any,
) -> DimensionArtists:
    """Intrinsic dimension over the noise level, on a logarithmic axis: flat parts are dimensions of the data.

    **Arguments**

    - ``ax``: the axes; labels, a legend and a grid of whole numbers are set.
    - ``noise_levels``: positive and increasing, shape ``(n,)``.
    - ``dimensions``: of `scoregeo.manifold.dimension_curve`, shape ``(n,)`` for one point, or ``(p, n)`` for p points,
      of which the median and the band from the 10th to the 90th percentile are drawn.
    - ``knee``: whether to mark the level at which to read the dimension, `scoregeo.manifold.knee` of the (median)
      curve, if it has one.
    - ``truth``: the true dimension, if it is known: a horizontal line.
    - ``units``: the units of the noise levels, named at the axis.
    - ``**style``: passed on to ``Axes.plot`` for the curve, over the defaults here.

    Returns the artists. Raises ``ValueError`` for shapes that do not fit, and dimensions that are not finite.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from scoregeo.plotting import dimension_curve
    >>> artists = dimension_curve(Figure().subplots(), np.array([0.1, 0.2, 0.4]), np.array([5.0, 2.1, 2.0]))
    >>> round(float(artists.knee.get_xdata()[0]), 3)
    0.2
    """
    check_axes(ax)
    levels = np.asarray(check_levels(noise_levels, least=3))
    values = np.asarray(as_float(dimensions, "dimensions"))
    if values.ndim not in (1, 2) or values.shape[-1] != levels.size or not values.size:
        raise ValueError(f"`dimensions` must have shape ({levels.size},) or (p, {levels.size}), got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("`dimensions` must be finite, got NaN or infinite ones")
    middle, band = values, None
    if values.ndim == 2:
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
        band = ax.fill_between(levels, low, high, color="#0072B2", alpha=0.2, lw=0, label="10% to 90% of points")
    label = "dimension" if values.ndim == 1 else "median dimension"
    style = {"color": "#0072B2", "lw": 2, "marker": "o", "ms": 4, "label": label, "zorder": 3, **style}
    (curve,) = ax.semilogx(levels, middle, **style)
    line = None if truth is None else ax.axhline(truth, color="#333333", ls="--", lw=1.2, label=f"true: {truth:g}")
    mark = _mark_knee(ax, levels, middle) if knee else None
    ax.set_xlabel(f"noise level $\\sigma$ ({units} units)")
    ax.set_ylabel("intrinsic dimension")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    ax.set_ylim(bottom=min(0, values.min()))
    ax.legend(fontsize=9, framealpha=1)
    return DimensionArtists(curve, band, mark, line)


def _mark_knee(ax: Axes, levels: np.ndarray, middle: np.ndarray) -> Line2D | None:
    level = float(find_knee(jnp.asarray(levels), jnp.asarray(middle)))
    if not np.isfinite(level):
        return None
    read = float(np.interp(level, levels, middle))
    label = f"knee: {read:.1f} at $\\sigma$ = {level:.2g}"
    return ax.axvline(level, color="#D55E00", ls=":", lw=1.8, label=label)
