"""The pure functions of the refinement: stages of the continuation, verdicts, and what follows from them."""

import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, SpectralNewton
from scoregeo.geodesics.spectral.newton import UNFINISHED, Progress
from scoregeo.geodesics.spectral.refinement import (
    Candidate,
    Verdict,
    accurate,
    conclude,
    initial_state,
    judge,
    stage_of,
)

SETTINGS = SpectralNewton(degree=2, max_elements=12, continuation=4).settings(jnp.float64)
START = jnp.zeros((12, 2, 2))
YES, NO = jnp.asarray(True), jnp.asarray(False)
LAST = 2


def state_with(**changed):
    return initial_state(START, SETTINGS)._replace(**changed)


def candidate(energy=0.5, status=RESULTS.successful, error=jnp.inf, path_error=jnp.inf, level=0):
    nothing = initial_state(START, SETTINGS).best
    values = (jnp.asarray(value, float) for value in (energy, error, path_error))
    energy, error, path_error = values
    return Candidate(nothing.path, jnp.asarray(level, jnp.int32), energy, status, error, path_error)


def test_elements_and_tolerances_of_the_settings():
    assert SETTINGS.elements == (1, 4, 12)
    assert [SETTINGS.is_last(level) for level in range(3)] == [False, False, True]
    assert SpectralNewton(max_elements=1).settings(jnp.float64).only_judges


def test_the_continuation_leads_from_a_thousandth_to_the_metric_itself():
    stages = [stage_of(jnp.asarray(i), 1, SETTINGS, jnp.float64) for i in range(5)]
    np.testing.assert_allclose([stage.fraction for stage in stages], [1, 1e-3, 1e-2, 1e-1, 1], rtol=1e-12)
    # On the way nothing is gained by digits.
    np.testing.assert_allclose([stage.tolerance for stage in stages[1:-1]], 1e-2)
    assert all(stage.max_steps < SETTINGS.max_steps for stage in stages[1:-1])
    for stage in (stages[0], stages[-1]):
        assert float(stage.tolerance) == SETTINGS.tolerance
        assert int(stage.max_steps) == SETTINGS.max_steps


def test_the_first_level_is_not_worth_a_continuation_where_another_follows():
    assert not SETTINGS.continues(0)
    assert SETTINGS.continues(1)
    assert SpectralNewton(max_elements=1).settings(jnp.float64).continues(0)
    assert int(stage_of(jnp.asarray(0), 0, SETTINGS, jnp.float64).max_steps) < SETTINGS.max_steps
    given_up = after(0, status=UNFINISHED, ended=True)
    assert (int(given_up.stage), int(given_up.attempt)) == (1, 0)
    assert float(given_up.found.energy) == 0.5


@pytest.mark.parametrize(
    ("found", "energy", "unfounded"),
    [
        (dict(), 0.52, False),
        (dict(), 2.0, True),  # twice as long in the quadrature of this level
        (dict(status=RESULTS.stalled), 0.52, True),
    ],
)
def test_what_was_not_resolved_is_no_place_to_start_from(found, energy, unfounded):
    verdict = judge(state_with(found=candidate(**found)), jnp.asarray(energy), jnp.asarray(1e-4), YES, 1, SETTINGS)
    assert bool(verdict.unfounded) is unfounded


def test_nothing_is_judged_before_something_is_found():
    verdict = judge(state_with(), jnp.asarray(0.5), jnp.asarray(0.0), NO, 0, SETTINGS)
    assert not (verdict.better)
    assert not (verdict.accepted)
    assert not verdict.conclusive


def test_equal_lengths_and_no_gain_are_accepted():
    state = state_with(found=candidate())
    verdict = judge(state, jnp.asarray(0.5), jnp.asarray(0.0), YES, 1, SETTINGS)
    assert verdict.better
    assert verdict.accepted
    assert verdict.conclusive
    assert float(verdict.candidate.error) == pytest.approx(4 * np.finfo(float).eps)
    assert accurate(verdict.candidate, SETTINGS)


@pytest.mark.parametrize(("status", "doubt"), [(RESULTS.successful, 1), (RESULTS.stalled, 100)])
def test_the_error_is_the_change_of_the_length_and_the_expected_gain(status, doubt):
    """Equation (1) of `solver`; a hundred steps like that, where the descent did not end."""
    state = state_with(found=candidate(status=status))
    energy, squared_decrement = 0.5 * 1.01**2, 1e-4
    verdict = judge(state, jnp.asarray(energy), jnp.asarray(squared_decrement), YES, 1, SETTINGS)
    assert float(verdict.candidate.error) == pytest.approx(0.01 + doubt * squared_decrement / (2 * 1.01), rel=1e-10)
    assert float(verdict.candidate.path_error) == pytest.approx((squared_decrement / (2 * energy)) ** 0.5, rel=1e-10)
    assert verdict.better
    assert not verdict.accepted
    assert not verdict.conclusive


def test_later_passes_double_the_error_and_must_be_worth_it():
    once = judge(state_with(found=candidate()), jnp.asarray(0.6), jnp.asarray(1e-4), YES, LAST, SETTINGS)
    state = state_with(found=candidate(), passes=jnp.asarray(1))
    twice = judge(state, jnp.asarray(0.6), jnp.asarray(1e-4), YES, LAST, SETTINGS)
    assert float(twice.candidate.error) == pytest.approx(2 * float(once.candidate.error))
    assert not twice.conclusive
    # The second pass halved the error of the path, and a third is made; or it did not, and that is all.
    path_error = float(twice.candidate.path_error)
    for before, conclusive in ((2.1 * path_error, False), (1.9 * path_error, True)):
        best = candidate(error=1.0, path_error=before)
        state = state_with(found=candidate(), best=best, passes=jnp.asarray(2))
        verdict = judge(state, jnp.asarray(0.6), jnp.asarray(1e-4), YES, LAST, SETTINGS)
        assert bool(verdict.conclusive) is conclusive
        assert verdict.better
    state = state_with(found=candidate(status=RESULTS.stalled), passes=jnp.asarray(1))
    assert judge(state, jnp.asarray(0.6), jnp.asarray(1e-4), YES, LAST, SETTINGS).conclusive
    many = state_with(found=candidate(), best=candidate(error=1.0, path_error=9.0), passes=jnp.asarray(5))
    assert judge(many, jnp.asarray(0.6), jnp.asarray(1e-4), YES, LAST, SETTINGS).conclusive


def after(
    level, *, status, energy=0.5, attempt=0, conclusive=NO, better=NO, accepted=NO, finite=YES, ended=False, **changed
):
    """`conclude` after a search that ended with ``status`` at a path with this energy."""
    state = state_with(attempt=jnp.asarray(attempt, jnp.int32), stage=jnp.asarray(level, jnp.int32), **changed)
    reached = state.newton.accepted._replace(energy=jnp.asarray(energy), path_error=jnp.asarray(0.1))
    state = state._replace(
        newton=state.newton._replace(accepted=reached, status=status, steps=jnp.asarray(3, jnp.int32))
    )
    verdict = Verdict(state.found._replace(error=jnp.asarray(1e-3)), better, accepted, conclusive, NO)
    ended = jnp.asarray(ended or bool(status != UNFINISHED))
    return conclude(state, verdict, Progress(ended, ~ended, jnp.asarray(0), finite), level, SETTINGS)


def test_an_unfinished_search_goes_on():
    new = after(0, status=UNFINISHED)
    assert (int(new.attempt), int(new.stage), int(new.newton.steps)) == (0, 0, 3)
    assert new.unfinished
    assert not new.unprepared
    assert not jnp.isfinite(new.found.energy)


def test_success_leads_to_the_next_level():
    new = after(0, status=RESULTS.successful)
    assert (int(new.stage), int(new.attempt), int(new.newton.steps)) == (1, 0, 0)
    assert new.unprepared
    assert new.outcome == UNFINISHED
    for kept in (new.found, new.best):  # the best until it is judged
        assert kept.status == RESULTS.successful
        assert float(kept.energy) == 0.5
        assert not kept.judged


def test_failure_leads_into_the_continuation_and_through_it():
    new = after(1, status=RESULTS.stalled)
    assert (int(new.stage), int(new.attempt)) == (1, 1)
    assert new.unprepared
    assert not jnp.isfinite(new.found.energy)
    new = after(1, status=RESULTS.successful, attempt=2)
    assert int(new.attempt) == 3
    new = after(1, status=RESULTS.successful, attempt=4)
    assert (int(new.stage), int(new.attempt)) == (2, 0)
    assert float(new.found.energy) == 0.5


def test_a_failure_replaces_what_was_found_only_if_it_is_better():
    found = candidate(energy=0.4, error=1e-3)
    worse = after(1, status=RESULTS.stalled, attempt=4, energy=0.45, found=found, best=found)
    assert float(worse.found.energy) == 0.4
    assert float(worse.best.energy) == 0.4
    better = after(1, status=RESULTS.stalled, attempt=4, energy=0.35, found=found, best=found)
    assert float(better.found.energy) == 0.35
    assert better.found.status == RESULTS.stalled
    assert float(better.best.energy) == 0.4  # which has been judged


def test_a_failure_on_the_last_level_is_the_end_unless_it_improved():
    found = candidate(energy=0.4, error=1e-3)
    assert not after(LAST, status=RESULTS.stalled, attempt=4, energy=0.45, found=found, best=found).unfinished
    assert after(LAST, status=RESULTS.stalled, attempt=4, energy=0.35, found=found, best=found).unfinished


def test_passes_through_the_last_level():
    new = after(LAST, status=RESULTS.successful)
    assert (int(new.passes), int(new.stage)) == (1, LAST)
    assert new.unprepared
    assert new.unfinished


def test_acceptance_is_the_end_and_a_success():
    found = candidate(energy=0.5, status=RESULTS.stalled)
    new = after(1, status=UNFINISHED, conclusive=YES, better=YES, accepted=YES, found=found)
    assert new.unfinished  # the search was not asked to stop
    new = after(1, status=RESULTS.stalled, conclusive=YES, better=YES, accepted=YES, found=found)
    assert not new.unfinished
    assert new.outcome == RESULTS.successful
    assert new.best.judged


def test_a_conclusion_without_acceptance_is_what_the_search_was():
    found = candidate(status=RESULTS.stalled)
    new = after(LAST, status=RESULTS.successful, conclusive=YES, better=YES, found=found)
    assert not new.unfinished
    assert new.outcome == RESULTS.stalled
    new = after(LAST, status=RESULTS.metric_nonfinite, conclusive=YES, finite=NO, found=found)
    assert new.outcome == RESULTS.metric_nonfinite


def test_a_failure_of_a_later_pass_does_not_undo_a_success():
    found = candidate(error=1e-3)
    new = after(LAST, status=RESULTS.stalled, attempt=4, energy=0.6, found=found, best=found, passes=jnp.asarray(1))
    assert not new.unfinished
    assert new.outcome == RESULTS.successful
