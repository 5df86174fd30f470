"""Points and the change of units that they carry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.datasets import Dataset, Standardization


@pytest.mark.parametrize("per_feature", [True, False])
def test_standardization_undoes_itself(per_feature):
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 100.0, 1e-3] + [5.0, -3.0, 0.0]
    units = Standardization.fit(x, per_feature=per_feature)
    z = units.apply(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    if per_feature:
        np.testing.assert_allclose(z.std(0), 1, rtol=1e-12)
    else:
        assert units.scale.shape == ()
        np.testing.assert_allclose(z.var(0).mean(), 1, rtol=1e-12)
    np.testing.assert_allclose(units.undo(z), x, rtol=1e-12)
    np.testing.assert_allclose(units.undo(z.reshape(5, 10, 3)), x.reshape(5, 10, 3), rtol=1e-12)


def test_standardization_of_constant_columns():
    # 0.1 is not representable: the computed variance of this column is not zero.
    x = np.stack([np.full(7, 0.1), np.arange(7.0)], -1)
    assert Standardization.fit(x).scale[0] == 1
    assert Standardization.fit(x[:, :1], per_feature=False).scale == 1


def test_standardization_is_a_pytree():
    units = Standardization(jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0]))
    x = jnp.ones((3, 2))
    np.testing.assert_array_equal(jax.jit(lambda u, x: u.apply(x))(units, x), units.apply(x))
    np.testing.assert_array_equal(jax.grad(lambda x: units.apply(x).sum())(x[0]), [0.5, 0.25])


@pytest.mark.parametrize(
    ("mean", "scale", "message"),
    [
        ([0.0, 1.0], 0.0, "`scale` must be positive"),
        ([0.0, 1.0], [1.0, -2.0], "`scale` must be positive, got a smallest value of -2"),
        ([0.0, 1.0], np.nan, "`scale` must be finite"),
        ([0.0, 1.0], [1.0, 1.0, 1.0], r"`scale` must have shape \(\) or \(2,\)"),
        ([[0.0]], 1.0, "`mean` must have shape"),
        ([np.inf], 1.0, "`mean` must be finite"),
    ],
)
def test_standardization_refuses(mean, scale, message):
    with pytest.raises(ValueError, match=message):
        Standardization(jnp.asarray(mean), jnp.asarray(scale))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(3), r"`x` must have shape \(n, d\)"),
        (np.ones((0, 3)), r"`x` must have shape \(n, d\)"),
        (np.array([[1.0, np.nan]]), r"1 of 2 values are NaN or infinite \(first in row 0, column 1\)"),
        (np.array([["a", "b"]]), "`x` must hold real numbers"),
    ],
)
def test_fit_refuses(x, message):
    with pytest.raises(ValueError, match=message):
        Standardization.fit(x)


def test_apply_and_undo_refuse_another_dimension():
    units = Standardization(jnp.zeros(3), 1.0)
    with pytest.raises(ValueError, match=r"`x` must have shape \(\.\.\., 3\), got \(3, 1\)"):
        units.apply(jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"`z` must have shape \(\.\.\., 3\), got \(\)"):
        units.undo(jnp.zeros(()))


def test_dataset_without_standardization_undoes_nothing():
    data = Dataset(jnp.ones((2, 3)), "ones")
    np.testing.assert_array_equal(data.undo(data.points), data.points)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": jnp.zeros(3)}, r"`labels` must have shape \(2,\)"),
        ({"standardization": Standardization(jnp.zeros(4), 1.0)}, "`standardization` must have dimension 6"),
        ({"image_shape": (2, 2)}, "`image_shape` must have 6 pixels"),
    ],
)
def test_dataset_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        Dataset(jnp.ones((2, 6)), "ones", **fields)
