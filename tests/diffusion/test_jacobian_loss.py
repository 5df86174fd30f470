"""The held-out loss of J v: its differences are the squared errors of J v, which exact scores tell independently."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.diffusion import evaluate_jacobian, evaluate_score
from scoregeo.scores import FunctionScore, GaussianMixtureScore, GaussianScore

# Of no sample: noise must not repeat what the points were made of.
KEY = jax.random.key(100)
MIXTURE = GaussianMixtureScore(
    jnp.array([0.5, 0.5]), jnp.array([[-1.0, 0.0], [1.0, 0.5]]), jnp.stack([0.1 * jnp.eye(2), 0.05 * jnp.eye(2)])
)


class Wrong(eqx.Module):
    """The exact score plus ``(size / sigma) sin(frequency Q x / sigma)``: nearly the same score, another Jacobian."""

    exact: eqx.Module
    size: float = 0.0
    frequency: float = 1.0
    turn: float = 0.0

    def score_at(self, sigma):
        exact, q = self.exact.noised(1.0, sigma), jnp.array([[1.0, self.turn], [-self.turn, 1.0]])
        wave = lambda x: self.size / sigma * jnp.sin(self.frequency * (q @ x) / sigma)  # noqa: E731
        return FunctionScore(lambda x: exact(x) + wave(x))


class Scaled(eqx.Module):
    """``factor`` times the exact score."""

    exact: eqx.Module
    factor: float = 1.0

    def score_at(self, sigma):
        exact = self.exact.noised(1.0, sigma)
        return FunctionScore(lambda x: self.factor * exact(x))


def squared_errors(model, exact, sigma, points, key, draws=8):
    """What the loss gains: E|sigma^2 (J' - J)|_F^2 / d, and what the error of the score adds, E[-2 b sigma^2 J' b] / d;
    from the exact score, at other draws."""
    score, known = model.score_at(sigma), exact.noised(1.0, sigma)
    points = jnp.tile(points, (draws, 1))
    noisy = points + sigma * jax.random.normal(key, points.shape, points.dtype)

    def one(x):
        jacobian, right, b = jax.jacfwd(score)(x), jax.jacfwd(known)(x), sigma * (score(x) - known(x))
        return jnp.stack([jnp.sum((jacobian - right) ** 2) * sigma**4, -2 * sigma**2 * b @ jacobian @ b]) / x.size

    return jnp.mean(jax.vmap(one)(noisy), 0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_figures_of_a_gaussian(dtype):
    """``sigma^2 J`` has the eigenvalues ``-sigma^2 / (l + sigma^2)``, so the loss is known, also of a factor."""
    variances, sigmas = jnp.array([4.0, 1.0, 0.01], dtype), np.array([0.1, 0.5])
    exact = GaussianScore(jnp.zeros(3, dtype), jnp.diag(variances))
    points = exact.sample(jax.random.key(3), 10_000).astype(dtype)
    report = evaluate_jacobian(Scaled(exact), points, sigmas, key=KEY)
    eigenvalues = sigmas[:, None] ** 2 / (np.asarray(variances) + sigmas[:, None] ** 2)
    known = 1 - (eigenvalues**2).mean(1)
    assert (np.abs(report.loss - known) < 4 * report.loss_error).all()
    assert (report.loss_error < 0.02).all()
    assert (report.loss < report.trivial_loss).all()
    # With ``a`` times the score, E[r r^T] is (1 - a l)^2 of the data and 1 - a (1 - l) of the noise, both squared.
    a, parts = 1.3, eigenvalues
    residual = (a * parts) ** 2 / parts * (1 - parts) + (1 - a * parts) ** 2
    known = ((1 - a * parts) ** 2 + 2 * a * parts * residual).mean(1)
    scaled = evaluate_jacobian(Scaled(exact, a), points, sigmas, key=KEY)
    assert (np.abs(scaled.loss - known) < 4 * scaled.loss_error).all()


@pytest.mark.slow
def test_the_trivial_loss_is_that_of_the_gaussian():
    points = MIXTURE.sample(jax.random.key(1), 2000)
    trivial = GaussianScore(jnp.mean(points, 0), jnp.mean(jnp.var(points, 0)) * jnp.eye(2))
    report = evaluate_jacobian(Scaled(trivial), points, (0.2, 1.0), key=KEY)
    np.testing.assert_allclose(report.trivial_loss, report.loss, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "sigma"), [(0, 0.1), (1, 0.3), (2, 1.0)])
def test_differences_are_squared_errors(seed, sigma):
    """Of a wrong Jacobian, with and without curl: against the exact score, at other draws of the noise."""
    points = MIXTURE.sample(jax.random.key(seed), 4000)
    wrong = Wrong(MIXTURE, size=0.05, frequency=4.0, turn=float(seed))
    losses = [evaluate_jacobian(model, points, [sigma], key=KEY, draws=8) for model in (wrong, Wrong(MIXTURE))]
    gained = losses[0].loss[0] - losses[1].loss[0]
    error, bias = squared_errors(wrong, MIXTURE, sigma, points, jax.random.key(seed + 10))
    assert abs(bias) < 0.1 * error
    np.testing.assert_allclose(gained, error + bias, rtol=0.1)


@pytest.mark.slow
def test_learned_scores_gain_what_the_exact_score_says(trained, modes):
    """`evaluate_score` has the error relative to E|J v|^2 of the exact score; the loss has it without one."""
    exact = modes[1]
    points = exact.sample(jax.random.key(50), 4000).astype("float32")
    sigmas = np.array([0.2, 0.5])
    report = evaluate_jacobian(trained, points, sigmas, key=KEY, draws=8)
    best = evaluate_jacobian(Wrong(exact), points, sigmas, key=KEY, draws=8)
    relative = evaluate_score(trained, exact, sigmas, key=jax.random.key(1), n=4000).jvp_error
    for k, sigma in enumerate(sigmas):
        noisy = points + sigma * jax.random.normal(jax.random.key(2), points.shape, points.dtype)
        size = jnp.mean(jnp.sum(jax.vmap(jax.jacfwd(exact.noised(1.0, sigma)))(noisy) ** 2, (1, 2)))
        expected = relative[k] ** 2 * float(size) * sigma**4 / 2
        gained = report.loss[k] - best.loss[k]
        error = 3 * report.loss_error[k] * np.sqrt(expected)  # of the difference: the noise is the same
        assert abs(gained - expected) < 0.3 * expected + error, (gained, expected)


def test_report_and_refusals():
    points = MIXTURE.sample(jax.random.key(0), 50)
    report = evaluate_jacobian(Wrong(MIXTURE), points, (0.2,), key=KEY, draws=1)
    assert "loss of J v" in str(report)
    assert "0.2" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["n"] == 50
    with pytest.raises(ValueError, match="`points` must be at least two"):
        evaluate_jacobian(Wrong(MIXTURE), points[:1], key=KEY)
    with pytest.raises(ValueError, match="`sigmas` must be a sequence of positive"):
        evaluate_jacobian(Wrong(MIXTURE), points, (0.0,), key=KEY)
    with pytest.raises(ValueError, match="`draws` must be an integer"):
        evaluate_jacobian(Wrong(MIXTURE), points, key=KEY, draws=0)
