"""Score Jacobian geodesics where the truth is known: along a closed curve, and what they cost in high dimension."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import score_jacobian as benchmark
from helpers import network_score

from scoregeo import RESULTS, ScoreJacobianMetric, SpectralNewton, geodesic, verify


@pytest.mark.slow
def test_stays_on_a_closed_curve():
    """The straight line is .3 to .6 away from it, Stein's geodesic .1 to .2."""
    solve = jax.jit(lambda metric, x, y: geodesic(metric, x, y, throw=False))
    for separation, allowed in zip(benchmark.SEPARATIONS, (0.020, 0.022), strict=True):
        for seed in benchmark.SEEDS:
            metrics, x, y = benchmark.curve_problem(separation, seed)
            path = solve(metrics["score Jacobian"], jnp.asarray(x), jnp.asarray(y))
            assert path.result == RESULTS.successful
            assert benchmark.distance_to_curve(path.points, seed).mean() < allowed
            # What was measured is at most 160, without the preconditioner thousands.
            assert path.stats["cg_steps"] < 250
            assert verify(metrics["score Jacobian"], path) < 1e-5


@pytest.mark.slow
def test_high_dimension():
    """It converges, and memory grows as d does."""
    solver, memory = SpectralNewton(max_elements=1, rtol=1e-3), []
    for d in (784, 3136):
        rng = np.random.default_rng(0)
        x, y = jnp.asarray(rng.normal(size=(2, d)))
        metric = ScoreJacobianMetric(network_score(0, d), 0.5, 100.0)
        program = jax.jit(lambda m, x, y: geodesic(m, x, y, solver=solver, throw=False)).lower(metric, x, y).compile()
        path = program(metric, x, y)
        assert path.result == RESULTS.successful
        memory.append(program.memory_analysis().temp_size_in_bytes)
    assert memory[1] < 4.5 * memory[0]
    assert memory[0] < 784**2 * 8 * 4
