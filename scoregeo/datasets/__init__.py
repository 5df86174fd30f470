"""Data sets: toy densities whose exact score is known, real data that come with dependencies, and files of any kind.

Every synthetic set carries its exact ``score`` (with a normalised ``log_prob``), so a learned score can be compared
with the truth. Curves (moons, rings, a spiral) are made so that this holds too: a point is drawn from equally spaced
places on the curve and moved by isotropic Gaussian noise, hence the data *are* a Gaussian mixture, exactly, and stay
one when a diffusion adds noise (``score.noised(alpha, sigma)``). The places are never further apart than the standard
deviation of the noise: along the curve the density ripples by a relative ``2 exp(-2 pi^2) < 1e-8`` (Poisson summation)
about that of the continuous curve, far below anything that a solver sees.

Real data are standardised. The `Standardization` travels with the data and the model, and is undone on output.
"""

from .base import Dataset, Standardization
from .files import load
from .images import digits
from .letters import rotated_letters
from .real import real
from .toy import banana, checkerboard, four_modes, gaussian_mixture, rings, spiral, three_modes, two_moons

__all__ = [
    "Dataset",
    "Standardization",
    "banana",
    "checkerboard",
    "digits",
    "four_modes",
    "gaussian_mixture",
    "load",
    "real",
    "rings",
    "rotated_letters",
    "spiral",
    "three_modes",
    "two_moons",
]
