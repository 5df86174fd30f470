"""Arithmetic that keeps derivatives, signs and the digits of large offsets right, and the settings of JAX under which
it is traced and compiled."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from ._checks import warn

_T = TypeVar("_T")
_P = ParamSpec("_P")
# Offset over scale beyond which float32 has fewer than two digits left of what varies.
_RESOLVED = 1e5


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """The settings of JAX that scoregeo is written for, whatever those of the program that calls it.

    Matrix products have the precision of their inputs, where accelerators multiply float32 matrices to three digits by
    default; a layer of a network that declares a precision of its own keeps it. Types and ranks are promoted. The mesh
    is the one there is, also where there is none: rules for derivatives are traced in an empty one, and what was traced
    without would not be found again there.
    """
    with (
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()),
    ):
        yield


def with_own_settings(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """``function``, traced in `own_settings`. What is traced later, such as rules for derivatives and the bodies of
    loops in a batch, is to be wrapped itself."""

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with own_settings():
            return function(*args, **kwargs)

    return wrapped


# XLA's former way to make kernels for CPUs, optimised less, takes a little more than half the time to compile.
_SOONER = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}


@functools.cache
def _knows_sooner() -> bool:
    """Whether the compiler knows `_SOONER`, and nobody has chosen otherwise."""
    chosen = os.environ.get("XLA_FLAGS", "")
    if jax.default_backend() != "cpu" or any(name in chosen for name in _SOONER):
        return False
    try:
        jax.jit(lambda: 0, compiler_options=_SOONER).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def program(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """``function`` in `own_settings` as one program, by `equinox.filter_jit`.

    Called plainly on a CPU it is compiled in little more than half the time, and as fast or up to a third slower: for
    what is called some times, and not for hours. Where the call is traced, the program around it says how to compile.
    """
    compiled: Any = functools.partial(eqx.filter_jit, with_own_settings(function))
    whole, sooner = compiled(), compiled(compiler_options=_SOONER)

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        # An operation on a constant is traced where all is.
        traced = is_traced((args, kwargs)) or isinstance(jax.lax.neg(0), Tracer)
        return (whole if traced or not _knows_sooner() else sooner)(*args, **kwargs)

    return wrapped


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


def is_traced(tree: Any) -> bool:
    """Whether some leaf of ``tree`` has no value now, because ``jit``, ``vmap`` or ``grad`` traces it."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def as_double(x: Any) -> np.ndarray:
    """``x``, which is not traced, as a NumPy array in float64, which JAX may have disabled."""
    return np.asarray(x, np.float64)


def minus(x: Any, offset: Any, dtype: Any) -> Array:
    """``x - offset`` as ``dtype``; in float64 on the host, where neither is traced."""
    if is_traced((x, offset)):
        return jnp.asarray(x, dtype) - jnp.asarray(offset, dtype)
    return jnp.asarray(as_double(x) - as_double(offset), dtype)


def is_resolved(offset: Any, scale: Any) -> bool:
    """Whether float32 tells apart numbers about ``offset`` that vary by ``scale``; both are not traced.

    >>> is_resolved(2020.0, 10.0), is_resolved([0.0, 2460000.37], [1.0, 0.01])
    (True, False)
    """
    return bool((np.abs(as_double(offset)) <= _RESOLVED * as_double(scale)).all())


def warn_if_unresolved(offset: Any, scale: Any, subject: str, advice: str) -> None:
    """Warn where float32 cannot hold numbers ``(d,)`` about ``offset`` that vary by ``scale``.

    ``subject`` begins the message and ``advice`` ends it.
    """
    if is_resolved(offset, scale):
        return
    offset, scale = np.broadcast_arrays(as_double(offset), as_double(scale))
    column = int(np.argmax(np.abs(offset) / scale))
    warn(
        f"{subject} a mean of {offset.flat[column]:.9g} and a standard deviation of {scale.flat[column]:.3g} (column "
        f"{column}), which float32 cannot tell apart: {advice}",
    )
