"""The metric that a function pulls back from its values: of decoders, network features and diffeomorphisms."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_scalar
from .._function import TracedFunction, as_arguments
from .._types import Point
from .graph import AbstractGraphMetric, feature_value


class PullbackMetric(AbstractGraphMetric):
    """``G(x) = F^T F + floor I`` with F the Jacobian of ``fn``: lengths are those of the image of a curve under ``fn``.

    For the mean of a decoder it is the metric of its latent space (Arvanitidis, Hansen & Hauberg 2018); for a
    diffeomorphism, geodesics are straight lines of its values. Where ``fn`` has fewer values than ``d``, or F loses
    rank, only a positive ``floor`` makes it a metric.

    **Arguments**

    - ``fn``: function ``(x, *args)`` to a scalar or to shape ``(m,)``, smooth; see `FunctionScore` for what it may be.
    - ``*args``: arrays or pytrees of arrays passed on to it, traced.
    - ``floor``: non-negative scalar, traced, in units of the values of ``fn``, squared, over length^2.

    Raises ``ValueError`` for a negative or non-finite ``floor``, and where it is used for values of another shape or
    ones that are not finite at an end point.

    >>> import jax.numpy as jnp
    >>> from scoregeo import PullbackMetric, dist
    >>> polar = PullbackMetric(lambda x: x[0] * jnp.array([jnp.cos(x[1]), jnp.sin(x[1])]))
    >>> round(float(dist(polar, jnp.array([1.0, 0.0]), jnp.array([1.0, jnp.pi / 2]))), 4)  # the chord
    1.4142
    """

    function: TracedFunction
    args: tuple
    strength: Float[Array, ""]
    floor: Float[Array, ""]

    def __init__(self, fn: Callable[..., Array], *args: Any, floor: ArrayLike = 0.0):
        self.function = TracedFunction(fn, "fn")
        self.args = as_arguments(args, "args")
        self.strength = jnp.ones((), jnp.result_type(float))
        self.floor = as_scalar(floor, "floor")

    def feature(self, x: Point) -> Float[Array, " m"]:
        """``fn`` at ``x``, as an array ``(m,)``."""
        return feature_value(self.function(x, *self.args), x, "fn")
