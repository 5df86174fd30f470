"""Rotated letters: curves whose images turn as they say."""

import jax
import numpy as np
import pytest

from scoregeo.datasets import rotated_letters


def images(letters, angles, size=16):
    data = rotated_letters(letters, angles, size=size)
    return np.asarray(data.points).reshape(-1, size, size)


def test_a_quarter_turn_turns_the_pixels():
    # Agg rounds coverage to 1/256 and places to 1/256 of a fine pixel.
    found = images("F5R", [20, 110, 200, 290, 380])
    for letter in np.split(found, 3):
        for k in range(5):
            np.testing.assert_allclose(letter[k], np.rot90(letter[0], k), atol=3e-3)


def test_equal_steps_close_the_curve():
    found = images("R", 360)
    steps = np.linalg.norm(np.diff(found, axis=0, append=found[:1]).reshape(360, -1), axis=1)
    assert steps.max() < 1.5 * steps.mean()
    np.testing.assert_array_equal(images("R", 4), found[::90])


def test_a_letter_stands_upright_and_keeps_its_holes():
    (upright,) = images("F", [0])
    # The strokes of an F are on its left and on its top.
    assert upright[:, :8].sum() > upright[:, 8:].sum()
    assert upright[:8].sum() > upright[8:].sum()
    (ring,) = images("O", [0], size=32)
    assert ring[15:17, 15:17].max() < 0.05
    assert ring.max() > 0.9


def test_rows_and_labels():
    data = rotated_letters("Ab", [0.0, 30.0, 60.0], size=12)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.image_shape == (12, 12)
    np.testing.assert_array_equal(data.points[4], rotated_letters("b", [30.0], size=12).points[0])
    assert float(jax.numpy.min(data.points)) >= 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "`letters` must be one or more characters"),
        ((" ",), "`letters` must have an outline"),
        (("\U0010ffff",), "that DejaVu Sans has"),
        (("F", 0), "`angles` must be at least 1"),
        (("F", [0.0, np.nan]), "`angles` must be a number of steps, or finite"),
        (("F", []), "`angles` must be a number of steps, or finite"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        rotated_letters(*arguments)


def test_a_size_too_small():
    with pytest.raises(ValueError, match="at least 4 pixels, got 2"):
        rotated_letters("F", 1, size=2)
