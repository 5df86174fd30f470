r"""Curvature of a metric: sectional, Ricci, scalar; and its volume density.

Everything follows from the Riemann tensor with lower indices, ``Riem(u, v, w, z)``, in the convention in which
``Riem(u, v, u, v)`` is positive on a sphere. For any metric, with Christoffel symbols Gamma,

    Riem(u, v, w, z) = 1/2 (D_v D_w <u, z> + D_u D_z <v, w> - D_u D_w <v, z> - D_v D_z <u, w>)
                       + <Gamma(v, w), Gamma(u, z)> - <Gamma(v, z), Gamma(u, w)>,                         (1)

derivatives in fixed directions, so that no array of d^2 entries is formed. The metric of a graph x -> (x, sqrt(lam)
f(x)), with F = Df, has Gauss's equation instead (do Carmo, Riemannian Geometry, ch. 6):

    Riem(u, v, w, z) = B(u, w; v, z) - B(u, z; v, w),
    B(a, b; c, e) = lam D^2 f(a, b)^T (I + lam F F^T)^{-1} D^2 f(c, e)                                    (2)

The Stein metric of a gradient field s is (2) for f = log p, whose D^2 f is the Jacobian of s: one product with it for
each vector. If s has curl it is the metric of no graph, and (1) applies. A conformal metric exp(2 phi) I has, with
T = D^2 phi - dphi dphi^T + 1/2 |dphi|^2 I (Besse, Einstein Manifolds, 1.159),

    Riem(u, v, w, z) = -exp(2 phi) (T(u, w) v.z + T(v, z) u.w - T(u, z) v.w - T(v, w) u.z)                (3)

Ricci and scalar curvature are traces of Riem, with G^{-1} between the slots: exact by all unit vectors, or estimated by
random ones, for which products of traces are those of distinct ones.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import as_point, is_concrete
from ._numerics import program
from ._traces import MAX_EXACT, check_probes, directions, trace, weighted_pair_mean
from ._types import Point, Scalar, Vector
from .geodesics.checks import check_metric
from .geodesics.transport import transport_rate
from .metrics import AbstractMetric, ConformalMetric, ScaledMetric, SteinMetric
from .metrics.graph import AbstractGraphMetric
from .metrics.inner_products import MAX_DENSE
from .scores.base import field

# Features of more values than this are differentiated twice in two directions at a time.
_MANY_FEATURES = 8
# Forms that are not made of products are evaluated so many at a time.
_BATCH = 16


class RiemannTensor(NamedTuple):
    """The Riemann tensor at a point, as a function.

    - ``form``: ``(u, v, w, z) -> Riem(u, v, w, z)`` of four vectors ``(d,)``, linear in each, a scalar.
    - ``by_products``: whether what costs (products with a Hessian) is done for each vector, and not for each pair:
      then all pairs of n vectors cost n products, and traces are exact in up to 1024 dimensions instead of 64.
    """

    form: Callable[[Vector, Vector, Vector, Vector], Scalar]
    by_products: bool = False


@functools.singledispatch
def riemann_tensor(metric: AbstractMetric, x: Point) -> RiemannTensor:
    """The `RiemannTensor` of ``metric`` at ``x`` ``(d,)``: by equation (1) of this module, or a formula of its own.

    A metric that has one registers it: ``riemann_tensor.register(MyMetric)``, with `hessian_tensor` for graphs of
    functions, `graph_tensor` and `conformal_tensor` at hand.

    >>> import jax.numpy as jnp
    >>> from scoregeo import models
    >>> from scoregeo.curvature import riemann_tensor
    >>> u, v = jnp.eye(2)
    >>> round(float(riemann_tensor(models.Sphere(), jnp.zeros(2)).form(u, v, u, v)), 4)  # G is 4 I
    16.0
    """

    def second(a: Vector, b: Vector, p: Vector, q: Vector) -> Scalar:
        """``D_a D_b <p, q>``."""

        def first(y):
            return jax.jvp(lambda y: metric.at(y).inner(p, q), (y,), (a,))[1]

        return jax.jvp(first, (x,), (b,))[1]

    def form(u: Vector, v: Vector, w: Vector, z: Vector) -> Scalar:
        # Side by side, as one program to compile.
        flat = jax.vmap(second)(*(jnp.stack(four) for four in ((v, u, u, v), (w, z, w, z), (u, v, v, u), (z, w, z, w))))
        gamma = jax.vmap(functools.partial(transport_rate, metric, x))(jnp.stack([v, u, v, u]), jnp.stack([w, z, z, w]))
        product = metric.at(x)
        return 0.5 * (flat[0] + flat[1] - flat[2] - flat[3]) + product.inner(*gamma[:2]) - product.inner(*gamma[2:])

    return RiemannTensor(form)


def hessian_tensor(hessian_mv: Callable[[Vector], Vector], factor: Scalar) -> RiemannTensor:
    """``factor (H(u, w) H(v, z) - H(u, z) H(v, w))`` of a symmetric matrix H given by its products ``hessian_mv``:
    equation (2) for a scalar f with Hessian H, where ``factor`` is ``lam / (1 + lam |grad f|^2)``."""

    def form(u: Vector, v: Vector, w: Vector, z: Vector) -> Scalar:
        hu, hv = hessian_mv(u), hessian_mv(v)
        return factor * ((hu @ w) * (hv @ z) - (hu @ z) * (hv @ w))

    return RiemannTensor(form, by_products=True)


def graph_tensor(
    feature: Callable[[Point], Float[Array, " m"]], strength: Scalar, solve: Callable[[Vector], Vector], x: Point
) -> RiemannTensor:
    """Equation (2) for ``feature``, a function of points ``(d,)`` to ``(m,)``, and lam = ``strength``.

    ``solve`` is ``G(x)^{-1}``: as ``(I + lam F F^T)^{-1} = I - lam F G^{-1} F^T``, nothing m x m or d x d is formed;
    and so it holds for ``G = c I + lam F^T F`` with any c, zero included. Up to m = 8 the tensor is made of products
    with the m Hessians; beyond, each pair of vectors costs four JVPs of JVPs and two solves.
    """
    value, push = jax.linearize(feature, x)
    pull = jax.linear_transpose(push, x)

    def difference(second: Callable, left: tuple, right: tuple) -> Scalar:
        """``B(left) - B(right)``, each of two pairs of vectors."""
        terms = []
        for first, last in (left, right):
            y = second(*first)
            terms.append(strength * second(*last) @ (y - strength * push(solve(pull(y)[0]))))
        return terms[0] - terms[1]

    def by_pairs(u: Vector, v: Vector, w: Vector, z: Vector) -> Scalar:
        def second(a: Vector, b: Vector) -> Float[Array, " m"]:
            return jax.jvp(lambda y: jax.jvp(feature, (y,), (a,))[1], (x,), (b,))[1]

        return difference(second, ((u, w), (v, z)), ((u, z), (v, w)))

    if value.size > _MANY_FEATURES:
        return RiemannTensor(by_pairs)
    _, hessian_mvs = jax.linearize(jax.jacrev(feature), x)

    def by_products(u: Vector, v: Vector, w: Vector, z: Vector) -> Scalar:
        hu, hv = hessian_mvs(u), hessian_mvs(v)
        return difference(jnp.matmul, ((hu, w), (hv, z)), ((hu, z), (hv, w)))

    return RiemannTensor(by_products, by_products=True)


def conformal_tensor(log_factor: Callable[[Point], Scalar], x: Point) -> RiemannTensor:
    """Equation (3), for the metric ``exp(2 log_factor(x)) I``."""
    gradient, hessian_mv = jax.linearize(jax.grad(log_factor), x)
    # To each of the four vectors its part of the factor: their product may be moderate where the factor overflows.
    root = jnp.exp(log_factor(x) / 2)

    def t(v: Vector) -> Vector:
        return hessian_mv(v) - (gradient @ v) * gradient + 0.5 * (gradient @ gradient) * v

    def form(*vectors: Vector) -> Scalar:
        u, v, w, z = (root * vector for vector in vectors)
        tu, tv = t(u), t(v)
        return (tu @ z) * (v @ w) + (tv @ w) * (u @ z) - (tu @ w) * (v @ z) - (tv @ z) * (u @ w)

    return RiemannTensor(form, by_products=True)


@riemann_tensor.register
def _(metric: SteinMetric, x: Point) -> RiemannTensor:
    if not metric.score.conservative:
        return riemann_tensor.dispatch(AbstractMetric)(metric, x)
    s, hessian_mv = jax.linearize(field(metric.score), x)
    strength = metric.strength.astype(x.dtype)
    return hessian_tensor(hessian_mv, strength / (1 + strength * (s @ s)))


@riemann_tensor.register
def _(metric: AbstractGraphMetric, x: Point) -> RiemannTensor:
    return graph_tensor(metric.feature, metric.strength.astype(x.dtype), metric.at(x).solve, x)


@riemann_tensor.register
def _(metric: ConformalMetric, x: Point) -> RiemannTensor:
    return conformal_tensor(metric.phi, x)


@riemann_tensor.register
def _(metric: ScaledMetric, x: Point) -> RiemannTensor:
    form, by_products = riemann_tensor(metric.metric, x)
    return RiemannTensor(lambda *vectors: metric.factor.astype(x.dtype) * form(*vectors), by_products)


# --- What is public ---------------------------------------------------------------------------------------------------


def sectional_curvature(metric: AbstractMetric, x: Point, u: Vector, v: Vector) -> Scalar:
    """The sectional curvature, at ``x``, of the plane that ``u`` and ``v`` span; in any dimension.

    **Arguments**

    - ``metric``: any metric. A Stein metric of a gradient field costs two Jacobian-vector products of the score, other
      metrics some second derivatives of ``metric.at`` in two directions.
    - ``x``, ``u``, ``v``: shape ``(d,)``; the units of the result are those of x, to the power -2.

    Raises ``ValueError`` if ``u`` and ``v`` are parallel (or one is zero), as they are in one dimension; under ``jit``
    and ``vmap``, the result is NaN then. NaN outside the domain of the metric, too. For many planes ``jax.vmap``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import models, sectional_curvature
    >>> u, v = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.5, 1.0, 2.0])
    >>> round(float(sectional_curvature(models.HyperbolicHalfSpace(), jnp.array([0.3, 0.1, 2.0]), u, v)), 3)
    -1.0
    """
    x, u, v = _at_door(metric, x, u=u, v=v)
    if is_concrete(u) and is_concrete(v):
        _check_plane(np.asarray(u, np.float64), np.asarray(v, np.float64), float(jnp.finfo(x.dtype).eps))
    return _sectional(metric, x, u, v)


def ricci_curvature(
    metric: AbstractMetric,
    x: Point,
    v: Vector,
    *,
    probes: int | None = None,
    key: PRNGKeyArray | None = None,
    with_error: bool = False,
) -> Any:
    """The Ricci curvature ``Ric(v, v)`` at ``x``: ``<v, v>`` times the sum of the sectional curvatures of d - 1 planes
    through ``v`` that are orthogonal to each other.

    **Arguments**

    - ``metric``, ``x``, ``v``: as in `sectional_curvature`.
    - ``probes``: estimate the trace with so many random directions (Hutchinson), at least three. ``None`` is the exact
      trace: d products with a Hessian for Stein metrics of gradient fields, graphs of scalar functions and conformal
      metrics, up to d = 1024; for others up to d = 64.
    - ``key``: for the directions; needed with ``probes``.
    - ``with_error``: return the pair of the value and its standard error, which is zero for the exact trace.

    Raises ``ValueError`` for wrong shapes, and beyond these dimensions without ``probes``. NaN outside the domain.

    >>> import jax.numpy as jnp
    >>> from scoregeo import models, ricci_curvature
    >>> round(float(ricci_curvature(models.Sphere(), jnp.zeros(3), jnp.array([0.5, 0.0, 0.0]))), 4)  # d - 1
    2.0
    """
    x, v = _at_door(metric, x, v=v)
    return _by_directions(_ricci, metric, x, v, probes=probes, key=key, with_error=with_error)


def scalar_curvature(
    metric: AbstractMetric,
    x: Point,
    *,
    probes: int | None = None,
    key: PRNGKeyArray | None = None,
    with_error: bool = False,
) -> Any:
    """The scalar curvature at ``x``: the sum of the sectional curvatures of all d (d - 1) ordered pairs of directions
    that are orthonormal; twice Gauss's K of a surface.

    Arguments, result and errors as in `ricci_curvature`. With ``probes`` it is the mean over all pairs of distinct
    random directions, without bias; the standard error is that of the jackknife over the directions.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric, scalar_curvature
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(50), jnp.eye(50)))
    >>> x = jnp.full(50, 0.1)
    >>> value, error = scalar_curvature(metric, x, probes=20, key=jax.random.key(0), with_error=True)
    >>> exact = scalar_curvature(metric, x)
    >>> round(float(exact)), bool(error < 0.01 * exact), bool(abs(value - exact) < 3 * error)
    (1612, True, True)
    """
    (x,) = _at_door(metric, x)
    return _by_directions(_scalar, metric, x, probes=probes, key=key, with_error=with_error)


def volume_density(metric: AbstractMetric, x: Point) -> Scalar:
    """The volume density ``sqrt(det G(x))``: volume of the metric for each unit of volume of the coordinates.

    Overflows where the number is too large for its type; ``metric.at(x).logdet(x.size) / 2`` is its logarithm. NaN
    outside the domain of the metric. Raises ``ValueError`` for wrong shapes.

    >>> import jax.numpy as jnp
    >>> from scoregeo import SteinMetric, volume_density
    >>> float(volume_density(SteinMetric(lambda x: -x, strength=3.0), jnp.array([1.0, 0.0])))
    2.0
    """
    (x,) = _at_door(metric, x)
    return _volume(metric, x)


# --- How --------------------------------------------------------------------------------------------------------------


def _at_door(metric: Any, x: Any, **vectors: Any) -> tuple[Array, ...]:
    """``x`` and tangent vectors there, in one dtype."""
    x = as_point(x, "x")
    checked = [as_point(v, name, dim=x.size) for name, v in vectors.items()]
    dtype = jnp.result_type(x, *checked)
    x = x.astype(dtype)
    check_metric(metric, x)
    return x, *(v.astype(dtype) for v in checked)


def _check_plane(u: np.ndarray, v: np.ndarray, eps: float) -> None:
    lengths = np.linalg.norm(u), np.linalg.norm(v)
    if not min(lengths) > 0:
        raise ValueError("`u` and `v` must span a plane, but one of them is zero")
    u, v = u / lengths[0], v / lengths[1]
    if not np.linalg.norm(v - (u @ v) * u) > 32 * eps:
        raise ValueError(f"`u` and `v` must span a plane, but they are parallel in {u.size} dimensions")


def _exact_dim(metric: AbstractMetric, x: Point) -> int:
    """The largest dimension in which traces are exact; looks at types alone."""
    found = []
    jax.eval_shape(lambda m, y: found.append(riemann_tensor(m, y).by_products), metric, x)
    return MAX_EXACT if found[0] else MAX_DENSE


def _by_directions(curvature, metric, x, *vectors, probes, key, with_error):
    """What is public of a curvature that is a trace: the number of directions is checked, the error optional."""
    probes = check_probes(probes, key, x.size, _exact_dim(metric, x))
    value = curvature(metric, x, *vectors, probes, key)
    return value if with_error else value[0]


def _inside(metric: AbstractMetric, x: Point, value: Scalar) -> Scalar:
    return jnp.where(metric.domain(x) > 0, value, jnp.nan)


@program
def _sectional(metric: AbstractMetric, x: Point, u: Vector, v: Vector) -> Scalar:
    product = metric.at(x)
    u, v = u / product.norm(u), v / product.norm(v)
    v = v - product.inner(u, v) * u
    rest = product.norm(v)
    v = v / jnp.where(rest > 32 * jnp.finfo(x.dtype).eps, rest, jnp.nan)
    v = v - product.inner(u, v) * u  # what rounding left of vectors that are nearly parallel
    v = v / product.norm(v)
    return _inside(metric, x, riemann_tensor(metric, x).form(u, v, u, v))


@program
def _ricci(metric, x, v, probes, key):
    us = directions(probes, key, x.size, x.dtype)
    raised = jax.vmap(metric.at(x).solve)(us)
    form, by_products = riemann_tensor(metric, x)

    def term(pair):
        return form(pair[0], v, pair[1], v)

    batch = us.shape[0] if by_products else min(_BATCH, us.shape[0])
    terms = jax.lax.map(term, (us, raised), batch_size=batch)
    value, error = trace(terms, probes)
    return _inside(metric, x, value), error


@program
def _scalar(metric, x, probes, key):
    us = directions(probes, key, x.size, x.dtype)
    raised = jax.vmap(metric.at(x).solve)(us)
    form, by_products = riemann_tensor(metric, x)

    def row(pair):
        return jax.vmap(lambda v, z: form(pair[0], v, pair[1], z))(us, raised)

    # In a `vmap` of a `vmap`, what depends on one of two vectors is computed once for each vector, not for each pair.
    terms = jax.vmap(row)((us, raised)) if by_products else jax.lax.map(row, (us, raised))
    value, error = trace(terms, probes, weighted_pair_mean)
    return _inside(metric, x, value), error


@program
def _volume(metric, x):
    product = metric.at(x)
    # A class that knows its dimension need not take it as an argument.
    logdet = product.logdet() if product.dim is not None else product.logdet(x.size)
    return _inside(metric, x, jnp.exp(logdet / 2))
