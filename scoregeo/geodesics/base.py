"""The interface of boundary solvers, and which one serves a metric by default."""

import abc
import functools
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from .._types import Point
from ..metrics import AbstractMetric
from .curves import AbstractCurve
from .solution import Geodesic


class AbstractBoundarySolver(eqx.Module):
    """Finds a geodesic between two points. Settings are fields; a solver holds no state.

    ``uses_init``: whether it makes a difference where it starts, so that a path is worth keeping for the next solve.
    """

    uses_init: ClassVar[bool] = True

    @abc.abstractmethod
    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """The geodesic from ``x`` to ``y``, sampled at ``ts``, starting from the curve ``init`` between them.

        Arguments have been checked. Never raises: how it ended is in ``result``.
        """

    def solve_length(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """As `solve`, where nothing is differentiated but length and energy: a solver may leave out how the path moves,
        which a program for the gradient of `dist` would be traced with in vain."""
        return self.solve(metric, x, y, init, ts)


@functools.singledispatch
def default_solver(metric: Any, *, length_only: bool = False) -> AbstractBoundarySolver:
    """The solver that serves ``metric`` where none is given, by the type of the metric.

    ``length_only``: the caller wants the length, whose error is the square of the path's. A metric with a solver of its
    own registers it: ``@default_solver.register(MyMetric)``. Raises ``TypeError`` for what is no metric.
    """
    raise TypeError(f"`metric` must be an AbstractMetric such as SteinMetric(score), got {type(metric).__name__}")
