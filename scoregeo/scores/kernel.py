"""The score of a Gaussian kernel density estimate: data in, score out, no training."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Point, Points, Scalar, Vector, as_float, as_points, check_finite, is_concrete
from .base import AbstractScore
from .gaussian import check_noise


class KernelDensityScore(AbstractScore):
    """The score of ``1/n sum_i N(data_i, bandwidth^2 I)``, with ``data`` of shape ``(n, d)``; one evaluation costs O(n
    d).

    With the noise level of a diffusion as bandwidth it is the exact score of the noised *training set*, which is what a
    network that memorised its data would learn (Parzen 1962; Vincent 2011). Keep the bandwidth above the distance of
    nearest neighbours. Raises ``ValueError`` if ``bandwidth`` is not positive.
    """

    data: Float[Array, "n d"]
    bandwidth: Float[Array, ""]
    conservative: bool = eqx.field(static=True)

    def __init__(self, data: Points, bandwidth: float | Scalar):
        self.data = as_points(data, "data")
        self.bandwidth = as_float(bandwidth, "bandwidth").astype(self.data.dtype)
        if self.bandwidth.ndim != 0:
            raise ValueError(f"`bandwidth` must be a scalar, got shape {self.bandwidth.shape}")
        check_finite(self.bandwidth, "bandwidth")
        if is_concrete(self.bandwidth) and float(self.bandwidth) <= 0:
            raise ValueError(f"`bandwidth` must be positive, got {float(self.bandwidth)}")
        self.conservative = True

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``: ``(sum_i w_i data_i - x) / bandwidth^2`` with softmax weights ``w``."""
        difference = self._differences(x)
        terms = -0.5 * jnp.sum(difference**2, -1) / self.bandwidth**2
        return jax.nn.softmax(terms) @ difference / self.bandwidth**2

    def _differences(self, x: Point) -> Float[Array, "n d"]:
        if x.shape != self.data.shape[1:]:
            raise ValueError(f"`x` must have shape {self.data.shape[1:]} to match `data`, got {x.shape}")
        return self.data - x

    def log_prob(self, x: Point) -> Scalar:
        """The normalised log density at ``x``."""
        n, d = self.data.shape
        terms = -0.5 * jnp.sum(self._differences(x) ** 2, -1) / self.bandwidth**2
        return jax.nn.logsumexp(terms) - jnp.log(n) - d * (jnp.log(self.bandwidth) + 0.5 * jnp.log(2 * jnp.pi))

    def noised(self, alpha: Scalar | float, sigma: Scalar | float) -> "KernelDensityScore":
        """The marginal of ``alpha x + sigma eps``: data scaled by ``alpha``, bandwidth ``sqrt(alpha^2 h^2 +
        sigma^2)``."""
        alpha, sigma = check_noise(alpha, sigma)
        return KernelDensityScore(alpha * self.data, jnp.hypot(alpha * self.bandwidth, sigma))
