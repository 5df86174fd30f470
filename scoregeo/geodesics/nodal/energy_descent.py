"""Geodesics by minimising the energy of a chain of segments with any optimiser that optimistix knows."""

import jax.numpy as jnp
import optimistix as optx

from ..._checks import setting
from ..._numerics import by_precision, safe_sqrt
from ..spectral.energy import PathEnergy
from ..spectral.legendre import Basis, Coefficients, uniform_breaks
from ..spectral.newton import evaluate
from .base import AbstractNodalSolver, Minimum, relative_gradient
from .minimise import minimise


class EnergyDescent(AbstractNodalSolver):
    """Minimises the energy of segments, by two Gauss points on each, with any `optimistix` minimiser.

    **Arguments**

    - ``minimiser``: an ``optimistix.AbstractMinimiser``, also ``optimistix.OptaxMinimiser(optax.adam(1e-2), rtol=1e-5,
      atol=1e-5)``; default limited-memory BFGS. What it sees are the velocities of the segments (less their mean,
      divided by the square root of their number) in units of the Euclidean length of the starting path, and the energy
      in units of its square: its tolerances and learning rates are relative to the problem, and independent of
      ``nodes``.
    - ``nodes``: points of the path, with both ends, at equal times; at least 5.
    - ``max_steps``: of the minimiser.
    - ``tolerance``: solved when the gradient of the discrete energy, preconditioned and relative to the path, is below
      this where the minimiser ends (by its own criteria); default 1e-6 in float64, 1e-3 in float32. Minimisers that
      compare energies cannot do much better than the square root of the precision.
    - ``rtol``: relative error of the length, as estimated in ``error``, above which the result is
      ``accuracy_not_reached``. The nodes have errors of order ``1 / nodes^2``, and the length of the C1 cubic through
      them, which is what is returned, of order ``1 / nodes^4``.

    ``stats``: ``iterations``, ``path_error``. Derivatives are those of what is returned, by the implicit function
    theorem on the discrete energy. Raises ``TypeError`` for a ``minimiser`` that is none.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EnergyDescent, geodesic
    >>> from scoregeo.metrics.models import HyperbolicHalfSpace
    >>> path = geodesic(HyperbolicHalfSpace(), jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]), solver=EnergyDescent())
    >>> round(float(path.length), 5)  # log(2)
    0.69315
    """

    minimiser: optx.AbstractMinimiser | None = None
    nodes: int = setting(65)
    max_steps: int = setting(1000)
    tolerance: float | None = setting(None)
    rtol: float = setting(1e-4)

    def __check_init__(self):
        if not (self.minimiser is None or isinstance(self.minimiser, optx.AbstractMinimiser)):
            raise TypeError(
                f"`minimiser` must be an optimistix minimiser such as optimistix.LBFGS(rtol=1e-8, atol=1e-8), got "
                f"{type(self.minimiser).__name__}"
            )

    def basis(self, dtype) -> Basis:
        """Segments with two Gauss points on each."""
        return Basis(uniform_breaks(self.nodes - 1, dtype), 1, 2)

    def default_tolerance(self, dtype) -> float:
        """1e-6 in float64, 1e-3 in float32."""
        return by_precision(dtype, 1e-6, 1e-3)

    def minimise(self, problem: PathEnergy, start: Coefficients) -> Minimum:
        """Run the minimiser until it stops, or ``max_steps``."""
        small = 1e-2 * self.gradient_tolerance(start.dtype)
        minimiser = optx.LBFGS(rtol=small, atol=small, norm=optx.two_norm)
        minimiser = minimiser if self.minimiser is None else self.minimiser
        squared = jnp.sum((problem.y - problem.x) ** 2) + jnp.sum(start**2)
        unit = safe_sqrt(jnp.where(squared > 0, squared, 1))
        # optimistix allocates the history of L-BFGS in the default precision, whatever that of its unknowns.
        working = jnp.result_type(float)

        def objective(z, args):
            problem, unit = args
            return (problem(self.basis(start.dtype), unit * z.astype(start.dtype)) / unit**2).astype(working)

        z, steps = minimise(objective, minimiser, (start / unit).astype(working), (problem, unit), self.max_steps)
        # A minimiser may change what has no influence on the path, such as the mean of all velocities.
        basis = self.basis(start.dtype)
        at = evaluate(problem, basis, basis.project(unit * z.astype(start.dtype)))
        return Minimum(at.c, relative_gradient(at.squared_decrement, at.energy), steps)
