"""The checks that every public entry point applies to what it is given.

They run once, at the door: shapes and dtypes always (they are static), values only when they are concrete, because a
traced value has none yet. Inside ``jit`` a non-finite value shows up as a status code instead.
"""

import math
import sys
import warnings
from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

# Packages whose frames lie between a public name and who called it: they wrap functions, or call what is given to them.
_BETWEEN = {"scoregeo", "equinox", "jax", "jaxtyping", "beartype", "sklearn", "importlib", "functools", "contextlib"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn in the name of the line that called scoregeo, however many functions and wrappers are in between."""
    frame = sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _BETWEEN:
        frame = frame.f_back
    place = str(frame.f_globals.get("__name__"))
    seen = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, place, seen)


def is_concrete(x: Any) -> bool:
    """Whether ``x`` has a value now (it is not being traced by ``jit``, ``vmap`` or ``grad``)."""
    return not isinstance(x, Tracer)


def as_native(x: Any, where: str, refusal: type[Exception] = TypeError) -> np.ndarray:
    """``x`` as a NumPy array in the byte order of this machine, which is all that JAX takes; of any dtype but objects.

    Raises ``ValueError`` where entries of a masked array are masked, which NumPy and JAX would pass on as numbers, and
    ``refusal`` for what is no array or holds objects; both begin with ``where``.
    """
    parts = jax.tree.leaves(x)  # a list of masked arrays would lose their masks too
    masked = sum(int(np.ma.count_masked(part)) for part in parts if isinstance(part, np.ma.MaskedArray))
    if masked:
        raise ValueError(
            f"{where} must have no masked entries, but {masked} of {sum(map(np.size, parts))} are masked: drop their "
            "rows, or give them values with `.filled(value)`"
        )
    try:
        values = np.asarray(x)
    except (TypeError, ValueError, OverflowError) as error:
        raise refusal(f"{where} must be an array of numbers, got {type(x).__name__}: {error}") from error
    if values.dtype == object:
        raise refusal(
            f"{where} must be an array of numbers, got {type(x).__name__} of dtype object: convert it, as with "
            "`np.asarray(..., dtype=float)`"
        )
    # JAX has no longer floating-point type than float64.
    dtype = np.float64 if values.dtype == np.longdouble else values.dtype.newbyteorder("=")
    return values.astype(dtype, copy=False)


def is_real(dtype: Any) -> bool:
    """Whether arrays of ``dtype`` hold real numbers, integers or floating-point ones, and not truth values."""
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def as_numbers(x: Any, where: str, refusal: type[Exception] = TypeError) -> np.ndarray:
    """`as_native` for real numbers, integers or floating-point ones; raises ``refusal`` for other dtypes."""
    values = as_native(x, where, refusal)
    if values.dtype.kind in "USMm":  # text and dates
        raise refusal(f"{where} must be an array of numbers, got {type(x).__name__} of dtype {values.dtype}")
    if not is_real(values.dtype):
        raise refusal(f"{where} must be an array of real numbers, got dtype {values.dtype}")
    return values


def check_exact(values: np.ndarray, where: str) -> None:
    """Raise ``ValueError`` where the default floating-point type would round integers: of identifiers and time stamps,
    the last digits are what matters. Anything else passes."""
    if not jnp.issubdtype(values.dtype, jnp.integer) or values.dtype.itemsize < 4:
        return
    dtype = jnp.result_type(float)
    limit = 2 ** (jnp.finfo(dtype).nmant + 1)
    large = values[(values > limit) | (values < -limit)]
    # An integer is held exactly if what is left without its last zeros (in binary) has few enough digits.
    digits = large // (large & -large)
    rounded = large[(digits > limit) | (digits < -limit)]
    if rounded.size:
        wide = "" if dtype == np.float64 else "call `jax.config.update('jax_enable_x64', True)`, "
        raise ValueError(
            f"{where} holds integers that {dtype} cannot tell from their neighbours, {rounded.size} of {values.size} "
            f"(the first is {rounded[0]}): subtract an offset, {wide}or give floating-point numbers, which are rounded"
        )


def as_float(x: Any, name: str) -> Array:
    """``x`` as a floating-point array. Integers become the default float, which has to hold them exactly (see
    `check_exact`); masked entries and complex, boolean, text, objects are refused."""
    where = f"`{name}`"
    if isinstance(x, list | tuple) and any(isinstance(part, Array) for part in jax.tree.leaves(x)):
        try:  # parts may be traced, and NumPy cannot look at those
            x = jnp.stack([as_float(part, name) for part in x])
        except ValueError as error:
            raise TypeError(f"{where} must be an array of numbers, got {type(x).__name__}: {error}") from error
    # A number of Python's gives way to the types of arrays, which one of NumPy's does not.
    jax_takes_it = type(x) is float or isinstance(x, Array) or hasattr(x, "__jax_array__")
    values = jnp.asarray(x) if jax_takes_it else as_numbers(x, where)
    if jnp.issubdtype(values.dtype, jnp.floating):
        if jnp.finfo(values.dtype).bits < 32:
            raise TypeError(f"{where} must have at least single precision, got dtype {values.dtype}")
        return jnp.asarray(values)
    if jnp.issubdtype(values.dtype, jnp.integer):
        if is_concrete(values):
            check_exact(np.asarray(values), where)
        # Before JAX sees them: without float64 it would keep the last 32 digits of 64.
        return jnp.asarray(values.astype(jnp.result_type(float)))
    raise TypeError(f"{where} must be an array of real numbers, got dtype {values.dtype}")


def as_array(x: Any, name: str) -> Array:
    """``x`` as an array of JAX's that says the same: raises ``ValueError`` for masked entries, and for integers that
    JAX would cut to 32 digits. Numbers of Python's stay weakly typed."""
    if isinstance(x, Array | bool | int | float | complex) or hasattr(x, "__jax_array__"):
        return jnp.asarray(x)
    values = as_native(x, f"`{name}`")
    if values.dtype.kind in "iu" and values.size:
        kept = np.iinfo(jax.dtypes.canonicalize_dtype(values.dtype))
        if values.min() < kept.min or values.max() > kept.max:
            raise ValueError(
                f"`{name}` must be integers from {kept.min} to {kept.max}, which {kept.dtype} can hold, got "
                f"{values.min()} to {values.max()}"
            )
    return jnp.asarray(values)


def as_arrays(tree: Any, name: str) -> Any:
    """`as_array` of every leaf: what a function is given besides the point."""
    return jax.tree.map(lambda leaf: as_array(leaf, name), tree)


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


def check_weights(weights: Array, n: int, each: str) -> None:
    """Raise ``ValueError`` unless ``weights`` are ``(n,)``, one for each of ``each``, and where they are concrete,
    finite and not negative, with a sum that is positive and finite too."""
    if weights.shape != (n,):
        raise ValueError(f"`weights` must have shape ({n},), one for each {each}, got {weights.shape}")
    check_finite(weights, "weights")
    if not is_concrete(weights):
        return
    values = np.asarray(weights)
    if (values < 0).any():
        first = int(np.argmax(values < 0))
        raise ValueError(f"`weights` must not be negative, got {values[first]:.6g} at index {first}")
    with np.errstate(over="ignore"):
        total = values.sum()
    if not 0 < total < np.inf:
        raise ValueError(f"`weights` must have a positive and finite sum, got {total:.6g}")


def as_scalar(x: Any, name: str, *, positive: bool = False) -> Array:
    """``x`` as a finite scalar of the default floating-point type, not negative, or ``positive``.

    Raises ``ValueError`` for anything else. A traced value cannot be looked at now: it becomes NaN where it is refused,
    so as not to pass for a metric later.
    """
    x = as_float(x, name).astype(jnp.result_type(float))
    if x.ndim != 0:
        raise ValueError(f"`{name}` must be a scalar, got shape {x.shape}")
    check_finite(x, name)
    if is_concrete(x) and not (float(x) > 0 or (float(x) == 0 and not positive)):
        raise ValueError(f"`{name}` must be {'positive' if positive else 'non-negative'}, got {float(x)}")
    return jnp.where((x > 0) if positive else (x >= 0), x, jnp.nan)


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


def check_fewer(name: str, value: Any, n: int, things: str = "points") -> int:
    """``value`` as a Python integer from 1 to ``n - 1``; raises ``ValueError`` that says how many ``things`` are n."""
    if not (is_integer(value) and 1 <= value < n):
        raise ValueError(f"`{name}` must be an integer from 1 to {n - 1} for {n} {things}, got {value!r}")
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
