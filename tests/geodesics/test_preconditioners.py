"""Preconditioners by the structure of the metric, also of metrics from outside the package."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    AbstractInnerProduct,
    AbstractMetric,
    EuclideanMetric,
    FunctionScore,
    Georce,
    MatrixMetric,
    SpectralNewton,
    SteinMetric,
    dist,
    geodesic,
    models,
    verify,
)
from scoregeo.geodesics.nodal.georce import georce_direction
from scoregeo.geodesics.spectral import preconditioners
from scoregeo.geodesics.spectral.energy import PathEnergy
from scoregeo.geodesics.spectral.legendre import Basis
from scoregeo.metrics import DiagonalInnerProduct, LowRankUpdate, Scaled, as_diagonal, as_low_rank_update

BREAKS = jnp.array([0.0, 0.1, 0.45, 0.5, 1.0])
WEIGHTS = jnp.array([1.0, 0.5, 2.0])
SMALL = SpectralNewton(max_elements=4, rtol=1e-8, path_rtol=1e-8)


def three_scores(x):
    """Three fields, two of them with curl."""
    return jnp.stack([-x, jnp.roll(jnp.sin(2 * x), 1), jnp.tanh(x) - 0.5 * jnp.roll(x, 1)])


# What a stranger writes to bring a metric of rank three: this class, and nothing else.
class ThreeScores(AbstractMetric):
    weights: jax.Array

    def at(self, x):
        return LowRankUpdate(three_scores(x), self.weights)


def curl(x):
    return jnp.roll(jnp.sin(2 * x), 1) - 0.5 * x


def stein(fn=curl, strength=2.0):
    return SteinMetric(FunctionScore(fn), strength)


class Dense(AbstractMetric):
    """The same metric, as a matrix without structure."""

    metric: AbstractMetric

    def at(self, x):
        return MatrixMetric(lambda y: self.metric.at(y).matrix(y.size)).at(x)


METRICS = {
    "rank three": ThreeScores(WEIGHTS),
    "scaled": 0.3 * stein(),
    "sum": stein() + stein(jnp.tanh, 0.7),
    "scaled sum": 2.5 * (stein() + ThreeScores(WEIGHTS)),
    "with Euclid": stein() + EuclideanMetric(),
}


def ends(d, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, d))) / d**0.25


def random_path(m, d, seed=0):
    c = jax.random.normal(jax.random.key(seed), (BREAKS.size - 1, m, d))
    return Basis(BREAKS, m, m).project(c)


def gauss_newton(metric, problem, basis, c, fraction):
    """The Gauss-Newton Hessian, with the rows by autodiff of c -> u_r(x_q) . x'_q, assembled densely."""

    def projections(flat):
        points, velocities = basis.path(problem.x, problem.y, basis.project(flat.reshape(c.shape)))
        return jax.vmap(lambda x, v: as_low_rank_update(metric.at(x))[1].factors @ v)(points, velocities)

    a = jax.jacobian(projections)(c.reshape(-1))
    scale, update = as_low_rank_update(metric.at(problem.x))
    scale = 1.0 if scale is None else scale
    identity = (1 - fraction + fraction * scale) * jnp.eye(c.size)
    return identity + jnp.einsum("qrn,qrm,q,r->nm", a, a, basis.weights, fraction * scale * update.weights)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "d"), [("rank three", 1), *((name, d) for name in METRICS for d in (2, 20))])
def test_low_rank_preconditioners_are_the_gauss_newton_hessian(name, d):
    """P = s I + A^T diag(w c) A with as many rows at each point as the metric has rank: condensed for small d, by one
    Gram matrix for large."""
    metric, basis, c = METRICS[name], Basis(BREAKS, 3, 6), random_path(3, d)
    problem = PathEnergy(metric, *ends(d))
    r = random_path(3, d, seed=2)

    @jax.jit
    def solve(c, r, fraction):
        preconditioner = problem.preconditioner(basis, c, fraction)
        return preconditioner, preconditioner.solve(r), gauss_newton(metric, problem, basis, c, fraction)

    preconditioner, *_ = solve(c, r, 1.0)
    scaled = name != "rank three"
    assert isinstance(preconditioner, preconditioners.ScaledPreconditioner) == scaled
    inner = preconditioner.preconditioner if scaled else preconditioner
    small = preconditioners.CondensedPreconditioner, preconditioners.WoodburyPreconditioner
    assert isinstance(inner, small[int(d == 20)])
    for fraction in (1.0, 0.1):
        _, actual, matrix = solve(c, r, fraction)
        expected = np.linalg.solve(matrix, r.reshape(-1)).reshape(r.shape)
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_georce_solves_the_energy_of_velocities(name):
    """P = int c'^T G c', also for G of rank k, scaled: against the direction for the same matrices."""
    d, basis = 5, Georce(nodes=7).basis(jnp.float64)
    c = basis.project(jax.random.normal(jax.random.key(1), (6, 1, d)))
    x, y = ends(d)
    g = basis.project(jax.random.normal(jax.random.key(2), c.shape))
    directions = [
        jax.jit(lambda c, g, metric=metric: georce_direction(PathEnergy(metric, x, y), basis, c, g))(c, g)
        for metric in (METRICS[name], Dense(METRICS[name]))
    ]
    np.testing.assert_allclose(*directions, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rank three", "scaled", "sum"])
def test_structure_does_not_change_the_geodesic(name):
    """Against the same metric as a matrix, and against diffrax."""
    metric = METRICS[name]
    x, y = ends(5)
    found = geodesic(metric, x, y, solver=SMALL)
    np.testing.assert_allclose(found.length, geodesic(Dense(metric), x, y, solver=SMALL).length, rtol=1e-9)
    assert float(verify(metric, found)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_nothing_dense_in_high_dimension(name):
    """No 784 x 784 array in the program of `dist`; the same metric as a matrix has one."""
    d = 784
    x, y = ends(d)
    program = jax.jit(lambda metric, x, y: dist(metric, x, y, throw=False)).lower(METRICS[name], x, y).as_text()
    assert f"x{d}xf64" in program
    assert f"{d}x{d}" not in program
    points = jnp.zeros((1, 1, d))

    def one_matrix(metric, x, y):
        return PathEnergy(metric, x, y).preconditioner(Basis(BREAKS[::4], 1, 1), points)

    assert f"{d}x{d}" in jax.jit(one_matrix).lower(Dense(METRICS[name]), x, y).as_text()


@pytest.mark.slow
def test_rank_three_in_dimension_784():
    metric, (x, y) = METRICS["rank three"], ends(784)
    found = geodesic(metric, x, y)
    assert float(found.error) < 1e-6 * float(found.length)
    assert float(verify(metric, found)) < 1e-6


class Striped(AbstractInnerProduct):
    """Diagonal, as only its answer to the question says."""

    stripes: jax.Array

    def mv(self, v):
        return jnp.tile(self.stripes, v.size // 2) * v


@as_diagonal.register
def _(product: Striped):
    return jnp.tile(product.stripes, 4)


class StripedMetric(AbstractMetric):
    def at(self, x):
        return Striped(1 + jnp.stack([x @ x, x[0] ** 2]))


class Unknown(AbstractInnerProduct):
    """The identity plus rank three, which it tells nobody."""

    rows: jax.Array

    def mv(self, v):
        return v + self.rows.T @ (self.rows @ v)


class UnknownMetric(AbstractMetric):
    def at(self, x):
        return Unknown(three_scores(x))


class Registered(AbstractInnerProduct):
    """With a preconditioner of its own."""

    def mv(self, v):
        return 2.0 * v


class RegisteredMetric(AbstractMetric):
    def at(self, x):
        return Registered()


@preconditioners.preconditioner_for.register
def _(structure: Registered, problem, basis, c, fraction):
    return preconditioners.DiagonalPreconditioner(basis, jnp.full((basis.times.size, problem.x.size), 0.5))


@pytest.mark.parametrize(
    ("metric", "d", "kind"),
    [
        (EuclideanMetric(), 3, preconditioners.DiagonalPreconditioner),
        (models.Sphere(), 3, preconditioners.DiagonalPreconditioner),
        (2.0 * models.Sphere(), 3, preconditioners.DiagonalPreconditioner),
        (StripedMetric(), 8, preconditioners.DiagonalPreconditioner),
        (RegisteredMetric(), 3, preconditioners.DiagonalPreconditioner),
        (UnknownMetric(), 32, preconditioners.DensePreconditioner),
        (UnknownMetric(), 33, preconditioners.AveragedPreconditioner),
        (models.Sphere() + stein(), 33, preconditioners.AveragedPreconditioner),
        (Dense(stein()), 33, preconditioners.DensePreconditioner),
        (2.0 * Dense(stein()) + stein(), 33, preconditioners.DensePreconditioner),
    ],
)
def test_structure_is_served_wherever_it_comes_from(metric, d, kind):
    basis, c = Basis(BREAKS, 2, 4), jnp.zeros((4, 2, d))
    solved = jax.eval_shape(lambda x, y, c: PathEnergy(metric, x, y).preconditioner(basis, c), *ends(d), c)
    assert type(solved) is kind


@pytest.mark.slow
def test_a_declared_diagonal_solves():
    x, y = ends(8)
    found = geodesic(StripedMetric(), x, y, solver=SMALL)
    as_matrix = geodesic(Dense(StripedMetric()), x, y, solver=SMALL)
    np.testing.assert_allclose(found.length, as_matrix.length, rtol=1e-9)


@pytest.mark.slow
def test_products_alone_solve_in_high_dimension():
    """Of a metric that gives `at`, with `mv` alone: preconditioned by conjugate gradients, nothing d x d."""
    d, solver = 70, SpectralNewton(max_elements=1)
    x, y = ends(d)
    solve = jax.jit(lambda x, y: geodesic(UnknownMetric(), x, y, solver=solver))
    known = geodesic(ThreeScores(jnp.ones(3)), x, y, solver=solver)
    np.testing.assert_allclose(solve(x, y).length, known.length, rtol=1e-9)
    assert f"{d}x{d}" not in solve.lower(x, y).as_text()


def test_what_is_at_least_euclid():
    """By type, not by values."""
    x = jnp.ones(3)
    above = {
        "stein": (stein(), True),
        "rank three": (ThreeScores(WEIGHTS), True),
        "euclid": (EuclideanMetric(), True),
        "scaled": (2.0 * stein(), False),
        "sum": (stein() + stein(), False),
        "diagonal": (models.Sphere(), False),
        "dense": (Dense(stein()), False),
        "unknown": (UnknownMetric(), False),
    }
    for name, (metric, expected) in above.items():
        assert PathEnergy(metric, x, -x).above_euclid is expected, name


@pytest.mark.slow
def test_a_scale_that_changes_along_the_path():
    """exp(2 phi(x)) (I + rank one): the preconditioner takes the average of the factor, the geodesic is exact."""

    class Conformal(AbstractMetric):
        metric: AbstractMetric

        def at(self, x):
            return Scaled(jnp.exp(x[0]), self.metric.at(x))

    metric, (x, y) = Conformal(stein()), ends(4)
    found = geodesic(metric, x, y, solver=SMALL)
    np.testing.assert_allclose(found.length, geodesic(Dense(metric), x, y, solver=SMALL).length, rtol=1e-9)
    assert float(verify(metric, found)) < 1e-6


def test_a_batch_of_points_takes_the_same_preconditioner():
    """`batch_size` maps over points, with `None` in what it maps."""
    d, basis, c = 5, Basis(BREAKS, 3, 6), random_path(3, 5)
    for name in ("rank three", "sum"):

        def solve(c, size, metric=METRICS[name]):
            return PathEnergy(metric, *ends(d), size).preconditioner(basis, c).solve(c)

        whole, parts = (jax.jit(solve, static_argnums=1)(c, size) for size in (None, 4))
        np.testing.assert_allclose(whole, parts, rtol=1e-12, atol=1e-13)


def test_new_values_do_not_compile_again():
    """The factor of a scaling and the strengths of a sum are traced."""
    traces = []

    @eqx.filter_jit
    def length(factor, strength, x, y):
        traces.append(1)
        metric = factor * (stein(curl, strength) + DiagonalMetric(strength))
        return metric.norm(x, y)

    for factor, strength in ((2.0, 1.0), (3.0, 0.5)):
        length(jnp.asarray(factor), jnp.asarray(strength), *ends(3))
    assert len(traces) == 1


class DiagonalMetric(AbstractMetric):
    strength: jax.Array

    def at(self, x):
        return DiagonalInnerProduct(1 + self.strength * x**2)
