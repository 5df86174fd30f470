"""What people do with a distance: means, principal directions, clusters, neighbours, regressions, embeddings, samples.

Everything here takes a metric of the library first, whatever it is made of (a score, log p, a family of distributions),
or a matrix of distances, and what iterates says how it ended: ``result`` is a `scoregeo.RESULTS` code.
"""

from .clustering import KMeans, kmeans
from .embedding import (
    AbstractEmbedding,
    ClassicalScaling,
    Embedding,
    MetricScaling,
    SpectralEmbedding,
    affinity,
    embed,
    nearest_neighbors,
)
from .graph import GraphDistances, RefinedDistances, graph_dist
from .mean import FrechetMean, frechet_mean, frechet_median
from .medoids import KMedoids, kmedoids
from .neighbors import Neighbors, nearest
from .pca import (
    PrincipalGeodesics,
    TangentPCA,
    principal_geodesics,
    tangent_pca,
)
from .regression import GeodesicRegression, geodesic_regression
from .sampling import (
    AbstractSampler,
    AdaptedSampler,
    BrownianPath,
    GeodesicSlice,
    GeodesicSliceState,
    Info,
    LagrangianMonteCarlo,
    LagrangianState,
    Langevin,
    LangevinState,
    Samples,
    VolumeDensity,
    VolumeScore,
    adapt_step_size,
    brownian_motion,
    inverse_divergence,
    riemannian_normal,
    sample,
    with_volume,
)

__all__ = [
    "AbstractEmbedding",
    "AbstractSampler",
    "AdaptedSampler",
    "BrownianPath",
    "ClassicalScaling",
    "Embedding",
    "FrechetMean",
    "GeodesicRegression",
    "GeodesicSlice",
    "GeodesicSliceState",
    "GraphDistances",
    "Info",
    "KMeans",
    "KMedoids",
    "LagrangianMonteCarlo",
    "LagrangianState",
    "Langevin",
    "LangevinState",
    "MetricScaling",
    "Neighbors",
    "PrincipalGeodesics",
    "RefinedDistances",
    "Samples",
    "SpectralEmbedding",
    "TangentPCA",
    "VolumeDensity",
    "VolumeScore",
    "adapt_step_size",
    "affinity",
    "brownian_motion",
    "embed",
    "frechet_mean",
    "frechet_median",
    "geodesic_regression",
    "graph_dist",
    "inverse_divergence",
    "kmeans",
    "kmedoids",
    "nearest",
    "nearest_neighbors",
    "principal_geodesics",
    "riemannian_normal",
    "sample",
    "tangent_pca",
    "with_volume",
]
