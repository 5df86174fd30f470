"""Score models: how accurate a learned score and its Jacobian are, what geodesics make of it, likelihoods and digits.

    uv run python benchmarks/score_models.py [--parts accuracy geometry likelihood digits] [--out NAME.json]

About ten minutes on two cores. Training and likelihoods are in float32, geometry in float64. Errors are against the
exact score of the data (four modes in the plane).
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import about

from scoregeo import RESULTS, SpectralNewton, SteinMetric, datasets, geodesic
from scoregeo.diffusion import (
    DiffusionModel,
    FitConfig,
    Heun,
    WarmupEMA,
    evaluate_held_out,
    evaluate_score,
    fit,
    log_prob,
    memorization,
)

jax.config.update("jax_enable_x64", True)

POINTS = 200_000
PLAIN = FitConfig()
BEST = FitConfig(reference_size=4096, second_order=1.0)
SIGMAS = (0.1, 0.2, 0.5)


def train(config: FitConfig) -> tuple[DiffusionModel, datasets.Dataset, float]:
    """A model of the four modes, the data, and the seconds it took with compilation."""
    data = datasets.four_modes(jax.random.key(100 + config.seed), POINTS)
    start = time.perf_counter()
    model = fit(np.asarray(data.points, np.float32), config, progress=False)
    return model, data, time.perf_counter() - start


def accuracy(seeds: int) -> list[dict]:
    """Relative errors of s and J v for several settings; the worst of ``seeds``."""
    settings = {
        "plain DSM, potential": {},
        "stable target 1280 + second order 0.3": {"reference_size": 1280, "second_order": 0.3},
        "stable target 4096 + second order 1": {"reference_size": 4096, "second_order": 1.0},
    }
    rows = []
    for name, changes in settings.items():
        found = []
        for seed in range(seeds):
            model, data, seconds = train(FitConfig(seed=seed, **changes))
            report = evaluate_score(model, data.score, SIGMAS, key=jax.random.key(1), n=4000)
            found.append((seconds, *report.score_error, *report.jvp_error))
        worst = np.max(found, 0).tolist()
        row = {"setting": name, "seconds": worst[0]}
        for i, sigma in enumerate(SIGMAS):
            row |= {f"s, sigma {sigma}": worst[1 + i], f"J v, sigma {sigma}": worst[1 + len(SIGMAS) + i]}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def geometry(pairs: int = 50, sigma: float = 0.2) -> list[dict]:
    """Distances between random points from the learned score against those from the exact one."""
    model, data, _ = train(BEST)
    rows = []
    for strength in (sigma**2, 1.0):
        x, y = jnp.asarray(data.score.sample(jax.random.key(5), 2 * pairs), jnp.float64).reshape(2, pairs, 2)
        solver = SpectralNewton(rtol=1e-5, path_rtol=1.0)
        metrics = SteinMetric(data.score.noised(1.0, sigma), strength), SteinMetric(model.score_at(sigma), strength)

        @jax.jit
        def solve(metric, x, y, solver=solver):
            one = lambda x, y: geodesic(metric, x, y, solver=solver, ts=(0.0, 1.0), throw=False)  # noqa: E731
            return jax.vmap(one)(x, y)

        exact, learned = (solve(metric, x, y) for metric in metrics)
        good = np.asarray((exact.result == RESULTS.successful) & (learned.result == RESULTS.successful))
        errors = np.abs(np.asarray(learned.length / exact.length) - 1)[good]
        rows.append(
            {
                "strength": strength,
                "pairs": pairs,
                "converged": int(good.sum()),
                "median error": float(np.median(errors)),
                "95th percentile": float(np.percentile(errors, 95)),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def likelihood(n: int = 1000) -> dict:
    """Mean negative log-likelihood of fresh points by the learned score against the exact density, at noise 0.05."""
    model, data, _ = train(BEST)
    sigma = 0.05
    points = jnp.asarray(data.score.noised(1.0, sigma).sample(jax.random.key(9), n), jnp.float32)
    learned = log_prob(model, points, sigma=sigma)
    exact = jax.vmap(data.score.noised(1.0, sigma).log_prob)(points)
    difference = np.asarray(exact - learned.log_prob)
    return {
        "noise level": sigma,
        "points": n,
        "exact nats": float(-np.mean(exact)),
        "gap in nats": float(np.mean(difference)),
        "standard error": float(np.std(difference) / n**0.5),
        "evaluations": float(np.mean(learned.evaluations)),
    }


def digits() -> dict:
    """Scikit-learn's digits: what a classifier of real digits thinks of samples, bits per dimension, memorisation."""
    from sklearn.linear_model import LogisticRegression

    data = datasets.digits()
    points, labels = np.asarray(data.points, np.float32), np.asarray(data.labels)
    order = np.random.default_rng(0).permutation(len(points))
    known, fresh = order[:1500], order[1500:]
    start = time.perf_counter()
    config = FitConfig(
        steps=6000, batch_size=128, learning_rate=1e-3, width=256, depth=4, ema=WarmupEMA(0.998), holdout=0.0
    )
    model = fit(points[known], config, progress=False)
    trained = time.perf_counter() - start
    # Churn: without it, samples keep the errors that the score makes at high noise, and the probe is less sure of them.
    samples = model.sample(jax.random.key(0), 500, sampler=Heun(steps=60, churn=20.0))
    seconds = time.perf_counter() - start
    probe = LogisticRegression(max_iter=5000).fit(points[known], labels[known])
    confidence = {
        name: float(probe.predict_proba(np.asarray(values)).max(1).mean())
        for name, values in (("samples", samples), ("fresh digits", points[fresh]))
    }
    # Uniform noise of one grey level makes the density one of the 17 grey values.
    level = 1 / float(data.standardization.scale.ravel()[0])
    noisy = points[fresh] + level * (np.random.default_rng(1).random(points[fresh].shape, np.float32) - 0.5)
    values = log_prob(model, jnp.asarray(noisy), probes=8, key=jax.random.key(2), sigma=level * 12**-0.5)
    found = memorization(samples, points[known], points[fresh])
    report = evaluate_held_out(model, points[fresh], (0.2, 0.5, 1.0, 2.0), key=jax.random.key(3))
    print(report, flush=True)
    return {
        "seconds of training": trained,
        "seconds with 500 samples": seconds,
        "mean top probability": confidence,
        "bits per dimension": float(np.mean(values.bits_per_dim(level))),
        "memorisation gap": found.gap,
        "copies": found.copies,
        "copies among fresh digits": found.fresh_copies,
        "held out": report.to_dict(),
    }


PARTS = ("accuracy", "geometry", "likelihood", "digits")


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each setting of accuracy; the worst counts")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    results = about("jax", "jaxlib", "flax", "optax", "diffrax", "numpy")
    run = {
        "accuracy": lambda: accuracy(arguments.seeds),
        "geometry": geometry,
        "likelihood": likelihood,
        "digits": digits,
    }
    for part in arguments.parts:
        results[part] = run[part]()
        print(part, json.dumps(results[part], indent=2), flush=True)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
