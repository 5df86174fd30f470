"""Arithmetic that keeps derivatives and signs right."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

_T = TypeVar("_T")


def safe_sqrt(x: Array) -> Array:
    """Square root with derivative zero (not NaN) at zero; negative rounding errors become zero, NaN stays NaN."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), jnp.where(jnp.isnan(x), x, 0))


def frozen(tree: _T) -> _T:
    """``tree`` as a constant: no derivative flows through its arrays."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def by_precision(dtype: Any, double: _T, single: _T) -> _T:
    """``double`` where ``dtype`` has at least the 64 bits of double precision, else ``single``.

    >>> by_precision("float64", 1e-10, 1e-5), by_precision("float32", 1e-10, 1e-5)
    (1e-10, 1e-05)
    """
    return double if jnp.finfo(dtype).bits >= 64 else single
