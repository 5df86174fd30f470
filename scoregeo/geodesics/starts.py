"""Where a boundary solve starts: straight, bent, or along the data.

Several local geodesics may connect two points, and a solver descends to the one in whose basin it starts.
"""

import abc
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import as_point, as_points, check_fewer, is_concrete
from .._graphs import along, as_sparse, neighbor_pairs, route, shortest
from .._numerics import frozen, safe_sqrt
from .._types import Point, Points, Vector
from ..metrics import AbstractMetric
from .curves import NODES, AbstractCurve, Polyline, node_times


class AbstractStart(eqx.Module):
    """A rule that gives a curve from x to y, to start a boundary solver from; pass it as ``init``."""

    @abc.abstractmethod
    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> AbstractCurve:
        """A curve from ``x`` to ``y``."""

    def check(self, dim: int) -> None:
        """Raise ``ValueError`` unless the rule applies to points of dimension ``dim``."""


class StraightLine(AbstractStart):
    """The straight line: the default."""

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        return Polyline(jnp.stack([x, y]))


class Bend(AbstractStart):
    """The straight line, bent: ``x + t (y - x) + 4 t (1 - t) offset``, with ``offset`` ``(d,)`` reached half-way.

    >>> import jax.numpy as jnp
    >>> from scoregeo import Bend, EuclideanMetric
    >>> Bend([0.0, 3.0])(EuclideanMetric(), jnp.zeros(2), jnp.ones(2))(0.5)[0].tolist()
    [0.5, 3.5]
    """

    offset: Vector

    def __init__(self, offset: Vector):
        self.offset = as_point(offset, "offset")

    def check(self, dim: int) -> None:
        as_point(self.offset, "offset", dim=dim)

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        return bent_line(x, y, self.offset.astype(x.dtype))


def bent_line(x: Point, y: Point, offset: Vector) -> Polyline:
    """`Bend` as a curve."""
    t = node_times(x.dtype)[:, None]
    return Polyline(x + t * (y - x) + 4 * t * (1 - t) * offset)


class GraphInit(AbstractStart):
    """The shortest path on the graph of nearest neighbours among ``points``, weighted by length in the metric.

    Follows the data around holes where the straight line would cut through them. Edges join each point with its
    ``neighbors`` nearest ones (in Euclidean distance), and the end points with theirs; the length of an edge is that of
    the straight segment in the metric. SciPy finds the path, on the host. If no path connects the end points, the start
    is the straight line.

    **Arguments**: ``points`` ``(n, d)``, concrete; ``neighbors``, fewer than n. Construct it once, outside ``jit``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, GraphInit
    >>> corner = GraphInit(jnp.array([[0.0, 1.0], [0.2, 1.5], [1.0, 2.0]]), neighbors=1)
    >>> curve = corner(EuclideanMetric(), jnp.array([0.0, 0.0]), jnp.array([1.1, 2.0]))
    >>> [round(float(z), 2) for z in curve(1.0)[0]]
    [1.1, 2.0]
    """

    points: Points
    edges: Int[Array, "e 2"]
    neighbors: int = eqx.field(static=True)

    def __init__(self, points: Points, neighbors: int = 8):
        self.points = as_points(points, "points")
        if not is_concrete(self.points):
            raise TypeError("`points` must be concrete: construct GraphInit outside `jit`, `vmap` and `grad`")
        # Duplicates are dropped: the nearest neighbours of a point would be its own copies.
        values = np.unique(np.asarray(self.points), axis=0)
        self.points, n = jnp.asarray(values), len(values)
        self.neighbors = check_fewer("neighbors", neighbors, n, "different points")
        self.edges = jnp.asarray(neighbor_pairs(values, self.neighbors), jnp.int32)

    def check(self, dim: int) -> None:
        as_points(self.points, "points", dim=dim)

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        points = self.points.astype(x.dtype)
        # Everything is frozen: a starting path has no derivative, and SciPy could give none.
        metric, x, y = frozen((metric, x, y))
        weights = jax.lax.map(
            lambda edge: segment_length(metric, points[edge[0]], points[edge[1]]), self.edges, batch_size=256
        )
        ends = jnp.stack([x, y])
        squared = jnp.sum((ends[:, None] - points) ** 2, -1)
        _, nearest = jax.lax.top_k(-squared, self.neighbors)
        links = jax.vmap(lambda end, row: jax.vmap(lambda i: segment_length(metric, end, points[i]))(row))
        arrays = (points, weights, ends, links(ends, nearest))
        words = jax.pure_callback(
            functools.partial(_graph_path, dtype=np.dtype(x.dtype)),
            jax.eval_shape(_as_words, jax.ShapeDtypeStruct((NODES, x.size), x.dtype)),
            tuple(_as_words(array) for array in arrays),
            self.edges,
            nearest,
            vmap_method="sequential",
        )
        return Polyline(jax.lax.bitcast_convert_type(words, x.dtype))


def sideways_nudge(x: Point, y: Point) -> Vector:
    """A vector, imperceptibly small, to bend the path from ``x`` to ``y`` by; the same for the way back.

    Where the problem is symmetric about a line, the line is stationary even if it is no minimum (between opposite
    points of a Gaussian, beyond its conjugate points); off it, a solver sees the way down.
    """
    direction = np.random.default_rng(0).normal(size=x.shape)
    size = jnp.finfo(x.dtype).eps ** (1 / 3) * safe_sqrt(jnp.sum((y - x) ** 2))
    return size * jnp.asarray(direction / np.linalg.norm(direction), x.dtype)


def segment_length(metric: AbstractMetric, a: Point, b: Point) -> Float[Array, ""]:
    """Length in ``metric`` of the straight segment from ``a`` to ``b``, by four Gauss points; infinite outside the
    domain."""
    nodes, weights = np.polynomial.legendre.leggauss(4)

    def speed(t):
        x = a + t * (b - a)
        return jnp.where(metric.domain(x) > 0, metric.norm(x, b - a), jnp.inf)

    lengths = jax.vmap(speed)(jnp.asarray((nodes + 1) / 2, a.dtype))
    return jnp.asarray(weights / 2, a.dtype) @ lengths


def _as_words(array: Array) -> Array:
    """The bits of ``array`` as integers of 32: the thread that JAX calls back in may have float64 disabled, where the
    caller has enabled it for a while (`jax.enable_x64`)."""
    return jax.lax.bitcast_convert_type(array, jnp.uint32)


def _graph_path(words, edges, nearest, *, dtype):
    """The shortest path from ``ends[0]`` to ``ends[1]`` as nodes at equal distances in the metric; NumPy.

    ``words`` are those of points, weights of edges, ends, and weights of the links of these to their ``nearest`` ones.
    """
    wide = dtype.itemsize == 8

    def as_floats(word):
        floats = np.ascontiguousarray(word).view(dtype)
        return floats[..., 0] if wide else floats  # two words each

    points, weights, ends, links = (as_floats(np.asarray(word)) for word in words)
    edges, nearest = np.asarray(edges), np.asarray(nearest)
    n = len(points)
    rows = np.concatenate([edges[:, 0], np.repeat([n, n + 1], nearest.shape[1])])
    columns = np.concatenate([edges[:, 1], nearest.reshape(-1)])
    graph = as_sparse(n + 2, np.stack([rows, columns], -1), np.concatenate([weights, links.reshape(-1)]))
    distances, previous = shortest(graph, n)
    way = route(previous, n, n + 1) or [n, n + 1]
    nodes = along(np.concatenate([points, ends])[way], distances[way], NODES)
    words = np.ascontiguousarray(nodes.astype(dtype)).view(np.uint32)
    return words.reshape(*nodes.shape, 2) if wide else words
