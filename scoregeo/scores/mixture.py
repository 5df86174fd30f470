"""The score of a Gaussian mixture: exact at every noise level, and fitted to data by expectation maximisation."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_float, as_points, check_count, check_finite, is_concrete, warn
from .._types import Point, Points, Scalar, Vector
from .base import AbstractScore, at_noise_level, highest_log_prob
from .gaussian import check_noise, whitening


class GaussianMixtureScore(AbstractScore):
    """The score of ``sum_k weights_k N(means_k, covs_k)``, with full covariances.

    **Arguments**

    - ``weights``: ``(k,)``, non-negative, summing to one.
    - ``means``: ``(k, d)``.
    - ``covs``: ``(k, d, d)``, each symmetric positive definite.

    Raises ``ValueError`` naming the argument for anything else (values are checked where they are concrete).

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianMixtureScore
    >>> modes = jnp.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> score = GaussianMixtureScore(jnp.array([0.5, 0.5]), modes, jnp.stack([0.25 * jnp.eye(2)] * 2))
    >>> abs(score(jnp.zeros(2))).max().item() < 1e-6
    True
    """

    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    whitenings: Float[Array, "k d d"]
    conservative: bool = eqx.field(static=True)

    def __init__(self, weights: Array | np.ndarray, means: Array | np.ndarray, covs: Array | np.ndarray):
        self.means = as_points(means, "means")
        k, d = self.means.shape
        weights, covs = as_float(weights, "weights"), as_float(covs, "covs")
        if weights.shape != (k,):
            raise ValueError(f"`weights` must have shape ({k},) to match `means`, got {weights.shape}")
        if covs.shape != (k, d, d):
            raise ValueError(f"`covs` must have shape {(k, d, d)} to match `means`, got {covs.shape}")
        check_finite(weights, "weights")
        if is_concrete(weights):
            values = np.asarray(weights)
            if (values < 0).any():
                raise ValueError(f"`weights` must be non-negative, got a smallest weight of {values.min():.3g}")
            if abs(values.sum() - 1) > 1e-4:
                raise ValueError(f"`weights` must sum to one, got a sum of {values.sum():.6g}")
        self.log_weights = jnp.log(weights)
        self.whitenings = whitening(covs, "covs")
        self.conservative = True

    @property
    def weights(self) -> Float[Array, " k"]:
        """The mixture weights, shape ``(k,)``."""
        return jnp.exp(self.log_weights)

    @property
    def covs(self) -> Float[Array, "k d d"]:
        """The covariances, shape ``(k, d, d)``."""
        lower = jnp.linalg.inv(self.whitenings)
        return lower @ jnp.swapaxes(lower, -1, -2)

    def _terms(self, x: Any) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
        """Per component: the whitened residual ``(k, d)`` and the log joint density ``(k,)``, normalised."""
        z = jnp.einsum("kij,kj->ki", self.whitenings, x[None] - self.means)
        logdet = jnp.sum(jnp.log(jnp.diagonal(self.whitenings, axis1=-2, axis2=-1)), -1)
        return z, self.log_weights + logdet - 0.5 * (jnp.sum(z * z, -1) + x.size * jnp.log(2 * jnp.pi))

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``: the posterior mean of the components' scores."""
        z, terms = self._terms(x)
        return -jnp.einsum("k,kij,ki->j", jax.nn.softmax(terms), self.whitenings, z)

    def log_prob(self, x: Point) -> Scalar:
        """The normalised log density at ``x``."""
        return jax.nn.logsumexp(self._terms(x)[1])

    def noised(self, alpha: Scalar | float, sigma: Scalar | float) -> "GaussianMixtureScore":
        """The marginal of ``alpha x + sigma eps``: ``sum_k weights_k N(alpha means_k, alpha^2 covs_k + sigma^2 I)``."""
        alpha, sigma = check_noise(alpha, sigma)
        identity = jnp.eye(self.means.shape[1], dtype=self.means.dtype)
        return GaussianMixtureScore(self.weights, alpha * self.means, alpha**2 * self.covs + sigma**2 * identity[None])

    def sample(self, key: PRNGKeyArray, n: int) -> Points:
        """``n`` independent draws, shape ``(n, d)``."""
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, self.log_weights, shape=(n,))
        z = jax.random.normal(noise, (n, self.means.shape[1]), self.means.dtype)
        lower = jnp.linalg.inv(self.whitenings)
        return self.means[k] + jnp.einsum("nij,nj->ni", lower[k], z)

    @staticmethod
    def fit(
        data: Points,
        n_components: int,
        *,
        key: PRNGKeyArray,
        max_steps: int = 200,
        tolerance: float = 1e-6,
        floor: float = 1e-6,
    ) -> tuple["GaussianMixtureScore", np.ndarray]:
        """Fit a mixture to ``data`` by expectation maximisation from a k-means start (`sklearn.mixture`).

        **Arguments**

        - ``data``: ``(n, d)`` with at least ``n_components`` distinct points, and at least two.
        - ``key``: decides the start.
        - ``max_steps``: the most steps.
        - ``tolerance``: stop when the mean log-likelihood rises by less than this (nats a point) in a step.
        - ``floor``: multiple of the mean variance of the data that is added to every covariance (keeps components from
          collapsing on single points; the fit is the exact maximiser only as ``floor`` goes to zero).

        **Returns** the score, in the precision of ``data``, and the mean log-likelihood after each step, shape
        ``(steps,)``. The steps are computed in float64, on the host.

        **Raises** ``ValueError`` for arguments that make no sense, and where a covariance becomes singular. Warns
        (``UserWarning``) if ``max_steps`` ended the fit. Source: Dempster, Laird & Rubin 1977; start: Arthur &
        Vassilvitskii 2007.

        >>> import jax, jax.numpy as jnp
        >>> from scoregeo import GaussianMixtureScore
        >>> points = jax.random.normal(jax.random.key(0), (200, 2)) + jnp.repeat(jnp.array([[-5.0], [5.0]]), 100, 0)
        >>> score, history = GaussianMixtureScore.fit(points, 2, key=jax.random.key(1))
        >>> sorted(round(mean) for mean in score.means[:, 0].tolist())
        [-5, 5]
        """
        data = as_points(data, "data")
        max_steps = check_count("max_steps", max_steps)
        for name, value in (("tolerance", tolerance), ("floor", floor)):
            if not 0 <= value < np.inf:
                raise ValueError(f"`{name}` must be non-negative and finite, got {value}")
        n_components = check_count("n_components", n_components)
        distinct = len(np.unique(np.asarray(data), axis=0))
        if distinct < n_components:
            raise ValueError(f"`data` must have at least n_components={n_components} distinct points, got {distinct}")
        if distinct < 2:
            raise ValueError("`data` must have at least two distinct points to have a covariance, got one")

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        # About their mean: sklearn subtracts large numbers from each other where the data are far from the origin.
        points = np.asarray(data, np.float64)
        centre = points.mean(0)
        mixture = GaussianMixture(
            int(n_components),
            tol=tolerance,
            reg_covar=floor * points.var(0).mean(),
            max_iter=max_steps,
            random_state=int(jax.random.bits(key, dtype=jnp.uint32)),
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit(points - centre)
            parts = mixture.weights_, mixture.means_ + centre, mixture.covariances_
            score = GaussianMixtureScore(*(jnp.asarray(part, data.dtype) for part in parts))
        except ValueError as error:  # everything else that could be wrong has been checked
            message = f"`floor` is too small for these data (got {floor}): a covariance became singular"
            raise ValueError(message) from error
        if not mixture.converged_:
            message = f"expectation maximisation ended at max_steps={max_steps} before it met its tolerance"
            warn(message)
        # The bound that a step reports is the likelihood before it.
        return score, np.append(mixture.lower_bounds_[1:], mixture.score(points - centre))


@at_noise_level.register
def _(score: GaussianMixtureScore, noise_level: Scalar | float) -> GaussianMixtureScore:
    return score.noised(1.0, noise_level)


@highest_log_prob.register
def _(score: GaussianMixtureScore, dim: int) -> Scalar:
    """The sum of what every component is at its own mean."""
    logdets = jnp.sum(jnp.log(jnp.diagonal(score.whitenings, axis1=-2, axis2=-1)), -1)
    return jax.nn.logsumexp(score.log_weights + logdets) - dim * jnp.log(2 * jnp.pi) / 2
