"""Scores from functions: the gradient of a log density, or any vector field."""

import math
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from .._checks import is_integer
from .._function import TracedFunction, as_arguments, refuse_torch, refuse_training
from .._protocols import ScoreModel
from .._types import Point, Scalar, Vector
from .base import AbstractScore, check_score_value


class DensityScore(AbstractScore):
    """The score ``grad log p`` of a log density known up to a constant, by automatic differentiation.

    **Arguments**

    - ``log_prob``: function ``(x, *args) -> scalar``, with ``x`` of shape ``(d,)``.
    - ``*args``: arrays or pytrees of arrays passed on to it; traced, so new values do not compile again.

    >>> import jax.numpy as jnp
    >>> from scoregeo import DensityScore
    >>> DensityScore(lambda x, scale: -jnp.sum(x**2) / scale, 4.0)(jnp.array([2.0])).tolist()
    [-1.0]
    """

    function: TracedFunction
    args: tuple
    conservative: bool = eqx.field(static=True)

    def __init__(self, log_prob: Callable[..., Scalar], *args: Any):
        self.function = TracedFunction(log_prob, "log_prob")
        self.args = as_arguments(args, "args")
        self.conservative = True

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``."""
        return jax.grad(self.log_prob)(x)

    def log_prob(self, x: Point) -> Scalar:
        """The log density at ``x``, as given."""
        value = jnp.asarray(self.function(x, *self.args))
        if value.shape != ():
            raise ValueError(f"`log_prob` must return a scalar for a point of shape {x.shape}, got shape {value.shape}")
        return value.astype(x.dtype)


class FunctionScore(AbstractScore):
    """Any vector field as a score: an analytic formula, or someone's network.

    **Arguments**

    - ``fn``: function ``(x, *args) -> (d,)`` with ``x`` of shape ``(d,)``, pure: like every function given to
      ``jax.jit`` it is read once, so what it finds in globals or in a mutable object must not change later. A callable
      pytree (an equinox or nnx module, a ``jax.tree_util.Partial``) has its arrays traced and the rest static, so that
      a module like it with other weights does not compile again. ``net.apply`` of a flax linen module takes its
      variables from ``args``. A function that closes over traced values differentiates correctly with respect to them,
      but a new closure compiles again: prefer ``args``.
    - ``*args``: arrays or pytrees of arrays passed on to ``fn``; traced, so new values do not compile again. Networks
      among them are treated as ``fn`` is.
    - ``conservative``: ``True`` only if ``fn`` is a gradient field by construction. The default keeps the curl terms,
      which is right for every field (it costs one vector-Jacobian product more).
    - ``shape``: the shape that ``fn`` takes and returns, such as ``(32, 32, 3)`` for images: points stay flat
      everywhere else, and are reshaped at this door alone. Default flat.
    - ``dtype``: the precision in which ``fn`` is called, such as ``jnp.bfloat16`` for a network that computes in it;
      default that of the point. The score comes back in the precision of the point.

    >>> import jax.numpy as jnp
    >>> from scoregeo import FunctionScore
    >>> blur = FunctionScore(lambda image: -image / 2, shape=(2, 2, 1))  # someone's network on (h, w, c)
    >>> blur(jnp.arange(1.0, 5.0)).tolist()
    [-0.5, -1.0, -1.5, -2.0]
    """

    function: TracedFunction
    args: tuple
    conservative: bool = eqx.field(static=True)
    shape: tuple[int, ...] | None = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[..., Vector],
        *args: Any,
        conservative: bool = False,
        shape: tuple[int, ...] | None = None,
        dtype: Any = None,
    ):
        self.function = TracedFunction(fn, "fn")
        self.args = as_arguments(args, "args")
        self.conservative = conservative
        self.shape, self.dtype = check_shape(shape), check_dtype(dtype)

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``, shape ``(d,)``."""
        return field_value(self.function, x, self.args, self.shape, self.dtype)


def check_shape(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """``shape`` of what a network takes, as integers of Python; raises ``ValueError`` for anything else."""
    if shape is not None and not all(is_integer(n) and n > 0 for n in shape):
        raise ValueError(f"`shape` must be a tuple of positive integers, got {shape!r}")
    return None if shape is None else tuple(int(n) for n in shape)


def check_dtype(dtype: Any) -> Any:
    """``dtype`` that a network is called in; raises ``TypeError`` unless it is a floating-point type, or ``None``."""
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`dtype` must be a floating-point type, got {dtype!r}")
    return None if dtype is None else jnp.dtype(dtype)


def field_value(
    function: Callable[..., Any], x: Point, args: tuple, shape: tuple[int, ...] | None, dtype: Any
) -> Vector:
    """``function(x, *args)`` for a function that takes and returns ``shape`` (``None``: flat) in ``dtype`` (``None``:
    that of ``x``); flat and in the precision of ``x``. Raises as `check_score_value`."""
    shape = x.shape if shape is None else shape
    if math.prod(shape) != x.size:
        raise ValueError(f"`x` must have {math.prod(shape)} entries for `shape` {shape}, got shape {x.shape}")
    point = x.reshape(shape)
    return check_score_value(function(point.astype(dtype or x.dtype), *args), point).reshape(x.shape)


def as_score(score: Any) -> AbstractScore:
    """``score`` itself if it is an ``AbstractScore``, a ``FunctionScore`` around it if it is a callable."""
    if isinstance(score, AbstractScore):
        return score
    got = type(score).__name__
    if isinstance(score, ScoreModel):
        raise TypeError(
            f"`score` must be an AbstractScore or a callable x -> s(x), got a {got}, which knows the score at every "
            "noise level: choose one with `model.score_at(sigma)`"
        )
    refuse_torch(score, "score")
    if callable(score):
        refuse_training(score, "score")
        return FunctionScore(cast(Callable[..., Vector], score))  # what it returns is checked when it is called
    raise TypeError(f"`score` must be an AbstractScore or a callable x -> s(x), got {got}")
