"""How data bend: spheres, tori and rolls of known curvature, from the exact scores of points on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import KernelDensityScore
from scoregeo.manifold import (
    extrapolate,
    gauss_curvature,
    intrinsic_dimension,
    mean_curvature,
    participation_rank,
    second_fundamental_form,
    tangent_space,
)


def sphere_in_five():
    """A Fibonacci lattice on a sphere of radius 2 in a random subspace of R^5."""
    i = np.arange(6000) + 0.5
    z, angle = 1 - 2 * i / 6000, np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0][:3]
    return 2 * np.stack([r * np.cos(angle), r * np.sin(angle), z], 1) @ axes


def torus(a, b, large=2.0, small=0.8):
    r = large + small * np.cos(b)
    return np.stack([r * np.cos(a), r * np.sin(a), small * np.sin(b)], -1)


def roll(t, h):
    return np.stack([t * np.cos(t) / 3, h, t * np.sin(t) / 3], -1)


def points(surface, first, second):
    return surface(*np.meshgrid(first, second)).reshape(-1, 3)


def extrapolated(data, x, levels):
    values = [gauss_curvature(KernelDensityScore(data, level), x, 2, level) for level in levels]
    return float(extrapolate(levels, jnp.stack(values))), values


def test_sphere():
    data, levels = jnp.asarray(sphere_in_five()), np.array([0.1, 0.2, 0.4])
    for place in (1234, 4000):
        found, values = extrapolated(data, data[place], levels)
        np.testing.assert_allclose(values, [0.2475, 0.2401, 0.2116], atol=1e-4)
        np.testing.assert_allclose(found, 0.25, rtol=1e-3)
        bends = [mean_curvature(KernelDensityScore(data, level), data[place], 2, level) for level in levels]
        np.testing.assert_allclose(extrapolate(levels, jnp.stack(bends)), -data[place] / 4, atol=1e-3)


@pytest.mark.parametrize("b", [0.0, 1.2, np.pi])
def test_torus(b):
    """cos b / (r (R + r cos b)): positive outside, negative inside; though the points are denser inside."""
    data = points(torus, np.arange(160) * 2 * np.pi / 160, np.arange(64) * 2 * np.pi / 64)
    expected = np.cos(b) / (0.8 * (2 + 0.8 * np.cos(b)))
    np.testing.assert_allclose(extrapolated(data, torus(0.0, b), [0.1, 0.14, 0.2])[0], expected, rtol=1e-2)


def test_swiss_roll():
    """Bent in space, and flat in itself."""
    data = points(roll, np.linspace(1.5 * np.pi, 4.5 * np.pi, 600), np.linspace(-3, 3, 40))
    x = roll(8.7, 0.0)
    found, values = extrapolated(data, x, [0.15, 0.2])
    np.testing.assert_allclose([found, *values], 0, atol=1e-8)
    assert np.linalg.norm(mean_curvature(KernelDensityScore(data, 0.15), x, 2, 0.15)) > 0.1


def test_second_fundamental_form():
    data, sigma = jnp.asarray(sphere_in_five()), 0.1
    score, x = KernelDensityScore(data, sigma), data[1234]
    basis = tangent_space(score, x, 2, sigma)
    u, v = np.random.default_rng(1).normal(size=(2, 5))
    tangent = u @ basis.T @ basis, v @ basis.T @ basis
    expected = -(tangent[0] @ tangent[1]) * x / 4  # -<u, v> / R along the normal
    for settings, tolerance in (({}, 0.02), ({"basis": basis}, 0.006)):
        found = second_fundamental_form(score, x, u, v, sigma, **settings)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-6)
        np.testing.assert_allclose(found, second_fundamental_form(score, x, v, u, sigma, **settings), atol=1e-10)
    for settings, tolerance in (({}, 1e-2), ({"basis": basis}, 1e-12)):
        found = second_fundamental_form(score, x, u, v, sigma, **settings)
        np.testing.assert_allclose(basis @ found, 0, atol=tolerance)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: gauss_curvature(s, x, 1, 0.2), "`k` must be an integer of at least 2, got 1"),
        (lambda s, x: gauss_curvature(s, x, 4, 0.2), "`k` must be at most the dimension 3"),
        (lambda s, x: mean_curvature(s, x, 2), "`noise_level` is missing: a KernelDensityScore"),
        (lambda s, x: second_fundamental_form(s, x, x[:2], x, 0.2), r"`u` must have shape \(3,\), got \(2,\)"),
        (
            lambda s, x: second_fundamental_form(s, x, x, x, 0.2, basis=jnp.eye(2)),
            r"`basis` must have shape \(n, 3\), got \(2, 2\)",
        ),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(KernelDensityScore(np.random.default_rng(0).normal(size=(5, 3)), 0.2), np.zeros(3))


def test_single_precision():
    """Of a point, whatever the score is kept in."""
    data = sphere_in_five()
    x, score = data[1234].astype(np.float32), KernelDensityScore(data, 0.2)
    for found in (
        gauss_curvature(score, x, 2, 0.2),
        second_fundamental_form(score, x, x, x, 0.2),
        tangent_space(score, x, 2, 0.2),
    ):
        assert found.dtype == jnp.float32
    np.testing.assert_allclose(gauss_curvature(score, x, 2, 0.2), 0.2401, rtol=1e-3)
    for dimension in (intrinsic_dimension, participation_rank):
        value, error = dimension(score, x, 0.2, probes=5, key=jax.random.key(0), with_error=True)
        assert value.dtype == error.dtype == jnp.float32
        np.testing.assert_allclose(dimension(score, x, 0.2), 2, rtol=0.02)
