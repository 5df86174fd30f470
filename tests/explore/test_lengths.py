"""Lengths on pages against `scoregeo.dist`: within 1 percent, in every metric, for scores with curl and for slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from page_support import Turned, mixture, points, solve_in_node

from scoregeo import KernelDensityScore
from scoregeo.explore.grid import Grid
from scoregeo.explore.levels import make_level
from scoregeo.explore.page import _assemble
from scoregeo.explore.plane import Plane
from scoregeo.explore.references import grid_paths, shortest
from scoregeo.scores import at_noise_level

pytestmark = pytest.mark.slow


def page_of(level, grid):
    """What the solver needs of a page."""
    data = {"grid": grid.to_dict(), "view": grid.view, "levels": [level.to_dict()]}
    return _assemble("score", "", data)


def worst(level, grid, plane, data, kind, ratios, pairs):
    """The largest difference of the page and the library over pairs and ratios, as a part of the length."""
    cases = [
        {"metric": kind, "level": 0, "ratio": ratio, "a": list(map(float, a)), "b": list(map(float, b))}
        for ratio in ratios
        for a, b in pairs
    ]
    found = solve_in_node(page_of(level, grid), cases)
    gaps = []
    for n, ratio in enumerate(ratios):
        metric = plane.restrict(level.metric(kind, data, ratio))
        for k, start in enumerate(grid_paths(metric, grid, np.asarray(pairs))):
            length, status = shortest(metric, np.asarray(pairs[k]), start)
            assert status == "successful", (kind, ratio, k)
            result = found[n * len(pairs) + k]
            assert result["converged"], (kind, ratio, k)
            gaps.append(result["length"] / length - 1)
    return np.abs(gaps).max()


@pytest.mark.parametrize(
    ("kind", "ratios"), [("stein", (10.0, 100.0, 1000.0)), ("power", (10.0, 1000.0)), ("score-jacobian", (10.0, 100.0))]
)
def test_lengths_in_the_plane(kind, ratios):
    data = points()
    grid = Grid.around(np.asarray(data), 128)
    level = make_level(0.2, at_noise_level(mixture(), 0.2), data, Plane.whole(), grid)
    pairs = np.asarray(data)[np.random.default_rng(3).choice(len(data), (3, 2), replace=False)]
    assert worst(level, grid, Plane.whole(), data, kind, ratios, pairs) < 0.01


def test_lengths_with_curl():
    data = points()
    grid = Grid.around(np.asarray(data), 128)
    level = make_level(None, Turned(at_noise_level(mixture(), 0.2)), data, Plane.whole(), grid)
    pairs = np.asarray(data)[np.random.default_rng(4).choice(len(data), (3, 2), replace=False)]
    assert worst(level, grid, Plane.whole(), data, "stein", (100.0,), pairs) < 0.01


def test_lengths_in_a_slice():
    """Of a kernel density in five dimensions, on the plane through three of its data."""
    data = jnp.concatenate([points(60), 0.4 * jax.random.normal(jax.random.key(1), (60, 3))], 1)
    plane = Plane.through(data[jnp.array([0, 20, 40])])
    grid = Grid.around(plane.coordinates(data), 128)
    level = make_level(0.5, KernelDensityScore(data, 0.5), data, plane, grid)
    three = plane.coordinates(data[jnp.array([0, 20, 40])])
    pairs = np.stack([three, np.roll(three, 1, axis=0)], 1)
    assert worst(level, grid, plane, data, "stein", (100.0,), pairs) < 0.01
