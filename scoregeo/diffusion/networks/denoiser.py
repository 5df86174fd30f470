r"""From a network to a denoiser, a score and a log density: EDM preconditioning (Karras et al. 2022, arXiv 2206.00364,
sec. 5).

With ``u = x - m`` for data of mean ``m`` and standard deviation ``sigma_data = c`` (over all coordinates), noise level
``sigma = r`` and ``S^2 = r^2 + c^2``, the denoiser around a network ``F`` is

    D(x; r) = m + c_skip u + c_out F(c_in u, c_noise)                                             (1)
    c_skip = c^2/S^2     c_out = r c/S     c_in = 1/S     c_noise = log(r)/4

so that input and target of ``F`` have unit variance. The score of the data with noise ``r`` added is

    s(x; r) = (D - x)/r^2 = -u/S^2 + (c/(r S)) F(c_in u, c_noise).                                (2)

The second form is what the code computes: in the first, ``D - x`` is of order ``r`` while both terms are of order one,
and float32 loses digits as ``1/r``. If ``F = grad f`` then ``s`` is the gradient of

    phi(x; r) = -|u|^2/(2 S^2) + (c/r) f(c_in u, c_noise),                                        (3)

the log density up to a constant, because ``c_in`` depends on ``r`` only.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from ..._checks import warn
from ..._types import Point, Scalar, Vector
from . import Network


class Constant(nnx.Variable):
    """A number that belongs to a model but is not trained."""


class Denoiser(nnx.Module):
    """An EDM-preconditioned denoiser: the clean point (`denoise`), the score (`score`), and perhaps the log density
    (`log_prob`), at any noise level.

    **Arguments**

    - ``net``: a network ``(u, c_noise) -> (d,)`` with an integer ``dim``, see `networks`. All methods pass their
      ``condition`` on to it (a label or a vector, see `conditioning`); ``None`` stands for "no condition".
    - ``sigma_data``: standard deviation of the data over all points and coordinates, positive scalar.
    - ``mean``: mean of the data, shape ``(d,)``; zero by default.

    Both are leaves of the module, like the weights: a denoiser of other data does not compile again.

    A network whose last layer is zero knows nothing but mean and variance, and gives the score of that Gaussian:

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.diffusion import MLP, Denoiser
    >>> denoiser = Denoiser(MLP(2, key=jax.random.key(0)), sigma_data=1.0)
    >>> x, sigma = jnp.array([1.0, -2.0]), jnp.array(1.0)
    >>> [jnp.round(method(x, sigma), 3).tolist() for method in (denoiser.score, denoiser.denoise)]
    [[-0.5, 1.0], [0.5, -1.0]]
    """

    def __init__(self, net: Network, sigma_data: float | Array, mean: Array | None = None):
        mean = jnp.zeros(net.dim) if mean is None else jnp.asarray(mean)
        if mean.shape != (net.dim,):
            raise ValueError(f"`mean` must have shape ({net.dim},), got {mean.shape}")
        self.net = net
        self.mean = Constant(mean)
        self.sigma_data = Constant(jnp.asarray(sigma_data, mean.dtype))

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return self.net.dim

    @property
    def conservative(self) -> bool:
        """Whether the score is a gradient field by construction."""
        return bool(getattr(self.net, "conservative", False))

    def network_output(self, x: Point, sigma: Scalar, condition: Any = None) -> Array:
        """``F(c_in (x - mean), c_noise)``, the raw output of the network; shape ``(d,)``, if all is well."""
        return self._apply(self.net, x, sigma, condition)

    def score(self, x: Point, sigma: Scalar, condition: Any = None) -> Vector:
        """The score at ``x`` of the data with Gaussian noise of standard deviation ``sigma`` added; equation (2). Shape
        ``(d,)``."""
        u, total = self._centred(x, sigma)
        return -u / total**2 + self.sigma_data[...] / (sigma * total) * self._apply(self.net, x, sigma, condition)

    def __call__(self, x: Point, sigma: Scalar, condition: Any = None) -> Vector:
        """The score, as `score` computes it. Deprecated: the call of a denoiser would be expected to denoise."""
        message = "calling a Denoiser is deprecated: use `score` for the score, or `denoise` for the denoised point"
        warn(message, DeprecationWarning)
        return self.score(x, sigma, condition)

    def denoise(self, x: Point, sigma: Scalar, condition: Any = None) -> Point:
        """The expected clean point ``E[x_0 | x_0 + sigma eps = x]``; equation (1). Shape ``(d,)``."""
        u, total = self._centred(x, sigma)
        data = self.sigma_data[...]
        output = self._apply(self.net, x, sigma, condition)
        return self._mean(x) + (data / total) ** 2 * u + sigma * data / total * output

    def log_prob(self, x: Point, sigma: Scalar, condition: Any = None) -> Scalar:
        """Log density of the noised data at ``x`` up to a constant that depends on ``sigma``; equation (3).

        Raises ``TypeError`` if the network is not a `Potential`.
        """
        potential = getattr(self.net, "potential", None)
        if potential is None:
            raise TypeError(
                f"`log_prob` needs a network that is a gradient; {type(self.net).__name__} is not. "
                "Train with FitConfig(potential=True), or wrap the network in Potential."
            )
        u, total = self._centred(x, sigma)
        value = self._apply(potential, x, sigma, condition)
        return -0.5 * jnp.vdot(u, u) / total**2 + self.sigma_data[...] / sigma * value

    def _centred(self, x: Point | np.ndarray, sigma: Scalar) -> tuple[Vector, Scalar]:
        return jnp.asarray(x) - self._mean(x), jnp.sqrt(sigma**2 + self.sigma_data[...] ** 2)

    def _mean(self, x: Point | np.ndarray) -> Point:
        # It may have more digits than the weights, for points that have them too.
        return self.mean[...].astype(x.dtype)

    def _apply(self, function: Callable, x: Point | np.ndarray, sigma: Scalar, condition: Any) -> Array:
        u, total = self._centred(x, sigma)
        # A user's own network need not take conditions, so it is called without one where there is none.
        return function(u / total, jnp.log(sigma) / 4, *(() if condition is None else (condition,)))
