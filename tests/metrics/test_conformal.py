"""Conformal metrics against closed forms, the Christoffel symbols of the same matrix, and the definition of `ratio`."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from helpers import MODES, poincare_ball

from scoregeo import (
    RESULTS,
    AbstractMetric,
    ConformalMetric,
    DensityScore,
    FunctionScore,
    KernelDensityScore,
    SpectralNewton,
    SteinMetric,
    datasets,
    dist,
    geodesic,
    recommend_strength,
)
from scoregeo.metrics import (
    ConformalInnerProduct,
    DiagonalInnerProduct,
    IdentityPlusRankOne,
    PowerFactor,
    add,
    contrast,
    relaxed,
    scale,
    strength_rule,
)
from scoregeo.scores import LineIntegralScore

MOONS = datasets.two_moons(jax.random.key(0), 200)


# --- Accelerations: fields and factors by hand ------------------------------------------------------------------------


def curl(x, w):
    """Not a gradient field, for d > 1."""
    return jnp.tanh(w @ x) - x


def curl_params(d):
    return np.random.default_rng(d).normal(size=(d, d)) / np.sqrt(d)


def kernels(x, centers):
    return jax.nn.logsumexp(-0.5 * jnp.sum((x - centers) ** 2, -1) / 0.8**2)


def data(d, n=40):
    return np.random.default_rng(10 * d).normal(size=(n, d))


def line_integral(x, base, w):
    t, weights = np.polynomial.legendre.leggauss(32)
    path = base + (t[:, None] + 1) / 2 * (x - base)
    return 0.5 * weights @ (jax.vmap(lambda z: curl(z, w))(path) @ (x - base))


def metric_and_factor(kind, d):
    """A metric, and the factor of squared lengths by hand, from what the calibration found."""
    points, w = data(d), curl_params(d)
    density, field = DensityScore(kernels, points[:5]), FunctionScore(curl, w)
    if kind == "power":
        metric = ConformalMetric.power(density, points, 50.0)
        phi = metric.log_factor
        return metric, lambda x: jnp.exp(2 * phi.exponent * (-kernels(x, points[:5]) - phi.energy))
    if kind == "power, curl":
        metric = ConformalMetric.power(field, points, 50.0)
        phi = metric.log_factor
        return metric, lambda x: jnp.exp(2 * phi.exponent * (-line_integral(x, phi.score.base, w) - phi.energy))
    if kind == "energy":
        metric = ConformalMetric.energy(density, points, 1.5)
        phi = metric.log_factor
        excess = lambda x: jnp.logaddexp(0, (-kernels(x, points[:5]) - phi.onset) / phi.width)  # noqa: E731
        return metric, lambda x: 1 + phi.weight * excess(x)
    if kind == "score norm":
        metric = ConformalMetric.score_norm(field, points, 1.2)
        return metric, lambda x: 1 + metric.log_factor.weight * jnp.sum(curl(x, w) ** 2)
    metric = ConformalMetric(lambda x, a: a * jnp.sum(jnp.sin(x)), 0.7)
    return metric, lambda x: jnp.exp(1.4 * jnp.sum(jnp.sin(x)))


def acceleration_by_hand(factor, x, v):
    """-Gamma(v, v) from the derivatives of the matrix; Gamma^k_ij = G^kl (d_i G_lj + d_j G_li - d_l G_ij) / 2."""
    matrix = lambda z: factor(z) * jnp.eye(z.size)  # noqa: E731
    derivative = jax.jacfwd(matrix)(x)  # [i, j, l] = d_l G_ij
    lower = jnp.einsum("ijl,l,j->i", derivative, v, v) - 0.5 * jnp.einsum("ijl,i,j->l", derivative, v, v)
    return -jnp.linalg.solve(matrix(x), lower)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`ratio`")
@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("kind", ["power", "power, curl", "energy", "score norm", "function"])
def test_factor_and_acceleration(kind, d):
    metric, factor = metric_and_factor(kind, d)
    rng = np.random.default_rng(d)
    xs, vs = jnp.asarray(1.5 * rng.normal(size=(4, d))), jnp.asarray(rng.normal(size=(4, d)))
    at = jax.jit(jax.vmap(lambda x, v: (metric.at(x).squared_norm(v), metric.acceleration(x, v))))
    by_hand = jax.jit(jax.vmap(lambda x, v: (factor(x) * v @ v, acceleration_by_hand(factor, x, v))))
    for got, expected in zip(at(xs, vs), by_hand(xs, vs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3


def test_the_gradient_of_a_line_integral_is_not_the_score_where_that_has_curl():
    w = curl_params(2)
    score = LineIntegralScore(FunctionScore(curl, w), np.array([0.3, -0.2]))
    x = jnp.array([0.9, 0.8])
    assert np.linalg.norm(score(x) - curl(x, w)) > 0.05


# --- Closed forms: one factor for all of them, so that the solver is compiled once for each dimension -----------------


def family(x, gaussian, cone, ball, bump):
    """phi of powers of the Gaussian, of a power law and of the Epanechnikov density, and a hill at the origin."""
    r2 = x @ x
    inside = jnp.log(jnp.maximum(1 - r2, 1e-30) / 2)
    outside_zero = jnp.log(jnp.maximum(r2, 1e-30))
    return gaussian * r2 + cone * outside_zero - ball * inside + bump * jnp.exp(-4 * r2)


def member(gaussian=0.0, cone=0.0, ball=0.0, bump=0.0):
    return ConformalMetric(family, gaussian, cone, ball, bump, domain=None)


@jax.jit
def solve(metric, x, y):
    solver = SpectralNewton(rtol=1e-10, path_rtol=1e-6, max_elements=4)
    return geodesic(metric, x, y, solver=solver, ts=jnp.linspace(0, 1, 65), throw=False)


def plane(d, seed):
    """Two orthonormal vectors of R^d."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, 2)))[0].T


def length(metric, x, y):
    result = solve(metric, jnp.asarray(x), jnp.asarray(y))
    assert result.result == RESULTS.successful
    return float(result.length)


def clairaut(a, nearest, r):
    """Angle and length of the geodesic of ``exp(2 a r^2) I`` whose ends are at radius r, and that comes as near to the
    origin as ``nearest``: r exp(a r^2) sin(angle to the radius) is constant."""
    constant = nearest * np.exp(a * nearest**2)

    def twice(f):
        # Radius nearest + u^2: the integrand has a root singularity.
        root = np.sqrt(r - nearest)
        return 2 * scipy.integrate.quad(lambda u: 2 * u * f(nearest + u**2), 1e-9, root, epsabs=1e-13, epsrel=1e-13)[0]

    def slope(q):
        return np.sqrt((q * np.exp(a * q**2)) ** 2 - constant**2)

    return twice(lambda q: constant / (q * slope(q))), twice(lambda q: np.exp(2 * a * q**2) * q / slope(q))


DIMENSIONS = [5, pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize(("b", "sd", "r"), [(0.5, 1.0, 1.5), (1.0, 0.6, 1.1)])
def test_power_of_a_gaussian(b, sd, r, d):
    """p^(-2b) I, up to a constant: radially the integral of exp(a r^2), a = b / (2 sd^2); otherwise by Clairaut."""
    a = b / (2 * sd**2)
    metric, (u, w) = member(gaussian=a), plane(d, 0)
    radial = np.sqrt(np.pi / a) / 2 * scipy.special.erfi(np.sqrt(a) * r)
    assert length(metric, 0 * u, r * u) == pytest.approx(radial, rel=1e-8)
    angle, expected = clairaut(a, 0.4 * r, r)
    assert length(metric, r * u, r * (np.cos(angle) * u + np.sin(angle) * w)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("d", DIMENSIONS)
def test_epanechnikov_is_the_poincare_ball(d):
    """p = (1 - |x|^2) / 2, p^-2 I."""
    x, y = np.random.default_rng(d).normal(size=(2, d))
    x, y = 0.5 * x / np.linalg.norm(x), 0.7 * y / np.linalg.norm(y)
    assert length(member(ball=1.0), x, y) == pytest.approx(poincare_ball(x, y), rel=1e-8)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("a", [0.5, 2.0])
def test_power_law_is_a_flat_cone(a, d):
    """p = r^-a, p^-2 I: in polar coordinates (r^(a+1) / (a+1), (a+1) theta) the metric is flat."""
    u, w = plane(d, 1)
    angle = 0.6 / (a + 1)
    p, q = (r ** (a + 1) / (a + 1) for r in (0.8, 1.3))
    expected = np.sqrt(p**2 + q**2 - 2 * p * q * np.cos(0.6))
    got = length(member(cone=a / 2), 0.8 * u, 1.3 * (np.cos(angle) * u + np.sin(angle) * w))
    assert got == pytest.approx(expected, rel=1e-8)


def test_the_classmethods_make_these_factors():
    """A power of a density, through its score."""
    x = jnp.array([0.3, -0.5])
    for density, exponent, expected in (
        (DensityScore(lambda x: jnp.log((1 - x @ x) / 2)), 1.0, member(ball=1.0)),
        (DensityScore(lambda x: -0.5 * jnp.log(x @ x)), 3.0, member(cone=1.5)),
        (DensityScore(lambda x: -0.5 * x @ x), 2.0, member(gaussian=1.0)),
    ):
        metric = power(density, exponent)
        assert float(metric.phi(x)) == pytest.approx(float(expected.phi(x)), rel=1e-13)


def power(density, exponent):
    return ConformalMetric(PowerFactor(jnp.asarray(1.0), density, jnp.asarray(exponent), jnp.asarray(0.0)))


def test_continuation_in_the_exponent():
    """A hill of ``exp(100)`` on the straight line: small powers of it lead round, small multiples of it do not."""
    u, w = plane(5, 2)
    found = solve(member(bump=50.0), jnp.asarray(u), jnp.asarray(-u + 0.05 * w))
    assert found.result == RESULTS.successful
    assert float(jnp.linalg.norm(found.points, axis=1).min()) > 0.9
    # In the plane the same path, and the same length.
    assert float(found.length) == pytest.approx(4.62875, abs=1e-4)


class Hill(AbstractMetric):
    """The same metric, of a type that relaxes in its entries."""

    height: jax.Array

    def at(self, x):
        return DiagonalInnerProduct(jnp.exp(2 * self.height * jnp.exp(-4 * x @ x)) * jnp.ones_like(x))


@pytest.mark.slow
def test_continuation_in_the_entries_does_not_lead_round_a_hill():
    x, y = jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.05])
    assert solve(member(bump=50.0), x, y).result == RESULTS.successful
    assert solve(Hill(jnp.asarray(50.0)), x, y).result != RESULTS.successful


def test_lengths_that_overflow_are_no_success():
    u, w = plane(5, 3)
    x, y = jnp.asarray(30 * u), jnp.asarray(30 * w)
    assert solve(member(gaussian=1.0), x, y).result == RESULTS.metric_nonfinite
    # A metric that rounds to zero is none.
    assert solve(member(gaussian=-1.0), x, y).result == RESULTS.metric_nonfinite


@pytest.mark.slow
def test_lengths_that_overflow_in_float32_are_no_success():
    result = solve(member(gaussian=1.0), jnp.float32([-9.0, 0.5]), jnp.float32([9.0, 0.7]))
    assert result.result == RESULTS.metric_nonfinite
    assert result.points.dtype == jnp.float32


@pytest.mark.slow
def test_outside_the_domain():
    metric = ConformalMetric(lambda x: -jnp.log((1 - x @ x) / 2), domain=lambda x: 1 - x @ x)
    result = solve(metric, jnp.array([0.1, 0.2]), jnp.array([1.0, 0.8]))
    assert result.result == RESULTS.outside_domain


@pytest.mark.slow
def test_log_p_infinite_on_the_way_is_a_status():
    """Nothing between two half-planes: no path gets round the wall."""
    density = DensityScore(lambda x: jnp.where(jnp.abs(x[0]) > 0.5, -0.5 * x @ x, -jnp.inf))
    result = solve(power(density, 0.5), jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.1]))
    assert result.result == RESULTS.metric_nonfinite


# --- Inner products in logarithms -------------------------------------------------------------------------------------


def test_determinants_and_roots_do_not_overflow():
    """exp(2 phi) is beyond float32."""
    product = ConformalInnerProduct(jnp.float32(60.0), size=3)
    v = jnp.float32([1.0, 2.0, 2.0])
    assert float(product.logdet()) == 360.0
    assert float(product.norm(v)) == pytest.approx(3 * np.exp(60.0), rel=1e-5)
    assert np.isfinite(product.inv_sqrt_mv(v)).all()
    assert float(add(product, product).log_factor) == pytest.approx(60 + np.log(2) / 2, rel=1e-6)
    assert float(scale(product, 0.25).log_factor) == pytest.approx(60 - np.log(2), rel=1e-6)


@pytest.mark.parametrize("fraction", [1e-3, 0.05, 1.0])
def test_relaxed(fraction):
    """Conformal metrics relax in the exponent, everything else towards the identity in the entries."""
    v = jnp.array([1.0, -2.0])
    exponent = 1 + np.log10(fraction) / 3
    got = relaxed(ConformalInnerProduct(jnp.asarray(2.0), size=2), fraction).squared_norm(v)
    assert float(got) == pytest.approx(5 * np.exp(4 * exponent), rel=1e-12)
    for product in (DiagonalInnerProduct(jnp.array([3.0, 5.0])), IdentityPlusRankOne(v, jnp.asarray(2.0))):
        expected = (1 - fraction) * np.eye(2) + fraction * np.asarray(product.matrix(2))
        np.testing.assert_allclose(relaxed(product, fraction).matrix(2), expected, rtol=1e-14)


# --- Calibration ------------------------------------------------------------------------------------------------------


def cost_ratio(metric, seed=3, pairs=3000):
    """What `ratio` means, from pairs and places of its own."""
    points = np.asarray(MOONS.points)
    rng = np.random.default_rng(seed)
    i, j = rng.integers(len(points), size=(2, pairs))
    places = points[i] + rng.uniform(size=(pairs, 1)) * (points[j] - points[i])

    @jax.jit
    @jax.vmap
    def eigenvalues(x):
        return jnp.linalg.eigvalsh(metric.at(x).matrix(2))

    on, off = np.asarray(eigenvalues(points)), np.asarray(eigenvalues(places))
    return np.percentile(off[:, -1], 90) / np.median(on[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [5.0, 50.0])
@pytest.mark.parametrize("kind", ["power", "energy", "score_norm", "stein"])
def test_ratio_is_what_leaving_the_data_costs(kind, ratio):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if kind == "stein":
            metric = SteinMetric(MOONS.score, recommend_strength(SteinMetric, MOONS.score, MOONS.points, ratio=ratio))
            reached = ratio
        else:
            metric = getattr(ConformalMetric, kind)(MOONS.score, MOONS.points, ratio)
            reached = float(metric.log_factor.ratio)
    assert bool(caught) == (reached < ratio)
    if caught:
        assert "is out of reach" in str(caught[0].message)
    # 64 pairs against 3,000: the exponent is known to some percent.
    assert np.log(cost_ratio(metric)) == pytest.approx(np.log(reached), rel=0.15)


def test_power_of_median_data_is_one():
    metric = ConformalMetric.power(MOONS.score, MOONS.points, 1e3)
    phis = jax.vmap(metric.phi)(MOONS.points)
    assert float(jnp.median(phis)) == pytest.approx(0, abs=1e-12)
    places = contrast(MOONS.points)
    off = jax.vmap(metric.phi)(places.off)
    assert float(jnp.percentile(off, 90)) == pytest.approx(np.log(1e3) / 2, rel=1e-12)
    strength = recommend_strength(ConformalMetric.power, MOONS.score, MOONS.points, ratio=1e3)
    assert float(strength) == float(metric.log_factor.exponent)


def test_ratio_one_is_euclid():
    metric = ConformalMetric.power(MOONS.score, MOONS.points, 1.0)
    assert float(metric.phi(jnp.array([5.0, 5.0]))) == 0.0


def test_own_rules():
    class Mine:
        pass

    strength_rule(Mine)(lambda score, places, ratio: score * (ratio - 1))
    assert float(recommend_strength(Mine, 2.0, data(2), ratio=11.0)) == 20.0


def test_scores_without_a_density_are_integrated():
    """Of a gradient field, from the score alone: the same metric but for a constant factor that is calibrated away."""
    exact = KernelDensityScore(jnp.asarray(MODES), 0.6)
    points = jnp.asarray(MODES) + 0.3 * jax.random.normal(jax.random.key(2), (50, 3, 2))
    points = points.reshape(-1, 2)
    known = ConformalMetric.power(exact, points, 100.0)
    integrated = ConformalMetric.power(FunctionScore(exact, conservative=True), points, 100.0)
    assert isinstance(integrated.log_factor.score, LineIntegralScore)
    a, b = (jax.jit(jax.vmap(metric.phi))(points) for metric in (known, integrated))
    np.testing.assert_allclose(a, b, atol=1e-8)


def test_new_values_do_not_compile_again():
    traces = []

    def field(x, w):
        traces.append(1)
        return jnp.tanh(w @ x) - x

    def factor(x, a):
        traces.append(1)
        return a * jnp.sum(x**2)

    @jax.jit
    def speed(metric):
        return metric.norm(jnp.ones(2), jnp.ones(2))

    for make in (
        lambda value: ConformalMetric.power(FunctionScore(field, value * np.eye(2)), MOONS.points, 100.0 * value),
        lambda value: ConformalMetric(factor, value),
    ):
        speed(make(1.0))
        before = len(traces)
        speed(make(2.0))
        assert len(traces) == before


@pytest.mark.slow
def test_strong_power_metrics_converge_and_keep_to_the_data():
    """Ratio 1e4 on two moons, 10 random pairs: all converge, and paths are nearer to the curves than straight lines."""
    moons = datasets.two_moons(jax.random.key(4), 400, 0.08)
    metric = ConformalMetric.power(KernelDensityScore(moons.points, 0.1), moons.points, 1e4)
    pairs = jax.random.choice(jax.random.key(5), moons.points, (2, 20), replace=False)[:, :10]

    @jax.jit
    @jax.vmap
    def solve_pair(x, y):
        return geodesic(metric, x, y, solver=SpectralNewton(rtol=1e-4, path_rtol=1e-3), throw=False)

    found = solve_pair(*pairs)
    assert bool((found.result == RESULTS.successful).all()), found.result
    angle = np.linspace(0, np.pi, 300)
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], -1)
    curves = np.concatenate([upper, -upper])

    def distance(paths):
        return np.linalg.norm(np.asarray(paths)[:, :, None] - curves, axis=-1).min(-1).mean(-1)

    straight = pairs[0][:, None] + found.ts[0][:, None] * (pairs[1] - pairs[0])[:, None]
    geodesics, lines = distance(found.points), distance(straight)
    assert geodesics.mean() < 0.6 * lines.mean()
    # Not only in the mean: where a line leaves the data by more than the noise, the geodesic is nearer.
    left = lines > 0.15
    assert left.sum() >= 3
    assert (geodesics[left] < lines[left]).all()


# --- Bad input --------------------------------------------------------------------------------------------------------

NAN = np.where(np.arange(10)[:, None] == 3, np.nan, np.ones((10, 2)))
BAD = {
    "ratio below one": (lambda: ConformalMetric.power(MOONS.score, MOONS.points, 0.5), "`ratio` must be at least 1"),
    "ratio NaN": (lambda: ConformalMetric.power(MOONS.score, MOONS.points, np.nan), "`ratio` must be finite"),
    "data NaN": (lambda: ConformalMetric.power(MOONS.score, NAN), "`data` must be finite"),
    "one point": (lambda: ConformalMetric.power(MOONS.score, np.ones((1, 2))), "`data` must have at least two points"),
    "log p infinite": (
        lambda: ConformalMetric.power(DensityScore(lambda x: jnp.where(x[0] > 9, 0.0, -jnp.inf)), MOONS.points),
        "E = -log p at the data must be finite, got inf",
    ),
    "score NaN": (
        lambda: ConformalMetric.score_norm(lambda x: x / 0, MOONS.points),
        r"\|s\|\^2 at the data must be finite, got inf",
    ),
    "no contrast": (
        lambda: ConformalMetric.power(DensityScore(lambda x: -0.5 * x @ x), data(400)),
        "E = -log p must be larger off the data than on the data",
    ),
    "not a scalar": (
        lambda: dist(ConformalMetric(lambda x: x), np.zeros(2), np.ones(2)),
        "`log_factor` must return a scalar",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_metric_type():
    with pytest.raises(TypeError, match=r"ConformalMetric.power.*SteinMetric.*, got int"):
        recommend_strength(int, MOONS.score, MOONS.points)
    with pytest.raises(TypeError, match="`log_factor` must be callable, got float"):
        ConformalMetric(1.0)


def test_traced_ratio_below_one_is_no_metric():
    value = jax.jit(lambda r: ConformalMetric.power(MOONS.score, MOONS.points, r).phi(jnp.ones(2)))(0.5)
    assert np.isnan(value)
