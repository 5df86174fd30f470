import io

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo.metrics import EuclideanMetric, MatrixMetric, SteinMetric
from scoregeo.plotting import density, score_field, tissot
from scoregeo.scores import GaussianScore

LIMITS = (-2.0, 2.0), (-1.0, 1.0)
SCORE = GaussianScore(jnp.zeros(2), jnp.array([[1.0, 0.4], [0.4, 0.5]]))


@pytest.fixture
def ax():
    return Figure().subplots()


def draw(ax):
    ax.figure.savefig(io.BytesIO(), format="png")


def test_density_does_not_depend_on_the_constant(ax):
    square = ((-1.0, 1.0), (-1.0, 1.0))
    low = density(ax, lambda x: SCORE.log_prob(x) - 1e4, *square, resolution=21)
    high = density(ax, lambda x: SCORE.log_prob(x) + 1e4, *square, resolution=21)
    assert low.zmax == high.zmax == 1
    np.testing.assert_allclose(low.zmin, high.zmin, rtol=1e-9)
    # The centre is the likeliest point, the corner (-1, 1) the least likely.
    drop = SCORE.log_prob(jnp.array([-1.0, 1.0])) - SCORE.log_prob(jnp.zeros(2))
    np.testing.assert_allclose(low.zmin, np.exp(drop), rtol=1e-9)
    draw(ax)


def test_density_is_not_transposed(ax):
    contours = density(ax, lambda x: -50 * jnp.sum((x - jnp.array([1.5, -0.5])) ** 2), *LIMITS)
    innermost = contours.get_paths()[-1].vertices
    np.testing.assert_allclose(innermost.mean(0), [1.5, -0.5], atol=0.05)


def test_density_may_vanish_on_a_part(ax):
    assert density(ax, lambda x: jnp.where(x[0] > 0, 0.0, -jnp.inf), *LIMITS).zmin == 0


def test_frame(ax):
    ax.set_xlabel("height / m")
    density(ax, SCORE.log_prob, *LIMITS, resolution=11)
    assert ax.get_xlim() == LIMITS[0]
    assert ax.get_ylim() == LIMITS[1]
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("height / m", "$x_2$")


def test_tissot_are_the_balls_of_the_metric(ax):
    metric, radius = SteinMetric(SCORE, 2.0), 0.3
    ellipses = tissot(ax, metric, *LIMITS, n=4, radius=radius)
    centres = ellipses.get_offsets()
    assert len(centres) == 8
    np.testing.assert_allclose(centres[:2], [[-1.5, -0.5], [-0.5, -0.5]])
    angles = np.radians(ellipses.get_angles())
    for x, width, height, angle in zip(centres, ellipses.get_widths(), ellipses.get_heights(), angles, strict=True):
        matrix = metric.at(jnp.asarray(x)).matrix(2)
        # Points of the outline, as matplotlib turns them: all have length `radius`.
        t = np.linspace(0, 2 * np.pi, 9)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        v = turn @ np.stack([width / 2 * np.cos(t), height / 2 * np.sin(t)])
        np.testing.assert_allclose(np.einsum("it,ij,jt->t", v, matrix, v), radius**2, rtol=1e-6)
        # Along the score, where moving is expensive, the ellipse is short.
        score = np.asarray(SCORE(jnp.asarray(x)))
        along = np.array([np.cos(angle), np.sin(angle)])
        assert width >= height
        np.testing.assert_allclose(along @ score / np.linalg.norm(score), 0, atol=1e-6)
        np.testing.assert_allclose(height, 2 * radius / np.sqrt(1 + 2 * score @ score), rtol=1e-6)
    draw(ax)


def test_tissot_fits_its_cells(ax):
    ellipses = tissot(ax, MatrixMetric(lambda x: jnp.diag(jnp.array([4.0, 9.0]))), *LIMITS, n=4)
    np.testing.assert_allclose(ellipses.get_widths(), 0.92)
    np.testing.assert_allclose(ellipses.get_heights(), 0.92 * 2 / 3)


def test_score_field_points_along_the_score(ax):
    arrows = score_field(ax, SCORE, *LIMITS, n=5)
    expected = np.stack([SCORE(jnp.asarray(x)) for x in arrows.XY])
    sizes = np.linalg.norm(expected, axis=-1)
    np.testing.assert_allclose(arrows.get_array(), sizes, rtol=1e-6)
    directions = np.stack([arrows.U, arrows.V], -1)
    np.testing.assert_allclose(directions / 0.64, expected / np.where(sizes > 0, sizes, 1)[:, None], atol=1e-6)
    draw(ax)


def test_score_field_of_zero_is_drawn(ax):
    assert not np.any(score_field(ax, lambda x: 0 * x, *LIMITS, n=3).U)
    draw(ax)


@pytest.mark.parametrize("function", [density, score_field, tissot])
@pytest.mark.parametrize(
    ("xlim", "ylim", "message"),
    [
        ((1.0, 0.0), (0.0, 1.0), r"`xlim` must be a pair \(low, high\)"),
        ((0.0, 1.0), (0.0, np.inf), r"`ylim` must be a pair \(low, high\)"),
        ((0.0, 1.0), (0.0, 1.0, 2.0), r"`ylim` must be a pair \(low, high\)"),
    ],
)
def test_limits_are_checked(ax, function, xlim, ylim, message):
    with pytest.raises(ValueError, match=message):
        function(ax, SCORE, xlim, ylim)


@pytest.mark.parametrize("function", [density, score_field, tissot])
def test_axes_come_first(function):
    with pytest.raises(TypeError, match="`ax` must be a matplotlib Axes, got Figure"):
        function(Figure(), SCORE, *LIMITS)


SPACE = GaussianScore(jnp.zeros(3), jnp.eye(3))


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (lambda ax: density(ax, SPACE.log_prob, *LIMITS), r"`log_prob` must accept points of shape \(2,\)"),
        (lambda ax: density(ax, SCORE, *LIMITS), r"`log_prob` must have values of shape \(\) .*, got \(2,\)"),
        (lambda ax: density(ax, lambda x: x[0] * jnp.nan, *LIMITS), "`log_prob` must be a number .*, got NaN"),
        (lambda ax: density(ax, lambda x: x[0] * 0 - jnp.inf, *LIMITS), "got a largest value of -inf"),
        (
            lambda ax: density(ax, SCORE.log_prob, *LIMITS, resolution=1),
            "`resolution` must be an integer of at least 2",
        ),
        (lambda ax: score_field(ax, SPACE, *LIMITS), r"`score` must accept points of shape \(2,\)"),
        (lambda ax: score_field(ax, SCORE.log_prob, *LIMITS), r"`score` must have values of shape \(2,\) .*, got \(\)"),
        (
            lambda ax: score_field(ax, lambda x: jnp.where(x < 1.5, x, jnp.nan), *LIMITS, n=4),
            r"`score` must be finite, but is not at 2 of 8 points \(first at \(1.5, -0.5\)\)",
        ),
        (lambda ax: score_field(ax, SCORE, *LIMITS, n=0), "`n` must be an integer of at least 1, got 0"),
        (lambda ax: tissot(ax, SteinMetric(SPACE), *LIMITS), r"`metric` must accept points of shape \(2,\)"),
        (
            lambda ax: tissot(ax, MatrixMetric(lambda x: jnp.diag(x)), *LIMITS, n=2),
            "`metric` must be positive definite, but is not at",
        ),
        (lambda ax: tissot(ax, MatrixMetric(lambda x: jnp.eye(2) * jnp.inf), *LIMITS), "`metric` must be finite"),
        (lambda ax: tissot(ax, EuclideanMetric(), *LIMITS, radius=-1.0), "`radius` must be a positive number, got -1"),
    ],
)
def test_functions_refuse(ax, draws, message):
    with pytest.raises(ValueError, match=message):
        draws(ax)
