"""Networks of PyTorch as functions of JAX, by torchax: traced once into operations of JAX, so that derivatives of every
order, ``jit`` and ``vmap`` work and nothing of torch runs afterwards.

torch and torchax are imported when `from_torch` is called: ``pip install torch "scoregeo[torch]"``.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._checks import as_arrays, is_integer
from .._numerics import own_settings
from .._types import Point, Vector
from ..diffusion.networks.convolution import with_our_convolution


def from_torch(
    module: Any, shape: Sequence[int], *args: Any, channels_last: bool = False
) -> tuple[Callable[..., Vector], dict[str, Array]]:
    """A ``torch.nn.Module`` as a function of JAX ``(x, weights, *args) -> (m,)`` of one flat point, and its weights.

    They are what `FunctionScore`, `DensityScore`, `PullbackMetric` and the like take:
    ``FunctionScore(function, weights, *args)``.

    **Arguments**

    - ``module``: called with a batch of one point and ``args``, and returns one tensor, a batch of one. In evaluation
      mode: dropout would make it random, and normalisation of batches would see a batch of one. What it draws at random
      all the same is drawn once.
    - ``shape``: shape of one point as ``module`` takes it, without the axis of the batch: ``(d,)``, or ``(c, h, w)``.
      Points stay flat on the outside.
    - ``*args``: what ``module`` takes besides, such as a timestep: arrays or numbers, here to try it out.
    - ``channels_last``: ``shape`` is ``(h, w, c)``, points are images flattened in that order, as everywhere in this
      library, and ``module`` takes and perhaps returns ``(c, h, w)``.

    **Returns** the function, and the parameters and buffers by name, as arrays: traced, so that other weights do not
    compile again. They are used in the precision of ``x``.

    Raises ``ImportError`` without torch or torchax, ``TypeError`` for what is no module or does not return one tensor,
    ``ValueError`` for a module in training mode, ``NotImplementedError`` that names an operation which torchax does not
    translate.
    """
    torch, environment = _torch()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"`module` must be a torch.nn.Module, got {type(module).__name__}")
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if not sizes or not all(is_integer(n) and n > 0 for n in sizes) or (channels_last and len(sizes) < 2):
        raise ValueError(f"`shape` must be positive integers, such as (d,) or (c, h, w), got {shape!r}")
    _check_evaluates(module)
    function = functools.partial(_call, module, tuple(map(int, sizes)), channels_last)
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    weights = environment.t2j_copy({name: tensor.detach() for name, tensor in tensors.items()})
    point = jax.ShapeDtypeStruct((math.prod(sizes),), jnp.float32)
    jax.eval_shape(function, point, weights, *as_arrays(args, "args"))
    return function, weights


def _call(
    module: Any, shape: tuple[int, ...], channels_last: bool, x: Point, weights: dict[str, Array], *args: Any
) -> Vector:
    """The function that `from_torch` returns."""
    torch, environment = _torch()
    _check_evaluates(module)
    if x.shape != (math.prod(shape),):
        raise ValueError(f"`x` must have shape ({math.prod(shape)},) for `shape` {shape}, got {x.shape}")
    weights = {name: _in_precision(weight, x.dtype) for name, weight in weights.items()}
    point = jnp.moveaxis(x.reshape(1, *shape), -1, 1) if channels_last else x.reshape(1, *shape)
    leaves, structure = jax.tree.flatten((weights, (point, *args)))

    def output(*leaves: Array) -> Array:
        tensors = environment.j2t_iso(jax.tree.unflatten(structure, leaves))
        with environment:
            output = torch.func.functional_call(module, *tensors)
        if not isinstance(output, torch.Tensor):
            raise TypeError(
                f"`module` must return one tensor, got {type(output).__name__}: wrap it in a module that picks one"
            )
        return environment.t2j_iso(output)

    with own_settings(), _named_operations():
        value = with_our_convolution(output, *map(jnp.asarray, leaves))
    if value.ndim == 0 or value.shape[0] != 1:
        raise ValueError(f"`module` must return a batch of one for a batch of one, got shape {value.shape}")
    return (jnp.moveaxis(value, 1, -1) if channels_last and value.ndim > 2 else value).reshape(-1)


def _in_precision(weight: Array, dtype: Any) -> Array:
    return weight.astype(dtype) if jnp.issubdtype(weight.dtype, jnp.floating) else weight


def _check_evaluates(module: Any) -> None:
    training = [f"{name or 'itself'} ({type(part).__name__})" for name, part in module.named_modules() if part.training]
    if training:
        more = f" and {len(training) - 1} more parts" if len(training) > 1 else ""
        raise ValueError(f"`module` must be in evaluation mode, but {training[0]}{more} train: call `module.eval()`")


@contextlib.contextmanager
def _named_operations() -> Iterator[None]:
    """Where torchax has no translation, an error that says of what."""
    import torchax  # pyright: ignore[reportMissingImports]
    from torchax.tensor import OperatorNotFound  # pyright: ignore[reportMissingImports]

    try:
        with warnings.catch_warnings():
            # Of integers, which torch has in 64 bits and JAX in 32 unless it is told otherwise.
            warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
            yield
    except OperatorNotFound as error:
        raise NotImplementedError(
            f"`module` uses an operation that torchax {torchax.__version__} does not translate to JAX: {error}"
        ) from error


@functools.cache
def _torch() -> tuple[Any, Any]:
    """torch, and the environment of torchax in which its operations are those of JAX."""
    try:
        import torch

        with _without_named_axes(torch):
            import torchax  # pyright: ignore[reportMissingImports]

            environment = torchax.default_env()
    except ImportError as error:
        raise ImportError(
            'scoregeo.adapters.torch needs PyTorch and torchax: pip install torch "scoregeo[torch]"'
        ) from error
    return torch, environment


@contextlib.contextmanager
def _without_named_axes(torch: Any) -> Iterator[None]:
    """Conditions under which torchax 0.0.13 can be imported with torch 2.13, which lost operations on named axes.

    torchax lists these in its tables; another form of the same operation stands for each meanwhile. To be deleted once
    the lower bound is a release of torchax that does not name them.
    """
    packet = torch._ops.OpOverloadPacket
    known = packet.__getattr__

    def with_removed(self, name):
        try:
            return known(self, name)
        except AttributeError:
            if "names" not in name and "dimname" not in name.lower():
                raise
            return known(self, self.overloads()[0])

    packet.__getattr__ = with_removed
    try:
        yield
    finally:
        packet.__getattr__ = known
