"""Initial value problems: dense output, certificates, failures that are reported."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, GaussianScore, SteinMetric, exp, models, shoot


def bowl(dtype=jnp.float64, strength=1.0):
    return SteinMetric(GaussianScore(jnp.zeros(2, dtype), jnp.eye(2, dtype=dtype)), strength)


def swirl(x):
    """A field with curl: not a gradient."""
    return jnp.tanh(jnp.array([[0.3, 1.0], [-1.2, 0.2]]) @ x) - x


X, V = jnp.array([-1.0, 0.5]), jnp.array([2.0, 0.3])


@pytest.mark.parametrize(("dtype", "tol"), [(jnp.float64, 1e-8), (jnp.float32, 1e-4)])
@pytest.mark.parametrize("score", ["gradient", "curl"])
def test_speed_is_constant(score, dtype, tol):
    metric = bowl(dtype) if score == "gradient" else SteinMetric(swirl, 1.0)
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


def test_differentiable():
    def f(v, strength):
        return exp(bowl(strength=strength), X, v)

    v, h = V, 1e-6
    jacobian = jax.jacrev(f)(v, 1.0)
    columns = [(f(v + h * e, 1.0) - f(v - h * e, 1.0)) / (2 * h) for e in jnp.eye(2)]
    np.testing.assert_allclose(jacobian, jnp.stack(columns, -1), atol=1e-6)
    slope = jax.jacrev(f, argnums=1)(v, 1.0)
    np.testing.assert_allclose(slope, (f(v, 1.0 + h) - f(v, 1.0 - h)) / (2 * h), atol=1e-6)


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

    def test_bad_times(self):
        with pytest.raises(ValueError, match=r"`ts` must increase within \[0, 1\], got values from 0 to 2"):
            shoot(bowl(), X, V, ts=[0.0, 2.0])

    def test_dimension_of_the_metric(self):
        with pytest.raises((ValueError, TypeError), match=r"`metric` cannot be evaluated at a point of shape \(3,\)"):
            shoot(bowl(), jnp.ones(3), jnp.ones(3))
