r"""Noise schedules: how much signal and how much noise a diffused point has at time ``t``.

A schedule is a path of Gaussian corruptions of the data ``x_0``,

    x_t = alpha(t) x_0 + sigma(t) eps,      eps ~ N(0, I),                                        (1)

which is the law of the linear stochastic differential equation ``dx = f(t) x dt + g(t) dw`` with

    f = d log(alpha)/dt,      g^2 = d(sigma^2)/dt - 2 f sigma^2                                   (2)

(Song et al. 2021, arXiv 2011.13456). Dividing (1) by ``alpha`` gives ``x_0`` plus noise of standard deviation
``sigma/alpha``, the *noise level*: two schedules with the same noise level see the same data through the same noise, so
one network trained by noise level serves every schedule. In terms of it, (2) says

    g^2 = 2 sigma^2 d log(sigma/alpha)/dt.                                                        (3)

| schedule | alpha | sigma | noise level | f | g^2 |
|---|---|---|---|---|---|
| `EDM` | 1 | t | t | 0 | 2 t |
| `VE` | 1 | a (b/a)^t | sigma | 0 | 2 sigma^2 log(b/a) |
| `VP` | exp(-B/2) | sqrt(1 - exp(-B)) | sqrt(exp(B) - 1) | -beta/2 | beta |
| `SubVP` | exp(-B/2) | 1 - exp(-B) | 2 sinh(B/2) | -beta/2 | beta (1 - exp(-2 B)) |
| `Cosine` | cos(phi)/cos(phi_0) | sqrt(1 - alpha^2) | sigma/alpha | -phi' tan(phi) | 2 phi' tan(phi) |
| `RectifiedFlow` | 1 - t | t | t/(1 - t) | -1/(1 - t) | 2 t/(1 - t) |

(``a``, ``b``: the least and the largest sigma; ``B`` is the integral of ``beta``; ``phi`` is linear in ``t``.)
"""

from .base import AbstractSchedule, uniform_draws
from .rectified_flow import RectifiedFlow
from .variance_exploding import EDM, VE
from .variance_preserving import VP, Cosine, SubVP

__all__ = ["EDM", "SCHEDULES", "VE", "VP", "AbstractSchedule", "Cosine", "RectifiedFlow", "SubVP", "uniform_draws"]

SCHEDULES = {kind.__name__: kind for kind in (Cosine, EDM, RectifiedFlow, SubVP, VE, VP)}
