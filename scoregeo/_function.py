"""Functions as pytrees: what lets a user's callable travel through ``jax.jit``."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax


class TracedFunction(eqx.Module):
    """A callable split into arrays (traced) and the rest (static), so that a score holding it passes through
    ``jax.jit``."""

    arrays: list
    rest: tuple = eqx.field(static=True)
    treedef: Any = eqx.field(static=True)

    def __init__(self, fn: Callable, name: str):
        if not callable(fn):
            raise TypeError(f"`{name}` must be callable, got {type(fn).__name__}")
        leaves, self.treedef = jax.tree.flatten(fn)
        self.arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
        self.rest = tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves)

    def __call__(self, *args):
        leaves = [r if a is None else a for a, r in zip(self.arrays, self.rest, strict=True)]
        return jax.tree.unflatten(self.treedef, leaves)(*args)
