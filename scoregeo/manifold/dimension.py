"""How many dimensions the data have at a point, by one noise level. Equations are those of the package's docstring."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from .._checks import check_count
from .._numerics import program
from .._traces import check_probes, directions, jackknife, trace, weighted_mean, weighted_pair_mean
from .._types import Point, Scalar, Vector
from ..scores import AbstractScore
from ..scores.base import field
from .tangent import all_products, check_arguments, projector_mv


def intrinsic_dimension(
    score: AbstractScore | Callable[[Point], Vector],
    x: Point,
    noise_level: float | Scalar | None = None,
    *,
    probes: int | None = None,
    key: PRNGKeyArray | None = None,
    with_error: bool = False,
) -> Any:
    """The dimension of the data at ``x``: ``d + sigma^2 (tr J + |s|^2)``, the trace of equation (1), a real number.

    **Arguments**

    - ``score``, ``x``, ``noise_level``: as in `tangent_projector`. ``x`` is a clean point: over *noisy* points the mean
      is d, whatever the data. Of the noise levels, a small one counts the noise that the data have, a large one
      sees no curved directions: see `dimension_curve` and `knee`.
    - ``probes``: estimate the trace with so many random directions (Hutchinson), at least three. ``None`` is the exact
      trace, with d Jacobian-vector products, up to d = 1024.
    - ``key``: for the directions; needed with ``probes``.
    - ``with_error``: return the pair of the value and its standard error, which is zero for the exact trace.

    Raises ``ValueError`` as `tangent_projector`, and beyond d = 1024 without ``probes``. Known as FLIPD (Kamkari et al.
    2024, arXiv 2406.03537).

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.manifold import intrinsic_dimension
    >>> plane = GaussianScore(jnp.zeros(3), jnp.diag(jnp.array([4.0, 1.0, 0.0]) + 0.01))  # with noise of 0.1
    >>> round(float(intrinsic_dimension(plane, jnp.array([1.0, 0.0, 0.0]), 0.1)), 2)
    1.99
    """
    return _by_directions(_intrinsic_dimension, score, x, noise_level, probes, key, with_error)


def participation_rank(
    score: AbstractScore | Callable[[Point], Vector],
    x: Point,
    noise_level: float | Scalar | None = None,
    *,
    probes: int | None = None,
    key: PRNGKeyArray | None = None,
    with_error: bool = False,
) -> Any:
    """The participation rank ``(tr P)^2 / tr P^2`` of equation (2): how many eigenvalues of P are not small.

    It is k for a projector of rank k, whatever the size of the eigenvalues. Arguments, result and errors as in
    `intrinsic_dimension`; with ``probes``, the square of the trace is the mean over pairs of distinct directions.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.manifold import participation_rank
    >>> plane = GaussianScore(jnp.zeros(3), jnp.diag(jnp.array([4.0, 1.0, 0.0]) + 0.01))
    >>> round(float(participation_rank(plane, jnp.zeros(3), 0.1)), 2)
    2.0
    """
    return _by_directions(_participation_rank, score, x, noise_level, probes, key, with_error)


def normal_bundle_dimension(
    score: AbstractScore | Callable[[Point], Vector],
    x: Point,
    noise_level: float | Scalar | None,
    key: PRNGKeyArray,
    *,
    samples: int | None = None,
) -> Int[Array, ""]:
    """The dimension of the data at ``x`` by the scores around it, which point in normal directions: a whole number.

    **Arguments**

    - ``score``, ``x``, ``noise_level``: as in `tangent_projector`.
    - ``key``: for the ``samples`` points ``x + noise_level z`` with z standard normal; by default 4 d of them, and at
      least d.

    The singular values of the ``(samples, d)`` scores fall from large (normal directions) to small ones (tangent
    directions). The largest gap between neighbours says how many are which; the answer is at least 1 and at most
    d - 1, in d >= 2 dimensions. Raises ``ValueError`` as `tangent_projector`. Source: Stanczuk et al. 2022, arXiv
    2212.12611.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.manifold import normal_bundle_dimension
    >>> plane = GaussianScore(jnp.zeros(3), jnp.diag(jnp.array([4.0, 1.0, 0.0]) + 0.01))
    >>> int(normal_bundle_dimension(plane, jnp.zeros(3), 0.1, jax.random.key(0)))
    2
    """
    score, x, noise_level = check_arguments(score, x, noise_level)
    if x.size < 2:
        raise ValueError(f"`x` must have at least 2 dimensions, got shape {x.shape}")
    samples = 4 * x.size if samples is None else check_count("samples", samples, x.size)
    return _normal_bundle_dimension(score, x, noise_level, key, samples)


def denoising_dimension(
    score: AbstractScore | Callable[[Point], Vector],
    x: Point,
    noise_level: float | Scalar | None,
    key: PRNGKeyArray,
    *,
    samples: int = 64,
    with_error: bool = False,
) -> Any:
    """The dimension of the data at ``x`` by the noise that denoising leaves: the mean of ``|z|^2 - |sigma s|^2`` at
    noisy points ``x + sigma z``, a real number.

    Of the noise z, a denoiser finds -sigma s: the part that is normal to the data. No derivative is taken, and the
    score is asked at points such as it was trained on. That counts for a *learned* score in many dimensions: points
    as close to the data as ``x`` are unlike any noisy one, and derivatives there, from which `intrinsic_dimension` is
    read, may be far off. The mean over the data is that of the trace of P at noisy points.

    **Arguments**

    - ``score``, ``x``, ``noise_level``: as in `tangent_projector`.
    - ``key``: for the ``samples`` noisy points, at least three.
    - ``with_error``: return the pair of the value and its standard error.

    Raises ``ValueError`` as `tangent_projector`.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.manifold import denoising_dimension
    >>> plane = GaussianScore(jnp.zeros(3), jnp.diag(jnp.array([4.0, 1.0, 0.0]) + 0.01))
    >>> value, error = denoising_dimension(plane, jnp.zeros(3), 0.1, jax.random.key(0), with_error=True)
    >>> bool(abs(value - 2) < 3 * error), bool(error < 0.4)
    (True, True)
    """
    score, x, noise_level = check_arguments(score, x, noise_level)
    value = _denoising_dimension(score, x, noise_level, key, check_count("samples", samples, 3))
    return value if with_error else value[0]


def _by_directions(estimate, score, x, noise_level, probes, key, with_error):
    """What is public of an estimate by products with `directions`: its arguments are checked, its error optional."""
    score, x, noise_level = check_arguments(score, x, noise_level)
    value = estimate(score, x, noise_level, check_probes(probes, key, x.size), key)
    return value if with_error else value[0]


@program
def _denoising_dimension(score, x, noise_level, key, samples):
    noise = jax.random.normal(key, (samples, x.size), x.dtype)
    found = noise_level * all_products(field(score), x + noise_level * noise)
    # As a product of sum and difference: what is left of d numbers may be small.
    terms = jnp.sum((noise - found) * (noise + found), 1)
    return jnp.mean(terms), jnp.std(terms, ddof=1) / jnp.sqrt(samples)


@program
def _intrinsic_dimension(score, x, noise_level, probes, key):
    us = directions(probes, key, x.size, x.dtype)
    s, push = jax.linearize(field(score), x)
    terms = jnp.sum(us * all_products(push, us), 1)
    value, error = trace(terms, probes)
    factor = noise_level**2
    return x.size + factor * (s @ s) + factor * value, factor * error


@program
def _participation_rank(score, x, noise_level, probes, key):
    us = directions(probes, key, x.size, x.dtype)
    products = all_products(projector_mv(score, x, noise_level), us)
    traces, squares = jnp.sum(us * products, 1), jnp.sum(products**2, 1)
    if probes is None:
        return jnp.sum(traces) ** 2 / jnp.sum(squares), jnp.zeros((), x.dtype)

    def rank(weights):
        return weighted_pair_mean(jnp.outer(traces, traces), weights) / weighted_mean(squares, weights)

    return jackknife(rank, probes, x.dtype)


@program
def _normal_bundle_dimension(score, x, noise_level, key, samples):
    around = x + noise_level * jax.random.normal(key, (samples, x.size), x.dtype)
    values = jnp.linalg.svd(all_products(field(score), around), compute_uv=False)
    return x.size - 1 - jnp.argmax(values[:-1] - values[1:])
