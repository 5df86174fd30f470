import doctest
import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from scoregeo import datasets
from scoregeo.datasets import Dataset, Standardization, digits, load
from scoregeo.scores import GaussianMixtureScore

KEY = jax.random.key(0)
SYNTHETIC = {
    "two_moons": datasets.two_moons,
    "rings": datasets.rings,
    "spiral": datasets.spiral,
    "checkerboard": datasets.checkerboard,
    "banana": datasets.banana,
    "four_modes": datasets.four_modes,
    "three_modes": datasets.three_modes,
}
# Grouped, so that what one test of a set compiles is there for the next.
each_synthetic = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"datasets-{i % 2}")) for i, name in enumerate(SYNTHETIC)]
)


@functools.cache
def synthetic(name):
    return SYNTHETIC[name](KEY, 2000)


def test_examples():
    # The examples import the submodules, so they hold in float64 and float32 alike.
    assert doctest.testmod(datasets).failed == 0


# Standardisation.


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


# Dataset.


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


# Synthetic sets.


@each_synthetic
def test_synthetic_shapes_and_randomness(name):
    data, again, other = synthetic(name), SYNTHETIC[name](KEY, 2000), SYNTHETIC[name](jax.random.key(1), 2000)
    assert data.points.shape == (2000, 2)
    assert data.name == name
    assert data.standardization is None
    assert data.image_shape is None
    assert data.labels is None or data.labels.shape == (2000,)
    np.testing.assert_array_equal(data.points, again.points)
    assert not np.any(np.asarray(data.points) == np.asarray(other.points))


@each_synthetic
def test_density_is_normalised_and_matches_the_sample(name):
    data = synthetic(name)
    # The trapezoidal rule of a smooth density that vanishes at the border converges faster than any power.
    ticks = np.linspace(-1, 1, 301) * (12 if name == "banana" else 4.6)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1)
    density = np.exp(jax.jit(jax.vmap(jax.vmap(data.score.log_prob)))(grid)) * (ticks[1] - ticks[0]) ** 2
    np.testing.assert_allclose(density.sum(), 1, rtol=2e-6)
    # Moments of the density against those of the sample, in standard errors of the latter.
    points = np.asarray(data.points)
    for moment in (lambda x: x[..., 0], lambda x: x[..., 1], lambda x: x[..., 0] * x[..., 1], lambda x: x[..., 1] ** 3):
        sample = moment(points)
        assert abs((density * moment(grid)).sum() - sample.mean()) < 5 * sample.std() / len(points) ** 0.5


@each_synthetic
def test_score_is_the_gradient_of_log_prob(name):
    score = synthetic(name).score
    assert score.conservative
    points = np.concatenate([2 * np.random.default_rng(0).normal(size=(20, 2)), [[40.0, -30.0], [0.0, 0.0]]])
    step, log_prob = 1e-5 * np.eye(2), jax.jit(jax.vmap(score.log_prob))
    slopes = [(log_prob(points + step[i]) - log_prob(points - step[i])) / 2e-5 for i in range(2)]
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(points), np.stack(slopes, -1), rtol=1e-5, atol=1e-4)


@each_synthetic
def test_score_and_its_jacobian_are_finite_far_away_in_float32(name):
    score = synthetic(name).score
    score = jax.tree.map(lambda a: a.astype(np.float32) if jnp.issubdtype(a.dtype, np.floating) else a, score)
    points = np.array([[30.0, 30.0], [-30.0, 0.5], [0.5, -0.5]], np.float32)
    values, tangents = jax.jit(jax.vmap(lambda x: jax.jvp(score, (x,), (jnp.ones_like(x),))))(points)
    assert values.dtype == tangents.dtype == np.float32
    assert np.isfinite(values).all()
    assert np.isfinite(tangents).all()


@pytest.mark.parametrize(("name", "noise"), [("two_moons", 0.1), ("rings", 0.1), ("spiral", 0.08)])
@pytest.mark.xdist_group("datasets-0")
def test_curves_are_mixtures_of_close_places(name, noise):
    score = synthetic(name).score
    assert isinstance(score, GaussianMixtureScore)
    np.testing.assert_allclose(score.covs, np.broadcast_to(noise**2 * np.eye(2), score.covs.shape), atol=1e-12)
    steps = np.linalg.norm(np.diff(np.asarray(score.means), axis=0), axis=-1)
    # All steps along a curve are equal (but for the bend of the curve), and one or no step leads to the next curve.
    typical = np.median(steps)
    assert typical <= noise
    assert (np.abs(steps - typical) > 0.02 * typical).sum() <= (3 if name == "spiral" else 1)
    assert isinstance(score.noised(0.5, 0.3), GaussianMixtureScore)


@pytest.mark.xdist_group("datasets-0")
def test_rings_do_not_ripple():
    score = datasets.rings(KEY, 1, 0.1, radii=[1.0]).score
    angle = np.linspace(0, 2 * np.pi, 1000)
    values = jax.jit(jax.vmap(score.log_prob))(np.stack([np.cos(angle), np.sin(angle)], -1))
    assert values.max() - values.min() < 3e-8


def test_labels_tell_the_curves_apart():
    rings = datasets.rings(KEY, 500, 0.02, radii=(0.5, 1.0, 2.0))
    np.testing.assert_allclose(
        jnp.linalg.norm(rings.points, axis=-1), jnp.array([0.5, 1.0, 2.0])[rings.labels], atol=0.1
    )
    moons = datasets.two_moons(KEY, 500, 0.02)
    assert (moons.points[:, 1][moons.labels == 0] > -0.35).all()
    assert (moons.points[:, 1][moons.labels == 1] < 0.35).all()
    np.testing.assert_allclose(moons.labels.mean(), 0.5, atol=0.1)


def test_labels_of_a_mixture_are_its_components():
    means = jnp.array([[0.0], [100.0]])
    data = datasets.gaussian_mixture(KEY, 1000, jnp.array([0.25, 0.75]), means, jnp.array([[[1.0]], [[4.0]]]))
    np.testing.assert_array_equal(data.labels, data.points[:, 0] > 50)
    np.testing.assert_allclose(data.labels.mean(), 0.75, atol=0.06)
    np.testing.assert_allclose(data.points[data.labels == 1].std(), 2, rtol=0.1)


@pytest.mark.xdist_group("datasets-0")
def test_three_modes_is_the_reference_problem():
    score = synthetic("three_modes").score
    means = jnp.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])
    reference = jax.grad(lambda x: jax.nn.logsumexp(-0.5 * jnp.sum((x - means) ** 2, -1) / 0.25))
    x = jnp.array([0.3, 0.8])
    np.testing.assert_allclose(score(x), reference(x), rtol=1e-12)


@pytest.mark.xdist_group("datasets-1")
def test_four_modes_is_standardised():
    score = synthetic("four_modes").score
    mean = score.weights @ score.means
    second = jnp.einsum("k,kij->ij", score.weights, score.covs + jnp.einsum("ki,kj->kij", score.means, score.means))
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(jnp.diagonal(second), 1, atol=0.01)


@pytest.mark.parametrize("name", SYNTHETIC)
@pytest.mark.parametrize("n", [0, -3, 2.5, True])
def test_synthetic_sets_refuse_bad_counts(name, n):
    with pytest.raises(ValueError, match="`n` must be a positive integer"):
        SYNTHETIC[name](KEY, n)


@pytest.mark.parametrize("name", ["two_moons", "rings", "spiral", "checkerboard"])
@pytest.mark.parametrize("noise", [0.0, -0.1, np.nan, np.inf])
def test_synthetic_sets_refuse_bad_noise(name, noise):
    with pytest.raises(ValueError, match="`noise` must be a positive number"):
        SYNTHETIC[name](KEY, 10, noise)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: datasets.two_moons(KEY, 10, 1e-6), "`noise` must be at least"),
        (lambda: datasets.rings(KEY, 10, radii=(1.0, 0.0)), "`radii` must be one or more positive numbers"),
        (lambda: datasets.rings(KEY, 10, radii=()), "`radii` must be one or more positive numbers"),
        (lambda: datasets.spiral(KEY, 10, turns=0.0), "`turns` must be a positive number"),
        (lambda: datasets.checkerboard(KEY, 10, cells=1), "`cells` must be at least 2"),
        (lambda: datasets.banana(KEY, 10, scales=(1.0, -1.0)), "`scales` must be two positive numbers"),
        (lambda: datasets.banana(KEY, 10, curvature=np.nan), "`curvature` must be a finite number"),
        (lambda: digits(classes=[3, 12]), "`classes` must be one or more digits from 0 to 9"),
        (lambda: digits(classes=[]), "`classes` must be one or more digits"),
    ],
)
def test_synthetic_sets_refuse_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Digits.


@pytest.mark.xdist_group("datasets-1")
def test_digits():
    data = digits()
    assert data.points.shape == (1797, 64)
    assert data.image_shape == (8, 8)
    assert data.score is None
    np.testing.assert_allclose(data.points.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(data.points.std(), 1, rtol=1e-12)
    raw = data.undo(data.points)
    np.testing.assert_allclose(raw, np.round(raw), atol=1e-12)
    assert (raw.min().round(9), raw.max().round(9)) == (0, 16)
    # One affine map for all pixels: distances are those between the images, up to one factor.
    assert data.standardization.scale.shape == ()
    assert len(np.unique(data.standardization.mean)) == 1


@pytest.mark.xdist_group("datasets-1")
def test_digits_of_some_classes_have_the_same_coordinates():
    some, all_digits = digits(classes=(3, 8)), digits()
    assert set(some.labels.tolist()) == {3, 8}
    keep = (all_digits.labels == 3) | (all_digits.labels == 8)
    np.testing.assert_array_equal(some.points, all_digits.points[keep])


# Files.

TABLE = pd.DataFrame({"height": [1.0, 2.0, 4.0], "weight": [10, 30, 20], "age": [7.5, 8.5, 9.0]})


def write(table: pd.DataFrame, path: pathlib.Path) -> pathlib.Path:
    if path.suffix.lower() == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".npy":
        np.save(path, table.to_numpy())
    else:
        np.savez(path, table.to_numpy())
    return path


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".CSV", ".parquet"])
def test_load_standardises_and_undoes(tmp_path, ending):
    data = load(str(write(TABLE, tmp_path / f"people{ending}")))
    assert data.name == "people"
    assert data.image_shape is None
    np.testing.assert_allclose(data.points.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(data.points.std(0), 1, rtol=1e-12)
    np.testing.assert_allclose(data.undo(data.points), TABLE.to_numpy(), rtol=1e-12)


def test_load_with_one_common_scale(tmp_path):
    data = load(write(TABLE, tmp_path / "people.csv"), per_feature=False)
    assert data.standardization.scale.shape == ()
    np.testing.assert_allclose(data.points.mean(0), 0, atol=1e-12)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_load_columns_in_order(tmp_path, ending):
    data = load(write(TABLE.assign(name=["a", "b", "c"]), tmp_path / f"t{ending}"), columns=["age", "height"])
    np.testing.assert_allclose(data.undo(data.points), TABLE[["age", "height"]].to_numpy(), rtol=1e-12)


def test_load_csv_without_header(tmp_path):
    path = tmp_path / "bare.csv"
    np.savetxt(path, TABLE.to_numpy(), delimiter=",")
    np.testing.assert_allclose(load(path).undo(load(path).points), TABLE.to_numpy(), rtol=1e-12)
    for third in (2, "2"):  # a word, on the command line
        np.testing.assert_array_equal(load(path, columns=[third]).points[:, 0], load(path).points[:, 2])


def test_load_parquet_with_nullable_integers(tmp_path):
    path = write(pd.DataFrame({"a": pd.array([1, 2, 3], "Int64")}), tmp_path / "t.parquet")
    np.testing.assert_allclose(load(path).undo(load(path).points)[:, 0], [1, 2, 3])


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2)])
def test_load_image_stacks(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    data = load(tmp_path / "images.npy")
    assert data.image_shape == shape[1:]
    assert len(np.unique(data.standardization.mean)) == 1
    np.testing.assert_allclose(data.undo(data.points).reshape(shape), images, atol=1e-10)
    assert load(tmp_path / "images.npy", per_feature=True).standardization.scale.shape == (np.prod(shape[1:]),)


def test_load_npz_by_key(tmp_path):
    np.savez(tmp_path / "two.npz", train=TABLE.to_numpy(), test=np.zeros((2, 1)))
    assert load(tmp_path / "two.npz", key="test").points.shape == (2, 1)
    with pytest.raises(ValueError, match=r"`key` must name one of the arrays .*two\.npz.*\['train', 'test'\]"):
        load(tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"`key` = 'valid' must name one of the arrays .*\['train', 'test'\]"):
        load(tmp_path / "two.npz", key="valid")


def test_load_keeps_small_differences_on_a_large_offset_in_float32(tmp_path):
    np.save(tmp_path / "t.npy", 1.7e9 + np.arange(4.0)[:, None])
    with jax.enable_x64(False):
        points = load(tmp_path / "t.npy").points
    assert points.dtype == np.float32
    np.testing.assert_allclose(points[:, 0], (np.arange(4) - 1.5) / 1.25**0.5, rtol=1e-6)


def bad_file(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, pd.DataFrame):
        write(content, path)
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=True)
    return path


PARQUET_MAGIC = b"PAR1" + bytes(20) + b"PAR1"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"1,2\n", r"must end in \.npy, \.npz, \.csv or \.parquet, got '\.txt'"),
        ("a", b"1,2\n", "must end in .*, got 'no extension'"),
        ("a.csv", b"", "got an empty file"),
        ("a.npy", b"", "got an empty file"),
        ("a.npy", b"garbage that is no array", r"must be a NumPy \.npy file, but starts with the bytes b'garbag'"),
        ("a.npz", b"garbage", r"must be a NumPy \.npz file, but starts with"),
        ("a.npz", b"PK\x03\x04 truncated", r"must be a NumPy \.npz file with an array of numbers"),
        ("a.npy", b"\x93NUMPY\x01\x00truncated", r"must be a NumPy \.npy file with an array of numbers"),
        ("a.csv", b"\xff\xfe\x00\x80\n1,2\n", r"must be a \.csv file"),
        ("a.csv", b"x,y\n1,2\n1,2,3\n", r"must be a \.csv file with a table of numbers.*line 3"),
        ("a.csv", b"x,y\n1,2,3\n4,5,6\n", "its header has 2 names, but its rows have 3 values"),
        ("a.csv", b"\n\n", r"must be a \.csv file with a table of numbers: No columns"),
        ("a.parquet", b"garbage", r"must be a \.parquet file with a table of numbers"),
        ("a.parquet", PARQUET_MAGIC, r"must be a \.parquet file with a table of numbers"),
        ("a.csv", b"x,y\n", r"at least one point and one feature, got 0 rows of \['x', 'y'\]"),
        ("a.parquet", TABLE[:0], "at least one point and one feature, got 0 rows"),
        ("a.npy", np.ones((0, 3)), r"at least one point and one feature, got shape \(0, 3\)"),
        ("a.npy", np.ones((3, 0)), r"at least one point and one feature, got shape \(3, 0\)"),
        ("a.npy", np.ones(3), r"got shape \(3,\); reshape one feature to \(n, 1\)"),
        ("a.npy", np.float64(3), r"got shape \(\)"),
        ("a.npy", np.ones((2, 2, 2, 2, 2)), r"got shape \(2, 2, 2, 2, 2\)"),
        ("a.npy", np.array([[1, "a"]], object), "Object arrays cannot be loaded"),
        ("a.npz", {"x": np.array([[1, "a"]], object)}, "Object arrays cannot be loaded"),
        ("a.npz", {}, r"`key` must name one of the arrays of .*, which holds \[\]"),
        ("a.npy", np.array([["1", "2"]]), "must hold real numbers, got dtype <U1"),
        ("a.npy", np.ones((2, 2), complex), "must hold real numbers, got dtype complex128"),
        ("a.npy", np.ones((2, 2), bool), "must hold real numbers, got dtype bool"),
        (
            "a.npy",
            np.array([[1.0, 2.0], [3.0, np.inf]]),
            r"1 of 4 values are NaN or infinite \(first in row 1, column 1\)",
        ),
        ("a.csv", b"x,y\n1,2\n3,\n,4\n", r"2 of 6 values are NaN or infinite \(first in row 1, column 'y'\)"),
        ("a.csv", b"x,y\n1,2\n3,oops\n", r"must have numeric columns, got 'y' \('oops' in row 1\)"),
        ("a.csv", b"x;y\n1;2\n", r"must have numeric columns, got 'x;y' \('1;2' in row 0\)"),
        ("a.csv", b"x,y\nTrue,2\nFalse,3\n", r"must have numeric columns, got 'x' \(dtype bool\)"),
        ("a.csv", b",x\n0,1.5\n1,2.5\n", r"first column without a name \(an index\?\)"),
        ("a.parquet", TABLE.assign(when=pd.Timestamp("2026-01-01")), r"must have numeric columns, got 'when'"),
        ("a.parquet", TABLE.assign(name=["a", "b", "c"]), r"must have numeric columns, got 'name' \('a' in row 0\)"),
    ],
)
def test_load_refuses(tmp_path, name, content, message):
    path = bad_file(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("t.npy", {"columns": ["x"]}, r"`columns` names columns of a \.csv or \.parquet file"),
        ("t.csv", {"key": "x"}, r"`key` names an array of an \.npz file"),
        (
            "t.csv",
            {"columns": ["heigth"]},
            r"`columns` must be among \['height', 'weight', 'age'\] of .*, got \['heigth'\]",
        ),
        ("t.csv", {"columns": "age"}, "`columns` must be a list of one or more column names, got 'age'"),
        ("t.parquet", {"columns": []}, "`columns` must be a list of one or more column names"),
    ],
)
def test_load_refuses_options(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        load(write(TABLE, tmp_path / name), **options)


def test_load_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` = '.*nowhere\.csv' does not exist"):
        load(tmp_path / "nowhere.csv")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(IsADirectoryError, match=r"`path` = '.*folder\.npy' must be a file, got a directory"):
        load(tmp_path / "folder.npy")


def test_load_unreadable_file(tmp_path, monkeypatch):
    path = write(TABLE, tmp_path / "secret.csv")

    def denied(*args, **kwargs):  # the tests may run as root, whom no mode bits stop
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", denied)
    with pytest.raises(PermissionError, match=r"`path` = '.*secret\.csv' must be readable"):
        load(path)


def test_load_parquet_without_pyarrow(tmp_path, monkeypatch):
    path = write(TABLE, tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"reading `path` = .* needs pyarrow: pip install scoregeo\[data\]"):
        load(path)
