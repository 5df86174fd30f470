"""What `fit` says of data in units that do not suit it, and data sets in place of arrays."""

import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.datasets import Dataset, Standardization, rotated_letters
from scoregeo.diffusion import FitConfig, fit
from scoregeo.diffusion.training.data import as_data, of_dataset

CONFIG = FitConfig(steps=2, chunk_steps=2, width=4, depth=1)
NORMAL = np.random.default_rng(0).normal(size=(600, 2))


def said(data):
    as_data(data, None, CONFIG).check_resolution(0.002, standardized=False)


@pytest.mark.parametrize("scales", [(1.0, 1e-3), (10.0, 0.02), (300.0, 0.1)])
def test_columns_in_other_units_are_warned_of(scales):
    with pytest.warns(UserWarning, match=r"column 1.* Standardise the data"):
        said(NORMAL * scales)


@pytest.mark.parametrize("units", [None, Standardization.fit])
def test_outliers_are_warned_of(units):
    data = NORMAL.copy()
    data[7:12, 1] = 1e4  # of which some are not held out
    data = data if units is None else np.asarray(units(data).apply(data))
    with pytest.warns(UserWarning, match=r"points far from all others: in column 1 their range is \S+e\+03 times"):
        said(data)


@pytest.mark.parametrize(
    "data",
    [
        NORMAL,
        NORMAL * (1.0, 0.02),
        np.exp(NORMAL),
        np.stack([NORMAL[:, 0], NORMAL[:, 1] > 3], 1),  # a pixel that is rarely on: its quartiles are equal
        np.stack([NORMAL[:, 0], np.zeros(600)], 1),
        rotated_letters("F", 36, size=28).points,  # at the edge ink is rare, and paper is not quite zero
    ],
)
def test_what_is_usual(data):
    said(data)


@pytest.mark.slow
def test_fit_takes_a_dataset():
    units = Standardization.fit(NORMAL * 5)
    data = Dataset(np.asarray(units.apply(NORMAL * 5)), "normal", standardization=units)
    model, other = fit(data, CONFIG, progress=False), fit(data.points, CONFIG, progress=False, standardization=units)
    assert model.standardization is units
    x = jnp.ones(2)
    np.testing.assert_array_equal(model.score_at(0.5)(x), other.score_at(0.5)(x))


def test_units_are_given_once():
    units, plain = Standardization.fit(NORMAL), Dataset(NORMAL, "normal")
    assert of_dataset(plain, None)[1] is None
    assert of_dataset(plain, units)[1] is units
    data = Dataset(NORMAL, "normal", standardization=units)
    assert of_dataset(data, units)[1] is units
    with pytest.raises(ValueError, match="`standardization` must be None for a Dataset that has its own"):
        fit(data, CONFIG, standardization=Standardization.fit(NORMAL * 2))
