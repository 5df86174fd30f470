"""The path that the spectral solver finds, as a differentiable function of the problem."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .basis import Coefficients
from .lanes import solve_levels
from .levels import Levels, SolveState
from .newton import conjugate_gradients
from .path_energy import PathEnergy


@eqx.filter_custom_jvp
def stationary_path(problem: PathEnergy, start: Coefficients, levels: Levels) -> SolveState:
    """`solve_levels`, differentiable with respect to everything in ``problem``.

    The energy by the envelope theorem, dE = (dE/dtheta) at the fixed path; the coefficients by the implicit function
    theorem on dE/dc = 0, that is dc = -H^-1 d(dE/dc)/dtheta, solved by the same preconditioned conjugate gradients.
    Elements, ``error`` and counts have derivative zero.
    """
    return solve_levels(problem, start, levels)


@stationary_path.def_jvp
def _stationary_path_jvp(primals, tangents):
    problem, start, levels = primals
    dproblem = tangents[0]
    state = stationary_path(problem, start, levels)
    dynamic, static = eqx.partition(problem, eqx.is_inexact_array)
    dynamic_tangent = jax.tree.map(
        lambda p, t: jnp.zeros_like(p) if t is None and p is not None else t,
        dynamic,
        dproblem,
        is_leaf=lambda leaf: leaf is None,
    )

    def tangent(level, path, dynamic, dynamic_tangent):
        basis = levels.level_basis(path.breaks, level)
        elements = levels.elements[level]
        c = path.c[:elements]

        def energy(dynamic, c):
            return eqx.combine(dynamic, static)(basis, c)

        def gradient(dynamic, c):
            return jax.grad(energy, argnums=1)(dynamic, c)

        _, de = jax.jvp(lambda p: energy(p, c), (dynamic,), (dynamic_tangent,))
        _, dg = jax.jvp(lambda p: gradient(p, c), (dynamic,), (dynamic_tangent,))
        hessian = jax.linearize(lambda c: gradient(dynamic, c), c)[1]
        preconditioner = eqx.combine(dynamic, static).frozen().preconditioner(basis, c)

        def solve(matvec, b):
            # The inverse on coefficients of paths that end where they should; the others do not move the path.
            b = basis.project(b)
            z = preconditioner.solve(b)
            size = jnp.sum(b * z)
            target = levels.tolerance**2 * size
            return conjugate_gradients(matvec, preconditioner.solve, -b, z, size, target, 4 * levels.max_cg)[0]

        dc = jax.lax.custom_linear_solve(hessian, -dg, solve, symmetric=True)
        return jnp.zeros_like(path.c).at[:elements].set(dc), de

    branches = [lambda *args, level=level: tangent(level, *args) for level in range(len(levels.elements))]
    dc, de = jax.lax.switch(state.level, branches, state.best, dynamic, dynamic_tangent)
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else None, state)
    return state, zeros._replace(best=zeros.best._replace(c=dc), energy=de)
