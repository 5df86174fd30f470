"""Minimisation by optimistix in which, under `jax.vmap`, finished lanes make room for others."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, Int, PyTree

from ..._batching import compacted_while_loop
from ..._types import Scalar


def minimise(
    fn: Callable[[Array, PyTree], Scalar],
    minimiser: optx.AbstractMinimiser,
    start: Float[Array, "..."],
    args: PyTree,
    max_steps: int,
) -> tuple[Float[Array, "..."], Int[Array, ""]]:
    """Where ``minimiser`` ends from ``start``, by its own criteria or after ``max_steps``, and the steps that it took.

    As ``optimistix.minimise`` with ``throw=False``, whose loop runs all lanes of a batch until the last one ends.
    ``fn(y, args)`` must not close over traced arrays, which belong in ``args``. Not differentiable in reverse mode.
    """

    def with_aux(y, args):
        return fn(y, args), None

    value = eqx.filter_eval_shape(fn, start, args)
    struct = jax.ShapeDtypeStruct(value.shape, value.dtype)
    tags: frozenset = frozenset()

    def ended(minimiser, args, y, state):
        terminate, result = minimiser.terminate(with_aux, y, args, {}, state, tags)
        return terminate | (result != optx.RESULTS.successful) | ~jnp.all(jnp.isfinite(y))

    state = minimiser.init(with_aux, start, args, {}, struct, None, tags)
    arrays, static = eqx.partition(state, eqx.is_array)

    def body(how, carry):
        minimiser, args = how
        y, arrays, steps, _ = carry
        new, state, _ = minimiser.step(with_aux, y, args, {}, eqx.combine(arrays, static), tags)
        # The path before the step is what is asked, as in optimistix: a step to where nothing is finite is the last.
        return new, eqx.filter(state, eqx.is_array), steps + 1, ended(minimiser, args, y, state)

    y, _, steps, _ = compacted_while_loop(
        lambda carry: ~carry[3] & (carry[2] < max_steps),
        body,
        (start, arrays, jnp.zeros((), jnp.int32), ended(minimiser, args, start, state)),
        (minimiser, args),  # settings of the minimiser may be traced, too
        numbers_per_lane=start.size,
    )
    return y, steps
