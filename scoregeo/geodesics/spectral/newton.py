"""Newton's method for the path energy: what is known at a path, the step from there, and the line search along it.

A step p solves H p = -g by conjugate gradients, preconditioned by P (`preconditioners`), which stop where they would
leave a region of trust |p|_P <= radius, and go to its edge at negative curvature (Steihaug 1983). The search shortens
the step until the energy goes down as its slope promises (Armijo's condition):

    E(c + a p) <= E(c) + 1e-4 a g.p + rounding                                                           (1)

and sets the next radius by the length that was accepted (Nocedal & Yuan 1998): where steps have to be short, the next
ones are short at once, and go where short steps should.

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
from ..._results import RESULTS, first_failure
from ..._types import Scalar
from .energy import PathEnergy
from .legendre import HIGHEST, Basis, Coefficients
from .preconditioners import AbstractPreconditioner

# What a search that is stopped now would report: it has no other result yet.
UNFINISHED = RESULTS.solver_steps_reached

_ARMIJO = 1e-4
_SMALLEST_STEP = 2.0**-30
# A rejected part of a step is cut to where a parabola through what was seen has its minimum, within these factors.
_LEAST_CUT, _MOST_CUT = 0.5, 0.1
# Steps that promise so many roundings of the energy are judged by the decrement, which is less noisy than the energy.
_NOISE = 100


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


class Promise(NamedTuple):
    """What the quadratic model of the energy says of a step: the slope along it, how much all of it lowers the energy
    (negative), and its length in the norm of the preconditioner."""

    slope: Scalar
    change: Scalar
    length: Scalar

    def of_part(self, part: Scalar) -> Scalar:
        """How much ``part`` of the step changes the energy."""
        return part * self.slope + part**2 * (self.change - self.slope)


class NewtonState(NamedTuple):
    """A search: the last path accepted, the step from there, which part of it is being tried, and how it ended."""

    accepted: Iterate
    direction: Coefficients
    promise: Promise  # of `direction`
    step_size: Scalar  # the part of `direction` that leads to the path to evaluate next
    radius: Scalar  # of the region of trust, in the norm of the preconditioner
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
        densities, pulls, rows = problem.gradients(points, velocities, fraction)
        return (weights @ densities, basis.adjoint(*(weights[:, None] * pull for pull in pulls))), rows

    # With respect to the path, because the path is linear in the coefficients.
    (energy, g), linearised, rows = jax.linearize(gradient, *basis.path(problem.x, problem.y, c), has_aux=True)

    @jax.jit  # traced once, for its shapes and for itself
    def precondition():
        preconditioner = problem.knowing(rows).preconditioner(basis, c, fraction)
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
    promise = Promise(one, one, one)
    return NewtonState(Iterate(c, inf, inf), jnp.zeros_like(c), promise, one, inf, jnp.zeros((), jnp.int32), status)


def acceptable(state: NewtonState, energy: Scalar) -> Bool[Array, ""]:
    """Whether ``energy`` is low enough to accept the path that has it, by (1); the first path always is."""
    before, promised = state.accepted.energy, state.step_size * state.promise.slope
    return (state.steps == 0) | (energy <= before + _ARMIJO * promised + rounding(before))


def step(
    at: Evaluation,
    state: NewtonState,
    *,
    trial: Coefficients,
    tolerance: Scalar,
    max_steps: Array | int,
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
    finite = ~good | (jnp.isfinite(at.energy) & jnp.isfinite(at.squared_decrement))
    accepted = select(good, Iterate(trial, at.energy, path_error), state.accepted)

    # Where a step promises no more than rounding changes, trying parts of it would go on for long and in vain.
    noise = _NOISE * jnp.finfo(dtype).eps * jnp.abs(state.accepted.energy)
    noisy = (state.steps > 0) & (-state.step_size * state.promise.slope <= noise)
    vain = noisy & ~(path_error < state.accepted.path_error / 2)
    stuck = jnp.where(good, vain, noisy | (state.step_size < _SMALLEST_STEP))
    # Where rounding stops the descent just above the tolerance, the path is as good as this precision gives.
    floor = jnp.maximum(tolerance, jnp.minimum(1e3 * tolerance, 10 * jnp.finfo(dtype).eps ** 0.5))
    stationary = good & (path_error <= tolerance) & ~may_be_saddle
    stationary = finite & (stationary | (stuck & (accepted.path_error <= floor)))
    moving = good & finite & ~stationary & ~stuck & ~stop & (state.steps < max_steps)
    radius = jnp.where(good, next_radius(state, at.energy), state.radius)
    if max_cg:
        direction, promise, cg_steps = newton_direction(at, radius, moving, max_cg)
    else:
        zero = jnp.zeros((), dtype)
        direction, promise, cg_steps = jnp.zeros_like(at.c), Promise(zero, zero, zero), jnp.zeros((), jnp.int32)

    codes = [(~finite, RESULTS.metric_nonfinite), (stationary, RESULTS.successful), (stuck, RESULTS.stalled)]
    status = first_failure(codes, otherwise=UNFINISHED)
    before = state.direction[:elements]
    new = NewtonState(
        accepted,
        state.direction.at[:elements].set(jnp.where(moving, direction, before)),
        select(moving, promise, state.promise),
        jnp.where(good, 1, shortened(state, at.energy)),
        radius,
        state.steps + good,
        status,
    )
    ended = (status != UNFINISHED) | (good & ~moving)
    return new, Progress(ended, moving, cg_steps, finite)


def shortened(state: NewtonState, energy: Scalar) -> Scalar:
    """The part of a step to try after the present one led to ``energy``: where a parabola through that, and through
    energy and slope at the start, has its minimum."""
    part, slope = state.step_size, state.promise.slope
    excess = energy - state.accepted.energy - part * slope
    lowest = -slope * part**2 / (2 * excess)
    # Infinite outside the domain: the boundary may be anywhere on the way.
    return jnp.where(jnp.isfinite(energy), jnp.clip(lowest, _MOST_CUT * part, _LEAST_CUT * part), _LEAST_CUT * part)


def next_radius(state: NewtonState, energy: Scalar) -> Scalar:
    """The radius of trust after a step to a path of this ``energy``; the norm of the path itself to begin with."""
    part, promise = state.step_size, state.promise
    length = part * promise.length
    ratio = (energy - state.accepted.energy) / promise.of_part(part)
    trusted = ratio > 0.75
    # A shortened step says how far the model can be trusted; one that was all of the region says that it may grow.
    radius = jnp.where((part < 1) | (ratio < 0.25), jnp.where(trusted, 2, 1) * length, state.radius)
    radius = jnp.where(trusted & (part == 1) & (length > 0.9 * state.radius), 3 * state.radius, radius)
    return jnp.where(state.steps == 0, safe_sqrt(2 * energy), radius)


def newton_direction(
    at: Evaluation, radius: Scalar, active: Bool[Array, ""], max_cg: int
) -> tuple[Coefficients, Promise, Array]:
    """A direction of descent from ``at`` no longer than ``radius``, what it promises, and the conjugate gradient steps
    it took; where ``active`` is false, any direction, at no cost."""
    energy, squared_decrement = at.energy, at.squared_decrement
    # Superlinear forcing: solve the Newton system loosely far away, tightly when close (Eisenstat & Walker 1996).
    accuracy = jnp.clip(squared_decrement / energy, 1e-8, 1e-2)
    target = jnp.where(active, accuracy * squared_decrement, jnp.inf)
    p, promise, cg_steps = conjugate_gradients(
        at.hessian, at.preconditioner.solve, at.g, at.z, squared_decrement, target, max_cg, radius
    )
    downhill = promise.slope < 0
    steepest = Promise(-squared_decrement, -squared_decrement / 2, jnp.sqrt(squared_decrement))
    return jnp.where(downhill, p, at.z), select(downhill, promise, steepest), cg_steps


def conjugate_gradients(
    hessian, solve, g, z, squared_decrement, target, max_steps, radius: Scalar | float = jnp.inf
) -> tuple[Coefficients, Promise, Array]:
    """Truncated CG for ``hessian p = -g``, preconditioned by ``solve``; returns p, what it promises, and the number of
    steps.

    ``z = solve(-g)`` and ``squared_decrement = -g.z`` are where it starts. Stops at the accuracy ``target`` (of the
    squared preconditioned residual), after ``max_steps``, at the edge of the region |p|_P <= ``radius``, or at negative
    curvature, along which it goes to that edge: so a saddle is left, not converged to. Without a radius it stops there
    where it is.
    """

    def step(carry):
        p, r, d, scalars, j, _ = carry
        rz, dd, pd, pp, change = scalars
        hd = hessian(d)
        curvature = _dot(d, hd)
        # Not `curvature <= 0`: a NaN must end the loop too.
        negative = ~(curvature > 1e-14 * _dot(d, d))
        room = jnp.maximum(radius**2 - pp, 0)
        # The positive root of |p + t d|_P = radius, without cancellation.
        edge = room / (pd + jnp.sqrt(pd**2 + dd * room))
        edge = jnp.where(jnp.isfinite(edge), edge, jnp.where(negative, 0, jnp.full_like(edge, jnp.inf)))
        whole = rz / jnp.where(negative, 1, curvature)
        leaves = negative | (whole >= edge)
        t = jnp.where(leaves, edge, whole).astype(rz.dtype)
        p, r = p + t * d, r - t * hd
        z = solve(r)
        new = _dot(r, z)
        beta = new / rz
        scalars = (
            new,
            new + beta**2 * dd,
            beta * (pd + t * dd),
            pp + 2 * t * pd + t**2 * dd,
            change - t * rz + t**2 * curvature / 2,
        )
        return p, r, z + beta * d, jnp.stack(scalars), j + 1, leaves

    def more(carry):
        _, _, _, scalars, j, left = carry
        return (j < max_steps) & ~left & (scalars[0] > target)

    zero = jnp.zeros_like(squared_decrement)
    scalars = jnp.stack([squared_decrement, squared_decrement, zero, zero, zero])
    start = (jnp.zeros_like(g), -g, z, scalars, jnp.zeros((), jnp.int32), jnp.asarray(False))
    p, _, _, scalars, j, _ = jax.lax.while_loop(more, step, start)
    return p, Promise(_dot(g, p), scalars[4], safe_sqrt(scalars[3])), j
