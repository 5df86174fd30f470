"""The Fisher-Rao metric: Fisher matrices against their definition, solvers of the library against closed forms."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    RESULTS,
    EnergyDescent,
    EuclideanMetric,
    GaussianScore,
    SpectralNewton,
    dist,
    geodesic,
    log,
    pairwise_dist,
    squared_dist,
)
from scoregeo.diffusion import VP
from scoregeo.fisher_rao import (
    Bernoulli,
    Binomial,
    Categorical,
    Cauchy,
    CenteredNormal,
    ClosedForm,
    DiagonalNormal,
    Exponential,
    FibreSolver,
    FisherRaoMetric,
    Gamma,
    Geometric,
    Laplace,
    Multinomial,
    MultivariateNormal,
    Normal,
    Poisson,
    SpacetimeMetric,
    Weibull,
)
from scoregeo.fisher_rao.metric import family_solver
from scoregeo.geodesics.base import default_solver
from scoregeo.geodesics.curves import Polyline


def normal_rule(dim, order=12):
    """Nodes and weights that integrate polynomials against the standard normal density on R^dim."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    weights = weights / weights.sum()
    grid = np.array(list(itertools.product(nodes, repeat=dim)))
    return grid, np.array([np.prod(w) for w in itertools.product(weights, repeat=dim)])


def exponential_rule():
    """For the density exp(-w), with logarithms of w: equally spaced in log(w)."""
    s = np.linspace(-45, 5, 4000)
    return np.exp(s), np.exp(s - np.exp(s)) * (s[1] - s[0])


def trials_rule(n, p):
    return np.arange(n + 1), np.array([math.comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(n + 1)])


def multinomial_rule(n, p):
    counts = np.array([c for c in itertools.product(range(n + 1), repeat=len(p)) if sum(c) == n])
    choices = [math.factorial(n) / math.prod(map(math.factorial, c)) for c in counts.tolist()]
    return counts, np.array(choices) * np.prod(np.asarray(p) ** counts, 1)


COV = np.array([[1.3, 0.4], [0.4, 0.7]])
MEAN, SD = np.array([0.3, -1.0]), np.array([0.8, 1.7])
P = np.array([0.2, 0.5, 0.3])


def cases():
    """Each family, its parameters, and outcomes with their probabilities: sums, or quadratures exact to rounding."""
    z, w = normal_rule(1)
    yield Normal(), (0.3, 1.7), (0.3 + 1.7 * z[:, 0], w)
    z, w = normal_rule(2)
    yield DiagonalNormal(2), (MEAN, SD), (MEAN + SD * z, w)
    yield CenteredNormal(2), (COV,), (z @ np.linalg.cholesky(COV).T, w)
    e, w = exponential_rule()
    yield Exponential(), (2.5,), (e / 2.5, w)
    yield Laplace(), (0.3, 1.7), (np.concatenate([0.3 + 1.7 * e, 0.3 - 1.7 * e]), np.concatenate([w, w]) / 2)
    yield Weibull(), (2.2, 0.6), (0.6 * e ** (1 / 2.2), w)
    angles = (np.arange(64) + 0.5) * np.pi / 64 - np.pi / 2
    yield Cauchy(), (0.3, 1.7), (0.3 + 1.7 * np.tan(angles), np.full(64, 1 / 64))
    yield Bernoulli(), (0.3,), trials_rule(1, 0.3)
    yield Binomial(7), (0.3,), trials_rule(7, 0.3)
    counts = np.arange(60)
    yield Poisson(), (2.5,), (counts, np.exp(-2.5) * np.cumprod(np.append(1, 2.5 / np.arange(1, 60))))
    counts = np.arange(1, 200)
    yield Geometric(), (0.3,), (counts, 0.3 * 0.7 ** (counts - 1.0))
    yield Categorical(3), (P,), (np.arange(3), P)
    yield Multinomial(4, 3), (P,), multinomial_rule(4, P)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "parameters", "rule"), list(cases()), ids=lambda x: getattr(type(x), "__name__", None)
)
def test_fisher_matrix(family, parameters, rule):
    outcomes, weights = rule
    assert abs(weights.sum() - 1) < 1e-12
    theta = family.pack(*parameters)
    scores = np.asarray(jax.jit(jax.vmap(jax.grad(family.log_prob), (None, 0)))(theta, jnp.asarray(outcomes)))
    expected = np.einsum("ni,nj,n->ij", scores, scores, weights)
    found = np.asarray(family.fisher(theta))
    if family.dof < family.size:  # equal on vectors that sum to zero
        basis = np.eye(family.size, family.dof) - np.eye(family.size, family.dof, -1)
        found, expected = basis.T @ found @ basis, basis.T @ expected @ basis
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "unconstrained"),
    [(Categorical(3), False), (CenteredNormal(2), False), (Weibull(), True)],
    ids=lambda x: type(x).__name__,
)
def test_solver_finds_closed_form(family, unconstrained):
    metric = FisherRaoMetric(family, unconstrained=unconstrained)
    u = jnp.asarray(np.random.default_rng(1).normal(size=(2, 30, family.dof)))
    ends = u if unconstrained else jax.vmap(jax.vmap(family.from_unconstrained))(u)

    @eqx.filter_jit
    @jax.vmap
    def solve(x, y):
        solver = SpectralNewton(rtol=1e-8, path_rtol=1e-8)
        return geodesic(metric, x, y, solver=solver, ts=jnp.linspace(0, 1, 5), throw=False)

    found = solve(*ends)
    assert (found.result == RESULTS.successful).all()
    theta = jax.vmap(jax.vmap(family.from_unconstrained))(u)
    np.testing.assert_allclose(found.length, jax.vmap(family.dist)(*theta), rtol=1e-7, atol=1e-7)
    middle = jax.vmap(family.path, (0, 0, None))(*theta, 0.5)
    points = jax.vmap(family.from_unconstrained)(found.points[:, 2]) if unconstrained else found.points[:, 2]
    np.testing.assert_allclose(points, middle, rtol=1e-5, atol=1e-6)
    if isinstance(family, Categorical):  # the simplex is totally geodesic in the coordinates of all probabilities
        np.testing.assert_allclose(found.points.sum(-1), 1, rtol=1e-10)


def test_unconstrained_metric():
    """The metric in unconstrained coordinates is the pullback of the one in theta."""
    for family in (Categorical(3), CenteredNormal(2)):
        metric = FisherRaoMetric(family, unconstrained=True)

        @jax.jit
        def compute(u, v, w, family=family, metric=metric):
            theta, pushed = jax.jvp(family.from_unconstrained, (u,), (v,))
            _, other = jax.jvp(family.from_unconstrained, (u,), (w,))
            domain = FisherRaoMetric(family).domain
            inner = metric.inner(u, v, w), family.inner_product(theta).inner(pushed, other)
            return inner, metric.domain(u), domain(theta), domain(-theta)

        (found, expected), everywhere, inside, outside = compute(
            *jnp.asarray(np.random.default_rng(2).normal(size=(3, family.dof)))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert everywhere == 1
        assert inside > 0 > outside


@pytest.mark.slow
def test_closed_form_solver():
    family = Normal()
    metric = FisherRaoMetric(family)
    a, b = family.pack(0.0, 1.0), family.pack(1.0, 2.0)
    expected = math.sqrt(2) * math.acosh(1 + (0.5 + 1) / 4)
    np.testing.assert_allclose(dist(metric, a, b, solver=ClosedForm()), expected, rtol=1e-14)
    found = geodesic(metric, a, b, solver=ClosedForm())
    np.testing.assert_allclose(found.length, expected, rtol=1e-14)
    np.testing.assert_allclose(found.energy, expected**2 / 2, rtol=1e-14)
    np.testing.assert_allclose(found.evaluate(0.5), family.path(a, b, 0.5), rtol=1e-14)
    np.testing.assert_allclose(found.reverse().evaluate(0.25), found.evaluate(0.75), rtol=1e-14)
    assert float(found.residual) < 1e-13
    assert float(found.error) < 1e-13
    np.testing.assert_allclose(found.points, jax.jit(family.geodesic)(a, b).points, rtol=1e-14)
    np.testing.assert_allclose(
        jax.grad(dist, 1)(metric, a, b, solver=ClosedForm()), jax.grad(family.dist)(a, b), rtol=1e-12
    )

    hessian = jax.hessian(lambda b: geodesic(metric, a, b, ts=jnp.array([0.0, 1.0]), solver=ClosedForm()).energy)(a)
    np.testing.assert_allclose(hessian, family.fisher(a), atol=1e-12)

    outside = geodesic(metric, a, jnp.array([0.0, -1.0]), solver=ClosedForm(), throw=False)
    assert outside.result == RESULTS.outside_domain
    with pytest.raises(TypeError, match="in the parameters of its family only"):
        dist(FisherRaoMetric(family, unconstrained=True), a, b, solver=ClosedForm())
    with pytest.raises(TypeError, match="`family` must be a family"):
        FisherRaoMetric(Normal)
    line = Polyline(jnp.stack([a, b]))
    with pytest.raises(TypeError, match="solves for a FisherRaoMetric"):
        ClosedForm().solve(None, a, b, line, jnp.linspace(0, 1, 3))


def test_default_solvers():
    """Closed forms and special solvers are taken by themselves, by the type of the family."""
    for family, own in (
        (Normal(), ClosedForm),
        (Categorical(3), ClosedForm),
        (CenteredNormal(2), ClosedForm),
        (MultivariateNormal(2), FibreSolver),
        (Gamma(), SpectralNewton),
    ):
        for length_only in (False, True):
            assert type(default_solver(FisherRaoMetric(family), length_only=length_only)) is own
            free = default_solver(FisherRaoMetric(family, unconstrained=True), length_only=length_only)
            assert free == default_solver(EuclideanMetric(), length_only=length_only)
    spacetime = SpacetimeMetric(GaussianScore(jnp.zeros(1), jnp.eye(1)), VP())
    assert type(default_solver(spacetime)) is SpectralNewton

    # A family of one's own joins by registering.
    class Special(Gamma):
        pass

    @family_solver.register(Special)
    def _(family):
        return EnergyDescent()

    assert type(default_solver(FisherRaoMetric(Special()))) is EnergyDescent


@pytest.mark.slow
def test_closed_form_is_the_default():
    family, metric = Normal(), FisherRaoMetric(Normal())
    a, b = family.pack(0.0, 1.0), family.pack(1.0, 2.0)
    exact = family.dist(a, b)
    np.testing.assert_allclose(dist(metric, a, b), exact, rtol=1e-14)
    np.testing.assert_allclose(squared_dist(metric, a, b), exact**2, rtol=1e-14)
    np.testing.assert_allclose(log(metric, a, b), family.log(a, b), rtol=1e-14)
    matrix, results = pairwise_dist(metric, jnp.stack([a, b]))
    np.testing.assert_allclose(matrix, [[0, exact], [exact, 0]], rtol=1e-14)
    assert (results == RESULTS.successful).all()
    found = geodesic(metric, a, b)
    assert set(found.stats) == {"path_error"}  # no Newton steps, no elements
    np.testing.assert_allclose(found.points, family.geodesic(a, b).points, rtol=1e-14)
    with pytest.raises(RuntimeError, match="An end point lies outside the domain"):
        dist(metric, a, jnp.array([0.0, -1.0]))
