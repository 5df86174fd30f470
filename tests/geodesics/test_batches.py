"""Under `jax.vmap`, a hard lane costs a solver its own steps, not those of all lanes."""

import collections

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    EnergyDescent,
    FunctionScore,
    Georce,
    MatrixMetric,
    Shooting,
    SpectralNewton,
    SteinMetric,
    _batching,
    dist,
    geodesic,
)

CALLS = collections.Counter()


def bump(x):
    """Flat, but for a hill at the origin; counts the points at which it is evaluated, those of every lane."""
    jax.debug.callback(lambda _: CALLS.update(points=1), x[0])
    return (1 + 10 * jnp.exp(-4 * x[:2] @ x[:2])) * jnp.eye(x.size)


def evaluations(solve, *arrays):
    """The result of ``solve`` and how often the metric was evaluated for it."""
    jax.block_until_ready(solve(*arrays))  # compiled, and what is evaluated at compile time is done
    jax.effects_barrier()
    CALLS.clear()
    result = jax.block_until_ready(solve(*arrays))
    jax.effects_barrier()
    return result, CALLS["points"]


@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(Georce(nodes=17, tolerance=1e-4, rtol=0.1), marks=pytest.mark.slow),
        pytest.param(EnergyDescent(nodes=17, tolerance=1e-4, rtol=0.1), marks=pytest.mark.slow),
        pytest.param(Shooting(segments=8, rtol=1e-4, tolerance=1e-3), marks=pytest.mark.slow),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_a_hard_lane_costs_its_own_steps(solver):
    metric = MatrixMetric(bump)

    def lengths(x, y):
        found = geodesic(metric, x, y, solver=solver, ts=(0.0, 1.0), throw=False)
        return found.length

    # Eight pairs far from the hill, and one whose line crosses it off its top. In eight dimensions, two lanes fill a
    # chunk on a CPU.
    far = 5.0 + np.random.default_rng(0).normal(size=(8, 2, 8))
    hard = np.zeros((2, 8))
    hard[:, :2] = [[-1.0, 0.1], [1.0, 0.2]]
    xs, ys = np.concatenate([far, hard[None]]).swapaxes(0, 1)
    alone, together = eqx.filter_jit(lengths), eqx.filter_jit(jax.vmap(lengths))
    singles = [evaluations(alone, x, y) for x, y in zip(xs, ys, strict=True)]
    batch, cost = evaluations(together, xs, ys)
    np.testing.assert_allclose(batch, [length for length, _ in singles], rtol=1e-6)
    costs = [count for _, count in singles]
    assert len(xs) * max(costs) > 2 * sum(costs)  # what all lanes would cost if they waited for the worst of them
    assert cost <= 1.6 * sum(costs)


@pytest.mark.slow
def test_a_solve_in_loops_is_the_same(monkeypatch):
    # On TPUs loops take the place of large operations, which are written out there. Here of all that there are.
    random = np.random.default_rng(0)
    weights = [jnp.asarray(random.standard_normal(shape) / 9) for shape in [(8, 300), (300, 8)]]
    metric = SteinMetric(FunctionScore(lambda x, a, b: b @ jnp.tanh(a @ x) - x, *weights), 2.0)
    x, y = jnp.asarray(random.standard_normal((2, 300)) / 9)

    def solve(y):
        # A new function each time: what was traced for one is not to be used for the other.
        solver = SpectralNewton(max_elements=2)
        lowered = jax.jit(jax.value_and_grad(lambda y: dist(metric, x, y, solver=solver))).lower(y)
        return lowered.as_text().count("stablehlo.while"), lowered.compile()(y)

    loops, plain = solve(y)
    jax.clear_caches()
    monkeypatch.setattr(_batching, "_NUMBERS_WRITTEN_OUT", {"cpu": 2**10})
    more_loops, looped = solve(y)
    jax.clear_caches()
    assert more_loops > loops
    np.testing.assert_allclose(looped[0], plain[0], rtol=1e-9)
    np.testing.assert_allclose(looped[1], plain[1], rtol=1e-5, atol=1e-7)
