"""One metric, six pictures: what the score of two moons makes of the plane.

Each panel is one call of `scoregeo.plotting`: axes in, artist out.

    python examples/pictures_of_a_metric.py [--out pictures.png] [--quick]
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import SteinMetric, datasets, geodesic, recommend_strength
from scoregeo.plotting import (
    curvature_map,
    density,
    distance_field,
    geodesic_fan,
    geodesics,
    graph_surface,
    tissot,
    voronoi,
)

jax.config.update("jax_enable_x64", True)
XLIM, YLIM = (-2.1, 2.1), (-1.6, 1.6)


def main(out: str, quick: bool) -> None:
    maps = {"resolution": 40} if quick else {}
    moons = datasets.two_moons(jax.random.key(0), 2000, noise=0.25)
    strength = recommend_strength(SteinMetric, moons.score, moons.points, ratio=10.0)
    metric = SteinMetric(moons.score, strength)
    x, y = jnp.array([-1.4, -0.2]), jnp.array([0.4, 0.1])
    path = geodesic(metric, x, y)
    print(f"{path}, straight line {jnp.linalg.norm(y - x):.4f} to Euclid")

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    ax = figure.add_subplot(grid[0, 0], title="balls of the metric, a geodesic")
    density(ax, moons.score.log_prob, XLIM, YLIM)
    tissot(ax, metric, XLIM, YLIM, n=14)
    geodesics(ax, path)
    ax = figure.add_subplot(grid[0, 1], projection="3d", title="the same, as a surface")
    graph_surface(ax, moons.score.log_prob, strength, XLIM, YLIM, paths=path, lowest=5.0, **maps)
    ax.view_init(45, -75)
    ax = figure.add_subplot(grid[0, 2], title="geodesics from one point")
    density(ax, moons.score.log_prob, XLIM, YLIM)
    fan = geodesic_fan(ax, metric, x, 2.0, n=8 if quick else 32).fan
    print(f"fan: {fan}")
    ax.set(xlim=XLIM, ylim=YLIM)
    ax = figure.add_subplot(grid[1, 0], title="distance from that point")
    figure.colorbar(distance_field(ax, metric, x, XLIM, YLIM, **maps), shrink=0.8)
    ax = figure.add_subplot(grid[1, 1], title="Gauss curvature")
    figure.colorbar(curvature_map(ax, metric, XLIM, YLIM, **maps), shrink=0.8, extend="both")
    ax = figure.add_subplot(grid[1, 2], title="nearest of six points")
    voronoi(ax, metric, moons.points[:6], XLIM, YLIM, **maps)
    figure.savefig(out, dpi=120)
    print(f"wrote {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="pictures.png", help="the picture to write")
    parser.add_argument("--quick", action="store_true", help="coarser maps, fewer geodesics")
    main(**vars(parser.parse_args()))
