"""Curves that are no geodesics, to compare geodesics with and to start solvers from: what image interpolation uses.

Each is a start like those of `starts`: it gives a curve for two end points, ``Spherical()(metric, x, y)``, and is
passed as ``init``. None of them looks at the metric. `StraightLine` is the first of the family.
"""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp

from .._checks import as_point
from .._numerics import safe_sqrt
from .._types import Point, Points, Scalar, Vector
from ..metrics import AbstractMetric
from ..scores import AbstractScore
from ..scores.base import noise_level_of
from ..scores.density import as_score
from .curves import Polyline, node_times
from .starts import AbstractStart, StraightLine


class _AbstractAbout(AbstractStart):
    """A curve about a point ``center`` ``(d,)``; ``None`` is the origin."""

    center: eqx.AbstractVar[Vector | None]

    def check(self, dim: int) -> None:
        if self.center is not None:
            as_point(self.center, "center", dim=dim)

    def center_at(self, x: Point) -> Vector:
        """The center, of the type of ``x``."""
        return jnp.zeros_like(x) if self.center is None else self.center.astype(x.dtype)


class Spherical(_AbstractAbout):
    """Spherical linear interpolation about ``center`` ``(d,)``, the origin by default (Shoemake 1985).

    ``(sin((1 - t) w) x + sin(t w) y)/sin w`` with the angle w between ``x`` and ``y``: the usual path between two
    latents of a diffusion model. The straight line where the two point the same way; opposite ones have no such path,
    and get NaN.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, Spherical
    >>> curve = Spherical()(EuclideanMetric(), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    >>> [round(float(z), 4) for z in curve(0.5)[0]]
    [0.7071, 0.7071]
    """

    center: Vector | None

    def __init__(self, center: Vector | None = None):
        self.center = None if center is None else as_point(center, "center")

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        center = self.center_at(x)
        a, b, t = x - center, y - center, node_times(x.dtype)[:, None]
        sizes = safe_sqrt(jnp.sum(a**2)) * safe_sqrt(jnp.sum(b**2))
        cosine = jnp.clip(jnp.vdot(a, b) / jnp.where(sizes > 0, sizes, 1), -1, 1)
        angle = jnp.arccos(cosine)
        near = angle < 1e-3
        sine = jnp.where(near, 1, jnp.sin(angle))
        # Opposite points differ from others by rounding alone.
        sine = jnp.where(jnp.pi - angle < 4 * jnp.finfo(x.dtype).eps ** 0.5, jnp.nan, sine)
        weights = jnp.where(near, 1 - t, jnp.sin((1 - t) * angle) / sine), jnp.where(near, t, jnp.sin(t * angle) / sine)
        return _between(center + weights[0] * a + weights[1] * b, x, y)


class NormCorrected(_AbstractAbout):
    """The straight line, stretched so that what is normal stays normal: ``((1 - t) x + t y)/sqrt((1 - t)^2 + t^2)``.

    For two independent normal latents about ``center`` (the origin by default) every point of it has their
    distribution (Bodin et al. 2024, arXiv 2408.08558).
    """

    center: Vector | None

    def __init__(self, center: Vector | None = None):
        self.center = None if center is None else as_point(center, "center")

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        center = self.center_at(x)
        t = node_times(x.dtype)[:, None]
        line = (1 - t) * (x - center) + t * (y - center)
        return _between(center + line / jnp.sqrt((1 - t) ** 2 + t**2), x, y)


class Denoised(AbstractStart):
    """A curve whose points, but for its ends, are moved by one step of the denoiser: ``x + noise_level^2 s(x)``.

    **Arguments**

    - ``score``: of the data with noise of standard deviation ``noise_level`` added; a function ``(d,) -> (d,)``.
    - ``noise_level``: a positive scalar; that of the score by default, where it has one.
    - ``start``: the curve to denoise, another start; the straight line by default.

    Raises ``ValueError`` where neither knows the noise level, or they differ.

    >>> import jax.numpy as jnp
    >>> from scoregeo import Denoised, EuclideanMetric, GaussianScore
    >>> wide = Denoised(GaussianScore(jnp.zeros(2), jnp.eye(2)), 0.5)  # 1 = .75 of the data and .25 of noise
    >>> wide(EuclideanMetric(), jnp.array([0.0, 1.0]), jnp.array([2.0, 1.0]))(0.5)[0].tolist()
    [0.75, 0.75]
    """

    score: AbstractScore
    noise_level: Scalar
    start: AbstractStart

    def __init__(self, score: Any, noise_level: Scalar | float | None = None, start: AbstractStart | None = None):
        self.score = as_score(score)
        self.noise_level = noise_level_of(self.score, noise_level)
        self.start = StraightLine() if start is None else start

    def check(self, dim: int) -> None:
        self.start.check(dim)

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        points = nodes_of(self.start, metric, x, y)
        return _between(points + self.noise_level.astype(x.dtype) ** 2 * jax.vmap(self.score)(points), x, y)


@runtime_checkable
class LatentModel(Protocol):
    """What `Latent` asks for: a map to latents and its inverse, of one point each."""

    def encode(self, x: Point) -> Vector:
        """The latent of ``x``."""
        ...

    def decode(self, z: Vector) -> Point:
        """The point whose latent is ``z``."""
        ...


class Latent(AbstractStart):
    """A curve between the latents of two points, decoded.

    **Arguments**

    - ``model``: a pytree with ``encode(x)`` and ``decode(z)`` of one point: ``model.latent()`` of a `DiffusionModel`,
      or an autoencoder.
    - ``start``: the curve between latents; `Spherical` by default, as is usual for noise.
    """

    model: Any
    start: AbstractStart

    def __init__(self, model: LatentModel, start: AbstractStart | None = None):
        for name in ("encode", "decode"):
            if not callable(getattr(model, name, None)):
                raise TypeError(f"`model` must have a method `{name}`, got {type(model).__name__}")
        self.model = model
        self.start = Spherical() if start is None else start

    def __call__(self, metric: AbstractMetric, x: Point, y: Point) -> Polyline:
        latents = nodes_of(self.start, metric, self.model.encode(x), self.model.encode(y))
        return _between(jax.vmap(self.model.decode)(latents), x, y)


def nodes_of(start: AbstractStart, metric: AbstractMetric, x: Point, y: Point) -> Points:
    """Points ``(65, d)`` at equal times on the curve that ``start`` gives."""
    curve = start(metric, x, y)
    return jax.vmap(lambda t: curve(t)[0])(node_times(x.dtype))


def _between(points: Points, x: Point, y: Point) -> Polyline:
    """A curve through ``points`` that begins at ``x`` and ends at ``y``."""
    return Polyline(points.at[0].set(x).at[-1].set(y))
