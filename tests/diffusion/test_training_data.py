"""Where the points come from: arrays, files that stay on disk, iterators; and points that nobody can train on."""

import dataclasses
import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.datasets import Standardization
from scoregeo.diffusion import EDM, MLP, VE, VP, Cosine, FitConfig, SubVP, TrainingInterrupted, fit
from scoregeo.diffusion.training import data, rows
from scoregeo.diffusion.training.checkpoint import Checkpoints

CONFIG = FitConfig(steps=60, batch_size=32, width=8, depth=2, potential=False, chunk_steps=20, checkpoint_every=20)
POINTS = np.random.default_rng(0).normal(size=(500, 2))
LABELS = np.arange(500) % 3


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def close(a, b, rtol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol), a, b)


@pytest.fixture
def mapped(tmp_path):
    """Writes an array to a file and maps it."""

    def make(array):
        np.save(tmp_path / "points.npy", array)
        return np.load(tmp_path / "points.npy", mmap_mode="r")

    return make


class TestFiles:
    @pytest.mark.slow
    def test_they_train_as_arrays_do(self, mapped, tmp_path, monkeypatch, interrupt_after):
        """The same points in every step, in blocks that divide nothing; resumed bit for bit."""
        monkeypatch.setattr(rows, "_BLOCK", 64)
        points = mapped(POINTS.astype(np.float32))
        mine, resident = (data.as_data(each, LABELS, CONFIG) for each in (points, np.array(points)))
        assert mine.digest() == resident.digest()
        batches = mine.batches(jax.random.key(5), 30, 4)
        for number, step in enumerate(range(30, 34)):
            index = jax.random.randint(data.step_keys(jax.random.key(5), step)[0], (32,), 0, 475)
            jax.tree.map(np.testing.assert_array_equal, batches.take(number), resident.resident.take(index))
        settings = {"conditions": LABELS, "progress": False}
        whole = fit(points, CONFIG, **settings)
        close(whole.history, fit(np.array(points), CONFIG, **settings).history, 1e-5)
        with interrupt_after(40), pytest.raises(TrainingInterrupted):
            fit(points, CONFIG, checkpoint_dir=tmp_path / "run", **settings)
        assert equal(fit(points, CONFIG, checkpoint_dir=tmp_path / "run", **settings).weights, whole.weights)

    @pytest.mark.slow
    def test_references_and_other_numbers(self, mapped):
        """Float64, a reference set from the file, one of all 475 training points (which are then in memory), and whole
        numbers (which become floats)."""
        for changes in ({"reference_size": 100}, {"reference_size": 480}, {"steps": 20, "holdout": 0.0}):
            config = dataclasses.replace(CONFIG, **changes)
            numbers = POINTS if config.reference_size else np.round(10 * POINTS).astype(np.int16)
            models = [fit(each, config, progress=False) for each in (numbers, mapped(numbers))]
            assert models[0].dtype == jnp.float64
            close(*(model.history for model in models), 1e-8)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", [">f8", ">f4", ">i2", np.float16])
    def test_numbers_as_some_files_have_them(self, mapped, kind):
        """The other byte order, and half precision: they train as the same numbers in the usual form do."""
        config, numbers = dataclasses.replace(CONFIG, steps=20), (10 * POINTS).astype(kind)
        usual = fit(numbers.astype(np.float64 if kind in (">f8", ">i2") else np.float32), config, progress=False)
        for each in (numbers, mapped(numbers)):
            model = fit(each, config, progress=False)
            assert model.dtype == usual.dtype
            close(model.history, usual.history, 1e-5)

    @pytest.mark.slow
    def test_they_are_never_in_memory(self, mapped, monkeypatch):
        """A file of 32 MB; what NumPy and JAX hold while training on it is a small part of that."""
        monkeypatch.setattr(rows, "_BLOCK", 1024)
        points = mapped(np.random.default_rng(0).normal(size=(250_000, 32)).astype(np.float32))
        before = sum(array.nbytes for array in jax.live_arrays())
        held = []

        def look(history):
            held.append(sum(array.nbytes for array in jax.live_arrays()) - before)

        config = dataclasses.replace(CONFIG, steps=40, holdout=0.05)
        tracemalloc.start()
        fit(points, config, callbacks=[look], progress=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Most of both are the numbers of the rows, in a random order.
        assert max(held) < points.nbytes / 10
        assert peak < points.nbytes / 3

    def test_bad_ones(self, mapped, monkeypatch):
        monkeypatch.setattr(rows, "_BLOCK", 64)
        bad = POINTS.copy()
        bad[[130, 300, 301], [1, 0, 0]] = np.nan, np.inf, np.nan
        for array, message in [
            (bad, r"`data` must be finite, but 3 of 1000 entries are NaN or infinite \(first at \(130, 1\)\)"),
            (
                POINTS[:, 0],
                r"`data` must have real numbers of shape \(n, d\) with n, d >= 1, got float64 of shape \(500,",
            ),
            (POINTS > 0, "got bool of shape"),
            (POINTS[:2], "`data` must have at least 3 points, got 2"),
            (np.ones((9, 2)), "`data` must have points that differ"),
        ]:
            with pytest.raises(ValueError, match=message):
                fit(mapped(array), CONFIG, progress=False)


def batches(start=0, size=32, labels=False):
    """Batch number k is always the same."""
    for k in itertools.count(start):
        random = np.random.default_rng(k)
        points = random.normal(size=(size, 2)).astype(np.float32)
        yield (points, random.integers(0, 3, size)) if labels else points


class TestIterators:
    def test_one_batch_for_each_step_and_exact_resumption(self, tmp_path, interrupt_after):
        """From an iterator that begins again, and from a function that is told where to begin."""
        consumed = []

        def counted(iterator):
            for k, batch in enumerate(iterator):
                consumed.append(k)
                yield batch

        whole = fit(counted(batches()), CONFIG, progress=False)
        assert consumed == list(range(64 + 60))  # 64 * 32 points are held out
        starts = []

        def from_batch(start):
            starts.append(start)
            return batches(start)

        for name, source in (("iterator", batches), ("function", lambda: from_batch)):
            folder = tmp_path / name
            with interrupt_after(40), pytest.raises(TrainingInterrupted):
                fit(source(), CONFIG, checkpoint_dir=folder, progress=False)
            resumed = fit(source(), CONFIG, checkpoint_dir=folder, progress=False)
            assert equal(resumed.weights, whole.weights)
            assert resumed.history.to_dict() == whole.history.to_dict()
        assert starts == [0, 0, 64 + 40]
        with pytest.raises(ValueError, match="`checkpoint_dir` holds a run with other data"):
            fit(batches(5), CONFIG, checkpoint_dir=tmp_path / "iterator", progress=False)

    @pytest.mark.parametrize("spoiled", ["batch", "file", "callback"])
    def test_an_error_costs_no_finished_chunk(self, tmp_path, monkeypatch, spoiled):
        """No checkpoint is due when a batch is bad, the file is gone, or a callback raises."""
        config = dataclasses.replace(CONFIG, checkpoint_every=1000)

        def source(error=None):
            for k, batch in enumerate(batches()):
                if k == 64 + 50 and error == "file":
                    raise OSError("gone")
                yield batch * np.nan if k == 64 + 50 and error == "batch" else batch

        def broken(history):
            if spoiled == "callback" and history.last_step == 40:
                raise RuntimeError("mine")

        settings = {"checkpoint_dir": tmp_path, "progress": False}
        error, message = {
            "batch": (ValueError, "batch 114 of `data` must be finite"),
            "file": (OSError, "gone"),
            "callback": (RuntimeError, "mine"),
        }[spoiled]
        monkeypatch.setattr(Checkpoints, "save", lambda *_: 1 / 0)  # the error that came first is the one told
        with pytest.raises(error, match=f"^{message}"):
            fit(source(spoiled), config, callbacks=[broken], **settings)
        monkeypatch.undo()
        with pytest.raises(error, match=f"^{message}"):
            fit(source(spoiled), config, callbacks=[broken], **settings)
        assert [path.name for path in tmp_path.iterdir()] == ["40"]
        whole = fit(source(), config, progress=False)
        assert equal(fit(source(), config, **settings).weights, whole.weights)

    @pytest.mark.slow
    def test_it_learns_what_the_batches_hold(self):
        """Mean and spread come from the first batches; labels too; a pair may be a list."""
        config = dataclasses.replace(CONFIG, steps=20, batch_size=16, accumulation=2)
        shifted = ([points + 7, labels] for points, labels in batches(labels=True))
        model = fit(shifted, config, progress=False)
        np.testing.assert_allclose(model.weights["mean"], 7, atol=0.1)
        np.testing.assert_allclose(model.weights["sigma_data"], 1, atol=0.05)
        assert model.score_at(0.5, 2)(jnp.zeros(2)).shape == (2,)
        assert np.isfinite(model.history.held_out_losses).all()

    def test_a_list_of_two_points_is_no_pair(self):
        pairs = data.as_data(
            itertools.repeat([[0.0, 1.0], [2.0, 4.0]]), None, dataclasses.replace(CONFIG, batch_size=2)
        )
        np.testing.assert_array_equal(pairs.mean, [1.0, 2.5])
        assert pairs.example is None

    def test_bad_ones(self):
        def changed(number, change, labels=False):
            return (change(batch) if k == number else batch for k, batch in enumerate(batches(labels=labels)))

        nan = np.full((32, 2), np.nan, np.float32)
        network = MLP(2, 8, 2, classes=3, key=jax.random.key(0))
        for source, message in [
            (itertools.islice(batches(), 70), r"64 batches to hold out and one for each of the 60 steps.* no batch 70"),
            (itertools.islice(batches(), 3), "there is no batch 3 of `data`"),
            (changed(66, lambda b: b[:5]), r"batch 66 of `data` must have real numbers of shape \(32, d\).*\(5, 2\)"),
            (changed(66, lambda b: nan), r"batch 66 of `data` must be finite, but 64 of 64 .* \(first at \(0, 0\)\)"),
            (changed(66, lambda b: b.astype(np.float64)), "`data` must give batches of one kind"),
            (changed(66, lambda b: (b[0], b[1] + 3), labels=True), "`conditions` of batch 66 .* from 0 to 2.* got 5"),
            (changed(66, lambda b: (b[0], -b[1]), labels=True), "`conditions` of batch 66 of `data` must be labels"),
            (lambda start: 3, "`data` must return an iterator of batches, got int"),
        ]:
            with pytest.raises((ValueError, TypeError), match=message):
                fit(source, CONFIG, progress=False, network=network if "from 0 to 2" in message else None)
        with pytest.raises(ValueError, match="`conditions` must be None for batches"):
            fit(batches(), CONFIG, conditions=LABELS, progress=False)


class TestOddPoints:
    @pytest.mark.slow
    def test_fewer_than_a_batch_and_constant_columns(self):
        """Batches are drawn with replacement; a constant column is a point mass, whose score has a closed form."""
        points = np.random.default_rng(0).normal(size=(20, 2))
        column = np.concatenate([points, np.full((20, 1), 3.0)], 1)
        standardized = Standardization.fit(column).apply(jnp.asarray(column))
        np.testing.assert_array_equal(standardized[:, 2], 0)
        config = dataclasses.replace(CONFIG, batch_size=64, width=16, steps=400, chunk_steps=200)
        model = fit(column, config, progress=False)
        assert np.isfinite(model.history.train_loss).all()
        x = jnp.asarray(column) + 0.5 * jax.random.normal(jax.random.key(0), column.shape)
        score = jax.vmap(model.score_at(0.5))(x)[:, 2]
        np.testing.assert_allclose(score, -(x[:, 2] - 3) / 0.25, atol=0.6)

    def test_a_column_that_the_least_noise_hides(self):
        """Its width is not learned: samples are too wide there, and nothing else shows it."""
        points = np.random.default_rng(0).normal(size=(400, 3)) * [1.0, 0.001, 0.01]
        config = dataclasses.replace(CONFIG, steps=2, chunk_steps=2)
        with pytest.warns(UserWarning, match=r"`data` vary in column 1 by 0\.00\d+ in all, .* noise level of 0\.002"):
            fit(points, config, progress=False)
        # Neither a constant column nor one that is rarely different, such as a pixel at the edge of an image.
        points[:, 1] = 3.0
        fit(points, config, progress=False)
        points[7, 1] = 4.0
        fit(points, config, progress=False)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("schedule", "most"),
        [(EDM(), 80), (VE(), 50), (VP(), 152), (SubVP(), 152), (Cosine(), 128), (EDM(sigma_max=200.0), 200)],
    )
    def test_a_spread_too_large_for_the_noise(self, schedule, most):
        """Samples would start from noise that does not hide the data: about 3% too narrow where the warning begins."""
        config, stop = dataclasses.replace(CONFIG, schedule=schedule), [lambda _: True]
        points = POINTS / POINTS.std() * most
        fit(points / 4.2, config, callbacks=stop, progress=False)
        message = rf"`data` has a standard deviation of \d+.*, too much for a largest noise level of {most} "
        with pytest.warns(UserWarning, match=message) as caught:
            fit(points / 3.8, config, callbacks=stop, progress=False)
        assert len(caught) == 1
        assert caught[0].filename == __file__

    def test_labels_that_a_network_does_not_know(self):
        network = MLP(2, 8, 2, classes=2, key=jax.random.key(0))
        with pytest.raises(ValueError, match="must be a label from 0 to 1, or -1 for no condition, got 2"):
            fit(POINTS, CONFIG, conditions=LABELS, network=network, progress=False)


MASKED = np.ma.masked_greater(POINTS, 1.5)
COUNT = int(MASKED.mask.sum())
HUGE = np.arange(1000).reshape(500, 2) + 2**33


class TestNumbersOfNumPy:
    """What NumPy arrays hold besides numbers, and numbers that JAX would cut."""

    def test_masked_entries_are_not_trained_on(self):
        with pytest.raises(
            ValueError, match=f"`data` must have no masked entries, but {COUNT} of 1000 are masked: drop"
        ):
            fit(MASKED, CONFIG, progress=False)
        with pytest.raises(ValueError, match="batch 0 of `data` must have no masked entries, but "):
            fit((np.ma.masked_greater(batch, 1.5) for batch in batches()), CONFIG, progress=False)
        for conditions in (np.ma.array(LABELS, mask=LABELS == 2), np.ma.masked_less(POINTS, 0)):
            count = int(conditions.mask.sum())
            with pytest.raises(ValueError, match=f"`conditions` must have no masked entries, but {count} of"):
                fit(POINTS, CONFIG, conditions=conditions, progress=False)
        np.testing.assert_array_equal(data.as_data(np.ma.array(POINTS), LABELS, CONFIG)._rows, POINTS)

    @pytest.mark.parametrize("kind", ["array", "file", "iterator"])
    def test_integers_that_float32_would_round(self, kind, mapped):
        """Time stamps: the mean is subtracted from them in float64, and what is left is small."""
        values = {"array": HUGE, "file": mapped(HUGE), "iterator": (HUGE[:32] for _ in range(1000))}[kind]
        with jax.enable_x64(False):
            found = data.as_data(values, None, dataclasses.replace(CONFIG, holdout=0.0))
            expected = HUGE[:32] if kind == "iterator" else HUGE
            np.testing.assert_array_equal(found.mean, expected.mean(0))
            np.testing.assert_allclose(found.spread, np.sqrt(expected.var(0).mean()))

    @pytest.mark.parametrize("kind", ["array", "file", "iterator"])
    def test_large_integers_that_it_holds(self, kind, mapped):
        """They are those of float64, but for nothing."""
        large = np.random.default_rng(0).integers(-900, 900, (500, 2)) * 2**30
        values = {"array": large, "file": mapped(large), "iterator": (large[:32] for _ in range(1000))}[kind]
        with jax.enable_x64(False):
            found = data.as_data(values, None, dataclasses.replace(CONFIG, holdout=0.0))
            expected = data.as_data(large.astype(float), None, dataclasses.replace(CONFIG, holdout=0.0))
        if kind == "iterator":
            np.testing.assert_allclose(found.mean, large[:32].mean(0))
        else:
            np.testing.assert_allclose(found.mean, expected.mean)
            np.testing.assert_allclose(found.spread, expected.spread)

    @pytest.mark.parametrize("dtype", [">f8", ">f4", ">f2", ">i4", np.longdouble])
    def test_any_byte_order(self, dtype, mapped):
        values = np.arange(1000).reshape(500, 2).astype(dtype)
        native = np.asarray(values, np.float64)
        for kind in (values, mapped(values), (values[:32] for _ in range(1000))):
            found = data.as_data(kind, LABELS.astype(">i8") if hasattr(kind, "shape") else None, CONFIG)
            rows = native if hasattr(kind, "shape") else native[:32]
            assert np.isfinite(found.mean).all()
            assert rows.min() <= found.mean.min() <= found.mean.max() <= rows.max()

    def test_objects_are_named(self):
        with pytest.raises(
            TypeError, match="`data` must be an array of numbers, got ndarray of dtype object: convert it"
        ):
            fit(POINTS.astype(object), CONFIG, progress=False)
        with pytest.raises(ValueError, match="`conditions` must be an array of numbers, got ndarray of dtype object"):
            fit(POINTS, CONFIG, conditions=LABELS.astype(object), progress=False)


class TestLabelsThatAreNames:
    @pytest.mark.parametrize("largest", [2_000_000, 5_000, 2**31 - 1])
    def test_they_do_not_make_a_table(self, largest):
        labels = np.where(LABELS == 2, largest, 0)
        message = f"2 different labels up to {largest} would take {largest + 1} of them. Please number .*return_inverse"
        with pytest.raises(ValueError, match=message):
            fit(POINTS, CONFIG, conditions=labels, progress=False)
        with pytest.raises(ValueError, match=message):
            fit(((batch, labels[:32]) for batch in batches()), CONFIG, progress=False)

    def test_they_are_not_cut_to_32_bits(self):
        with pytest.raises(
            ValueError, match=f"`conditions` must be labels of at most {2**31 - 1}, got {2**32 + 1}: number"
        ):
            fit(POINTS, CONFIG, conditions=np.where(LABELS == 2, 2**32 + 1, 0), progress=False)

    def test_as_advised(self):
        labels = np.unique(np.where(LABELS == 2, 2_000_000, 7), return_inverse=True)[1]
        short = dataclasses.replace(CONFIG, steps=20)
        assert fit(POINTS, short, conditions=labels, progress=False).denoiser.net.classes == 2

    @pytest.mark.slow
    def test_some_may_be_missing(self):
        short = dataclasses.replace(CONFIG, steps=20)
        labels = np.where(LABELS == 2, 999, 0)
        assert fit(POINTS, short, conditions=labels, progress=False).denoiser.net.classes == 1000
        network = MLP(2, 8, 1, classes=5001, key=jax.random.key(0))
        assert fit(POINTS, short, conditions=5 * labels, network=network, progress=False).denoiser.net.classes == 5001


@pytest.mark.slow
def test_principal_components_are_of_one_unit(recwarn):
    """Columns that vary very differently are warned of where nobody has chosen their units, and not elsewhere."""
    points = np.random.default_rng(0).normal(size=(200, 2)) * [3.0, 0.005]
    quick = FitConfig(
        steps=1, chunk_steps=1, batch_size=8, width=4, depth=1, warmup_steps=0, schedule=EDM(sigma_min=1e-3)
    )
    with pytest.warns(UserWarning, match="hides the smaller one"):
        fit(points, quick, progress=False)
    recwarn.clear()
    fit(points, quick, progress=False, standardization=Standardization(np.zeros(2), np.ones(2)))
    assert not recwarn.list
