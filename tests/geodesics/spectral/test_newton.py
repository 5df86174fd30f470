"""The search: one evaluation a call, on energies whose minimum and Hessian are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, EuclideanMetric, MatrixMetric
from scoregeo.geodesics.spectral import newton
from scoregeo.geodesics.spectral.energy import PathEnergy
from scoregeo.geodesics.spectral.legendre import Basis, uniform_breaks
from scoregeo.geodesics.spectral.newton import Evaluation, conjugate_gradients, relative_path_error

X, Y = jnp.array([0.0, 0.0]), jnp.array([2.0, 1.0])
BASIS = Basis(uniform_breaks(1, jnp.float64), 6, 12)


def random_path(seed=0, scale=1.0):
    return BASIS.project(scale * jax.random.normal(jax.random.key(seed), (1, 6, 2)))


def settings(**changed):
    none = jnp.asarray(False)
    defaults = dict(tolerance=jnp.asarray(1e-10), max_steps=60, max_cg=100, stop=none, may_be_saddle=none)
    return defaults | changed


def search(problem, c, **changed):
    """Calls of `step` until the search is over; the state, the progress, and how many calls."""
    state = newton.init(c)
    for calls in range(1, 200):
        trial = state.accepted.c + (state.step_size * state.direction if state.steps > 0 else 0)
        at = newton.evaluate(problem, BASIS, trial)
        state, progress = newton.step(at, state, trial=trial, **settings(**changed))
        if progress.ended:
            return state, progress, calls
    raise AssertionError("the search did not end")


@pytest.mark.slow
def test_euclid_takes_one_step():
    """The energy is quadratic with the identity for a Hessian: from anywhere, one step and a look at its end."""
    state, progress, calls = search(PathEnergy(EuclideanMetric(), X, Y), random_path())
    assert state.status == RESULTS.successful
    assert calls == 2
    assert progress.finite
    assert float(state.accepted.energy) == pytest.approx(0.5 * 5.0, rel=1e-14)
    np.testing.assert_allclose(state.accepted.c, 0, atol=1e-12)


@pytest.mark.slow
def test_an_exact_start_needs_no_step_but_for_saddles():
    problem, line = PathEnergy(EuclideanMetric(), X, Y), jnp.zeros((1, 6, 2))
    assert search(problem, line)[2] == 1
    state = newton.init(line)
    at = newton.evaluate(problem, BASIS, line)
    unsure, progress = newton.step(at, state, trial=line, **settings(may_be_saddle=jnp.asarray(True)))
    assert unsure.status == newton.UNFINISHED
    assert not progress.ended


def test_stop_takes_no_step():
    problem, c = PathEnergy(EuclideanMetric(), X, Y), random_path()
    at = newton.evaluate(problem, BASIS, c)
    state, progress = newton.step(at, newton.init(c), trial=c, **settings(stop=jnp.asarray(True)))
    assert progress.ended
    assert not progress.moved
    assert int(progress.cg_steps) == 0
    np.testing.assert_array_equal(state.accepted.c, c)


def test_steps_run_out():
    metric = MatrixMetric(lambda x: (1 + 5 * jnp.sin(3 * x[0]) ** 2) * jnp.eye(2))
    state, _, _ = search(PathEnergy(metric, X, Y), random_path(scale=2.0), max_steps=2)
    assert state.status == newton.UNFINISHED
    assert int(state.steps) == 3  # the start counts as one


def test_a_metric_that_is_not_finite_is_said():
    metric = MatrixMetric(lambda x: jnp.where(x[0] > 1, jnp.nan, 1.0) * jnp.eye(2))
    state, progress, calls = search(PathEnergy(metric, X, Y), random_path())
    assert calls == 1
    assert state.status == RESULTS.metric_nonfinite
    assert not progress.finite


def test_steps_that_do_not_help_are_shortened_until_the_search_stalls():
    """An evaluation whose slope is a lie: the promised descent never comes."""
    c = random_path()
    liar = Evaluation(c, jnp.asarray(1.0), -c, c, jnp.asarray(1.0), lambda d: d, _Identity())
    state, progress = newton.step(liar, newton.init(c), trial=c, **settings())
    assert progress.moved
    parts = []
    while not progress.ended:
        parts.append(float(state.step_size))
        trial = state.accepted.c + state.step_size * state.direction
        worse = liar._replace(c=trial, energy=jnp.asarray(2.0))
        assert not newton.acceptable(state, worse.energy)
        state, progress = newton.step(worse, state, trial=trial, **settings())
    assert parts[0] == 1
    ratios = np.divide(parts[1:], parts[:-1])
    assert ((ratios >= 0.1) & (ratios <= 0.5)).all()
    assert state.status == RESULTS.stalled
    np.testing.assert_array_equal(state.accepted.c, c)  # what was accepted stays


class _Identity:
    def solve(self, r):
        return r


@pytest.mark.parametrize("seed", range(3))
def test_conjugate_gradients_solve_or_find_negative_curvature(seed):
    keys = jax.random.split(jax.random.key(seed), 2)
    a = jax.random.normal(keys[0], (12, 12))
    g = jax.random.normal(keys[1], (1, 6, 2))
    positive = a @ a.T + jnp.eye(12)

    weight = jnp.diag(10 ** jax.random.uniform(keys[0], (12,)))  # the preconditioner

    def run(matrix, **settings):
        def apply(matrix):
            return lambda p: (matrix @ p.reshape(-1)).reshape(p.shape)

        inverse = apply(jnp.linalg.inv(weight))
        z = inverse(-g)
        p, promise, steps = conjugate_gradients(apply(matrix), inverse, g, z, -jnp.sum(g * z), 1e-24, 100, **settings)
        # What is promised is what the model says.
        flat = p.reshape(-1)
        slope = g.reshape(-1) @ flat
        assert float(promise.slope) == pytest.approx(float(slope), rel=1e-9)
        assert float(promise.change) == pytest.approx(float(slope + flat @ matrix @ flat / 2), rel=1e-9)
        assert float(promise.length) == pytest.approx(float(jnp.sqrt(flat @ weight @ flat)), rel=1e-6)
        assert float(promise.of_part(jnp.asarray(0.3))) == pytest.approx(
            float(0.3 * slope + 0.09 * flat @ matrix @ flat / 2)
        )
        return p, promise, steps

    p, promise, steps = run(positive)
    np.testing.assert_allclose(p.reshape(-1), -jnp.linalg.solve(positive, g.reshape(-1)), rtol=1e-8)
    assert int(steps) <= 40
    # A region of trust that is too small for it, and one of negative curvature: to the edge, and downhill.
    short, less, _ = run(positive, radius=float(promise.length) / 3)
    assert float(less.length) == pytest.approx(float(promise.length) / 3)
    assert float(promise.change) < float(less.change) < 0
    assert float(jnp.sum(short * g)) < 0
    p, promise, steps = run(-positive, radius=0.5)
    assert int(steps) == 1
    assert float(promise.length) == pytest.approx(0.5)
    assert float(jnp.sum(p * g)) < 0


@pytest.mark.parametrize("energy", [2.0, 1.2, jnp.inf])
def test_a_rejected_step_is_cut_where_a_parabola_has_its_minimum(energy):
    """From energy 1 with slope -1: a + b t^2 through ``energy`` at t = 1."""
    state = newton.init(random_path())
    promise = newton.Promise(jnp.asarray(-1.0), jnp.asarray(-0.5), jnp.asarray(1.0))
    accepted = state.accepted._replace(energy=jnp.asarray(1.0))
    state = state._replace(accepted=accepted, promise=promise, steps=jnp.asarray(1))
    part = float(newton.shortened(state, jnp.asarray(energy)))
    assert part == pytest.approx(0.5 if energy == jnp.inf else 1 / (2 * energy))


def test_the_radius_follows_what_was_accepted():
    state = newton.init(random_path())
    assert float(newton.next_radius(state, jnp.asarray(8.0))) == 4.0  # the norm of the path
    promise = newton.Promise(jnp.asarray(-2.0), jnp.asarray(-1.0), jnp.asarray(3.0))
    accepted = state.accepted._replace(energy=jnp.asarray(10.0))
    state = state._replace(accepted=accepted, promise=promise, steps=jnp.asarray(1), radius=jnp.asarray(3.0))

    def radius(energy, **changed):
        return float(newton.next_radius(state._replace(**changed), jnp.asarray(energy)))

    assert radius(9.0) == 9.0  # as promised, at the edge: it grows
    assert radius(9.0, radius=jnp.asarray(7.0)) == 7.0  # as promised, inside
    assert radius(9.5) == 3.0  # half of the promise
    assert radius(9.9) == 3.0  # less: no further than the step just made
    assert radius(9.9, radius=jnp.asarray(7.0)) == 3.0
    assert radius(9.95, step_size=jnp.asarray(0.1)) == pytest.approx(0.3)  # a tenth of a step was accepted


def test_the_relative_path_error_is_zero_for_a_point():
    assert float(relative_path_error(jnp.asarray(0.0), jnp.asarray(0.0))) == 0
    assert float(relative_path_error(jnp.asarray(2.0), jnp.asarray(1.0))) == 0.5


def test_a_search_works_under_jit_and_vmap():
    problem = PathEnergy(EuclideanMetric(), X, Y)
    starts = jnp.stack([random_path(seed) for seed in range(3)])

    def first_step(c):
        return newton.step(newton.evaluate(problem, BASIS, c), newton.init(c), trial=c, **settings())[0]

    states = jax.jit(jax.vmap(first_step))(starts)
    np.testing.assert_allclose(states.direction, -starts, atol=1e-12)
