"""What a metric adds to the drift of a diffusion: the divergence of its inverse, and the gradient of its volume.

    (div G^-1)_i = sum_j d/dx_j (G^-1)_ij                                                                (1)

    G = I + lam s s^T, any s:    - (lam/L) ((tr J) s + J s) + (2 lam^2/L^2) (s.J s) s,   L = 1 + lam |s|^2   (2)
    G = exp(2 phi) I:            - 2 exp(-2 phi) grad phi                                                (3)
    G^-1 = I + lam s s^T:        lam ((tr J) s + J s)                                                    (4)

With random z, E[z z^T] = I, the derivative of ``x -> G(x)^-1 z`` along z has the mean (1) too.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import as_point
from ..._numerics import with_own_settings
from ..._traces import MAX_EXACT, check_probes, directions
from ..._types import Point, Scalar, Vector
from ...geodesics.checks import check_metric
from ...metrics import (
    AbstractInnerProduct,
    AbstractMetric,
    ConformalMetric,
    EuclideanMetric,
    InverseSteinMetric,
    ScaledMetric,
    SteinMetric,
    as_diagonal,
)
from ...scores.base import field

# The largest dimension in which a metric without a formula is differentiated along every unit vector.
MAX_DIVERGENCE = 256
# So many unit vectors are taken at once: nothing d x d exists.
_CHUNK = 16

Probes = Float[Array, "k d"] | None


def inverse_divergence(
    metric: AbstractMetric, x: Point, *, probes: int | None = None, key: PRNGKeyArray | None = None
) -> Vector:
    """The divergence of ``G^-1`` at ``x``, equation (1), shape ``(d,)``: half of it is what a diffusion with the drift
    ``G^-1 grad log pi / 2`` and the noise ``G^-1/2 dW`` needs besides to keep pi invariant.

    Closed forms for Stein, inverse Stein, conformal and Euclidean metrics, where the first two take the trace of the
    Jacobian of the score: d Jacobian-vector products, one after the other. Any other metric takes as many derivatives
    of ``G^-1``, up to d = 256.

    **Arguments**

    - ``metric``, ``x``: the metric and a point, shape ``(d,)``.
    - ``probes``, ``key``: the number of random directions (at least 3) for an estimate without bias, in place of d unit
      vectors. Without, the value is exact; ``ValueError`` beyond d = 1024, or 256 for a metric without a closed form.

    >>> import jax.numpy as jnp
    >>> from scoregeo import ConformalMetric
    >>> from scoregeo.statistics import inverse_divergence
    >>> half_plane = ConformalMetric(lambda x: -jnp.log(x[1]))  # G^-1 = x[1]^2 I
    >>> round(float(inverse_divergence(half_plane, jnp.array([0.0, 3.0]))[1]), 4)
    6.0
    """
    x = as_point(x, "x")
    check_metric(metric, x)
    probes = check_divergence(metric, x, probes, key)
    return _inverse_divergence(metric, x, probes, key)


def check_divergence(
    metric: AbstractMetric, x: Point, probes: int | None = None, key: PRNGKeyArray | None = None
) -> int | None:
    """`check_probes` for the divergence at ``x``."""
    limit = exact_divergence_dim(metric)
    return check_probes(probes, key, x.size, x.size if limit is None else limit)


@eqx.filter_jit
@with_own_settings
def _inverse_divergence(metric, x, probes, key):
    return divergence_of_inverse(metric, x, draw_probes(probes, key, x))


def draw_probes(probes: int | None, key: PRNGKeyArray | None, x: Point) -> Probes:
    """Random directions at ``x``; none where ``probes`` is ``None``, which stands for every unit vector."""
    return None if probes is None else directions(probes, key, x.size, x.dtype)


@functools.singledispatch
def divergence_of_inverse(metric: AbstractMetric, x: Point, probes: Probes) -> Vector:
    """Equation (1) along unit vectors, or estimated by ``probes`` ``(k, d)``; a metric with a formula registers.

    The default differentiates ``G^-1``, of diagonal metrics the diagonal alone.
    """
    if as_diagonal(metric.at(x)) is None:
        return _average(lambda z: jax.jvp(lambda y: metric.at(y).solve(z), (x,), (z,))[1], x, probes)

    def inverse(y):
        diagonal = as_diagonal(metric.at(y))
        assert diagonal is not None  # which structure a type has does not depend on the point
        return 1 / diagonal

    _, derivative = jax.linearize(inverse, x)
    return _average(lambda z: z * derivative(z), x, probes)


@divergence_of_inverse.register
def _(metric: EuclideanMetric, x: Point, probes: Probes) -> Vector:
    return jnp.zeros_like(x)


@divergence_of_inverse.register
def _(metric: ScaledMetric, x: Point, probes: Probes) -> Vector:
    return divergence_of_inverse(metric.metric, x, probes) / metric.factor.astype(x.dtype)


@divergence_of_inverse.register
def _(metric: ConformalMetric, x: Point, probes: Probes) -> Vector:
    """Equation (3)."""
    phi, gradient = jax.value_and_grad(metric.phi)(x)
    return -2 * jnp.exp(-2 * phi) * gradient


@divergence_of_inverse.register
def _(metric: SteinMetric, x: Point, probes: Probes) -> Vector:
    """Equation (2)."""
    s, js, trace = _score_and_derivatives(metric.score, x, probes)
    strength = metric.strength.astype(x.dtype)
    part = strength / (1 + strength * (s @ s))
    return (2 * part**2 * (s @ js) - part * trace) * s - part * js


@divergence_of_inverse.register
def _(metric: InverseSteinMetric, x: Point, probes: Probes) -> Vector:
    """Equation (4)."""
    s, js, trace = _score_and_derivatives(metric.score, x, probes)
    return metric.strength.astype(x.dtype) * (trace * s + js)


@functools.singledispatch
def exact_divergence_dim(metric: AbstractMetric) -> int | None:
    """The largest dimension in which `divergence_of_inverse` is exact unless asked for an estimate; ``None`` for no
    limit."""
    return MAX_DIVERGENCE


@exact_divergence_dim.register(EuclideanMetric)
@exact_divergence_dim.register(ConformalMetric)
def _(metric: AbstractMetric) -> None:
    return None


@exact_divergence_dim.register(SteinMetric)
@exact_divergence_dim.register(InverseSteinMetric)
def _(metric: AbstractMetric) -> int:
    return MAX_EXACT


@exact_divergence_dim.register
def _(metric: ScaledMetric) -> int | None:
    return exact_divergence_dim(metric.metric)


def logdet(product: AbstractInnerProduct, x: Point) -> Scalar:
    """``log det G``, of an inner product at ``x``."""
    # A class that knows its dimension need not take it as an argument.
    return (product.logdet() if product.dim is not None else product.logdet(x.size)).astype(x.dtype)


def logdet_and_gradient(metric: AbstractMetric, x: Point) -> tuple[Scalar, Vector]:
    """``log det G(x)``, twice the logarithm of the volume density, and its gradient."""
    return jax.value_and_grad(lambda y: logdet(metric.at(y), y))(x)


def _score_and_derivatives(score: Any, x: Point, probes: Probes) -> tuple[Vector, Vector, Scalar]:
    """s, J s and tr J."""
    s, pushforward = jax.linearize(field(score), x)
    return s, pushforward(s), _average(lambda z: z @ pushforward(z), x, probes)


def _average(term: Callable[[Vector], Any], x: Point, probes: Probes) -> Any:
    """The sum of ``term`` over unit vectors, or its mean over ``probes``."""
    if probes is not None:
        return jnp.mean(jax.vmap(term)(probes), 0)
    size = min(_CHUNK, x.size)

    def chunk(k):
        # Beyond the last unit vector these are zero, and so are their terms.
        units = jnp.arange(x.size) == (k * size + jnp.arange(size))[:, None]
        return jnp.sum(jax.vmap(term)(units.astype(x.dtype)), 0)

    chunks = -(-x.size // size)
    if chunks == 1:
        return chunk(0)
    start = jnp.zeros(jax.eval_shape(term, x).shape, x.dtype)
    return jax.lax.fori_loop(0, chunks, lambda k, total: total + chunk(k), start)
