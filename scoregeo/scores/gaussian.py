"""The score of a Gaussian, in closed form: the smallest exact oracle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_float, as_point, check_finite, is_concrete
from .._types import Matrix, Point, Points, Scalar, Vector
from .base import AbstractScore, at_noise_level, highest_log_prob


def whitening(cov: Array, name: str) -> Array:
    """The lower-triangular ``W`` with ``W^T W = cov^-1``; raises ``ValueError`` if ``cov`` is not positive definite.

    Works on stacks ``(..., d, d)``. Scores keep ``W`` rather than the covariance, so that evaluating one factorises
    nothing.
    """
    if cov.ndim < 2 or cov.shape[-1] != cov.shape[-2]:
        raise ValueError(f"`{name}` must be square, shape (..., d, d), got {cov.shape}")
    check_finite(cov, name)
    if is_concrete(cov):
        values = np.asarray(cov)
        asymmetry = np.abs(values - np.swapaxes(values, -1, -2)).max()
        if asymmetry > 1e-4 * np.abs(values).max():
            raise ValueError(f"`{name}` must be symmetric, but differs from its transpose by {asymmetry:.2g}")
        smallest = np.linalg.eigvalsh(values).min()
        if smallest <= 0:
            raise ValueError(f"`{name}` must be positive definite, but its smallest eigenvalue is {smallest:.3g}")
    lower = jnp.linalg.cholesky(cov)
    identity = jnp.broadcast_to(jnp.eye(cov.shape[-1], dtype=cov.dtype), cov.shape)
    return jax.scipy.linalg.solve_triangular(lower, identity, lower=True)


def check_noise(alpha: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
    """``alpha`` and ``sigma`` as floats; raises ``ValueError`` if ``sigma`` is negative or either is not finite."""
    alpha, sigma = as_float(alpha, "alpha"), as_float(sigma, "sigma")
    check_finite(alpha, "alpha")
    check_finite(sigma, "sigma")
    for name, value in (("alpha", alpha), ("sigma", sigma)):
        if value.ndim != 0:
            raise ValueError(f"`{name}` must be a scalar, got shape {value.shape}")
    if is_concrete(sigma) and float(sigma) < 0:
        raise ValueError(f"`sigma` must be non-negative, got {float(sigma)}")
    return alpha, sigma


class GaussianScore(AbstractScore):
    """The score of ``N(mean, cov)``: ``s(x) = -cov^-1 (x - mean)``, with ``mean`` of shape ``(d,)``, ``cov`` ``(d,
    d)``.

    Raises ``ValueError`` if ``cov`` is not symmetric positive definite. For traced arguments the check is skipped and
    a bad covariance gives NaN.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> GaussianScore(jnp.zeros(2), 4.0 * jnp.eye(2))(jnp.array([1.0, 2.0])).tolist()
    [-0.25, -0.5]
    """

    mean: Float[Array, " d"]
    whitening: Float[Array, "d d"]
    conservative: bool = eqx.field(static=True)

    def __init__(self, mean: Point, cov: Matrix):
        self.mean = as_point(mean, "mean")
        cov = as_float(cov, "cov")
        if cov.shape != self.mean.shape * 2:
            raise ValueError(f"`cov` must have shape {self.mean.shape * 2} to match `mean`, got {cov.shape}")
        self.whitening = whitening(cov, "cov")
        self.conservative = True

    @property
    def cov(self) -> Matrix:
        """The covariance, shape ``(d, d)``."""
        lower = jnp.linalg.inv(self.whitening)
        return lower @ lower.T

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``."""
        return -self.whitening.T @ (self.whitening @ (x - self.mean))

    def log_prob(self, x: Point) -> Scalar:
        """The normalised log density at ``x``."""
        z = self.whitening @ (x - self.mean)
        logdet = jnp.sum(jnp.log(jnp.diagonal(self.whitening)))
        return logdet - 0.5 * (z @ z + x.size * jnp.log(2 * jnp.pi))

    def noised(self, alpha: Scalar | float, sigma: Scalar | float) -> "GaussianScore":
        """The marginal of ``alpha x + sigma eps``: ``N(alpha mean, alpha^2 cov + sigma^2 I)``."""
        alpha, sigma = check_noise(alpha, sigma)
        return GaussianScore(
            alpha * self.mean, alpha**2 * self.cov + sigma**2 * jnp.eye(self.mean.size, dtype=self.mean.dtype)
        )

    def sample(self, key: PRNGKeyArray, n: int) -> Points:
        """``n`` independent draws, shape ``(n, d)``."""
        z = jax.random.normal(key, (n, self.mean.size), self.mean.dtype)
        return self.mean[None] + jax.scipy.linalg.solve_triangular(self.whitening, z.T, lower=True).T


@at_noise_level.register
def _(score: GaussianScore, noise_level: Scalar | float) -> GaussianScore:
    return score.noised(1.0, noise_level)


@highest_log_prob.register
def _(score: GaussianScore, dim: int) -> Scalar:
    return score.log_prob(score.mean)
