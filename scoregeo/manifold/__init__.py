"""The geometry of the data themselves, read from a score: tangent spaces, dimension, curvature.

Data near a manifold, with Gaussian noise of standard deviation sigma added, have a score s with Jacobian J. Tweedie's
formula for the second moments of the clean point x0, given a noisy one x (Efron 2011), is

    E[(x0 - x)(x0 - x)^T | x] / sigma^2 = I + sigma^2 (J + s s^T),                                        (1)
    Cov[x0 | x] / sigma^2               = I + sigma^2 J = P                                               (2)

and on the manifold, where sigma is small against its radius of curvature and large against the noise that the data
have already, P is nearly the projector on the tangent space. Its trace counts dimensions, its derivatives say how the
manifold bends. What is asked for is a point on or near the manifold, a clean one, and the noise level of the score.

The noise level is the standard deviation of the noise that was *added* to the data, ``x0 + sigma eps``, as in
``model.score_at(sigma)``. For the score of ``alpha x0 + sigma eps`` (variance preserving diffusions), divide ``x`` and
``sigma`` by ``alpha``, and multiply the score by it.
"""

from .bending import gauss_curvature, mean_curvature, second_fundamental_form
from .dimension import denoising_dimension, intrinsic_dimension, normal_bundle_dimension, participation_rank
from .levels import dimension_curve, extrapolate, knee, slope_dimension
from .tangent import tangent_projector, tangent_space

__all__ = [
    "denoising_dimension",
    "dimension_curve",
    "extrapolate",
    "gauss_curvature",
    "intrinsic_dimension",
    "knee",
    "mean_curvature",
    "normal_bundle_dimension",
    "participation_rank",
    "second_fundamental_form",
    "slope_dimension",
    "tangent_projector",
    "tangent_space",
]
