"""The checks of arguments: one vocabulary, in which a number is a number whether it is of Python or of NumPy."""

import dataclasses
import json
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scoregeo import (
    ConformalMetric,
    EuclideanMetric,
    FunctionScore,
    GaussianMixtureScore,
    Georce,
    MatrixMetric,
    MultiStart,
    PoleLadder,
    Shooting,
    SpectralNewton,
    datasets,
    dist,
    pairwise_dist,
)
from scoregeo._checks import (
    as_array,
    as_float,
    check_choice,
    check_count,
    check_counts,
    check_finite_numbers,
    check_fractions,
    check_number,
    is_integer,
    is_number,
    warn,
)
from scoregeo.adapters.sklearn import GeodesicKMeans
from scoregeo.comparison import compare
from scoregeo.diffusion import ConstantEMA, Heun, LogNormalLevels, MinSNRWeighting, PowerEMA, drop_condition
from scoregeo.metrics import AbstractInnerProduct

MOONS = datasets.two_moons(jax.random.key(0), 200)
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


class TestIntegers:
    """They are converted before JAX sees them, which keeps 32 of their digits where float64 is off."""

    @pytest.mark.parametrize("wide", [True, False])
    @pytest.mark.parametrize("make", [np.array, list, lambda x: np.array(x, ">i8"), lambda x: np.array(x, np.uint64)])
    def test_large_ones_keep_their_value(self, make, wide):
        with jax.enable_x64(wide):
            values = as_float(make([2**32, 3 * 2**40, 7]), "x")
            assert values.dtype == (np.float64 if wide else np.float32)
            np.testing.assert_array_equal(values, [2.0**32, 3 * 2.0**40, 7.0])

    @pytest.mark.slow
    @pytest.mark.parametrize("wide", [True, False])
    def test_distance(self, wide):
        with jax.enable_x64(wide):
            for far in (2**32, -(2**40)):
                found = dist(EuclideanMetric(), np.array([far, 5]), np.array([0, 5]))
                np.testing.assert_allclose(found, abs(far), rtol=1e-6)

    @pytest.mark.parametrize(
        ("wide", "value", "rounds"),
        [
            (False, 2**24, False),
            (False, 2**24 + 1, True),
            (False, -(2**24) - 1, True),
            (False, 2**24 + 2, False),
            (False, -(2**63), False),
            (False, 1_700_000_001, True),
            (True, 1_700_000_001, False),
            (True, 2**53, False),
            (True, 2**53 + 1, True),
            (True, 2**62 + 2**9, True),
            (True, 2**62 + 2**10, False),
        ],
    )
    @pytest.mark.parametrize("many", [True, False])
    def test_what_would_be_rounded_is_refused(self, wide, value, rounds, many):
        """The oracle is Python, whose integers have all digits."""
        with jax.enable_x64(wide):
            dtype = np.float64 if wide else np.float32
            assert (int(dtype(value)) != value) == rounds
            x = np.array([1, value]) if many else value
            if not rounds:
                assert int(np.ravel(as_float(x, "x"))[-1]) == value
                return
            with pytest.raises(ValueError, match=rf"`x` holds integers that {np.dtype(dtype)} .* first is {value}\)"):
                as_float(x, "x")

    def test_those_of_jax_too(self):
        with jax.enable_x64(False):
            with pytest.raises(ValueError, match=r"1 of 2 \(the first is 16777217\)"):
                as_float(jnp.array([1, 2**24 + 1]), "x")
            assert jax.jit(lambda x: as_float(x, "x"))(jnp.array([1, 2])).dtype == np.float32

    def test_parts_of_a_list(self):
        """A list may mix numbers with what is traced."""
        with jax.enable_x64(False):
            found = jax.jit(lambda x: as_float([x, np.int64(2**32), 3], "x"))(1.5)
            np.testing.assert_array_equal(found, [1.5, 2.0**32, 3])
            assert found.dtype == np.float32

    def test_arrays_that_stay_integers(self):
        """Arguments of functions and labels."""
        with jax.enable_x64(False):
            assert as_array(np.array([3, -4]), "k").dtype == np.int32
            with pytest.raises(
                ValueError, match=r"`k` must be integers from -2147483648 to 2147483647.* 0 to 4294967296"
            ):
                as_array(np.array([0, 2**32]), "k")
            with pytest.raises(ValueError, match="`args` must be integers from"):
                FunctionScore(lambda x, k: x, np.array([2**32]))
        assert as_array(np.array([0, 2**32]), "k")[1] == 2**32
        assert as_array(2.0, "k").weak_type


MASKED = np.ma.masked_equal([[1.0, 2.0], [-9999.0, 4.0], [5.0, -9999.0]], -9999.0)


class TestMasks:
    @pytest.mark.parametrize(
        "use",
        [
            lambda x: as_float(x, "x"),
            lambda x: as_array(x, "x"),
            lambda x: as_float(list(x), "x"),
            lambda x: pairwise_dist(EuclideanMetric(), x),
            lambda x: MatrixMetric(lambda y, a: jnp.eye(2), x),
            lambda x: compare(x, metrics=dict.fromkeys("ab", lambda x, y: jnp.sum(x - y))),
            lambda x: drop_condition(x, jnp.zeros(3, bool)),
        ],
    )
    def test_masked_entries_are_refused(self, use):
        with pytest.raises(ValueError, match=r"must have no masked entries, but 2 of 6 are masked: drop .*`\.filled"):
            use(MASKED)

    def test_masked_numbers_are_refused(self):
        for x in (MASKED[1], np.ma.masked, [1.0, np.ma.masked]):
            with pytest.raises(ValueError, match="`x` must have no masked entries, but 1 of"):
                as_float(x, "x")

    def test_nothing_masked_is_accepted(self):
        np.testing.assert_array_equal(as_float(MASKED[:1], "x"), [[1.0, 2.0]])
        np.testing.assert_array_equal(as_array(np.ma.array([1, 2]), "x"), [1, 2])


class TestTypesOfNumPy:
    @pytest.mark.parametrize("dtype", [">f8", ">f4", ">i4", ">u2", "<f8", np.longdouble])
    def test_any_byte_order_and_length(self, dtype):
        x = np.array([[1, 2], [3, 5]], dtype)
        np.testing.assert_array_equal(as_float(x, "x"), [[1.0, 2.0], [3.0, 5.0]])
        np.testing.assert_array_equal(as_array(x, "x"), [[1, 2], [3, 5]])

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.array([1.0, 2.0], object), "`x` must be an array of numbers, got ndarray of dtype object: convert it"),
            ([1.0, None], "`x` must be an array of numbers, got list of dtype object"),
            ([[1.0], [1.0, 2.0]], "`x` must be an array of numbers, got list: .*inhomogeneous"),
            (np.array(["a"]), "`x` must be an array of numbers, got ndarray of dtype <U1"),
            (np.array(["2026-01-01"], "M8[D]"), "`x` must be an array of numbers, got ndarray of dtype datetime64"),
            (np.array([True]), "`x` must be an array of real numbers, got dtype bool"),
            (np.array([1j]), "`x` must be an array of real numbers, got dtype complex128"),
            (np.array([1.0], np.float16), "`x` must have at least single precision, got dtype float16"),
            (np.array([1.0], ">f2"), "`x` must have at least single precision, got dtype float16"),
        ],
    )
    def test_what_is_no_number_is_told_why(self, x, message):
        with pytest.raises(TypeError, match=message):
            as_float(x, "x")


class Plain(AbstractInnerProduct):
    """What needs a matrix takes the defaults, which warn where it is large."""

    def mv(self, v):
        return 2 * v


def _moved():
    from scoregeo.fisher_rao import compare  # noqa: F401


def _pipeline():
    points = np.random.default_rng(0).normal(size=(200, 2))
    make_pipeline(StandardScaler(), GeodesicKMeans(n_clusters=5, max_iter=1, random_state=0)).fit(points)


class TestWarnings:
    """A warning names the line that called scoregeo, whatever lies between: functions of ours, checks of annotations,
    wrappers of JAX, pipelines of scikit-learn."""

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                lambda: GaussianMixtureScore.fit(MOONS.points, 3, key=jax.random.key(0), max_steps=1),
                "expectation maximisation ended at max_steps=1",
            ),
            (
                lambda: ConformalMetric.score_norm(MOONS.score, MOONS.points, 1e6),
                r"`ratio` 1e\+06 is out of reach",
            ),
            (lambda: jax.jit(lambda v: Plain().sqrt_mv(v))(jnp.ones(100)), "forms a 100 x 100 matrix"),
            (_moved, "compare has moved"),
            (_pipeline, "GeodesicKMeans: "),
        ],
    )
    def test_point_at_the_caller(self, call, message):
        with pytest.warns((UserWarning, DeprecationWarning), match=message) as caught:
            call()
        assert {warning.filename for warning in caught} == {__file__}
        assert {warning.lineno for warning in caught} <= {line for *_, line in call.__code__.co_lines()}

    def test_are_said_once_at_a_line(self):
        """As Python's own: filters and registries are those of the calling module."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(3):
                warn("once")
            warn("elsewhere")
        assert [str(warning.message) for warning in caught] == ["once", "elsewhere"]
