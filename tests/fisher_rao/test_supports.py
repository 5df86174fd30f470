"""Where parameters may be: values, coordinates and unconstrained coordinates, and their margins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.fisher_rao.supports import Positive, PositiveDefinite, Real, Simplex, UnitInterval

SUPPORTS = [Real(), Real((2, 3)), Positive(), Positive((4,)), UnitInterval(), Simplex(4), PositiveDefinite(3)]


@pytest.mark.parametrize("support", SUPPORTS, ids=lambda s: f"{type(s).__name__}{s.shape}")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_coordinates(support, dtype):
    u = jnp.asarray(np.random.default_rng(0).normal(size=(50, support.free)), dtype)

    @jax.jit
    @jax.vmap
    def compute(u):
        coordinates = support.from_unconstrained(u)
        value = support.value(coordinates)
        return (
            coordinates,
            value,
            support.coordinates(value),
            support.to_unconstrained(coordinates),
            support.margin(coordinates),
        )

    coordinates, values, again, back, margins = compute(u)
    assert coordinates.shape == again.shape == (50, support.size)
    assert all(array.dtype == dtype for array in (coordinates, values, again, back, margins))
    assert (coordinates == again).all()
    np.testing.assert_allclose(back, u, rtol=1e3 * jnp.finfo(dtype).eps, atol=1e3 * jnp.finfo(dtype).eps)
    assert (margins > 0).all()
    for value in values[:5]:
        assert support.check(value, "p").shape == support.shape


def test_margins():
    """Zero on the boundary, negative outside, and the sign of it is what `contains` says."""
    for support, value, margin in [
        (Positive((2,)), [1.0, -2.0], -2.0),
        (Positive(), 0.0, 0.0),
        (UnitInterval(), 0.75, 0.25),
        (UnitInterval(), 1.0, 0.0),
        (UnitInterval(), 1.5, -0.5),
        (Simplex(3), [0.1, 0.6, 0.3], 0.1),
        (Simplex(2), [1.1, -0.1], -0.1),
        (PositiveDefinite(2), [[2.0, 1.0], [1.0, 2.0]], 1.0),
        (PositiveDefinite(2), [[1.0, 2.0], [2.0, 1.0]], -1.0),
    ]:
        value = np.asarray(value)
        found = support.margin(support.coordinates(jnp.asarray(value)))
        np.testing.assert_allclose(found, margin, atol=1e-15)
        if margin:
            assert support.contains(value) == (margin > 0)
    assert UnitInterval().contains(np.asarray(0.0))
    assert not UnitInterval(zero=False).contains(np.asarray(0.0))
    assert not Positive().contains(np.asarray(0.0))
    assert Simplex(2).contains(np.asarray([1.0, 0.0]))


def test_checks():
    for support, value, message in [
        (Positive((2,)), [1.0, -2.0], r"`p` must be positive, got \[ 1., -2.\]"),
        (Positive((2,)), [1.0], r"`p` must have shape \(2,\), got \(1,\)"),
        (Real(), np.inf, "`p` must be finite"),
        (Simplex(2), [0.5, 0.6], "`p` must be 2 probabilities that sum to one, but their sum is 1.1"),
        (Simplex(2), [0.5, 0.5, 0.0], r"`p` must have shape \(2,\)"),
        (Simplex(2), [np.nan, 0.5], "`p` must be finite"),
        (PositiveDefinite(2), np.diag([1.0, -3.0]), "`p` must be symmetric and positive definite.*eigenvalue is -3"),
        (PositiveDefinite(2), [[1.0, 0.5], [0.0, 1.0]], "differs from its transpose by 0.5"),
        (PositiveDefinite(2), np.eye(3), r"`p` must have shape \(2, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            support.check(value, "p")
    with pytest.raises(ValueError, match="`count` must be an integer of at least 2"):
        Simplex(1)
    with pytest.raises(ValueError, match="`dim` must be an integer of at least 1"):
        PositiveDefinite(0)
    with pytest.raises(ValueError, match=r"has 3 coordinates, shape \(3,\); got shape \(6,\)"):
        PositiveDefinite(2).value(jnp.ones(6))
    # Values that are not known yet pass; their shapes do not.
    assert jax.jit(lambda x: Positive().check(x, "p"))(-1.0) == -1
    with pytest.raises(ValueError, match="must have shape"):
        jax.jit(lambda x: Positive().check(x, "p"))(jnp.ones(2))
