"""Intrinsic dimension and curvature from scores, where they are known, and of digits, where nobody knows them.

Spheres and subspaces of 10 and 50 dimensions in R^100, a Swiss roll, a lollipop (a disk, a stick, a dot), a letter that
turns, and the digits of scikit-learn: the estimators of `scoregeo.manifold` with the exact score, the kernel score of
2,000 points, and scores learned from these, against estimators of scikit-dimension (`uv pip install scikit-dimension`;
without it their rows are left out). Noise levels are chosen on 40 points, figures are of 100 others: *knee* is the
level of the knee of FLIPD's curve, for which no truth is needed, *best* that of the least error of each estimator.

Then curvatures, see `_dimension.curvatures`.

    uv run python benchmarks/science/intrinsic_dimension.py
    uv run python benchmarks/science/intrinsic_dimension.py --quick --out /tmp/intrinsic_dimension.csv
"""

import functools
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _dimension import curvatures, neighbours
from _dimension import data as dimensions
from _dimension.data import SETS, Data
from _dimension.neighbours import add_parts
from _dimension.pages import figure, tables
from _study import TUNING, Table, main, value

from scoregeo.manifold import (
    denoising_dimension,
    intrinsic_dimension,
    knee,
    normal_bundle_dimension,
    participation_rank,
    slope_dimension,
)

__all__ = ["figure", "run", "tables"]

NAME, SEED = "intrinsic_dimension", 0
STEPS = 1200
ESTIMATORS = ("FLIPD", "normal_bundle", "denoising", "participation")
# The slope is that over so many neighbouring levels.
WINDOW = 3
# Exact scores where there is one; others, each of which takes a minute, as named here.
KINDS = dict.fromkeys(SETS, ("potential",)) | {
    "sphere_10": ("kernel", "network", "potential"),
    "subspace_10": (),
    "subspace_50": (),
    "digits": ("kernel", "network", "potential"),
}
_BATCH = 20


@eqx.filter_jit
def _estimate(score, level, xs, keys, which):
    """The values of one estimator at points ``(n, d)``."""

    def one(of):
        x, key = of
        if which == "FLIPD":
            return intrinsic_dimension(score, x, level)
        if which == "participation":
            return participation_rank(score, x, level)
        if which == "denoising":
            return denoising_dimension(score, x, level, key)
        return normal_bundle_dimension(score, x, level, key).astype(x.dtype)

    return jax.lax.map(one, (xs, keys), batch_size=min(_BATCH, len(xs)))


def few(which: str, xs: np.ndarray) -> int:
    """How many points an estimator is asked at: singular values of 400 scores take much longer than all the others."""
    return max(len(xs) // 8, 4) if which == "normal_bundle" and xs.shape[1] > 3 else len(xs)


def estimate(score_at: Callable, level: float, xs: np.ndarray, which: str) -> np.ndarray:
    """`_estimate` for numbers and a function of the level."""
    xs = xs[: few(which, xs)]
    keys = jax.random.split(jax.random.key(SEED), len(xs))
    return np.asarray(_estimate(score_at(level), jnp.asarray(level), jnp.asarray(xs), keys, which))


def slope(score_at: Callable, levels: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """`slope_dimension` at points ``(n, d)``."""

    def one(x):
        return slope_dimension(score_at, x, jnp.asarray(levels))

    return np.asarray(jax.jit(lambda xs: jax.lax.map(one, xs, batch_size=min(_BATCH, len(xs))))(jnp.asarray(xs)))


def curves(table: Table, data: Data, kind: str, score_at: Callable[[], Callable]) -> None:
    """Rows of the tuning points: every estimator at every level."""
    sample = data.tuning
    for level in data.levels:
        row = f"{data.name}/{kind}/{TUNING}/{level:.4f}"
        if row in table:
            continue
        began, figures = time.perf_counter(), {}
        for which in ESTIMATORS:
            found = estimate(score_at(), level, sample.points, which)
            figures[which] = found
            if np.isfinite(sample.dimensions).all():
                figures[f"{which}_abs_error"] = np.abs(found - sample.dimensions[: len(found)])
        seconds = (time.perf_counter() - began) / len(sample.points)
        finite = np.mean([np.isfinite(v).mean() for v in figures.values()])
        table.add(row, figures, converged=finite, seconds=seconds, setting=f"sigma {level:.2g}", split=TUNING)


def chosen(table: Table, data: Data, kind: str) -> dict[tuple[str, str], int]:
    """For each estimator and rule the place of its noise level, or of the first one for the slope."""

    def curve(figure):
        rows = [f"{data.name}/{kind}/{TUNING}/{level:.4f}" for level in data.levels]
        return np.array([value(table.rows, row, figure) for row in rows])

    known = np.isfinite(data.tuning.dimensions).all()
    last = len(data.levels) - WINDOW
    turn = float(knee(jnp.asarray(data.levels), jnp.asarray(curve("FLIPD"))))
    found = {}
    if np.isfinite(turn):
        place = int(np.argmin(np.abs(data.levels - turn)))
        found = {("knee", which): place for which in ESTIMATORS} | {("knee", "slope"): min(place, last)}
    if known:
        found |= {("best", which): int(np.argmin(curve(f"{which}_abs_error"))) for which in ESTIMATORS}
        # The slope is nearly FLIPD at its middle level.
        found["best", "slope"] = int(np.clip(found["best", "FLIPD"] - WINDOW // 2, 0, last))
    return found


def follow(table: Table, data: Data, kind: str, steps: int) -> None:
    """The rows of a set with one kind of score."""

    @functools.cache
    def score_at():
        return data.score_at(kind, steps)

    curves(table, data, kind, score_at)
    points = data.reported.points
    for (rule, which), place in chosen(table, data, kind).items():
        levels = data.levels[place : place + WINDOW] if which == "slope" else data.levels[place : place + 1]
        setting = "sigma " + " to ".join(f"{level:.2g}" for level in dict.fromkeys((levels[0], levels[-1])))

        def values(which=which, levels=levels):
            if which == "slope":
                return slope(score_at(), levels, points)
            return estimate(score_at(), float(levels[0]), points, which)

        add_parts(table, data, f"{kind}/{which}/{rule}", values, setting, few(which, points))


def run(table: Table, quick: bool) -> None:
    """All rows that are not there."""
    if quick:
        dimensions.SIZES.update(train=200, tuning=4, reported=4)
        data = dimensions.roll()
        data.levels = data.levels[1::3]
        follow(table, data, "exact", 1)
        curvatures.run(table, quick, STEPS)
        return
    for name in SETS:
        data = curvatures.data_of(name)
        for kind in (*(("exact",) if data.exact else ()), *KINDS[name]):
            follow(table, data, kind, STEPS)
        if neighbours.installed():
            neighbours.follow(table, data)
        else:
            print("scikit-dimension is not installed: no rows of its estimators", flush=True)
    curvatures.run(table, quick, STEPS)


if __name__ == "__main__":
    main(__doc__, NAME, SEED, run, figure)
