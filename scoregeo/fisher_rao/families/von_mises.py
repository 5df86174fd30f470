"""Von Mises distributions, the normal distributions of angles.

With mean angle m and concentration r, p(x) = exp(r cos(x - m)) / (2 pi I_0(r)). The parameters are polar coordinates
with a singularity at r = 0, the uniform distribution, where the family itself is smooth. The coordinates here are
therefore the natural parameters eta = r (cos m, sin m), with log partition log I_0(|eta|) (up to a constant) and

    mu = g eta,     F = g I - h eta eta^T,      g = I_1(r) / (r I_0(r)),    h = -(dg/dr) / r,                  (1)

where g and h are smooth functions of s = r^2. Across eta the information is g, along it q = g - s h. By the series of
I_0^2 and of such products, all of positive terms, with a_k = (2k)! / k!^4 (r / 2)^2k,

    g = sum_k a_k (k + 1/2) / (k + 1)^2 / S,   q = sum_k a_k / 2 / (k + 1)^2 / S,   S = sum_k a_k = I_0^2.       (2)

For large r, g is about 1 / r and q about 1 / (2 r^2).

The most likely distribution has the mean vector mu of the samples: eta = mu / g. For its length R = I_1 / I_0,
1 - R^2 = g + q, which for concentrated samples is known to more digits than R: log(R) - log(1 - R^2) / 2 is an almost
straight function of log(r), of slope 1 to 1/2.                                                              (3)
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..._checks import as_point
from ..._numerics import safe_sqrt
from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar, Vector
from ..base import AbstractExponentialFamily
from ..factored import FactoredInnerProduct
from ..fitting import NOT_LEVEL, all_equal, average, increasing_root
from ..supports import AbstractSupport, Positive, Real


def _ratio_series(terms: int) -> list[float]:
    """``c_j`` of ``I_1(r) / I_0(r) = sum_j c_j r^-j`` for large r, from ``f' = 1 - f / r - f^2``."""
    c = [1.0]
    for j in range(1, terms):
        c.append(((j - 2) * c[j - 1] - sum(c[i] * c[j - i] for i in range(1, j))) / 2)
    return c


# Up to this r by the series (2), beyond by the asymptotic one.
_LARGE = 30.0


def _near_coefficients(terms: int) -> Float[np.ndarray, "terms 4"]:
    """Coefficients of the sums of g, q, h and 1 in (2) as functions of s / _LARGE^2, from the last; times a number with
    which the squares of the sums are within the range of float32."""
    k = np.arange(terms)
    a = np.array([math.factorial(2 * j) * int(_LARGE / 2) ** (2 * j) / math.factorial(j) ** 4 for j in k.tolist()])
    h = np.append((a * k / (k + 1) ** 2)[1:] / _LARGE**2, 0)
    return 1e-12 * np.stack([a * (k + 0.5) / (k + 1) ** 2, a / 2 / (k + 1) ** 2, h, a], 1)[::-1]


def _far_coefficients(terms: int) -> Float[np.ndarray, "terms 3"]:
    """Coefficients of r g, r q and r^3 h as functions of 1 / r, from the last: I_1 / I_0 = sum_j c_j r^-j, and q is the
    derivative of that."""
    c = np.array(_ratio_series(terms))
    j = np.arange(terms)
    return np.stack([c, -j * c, (1 + j) * c], 1)[::-1]


_NEAR, _FAR = _near_coefficients(100), _far_coefficients(26)


def _polynomials(coefficients: Float[np.ndarray, "terms n"], x: Scalar) -> Float[Array, " n"]:
    """Polynomials with these coefficients, from the last, at ``x``."""
    rows = jnp.asarray(coefficients, x.dtype)
    return jax.lax.scan(lambda sums, row: (sums * x + row, None), jnp.zeros_like(rows[0]), rows)[0]


def information(s: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """``g``, ``q`` and ``h`` of (1) and (2) as functions of ``s = r^2``, accurate to rounding."""
    large = s > _LARGE**2
    *sums, total = _polynomials(_NEAR, jnp.where(large, 0, s) / _LARGE**2)
    inverse = 1 / jnp.sqrt(jnp.where(large, s, _LARGE**2))
    far = _polynomials(_FAR, inverse) * jnp.stack([inverse, inverse, inverse**3])
    across, along, bend = jnp.where(large, far, jnp.stack(sums) / total)
    return across, along, bend


@jax.custom_jvp
def mean_factor(s: Scalar) -> Scalar:
    """``g`` of (1) as a function of ``s = r^2``: 1/2 at zero, accurate to rounding with its derivative everywhere."""
    return information(s)[0]


@mean_factor.defjvp
def _mean_factor_jvp(primals, tangents):
    across, _, bend = information(*primals)
    return across, -0.5 * bend * tangents[0]


@jax.custom_jvp
def log_bessel(s: Scalar) -> Scalar:
    """``log I_0(sqrt(s))``, whose derivative with respect to ``s`` is ``g / 2``."""
    r = safe_sqrt(s)
    return r + jnp.log(jax.scipy.special.i0e(r))


@log_bessel.defjvp
def _log_bessel_jvp(primals, tangents):
    (s,), (ds,) = primals, tangents
    return log_bessel(s), 0.5 * mean_factor(s) * ds


def _level(target: Scalar, log_r: Scalar) -> Scalar:
    """Zero where (3) is ``target``."""
    across, along, _ = information(jnp.exp(2 * log_r))
    return log_r + jnp.log(across) - jnp.log(across + along) / 2 - target


@jax.custom_jvp
def natural_from_mean(mu: Vector, rest: Scalar) -> tuple[Vector, Bool[Array, ""]]:
    """The natural parameters with mean vector ``mu``, and whether they were found; ``rest`` is ``1 - |mu|^2``, to more
    digits. Smooth at zero, to which the derivative (that of ``mu`` alone) is the inverse of (1)."""
    mu, rest = jax.lax.stop_gradient((mu, rest))
    length = jnp.maximum(jnp.hypot(*mu), 1e-15)
    near = length < 0.9
    guess = length * (2 - length**2) / jnp.where(near, rest, 1)
    start = jnp.log(jnp.where(near, guess, 1 / rest))
    log_r, found = increasing_root(_level, start, jnp.log(length) - jnp.log(rest) / 2)
    return mu / information(jnp.exp(2 * log_r))[0], found


@natural_from_mean.defjvp
def _natural_from_mean_jvp(primals, tangents) -> Any:
    eta, found = natural_from_mean(*primals)
    across, along, bend = information(jnp.where(found, eta @ eta, 0))
    change = (tangents[0] + eta * (eta @ tangents[0]) * bend / along) / across
    return (eta, found), (jnp.where(found, change, 0), np.zeros((), jax.dtypes.float0))


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

    degenerate: ClassVar[str] = "all samples are equal, and the concentration would be infinite"

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The distribution with the mean vector of the samples, seen from their mean angle."""
        mean = average(jax.vmap(self.sufficient_statistic)(samples), weights)
        angle = jax.lax.stop_gradient(jnp.arctan2(mean[1], mean[0]))
        change = samples - angle
        off, sine = average(2 * jnp.sin(change / 2) ** 2, weights), average(jnp.sin(change), weights)
        rest = off * (2 - off) - sine**2
        varies = ~all_equal(samples, weights) & (rest > 4 * jnp.finfo(samples.dtype).eps ** 2)
        mu = jnp.where(varies, jnp.stack([1 - off, sine]), 0)
        eta, found = natural_from_mean(mu, jnp.where(varies, rest, 1))
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        theta = jnp.stack([cos * eta[0] - sin * eta[1], sin * eta[0] + cos * eta[1]])
        return theta, first_failure([(~varies, RESULTS.no_maximum), (~found, NOT_LEVEL)])

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

    def inner_product(self, theta: Point) -> FactoredInnerProduct:
        """The Fisher information (1)."""
        s, squares = jnp.sum(theta**2), theta**2
        across, along, bend = information(s)
        # A sum of positive terms, but where the direction of theta is about to be lost.
        far = s > 1
        mixed = (across * squares[::-1] + along * squares) / jnp.where(far, s, 1)
        diagonal = jnp.where(far, mixed, across - bend * squares)
        off, root = -bend * theta[0] * theta[1], jnp.sqrt(diagonal[0])
        factor = [[root, off / root], [jnp.zeros_like(s), jnp.sqrt(across * along) / root]]
        rows = [[diagonal[0], off], [off, diagonal[1]]]
        return FactoredInnerProduct(*(jnp.stack([jnp.stack(row) for row in matrix]) for matrix in (factor, rows)))

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
