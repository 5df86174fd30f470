"""Sums and scalings of metrics, and what an `AbstractMetric` gives by default, against matrices."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    AbstractMetric,
    ConformalMetric,
    EuclideanMetric,
    FunctionScore,
    MatrixMetric,
    SteinMetric,
    christoffels,
    models,
)
from scoregeo.metrics import (
    ConformalInnerProduct,
    DenseInnerProduct,
    DiagonalInnerProduct,
    LowRankUpdate,
    Scaled,
    ScaledMetric,
    Sum,
    SumMetric,
    as_low_rank_update,
    lagrangian_acceleration,
)


def curl(x):
    """Not a gradient field, for d > 1."""
    return jnp.roll(jnp.sin(2 * x), 1) - 0.5 * x


def gradient(x):
    return jnp.tanh(x)


def wave(x):
    b = jnp.sin(x + jnp.arange(x.size, dtype=x.dtype))
    return jnp.diag(1 + x**2) + jnp.outer(b, b)


def stein_matrix(fn, strength):
    return lambda x: jnp.eye(x.size, dtype=x.dtype) + strength * jnp.outer(fn(x), fn(x))


class ThreeScores(AbstractMetric):
    """`at` alone."""

    def at(self, x):
        return LowRankUpdate(jnp.stack([curl(x), gradient(x), -x]), jnp.array([1.0, 0.5, 2.0]))


def three_matrix(x):
    rows = jnp.stack([curl(x), gradient(x), -x])
    return jnp.eye(x.size, dtype=x.dtype) + rows.T @ (jnp.array([1.0, 0.5, 2.0], x.dtype)[:, None] * rows)


def sphere_matrix(x):
    return 4 / (1 + x @ x) ** 2 * jnp.eye(x.size, dtype=x.dtype)


def ripple(x, amplitude):
    return amplitude * jnp.sum(jnp.sin(x + jnp.arange(x.size, dtype=x.dtype))) + 0.1


def conformal_matrix(x):
    return jnp.exp(2 * ripple(x, 0.3)) * jnp.eye(x.size, dtype=x.dtype)


CURL, GRADIENT = SteinMetric(curl, 2.0), SteinMetric(FunctionScore(gradient, conservative=True), 0.7)
CURL_MATRIX, GRADIENT_MATRIX = stein_matrix(curl, 2.0), stein_matrix(gradient, 0.7)
CONFORMAL = ConformalMetric(ripple, 0.3)
# name: (metric, the same matrix by hand, type of its inner products)
METRICS = {
    "scaled stein": (0.3 * CURL, lambda x: 0.3 * CURL_MATRIX(x), Scaled),
    "two steins": (CURL + GRADIENT, lambda x: CURL_MATRIX(x) + GRADIENT_MATRIX(x), Scaled),
    "weighted": (CURL * 0.1 + 2 * GRADIENT, lambda x: 0.1 * CURL_MATRIX(x) + 2 * GRADIENT_MATRIX(x), Scaled),
    "three terms": (CURL + GRADIENT + CURL, lambda x: 2 * CURL_MATRIX(x) + GRADIENT_MATRIX(x), Scaled),
    "rank three": (ThreeScores(), three_matrix, LowRankUpdate),
    "with Euclid": (CURL + 3.0 * EuclideanMetric(), lambda x: CURL_MATRIX(x) + 3 * jnp.eye(x.size), Scaled),
    "diagonal": (
        models.Sphere() + 2.0 * models.Sphere(),
        lambda x: 3 * sphere_matrix(x),
        DiagonalInnerProduct,
    ),
    "dense": (CURL + MatrixMetric(wave), lambda x: CURL_MATRIX(x) + wave(x), DenseInnerProduct),
    "scaled dense": (2.0 * MatrixMetric(wave), lambda x: 2 * wave(x), DenseInnerProduct),
    "conformal": (CONFORMAL, conformal_matrix, ConformalInnerProduct),
    "scaled conformal": (0.3 * CONFORMAL, lambda x: 0.3 * conformal_matrix(x), ConformalInnerProduct),
    "two conformal": (CONFORMAL + 2.0 * CONFORMAL, lambda x: 3 * conformal_matrix(x), ConformalInnerProduct),
    "conformal and diagonal": (
        CONFORMAL + models.Sphere(),
        lambda x: conformal_matrix(x) + sphere_matrix(x),
        DiagonalInnerProduct,
    ),
    "conformal and dense": (CONFORMAL + MatrixMetric(wave), lambda x: conformal_matrix(x) + wave(x), DenseInnerProduct),
    "conformal and Stein": (CONFORMAL + CURL, lambda x: conformal_matrix(x) + CURL_MATRIX(x), Sum),
    "no structure": (CURL + models.Sphere(), lambda x: CURL_MATRIX(x) + sphere_matrix(x), Sum),
}


def acceleration_by_hand(matrix, x, v):
    """-Gamma(v, v), from the derivatives of the matrix; Gamma^k_ij = G^kl (d_i G_lj + d_j G_li - d_l G_ij) / 2."""
    derivative = jax.jacfwd(matrix)(x)  # [i, j, l] = d_l G_ij
    lower = jnp.einsum("ijl,l,j->i", derivative, v, v) - 0.5 * jnp.einsum("ijl,i,j->l", derivative, v, v)
    return -jnp.linalg.solve(matrix(x), lower)


@functools.cache
def compiled(name):
    metric, matrix, _ = METRICS[name]

    @jax.jit
    def library(x, v):
        at = metric.at(x)
        return at.matrix(x.size), at.mv(v), at.solve(v), at.logdet(x.size), at.sqrt_mv(v), metric.acceleration(x, v)

    @jax.jit
    def reference(x, v):
        g = matrix(x)
        values, vectors = jnp.linalg.eigh(g)
        root = (vectors * jnp.sqrt(values)) @ vectors.T
        acceleration = acceleration_by_hand(matrix, x, v)
        return g, g @ v, jnp.linalg.solve(g, v), jnp.sum(jnp.log(values)), root @ v, acceleration

    return library, reference


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("name", METRICS)
def test_combined_metrics_are_those_of_their_matrices(name, d):
    """Inner products to 1e-12, accelerations as by the Christoffel symbols, with scores that have curl."""
    library, reference = compiled(name)
    x, v = jnp.asarray(np.random.default_rng(d).normal(size=(2, d)))
    assert type(METRICS[name][0].at(x)) is METRICS[name][2]
    *algebra, acceleration = library(x, v)
    *expected, expected_acceleration = reference(x, v)
    for got, value in zip(algebra, expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=0, atol=1e-12 * max(1, np.abs(value).max()))
    size = np.abs(expected_acceleration).max()
    np.testing.assert_allclose(acceleration, expected_acceleration, rtol=0, atol=1e-11 * size)
    assert size > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weighted", "rank three", "dense"])
def test_combined_metrics_in_float32(name):
    library, reference = compiled(name)
    x, v = np.random.default_rng(8).normal(size=(2, 5)).astype(np.float32)
    for got, value in zip(library(x, v), reference(x.astype(float), v.astype(float)), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, value, rtol=0, atol=5e-5 * max(1, np.abs(value).max()))


@pytest.mark.slow
def test_acceleration_is_that_of_the_christoffel_symbols():
    """The default acceleration, and that of a scaling, against the library's other way to it."""
    x, v = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4)))
    for name in ("scaled stein", "rank three"):
        metric = METRICS[name][0]
        expected, *found = jax.jit(
            lambda x, v, metric=metric: (
                -jnp.einsum("kij,i,j->k", christoffels(metric, x), v, v),
                metric.acceleration(x, v),
                lagrangian_acceleration(metric, x, v),
            )
        )(x, v)
        for acceleration in found:
            np.testing.assert_allclose(acceleration, expected, rtol=1e-11, atol=1e-12)


def test_operators():
    metric = CURL
    for factor in (2, 2.0, np.float64(2), np.float32(2), jnp.asarray(2.0), np.asarray(2.0)):
        for scaled in (factor * metric, metric * factor):
            assert isinstance(scaled, ScaledMetric)
            assert float(scaled.factor) == 2.0
    both = metric + GRADIENT
    assert isinstance(both, SumMetric)
    assert both.left is metric
    assert both.right is GRADIENT
    nested = 2.0 * (3.0 * metric)
    assert nested.metric is metric
    assert float(nested.factor) == 6.0
    scale, update = as_low_rank_update((0.5 * both).at(jnp.ones(3)))
    assert float(scale) == 1.0
    assert update.factors.shape == (2, 3)


def test_domains_intersect():
    """Positive where both metrics are defined."""
    half_space = models.HyperbolicHalfSpace()
    disc = MatrixMetric(lambda x: jnp.eye(2), domain=lambda x: 4 - x @ x)
    both = 2.0 * (half_space + disc)
    points = jnp.array([[0.0, 0.5], [0.0, 1.9], [0.0, -0.1], [0.0, 2.1], [2.0, 0.5]])
    expected = np.minimum(points[:, 1], 4 - np.sum(np.asarray(points) ** 2, 1))
    np.testing.assert_allclose(jax.vmap(both.domain)(points), expected, rtol=1e-14)


def test_checks_run_for_all_parts():
    class Doubtful(AbstractMetric):
        name: str = eqx.field(static=True)

        def at(self, x):
            return DiagonalInnerProduct(jnp.ones_like(x))

        def check(self, x):
            raise RuntimeError(self.name)

    for metric in (Doubtful("a") + CURL, CURL + Doubtful("a"), 2.0 * Doubtful("a")):
        with pytest.raises(RuntimeError, match="a"):
            metric.check(jnp.ones(2))


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_factors_are_positive(factor):
    with pytest.raises(ValueError, match=f"`factor` must be positive, got {factor}"):
        factor * CURL
    x, v = jnp.ones(2), jnp.array([1.0, 0.5])

    @jax.jit
    def traced(factor):
        metric = factor * CURL
        return metric.norm(x, v), metric.acceleration(x, v)

    assert all(np.isnan(value).all() for value in traced(factor))
    assert not any(np.isnan(value).any() for value in traced(2.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CURL * jnp.nan, ValueError, "`factor` must be finite"),
        (lambda: CURL * jnp.ones(2), ValueError, r"`factor` must be a scalar, got shape \(2,\)"),
        (lambda: CURL * "x", TypeError, "`factor` must be an array of numbers, got str"),
        (lambda: CURL * CURL, TypeError, "`factor` must be an array of numbers, got SteinMetric"),
        (lambda: CURL + 1.0, TypeError, "unsupported operand"),
        (lambda: SumMetric(CURL, 1.0), TypeError, "`right` must be a metric, got float"),
        (lambda: ScaledMetric(2.0, curl), TypeError, "`metric` must be a metric, got function"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_new_factors_do_not_compile_again():
    traces = []

    @eqx.filter_jit
    def length(metric, x, v):
        traces.append(1)
        return metric.norm(x, v)

    x, v = jnp.ones(3), jnp.arange(3.0)
    lengths = [float(length(factor * CURL + GRADIENT, x, v)) for factor in (1.0, 2.0, 3)]
    assert len(traces) == 1
    assert lengths[0] < lengths[1] < lengths[2]
