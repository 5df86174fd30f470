"""Functions that draw: matplotlib ``Axes`` in, artist out.

Every function takes the axes to draw on first, and returns what it added; none makes a figure, shows one, or asks
matplotlib for the current one. Colours are told apart by readers who are colour-blind, and in grey. Everything here is
for pictures in the plane, or of images; the calculations behind them run in JAX, wherever the user put their arrays.
"""

from .comparison import comparison_figure, correlation_matrix, distance_scatter, half_plane
from .curves import GeodesicArtists, geodesics
from .fields import density, score_field, tissot
from .images import image_grid, image_strip
from .manifold import DimensionArtists, dimension_curve
from .reports import calibration, evaluation_figure, held_out_loss, memorization_gap, score_errors
from .statistics import (
    PointArtists,
    components_figure,
    embedding_figure,
    explained_variance,
    labelled_points,
    sample_figure,
)

__all__ = [
    "DimensionArtists",
    "GeodesicArtists",
    "PointArtists",
    "calibration",
    "comparison_figure",
    "components_figure",
    "correlation_matrix",
    "density",
    "dimension_curve",
    "distance_scatter",
    "embedding_figure",
    "evaluation_figure",
    "explained_variance",
    "geodesics",
    "half_plane",
    "held_out_loss",
    "image_grid",
    "image_strip",
    "labelled_points",
    "memorization_gap",
    "sample_figure",
    "score_errors",
    "score_field",
    "tissot",
]
