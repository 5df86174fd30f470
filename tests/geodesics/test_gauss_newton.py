"""The preconditioner of graph metrics against the Gauss-Newton matrix of the lifted path, made by differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import network

from scoregeo import EuclideanMetric, FunctionScore, GraphMetric, PullbackMetric, ScoreJacobianMetric
from scoregeo.geodesics.spectral import gauss_newton
from scoregeo.geodesics.spectral.energy import PathEnergy
from scoregeo.geodesics.spectral.gauss_newton import ElementPreconditioner, EuclideanPreconditioner
from scoregeo.geodesics.spectral.legendre import Basis
from scoregeo.geodesics.spectral.preconditioners import CondensedPreconditioner, WoodburyPreconditioner

BREAKS = jnp.array([0.0, 0.1, 0.45, 0.5, 1.0])
W, U = np.random.default_rng(0).normal(size=(2, 3, 3))


def wide(x):
    return jnp.concatenate([jnp.sin(x), x * jnp.roll(x, 1), x + 0.2 * x**3])


# name: (metric, its feature by hand, floor, strength)
METRICS = {
    "graph": (GraphMetric(wide, strength=20.0), wide, 1.0, 20.0),
    "score with curl": (
        ScoreJacobianMetric(FunctionScore(network, W, U), 0.9, 5.0),
        lambda x: network(x, W, U),
        1.0,
        5.0 * 0.9**4,
    ),
    "pullback": (PullbackMetric(wide), wide, 0.0, 1.0),
    "pullback, floor": (PullbackMetric(wide, floor=0.4), wide, 0.4, 1.0),
    "scaled": (0.3 * GraphMetric(wide, strength=20.0), wide, 0.3, 6.0),
    "sum": (
        GraphMetric(wide, strength=20.0) + 0.5 * PullbackMetric(jnp.tanh) + EuclideanMetric(),
        lambda x: jnp.concatenate([wide(x), 0.025**0.5 * jnp.tanh(x)]),
        2.0,
        20.0,
    ),
}


def problem_and_path(metric, breaks, d=3, degree=5):
    rng = np.random.default_rng(1)
    basis = Basis(breaks, degree, 2 * degree)
    c = basis.project(jnp.asarray(rng.normal(size=(breaks.size - 1, degree, d))))
    return PathEnergy(metric, *jnp.asarray(rng.normal(size=(2, d)))), basis, c


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "breaks", "held"),
    [*((name, BREAKS, None) for name in METRICS), ("graph", BREAKS[::4], None), ("score with curl", BREAKS, 60)],
    ids=[*METRICS, "one element", "few points at a time"],
)
def test_is_gauss_newton(name, breaks, held, monkeypatch):
    if held:
        monkeypatch.setattr(gauss_newton, "_MAX_HELD", held)
    metric, feature, floor, strength = METRICS[name]
    problem, basis, c = problem_and_path(metric, breaks)
    a = basis.project(jnp.asarray(np.random.default_rng(2).normal(size=c.shape)))

    @jax.jit
    def there_and_back(fraction):
        def lifted(c):
            """What half the square of is the energy."""
            points, velocities = basis.path(problem.x, problem.y, c)
            pushed = jax.vmap(lambda x, v: jax.jvp(feature, (x,), (v,))[1])(points, velocities)
            root, base = jnp.sqrt(basis.weights)[:, None], (1 - fraction) + fraction * floor
            parts = jnp.sqrt(base) * root * velocities, jnp.sqrt(fraction * strength) * root * pushed
            return jnp.concatenate([part.reshape(-1) for part in parts])

        value, pull = jax.vjp(lifted, c)
        (product,) = pull(jax.jvp(lifted, (c,), (a,))[1])
        preconditioner = problem.preconditioner(basis, c, fraction)
        assert isinstance(preconditioner, ElementPreconditioner)
        return value @ value / 2, problem(basis, c, fraction), preconditioner.solve(basis.project(product))

    for fraction in (1.0, 0.3):
        half_square, energy, solved = there_and_back(fraction)
        np.testing.assert_allclose(half_square, energy, rtol=1e-12)
        np.testing.assert_allclose(solved, a, rtol=1e-7, atol=1e-7)


def test_choice_by_structure():
    few = GraphMetric(lambda x: jnp.stack([jnp.sum(x**2), x[0]]))
    assert issubclass(_kind(few), WoodburyPreconditioner | CondensedPreconditioner)
    assert _kind(GraphMetric(wide)) is ElementPreconditioner
    assert _kind(ScoreJacobianMetric(lambda x: -x, 1.0), d=150) is EuclideanPreconditioner


def _kind(metric, d=3):
    kinds = []

    def make(x, y, c):
        problem = PathEnergy(metric, x, y)
        kinds.append(type(problem.preconditioner(Basis(BREAKS, 5, 10), c)))
        return jnp.zeros(())

    jax.eval_shape(make, jnp.zeros(d), jnp.ones(d), jnp.zeros((4, 5, d)))
    return kinds[0]
