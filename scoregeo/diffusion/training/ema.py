r"""Running averages of the weights, which is what a model keeps: ``average <- decay average + (1 - decay) weights``.

The power function average of Karras et al. (2024, arXiv 2312.02696, sec. 3) after ``t`` steps gives the weights of step
``s`` the share

    (s^(g+1) - (s-1)^(g+1)) / t^(g+1),      s = 1 .. t,                                           (1)

that of the density ``(g+1) tau^g/t^(g+1)`` on ``[s-1, s]``, which the decay ``(1 - 1/t)^(g+1)`` gives exactly. So its
memory is a fixed fraction of the run, and the start of the run is forgotten by itself. Its width, the standard
deviation of ``tau/t``, is ``sqrt(g+1)/((g+2) sqrt(g+3))``.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._checks import check_count, check_number
from ..._types import Scalar


class AbstractEMA(eqx.Module):
    """An average of the weights: one decay for each step."""

    @property
    def snapshots(self) -> int:
        """How often in a run the averages are put beside the checkpoints; never by default, see `PowerEMA`."""
        return 0

    @abc.abstractmethod
    def decays(self, step: Array) -> dict[str, Scalar]:
        """The decay of every average that is kept, by name, in the step after ``step`` steps (traced). The model keeps
        the one called ``average``."""


class ConstantEMA(AbstractEMA):
    """The same ``decay`` in every step: a memory of about ``1/(1 - decay)`` steps, which also holds the random start.

    **Arguments**

    - ``decay``: in [0, 1); 0 keeps the last weights.
    """

    decay: float = 0.999

    def __check_init__(self):
        check_number(self, "decay", lambda value: 0 <= value < 1, "in [0, 1)")

    def decays(self, step):
        return {"average": jnp.asarray(self.decay)}


class WarmupEMA(AbstractEMA):
    """A decay that grows to ``decay`` as ``(1 + k)/(10 + k)`` in step ``k``: the random start has left the average
    after a few dozen steps.

    **Arguments**

    - ``decay``: in [0, 1); 0 keeps the last weights.
    """

    decay: float = 0.999

    def __check_init__(self):
        check_number(self, "decay", lambda value: 0 <= value < 1, "in [0, 1)")

    def decays(self, step):
        return {"average": jnp.minimum(self.decay, (1 + step) / (10 + step))}


class PowerEMA(AbstractEMA):
    """The power function average, equation (1), whose memory is a fraction of the run.

    **Arguments**

    - ``width``: standard deviation of that memory relative to the length of the run, in (0, 0.28]; 0.05 to 0.15 are
      usual.
    - ``snapshots``: how often in a run this average and one of ``second_width`` are put beside the checkpoints, so that
      `posthoc_ema` can make the average of any other width afterwards; 0 for never. At most once for each chunk of
      steps. Needs a ``checkpoint_dir``.
    - ``second_width``: as ``width``, and different.
    """

    width: float = 0.1
    snapshots: int = 0
    second_width: float = 0.05

    def __check_init__(self):
        for name in ("width", "second_width"):
            check_number(self, name, lambda value: 0 < value <= 0.28, "in (0, 0.28]")
        check_count("snapshots", self.snapshots, 0)
        if self.width == self.second_width:
            raise ValueError(f"`second_width` must differ from `width`, got {self.second_width!r} for both")

    def decays(self, step):
        widths = {"average": self.width} | ({"second": self.second_width} if self.snapshots else {})
        # The power is taken by the exponential: 1 - 1/t loses digits in single precision where t is large.
        log_ratio = jnp.log1p(-1 / (1 + step))
        return {name: jnp.exp((1 + exponent(width)) * log_ratio) for name, width in widths.items()}


def exponent(width: float) -> float:
    """The exponent ``g`` of the power function average of a given width in (0, 0.28].

    >>> round(exponent(0.1), 4)
    6.9372
    """
    # The exponent is the largest root of (g+2)^2 (g+3) width^2 = g+1.
    inverse = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(roots[np.abs(roots.imag) < 1e-9].real.max())


def shares(width: float, step: int, edges: np.ndarray) -> np.ndarray:
    """Of the average of ``width`` after ``step`` steps, the share of the weights between successive ``edges`` (numbers
    of steps); equation (1) summed. Shape ``(len(edges) - 1,)``."""
    return np.diff(np.minimum(np.asarray(edges) / step, 1.0) ** (1 + exponent(width)))
