"""While loops whose finished lanes make room for others. This file knows nothing of geometry.

A plain ``vmap`` of ``lax.while_loop`` runs every lane until the last one ends: n lanes cost n times the worst of them.
`compacted_while_loop` gathers lanes that have work to do into chunks, and refills a chunk once half of it is done: the
cost is about the sum of what the lanes need.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, PyTree

from ._numerics import own_settings

# How many numbers are advanced together. On a CPU a few lanes hide the cost of calling small operations, and more lanes
# only wait for one another; an accelerator wants to be filled.
_NUMBERS_TOGETHER = {"cpu": 2**8, "tpu": 2**13}
_NUMBERS_ELSEWHERE = 2**17
# XLA's compiler for TPUs writes out what works on arrays that fit on the chip, instruction by instruction: 25,000 of
# them for one product of large matrices in full precision. There a loop works on so many numbers at a time.
_NUMBERS_WRITTEN_OUT = {"tpu": 2**17}
_LANES = 128  # columns that a TPU handles together


class Rare(NamedTuple):
    """Work that few iterations need: ``prepare`` runs before the body, with its arguments, where ``needed(state)``.

    In a batch it is skipped as a whole where no lane needs it, which a condition inside the body could not be.
    """

    needed: Callable[[PyTree], Bool[Array, ""]]
    prepare: Callable[..., PyTree]


def compacted_while_loop(
    cond: Callable[[PyTree], Bool[Array, ""]],
    body: Callable[[PyTree, PyTree], PyTree],
    state: PyTree,
    args: PyTree = None,
    *,
    numbers_per_lane: int = 1,
) -> PyTree:
    """``state`` after ``while cond(state): state = body(args, state)``; under ``jax.vmap``, finished lanes make room.

    **Arguments**

    - ``cond``, ``body``: of one lane. They must not close over traced arrays: those belong in ``args``.
    - ``state``, ``args``: pytrees. Leaves of ``state`` that are no arrays stay as they are; ``args`` may hold anything,
      and only leaves that are batched are gathered.
    - ``numbers_per_lane``: about how many numbers one iteration of one lane works on. It sets how many lanes are
      advanced side by side, so that a chunk fits the device.

    Every lane ends with the value that the plain loop gives it, up to rounding. A further ``vmap`` makes one batch of
    the lanes of both axes. Not differentiable in reverse mode, as no while loop is.

    >>> import jax, jax.numpy as jnp
    >>> halve = lambda n: compacted_while_loop(lambda n: n > 1, lambda _, n: n // 2, n)
    >>> jax.vmap(halve)(jnp.array([1, 40, 7])).tolist()
    [1, 1, 1]
    """
    body_of = lambda args, state, _: body(args, state)  # noqa: E731
    return staged_while_loop(cond, body_of, state, args, stage=lambda _: 0, numbers_per_lane=(numbers_per_lane,))


def staged_while_loop(
    cond: Callable[[PyTree], Bool[Array, ""]],
    body: Callable[[PyTree, PyTree, Any], PyTree],
    state: PyTree,
    args: PyTree = None,
    *,
    stage: Callable[[PyTree], Any],
    numbers_per_lane: Sequence[int],
    rare: Rare | None = None,
) -> PyTree:
    """As `compacted_while_loop`, through stages of different work: ``state = body(args, state, stage(state))``.

    ``stage`` never falls; ``numbers_per_lane`` are those of the stages, and there are as many stages. The loop of one
    lane is compiled once, with a traced stage. In a batch lanes of the same stage go together, and the stage is an
    integer of Python: a traced one would make every lane take the branches of all stages. ``rare`` is `Rare`.

    >>> import jax, jax.numpy as jnp
    >>> double = lambda args, n, stage: jnp.where(stage == 0, n + 1, 2 * n)
    >>> large = lambda n: jnp.where(n < 3, 0, 1)
    >>> loop = lambda n: staged_while_loop(lambda n: n < 20, double, n, stage=large, numbers_per_lane=(1, 1))
    >>> jax.vmap(loop)(jnp.array([1, 5, 40])).tolist(), int(loop(1))
    ([24, 20, 40], 24)
    """
    arrays, static = eqx.partition(args, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    state, fixed = eqx.partition(jax.tree.map(_as_array, state), eqx.is_array)
    stacking = _Stacking(state)

    def join(leaves):
        return eqx.combine(jax.tree.unflatten(structure, leaves), static)

    def whole(state):
        return eqx.combine(state, fixed)

    def loop_of(only: int | None) -> _Loop:
        """The loop through all stages, or through one of them."""

        def stage_of(state):
            return stage(state) if only is None else only

        def staged(work):
            return lambda args, s: eqx.filter(work(args, whole(s), stage_of(whole(s))), eqx.is_array)

        def unfinished(s):
            going = cond(whole(s))
            return going if only is None or len(numbers_per_lane) == 1 else going & (stage(whole(s)) == only)

        own = None
        if rare is not None:
            needed, prepare = rare
            own = Rare(lambda s: needed(whole(s)), staged(prepare))
        return _Loop(unfinished, staged(body), own, stacking)

    @custom_vmap
    def solve(leaves, state):
        return loop_of(None).run(join(leaves), state)

    @solve.def_vmap
    def rule(size, in_batched, leaves, state):
        leaves_batched, state_batched = in_batched
        states = jax.tree.map(
            lambda leaf, batched: leaf if batched else jnp.broadcast_to(leaf, (size, *jnp.shape(leaf))),
            state,
            state_batched,
        )
        loops = [(loop_of(k), numbers) for k, numbers in enumerate(numbers_per_lane)]
        states = _over_lanes(loops, join, tuple(leaves_batched))(leaves, states)
        return states, jax.tree.map(lambda _: True, states)

    return whole(solve(leaves, state))


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if eqx.is_array_like(leaf) else leaf


class _Stacking:
    """From a state to few arrays, the scalars of each type in one of them, and back.

    A loop that carries many scalars has a kernel for each of them, to compile and to call.
    """

    def __init__(self, like: PyTree):
        leaves, self.structure = jax.tree.flatten(like)
        types = sorted({leaf.dtype for leaf in leaves}, key=str)
        self.places = [[i for i, leaf in enumerate(leaves) if leaf.dtype == t and leaf.ndim == 0] for t in types]
        self.rest = [i for i, leaf in enumerate(leaves) if leaf.ndim > 0]

    def stack(self, state: PyTree) -> tuple[list, list]:
        leaves = jax.tree.leaves(state)
        scalars = [jnp.stack([leaves[i] for i in place]) for place in self.places if place]
        return scalars, [leaves[i] for i in self.rest]

    def unstack(self, stacked: tuple[list, list]) -> PyTree:
        scalars, arrays = stacked
        leaves = dict(zip(self.rest, arrays, strict=True))
        for place, values in zip(filter(None, self.places), scalars, strict=True):
            leaves |= {i: values[j] for j, i in enumerate(place)}
        return jax.tree.unflatten(self.structure, [leaves[i] for i in range(len(leaves))])


class _Loop(NamedTuple):
    """The functions of one lane, and how its state is carried."""

    cond: Callable
    body: Callable
    rare: Rare | None
    stacking: _Stacking

    def run(self, args: PyTree, state: PyTree) -> PyTree:
        """The loop of one lane."""
        stack, unstack, rare = self.stacking.stack, self.stacking.unstack, self.rare

        def prepare(state):
            assert rare is not None  # called only where there is such work
            return rare.prepare(args, state)

        def step(stacked):
            state = unstack(stacked)
            if rare is not None:
                state = jax.lax.cond(rare.needed(state), prepare, lambda s: s, state)
            return stack(self.body(args, state))

        with own_settings():  # a batch is traced later than the caller
            return unstack(jax.lax.while_loop(lambda s: self.cond(unstack(s)), step, stack(state)))

    def run_chunk(self, args_of: Callable, own: PyTree, states: PyTree, enough: Array) -> PyTree:
        """The loop of several lanes side by side, until no more than ``enough`` of them have work to do."""
        stack, unstack = map(jax.vmap, (self.stacking.stack, self.stacking.unstack))
        unfinished, rare = jax.vmap(self.cond), self.rare

        def prepare(own, state, needed):
            assert rare is not None  # called only where there is such work
            return select(needed, rare.prepare(args_of(own), state), state)

        def step(stacked):
            states = unstack(stacked)
            going = unfinished(states)
            if rare is not None:
                # A lane that is done may look as if it needed something: what follows is no longer its concern.
                needed = going & jax.vmap(rare.needed)(states)
                states = jax.lax.cond(jnp.any(needed), lambda s: jax.vmap(prepare)(own, s, needed), lambda s: s, states)
            new = stack(jax.vmap(lambda o, s: self.body(args_of(o), s))(own, states))
            return jax.tree.map(lambda a, b: jnp.where(_as_wide(going, a), a, b), new, stack(states))

        waiting = lambda stacked: jnp.sum(unfinished(unstack(stacked))) > enough  # noqa: E731
        with own_settings():  # a batch is traced later than the caller
            return unstack(jax.lax.while_loop(waiting, step, stack(states)))


def select(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """``new`` where the scalar ``condition`` is true, else ``old``; leaves that are one and the same are not asked."""
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), new, old)


def branch(which: Any, branches: Sequence[Callable], *operands: Any) -> Any:
    """``branches[which](*operands)``: by `jax.lax.switch`, or for an integer or bool of Python that branch alone.

    >>> import jax.numpy as jnp
    >>> [int(branch(which, [jnp.sin, jnp.square], 3.0)) for which in (1, jnp.asarray(True))]
    [9, 9]
    """
    if isinstance(which, int):
        return branches[which](*operands)
    return jax.lax.switch(which.astype(jnp.int32), branches, *operands)


def over_rows(function: Callable, *arrays: Array) -> Any:
    """``jax.vmap(function)(*arrays)``; on TPUs, where arrays are large, some rows after others.

    >>> import jax.numpy as jnp
    >>> over_rows(jnp.dot, jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
    [1.0, 4.0]
    """
    rows, side_by_side = arrays[0].shape[0], jax.vmap(function)
    most = _side_by_side(side_by_side, arrays, rows, 1)
    if most == rows:
        return side_by_side(*arrays)
    # What is left over would be written out once more.
    even = max(n for n in range(1, most + 1) if rows % n == 0)
    return jax.lax.map(lambda row: function(*row), arrays, batch_size=even if 2 * even >= most else most)


def over_columns(function: Callable, *arrays: Array) -> Any:
    """``function(*arrays)``, which has nothing to do between columns, those along the last axis; on TPUs, where arrays
    are large, some columns after others.

    >>> import jax.numpy as jnp
    >>> over_columns(lambda a: 2 * a, jnp.array([[1.0, 2.0]])).tolist()
    [[2.0, 4.0]]
    """

    def put(whole, part, start):
        return jax.lax.dynamic_update_slice_in_dim(whole, part, start, -1)

    return _by_columns(function, put, arrays)


def sum_over_columns(function: Callable, *arrays: Array) -> Any:
    """``function(*arrays)``, which is a sum over columns, as `over_columns`.

    >>> import jax.numpy as jnp
    >>> sum_over_columns(lambda a: a @ a.T, jnp.ones((2, 3))).tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """
    return _by_columns(function, lambda total, part, start: total + part, arrays)


def _by_columns(function: Callable, put: Callable, arrays: tuple[Array, ...]) -> Any:
    columns = arrays[0].shape[-1]
    width = _side_by_side(function, arrays, columns, _LANES)
    if width == columns:
        return function(*arrays)

    def add(found, start, width):
        part = function(*(jax.lax.dynamic_slice_in_dim(a, start, width, -1) for a in arrays))
        return jax.tree.map(lambda whole, part: put(whole, part, start), found, part)

    found = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(function, *arrays))
    whole, rest = divmod(columns, width)
    found = jax.lax.fori_loop(0, whole, lambda k, found: add(found, k * width, width), found)
    return add(found, columns - rest, rest) if rest else found


def _side_by_side(function: Callable, arrays: tuple[Array, ...], count: int, unit: int) -> int:
    """How many of ``count`` rows or columns of ``arrays`` to work on at once: all, or a multiple of ``unit``."""
    most = _NUMBERS_WRITTEN_OUT.get(jax.default_backend())
    if most is None:
        return count
    numbers = max(leaf.size for leaf in jax.tree.leaves((arrays, jax.eval_shape(function, *arrays))))
    return min(count, max(1, most * count // numbers // unit) * unit)


def _as_wide(condition, array):
    return condition.reshape(condition.shape + (1,) * (array.ndim - condition.ndim))


def _run_many(loop: _Loop, args_of: Callable, own: list, states: PyTree, numbers_per_lane: int) -> PyTree:
    """As ``loop.run`` for each lane, in chunks; ``own`` are the leaves of the arguments that differ between lanes."""
    lanes = jax.tree.leaves(states)[0].shape[0]
    backend = jax.default_backend()
    width = max(1, min(lanes, _NUMBERS_TOGETHER.get(backend, _NUMBERS_ELSEWHERE) // max(1, numbers_per_lane)))
    if backend == "tpu":
        # XLA's compiler for TPUs dies of a check that asks for a power of two where it gets 170 (libtpu 0.0.52).
        width = 2 ** (width.bit_length() - 1)
    unfinished = jax.vmap(loop.cond)

    def one_lane(states):
        lane = jnp.argmax(unfinished(states))
        part, mine = jax.tree.map(lambda a: a[lane], (states, own))
        part = loop.run(args_of(mine), part)
        return jax.tree.map(lambda a, new: a.at[lane].set(new), states, part)

    def one_chunk(states):
        going = unfinished(states)
        chosen = jnp.nonzero(going, size=width, fill_value=lanes)[0]
        # A chunk that is not full repeats its first lane, because that takes no longer than the lane itself does.
        source = jnp.where(chosen < lanes, chosen, chosen[0])
        part, mine = jax.tree.map(lambda a: a[source], (states, own))
        # Once half of a chunk is done it is refilled, because moving lanes costs little and waiting costs more.
        enough = jnp.where(jnp.sum(going) > width, width // 2, 0)
        part = loop.run_chunk(args_of, mine, part, enough)
        return jax.tree.map(lambda a, new: a.at[chosen].set(new, mode="drop"), states, part)

    # A chunk of one lane would compute both sides of every condition.
    step = one_lane if width == 1 else one_chunk
    return jax.lax.while_loop(lambda s: jnp.any(unfinished(s)), step, states)


def _over_lanes(loops: list[tuple[_Loop, int]], join: Callable, batched: tuple[bool, ...]) -> Callable:
    """`_run_many` of one loop after the other, each with its numbers per lane, as a function of all leaves of the
    arguments, those with ``batched`` having a leading axis of lanes.

    Under a further ``vmap`` the lanes of both axes become one batch.
    """

    @custom_vmap
    def solve(leaves, states):
        own = [leaf for leaf, is_batched in zip(leaves, batched, strict=True) if is_batched]
        shared = [leaf for leaf, is_batched in zip(leaves, batched, strict=True) if not is_batched]

        def args_of(own):
            mine, common = iter(own), iter(shared)
            return join([next(mine) if is_batched else next(common) for is_batched in batched])

        for loop, numbers_per_lane in loops:
            states = _run_many(loop, args_of, own, states, numbers_per_lane)
        return states

    @solve.def_vmap
    def rule(size, in_batched, leaves, states):
        leaves_batched, states_batched = in_batched
        lane_axis = 1 if jax.tree.leaves(states_batched)[0] else 0
        lanes = jax.tree.leaves(states)[0].shape[lane_axis]

        def flat(leaf, outer, inner):
            if inner and not outer:
                leaf = jnp.broadcast_to(leaf, (size, *leaf.shape))
            if outer and not inner:
                leaf = jnp.repeat(leaf, lanes, 0)
            return leaf.reshape(size * lanes, *leaf.shape[2:]) if inner else leaf

        both = tuple(inner or outer for inner, outer in zip(batched, leaves_batched, strict=True))
        leaves = [flat(*leaf) for leaf in zip(leaves, leaves_batched, batched, strict=True)]
        states = jax.tree.map(lambda leaf, outer: flat(leaf, outer, True), states, states_batched)
        states = _over_lanes(loops, join, both)(leaves, states)
        states = jax.tree.map(lambda a: a.reshape(size, lanes, *a.shape[1:]), states)
        return states, jax.tree.map(lambda _: True, states)

    return solve
