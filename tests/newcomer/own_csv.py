import numpy as np
from matplotlib.figure import Figure

from scoregeo import SteinMetric, datasets, pairwise_dist, plotting, recommend_strength
from scoregeo.diffusion import FitConfig, fit

data = datasets.load("measurements.csv", label="kind")
score = fit(data, FitConfig(steps=300)).score_at(0.4)
metric = SteinMetric(score, recommend_strength(SteinMetric, score, data.points, ratio=10.0))
matrix, results = pairwise_dist(metric, data.points)
np.save("distances.npy", matrix)
figure = Figure()
plotting.distance_matrix(figure.subplots(), matrix, labels=data.labels)
figure.savefig("distances.png")
