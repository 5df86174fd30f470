"""Parallel transport and Jacobi fields: isometry, closed forms, an independent integrator, orders, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from scoregeo import (
    RESULTS,
    EuclideanMetric,
    GaussianMixtureScore,
    MatrixMetric,
    SteinMetric,
    christoffels,
    exp,
    models,
    shoot,
)
from scoregeo.geodesics.transport import PoleLadder, TransportODE, jacobi_field, parallel_transport, transport_rate

TS = np.linspace(0, 1, 9)


def swirl(x):
    """A field with curl in any dimension: not a gradient."""
    d = x.size
    mixing = np.random.default_rng(d).normal(size=(d, d))
    return jnp.tanh(jnp.asarray(mixing, x.dtype) @ x) - x


def warp(x):
    """Curved coordinates of the Euclidean plane."""
    return jnp.array([x[0] + 0.3 * x[1] ** 2, x[1] + 0.2 * jnp.sin(2 * x[0])])


def warped_matrix(x):
    derivative = jax.jacfwd(warp)(x)
    return derivative.T @ derivative


# Compiled once for every kind of metric, dimension and precision; the tests share them.
shot = jax.jit(functools.partial(shoot, ts=TS, max_steps=256, throw=False))


@functools.partial(jax.jit, static_argnames="method")
def moved(metric, path, ws, method=None):
    """The vectors ``ws`` ``(k, d)`` along ``path``: ``(k, n, d)``."""
    return jax.vmap(lambda w: parallel_transport(metric, path, w, ts=TS, method=method, throw=False))(ws)


@jax.jit
def field(metric, path, j0, dj0):
    return jacobi_field(metric, path, j0, dj0, throw=False)


def start(d, dtype=jnp.float64):
    """A point, a velocity and two vectors."""
    return jnp.asarray(np.random.default_rng(d).normal(size=(4, d)) * 0.8, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "d", "dtype", "tol"),
    [
        (SteinMetric(swirl), 2, jnp.float64, 1e-8),
        (SteinMetric(swirl), 5, jnp.float32, 1e-4),
        (models.HyperbolicHalfSpace(), 2, jnp.float64, 1e-8),
    ],
)
def test_isometry_and_the_velocity_is_parallel(metric, d, dtype, tol):
    x, v, *ws = start(d, dtype)
    x = jnp.abs(x)  # half-space
    path = shot(metric, x, v)
    vectors = moved(metric, path, jnp.stack([v, *ws]))
    assert vectors.dtype == dtype
    gram = jax.vmap(lambda p, ws: jax.vmap(lambda w: jax.vmap(lambda u: metric.inner(p, u, w))(ws))(ws))
    products = gram(path.points, vectors.swapaxes(0, 1))
    np.testing.assert_allclose(products, jnp.broadcast_to(products[0], products.shape), rtol=tol, atol=tol)
    np.testing.assert_allclose(vectors[0], path.velocities, rtol=tol, atol=tol)
    # A transport that does nothing is no isometry here.
    assert float(jnp.abs(vectors[1, -1] - ws[0]).max()) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("metric", [SteinMetric(swirl), models.HyperbolicHalfSpace()])
def test_scipy_with_christoffel_symbols_agrees(metric):
    x, v, w, _ = start(2)
    x = jnp.abs(x)
    symbols = jax.jit(functools.partial(christoffels, metric))

    def equation(t, state):
        x, v, w = state.reshape(3, 2)
        gamma = np.asarray(symbols(x))
        return np.concatenate([v, -np.einsum("kij,i,j->k", gamma, v, v), -np.einsum("kij,i,j->k", gamma, v, w)])

    oracle = solve_ivp(equation, (0, 1), np.concatenate([x, v, w]), "DOP853", TS, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(moved(metric, shot(metric, x, v), jnp.stack([v, w, w]))[1], oracle.y[4:].T, atol=1e-8)


@pytest.mark.slow
def test_conservative_formula():
    """-lam (v^T H w) s / L, of docs/mathematics.md, against the derivative of both forms of the acceleration."""
    score = GaussianMixtureScore([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], [0.3 * jnp.eye(2)] * 2)
    x, v, w, _ = start(2)
    s, hw = jax.jit(lambda: jax.jvp(score, (x,), (w,)))()
    expected = -2.0 * (v @ hw) * s / (1 + 2.0 * s @ s)
    for given in (score, lambda x: score(x)):  # a bare function is taken as not conservative
        metric = SteinMetric(given, 2.0)
        np.testing.assert_allclose(jax.jit(transport_rate)(metric, x, v, w), expected, rtol=1e-10)
    symbols = jax.jit(christoffels)(SteinMetric(score, 2.0), x)
    np.testing.assert_allclose(expected, -jnp.einsum("kij,i,j->k", symbols, v, w), rtol=1e-10)


@pytest.mark.slow
def test_flat_in_curved_coordinates():
    """Transport in the plane is none, whatever the coordinates: w -> D warp(y)^-1 D warp(x) w."""
    metric, (x, v, w, _) = MatrixMetric(warped_matrix), start(2)
    path = shot(metric, x, v)
    vectors = moved(metric, path, w[None])[0]
    derivatives = jax.vmap(jax.jacfwd(warp))(path.points)
    expected = jnp.linalg.solve(derivatives, jnp.broadcast_to(derivatives[0] @ w, (TS.size, 2))[..., None])[..., 0]
    np.testing.assert_allclose(vectors, expected, atol=1e-8)
    assert float(jnp.abs(vectors[-1] - w).max()) > 0.05


@pytest.mark.slow
def test_linear_log_density_transports_nothing():
    metric = SteinMetric(lambda x: jnp.array([1.0, -2.0]), 3.0)
    x, v, w, _ = start(2)
    vectors = moved(metric, shot(metric, x, v), w[None])[0]
    np.testing.assert_allclose(vectors, jnp.broadcast_to(w, vectors.shape), rtol=1e-13)


@pytest.mark.slow
def test_holonomy_of_a_spherical_triangle():
    """Round a geodesic triangle, vectors turn by its area (Gauss-Bonnet)."""
    sphere = models.Sphere()
    corners = jnp.array([[0.6, 0.0], [-0.2, 0.5], [-0.3, -0.6]])
    a, b, c = embedded = np.asarray(jax.vmap(sphere.embed)(corners))
    charts = np.asarray(jax.vmap(jax.jacfwd(sphere.embed))(corners))
    w = turned = jnp.array([0.3, 0.4])
    for k in range(3):
        p, q = embedded[k], embedded[(k + 1) % 3]
        angle = np.arccos(p @ q)
        side = shot(sphere, corners[k], np.linalg.pinv(charts[k]) @ (angle / np.sin(angle) * (q - np.cos(angle) * p)))
        np.testing.assert_allclose(side.points[-1], corners[(k + 1) % 3], atol=1e-8)
        turned = moved(sphere, side, jnp.stack([turned] * 3))[0, -1]
    # The chart preserves angles, and at the first corner, where it ends, lengths.
    turn = np.arctan2(w[0] * turned[1] - w[1] * turned[0], w @ turned)
    # Van Oosterom & Strackee (1983): the solid angle of a triangle.
    area = 2 * np.arctan2(abs(a @ np.cross(b, c)), 1 + a @ b + b @ c + c @ a)
    assert 0.5 < area < 4
    # Both the orientation of the corners and the curvature are positive.
    np.testing.assert_allclose(np.mod(turn, 2 * np.pi), area, rtol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(turned), np.linalg.norm(w), rtol=1e-8)


class TestPoleLadder:
    @pytest.mark.slow
    def test_second_order(self):
        metric, (x, v, w, _) = SteinMetric(swirl), start(2)
        path = shot(metric, x, v)
        ws = jnp.stack([v, w, w])
        exact = moved(metric, path, ws)
        coarse, fine = (np.abs(moved(metric, path, ws, PoleLadder(n)) - exact).max(axis=(0, -1)) for n in (20, 40))
        # At the end, and at times within the rungs.
        np.testing.assert_allclose(np.log2(coarse[-1] / fine[-1]), 2, atol=0.1)
        assert np.all(fine[1:] < coarse[1:])
        assert fine.max() < 1e-3

    @pytest.mark.slow
    def test_fourth_order_on_the_sphere(self):
        """In a conformal plane, a transported vector keeps its angle to the velocity, and its share of the length."""
        sphere, (x, v, w, _) = models.Sphere(), start(2)
        path = shot(sphere, 0.3 * x, 0.5 * v)
        turn = complex(*w) / complex(*path.velocities[0])
        exact = turn * complex(*path.velocities[-1])
        errors = [abs(complex(*moved(sphere, path, w[None], PoleLadder(n, 4))[0, -1]) - exact) for n in (16, 32)]
        np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 4, atol=0.3)
        assert errors[1] < 1e-4

    def test_linear_in_the_vector(self):
        metric, (x, v, w, u) = SteinMetric(swirl), start(2)
        path, method = shot(metric, x, v), PoleLadder(20)
        a, b, both = moved(metric, path, jnp.stack([w, u, 2 * w - 3 * u]), method)
        np.testing.assert_allclose(both, 2 * a - 3 * b, rtol=1e-12, atol=1e-13)

    def test_bad_settings(self):
        with pytest.raises(ValueError, match="`rungs` must be an integer of at least 1, got 0"):
            PoleLadder(0)
        with pytest.raises(ValueError, match="`order` must be 2 or 4, got 3"):
            PoleLadder(8, order=3)


class TestJacobiFields:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("metric", "c", "s", "curvature"),
        [(models.Sphere(), np.cos, np.sin, 1), (models.HyperbolicHalfSpace(), np.cosh, np.sinh, -1)],
    )
    def test_constant_curvature(self, metric, c, s, curvature):
        """Across the geodesic cos and sin, or cosh and sinh, of the length; along it linear."""
        x, v, j0, dj0 = start(2)
        x = jnp.abs(x)
        path = shot(metric, x, v)
        length, inner = float(path.length), functools.partial(metric.inner, x)
        along = [float(inner(j, v)) / length**2 for j in (j0, dj0)]
        across = [j - a * v for j, a in zip((j0, dj0), along, strict=True)]
        _, p0, p1 = np.asarray(moved(metric, path, jnp.stack([v, *across])))
        t = TS[:, None]
        values, derivatives = field(metric, path, j0, dj0)
        expected = c(length * t) * p0 + s(length * t) / length * p1 + (along[0] + along[1] * t) * path.velocities
        np.testing.assert_allclose(values, expected, atol=1e-8)
        expected = -curvature * length * s(length * t) * p0 + c(length * t) * p1 + along[1] * path.velocities
        np.testing.assert_allclose(derivatives, expected, atol=1e-8)

    @pytest.mark.slow
    def test_differences_of_geodesics(self):
        metric, (x, v, j0, dj0) = SteinMetric(swirl), start(2)
        path, h = shot(metric, x, v), 1e-5
        values, derivatives = field(metric, path, j0, dj0)
        symbols = jax.jit(jax.vmap(functools.partial(christoffels, metric)))(path.points)
        dv = dj0 - jnp.einsum("kij,i,j->k", symbols[0], v, j0)
        plus, minus = (shot(metric, x + e * j0, v + e * dv) for e in (h, -h))
        slope = (plus.points - minus.points) / (2 * h)
        np.testing.assert_allclose(values, slope, atol=1e-7)
        rate = (plus.velocities - minus.velocities) / (2 * h)
        covariant = rate + jnp.einsum("nkij,ni,nj->nk", symbols, path.velocities, slope)
        np.testing.assert_allclose(derivatives, covariant, atol=1e-7)

    @pytest.mark.slow
    def test_derivative_of_exp(self):
        metric, (x, v, _, dj0) = SteinMetric(swirl), start(2)
        jacobian = jax.jit(jax.jacrev(lambda v: exp(metric, x, v, throw=False)))(v)
        values, _ = field(metric, shot(metric, x, v), jnp.zeros(2), dj0)
        np.testing.assert_allclose(values[-1], jacobian @ dj0, atol=1e-8)


@pytest.mark.slow
def test_gradients():
    """Through geodesic and transport together."""
    x, v, w, c = start(2)

    @jax.jit
    def f(w, strength, v):
        metric = SteinMetric(swirl, strength)
        path = shoot(metric, x, v, max_steps=256, throw=False)
        return c @ parallel_transport(metric, path, w, throw=False)

    strength, h = jnp.asarray(1.3), 1e-5
    gradients = jax.jit(jax.grad(f, argnums=(0, 1, 2)))(w, strength, v)
    differences = (
        jnp.stack([f(w + h * e, strength, v) - f(w - h * e, strength, v) for e in jnp.eye(2)]) / (2 * h),
        (f(w, strength + h, v) - f(w, strength - h, v)) / (2 * h),
        jnp.stack([f(w, strength, v + h * e) - f(w, strength, v - h * e) for e in jnp.eye(2)]) / (2 * h),
    )
    for gradient, difference in zip(gradients, differences, strict=True):
        np.testing.assert_allclose(gradient, difference, rtol=1e-5, atol=1e-7)
        assert float(jnp.abs(gradient).max()) > 1e-3


@pytest.mark.slow
def test_batch_and_way_back():
    metric, (x, v, w, u) = SteinMetric(swirl), start(2)
    paths = [shot(metric, x, velocity) for velocity in (v, u)]
    ws = jnp.stack([v, w, w])
    one_by_one = jnp.stack([moved(metric, path, ws) for path in paths])
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *paths)
    np.testing.assert_allclose(jax.vmap(lambda path: moved(metric, path, ws))(batch), one_by_one, atol=1e-9)
    back = moved(metric, paths[0].reverse(), one_by_one[0, :, -1])
    np.testing.assert_allclose(back[:, -1], ws, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, PoleLadder(20)])
def test_a_geodesic_that_stopped_ends_there(method):
    metric, (x, v, w, _) = SteinMetric(swirl), start(2)
    whole = shot(metric, x, v)
    border = jax.tree_util.Partial(lambda middle, x, v: x[0] - middle[0], whole.evaluate(0.55))
    stopped = shot(metric, x, v, event=border)
    assert stopped.result == RESULTS.event_occurred
    np.testing.assert_allclose(stopped.stats["t_end"], 0.55, atol=1e-8)
    expected, vectors = (moved(metric, path, jnp.stack([v, w, w]), method) for path in (whole, stopped))
    np.testing.assert_allclose(vectors[:, :5], expected[:, :5], atol=1e-8 if method is None else 1e-2)
    assert np.isnan(vectors[:, 5:]).all()
    # Masked values must not spoil derivatives of those before the end.
    gradient = jax.grad(lambda w: jnp.sum(moved(metric, stopped, w[None], method)[:, :5] ** 2))(w)
    assert jnp.isfinite(gradient).all()
    if method is None:
        by_strength = jax.grad(lambda k: jnp.sum(field(SteinMetric(swirl, k), stopped, w, v)[1][:5] ** 2))(1.0)
        assert jnp.isfinite(by_strength)
        assert by_strength != 0
    # The end of such a geodesic is where it stopped.
    end = parallel_transport(metric, stopped, v, method=method)
    np.testing.assert_allclose(end, whole.velocity(0.55), atol=1e-7 if method is None else 1e-2)


@pytest.fixture(scope="module")
def path():
    return shoot(EuclideanMetric(), jnp.zeros(2), jnp.array([1.0, 0.5]), max_steps=64)


class TestFailures:
    flat, x, v = EuclideanMetric(), jnp.zeros(2), jnp.array([1.0, 0.5])

    def test_shapes(self, path):
        with pytest.raises(ValueError, match=r"`w` must have shape \(2,\), got \(3,\)"):
            parallel_transport(self.flat, path, jnp.ones(3))
        with pytest.raises(ValueError, match=r"`j0` must have shape \(2,\), got \(3,\)"):
            jacobi_field(self.flat, path, jnp.ones(3), jnp.ones(2))
        with pytest.raises(ValueError, match=r"`dj0` must have shape \(d,\), got \(2, 2\)"):
            jacobi_field(self.flat, path, jnp.ones(2), jnp.ones((2, 2)))
        with pytest.raises(ValueError, match="`w` must be finite"):
            parallel_transport(self.flat, path, jnp.array([1.0, jnp.nan]))
        with pytest.raises(ValueError, match=r"`ts` must increase within \[0, 1\]"):
            parallel_transport(self.flat, path, jnp.ones(2), ts=[0.5, 0.2])

    def test_types(self, path):
        with pytest.raises(TypeError, match="`geodesic` must be a Geodesic"):
            parallel_transport(self.flat, path.points, jnp.ones(2))
        with pytest.raises(TypeError, match="`metric` must be an AbstractMetric"):
            parallel_transport(swirl, path, jnp.ones(2))
        with pytest.raises(TypeError, match="`method` must be a transport"):
            parallel_transport(self.flat, path, jnp.ones(2), method="ladder")
        with pytest.raises(TypeError, match="`method` must be a TransportODE"):
            jacobi_field(self.flat, path, jnp.ones(2), jnp.ones(2), method=PoleLadder(8))

    def test_geodesics_without_a_curve_and_batches(self, path):
        points_only = shoot(self.flat, self.x, self.v, dense=False)
        with pytest.raises(ValueError, match="`geodesic` was solved with `dense=False`"):
            parallel_transport(self.flat, points_only, jnp.ones(2))
        batch = jax.tree.map(lambda a: jnp.stack([a, a]), path)
        with pytest.raises(ValueError, match=r"use jax\.vmap for a batch"):
            parallel_transport(self.flat, batch, jnp.ones(2))

    def test_zero_vector(self, path):
        np.testing.assert_array_equal(parallel_transport(self.flat, path, jnp.zeros(2)), jnp.zeros(2))

    @pytest.mark.slow
    @pytest.mark.parametrize("method", [TransportODE(), PoleLadder(8)])
    def test_metric_turns_nan_on_the_way(self, path, method):
        metric = SteinMetric(lambda x: jnp.where(x[0] > 0.5, jnp.nan, -x))
        with pytest.raises(RuntimeError, match="The metric returned NaN or infinity"):
            parallel_transport(metric, path, jnp.ones(2), method=method)
        vectors = parallel_transport(metric, path, jnp.ones(2), ts=[0.25, 1.0], method=method, throw=False)
        assert np.isfinite(vectors[0]).all()
        assert np.isnan(vectors[1]).all()

    @pytest.mark.slow
    def test_failed_geodesic(self, path):
        disc = MatrixMetric(lambda x: jnp.eye(2), domain=lambda x: 1 - x @ x)
        left = shoot(disc, self.x, 2 * self.v, throw=False)
        assert left.result == RESULTS.outside_domain
        with pytest.raises(RuntimeError, match="outside the domain"):
            parallel_transport(disc, left, jnp.ones(2))
        np.testing.assert_allclose(parallel_transport(disc, left, jnp.ones(2), throw=False), 1)
        with pytest.raises(RuntimeError, match="outside the domain"):
            jacobi_field(disc, left, jnp.ones(2), jnp.ones(2))

    @pytest.mark.slow
    def test_steps(self, path):
        with pytest.raises(RuntimeError, match="max_steps"):
            parallel_transport(SteinMetric(swirl), path, jnp.ones(2), method=TransportODE(max_steps=1))
