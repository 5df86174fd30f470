"""geomstats, both ways: a metric of this library as one of geomstats', and a space of geomstats' as a metric here.

geomstats 2.8 runs on NumPy (it has no JAX backend), so everything in this file computes on the host, in float64 arrays;
what a metric of this library computes is in the precision of JAX (float32 unless ``jax_enable_x64`` is set).

geomstats is imported when this module is, not before.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import metrics
from .._checks import check_count
from .._numerics import with_own_settings
from .._results import RESULTS
from .._types import Point, Scalar, Vector
from ..geodesics import AbstractBoundarySolver, Geodesic, SpectralNewton, geodesic, shoot
from ..geodesics.checks import check_metric, check_solver
from ..metrics import AbstractMetric
from ..metrics.inner_products import DenseInnerProduct


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Conditions under which geomstats 2.8.0 can be imported; NumPy is left as it was.

    It imports ``numpy.trapz``, which NumPy 2.4 removed, and its importer of backends predates Python 3.4's protocol
    (an ``ImportWarning``). To be deleted once the lower bound is a release of geomstats that takes
    ``numpy.trapezoid``.
    """
    missing = not hasattr(np, "trapz")
    if missing:
        np.__dict__["trapz"] = np.trapezoid
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)
            yield
    finally:
        if missing:
            del np.__dict__["trapz"]


with _importable():
    import geomstats._backend
    from geomstats.geometry.euclidean import Euclidean
    from geomstats.geometry.riemannian_metric import RiemannianMetric

# Memory of a batch of paths: a few of 256 coefficients for every dimension.
_NUMBERS_PER_BATCH, _NUMBERS_PER_DIMENSION = 2**25, 1024
_SMALLEST_BATCH = 8


def to_geomstats(metric: AbstractMetric, dim: int, *, solver: AbstractBoundarySolver | None = None) -> "JaxMetric":
    """``metric`` on R^dim as a Riemannian metric of geomstats, for its learning algorithms.

    **Arguments**

    - ``metric``: any metric of this library, such as a `SteinMetric` with a learned score.
    - ``dim``: the dimension of its points.
    - ``solver``: for ``log``, ``dist`` and ``geodesic``; default `SpectralNewton`.

    **Returns** a geomstats ``RiemannianMetric`` on a Euclidean space of its own, ``.space``, which is what geomstats'
    estimators want. Points are float64 NumPy arrays ``(..., dim)``, batches are broadcast against each other as
    everywhere in geomstats, and solved side by side in JAX (compiled once for each power of two from 8).

    Raises ``RuntimeError``, with the number of failures and advice, where a solve fails: geomstats has no status codes.

    >>> import numpy as np
    >>> from scoregeo import SteinMetric
    >>> from scoregeo.adapters.geomstats import to_geomstats
    >>> space = to_geomstats(SteinMetric(lambda x: -x), dim=2).space
    >>> space.metric.squared_norm(np.array([1.0, 1.0]), base_point=np.array([1.0, 0.0])).item()
    3.0
    """
    check_count("dim", dim)
    check_metric(metric, jnp.zeros(dim))
    solver = SpectralNewton() if solver is None else solver
    check_solver(solver)
    _check_backend()
    space = Euclidean(dim, equip=False)
    # geomstats has no annotations.
    return cast(JaxMetric, space.equip_with_metric(JaxMetric, metric=metric, solver=solver).metric)


class _Batch(NamedTuple):
    """What was computed for a batch of vectors: values of its parts, filled up with copies, and its size and shape."""

    parts: list[Any]
    size: int
    shape: tuple[int, ...]

    def read(self, read: Callable[[Any], Any] = lambda value: value) -> np.ndarray:
        """``read`` of the values, as a new float64 array."""
        values = np.concatenate([np.asarray(read(part), np.float64) for part in self.parts])[: self.size]
        # A copy: geomstats writes into arrays, and those of JAX are read-only.
        return values.reshape((*self.shape, *values.shape[1:])).copy()


class JaxMetric(RiemannianMetric):
    """A metric of this library in geomstats; see `to_geomstats`. Arguments and results as geomstats documents them."""

    def __init__(self, space: Euclidean, metric: AbstractMetric, solver: AbstractBoundarySolver):
        super().__init__(space)
        self.metric = metric
        self.solver = solver

    @property
    def space(self) -> Euclidean:
        """The space that is equipped with this metric."""
        return self._space

    def metric_matrix(self, base_point=None):
        """The matrices ``G(x)``."""
        return self._map(_matrices, "", base_point).read()

    def christoffels(self, base_point=None):
        """The Christoffel symbols, upper index first."""
        return self._map(_christoffels, "", base_point).read()

    def inner_product(self, tangent_vec_a, tangent_vec_b, base_point=None):
        """The inner products of two vectors, without forming ``G(x)``."""
        return self._map(_inner, "", base_point, tangent_vec_a, tangent_vec_b).read()

    def exp(self, tangent_vec, base_point):
        """The exponential map, by diffrax."""
        return self._map(_exp, "integrations", base_point, tangent_vec).read()

    def log(self, point, base_point):
        """The logarithmic map, by the boundary solver."""
        return self._solve(base_point, point, lambda paths: paths.velocities[..., 0, :]).read()

    def dist(self, point_a, point_b):
        """The lengths of the geodesics that the boundary solver finds."""
        return self._solve(point_a, point_b, lambda paths: paths.length).read()

    def squared_dist(self, point_a, point_b):
        """The squared distances."""
        return self.dist(point_a, point_b) ** 2

    def geodesic(self, initial_point, end_point=None, initial_tangent_vec=None):
        """The geodesic as a function of times; between two points it is solved here, once, and then evaluated."""
        if end_point is None or initial_tangent_vec is not None:
            return super().geodesic(initial_point, end_point, initial_tangent_vec)
        solved = self._solve(initial_point, end_point, lambda paths: paths)

        def path(t):
            times = np.clip(np.atleast_1d(np.asarray(t, np.float64)), 0, 1)
            if not np.array_equal(times, np.atleast_1d(t)):
                raise ValueError(f"`t` must be in [0, 1] for a geodesic between two points, got {t}")
            return solved.read(lambda paths: _evaluate(paths, jnp.asarray(times)))

        return path

    def _solve(self, x, y, keep: Callable[[Geodesic], Any]) -> _Batch:
        """What is to be kept of the geodesics; all of them would not fit into memory for long batches."""

        def solve(metric, xs, ys):
            paths = _geodesics(self.solver, metric, xs, ys)
            return keep(paths), paths.result

        return self._map(solve, "geodesics", x, y)

    def _map(self, function, what: str, *arguments) -> _Batch:
        """``function(metric, *arguments)`` over broadcast batches of vectors.

        Batches are filled up to a power of two, so that clusters of changing size do not compile again and again.
        """
        if any(argument is None for argument in arguments):
            raise ValueError("`base_point` must be given: this metric is not the same everywhere")
        arrays = np.broadcast_arrays(*(np.asarray(argument, np.float64) for argument in arguments))
        if arrays[0].ndim == 0 or arrays[0].shape[-1] != self._space.dim:
            raise ValueError(f"points and vectors must have shape (..., {self._space.dim}), got {arrays[0].shape}")
        batch, total = arrays[0].shape[:-1], arrays[0].size // self._space.dim
        if total == 0:
            raise ValueError(f"a batch must have at least one point, got shape {arrays[0].shape}")
        rows = [array.reshape(total, -1) for array in arrays]
        size = max(_SMALLEST_BATCH, 1 << max(0, total - 1).bit_length())
        size = min(size, max(1, _NUMBERS_PER_BATCH // (_NUMBERS_PER_DIMENSION * self._space.dim)))
        parts, ends = [], []
        for start in range(0, total, size):
            index = np.minimum(np.arange(start, start + size), total - 1)
            value, results = function(self.metric, *(jnp.asarray(row[index]) for row in rows))
            parts.append(value)
            ends.append(results)
        if what:
            _raise_if_failed(jax.tree.map(lambda *codes: jnp.concatenate(codes)[:total], *ends), what)
        return _Batch(parts, total, batch)


@eqx.filter_jit
@with_own_settings
def _matrices(metric, xs):
    return jax.vmap(lambda x: metric.at(x).matrix(x.size))(xs), None


@eqx.filter_jit
@with_own_settings
def _christoffels(metric, xs):
    return jax.vmap(lambda x: metrics.christoffels(metric, x))(xs), None


@eqx.filter_jit
@with_own_settings
def _inner(metric, xs, vs, ws):
    return jax.vmap(metric.inner)(xs, vs, ws), None


@eqx.filter_jit
@with_own_settings
def _exp(metric, xs, vs):
    def solve(x, v):
        return shoot(metric, x, v, ts=(1.0,), dense=False, max_steps=4096, throw=False)

    paths = jax.vmap(solve)(xs, vs)
    return paths.points[:, -1], paths.result


@eqx.filter_jit
@with_own_settings
def _geodesics(solver, metric, xs, ys):
    return jax.vmap(lambda x, y: geodesic(metric, x, y, solver=solver, ts=(0.0, 1.0), throw=False))(xs, ys)


@eqx.filter_jit
@with_own_settings
def _evaluate(paths, times):
    return eqx.filter_vmap(lambda path: path.evaluate(times))(paths)


def _raise_if_failed(results: RESULTS, what: str) -> None:
    failed = np.asarray(results != RESULTS.successful)
    if failed.any():
        first = int(np.argmax(failed))
        advice = RESULTS[jax.tree.map(lambda code: code[first], results)]
        raise RuntimeError(f"{failed.sum()} of {failed.size} {what} failed (first number {first}): {advice}")


def from_geomstats(space: Any, *, step: float = 1e-3) -> "GeomstatsMetric":
    """The metric of an equipped geomstats ``space``, here: for comparisons, and to solve where geomstats cannot.

    **Arguments**

    - ``space``: its points are vectors ``(d,)``.
    - ``step``: of the finite differences (of fourth order) that replace the derivatives of the metric, which geomstats
      does not have on NumPy: in the units of the coordinates. Points must stay a few steps away from a boundary.

    **Returns** a `GeomstatsMetric`. Raises ``ValueError`` for a space without a metric, or of matrices, or whose points
    are coordinates of a chart in which geomstats has neither the matrix of the metric nor its inner products. What
    geomstats says is not verified: its inner products of ``DiagonalNormalDistributions`` are not those of its distance.

    >>> import jax.numpy as jnp
    >>> from scoregeo.adapters.geomstats import from_geomstats
    >>> from geomstats.geometry.poincare_ball import PoincareBall
    >>> metric = from_geomstats(PoincareBall(2))
    >>> round(float(metric.dist(jnp.zeros(2), jnp.array([0.5, 0.0]))), 4)  # log 3
    1.0986
    """
    _check_backend()
    if not hasattr(space, "metric"):
        raise ValueError(f"`space` must be equipped with a metric, got {type(space).__name__} without one")
    if space.point_ndim != 1:
        raise ValueError(f"`space` must have points of shape (d,), got {space.shape}")
    if not 0 < step < np.inf:
        raise ValueError(f"`step` must be a positive number, got {step!r}")
    if _is_chart(space):
        _check_matrices(space)
    return GeomstatsMetric(space, float(step))


class GeomstatsMetric(AbstractMetric):
    """A metric of geomstats, evaluated on the host by callbacks; see `from_geomstats`.

    As an `AbstractMetric` it goes wherever one goes (``scoregeo.dist(metric, x, y)`` solves with this library), where
    the points of the space are coordinates of a chart. `dist`, `exp` and `log` are geomstats' own answers, also for
    points in an embedding (``Hypersphere``). All work under ``jit`` and ``vmap``, at the speed of NumPy.
    """

    space: Any = eqx.field(static=True)
    step: float = eqx.field(static=True)

    def at(self, x: Point) -> DenseInnerProduct:
        """The inner product at ``x``; raises ``ValueError`` where points are not coordinates of a chart."""
        if not _is_chart(self.space):
            raise ValueError(
                f"points of {type(self.space).__name__} have shape {self.space.shape} in dimension {self.space.dim}: "
                "they are in an embedding, for which only `dist`, `exp` and `log` of this metric are defined"
            )
        return DenseInnerProduct(_derivative(self.space, self.step, 0, x))

    def dist(self, x: Point, y: Point) -> Scalar:
        """geomstats' distance."""
        return _on_host(lambda x, y: self.space.metric.dist(x, y), (), x, y)

    def exp(self, x: Point, v: Vector) -> Point:
        """geomstats' exponential map."""
        return _on_host(lambda x, v: self.space.metric.exp(v, x), x.shape, x, v)

    def log(self, x: Point, y: Point) -> Vector:
        """geomstats' logarithmic map."""
        return _on_host(lambda x, y: self.space.metric.log(y, x), x.shape, x, y)


def _is_chart(space: Any) -> bool:
    """Whether points of ``space`` are coordinates, as many as dimensions."""
    return space.shape == (space.dim,)


def _check_matrices(space: Any) -> None:
    """Raise ``ValueError`` unless geomstats has the metric matrix at a point of ``space``."""
    state = np.random.get_state()  # noqa: NPY002 - geomstats draws from it, and users may have seeded it
    try:
        _metric_matrices(space, np.reshape(space.random_point(), (1, space.dim)))
    except Exception as error:  # geomstats raises of every kind
        raise ValueError(
            f"`space` must have a metric with matrices in its {space.dim} coordinates, but of {type(space).__name__} "
            f"geomstats cannot compute them: {type(error).__name__}: {error}"
        ) from error
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _metric_matrices(space: Any, xs: np.ndarray) -> np.ndarray:
    """The matrices of the metric at ``xs`` ``(n, d)``; from inner products where geomstats has no others."""
    n, dim = xs.shape
    shape = (n, dim, dim)
    try:
        matrices = np.asarray(space.metric.metric_matrix(xs))
    except NotImplementedError:
        basis = np.eye(dim)
        vectors = (basis[:, None], basis[None], xs[:, None, None])
        flat = (np.broadcast_to(vector, (*shape, dim)).reshape(-1, dim) for vector in vectors)
        return space.metric.inner_product(*flat).reshape(shape)
    if matrices.shape[-2:] != shape[1:]:
        raise ValueError(f"`metric_matrix` has shape {matrices.shape[-2:]}, not {shape[1:]}")
    return np.broadcast_to(matrices, shape)


def _on_host(function: Callable, shape: tuple[int, ...], *vectors: Vector):
    """``function`` of batches of vectors in NumPy, as an operation of JAX with result ``shape``."""
    dtype = jnp.result_type(*vectors)

    def call(*vectors):
        vectors = [np.asarray(vector, np.float64) for vector in vectors]
        batch = vectors[0].shape[:-1]
        value = np.asarray(function(*(vector.reshape(-1, vector.shape[-1]) for vector in vectors)))
        if value.size != np.prod(batch + shape):
            raise ValueError(f"geomstats returned shape {value.shape} for a batch {batch}, expected {batch + shape}")
        return value.reshape(batch + shape).astype(dtype)

    return jax.pure_callback(call, jax.ShapeDtypeStruct(shape, dtype), *vectors, vmap_method="broadcast_all")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _derivative(space: Any, step: float, order: int, x: Point) -> Float[Array, "d d *more"]:
    """The derivative of the metric matrix of this order, new index last; itself differentiable, by the next order."""
    function = functools.partial(_metric_matrices, space)
    for _ in range(order):
        function = functools.partial(_central_differences, function, step)
    return _on_host(function, (x.size,) * (2 + order), x)


@_derivative.defjvp
def _(space, step, order, primals, tangents):
    (x,), (v,) = primals, tangents
    return _derivative(space, step, order, x), _derivative(space, step, order + 1, x) @ v


def _central_differences(function: Callable, step: float, xs: np.ndarray) -> np.ndarray:
    """Fourth-order differences of ``function`` at ``xs`` ``(n, d)``, with the direction as the last axis."""
    n, dim = xs.shape
    steps = np.array([-2.0, -1.0, 1.0, 2.0])
    points = xs[:, None, None] + step * steps[:, None, None] * np.eye(dim)
    values = function(points.reshape(-1, dim))
    values = values.reshape(n, len(steps), dim, *values.shape[1:])
    return np.moveaxis(np.einsum("s,ns...->n...", np.array([1.0, -8.0, 8.0, -1.0]) / (12 * step), values), 1, -1)


def _check_backend() -> None:
    backend = geomstats._backend.get_backend_name()
    if backend != "numpy":
        raise RuntimeError(f"geomstats must run on its numpy backend, but GEOMSTATS_BACKEND is {backend!r}")
