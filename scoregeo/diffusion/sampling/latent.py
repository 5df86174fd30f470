r"""The latent space of a diffusion model: where the probability flow carries a point on its way to pure noise.

The flow from data to noise can be run both ways, so every point ``x`` has one latent ``z``, which is close to standard
normal over the data (Song et al. 2021, arXiv 2011.13456, section 4.3; "DDIM inversion" with small steps). With ``z`` as
in `likelihood`, equations (1) and (2), a model that is a Gaussian has ``dz/dw = 0``.
"""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ..._checks import as_point
from ..._types import Point, Scalar, Vector
from ..schedules import AbstractSchedule
from .base import MarginalScore, ProbabilityFlow
from .samplers import scaled_score

_FLOW = ProbabilityFlow(rtol=1e-5, atol=1e-5)


class LatentFlow(eqx.Module):
    """The probability flow as a map from points to latents and back; made by `DiffusionModel.latent`.

    **Fields**

    - ``score``, ``schedule``: the marginal score ``(x_t, t)`` of the data, and its path.
    - ``mean``, ``variance``: moments of the data, ``(d,)`` and a scalar.
    - ``flow``: tolerances (in standard deviations of ``z``), solver and most steps.

    `encode` and `decode` are inverse to each other up to the tolerances, pass through ``jax.jit`` and ``jax.vmap``, and
    give NaN where the integration fails.

    >>> import jax.numpy as jnp
    >>> from scoregeo.diffusion import VP, LatentFlow
    >>> flow = LatentFlow(lambda x, t: -x, VP(), jnp.zeros(2), 1.0)  # VP keeps N(0, I) as it is
    >>> [round(float(z), 3) for z in flow.encode(jnp.array([1.0, -2.0]))]
    [1.0, -2.0]
    """

    score: MarginalScore
    schedule: AbstractSchedule
    mean: Point
    variance: Scalar | float
    flow: ProbabilityFlow = _FLOW

    def encode(self, x: Point) -> Vector:
        """The latent ``(d,)`` of the point ``x`` ``(d,)``, about standard normal for data."""
        x = as_point(x, "x", dim=self.mean.size)
        start, end = self.schedule.noise_range(x.dtype)
        return self._carry((x - self.mean) / self._spread(start), start, end)

    def decode(self, z: Vector) -> Point:
        """The point ``(d,)`` whose latent is ``z`` ``(d,)``."""
        z = as_point(z, "z", dim=self.mean.size)
        start, end = self.schedule.noise_range(z.dtype)
        return self.mean + self._spread(start) * self._carry(z, end, start)

    def _spread(self, level: Scalar) -> Array:
        return jnp.sqrt(self.variance + level**2)

    def _carry(self, z: Vector, start: Scalar, end: Scalar) -> Vector:
        score = scaled_score(self.score, self.schedule)

        def velocity(w, z, _):
            level = jnp.exp(w)
            c = self._spread(level)
            return -(level**2) / c * (score(self.mean + c * z, level) + z / c)

        control = diffrax.PIDController(rtol=self.flow.rtol, atol=self.flow.atol, dtmin=1e-8, force_dtmin=False)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity), self.flow.solver, jnp.log(start), jnp.log(end),
            jnp.sign(end - start) * 0.1, z, stepsize_controller=control, max_steps=self.flow.max_steps, throw=False,
        )  # fmt: skip
        assert solution.ys is not None  # diffrax keeps the end unless it is told not to
        return jnp.where(solution.result == diffrax.RESULTS.successful, solution.ys[-1], jnp.nan)
