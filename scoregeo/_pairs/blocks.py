"""Blocks of pairs: compiled once, solved one after the other, each divided among the devices of a mesh."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from .._checks import is_concrete
from .._numerics import with_own_settings
from .._results import RESULTS
from .._types import Point, Points
from .progress import progress_bar

_PROGRESS_STEPS = 50


def solve_pairs(how, xs, ys, rows, columns, batch_size, mesh, progress):
    """Lengths and results of the pairs ``(xs[rows], ys[columns])``, in blocks of equal shape: compiled once. ``how`` is
    metric, solver and starting rule."""
    pairs = len(rows)
    if pairs == 0:
        return jnp.zeros(0, xs.dtype), jax.tree.map(lambda code: jnp.zeros(0, code.dtype), RESULTS.successful)
    devices = 1 if mesh is None else mesh.size
    blocks = -(-pairs // (batch_size * devices))
    if progress:
        blocks = min(max(blocks, _PROGRESS_STEPS), pairs)
    size = -(-pairs // (blocks * devices)) * devices
    blocks = -(-pairs // size)
    # Strided, so that neighbours, which are similarly hard, are spread over blocks and devices.
    order = np.resize(np.arange(pairs), (size, blocks)).T
    arrays, static = eqx.partition(how, eqx.is_array)
    indices = np.stack([rows[order], columns[order]], 1)
    if all(map(is_concrete, jax.tree.leaves((arrays, xs, ys)))):
        data: tuple[Any, Points, Points] = replicated((arrays, xs, ys), mesh)
        solved = []
        with progress_bar(pairs, shown=progress) as advance:
            for number, block in enumerate(indices):
                solved.append(solve_block(*data, replicated(block, mesh), static, mesh))
                if progress:
                    jax.block_until_ready(solved[-1])  # or the bar would show what has been asked for, not what is done
                advance(min(size, pairs - number * size))
        solved = jax.tree.map(lambda *parts: jnp.stack(parts), *solved)
    else:
        solved = jax.lax.map(lambda block: solve_block(arrays, xs, ys, block, static, mesh), jnp.asarray(indices))
    inverse = np.zeros(pairs, int)
    inverse[order.reshape(-1)] = np.arange(order.size)
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[inverse], solved)


def replicated(tree, mesh):
    """``tree`` on every device of ``mesh``, also where these belong to several processes."""
    if mesh is None:
        return tree
    return jax.device_put(jax.tree.map(np.asarray, tree), NamedSharding(mesh, PartitionSpec()))


@eqx.filter_jit
@with_own_settings
def solve_block(arrays, xs, ys, pairs, static, mesh):
    def solve(arrays, xs, ys, pairs):
        metric, solver, init = eqx.combine(arrays, static)
        xs, ys = xs[pairs[0]], ys[pairs[1]]
        result = jax.vmap(lambda x, y: solver.solve(metric, x, y, init(metric, x, y), _ends(x)))(xs, ys)
        return result.length, result.result

    if mesh is None:
        return solve(arrays, xs, ys, pairs)
    (axis,) = mesh.axis_names
    everywhere, divided = PartitionSpec(), PartitionSpec(axis)
    # Loops run on each device until its own pairs are solved, so nothing may be communicated inside them.
    sharded = jax.shard_map(
        solve,
        mesh=mesh,
        in_specs=(everywhere, everywhere, everywhere, PartitionSpec(None, axis)),
        out_specs=divided,
        check_vma=False,
    )
    return jax.lax.with_sharding_constraint(sharded(arrays, xs, ys, pairs), NamedSharding(mesh, everywhere))


def _ends(x: Point) -> Float[Array, "2"]:
    return jnp.asarray((0.0, 1.0), x.dtype)
