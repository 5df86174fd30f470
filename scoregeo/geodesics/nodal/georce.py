"""GEORCE: the energy of left end points, minimised by exact linear steps (Rygaard & Hauberg 2025, arXiv 2505.05961).

With segments u_t from x_t to x_{t+1} = x_t + u_t, the discrete energy is sum_t u_t^T G(x_t) u_t. A step solves its
optimality conditions with G and nu_t = grad_x (u_t^T G(x_t) u_t) frozen:

    mu = (sum_t G_t^-1)^-1 ( 2 (x_0 - x_T) - sum_t G_t^-1 sum_{j>t} nu_j ),   u_t = -1/2 G_t^-1 (mu + sum_{j>t} nu_j).

In the coefficients of `nodal` this is c - P^-1 g: gradient descent, preconditioned by the energy of the velocities
alone, P = int c'^T G(gamma(t)) c' dt. That is how it is computed here; the formula above is what tests compare with.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._batching import compacted_while_loop, select
from ..._checks import setting
from ..._cholesky import inverse_factor, solve_factored
from ..._numerics import by_precision
from ..._types import Points, Scalar
from ...metrics import LowRankUpdate, as_low_rank_update
from ..spectral.energy import PathEnergy
from ..spectral.legendre import HIGHEST, Basis, Coefficients, uniform_breaks
from ..spectral.newton import rounding
from ..spectral.preconditioners import AbstractPreconditioner, answers
from .base import AbstractNodalSolver, Minimum, relative_gradient

# How many steps, whose effect on the energy drowns in rounding, may pass without a smaller gradient.
_PATIENCE = 20


class Georce(AbstractNodalSolver):
    """GEORCE, Rygaard & Hauberg's solver (2025, arXiv 2505.05961): robust, simple, of first order in the nodes.

    Of the metric it needs G^-1, which it takes as the metric gives it: for the identity plus rank k a solve with a
    matrix of T k rows for T segments, for diagonal metrics divisions, for any other d x d matrices.

    **Arguments**

    - ``nodes``: points of the path, with both ends, at equal times; at least 5.
    - ``max_steps``: GEORCE steps, each with a backtracking line search. Convergence is linear.
    - ``tolerance``: solved when the gradient of the discrete energy, preconditioned and relative to the path, is below
      this; default 1e-6 in float64, 1e-4 in float32.
    - ``rtol``: relative error of the length, as estimated in ``error``, above which the result is
      ``accuracy_not_reached``. The nodes have errors of order ``1 / nodes``, and the length of the C1 cubic through
      them, which is what is returned, of order ``1 / nodes^2``: a tenth of the default takes three times the nodes.

    ``stats``: ``iterations``, ``path_error``. Derivatives are those of what is returned, by the implicit function
    theorem on the discrete energy.

    >>> import jax.numpy as jnp
    >>> from scoregeo import Georce, geodesic
    >>> from scoregeo.metrics.models import HyperbolicHalfSpace
    >>> path = geodesic(HyperbolicHalfSpace(), jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]), solver=Georce())
    >>> round(float(path.length), 3)  # log(2)
    0.693
    """

    nodes: int = setting(129)
    max_steps: int = setting(1000)
    tolerance: float | None = setting(None)
    rtol: float = setting(1e-3)

    def basis(self, dtype) -> Basis:
        """Segments with the rule that looks at the start of each."""
        zero, one = np.zeros((1, 1)), np.ones((1, 1))
        return Basis(uniform_breaks(self.nodes - 1, dtype), 1, 1, rule=(zero[0], one[0], one, zero))

    def default_tolerance(self, dtype) -> float:
        """1e-6 in float64, 1e-4 in float32."""
        return by_precision(dtype, 1e-6, 1e-4)

    def minimise(self, problem: PathEnergy, start: Coefficients) -> Minimum:
        """GEORCE steps until the gradient is small, no step lowers the energy, or ``max_steps``. Under ``jax.vmap``,
        lanes that have finished make room for others."""
        tolerance = self.gradient_tolerance(start.dtype)

        def going(state):
            # Not `gradient > tolerance`: the first step only evaluates the start.
            unsolved = ~(state.gradient <= tolerance)
            return state.accepted & unsolved & (state.idle < _PATIENCE) & (state.steps < self.max_steps)

        zeros, zero = jnp.zeros_like(start), jnp.zeros((), start.dtype)
        inf, none = zero + jnp.inf, jnp.zeros((), jnp.int32)
        first = _Descent(start, inf, zeros, zeros, zero, inf, inf, none, none - 1, jnp.asarray(True))
        end = compacted_while_loop(going, self._step, first, problem, numbers_per_lane=start.size)
        return Minimum(end.c, end.gradient, end.steps)

    def _step(self, problem: PathEnergy, state: "_Descent") -> "_Descent":
        basis = self.basis(state.c.dtype)
        evaluate = jax.value_and_grad(lambda c: problem(basis, c))
        trial = line_search(evaluate, state.c, state.energy, state.direction, state.slope)
        c, energy, g = select(trial[-1], trial[:-1], (state.c, state.energy, state.g))
        direction = georce_direction(problem, basis, c, g)
        measurable = -state.slope > rounding(energy)
        slope = jnp.sum(g * direction)
        gradient = relative_gradient(-slope, energy)
        # Where energies no longer tell whether a step is progress, the gradient has to, if not at every step.
        idle = jnp.where(measurable | (gradient < state.best), 0, state.idle + 1)
        best = jnp.minimum(state.best, gradient)
        return _Descent(c, energy, g, direction, slope, gradient, best, idle, state.steps + 1, trial[-1])


class _Descent(NamedTuple):
    """A path, its energy and gradient, the step from there, and how the descent is going."""

    c: Coefficients
    energy: Scalar
    g: Coefficients
    direction: Coefficients
    slope: Scalar  # of the energy along `direction`
    gradient: Scalar  # relative, see `relative_gradient`
    best: Scalar  # the smallest of these so far
    idle: Array  # steps without measurable progress
    steps: Array
    accepted: Array  # whether the line search found a lower energy


def georce_direction(problem: PathEnergy, basis: Basis, c: Coefficients, g: Coefficients) -> Coefficients:
    """From the path ``c``, where the energy has gradient ``g``, to the path of the GEORCE update."""
    if not answers(as_low_rank_update, problem.structure):
        # For these, P is the preconditioner of the spectral solver.
        return problem.preconditioner(basis, c).solve(-g)
    points, _ = basis.path(problem.x, problem.y, c)
    scale, updates = problem.over_points(lambda z: as_low_rank_update(problem.inner_product(z)), points)
    return LowRankVelocityPreconditioner(basis, updates, scale).solve(-g)


class LowRankVelocityPreconditioner(AbstractPreconditioner):
    """The energy of velocities, P = int c'^T G c' dt, for ``G = scale (I + U^T C U)`` at ``T`` points, with U of shape
    ``(k, d)``; a ``scale`` of ``None`` is one.

    With B multiplication by G^-1 at each time, P^-1 r = B r - B e (e^T B e)^-1 e^T B r (see `preconditioners`). By
    Woodbury, G^-1 = (I - V^T V) / scale with the k x k system V = (I + C^{1/2} U U^T C^{1/2})^{-1/2} C^{1/2} U, of
    which any square root does. Then e^T B e = a I - A^T A with a = int 1 / scale dt and rows ``sqrt(w / scale) V`` of
    A, so by Woodbury again

        (e^T B e)^-1 = (I + A^T (a I - A A^T)^-1 A) / a:    nothing d x d.
    """

    basis: Basis
    v: Float[Array, "t k d"]
    inverse_scale: Float[Array, " t"] | None
    rows: Float[Array, "tk d"]
    complement: Float[Array, "tk tk"]  # factor of the inverse of a I - A A^T

    def __init__(self, basis: Basis, updates: LowRankUpdate, scale: Float[Array, " t"] | None):
        self.basis, self.v = basis, jax.vmap(_whitened)(updates)
        self.inverse_scale = None if scale is None else 1 / scale
        weights = basis.weights if scale is None else basis.weights / scale
        self.rows = (jnp.sqrt(weights)[:, None, None] * self.v).reshape(-1, self.v.shape[-1])
        n = self.rows.shape[0]
        # What rounding may take from it is added, because the factor of an indefinite matrix is NaN.
        mean = self._mean() * (1 + n * jnp.finfo(self.v.dtype).eps)
        gram = jnp.matmul(self.rows, self.rows.T, precision=HIGHEST)
        self.complement = inverse_factor(mean * jnp.eye(n, dtype=self.v.dtype) - gram)

    def _mean(self) -> Scalar | float:
        return 1.0 if self.inverse_scale is None else self.basis.weights @ self.inverse_scale

    def solve(self, r: Coefficients) -> Coefficients:
        """``P^-1 r``."""
        weights = self.basis.weights[:, None]
        velocity = self._inverse_metric(self.basis.deviation(r)[1])
        b = jnp.sum(weights * velocity, 0)
        constant = (b + solve_factored(self.complement, self.rows @ b) @ self.rows) / self._mean()
        velocity = velocity - self._inverse_metric(constant)
        return self.basis.adjoint(jnp.zeros_like(velocity), weights * velocity)

    def _inverse_metric(self, velocity: Float[Array, "*t d"]) -> Points:
        along = jnp.sum(self.v * velocity[..., None, :], -1)
        inverse = velocity - jnp.sum(along[..., None] * self.v, -2)
        return inverse if self.inverse_scale is None else self.inverse_scale[:, None] * inverse


def _whitened(update: LowRankUpdate) -> Float[Array, "k d"]:
    """V with ``G^-1 = I - V^T V``."""
    roots = jnp.sqrt(update.weights)[:, None] * update.factors
    gram = jnp.matmul(roots, roots.T, precision=HIGHEST)
    return jnp.matmul(inverse_factor(jnp.eye(roots.shape[0], dtype=roots.dtype) + gram), roots, precision=HIGHEST)


def line_search(evaluate, c: Coefficients, energy: Scalar, p: Coefficients, slope: Scalar):
    """Halve a step along ``p`` until the energy goes down enough; returns the path, energy, gradient, and success.

    Armijo's condition, or where the change of the energy drowns in rounding, the one on slopes that is equivalent to it
    for a quadratic function (Hager & Zhang 2005, "approximate Wolfe"): so the search does not stop at paths accurate to
    only the square root of the precision.
    """
    noise = rounding(energy)

    def trial(carry):
        a, _, _, _, k = carry
        new, g = evaluate(c + a * p)
        armijo = new <= energy + 0.1 * a * slope
        flatter = (new <= energy + noise) & (jnp.sum(g * p) <= -0.8 * slope)
        return a / 2, new, g, (armijo | flatter) & jnp.isfinite(new), k + 1

    def again(carry):
        _, _, _, found, k = carry
        return ~found & (k < 40)

    first = (jnp.ones_like(energy), energy, jnp.zeros_like(c), jnp.asarray(False), jnp.zeros((), jnp.int32))
    a, new, g, found, _ = jax.lax.while_loop(again, trial, first)
    return c + 2 * a * p, new, g, found & (slope <= 0)
