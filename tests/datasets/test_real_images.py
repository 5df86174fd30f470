"""Real images."""

import numpy as np
import pytest

from scoregeo.datasets import digits


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


def test_digits_of_some_classes_have_the_same_coordinates():
    some, all_digits = digits(classes=(3, 8)), digits()
    assert set(some.labels.tolist()) == {3, 8}
    keep = (all_digits.labels == 3) | (all_digits.labels == 8)
    np.testing.assert_array_equal(some.points, all_digits.points[keep])


@pytest.mark.parametrize("classes", [[3, 12], []])
def test_digits_refuse(classes):
    with pytest.raises(ValueError, match="`classes` must be one or more digits from 0 to 9"):
        digits(classes=classes)
