"""From a matrix of distances to neighbours, affinities, and coordinates in which one can see it."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import as_float, check_count, check_fewer, is_concrete, is_number, setting
from .._types import Scalar
from ._matrices import check_distances


def nearest_neighbors(
    distances: Float[Array, "n n"] | np.ndarray, k: int
) -> tuple[Int[Array, "n k"], Float[Array, "n k"]]:
    """The ``k`` nearest other points of every point of a matrix of distances, nearest first (of equally near ones, that
    of the lower index): their indices ``(n, k)`` and their distances ``(n, k)``.

    For points in a metric whose matrix is not known, `nearest` solves only what it has to. Raises ``ValueError`` for
    what is no matrix of distances, or has no more than ``k`` points.

    >>> import jax.numpy as jnp
    >>> from scoregeo.statistics import nearest_neighbors
    >>> x = jnp.array([0.0, 1.0, 3.0])
    >>> nearest_neighbors(jnp.abs(x[:, None] - x), 1)[0].tolist()
    [[1], [0], [1]]
    """
    matrix = check_distances(distances)
    k = check_fewer("k", k, matrix.shape[0])
    # Not by its distance: a copy of a point may be as near as the point itself.
    others = jnp.where(jnp.eye(matrix.shape[0], dtype=bool), jnp.inf, matrix)
    indices = jnp.argsort(others, 1)[:, :k].astype(jnp.int32)
    return indices, jnp.take_along_axis(matrix, indices, 1)


def affinity(
    distances: Float[Array, "n n"] | np.ndarray, *, neighbors: int = 7, bandwidth: float | None = None
) -> Array:
    """``exp(-d_ij^2 / (s_i s_j))`` ``(n, n)``: what spectral methods take in place of distances.

    ``s_i`` is the distance from point i to its ``neighbors``-th neighbour, so that dense and thin regions are alike; or
    ``bandwidth`` for all points. Points with more copies than neighbours get the least scale of the others, or if there
    are none, the least positive distance. For scikit-learn:
    ``SpectralClustering(k, affinity="precomputed").fit(affinity(d))``.
    Source: Zelnik-Manor & Perona, Self-tuning spectral clustering (2004).

    >>> import jax.numpy as jnp
    >>> from scoregeo.statistics import affinity
    >>> similar = affinity(jnp.array([[0.0, 2.0], [2.0, 0.0]]), bandwidth=2.0)
    >>> round(float(similar[0, 0]), 4), round(float(similar[0, 1]), 4)  # exp(-1)
    (1.0, 0.3679)
    """
    matrix = check_distances(distances)
    if bandwidth is not None:
        if not (is_number(bandwidth) and bandwidth > 0):
            raise ValueError(f"`bandwidth` must be a positive number, got {bandwidth!r}")
        return jnp.exp(-((matrix / bandwidth) ** 2))
    nth = check_fewer("neighbors", neighbors, matrix.shape[0])
    scales = jnp.sort(matrix, 1)[:, nth]
    # Copies of a point, more than neighbours, have no scale of their own: the least that there is, and where all points
    # have so many copies, the least distance.
    scale, distance = (jnp.min(jnp.where(part > 0, part, jnp.inf)) for part in (scales, matrix))
    scales = jnp.where(scales > 0, scales, jnp.where(jnp.isfinite(scale), scale, distance))
    return jnp.exp(-(matrix**2) / (scales[:, None] * scales))


class Embedding(eqx.Module):
    """Coordinates for a matrix of distances.

    **Fields**

    - ``points`` ``(n, k)``: around zero; of every coordinate the entry that is largest in size is positive.
    - ``stress``: how far distances of ``points``, all times the factor that suits best, are from those of the matrix,
      relative to these in the mean of squares: 0 is exact, and of a method that keeps neighbours only, large.
    """

    points: Float[Array, "n k"]
    stress: Scalar


class AbstractEmbedding(eqx.Module):
    """A way to find coordinates for a matrix of distances; pass it to `embed` as ``method``."""

    @abc.abstractmethod
    def coordinates(self, distances: Float[np.ndarray, "n n"], k: int) -> Float[np.ndarray, "n k"]:
        """Coordinates ``(n, k)``; what comes has been checked."""


class ClassicalScaling(AbstractEmbedding):
    """Principal coordinates: of distances in a Euclidean space, coordinates in it. The default.

    Eigenvectors of the centred Gram matrix. Directions in which this is negative (no flat space has such distances)
    count for nothing. Source: Torgerson (1952).
    """

    def coordinates(self, distances: Float[np.ndarray, "n n"], k: int) -> Float[np.ndarray, "n k"]:
        squares = distances**2
        gram = -(squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()) / 2
        values, vectors = np.linalg.eigh(gram)
        return (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :k]


class MetricScaling(AbstractEmbedding):
    """Coordinates with the least stress near those of `ClassicalScaling` (SMACOF, by scikit-learn): all distances are
    kept as well as ``k`` coordinates can, and large ones are not favoured.

    ``max_steps``: of its iterations.
    """

    max_steps: int = setting(300)

    def __check_init__(self):
        check_count("max_steps", self.max_steps)

    def coordinates(self, distances: Float[np.ndarray, "n n"], k: int) -> Float[np.ndarray, "n k"]:
        from sklearn.manifold import smacof

        first = ClassicalScaling().coordinates(distances, k)
        # A checker takes the types of its arguments from their defaults.
        settings: dict[str, Any] = {"init": first, "n_init": 1, "max_iter": self.max_steps, "normalized_stress": False}
        found = smacof(distances, n_components=k, **settings)
        return np.asarray(found[0])


class SpectralEmbedding(AbstractEmbedding):
    """Eigenvectors of the Laplacian of `affinity` (by scikit-learn): neighbours stay together, long distances are not
    kept.

    ``neighbors``, ``bandwidth``: as of `affinity`. Source: Belkin & Niyogi, Laplacian eigenmaps (2003).
    """

    neighbors: int = setting(7)
    bandwidth: float | None = setting(None)

    def __check_init__(self):
        check_count("neighbors", self.neighbors)

    def coordinates(self, distances: Float[np.ndarray, "n n"], k: int) -> Float[np.ndarray, "n k"]:
        from sklearn.manifold import spectral_embedding

        near = min(self.neighbors, len(distances) - 1)
        values = np.asarray(affinity(jnp.asarray(distances), neighbors=near, bandwidth=self.bandwidth), np.float64)
        # Underflow would take the matrix apart, and rounding make it unsymmetric.
        values = np.maximum((values + values.T) / 2, 1e-12)
        return np.asarray(spectral_embedding(values, n_components=k, random_state=0))


def embed(
    distances: Float[Array, "n n"] | np.ndarray, k: int = 2, *, method: AbstractEmbedding | None = None
) -> Embedding:
    """``k`` coordinates for points of which only ``distances`` ``(n, n)`` are known. On the host.

    **Arguments**: ``distances``, as of `pairwise_dist` or `graph_dist`, concrete; ``method``, `ClassicalScaling` (the
    default), `MetricScaling` or `SpectralEmbedding`.

    Raises ``ValueError`` for what is no matrix of distances (NaN of failed solves included; the message names pairs),
    or has no more than ``k`` points.

    >>> import jax.numpy as jnp
    >>> from scoregeo.statistics import embed
    >>> x = jnp.array([0.0, 1.0, 5.0])
    >>> found = embed(jnp.abs(x[:, None] - x), 1)
    >>> found.points[:, 0].round(4).tolist()
    [-2.0, -1.0, 3.0]
    """
    matrix = as_float(distances, "distances")
    if not is_concrete(matrix):
        raise TypeError("`distances` must be concrete: embed runs on the host, outside `jit`, `vmap` and `grad`")
    matrix = check_distances(matrix, least=2)
    k = check_fewer("k", k, matrix.shape[0])
    method = ClassicalScaling() if method is None else method
    if not isinstance(method, AbstractEmbedding):
        raise TypeError(f"`method` must be an embedding such as ClassicalScaling(), got {type(method).__name__}")
    values = np.asarray(matrix, np.float64)
    values = (values + values.T) / 2
    np.fill_diagonal(values, 0)
    points = np.asarray(method.coordinates(values, k), np.float64)
    points = points - points.mean(0)
    largest = points[np.abs(points).argmax(0), np.arange(k)]
    points = points * np.where(largest < 0, -1, 1)
    return Embedding(jnp.asarray(points, matrix.dtype), jnp.asarray(_stress(values, points), matrix.dtype))


def _stress(distances: np.ndarray, points: np.ndarray) -> float:
    """The relative root mean square of what distances of ``points``, times the best factor, miss."""
    squares = np.sum(points**2, 1)
    found = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
    np.fill_diagonal(found, 0)
    size, total = np.sum(found**2), np.sum(distances**2)
    if total == 0:
        return 0.0
    factor = np.sum(found * distances) / size if size > 0 else 0.0
    return float(np.sqrt(np.sum((factor * found - distances) ** 2) / total))
