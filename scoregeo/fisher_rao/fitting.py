"""Maximum likelihood: what `AbstractFamily.fit` checks, averages and solves. Families have their formulas themselves.

Averages are taken about a value near them, so that samples of mean 1e4 and deviation 1 keep their digits: every
formula here is exact for any such value, which is therefore a constant to derivatives.

What has no closed form is the root of an increasing function of one number (`increasing_root`), or a minimum in a few
(`minimise`). Both are differentiable with respect to the data by the implicit function theorem, to any order: the
rule for the derivative calls the solver itself.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._batching import compacted_while_loop, select
from .._checks import as_float, check_weights, is_concrete
from .._cholesky import inverse_factor, solve_positive
from .._numerics import own_settings, safe_sqrt
from .._results import RESULTS, first_failure, raise_if_failed
from .._types import Matrix, Point, Scalar, Vector

Samples = Float[Array, "n ..."]
Weights = Float[Array, " n"]
Family = Any  # an AbstractFamily, which imports this file

# To a type checker, codes that are inherited belong to the class of optimistix alone.
STEPS_REACHED: Any = RESULTS.nonlinear_max_steps_reached
NOT_LEVEL: Any = RESULTS.nonlinear_divergence

_ROOT_STEPS = 100
_STEPS = 200


def fit(family: Family, samples: Any, weights: Any, throw: bool, with_result: bool, *start: Vector) -> Any:
    """`AbstractFamily.fit`; ``start`` is handed on to `AbstractFamily.maximum_likelihood`."""
    samples, weights = _checked(family, samples, weights)
    theta, code, bad = _maximum(family, samples, weights, *start)
    if is_concrete(bad) and is_concrete(samples) and np.asarray(bad).any():
        first = int(np.argmax(np.asarray(bad)))
        raise ValueError(
            f"`samples` of {type(family).__name__} must be {family.sample_bound}, but {int(np.sum(bad))} of "
            f"{len(samples)} are not (first at index {first}: {np.asarray(samples)[first]})"
        )
    if with_result:
        return theta, code
    if not throw:
        return theta
    # A distribution on the boundary that belongs to the family is one: nothing has failed.
    failure = RESULTS.where(code == RESULTS.on_boundary, RESULTS.successful, code)
    return raise_if_failed(theta, failure, _advice(family, failure))


@eqx.filter_jit
def _maximum(
    family: Family, samples: Samples, weights: Weights, *start: Vector
) -> tuple[Point, RESULTS, Bool[Array, " n"]]:
    """The most likely point, a code, and which samples are refused: those of weight zero may be anything, and are
    replaced by one that is inside the support."""
    with own_settings():
        inside, total = jax.vmap(family.in_support)(samples), jnp.sum(weights)
        bad = ~inside & (weights != 0)
        usable = jnp.all(weights >= 0) & (total > 0) & jnp.isfinite(total)
        weights = jnp.where(usable, weights, 1)
        stand_in = samples[jnp.argmax(inside & (weights > 0))]
        samples = jnp.where(jnp.reshape(inside, (-1, *(1 for _ in samples.shape[1:]))), samples, stand_in)
        theta, code = family.maximum_likelihood(samples, weights, *start)
        code = first_failure([(~usable | jnp.any(bad), RESULTS.no_maximum), (True, code)])
        return jnp.where(code == RESULTS.no_maximum, jnp.nan, theta), code, bad


def _advice(family: Family, code: RESULTS) -> str | None:
    failed = code == RESULTS.no_maximum
    if not is_concrete(failed):
        return None
    name = type(family).__name__
    if np.asarray(failed).any():
        return f"no distribution of {name} is most likely: {family.degenerate}"
    return (
        f"the search for the most likely distribution of {name} ended before the likelihood was level. Try samples in "
        "units in which they are about one, float64 (`jax.config.update('jax_enable_x64', True)`), or for a "
        "ParametricFamily another `init`"
    )


def _checked(family: Family, samples: Any, weights: Any) -> tuple[Samples, Weights]:
    """Samples ``(n, *sample_shape)`` and weights ``(n,)``, of the same floating-point type."""
    samples, shape = _as_wide_float(samples, "samples"), family.sample_shape
    if samples.ndim != 1 + len(shape) or samples.shape[1:] != shape or len(samples) == 0:
        expected = ", ".join(["n", *map(str, shape)]) + ("" if shape else ",")
        raise ValueError(
            f"`samples` must have shape ({expected}) with n >= 1, got {samples.shape}; use jax.vmap for several sets"
        )
    if weights is None:
        return samples, jnp.ones(len(samples), samples.dtype)
    weights = _as_wide_float(weights, "weights").astype(samples.dtype)
    check_weights(weights, len(samples), "sample")
    return samples, weights


def _as_wide_float(x: Any, name: str) -> Array:
    """`as_float`, which also takes truth values, as 0 and 1, and half precision, as single: neither rounds anything."""
    if isinstance(x, np.ndarray | np.generic | Array):
        if x.dtype == bool:
            x = x.astype(np.int8)
        elif jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32:
            x = x.astype(np.float32)
    return as_float(x, name)


# Averages.
def average(x: Samples, weights: Weights) -> Array:
    """The mean over the first axis, to the digits of the deviations from it."""
    center = jax.lax.stop_gradient(_mean(x, weights))
    return center + _mean(x - center, weights)


def average_and_deviation(x: Samples, weights: Weights) -> tuple[Array, Array]:
    """Mean and standard deviation over the first axis, whose squares neither overflow nor vanish."""
    center = average(x, weights)
    change, unit = _in_units(x - jax.lax.stop_gradient(center))
    return center, unit * safe_sqrt(_mean(change**2, weights) - _mean(change, weights) ** 2)


def covariance(x: Float[Array, "n d"], weights: Weights, center: Vector) -> tuple[Matrix, Bool[Array, ""]]:
    """The mean of ``(x - center) (x - center)^T``, and whether it is singular up to rounding."""
    change, unit = _in_units(x - center)
    matrix = (weights[:, None] / jnp.sum(weights) * change).T @ change
    values = jax.lax.stop_gradient(matrix)
    root = jnp.sqrt(jnp.diagonal(values))
    # Pivots of the correlations: one minus the part of a component that those before it explain.
    pivots = 1 / jnp.diagonal(inverse_factor(values / root[:, None] / root)) ** 2
    singular = ~(jnp.min(pivots) > 4 * len(unit) * jnp.finfo(x.dtype).eps)
    return matrix * unit[:, None] * unit, singular | (jnp.sum(weights > 0) < len(unit))


def all_equal(x: Samples, weights: Weights) -> Bool[Array, "..."]:
    """Whether all samples of positive weight are equal, for each entry of a sample."""
    counted = jnp.reshape(weights > 0, (-1, *(1 for _ in x.shape[1:])))
    return jnp.all((x == x[jnp.argmax(weights)]) | ~counted, 0)


def weighted_median(x: Float[Array, " n"], weights: Weights) -> Scalar:
    """The middle of all medians of ``x``."""
    xs, _, sums = _in_order(x, weights)
    half, tolerance = sums[-1] / 2, _rounding(weights)
    low, high = xs[jnp.argmax(sums >= half - tolerance)], xs[jnp.argmax(sums > half + tolerance)]
    return low + (high - low) / 2


def largest_atom(x: Float[Array, " n"], weights: Weights) -> tuple[Scalar, Scalar]:
    """The largest part of the weight that is on one value, between 0 and 1, and how far rounding may change it."""
    xs, ws, sums = _in_order(x, weights)
    first, last = jnp.searchsorted(xs, xs), jnp.searchsorted(xs, xs, side="right") - 1
    return jnp.max(sums[last] - sums[first] + ws[first]) / sums[-1], _rounding(weights) / sums[-1]


def _mean(x: Samples, weights: Weights) -> Array:
    return jnp.tensordot(weights / jnp.sum(weights), x, 1)


def _in_units(change: Samples) -> tuple[Samples, Array]:
    unit = jax.lax.stop_gradient(jnp.max(jnp.abs(change), 0))
    unit = jnp.where(unit > 0, unit, 1)
    return change / unit, unit


def _in_order(x: Float[Array, " n"], weights: Weights) -> tuple[Array, Array, Array]:
    """Samples in ascending order, their weights, and the sums of these."""
    order = jnp.argsort(x)
    return x[order], weights[order], jnp.cumsum(weights[order])


def _rounding(weights: Weights) -> Scalar:
    """The rounding of sums of weights; of integers there is none."""
    total, type_ = jnp.sum(weights), jnp.finfo(weights.dtype)
    exact = jnp.all(weights == jnp.floor(weights)) & (total < 2.0**type_.nmant)
    return jnp.where(exact, 0, float(type_.eps) * (2 + np.log2(len(weights))) * total)


# Roots.
class _Bracket(NamedTuple):
    point: Scalar
    low: Scalar
    high: Scalar
    size: Scalar  # of Newton's last step
    steps: Array
    done: Bool[Array, ""]


@eqx.filter_custom_jvp
def increasing_root(function: Any, start: Scalar, args: PyTree) -> tuple[Scalar, Bool[Array, ""]]:
    """Where ``function(args, u)``, increasing in the scalar ``u``, is zero, and whether that was found.

    Newton's method, and bisection where that leaves what is known to hold the root. ``u`` should be a logarithm, or
    the like, so that a change by one matters; ``function`` must not close over traced arrays.
    """
    eps = float(jnp.finfo(start.dtype).eps)

    def step(args, s):
        value, slope = jax.jvp(lambda u: function(args, u), (s.point,), (jnp.ones_like(s.point),))
        low, high = jnp.where(value < 0, s.point, s.low), jnp.where(value > 0, s.point, s.high)
        newton = -jnp.clip(value / slope, -3, 3)
        new, size = s.point + newton, jnp.abs(newton)
        # Close to the root the sign of the value may be rounding, and the bracket wrong.
        near = size < eps**0.375
        known = jnp.isfinite(low) & jnp.isfinite(high)
        middle = jnp.where(known, low + (high - low) / 2, s.point - 3 * jnp.sign(value))
        new = jnp.where(near | ((new > low) & (new < high)), new, middle)
        level = near & ((size <= eps * (1 + jnp.abs(new))) | (size >= s.size / 2))
        return _Bracket(new, low, high, size, s.steps + 1, level | jnp.isnan(value))

    infinite = jnp.full_like(start, jnp.inf)
    state = _Bracket(start, -infinite, infinite, infinite, jnp.zeros((), int), jnp.zeros((), bool))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(args, eqx.is_array)))
    found = compacted_while_loop(
        lambda s: ~s.done & (s.steps < _ROOT_STEPS), step, state, args, numbers_per_lane=numbers
    )
    return found.point, found.done & jnp.isfinite(found.point)


@increasing_root.def_jvp
def _(primals, tangents):
    function, _, args = primals
    with own_settings():
        u, found = increasing_root(*primals)
        _, change = eqx.filter_jvp(lambda args: function(args, u), (args,), (tangents[2],))
        _, slope = jax.jvp(lambda u: function(args, u), (u,), (jnp.ones_like(u),))
        return (u, found), (-jnp.where(found, change, 0) / jnp.where(found, slope, 1), None)


# Minima.
class Model(NamedTuple):
    """A function near a point: its value there, the rounding of that, its derivative, and what `solve` needs."""

    value: Scalar
    rounding: Scalar
    gradient: Vector
    curvature: PyTree


class AbstractObjective(eqx.Module):
    """A smooth function of a point and of data ``args``, to be minimised. It has no traced arrays of its own."""

    @abc.abstractmethod
    def model(self, args: PyTree, u: Vector) -> Model:
        """The function about ``u``."""

    @abc.abstractmethod
    def solve(self, u: Vector, curvature: PyTree, damping: Scalar, covector: Vector) -> Vector:
        """``(H + damping M)^-1 covector`` at ``u``, with the second derivative H, in coordinates or along geodesics,
        and some metric M; may be NaN where that is not positive."""

    def move(self, u: Vector, v: Vector) -> Vector:
        """The point that the vector ``v`` leads to."""
        return u + v


class _Search(NamedTuple):
    point: Vector
    model: Model
    damping: Scalar
    decrement: Scalar
    steps: Array
    done: Bool[Array, ""]


@eqx.filter_custom_jvp
def minimise(objective: AbstractObjective, start: Vector, args: PyTree) -> tuple[Vector, RESULTS]:
    """Where ``objective`` is least, by Newton's method, damped where it would go up; and whether that was found.

    The length of a Newton step in the second derivative, the decrement, says how far the minimum is in units of
    standard deviations of one sample. The search ends where it gets no smaller.
    """
    eps = float(jnp.finfo(start.dtype).eps)

    def step(args, s):
        v = -objective.solve(s.point, s.model.curvature, s.damping, s.model.gradient)
        square = -(s.model.gradient @ v)
        point = objective.move(s.point, v)
        new = objective.model(args, point)
        decrement = safe_sqrt(square)
        # Close to the minimum a step changes the value by less than its rounding, and is trusted.
        near = (s.damping == 0) & (decrement < eps**0.375)
        down = new.value <= s.model.value + s.model.rounding + new.rounding
        good = (down | near) & (square >= 0) & jnp.all(jnp.isfinite(point)) & jnp.all(jnp.isfinite(new.gradient))
        level = near & ((decrement <= eps) | (decrement >= s.decrement / 2))
        smaller = jnp.where(s.damping > 0.03, s.damping / 10, 0)
        damping = jnp.where(good, smaller, jnp.maximum(10 * s.damping, 0.1))
        point, new = select(good, (point, new), (s.point, s.model))
        return _Search(
            point,
            new,
            damping,
            jnp.where(good, decrement, s.decrement),
            s.steps + 1,
            (good & level) | (damping > 1e10),
        )

    infinite = jnp.full((), jnp.inf, start.dtype)
    state = _Search(
        start,
        objective.model(args, start),
        jnp.zeros_like(infinite),
        infinite,
        jnp.zeros((), int),
        jnp.zeros((), bool),
    )
    numbers = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(args, eqx.is_array)))
    found = compacted_while_loop(lambda s: ~s.done & (s.steps < _STEPS), step, state, args, numbers_per_lane=numbers)
    level = found.decrement <= 10 * eps**0.5
    return found.point, first_failure(
        [
            (~found.done, STEPS_REACHED),
            (~level | ~jnp.isfinite(found.model.value), NOT_LEVEL),
        ]
    )


@minimise.def_jvp
def _(primals, tangents):
    objective, _, args = primals
    with own_settings():
        u, result = minimise(*primals)
        curvature = objective.model(args, u).curvature
        _, change = eqx.filter_jvp(lambda args: objective.model(args, u).gradient, (args,), (tangents[2],))
        good = result == RESULTS.successful
        # Of a lane that has failed the derivative is zero, as its value is NaN.
        curvature = jax.tree.map(lambda leaf: jnp.where(good, leaf, jnp.ones_like(leaf)), curvature)
        v = -objective.solve(u, curvature, jnp.zeros((), u.dtype), jnp.where(good, change, 0))
        return (u, result), (jnp.where(good, v, 0), jax.tree.map(lambda _: None, result))


class LogLikelihood(AbstractObjective):
    """Minus the mean log likelihood of any family in unconstrained coordinates; ``args`` are the family, samples and
    weights. Its damping is in the metric of the scores of the samples, which does not depend on coordinates."""

    def model(self, args: PyTree, u: Vector) -> Model:
        family, samples, weights = args
        weights = weights / jnp.sum(weights)

        def losses(u):
            theta = family.from_unconstrained(u)
            values = -jax.vmap(family.log_prob, (None, 0))(theta, samples)
            return jnp.where(weights > 0, values, 0)

        value, rows = losses(u), jax.jacfwd(losses)(u)
        gradient = weights @ rows
        hessian = jax.jacfwd(lambda u: weights @ jax.jacfwd(losses)(u))(u)
        rounding = 4 * jnp.finfo(u.dtype).eps * (weights @ jnp.abs(value))
        scores = (weights[:, None] * rows).T @ rows
        ridge = jnp.finfo(u.dtype).eps * (1 + jnp.trace(scores)) * jnp.eye(u.size, dtype=u.dtype)
        return Model(weights @ value, rounding, gradient, (hessian, scores + ridge))

    def solve(self, u: Vector, curvature: PyTree, damping: Scalar, covector: Vector) -> Vector:
        hessian, scores = curvature
        return solve_positive(hessian + damping * scores, covector)
