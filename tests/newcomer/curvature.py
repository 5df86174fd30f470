import jax.numpy as jnp

from scoregeo import GaussianScore, SteinMetric, scalar_curvature

metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.diag(jnp.array([1.0, 0.25]))), strength=2.0)
print(scalar_curvature(metric, jnp.zeros(2)) / 2)
