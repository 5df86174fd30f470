"""Solving over levels of refinement: the state of one solve, and the steps that move it on.

A level has more elements than the one before, placed where the path found there turns. On each level the path is
improved by Newton's method; where that fails, along a continuation from Euclid to the metric. The first evaluation on a
level judges the path of the level before, which is kept if its error is small enough.

The steps are functions of one solve; `lanes` runs them for one solve or for many.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._types import Scalar
from ..metrics.inner_products import safe_sqrt
from .basis import Basis, Breaks, Coefficients, uniform_breaks
from .elements import Path, adapted_breaks, halved, merged, transfer
from .newton import descend, evaluate
from .path_energy import PathEnergy

RUNNING, STATIONARY, STALLED, NONFINITE = range(4)


class Levels(NamedTuple):
    """Settings of a solve; see `SpectralNewton` for their meaning."""

    degree: int
    quadrature: int
    elements: tuple[int, ...]
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


class SolveState(NamedTuple):
    """The best path so far and what is known of it, and the path being worked on."""

    best: Path
    level: Array  # on which `best` is stationary
    energy: Scalar
    error: Scalar  # estimated error of the length
    path_error: Scalar
    status: Array  # of the Newton iteration
    known: Array  # `best` is stationary on its level
    done: Array  # the length is as accurate as asked for
    open: Array  # another level, or another adaptation of the last one, may improve the path
    passes: Array  # through the last level
    work: Path
    active: Array  # there is work to do on this level
    fresh: Array  # `work` has still to be made
    attempt: Array  # 0: the metric itself; 1, 2, ...: steps of the continuation
    steps: Array  # Newton steps in this attempt
    coarse_length: Scalar  # of the path being judged, in the discretisation that found it
    counts: Counts


def initial_state(start: Coefficients, levels: Levels) -> SolveState:
    """Before anything is done; ``start`` are coefficients on equal elements, as many as the last level has."""
    path = Path(start, uniform_breaks(levels.elements[-1], start.dtype))
    zero = jnp.zeros((), jnp.int32)
    inf = jnp.asarray(jnp.inf, start.dtype)
    no, yes = jnp.asarray(False), jnp.asarray(True)
    counts = Counts(zero, zero, zero)
    return SolveState(
        path, zero, inf, inf, inf, zero + RUNNING, no, no, yes, zero, path, yes, yes, zero, zero, inf, counts
    )


def enter(state: SolveState) -> SolveState:
    """The state at the beginning of a level; also for a batch of states."""
    zero = jnp.zeros_like(state.attempt)
    return state._replace(
        status=jnp.where(state.open, RUNNING, state.status),
        active=state.open,
        fresh=state.open,
        attempt=zero,
        steps=zero,
        coarse_length=jnp.where(state.known, safe_sqrt(2 * state.energy), jnp.inf),
    )


def _padded(path_c: Coefficients, breaks: Breaks, like: Path) -> Path:
    c = jnp.zeros_like(like.c).at[: path_c.shape[0]].set(path_c)
    return Path(c, jnp.ones_like(like.breaks).at[: breaks.size].set(breaks))


def begin(problem: PathEnergy, start: Coefficients, state: SolveState, level: int, levels: Levels) -> SolveState:
    """Make the path to work on: the best one on elements adapted to it, or the start on equal ones."""
    elements = levels.elements[level]
    path = Path(merged(start, levels.elements[-1] // elements), uniform_breaks(elements, start.dtype))
    if level > 0:
        breaks = adapted_breaks(state.best, problem.x, problem.y, levels.basis(state.best.breaks), elements)
        adapted = Path(transfer(state.best, levels.basis(breaks)), breaks)
        path = jax.tree.map(lambda new, old: jnp.where(state.attempt == 0, new, old), adapted, path)
    made = _padded(*path, state.work)
    work = jax.tree.map(lambda new, old: jnp.where(state.fresh, new, old), made, state.work)
    return state._replace(work=work, fresh=jnp.zeros_like(state.fresh))


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


def _accurate(energy: Scalar, gain: Scalar, other_length: Scalar, levels: Levels) -> Array:
    """Whether length and path are as accurate as asked for."""
    length, error, path_error = estimated_error(energy, gain, other_length)
    return (error <= levels.rtol * length) & (path_error <= levels.path_rtol)


def advance(problem: PathEnergy, state: SolveState, level: int, levels: Levels) -> SolveState:
    """One Newton step on ``level``; or the end of an attempt, if there is no more to gain."""
    dtype, k = state.work.c.dtype, levels.continuation
    eps = jnp.finfo(dtype).eps
    elements = levels.elements[level]
    basis = levels.level_basis(state.work.breaks, level)
    direct, first = state.attempt == 0, state.steps == 0
    # Attempt 0 is the metric itself; attempts 1..k lead from 1e-3 of it to all of it, from the starting path.
    exponent = jnp.where(direct, 0.0, -3.0 * (k - state.attempt) / max(k - 1, 1))
    fraction = (10.0**exponent).astype(dtype)
    tolerance = jnp.where(exponent == 0, levels.tolerance, max(levels.tolerance, 1e-3)).astype(dtype)

    judging = direct & first

    def enough(energy, bound):
        return judging & _accurate(energy, bound, state.coarse_length, levels)

    # There is nothing to judge on the first level.
    at = evaluate(problem, basis, state.work.c[:elements], fraction, enough if level > 0 else None)
    finite = jnp.isfinite(at.energy) & jnp.isfinite(at.gain)
    length, estimate, path_error = estimated_error(at.energy, at.gain, state.coarse_length)
    # The start is never taken for a geodesic unseen: it may be a saddle, which only a step finds out.
    stationary = (path_error <= tolerance) & ~(judging & (level == 0))
    accepted = judging & _accurate(at.energy, at.gain, state.coarse_length, levels)
    moving = finite & ~stationary & ~accepted & (state.steps < levels.max_steps)
    descent = descend(problem, basis, at, fraction, moving, levels.max_cg)

    stuck = moving & ~descent.accepted
    # Where rounding stops the descent just above the tolerance, the path is as good as this precision gives.
    floor = jnp.maximum(tolerance, jnp.minimum(1e3 * tolerance, 10 * eps**0.5))
    stationary = finite & (stationary | accepted | (stuck & (path_error <= floor)))
    status = jnp.where(stationary, STATIONARY, jnp.where(stuck, STALLED, RUNNING))
    status = jnp.where(finite, status, NONFINITE).astype(jnp.int32)
    ended = (status != RUNNING) | (state.steps >= levels.max_steps)
    left = ended & ((direct & stationary) | (state.attempt >= k))
    next_attempt = ended & ~left
    work = _padded(descent.c, basis.breaks, state.work)
    attempt = state.attempt + next_attempt
    q = basis.u.size * elements
    state = state._replace(
        status=jnp.where(next_attempt, RUNNING, status),
        done=state.done | (left & accepted),
        open=state.open & ~(left & accepted),
        work=work,
        active=~left,
        fresh=next_attempt & (attempt == 1),
        attempt=attempt,
        steps=jnp.where(next_attempt, 0, state.steps + 1),
        counts=Counts(
            state.counts.newton + moving,
            state.counts.cg + descent.cg_steps,
            state.counts.metric + q * (1 + descent.cg_steps + descent.tries),
        ),
    )
    # A failure must not take the place of what was found before.
    found = left & ~accepted & (stationary | ~state.known)
    if level == len(levels.elements) - 1:
        # `judge` decides whether this is better than what there was.
        return state._replace(
            energy=jnp.where(left & accepted, at.energy, state.energy),
            error=jnp.where(left & accepted, estimate, state.error),
            path_error=jnp.where(left & accepted, path_error, state.path_error),
            coarse_length=jnp.where(left & ~accepted, length, state.coarse_length),
        )
    return state._replace(
        best=jax.tree.map(lambda new, old: jnp.where(found, new, old), work, state.best),
        level=jnp.where(found, level, state.level).astype(jnp.int32),
        known=state.known | (found & stationary),
        energy=jnp.where(found | (left & accepted), at.energy, state.energy),
        error=jnp.where(left & accepted, estimate, jnp.where(found, jnp.inf, state.error)),
        path_error=jnp.where(found | (left & accepted), path_error, state.path_error),
    )


def judge(problem: PathEnergy, state: SolveState, levels: Levels) -> SolveState:
    """Judge the path found on the last level by one evaluation on elements of half the width.

    The path stays ``open`` to another adaptation of its elements while those help and it is not as accurate as asked.
    """
    last = len(levels.elements) - 1
    path = halved(state.work)
    basis = levels.basis(path.breaks)
    at = evaluate(problem, basis, path.c, enough=lambda *found: _accurate(*found, state.coarse_length, levels))
    _, error, path_error = estimated_error(at.energy, at.gain, state.coarse_length)
    finite = jnp.isfinite(at.energy) & jnp.isfinite(at.gain)
    stationary = state.status == STATIONARY
    error = jnp.where(stationary, error, jnp.inf)
    first = state.passes == 0
    found = stationary & finite
    better = jnp.where(first, found | ~state.known, found & (path_error < state.path_error))
    clearly = first | (path_error < state.path_error / 2)
    status = jnp.where(stationary & ~finite, NONFINITE, state.status)
    choose = lambda new, old: jnp.where(better, new, old)  # noqa: E731
    error, path_error, energy = jax.tree.map(
        choose, (error, path_error, at.energy), (state.error, state.path_error, state.energy)
    )
    accurate = error <= levels.rtol * safe_sqrt(2 * energy)
    exact = accurate & (path_error <= levels.path_rtol)
    return state._replace(
        best=jax.tree.map(choose, state.work, state.best),
        level=choose(last, state.level).astype(jnp.int32),
        known=state.known | found,
        energy=energy,
        error=error,
        path_error=path_error,
        status=jnp.where(first, status, STATIONARY).astype(jnp.int32),
        done=accurate & jnp.isfinite(energy) & (found | ~first),
        open=found & clearly & ~exact & (state.passes < levels.adaptations),
        passes=state.passes + 1,
        active=jnp.zeros_like(state.active),
        counts=state.counts._replace(metric=state.counts.metric + basis.times.size),
    )
