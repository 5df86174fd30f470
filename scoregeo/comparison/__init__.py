"""Side by side: distances of the same pairs (`compare`), and a score and its copy (`evaluate_copy`)."""

from .copies import CopyReport, evaluate_copy
from .distances import Comparison, Correlations, Entry, compare

__all__ = ["Comparison", "CopyReport", "Correlations", "Entry", "compare", "evaluate_copy"]
