import jax.numpy as jnp

import scoregeo as sg
from scoregeo.diffusion import VP, RectifiedFlow

x, y, solver = jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7]), sg.SpectralNewton(rtol=1e-3, path_rtol=1.0)
scores = {
    "function": sg.FunctionScore(lambda x, width: -x / width**2, 1.5),
    "log density": sg.DensityScore(lambda x: -jnp.sum(x**2) / 4.5),
    "predicted noise": sg.PredictionScore(lambda x, t: 0.8 * x, prediction="eps", schedule=VP(), noise_level=0.5),
    "velocity": sg.VelocityScore(lambda x, t: 0.6 / 0.68 * x, RectifiedFlow(), 0.8, data_at=1),
}
for name, score in scores.items():
    print(name, sg.geodesic(sg.SteinMetric(score), x, y, solver=solver))
