"""Functions that draw: matplotlib ``Axes`` in, artist out.

Every function takes the axes to draw on first, and returns what it added; none makes a figure, shows one, or asks
matplotlib for the current one. Colours are told apart by readers who are colour-blind, and in grey. Everything here is
for pictures in the plane, or of images; the calculations behind them run in JAX, wherever the user put their arrays.
"""

from .animation import write_animation
from .comparison import comparison_figure, correlation_matrix, distance_scatter, half_plane
from .curves import GeodesicArtists, geodesics
from .distances import distance_field, voronoi
from .explain import convergence_figure, explain
from .fans import FanArtists, GridArtists, exponential_grid, geodesic_fan
from .fields import density, score_field, tissot
from .images import image_grid, image_strip, mean_images
from .manifold import DimensionArtists, dimension_curve
from .maps import curvature_map, scalar_map, volume_map
from .matrices import distance_matrix, leaf_order, thumbnails
from .reports import calibration, evaluation_figure, held_out_loss, memorization_gap, score_errors
from .statistics import (
    PointArtists,
    components_figure,
    embedding_figure,
    explained_variance,
    labelled_points,
    sample_figure,
)
from .surfaces import SurfaceArtists, graph_surface

__all__ = [
    "DimensionArtists",
    "FanArtists",
    "GeodesicArtists",
    "GridArtists",
    "PointArtists",
    "SurfaceArtists",
    "calibration",
    "comparison_figure",
    "components_figure",
    "convergence_figure",
    "correlation_matrix",
    "curvature_map",
    "density",
    "dimension_curve",
    "distance_field",
    "distance_matrix",
    "distance_scatter",
    "embedding_figure",
    "evaluation_figure",
    "explain",
    "explained_variance",
    "exponential_grid",
    "geodesic_fan",
    "geodesics",
    "graph_surface",
    "half_plane",
    "held_out_loss",
    "image_grid",
    "image_strip",
    "labelled_points",
    "leaf_order",
    "mean_images",
    "memorization_gap",
    "sample_figure",
    "scalar_map",
    "score_errors",
    "score_field",
    "thumbnails",
    "tissot",
    "volume_map",
    "voronoi",
    "write_animation",
]
