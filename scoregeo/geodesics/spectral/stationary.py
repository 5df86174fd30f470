"""The path that the spectral solver finds, as a differentiable function of the problem."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .energy import PathEnergy
from .implicit import coefficients_tangent, split_dynamic
from .lanes import solve_levels
from .legendre import Coefficients
from .refinement import Levels, SolveState


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
    state = stationary_path(problem, start, levels)
    dynamic, static, dots = split_dynamic(problem, tangents[0])

    def tangent(level, path, dynamic, dots):
        basis = levels.level_basis(path.breaks, level)
        elements = levels.elements[level]
        c = path.c[:elements]
        _, de = jax.jvp(lambda p: eqx.combine(p, static)(basis, c), (dynamic,), (dots,))
        dc = coefficients_tangent(dynamic, static, dots, basis, c, levels.tolerance, 4 * levels.max_cg)
        return jnp.zeros_like(path.c).at[:elements].set(dc), de

    branches = [lambda *args, level=level: tangent(level, *args) for level in range(len(levels.elements))]
    dc, de = jax.lax.switch(state.level, branches, state.best, dynamic, dots)
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else None, state)
    return state, zeros._replace(best=zeros.best._replace(c=dc), energy=de)
