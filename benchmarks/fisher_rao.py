"""Fisher-Rao distances: ours in batches against geomstats, in one run.

    uv run python benchmarks/fisher_rao.py [--pairs 1000] [--out NAME.json]

A few minutes on two cores. Closed forms: geomstats gets all pairs in one call too. Families without one: geomstats
solves a boundary value problem with SciPy for each pair, and is timed on a few. Pairs on which geomstats raises or
disagrees are counted. Compile time is apart; everything is in float64.
"""

import argparse
import json
import os
import pathlib
import time
import warnings
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, in_turns

import scoregeo.adapters.geomstats  # noqa: F401 - first: geomstats by itself does not import with NumPy 2.4

# isort: split
from geomstats.information_geometry.beta import BetaDistributions
from geomstats.information_geometry.dirichlet import DirichletDistributions
from geomstats.information_geometry.gamma import GammaDistributions
from geomstats.information_geometry.normal import DiagonalNormalDistributions

from scoregeo import RESULTS, SpectralNewton, geodesic
from scoregeo.fisher_rao import (
    Beta,
    DiagonalNormal,
    Dirichlet,
    FisherRaoMetric,
    Gamma,
    MultivariateNormal,
)

jax.config.update("jax_enable_x64", True)

SEED = 0
AGREEMENT = 1e-3  # relative; what geomstats' shooting reaches at its defaults
FEW = 10


def positive(rng, pairs: int, size: int) -> np.ndarray:
    """Pairs of positive parameters, ``(2, pairs, size)``, of order one."""
    return np.exp(rng.uniform(-0.7, 1.4, (2, pairs, size)))


def normals(rng, pairs: int, dim: int) -> np.ndarray:
    """Pairs of multivariate normals as parameters ``theta``, ``(2, pairs, size)``."""
    family = MultivariateNormal(dim)
    means = rng.normal(size=(2, pairs, dim))
    factors = rng.normal(size=(2, pairs, dim, dim))
    covs = factors @ np.swapaxes(factors, -1, -2) / dim + 0.2 * np.eye(dim)
    return np.asarray(jax.vmap(jax.vmap(family.pack))(jnp.asarray(means), jnp.asarray(covs)))


def theirs_one_by_one(space, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """geomstats' distances of these pairs, NaN where it raised, and the seconds for a pair."""
    found = np.full(len(a), np.nan)
    start = time.perf_counter()
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        try:
            found[i] = np.squeeze(space.metric.dist(x, y))
        except Exception as error:  # a benchmark keeps failures
            print(f"geomstats: {type(error).__name__}: {error}")
    return found, (time.perf_counter() - start) / len(a)


def row(name: str, ours: np.ndarray, theirs: np.ndarray, our_time: float, their_time: float, compile_time) -> dict:
    """One line of the table; times are for a pair."""
    n = len(theirs)
    difference = np.abs(ours[:n] / theirs - 1)
    good = difference <= AGREEMENT
    return {
        "family": name,
        "pairs": len(ours),
        "seconds a pair": our_time,
        "geomstats, seconds a pair": their_time,
        "times faster": their_time / our_time,
        "geomstats failed or differs": int(n - good.sum()),
        "of": n,
        "median difference": float(np.median(difference[good])) if good.any() else None,
        "compile seconds": compile_time["wall"],
    }


def closed_forms(rng, pairs: int) -> list[dict]:
    """Diagonal normals, whose distances both libraries have in closed form."""
    rows = []
    for dim in (1, 5):
        family, space = DiagonalNormal(dim), DiagonalNormalDistributions(dim)
        means, sds = rng.normal(size=(2, pairs, dim)), positive(rng, pairs, dim)
        a, b = jnp.asarray(np.concatenate([means, sds], -1))
        program, seconds = compiled(jax.vmap(family.dist), a, b)
        variances = np.concatenate([means, sds**2], -1)
        each, few = theirs_one_by_one(space, *variances[:, :FEW])
        together = lambda: space.metric.dist(*variances)  # noqa: B023, E731
        ours, batch = in_turns(lambda: program(a, b), together)  # noqa: B023
        found = row(f"DiagonalNormal({dim})", np.asarray(program(a, b)), each, ours / pairs, few, seconds)
        rows.append(found | {"times faster than geomstats in one call": batch / ours})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def numerical(rng, pairs: int) -> list[dict]:
    """Families whose geodesics both libraries solve for numerically."""
    cases = (
        ("Gamma", Gamma(), GammaDistributions(), 2),
        ("Beta", Beta(), BetaDistributions(), 2),
        ("Dirichlet(3)", Dirichlet(3), DirichletDistributions(3), 3),
    )
    rows = []
    # geomstats reaches six digits.
    solver = SpectralNewton(rtol=1e-6, path_rtol=1.0)
    for name, family, space, size in cases:
        metric = FisherRaoMetric(family, unconstrained=True)
        a, b = jnp.asarray(positive(rng, pairs, size))

        def solve(a, b, metric=metric, family=family):
            ends = family.to_unconstrained(a), family.to_unconstrained(b)
            found = geodesic(metric, *ends, solver=solver, throw=False)
            return found.length, found.result == RESULTS.successful

        program, seconds = compiled(jax.vmap(solve), a, b)
        (ours,) = in_turns(lambda: program(a, b), repeats=3)  # noqa: B023
        lengths, solved = map(np.asarray, program(a, b))
        # geomstats' coordinates of gamma distributions are shape and mean (tests/adapters compares their metric).
        ends = [np.stack([t[:, 0], t[:, 0] / t[:, 1]], 1) if name == "Gamma" else np.asarray(t) for t in (a, b)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, each = theirs_one_by_one(space, *(end[:FEW] for end in ends))
        rows.append(row(name, lengths, theirs, ours / pairs, each, seconds) | {"ours not solved": int((~solved).sum())})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def multivariate(rng, pairs: int) -> list[dict]:
    """Multivariate normals, for which geomstats has no general distance: all pairs in one call."""
    rows = []
    for dim in (2, 5, 10):
        family = MultivariateNormal(dim)
        a, b = jnp.asarray(normals(rng, pairs, dim))

        def solve(a, b, family=family):
            found = family.geodesic(a, b, jnp.linspace(0.0, 1.0, 3), throw=False)
            return found.length, found.residual, found.result == RESULTS.successful

        program, seconds = compiled(jax.vmap(solve), a, b)
        (ours,) = in_turns(lambda: program(a, b), repeats=3)  # noqa: B023
        _, residual, solved = map(np.asarray, program(a, b))
        rows.append(
            {
                "family": f"MultivariateNormal({dim})",
                "pairs": pairs,
                "seconds a pair": ours / pairs,
                "not solved": int((~solved).sum()),
                "largest residual": float(residual.max()),
                "compile seconds": seconds["wall"],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Run everything, print each row, and write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(SEED)
    report = {
        "device": str(jax.devices()[0]),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {name: metadata.version(name) for name in ("jax", "geomstats", "numpy", "scipy")},
        "closed forms": closed_forms(rng, arguments.pairs),
        "numerical": numerical(rng, arguments.pairs),
        "multivariate normal": multivariate(rng, arguments.pairs),
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
