"""On accelerators every matrix product that the library traces has the precision of its inputs, and nothing more has:
no array becomes float64 where that is enabled."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoregeo as sg
from scoregeo import FunctionScore, GaussianMixtureScore, SteinMetric, dist, statistics
from scoregeo.statistics._chords import _chord_block

WEIGHTS = tuple(jnp.asarray(w, jnp.float32) for w in np.random.default_rng(0).standard_normal((2, 5, 5)) / 5)


# Lowered for both at once: what is traced is the same, and what differs is in the program for each.
PLATFORMS = ["tpu", "cuda"]


def network(x, first, second):
    return second @ jnp.tanh(first @ x) - x


LEARNED = SteinMetric(FunctionScore(network, *WEIGHTS), 2.0)
MIXTURE = SteinMetric(
    GaussianMixtureScore(
        jnp.ones(2, jnp.float32) / 2, jnp.eye(2, 5, dtype=jnp.float32), jnp.stack([jnp.eye(5, dtype=jnp.float32)] * 2)
    ),
    2.0,
)
X = jnp.linspace(-1, 1, 5, dtype=jnp.float32)
Y = jnp.linspace(1, 0, 5, dtype=jnp.float32) ** 2
# The default solver, whose every level is traced, is asked for `dist` and for derivatives of a batch.
QUICK = sg.SpectralNewton(max_elements=1, continuation=0, adaptations=0)


def batch(metric, x, y):
    return jax.vmap(lambda s: dist(metric, s * x, y, solver=QUICK))(jnp.linspace(0.5, 1, 3, dtype=x.dtype))


def transported(metric, x, y):
    return sg.parallel_transport(metric, sg.geodesic(metric, x, y, solver=QUICK), y - x)


def fitted(metric, x, y):
    return sg.statistics.geodesic_regression(metric, jnp.arange(2, dtype=x.dtype), jnp.stack([x, y]), solver=QUICK)


def step(sampler, x):
    return sampler.step(jax.random.key(0), sampler.init(x))[0].position


def log_prob(x):
    return -x @ (WEIGHTS[0] @ WEIGHTS[0].T @ x) - x @ x


def chords(metric, points):
    arrays, static = eqx.partition(metric, eqx.is_array)
    curves = jnp.array([[0, 1]]), jnp.zeros((1, 2, points.shape[1]), points.dtype)
    return _chord_block(arrays, points, curves, jnp.array(2), static)


def clusters(metric, x, y):
    return sg.statistics.kmeans(metric, jnp.stack([x, y, x - y]), 2, jax.random.key(0), solver=QUICK)


OPERATIONS = {
    "dist": dist,
    "batch": batch,
    "gradient": lambda metric, x, y: jax.grad(lambda x: dist(metric, x, y, solver=QUICK))(x),
    "gradient of a batch": lambda metric, x, y: jax.vmap(jax.grad(lambda x: dist(metric, x, y)))(jnp.stack([x, -x])),
    "hessian": lambda metric, x, y: jax.hessian(lambda y: sg.squared_dist(metric, x, y, solver=QUICK))(y),
    "pairs": lambda metric, x, y: sg.pairwise_dist(metric, jnp.stack([x, y, x - y]), solver=QUICK)[0],
    "chords": lambda metric, x, y: chords(metric, jnp.stack([x, y])),
    "exp": sg.exp,
    "gradient of exp": lambda metric, x, v: jax.grad(lambda v: jnp.sum(sg.exp(metric, x, v)))(v),
    "verify": lambda metric, x, y: sg.verify(metric, sg.geodesic(metric, x, y, solver=QUICK)),
    "transport": transported,
    "georce": lambda metric, x, y: dist(metric, x, y, solver=sg.Georce(nodes=9)),
    "energy descent": lambda metric, x, y: dist(metric, x, y, solver=sg.EnergyDescent(nodes=9)),
    "shooting": lambda metric, x, y: dist(metric, x, y, solver=sg.Shooting()),
    "curvature": lambda metric, x, y: sg.sectional_curvature(metric, x, x, y) + sg.ricci_curvature(metric, x, y),
    "traces": lambda metric, x, y: sg.scalar_curvature(metric, x, probes=4, key=jax.random.key(0), with_error=True),
    "bending": lambda metric, x, y: sg.manifold.second_fundamental_form(metric.score, x, x, y, 0.3),
    "manifold": lambda metric, x, y: sg.manifold.gauss_curvature(metric.score, x, 2, 0.3),
    "langevin": lambda metric, x, y: step(statistics.Langevin(metric, log_prob, 0.1), x),
    "lagrangian": lambda metric, x, y: step(statistics.LagrangianMonteCarlo(metric, log_prob, 0.1), x),
    "slice": lambda metric, x, y: step(statistics.GeodesicSlice(metric, log_prob, 1.0), x),
    "brownian": lambda metric, x, y: statistics.brownian_motion(metric, x, 1.0, jax.random.key(0)).end,
    "mean": lambda metric, x, y: jax.grad(
        lambda x: sg.statistics.frechet_mean(metric, jnp.stack([x, y]), solver=QUICK).point[0]
    )(x),
    "components": lambda metric, x, y: sg.statistics.tangent_pca(metric, jnp.stack([x, y]), mean=x, solver=QUICK).axes,
    "regression": lambda metric, x, y: fitted(metric, x, y).slope,
    "clusters": lambda metric, x, y: jax.grad(lambda x: jnp.sum(clusters(metric, x, y).centers))(x),
    "dimension": lambda metric, x, y: sg.manifold.slope_dimension(lambda _: metric.score, x, jnp.array([0.1, 0.2])),
}


# optimistix allocates the history of L-BFGS in the default precision; shooting has a constant of eight numbers; in a
# batch, the stage of a continuation is a number for each lane (another rounding of it would change hard solves).
IN_DOUBLE = {"energy descent", "shooting", "batch", "gradient of a batch", "pairs", "hessian"}


def products(text):
    """All matrix products of a lowered program, and those among them whose precision is not the highest."""
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    return lines, [line for line in lines if not re.search(r"precision = \[HIGHEST, HIGHEST\]", line)]


def in_double(text):
    """What a lowered program computes with arrays in float64; not what it converts, selects or hands on."""
    handed_on = r"stablehlo\.(constant|convert|while|return|broadcast_in_dim|select)|func\.func|call @|return "
    return [line for line in text.splitlines() if "xf64>" in line and not re.search(handed_on, line)]


# Solvers and samplers trace the same products around any score: of the mixture, what asks its score for something
# else.
OF_SCORES = ("gradient", "hessian", "exp", "curvature", "traces", "bending", "manifold", "dimension", "langevin")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "name"),
    [pytest.param(LEARNED, name, id=f"learned-{name}") for name in OPERATIONS]
    + [pytest.param(MIXTURE, name, id=f"mixture-{name}") for name in OF_SCORES],
)
def test_every_product_has_full_precision(metric, name):
    exported = jax.export.export(jax.jit(lambda x, y: OPERATIONS[name](metric, x, y)), platforms=PLATFORMS)(X, Y)
    text = exported.mlir_module()
    lines, poor = products(text)
    assert lines
    assert not poor, f"{len(poor)} of {len(lines)}: {poor[:3]}"
    assert name in IN_DOUBLE or not in_double(text)


NORMALS = sg.fisher_rao.MultivariateNormal(2)
FAMILIES = {
    "dist": NORMALS.dist,
    "gradient": jax.grad(NORMALS.dist),
    "log": NORMALS.log,
    "geodesic": lambda a, b: NORMALS.geodesic(a, b).points,
    "exp": lambda a, b: NORMALS.exp(a, b - a),
    "fit": lambda a, b: NORMALS.fit(jnp.outer(a, b)[:, :2], a + 1),
    "fit by descent": lambda a, b: sg.fisher_rao.Cauchy().fit(a, b + 1),
    "gamma": lambda a, b: sg.fisher_rao.Gamma().dist(a[:2] + 2, b[:2] + 2),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_product_of_families_has_full_precision(name):
    ends = [jnp.asarray(end, jnp.float32) for end in ([0, 0, 1, 0, 1], [1, 2, 2, 0.5, 1])]
    exported = jax.export.export(jax.jit(FAMILIES[name]), platforms=PLATFORMS)(*ends)
    lines, poor = products(exported.mlir_module())
    assert not poor, f"{len(poor)} of {len(lines)}: {poor[:3]}"


def test_a_product_that_declares_its_precision_keeps_it():
    def careless(x):
        return jnp.matmul(WEIGHTS[0], x, precision=jax.lax.Precision.DEFAULT) - x

    metric = SteinMetric(FunctionScore(careless), 2.0)
    solve = jax.jit(lambda x, y: dist(metric, x, y, solver=QUICK))
    text = jax.export.export(solve, platforms=PLATFORMS)(X, Y).mlir_module()
    lines, poor = products(text)
    assert 0 < len(poor) < len(lines)
