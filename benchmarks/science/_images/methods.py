"""Paths between two images: baselines that no metric was asked for, and geodesics; each with the settings to choose
from."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from scoregeo import (
    AbstractMetric,
    ConformalMetric,
    Denoised,
    EuclideanMetric,
    GraphInit,
    Latent,
    NormCorrected,
    RbfMetric,
    Spherical,
    SteinMetric,
    StraightLine,
    recommend_strength,
)
from scoregeo.diffusion import DiffusionModel, LatentFlow, ProbabilityFlow
from scoregeo.geodesics.baselines import nodes_of
from scoregeo.geodesics.curves import Polyline, node_times
from scoregeo.geodesics.starts import AbstractStart

# As published: the bound on latents, and how much of the images is added (github.com/tmlr-group/NoiseDiffusion).
BOUND, IMAGES = 2.0, 1.2


class NoiseDiffusion(AbstractStart):
    """Noise diffusion (Zheng et al., ICLR 2024, arXiv 2403.08840), without its random part: images with noise of some
    level, bounded, interpolated on a circle, with some of the images added, and denoised by the flow.

    With ``u = (x - mean)/c``, ``c^2 = variance + level^2``, and latents l of the flow that ends at the level,

        a l_x + b l_y + (mu - a) u_x + (nu - b) u_y,    a = cos(pi t/2), b = sin(pi t/2),
        mu = 1.2 a/(a + b), nu = 1.2 b/(a + b),                                                     (1)

    latents and (1) cut to [-2, 2].
    """

    flow: LatentFlow
    level: float

    def __init__(self, model: DiffusionModel, level: float):
        latent = flow_of(model)
        schedule = dataclasses.replace(latent.schedule, sigma_max=level)
        self.flow = eqx.tree_at(lambda flow: flow.schedule, latent, schedule)
        self.level = level

    def __call__(self, metric: AbstractMetric, x: Any, y: Any) -> Polyline:
        t = node_times(x.dtype)[:, None]
        a, b = jnp.cos(jnp.pi * t / 2), jnp.sin(jnp.pi * t / 2)
        mu, nu = IMAGES * a / (a + b), IMAGES * b / (a + b)
        scale = jnp.sqrt(self.flow.variance + self.level**2)
        images = [(end - self.flow.mean) / scale for end in (x, y)]
        latents = [jnp.clip(self.flow.encode(end), -BOUND, BOUND) for end in (x, y)]
        mixed = a * latents[0] + b * latents[1] + (mu - a) * images[0] + (nu - b) * images[1]
        points = jax.vmap(self.flow.decode)(jnp.clip(mixed, -BOUND, BOUND))
        return Polyline(points.at[0].set(x).at[-1].set(y))


Settings = dict[str, Callable[[], Any]]


def flow_of(model: DiffusionModel) -> LatentFlow:
    """Its latents, to three digits: more cannot be seen."""
    return eqx.tree_at(lambda f: f.flow, model.latent(), ProbabilityFlow(rtol=1e-4, atol=1e-4))


def baselines(model: DiffusionModel, data: np.ndarray) -> dict[str, Settings]:
    """Starts by name, and by setting where there is one to choose."""
    denoised = {f"sigma {s:g}": functools.partial(lambda s: Denoised(model.score_at(s)), s) for s in (0.3, 1.0)}
    noised = {f"level {s:g}": functools.partial(NoiseDiffusion, model, s) for s in (1.0, 3.0)}
    return {
        "straight": {"": StraightLine},
        "spherical": {"": lambda: Spherical(jnp.mean(jnp.asarray(data), 0))},
        "straight_denoised": denoised,
        "graph": {"": lambda: GraphInit(jnp.asarray(data))},
        "latent_spherical": {"": lambda: Latent(flow_of(model))},
        "latent_norm_corrected": {"": lambda: Latent(flow_of(model), NormCorrected())},
        "noise_diffusion": noised,
    }


def geodesics(model: DiffusionModel, data: np.ndarray, ratios: tuple[float, ...]) -> dict[str, tuple[str, Settings]]:
    """For each name the start and the metrics by setting; ``ratios`` are those of the power of p."""
    data, score = jnp.asarray(data), model.score_at

    def stein(level):
        return SteinMetric(score(level), recommend_strength(SteinMetric, score(level), data, ratio=100.0))

    power = {
        f"sigma {s:g}, ratio {r:g}": functools.partial(ConformalMetric.power, score(s), data, r)
        for s, r in ((0.1, ratios[0]), (0.1, ratios[1]), (0.2, ratios[1]))
    }
    norm = {
        f"sigma {s:g}, ratio {r:g}": functools.partial(ConformalMetric.score_norm, score(s), data, r)
        for s, r in ((0.2, 30.0), (0.4, 10.0))
    }
    rbf = {
        f"200 centres, spread {s:g}, ratio 1000": functools.partial(RbfMetric.fit, data, 200, 1e3, spread=s)
        for s in (1.0, 1.5)
    }
    return {
        "power_of_p": ("straight", power),
        "power_of_p_from_the_graph": ("graph", power),
        "Stein": ("straight", {f"sigma {s:g}, ratio 100": functools.partial(stein, s) for s in (0.2, 0.4)}),
        "score_norm_from_the_graph": ("graph", norm),
        "RBF_from_the_graph": ("graph", rbf),
    }


@eqx.filter_jit
def _follow(start: AbstractStart, xs, ys):
    return jax.lax.map(lambda ends: nodes_of(start, EuclideanMetric(), *ends), (xs, ys), batch_size=8)


def follow(start: AbstractStart, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The curves ``(n, 65, d)`` that a start gives."""
    xs, ys = (jnp.asarray(ends, jnp.float32) for ends in (xs, ys))
    return np.asarray(_follow(start, xs, ys), float)
