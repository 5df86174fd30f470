"""Energies and derivatives of all points of a path, and the rows of a preconditioner that come with them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import AbstractMetric, EuclideanMetric, FunctionScore, GaussianScore, GraphMetric, SteinMetric
from scoregeo.geodesics.spectral.energy import PathEnergy
from scoregeo.geodesics.spectral.legendre import Basis, uniform_breaks
from scoregeo.metrics import LowRankUpdate


def curl(x):
    return jnp.roll(jnp.sin(2 * x), 1) - 0.5 * x


class Varying(AbstractMetric):
    """Of rank one, with a weight that differs from place to place."""

    def at(self, x):
        return LowRankUpdate(curl(x)[None], jnp.exp(x[:1]))


class RankTwo(AbstractMetric):
    def at(self, x):
        return LowRankUpdate(jnp.stack([curl(x), jnp.tanh(x)]), jnp.ones(2, x.dtype))


class Inside(AbstractMetric):
    """Stein's metric on a ball alone."""

    def at(self, x):
        return stein.at(x)

    def domain(self, x):
        return 2 - x @ x


stein = SteinMetric(FunctionScore(curl), 2.0)
# Those of one row, of the same weight everywhere, are differentiated by it.
BY_ROWS = {
    "stein": stein,
    "scaled": 0.3 * stein,
    "gaussian": SteinMetric(GaussianScore(jnp.zeros(3), jnp.eye(3)), 5.0),
    "graph": GraphMetric(lambda x: jnp.sin(x[:1] * x[1:2]), strength=3.0),
    "inside": Inside(),
}
OTHERS = {"euclid": EuclideanMetric(), "varying": Varying(), "rank two": RankTwo(), "sum": stein + stein}


@pytest.mark.parametrize("fraction", [1.0, 0.2])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*BY_ROWS, *OTHERS])
def test_gradients_are_those_of_the_density(name, dtype, fraction):
    metric = jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, {**BY_ROWS, **OTHERS}[name])
    points, velocities = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 3)), dtype)
    problem = PathEnergy(metric, points[0], points[1])
    densities, pulls, rows = jax.jit(lambda x, v: problem.gradients(x, v, fraction))(points, velocities)
    assert (rows is not None) == (name in BY_ROWS)
    density = jax.value_and_grad(lambda x, v: problem.density(x, v, fraction), (0, 1))
    expected, derivatives = jax.vmap(density)(points, velocities)
    inside = np.asarray(jnp.isfinite(expected))
    assert inside.all() == (name != "inside")
    assert (np.isfinite(np.asarray(densities)) == inside).all()
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(densities[inside], expected[inside], rtol=tolerance)
    for found, by_autodiff in zip(pulls, derivatives, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found[inside], by_autodiff[inside], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["stein", "scaled", "graph"])
def test_a_preconditioner_of_known_rows_is_the_one_that_finds_them(name):
    basis = Basis(uniform_breaks(2, jnp.float64), 3, 6)
    x, y = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3)))
    c = basis.project(jax.random.normal(jax.random.key(0), (2, 3, 3)))
    problem = PathEnergy(BY_ROWS[name], x, y)
    rows = problem.gradients(*basis.path(x, y, c), 0.7)[2]
    r = basis.project(jax.random.normal(jax.random.key(1), c.shape))
    known, found = (p.preconditioner(basis, c, 0.7).solve(r) for p in (problem.knowing(rows), problem))
    np.testing.assert_allclose(known, found, rtol=1e-13, atol=1e-13)
    other = problem.knowing(rows._replace(u=2 * rows.u)).preconditioner(basis, c, 0.7).solve(r)
    assert not np.allclose(other, found, rtol=1e-3)
