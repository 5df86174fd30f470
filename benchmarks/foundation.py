"""Speed and memory of the foundation: acceleration against bare Jacobian products, and a geodesic in dimension 3072.

    uv run python benchmarks/foundation.py [--out benchmarks/results/NAME.json]

Everything is compiled and run once before it is timed, compile time is kept apart, results are blocked on, and
compared things are timed in turns within one run. Machines are shared: read the ratios, not the milliseconds.
"""

import argparse
import json
import pathlib
import platform
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

import scoregeo
from scoregeo import RESULTS, FunctionScore, SpectralNewton, SteinMetric, geodesic, verify

jax.config.update("jax_enable_x64", True)


def network(x, w1, w2, w3):
    """A random network minus x: smooth, and not a gradient."""
    return jnp.tanh(jnp.tanh(x @ w1) @ w2) @ w3 - x


def random_network(d, width=256, seed=0):
    """Weights of `network` for dimension ``d``, and two random points."""
    k = jax.random.split(jax.random.key(seed), 5)
    shapes = ((d, width), (width, width), (width, d))
    weights = [jax.random.normal(key, shape) / shape[0] ** 0.5 for key, shape in zip(k[:3], shapes, strict=True)]
    return weights, jax.random.normal(k[3], (d,)), jax.random.normal(k[4], (d,))


def seconds_per_call(functions, repeats=15, calls=40):
    """Median seconds a call of each (function, *arguments), timed in turns; the first call of each is not counted."""
    for f, *arguments in functions:
        jax.block_until_ready(f(*arguments))
    times = [[] for _ in functions]
    for _ in range(repeats):
        for (f, *arguments), kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            for _ in range(calls):
                out = f(*arguments)
            jax.block_until_ready(out)
            kept.append((time.perf_counter() - start) / calls)
    return [float(np.median(kept)) for kept in times]


def acceleration(d=784, batch=16):
    """The acceleration of the Stein metric against the Jacobian products that it is made of, on a batch of points."""
    weights, x, v = random_network(d)
    xs, vs = x + 0.1 * jnp.arange(batch)[:, None], v + 0.1 * jnp.arange(batch)[:, None]
    rows = {}
    for name, conservative in (("conservative: JVP", True), ("any score: JVP + VJP", False)):
        metric = SteinMetric(FunctionScore(network, *weights, conservative=conservative), 1.0)

        def products(score, x, v, conservative=conservative):
            jvp = jax.jvp(score, (x,), (v,))[1]
            return jvp if conservative else (jvp, jax.vjp(score, x)[1](v)[0])

        bare = jax.jit(jax.vmap(products, in_axes=(None, 0, 0)))
        full = jax.jit(jax.vmap(lambda m, x, v: m.acceleration(x, v), in_axes=(None, 0, 0)))
        t_bare, t_full = seconds_per_call([(bare, metric.score, xs, vs), (full, metric, xs, vs)])
        rows[name] = {"bare_ms": 1e3 * t_bare, "acceleration_ms": 1e3 * t_full, "ratio": t_full / t_bare}
    return rows


def high_dimension(d=3072, rtol=1e-6):
    """One geodesic of a random non-gradient network score: time after compilation, accuracy, and memory."""
    weights, x, y = random_network(d)
    metric = SteinMetric(FunctionScore(network, *weights), 1.0)
    solver = SpectralNewton(rtol=rtol, path_rtol=1e-3)
    solve = jax.jit(lambda metric, x, y: geodesic(metric, x, y, solver=solver, throw=False))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    compiled = solve.lower(metric, x, y).compile()
    compile_seconds = time.perf_counter() - start
    result = jax.block_until_ready(compiled(metric, x, y))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(compiled(metric, x, y))
        times.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = compiled.memory_analysis()
    tight = geodesic(
        metric, x, y, solver=SpectralNewton(rtol=1e-10, path_rtol=1e-6, degree=64, max_elements=4), throw=False
    )
    return {
        "dimension": d,
        "status": "converged" if bool(result.result == RESULTS.successful) else str(result.result),
        "length": float(result.length),
        "estimated_error": float(result.error),
        "error_against_degree_64": abs(float(result.length - tight.length)),
        "diffrax_defect": float(verify(metric, result)),
        "elements": int(result.stats["elements"]),
        "compile_seconds": compile_seconds,
        "solve_seconds_median": float(np.median(times)),
        "solve_seconds_worst": max(times),
        "buffers_MiB": memory.temp_size_in_bytes / 2**20 if memory is not None else None,
        "process_peak_rise_MiB": (after - before) / 1024,
        "one_path_MiB": int(result.stats["elements"]) * 16 * d * 8 / 2**20,
    }


def memory_growth(dimensions=(768, 1536, 3072), degrees=(16, 64)):
    """Bytes of XLA's temporary buffers for one solve, by dimension and highest degree: O(n d) means doubling with
    either."""
    rows = []
    for degree in degrees:
        for d in dimensions:
            weights, x, y = random_network(d, width=64)
            metric = SteinMetric(FunctionScore(network, *weights), 1.0)
            solver = SpectralNewton(degree=degree, max_elements=1)
            solve = jax.jit(lambda m, x, y, s=solver: geodesic(m, x, y, solver=s, throw=False))
            used = solve.lower(metric, x, y).compile().memory_analysis().temp_size_in_bytes
            rows.append(
                {"dimension": d, "degree": degree, "buffers_MiB": used / 2**20, "paths": used / (degree * d * 8)}
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="where to write the figures as JSON")
    out = parser.parse_args().out
    report = {
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "versions": {"scoregeo": scoregeo.__version__, "jax": jax.__version__, "python": platform.python_version()},
        "acceleration_d784": acceleration(),
        "geodesic": high_dimension(),
        "memory": memory_growth(),
    }
    print(json.dumps(report, indent=2))
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
