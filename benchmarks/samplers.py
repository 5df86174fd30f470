"""Samplers on targets whose moments are known: how far means of four chains are off, in standard errors.

    uv run python benchmarks/samplers.py [--seeds 3] [--out benchmarks/results/samplers.csv]

Every target is a map of independent standard normal variables z; draws are taken back to these, and the means of each
z_i and of z_i^2 - 1 are compared with zero, in standard errors: the deviation that these have (1, and the root of 2)
over the root of the effective sample size (blackjax's). `off_own` has the deviation of the draws in its place, which is
too small where they have not been far out. One row for each comparison.

Of exact samplers 4.6% are more than two standard errors off and 0.27% more than three, so that of the 88 of one seed
one or more are in 21 of 100 runs: what is to be judged is how many. Step sizes are those of the tests, and seeds the
first ones from 100 on. About two minutes of one core for a seed.
"""

import argparse
import functools
import pathlib
import time
from typing import Any, NamedTuple

import blackjax.diagnostics
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from timing import write_rows

from scoregeo import AbstractMetric, DensityScore, GaussianScore, KernelDensityScore, SteinMetric
from scoregeo.metrics import DiagonalInnerProduct
from scoregeo.statistics import GeodesicSlice, LagrangianMonteCarlo, Langevin, sample

jax.config.update("jax_enable_x64", True)

CHAINS = 4


class Problem(NamedTuple):
    """``from_normal`` makes a draw of the target ``log_prob`` of independent standard normal variables, ``to_normal``
    takes it back."""

    dim: int
    log_prob: Any
    from_normal: Any
    to_normal: Any


def banana_to_normal(x):
    return jnp.stack([x[0], (x[1] - 0.6 * (x[0] ** 2 - 1)) / 0.5])


def banana_log_prob(x):
    z = banana_to_normal(x)
    return -z @ z / 2


BANANA = Problem(2, banana_log_prob, lambda z: jnp.stack([z[0], 0.5 * z[1] + 0.6 * (z[0] ** 2 - 1)]), banana_to_normal)


def funnel_log_prob(x):
    """Neal's funnel: x[0] is normal with standard deviation 3, the others with variance exp(x[0])."""
    return -(x[0] ** 2) / 18 - jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) / 2 - (x.size - 1) * x[0] / 2


def funnel(d):
    def from_normal(z):
        return jnp.append(3 * z[0], jnp.exp(1.5 * z[0]) * z[1:])

    def to_normal(x):
        return jnp.append(x[0] / 3, jnp.exp(-x[0] / 2) * x[1:])

    return Problem(d, funnel_log_prob, from_normal, to_normal)


class FunnelMetric(AbstractMetric):
    """The expected Fisher information of the funnel: steps that fit where it is narrow and where it is wide."""

    def at(self, x):
        others = jnp.full(x.size - 1, jnp.exp(-x[0]))
        return DiagonalInnerProduct(jnp.append(1 / 9 + (x.size - 1) / 2, others))


MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[2.0, 0.8], [0.8, 1.0]])


@functools.cache
def problems() -> dict[str, tuple[AbstractMetric, Problem]]:
    """Each target, with a metric that suits it."""
    gaussian = GaussianScore(jnp.asarray(MEAN), jnp.asarray(COVARIANCE))
    modes = KernelDensityScore(jnp.array([[-1.5, 0.0], [1.5, 0.0]]), 0.7)
    return {
        "Gaussian": (SteinMetric(gaussian, 0.3), Problem(2, gaussian, None, whitened)),
        "funnel, d = 2": (FunnelMetric(), funnel(2)),
        "funnel, d = 10": (FunnelMetric(), funnel(10)),
        "banana": (SteinMetric(DensityScore(banana_log_prob), 0.5), BANANA),
        "two modes": (SteinMetric(modes, 0.3), Problem(2, modes, None, separated)),
    }


def whitened(x):
    factor = jnp.linalg.cholesky(jnp.asarray(COVARIANCE))
    return jax.scipy.linalg.solve_triangular(factor, x - jnp.asarray(MEAN), lower=True)


def separated(x):
    """Of two modes, the first coordinate through its distribution function is uniform, the second normal."""
    cdf = (jax.scipy.stats.norm.cdf((x[0] + 1.5) / 0.7) + jax.scipy.stats.norm.cdf((x[0] - 1.5) / 0.7)) / 2
    return jnp.stack([jax.scipy.stats.norm.ppf(jnp.clip(cdf, 1e-12, 1 - 1e-12)), x[1] / 0.7])


SAMPLERS = {
    "Langevin": lambda metric, target, d: Langevin(metric, target, 0.3 if d == 2 else 0.15),
    "LagrangianMonteCarlo": lambda metric, target, d: LagrangianMonteCarlo(metric, target, 0.2, steps=8),
    "GeodesicSlice": lambda metric, target, d: GeodesicSlice(metric, target, 2.0 if d == 2 else 3.0, expansions=4),
}
# Draws of a chain, and steps from one to the next.
DRAWS = {"Langevin": (5000, 8), "LagrangianMonteCarlo": (2500, 2), "GeodesicSlice": (1500, 2)}
# A slice along one direction of ten takes a thousand steps through the funnel: it is tested from exact draws instead.
CASES = [
    (kind, name) for kind in SAMPLERS for name in problems() if (kind, name) != ("GeodesicSlice", "funnel, d = 10")
]


def run(kind: str, name: str, seed: int, share: float = 1.0):
    """Four chains, of a ``share`` of their draws: `Samples`, and draws as standard normal variables ``(4, n, d)``."""
    metric, problem = problems()[name]
    starts, key = jax.random.split(jax.random.key(seed))
    n, thin = int(share * DRAWS[kind][0]), DRAWS[kind][1]
    sampler = SAMPLERS[kind](metric, problem.log_prob, problem.dim)
    xs = 0.5 * jax.random.normal(starts, (CHAINS, problem.dim))
    found = sample(sampler, key, xs, n, burn_in=n // 5, thin=thin)
    return found, np.asarray(jax.vmap(jax.vmap(problem.to_normal))(found.draws))


def comparisons(z: np.ndarray) -> list[dict[str, Any]]:
    """The means of z_i and of z_i^2 - 1, which are zero, of draws ``(chains, n, d)``."""
    rows = []
    for moment, feature, deviation in (("mean", z, 1.0), ("variance - 1", z**2 - 1, 2**0.5)):
        for i in range(z.shape[-1]):
            values = feature[..., i]
            ess = float(blackjax.diagnostics.effective_sample_size(values))
            mean, error = float(np.mean(values)), deviation / ess**0.5
            row = {"coordinate": i, "moment": moment, "estimate": mean, "standard_error": error, "off": mean / error}
            own = mean / float(np.std(values)) * ess**0.5
            rows.append(row | {"off_own": own, "ess": ess, "rhat": float(blackjax.diagnostics.rhat(values))})
    return rows


def summary(rows: list[dict[str, Any]], column: str = "off") -> str:
    """How many are how far off, and how many of exact samplers would be."""
    off = np.abs([row[column] for row in rows])
    parts = [f"{len(off)} comparisons, largest {off.max():.2f} standard errors"]
    for bound in (2, 3):
        share = 2 * stats.norm.sf(bound)
        low, high = stats.binom.interval(0.95, len(off), share)
        count = int((off > bound).sum())
        parts.append(f"beyond {bound}: {count}, by chance {len(off) * share:.1f} ({low:.0f} to {high:.0f})")
    return "; ".join(parts)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    rows = []
    for kind, name in CASES:
        own = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            start = time.process_time()
            found, z = run(kind, name, seed)
            facts = {"sampler": kind, "target": name, "seed": seed, "chains": CHAINS, "draws": z.shape[1]}
            facts |= {"acceptance": float(np.mean(found.acceptance_rate)), "diverged": int(np.sum(found.diverged))}
            facts |= {"seconds": round(time.process_time() - start, 2)}  # of all cores, compilation with the first
            own += [facts | row for row in comparisons(z)]
        print(f"{kind}, {name}: {summary(own)}, R-hat at most {max(row['rhat'] for row in own):.4f}", flush=True)
        rows += own
        write_rows(options.out, rows)
    print(summary(rows))
    print(f"with the deviations of the draws: {summary(rows, 'off_own')}")


if __name__ == "__main__":
    main()
