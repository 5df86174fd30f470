"""Von Mises distributions, the normal distributions of angles.

With mean angle m and concentration r, p(x) = exp(r cos(x - m)) / (2 pi I_0(r)). The parameters are polar coordinates
with a singularity at r = 0, the uniform distribution, where the family itself is smooth. The coordinates here are
therefore the natural parameters eta = r (cos m, sin m), with log partition log I_0(|eta|) (up to a constant) and

    mu = g eta,     F = g I + (dg/dr / r) eta eta^T,      g(r) = I_1(r) / (r I_0(r)),                      (1)

where g is a smooth function of s = r^2.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import as_point
from ..._numerics import safe_sqrt
from ..._types import Point, Scalar, Vector
from ...metrics.inner_products import DenseInnerProduct
from ..base import AbstractExponentialFamily
from ..supports import AbstractSupport, Positive, Real


def _ratio_series(terms: int) -> list[float]:
    """``c_j`` of ``I_1(r) / I_0(r) = sum_j c_j r^-j`` for large r, from ``f' = 1 - f / r - f^2``."""
    c = [1.0]
    for j in range(1, terms):
        c.append(((j - 2) * c[j - 1] - sum(c[i] * c[j - i] for i in range(1, j))) / 2)
    return c


_LARGE = 30.0
_SERIES = _ratio_series(18)
_LEVELS = 36


def mean_factor(s: Scalar) -> Scalar:
    """``g`` of (1) as a function of ``s = r^2``: 1/2 at zero, accurate to rounding with its derivatives everywhere.

    Up to r = 30 it is the continued fraction ``1 / (2 + s / (4 + s / (6 + ...)))``, of positive terms; beyond, the
    asymptotic series.
    """
    large = s > _LARGE**2
    near, far = jnp.where(large, 1, s), jnp.where(large, s, _LARGE**2)

    def level(below, k):
        return 2 * k + near / below, None

    below, _ = jax.lax.scan(level, jnp.full_like(s, 2.0 * _LEVELS), jnp.arange(_LEVELS - 1, 0, -1, dtype=s.dtype))
    inverse = 1 / jnp.sqrt(far)
    return jnp.where(large, inverse * jnp.polyval(jnp.asarray(_SERIES[::-1], s.dtype), inverse), 1 / below)


@jax.custom_jvp
def log_bessel(s: Scalar) -> Scalar:
    """``log I_0(sqrt(s))``, whose derivative with respect to ``s`` is ``g / 2``."""
    r = safe_sqrt(s)
    return r + jnp.log(jax.scipy.special.i0e(r))


@log_bessel.defjvp
def _log_bessel_jvp(primals, tangents):
    (s,), (ds,) = primals, tangents
    return log_bessel(s), 0.5 * mean_factor(s) * ds


class VonMises(AbstractExponentialFamily):
    """Von Mises distributions of an angle: ``theta = concentration * (cos(mean), sin(mean))``, any point of the plane.

    `pack` takes, and `unpack` returns, the ``mean`` angle and the ``concentration``, above zero. ``theta`` are the
    natural parameters for the statistic ``(cos x, sin x)``: angles wrap around by themselves, and geodesics, which have
    no closed form, pass smoothly through the uniform distribution, ``theta = 0``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import dist
    >>> from scoregeo.fisher_rao import FisherRaoMetric, VonMises
    >>> a = VonMises().pack(mean=3.1, concentration=2.0)
    >>> b = VonMises().pack(mean=-3.1, concentration=2.0)
    >>> round(float(dist(FisherRaoMetric(VonMises()), a, b)), 3)
    0.098
    """

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``mean`` and ``concentration``."""
        return {"mean": Real(), "concentration": Positive()}

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Univariate."""
        return ()

    def pack(self, *values, **named) -> Point:
        """``theta`` from the mean angle and the concentration, in order or by name. Errors as in
        `AbstractFamily.pack`."""
        mean, concentration = super().pack(*values, **named)
        return concentration * jnp.stack([jnp.cos(mean), jnp.sin(mean)])

    def unpack(self, theta: Point) -> tuple[Array, Array]:
        """The mean angle, in (-pi, pi], and the concentration at ``theta``."""
        return jnp.arctan2(theta[1], theta[0]), jnp.hypot(theta[0], theta[1])

    def check(self, theta: Any, name: str = "theta") -> Point:
        """``theta`` as a point ``(2,)``: all are allowed."""
        return as_point(theta, name, dim=2)

    def domain(self, theta: Point) -> Scalar:
        """One: there is no boundary."""
        return jnp.ones((), theta.dtype)

    def to_unconstrained(self, theta: Point) -> Vector:
        """``theta`` itself."""
        return theta

    def from_unconstrained(self, u: Vector) -> Point:
        """``u`` itself."""
        return u

    def log_prob(self, theta: Point, x: Scalar) -> Scalar:
        """The log density of the angle ``x``, for any real ``x``."""
        return theta @ self.sufficient_statistic(x) - self.log_partition(theta)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` independent angles in (-pi, pi], shape ``(n,)``, by rejection from a wrapped Cauchy distribution (Best
        & Fisher 1979)."""
        mean, concentration = self.unpack(theta)
        # This form has no cancellation: width = (1 - p) / (1 + p) for the mean resultant length p of the proposals.
        tau = 1 + jnp.hypot(1, 2 * concentration)
        over = 0.5 * jnp.sqrt(tau) * (jnp.sqrt(tau) + jnp.sqrt(2.0).astype(tau.dtype))  # concentration / p
        p = concentration / over
        width = (1 - p) / (1 + p)

        def propose(state):
            key, angles, done = state
            key, key_angle, key_accept = jax.random.split(key, 3)
            u = jax.random.uniform(key_angle, (n,), theta.dtype, -1, 1)
            proposal = 2 * jnp.arctan(width * jnp.tan(0.5 * jnp.pi * u))
            c = 0.5 * over * (1 - p) ** 2 + 2 * concentration * jnp.sin(proposal / 2) ** 2
            accept = jax.random.exponential(key_accept, (n,), theta.dtype) >= c - 1 - jnp.log(c)
            return key, jnp.where(done, angles, proposal), done | accept

        state = (key, jnp.zeros(n, theta.dtype), jnp.zeros(n, bool))
        angles = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), propose, state)[1] + mean
        return jnp.arctan2(jnp.sin(angles), jnp.cos(angles))

    def inner_product(self, theta: Point) -> DenseInnerProduct:
        """The Fisher information (1)."""
        g, slope = jax.value_and_grad(mean_factor)(theta @ theta)
        return DenseInnerProduct(g * jnp.eye(2, dtype=theta.dtype) + 2 * slope * jnp.outer(theta, theta))

    def sufficient_statistic(self, x: Scalar) -> Vector:
        """``(cos x, sin x)``."""
        return jnp.stack([jnp.cos(x), jnp.sin(x)])

    def log_partition(self, eta: Vector) -> Scalar:
        """``log(2 pi I_0(|eta|))``."""
        return log_bessel(eta @ eta) + float(np.log(2 * np.pi))

    def natural(self, theta: Point) -> Vector:
        """``theta`` itself."""
        return theta

    def from_natural(self, eta: Vector) -> Point:
        """``eta`` itself."""
        return eta

    def expectation(self, theta: Point) -> Vector:
        """``E[(cos x, sin x)]``."""
        return mean_factor(theta @ theta) * theta
