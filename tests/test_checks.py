"""The checks of arguments: one vocabulary, in which a number is a number whether it is of Python or of NumPy."""

import dataclasses
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import Georce, MultiStart, PoleLadder, Shooting, SpectralNewton
from scoregeo._checks import (
    check_choice,
    check_count,
    check_counts,
    check_finite_numbers,
    check_fractions,
    check_number,
    is_integer,
    is_number,
)
from scoregeo.diffusion import ConstantEMA, Heun, LogNormalLevels, MinSNRWeighting, PowerEMA

INTEGERS = (3, np.int64(3), np.int32(3), np.uint8(3))
NUMBERS = (0.5, np.float64(0.5), np.float32(0.5))
NO_NUMBERS = (True, np.bool_(True), "3", None, 3 + 0j, [3], np.array([3]), jnp.asarray(3))


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = 3
    rate: float = 0.5


@pytest.mark.parametrize("value", INTEGERS)
def test_integers(value):
    assert is_integer(value)
    assert is_number(value)
    assert type(check_count("steps", value)) is int
    settings = Settings(steps=value)
    check_counts(settings, steps=3)
    assert type(settings.steps) is int
    assert settings == Settings()


@pytest.mark.parametrize("value", NUMBERS)
def test_numbers(value):
    assert is_number(value)
    assert not is_integer(value)
    for check in (
        lambda settings: check_number(settings, "rate", lambda rate: rate < 1, "small"),
        lambda settings: check_finite_numbers(settings, "rate"),
        lambda settings: check_fractions(settings, "rate"),
    ):
        settings = Settings(rate=value)
        check(settings)
        assert type(settings.rate) is float
        assert json.dumps(dataclasses.asdict(settings)) == '{"steps": 3, "rate": 0.5}'


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused(value):
    assert not is_integer(value)
    assert not is_number(value)
    with pytest.raises(ValueError, match="`steps` must be an integer of at least 1, got "):
        check_count("steps", value)
    with pytest.raises(ValueError, match="`rate` must be a finite number, got "):
        check_finite_numbers(Settings(rate=value), "rate")
    with pytest.raises(ValueError, match="`rate` must be a number that is positive, got "):
        check_number(Settings(rate=value), "rate", lambda rate: rate > 0, "positive")
    if value is not None:  # for which the default is taken
        with pytest.raises(ValueError, match="`rate` must be positive and at most 1, got "):
            check_fractions(Settings(rate=value), "rate")


def test_bounds():
    with pytest.raises(ValueError, match="`steps` must be an integer of at least 4, got 3"):
        check_counts(Settings(), steps=4)
    check_counts(Settings(steps=None), steps=None)
    with pytest.raises(ValueError, match="`rate` must be a number that is positive, got -1"):
        check_number(Settings(rate=-1), "rate", lambda rate: rate > 0, "positive")
    for value in (math.nan, math.inf, np.float32("nan")):
        with pytest.raises(ValueError, match="`rate` must be a finite number"):
            check_finite_numbers(Settings(rate=value), "rate")
    for value in (0, 1.5, np.float64(-1)):
        with pytest.raises(ValueError, match="`rate` must be positive and at most 1"):
            check_fractions(Settings(rate=value), "rate")


def test_choices():
    assert check_choice("kind", "a", {"a": 1, "b": 2}) == "a"
    with pytest.raises(ValueError, match="`kind` must be one of a, b, got 'c'"):
        check_choice("kind", "c", ("a", "b"))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: SpectralNewton(max_steps=np.int64(7)), "max_steps"),
        (lambda: SpectralNewton(rtol=np.float32(0.5)), "rtol"),
        (lambda: PoleLadder(rungs=np.int64(8)), "rungs"),
        (lambda: Shooting(segments=np.int32(2)), "segments"),
        (lambda: Georce(nodes=np.int64(9)), "nodes"),
        (lambda: MultiStart(bends=np.int64(2)), "bends"),
        (lambda: Heun(steps=np.int64(4)), "steps"),
        (lambda: ConstantEMA(np.float64(0.5)), "decay"),
        (lambda: PowerEMA(np.float32(0.1)), "width"),
        (lambda: MinSNRWeighting(np.float64(5)), "gamma"),
        (lambda: LogNormalLevels(std=np.int64(1)), "std"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_hold_numbers_of_python(make, name):
    """Such a setting hashes, prints and is saved like the one that was given Python's number."""
    value = getattr(make(), name)
    assert type(value) in (int, float)
    assert json.dumps(value) in repr(make())
