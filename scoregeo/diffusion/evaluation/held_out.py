r"""How good a learned score is when nothing but data is known: denoising of points that were not trained on.

A point ``x = x_0 + sigma eps`` is denoised to ``D = x + sigma^2 s(x)``. For the exact score, Tweedie's formula gives
mean and covariance of what is left, and with them a test of the Jacobian ``J`` of the score, which geodesics feel:

    E[x_0 - D | x] = 0,      Cov[x_0 - D | x] = sigma^2 (I + sigma^2 J(x)).                                     (1)

A score that has memorised its training points claims, by (1), to know ``x_0`` better than it does.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import as_points
from ..._numerics import as_double, minus
from ..._protocols import ScoreModel
from ..._types import Points
from ...scores import AbstractScore
from .base import AbstractReport, check_levels, held_out_draws

_BLOCK = 256  # rows of a table of distances held at a time


@dataclasses.dataclass(frozen=True)
class HeldOutReport(AbstractReport):
    """Denoising of held-out points by noise level; arrays have shape ``(k,)`` and no unit unless said.

    **Fields**

    - ``sigmas``: noise levels, in the units of the data.
    - ``loss``: ``E|sigma s(x) + eps|^2 / d``, the error of the predicted noise; 1 for a score of zero.
    - ``trivial_loss``: the same for the score of a Gaussian with the mean and the overall variance of the points.
    - ``calibration``: ``E|x_0 - D|^2`` over what the score's own Jacobian expects of it, equation (1). 1 if the score
      is exact; above 1 if it knows less than it claims, as after memorising.
    - ``calibration_error``: standard error of ``calibration``.
    - ``detail``: ``sqrt(E|s - g|^2 / E|s|^2)`` with the score ``g`` of that Gaussian: how much the score says beyond
      it.
    - ``recommended_sigma``: the smallest of ``sigmas`` at which geometry can be trusted and has something to tell:
      ``calibration`` within ``tolerance`` of 1 (and two standard errors), there and at all larger levels whose
      ``detail`` is at least a tenth, as its own has to be. NaN if there is none.
    - ``n``: number of points; ``tolerance``: as given.
    """

    sigmas: np.ndarray
    loss: np.ndarray
    trivial_loss: np.ndarray
    calibration: np.ndarray
    calibration_error: np.ndarray
    detail: np.ndarray
    recommended_sigma: float
    n: int
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers, for JSON; a missing recommendation becomes ``None``."""
        return super().to_dict() | {
            "recommended_sigma": None if np.isnan(self.recommended_sigma) else self.recommended_sigma
        }

    def _rows(self) -> list[list[str]]:
        columns = self.sigmas, self.loss, self.trivial_loss, self.calibration, self.calibration_error, self.detail
        return [
            [f"{s:g}", f"{a:.4f}", f"{b:.4f}", f"{c:.3f} +- {e:.3f}", f"{t:.3f}"]
            for s, a, b, c, e, t in zip(*columns, strict=True)
        ]

    def _caption(self) -> str:
        if np.isnan(self.recommended_sigma):
            return "no noise level here can be trusted for geometry"
        return f"recommended noise level for geometry: {self.recommended_sigma:g}"

    def _title(self) -> str:
        return f"denoising of {self.n} held-out points"

    def _columns(self) -> tuple[str, ...]:
        return "sigma", "loss", "of a Gaussian", "calibration", "detail"


def evaluate_held_out(
    model: ScoreModel,
    points: Float[Array, "n d"] | np.ndarray,
    sigmas: Sequence[float] | np.ndarray = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
    *,
    key: PRNGKeyArray,
    draws: int = 4,
    tolerance: float = 0.1,
    condition: Any = None,
) -> HeldOutReport:
    """Judge a learned score by data that it was not trained on, at each noise level; no exact score is needed.

    **Arguments**

    - ``model``: has ``score_at(sigma)``, for example a `DiffusionModel`.
    - ``points``: at least two held-out points ``(n, d)``, in the coordinates of the model.
    - ``sigmas``: positive noise levels, in the units of the data.
    - ``key``, ``draws``: the random key of the noise, and how often each point gets another one.
    - ``tolerance``: how far ``calibration`` may be from 1, and its standard error from 0, at the recommended noise
      level.
    - ``condition``: what the score is told, if the model takes conditions: a label or vector that all ``points`` share.

    **Raises** ``ValueError`` for unusable points or noise levels, naming the argument.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.diffusion import Denoiser, DiffusionModel, FitConfig, MLP, evaluate_held_out
    >>> untrained = DiffusionModel(Denoiser(MLP(2, key=jax.random.key(0)), 1.0), FitConfig())  # exact for N(0, I)
    >>> points = jax.random.normal(jax.random.key(1), (2000, 2))
    >>> report = evaluate_held_out(untrained, points, (0.5, 1.0), key=jax.random.key(2))
    >>> bool((abs(report.calibration - 1) < 0.1).all())
    True
    """
    sigmas = check_levels(sigmas)
    if not tolerance > 0:
        raise ValueError(f"`tolerance` must be positive, got {tolerance}")
    model, points, noise, probes = held_out_draws(model, points, key, draws)
    condition = () if condition is None else (condition,)
    levels = jnp.asarray(sigmas, points.dtype)
    rows = [_figures(model.score_at(sigma, *condition), sigma, points, noise, probes) for sigma in levels]
    loss, trivial, calibration, standard_error, detail = np.asarray(rows, float).T
    # Comparisons with NaN are false, so a figure that is not a number is not trusted.
    trusted = (np.abs(calibration - 1) <= tolerance + 2 * standard_error) & (standard_error <= tolerance)
    recommended = _smallest_trusted(sigmas, trusted, ~(detail < 0.1))
    return HeldOutReport(
        sigmas, loss, trivial, calibration, standard_error, detail, recommended, points.shape[0], tolerance
    )


def _smallest_trusted(sigmas: np.ndarray, trusted: np.ndarray, telling: np.ndarray) -> float:
    """From the largest level that tells something downwards, as far as all are trusted; NaN for none."""
    recommended = float("nan")
    for i in np.argsort(sigmas)[::-1]:
        if telling[i]:
            if not trusted[i]:
                break
            recommended = float(sigmas[i])
    return recommended


@eqx.filter_jit
def _figures(score: AbstractScore, sigma, points: Points, noise: Array, probes: Array) -> Float[Array, " 5"]:
    d = points.shape[1]
    mean, variance = jnp.mean(points, 0), jnp.mean(jnp.var(points, 0))

    def one(point, eps, probe):
        x = point + sigma * eps
        s, jv = jax.jvp(score, (x,), (probe,))
        gaussian = -(x - mean) / (variance + sigma**2)
        # The squared norm of x_0 - D over sigma^2, as it is and as equation (1) expects it.
        found, expected = jnp.sum((sigma * s + eps) ** 2), d + sigma**2 * (probe @ jv)
        trivial = jnp.sum((sigma * gaussian + eps) ** 2)
        return jnp.stack([found, trivial, expected, jnp.sum((s - gaussian) ** 2), jnp.sum(s**2)])

    # Draws of one point are not independent, so the mean over them counts as one observation.
    values = jnp.mean(jax.lax.map(lambda z: jax.vmap(one)(points, *z), (noise, probes)), 0)
    found, trivial, expected, beyond, size = jnp.mean(values, 0)
    calibration = found / expected
    spread = jnp.std(values[:, 0] - calibration * values[:, 2]) / jnp.sqrt(points.shape[0] * 1.0)
    return jnp.stack([found / d, trivial / d, calibration, spread / jnp.abs(expected), jnp.sqrt(beyond / size)])


@dataclasses.dataclass(frozen=True)
class MemorizationReport(AbstractReport):
    """How much nearer samples are to the training points than fresh data are.

    **Fields**

    - ``sample_distance``, ``fresh_distance``: median distance to the nearest training point, of samples and of
      held-out points, in the units of the data.
    - ``gap``: ``1 - sample_distance / fresh_distance``: about 0 for a model that has learned the distribution, 1 for
      one that repeats its training points.
    - ``copies``: fraction of samples whose nearest training point is less than a third as far as the second nearest.
    - ``fresh_copies``: the same for held-out points: what is to be expected.
    """

    sample_distance: float
    fresh_distance: float
    gap: float
    copies: float
    fresh_copies: float

    def _rows(self) -> list[list[str]]:
        samples, fresh = (self.sample_distance, self.copies), (self.fresh_distance, self.fresh_copies)
        named = ("samples", samples), ("held-out points", fresh)
        return [[name, f"{distance:.4g}", f"{copies:.1%}"] for name, (distance, copies) in named]

    def _caption(self) -> str:
        return f"gap {self.gap:.3f} (0: like fresh data, 1: copies)"

    def _title(self) -> str:
        return "nearest training point"

    def _columns(self) -> tuple[str, ...]:
        return "", "median distance", "copies"


def memorization(
    samples: Float[Array, "m d"] | np.ndarray,
    train: Float[Array, "n d"] | np.ndarray,
    held_out: Float[Array, "k d"] | np.ndarray,
) -> MemorizationReport:
    """Compare distances to the nearest training point, of ``samples`` of a model and of ``held_out`` points.

    All in the same coordinates; at least two different training points, of which equal ones count once. Raises
    ``ValueError`` for arrays of other shapes.
    Source: the criterion for copies is that of Yoon et al. (2023).

    >>> import jax
    >>> from scoregeo.diffusion import memorization
    >>> train, fresh = jax.random.normal(jax.random.key(0), (2, 500, 2))
    >>> memorization(train, train, fresh).gap
    1.0
    """
    dim = as_points(train, "train").shape[1]
    # Only differences count, so that the mean may go before float32 drowns them in it.
    origin = as_double(train).mean(0)

    def centred(points, name):
        return minus(points, origin, as_points(points, name, dim=dim).dtype)

    samples, held_out = centred(samples, "samples"), centred(held_out, "held_out")
    train = jnp.unique(centred(train, "train"), axis=0)
    if train.shape[0] < 2:
        raise ValueError(f"`train` must have at least two different points, got {train.shape[0]}")
    (near, second), (fresh, fresh_second) = (np.asarray(_two_nearest(points, train)) for points in (samples, held_out))
    sample_distance, fresh_distance = float(np.median(near)), float(np.median(fresh))
    return MemorizationReport(
        sample_distance,
        fresh_distance,
        1 - sample_distance / fresh_distance if fresh_distance > 0 else float("nan"),
        float(np.mean(near < second / 3)),
        float(np.mean(fresh < fresh_second / 3)),
    )


@jax.jit
def _two_nearest(points: Float[Array, "m d"], train: Points) -> Float[Array, "2 m"]:
    """Distances to the nearest and the second nearest of ``train``."""

    def one(point):
        # Differences are squared, not |a|^2 - 2 a b + |b|^2: a copy has to come out at distance zero.
        return -jax.lax.top_k(-jnp.sum((train - point[None]) ** 2, -1), 2)[0]

    return jnp.sqrt(jax.lax.map(one, points, batch_size=_BLOCK)).T
