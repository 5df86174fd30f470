"""How the cost grows with the dimension and with the coefficients of a path, and what compiling costs."""

import time

import jax
import numpy as np
from foundation import network, random_network
from timing import compiled, median_seconds

from scoregeo import FunctionScore, SpectralNewton, SteinMetric, dist, geodesic


def _network_problem(d: int, width: int = 256, seed: int = 0):
    """The Stein metric of a random network, and two points."""
    weights, x, y = random_network(d, width, seed)
    return SteinMetric(FunctionScore(network, *weights), 1.0), x, y


def exponent(sizes, seconds) -> dict:
    """Slope of a line through the logarithms, and the root mean square distance from it as a factor."""
    a, b = np.log(sizes), np.log(seconds)
    slope, offset = np.polyfit(a, b, 1)
    return {"exponent": float(slope), "residual_factor": float(np.exp(np.sqrt(np.mean((b - slope * a - offset) ** 2))))}


def _timed(d: int, solver: SpectralNewton) -> dict:
    """One solve, and its seconds for a sweep: one evaluation of the metric at all points of the last level.

    Sweeps compare sizes that take different numbers of iterations.
    """
    metric, x, y = _network_problem(d)
    solve, _ = compiled(
        lambda m, x, y: geodesic(m, x, y, solver=solver, ts=(0.0, 1.0), throw=False).stats, metric, x, y
    )
    seconds = median_seconds(solve, metric, x, y, limit=5.0)
    stats = solve(metric, x, y)
    points = solver.max_elements * solver.degree * solver.quadrature
    sweeps = int(stats["metric_evaluations"]) / points
    steps = {name: int(stats[name]) for name in ("newton_steps", "cg_steps")}
    return {"seconds": seconds, **steps, "sweeps": sweeps, "seconds_per_sweep": seconds / sweeps}


def _fitted(rows: list[dict], size: str) -> dict:
    """The rows and the exponents of their seconds in ``size``; those of the two largest sizes show the trend."""
    sizes = [row[size] for row in rows]
    fits = {key: exponent(sizes, [row[key] for row in rows]) for key in ("seconds", "seconds_per_sweep")}
    last = exponent(sizes[-2:], [row["seconds_per_sweep"] for row in rows[-2:]])["exponent"]
    return {"rows": rows, **fits, "last_two_exponent": last}


def growth_with_dimension(dimensions=(64, 192, 784, 3072)) -> dict:
    """One polynomial of degree 16, judged by two, and a network of constant width."""
    solver = SpectralNewton(max_elements=1, adaptations=0, continuation=0)
    return _fitted([{"d": d, **_timed(d, solver)} for d in dimensions], "d")


def growth_with_coefficients(d: int, elements=(2, 4, 16)) -> dict:
    """Degree 16 on more and more elements, n coefficients for every dimension.

    Unreachable accuracy makes the solver go through all levels, of which the last costs most.
    """
    rows = []
    for k in elements:
        solver = SpectralNewton(rtol=1e-16, path_rtol=1e-16, max_elements=k, adaptations=0, continuation=0)
        rows.append({"n": 16 * k, **_timed(d, solver)})
    return _fitted(rows, "n")


def compile_times(dimensions=(2, 64)) -> list[dict]:
    """Seconds of the first call of `dist` under `jax.jit` for a network score (tracing, compiling, and milliseconds of
    solving), of the wall and of all cores, and how often it is traced for two networks of the same shape."""
    rows = []
    for d in dimensions:
        traces = []

        def length(metric, x, y, traces=traces):
            traces.append(1)
            return dist(metric, x, y, throw=False)

        first, second = _network_problem(d), _network_problem(d, seed=1)
        # Nothing of an earlier compilation may be left over.
        jax.clear_caches()
        jitted = jax.jit(length)
        wall, cores = time.perf_counter(), time.process_time()
        jax.block_until_ready(jitted(*first))
        wall, cores = time.perf_counter() - wall, time.process_time() - cores
        jax.block_until_ready(jitted(*second))
        rows.append({"d": d, "wall": wall, "cpu": cores, "traces_for_two_networks": len(traces)})
    return rows
