"""Functions as pytrees: what lets a user's callable travel through ``jax.jit``."""

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._checks import as_array


class TracedFunction(eqx.Module):
    """A callable split into arrays (traced) and the rest (static), so that a score holding it passes through
    ``jax.jit``.

    What has its arrays traced: callable pytrees (equinox and nnx modules, ``jax.tree_util.Partial``), their methods,
    ``functools.partial`` of arrays, and flax linen modules that are bound to their variables. A linen module that is
    not, or its ``apply``, takes its variables as the first of the arguments that is a mapping.

    Raises ``TypeError`` for what cannot be called, for modules of PyTorch, and ``ValueError`` for an nnx module in
    training mode.
    """

    arrays: list
    rest: tuple = eqx.field(static=True)
    treedef: Any = eqx.field(static=True)

    def __init__(self, fn: Callable, name: str):
        refuse_torch(fn, name)
        if not callable(fn):
            raise TypeError(f"`{name}` must be callable, got {type(fn).__name__}")
        fn = _as_pytree(fn, name)
        refuse_training(fn, name)
        leaves, self.treedef = jax.tree.flatten(fn)
        self.arrays = [jnp.asarray(leaf) if _is_array(leaf) else None for leaf in leaves]
        self.rest = tuple(None if _is_array(leaf) else leaf for leaf in leaves)

    def __call__(self, *args):
        return self.whole()(*jax.tree.map(_whole, args, is_leaf=_is_split))

    def whole(self) -> Callable:
        """The callable, put together again."""
        leaves = [r if a is None else a for a, r in zip(self.arrays, self.rest, strict=True)]
        return jax.tree.unflatten(self.treedef, leaves)


def as_arguments(args: tuple, name: str) -> tuple:
    """What a `TracedFunction` is given besides the point: numbers and arrays are traced, and of callables among them (a
    network that is an argument) the arrays. Raises as `as_array` for other leaves."""

    def kept(leaf):
        if isinstance(leaf, str):
            raise TypeError(f"`{name}` must hold numbers, arrays or functions, got {leaf!r}: fix it in the function")
        return TracedFunction(leaf, name) if callable(leaf) else as_array(leaf, name)

    return jax.tree.map(kept, args, is_leaf=callable)


def refuse_torch(value: Any, name: str) -> None:
    """Raise ``TypeError`` for a module or tensor of PyTorch, or a method of one, which JAX cannot trace."""
    if _is_of(getattr(value, "__self__", value), "torch"):
        raise TypeError(
            f"`{name}` must be a function that JAX can trace, got a {type(value).__name__} of PyTorch: "
            "`scoregeo.adapters.torch` makes one of it"
        )


def refuse_training(module: Any, name: str) -> None:
    """Raise ``ValueError`` where a pytree has a layer of flax's nnx or of equinox in training mode: one that draws
    random numbers, or that normalises by the batch, which is one point here."""
    for part in jax.tree.leaves(module, is_leaf=_is_training):
        if _is_training(part):
            raise ValueError(
                f"`{name}` must be in evaluation mode, but its {type(part).__name__} is in training mode, where it is "
                "not a function of the point alone: call `module.eval()` first (nnx), or give "
                "`eqx.nn.inference_mode(module)` (equinox)"
            )


class _Linen(eqx.Module):
    """A method of a flax linen module as a function of the point and what else it takes; variables come with it, or are
    one of the arguments."""

    module: Any = eqx.field(static=True)
    method: str | None = eqx.field(static=True)
    variables: Any

    def __call__(self, *args, **settings):
        variables = self.variables
        if variables is None:
            place = next((i for i, arg in enumerate(args) if isinstance(arg, Mapping)), None)
            if place is None:
                raise TypeError(
                    f"{type(self.module).__name__} is a flax linen module without its variables, which must be an "
                    "argument: FunctionScore(net.apply, variables), with `variables = net.init(key, x)`"
                )
            variables, args = args[place], args[:place] + args[place + 1 :]
        try:
            return self.module.apply(variables, *args, method=self.method, **settings)
        except Exception as error:
            if (advice := _advice_of_linen(error, variables)) is None:
                raise
            raise TypeError(f"{type(self.module).__name__} {advice}") from error


def _advice_of_linen(error: Exception, variables: Any) -> str | None:
    """What to do about an error of flax, which is known by the name of its class, as flax is not imported here."""
    kind = type(error).__name__
    if kind == "InvalidRngError":
        return f"draws random numbers, so that it is no function of the point: make it deterministic ({error})"
    if kind == "ModifyScopeVariableError":
        return f"is in training mode, where it changes its variables: make it normalise by its averages ({error})"
    if kind in ("ScopeCollectionNotFound", "ScopeParamNotFoundError") and "params" not in variables:
        return f'needs variables as `net.init` returned them, {{"params": ...}}, got a mapping of {list(variables)}'
    return None


def _as_pytree(fn: Callable, name: str) -> Callable:
    """``fn``, or a function like it whose arrays are leaves."""
    method = fn if isinstance(fn, types.MethodType) else getattr(fn, "__wrapped__", None)  # `jax.jit` wraps methods too
    if _is_of(fn, "flax.linen"):
        return _as_linen(fn, None)
    if isinstance(method, types.MethodType) and _is_of(method.__self__, "flax.linen"):
        return _as_linen(method.__self__, None if method.__name__ in ("apply", "__call__") else method.__name__)
    if isinstance(fn, functools.partial):
        refuse_torch(fn.func, name)
        return eqx.Partial(_as_pytree(fn.func, name), *fn.args, **fn.keywords)
    if isinstance(fn, types.MethodType) and not jax.tree_util.all_leaves([fn.__self__]):
        return eqx.Partial(fn.__func__, fn.__self__)
    return fn


def _as_linen(module: Any, method: str | None) -> _Linen:
    if module.scope is None:
        return _Linen(module, method, None)
    # Two bindings of a module differ in their variables alone, which are to be traced.
    module, variables = module.unbind()
    return _Linen(module, method, variables)


def _is_of(value: Any, library: str) -> bool:
    """Whether a class of ``library`` is among those of ``value``; this imports nothing."""
    return any(f"{kind.__module__}.".startswith(f"{library}.") for kind in type(value).__mro__)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) or (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc")


def _is_training(part: Any) -> bool:
    if isinstance(part, eqx.nn.Dropout):
        return not part.inference and part.p > 0
    if not _is_of(part, "flax.nnx"):
        return False
    random = getattr(part, "deterministic", None) is False
    rate = getattr(part, "rate", getattr(part, "dropout_rate", 0))
    return (random and rate > 0) or getattr(part, "use_running_average", None) is False


def _is_split(value: Any) -> bool:
    return isinstance(value, TracedFunction)


def _whole(value: Any) -> Any:
    return value.whole() if _is_split(value) else value


def depends_on_argument(fn: Callable[[Any], Any], x: Any) -> bool:
    """Whether what ``fn(x)`` returns depends on the array ``x``. It may say yes where a program that ``fn`` calls does
    not use what it is given.

    >>> import jax.numpy as jnp
    >>> depends_on_argument(lambda x: jnp.cos(x)[0], jnp.ones(2)), depends_on_argument(lambda x: 3.0, jnp.ones(2))
    (True, False)
    """
    jaxpr = jax.make_jaxpr(fn)(x).jaxpr
    reached = {id(variable) for variable in jaxpr.invars}
    for equation in jaxpr.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached |= {id(variable) for variable in equation.outvars}
    return any(id(variable) in reached for variable in jaxpr.outvars)
