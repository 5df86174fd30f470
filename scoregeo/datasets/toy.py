"""Toy densities whose score is known exactly; `scoregeo.datasets` says why it is exact."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_float, check_count
from .._types import Point, Scalar
from ..scores import DensityScore, GaussianMixtureScore
from .base import Dataset

# Beyond this, a mixture along a curve costs more than it can be worth in a toy problem.
_MAX_PLACES = 10_000


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
    components, noise = _draw_components(key, check_count("n", n), score)
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

    ``labels`` say which moon; ``score`` is exact at every noise level (see `scoregeo.datasets`). Raises ``ValueError``
    for an ``n`` or ``noise`` that is not positive.
    """
    angle = np.linspace(0, np.pi, _places(np.pi, noise) + 1)
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], -1)
    return _around_curves(key, n, [upper, -upper], noise, "two_moons")


def rings(
    key: PRNGKeyArray, n: int, noise: float = 0.1, *, radii: Sequence[float] | np.ndarray = (0.75, 1.5)
) -> Dataset:
    """Concentric circles of the given ``radii``, equally likely, with Gaussian noise of standard deviation ``noise``.

    ``labels`` say which circle; ``score`` is exact at every noise level (see `scoregeo.datasets`). Raises
    ``ValueError`` for an ``n``, ``noise`` or radius that is not positive.
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

    ``score`` is exact at every noise level (see `scoregeo.datasets`). Raises ``ValueError`` for an ``n``, ``noise`` or
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
    n, noise = check_count("n", n), _positive(noise, "noise")
    if check_count("cells", cells) < 2:
        raise ValueError(f"`cells` must be at least 2, got {cells!r}")
    corners = jnp.array([[i, j] for i in range(cells) for j in range(cells) if (i + j) % 2 == 0]) - cells / 2
    which, inside, blur = jax.random.split(key, 3)
    labels = jax.random.randint(which, (n,), 0, len(corners))
    points = corners[labels] + jax.random.uniform(inside, (n, 2)) + noise * jax.random.normal(blur, (n, 2))
    return Dataset(points, "checkerboard", labels=labels, score=DensityScore(_checkerboard_log_prob, corners, noise))


def banana(
    key: PRNGKeyArray, n: int, *, curvature: float = 0.5, scales: Sequence[float] | np.ndarray = (1.0, 0.3)
) -> Dataset:
    """A bent Gaussian: ``x1 = scales_1 z1``, ``x2 = scales_2 z2 + curvature (x1^2 - scales_1^2)``, ``z ~ N(0, I)``.

    The map has a constant Jacobian determinant, so the density and ``score`` are exact. The mean is zero. Raises
    ``ValueError`` for an ``n`` or scale that is not positive. Source: Haario, Saksman & Tamminen 1999.
    """
    n, scales = check_count("n", n), np.asarray(scales, float)
    if scales.shape != (2,) or not np.all(np.isfinite(scales) & (scales > 0)):
        raise ValueError(f"`scales` must be two positive numbers, got {scales.tolist()}")
    if not np.isfinite(curvature):
        raise ValueError(f"`curvature` must be a finite number, got {curvature!r}")
    first, second = (jax.random.normal(key, (n, 2)) * jnp.asarray(scales)).T
    points = jnp.stack([first, second + curvature * (first**2 - scales[0] ** 2)], -1)
    return Dataset(points, "banana", score=DensityScore(_banana_log_prob, curvature, scales))


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


def _around_curves(key: PRNGKeyArray, n: Any, curves: list[np.ndarray], noise: float, name: str) -> Dataset:
    """Points around equally likely curves, each given by places (k, 2): a mixture of equal isotropic Gaussians."""
    weights = np.concatenate([np.full(len(curve), 1 / (len(curves) * len(curve))) for curve in curves])
    owner = jnp.asarray(np.repeat(np.arange(len(curves)), [len(curve) for curve in curves]))
    means = np.concatenate(curves)
    score = GaussianMixtureScore(weights, means, np.tile(noise**2 * np.eye(2), (len(means), 1, 1)))
    components, blur = _draw_components(key, check_count("n", n), score)
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
