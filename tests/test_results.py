"""Codes of how a solve ended: the first failure counts, and every code has a name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS
from scoregeo._results import first_failure, status_name


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((False, False, False), "successful"),
        ((False, False, True), "stalled"),
        ((False, True, True), "ends_missed"),
        ((True, False, True), "outside_domain"),
    ],
)
def test_first_failure(conditions, expected):
    codes = (RESULTS.outside_domain, RESULTS.ends_missed, RESULTS.stalled)
    for kind in (lambda c: c, jnp.asarray):
        result = first_failure([(kind(c), code) for c, code in zip(conditions, codes, strict=True)])
        assert result == getattr(RESULTS, expected)


def test_first_failure_of_nothing():
    assert first_failure([]) == RESULTS.successful


def test_first_failure_in_a_batch_and_of_results():
    """Codes may be results of their own, and conditions lanes of a batch."""

    def lane(x):
        inner = first_failure([(x > 2, RESULTS.stalled)])
        return first_failure([(x < 0, RESULTS.outside_domain), (True, inner)])

    results = jax.jit(jax.vmap(lane))(jnp.array([-1.0, 1.0, 3.0]))
    assert status_name(results).tolist() == ["outside_domain", "converged", "stalled"]


def test_status_names():
    for name in ("metric_nonfinite", "accuracy_not_reached", "max_steps_reached", "event_occurred"):
        assert status_name(getattr(RESULTS, name)) == name
    assert status_name(RESULTS.successful) == "converged"
    square = jax.tree.map(lambda code: np.full((2, 2), code), RESULTS.stalled)
    np.testing.assert_array_equal(status_name(square), np.full((2, 2), "stalled"))


def test_traced_status_has_no_name():
    with pytest.raises(TypeError, match="`result` must be concrete"):
        jax.jit(lambda x: status_name(first_failure([(x > 0, RESULTS.stalled)])))(1.0)
