"""Solving over levels of refinement: what is known of one solve, and the iteration that moves it on.

A level has more elements than the one before, placed where the path found there turns. On each level a search
(`newton`) improves the path; where that fails, it is repeated along a continuation from Euclid to the metric. The first
evaluation on a level judges the path of the level before: it is accepted if its error is small enough. The last level
is repeated, in passes, on elements that are adapted again and lie across those before, to judge what it has found and
to improve on it.

Four loops are flattened into one, whose iteration is one evaluation of the energy: passes > attempts of a continuation
> Newton steps > trials of a line search. Nested, each of them would wait for the slowest lane of a batch.

    advance = evaluate; judge what was found before; newton.step; conclude                               (1)
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..._batching import Rare, branch, compacted_while_loop, select, staged_while_loop
from ..._numerics import safe_sqrt
from ..._results import RESULTS, first_failure
from ..._types import Scalar
from . import newton
from .energy import PathEnergy
from .implicit import AbstractMinimiser, Linearisation
from .legendre import Basis, Coefficients, uniform_breaks
from .mesh import Path, adapted_breaks, merge, shares, transfer
from .newton import UNFINISHED, NewtonState, Progress
from .settings import Level, Settings

# A descent that did not end may have this many times the gain of its last step still to go; 60 times was the most that
# was seen, at ReLU scores.
_DOUBT = 100
# Steps of a search on the first level, and of one on the way of a continuation, and the accuracy asked for there.
_FIRST_STEPS, _STAGE_STEPS, _NEAR = 40, 8, 1e-2
# A path whose length is wrong by this part of it is no place to start from: it went between the points of its level.
_FICTION = 0.3


class Counts(NamedTuple):
    """Work done: Newton steps, conjugate gradient steps, and points at which the metric was evaluated."""

    newton: Array
    cg: Array
    metric: Array

    def after(self, progress: Progress, points: Array | int) -> "Counts":
        """With an evaluation at so many ``points``, and the step that it led to."""
        return Counts(
            self.newton + progress.moved,
            self.cg + progress.cg_steps,
            self.metric + points * (1 + progress.cg_steps),
        )


class Candidate(NamedTuple):
    """A path, and what is known of it."""

    path: Path
    level: Array  # on which it was found
    energy: Scalar  # in the discretisation that evaluated it last; infinite until there is one
    status: RESULTS  # of the search that found it
    error: Scalar  # estimated error of its length; infinite until it has been judged
    path_error: Scalar  # estimated relative error of the path

    @property
    def judged(self) -> Bool[Array, ""]:
        """Whether there is an estimate of its error."""
        return jnp.isfinite(self.error)


class SolveState(NamedTuple):
    """One solve: the best path so far, the one found last, and the search that is under way."""

    best: Candidate  # of those judged; until there is one, the one found last
    found: Candidate  # where the next level or pass begins
    work: Path  # to be evaluated next
    newton: NewtonState  # the search that led to `work`
    attempt: Array  # 0: the metric itself; 1, 2, ...: steps of the continuation
    stage: Array  # the level to work on
    passes: Array  # made through the last level
    unfinished: Array  # another level, or another pass through the last one, may improve the path
    unprepared: Array  # `work` has still to be made
    unchecked: Array  # whether `checked` is still to be done
    outcome: RESULTS  # how the solve would be reported if it ended now, but for the accuracy of the best path
    counts: Counts


class Verdict(NamedTuple):
    """What the first evaluation on a level says of the candidate found before."""

    candidate: Candidate  # with the energy and the errors of this evaluation
    better: Bool[Array, ""]  # the best so far
    accepted: Bool[Array, ""]  # as accurate as asked for
    conclusive: Bool[Array, ""]  # the last to look for
    unfounded: Bool[Array, ""]  # not a place to start from


def initial_state(start: Coefficients, settings: Settings) -> SolveState:
    """Before anything is done; ``start`` are coefficients on equal elements, as many as the last level has."""
    path = Path(start, uniform_breaks(settings.elements[-1], start.dtype))
    zero = jnp.zeros((), jnp.int32)
    inf = jnp.asarray(jnp.inf, start.dtype)
    yes = jnp.asarray(True)
    status = jax.tree.map(jnp.asarray, UNFINISHED)
    nothing = Candidate(path, zero, inf, status, inf, inf)
    counts = Counts(zero, zero, zero)
    return SolveState(nothing, nothing, path, newton.init(start), zero, zero, zero, yes, yes, yes, status, counts)


class Stage(NamedTuple):
    """What one attempt works on: the fraction of the metric, and the tolerance and the steps of its search."""

    fraction: Scalar
    tolerance: Scalar
    max_steps: Array


def stage_of(attempt: Array, level: int, settings: Settings, dtype) -> Stage:
    """Attempt 0 is the metric itself; attempts 1..k lead from 1e-3 of it to all of it, from the starting path.

    On the way it is enough to come near. Nor is the first level worth many steps where another follows: a path that
    it does not find soon, it does not resolve.
    """
    k = settings.continuation
    exponent = jnp.where(attempt == 0, 0.0, -3.0 * (k - attempt) / max(k - 1, 1))
    whole = exponent == 0
    tolerance = jnp.where(whole, settings.tolerance, max(settings.tolerance, _NEAR))
    most = settings.max_steps if settings.continues(level) else min(settings.max_steps, _FIRST_STEPS)
    max_steps = jnp.where(whole, most, min(settings.max_steps, _STAGE_STEPS))
    return Stage((10.0**exponent).astype(dtype), tolerance.astype(dtype), max_steps)


def prepare(args: tuple[PathEnergy, Coefficients], state: SolveState, level: Level, settings: Settings) -> SolveState:
    """Make the path to work on: the last one found, on elements adapted to it.

    A continuation begins with the start on equal elements, and goes on with the path that it has.
    """
    problem, start = args
    equal = shares(settings.elements, level, False, start.dtype)

    def on_first_level():
        merged = jnp.zeros_like(state.work.c).at[:1].set(merge(start))
        return Path(jnp.where(state.attempt > 1, state.work.c, merged), equal)

    def on_later_level():
        begins = state.attempt == 1
        source = select(state.attempt == 0, state.found.path, state.work)
        source = select(begins, Path(start, uniform_breaks(settings.elements[-1], start.dtype)), source)
        wanted = shares(settings.elements, level, state.passes % 2 == 1, start.dtype)
        adapted = adapted_breaks(source, problem.x, problem.y, settings.basis(source.breaks), wanted)
        breaks = jnp.where(begins, equal, adapted)
        return Path(transfer(source, settings.basis(breaks)), breaks)

    work = branch(level > 0, [on_first_level, on_later_level])
    return state._replace(work=work, unprepared=jnp.zeros_like(state.unprepared))


def _appraised(found: Candidate, energy: Scalar, squared_decrement: Scalar, passes: Array) -> Candidate:
    """``found`` with the errors that this evaluation of it, on other elements, amounts to."""
    # Where the descent did not end, what one step gains says little of what all steps that are left would gain.
    doubt = jnp.where(found.status == RESULTS.successful, 1, _DOUBT).astype(energy.dtype)
    error = newton.estimated_error(energy, doubt * squared_decrement, safe_sqrt(2 * found.energy))
    path_error = newton.relative_path_error(energy, doubt * squared_decrement) / jnp.sqrt(doubt)
    # The best path on interlaced elements is about as far from the geodesic as this one, on the other side: a step
    # from here to there goes half the way.
    twice = jnp.where(passes > 0, 2, 1).astype(error.dtype)
    return found._replace(energy=energy, error=twice * error, path_error=jnp.sqrt(twice) * path_error)


def accurate(candidate: Candidate, settings: Settings) -> Bool[Array, ""]:
    """Whether the length of ``candidate`` is as accurate as asked for, according to its judge."""
    return candidate.judged & (candidate.error <= settings.rtol * safe_sqrt(2 * candidate.energy))


def judge(
    state: SolveState, energy: Scalar, squared_decrement: Scalar, judging: Array, level: int, settings: Settings
) -> Verdict:
    """What an evaluation of the candidate found before says of it; nothing, unless ``judging``."""
    candidate = _appraised(state.found, energy, squared_decrement, state.passes)
    accepted = judging & accurate(candidate, settings) & (candidate.path_error <= settings.path_rtol)
    improved = ~jnp.isfinite(state.best.error) | (candidate.path_error < state.best.path_error)
    better = accepted | (judging & candidate.judged & improved)
    failed = state.found.status != RESULTS.successful
    if settings.is_last(level) and settings.only_judges:
        conclusive = judging
    elif settings.is_last(level):
        # Another pass must be worth it; after the last of them, or after a failure, there is only judging.
        vain = (state.passes > 1) & ~(candidate.path_error < state.best.path_error / 2)
        in_vain = (state.passes > settings.adaptations) | vain | ((state.passes > 0) & failed)
        conclusive = accepted | (judging & in_vain)
    else:
        conclusive = accepted
    unfounded = judging & (failed | ~(candidate.error < _FICTION * safe_sqrt(2 * candidate.energy)))
    return Verdict(candidate, better, accepted, conclusive, unfounded)


def advance(args: tuple[PathEnergy, Coefficients], state: SolveState, level: Level, settings: Settings) -> SolveState:
    """One evaluation on ``level``, and what follows from it: see (1)."""
    levels = [partial(evaluate, args[0], state, level=k, settings=settings) for k in range(len(settings.elements))]
    search, verdict, progress = branch(level, levels)
    # The path stays out of the branches, each of which would copy it.
    verdict = verdict._replace(candidate=verdict.candidate._replace(path=state.found.path))
    points = jnp.asarray([settings.points(k) for k in range(len(settings.elements))], jnp.int32)[level]
    state = state._replace(newton=search, counts=state.counts.after(progress, points))
    return conclude(state, verdict, progress, level, settings)


def evaluate(
    problem: PathEnergy, state: SolveState, *, level: int, settings: Settings
) -> tuple[NewtonState, Verdict, Progress]:
    """Evaluate the path to work on: the search after the step from there; and what it says of the candidate found
    before, whose path is left out."""
    search, elements = state.newton, settings.elements[level]
    basis = settings.level_basis(state.work.breaks, level)
    stage = stage_of(state.attempt, level, settings, state.work.c.dtype)
    direct, first = state.attempt == 0, search.steps == 0
    judging = direct & first & jnp.isfinite(state.found.energy)

    def enough(energy, bound):
        known = judge(state, energy, bound, judging, level, settings).accepted if problem.above_euclid else False
        return known | ~newton.acceptable(search, energy)

    at = newton.evaluate(problem, basis, state.work.c[:elements], stage.fraction, enough)
    verdict = judge(state, at.energy, at.squared_decrement, judging, level, settings)
    lost = verdict.unfounded & (state.passes == 0) if settings.continues(level) else False
    search, progress = newton.step(
        at,
        search,
        trial=state.work.c,
        tolerance=stage.tolerance,
        max_steps=stage.max_steps,
        max_cg=0 if settings.is_last(level) and settings.only_judges else settings.max_cg,
        stop=verdict.conclusive | lost,
        # The start is stationary without being a geodesic where it is a saddle.
        may_be_saddle=direct & first & (level == 0),
    )
    verdict = verdict._replace(candidate=verdict.candidate._replace(path=None))
    return search, verdict, progress


def conclude(state: SolveState, verdict: Verdict, progress: Progress, level: Level, settings: Settings) -> SolveState:
    """Where to go after an evaluation: on with the search, to the next attempt, to the next level, or nowhere."""
    search, last = state.newton, settings.is_last(level)
    stationary = verdict.conclusive | (search.status == RESULTS.successful)
    exhausted = state.counts.metric >= settings.max_evaluations
    given_up = (state.attempt >= settings.continuation) | jnp.logical_not(settings.continues(level))
    left = exhausted | progress.ended & (((state.attempt == 0) & stationary) | given_up)
    next_attempt = progress.ended & ~left
    trial = search.accepted.c + search.step_size * search.direction
    work = state.work._replace(c=jnp.where(progress.ended, search.accepted.c, trial))

    # A failure takes the place of what was found before only if its path is the better one.
    energy = search.accepted.energy
    improved = jnp.isfinite(energy) & (energy < state.best.energy)
    nothing_yet = ~jnp.isfinite(state.found.energy)
    take = left & ~verdict.conclusive & (stationary | improved | nothing_yet)
    best = select(verdict.better, verdict.candidate, state.best)
    status = _status(state, verdict, progress, left, best.judged)
    candidate = Candidate(
        work, jnp.asarray(level, jnp.int32), energy, status, jnp.full_like(energy, jnp.inf), search.accepted.path_error
    )
    # Where no level follows to judge a failure, or to improve on it, there is nothing to gain from going on.
    final = last | (settings.only_judges & (level == len(settings.elements) - 2))
    hopeless = final & ~stationary & ~(take & improved)
    unfinished = state.unfinished & ~(left & (verdict.conclusive | hopeless | exhausted))
    begins = next_attempt | left & unfinished
    return SolveState(
        best=select(take & ~best.judged, candidate, best),
        found=select(take, candidate, state.found),
        work=work,
        newton=search._replace(steps=jnp.where(next_attempt | left, 0, search.steps)),
        attempt=jnp.where(left, 0, state.attempt + next_attempt),
        stage=jnp.where(last, state.stage, state.stage + left),
        passes=jnp.where(last, state.passes + left, state.passes),
        unfinished=unfinished,
        unprepared=begins,
        unchecked=state.unchecked,
        outcome=RESULTS.where(begins, UNFINISHED, status),
        counts=state.counts,
    )


def wants_check(state: SolveState, settings: Settings) -> Bool[Array, ""]:
    """Whether the best path is one of the last level, which was judged on no more elements than it has itself."""
    return state.unchecked & state.best.judged & (state.best.level == len(settings.elements) - 1)


def checked(args: tuple[PathEnergy, Coefficients], state: SolveState, settings: Settings) -> SolveState:
    """``state`` with errors that cover how much shorter the best path is than its energy says, by a denser quadrature
    on its own elements.

    That much is gained by going along the same path at constant speed. A Newton step does not see it where the speed
    has peaks that no element is narrow enough for.
    """
    problem, _ = args
    best = state.best
    basis = Basis(best.path.breaks, settings.degree, (settings.quadrature + 1) * settings.degree)
    shorter = basis.weights @ safe_sqrt(2 * problem.densities(basis, best.path.c))
    length = safe_sqrt(2 * best.energy)
    difference = jnp.where(jnp.isfinite(shorter), jnp.abs(length - shorter), jnp.inf).astype(length.dtype)
    # A speed that varies by a fraction e, in the mean, makes the root of twice the energy longer by half of e squared.
    deviation = safe_sqrt(2 * difference / jnp.where(length > 0, length, 1))
    return state._replace(
        best=best._replace(
            error=jnp.maximum(best.error, difference), path_error=jnp.maximum(best.path_error, deviation)
        ),
        unchecked=jnp.zeros_like(state.unchecked),
        counts=state.counts._replace(metric=state.counts.metric + basis.times.size),
    )


def _status(state: SolveState, verdict: Verdict, progress: Progress, left: Array, judged: Array) -> RESULTS:
    """How the search that is under way ended; where the verdict ended it, how the path that was judged was found."""
    # A failure in a later pass does not undo a success of an earlier one, which has been judged.
    success = left & judged & (state.passes > 0) & (state.found.status == RESULTS.successful)
    return first_failure(
        [
            (~verdict.conclusive & success, RESULTS.successful),
            (~verdict.conclusive, state.newton.status),
            (judged & verdict.accepted, RESULTS.successful),
            (judged, state.found.status),
            (~progress.finite, RESULTS.metric_nonfinite),
        ]
    )


class Refinement(AbstractMinimiser):
    """Minimises the path energy on finer and finer levels until the estimated error of the length meets ``rtol``."""

    settings: Settings = eqx.field(static=True)

    def minimise(self, problem: PathEnergy, start: Coefficients) -> SolveState:
        """From ``start``, coefficients on equal elements, as many as the last level has. Under ``jax.vmap``, lanes that
        have finished make room for others."""
        settings = self.settings
        state = staged_while_loop(
            lambda state: state.unfinished,
            partial(advance, settings=settings),
            initial_state(start, settings),
            (problem, start),
            stage=lambda state: state.stage,
            numbers_per_lane=[settings.points(level) * start.shape[-1] for level in range(len(settings.elements))],
            rare=Rare(lambda state: state.unprepared, partial(prepare, settings=settings)),
        )
        if settings.only_judges:
            return state
        return compacted_while_loop(
            lambda state: wants_check(state, settings),
            partial(checked, settings=settings),
            state,
            (problem, start),
            numbers_per_lane=settings.elements[-1] * settings.degree * (settings.quadrature + 1) * start.shape[-1],
        )

    def tangent(self, found: SolveState, problem: Linearisation, zeros: SolveState, length_only: bool) -> SolveState:
        """Of the best path, on the elements of the level that found it."""
        settings = self.settings

        def on_level(level, path, problem):
            basis = settings.level_basis(path.breaks, level)
            elements = settings.elements[level]
            c = path.c[:elements]
            dc = jnp.zeros_like(path.c)
            if not length_only:
                # In a batch every lane takes every branch: on those that are not its own it has nothing to solve.
                mine = found.best.level == level
                moved = problem.coefficients_tangent(basis, c, settings.tolerance, 4 * settings.max_cg, mine)
                dc = dc.at[:elements].set(moved)
            return dc, problem.energy_tangent(basis, c)

        branches = [
            lambda path, dynamic, dots, level=level: on_level(level, path, Linearisation(dynamic, problem.static, dots))
            for level in range(len(settings.elements))
        ]
        dc, de = jax.lax.switch(found.best.level, branches, found.best.path, problem.dynamic, problem.dots)
        best = zeros.best._replace(path=zeros.best.path._replace(c=dc), energy=de)
        return zeros._replace(best=best)
