"""Points and the change of units that they carry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.datasets import Dataset, Standardization, digits, two_moons


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
        (np.array([[1.0, 2.0]], object), "`x` must be an array of numbers, got ndarray of dtype object"),
        (np.ma.array([[1.0, -9999.0]], mask=[[0, 1]]), "`x` must have no masked entries, but 1 of 2 are masked: drop"),
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
        ({"labels": np.ma.array([0, 1], mask=[0, 1])}, "`labels` must have no masked entries, but 1 of 2 are masked"),
        ({"image_shape": (2, 2)}, "`image_shape` must have 6 pixels"),
    ],
)
def test_dataset_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        Dataset(jnp.ones((2, 6)), "ones", **fields)


def test_labels_are_not_cut():
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match=r"`labels` must be integers .* int32 can hold, got 0 to 4294967297"):
            Dataset(np.ones((2, 6)), "ones", labels=np.array([0, 2**32 + 1]))
        assert Dataset(np.ones((2, 6)), "ones", labels=np.array([0, 7], ">i8")).labels.tolist() == [0, 7]


def test_large_integers_are_standardised_in_float64():
    x = 2**40 + np.arange(5)[:, None]
    with jax.enable_x64(False):
        np.testing.assert_allclose(Standardization.fit(x).scale, [2.0**0.5], rtol=1e-6)


class TestPrincipalComponents:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_against_scikit_learn(self, seed):
        from sklearn.decomposition import PCA

        x = np.random.default_rng(seed).normal(size=(60, 7)) @ np.random.default_rng(9).normal(size=(7, 7)) + 5
        data = Dataset(x, "table").principal_components(3)
        reference = PCA(3, svd_solver="full").fit(x)
        signs = np.sign(np.sum(np.asarray(data.standardization.axes) * reference.components_, 1))
        np.testing.assert_allclose(data.points, reference.transform(x) * signs, atol=1e-10)
        np.testing.assert_allclose(data.undo(data.points), reference.inverse_transform(reference.transform(x)))

    def test_whitening(self):
        x = np.random.default_rng(0).normal(size=(200, 5)) * [5, 3, 1, 0.1, 0.01]
        units = Standardization.fit(x, components=3)
        z = np.asarray(units.apply(x))
        np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(3), atol=1e-10)
        common = Standardization.fit(x, components=3, per_feature=False)
        assert common.scale.shape == ()
        distances = np.linalg.norm(np.diff(np.asarray(common.apply(x)) * common.scale, axis=0), axis=1)
        np.testing.assert_allclose(distances, np.linalg.norm(np.diff(x[:, :3], axis=0), axis=1), rtol=0.05)

    def test_traced_and_on_the_host_are_the_same(self):
        x = np.random.default_rng(0).normal(size=(20, 6)) + 1e3
        units = Standardization.fit(x, components=2)
        z = units.apply(x)
        np.testing.assert_allclose(jax.jit(lambda x: units.apply(x))(jnp.asarray(x)), z, atol=1e-10)
        np.testing.assert_allclose(jax.jit(lambda z: units.undo(z))(z), units.undo(z), rtol=1e-12)
        np.testing.assert_allclose(units.apply(units.undo(z)), z, atol=1e-10)
        np.testing.assert_allclose(units.undo_vectors(z[1:] - z[:1]), units.undo(z[1:]) - units.undo(z[:1]), atol=1e-9)

    def test_images_come_back(self):
        data = digits([3]).principal_components(20)
        assert data.image_shape == (8, 8)
        assert data.points.shape == (183, 20)
        images = digits([3])
        pixels = images.undo(images.points)
        missing = np.sum((data.undo(data.points) - pixels) ** 2) / np.sum((pixels - pixels.mean(0)) ** 2)
        assert 0 < missing < 0.15

    def test_bad_input(self):
        x = np.random.default_rng(0).normal(size=(10, 4))
        with pytest.raises(ValueError, match="from 1 to 4, got 5"):
            Dataset(x, "table").principal_components(5)
        with pytest.raises(ValueError, match="without an exact score"):
            two_moons(jax.random.key(0), 10).principal_components(1)
        with pytest.raises(ValueError, match="orthonormal rows"):
            Standardization(np.zeros(2), 1.0, np.ones((1, 2)))
        with pytest.raises(ValueError, match=r"`axes` must have shape \(k, 2\), got \(1, 3\)"):
            Standardization(np.zeros(2), 1.0, np.eye(3)[:1])
        units = Standardization.fit(x, components=2)
        with pytest.raises(ValueError, match=r"`z` must have shape \(..., 2\)"):
            units.undo(np.zeros(4))
