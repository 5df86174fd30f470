"""Arithmetic that keeps derivatives and signs right, and constants that depend on the precision."""

import jax
import jax.numpy as jnp
import numpy as np

from scoregeo._numerics import by_precision, frozen, safe_sqrt


def test_safe_sqrt():
    np.testing.assert_array_equal(safe_sqrt(jnp.array([4.0, 0.0, -1e-20, jnp.nan])), [2, 0, 0, np.nan])
    np.testing.assert_array_equal(jax.vmap(jax.grad(safe_sqrt))(jnp.array([4.0, 0.0, -1.0])), [0.25, 0, 0])


def test_frozen():
    slope = jax.grad(lambda x: frozen({"a": x, "b": 3})["a"] * frozen({"a": x, "b": 3})["b"] + x)(2.0)
    assert slope == 1


def test_by_precision():
    assert by_precision(jnp.float64, "double", "single") == "double"
    for dtype in (jnp.float32, jnp.bfloat16):
        assert by_precision(dtype, "double", "single") == "single"
