import equinox as eqx
import jax
import jax.numpy as jnp
from flax import linen, nnx

from scoregeo import FunctionScore, SpectralNewton, SteinMetric, geodesic

x, y, solver = jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7]), SpectralNewton(rtol=1e-3, path_rtol=1.0, max_elements=1)
layer, key = linen.Dense(2), jax.random.key(0)
of_linen = FunctionScore(layer.apply, layer.init(key, x))
of_equinox = eqx.nn.MLP(2, 2, 16, 2, activation=jnp.tanh, key=key)
for name, score in {"linen": of_linen, "nnx": nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "equinox": of_equinox}.items():
    print(name, geodesic(SteinMetric(score), x, y, solver=solver))
