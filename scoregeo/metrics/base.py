"""The interface of a metric: a field of inner products, and the acceleration of its geodesics.

With kinetic energy T = 1/2 <v, G(x) v>, the Euler-Lagrange equation reads (see the mathematics page, geodesic equation)

    G x'' = 1/2 grad_x <v, G(x) v> - (dG[v]) v                                                          (1)

which costs one gradient, one Jacobian-vector product and one solve; no array with d^3 entries is formed.
"""

import abc
import functools
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._checks import is_concrete
from .._function import TracedFunction
from .._types import Matrix, Point, Scalar, Vector
from ..scores import AbstractScore, at_noise_level
from ..scores.base import warn_if_far
from .inner_products import MAX_DENSE, AbstractInnerProduct
from .structure import add, as_dense, as_diagonal, as_low_rank_update, scale


class AbstractMetric(eqx.Module):
    """A Riemannian metric on R^d (or on a chart of a manifold), as an immutable pytree whose parameters are traced.

    `at`, the inner product at a point, is the one method to write. `acceleration` has a default, which a metric with a
    cheaper formula replaces. Christoffel symbols are no method: they have d^3 entries (`christoffels` computes them
    where d is small).

    ``metric + metric`` and ``0.5 * metric`` are metrics too, see `SumMetric` and `ScaledMetric`.

    >>> import jax.numpy as jnp
    >>> from scoregeo import AbstractMetric, dist
    >>> from scoregeo.metrics import DiagonalInnerProduct
    >>> class HalfPlane(AbstractMetric):
    ...     def at(self, x):
    ...         return DiagonalInnerProduct(jnp.ones(2) / x[1] ** 2)
    >>> round(float(dist(HalfPlane(), jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))), 4)  # log 2
    0.6931
    """

    # NumPy's numbers leave ``number * metric`` to the metric, and do not take it for an array.
    __array_ufunc__ = None

    @abc.abstractmethod
    def at(self, x: Point) -> AbstractInnerProduct:
        """The inner product ``G(x)`` on tangent vectors at ``x``; one evaluation of the score serves all its
        methods."""

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """``gamma''`` of the geodesic through ``x`` with velocity ``v``: minus Gamma(x)(v, v), shape ``(d,)``.

        The default is equation (1).
        """
        _, momentum_rate = jax.jvp(lambda y: self.at(y).mv(v), (x,), (v,))
        force = jax.grad(lambda y: 0.5 * self.at(y).squared_norm(v))(x)
        return self.at(x).solve(force - momentum_rate)

    def domain(self, x: Point) -> Scalar:
        """Positive inside the domain of the metric, zero on its boundary, negative outside; continuous. All of R^d by
        default.

        Solvers keep paths inside, and say so (``RESULTS.outside_domain``) where that cannot be done.
        """
        return jnp.ones((), x.dtype)

    def check(self, x: Point) -> None:
        """Raise or warn if the metric at ``x`` is not to be relied on, for a reason that solvers cannot see; outside of
        ``jit``, before anything is solved.

        The default warns where ``x`` is a thousand standard deviations away from the data that a score of the metric
        knows, and raises ``ValueError`` for a matrix that is not symmetric, in up to 64 dimensions or where the inner
        product holds it, unless its type says that it is.
        """
        warn_of_far_points(self, x)
        matrix = _matrix_at(self, x)
        if matrix is None or not (is_concrete(matrix) and is_concrete(x)):
            return
        matrix = np.asarray(matrix)
        with np.errstate(invalid="ignore"):
            difference = np.abs(matrix - matrix.T)
        # Compared so that NaN passes: solvers see that. Some matrices are products that were rounded in float32.
        if difference.max() > 1e-4 * np.abs(matrix).max():
            i, j = (int(k) for k in np.unravel_index(difference.argmax(), matrix.shape))
            raise ValueError(
                f"`metric` must be symmetric, but G(x)[{i}, {j}] = {matrix[i, j]:.6g} and G(x)[{j}, {i}] = "
                f"{matrix[j, i]:.6g} at x = {np.asarray(x)}"
            )

    def inner(self, x: Point, v: Vector, w: Vector) -> Scalar:
        """``<v, w>`` at ``x``."""
        return self.at(x).inner(v, w)

    def norm(self, x: Point, v: Vector) -> Scalar:
        """The length of the tangent vector ``v`` at ``x``."""
        return self.at(x).norm(v)

    def __add__(self, other: "AbstractMetric") -> "AbstractMetric":
        return add(self, other) if isinstance(other, AbstractMetric) else NotImplemented

    def __mul__(self, factor: Any) -> "AbstractMetric":
        return scale(self, factor)

    __rmul__ = __mul__


def warn_of_far_points(metric: AbstractMetric, x: Point) -> None:
    """Warn where ``x`` is a thousand standard deviations away from the data that a score of ``metric`` knows."""
    for score in _scores_in(metric):
        warn_if_far(score, x)


def _scores_in(tree: Any, root: Any = None) -> Iterator[AbstractScore]:
    """The scores in a pytree, those that functions were given or are methods of included; of a score that is made of
    others (``root``), these: they know the data."""

    def is_leaf(node: Any) -> bool:
        return node is not root and isinstance(node, AbstractScore | TracedFunction)

    for leaf in jax.tree.leaves(tree, is_leaf=is_leaf):
        if isinstance(leaf, AbstractScore):
            yield from list(_scores_in(leaf, leaf)) or [leaf]
        elif isinstance(leaf, TracedFunction):
            yield from _scores_in(leaf.whole())


@eqx.filter_jit
def _matrix_at(metric: AbstractMetric, x: Point) -> Matrix | None:
    """``G(x)``, or ``None`` where it is symmetric by its type, or a matrix that nobody would make."""
    product = metric.at(x)
    if as_diagonal(product) is not None or as_low_rank_update(product) is not None:
        return None
    array = as_dense(product)
    if array is not None or x.size > MAX_DENSE:
        return array
    # Not by `matrix`, whose rows are these columns: it takes for granted what is asked here.
    return jax.vmap(product.mv, out_axes=1)(jnp.eye(x.size, dtype=x.dtype))


@functools.singledispatch
def metric_at_noise_level(metric: AbstractMetric, noise_level: Scalar | float) -> AbstractMetric:
    """The metric made of the same scores at another noise level (`scoregeo.scores.at_noise_level`), everything else as
    it is: strengths, exponents, weights.

    ``noise_level`` is traced. Raises ``TypeError`` for a metric without scores, and for scores that know one level
    only. A metric with settings that belong to a level registers on this function, and is asked in sums too.

    >>> import jax.numpy as jnp
    >>> from scoregeo import KernelDensityScore, SteinMetric
    >>> from scoregeo.metrics import metric_at_noise_level
    >>> metric = metric_at_noise_level(SteinMetric(KernelDensityScore(jnp.zeros((1, 2)), 1.0), 3.0), 2.0)
    >>> float(metric.score.bandwidth), float(metric.strength)
    (2.0, 3.0)
    """
    default = metric_at_noise_level.dispatch(object)

    def change(leaf):
        if isinstance(leaf, AbstractScore):
            return at_noise_level(leaf, noise_level)
        return metric_at_noise_level(leaf, noise_level)

    def changes(leaf):
        own = isinstance(leaf, AbstractMetric) and metric_at_noise_level.dispatch(type(leaf)) is not default
        return isinstance(leaf, AbstractScore) or (own and leaf is not metric)

    leaves, structure = jax.tree.flatten(metric, is_leaf=changes)
    if not any(changes(leaf) for leaf in leaves):
        raise TypeError(f"`metric` must have scores to be known at other noise levels, got {type(metric).__name__}")
    return structure.unflatten([change(leaf) if changes(leaf) else leaf for leaf in leaves])
