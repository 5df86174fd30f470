"""Settings of a solve over levels of refinement, and what they say of a level."""

from typing import NamedTuple

from jaxtyping import Array

from .legendre import Basis, Breaks

# An integer where shapes depend on it; elsewhere it may be an array: a solve on its own is compiled for all levels.
Level = int | Array
Flag = bool | Array


class Settings(NamedTuple):
    """Settings of a solve; see `SpectralNewton` for their meaning."""

    degree: int
    quadrature: int
    elements: tuple[int, ...]
    only_judges: bool  # the last level: it is not to improve on what was found before
    rtol: float
    path_rtol: float
    tolerance: float
    max_steps: int
    max_cg: int
    continuation: int
    adaptations: int
    max_evaluations: int

    def basis(self, breaks: Breaks) -> Basis:
        """The basis on ``breaks``."""
        return Basis(breaks, self.degree, self.quadrature * self.degree)

    def level_basis(self, breaks: Breaks, level: int) -> Basis:
        """The basis of ``level``, from ``breaks`` that were padded to those of the last level."""
        return self.basis(breaks[: self.elements[level] + 1])

    def points(self, level: int) -> int:
        """At how many points a path on ``level`` is evaluated."""
        return self.elements[level] * self.degree * self.quadrature

    def continues(self, level: Level) -> Flag:
        """Whether a search that fails on ``level`` is repeated along a continuation, and not on the next level."""
        return self.continuation > 0 and (self.only_judges | (level > 0))

    def is_last(self, level: Level) -> Flag:
        """Whether ``level`` is the last one."""
        return level == len(self.elements) - 1
