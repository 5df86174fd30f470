"""All families answer `exp`, `log`, `dist`, `squared_dist` and `geodesic` alike, with a closed form or without."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, SpectralNewton, dist, geodesic
from scoregeo.fisher_rao import (
    AbstractExactFamily,
    AbstractFamily,
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    CenteredNormal,
    DiagonalNormal,
    Dirichlet,
    Exponential,
    FisherRaoMetric,
    Gamma,
    Geometric,
    Laplace,
    Multinomial,
    MultivariateNormal,
    Normal,
    ParametricFamily,
    Poisson,
    Positive,
    Quadrature,
    Simplex,
    VonMises,
    Weibull,
)

FAMILIES = [
    Bernoulli(),
    Beta(),
    Binomial(7),
    Categorical(3),
    Cauchy(),
    CenteredNormal(2),
    DiagonalNormal(2),
    Dirichlet(2),
    Exponential(),
    Gamma(),
    Geometric(),
    Laplace(),
    Multinomial(5, 3),
    MultivariateNormal(2),
    Normal(),
    Poisson(),
    VonMises(),
    Weibull(),
]
# One level of refinement is compiled, where the default compiles all of them.
SINGLE = SpectralNewton(degree=24, max_elements=1, path_rtol=1e-8)


def pair(family):
    u = 0.4 * np.random.default_rng(3).normal(size=(2, family.dof))
    return jax.vmap(family.from_unconstrained)(jnp.asarray(u))


def answers(family, solver, a, b):
    velocity = family.log(a, b, solver=solver, throw=False)
    path = family.geodesic(a, b, (0.0, 1.0), solver=solver, throw=False)
    return {
        "dist": family.dist(a, b, solver=solver, throw=False),
        "back": family.dist(b, a, solver=solver, throw=False),
        "squared": family.squared_dist(a, b, solver=solver, throw=False),
        "norm of log": family.inner_product(a).norm(velocity),
        "exp of log": family.exp(a, velocity, throw=False),
        "ends": path.points,
        "length": path.length,
        "success": path.result == RESULTS.successful,
        "metric": dist(FisherRaoMetric(family), a, b, solver=solver, throw=False),
    }


# Beta is Dirichlet of two.
@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if not isinstance(f, Beta)], ids=lambda family: type(family).__name__
)
def test_families_answer_alike(family):
    a, b = pair(family)
    if isinstance(family, AbstractExactFamily | MultivariateNormal):
        found = jax.jit(lambda a, b: answers(family, None, a, b))(a, b)
    else:  # not compiled as a whole: all of them are one program, the solver
        found = answers(family, SINGLE, a, b)
    assert found["success"]
    for same in ("back", "norm of log", "length", "metric"):
        np.testing.assert_allclose(found[same], found["dist"], rtol=1e-8, err_msg=same)
    np.testing.assert_allclose(found["squared"], found["dist"] ** 2, rtol=1e-10)
    np.testing.assert_allclose(found["exp of log"], b, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(found["ends"], [a, b], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("family", [Normal(), Multinomial(5, 3), MultivariateNormal(2)], ids=str)
def test_a_solver_replaces_the_closed_form(family):
    a, b = pair(family)
    np.testing.assert_allclose(family.dist(a, b, solver=SINGLE), family.dist(a, b), rtol=1e-7)
    np.testing.assert_allclose(family.squared_dist(a, b, solver=SINGLE), family.squared_dist(a, b), rtol=1e-7)
    np.testing.assert_allclose(family.log(a, b, solver=SINGLE), family.log(a, b), rtol=1e-5, atol=1e-6)
    path = family.geodesic(a, b, (0.0, 1.0), solver=SINGLE)
    assert "newton_steps" in path.stats
    # Settings of `shoot` make `exp` solve the geodesic equation.
    v = family.log(a, b)
    np.testing.assert_allclose(family.exp(a, v, max_steps=1000), family.exp(a, v), rtol=1e-7, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
def test_errors_are_alike(family):
    a, _ = pair(family)
    for method in (family.dist, family.squared_dist, family.log, family.geodesic):
        keywords = inspect.signature(method).parameters
        assert {"solver", "init", "throw"} <= set(keywords)
        with pytest.raises(ValueError, match=r"`b` must have shape \(\d,\), got \(9,\)"):
            method(a, jnp.ones(9))
        with pytest.raises(ValueError, match="`a` must be finite"):
            method(a * jnp.nan, a)
        with pytest.raises(TypeError, match="`solver` must be a boundary solver"):
            method(a, a, solver="newton")
    with pytest.raises(ValueError, match=r"`v` must have shape \(\d,\), got \(9,\)"):
        family.exp(a, jnp.ones(9))


@pytest.mark.slow
def test_default_solver_of_a_family():
    """Without a closed form the default solver is taken: Gamma has no other."""
    family = Gamma()
    assert not isinstance(family, AbstractExactFamily)
    a, b = family.pack(shape=1.0, rate=1.0), family.pack(shape=3.0, rate=2.0)
    np.testing.assert_allclose(family.dist(a, b), dist(FisherRaoMetric(family), a, b), rtol=1e-14)
    np.testing.assert_allclose(family.dist(a, b), 0.9915, atol=5e-5)
    with pytest.raises(ValueError, match=r"`shape` of `b` must be positive, got -3"):
        family.dist(a, -b)


@pytest.mark.slow
def test_failed_solves_are_nan():
    """Where a solve fails a family raises, or with `throw=False` says NaN, and keeps the code in `geodesic`."""
    family, hopeless = Gamma(), SpectralNewton(degree=3, max_elements=1, max_steps=1)
    a, b = family.pack(0.1, 1.0), family.pack(50.0, 2.0)
    with pytest.raises(RuntimeError, match="The boundary solver used all its steps"):
        family.dist(a, b, solver=hopeless)
    assert np.isnan(family.dist(a, b, solver=hopeless, throw=False))
    assert np.isnan(family.squared_dist(a, b, solver=hopeless, throw=False))
    assert np.isnan(family.log(a, b, solver=hopeless, throw=False)).all()
    assert family.geodesic(a, b, solver=hopeless, throw=False).result == RESULTS.solver_steps_reached


def test_coordinates_without_geodesics():
    """Probabilities of a log density are coordinates with a sum to keep, which solvers do not know of."""
    family = ParametricFamily(
        lambda theta, x: jnp.log(theta[x]), parameters={"p": Simplex(3)}, expectation=Quadrature(), sample_shape=()
    )
    a = family.pack([0.2, 0.3, 0.5])
    for method in (family.dist, family.log, family.geodesic, family.exp):
        with pytest.raises(ValueError, match=r"take FisherRaoMetric\(family, unconstrained=True\)"):
            method(a, a)


@pytest.mark.slow
def test_a_family_of_the_user_answers():
    family = ParametricFamily(
        lambda theta, x: jax.scipy.stats.expon.logpdf(x, scale=1 / theta[0]),
        parameters={"rate": Positive()},
        expectation=Quadrature(0.0, nodes=60),
    )
    a, b = family.pack(1.0), family.pack(2.0)
    assert isinstance(family, AbstractFamily)
    np.testing.assert_allclose(family.dist(a, b, solver=SINGLE), np.log(2), rtol=1e-5)
    path = geodesic(FisherRaoMetric(family), a, b, solver=SINGLE, ts=(0.0, 1.0))
    np.testing.assert_allclose(family.log(a, b, solver=SINGLE), path.velocities[0], rtol=1e-12)
    np.testing.assert_allclose(path.velocities[0], np.log(2), rtol=1e-4)
