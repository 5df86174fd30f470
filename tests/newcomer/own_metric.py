import jax.numpy as jnp

from scoregeo import AbstractMetric, geodesic
from scoregeo.metrics import DiagonalInnerProduct


class HalfPlane(AbstractMetric):
    def at(self, x):
        return DiagonalInnerProduct(jnp.full_like(x, 1 / x[1] ** 2))


print(geodesic(HalfPlane(), jnp.array([-1.0, 1.0]), jnp.array([1.0, 1.0])).length)
