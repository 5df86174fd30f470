"""Data sets: toy densities whose exact score is known, real handwritten digits, and numbers from files.

Every synthetic set carries its exact ``score`` (with a normalised ``log_prob``), so a learned score can be compared
with the truth. Curves (moons, rings, a spiral) are made so that this holds too: a point is drawn from equally spaced
places on the curve and moved by isotropic Gaussian noise, hence the data *are* a Gaussian mixture, exactly, and stay
one when a diffusion adds noise (``score.noised(alpha, sigma)``). The places are never further apart than the standard
deviation of the noise: along the curve the density ripples by a relative ``2 exp(-2 pi^2) < 1e-8`` (Poisson summation)
about that of the continuous curve, far below anything that a solver sees.

Real data are standardised. The `Standardization` travels with the data and the model, and is undone on output.
"""

import os
import pathlib
from collections.abc import Iterable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._checks import as_float, as_point, as_points, check_finite, is_concrete
from ._files import as_numbers, check_entries, read_points
from ._types import Point, Points, Scalar
from .scores import AbstractScore, DensityScore, GaussianMixtureScore

__all__ = [
    "Dataset",
    "Standardization",
    "banana",
    "checkerboard",
    "digits",
    "four_modes",
    "gaussian_mixture",
    "load",
    "rings",
    "spiral",
    "three_modes",
    "two_moons",
]

# Beyond this, a mixture along a curve costs more than it can be worth in a toy problem.
_MAX_PLACES = 10_000


class Standardization(eqx.Module):
    """The affine change of units ``z = (x - mean) / scale``, kept so that it can be undone.

    **Arguments**

    - ``mean``: ``(d,)``, in the units of the data.
    - ``scale``: positive, in the units of the data; ``()`` for one common scale, ``(d,)`` for one scale per column. One
      common scale only zooms: straight lines, angles and ratios of Euclidean distances stay what they were.

    Raises ``ValueError`` for another shape, or values that are not finite or a scale that is not positive.

    >>> import jax.numpy as jnp
    >>> from scoregeo.datasets import Standardization
    >>> units = Standardization(jnp.array([10.0, 0.0]), 2.0)
    >>> units.apply(jnp.array([12.0, 4.0])).tolist(), units.undo(jnp.array([1.0, 2.0])).tolist()
    ([1.0, 2.0], [12.0, 4.0])
    """

    mean: Float[Array, " d"]
    scale: Float[Array, ""] | Float[Array, " d"]

    def __init__(self, mean: Point, scale: Scalar | Point | float):
        self.mean = as_point(mean, "mean")
        self.scale = as_float(scale, "scale")
        if self.scale.shape not in ((), self.mean.shape):
            raise ValueError(f"`scale` must have shape () or {self.mean.shape} to match `mean`, got {self.scale.shape}")
        check_finite(self.scale, "scale")
        if is_concrete(self.scale) and not bool((self.scale > 0).all()):
            raise ValueError(f"`scale` must be positive, got a smallest value of {float(self.scale.min()):.3g}")

    @staticmethod
    def fit(x: Points, *, per_feature: bool = True) -> "Standardization":
        """The standardisation that gives the rows of ``x``, shape ``(n, d)``, mean zero and variance one.

        - ``per_feature=True``: every column has variance one, which is right for tables whose columns have different
          units. A constant column gets scale 1.
        - ``per_feature=False``: one common scale, which is right where all columns share a unit (pixels, coordinates);
          the variance is one on average over the columns.

        Raises ``ValueError`` for another shape, or entries that are not finite numbers. Runs on the host, not under
        ``jit``.
        """
        x = as_numbers(np.asarray(x), "`x`")
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"`x` must have shape (n, d) with n, d >= 1, got {x.shape}")
        check_entries(x, "`x`")
        return Standardization(*_moments(x, per_feature))

    def apply(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """From the units of the data to standardised coordinates; shape ``(..., d)`` in and out."""
        return (self._checked(x, "x") - self.mean) / self.scale

    def undo(self, z: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """From standardised coordinates back to the units of the data; shape ``(..., d)`` in and out."""
        return self._checked(z, "z") * self.scale + self.mean

    def _checked(self, x: Array, name: str) -> Array:
        x = as_float(x, name)
        if x.ndim == 0 or x.shape[-1] != self.mean.size:
            raise ValueError(f"`{name}` must have shape (..., {self.mean.size}), got {x.shape}")
        return x


class Dataset(eqx.Module):
    """Points, with what is known about them.

    **Fields**

    - ``points``: ``(n, d)``; in standardised coordinates where ``standardization`` is not ``None``.
    - ``name``: what to call it in a title or a file name.
    - ``labels``: ``(n,)`` integers (class, mixture component, which curve), or ``None``.
    - ``score``: the exact score of the density that the points were drawn from, with ``log_prob`` (normalised), in the
      coordinates of ``points``; ``None`` where nobody knows it (real data).
    - ``standardization``: the change of units that was applied, or ``None``.
    - ``image_shape``: ``(height, width)`` or ``(height, width, channels)`` where a point is a flattened image, or
      ``None``.

    Raises ``ValueError`` naming the field if their shapes do not agree.
    """

    points: Points
    name: str = eqx.field(static=True)
    labels: Int[Array, " n"] | None
    score: AbstractScore | None
    standardization: Standardization | None
    image_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        points: Points,
        name: str,
        *,
        labels: Int[Array, " n"] | None = None,
        score: AbstractScore | None = None,
        standardization: Standardization | None = None,
        image_shape: Sequence[int] | None = None,
    ):
        self.points = as_points(points, "points")
        n, d = self.points.shape
        self.name = name
        self.labels = None if labels is None else jnp.asarray(labels)
        self.score = score
        self.standardization = standardization
        self.image_shape = None if image_shape is None else tuple(int(side) for side in image_shape)
        if self.labels is not None and self.labels.shape != (n,):
            raise ValueError(f"`labels` must have shape ({n},) to match `points`, got {self.labels.shape}")
        if standardization is not None and standardization.mean.shape != (d,):
            got = standardization.mean.size
            raise ValueError(f"`standardization` must have dimension {d} to match `points`, got {got}")
        if self.image_shape is not None and np.prod(self.image_shape) != d:
            raise ValueError(f"`image_shape` must have {d} pixels to match `points`, got {self.image_shape}")

    def undo(self, z: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Points (``self.points``, samples, a geodesic) back in the units of the data; ``(..., d)`` in and out."""
        return as_float(z, "z") if self.standardization is None else self.standardization.undo(z)


def gaussian_mixture(
    key: PRNGKeyArray,
    n: int,
    weights: Float[Array, " k"],
    means: Float[Array, "k d"],
    covs: Float[Array, "k d d"],
    *,
    name: str = "gaussian_mixture",
) -> Dataset:
    """``n`` draws from ``sum_k weights_k N(means_k, covs_k)``; ``labels`` are the components, ``score`` is exact.

    Arguments as for `GaussianMixtureScore`, which says what it refuses.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.datasets import gaussian_mixture
    >>> data = gaussian_mixture(jax.random.key(0), 100, jnp.ones(1), jnp.zeros((1, 3)), jnp.eye(3)[None])
    >>> data.points.shape, round(data.score.log_prob(jnp.zeros(3)).item(), 3)
    ((100, 3), -2.757)
    """
    score = GaussianMixtureScore(weights, means, covs)
    components, noise = _draw_components(key, _count(n), score)
    lower = jnp.linalg.cholesky(as_float(covs, "covs"))
    points = score.means[components] + jnp.einsum("nij,nj->ni", lower[components], noise)
    return Dataset(points, name, labels=components, score=score)


def three_modes(key: PRNGKeyArray, n: int) -> Dataset:
    """The reference problem of the boundary solvers: equal modes at (-1.5, 0), (1.5, 0), (0, 1.5), covariance I / 4.

    With the Stein metric of strength 1, the geodesic from (-1.5, 0.2) to (1.4, -0.3) has length 5.0550, and there is a
    second, longer local geodesic.
    """
    means = jnp.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])
    covs = jnp.tile(0.25 * jnp.eye(2), (3, 1, 1))
    return gaussian_mixture(key, n, jnp.full(3, 1 / 3), means, covs, name="three_modes")


def four_modes(key: PRNGKeyArray, n: int) -> Dataset:
    """The oracle of training: four elongated modes, turned four ways, of unequal weight, with mean 0 and variance 1.

    The standard deviations of a mode are 0.4 and 0.2: noise levels from 0.1 to 0.5 resolve, blur and merge the modes.
    """
    angles = jnp.pi * jnp.array([0.25, -0.25, 0.0, 0.5])
    axes = jnp.stack([jnp.cos(angles), jnp.sin(angles), -jnp.sin(angles), jnp.cos(angles)], -1).reshape(4, 2, 2)
    covs = jnp.einsum("kai,a,kaj->kij", axes, jnp.array([0.16, 0.04]), axes)
    weights = jnp.array([0.3, 0.2, 0.2, 0.3])
    # Opposite modes have equal weights, so the mean is zero; the distances make the variances 1 to within 0.01.
    means = jnp.array([[-0.85, -0.85], [-1.08, 1.08], [1.08, -1.08], [0.85, 0.85]])
    return gaussian_mixture(key, n, weights, means, covs, name="four_modes")


def two_moons(key: PRNGKeyArray, n: int, noise: float = 0.1) -> Dataset:
    """Two interleaved half circles of radius 1 about the origin, with Gaussian noise of standard deviation ``noise``.

    ``labels`` say which moon; ``score`` is exact at every noise level (see the module's page). Raises ``ValueError``
    for an ``n`` or ``noise`` that is not positive.
    """
    angle = np.linspace(0, np.pi, _places(np.pi, noise) + 1)
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], -1)
    return _around_curves(key, n, [upper, -upper], noise, "two_moons")


def rings(key: PRNGKeyArray, n: int, noise: float = 0.1, *, radii: Sequence[float] = (0.75, 1.5)) -> Dataset:
    """Concentric circles of the given ``radii``, equally likely, with Gaussian noise of standard deviation ``noise``.

    ``labels`` say which circle; ``score`` is exact at every noise level (see the module's page). Raises ``ValueError``
    for an ``n``, ``noise`` or radius that is not positive.
    """
    radii = np.atleast_1d(np.asarray(radii, float))
    if radii.ndim != 1 or radii.size == 0 or not np.all(np.isfinite(radii) & (radii > 0)):
        raise ValueError(f"`radii` must be one or more positive numbers, got {radii.tolist()}")
    curves = []
    for radius in radii:
        angle = np.linspace(0, 2 * np.pi, max(8, _places(2 * np.pi * radius, noise)), endpoint=False)
        curves.append(radius * np.stack([np.cos(angle), np.sin(angle)], -1))
    return _around_curves(key, n, curves, noise, "rings")


def spiral(key: PRNGKeyArray, n: int, noise: float = 0.08, *, turns: float = 1.5) -> Dataset:
    """An Archimedean spiral from the origin out to radius 2, uniform in arc length, with Gaussian noise.

    **Arguments**

    - ``noise``: standard deviation of the noise. Neighbouring arms are ``2 / turns`` apart.
    - ``turns``: how often it winds around the origin.

    ``score`` is exact at every noise level (see the module's page). Raises ``ValueError`` for an ``n``, ``noise`` or
    ``turns`` that is not positive.
    """
    if not (np.isfinite(turns) and turns > 0):
        raise ValueError(f"`turns` must be a positive number, got {turns!r}")
    last = 2 * np.pi * turns
    # Arc length of r = angle, in closed form; inverted by interpolation on a grid much finer than the places.
    fine = np.linspace(0, last, 20_001)
    arc = (fine * np.sqrt(1 + fine**2) + np.arcsinh(fine)) / 2
    places = _places(arc[-1] * 2 / last, noise) + 1
    angle = np.interp(np.linspace(0, arc[-1], places), arc, fine)
    curve = (2 * angle / last)[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    return _around_curves(key, n, [curve], noise, "spiral")


def checkerboard(key: PRNGKeyArray, n: int, noise: float = 0.05, *, cells: int = 4) -> Dataset:
    """Uniform on the dark unit squares of a ``cells`` x ``cells`` board around the origin, with Gaussian noise.

    The uniform density itself has a score of zero almost everywhere and none on the edges; with noise of standard
    deviation ``noise`` the density is a closed form (differences of normal distribution functions), smooth, and
    positive everywhere, and so ``score`` is exact. ``labels`` number the squares. Raises ``ValueError`` for an ``n`` or
    ``noise`` that is not positive, or fewer than 2 ``cells``.
    """
    n, noise = _count(n), _positive(noise, "noise")
    if _count(cells, "cells") < 2:
        raise ValueError(f"`cells` must be at least 2, got {cells!r}")
    corners = jnp.array([[i, j] for i in range(cells) for j in range(cells) if (i + j) % 2 == 0]) - cells / 2
    which, inside, blur = jax.random.split(key, 3)
    labels = jax.random.randint(which, (n,), 0, len(corners))
    points = corners[labels] + jax.random.uniform(inside, (n, 2)) + noise * jax.random.normal(blur, (n, 2))
    return Dataset(points, "checkerboard", labels=labels, score=DensityScore(_checkerboard_log_prob, corners, noise))


def banana(key: PRNGKeyArray, n: int, *, curvature: float = 0.5, scales: Sequence[float] = (1.0, 0.3)) -> Dataset:
    """A bent Gaussian: ``x1 = scales_1 z1``, ``x2 = scales_2 z2 + curvature (x1^2 - scales_1^2)``, ``z ~ N(0, I)``.

    The map has a constant Jacobian determinant, so the density and ``score`` are exact. The mean is zero. Raises
    ``ValueError`` for an ``n`` or scale that is not positive. Source: Haario, Saksman & Tamminen 1999.
    """
    n, scales = _count(n), np.asarray(scales, float)
    if scales.shape != (2,) or not np.all(np.isfinite(scales) & (scales > 0)):
        raise ValueError(f"`scales` must be two positive numbers, got {scales.tolist()}")
    if not np.isfinite(curvature):
        raise ValueError(f"`curvature` must be a finite number, got {curvature!r}")
    first, second = (jax.random.normal(key, (n, 2)) * jnp.asarray(scales)).T
    points = jnp.stack([first, second + curvature * (first**2 - scales[0] ** 2)], -1)
    return Dataset(points, "banana", score=DensityScore(_banana_log_prob, curvature, scales))


def digits(classes: Iterable[int] | None = None) -> Dataset:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn: real images, no download.

    **Arguments**

    - ``classes``: which digits to keep, e.g. ``(3, 8)``; all by default.

    Pixels of 0 (background) to 16 are mapped by one and the same affine function, so points are rescaled images and
    Euclidean geometry is unchanged up to a factor. It is that of all digits, whichever are kept: mean 0 and standard
    deviation 1 over all pixels of all images. Raises ``ValueError`` for a class that is not a digit. Source: Alpaydin &
    Kaynak, UCI Machine Learning Repository, 1998.

    >>> from scoregeo.datasets import digits
    >>> data = digits(classes=[0, 1])
    >>> data.points.shape, data.image_shape, round(data.undo(data.points).max().item(), 3)
    ((360, 64), (8, 8), 16.0)
    """
    wanted = list(range(10) if classes is None else classes)
    if not wanted or not all(c in range(10) for c in wanted):
        raise ValueError(f"`classes` must be one or more digits from 0 to 9, got {wanted!r}")
    from sklearn.datasets import load_digits

    raw, labels = load_digits(return_X_y=True)
    mean, scale = _moments_of_pixels(raw)
    points, keep = (raw - mean) / scale, np.isin(labels, wanted)
    units = Standardization(mean, scale)
    return Dataset(points[keep], "digits", labels=labels[keep], standardization=units, image_shape=(8, 8))


def load(
    path: str | os.PathLike,
    *,
    key: str | None = None,
    columns: Sequence[str | int] | None = None,
    per_feature: bool | None = None,
) -> Dataset:
    """Numbers from a ``.npy``, ``.npz``, ``.csv`` or ``.parquet`` file, standardised.

    **Arguments**

    - ``path``: the file. An array is ``(n, d)``, or an image stack ``(n, height, width)`` or ``(n, height, width,
      channels)``, which is flattened and keeps its ``image_shape``. A table has one point per row; a ``.csv`` file may
      lack a header, and then its columns are called 0, 1, ...
    - ``key``: which array of an ``.npz`` file; not needed if it has only one.
    - ``columns``: which columns of a table, in this order; all by default.
    - ``per_feature``: ``True`` for a scale per column, ``False`` for one common scale (see `Standardization.fit`). By
      default, a scale per column for tables and ``(n, d)`` arrays, and one common mean and scale for image stacks.

    **Raises** ``FileNotFoundError``, ``IsADirectoryError`` or ``PermissionError`` for a path that is no readable file;
    ``ValueError`` for a file that is not what its extension says, or is empty, or holds anything but finite real
    numbers (columns that are not numeric are named, the first bad entry is located; rows count from 0), or for a
    ``key`` or ``columns`` that it does not have; ``ImportError`` for ``.parquet`` without pyarrow (``pip install
    scoregeo[data]``).

    Nothing is unpickled, so a file cannot run code.
    """
    points, image_shape = read_points(path, key=key, columns=columns)
    return standardized(points, pathlib.Path(path).stem, image_shape, per_feature)


def standardized(
    points: np.ndarray, name: str, image_shape: tuple[int, ...] | None, per_feature: bool | None = None
) -> Dataset:
    """The data set of ``points`` ``(n, d)`` in the units of a file; arguments as `load` describes them."""
    common = image_shape is not None and per_feature is None
    mean, scale = _moments_of_pixels(points) if common else _moments(points, per_feature is not False)
    # In float64 on the host, so that a large offset does not eat the digits of float32.
    points = (points - mean) / scale
    return Dataset(points, name, standardization=Standardization(mean, scale), image_shape=image_shape)


# Synthetic sets.


def _count(n: int, name: str = "n") -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {n!r}")
    return int(n)


def _positive(value: float, name: str) -> float:
    value = float(value)
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be a positive number, got {value!r}")
    return value


def _places(length: float, noise: float) -> int:
    """How many steps along a curve of this length keep the spacing at or below the noise."""
    places = int(np.ceil(length / _positive(noise, "noise")))
    if places > _MAX_PLACES:
        raise ValueError(f"`noise` must be at least {length / _MAX_PLACES:.2g} for an exact mixture, got {noise!r}")
    return places


def _draw_components(key: PRNGKeyArray, n: int, score: GaussianMixtureScore) -> tuple[Array, Array]:
    which, blur = jax.random.split(key)
    components = jax.random.categorical(which, score.log_weights, shape=(n,))
    return components, jax.random.normal(blur, (n, score.means.shape[1]), score.means.dtype)


def _around_curves(key: PRNGKeyArray, n: int, curves: list[np.ndarray], noise: float, name: str) -> Dataset:
    """Points around equally likely curves, each given by places (k, 2): a mixture of equal isotropic Gaussians."""
    weights = np.concatenate([np.full(len(curve), 1 / (len(curves) * len(curve))) for curve in curves])
    owner = jnp.asarray(np.repeat(np.arange(len(curves)), [len(curve) for curve in curves]))
    means = np.concatenate(curves)
    score = GaussianMixtureScore(weights, means, np.tile(noise**2 * np.eye(2), (len(means), 1, 1)))
    components, blur = _draw_components(key, _count(n), score)
    return Dataset(score.means[components] + noise * blur, name, labels=owner[components], score=score)


def _log_normal_interval(low: Array, high: Array) -> Array:
    """log(Phi(high) - Phi(low)) for low < high, accurate in both tails."""
    # In the upper tail both values are near 1 and cancel: mirror them into the lower tail.
    mirror = low > 0
    low, high = jnp.where(mirror, -high, low), jnp.where(mirror, -low, high)
    log_high = jax.scipy.special.log_ndtr(high)
    return log_high + jnp.log1p(-jnp.exp(jax.scipy.special.log_ndtr(low) - log_high))


def _checkerboard_log_prob(x: Point, corners: Float[Array, "k 2"], noise: Scalar) -> Scalar:
    low = (corners - x) / noise
    squares = jnp.sum(_log_normal_interval(low, low + 1 / noise), -1)
    return jax.nn.logsumexp(squares) - jnp.log(len(corners))


def _banana_log_prob(x: Point, curvature: Scalar, scales: Float[Array, " 2"]) -> Scalar:
    straight = jnp.stack([x[0], x[1] - curvature * (x[0] ** 2 - scales[0] ** 2)])
    return -0.5 * jnp.sum((straight / scales) ** 2) - jnp.sum(jnp.log(scales)) - jnp.log(2 * jnp.pi)


# Means and scales.


def _moments(x: np.ndarray, per_feature: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each column, and standard deviation of each column or their root mean square."""
    mean, variance = x.mean(0), x.var(0)
    # Compared exactly: the computed variance of a constant column is rounding noise, not zero.
    constant = x.max(0) == x.min(0)
    if per_feature:
        return mean, np.where(constant, 1.0, np.sqrt(variance))
    return mean, np.asarray(1.0 if constant.all() else np.sqrt(variance.mean()))


def _moments_of_pixels(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One mean and one standard deviation for all entries, so that an image stays the same image in other units."""
    scale = 1.0 if x.max() == x.min() else x.std()
    return np.full(x.shape[1], x.mean()), np.asarray(scale)
