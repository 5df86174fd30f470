"""What a page knows of a score: its values on a grid, as coefficients of splines."""

import base64
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._numerics import program

# The grid goes on around the view by this part of its longer side, for geodesics that leave it.
_MARGIN = 0.15
# How many points are evaluated side by side.
_TOGETHER = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Points at equal steps: ``nx`` by ``ny`` of them from ``(x, y)``, and the rectangle ``view`` of them to show,
    ``(xlow, xhigh, ylow, yhigh)``."""

    x: float
    y: float
    step: float
    nx: int
    ny: int
    view: tuple[float, float, float, float]

    @classmethod
    def around(cls, points: np.ndarray, resolution: int, *, border: float = 0.15) -> "Grid":
        """A grid whose view has all ``points`` ``(n, 2)`` and a border of so much of its longer side; with
        ``resolution`` steps along the longer side of all."""
        low, high = points.min(0), points.max(0)
        longest = float((high - low).max())
        if not longest > 0:
            raise ValueError("the points to show must not all be the same")
        # No picture is flatter than one to two.
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, longest / 4) + border * longest
        view_low, view_high = middle - half, middle + half
        margin = _MARGIN * float(2 * half.max())
        step = float(2 * half.max() + 2 * margin) / resolution
        nx, ny = (int(np.ceil(side)) + 1 for side in (2 * half + 2 * margin) / step - 1e-9)
        view = (view_low[0], view_high[0], view_low[1], view_high[1])
        x, y = view_low - margin
        return cls(float(x), float(y), step, nx, ny, tuple(float(side) for side in view))  # pyright: ignore[reportArgumentType]

    def points(self) -> np.ndarray:
        """All points ``(nx ny, 2)``, row by row from below."""
        ticks = self.x + self.step * np.arange(self.nx), self.y + self.step * np.arange(self.ny)
        return np.stack(np.meshgrid(*ticks), -1).reshape(-1, 2)

    def spline(self, values: np.ndarray) -> np.ndarray:
        """Coefficients ``(ny, nx)`` of the cubic spline through ``values`` ``(nx ny,)``."""
        from scipy.ndimage import spline_filter

        return spline_filter(values.reshape(self.ny, self.nx).astype(np.float64), order=3, mode="mirror")

    def evaluate(self, spline: np.ndarray, points: np.ndarray) -> np.ndarray:
        """A spline at ``points`` ``(n, 2)``."""
        from scipy.ndimage import map_coordinates

        where = (points - [self.x, self.y])[:, ::-1].T / self.step
        return map_coordinates(spline, where, order=3, mode="mirror", prefilter=False)

    def slope(self, spline: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The gradient ``(n, 2)`` of a spline at ``points`` ``(n, 2)``, by central differences."""
        small = 1e-3 * self.step
        steps = small * np.eye(2)
        sides = [self.evaluate(spline, points + step) - self.evaluate(spline, points - step) for step in steps]
        return np.stack(sides, -1) / (2 * small)

    def to_dict(self) -> dict[str, float | int]:
        """What the page is told of it."""
        return {"x": self.x, "y": self.y, "step": self.step, "nx": self.nx, "ny": self.ny}


@program
def _values(fn: Callable[..., Any], points: jax.Array) -> Any:
    return jax.lax.map(fn, points, batch_size=_TOGETHER)


def any_values_on(fn: Callable[..., Any], points: np.ndarray) -> np.ndarray:
    """``fn`` at all ``points`` ``(n, 2)``, in float64, finite or not."""
    return np.asarray(_values(fn, jnp.asarray(points)), np.float64)


def values_on(fn: Callable[..., Any], points: np.ndarray, what: str) -> np.ndarray:
    """``fn`` at all ``points`` ``(n, 2)``, in float64; raises ``ValueError`` where ``what`` is not finite."""
    values = any_values_on(fn, points)
    good = np.isfinite(values).reshape(len(points), -1).all(-1)
    if not good.all():
        where = tuple(round(float(c), 4) for c in points[np.argmin(good)])
        raise ValueError(f"{what} must be finite, but is not at {(~good).sum()} of {good.size} points of the picture "
                         f"and its surroundings (first at {where})")  # fmt: skip
    return values


def encode(array: np.ndarray) -> str:
    """An array as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
