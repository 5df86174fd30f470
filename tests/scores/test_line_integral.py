"""Log densities by line integrals of a score: closed forms, what curl does to them, and which scores need them."""

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CURL, MODES

from scoregeo import FunctionScore, GaussianScore, KernelDensityScore, NetworkScore
from scoregeo.scores import LineIntegralScore, with_log_prob


def linear(x, a):
    return a @ x


def line_integral_of_linear(x, base, a):
    """Of s(x) = A x: the quadratic form of the symmetric part, and x^T (A - A^T) base / 2 for the rest."""
    symmetric = (a + a.T) / 2
    return 0.5 * (x @ symmetric @ x - base @ symmetric @ base) + 0.5 * x @ (a - a.T) @ base


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2, 7])
def test_linear_fields(d):
    rng = np.random.default_rng(d)
    a, x, base = rng.normal(size=(d, d)), rng.normal(size=d), rng.normal(size=d)
    score = LineIntegralScore(FunctionScore(linear, a), base, nodes=2)
    x = jnp.asarray(x)
    assert float(score.log_prob(x)) == pytest.approx(float(line_integral_of_linear(x, base, a)), rel=1e-12)
    expected = jax.grad(line_integral_of_linear)(x, base, a)
    np.testing.assert_allclose(score(x), expected, rtol=1e-11)
    assert score.conservative


@pytest.mark.slow
def test_a_gradient_field_is_itself_from_any_base():
    kernel = KernelDensityScore(MODES, 0.5)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
    score = LineIntegralScore(FunctionScore(kernel), MODES[0], nodes=48)

    @jax.jit
    @jax.vmap
    def from_base(base):
        moved = LineIntegralScore(FunctionScore(kernel), base, nodes=48)
        return jax.vmap(lambda x: (moved(x), moved.log_prob(x)))(xs)

    scores, values = from_base(jnp.asarray(MODES))
    expected = jax.vmap(lambda x: (kernel(x), kernel.log_prob(x)))
    np.testing.assert_allclose(scores, jnp.stack([expected(xs)[0]] * 3), atol=1e-9)
    np.testing.assert_allclose(values, expected(xs)[1] - expected(MODES)[1][:, None], atol=1e-10)
    assert float(score.spread(xs, MODES).max()) < 1e-9


def test_spread_is_what_depends_on_the_base_point():
    rng = np.random.default_rng(1)
    xs, bases = rng.normal(size=(5, 2)), rng.normal(size=(4, 2))
    score = LineIntegralScore(FunctionScore(linear, CURL), bases[0], nodes=2)
    values = np.array([[line_integral_of_linear(x, base, CURL) for x in xs] for base in bases])
    expected = (values - values.mean(1, keepdims=True)).std(0)
    np.testing.assert_allclose(score.spread(xs, bases), expected, rtol=1e-10)
    assert expected.max() > 0.1


class WithDensity(nnx.Module):
    def score(self, x, noise_level):
        return -x / noise_level**2

    def log_prob(self, x, noise_level):
        return -0.5 * x @ x / noise_level**2


class Without(nnx.Module):
    def score(self, x, noise_level):
        return -x / noise_level**2

    def log_prob(self, x, noise_level):
        raise TypeError("`log_prob` needs a network that is a gradient")


def test_which_scores_know_their_density():
    data = jnp.asarray(MODES)
    for known in (GaussianScore(jnp.zeros(2), jnp.eye(2)), NetworkScore(WithDensity(), 0.5)):
        assert with_log_prob(known, data) is known
    for unknown in (FunctionScore(jnp.tanh), NetworkScore(Without(), 0.5)):
        score = with_log_prob(unknown, data, nodes=4)
        assert isinstance(score, LineIntegralScore)
        # The point of the data that is nearest to their mean, (0, 0.5).
        np.testing.assert_array_equal(score.base, MODES[2])
    assert float(score.log_prob(jnp.array([1.0, 0.0]))) == pytest.approx(-2 * (1 - 1.5**2), rel=1e-12)


def test_bad_input():
    score = LineIntegralScore(FunctionScore(jnp.tanh), np.zeros(2))
    for call, message in (
        (lambda: LineIntegralScore(jnp.tanh, np.zeros((1, 2))), r"`base` must have shape \(d,\)"),
        (lambda: LineIntegralScore(jnp.tanh, np.zeros(2), nodes=0), "`nodes` must be an integer of at least 1"),
        (lambda: score.log_prob(jnp.zeros(3)), r"`x` must have shape \(2,\) to match `base`"),
        (lambda: score.spread(np.ones((1, 2)), np.ones((3, 2))), "`xs` must be at least two points"),
        (lambda: score.spread(np.ones((3, 2)), np.ones((1, 2))), "`bases` must be at least two points"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
