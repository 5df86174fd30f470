"""Newton's method for the path energy: what is known at a path, and the step from there by conjugate gradients."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._types import Scalar
from .energy import PathEnergy
from .legendre import HIGHEST, Basis, Coefficients
from .preconditioners import AbstractPreconditioner


class Evaluation(NamedTuple):
    """What is known at a path: its energy, gradient ``g`` and Newton's equation.

    ``z = -P^-1 g``, and ``gain = g^T P^-1 g``: twice the energy that a Newton step expects to save. Where that was not
    worth a preconditioner P, these are of the identity, and P is zero.
    """

    c: Coefficients
    energy: Scalar
    g: Coefficients
    z: Coefficients
    gain: Scalar
    hessian: Callable
    preconditioner: AbstractPreconditioner


class Step(NamedTuple):
    """Where Newton's method leads from a path: a direction of descent, the slope of the energy along it, and the
    conjugate gradient steps it took."""

    direction: Coefficients
    slope: Scalar
    cg_steps: Array


def _dot(a: Coefficients, b: Coefficients) -> Scalar:
    # Not the sum of a product, of which XLA makes a tree of kernels for each of many calls.
    return jnp.dot(a.reshape(-1), b.reshape(-1), precision=HIGHEST)


def evaluate(
    problem: PathEnergy,
    basis: Basis,
    c: Coefficients,
    fraction: Scalar | float = 1.0,
    enough: Callable[[Scalar, Scalar], Array] | None = None,
) -> Evaluation:
    """Energy, gradient and preconditioner at the path with coefficients ``c``.

    The preconditioner can cost ten times all else. It is left out where ``enough(energy, g^T g)`` says that these two
    are all that matters. For metrics that are known to be no less than Euclid, ``g^T g`` is an upper bound of the gain.
    """
    weights = basis.weights

    def gradient(points, velocities):
        density = jax.value_and_grad(lambda x, v: problem.density(x, v, fraction), (0, 1))
        densities, pulls = problem.over_points(density, points, velocities)
        return weights @ densities, basis.adjoint(*(weights[:, None] * pull for pull in pulls))

    # With respect to the path, which is linear in the coefficients.
    (energy, g), linearised = jax.linearize(gradient, *basis.path(problem.x, problem.y, c))

    @jax.jit  # traced once, for its shapes and for itself
    def precondition():
        preconditioner = problem.preconditioner(basis, c, fraction)
        return preconditioner, preconditioner.solve(-g)

    if enough is None:
        preconditioner, z = precondition()
    else:
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(precondition)[0])
        preconditioner, z = jax.lax.cond(enough(energy, _dot(g, g)), lambda: (nothing, -g), precondition)
    return Evaluation(c, energy, g, z, _dot(-g, z), lambda d: linearised(*basis.deviation(d))[1], preconditioner)


def conjugate_gradients(hessian, solve, g, z, gain, target, max_steps, escape=0.0):
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

    start = (jnp.zeros_like(g), -g, z, gain, gain, jnp.zeros((), jnp.int32), jnp.asarray(False))
    p, _, _, _, _, j, _ = jax.lax.while_loop(more, step, start)
    return p, j


def rounding(energy: Scalar) -> Scalar:
    """What rounding may change in a computed ``energy``."""
    return 8 * jnp.finfo(energy.dtype).eps * jnp.abs(energy)


def newton_step(at: Evaluation, active: Array, max_cg: int) -> Step:
    """The step from ``at``; where ``active`` is false, any, at no cost."""
    energy, gain = at.energy, at.gain
    # Superlinear forcing: solve the Newton system loosely far away, tightly when close (Eisenstat & Walker 1996).
    target = jnp.where(active, jnp.clip(gain / energy, 1e-8, 1e-2) * gain, jnp.inf)
    p, cg_steps = conjugate_gradients(
        at.hessian, at.preconditioner.solve, at.g, at.z, gain, target, max_cg, escape=0.1 * jnp.sqrt(2 * energy)
    )
    slope = _dot(at.g, p)
    downhill = slope < 0
    return Step(jnp.where(downhill, p, at.z), jnp.where(downhill, slope, -gain), cg_steps)
