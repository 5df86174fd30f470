"""Solving over levels of refinement: the state of one solve, and the steps that move it on.

A level has more elements than the one before, placed where the path found there turns. On each level the path is
improved by Newton's method; where that fails, along a continuation from Euclid to the metric. The first evaluation on a
level judges the path of the level before: it is accepted if its error is small enough. The last level is repeated, on
elements that are adapted again and lie across those before, to judge what it has found and to improve on it.

The steps are functions of one solve; `lanes` runs them for one solve or for many.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._numerics import safe_sqrt
from ..._types import Scalar
from .energy import PathEnergy
from .legendre import Basis, Breaks, Coefficients, uniform_breaks
from .mesh import Path, adapted_breaks, interlaced, merge, transfer
from .newton import Evaluation, Step, evaluate, newton_step, rounding

RUNNING, STATIONARY, STALLED, NONFINITE = range(4)

# How many times the gain of one step an unfinished descent may still have to go: 60 times was the most, at ReLU scores.
_DOUBT = 100


class Levels(NamedTuple):
    """Settings of a solve; see `SpectralNewton` for their meaning."""

    degree: int
    quadrature: int
    elements: tuple[int, ...]
    only_judges: bool  # the last level: it is not to improve on what was found before
    rtol: float
    path_rtol: float
    tolerance: float
    max_steps: int
    max_cg: int
    continuation: int
    adaptations: int

    def basis(self, breaks: Breaks) -> Basis:
        """The basis on ``breaks``."""
        return Basis(breaks, self.degree, self.quadrature * self.degree)

    def level_basis(self, breaks: Breaks, level: int) -> Basis:
        """The basis of ``level``, from ``breaks`` that were padded to those of the last level."""
        return self.basis(breaks[: self.elements[level] + 1])


class Counts(NamedTuple):
    """Work done: Newton steps, conjugate gradient steps, and points at which the metric was evaluated."""

    newton: Array
    cg: Array
    metric: Array


class Search(NamedTuple):
    """A line search: from the path with coefficients ``c``, of which energy and error are known, part of a step."""

    c: Coefficients
    energy: Scalar
    path_error: Scalar
    direction: Coefficients
    slope: Scalar
    part: Scalar


class SolveState(NamedTuple):
    """The best path so far and what is known of it, the last one found, and the one being worked on."""

    best: Path  # of those judged; until there is one, that found last
    level: Array  # on which `best` was found
    energy: Scalar
    error: Scalar  # estimated error of its length; infinite until judged
    path_error: Scalar
    found: Path  # where the next level or pass begins
    found_level: Array
    found_length: Scalar  # in the discretisation that found it; infinite until there is one
    found_status: Array  # of the Newton iteration that found it
    status: Array  # of the Newton iteration
    open: Array  # another level, or another pass through the last one, may improve the path
    passes: Array  # through the last level
    work: Path
    search: Search  # that led to `work`
    active: Array  # there is work to do on this level
    fresh: Array  # `work` has still to be made
    attempt: Array  # 0: the metric itself; 1, 2, ...: steps of the continuation
    steps: Array  # Newton steps in this attempt; the evaluation of its first path counts as one
    counts: Counts


def initial_state(start: Coefficients, levels: Levels) -> SolveState:
    """Before anything is done; ``start`` are coefficients on equal elements, as many as the last level has."""
    path = Path(start, uniform_breaks(levels.elements[-1], start.dtype))
    zero = jnp.zeros((), jnp.int32)
    inf = jnp.asarray(jnp.inf, start.dtype)
    one = jnp.ones((), start.dtype)
    yes = jnp.asarray(True)
    return SolveState(
        best=path,
        level=zero,
        energy=inf,
        error=inf,
        path_error=inf,
        found=path,
        found_level=zero,
        found_length=inf,
        found_status=zero + RUNNING,
        status=zero + RUNNING,
        open=yes,
        passes=zero,
        work=path,
        search=Search(start, inf, inf, jnp.zeros_like(start), one, one),
        active=yes,
        fresh=yes,
        attempt=zero,
        steps=zero,
        counts=Counts(zero, zero, zero),
    )


def enter(state: SolveState) -> SolveState:
    """The state at the beginning of a level or pass; also for a batch of states."""
    zero = jnp.zeros_like(state.attempt)
    status = jnp.where(state.open, RUNNING, state.status)
    return state._replace(status=status, active=state.open, fresh=state.open, attempt=zero, steps=zero)


def _where(condition: Array, new: Path, old: Path) -> Path:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def begin(problem: PathEnergy, start: Coefficients, state: SolveState, level: int, levels: Levels) -> SolveState:
    """Make the path to work on: the last one found on elements adapted to it. A continuation begins with the start on
    equal ones, and goes on with what it has."""
    elements = levels.elements[level]
    breaks = uniform_breaks(elements, start.dtype)
    begins = state.attempt == 1
    if level == 0:
        c = jnp.where(state.attempt > 1, state.work.c[:1], merge(start))
    else:
        source = _where(state.attempt == 0, state.found, state.work)
        source = _where(begins, Path(start, uniform_breaks(levels.elements[-1], start.dtype)), source)
        shares = jnp.where(state.passes % 2 == 1, interlaced(elements, start.dtype), breaks)
        adapted = adapted_breaks(source, problem.x, problem.y, levels.basis(source.breaks), shares)
        breaks = jnp.where(begins, breaks, adapted)
        c = transfer(source, levels.basis(breaks))
    made = Path(
        jnp.zeros_like(state.work.c).at[:elements].set(c),
        jnp.ones_like(state.work.breaks).at[: elements + 1].set(breaks),
    )
    return state._replace(work=_where(state.fresh, made, state.work), fresh=jnp.zeros_like(state.fresh))


def estimated_error(energy: Scalar, gain: Scalar, other_length: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Length of a path of this ``energy``, its estimated error given another value of it, and that of the path,
    relative to it.

    The error is the difference of the two lengths, what a Newton step expects to shorten the path by (``gain``, see
    `Evaluation`), and rounding; that of the path, what the step expects to change its velocity by.
    """
    positive = energy > 0
    length = safe_sqrt(2 * energy)
    shortening = jnp.where(positive, gain / (2 * jnp.where(positive, length, 1)), 0)
    error = jnp.abs(length - other_length) + shortening + 4 * jnp.finfo(length.dtype).eps * length
    return length, error, jnp.where(positive, safe_sqrt(gain / jnp.where(positive, 2 * energy, 1)), 0)


def _estimates(state: SolveState, energy: Scalar, gain: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """`estimated_error` of the path found before, from this evaluation of it."""
    # Where the descent did not end, what one step gains says little of what all that are left would.
    doubt = jnp.where(state.found_status == STATIONARY, 1, _DOUBT).astype(gain.dtype)
    length, error, path_error = estimated_error(energy, doubt * gain, state.found_length)
    path_error = path_error / jnp.sqrt(doubt)
    # The best path on elements across is about as far from the geodesic as this one: a step to it goes half the way.
    twice = jnp.where(state.passes > 0, 2, 1).astype(error.dtype)
    return length, twice * error, jnp.sqrt(twice) * path_error


def _accurate(state: SolveState, energy: Scalar, gain: Scalar, levels: Levels) -> Array:
    """Whether length and path of what was found before are as accurate as asked for."""
    length, error, path_error = _estimates(state, energy, gain)
    return jnp.isfinite(error) & (error <= levels.rtol * length) & (path_error <= levels.path_rtol)


class Judgement(NamedTuple):
    """What the first evaluation on a level says of the path found before: see `estimated_error`; and whether it is the
    best so far, as accurate as asked for, and the last to look for."""

    error: Scalar
    path_error: Scalar
    better: Array
    accepted: Array
    over: Array


def _judge(state: SolveState, at: Evaluation, judging: Array, last: bool, levels: Levels) -> Judgement:
    _, error, path_error = _estimates(state, at.energy, at.gain)
    accepted = judging & _accurate(state, at.energy, at.gain, levels)
    first = jnp.isinf(state.error)
    better = accepted | (judging & jnp.isfinite(error) & (first | (path_error < state.path_error)))
    over = accepted
    if last and levels.only_judges:
        over = judging
    elif last:
        # Another pass must be worth it, and after the last of them, or after a failure, there is only judging.
        hopeless = (state.passes > levels.adaptations) | (state.passes > 1) & ~(path_error < state.path_error / 2)
        hopeless = hopeless | (state.passes > 0) & (state.found_status != STATIONARY)
        over = accepted | (judging & hopeless)
    return Judgement(error, path_error, better, accepted, over)


def advance(problem: PathEnergy, state: SolveState, level: int, levels: Levels) -> SolveState:
    """One Newton step on ``level``, or part of one; or the end of an attempt, if there is no more to gain."""
    dtype, k, last = state.work.c.dtype, levels.continuation, level == len(levels.elements) - 1
    eps = jnp.finfo(dtype).eps
    elements = levels.elements[level]
    basis = levels.level_basis(state.work.breaks, level)
    direct, first = state.attempt == 0, state.steps == 0
    # Attempt 0 is the metric itself; attempts 1..k lead from 1e-3 of it to all of it, from the starting path.
    exponent = jnp.where(direct, 0.0, -3.0 * (k - state.attempt) / max(k - 1, 1))
    fraction = (10.0**exponent).astype(dtype)
    tolerance = jnp.where(exponent == 0, levels.tolerance, max(levels.tolerance, 1e-3)).astype(dtype)

    judging = direct & first & jnp.isfinite(state.found_length)
    search = state.search

    def good(energy):
        """Whether the step that led here lowers the energy as its slope promised; else a shorter one is tried."""
        return first | (energy <= search.energy + 1e-4 * search.part * search.slope + rounding(search.energy))

    def enough(energy, bound):
        known = judging & _accurate(state, energy, bound, levels) if problem.above_euclid else False
        return known | ~good(energy)

    at = evaluate(problem, basis, state.work.c[:elements], fraction, enough)
    error, judged_path_error, better, accepted, over = _judge(state, at, judging, last, levels)
    _, _, path_error = estimated_error(at.energy, at.gain, state.found_length)

    good = good(at.energy)
    stuck = ~good & (search.part < 2.0**-30)
    finite = ~good | (jnp.isfinite(at.energy) & jnp.isfinite(at.gain))
    reached = Search(state.work.c, at.energy, path_error, search.direction, search.slope, jnp.ones_like(error))
    search = jax.tree.map(lambda new, old: jnp.where(good, new, old), reached, search)

    # The start is never taken for a geodesic unseen: it may be a saddle, which only a step finds out.
    stationary = good & (path_error <= tolerance) & ~(direct & first & (level == 0))
    # Where rounding stops the descent just above the tolerance, the path is as good as this precision gives.
    floor = jnp.maximum(tolerance, jnp.minimum(1e3 * tolerance, 10 * eps**0.5))
    stationary = over | finite & (stationary | (stuck & (search.path_error <= floor)))
    moving = good & finite & ~stationary & (state.steps < levels.max_steps)
    if last and levels.only_judges:
        step = Step(jnp.zeros_like(at.c), 0 * error, jnp.zeros((), jnp.int32))
    else:
        step = newton_step(at, moving, levels.max_cg)
    search = search._replace(
        direction=search.direction.at[:elements].set(jnp.where(moving, step.direction, search.direction[:elements])),
        slope=jnp.where(moving, step.slope, search.slope),
        part=jnp.where(moving, 1, search.part / 2),
    )

    status = jnp.where(stationary, STATIONARY, jnp.where(stuck, STALLED, RUNNING))
    judged = jnp.isfinite(jnp.where(better, error, state.error))
    status = jnp.where(finite | (over & judged), status, NONFINITE).astype(jnp.int32)
    ended = (status != RUNNING) | (good & ~moving)
    left = ended & ((direct & stationary) | (state.attempt >= k))
    next_attempt = ended & ~left
    attempt = state.attempt + next_attempt
    work = state.work._replace(c=jnp.where(ended, search.c, search.c + search.part * search.direction))

    # A failure takes the place of what was found before only if its path is the better one.
    improved = jnp.isfinite(search.energy) & (search.energy < state.energy)
    found = left & ~over & (stationary | improved | ~jnp.isfinite(state.found_length))
    unjudged = found & ~judged
    # Nor does it count if it comes after a success on this level; and it stays one unless it is judged good enough.
    success = left & judged & (state.passes > 0) & (state.found_status == STATIONARY)
    status = jnp.where(over & judged & ~accepted, state.found_status, jnp.where(success, STATIONARY, status))
    status = jnp.where(next_attempt, RUNNING, status).astype(jnp.int32)
    # Where no level follows to judge it, or to improve on it, there is nothing to gain from a failure.
    final = last or (levels.only_judges and level == len(levels.elements) - 2)
    vain = final & ~stationary & ~(found & improved)
    q = basis.u.size * elements
    return state._replace(
        best=_where(unjudged, work, _where(better, state.found, state.best)),
        level=jnp.where(unjudged, level, jnp.where(better, state.found_level, state.level)).astype(jnp.int32),
        energy=jnp.where(unjudged | better, search.energy, state.energy),
        error=jnp.where(better, error, state.error),
        path_error=jnp.where(better, judged_path_error, jnp.where(unjudged, search.path_error, state.path_error)),
        found=_where(found, work, state.found),
        found_level=jnp.where(found, level, state.found_level).astype(jnp.int32),
        found_length=jnp.where(found, safe_sqrt(2 * search.energy), state.found_length),
        found_status=jnp.where(found, status, state.found_status),
        status=status,
        open=state.open & ~(left & (over | vain)),
        passes=state.passes + left if last else state.passes,
        work=work,
        search=search,
        active=~left,
        fresh=next_attempt,
        attempt=attempt,
        steps=jnp.where(next_attempt, 0, state.steps + good),
        counts=Counts(
            state.counts.newton + moving,
            state.counts.cg + step.cg_steps,
            state.counts.metric + q * (1 + step.cg_steps),
        ),
    )


def accurate(state: SolveState, levels: Levels) -> Array:
    """Whether the best path's length is as accurate as asked for, according to its judge."""
    return jnp.isfinite(state.error) & (state.error <= levels.rtol * safe_sqrt(2 * state.energy))
