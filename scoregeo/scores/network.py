"""The score of a flax network, frozen at one noise level (the only place outside `diffusion` that knows flax)."""

import inspect
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from .._checks import as_arrays, as_float, check_finite
from .._function import refuse_torch, refuse_training
from .._numerics import is_traced
from .._types import Point, Points, Scalar, Vector
from .base import AbstractScore, DataSpread, at_noise_level, check_score_value, spread_of_data
from .line_integral import by_line_integrals, with_log_prob


class NetworkScore(AbstractScore):
    """The score that a flax ``nnx.Module`` computes at one noise level, with weights and noise level traced.

    **Arguments**

    - ``module``: an ``nnx.Module`` in evaluation mode; its method ``score(x, noise_level)``, or where its class has
      none, the call ``module(x, noise_level)``, takes ``x`` of shape ``(d,)`` and a scalar and returns the score, shape
      ``(d,)``. Its structure becomes static, its weights become leaves: a fresh network of the same shape, or new
      weights, do not compile again. One that takes no noise level is a score as it is, see `FunctionScore`; one that
      predicts noise or a velocity is one for `PredictionScore`.
    - ``noise_level``: scalar passed on to the network (for a `DiffusionModel`, the standard deviation of the noise).
    - ``conservative``: ``True`` only if the network is a gradient field by construction.
    - ``condition``: passed on to the network as its third argument, unless it is ``None``: a label or a vector, see
      `scoregeo.diffusion`. May be traced.

    ``log_prob(x)`` works where the module has ``log_prob(x, noise_level)``. Raises ``TypeError`` for another kind of
    module and ``ValueError`` for one in training mode.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> from scoregeo import NetworkScore
    >>> class Net(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.layer = nnx.Linear(2, 2, rngs=rngs)
    ...     def __call__(self, x, noise_level):
    ...         return -x / noise_level**2 + self.layer(x)
    >>> NetworkScore(Net(nnx.Rngs(0)), 0.5)(jnp.zeros(2)).tolist()
    [0.0, 0.0]
    """

    graphdef: Any = eqx.field(static=True)
    weights: Any
    noise_level: Array
    condition: Any
    conservative: bool = eqx.field(static=True)

    def __init__(
        self, module: nnx.Module, noise_level: float | Array, *, conservative: bool = False, condition: Any = None
    ):
        refuse_torch(module, "module")
        if not isinstance(module, nnx.Module):
            raise TypeError(
                f"`module` must be a flax nnx.Module, got {type(module).__name__}: networks of other libraries are "
                "for FunctionScore"
            )
        refuse_training(module, "module")
        _check_signature(module, condition)
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
        return check_score_value(_score_of(self.module())(x, *self._arguments(x)), x)

    def log_prob(self, x: Point) -> Scalar:
        """Log density at ``x`` up to a constant, where the network has one."""
        return cast(Any, self.module()).log_prob(x, *self._arguments(x))

    def _arguments(self, x: Any) -> tuple:
        condition = () if self.condition is None else (self.condition,)
        return self.noise_level.astype(x.dtype), *condition


def _score_of(module: nnx.Module) -> Any:
    """The function of a module of any class that is its score."""
    # The class is asked, because an attribute of that name may be a network of its own.
    return cast(Any, module).score if hasattr(type(module), "score") else module


def _check_signature(module: nnx.Module, condition: Any) -> None:
    given = (None, None) if condition is None else (None, None, None)
    try:
        inspect.signature(_score_of(module)).bind(*given)
    except ValueError:  # a function without a signature
        return
    except TypeError as error:
        wanted = "(x, noise_level)" if condition is None else "(x, noise_level, condition)"
        raise TypeError(
            f"`module` must take {wanted}, but for a {type(module).__name__}: {error}. A network of x alone is a score "
            "as it is: FunctionScore(module)"
        ) from error


@at_noise_level.register
def _(score: NetworkScore, noise_level: Scalar | float) -> NetworkScore:
    return eqx.tree_at(lambda s: s.noise_level, score, jnp.asarray(noise_level, score.noise_level.dtype))


@spread_of_data.register
def _(score: NetworkScore) -> DataSpread | None:
    """What a `scoregeo.diffusion.Denoiser` holds."""
    if not {"mean", "sigma_data"} <= set(score.weights):
        return None
    mean, deviation = score.weights["mean"], score.weights["sigma_data"]
    if jnp.shape(deviation) != () or is_traced((deviation, score.noise_level)):
        return None
    return DataSpread(mean, (float(deviation) ** 2 + float(score.noise_level) ** 2) ** 0.5)


@with_log_prob.register
def _(score: NetworkScore, like: Points, nodes: int = 32) -> AbstractScore:
    try:
        jax.eval_shape(score.log_prob, like[0])
    except (AttributeError, TypeError):  # no such method, or one that only some networks serve
        return by_line_integrals(score, like, nodes)
    return score
