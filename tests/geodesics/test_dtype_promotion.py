"""Solvers pass where JAX refuses every promotion of types and ranks that nobody asked for."""

import jax
import jax.numpy as jnp
import pytest

import scoregeo as sg
from scoregeo import GaussianScore, SteinMetric

CASES = [
    ("gradient", False, "float32"),
    ("dist", True, "float64"),
    ("batch", False, "float32"),
    ("log", False, "float32"),
    ("exp", False, "float32"),
]
OPERATIONS = {
    "dist": sg.dist,
    "gradient": lambda metric, x, y: jax.grad(sg.dist, 1)(metric, x, y)[0],
    "batch": lambda metric, x, y: jax.vmap(lambda s: sg.dist(metric, s * x, y))(jnp.linspace(0.5, 1, 2, dtype=x.dtype)),
    "log": sg.log,
    "exp": sg.exp,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "x64", "dtype"), CASES)
def test_operations(name, x64, dtype):
    with jax.enable_x64(x64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        metric = SteinMetric(GaussianScore(jnp.zeros(2, dtype), jnp.eye(2, dtype=dtype)), 2.0)
        value = OPERATIONS[name](metric, jnp.array([-1.0, 0.5], dtype), jnp.array([1.0, 0.7], dtype))
        assert value.dtype == dtype
        assert jnp.isfinite(value).all()
