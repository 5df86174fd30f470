"""A derivative of a solve is traced with the search once, and without the path where only a length is asked for."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import KernelDensityScore, SpectralNewton, SteinMetric, dist, log, squared_dist
from scoregeo.geodesics.spectral.implicit import Linearisation
from scoregeo.geodesics.spectral.refinement import Refinement

MODES = jnp.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])
X, Y = jnp.array([-1.5, 0.2]), jnp.array([1.4, -0.3])
QUICK = SpectralNewton(degree=8, max_elements=1)


def traced(operation, monkeypatch):
    """How often the parts of a solve are traced with the gradient of ``operation``, when nothing is known before."""
    jax.clear_caches()
    counts = collections.Counter()
    for owner, name in [(Refinement, "minimise"), (Linearisation, "coefficients_tangent")]:
        whole = getattr(owner, name)

        def counted(*args, name=name, whole=whole, **kwargs):
            counts[name] += 1
            return whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)
    metric = SteinMetric(KernelDensityScore(MODES, 0.5), jnp.asarray(1.0))
    jax.jit(jax.grad(lambda y: jnp.sum(operation(metric, X, y, solver=QUICK)))).trace(Y)
    return counts["minimise"], counts["coefficients_tangent"]


@pytest.mark.parametrize("operation", [dist, squared_dist])
def test_a_length_is_traced_without_the_movement_of_its_path(operation, monkeypatch):
    assert traced(operation, monkeypatch) == (1, 0)


def test_a_path_is_searched_once_for_itself_and_its_derivative(monkeypatch):
    assert traced(log, monkeypatch) == (1, len(QUICK.settings(X.dtype).elements))


@pytest.mark.slow
def test_the_second_derivative_knows_how_the_path_moves():
    """The gradient of half of the squared distance is minus G log (Gauss's lemma); its derivative needs that."""
    metric = SteinMetric(KernelDensityScore(MODES, 0.5), 0.3)
    solver = SpectralNewton(max_elements=4, path_rtol=1e-3)
    half = jax.jit(jax.jacfwd(jax.grad(lambda x: squared_dist(metric, x, Y, solver=solver) / 2)))
    covector = jax.jit(jax.jacfwd(lambda x: -metric.at(x).mv(log(metric, x, Y, solver=solver))))
    np.testing.assert_allclose(half(X), covector(X), rtol=1e-5, atol=1e-6)
