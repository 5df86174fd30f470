"""The score of a Gaussian kernel density estimate: data in, score out, no training."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_float, as_points, check_finite, is_concrete
from .._types import Point, Points, Scalar, Vector
from .base import AbstractScore, DataSpread, at_noise_level, highest_log_prob, spread_of_data
from .gaussian import check_noise

# So many of the data tell where all are.
_SOME = 64


class KernelDensityScore(AbstractScore):
    """The score of ``1/n sum_i N(data_i, bandwidth^2 I)``, with ``data`` of shape ``(n, d)``; one evaluation costs O(n
    d).

    With the noise level of a diffusion as bandwidth it is the exact score of the noised *training set*, which is what a
    network that memorised its data would learn (Parzen 1962; Vincent 2011). Keep the bandwidth above the distance of
    nearest neighbours. Raises ``ValueError`` if ``bandwidth`` is not positive.

    In float64, many points at once are products of matrices, with the rounding of ``R^2 / bandwidth^2`` where R is the
    distance of the farthest data from their mean: leave out those that are nowhere near. In float32, differences.
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
        terms, data, x = self._kernels(x)
        # The weights are divided after the product, not before as a softmax would: that makes derivatives cheaper.
        kernels = jnp.exp(terms - jax.lax.stop_gradient(jnp.max(terms)))
        return (kernels @ data / jnp.sum(kernels) - x) / self.bandwidth**2

    def log_prob(self, x: Point) -> Scalar:
        """The normalised log density at ``x``."""
        n, d = self.data.shape
        terms, _, x = self._kernels(x)
        logs = jax.nn.logsumexp(terms) - 0.5 * jnp.sum(x**2) / self.bandwidth**2
        return logs - jnp.log(n) - d * (jnp.log(self.bandwidth) + 0.5 * jnp.log(2 * jnp.pi))

    def _kernels(self, x: Any) -> tuple[Float[Array, " n"], Float[Array, "n d"], Any]:
        """Data and ``x`` about a centre, and the logarithms of the kernels there, without their common part
        ``-|x|^2 / (2 bandwidth^2)``."""
        if x.shape != self.data.shape[1:]:
            raise ValueError(f"`x` must have shape {self.data.shape[1:]} to match `data`, got {x.shape}")
        dtype = jnp.result_type(x, self.data)
        data, x = self.data.astype(dtype), x.astype(dtype)
        if jnp.finfo(dtype).bits >= 64:
            # Products of matrices over all points at which the score is wanted: ten times faster than differences.
            centre = jax.lax.stop_gradient(jnp.mean(data, 0))  # the score does not depend on it
            data, x = data - centre, x - centre
            return (data @ x - 0.5 * jnp.sum(data**2, -1)) / self.bandwidth**2, data, x
        # Products would lose more digits than float32 has to spare.
        data = data - x
        return -0.5 * jnp.sum(data**2, -1) / self.bandwidth**2, data, jnp.zeros_like(x)

    def noised(self, alpha: Scalar | float, sigma: Scalar | float) -> "KernelDensityScore":
        """The marginal of ``alpha x + sigma eps``: data scaled by ``alpha``, bandwidth ``sqrt(alpha^2 h^2 +
        sigma^2)``."""
        alpha, sigma = check_noise(alpha, sigma)
        return KernelDensityScore(alpha * self.data, jnp.hypot(alpha * self.bandwidth, sigma))


@at_noise_level.register
def _(score: KernelDensityScore, noise_level: Scalar | float) -> KernelDensityScore:
    return KernelDensityScore(score.data, noise_level)


@spread_of_data.register
def _(score: KernelDensityScore) -> DataSpread | None:
    if not (is_concrete(score.data) and is_concrete(score.bandwidth)):
        return None
    data = np.asarray(score.data[:: -(-len(score.data) // _SOME)], np.float64)
    return DataSpread(data.mean(0), np.sqrt(data.var(0).mean() + float(score.bandwidth) ** 2))


@highest_log_prob.register
def _(score: KernelDensityScore, dim: int) -> Scalar:
    """All kernels at one place."""
    return -dim * jnp.log(jnp.sqrt(2 * jnp.pi) * score.bandwidth)
