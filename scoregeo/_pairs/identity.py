"""What a metric, a solver or a start is, as text that is the same in another process: what a checkpoint compares.

Arrays are described by the digest of their values, functions by that of their code and of what they close over; nothing
depends on where in memory something lies.
"""

import collections
import dataclasses
import dis
import functools
import hashlib
import logging
import re
import sys
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
# Longer texts are described by their digests.
_LONG = 100
# What these name is what its name says; all else may change. With them go the standard library and what is installed.
_COMPILED = ("jax", "jaxlib", "equinox", "flax", "diffrax")
_LIBRARIES = ("scoregeo", *_COMPILED, "numpy", "scipy", "builtins")
_INSTALLED = ("site-packages", "dist-packages")
# Special methods that say nothing of what an object computes, many of them written by `dataclasses`.
_SAY_NOTHING = {"__init__", "__post_init__", "__check_init__", "__repr__", "__str__", "__eq__", "__hash__", "__new__"}


def describe(thing: Any, name: str = "") -> dict[str, str]:
    """Every part of ``thing`` by its place (``.score.weights``): what it is, or the digest of its values.

    Of functions and of methods of a user's classes also the globals that they name. Raises ``TypeError`` for what has
    no values to compare, as an open file; ``name`` is that of ``thing`` in the message.

    >>> import jax.numpy as jnp
    >>> from scoregeo import Bend
    >>> list(describe(Bend(jnp.ones(2))))
    ['', '.offset']
    """
    try:
        return dict(_walk(thing, "", (), {}, False))
    except _NotDescribedError as error:
        place, part = error.args
        raise TypeError(
            f"`checkpoint` needs what can be compared when a later call goes on, but {name}{place} is {part!r:.100}, "
            f"of type {type(part).__module__}.{type(part).__qualname__}: use arrays, numbers, text, functions or "
            "pytrees of these in its place"
        ) from None


def differences(known: dict[str, str], found: dict[str, str], name: str) -> list[str]:
    """The places, after ``name``, at which two descriptions differ; of what differs as a whole, the whole.

    >>> differences({"": "a", ".x": "1", ".y": "2"}, {"": "a", ".x": "1", ".y": "3"}, "metric")
    ['metric.y']
    """
    shortest: list[str] = []
    for place in sorted({**known, **found}, key=len):
        differs = known.get(place) != found.get(place)
        if differs and not any(place.startswith(other) for other in shortest):
            shortest.append(place)
    return [name + place for place in shortest]


def digest(array: Any) -> str:
    """Type, shape and SHA-256 of the values of an array."""
    values = np.asarray(array)
    data = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return f"{values.dtype.name} {values.shape} {hashlib.sha256(data).hexdigest()}"


class _NotDescribedError(Exception):
    """A place, and what is there that cannot be described."""


def _walk(
    thing: Any, place: str, above: tuple[int, ...], seen: dict[int, tuple[str, Any]], inside: bool
) -> Iterator[tuple[str, str]]:
    """``above`` are the things that this one is in, ``seen`` those that have an identity, by their ids; ``inside`` says
    that it belongs to an object of a library, which may have parts that say nothing."""
    if isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key):
        thing = jax.random.key_data(thing)
    if isinstance(thing, jax.Array | np.ndarray | np.generic) and thing.dtype != object:
        yield place, digest(thing)
    elif isinstance(thing, _PLAIN):
        yield place, _plain(thing)
    elif id(thing) in above:  # a function that names itself
        yield place, "a part that it is in"
    elif id(thing) in seen:
        yield place, f"as{seen[id(thing)][0]}"
    else:
        if _has_identity(thing):
            seen[id(thing)] = place, thing  # kept, so that no other gets its id
        yield place, _kind(thing)
        parts = [] if _is_named_in_a_library(thing) else _parts(thing)
        if parts is None and not inside:
            raise _NotDescribedError(place, thing)
        if not isinstance(thing, type) and not _of_a_library(type(thing)):
            parts = [*(parts or ()), (".__class__", type(thing))]
        if _has_identity(thing):
            inside = not _of_a_user(thing) and (inside or not callable(thing))
        for name, part in parts or ():
            yield from _walk(part, place + name, (*above, id(thing)), seen, inside)


def _of_a_user(thing: Any) -> bool:
    if isinstance(thing, types.FunctionType):  # a wrapper, as of `jax.vmap`, has only the name of what it wraps
        return not _is_library(thing.__globals__.get("__name__"))
    return not _of_a_library(thing if isinstance(thing, type) else type(thing))


def _has_identity(thing: Any) -> bool:
    """Whether it is one thing wherever it is met: unlike containers, which may be equal."""
    if isinstance(thing, type):
        return True
    equal = Mapping | set | frozenset | list | tuple | types.CodeType | types.MethodType | functools.partial
    return not isinstance(thing, equal) and not dataclasses.is_dataclass(thing)


def _plain(thing: Any) -> str:
    text = repr(thing)
    if len(text) > _LONG:
        text = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return f"{type(thing).__name__} {text}"


def _kind(thing: Any) -> str:
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    named = isinstance(getattr(thing, "__qualname__", None), str)
    return f"{kind} {getattr(thing, '__module__', None)}.{thing.__qualname__}" if named else kind


@functools.singledispatch
def _parts(thing: Any) -> list[tuple[str, Any]] | None:
    """The named parts of what is neither an array nor plain; ``None`` if there is no telling."""
    if dataclasses.is_dataclass(thing):
        return [(f".{field.name}", getattr(thing, field.name, None)) for field in dataclasses.fields(thing)]
    if callable(getattr(thing, "__wrapped__", None)):  # of `jax.jit` and the like
        return [(".function", thing.__wrapped__)]
    values = dict(getattr(thing, "__dict__", None) or {})
    slots = [name for kind in type(thing).__mro__ for name in _slots(kind) if hasattr(thing, name)]
    values |= {name: getattr(thing, name) for name in slots}
    if values or not _of_a_library(type(thing)):
        return [(f".{name}", values[name]) for name in sorted(values)]
    text = repr(thing)
    if not _ADDRESS.search(text):
        return [(".text", text), (".consts", getattr(thing, "consts", None))]
    if _root(type(thing).__module__) in _COMPILED:  # of compiled code, as what `jax.jit` makes
        return [(".text", _ADDRESS.sub("", text)), (".consts", getattr(thing, "consts", None))]
    try:
        made = thing.__reduce_ex__(2)
    except Exception:  # a file, a lock, a generator: each has an error of its own
        return None
    return [(".made", made[:3] if isinstance(made, tuple) else made)]


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [name for name in ([slots] if isinstance(slots, str) else slots) if not name.startswith("__")]


@_parts.register
def _(thing: weakref.ReferenceType) -> list[tuple[str, Any]]:
    # Wrappers of functions, such as jaxtyping's, have one to themselves; it holds nothing that another path does not.
    return []


@_parts.register
def _(thing: type) -> list[tuple[str, Any]]:
    if _of_a_library(thing):
        return []
    bases = [base for base in thing.__bases__ if not _of_a_library(base)]
    return [
        *((f".{name}", value) for name, value in sorted(vars(thing).items()) if _says_something(name, value)),
        *((f".__bases__[{i}]", base) for i, base in enumerate(bases)),
    ]


def _says_something(name: str, value: Any) -> bool:
    if name.startswith("__") and name.endswith("__"):
        return name not in _SAY_NOTHING and isinstance(getattr(value, "method", value), types.FunctionType)
    return not name.startswith("_abc_") and not isinstance(value, types.MemberDescriptorType)


@_parts.register
def _(thing: types.CodeType) -> list[tuple[str, Any]]:
    return [(".code", thing.co_code), (".names", " ".join(thing.co_names)), (".constants", thing.co_consts)]


@_parts.register
def _(thing: types.FunctionType) -> list[tuple[str, Any]]:
    """Code, defaults, what is closed over, and, of a user's function, what it names."""
    if hasattr(thing, "registry") and hasattr(thing, "dispatch"):  # its cache changes with every new type
        return [(".registry", thing.registry)]
    code = thing.__code__
    parts: list[tuple[str, Any]] = [(".code", code), (".defaults", thing.__defaults__)]
    parts.append((".keywords", thing.__kwdefaults__))
    for name, cell in zip(code.co_freevars, thing.__closure__ or (), strict=True):
        try:
            parts.append((f".{name}", cell.cell_contents))
        except ValueError:  # a name that has no value yet
            parts.append((f".{name}", None))
    return parts + _named(thing) if _of_a_user(thing) else parts


@_parts.register
def _(thing: types.MethodType) -> list[tuple[str, Any]]:
    return [(".function", thing.__func__), (".self", thing.__self__)]


@_parts.register
def _(thing: types.BuiltinFunctionType) -> list[tuple[str, Any]]:
    owner = thing.__self__
    return [] if isinstance(owner, types.ModuleType) else [(".self", owner)]


@_parts.register(types.ModuleType)
@_parts.register(np.ufunc)
def _(thing: Any) -> list[tuple[str, Any]]:
    return [(".name", thing.__name__)]


@_parts.register
def _(thing: functools.partial) -> list[tuple[str, Any]]:
    return [(".function", thing.func), (".args", thing.args), (".keywords", thing.keywords)]


@_parts.register
def _(thing: property) -> list[tuple[str, Any]]:
    return [(".function", thing.fget)]


@_parts.register
def _(thing: logging.Logger) -> list[tuple[str, Any]]:
    return [(".name", thing.name)]


@_parts.register(jax.tree_util.PyTreeDef)
def _(thing: Any) -> list[tuple[str, Any]]:
    return [(".node", thing.node_data()), (".children", thing.children())]


@_parts.register
def _(thing: Mapping) -> list[tuple[str, Any]]:
    named = ((_ADDRESS.sub("", repr(key)), value) for key, value in thing.items())
    return [(f"[{key}]", value) for key, value in sorted(named, key=lambda item: item[0])]


@_parts.register(set)
@_parts.register(frozenset)
def _(thing: Any) -> list[tuple[str, Any]]:
    return [(f"[{i}]", part) for i, part in enumerate(sorted(thing, key=lambda part: _ADDRESS.sub("", repr(part))))]


@_parts.register(list)
@_parts.register(tuple)
@_parts.register(collections.deque)
def _(thing: Any) -> list[tuple[str, Any]]:
    return [(f"[{i}]", part) for i, part in enumerate(thing)]


@_parts.register
def _(thing: np.ndarray) -> list[tuple[str, Any]]:
    return [(".values", thing.tolist())]  # of objects


def _named(function: types.FunctionType) -> list[tuple[str, Any]]:
    """The globals that a function names, but for modules: of a user's modules, the members that it names."""
    inside, attributes = _names(function.__code__)
    found = []
    for name in sorted(inside):
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType):
            found += _members(value, f".{name}", attributes, ())
        elif name in function.__globals__:
            found.append((f".{name}", value))
    return found


def _members(
    module: types.ModuleType, place: str, attributes: set[str], above: tuple[Any, ...]
) -> list[tuple[str, Any]]:
    if _is_library(module.__name__) or module in above:
        return []
    found = []
    for name in sorted(attributes & vars(module).keys()):
        value = vars(module)[name]
        if isinstance(value, types.ModuleType):
            found += _members(value, f"{place}.{name}", attributes, (*above, module))
        else:
            found.append((f"{place}.{name}", value))
    return found


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """The names of globals in a function and in the functions in it, and all names, of attributes too."""
    inside = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    every = set(code.co_names)
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            more, others = _names(part)
            inside, every = inside | more, every | others
    return inside, every


def _is_named_in_a_library(thing: Any) -> bool:
    """Whether a library has it under its own name, as `jax.nn.relu`, so that the name says what it is."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str) and _is_library(module)):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is thing


def _root(module: str | None) -> str:
    return (module or "builtins").split(".")[0]


def _of_a_library(kind: type) -> bool:
    return _is_library(kind.__module__)


def _is_library(module: str | None) -> bool:
    root = _root(module)
    if root == "__main__":
        return False
    if root in _LIBRARIES or root in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(root), "__file__", None) or ""
    return any(f"/{part}/" in file.replace("\\", "/") for part in _INSTALLED)
