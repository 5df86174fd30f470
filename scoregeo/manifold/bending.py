"""How the data bend in the space around them: second fundamental form, mean curvature, Gauss curvature.

With the projectors P_T on the tangent space and P_N = I - P_T, and J the Jacobian of the score at noise level sigma,

    II(u, v) = P_N sigma^2 (D_u J) v,      u, v tangent                                                  (3)

up to an error of sigma^2: P = I + sigma^2 J is nearly P_T, and P_N (D_u P_T) v is the second fundamental form of a
submanifold of any codimension.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import as_point, as_points
from .._numerics import program
from .._types import Point, Scalar, Vector
from ..scores import AbstractScore
from ..scores.base import field
from .tangent import check_arguments, check_dimension, leading_eigenvectors, projector_mv


def second_fundamental_form(
    score: AbstractScore | Callable[[Point], Vector],
    x: Point,
    u: Vector,
    v: Vector,
    noise_level: float | Scalar | None = None,
    *,
    basis: Float[Array, "k d"] | None = None,
) -> Vector:
    """The second fundamental form ``II(u, v)`` of the data at ``x``: the normal part of how a curve along them turns.

    **Arguments**

    - ``score``, ``x``, ``noise_level``: as in `tangent_projector`. ``x`` has to be on the data: a tenth of the radius
      of curvature away, the error is a tenth too.
    - ``u``, ``v``: shape ``(d,)``; their tangent parts are taken.
    - ``basis``: an orthonormal basis of the tangent space, that of `tangent_space`, shape ``(k, d)``. By default the
      projectors are P and I - P, which are projectors up to an error of sigma^2.

    Returns a vector ``(d,)``, with units 1/length for unit vectors. One Jacobian-vector product of a Jacobian-vector
    product; the error is of the order of sigma^2 over the squared radius of curvature, see `extrapolate`. Raises
    ``ValueError`` as `tangent_projector`.

    >>> import jax.numpy as jnp
    >>> from scoregeo import KernelDensityScore
    >>> from scoregeo.manifold import second_fundamental_form
    >>> angles = jnp.arange(100) * (2 * jnp.pi / 100)
    >>> circle = KernelDensityScore(2 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1), 0.1)
    >>> u = jnp.array([0.0, 1.0])
    >>> round(float(second_fundamental_form(circle, jnp.array([2.0, 0.0]), u, u, 0.1)[0]), 2)  # to the centre
    -0.5
    """
    score, x, noise_level = check_arguments(score, x, noise_level)
    u, v = (as_point(w, name, dim=x.size).astype(x.dtype) for w, name in ((u, "u"), (v, "v")))
    if basis is not None:
        basis = as_points(basis, "basis", dim=x.size).astype(x.dtype)
    return _second_fundamental_form(score, x, u, v, noise_level, basis)


def mean_curvature(
    score: AbstractScore | Callable[[Point], Vector], x: Point, k: int, noise_level: float | Scalar | None = None
) -> Vector:
    """The mean curvature vector of the data at ``x``, shape ``(d,)``: the mean of ``II(e, e)`` over an orthonormal
    basis of the tangent space.

    ``k`` is the dimension of the data; other arguments, accuracy and errors as in `second_fundamental_form`. On a
    sphere of radius R it points to the centre and has length 1/R.

    >>> import jax.numpy as jnp
    >>> from scoregeo import KernelDensityScore
    >>> from scoregeo.manifold import mean_curvature
    >>> angles = jnp.arange(100) * (2 * jnp.pi / 100)
    >>> circle = KernelDensityScore(2 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1), 0.1)
    >>> round(float(mean_curvature(circle, jnp.array([2.0, 0.0]), 1, 0.1)[0]), 2)
    -0.5
    """
    score, x, noise_level = check_arguments(score, x, noise_level)
    return _curvatures(score, x, noise_level, check_dimension(k, x))[0]


def gauss_curvature(
    score: AbstractScore | Callable[[Point], Vector], x: Point, k: int, noise_level: float | Scalar | None = None
) -> Scalar:
    """The mean of the sectional curvatures of the data over all tangent planes at ``x``: for surfaces, k = 2, the Gauss
    curvature.

    By Gauss's equation, ``<II(u, u), II(v, v)> - |II(u, v)|^2`` for orthonormal u and v: bending in the space around
    is not curvature of the data themselves, a Swiss roll is flat. ``k`` is the dimension of the data, at least 2; other
    arguments, accuracy and errors as in `second_fundamental_form`. Extrapolate it:

    >>> import jax.numpy as jnp
    >>> from scoregeo import KernelDensityScore
    >>> from scoregeo.manifold import extrapolate, gauss_curvature
    >>> i = jnp.arange(3000) + 0.5  # a Fibonacci lattice on the sphere of radius 2
    >>> z, angles = 1 - 2 * i / 3000, jnp.pi * (1 + 5**0.5) * i
    >>> sphere = 2 * jnp.stack([jnp.sqrt(1 - z**2) * jnp.cos(angles), jnp.sqrt(1 - z**2) * jnp.sin(angles), z], 1)
    >>> levels = jnp.array([0.2, 0.4])
    >>> found = [gauss_curvature(KernelDensityScore(sphere, level), sphere[700], 2, level) for level in levels]
    >>> round(float(extrapolate(levels, jnp.stack(found))), 2)
    0.25
    """
    score, x, noise_level = check_arguments(score, x, noise_level)
    return _curvatures(score, x, noise_level, check_dimension(k, x, least=2))[1]


def _turning(score: AbstractScore, x: Point, noise_level: Scalar) -> Callable[[Vector, Vector], Vector]:
    """``sigma^2 (D_u J) v``."""

    def turning(u: Vector, v: Vector) -> Vector:
        return noise_level**2 * jax.jvp(lambda y: jax.jvp(field(score), (y,), (v,))[1], (x,), (u,))[1]

    return turning


@program
def _second_fundamental_form(score, x, u, v, noise_level, basis):
    def onto(w):
        return basis.T @ (basis @ w)

    project = projector_mv(score, x, noise_level) if basis is None else onto
    turned = _turning(score, x, noise_level)(project(u), project(v))
    return turned - project(turned)


@program
def _curvatures(score, x, noise_level, k):
    """Mean curvature vector and mean sectional curvature."""
    basis = leading_eigenvectors(projector_mv(score, x, noise_level), k, x)
    turning = _turning(score, x, noise_level)

    def row(u) -> Float[Array, "k d"]:
        turned = jax.vmap(turning, (None, 0))(u, basis)
        return turned - turned @ basis.T @ basis

    forms: Float[Array, "k k d"] = jax.lax.map(row, basis)
    total = jnp.einsum("aad->d", forms)
    sectional = (total @ total - jnp.sum(forms**2)) / (k * (k - 1)) if k > 1 else jnp.zeros((), x.dtype)
    return total / k, sectional
