import jax
import jax.numpy as jnp

from scoregeo import GaussianScore, SpectralNewton, SteinMetric, squared_dist

metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)), 1.0)
solver = SpectralNewton(rtol=1e-2, path_rtol=1.0, max_elements=1)
weights, inputs, targets = jnp.eye(2), jnp.array([[1.0, 0.3], [0.2, 1.0]]), jnp.array([[1.2, 0.8], [-0.7, 1.1]])
distances = jax.vmap(lambda x, y: squared_dist(metric, x, y, solver=solver))
step = jax.jit(jax.value_and_grad(lambda weights: distances(inputs @ weights, targets).mean()))
for _ in range(60):
    value, slope = step(weights)
    weights = weights - 0.15 * slope
    print(value)
