"""One solve, or many side by side: under `jax.vmap`, lanes that have finished make room for those that have not.

A plain ``vmap`` of a loop runs every lane until the last one ends, and every refinement for all lanes if one needs it.
Here a batch is solved level by level, in chunks gathered from the lanes with work to do; once half of a chunk is done,
others take the places. The work is about the sum of what the lanes need, not their number times the worst of them.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from .energy import PathEnergy
from .legendre import Coefficients
from .refinement import Levels, SolveState, advance, begin, enter, initial_state

# How many numbers (quadrature points times dimension) are advanced together. On a CPU a few lanes hide the cost of
# calling small operations, and more only wait for one another; an accelerator wants to be filled.
_NUMBERS_TOGETHER = {"cpu": 2**8}
_NUMBERS_ELSEWHERE = 2**17


def _all_levels(run: Callable, state: SolveState, levels: Levels) -> SolveState:
    """The levels in turn, the last of them as often as adapting its elements helps. ``run(begin, step, elements)`` runs
    ``step`` on states until none is active, after ``begin`` wherever there is no path to work on."""

    def improve(level, state):
        elements = levels.elements[level]
        return run(partial(begin, level=level, levels=levels), partial(advance, level=level, levels=levels), elements)(
            enter(state)
        )

    *lower, last = range(len(levels.elements))
    for level in lower:
        state = improve(level, state)

    return jax.lax.while_loop(lambda state: jnp.any(state.open), partial(improve, last), state)


def _solve_one(problem: PathEnergy, start: Coefficients, levels: Levels) -> SolveState:
    state = initial_state(start, levels)
    return _all_levels(partial(_run_one, _stacking(state), problem, start), state, levels)


def _run_one(stacking, problem: PathEnergy, start: Coefficients, begin, advance, elements: int) -> Callable:
    stack, unstack = stacking

    def step(stacked):
        state = unstack(stacked)
        state = jax.lax.cond(state.fresh, lambda s: begin(problem, start, s), lambda s: s, state)
        return stack(advance(problem, state))

    return lambda state: unstack(jax.lax.while_loop(lambda s: unstack(s).active, step, stack(state)))


def _stacking(like: SolveState) -> tuple[Callable, Callable]:
    """Functions from a state to few arrays, the scalars of each type in one of them, and back.

    A loop with many scalars has a kernel for each of them, to compile and to call.
    """
    leaves, structure = jax.tree.flatten(like)
    types = sorted({leaf.dtype for leaf in leaves}, key=str)
    places = [[i for i, leaf in enumerate(leaves) if leaf.dtype == t and leaf.ndim == 0] for t in types]
    rest = [i for i, leaf in enumerate(leaves) if leaf.ndim > 0]

    def stack(state):
        leaves = jax.tree.leaves(state)
        return [jnp.stack([leaves[i] for i in place]) for place in places], [leaves[i] for i in rest]

    def unstack(stacked):
        scalars, arrays = stacked
        leaves = dict(zip(rest, arrays, strict=True))
        for place, values in zip(places, scalars, strict=True):
            leaves |= {i: values[j] for j, i in enumerate(place)}
        return jax.tree.unflatten(structure, [leaves[i] for i in range(len(leaves))])

    return stack, unstack


def _as_wide(condition, array):
    return condition.reshape(condition.shape + (1,) * (array.ndim - condition.ndim))


def _solve_many(batched, shared, starts: Coefficients, levels: Levels, join: Callable) -> SolveState:
    """As `_solve_one` for each of ``batched`` and ``starts``, arrays with a leading axis of lanes."""
    lanes, d = starts.shape[0], starts.shape[-1]
    stacking = _stacking(initial_state(starts[0], levels))
    stack, unstack = map(jax.vmap, stacking)

    def run(begin, advance, elements):
        numbers = elements * levels.degree * levels.quadrature * d
        together = _NUMBERS_TOGETHER.get(jax.default_backend(), _NUMBERS_ELSEWHERE)
        width = max(1, min(lanes, together // numbers))

        def single(state):
            lane = jnp.argmax(state.active)
            part, own, start = jax.tree.map(lambda a: a[lane], (state, batched, starts))
            part = _run_one(stacking, join(own, shared), start, begin, advance, elements)(part)
            return jax.tree.map(lambda a, new: a.at[lane].set(new), state, part)

        def chunk(state):
            pending = jnp.sum(state.active)
            chosen = jnp.nonzero(state.active, size=width, fill_value=lanes)[0]
            # Free places repeat the first lane: they take no longer than it does.
            source = jnp.where(chosen < lanes, chosen, chosen[0])
            part, some, some_starts = jax.tree.map(lambda a: a[source], (state, batched, starts))
            # Once half of them are done, others take their places: moving lanes costs little, waiting more.
            enough = jnp.where(pending > width, width // 2, 0)

            def step(stacked):
                part = unstack(stacked)
                make = jax.vmap(lambda b, start, s: begin(join(b, shared), start, s))
                part = jax.lax.cond(jnp.any(part.fresh), partial(make, some, some_starts), lambda s: s, part)
                new = stack(jax.vmap(lambda b, s: advance(join(b, shared), s))(some, part))
                return jax.tree.map(lambda a, b: jnp.where(_as_wide(part.active, a), a, b), new, stack(part))

            waiting = lambda stacked: jnp.sum(unstack(stacked).active) > enough  # noqa: E731
            part = unstack(jax.lax.while_loop(waiting, step, stack(part)))
            return jax.tree.map(lambda a, new: a.at[chosen].set(new, mode="drop"), state, part)

        # A batch of one would compute both sides of every condition.
        return lambda state: jax.lax.while_loop(lambda s: jnp.any(s.active), single if width == 1 else chunk, state)

    state = jax.vmap(lambda start: initial_state(start, levels))(starts)
    return _all_levels(run, state, levels)


def _lanes(structure, static, levels: Levels, batched: tuple[bool, ...]) -> Callable:
    """`_solve_many` as a function of the leaves of a problem, those with ``batched`` having a leading axis of lanes.

    Under a further ``vmap`` the lanes of both axes become one batch.
    """

    def join(own, shared):
        own, shared = iter(own), iter(shared)
        leaves = [next(own) if is_batched else next(shared) for is_batched in batched]
        return eqx.combine(jax.tree.unflatten(structure, leaves), static)

    @custom_vmap
    def solve(leaves, starts):
        own = [leaf for leaf, is_batched in zip(leaves, batched, strict=True) if is_batched]
        shared = [leaf for leaf, is_batched in zip(leaves, batched, strict=True) if not is_batched]
        return _solve_many(own, shared, starts, levels, join)

    @solve.def_vmap
    def rule(size, in_batched, leaves, starts):
        leaves_batched, starts_batched = in_batched
        lanes = starts.shape[1] if starts_batched else starts.shape[0]

        def flat(leaf, outer, inner):
            if inner and not outer:
                leaf = jnp.broadcast_to(leaf, (size, *leaf.shape))
            if outer and not inner:
                leaf = jnp.repeat(leaf, lanes, 0)
            return leaf.reshape(-1, *leaf.shape[2:]) if inner else leaf

        both = tuple(inner or outer for inner, outer in zip(batched, leaves_batched, strict=True))
        leaves = [flat(*leaf) for leaf in zip(leaves, leaves_batched, batched, strict=True)]
        state = _lanes(structure, static, levels, both)(leaves, flat(starts, starts_batched, True))
        state = jax.tree.map(lambda a: a.reshape(size, lanes, *a.shape[1:]), state)
        return state, jax.tree.map(lambda _: True, state)

    return solve


def solve_levels(problem: PathEnergy, start: Coefficients, levels: Levels) -> SolveState:
    """Minimise the path energy on finer and finer levels until the estimated error of the length meets ``rtol``.

    ``start`` holds the coefficients of the starting path on equal elements, as many as the last level has. Not
    differentiable (see `stationary`). Under ``jax.vmap``, lanes are compacted.
    """
    arrays, static = eqx.partition(problem, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)

    @custom_vmap
    def solve(leaves, start):
        return _solve_one(eqx.combine(jax.tree.unflatten(structure, leaves), static), start, levels)

    @solve.def_vmap
    def rule(size, in_batched, leaves, start):
        leaves_batched, start_batched = in_batched
        starts = start if start_batched else jnp.broadcast_to(start, (size, *start.shape))
        state = _lanes(structure, static, levels, tuple(leaves_batched))(leaves, starts)
        return state, jax.tree.map(lambda _: True, state)

    return solve(leaves, start)
