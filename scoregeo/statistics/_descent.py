"""Quasi-Newton descent of losses that are made of geodesics: the search behind means, medians and regressions.

An objective says what the loss is at some variables, and along which vector V it falls: minus its gradient in an inner
product that is close to its second derivative, such as the metric's. The zero of V is found by L-BFGS steps in that
inner product: nothing is solved for, and steps stay tangent where coordinates have constraints. One iteration evaluates
the objective once, from what was known before (geodesics to start from).
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._batching import compacted_while_loop, select
from .._numerics import safe_sqrt
from .._types import Scalar, Vector

_MEMORY = 8
# Steps are halved so often, to stay in the domain, and shortened to no less than this.
_HALVINGS = 20
_SHORTEST = 1e-4


class Evaluation(NamedTuple):
    """A loss at some variables: ``value``, the vector V along which it falls (``descent``) and its length (``norm``),
    how small that is to be (``goal``), the step along V to try first, to what the value is known (``slack``), whether
    all this is finite, whether geodesics solved anew turned out shorter (``surprise``), and anything else to keep."""

    value: Scalar
    descent: Vector
    norm: Scalar
    goal: Scalar
    first: Scalar
    slack: Scalar
    usable: Bool[Array, ""]
    surprise: Bool[Array, ""]
    known: Any


class AbstractObjective(eqx.Module):
    """A loss of flat variables ``(v,)``."""

    @abc.abstractmethod
    def unknown(self, variables: Vector) -> Any:
        """``known`` of an `Evaluation` as it is before the first."""

    @abc.abstractmethod
    def evaluate(self, variables: Vector, known: Any, fresh: Bool[Array, ""], again: Bool[Array, ""]) -> Evaluation:
        """The loss. ``fresh``: do not start from what is ``known``; ``again``: although it is known here already."""

    @abc.abstractmethod
    def product(self, variables: Vector) -> Callable[[Vector], Vector]:
        """Vectors to covectors, in the inner product of V."""

    def domain(self, variables: Vector) -> Scalar:
        """Positive where the loss is defined."""
        return jnp.ones((), variables.dtype)

    def jump(
        self, variables: Vector, at: Evaluation, tried: Bool[Array, " n"]
    ) -> tuple[Bool[Array, ""], Vector, Bool[Array, " n"]]:
        """Whether to try other variables than the next step's, which, and what has then been tried: nothing here."""
        return jnp.asarray(False), variables, tried


class _State(NamedTuple):
    # Where the search is, and what is known there.
    variables: Vector
    at: Evaluation
    # Where it looks next: a step in a direction, a share of it, along which the loss falls by the slope.
    trial: Vector
    direction: Vector
    share: Scalar
    slope: Scalar
    fresh: Bool[Array, ""]  # with geodesics that start anew
    jump: Bool[Array, ""]  # somewhere else
    tried: Bool[Array, " n"]
    # What quasi-Newton steps know: moves, and how V changed along them; the newest last.
    moves: Float[Array, "k v"]
    changes: Float[Array, "k v"]
    kept: Int[Array, ""]
    steps: Int[Array, ""]
    verified: Bool[Array, ""]
    over: Bool[Array, ""]


class Descent(NamedTuple):
    """How a search ended."""

    variables: Vector
    at: Evaluation
    converged: Bool[Array, ""]
    steps: Int[Array, ""]


def descend(objective: AbstractObjective, init: Vector, n: int, max_steps: int, numbers_per_lane: int) -> Descent:
    """The search from ``init``, of at most ``max_steps`` evaluations; ``n`` data may be jumped to."""

    def going(state: _State) -> Bool[Array, ""]:
        return ~state.over & (state.steps < max_steps)

    state = compacted_while_loop(
        going, _step, _initial(objective, init, n), objective, numbers_per_lane=numbers_per_lane
    )
    converged = (state.at.norm <= state.at.goal) & state.verified
    return Descent(state.variables, state.at, converged, state.steps)


def _initial(objective: AbstractObjective, init: Vector, n: int) -> _State:
    """Nothing is known yet, and ``init`` to be tried."""
    zero, no = jnp.zeros((), init.dtype), jnp.asarray(False)
    inf, vector, rows = zero + jnp.inf, jnp.zeros_like(init), jnp.zeros((_MEMORY, init.size), init.dtype)
    return _State(
        variables=init,
        at=Evaluation(inf, vector, inf, zero, zero, zero, no, no, objective.unknown(init)),
        trial=init,
        direction=vector,
        share=zero + 1,
        slope=zero,
        fresh=jnp.asarray(True),
        jump=no,
        tried=jnp.zeros(n, bool),
        moves=rows,
        changes=rows,
        kept=jnp.zeros((), jnp.int32),
        steps=jnp.zeros((), jnp.int32),
        verified=no,
        over=no,
    )


def _step(objective: AbstractObjective, state: _State) -> _State:
    """Evaluate the trial, move there if that is better, and choose the next."""
    new, old = objective.evaluate(state.trial, state.at.known, state.fresh, state.fresh & (state.steps > 0)), state.at
    slack = new.slack + 10 * jnp.finfo(state.trial.dtype).eps * jnp.abs(old.value)
    falls = new.value <= old.value - 1e-4 * state.share * state.slope
    # Near the end the loss no longer tells points apart, but V does.
    flatter = (new.value <= old.value + slack) & (new.norm <= 0.9 * old.norm)
    accepted = new.usable & (falls | flatter | state.fresh)
    lost = ~new.usable & (state.steps == 0)

    walked = accepted & ~state.fresh & ~state.jump
    state = select(walked, _remember(state, state.trial - state.variables, old.descent - new.descent), state)
    forget = accepted & (state.jump | new.surprise)
    verified = jnp.where(accepted, state.fresh & ~new.surprise, state.verified)
    variables, at = select(accepted | lost, (state.trial, new), (state.variables, old))
    state = state._replace(
        variables=variables,
        at=at,
        kept=jnp.where(forget, 0, state.kept),
        verified=verified,
        steps=state.steps + 1,
    )
    return _next(objective, state, accepted, lost)


def _remember(state: _State, move: Vector, change: Vector) -> _State:
    """The pair of a move and how V changed along it, as the newest."""

    def push(rows, row):
        return jnp.concatenate([rows[1:], row[None]])

    return state._replace(
        moves=push(state.moves, move), changes=push(state.changes, change), kept=jnp.minimum(state.kept + 1, _MEMORY)
    )


def _next(objective: AbstractObjective, state: _State, accepted: Bool[Array, ""], lost: Bool[Array, ""]) -> _State:
    """The next trial: a new step after a move, a shorter one otherwise, a jump, or the same variables once more."""
    here, at = state.variables, state.at
    small = at.norm <= at.goal
    # A step that got too short: the memory is at fault, or there is nothing to gain.
    short = ~accepted & ~state.jump & (state.share < _SHORTEST)
    stuck = short & (state.kept == 0)
    state = state._replace(kept=jnp.where(short, 0, state.kept))
    anew = accepted | state.jump | short
    mv = objective.product(here)
    direction = _quasi_newton(mv, state)
    direction, slope = select(anew, (direction, mv(at.descent) @ direction), (state.direction, state.slope))
    share = jnp.where(anew, 1, state.share / 4).astype(here.dtype)
    shares = share * 0.5 ** jnp.arange(_HALVINGS, dtype=share.dtype)
    domains = jax.vmap(lambda s: objective.domain(here + s * direction))(shares)
    # Not too close to the boundary at once.
    share = shares[jnp.argmax(domains > 0.1 * objective.domain(here))]

    # What looks like the end is looked at once more, by geodesics that are solved anew.
    fresh = small & ~state.verified
    jump, target, tried = objective.jump(here, at, state.tried)
    jump = jump & ~lost & ~small
    trial = jnp.where(jump, target, here + share * direction)
    return state._replace(
        trial=jnp.where(fresh, here, trial),
        direction=direction,
        share=share,
        slope=jnp.where(jump, 0, slope),
        fresh=fresh,
        jump=jump,
        tried=jnp.where(jump, tried, state.tried),
        over=lost | (small & state.verified) | (stuck & ~fresh & ~jump),
    )


def _quasi_newton(mv: Callable[[Vector], Vector], state: _State) -> Vector:
    """L-BFGS (Nocedal & Wright, algorithm 7.4) in the inner product of V: the step along V, better scaled."""
    newest = _MEMORY - 1
    images = jax.vmap(mv)(state.changes)
    covectors = jax.vmap(mv)(state.moves)
    curvatures = jnp.sum(state.moves * images, -1)
    sizes, squares = jnp.sum(state.changes * images, -1), jnp.sum(state.moves * covectors, -1)
    # Only along moves where V turned back is a minimum ahead.
    usable = (jnp.arange(_MEMORY) >= _MEMORY - state.kept) & (curvatures > 1e-8 * safe_sqrt(sizes * squares))
    inverse = jnp.where(usable, 1 / jnp.where(usable, curvatures, 1), 0)

    def down(i, carry):
        q, a = carry
        k = newest - i
        factor = inverse[k] * (covectors[k] @ q)
        return q - factor * state.changes[k], a.at[k].set(factor)

    def up(k, q):
        return q + (a[k] - inverse[k] * (images[k] @ q)) * state.moves[k]

    q, a = jax.lax.fori_loop(0, _MEMORY, down, (state.at.descent, jnp.zeros_like(inverse)))
    scaled = usable[newest] & (sizes[newest] > 0)
    scale = jnp.where(scaled, curvatures[newest] / jnp.where(scaled, sizes[newest], 1), state.at.first)
    return jax.lax.fori_loop(0, _MEMORY, up, scale * q)
