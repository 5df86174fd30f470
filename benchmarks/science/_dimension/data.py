"""Data whose dimension is known, and digits, with scores at every noise level: of their density, of their points, and
learned.

All but the digits are a manifold with a little Gaussian noise of its own, of standard deviation tau, in every
coordinate; ``score_at(sigma)`` of the density is exact: that of the manifold with noise of ``hypot(tau, sigma)``.

    spheres in R^D:    log p(x) = log of the integral of exp(R <y, u> / sigma^2) over unit vectors u of R^(k + 1)
                       - (|y|^2 + R^2 + |z|^2) / (2 sigma^2), with y the first k + 1 coordinates and z the others
    subspaces:         a Gaussian
    Swiss roll:        `_shapes.swiss_roll`
    lollipop, letters: a sum of Gaussians at places on it that are nearer to each other than tau
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _shapes import SHAPES

from scoregeo import DensityScore, GaussianScore, KernelDensityScore
from scoregeo.datasets import digits, rotated_letters

SEED = 0
SIZES = {"train": 2000, "tuning": 40, "reported": 100}
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


class Sample(NamedTuple):
    """Points ``(n, d)`` with the dimension there, or NaN, and the name of the part that they are of."""

    points: np.ndarray
    dimensions: np.ndarray
    parts: np.ndarray


class Data:
    """A set: ``exact(sigma)``, the score of the density or ``None``; levels to look at; and points.

    ``train`` are what scores are learned from, ``tuning`` and ``reported`` are others; `neighbours` has all of them.
    """

    def __init__(self, name: str, levels: np.ndarray, exact: Callable | None, draw: Callable, width: int = 256):
        self.name, self.levels, self.exact, self._draw, self._width = name, levels, exact, draw, width
        self._learned: dict[tuple[str, int], Any] = {}

    @cached_property
    def _all(self) -> Sample:
        return self._draw(np.random.default_rng(SEED), sum(SIZES.values()))

    def _some(self, first: int, count: int | None) -> Sample:
        return Sample(*(array[first : None if count is None else first + count] for array in self._all))

    @property
    def tuning(self) -> Sample:
        """Points that settings are chosen on."""
        return self._some(0, SIZES["tuning"])

    @property
    def reported(self) -> Sample:
        """Others."""
        return self._some(SIZES["tuning"], SIZES["reported"])

    @property
    def train(self) -> np.ndarray:
        """The rest."""
        return self._some(SIZES["tuning"] + SIZES["reported"], None).points

    @property
    def everything(self) -> np.ndarray:
        """All points, first those of ``tuning``, then those of ``reported``."""
        return self._all.points

    def score_at(self, kind: str, steps: int, seed: int = SEED) -> Callable:
        """A score by its noise level: ``exact``, ``kernel`` (of the training points), or learned by a ``network`` or by
        a ``potential``, whose score is a gradient field."""
        if kind == "exact":
            assert self.exact is not None
            return self.exact
        if kind == "kernel":
            points = jnp.asarray(self.train)
            return lambda sigma: KernelDensityScore(points, sigma)
        from scoregeo.diffusion import FitConfig, fit

        if (kind, seed) not in self._learned:
            shape: dict[str, Any] = {"width": self._width, "depth": 3, "potential": kind == "potential"}
            config = FitConfig(steps=steps, batch_size=256, seed=seed, **shape)
            self._learned[kind, seed] = fit(jnp.asarray(self.train, jnp.float32), config)
        return self._learned[kind, seed].score_at


# --- Spheres and subspaces --------------------------------------------------------------------------------------------


def _sphere_log_prob(x, centre, radius, sigma):
    """With t = 1 - u / kappa for the cosine: an integral of exp(-u) (u (2 - u / kappa))^(k/2 - 1), by Gauss's rule."""
    k, y, z = centre.size - 1, x[: centre.size] - centre, x[centre.size :]
    length = jnp.sqrt(jnp.sum(y**2) + 1e-30)
    kappa = length * radius / sigma**2
    # Beyond, nothing is left of the integrand, whose mean is about k / 2.
    last = jnp.minimum(2 * kappa, k / 2 + 14 * np.sqrt(k / 2) + 40)
    u = last * (_NODES + 1) / 2
    logs = -u + (k / 2 - 1) * (jnp.log(u) + jnp.log(2 - u / kappa)) - k / 2 * jnp.log(kappa)
    integral = jax.nn.logsumexp(logs, b=_WEIGHTS) + jnp.log(last)
    return integral - ((length - radius) ** 2 + jnp.sum(z**2)) / (2 * sigma**2)


def sphere(k: int, dim: int = 100, tau: float = 0.01, name: str = "") -> Data:
    """The sphere of k dimensions and radius sqrt(k + 1) in R^dim; a ``name`` for one with as many points as digits."""
    radius, centre = np.sqrt(k + 1), jnp.zeros(k + 1)

    def draw(random, n):
        n = len(digits().points) if name else n
        points = random.normal(size=(n, k + 1))
        points *= radius / np.linalg.norm(points, axis=1, keepdims=True)
        points = np.pad(points, ((0, 0), (0, dim - k - 1))) + tau * random.normal(size=(n, dim))
        return _one_part(points, k)

    def exact(sigma):
        return DensityScore(_sphere_log_prob, centre, radius, jnp.hypot(tau, sigma))

    return Data(name or f"sphere_{k}", np.geomspace(0.01, 2.0, 10), exact, draw)


def subspace(k: int, dim: int = 100, tau: float = 0.01) -> Data:
    """A standard normal distribution in k of ``dim`` dimensions."""

    def draw(random, n):
        points = np.pad(random.normal(size=(n, k)), ((0, 0), (0, dim - k))) + tau * random.normal(size=(n, dim))
        return _one_part(points, k)

    def exact(sigma):
        variances = jnp.where(jnp.arange(dim) < k, 1.0, 0.0) + tau**2 + sigma**2
        return GaussianScore(jnp.zeros(dim), jnp.diag(variances))

    return Data(f"subspace_{k}", np.geomspace(0.01, 2.0, 10), exact, draw)


def _one_part(points: np.ndarray, k: float) -> Sample:
    return Sample(points, np.full(len(points), float(k)), np.full(len(points), ""))


# --- Others -----------------------------------------------------------------------------------------------------------


def roll(tau: float = 0.05) -> Data:
    """The Swiss roll of `_shapes` in R^3, whose arms are 1 apart."""
    shape = SHAPES["swiss_roll"]()

    def draw(random, n):
        return _one_part(shape.sample(random, n) + tau * random.normal(size=(n, 3)), 2)

    return Data("swiss_roll", np.geomspace(0.02, 2.0, 10), lambda s: shape.score(jnp.hypot(tau, s)), draw, width=64)


def _places_log_prob(x, places, log_weights, sigma):
    return jax.nn.logsumexp(log_weights - jnp.sum((x - places) ** 2, -1) / (2 * sigma**2))


def lollipop(tau: float = 0.04) -> Data:
    """In R^3: a disk of radius 1 (half of the points), a stick of length 2 that begins at its edge (four tenths), and a
    dot apart from both."""
    step = tau
    grid = np.arange(-1 + step / 2, 1, step)
    disk = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    disk = disk[np.hypot(*disk.T) < 1]
    stick = np.stack([1 + step * (np.arange(round(2 / step)) + 0.5), np.zeros(round(2 / step))], 1)
    dot = np.array([[3.0, 1.5]])
    places = jnp.asarray(np.pad(np.concatenate([disk, stick, dot]), ((0, 0), (0, 1))))
    shares = [(0.5, len(disk)), (0.4, len(stick)), (0.1, 1)]
    log_weights = jnp.asarray(np.concatenate([np.full(n, np.log(share / n)) for share, n in shares]))

    def draw(random, n):
        part = random.choice(3, n, p=[share for share, _ in shares])
        radius, angle = np.sqrt(random.uniform(size=n)), random.uniform(0, 2 * np.pi, n)
        on_disk = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        on_stick = np.stack([random.uniform(1, 3, n), np.zeros(n)], 1)
        points = np.stack([on_disk, on_stick, np.broadcast_to(dot, (n, 2))])[part, np.arange(n)]
        points = np.pad(points, ((0, 0), (0, 1))) + tau * random.normal(size=(n, 3))
        return Sample(points, np.array([2.0, 1.0, 0.0])[part], np.array(["disk", "stick", "dot"])[part])

    def exact(sigma):
        return DensityScore(_places_log_prob, places, log_weights, jnp.hypot(tau, sigma))

    return Data("lollipop", np.geomspace(0.02, 2.0, 10), exact, draw, width=64)


def letter_images(degrees: np.ndarray) -> np.ndarray:
    """The letter F of 8 x 8 pixels, turned: points ``(n, 64)`` of a closed curve."""
    return np.asarray(rotated_letters("F", degrees, size=8).points)


def letters(tau: float = 0.02) -> Data:
    """A letter at every angle, R^64."""

    def draw(random, n):
        points = letter_images(random.uniform(0, 360, n))
        return _one_part(points + tau * random.normal(size=points.shape), 1)

    places = jnp.asarray(letter_images(np.arange(720) / 2))
    return Data(
        "letters",
        np.geomspace(0.01, 1.0, 10),
        lambda sigma: KernelDensityScore(places, jnp.hypot(tau, sigma)),
        draw,
    )


def images() -> Data:
    """The digits of scikit-learn, R^64. Nobody knows their dimension."""

    def draw(random, n):
        points = np.asarray(digits().points)
        return _one_part(random.permutation(points), np.nan)

    return Data("digits", np.geomspace(0.05, 2.0, 10), None, draw)


SETS: dict[str, Callable[[], Data]] = {
    "sphere_10": lambda: sphere(10),
    "sphere_50": lambda: sphere(50),
    "subspace_10": lambda: subspace(10),
    "subspace_50": lambda: subspace(50),
    "swiss_roll": roll,
    "lollipop": lollipop,
    "letters": letters,
    "digits": images,
}
