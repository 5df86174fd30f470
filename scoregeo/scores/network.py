"""The score of a flax network, frozen at one noise level (the only place outside `diffusion` that knows flax)."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from .._checks import as_arrays, as_float, check_finite
from .._types import Point, Points, Scalar, Vector
from .base import AbstractScore, at_noise_level, check_score_value
from .line_integral import by_line_integrals, with_log_prob


class NetworkScore(AbstractScore):
    """The score that a flax ``nnx.Module`` computes at one noise level, with weights and noise level traced.

    **Arguments**

    - ``module``: an ``nnx.Module``; its method ``score(x, noise_level)``, or where its class has none, the call
      ``module(x, noise_level)``, takes ``x`` of shape ``(d,)`` and a scalar and returns the score, shape ``(d,)``. It
      must hold no random state. Its structure becomes static, its weights become leaves:
      a fresh network of the same shape, or new weights, do not compile again.
    - ``noise_level``: scalar passed on to the network (for a `DiffusionModel`, the standard deviation of the noise).
    - ``conservative``: ``True`` only if the network is a gradient field by construction.
    - ``condition``: passed on to the network as its third argument, unless it is ``None``: a label or a vector, see
      `scoregeo.diffusion`. May be traced.

    ``log_prob(x)`` works where the module has ``log_prob(x, noise_level)``.
    """

    graphdef: Any = eqx.field(static=True)
    weights: Any
    noise_level: Array
    condition: Any
    conservative: bool = eqx.field(static=True)

    def __init__(
        self, module: nnx.Module, noise_level: float | Array, *, conservative: bool = False, condition: Any = None
    ):
        if not isinstance(module, nnx.Module):
            raise TypeError(f"`module` must be a flax nnx.Module, got {type(module).__name__}")
        self.graphdef, state = nnx.split(module)
        self.weights = nnx.to_pure_dict(state)
        self.noise_level = as_float(noise_level, "noise_level").astype(jnp.result_type(float))
        if self.noise_level.ndim != 0:
            raise ValueError(f"`noise_level` must be a scalar, got shape {self.noise_level.shape}")
        check_finite(self.noise_level, "noise_level")
        self.conservative = conservative
        self.condition = as_arrays(condition, "condition")

    def module(self) -> nnx.Module:
        """The flax module with this score's weights."""
        return nnx.merge(self.graphdef, self.weights)

    def __call__(self, x: Point) -> Vector:
        module = cast(Any, self.module())  # a module of any class, whose methods are not known here
        # The class is asked, because an attribute of that name may be a network of its own.
        score = module.score if hasattr(type(module), "score") else module
        return check_score_value(score(x, *self._arguments(x)), x)

    def log_prob(self, x: Point) -> Scalar:
        """Log density at ``x`` up to a constant, where the network has one."""
        return cast(Any, self.module()).log_prob(x, *self._arguments(x))

    def _arguments(self, x: Point) -> tuple:
        condition = () if self.condition is None else (self.condition,)
        return self.noise_level.astype(x.dtype), *condition


@at_noise_level.register
def _(score: NetworkScore, noise_level: Scalar | float) -> NetworkScore:
    return eqx.tree_at(lambda s: s.noise_level, score, jnp.asarray(noise_level, score.noise_level.dtype))


@with_log_prob.register
def _(score: NetworkScore, like: Points, nodes: int = 32) -> AbstractScore:
    try:
        jax.eval_shape(score.log_prob, like[0])
    except (AttributeError, TypeError):  # no such method, or one that only some networks serve
        return by_line_integrals(score, like, nodes)
    return score
