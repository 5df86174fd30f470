"""Newton's method for the path energy: truncated, preconditioned conjugate gradients with Armijo backtracking.

One loop body evaluates energy, gradient and preconditioner at the current path and, unless the path is already
stationary, takes a step. So the same body serves as solver and as error estimator: entered at a higher degree with an
old solution, its first evaluation gives what the finer discretisation thinks of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._types import Scalar
from ..metrics.inner_products import safe_sqrt
from .basis import Basis
from .path_energy import PathEnergy
from .preconditioner import BasisGrams, Coefficients

RUNNING, STATIONARY, ACCEPTED, STALLED, NONFINITE = range(5)


class Counts(NamedTuple):
    """Work done: Newton steps, conjugate gradient steps, and points at which the metric was evaluated."""

    newton: Array
    cg: Array
    metric: Array


class NewtonState(NamedTuple):
    """Where the iteration is; ``energy`` and ``gradient`` are those of ``c`` when the iteration has ended.

    ``gradient`` is the squared norm g^T P^-1 g: twice the energy that a Newton step expects to save. ``error`` is the
    estimated error of the length of the path that the iteration was entered with.
    """

    c: Coefficients
    energy: Scalar
    gradient: Scalar
    error: Scalar
    status: Array
    steps: Array
    counts: Counts


def _dot(a, b):
    return jnp.sum(a * b)


def conjugate_gradients(hessian, solve, g, z, g2, target, max_steps, escape=0.0):
    """Truncated CG for ``hessian p = -g``, preconditioned by ``solve``; returns p and the number of steps.

    Stops at the accuracy ``target`` (of the squared preconditioned residual), after ``max_steps``, or at negative
    curvature. There it adds the direction of that curvature, which is one of descent, with the length ``escape`` in the
    norm of the preconditioner: so a saddle is left, not converged to.
    """

    def step(carry):
        p, r, d, rz, dd, j, _ = carry
        hd = hessian(d)
        curvature = _dot(d, hd)
        # Not `curvature <= 0`: a NaN must end the loop too.
        negative = ~(curvature > 1e-14 * _dot(d, d))
        length = jnp.where(negative, escape / jnp.sqrt(dd), rz / jnp.where(negative, 1.0, curvature)).astype(rz.dtype)
        p, r = p + length * d, r - length * hd
        z = solve(r)
        new = _dot(r, z)
        beta = new / rz
        return p, r, z + beta * d, new, new + beta**2 * dd, j + 1, negative

    def more(carry):
        _, _, _, rz, _, j, negative = carry
        return (j < max_steps) & ~negative & (rz > target)

    start = (jnp.zeros_like(g), -g, z, g2, g2, jnp.zeros((), jnp.int32), jnp.asarray(False))
    p, _, _, _, _, j, _ = jax.lax.while_loop(more, step, start)
    return p, j


def newton(
    problem: PathEnergy,
    basis: Basis,
    c: Coefficients,
    counts: Counts,
    *,
    fraction: Scalar | float = 1.0,
    tolerance: Scalar | float,
    max_steps: int | Array,
    max_cg: int,
    coarse_length: Scalar | float = jnp.inf,
    rtol: float = 0.0,
    path_rtol: float = 1.0,
) -> NewtonState:
    """Minimise the energy over the coefficients, from ``c``, until g^T P^-1 g <= tolerance^2 * 2 E.

    ``coarse_length`` is the length of the path ``c`` in the coarser discretisation that found it. If the finer one
    estimates its error below ``rtol`` times the length, and that of the path below ``path_rtol``, it is ``ACCEPTED`` as
    it is.
    """
    eps = jnp.finfo(c.dtype).eps
    q = basis.t.size
    grams = BasisGrams.of(basis)

    def energy(c):
        return problem(basis, c, fraction)

    def step(state: NewtonState) -> NewtonState:
        c = state.c
        (e, g), linearised = jax.linearize(jax.value_and_grad(energy), c)
        preconditioner = problem.preconditioner(basis, grams, c, fraction)
        z = preconditioner.solve(-g)
        g2 = _dot(-g, z)
        finite = jnp.isfinite(e) & jnp.isfinite(g2)
        length = safe_sqrt(2 * e)
        expected_gain = jnp.where(length > 0, g2 / (2 * jnp.where(length > 0, length, 1)), 0)
        error = jnp.where(
            state.steps == 0, jnp.abs(length - coarse_length) + expected_gain + 4 * eps * length, state.error
        )
        stationary = g2 <= tolerance**2 * 2 * e
        good_enough = (state.steps == 0) & (error <= rtol * length) & (g2 <= path_rtol**2 * 2 * e)
        active = finite & ~stationary & ~good_enough & (state.steps < max_steps)

        # Superlinear forcing: solve the Newton system loosely far away, tightly when close (Eisenstat & Walker 1996).
        target = jnp.where(active, jnp.clip(g2 / e, 1e-8, 1e-2) * g2, jnp.inf)
        p, cg_steps = conjugate_gradients(
            lambda d: linearised(d)[1], preconditioner.solve, g, z, g2, target, max_cg, escape=0.1 * length
        )
        slope = _dot(g, p)
        downhill = slope < 0
        p, slope = jnp.where(downhill, p, z), jnp.where(downhill, slope, -g2)
        noise = 8 * eps * e

        def worse(carry):
            a, new, k = carry
            return ~(new <= e + 1e-4 * a * slope + noise) & (k < 30) & active

        def halve(carry):
            a, _, k = carry
            return a / 2, energy(c + a / 2 * p), k + 1

        first = (jnp.ones((), c.dtype), energy(c + p), jnp.zeros((), jnp.int32))
        a, new, halvings = jax.lax.while_loop(worse, halve, first)
        accepted = active & (new <= e + noise)
        # Where rounding stops the descent just above the tolerance, the path is as good as this precision gives.
        stalled = active & ~accepted
        at_floor = stalled & (g2 <= (1e3 * tolerance) ** 2 * 2 * e)
        status = jnp.where(stationary | at_floor, STATIONARY, jnp.where(stalled, STALLED, RUNNING))
        status = jnp.where(good_enough, ACCEPTED, status)
        status = jnp.where(finite, status, NONFINITE).astype(jnp.int32)
        counts = Counts(
            state.counts.newton + active,
            state.counts.cg + cg_steps,
            state.counts.metric + q * (1 + cg_steps + active * (1 + halvings)),
        )
        return NewtonState(jnp.where(accepted, c + a * p, c), e, g2, error, status, state.steps + 1, counts)

    # `max_steps` steps, and one evaluation more to see where they led; with `max_steps = 0`, that evaluation alone.
    def more(state):
        return (state.status == RUNNING) & (state.steps <= max_steps)

    inf = jnp.asarray(jnp.inf, c.dtype)
    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(more, step, NewtonState(c, inf, inf, inf, zero + RUNNING, zero, counts))
