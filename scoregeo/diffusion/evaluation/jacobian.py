r"""How good the Jacobian of a learned score is when nothing but data is known: a regression loss for ``J v``.

With ``x = x_0 + sigma eps`` and the exact score ``s``, the residual of denoising, ``r = -(eps + sigma s(x))``, has the
second moment that the Jacobian ``J`` of the score says (Tweedie's formula of second order):

    E[r r^T | x] = P(x) = I + sigma^2 J(x).                                                                        (1)

So the mean squared error of ``P' v = v + sigma^2 J' v`` against ``r (r . v)`` is smallest for the exact Jacobian. What
does not depend on ``J'`` is left out, and the mean over ``v`` is taken where it can be:

    loss = (1/d) E[ |v + sigma^2 J' v|^2 - 2 sigma^2 r . J' r ],        v of random signs.                         (2)

For the exact residual, ``loss(J') - loss(J) = (1/d) E|sigma^2 (J' - J)|_F^2``, the squared error of ``sigma^2 J v`` for
``v ~ N(0, I)``, and ``loss(J) = 1 - (1/d) E|sigma^2 J|_F^2``. A learned score has a residual of its own: with its error
``b = sigma (s' - s)`` the loss gains ``-(2/d) E[b . sigma^2 J' b]``, at most about twice what the denoising loss gains.
Source: Meng et al. 2021, arXiv 2111.04726, for denoising score matching of second order; the form (2) is ours.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._protocols import ScoreModel
from ..._types import Points
from ...scores import AbstractScore
from .base import AbstractReport, check_levels, held_out_draws


@dataclasses.dataclass(frozen=True)
class JacobianReport(AbstractReport):
    """The held-out loss of ``J v`` by noise level; arrays have shape ``(k,)`` and no unit unless said.

    **Fields**

    - ``sigmas``: noise levels, in the units of the data.
    - ``loss``: equation (2): 1 for a Jacobian of zero, smaller is better. What the best possible is, is not known; the
      difference of two scores is the difference of their squared errors ``E|sigma^2 (J' - J) v|^2 / d``.
    - ``loss_error``: standard error of ``loss``. Of the difference of two scores with the same ``key`` it is smaller,
      because both see the same noise.
    - ``trivial_loss``: the loss of a Gaussian with the mean and the overall variance of the points.
    - ``n``: number of points.
    """

    sigmas: np.ndarray
    loss: np.ndarray
    loss_error: np.ndarray
    trivial_loss: np.ndarray
    n: int

    def _title(self) -> str:
        return f"J v at {self.n} held-out points"

    def _columns(self) -> tuple[str, ...]:
        return "sigma", "loss of J v", "of a Gaussian"

    def _rows(self) -> list[list[str]]:
        columns = self.sigmas, self.loss, self.loss_error, self.trivial_loss
        return [[f"{s:g}", f"{a:.4f} +- {e:.4f}", f"{b:.4f}"] for s, a, e, b in zip(*columns, strict=True)]


def evaluate_jacobian(
    model: ScoreModel,
    points: Float[Array, "n d"] | np.ndarray,
    sigmas: Sequence[float] | np.ndarray = (0.1, 0.2, 0.5),
    *,
    key: PRNGKeyArray,
    draws: int = 4,
    condition: Any = None,
) -> JacobianReport:
    """Judge the Jacobian of a learned score, which geodesics feel, by data that it was not trained on.

    **Arguments**

    - ``model``: has ``score_at(sigma)``, for example a `DiffusionModel`.
    - ``points``: at least two held-out points ``(n, d)``, in the coordinates of the model.
    - ``sigmas``: positive noise levels, in the units of the data.
    - ``key``, ``draws``: the random key of noise and directions, and how often each point gets others. Give models that
      are to be compared the same key.
    - ``condition``: what the score is told, if the model takes conditions: a label or vector that all ``points`` share.

    Two Jacobian-vector products for each point, draw and level. **Raises** ``ValueError`` for unusable points or noise
    levels, naming the argument.

    >>> import jax
    >>> from scoregeo.diffusion import Denoiser, DiffusionModel, FitConfig, MLP, evaluate_jacobian
    >>> untrained = DiffusionModel(Denoiser(MLP(2, key=jax.random.key(0)), 1.0), FitConfig())  # exact for N(0, I)
    >>> points = jax.random.normal(jax.random.key(1), (2000, 2))
    >>> report = evaluate_jacobian(untrained, points, [1.0], key=jax.random.key(2))
    >>> bool(abs(report.loss[0] - 0.75) < 0.05)  # 1 - (sigma^2 / (1 + sigma^2))^2
    True
    """
    sigmas = check_levels(sigmas)
    model, points, noise, directions = held_out_draws(model, points, key, draws)
    condition = () if condition is None else (condition,)
    levels = jnp.asarray(sigmas, points.dtype)
    rows = [_losses(model.score_at(sigma, *condition), sigma, points, noise, directions) for sigma in levels]
    loss, loss_error, trivial = np.asarray(rows, float).T
    return JacobianReport(sigmas, loss, loss_error, trivial, points.shape[0])


# Points whose derivatives are held at once: networks of images take much memory for each.
_BATCH = 256


@eqx.filter_jit
def _losses(score: AbstractScore, sigma, points: Points, noise: Array, directions: Array) -> Float[Array, " 3"]:
    """The loss, its standard error, and that of a Gaussian."""
    n, d = points.shape
    mean, variance = jnp.mean(points, 0), jnp.mean(jnp.var(points, 0))
    shrinks = sigma**2 / (variance + sigma**2)  # minus sigma^2 J of the Gaussian

    def one(point, eps, v):
        x = point + sigma * eps
        s, along = jax.linearize(score, x)
        residual = -(eps + sigma * s)
        loss = jnp.sum((v + sigma**2 * along(v)) ** 2) - 2 * sigma**2 * (residual @ along(residual))
        plain = -(eps - shrinks * (x - mean) / sigma)
        trivial = (1 - shrinks) ** 2 * d + 2 * shrinks * (plain @ plain)
        return jnp.stack([loss, trivial]) / d

    # Draws of one point are not independent, so the mean over them counts as one observation.
    over_points = lambda z: jax.lax.map(lambda each: one(*each), (points, *z), batch_size=_BATCH)  # noqa: E731
    values = jnp.mean(jax.lax.map(over_points, (noise, directions)), 0)
    loss, trivial = jnp.mean(values, 0)
    return jnp.stack([loss, jnp.std(values[:, 0]) / jnp.sqrt(n * 1.0), trivial])
