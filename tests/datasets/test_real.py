"""Real data that dependencies ship: the same numbers as their own readers give."""

import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
from matplotlib.cbook import get_sample_data

from scoregeo.datasets import digits, real
from scoregeo.datasets.real import _even

NAMES = ("hands", "cells", "leaves", "terrain", "digits", "iris", "wine", "breast_cancer", "diabetes")


@pytest.fixture(scope="module")
def sets():
    return {name: real(name) for name in NAMES}


@pytest.fixture(scope="module")
def geomstats_sets():
    """The readers of geomstats, which takes five seconds to import."""
    import scoregeo.adapters.geomstats as adapter  # NumPy 2.4 has no more what geomstats 2.8 imports

    with adapter._importable():
        from geomstats.datasets import utils
    return utils


def in_units(data):
    return np.asarray(data.undo(data.points))


@pytest.mark.parametrize("name", NAMES)
def test_standardised_and_named(sets, name):
    data = sets[name]
    d = data.points.shape[1]
    assert data.name == name
    assert np.abs(data.points.mean(0)).max() < (1e-9 if name != "digits" else 5)
    common = name in ("hands", "cells", "terrain", "digits")
    assert (data.standardization.scale.shape == ()) == common
    deviation = np.asarray(data.points).std(0)
    np.testing.assert_allclose(np.sqrt((deviation**2).mean()), 1, rtol=0.6 if name == "digits" else 1e-9)
    assert data.feature_names is None if name == "digits" else len(set(data.feature_names)) == d
    if data.labels is not None:
        assert set(data.labels.tolist()) == set(range(len(data.label_names)))


@pytest.mark.slow
def test_hands(sets, geomstats_sets):
    hands, labels, _ = geomstats_sets.load_hands()
    data = sets["hands"]
    assert data.points.shape == (53, 66)
    # Theirs takes the first row for names.
    np.testing.assert_allclose(in_units(data)[1:].reshape(52, 22, 3), hands, rtol=1e-12)
    assert data.labels[1:].tolist() == labels.tolist()
    assert data.label_names == ("grab", "expand")
    assert data.feature_names[:4] == ("x of joint 0", "y of joint 0", "z of joint 0", "x of joint 1")


@pytest.mark.slow
def test_leaves(sets, geomstats_sets):
    parameters, kinds = geomstats_sets.load_leaves()
    np.testing.assert_allclose(in_units(sets["leaves"]), parameters, rtol=1e-12)
    assert [sets["leaves"].label_names[i] for i in sets["leaves"].labels] == list(kinds)


@pytest.mark.slow
def test_cells(sets, geomstats_sets):
    """The places are on the outlines, at equal steps along them, and their middle is the origin."""
    outlines, lines, treatments = geomstats_sets.load_cells()
    data = sets["cells"]
    assert [data.label_names[i] for i in data.labels] == [", ".join(p) for p in zip(lines, treatments, strict=True)]
    found = in_units(data).reshape(650, 100, 2)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-9)
    for i in (0, 1, 649):
        places = found[i] + (outlines[i][0] - found[i, 0])  # the first place is where the file starts
        start, end = outlines[i], np.roll(outlines[i], -1, axis=0)
        along = np.clip(((places[:, None] - start) * (end - start)).sum(-1) / ((end - start) ** 2).sum(-1), 0, 1)
        away = np.linalg.norm(places[:, None] - start - along[..., None] * (end - start), axis=-1).min(1)
        assert away.max() < 1e-3  # geomstats reads single precision


def test_equal_steps():
    square = np.array([[0.0, 0], [3, 0], [3, 1], [4, 1], [4, 4], [0, 4]])  # 16 around
    places = _even(square)
    np.testing.assert_allclose(places[[0, 25, 50, 75]], [[0, 0], [3, 1], [4, 4], [0, 4]], atol=1e-12)


def test_terrain(sets):
    with np.load(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)) as model:
        elevation = model["elevation"]
    found = in_units(sets["terrain"]).reshape(344, 403, 3)
    np.testing.assert_allclose(found[::-1, :, 2], elevation / 1000, atol=1e-12)
    steps = np.diff(found[0, :, 0])[0], np.diff(found[:, 0, 1])[0]
    # Three seconds of arc on a sphere of the earth's radius.
    arc = np.deg2rad(3 / 3600) * 6371
    np.testing.assert_allclose(steps, (arc * np.cos(np.deg2rad(36.59)), arc), rtol=2e-4)
    assert (found[0, 0, :2] == 0).all()


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer"])
def test_of_sklearn(sets, name):
    found = getattr(sklearn.datasets, f"load_{name}")()
    np.testing.assert_allclose(in_units(sets[name]), found.data, rtol=1e-12, atol=1e-12)
    assert sets[name].labels.tolist() == found.target.tolist()
    assert sets[name].label_names == tuple(found.target_names)
    assert sets[name].feature_names == tuple(found.feature_names)


def test_diabetes_and_digits(sets):
    found = sklearn.datasets.load_diabetes(scaled=False)
    np.testing.assert_allclose(in_units(sets["diabetes"]), np.c_[found.data, found.target], rtol=1e-12)
    assert sets["diabetes"].feature_names[-1] == "progression"
    np.testing.assert_array_equal(sets["digits"].points, digits().points)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"`name` must be one of 'hands', 'cells', .*'diabetes', got 'mnist'"):
        real("mnist")


@pytest.mark.slow
def test_nothing_is_imported_before():
    heavy = ("geomstats", "matplotlib", "sklearn", "pandas", "PIL", "anndata", "datasets", "pyarrow")
    code = f"import sys; from scoregeo.datasets import load, real; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_data_that_are_no_more_shipped(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"the installed geomstats has no data file hands/hands\.txt"):
        real("hands")
