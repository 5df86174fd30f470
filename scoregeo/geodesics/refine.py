"""Refinement: one solver's geodesic as the start of another."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import frozen
from .._results import RESULTS, first_failure
from .._types import Point
from ..metrics import AbstractMetric
from .base import AbstractBoundarySolver
from .checks import check_solver
from .curves import AbstractCurve
from .solution import Geodesic, curve_of

# Lengths that differ by more than this times their estimated errors belong to different geodesics.
_FACTOR = 10


class Refine(AbstractBoundarySolver):
    """Solves with ``first``, and again with ``then`` from the geodesic found: ``Refine(SpectralNewton(), Shooting())``.

    The first solver is there to get close from anywhere, the second for the last digits.

    **Returns** (`solve`) the geodesic of ``then``, its own ``error`` included: that the two lengths agree within their
    errors says nothing more than the second estimate does. Where they do not, to ten times the sum of both estimates
    and the square root of the rounding error, ``then`` has gone to another geodesic; the result is what it found, with
    the code ``ends_missed`` (and the other length in ``stats``).

    The first failure wins in ``result``; only that ``first`` did not reach its accuracy does not matter where ``then``
    does. Where ``first`` fails, ``then`` still starts from what it left, which costs nothing under ``jax.vmap``.
    ``stats``: those of ``then``, and with the prefix ``first_`` those of ``first``, its ``length`` and its ``error``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, Refine, Shooting, SpectralNewton, SteinMetric, geodesic
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> solver = Refine(SpectralNewton(max_elements=1), Shooting(segments=4))
    >>> round(float(geodesic(metric, jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7]), solver=solver).length), 4)
    2.2213
    """

    first: AbstractBoundarySolver
    then: AbstractBoundarySolver

    def __check_init__(self):
        check_solver(self.first)
        check_solver(self.then)

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        # Solvers that return no curve are sampled at equal times, which is where a polyline passes its nodes.
        times = jnp.linspace(0, 1, 65, dtype=x.dtype)
        # The result does not depend on where it started: no derivative goes through the first solve.
        start = self.first.solve(*frozen((metric, x, y)), init, times)
        end = self.then.solve(metric, x, y, curve_of(start), ts)

        length = frozen(end.length)
        allowed = _FACTOR * (start.error + end.error) + jnp.sqrt(jnp.finfo(x.dtype).eps) * length
        elsewhere = ~(jnp.abs(length - start.length) <= allowed)
        good_start = (start.result == RESULTS.successful) | (start.result == RESULTS.accuracy_not_reached)
        result = first_failure(
            [
                (~good_start, start.result),
                (end.result != RESULTS.successful, end.result),
                (elsewhere, RESULTS.ends_missed),
            ]
        )
        before = {**start.stats, "length": start.length, "error": start.error}
        stats = {**end.stats, **{f"first_{name}": value for name, value in before.items()}}
        return eqx.tree_at(lambda g: (g.result, g.stats), end, (result, stats))
