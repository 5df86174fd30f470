"""The plane that a page shows: all of a space of two dimensions, or a slice of a larger one."""

import dataclasses
from typing import cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_points
from .._types import Point, Points, Scalar, Vector
from ..datasets.base import principal_axes
from ..metrics import AbstractMetric, MatrixMetric
from ..scores import AbstractScore


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """The points ``origin + u axes[0] + v axes[1]`` of R^d, with coordinates (u, v).

    - ``origin``: ``(d,)``.
    - ``axes``: ``(2, d)``, orthonormal rows.
    - ``description``: a sentence for readers of the page.
    - ``marked``: coordinates ``(k, 2)`` of points that it was made to go through, or ``None``: where a page begins.

    `Plane.whole`, `Plane.through` and `Plane.principal` make one.

    >>> import numpy as np
    >>> from scoregeo.explore import Plane
    >>> plane = Plane.through(np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]))
    >>> plane.coordinates(np.array([[2.0, 0.0, 1.0]])).round(6).tolist()
    [[2.0, 0.0]]
    """

    origin: np.ndarray
    axes: np.ndarray
    description: str
    marked: np.ndarray | None = None

    @classmethod
    def whole(cls) -> "Plane":
        """All of R^2."""
        return cls(np.zeros(2), np.eye(2), "")

    @classmethod
    def through(cls, points: Points | np.ndarray) -> "Plane":
        """The plane through three ``points`` ``(3, d)``: the first is its origin, the first axis goes to the second.

        Raises ``ValueError`` for another shape, or points on one line.
        """
        points = np.asarray(as_points(points, "points"), np.float64)
        if points.shape[0] != 3 or points.shape[1] < 2:
            raise ValueError(f"`points` must have shape (3, d) with d >= 2, got {points.shape}")
        sides = points[1:] - points[0]
        longest = np.linalg.norm(sides, axis=1).max()
        first = sides[0] / max(np.linalg.norm(sides[0]), np.finfo(float).tiny)
        rest = sides[1] - (sides[1] @ first) * first
        if not (np.linalg.norm(sides[0]) > 1e-6 * longest and np.linalg.norm(rest) > 1e-6 * longest):
            raise ValueError("`points` must not lie on one line: no single plane goes through them")
        axes = np.stack([first, rest / np.linalg.norm(rest)])
        marked = (points - points[0]) @ axes.T
        return cls(points[0], axes, "the plane through three points of the data", marked)

    @classmethod
    def principal(cls, data: Points | np.ndarray) -> "Plane":
        """The plane of the first two principal components of ``data`` ``(n, d)`` through their mean.

        Raises ``ValueError`` for data that have fewer than two components.
        """
        points = np.asarray(as_points(data, "data"), np.float64)
        if min(points.shape) < 2 or np.linalg.matrix_rank(points - points.mean(0)) < 2:
            raise ValueError(f"`data` must span a plane at least, got points of shape {points.shape} on one line")
        axes = np.asarray(principal_axes(points, 2), np.float64)
        return cls(points.mean(0), axes, "the plane of the first two principal components, through the mean")

    @property
    def dim(self) -> int:
        """The dimension d of the space."""
        return self.origin.size

    @property
    def is_whole(self) -> bool:
        """Whether the coordinates (u, v) are those of the space: it is R^2, and the plane neither turned nor moved."""
        return self.dim == 2 and not self.origin.any() and np.array_equal(self.axes, np.eye(2))

    def coordinates(self, points: Points | np.ndarray) -> np.ndarray:
        """Coordinates ``(n, 2)`` of ``points`` ``(n, d)``, those off the plane projected onto it."""
        return (np.asarray(points, np.float64) - self.origin) @ self.axes.T

    def point(self, u: Float[Array, " 2"]) -> Point:
        """The point ``(d,)`` of the space with coordinates ``u`` ``(2,)``; traceable."""
        return jnp.asarray(self.origin, u.dtype) + u @ jnp.asarray(self.axes, u.dtype)

    def pull(self, covector: Vector) -> Float[Array, " 2"]:
        """A covector ``(d,)`` of the space, as a score is one, on the plane: its two components ``(2,)``."""
        return jnp.asarray(self.axes, covector.dtype) @ covector

    def restrict(self, metric: AbstractMetric) -> AbstractMetric:
        """The metric that ``metric`` induces on the plane: ``axes G axes^T``; ``metric`` itself where `is_whole`."""
        if self.is_whole:
            return metric

        def matrix(u, metric):
            product = metric.at(self.point(u))
            axes = jnp.asarray(self.axes, u.dtype)
            return axes @ jnp.stack([product.mv(axis) for axis in axes], -1)

        return MatrixMetric(matrix, metric)


def log_prob_on(plane: Plane, score: AbstractScore, u: Float[Array, " 2"]) -> Scalar:
    """``log p`` at the coordinates ``u``, of a score that has ``log_prob``."""
    return cast(Scalar, score.log_prob(plane.point(u)))  # pyright: ignore[reportAttributeAccessIssue]
