"""Diagonal metrics from data alone, without a score: small where data are, large where none are.

    G(x) = diag( 1 / (h(x) + floor) )                                                                      (1)

    LAND:   h_i = sum_n exp(-|x - x_n|^2 / (2 bandwidth^2)) (x_n,i - x_i)^2                                (2)
    RBF:    h_i = sum_k W_ik exp(-g_k |x - c_k|^2)                                                         (3)

Sources: Arvanitidis, Hansen & Hauberg 2016 (LAND); Arvanitidis et al. 2018, Kapusniak et al. 2024 (RBF).
"""

import abc
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .._checks import as_float, as_points, check_count, check_finite, is_concrete
from .._types import Point, Points, Scalar, Vector
from .base import AbstractMetric
from .calibration import check_ratio, contrast, saturating
from .inner_products import DiagonalInnerProduct
from .structure import lifted

# Where all kernels are below exp(-_REACH), the data say nothing: 8 bandwidths away.
_REACH = 32.0


def _positive(value: Any, name: str, dtype: Any) -> Array:
    """``value`` as a positive finite scalar; one that is traced becomes NaN where it is not positive."""
    array = as_float(value, name).astype(dtype)
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be a scalar, got shape {array.shape}")
    check_finite(array, name)
    if is_concrete(array) and not float(array) > 0:
        raise ValueError(f"`{name}` must be positive, got {float(array)}")
    return jnp.where(array > 0, array, jnp.nan)


class AbstractDataMetric(AbstractMetric):
    """A metric (1): diagonal, and defined where data are near."""

    floor: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def extent(self, x: Point) -> Vector:
        """``h(x)`` of equation (1), non-negative, shape ``(d,)``."""

    @abc.abstractmethod
    def log_kernels(self, x: Point) -> Float[Array, " n"]:
        """The logarithms of the kernels at ``x``; all of them far below zero where no data are near."""

    def at(self, x: Point) -> DiagonalInnerProduct:
        """The inner product at ``x``; the floor keeps it finite."""
        return DiagonalInnerProduct(1 / (self.extent(x) + self.floor.astype(x.dtype)))

    def domain(self, x: Point) -> Scalar:
        """Positive within 8 bandwidths of the data, as far as they say anything."""
        return jnp.max(self.log_kernels(x)) + _REACH

    def check(self, x: Point) -> None:
        """Raise ``ValueError`` where no data are near ``x``."""
        if is_concrete(x):
            nearest = self.log_kernels(x)
            if is_concrete(nearest) and float(jnp.max(nearest)) < -_REACH:
                away = float(jnp.sqrt(-2 * jnp.max(nearest)))
                raise ValueError(
                    f"`metric` has no data near x = {np.asarray(x)}: the nearest are {away:.3g} bandwidths away, and "
                    "beyond 8 its kernels say nothing. Give a larger `bandwidth`, or points among the data"
                )


def _low(metric: AbstractDataMetric, x: Point) -> Scalar:
    return -jnp.min(metric.extent(x))


def _high(metric: AbstractDataMetric, x: Point) -> Scalar:
    return jnp.max(metric.extent(x))


def _floor(metric: Any, data: Points, ratio: Any, key: PRNGKeyArray | None, pairs: int) -> Scalar:
    """The floor with which ``metric`` costs ``ratio`` times as much off the data as on them."""
    ratio, places = check_ratio(ratio), contrast(data, key, pairs)
    if is_concrete(ratio) and not float(ratio) > 1:
        raise ValueError(f"`ratio` must be above 1, got {float(ratio)}: no finite `floor` makes the metric constant")
    name = "h"
    on = places.median_on(jax.tree_util.Partial(_high, metric), name)
    off = -places.high_off(jax.tree_util.Partial(_low, metric), name)
    # (on + floor) / (off + floor) = ratio is (1 + c on) / (1 + c off) = ratio for the floor 1 / c.
    return 1 / saturating(off, on, ratio, name, places=("off the data", "on the data")).strength


class LandMetric(AbstractDataMetric):
    """The locally adaptive metric (2): along each axis the inverse of the local second moment of the data.

    **Arguments**

    - ``data``: ``(n, d)``.
    - ``bandwidth``: of the Gaussian kernel, positive scalar, traced; above the distance of nearest neighbours.
    - ``floor``: positive scalar, traced: 1 / floor is what G is where no data are near. See `fit`.

    One evaluation costs O(n d). Points further than 8 bandwidths from all data are outside the domain; end points there
    are refused with a ``ValueError``.

    >>> import jax
    >>> from scoregeo import LandMetric, datasets
    >>> moons = datasets.two_moons(jax.random.key(0), 100)
    >>> metric = LandMetric(moons.points, bandwidth=0.3, floor=1e-2)
    """

    data: Float[Array, "n d"]
    bandwidth: Float[Array, ""]
    floor: Float[Array, ""]

    def __init__(self, data: Points, bandwidth: ArrayLike, floor: ArrayLike = 1e-2):
        self.data = as_points(data, "data")
        self.bandwidth = _positive(bandwidth, "bandwidth", self.data.dtype)
        self.floor = _positive(floor, "floor", self.data.dtype)

    def _differences(self, x: Point) -> Points:
        if x.shape != self.data.shape[1:]:
            raise ValueError(f"`x` must have shape {self.data.shape[1:]} to match `data`, got {x.shape}")
        return self.data.astype(x.dtype) - x

    def _log_kernels(self, differences: Points) -> Float[Array, " n"]:
        return -0.5 * jnp.sum(differences**2, -1) / self.bandwidth.astype(differences.dtype) ** 2

    def log_kernels(self, x: Point) -> Float[Array, " n"]:
        """Of every point of the data."""
        return self._log_kernels(self._differences(x))

    def extent(self, x: Point) -> Vector:
        """Equation (2)."""
        differences = self._differences(x)
        return jnp.exp(self._log_kernels(differences)) @ differences**2

    @classmethod
    def fit(
        cls,
        data: Points,
        bandwidth: ArrayLike,
        ratio: float | Scalar = 10.0,
        *,
        key: PRNGKeyArray | None = None,
        pairs: int = 64,
    ) -> "LandMetric":
        """With the floor that makes the metric cost ``ratio`` times as much off the data as on them; arguments,
        warnings and errors as for `recommend_strength`, and ``ValueError`` for a ratio of 1."""
        metric = cls(data, bandwidth, 1.0)
        return cls(data, bandwidth, _floor(metric, metric.data, ratio, key, pairs))


class RbfMetric(AbstractDataMetric):
    """The metric (3) of a few radial basis functions, whose cost does not grow with the data; usually made by `fit`.

    **Arguments**

    - ``centers``: ``(k, d)``.
    - ``bandwidths``: ``(k,)``, positive; ``g = 1 / (2 bandwidth^2)``.
    - ``weights``: ``(d, k)``, non-negative.
    - ``floor``: positive scalar, traced: 1 / floor is what G is where no data are near.

    Points further than 8 bandwidths from all centres are outside the domain; end points there are refused with a
    ``ValueError``.
    """

    centers: Float[Array, "k d"]
    bandwidths: Float[Array, " k"]
    weights: Float[Array, "d k"]
    floor: Float[Array, ""]

    def __init__(self, centers: Points, bandwidths: ArrayLike, weights: ArrayLike, floor: ArrayLike = 1e-2):
        self.centers = as_points(centers, "centers")
        k, d = self.centers.shape
        self.bandwidths = as_float(bandwidths, "bandwidths").astype(self.centers.dtype)
        self.weights = as_float(weights, "weights").astype(self.centers.dtype)
        for name, value, shape in (("bandwidths", self.bandwidths, (k,)), ("weights", self.weights, (d, k))):
            if value.shape != shape:
                raise ValueError(f"`{name}` must have shape {shape} to match `centers`, got {value.shape}")
            check_finite(value, name)
        if is_concrete(self.bandwidths) and not float(jnp.min(self.bandwidths)) > 0:
            raise ValueError(f"`bandwidths` must be positive, got a smallest one of {float(jnp.min(self.bandwidths))}")
        if is_concrete(self.weights) and float(jnp.min(self.weights)) < 0:
            raise ValueError(f"`weights` must be non-negative, got a smallest one of {float(jnp.min(self.weights))}")
        self.floor = _positive(floor, "floor", self.centers.dtype)

    def log_kernels(self, x: Point) -> Float[Array, " k"]:
        """Of every centre."""
        if x.shape != self.centers.shape[1:]:
            raise ValueError(f"`x` must have shape {self.centers.shape[1:]} to match `centers`, got {x.shape}")
        squared = jnp.sum((self.centers.astype(x.dtype) - x) ** 2, -1)
        return -0.5 * squared / self.bandwidths.astype(x.dtype) ** 2

    def extent(self, x: Point) -> Vector:
        """Equation (3)."""
        return self.weights.astype(x.dtype) @ jnp.exp(self.log_kernels(x))

    @classmethod
    def fit(
        cls,
        data: Points,
        n_centers: int = 50,
        ratio: float | Scalar = 10.0,
        *,
        spread: float = 1.0,
        key: PRNGKeyArray | None = None,
        pairs: int = 64,
    ) -> "RbfMetric":
        """Centres by k-means, bandwidths by the size of the clusters, weights so that h is about one on the data.

        **Arguments**

        - ``data``: ``(n, d)`` with at least ``n_centers`` distinct points, concrete.
        - ``n_centers``: the number k of basis functions.
        - ``ratio``: as for `recommend_strength`, above 1; sets the floor.
        - ``spread``: bandwidths are this times the mean distance of a cluster's points from its centre (for a cluster
          of one point, the mean over clusters).
        - ``key``, ``pairs``: as for `recommend_strength`; ``key`` decides the start of k-means too.

        The weights are the same for all axes: non-negative least squares for ``h = 1`` at the data, computed in float64
        on the host. Raises ``ValueError`` for clusters that all have size zero. Source: Kapusniak et al. 2024.

        >>> import jax
        >>> from scoregeo import RbfMetric, datasets
        >>> moons = datasets.two_moons(jax.random.key(0), 100)
        >>> metric = RbfMetric.fit(moons.points, n_centers=20)
        """
        from scipy.optimize import nnls
        from sklearn.cluster import KMeans

        data = as_points(data, "data")
        k = check_count("n_centers", n_centers)
        points = np.asarray(data, np.float64)
        distinct = len(np.unique(points, axis=0))
        if distinct < k:
            raise ValueError(f"`data` must have at least n_centers={k} distinct points, got {distinct}")
        if not (np.isfinite(spread) and spread > 0):
            raise ValueError(f"`spread` must be positive and finite, got {spread!r}")
        seed = int(jax.random.bits(jax.random.key(0) if key is None else key, dtype=jnp.uint32))
        clusters = KMeans(k, random_state=seed).fit(points)
        labels = np.asarray(clusters.labels_)
        distances = np.linalg.norm(points - clusters.cluster_centers_[labels], axis=1)
        sizes = np.bincount(labels, distances, minlength=k) / np.bincount(labels, minlength=k)
        if not (sizes > 0).any():
            raise ValueError(
                f"`data` must have clusters of more than one point to have bandwidths, got {distinct} distinct points "
                f"for n_centers={k}"
            )
        bandwidths = spread * np.where(sizes > 0, sizes, sizes[sizes > 0].mean())
        squared = ((points[:, None] - clusters.cluster_centers_) ** 2).sum(-1)
        weights, _ = nnls(np.exp(-0.5 * squared / bandwidths**2), np.ones(len(points)))
        build = partial(
            cls,
            jnp.asarray(clusters.cluster_centers_, data.dtype),
            jnp.asarray(bandwidths, data.dtype),
            jnp.asarray(np.tile(weights, (points.shape[1], 1)), data.dtype),
        )
        return build(_floor(build(1.0), data, ratio, key, pairs))


@lifted.register
def _(metric: LandMetric, x: Point) -> Float[Array, " m"]:
    # One point adds at most max_r r^2 exp(-r^2 / (2 bandwidth^2)) = 2 bandwidth^2 / e to h.
    most = 2 * len(metric.data) * metric.bandwidth**2 / np.e
    return x / jnp.sqrt(most + metric.floor).astype(x.dtype)


@lifted.register
def _(metric: RbfMetric, x: Point) -> Float[Array, " m"]:
    return x / jnp.sqrt(jnp.sum(metric.weights, 1) + metric.floor).astype(x.dtype)
