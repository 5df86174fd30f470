import jax
import jax.numpy as jnp

from scoregeo import GaussianScore, SteinMetric, dist
from scoregeo.statistics import frechet_mean

metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)), 1.0)
points = jnp.array([[1.5, 0.0], [1.0, 1.0], [0.0, 1.5], [0.2, 1.9]])
mean = frechet_mean(metric, points)
print(*mean.point, mean.variance)
print(jnp.mean(jax.vmap(lambda x: dist(metric, points.mean(0), x))(points) ** 2))
