"""Frechet means: ours against geomstats' FrechetMean on the same metric, in one run, to the same gradient norm.

    uv run python benchmarks/means.py [--points 50] [--norm 1e-6] [--repeats 3]

About ten minutes on two cores that do nothing else. Ours goes first, to the asked norm or below, where its last step
happens to end; then geomstats, until its own is not above that. It gets our metric by `scoregeo.adapters.geomstats`, so
that its logarithms are solved by the same solver, side by side and compiled; what differs is how often, and from where.
Its steps are those of its default, gradient descent from the first point, and the norm of its answer is less than ours
by no more than its last step gained. Normals are also given to geomstats with our closed form, and as geomstats' own
manifold. Compile time is apart: each side runs once before. The gradient norm of every answer is measured in the same
way, by our logarithms. Seconds are those of all cores, which what else the machine does hardly changes. Results go to
results/means.csv, one line for each method, with the ratio of its time to ours, as soon as there are any.
"""

import argparse
import logging
import pathlib
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from timing import about, write_rows

import scoregeo as sg
from scoregeo.adapters.geomstats import to_geomstats
from scoregeo.fisher_rao import ClosedForm, FisherRaoMetric, Normal
from scoregeo.statistics import frechet_mean

jax.config.update("jax_enable_x64", True)

# No norm below this is asked of geomstats.
ROUNDING = 1e-10
MODES = jnp.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])


def mixture(points):
    """The Stein metric of three Gaussians, and a sample of them."""
    rng = np.random.default_rng(0)
    xs = MODES[rng.integers(3, size=points)] + 0.5 * rng.normal(size=(points, 2))
    return sg.SteinMetric(sg.KernelDensityScore(MODES, 0.5), 1.0), xs


def normals(points):
    """The Fisher-Rao metric of normals, and some of them."""
    rng = np.random.default_rng(0)
    return FisherRaoMetric(Normal()), jnp.stack([rng.normal(size=points), jnp.exp(0.7 * rng.normal(size=points))], -1)


@jax.jit
def gradient_norm(metric, m, xs):
    """The length of the mean logarithm."""
    logs = jax.vmap(lambda x: sg.log(metric, m, x, throw=False))(xs)
    return metric.norm(m, jnp.mean(logs, 0))


def geomstats_mean(space, norm, xs):
    """A function that runs geomstats' default until the gradient norm is not above ``norm``."""
    from geomstats.learning.frechet_mean import FrechetMean

    xs = np.asarray(xs)

    def run():
        estimator = FrechetMean(space)
        # Its tolerance is one of the squared norm, times the dimension.
        estimator.set(epsilon=norm**2 / space.dim, max_iter=200)
        return jnp.asarray(estimator.fit(xs).estimate_)

    return run


def timed(function, repeats):
    """What it returns, the seconds of the first call, and the median of later ones (one if that takes a minute)."""
    start = time.process_time()
    value = jax.block_until_ready(function())
    first, seconds = time.process_time() - start, []
    while len(seconds) < repeats and sum(seconds) < 60:
        start = time.process_time()
        jax.block_until_ready(function())
        seconds.append(time.process_time() - start)
    return value, first, float(np.median(seconds))


def geomstats_spaces(name, metric):
    """The ways in which geomstats can have a metric."""
    yield "geomstats, our metric", to_geomstats(metric, 2).space
    if name == "normals":
        from geomstats.information_geometry.normal import UnivariateNormalDistributions

        yield "geomstats, our metric, closed form", to_geomstats(metric, 2, solver=ClosedForm()).space
        yield "geomstats, its own manifold", UnivariateNormalDistributions()


def rows(name, metric, xs, norm, repeats):
    """One dictionary for each method."""
    # As a part of the spread, which is above a half.
    ours = jax.jit(lambda xs: frechet_mean(metric, xs, gtol=0.1 * norm))
    found, first, seconds = timed(lambda: ours(xs), repeats)
    base = {"problem": name, "points": len(xs)}
    reached = float(gradient_norm(metric, found.point, xs))
    norms = {"gradient_norm": reached}
    yield base | {"method": "scoregeo", "seconds": seconds, "first_call": first, "ratio": 1.0} | norms
    for method, space in geomstats_spaces(name, metric):
        point, first, theirs = timed(geomstats_mean(space, max(reached, ROUNDING), xs), repeats)
        norms = {"gradient_norm": float(gradient_norm(metric, point, xs))}
        yield base | {"method": method, "seconds": theirs, "first_call": first, "ratio": theirs / seconds} | norms


def main():
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--norm", type=float, default=1e-6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", default=str(pathlib.Path(__file__).parent / "results" / "means.csv"))
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    facts = about("jax", "geomstats")
    found = []
    for name, problem in (("normals", normals), ("mixture", mixture)):
        metric, xs = problem(options.points)
        for row in rows(name, metric, jnp.asarray(xs), options.norm, options.repeats):
            print("  ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
            found.append(row | {"date": facts["date"], "cores": facts["cores"], "load": round(facts["load"][0], 2)})
            write_rows(options.out, found)


if __name__ == "__main__":
    main()
