"""What cannot be a geodesic is never successful, whichever solver says so; and how a path is measured and judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    RESULTS,
    EnergyDescent,
    GaussianMixtureScore,
    Georce,
    MatrixMetric,
    Shooting,
    SpectralNewton,
    SteinMetric,
    dist,
    exp,
    geodesic,
    shoot,
)
from scoregeo._results import status_name
from scoregeo.geodesics import Geodesic, Polyline
from scoregeo.geodesics.certificate import (
    PROBES,
    Measurement,
    impossible,
    is_indefinite,
    judge,
    measure_path,
    needs_probes,
    some_negative,
)
from scoregeo.geodesics.spectral.energy import PathEnergy
from scoregeo.metrics import DenseInnerProduct, DiagonalInnerProduct, IdentityPlusRankOne

SOLVERS = {
    "spectral": SpectralNewton(rtol=1e-4, degree=8, max_elements=4, max_steps=30, continuation=4),
    "georce": Georce(nodes=17, max_steps=200, rtol=0.1),
    "descent": EnergyDescent(nodes=17, max_steps=200, rtol=0.1),
    "shooting": Shooting(segments=2, integration_steps=128),
}
X, Y = (-1.0, 0.1), (1.0, 0.1)
# G = base + bump on a strip across the path, a tenth of its length, that no symmetry of the problem singles out.
CASES = {
    "euclid": ((1, 1), (0, 0), Y, "converged"),
    "positive strip": ((1, 1), (0.1, 0.1), Y, "converged"),
    "indefinite across": ((1, -1), (0, 0), Y, "metric_nonfinite"),
    "indefinite along": ((-1, 1), (0, 0), Y, "metric_nonfinite"),
    "negative definite": ((-1, -2), (0, 0), Y, "metric_nonfinite"),
    # Iterations may end before their path crosses the strip: with the code of that.
    "strip across": ((1, 1), (0, -2), Y, "failed"),
    "strip along": ((1, 1), (-2, 0), Y, "failed"),
    "zero": ((0, 0), (0, 0), Y, "metric_nonfinite"),
    "equal ends": ((1, 1), (0, 0), X, "converged"),
}


def check(results, lengths):
    for (name, (*_, expected)), status in zip(CASES.items(), status_name(results), strict=True):
        assert (status != "converged") if expected == "failed" else (status == expected), (name, status)
    np.testing.assert_allclose(lengths[0], 2, rtol=1e-4)
    assert float(lengths[-1]) == 0


def strip(base, bump):
    def matrix(x, base, bump):
        turn = jnp.array([[0.8, -0.6], [0.6, 0.8]], x.dtype)
        height = jnp.exp(-(((x[0] + 0.27) / 0.15) ** 2))
        # Turned where it is constant, so that neither the path nor an axis is a null direction.
        constant = jnp.where(jnp.all(base > 0), jnp.diag(base), turn @ jnp.diag(base) @ turn.T)
        return constant + height * jnp.diag(bump)

    return MatrixMetric(matrix, base, bump)


def lanes(dtype):
    return tuple(jnp.asarray([case[i] for case in CASES.values()], dtype) for i in range(3))


@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=pytest.mark.slow)], ids=["f64", "f32"])
@pytest.mark.parametrize("name", list(SOLVERS))
def test_boundary_solvers_refuse_what_cannot_be(name, dtype):
    """A batch with one lane for each case; the ends alone are sampled, as for `dist`."""

    def solve(base, bump, y):
        x = jnp.asarray(X, dtype)
        return geodesic(strip(base, bump), x, y, solver=SOLVERS[name], ts=(0.0, 1.0), throw=False)

    solved = jax.jit(jax.vmap(solve))(*lanes(dtype))
    assert solved.length.dtype == dtype
    check(solved.result, solved.length)
    if name == "spectral":
        assert set(status_name(solved.result)) == {"converged", "metric_nonfinite"}


@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=pytest.mark.slow)], ids=["f64", "f32"])
def test_shoot_refuses_what_cannot_be(dtype):
    def solve(base, bump, y):
        x = jnp.asarray(X, dtype)
        metric = strip(base, bump)
        # A velocity of zero where the ends are equal.
        path = shoot(metric, x, y - x, max_steps=256, throw=False)
        return path.result, path.length, exp(metric, x, y - x, max_steps=256, throw=False)

    result, length, ends = jax.jit(jax.vmap(solve))(*lanes(dtype))
    check(result, length)
    np.testing.assert_allclose(ends[0], Y, rtol=1e-4)


@pytest.mark.slow
def test_exp_looks_between_its_ends():
    base, bump = jnp.array([1.0, 1.0]), jnp.array([0.0, -2.0])
    with pytest.raises(RuntimeError, match="is not positive"):
        exp(strip(base, bump), jnp.asarray(X), jnp.asarray(Y) - jnp.asarray(X))


@pytest.mark.slow
def test_metric_of_a_mixture_that_is_indefinite_between_its_modes():
    """I + 10 (I - D), with D the derivative of the denoised point: had length 0 and error 0, successfully."""
    sigma = 0.5
    centres = jnp.array([[-1.0, 0.0], [1.0, 0.0]])
    score = GaussianMixtureScore(jnp.array([0.5, 0.5]), centres, jnp.stack([sigma**2 * jnp.eye(2)] * 2))
    metric = MatrixMetric(lambda x: jnp.eye(2) - 10 * sigma**2 * jax.jacfwd(score)(x))
    for y in (jnp.array([1.0, 0.3]), jnp.array([0.0, 0.1])):
        with pytest.raises(RuntimeError, match="is not positive"):
            dist(metric, jnp.array([-1.0, 0.2]), y)
    assert float(dist(metric, centres[0], centres[0])) == 0


class TestIndefinite:
    @pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
    def test_dense(self, dtype):
        rng = np.random.default_rng(0)
        indefinite = jax.jit(lambda a: is_indefinite(DenseInnerProduct(a)))
        for _ in range(20):
            vectors = np.linalg.qr(rng.normal(size=(5, 5)))[0]
            values = 10.0 ** rng.uniform(-3, 3, 5)
            scale = np.diag(10.0 ** rng.uniform(-3, 3, 5))
            for smallest, expected in ((values[0], False), (0.0, False), (-1e-2 * values.max(), True)):
                values[0] = smallest
                matrix = scale @ (vectors * values) @ vectors.T @ scale
                assert bool(indefinite(jnp.asarray(matrix, dtype))) == expected

    @pytest.mark.parametrize(
        ("matrix", "expected"),
        [
            ([[0, 1], [1, 0]], True),
            ([[0, 0], [0, 1]], False),
            ([[1, 1], [1, 1]], False),
            ([[1, 2], [2, 1]], True),
            ([[-1]], True),
            ([[np.nan, 0], [0, 1]], False),  # not finite: told by the squared speed
        ],
    )
    def test_small(self, matrix, expected):
        assert bool(is_indefinite(DenseInnerProduct(jnp.asarray(matrix, float)))) == expected

    def test_structures(self):
        assert bool(is_indefinite(DiagonalInnerProduct(jnp.array([1.0, -1e-9]))))
        assert not bool(is_indefinite(DiagonalInnerProduct(jnp.array([1.0, 0.0, jnp.inf]))))
        for strength, expected in ((1.0, False), (-0.4, False), (-0.6, True)):
            product = IdentityPlusRankOne(jnp.array([1.0, 1.0]), jnp.asarray(strength))
            assert bool(is_indefinite(product)) == expected

    def test_large_matrices_by_their_diagonal(self):
        large = jnp.eye(65)
        assert not bool(is_indefinite(DenseInnerProduct(large)))
        assert bool(is_indefinite(DenseInnerProduct(large.at[3, 3].set(-1))))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False),
        ({"positive": False}, True),
        ({"error": -1e-12}, True),
        ({"least_length": 1.0 + 5e-7}, False),
        ({"least_length": 1.0 + 5e-6}, True),
        ({"energy": -1e-12}, True),
        ({"energy": 0.0}, True),
        ({"energy": 0.0, "y": 0.0}, False),
        ({"energy": 0.0, "y": 1e-200}, False),
        ({"energy": 0.0, "ends": None}, False),
        ({"energy": np.nan}, False),  # not finite, which is another condition
    ],
)
def test_impossible(values, expected):
    values = {"positive": True, "least_length": 0.0, "error": 0.0, "energy": 0.5, "y": 1.0} | values
    ends = values.get("ends", (jnp.zeros(2), jnp.full(2, values["y"])))
    measurement = Measurement(jnp.asarray(0.0), positive=values["positive"], least_length=values["least_length"])
    found = impossible(measurement, ends, *(jnp.asarray(value) for value in (1.0, values["energy"], values["error"])))
    assert bool(found) == expected


def test_order_of_judgement():
    causes, failures = [(True, RESULTS.ends_missed)], [(True, RESULTS.stalled)]
    nothing, no = Measurement(jnp.asarray(0.0), inside=False, finite=False), jnp.asarray(False)
    assert judge(nothing, ~no, causes, failures) == RESULTS.ends_missed
    assert judge(nothing, ~no, [], failures) == RESULTS.outside_domain
    assert judge(nothing._replace(inside=True), no, [], failures) == RESULTS.metric_nonfinite
    good = Measurement(jnp.asarray(0.0))
    assert judge(good, ~no, [], failures) == RESULTS.metric_nonfinite
    assert judge(good, no, [], failures) == RESULTS.stalled
    assert judge(good, no, [], []) == RESULTS.successful


def test_some_negative():
    assert bool(some_negative(jnp.array([1.0, -1e-6])))
    assert not bool(some_negative(jnp.array([1.0, -1e-9, 0.0])))
    assert not bool(some_negative(jnp.zeros(3)))
    assert bool(some_negative(jnp.array([-1e-30, 0.0])))


class TestMeasure:
    line = Polyline(jnp.array([[0.0, 1.0], [1.0, 1.0]]))
    times = jnp.linspace(0, 1, 5)

    def problem(self, fn, domain=None):
        return PathEnergy(MatrixMetric(fn, domain=domain), *self.line.nodes)

    def measure(self, problem, **settings):
        return measure_path(problem, self.line, *jax.vmap(self.line)(self.times), **settings)

    @pytest.mark.slow
    def test_values(self):
        """The squared speed is 1 + t^2 on the line."""
        problem = self.problem(lambda x: (1 + x[0] ** 2) * jnp.eye(2))
        found = self.measure(problem)
        mean = np.mean(1 + np.asarray(self.times) ** 2)
        np.testing.assert_allclose(found.residual, (2 - mean) / mean, rtol=1e-14)
        np.testing.assert_allclose(self.measure(problem, mean=jnp.asarray(1.0)).residual, 1.0, rtol=1e-14)
        assert bool(found.inside & found.finite & found.positive)
        assert not bool(self.measure(problem, finite=jnp.asarray(False)).finite)
        assert float(found.least_length) == 0

    @pytest.mark.slow
    def test_between_the_samples(self):
        place = float(PROBES[20])
        assert np.min(np.abs(self.times - place)) > 0.01
        near = lambda x: jnp.abs(x[0] - place) < 1e-6  # noqa: E731
        assert not bool(self.measure(self.problem(lambda x: jnp.eye(2) * jnp.where(near(x), jnp.nan, 1))).finite)
        assert not bool(self.measure(self.problem(lambda x: jnp.eye(2) * jnp.where(near(x), -1, 1))).positive)
        outside = self.problem(lambda x: jnp.eye(2), domain=lambda x: jnp.where(near(x), -1.0, 1.0))
        assert not bool(self.measure(outside).inside)

    def test_what_the_solver_visited(self):
        """It tells why a path is not finite, and does not matter where that is."""
        problem = self.problem(lambda x: jnp.eye(2), domain=lambda x: x[1])
        below = jnp.array([[0.5, -1.0]])
        assert bool(self.measure(problem, visited=below).inside)
        assert not bool(self.measure(problem, visited=below, finite=jnp.asarray(False)).inside)
        assert bool(self.measure(problem, visited=-below, finite=jnp.asarray(False)).inside)

    def test_structure_says_where_to_look(self):
        metric = SteinMetric(lambda x: -x)
        assert not needs_probes(metric.at, jnp.zeros(2), 2)
        assert needs_probes(MatrixMetric(lambda x: jnp.eye(2)).at, jnp.zeros(2), 2)
        assert not needs_probes(MatrixMetric(lambda x: jnp.eye(2)).at, jnp.zeros(2), 65)
        found = self.measure(PathEnergy(metric, *self.line.nodes))
        assert float(found.least_length) == 1


@pytest.mark.slow
def test_from_curve():
    """Samples and defaults; length and energy keep their derivatives, the rest has none."""
    x, y = jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])

    def made(y, **settings):
        curve = Polyline(jnp.stack([x, y]))

        def measure(curve, points, velocities):
            return Measurement(0.1 * jnp.sum(points[-1]))

        return Geodesic.from_curve(
            curve, jnp.array([0.0, 0.5, 1.0]), measure, ends=(x, y), energy=(y @ y) / 2, stats={}, **settings
        )

    found = made(y)
    np.testing.assert_allclose(found.points, [[0, 0], [1.5, 2], [3, 4]])
    np.testing.assert_allclose(found.velocities, [[3, 4]] * 3)
    assert found.result == RESULTS.successful
    np.testing.assert_allclose([found.length, found.residual, found.error], [5, 0.7, 1.75], rtol=1e-14)
    for name, slope in {"length": y / 5, "energy": y, "residual": 0 * y}.items():
        np.testing.assert_allclose(jax.grad(lambda y, name=name: getattr(made(y), name))(y), slope, rtol=1e-14)
    assert made(y, failures=[(True, RESULTS.stalled)]).result == RESULTS.stalled
    assert made(y, error=jnp.asarray(-1.0)).result == RESULTS.metric_nonfinite
    # A speed that is far from constant is not that of a geodesic, whatever the solver says of its path.
    uneven = made(jnp.array([3000.0, 390.0]))
    assert uneven.residual == 339
    assert uneven.result == RESULTS.accuracy_not_reached
    assert made(jnp.array([3000.0, 390.0]), failures=[(True, RESULTS.stalled)]).result == RESULTS.stalled


@pytest.mark.slow
def test_reverse():
    metric = SteinMetric(lambda x: -x)
    path = geodesic(metric, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.5]), ts=(0.0, 0.25, 1.0))
    back = path.reverse()
    np.testing.assert_allclose(back.ts, [0, 0.75, 1])
    np.testing.assert_array_equal(back.points, path.points[::-1])
    np.testing.assert_array_equal(back.velocities, -path.velocities[::-1])
    np.testing.assert_allclose(back.evaluate(0.75), path.evaluate(0.25), rtol=1e-14)
    assert back.length == path.length
    assert back.result == path.result
