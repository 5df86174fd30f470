"""Newton's method for the path energy: what is known at a path, the step from there, and the line search along it.

A step p solves H p = -g by conjugate gradients, preconditioned by P (`preconditioners`), which stop at negative
curvature. The search halves it until the energy goes down as its slope promises (Armijo's condition):

    E(c + a p) <= E(c) + 1e-4 a g.p + rounding                                                           (1)

One call of `step` is one evaluation of the energy: it either accepts the path that was evaluated and takes a new step
from there, or shortens the step that led to it. So many searches can run side by side, each at its own place.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..._batching import select
from ..._numerics import safe_sqrt
from ..._results import RESULTS
from ..._types import Scalar
from .energy import PathEnergy
from .legendre import HIGHEST, Basis, Coefficients
from .preconditioners import AbstractPreconditioner

# What a search that is stopped now would report: it has no other result yet.
UNFINISHED = RESULTS.solver_steps_reached

_ARMIJO = 1e-4
_SMALLEST_STEP = 2.0**-30


class Evaluation(NamedTuple):
    """What is known at a path: its energy, gradient ``g`` and Newton's equation.

    ``z = -P^-1 g``, and ``squared_decrement = g^T P^-1 g``, the squared Newton decrement: twice the energy that a
    Newton step expects to save. Where these were not worth a preconditioner P, they are those of the identity, and P is
    zero.
    """

    c: Coefficients
    energy: Scalar
    g: Coefficients
    z: Coefficients
    squared_decrement: Scalar
    hessian: Callable
    preconditioner: AbstractPreconditioner


class Iterate(NamedTuple):
    """A path that a search has accepted: coefficients, energy, and estimated relative error of the path."""

    c: Coefficients
    energy: Scalar
    path_error: Scalar


class NewtonState(NamedTuple):
    """A search: the last path accepted, the step from there, which part of it is being tried, and how it ended."""

    accepted: Iterate
    direction: Coefficients
    slope: Scalar  # of the energy along `direction`
    step_size: Scalar  # the part of `direction` that leads to the path to evaluate next
    steps: Array  # paths accepted; the first of them is the one that the search starts from
    status: RESULTS


class Progress(NamedTuple):
    """What one call of `step` did: whether the search is over, whether it took a new step, and the conjugate gradient
    steps that this cost."""

    ended: Bool[Array, ""]
    moved: Bool[Array, ""]
    cg_steps: Array
    finite: Bool[Array, ""]  # the energy and its gradient, where they were accepted


def _dot(a: Coefficients, b: Coefficients) -> Scalar:
    # As one product of vectors, because XLA makes a tree of kernels of the sum of a product, for each of many calls.
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
    are all that matters. For metrics that are known to be no less than Euclid, ``g^T g`` is an upper bound of the
    squared decrement.
    """
    weights = basis.weights

    def gradient(points, velocities):
        density = jax.value_and_grad(lambda x, v: problem.density(x, v, fraction), (0, 1))
        densities, pulls = problem.over_points(density, points, velocities)
        return weights @ densities, basis.adjoint(*(weights[:, None] * pull for pull in pulls))

    # With respect to the path, because the path is linear in the coefficients.
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


def relative_path_error(energy: Scalar, squared_decrement: Scalar) -> Scalar:
    """What a Newton step expects to change the velocity of a path of this ``energy`` by, relative to it."""
    positive = energy > 0
    return jnp.where(positive, safe_sqrt(squared_decrement / jnp.where(positive, 2 * energy, 1)), 0)


def estimated_error(energy: Scalar, squared_decrement: Scalar, other_length: Scalar) -> Scalar:
    """The error of the length of a path of this ``energy``, given another value of that length.

    It is the difference of the two lengths, what a Newton step expects to shorten the path by, and rounding.
    """
    positive = energy > 0
    length = safe_sqrt(2 * energy)
    shortening = jnp.where(positive, squared_decrement / (2 * jnp.where(positive, length, 1)), 0)
    return jnp.abs(length - other_length) + shortening + 4 * jnp.finfo(length.dtype).eps * length


def rounding(energy: Scalar) -> Scalar:
    """What rounding may change in a computed ``energy``."""
    return 8 * jnp.finfo(energy.dtype).eps * jnp.abs(energy)


def init(c: Coefficients) -> NewtonState:
    """A search that has yet to evaluate the path with coefficients ``c``."""
    inf, one = jnp.asarray(jnp.inf, c.dtype), jnp.ones((), c.dtype)
    status = jax.tree.map(jnp.asarray, UNFINISHED)
    return NewtonState(Iterate(c, inf, inf), jnp.zeros_like(c), one, one, jnp.zeros((), jnp.int32), status)


def acceptable(state: NewtonState, energy: Scalar) -> Bool[Array, ""]:
    """Whether ``energy`` is low enough to accept the path that has it, by (1); the first path always is."""
    before = state.accepted.energy
    return (state.steps == 0) | (energy <= before + _ARMIJO * state.step_size * state.slope + rounding(before))


def step(
    at: Evaluation,
    state: NewtonState,
    *,
    trial: Coefficients,
    tolerance: Scalar,
    max_steps: int,
    max_cg: int,
    stop: Bool[Array, ""],
    may_be_saddle: Bool[Array, ""],
) -> tuple[NewtonState, Progress]:
    """The search after the path ``trial``, that is ``at.c`` with room for more elements, has been evaluated.

    It ends ``successful`` where the relative error of the path is below ``tolerance``, ``stalled`` where no part of a
    step lowers the energy, ``metric_nonfinite``, or unfinished after ``max_steps``. Where ``stop`` is true it takes no
    further step; where ``may_be_saddle`` is true, an accurate path is not enough, and only a step finds out. With
    ``max_cg = 0`` it never moves.
    """
    elements, dtype = at.c.shape[0], at.energy.dtype
    path_error = relative_path_error(at.energy, at.squared_decrement)
    good = acceptable(state, at.energy)
    stuck = ~good & (state.step_size < _SMALLEST_STEP)
    finite = ~good | (jnp.isfinite(at.energy) & jnp.isfinite(at.squared_decrement))
    accepted = select(good, Iterate(trial, at.energy, path_error), state.accepted)

    # Where rounding stops the descent just above the tolerance, the path is as good as this precision gives.
    floor = jnp.maximum(tolerance, jnp.minimum(1e3 * tolerance, 10 * jnp.finfo(dtype).eps ** 0.5))
    stationary = good & (path_error <= tolerance) & ~may_be_saddle
    stationary = finite & (stationary | (stuck & (accepted.path_error <= floor)))
    moving = good & finite & ~stationary & ~stop & (state.steps < max_steps)
    if max_cg:
        direction, slope, cg_steps = newton_direction(at, moving, max_cg)
    else:
        direction, slope, cg_steps = jnp.zeros_like(at.c), jnp.zeros((), dtype), jnp.zeros((), jnp.int32)

    part = jnp.where(good, jnp.ones((), dtype), state.step_size)
    status = RESULTS.where(stuck, RESULTS.stalled, UNFINISHED)
    status = RESULTS.where(stationary, RESULTS.successful, status)
    status = RESULTS.where(finite, status, RESULTS.metric_nonfinite)
    before = state.direction[:elements]
    new = NewtonState(
        accepted,
        state.direction.at[:elements].set(jnp.where(moving, direction, before)),
        jnp.where(moving, slope, state.slope),
        jnp.where(moving, 1, part / 2),
        state.steps + good,
        status,
    )
    ended = (status != UNFINISHED) | (good & ~moving)
    return new, Progress(ended, moving, cg_steps, finite)


def newton_direction(at: Evaluation, active: Bool[Array, ""], max_cg: int) -> tuple[Coefficients, Scalar, Array]:
    """A direction of descent from ``at``, the slope of the energy along it, and the conjugate gradient steps it took;
    where ``active`` is false, any direction, at no cost."""
    energy, squared_decrement = at.energy, at.squared_decrement
    # Superlinear forcing: solve the Newton system loosely far away, tightly when close (Eisenstat & Walker 1996).
    accuracy = jnp.clip(squared_decrement / energy, 1e-8, 1e-2)
    target = jnp.where(active, accuracy * squared_decrement, jnp.inf)
    p, cg_steps = conjugate_gradients(
        at.hessian,
        at.preconditioner.solve,
        at.g,
        at.z,
        squared_decrement,
        target,
        max_cg,
        escape=0.1 * jnp.sqrt(2 * energy),
    )
    slope = _dot(at.g, p)
    downhill = slope < 0
    return jnp.where(downhill, p, at.z), jnp.where(downhill, slope, -squared_decrement), cg_steps


def conjugate_gradients(hessian, solve, g, z, squared_decrement, target, max_steps, escape: Scalar | float = 0.0):
    """Truncated CG for ``hessian p = -g``, preconditioned by ``solve``; returns p and the number of steps.

    ``z = solve(-g)`` and ``squared_decrement = -g.z`` are where it starts. Stops at the accuracy ``target`` (of the
    squared preconditioned residual), after ``max_steps``, or at negative curvature. There it adds the direction of that
    curvature, which is one of descent, with the length ``escape`` in the norm of the preconditioner: so a saddle is
    left, not converged to.
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

    zero, no = jnp.zeros((), jnp.int32), jnp.asarray(False)
    start = (jnp.zeros_like(g), -g, z, squared_decrement, squared_decrement, zero, no)
    p, _, _, _, _, j, _ = jax.lax.while_loop(more, step, start)
    return p, j
