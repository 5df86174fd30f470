"""What a minimiser of the path energy finds, as a differentiable function of the problem: one rule for all of them.

The energy by the envelope theorem, dE = (dE/dtheta) at the fixed path; the coefficients by the implicit function
theorem on dE/dc = 0:

    dc = -H^-1 d(dE/dc)/dtheta                                                                             (1)

by conjugate gradients on Hessian-vector products, with the preconditioner of the metric. Everything else that a
minimiser returns has derivative zero.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..._numerics import with_own_settings
from ..._types import Scalar
from .energy import PathEnergy
from .legendre import Basis, Coefficients
from .newton import conjugate_gradients


class Linearisation(NamedTuple):
    """A problem and the direction in which it changes: its differentiable leaves, the others, and a tangent."""

    dynamic: Any
    static: Any
    dots: Any

    def energy_tangent(self, basis: Basis, c: Coefficients) -> Scalar:
        """How the energy of the fixed path ``c`` changes."""
        return jax.jvp(lambda p: eqx.combine(p, self.static)(basis, c), (self.dynamic,), (self.dots,))[1]

    def coefficients_tangent(
        self,
        basis: Basis,
        c: Coefficients,
        accuracy: float | np.floating,
        max_cg: int,
        active: Bool[Array, ""] | bool = True,
    ) -> Coefficients:
        """How the stationary coefficients ``c`` move, by (1), to a relative ``accuracy``. Zero, at no cost, where not
        ``active``."""

        def gradient(dynamic, c):
            return jax.grad(lambda c: eqx.combine(dynamic, self.static)(basis, c))(c)

        _, dg = jax.jvp(lambda p: gradient(p, c), (self.dynamic,), (self.dots,))
        dg = jnp.where(active, dg, 0)
        hessian = jax.linearize(lambda c: gradient(self.dynamic, c), c)[1]
        preconditioner = eqx.combine(self.dynamic, self.static).frozen().preconditioner(basis, c)

        def solve(matvec, b):
            # The inverse on coefficients of paths that end where they should; the others do not move the path.
            b = basis.project(b)
            z = preconditioner.solve(b)
            size = jnp.sum(b * z)
            return conjugate_gradients(matvec, preconditioner.solve, -b, z, size, accuracy**2 * size, max_cg)[0]

        return jax.lax.custom_linear_solve(hessian, -dg, solve, symmetric=True)


def linearisation(tree: Any, tangent: Any) -> Linearisation:
    """``tree`` with the direction ``tangent``, in which ``None`` stands for zero."""
    dynamic, static = eqx.partition(tree, eqx.is_inexact_array)
    dots = jax.tree.map(
        lambda p, t: jnp.zeros_like(p) if t is None and p is not None else t,
        dynamic,
        tangent,
        is_leaf=lambda leaf: leaf is None,
    )
    return Linearisation(dynamic, static, dots)


class AbstractMinimiser(eqx.Module):
    """Finds stationary paths of a `PathEnergy`, and knows where in its result their coefficients are."""

    @abc.abstractmethod
    def minimise(self, problem: PathEnergy, start: Coefficients) -> Any:
        """Lower the energy of ``problem`` from ``start``; any pytree that holds what was found. Not differentiated."""

    @abc.abstractmethod
    def tangent(self, found: Any, problem: Linearisation, zeros: Any, length_only: bool) -> Any:
        """``zeros``, the tangent of ``found`` with zeros everywhere, with those of coefficients and energy put in.

        Where ``length_only``, the coefficients may keep theirs if the length is found without.
        """


_filter_jit: Any = eqx.filter_jit  # whose type knows nothing of the options of `jax.jit`


@_filter_jit(inline=True)
def _minimise(minimiser: AbstractMinimiser, problem: PathEnergy, start: Coefficients) -> Any:
    # Traced once for its shapes, where a derivative would trace it again beside the value.
    return minimiser.minimise(problem, start)


@eqx.filter_custom_jvp
def stationary(minimiser: AbstractMinimiser, problem: PathEnergy, start: Coefficients, *, length_only: bool) -> Any:
    """``minimiser.minimise(problem, start)``, differentiable with respect to everything in ``problem``, in both modes
    and to any order. ``start`` has no influence on where a stationary path is, so its tangent is ignored.

    Where ``length_only``, nothing is derived from the path but its length: its own derivative, which takes as long to
    trace as the search itself, is left out where it can be.
    """
    return _minimise(minimiser, problem, start)


@stationary.def_jvp
@with_own_settings
def _stationary_jvp(primals, tangents, *, length_only):
    minimiser, problem, start = primals
    # A second derivative of the length needs the first one of the path.
    found = stationary(minimiser, problem, start, length_only=False)
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else None, found)
    return found, minimiser.tangent(found, linearisation(problem, tangents[1]), zeros, length_only)
