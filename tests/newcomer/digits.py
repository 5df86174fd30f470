import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import SpectralNewton, SteinMetric, datasets, geodesic, plotting, recommend_strength
from scoregeo.diffusion import FitConfig, fit

data = datasets.digits()
score = fit(data, FitConfig(steps=300, batch_size=128)).score_at(0.3)
metric = SteinMetric(score, recommend_strength(SteinMetric, score, data.points, ratio=100.0))
path = geodesic(metric, data.points[3], data.points[8], solver=SpectralNewton(rtol=1e-2, path_rtol=1.0))
figure = Figure(figsize=(7, 1.5))
images = data.undo(path.evaluate(jnp.linspace(0, 1, 9)))
plotting.image_strip(figure.subplots(), {"geodesic": images}, data.image_shape)
figure.savefig("digits.png")
