"""Evaluation: known errors come out as they are."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.diffusion import evaluate_score
from scoregeo.scores import FunctionScore, GaussianScore

GAUSSIAN = GaussianScore(jnp.array([0.5, -1.0]), jnp.array([[1.0, 0.3], [0.3, 0.5]]))


class Known(eqx.Module):
    """A score with a known error: ``factor`` times the exact one plus ``turn`` times x turned by a right angle."""

    dim = 2
    exact: eqx.Module
    factor: float = 1.0
    turn: float = 0.0

    def score_at(self, sigma):
        exact = self.exact.noised(1.0, sigma)
        turn = self.turn * jnp.array([[0.0, -1.0], [1.0, 0.0]])
        return FunctionScore(lambda x: self.factor * exact(x) + turn.astype(x.dtype) @ x)


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["mixture", "gaussian"])
def test_the_reference_itself_has_no_error(reference, modes):
    exact = modes[1] if reference == "mixture" else GAUSSIAN
    report = evaluate_score(Known(exact), exact, key=jax.random.key(0), n=100)
    np.testing.assert_array_equal(report.sigmas, [0.1, 0.2, 0.5])
    for values in (report.score_error, report.jvp_error, report.asymmetry):
        np.testing.assert_allclose(values, 0, atol=1e-12)


def test_a_factor_is_its_own_error():
    report = evaluate_score(Known(GAUSSIAN, factor=1.1), GAUSSIAN, (0.05, 3.0), key=jax.random.key(0), n=50)
    np.testing.assert_allclose(report.score_error, 0.1, rtol=1e-10)
    np.testing.assert_allclose(report.jvp_error, 0.1, rtol=1e-10)
    np.testing.assert_allclose(report.asymmetry, 0, atol=1e-12)


def test_a_rotation_shows_in_the_asymmetry():
    """J = -I/S^2 + a R with R a quarter turn: errors and asymmetry in closed form, independent of v."""
    exact, sigma, turn = GaussianScore(jnp.zeros(2), jnp.eye(2)), 0.5, 0.2
    total = 1 + sigma**2
    report = evaluate_score(Known(exact, turn=turn), exact, [sigma], key=jax.random.key(0), n=50)
    np.testing.assert_allclose(report.score_error, turn * total, rtol=1e-10)
    np.testing.assert_allclose(report.jvp_error, turn * total, rtol=1e-10)
    np.testing.assert_allclose(report.asymmetry, 2 * turn / np.sqrt(1 / total**2 + turn**2), rtol=1e-10)


def test_points_follow_the_noised_law():
    """A constant error e has relative size |e| / sqrt(E|s|^2) with E|s|^2 = trace of the inverse noised covariance."""

    class Shifted(eqx.Module):
        def score_at(self, sigma):
            exact = GAUSSIAN.noised(1.0, sigma)
            return FunctionScore(lambda x: exact(x) + 0.1)

    report = evaluate_score(Shifted(), GAUSSIAN, [0.7], key=jax.random.key(0), n=40_000)
    expected = np.sqrt(0.02 / np.trace(np.linalg.inv([[1.49, 0.3], [0.3, 0.99]])))
    np.testing.assert_allclose(report.score_error, expected, rtol=0.02)


def test_one_trace_for_all_levels():
    traces = []

    class Counted(eqx.Module):
        def score_at(self, sigma):
            return FunctionScore(counted, sigma)

    def counted(x, sigma):
        traces.append(1)
        return -x / (1 + sigma**2)

    report = evaluate_score(Counted(), GaussianScore(jnp.zeros(2), jnp.eye(2)), key=jax.random.key(0), n=10)
    np.testing.assert_allclose(report.score_error, 0, atol=1e-12)
    evaluated_once = len(traces)
    evaluate_score(Counted(), GaussianScore(jnp.zeros(2), jnp.eye(2)), (0.3, 0.4), key=jax.random.key(1), n=10)
    assert len(traces) == evaluated_once


def test_the_report_can_be_kept_and_shown():
    report = evaluate_score(Known(GAUSSIAN, factor=1.1), GAUSSIAN, (0.25,), key=jax.random.key(0), n=50)
    kept = json.loads(json.dumps(report.to_dict()))
    assert kept["sigmas"] == [0.25]
    assert kept["n"] == 50
    assert kept["score_error"] == pytest.approx([0.1])
    title, heading, *rows = str(report).splitlines()
    assert title.strip() == report.table().title
    assert heading.split() == ["sigma", "score", "J", "v", "asymmetry", "of", "J"]
    assert rows[0].split() == ["0.25", "0.1000", "0.1000", "0.0000"]

    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(report)
    assert "0.1000" in capture.get()
    assert "50 points" in capture.get()


def test_bad_arguments_are_named():
    for sigmas in ([0.1, 0.0], [-1.0], [], [[0.1]], [float("nan")]):
        with pytest.raises(ValueError, match="`sigmas` must be a sequence of positive noise levels, got"):
            evaluate_score(Known(GAUSSIAN), GAUSSIAN, sigmas, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`n` must be an integer of at least 1, got 0"):
        evaluate_score(Known(GAUSSIAN), GAUSSIAN, key=jax.random.key(0), n=0)
    three = GaussianScore(jnp.zeros(3), jnp.eye(3))
    with pytest.raises(
        ValueError, match=r"`reference` must give points of shape \(5, 2\) to match `model`, got \(5, 3\)"
    ):
        evaluate_score(Known(GAUSSIAN), three, key=jax.random.key(0), n=5)
