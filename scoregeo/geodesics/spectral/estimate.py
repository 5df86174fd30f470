"""An error estimate for the length of any curve, whichever solver found it."""

import jax

from ..._types import Scalar
from ..curves import AbstractCurve
from .energy import PathEnergy
from .legendre import Basis, uniform_breaks
from .newton import estimated_error, evaluate, relative_path_error

_ELEMENTS, _DEGREE = 16, 8


def estimate_error(problem: PathEnergy, curve: AbstractCurve, length: Scalar) -> tuple[Scalar, Scalar]:
    """Estimated absolute error of ``length`` as the distance, and relative error of ``curve`` as the geodesic.

    ``curve`` is projected, in energy, to piecewise polynomials between the same ends. With L' the length of those and
    g the gradient of their energy, preconditioned by P: ``error = |L' - length| + g^T P^-1 g / (2 L')``, what a
    Newton step expects to shorten them by, added to what the projection changed. Frozen: it has no derivative.
    """
    problem = problem.frozen()
    basis = Basis(uniform_breaks(_ELEMENTS, problem.x.dtype), _DEGREE, 2 * _DEGREE)
    _, velocities = jax.lax.stop_gradient(jax.vmap(curve)(basis.times))
    at = evaluate(problem, basis, basis.project_velocity(velocities, problem.x, problem.y))
    error = estimated_error(at.energy, at.squared_decrement, jax.lax.stop_gradient(length))
    return error, relative_path_error(at.energy, at.squared_decrement)
