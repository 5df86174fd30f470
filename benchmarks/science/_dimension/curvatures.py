"""Sectional and scalar curvature of data from a score, by Gauss's equation: where they are known, and of digits.

Everything is in units of r, the root mean square distance of the data from their mean, so that a sphere about its
centre has curvature 1. Noise levels are fractions of r, the same for all sets; nothing is chosen. The mean sectional
curvature is that over all planes of two of k orthonormal tangent vectors; the scalar curvature is k (k - 1) times that.

A control has what the digits have, 64 coordinates, as many points, and the same network and training, and is a sphere
of 10 dimensions: what of its curvature is found?
"""

import functools
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _dimension.data import SETS, Data, letter_images, sphere
from _study import Estimate, Table

from scoregeo.datasets import digits
from scoregeo.manifold import mean_curvature, second_fundamental_form, tangent_space

LEVELS = (0.03, 0.06, 0.12, 0.24)
POINTS = 10
DIGITS = (5, 10)


class Case(NamedTuple):
    """A set with a kind of score, the dimension k that is assumed, the true curvature, and seeds of the training."""

    name: str
    kind: str
    k: int
    truth: float
    seeds: tuple[int, ...] = (0,)


CASES = (
    *(Case("digits", "potential", k, np.nan, (0, 1, 2)) for k in DIGITS),
    *(Case("control", "potential", k, 1.0, (0, 1, 2)) for k in DIGITS),
    Case("sphere_10", "exact", 10, 1.0),
    Case("sphere_10", "potential", 10, 1.0),
    Case("sphere_10", "network", 10, 1.0),
    Case("sphere_50", "exact", 50, 1.0),
    Case("swiss_roll", "exact", 2, 0.0),
)


@eqx.filter_jit
def sectional(score, level, xs, k):
    """The curvatures ``(n, k, k)`` of the planes of two tangent vectors at points ``(n, d)``; of a vector with itself
    zero."""

    def one(x):
        basis = tangent_space(score, x, k, level)

        def row(u):
            return jax.vmap(lambda v: second_fundamental_form(score, x, u, v, level, basis=basis))(basis)

        forms = jax.lax.map(row, basis)
        forms = (forms + forms.transpose(1, 0, 2)) / 2
        return jnp.einsum("aad,bbd->ab", forms, forms) - jnp.sum(forms**2, -1)

    return jax.lax.map(one, xs)


def radius(data: Data) -> float:
    """Root mean square distance from the mean."""
    points = data.train
    return float(np.sqrt(np.mean(np.sum((points - points.mean(0)) ** 2, 1))))


@functools.cache
def data_of(name: str) -> Data:
    """A set, once: it keeps what was learned of it."""
    return sphere(10, dim=64, name="control") if name == "control" else SETS[name]()


def points_of(data: Data) -> np.ndarray:
    """Reported points; of the digits, the first of each class."""
    points = data.reported.points
    if data.name != "digits":
        return points[:POINTS]
    known = digits()
    labels = [int(known.labels[np.argmin(np.sum((np.asarray(known.points) - x) ** 2, 1))]) for x in points]
    return points[[labels.index(digit) for digit in range(10)]]


def follow(table: Table, case: Case, steps: int, levels: tuple[float, ...]) -> None:
    """The rows of a case: each level with its mean over points and seeds."""
    data = data_of(case.name)
    r = radius(data)
    for ratio in levels:
        row = f"{case.name}/{case.kind}/curvature/k{case.k}/{ratio:g}"
        if row in table:
            continue
        began, found, xs = time.perf_counter(), [], jnp.asarray(points_of(data))
        for seed in case.seeds:
            score = data.score_at(case.kind, steps, seed)(ratio * r)
            found.append(np.asarray(sectional(score, jnp.asarray(ratio * r), xs, case.k)) * r**2)
        planes = np.stack(found)  # (seeds, points, k, k)
        pairs = ~np.eye(case.k, dtype=bool)
        add(table, row, case, planes[..., pairs], time.perf_counter() - began, ratio * r)


def add(table: Table, row: str, case: Case, planes: np.ndarray, seconds: float, sigma: float) -> None:
    """Of curvatures ``(seeds, points, planes)``; standard errors are over seeds where there are some, else over
    points."""
    values = planes.mean(-1)
    seeds, points = values.shape
    by = values.mean(1) if seeds > 1 else values[0]

    def estimate(of):
        return Estimate(of.mean(), of.std(ddof=1) / np.sqrt(len(of)), points)

    figures: dict[str, Any] = {
        "sectional": estimate(by),
        "scalar": estimate(by * case.k * (case.k - 1)),
        "positive": (planes > 0).mean((0, 2)),
        "least": planes.min(-1).mean(0),
        "most": planes.max(-1).mean(0),
    }
    if seeds > 1:
        figures["between_seeds"] = values.std(0, ddof=1)
        figures["between_points"] = values.std(1, ddof=1)
    about = {"setting": f"k {case.k}, sigma {sigma:.2g}", "seconds": seconds / values.size}
    table.add(row, figures, converged=np.isfinite(values).mean(), **about)
    print(
        row,
        {
            k: [round(float(x), 3) for x in (v[:2] if isinstance(v, Estimate) else (v.mean(),))]
            for k, v in figures.items()
        },
        flush=True,
    )
    if case.name == "digits" and seeds > 1:
        for digit in range(points):
            one = values[:, digit]
            figure = Estimate(one.mean(), one.std(ddof=1) / np.sqrt(seeds), seeds)
            table.add(f"{row}/digit_{digit}", {"sectional": figure}, converged=np.isfinite(one).mean(), **about)


def bending(table: Table, kind: str, steps: int, levels: tuple[float, ...]) -> None:
    """How much the curve of a turning letter bends, times r, against differences of its images 3 degrees apart.

    Not at right angles, where edges fall on the grid that outlines are filled on and images jump.
    """
    data = data_of("letters")
    r = radius(data)
    degrees = 20 + np.arange(0, 360, 360 / POINTS)
    before, at, after = (letter_images(degrees + step) for step in (-3.0, 0.0, 3.0))
    speed = np.linalg.norm(after - before, axis=1) / 2
    velocity, force = (after - before) / 2, after - 2 * at + before
    along = np.sum(force * velocity, 1, keepdims=True) / np.sum(velocity**2, 1, keepdims=True)
    exact = r * np.linalg.norm(force - along * velocity, axis=1) / speed**2
    for ratio in levels:
        row = f"letters/{kind}/bending/{ratio:g}"
        if row in table:
            continue
        began, score, level = time.perf_counter(), data.score_at(kind, steps)(ratio * r), jnp.asarray(ratio * r)
        found = jax.vmap(lambda x, score=score, level=level: mean_curvature(score, x, 1, level))(jnp.asarray(at))
        values = r * np.linalg.norm(found, axis=1)
        figures = {"bending": values, "true": exact, "relative_error": values / exact - 1}
        seconds = (time.perf_counter() - began) / POINTS
        table.add(row, figures, converged=np.isfinite(values).mean(), seconds=seconds, setting=f"sigma {ratio * r:.2g}")
        print(row, {k: round(float(v.mean()), 3) for k, v in figures.items()}, flush=True)


def run(table: Table, quick: bool, steps: int) -> None:
    """All rows that are not there."""
    if quick:
        follow(table, Case("swiss_roll", "exact", 2, 0.0), steps, LEVELS[-1:])
        return
    for case in CASES:
        follow(table, case, steps, LEVELS)
    for kind in ("exact", "potential"):
        bending(table, kind, steps, LEVELS)
