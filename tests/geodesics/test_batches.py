"""Under `jax.vmap`, a hard lane costs a solver its own steps, not those of all lanes."""

import collections

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import EnergyDescent, Georce, MatrixMetric, Shooting, geodesic

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
        Georce(nodes=17, tolerance=1e-4, rtol=0.1),
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
