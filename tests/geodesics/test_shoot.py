"""Initial value problems: dense output, certificates, failures that are reported."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CURL, X, tanh_metric

from scoregeo import RESULTS, EuclideanMetric, GaussianScore, MatrixMetric, SteinMetric, exp, models, shoot
from scoregeo._function import depends_on_argument


def bowl(dtype=jnp.float64, strength=1.0):
    return SteinMetric(GaussianScore(jnp.zeros(2, dtype), jnp.eye(2, dtype=dtype)), strength)


X, V = jnp.asarray(X), jnp.array([2.0, 0.3])


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tol"), [(jnp.float64, 1e-8), (jnp.float32, 1e-4)])
@pytest.mark.parametrize("score", ["gradient", "curl"])
def test_speed_is_constant(score, dtype, tol):
    metric = bowl(dtype) if score == "gradient" else tanh_metric(1.0, jnp.asarray(CURL, dtype))
    geodesic = shoot(metric, X.astype(dtype), V.astype(dtype))
    assert geodesic.result == RESULTS.successful
    assert geodesic.points.dtype == dtype
    assert float(geodesic.residual) < tol
    speeds = jax.vmap(metric.norm)(geodesic.points, geodesic.velocities)
    np.testing.assert_allclose(speeds, geodesic.length, rtol=tol)
    np.testing.assert_allclose(geodesic.energy, geodesic.length**2 / 2, rtol=tol)


def test_dense_output_is_the_curve():
    geodesic = shoot(bowl(), X, V)
    np.testing.assert_allclose(geodesic.evaluate(geodesic.ts), geodesic.points, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(geodesic.velocity(geodesic.ts), geodesic.velocities, rtol=1e-10, atol=1e-12)
    assert geodesic.evaluate(0.3).shape == (2,)
    assert geodesic.evaluate(jnp.zeros((4, 3))).shape == (4, 3, 2)
    t, h = 0.37, 1e-5
    slope = (geodesic.evaluate(t + h) - geodesic.evaluate(t - h)) / (2 * h)
    np.testing.assert_allclose(slope, geodesic.velocity(t), rtol=1e-6)
    back = geodesic.reverse()
    np.testing.assert_allclose(back.evaluate(0.3), geodesic.evaluate(0.7), rtol=1e-12)
    np.testing.assert_allclose(back.velocity(0.3), -geodesic.velocity(0.7), rtol=1e-12)
    np.testing.assert_allclose(back.points, geodesic.points[::-1])


@pytest.mark.slow
def test_without_dense_output():
    geodesic = shoot(bowl(), X, V, ts=[0.25, 1.0], dense=False)
    np.testing.assert_allclose(geodesic.points[-1], exp(bowl(), X, V), rtol=1e-9)
    with pytest.raises(ValueError, match="dense=False"):
        geodesic.evaluate(0.5)


def test_half_plane_geodesics_are_semicircles():
    """From (0, 1) horizontally: the unit circle around the origin, x = tanh t, y = 1 / cosh t."""
    metric = models.HyperbolicHalfSpace()
    t = 1.7
    np.testing.assert_allclose(
        exp(metric, jnp.array([0.0, 1.0]), jnp.array([t, 0.0])), [np.tanh(t), 1 / np.cosh(t)], rtol=1e-8
    )


@pytest.mark.parametrize("solver", [diffrax.Dopri8(), diffrax.Tsit5()])
def test_choice_of_solver(solver):
    expected = exp(bowl(), X, V)
    np.testing.assert_allclose(exp(bowl(), X, V, solver=solver), expected, rtol=1e-8)


@pytest.mark.slow
def test_differentiable():
    def f(v, strength):
        return exp(bowl(strength=strength), X, v)

    v, h = V, 1e-6
    jacobian = jax.jacrev(f)(v, 1.0)
    columns = [(f(v + h * e, 1.0) - f(v - h * e, 1.0)) / (2 * h) for e in jnp.eye(2)]
    np.testing.assert_allclose(jacobian, jnp.stack(columns, -1), atol=1e-6)
    slope = jax.jacrev(f, argnums=1)(v, 1.0)
    np.testing.assert_allclose(slope, (f(v, 1.0 + h) - f(v, 1.0 - h)) / (2 * h), atol=1e-6)


def sphere_of(radius):
    """The event of reaching |x| = radius, which is traced."""
    return jax.tree_util.Partial(lambda r, x, v: x @ x - r**2, jnp.asarray(radius))


@jax.jit
def stopped(metric, x, v, event):
    return shoot(metric, x, v, event=event, max_steps=256, throw=False)


class TestEvents:
    flat, x, v = EuclideanMetric(), jnp.array([0.1, -0.2]), jnp.array([3.0, 1.0])

    @staticmethod
    def exit_time(x, v, radius):
        a, b, c = v @ v, 2 * x @ v, x @ x - radius**2
        return (-b + jnp.sqrt(b**2 - 4 * a * c)) / (2 * a)

    @pytest.mark.slow
    def test_exact_time(self):
        result = stopped(self.flat, self.x, self.v, sphere_of(2.0))
        t = float(self.exit_time(self.x, self.v, 2.0))
        assert 0.3 < t < 0.7
        assert result.result == RESULTS.event_occurred
        np.testing.assert_allclose(result.stats["t_end"], t, rtol=1e-12)
        np.testing.assert_allclose(result.length, t * np.sqrt(10), rtol=1e-12)
        np.testing.assert_allclose(result.energy, t * 10 / 2, rtol=1e-12)
        before = result.ts <= t
        line = self.x + result.ts[:, None] * self.v
        np.testing.assert_allclose(result.points[before], line[before], rtol=1e-12)
        assert np.isnan(result.points[~before]).all()
        assert np.isnan(result.velocities[~before]).all()
        np.testing.assert_allclose(result.evaluate(t), self.x + t * self.v, rtol=1e-12)
        assert np.isnan(result.evaluate(jnp.array([t + 1e-6, 1.0]))).all()
        assert float(result.residual) < 1e-12

    @pytest.mark.slow
    def test_in_float32(self):
        x, v = self.x.astype(jnp.float32), self.v.astype(jnp.float32)
        result = stopped(self.flat, x, v, sphere_of(2.0))
        assert result.stats["t_end"].dtype == jnp.float32
        np.testing.assert_allclose(result.stats["t_end"], self.exit_time(self.x, self.v, 2.0), rtol=3e-7)

    @pytest.mark.slow
    def test_is_no_failure(self):
        event = sphere_of(2.0)
        assert shoot(self.flat, self.x, self.v, event=event).result == RESULTS.event_occurred
        np.testing.assert_allclose(jnp.linalg.norm(exp(self.flat, self.x, self.v, event=event)), 2, rtol=1e-12)

    def test_curved(self):
        """x = tanh t, y = 1 / cosh t, stopped at a height: cosh t = 1 / height."""
        lower = jax.tree_util.Partial(lambda height, x, v: x[1] - height, jnp.asarray(0.6))
        result = stopped(models.HyperbolicHalfSpace(), jnp.array([0.0, 1.0]), jnp.array([2.0, 0.0]), lower)
        np.testing.assert_allclose(2 * result.stats["t_end"], np.arccosh(1 / 0.6), rtol=1e-8)

    def test_start_on_the_event_does_not_count(self):
        """Geodesics of the sphere return to where they were after 2 pi: the crossing half way is the first."""
        line = jax.tree_util.Partial(lambda x, v: x[1])
        once = stopped(models.Sphere(), jnp.array([0.5, 0.0]), jnp.array([0.0, 3.0]), line)
        assert once.result == RESULTS.event_occurred
        speed = 4 / 1.25**2 * 9
        np.testing.assert_allclose(once.stats["t_end"], np.pi / np.sqrt(speed), rtol=1e-8)

    @pytest.mark.slow
    def test_batch_and_gradients(self):
        """One lane with an event and one without, their end times and end points as functions."""
        vs, radius = jnp.stack([self.v, 0.2 * self.v]), 2.0
        result = jax.vmap(lambda v: stopped(self.flat, self.x, v, sphere_of(radius)))(vs)
        assert (result.result == RESULTS.event_occurred).tolist() == [True, False]
        t = self.exit_time(self.x, self.v, radius)
        np.testing.assert_allclose(result.stats["t_end"], [t, 1], rtol=1e-12)
        assert float(result.stats["t_end"][1]) == 1
        assert np.isfinite(result.points[1]).all()

        weights = jnp.array([[1.0, 2.0], [3.0, 4.0]])

        @jax.jit
        def ends(vs, radius):
            return jax.vmap(lambda v: exp(self.flat, self.x, v, event=sphere_of(radius), throw=False))(vs)

        def exact(vs, radius):
            return jnp.stack([self.x + self.exit_time(self.x, vs[0], radius) * vs[0], self.x + vs[1]])

        np.testing.assert_allclose(ends(vs, radius), exact(vs, radius), atol=1e-12)
        gradients, expected = (
            jax.jit(jax.grad(lambda vs, r, f=f: jnp.sum(weights * f(vs, r)), argnums=(0, 1)))(vs, radius)
            for f in (ends, exact)
        )
        for gradient, oracle in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient, oracle, rtol=1e-8)

    def test_bad_events(self):
        with pytest.raises(TypeError, match="`event` must be a function"):
            shoot(self.flat, self.x, self.v, event=2.0)
        for event in (lambda x, v: x, lambda x, v: x[0] > 1, lambda x, v: (x[0], v[0])):
            with pytest.raises(ValueError, match="`event` must return a real scalar"):
                shoot(self.flat, self.x, self.v, event=event)


def disc_matrix(x):
    return jnp.eye(x.size)


def disc_or_nan_matrix(x):
    """NaN outside of the unit disc."""
    return jnp.eye(x.size) * jnp.where(x @ x < 1, 1.0, jnp.nan)


def inside_disc(x):
    return 1 - x @ x


class TestDomain:
    disc, x, v = MatrixMetric(disc_matrix, domain=inside_disc), jnp.array([0.1, -0.2]), jnp.array([3.0, 1.0])
    exit_time = staticmethod(TestEvents.exit_time)

    @pytest.mark.slow
    def test_leaving(self):
        result = stopped(self.disc, self.x, self.v, None)
        t = self.exit_time(self.x, self.v, 1.0)
        assert result.result == RESULTS.outside_domain
        np.testing.assert_allclose(result.stats["t_end"], t, rtol=1e-12)
        np.testing.assert_array_equal(np.isnan(result.points[:, 0]), result.ts > t)
        with pytest.raises(RuntimeError, match="outside the domain of the metric"):
            shoot(self.disc, self.x, self.v)
        assert stopped(self.disc, self.x, 0.1 * self.v, None).result == RESULTS.successful

    def test_starting_outside(self):
        result = stopped(self.disc, 10 * self.x, self.v, None)
        assert result.result == RESULTS.outside_domain
        assert float(result.stats["t_end"]) == 0
        assert np.isnan(result.points[1:]).all()

    def test_nan_outside(self):
        """The integrator cannot step over the border: it is recognised from inside."""
        result = stopped(MatrixMetric(disc_or_nan_matrix, domain=inside_disc), self.x, self.v, None)
        assert result.result == RESULTS.outside_domain
        np.testing.assert_allclose(result.stats["t_end"], self.exit_time(self.x, self.v, 1.0), atol=1e-10)

    @pytest.mark.slow
    @pytest.mark.parametrize(("radius", "code"), [(0.9, RESULTS.event_occurred), (1.1, RESULTS.outside_domain)])
    def test_whichever_comes_first(self, radius, code):
        """Both lie within one step of the integrator, which takes a straight line in few."""
        result = stopped(self.disc, self.x, self.v, sphere_of(radius))
        assert result.result == code
        np.testing.assert_allclose(result.stats["t_end"], self.exit_time(self.x, self.v, min(radius, 1.0)), rtol=1e-12)

    def test_all_of_space_is_not_watched(self):
        assert depends_on_argument(self.disc.domain, self.x)
        assert depends_on_argument(models.HyperbolicHalfSpace().domain, self.x)
        assert not depends_on_argument(EuclideanMetric().domain, self.x)
        assert not depends_on_argument(MatrixMetric(disc_matrix).domain, self.x)


class TestFailures:
    def test_score_turns_nan_on_the_way(self):
        """The step size shrinks to nothing at the border of the domain; that must not burn all steps, nor be silent."""
        metric = SteinMetric(lambda x: jnp.where(x[0] > 0.5, jnp.nan, -x), 1.0)
        geodesic = shoot(metric, X, V, throw=False)
        assert geodesic.result == RESULTS.metric_nonfinite
        assert int(geodesic.stats["steps"]) < 1000
        with pytest.raises(RuntimeError, match="The metric returned NaN or infinity"):
            shoot(metric, X, V)
        with pytest.raises(RuntimeError, match="The metric returned NaN or infinity"):
            exp(metric, X, V)
        assert exp(metric, X, V, throw=False).shape == (2,)

    def test_too_stiff_is_not_nan(self):
        """The least step is too long for the tolerance, though everything is finite."""
        controller = diffrax.PIDController(rtol=1e-10, atol=1e-12, dtmin=0.2, force_dtmin=False)
        geodesic = shoot(bowl(), X, 5 * V, stepsize_controller=controller, throw=False)
        assert geodesic.result == RESULTS.dt_min_reached
        assert float(geodesic.stats["t_end"]) < 1
        assert np.isnan(geodesic.points[-1]).all()

    def test_max_steps(self):
        geodesic = shoot(bowl(), X, V, max_steps=2, throw=False)
        assert geodesic.result == RESULTS.max_steps_reached
        with pytest.raises(RuntimeError, match="max_steps"):
            shoot(bowl(), X, V, max_steps=2)

    def test_zero_velocity(self):
        geodesic = shoot(bowl(), X, jnp.zeros(2))
        assert float(geodesic.length) == 0
        assert float(geodesic.residual) == 0
        np.testing.assert_array_equal(geodesic.points, jnp.broadcast_to(X, geodesic.points.shape))

    @pytest.mark.parametrize(
        ("x", "v", "message"),
        [
            (jnp.array([jnp.nan, 0.0]), V, "`x` must be finite"),
            (X, jnp.array([jnp.inf, 0.0]), "`v` must be finite"),
            (X, jnp.ones(3), r"`v` must have shape \(2,\), got \(3,\)"),
            (jnp.ones((2, 2)), V, r"`x` must have shape \(d,\), got \(2, 2\); use jax.vmap"),
        ],
    )
    def test_bad_points(self, x, v, message):
        with pytest.raises(ValueError, match=message):
            shoot(bowl(), x, v)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"solver": "tsit5"}, "`solver` must be a diffrax solver .* got 'tsit5'"),
            ({"stepsize_controller": 3}, "`stepsize_controller` must be one of diffrax, .* got 3"),
            ({"stepsize_controller": diffrax.ConstantStepSize()}, "`stepsize_controller` must know its steps"),
            ({"max_steps": 0}, "`max_steps` must be an integer of at least 1, got 0"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises((TypeError, ValueError), match=message):
            shoot(EuclideanMetric(), jnp.zeros(2), jnp.ones(2), **settings)

    def test_bad_times(self):
        with pytest.raises(ValueError, match=r"`ts` must increase within \[0, 1\], got values from 0 to 2"):
            shoot(bowl(), X, V, ts=[0.0, 2.0])

    def test_dimension_of_the_metric(self):
        with pytest.raises((ValueError, TypeError), match=r"`metric` cannot be evaluated at a point of shape \(3,\)"):
            shoot(bowl(), jnp.ones(3), jnp.ones(3))
