"""What `SpectralNewton` did, evaluation by evaluation: for pictures, and for whoever wonders why a solve is slow."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..._numerics import program
from ..._results import status_name
from ..._types import Point
from ...metrics import AbstractMetric
from ..checks import Start, check_end_points, check_start
from ..starts import AbstractStart
from .energy import PathEnergy
from .legendre import Coefficients
from .refinement import SolveState, advance, checked, initial_state, prepare, wants_check
from .settings import Settings
from .solver import SpectralNewton, starting_coefficients


class SolveHistory(NamedTuple):
    """One entry for each evaluation of the path energy in a solve; all arrays are NumPy's, of shape ``(n,)``.

    **Fields**

    - ``energy``: of the last path that was accepted, on the elements that it was computed with: it falls while these
      stay, and may rise a little where others take their place.
    - ``path_error``: its estimated relative error, what a Newton step expects to change.
    - ``step_size``: the part of a Newton step that led to the path that was evaluated; 1 where there was none.
    - ``accepted``: whether that path was accepted.
    - ``elements``: the number of polynomials.
    - ``attempt``: 0 for the metric itself, then steps of the continuation from Euclid to it.
    - ``error``: the estimated error of the best length so far; infinite until there is an estimate.
    - ``newton_steps``, ``cg_steps``, ``metric_evaluations``: so many of them until then.
    - ``status``: how the solve ended, in words, but for the accuracy of the result.
    """

    energy: Float[np.ndarray, " n"]
    path_error: Float[np.ndarray, " n"]
    step_size: Float[np.ndarray, " n"]
    accepted: Bool[np.ndarray, " n"]
    elements: Int[np.ndarray, " n"]
    attempt: Int[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]
    newton_steps: Int[np.ndarray, " n"]
    cg_steps: Int[np.ndarray, " n"]
    metric_evaluations: Int[np.ndarray, " n"]
    status: str


@program
def _start(solver: SpectralNewton, metric, x, y, init) -> Coefficients:
    curve = init(metric, x, y) if isinstance(init, AbstractStart) else init
    return starting_coefficients(curve, x, y, solver.settings(x.dtype))


@program
def _next(solver: SpectralNewton, metric, x, y, start, state: SolveState, level: int, settings: Settings) -> SolveState:
    """One evaluation on ``level``."""
    args = (PathEnergy(metric, x, y, solver.batch_size, solver.checkpoint), start)
    state = jax.lax.cond(state.unprepared, lambda s: prepare(args, s, level, settings), lambda s: s, state)
    return advance(args, state, level, settings)


@program
def _checked(solver: SpectralNewton, metric, x, y, start, state: SolveState, settings: Settings) -> SolveState:
    return checked((PathEnergy(metric, x, y, solver.batch_size, solver.checkpoint), start), state, settings)


def solve_history(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: SpectralNewton | None = None,
    init: Start | None = None,
) -> SolveHistory:
    """Solve as ``geodesic(metric, x, y, solver=solver, init=init)`` does, and say what happened on the way.

    Arguments are those of `geodesic`, concrete; ``solver`` is a `SpectralNewton`, by default with its default settings.
    Every evaluation is a call from Python: it is slower than `geodesic`. Never raises for a solve that fails: look at
    ``status``. Raises ``TypeError`` for another solver.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric
    >>> from scoregeo.geodesics import solve_history
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> history = solve_history(metric, jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7]))
    >>> history.status, round(float((2 * history.energy[-1]) ** 0.5), 4)
    ('converged', 2.2213)
    """
    solver = SpectralNewton() if solver is None else solver
    if not isinstance(solver, SpectralNewton):
        raise TypeError(f"`solver` must be a SpectralNewton, whose steps are known, got {type(solver).__name__}")
    x, y = check_end_points(metric, x, y)
    settings = solver.settings(x.dtype)
    start = _start(solver, metric, x, y, check_start(init, x, y))
    state = initial_state(start, settings)
    entries: list[tuple[Any, ...]] = []
    for level in range(len(settings.elements)):
        while bool(state.unfinished) and int(state.stage) == level:
            before = state
            state = _next(solver, metric, x, y, start, state, level, settings)
            entries.append(_entry(before, state, settings.elements[level]))
    if bool(wants_check(state, settings)):
        state = _checked(solver, metric, x, y, start, state, settings)
        # What the error is in the end, and what it took to know.
        entries[-1] = (*entries[-1][:6], float(state.best.error), *map(int, state.counts))
    columns = (np.asarray(column) for column in zip(*entries, strict=True))
    return SolveHistory(*columns, status=str(status_name(state.outcome)))


def _entry(before: SolveState, after: SolveState, elements: int) -> tuple[Any, ...]:
    """What one evaluation led to."""
    search, counts = after.newton, after.counts
    first = int(before.newton.steps) == 0
    # After a path that is accepted a whole step is tried, after one that is not a part of the step that led to it.
    accepted = float(search.step_size) == 1
    numbers = (search.accepted.energy, search.accepted.path_error, 1.0 if first else before.newton.step_size)
    return (
        *map(float, numbers),
        accepted,
        elements,
        int(before.attempt),
        float(after.best.error),
        *map(int, (counts.newton, counts.cg, counts.metric)),
    )
