"""Shooting, and refinement by it: closed forms, certificates, derivatives, failures that are reported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    CURL,
    MODES_LENGTH,
    MODES_X,
    MODES_Y,
    X,
    Y,
    central_differences,
    network_score,
    radial,
    tanh_field,
    tanh_metric,
    three_modes,
)

from scoregeo import (
    RESULTS,
    AbstractBoundarySolver,
    EuclideanMetric,
    FunctionScore,
    GaussianScore,
    MatrixMetric,
    Refine,
    Shooting,
    SpectralNewton,
    SteinMetric,
    exp,
    geodesic,
    models,
    shoot,
    verify,
)

X, Y, W = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(CURL)
ARGS = (X, Y, jnp.asarray(0.7), W)
ENDS = jnp.array([0.0, 1.0])
SOLVER = Shooting(segments=4, integration_steps=32)


def from_the_mean(metric, x, y):
    """From the mean of a standard normal, strength 1."""
    return radial(np.linalg.norm(y))


def flat(metric, x, y):
    return np.linalg.norm(metric.at(x).sqrt_mv(y - x))


CLOSED = {
    "gaussian": (SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2))), from_the_mean, [0.0, 0.0], [1.2, 0.9]),
    "sphere": (models.Sphere(), lambda m, x, y: m.closed_dist(x, y), [0.1, 0.5, -0.2], [-0.4, 0.3, 0.3]),
    "half space": (
        models.HyperbolicHalfSpace(),
        lambda m, x, y: m.closed_dist(x, y),
        [0.1, 0.5, 0.2],
        [-0.4, 0.3, 0.9],
    ),
    "flat": (SteinMetric(lambda x: jnp.array([1.0, -2.0]), 3.0), flat, [0.3, 0.1], [-2.0, 1.0]),
}


@pytest.mark.parametrize(
    ("name", "segments"),
    [
        ("gaussian", 1),
        pytest.param("sphere", 4, marks=pytest.mark.slow),
        pytest.param("half space", 1, marks=pytest.mark.slow),
        ("flat", 4),
    ],
)
def test_closed_forms(name, segments):
    metric, closed, x, y = CLOSED[name]
    x, y = jnp.array(x), jnp.array(y)
    result = geodesic(metric, x, y, solver=Shooting(segments=segments, integration_steps=64), ts=ENDS)
    difference = abs(float(result.length) - closed(metric, x, y))
    assert difference < 1e-10
    assert difference <= float(result.error) < 1e-9
    np.testing.assert_allclose(result.energy, result.length**2 / 2, rtol=1e-14)
    assert float(result.residual) < 1e-9


@pytest.fixture(scope="module")
def solve():
    return jax.jit(lambda x, y, strength, w: geodesic(tanh_metric(strength, w), x, y, solver=SOLVER, throw=False))


@pytest.fixture(scope="module")
def solved(solve):
    return solve(*ARGS)


class TestAgreement:
    @pytest.mark.slow
    def test_verified(self, solved):
        assert solved.result == RESULTS.successful
        assert float(verify(tanh_metric(*ARGS[2:]), solved)) < 1e-10
        assert set(solved.stats) >= {"iterations", "defect", "path_error"}
        assert float(solved.stats["defect"]) < 1e-10
        assert float(solved.stats["path_error"]) < 1e-9

    @pytest.mark.slow
    def test_single_and_multiple(self, solved):
        single = geodesic(tanh_metric(*ARGS[2:]), X, Y, solver=Shooting(segments=1, integration_steps=96))
        np.testing.assert_allclose(single.length, solved.length, rtol=1e-11)
        np.testing.assert_allclose(single.points, solved.points, atol=1e-9)

    @pytest.mark.slow
    def test_spectral(self, solved):
        spectral = geodesic(
            tanh_metric(*ARGS[2:]), X, Y, solver=SpectralNewton(degree=48, max_elements=1, path_rtol=1e-9)
        )
        np.testing.assert_allclose(solved.length, spectral.length, rtol=1e-10)
        np.testing.assert_allclose(solved.points, spectral.points, atol=1e-9)

    @pytest.mark.slow
    def test_reversed_problem(self, solve, solved):
        back = solve(Y, X, *ARGS[2:])
        np.testing.assert_allclose(back.length, solved.length, rtol=1e-11)
        np.testing.assert_allclose(back.points[::-1], solved.points, atol=1e-9)


class TestCurve:
    def test_evaluation(self, solved):
        """Between the samples, where segments meet, and at the ends; the velocity is the derivative."""
        h = 1e-5
        inner, joints = jnp.array([0.1, 0.37, 0.62, 0.99]), jnp.array([0.25, 0.5, 0.75])
        times = jnp.concatenate([inner, inner - h, inner + h, joints - 1e-13, joints + 1e-13, ENDS, solved.ts[5:6]])
        x, v = jax.jit(jax.vmap(lambda t: solved.curve(t)))(times)
        np.testing.assert_allclose((x[8:12] - x[4:8]) / (2 * h), v[:4], atol=1e-7)
        np.testing.assert_allclose(x[12:15], x[15:18], atol=1e-10)
        np.testing.assert_allclose(v[12:15], v[15:18], atol=1e-10)
        np.testing.assert_allclose(x[18:20], jnp.stack([X, Y]), atol=1e-11)
        np.testing.assert_allclose(x[20], solved.points[5], atol=1e-14)

        x_back, v_back = jax.jit(jax.vmap(lambda t: solved.reverse().curve(t)))(1 - times)
        np.testing.assert_allclose(x_back, x, atol=1e-12)
        np.testing.assert_allclose(v_back, -v, atol=1e-12)
        again, _ = jax.jit(lambda t: solved.reverse().reverse().curve(t))(inner[0])
        np.testing.assert_allclose(again, x[0], atol=1e-14)


def summary(result):
    """Length, energy, initial velocity and a point on the way; a vector."""
    return jnp.concatenate([result.length[None], result.energy[None], result.velocities[0], result.curve(0.4)[0]])


def quantities(x, y, strength, w):
    """With a score that closes over its weights: they must differentiate like arguments."""
    metric = SteinMetric(lambda z: tanh_field(z, w), strength)
    return summary(geodesic(metric, x, y, solver=SOLVER, ts=ENDS, throw=False))


@pytest.fixture(scope="module")
def differences(solve):
    return [central_differences(lambda *args: summary(solve(*args)), ARGS, i) for i in range(4)]


@pytest.mark.slow
class TestDerivatives:
    def test_reverse_mode_in_a_batch(self, differences):
        """One lane is as in `differences`; one has equal end points, where length and energy have derivative zero."""
        reverse = jax.jit(jax.vmap(jax.jacrev(quantities, argnums=range(4)), in_axes=(0, None, None, None)))
        jacobians = reverse(jnp.stack([X, Y, X + 0.1]), *ARGS[1:])
        for actual, expected in zip(jacobians, differences, strict=True):
            np.testing.assert_allclose(actual[0], expected, atol=1e-6)
            np.testing.assert_array_equal(actual[1, :2], 0)
            assert bool(jnp.all(jnp.isfinite(actual)))
        # At equal points the geodesic is v = y - x.
        np.testing.assert_allclose(jacobians[0][1, 2:4], -jnp.eye(2), atol=1e-9)
        np.testing.assert_allclose(jacobians[1][1, 2:4], jnp.eye(2), atol=1e-9)

    def test_second_derivative(self, solved, differences):
        """The envelope gradient, differentiated through the path in forward mode: the Hessian of the energy in x and
        the strength."""

        def gradient(x, strength):
            def energy(x, strength):
                return geodesic(tanh_metric(strength, W), x, Y, solver=SOLVER, ts=ENDS, throw=False).energy

            return jnp.append(*jax.grad(energy, argnums=(0, 1))(x, strength))

        hessian = jnp.concatenate(
            [a.reshape(3, -1) for a in jax.jit(jax.jacfwd(gradient, argnums=(0, 1)))(X, ARGS[2])], -1
        )
        np.testing.assert_allclose(hessian, hessian.T, atol=1e-7)
        # d(energy)/dx = -G v(0), of which `differences` knows the change with the strength, at fixed x.
        s = tanh_field(X, W)
        v, dv = solved.velocities[0], differences[2][2:4]
        expected = -(dv + ARGS[2] * s * (s @ dv) + s * (s @ v))
        np.testing.assert_allclose(hessian[:2, 2], expected, atol=1e-6)

    def test_without_matrices(self, differences):
        """GMRES gives the states and their derivatives that the dense factorisation gives."""
        solver = Shooting(segments=2, integration_steps=48, max_dense=0)

        def velocity(x, w):
            result = geodesic(tanh_metric(ARGS[2], w), x, Y, solver=solver, ts=ENDS, throw=False)
            return result.velocities[0], result.stats["defect"]

        (dx, dw), defect = jax.jit(jax.jacrev(velocity, argnums=(0, 1), has_aux=True))(X, W)
        assert float(defect) < 1e-10
        np.testing.assert_allclose(dx, differences[0][2:4], atol=1e-6)
        np.testing.assert_allclose(dw, differences[3][2:4], atol=1e-6)


def polar():
    """The plane in polar coordinates, an incomplete chart: no geodesic turns by more than pi."""
    return MatrixMetric(
        lambda x: jnp.array([[1.0, 0.0], [0.0, 0.0]]) + x[0] ** 2 * jnp.array([[0.0, 0.0], [0.0, 1.0]]),
        domain=lambda x: x[0],
    )


class TestFailures:
    @pytest.mark.slow
    def test_a_bad_lane_leaves_the_others_alone(self, solve):
        """And the codes of a NaN on the way, and of one at an end point alone."""
        ys = jnp.stack([Y, jnp.array([2.0, 0.0]), jnp.array([0.2, -1.0]), jnp.array([1.0, 0.65])])

        def score(x, w):
            return jnp.where((x[0] > 1.5) | (jnp.linalg.norm(x - ys[3]) < 1e-12), jnp.nan, tanh_field(x, w))

        def lane(y):
            metric = SteinMetric(FunctionScore(score, W), ARGS[2])
            return geodesic(metric, X, y, solver=SOLVER, ts=ENDS, throw=False)

        results = jax.jit(jax.vmap(lane))(ys)
        np.testing.assert_array_equal(results.result == RESULTS.successful, [True, False, True, False])
        np.testing.assert_array_equal(results.result == RESULTS.metric_nonfinite, [False, True, False, True])
        for i in (0, 2):
            alone = solve(X, ys[i], *ARGS[2:])
            assert int(results.stats["iterations"][i]) == int(alone.stats["iterations"])
            np.testing.assert_allclose(results.length[i], alone.length, rtol=1e-13)

    @pytest.mark.slow
    def test_no_geodesic_and_outside(self):
        metric, x = polar(), jnp.array([1.0, 0.0])
        solve = jax.jit(
            jax.vmap(
                lambda y: geodesic(
                    metric, x, y, solver=Shooting(segments=4, integration_steps=32, max_steps=400), throw=False
                )
            )
        )
        results = solve(jnp.array([[1.0, 2.0], [1.0, 4.0], [-1.0, 1.0]]))
        np.testing.assert_array_equal(results.result == RESULTS.successful, [True, False, False])
        np.testing.assert_array_equal(results.result == RESULTS.ends_missed, [False, True, False])
        np.testing.assert_array_equal(results.result == RESULTS.outside_domain, [False, False, True])
        np.testing.assert_allclose(results.length[0], 2 * np.sin(1.0), rtol=1e-10)
        # The lane that failed does not pretend: its error is of the size of its length.
        assert float(results.error[1]) > 1

    @pytest.mark.slow
    def test_a_kink_is_no_success(self):
        """Light in two media: the geodesic equation knows no law of refraction, and goes straight on."""
        metric = MatrixMetric(lambda x: jnp.eye(2) * jnp.where(x[0] > 0.1, 4.0, 1.0))
        found = geodesic(metric, jnp.zeros(2), jnp.ones(2), solver=Shooting(segments=2), throw=False)
        assert found.result == RESULTS.accuracy_not_reached
        assert float(found.error) > 0.1 * float(found.length)

    @pytest.mark.slow
    def test_limits(self, solved):
        metric = tanh_metric(*ARGS[2:])
        one = geodesic(metric, X, Y, solver=Shooting(segments=4, integration_steps=32, max_steps=1), throw=False)
        assert one.result == RESULTS.solver_steps_reached
        assert float(one.error) > abs(float(one.length - solved.length)) > 1e-3
        with pytest.raises(RuntimeError, match="used all its steps"):
            geodesic(metric, X, Y, solver=Shooting(segments=1, integration_steps=3))

    def test_equal_end_points(self, solve):
        result = solve(X, X, *ARGS[2:])
        assert result.result == RESULTS.successful
        assert float(result.length) == float(result.error) == 0
        np.testing.assert_array_equal(result.points, jnp.broadcast_to(X, (65, 2)))

    def test_bad_settings(self):
        with pytest.raises(ValueError, match="`segments` must be an integer of at least 1, got 0"):
            Shooting(segments=0)
        with pytest.raises(ValueError, match="`rtol` must be positive"):
            Shooting(rtol=0.0)
        with pytest.raises(TypeError, match="`solver` must be an explicit Runge-Kutta method"):
            Shooting(solver="dopri8")
        with pytest.raises(TypeError, match="`solver` must be a boundary solver"):
            Refine(SpectralNewton(), None)


@pytest.mark.slow
def test_float32(solved):
    args = [a.astype(jnp.float32) for a in ARGS]
    result = geodesic(tanh_metric(*args[2:]), *args[:2], solver=SOLVER)
    assert result.points.dtype == result.length.dtype == result.error.dtype == jnp.float32
    assert abs(float(result.length) - float(solved.length)) <= float(result.error) < 1e-4
    np.testing.assert_allclose(result.velocities, solved.velocities, atol=1e-4)


@pytest.mark.slow
class TestRefine:
    def test_three_modes(self):
        """The reference problem of docs/mathematics.md."""
        metric = three_modes()
        result = geodesic(metric, MODES_X, MODES_Y, solver=Refine(SpectralNewton(), Shooting()))
        np.testing.assert_allclose(result.length, MODES_LENGTH, atol=1e-10)
        assert float(result.error) < 1e-10
        # Quadratic convergence: little is left to do.
        assert int(result.stats["iterations"]) <= 2
        assert float(result.stats["path_error"]) < 1e-10 < float(result.stats["first_path_error"])
        assert float(verify(metric, result)) < 2e-10
        np.testing.assert_allclose(exp(metric, MODES_X, result.velocities[0]), MODES_Y, atol=1e-8)

    def test_network(self):
        """A random network in 8-D, not a gradient; the first solve is rough, and does not reach its accuracy."""
        metric = SteinMetric(network_score(1, 8), 1.0)
        x, y = jax.random.normal(jax.random.key(3), (2, 8))
        solver = Refine(SpectralNewton(degree=8, max_elements=1), Shooting(segments=4, integration_steps=32))
        result = geodesic(metric, x, y, solver=solver)
        assert float(result.error) < 1e-10 < 1e-8 < float(result.stats["first_error"])
        assert abs(float(result.length - result.stats["first_length"])) <= 2 * float(result.stats["first_error"])
        assert float(verify(metric, result)) < 1e-10

    @pytest.mark.parametrize(
        ("first", "then", "expected"),
        [
            ((2.0, 1e-3, "successful"), (2.001, 1e-9, "successful"), "successful"),
            ((2.0, 1e-3, "accuracy_not_reached"), (2.001, 1e-9, "successful"), "successful"),
            ((2.0, 1e-6, "successful"), (2.1, 1e-9, "successful"), "ends_missed"),
            ((2.0, 1e-6, "successful"), (2.1, 1e-9, "stalled"), "stalled"),
            ((2.0, 1e-3, "stalled"), (2.0, 1e-9, "successful"), "stalled"),
            ((2.0, 1e-3, "outside_domain"), (2.0, 1e-9, "metric_nonfinite"), "outside_domain"),
            ((np.nan, np.nan, "accuracy_not_reached"), (2.0, 1e-9, "successful"), "ends_missed"),
        ],
    )
    def test_codes(self, first, then, expected):
        result = geodesic(EuclideanMetric(), X, Y, solver=Refine(Pretend(*first), Pretend(*then)), throw=False)
        assert result.result == getattr(RESULTS, expected)
        assert float(result.length) == then[0]
        np.testing.assert_equal(float(result.stats["first_length"]), first[0])


class Pretend(AbstractBoundarySolver):
    """Claims to have found a geodesic of this length."""

    length: float
    error: float
    code: str

    def solve(self, metric, x, y, init, ts):
        line = shoot(EuclideanMetric(), x, y - x, ts=ts, throw=False)
        values = [jnp.asarray(value) for value in (self.length, self.length**2 / 2, self.error)]
        return type(line)(
            line.ts, line.points, line.velocities, *values, line.residual, getattr(RESULTS, self.code), {}, line.curve
        )
