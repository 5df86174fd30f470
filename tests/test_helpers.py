"""The helpers of the tests: what others compare with must itself be right."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import (
    CURL,
    X,
    Y,
    central_differences,
    half_space,
    poincare_ball,
    programs_compiled,
    radial,
    stereographic_sphere,
    tanh_field,
)
from scipy.integrate import quad


def test_closed_forms_are_lengths_along_known_geodesics():
    """Integrals of the line element along rays, which are geodesics by symmetry."""
    length, _ = quad(lambda r: np.sqrt(1 + (0.7 * r) ** 2), 0, 1.3)
    np.testing.assert_allclose(radial(1.3, 0.7), length, rtol=1e-12)
    np.testing.assert_allclose(radial(-1.3, 0.7), -length, rtol=1e-12)
    ray, origin = np.array([0.3, 0.4]), np.zeros(2)
    np.testing.assert_allclose(poincare_ball(origin, ray), quad(lambda r: 2 / (1 - r**2), 0, 0.5)[0], rtol=1e-12)
    np.testing.assert_allclose(stereographic_sphere(origin, ray), quad(lambda r: 2 / (1 + r**2), 0, 0.5)[0], rtol=1e-12)
    np.testing.assert_allclose(half_space(np.array([1.0, 0.5]), np.array([1.0, 2.0])), np.log(4), rtol=1e-12)


def test_central_differences():
    """Against automatic derivatives, with the axes of the value before those of the argument."""
    args = (jnp.asarray(X), jnp.asarray(CURL))
    for argnum in range(2):
        slopes = central_differences(tanh_field, args, argnum)
        np.testing.assert_allclose(slopes, jax.jacobian(tanh_field, argnum)(*args), atol=1e-9)
    assert not np.allclose(jax.jacobian(tanh_field)(*args), jax.jacobian(tanh_field)(*args).T)
    assert not np.allclose(X, Y)


def test_programs_that_are_compiled_are_counted():
    program, counts = jax.jit(lambda x: 3 * jnp.sinh(x)), []
    for size in (2, 2, 3):
        x = np.ones(size)
        with programs_compiled() as seen:
            program(x)
        counts.append(len(seen))
    program(np.ones(4))
    assert len(seen) == 1, "nobody counts any more"
    assert counts == [1, 0, 1]
