"""Derivatives of what a solver found with respect to the problem it solved, by the implicit function theorem."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .legendre import Basis, Coefficients
from .newton import conjugate_gradients


def split_dynamic(tree: Any, tangent: Any) -> tuple[Any, Any, Any]:
    """The differentiable leaves of ``tree``, the others, and ``tangent`` with zeros where it has none."""
    dynamic, static = eqx.partition(tree, eqx.is_inexact_array)
    dots = jax.tree.map(
        lambda p, t: jnp.zeros_like(p) if t is None and p is not None else t,
        dynamic,
        tangent,
        is_leaf=lambda leaf: leaf is None,
    )
    return dynamic, static, dots


def coefficients_tangent(
    dynamic: Any, static: Any, dots: Any, basis: Basis, c: Coefficients, accuracy: float, max_cg: int
) -> Coefficients:
    """How the stationary coefficients ``c`` of a `PathEnergy` move with it: dc = -H^-1 d(dE/dc).

    ``dynamic``, ``static`` and ``dots`` are those of `split_dynamic`. H^-1 by conjugate gradients on Hessian-vector
    products, to a relative ``accuracy``, with the preconditioner of the metric.
    """

    def gradient(dynamic, c):
        return jax.grad(lambda c: eqx.combine(dynamic, static)(basis, c))(c)

    _, dg = jax.jvp(lambda p: gradient(p, c), (dynamic,), (dots,))
    hessian = jax.linearize(lambda c: gradient(dynamic, c), c)[1]
    preconditioner = eqx.combine(dynamic, static).frozen().preconditioner(basis, c)

    def solve(matvec, b):
        # The inverse on coefficients of paths that end where they should; the others do not move the path.
        b = basis.project(b)
        z = preconditioner.solve(b)
        size = jnp.sum(b * z)
        return conjugate_gradients(matvec, preconditioner.solve, -b, z, size, accuracy**2 * size, max_cg)[0]

    return jax.lax.custom_linear_solve(hessian, -dg, solve, symmetric=True)
