"""The checks that every public entry point applies to what it is given.

They run once, at the door: shapes and dtypes always (they are static), values only when they are concrete, because a
traced value has none yet. Inside ``jit`` a non-finite value shows up as a status code instead.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array


def is_concrete(x: Any) -> bool:
    """Whether ``x`` has a value now (it is not being traced by ``jit``, ``vmap`` or ``grad``)."""
    return not isinstance(x, Tracer)


def as_float(x: Any, name: str) -> Array:
    """``x`` as a floating-point array. Integers become the default float; complex, boolean, text are refused."""
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be an array of numbers, got {type(x).__name__}") from error
    if jnp.issubdtype(x.dtype, jnp.floating):
        if jnp.finfo(x.dtype).bits < 32:
            raise TypeError(f"`{name}` must have at least single precision, got dtype {x.dtype}")
        return x
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(jnp.result_type(float))
    raise TypeError(f"`{name}` must be an array of real numbers, got dtype {x.dtype}")


def check_finite(x: Array, name: str) -> None:
    """Raise ``ValueError`` where a concrete array has NaN or infinite entries; says how many and where the first is."""
    if not is_concrete(x):
        return
    # NumPy, not jax.numpy: inside `jit` even an operation on a concrete array gives a traced one.
    bad = ~np.isfinite(np.asarray(x))
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{name}` must be finite, but {bad.sum()} of {x.size} entries are NaN or infinite (first at {first})"
        )


def as_point(x: Any, name: str, dim: int | None = None) -> Array:
    """``x`` as a finite floating-point vector of shape ``(d,)``; with ``dim``, d must equal it."""
    x = as_float(x, name)
    if x.ndim != 1:
        raise ValueError(f"`{name}` must have shape (d,), got {x.shape}; use jax.vmap for a batch of points")
    if dim is not None and x.shape[0] != dim:
        raise ValueError(f"`{name}` must have shape ({dim},), got {x.shape}")
    check_finite(x, name)
    return x


def as_points(x: Any, name: str, dim: int | None = None) -> Array:
    """``x`` as a finite floating-point array of shape ``(n, d)``; with ``dim``, d must equal it."""
    x = as_float(x, name)
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(f"`{name}` must have shape (n, d) with n, d >= 1, got {x.shape}")
    if dim is not None and x.shape[1] != dim:
        raise ValueError(f"`{name}` must have shape (n, {dim}), got {x.shape}")
    check_finite(x, name)
    return x


def is_integer(value: Any) -> bool:
    """Whether ``value`` is one integer, of Python or NumPy; booleans and arrays are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether ``value`` is one finite real number, of Python or NumPy; booleans and arrays are not."""
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def plain(value: Any) -> Any:
    """A NumPy number as Python's, anything else as it is: static settings are hashed, printed and written to JSON."""
    return value.item() if isinstance(value, np.generic) else value


def setting(default: Any) -> Any:
    """A static field with a default, which takes NumPy's numbers too; its owner checks it in ``__check_init__``."""
    return eqx.field(static=True, default=default, converter=plain)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """``value`` as a Python integer; raises ``ValueError`` naming the argument unless it is at least ``least``."""
    if not is_integer(value) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}")
    return int(value)


def check_counts(settings: Any, **least: int | None) -> None:
    """`check_count` of the named fields of ``settings``; NumPy integers become Python's; ``None`` skips a field."""
    for name, bound in least.items():
        if bound is not None:
            check_count(name, getattr(settings, name), bound)
            _make_plain(settings, name)


def check_number(settings: Any, name: str, accept: Callable[[float], bool], expected: str) -> None:
    """Raise ``ValueError`` unless the field ``name`` of ``settings`` is a finite number that ``accept`` likes.

    A NumPy number is kept as Python's.
    """
    value = getattr(settings, name)
    if not (is_number(value) and accept(value)):
        raise ValueError(f"`{name}` must be a number that is {expected}, got {value!r}")
    _make_plain(settings, name)


def check_finite_numbers(settings: Any, *names: str) -> None:
    """Raise ``ValueError`` unless the named fields of ``settings`` are finite numbers; NumPy's are kept as Python's."""
    for name in names:
        value = getattr(settings, name)
        if not is_number(value):
            raise ValueError(f"`{name}` must be a finite number, got {value!r}")
        _make_plain(settings, name)


def check_fractions(settings: Any, *names: str) -> None:
    """Raise ``ValueError`` unless the named fields of ``settings`` are ``None``, or positive and at most 1."""
    for name in names:
        value = getattr(settings, name)
        if value is None:
            continue
        if not (is_number(value) and 0 < value <= 1):
            raise ValueError(f"`{name}` must be positive and at most 1, got {value!r}")
        _make_plain(settings, name)


def check_choice(name: str, value: Any, choices: Collection[Any]) -> Any:
    """``value`` if it is one of ``choices``; raises ``ValueError`` that lists them otherwise."""
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}")
    return value


def _make_plain(settings: Any, name: str) -> None:
    """Keep a NumPy number in a field of ``settings``, frozen or not, as Python's."""
    value = getattr(settings, name)
    if isinstance(value, np.generic):
        object.__setattr__(settings, name, plain(value))
