"""Nodal solvers: orders of convergence against closed forms, the GEORCE update, derivatives, and honest failures.

One family of scores, ``s(x) = a x + b + tanh(w x)``, holds a Gaussian, a linear log p and a field with curl, so that
they share what is compiled. Georce takes the Woodbury path for it, and the diagonal one for the model spaces.
"""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
from helpers import CURL, X, Y, radial
from jax.flatten_util import ravel_pytree

from scoregeo import RESULTS, AbstractMetric, FunctionScore, MatrixMetric, SteinMetric, geodesic, models
from scoregeo.geodesics import Polyline
from scoregeo.geodesics.nodal.base import smooth_path, starting_segments
from scoregeo.geodesics.nodal.energy_descent import EnergyDescent
from scoregeo.geodesics.nodal.georce import Georce, georce_direction
from scoregeo.geodesics.spectral.energy import PathEnergy

pytestmark = pytest.mark.slow

SOLVERS = [Georce, EnergyDescent]
ORDER = {Georce: 2, EnergyDescent: 4}


def field(x, params):
    a, b, w = params
    return a * x + b + jnp.tanh(w @ x)


def stein(a, b, w, strength=1.0):
    return SteinMetric(FunctionScore(field, (jnp.asarray(a), jnp.asarray(b), jnp.asarray(w))), strength)


BOWL = stein(-1.0, np.zeros(2), np.zeros((2, 2)))


def solve(solver, metric, x, y, **settings):
    return geodesic(metric, x, y, solver=solver, throw=False, **settings)


class SpaceForm(AbstractMetric):
    """The sphere, or the half-plane: one compiled program for both."""

    flipped: jax.Array

    def at(self, x):
        sphere, half_plane = models.Sphere().at(x), models.HyperbolicHalfSpace().at(x)
        return jax.tree.map(lambda a, b: jnp.where(self.flipped, b, a), sphere, half_plane)

    def acceleration(self, x, v):
        raise NotImplementedError

    def domain(self, x):
        return jnp.where(self.flipped, x[-1], 1.0)


SPHERE, HALF_PLANE = SpaceForm(jnp.asarray(False)), SpaceForm(jnp.asarray(True))

# Relative accuracies between those of 17 and of 33 nodes.
RTOL = {Georce: 6e-5, EnergyDescent: 5e-9}
COARSE, FINE = ({kind: kind(nodes=n, rtol=RTOL[kind]) for kind in SOLVERS} for n in (17, 33))


# --- Closed forms -----------------------------------------------------------------------------------------------------


def problems():
    r = 2.0
    x, y = np.array([0.8, 0.1]), np.array([-0.2, 0.7])
    return [
        pytest.param(BOWL, np.zeros(2), r * np.array([0.6, 0.8]), radial(r), id="gaussian"),
        pytest.param(SPHERE, x, y, float(models.Sphere().closed_dist(x, y)), id="sphere"),
    ]


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize(("metric", "x", "y", "expected"), problems())
def test_order_of_the_length(kind, metric, x, y, expected):
    """The documented order, from above; an error estimate that is the error, and a result that says so."""
    coarse, fine = (solve(solver, metric, x, y) for solver in (COARSE[kind], FINE[kind]))
    errors = np.array([float(g.length) - expected for g in (coarse, fine)])
    assert (errors > 0).all()
    assert abs(np.log2(errors[0] / errors[1]) - ORDER[kind]) < 0.3
    for g, error in zip((coarse, fine), errors, strict=True):
        assert 0.5 * error < float(g.error) < 2 * error
        np.testing.assert_allclose(g.energy, g.length**2 / 2, rtol=1e-14)
    assert coarse.result == RESULTS.accuracy_not_reached
    assert fine.result == RESULTS.successful


@pytest.mark.parametrize("kind", SOLVERS)
def test_half_plane(kind):
    """Lengths, the circle that the path is on, and the tangent at its start."""
    x, y = np.array([0.0, 0.3]), np.array([1.0, 2.0])
    g = solve(FINE[kind], HALF_PLANE, x, y)
    accuracy = {Georce: 1e-2, EnergyDescent: 1e-4}[kind]
    np.testing.assert_allclose(g.length, models.HyperbolicHalfSpace().closed_dist(x, y), rtol=accuracy**2)
    centre = (y @ y - x @ x) / (2 * (y[0] - x[0]))
    radii = np.hypot(g.points[:, 0] - centre, g.points[:, 1])
    np.testing.assert_allclose(radii, np.hypot(x[0] - centre, x[1]), rtol=accuracy)
    speed = float(g.length) * x[1]  # |v| = length * height, along the tangent of the circle
    tangent = np.array([x[1], centre - x[0]]) / np.hypot(x[0] - centre, x[1])
    np.testing.assert_allclose(g.velocities[0], speed * tangent, atol=20 * accuracy * speed)
    assert 0 < float(g.residual) < 10 * accuracy
    np.testing.assert_allclose(g.velocity(0.3), jax.jvp(g.evaluate, (0.3,), (1.0,))[1], rtol=1e-12)
    # And an end point below the boundary.
    assert solve(FINE[kind], HALF_PLANE, x, -y).result == RESULTS.outside_domain


@pytest.mark.parametrize("kind", SOLVERS)
def test_linear_log_density_is_flat(kind):
    s, dx = np.array([0.8, -1.7]), Y - X
    g = solve(COARSE[kind], stein(0.0, s, np.zeros((2, 2))), X, Y)
    np.testing.assert_allclose(g.length, np.sqrt(dx @ dx + (s @ dx) ** 2), rtol=1e-12)
    np.testing.assert_allclose(g.points, X + np.asarray(g.ts)[:, None] * dx, atol=2e-6)
    assert g.result == RESULTS.successful


# --- The GEORCE update ------------------------------------------------------------------------------------------------


def paper_update(matrix, nodes):
    """The update as in the paper, in NumPy: new segments u_t from the nodes of a path."""
    u = np.diff(nodes, axis=0)
    matrix = jax.jit(matrix)
    inverses = [np.linalg.inv(matrix(x)) for x in nodes[:-1]]
    slope = jax.jit(jax.grad(lambda x, v: v @ matrix(x) @ v))
    nu = [np.asarray(slope(x, v)) for x, v in zip(nodes[:-1], u, strict=True)]
    later = [np.sum(np.stack(nu)[t + 1 :], axis=0) for t in range(len(u))]
    total = sum(g @ r for g, r in zip(inverses, later, strict=True))
    mu = np.linalg.solve(sum(inverses), 2 * (nodes[0] - nodes[-1]) - total)
    return np.stack([-0.5 * g @ (mu + r) for g, r in zip(inverses, later, strict=True)])


@pytest.mark.parametrize("structure", ["rank one", "dense", "diagonal"])
def test_georce_update_is_that_of_the_paper(structure):
    rng = np.random.default_rng(0)
    t, d = 6, 3
    rank_one = stein(-0.4, rng.normal(size=d), rng.normal(size=(d, d)), 2.5)

    def full(x):
        s = rank_one.score(x)
        return jnp.eye(d) + 2.5 * jnp.outer(s, s)

    half_space = models.HyperbolicHalfSpace()
    metric, matrix = {
        "rank one": (rank_one, full),
        "dense": (MatrixMetric(full), full),
        "diagonal": (half_space, lambda x: half_space.at(x).matrix(d)),
    }[structure]
    nodes = rng.normal(size=(t + 1, d)) + np.array([0, 0, 4.0])
    x, y = jnp.asarray(nodes[0]), jnp.asarray(nodes[-1])
    problem, basis = PathEnergy(metric, x, y), Georce(nodes=t + 1).basis(x.dtype)
    c = basis.project(((t * np.diff(nodes, axis=0) - (y - x)) / np.sqrt(t))[:, None])

    @jax.jit
    def update(c):
        energy, g = jax.value_and_grad(lambda c: problem(basis, c))(c)
        return energy, c + georce_direction(problem, basis, c, g)

    energy, new = update(c)
    expected = sum(u @ matrix(z) @ u for u, z in zip(np.diff(nodes, axis=0), nodes, strict=False))
    np.testing.assert_allclose(energy, t / 2 * expected, rtol=1e-12)
    np.testing.assert_allclose(basis.path(x, y, new)[1] / t, paper_update(matrix, nodes), rtol=1e-9, atol=1e-10)


def test_georce_forms_nothing_dense():
    """In d = 57 a step and its line search hold no array with two dimensions of 57."""
    d = 57
    metric = SteinMetric(lambda x: -jnp.tanh(x), 1.0)
    x, y = jnp.zeros(d), jnp.ones(d)
    for kind in SOLVERS:
        solver = kind(nodes=6)

        def run(x, y, solver=solver):
            problem = PathEnergy(metric, x, y)
            return solver.minimise(problem, starting_segments(Polyline(jnp.stack([x, y])), x, y, 5))

        program = str(jax.make_jaxpr(run)(x, y))
        assert f"[5,1,{d}]" in program
        assert f"{d},{d}]" not in program


# --- The path ---------------------------------------------------------------------------------------------------------


def test_nodes_and_slopes():
    """The start is sampled at the nodes; the cubic passes them, with slopes that are exact for degree 4."""
    ts = np.linspace(0, 1, 9)
    polynomials = [np.polynomial.Polynomial(p) for p in ([0.1, 1.0, -2.0, 0.5, 3.0], [1.0, 0.0, 0.3, -1.0, 0.7])]
    nodes = jnp.asarray(np.stack([p(ts) for p in polynomials], -1))
    x, y = nodes[0], nodes[-1]
    c = starting_segments(Polyline(nodes), x, y, 8)
    found = jnp.cumsum(jnp.concatenate([jnp.zeros((1, 2)), (y - x) / 8 + c[:, 0] / np.sqrt(8)]), 0) + x
    np.testing.assert_allclose(found, nodes, atol=1e-4)
    assert float(jnp.abs(found - nodes).max()) > 1e-7  # the bend
    straight = (jnp.diff(nodes, axis=0) * 8 - (y - x))[:, None] / np.sqrt(8)
    basis, fine = smooth_path(x, y, straight)
    points, velocities = basis.path(x, y, fine)
    times = np.asarray(basis.times)
    np.testing.assert_allclose(points, np.stack([p(times) for p in polynomials], -1), atol=1e-4)
    np.testing.assert_allclose(velocities, np.stack([p.deriv()(times) for p in polynomials], -1), atol=3e-3)


# --- Derivatives ------------------------------------------------------------------------------------------------------

EXACT = {
    Georce: Georce(nodes=9, tolerance=1e-13, rtol=0.1),
    # Minimisers that compare energies end at 1e-8, too far away for differences of what they find.
    EnergyDescent: EnergyDescent(optx.GradientDescent(0.2, rtol=1e-14, atol=1e-14), nodes=9, rtol=0.1),
}
THETA, UNRAVEL = ravel_pytree((X, Y, 0.7, -1.0, np.array([0.1, -0.2]), CURL))
LENGTH, ENERGY, VELOCITY, POINT = 0, 1, slice(2, 4), slice(4, 6)


def outputs_of(kind, theta):
    """Length, energy, first velocity and an inner point, and the result; the score closes over its parameters."""
    x, y, strength, *params = UNRAVEL(theta)
    g = solve(EXACT[kind], SteinMetric(lambda z: field(z, params), strength), x, y, ts=np.array([0.0, 0.4, 1.0]))
    return jnp.concatenate([jnp.stack([g.length, g.energy]), g.velocities[0], g.points[1]]), g.result


@pytest.fixture(scope="module", params=SOLVERS)
def jacobians(request):
    """In reverse under jit and vmap, for four lanes: two ordinary ones, an impossible one, one with equal ends."""
    outputs = partial(outputs_of, request.param)
    impossible, equal = THETA.at[7].set(jnp.nan), THETA.at[2:4].set(X)
    lanes = jnp.stack([THETA, impossible, THETA + 0.05 * np.cos(np.arange(THETA.size)), equal])
    jacobian = jax.jit(jax.vmap(jax.jacrev(lambda theta: outputs(theta)[0])))
    return lanes, jacobian(lanes), jax.jit(jax.vmap(outputs)), outputs


@pytest.mark.parametrize("lane", [0, 2])
def test_derivatives(jacobians, lane):
    """With respect to end points, strength, and values in a closure; central differences of fourth order."""
    lanes, actual, outputs, _ = jacobians
    h, steps = 2e-3, np.eye(THETA.size)
    values = [outputs(lanes[lane] + k * h * steps)[0] for k in (-2, -1, 1, 2)]
    expected = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    np.testing.assert_allclose(actual[lane], expected.T, atol=1e-6)
    assert np.abs(expected[:, [0, 1, 2, 4]]).max(0).min() > 1e-2


def test_forward_is_reverse(jacobians):
    lanes, actual, _, outputs = jacobians
    direction = jnp.asarray(np.sin(1.0 + np.arange(THETA.size)))
    _, tangent = jax.jit(lambda t, v: jax.jvp(lambda t: outputs(t)[0], (t,), (v,)))(lanes[0], direction)
    np.testing.assert_allclose(tangent, actual[0] @ direction, rtol=1e-9, atol=1e-10)


def test_lanes(jacobians):
    """An impossible lane says so and leaves the others alone; with equal end points all is well."""
    lanes, _, outputs, _ = jacobians
    lanes = jnp.tile(lanes, (3, 1))
    assert len(lanes) == THETA.size  # the program of `test_derivatives`
    values, results = outputs(lanes)
    np.testing.assert_array_equal(results == RESULTS.metric_nonfinite, [False, True, False, False] * 3)
    np.testing.assert_array_equal(results == RESULTS.successful, [True, False, True, True] * 3)
    without, _ = outputs(jnp.where(jnp.isnan(lanes), 0.3, lanes))
    assert np.isfinite(without).all()
    ordinary = np.arange(12) % 4 != 1
    np.testing.assert_allclose(values[ordinary], without[ordinary], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(values[3, :4], 0)


def test_derivatives_at_equal_end_points(jacobians):
    _, actual, *_ = jacobians
    np.testing.assert_array_equal(actual[3, [LENGTH, ENERGY]], 0)
    # Near a point, space is flat: v = y - x.
    np.testing.assert_allclose(actual[3, VELOCITY, :4], np.hstack([-np.eye(2), np.eye(2)]), atol=1e-9)
    np.testing.assert_allclose(actual[3, POINT, :4], np.hstack([0.6 * np.eye(2), 0.4 * np.eye(2)]), atol=1e-9)
    np.testing.assert_allclose(actual[3, VELOCITY, 4:], 0, atol=1e-12)


# --- How it ended -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "code"),
    [
        (Georce(nodes=17, max_steps=1), RESULTS.solver_steps_reached),
        (EnergyDescent(nodes=17, max_steps=1), RESULTS.solver_steps_reached),
        (Georce(nodes=17, tolerance=1e-30), RESULTS.stalled),
        (EnergyDescent(optx.LBFGS(rtol=0.3, atol=0.3), nodes=17), RESULTS.stalled),
    ],
    ids=["georce-steps", "descent-steps", "georce-stalled", "descent-stalled"],
)
def test_result_codes(solver, code):
    g = solve(solver, SPHERE, X, Y)
    assert g.result == code
    assert (int(g.stats["iterations"]) == 1) == (solver.max_steps == 1)
    assert np.isfinite(g.points).all()


def test_metric_that_fails_at_the_end_only():
    """No rule looks at the end point itself."""
    metric = SteinMetric(lambda z: jnp.where(z[0] >= 1, jnp.nan, -z), 1.0)
    for y, code in [(Y, RESULTS.metric_nonfinite), (0.9 * Y, RESULTS.successful)]:
        g = solve(Georce(nodes=17), metric, X, y, ts=np.array([0.0, 0.5]))
        assert g.result == code
        assert np.isfinite(g.length)


@pytest.mark.parametrize("kind", SOLVERS)
def test_float32(kind):
    x, y = np.zeros(2, np.float32), np.array([1.2, 1.6], np.float32)
    metric = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, BOWL)
    g = solve(kind(nodes=17), metric, x, y)
    assert {a.dtype for a in (g.points, g.velocities, g.length, g.energy, g.error, g.residual)} == {np.dtype("f4")}
    assert g.result == RESULTS.successful
    double = solve(COARSE[kind], BOWL, x.astype(float), y.astype(float))
    np.testing.assert_allclose(g.length, double.length, rtol=1e-5)
    np.testing.assert_allclose(g.points, double.points, atol=2e-3)


def test_optax_minimiser():
    adam = optx.OptaxMinimiser(optax.adam(1e-2), rtol=1e-8, atol=1e-8)
    g = solve(EnergyDescent(adam, nodes=17, max_steps=4000), SPHERE, X, Y)
    assert g.result == RESULTS.successful
    reference = solve(COARSE[EnergyDescent], SPHERE, X, Y)
    np.testing.assert_allclose(g.length, reference.length, rtol=1e-9)
    np.testing.assert_allclose(g.points, reference.points, atol=1e-5)


@pytest.mark.parametrize("kind", SOLVERS)
def test_settings_are_checked(kind):
    for bad in ({"nodes": 4}, {"nodes": 9.0}, {"max_steps": 0}, {"tolerance": 0.0}, {"rtol": 2.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
            kind(**bad)
    with pytest.raises(TypeError, match="must be an optimistix minimiser"):
        EnergyDescent(optax.adam(1e-2))
    assert dataclasses.replace(kind(), nodes=33).basis(jnp.float32).breaks.shape == (33,)
