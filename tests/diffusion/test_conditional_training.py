"""Training with conditions, and what is called while training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.diffusion import MLP, DiffusionModel, EarlyStop, FitConfig, JSONLines, Potential, TrainingHistory, fit

CONFIG = FitConfig(steps=1500, batch_size=256, width=32, depth=2, chunk_steps=500, condition_dropout=0.2)
QUICK = FitConfig(steps=30, batch_size=16, width=8, depth=1, chunk_steps=10)


@pytest.fixture(scope="module")
def two_classes():
    """Class 0 (a third of the points) around (-1, 0), a tenth wide; class 1 around (1, 0.5), two tenths wide."""
    random = np.random.default_rng(0)
    labels = (np.arange(6000) % 3 > 0).astype(int)
    means, sds = np.array([[-1.0, 0.0], [1.0, 0.5]]), np.array([0.1, 0.2])
    points = means[labels] + sds[labels, None] * random.normal(size=(6000, 2))
    return points.astype(np.float32), labels


@pytest.fixture(scope="module")
def model(two_classes):
    return fit(two_classes[0], CONFIG, conditions=two_classes[1], progress=False)


@pytest.mark.slow
def test_conditional_scores_are_those_of_the_classes(model):
    """At noise 0.5: against the exact scores of both classes and of their mixture."""
    sigma, means, sds = 0.5, jnp.array([[-1.0, 0.0], [1.0, 0.5]]), jnp.array([0.1, 0.2])
    noise = jax.random.normal(jax.random.key(0), (2, 400, 2), jnp.float32)
    points = means[:, None] + jnp.sqrt(sds**2 + sigma**2)[:, None, None] * noise

    def log_densities(x):
        v = sds**2 + sigma**2
        return -jnp.sum((x - means) ** 2, -1) / (2 * v) - jnp.log(v) + jnp.log(jnp.array([1 / 3, 2 / 3]))

    cases = [(label, lambda x, label=label: log_densities(x)[label], points[label]) for label in (0, 1)]
    cases.append((None, lambda x: jax.nn.logsumexp(log_densities(x)), points.reshape(-1, 2)))
    for condition, log_density, x in cases:
        exact, learned = jax.vmap(jax.grad(log_density))(x), jax.vmap(model.score_at(sigma, condition))(x)
        error = jnp.linalg.norm(learned - exact) / jnp.linalg.norm(exact)
        assert error < 0.15, (condition, error)


@pytest.mark.slow
def test_samples_of_a_class(model):
    samples = np.asarray(model.sample(jax.random.key(0), 300, condition=0))
    np.testing.assert_allclose(samples.mean(0), [-1, 0], atol=0.08)
    assert np.mean(samples[:, 0] < 0) > 0.97
    unconditional = np.asarray(model.sample(jax.random.key(0), 300))
    assert abs(np.mean(unconditional[:, 0] < 0) - 1 / 3) < 0.1
    guided = np.asarray(model.sample(jax.random.key(0), 300, condition=0, guidance=3.0))
    assert np.mean(guided[:, 0] < 0) > 0.97


@pytest.mark.slow
def test_conditions_compile_once_and_survive_a_file(model, tmp_path):
    traces = []

    @jax.jit
    def score(model, x, label):
        traces.append(None)
        return model.score_at(0.3, label)(x)

    x = jnp.ones(2, jnp.float32)
    values = [score(model, x, jnp.asarray(label)) for label in (0, 1, -1)]
    assert len(traces) == 1
    assert not np.allclose(values[0], values[1])
    np.testing.assert_allclose(values[2], model.score_at(0.3)(x), rtol=1e-4)
    model.save(tmp_path)
    np.testing.assert_array_equal(DiffusionModel.load(tmp_path).score_at(0.3, 1)(x), model.score_at(0.3, 1)(x))


@pytest.mark.slow
def test_vectors_as_conditions(two_classes):
    vectors = np.eye(2, dtype=np.float32)[two_classes[1]]
    model = fit(two_classes[0], QUICK, conditions=vectors, progress=False)
    network = MLP(2, 8, 1, condition_dim=2, key=jax.random.key(0))
    same = fit(two_classes[0], QUICK, conditions=vectors, network=network, progress=False)
    for each in (model, same):
        assert each.score_at(0.5, jnp.array([1.0, 0.0]))(jnp.zeros(2)).shape == (2,)


@pytest.mark.slow
def test_a_run_with_conditions_resumes_exactly(two_classes, tmp_path):
    points, labels = two_classes
    whole = fit(points, QUICK, conditions=labels, progress=False)
    stop = [lambda history: history.steps[-1] == 10]
    fit(points, QUICK, conditions=labels, progress=False, checkpoint_dir=tmp_path, callbacks=stop)
    again = fit(points, QUICK, conditions=labels, progress=False, checkpoint_dir=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.weights, whole.weights)
    with pytest.raises(ValueError, match="data"):
        fit(points, QUICK, conditions=1 - labels, progress=False, checkpoint_dir=tmp_path)


def test_a_network_that_always_knew_its_condition_has_no_score_without_one(two_classes):
    config = FitConfig(steps=10, batch_size=16, width=8, depth=1, condition_dropout=0.0)
    model = fit(two_classes[0], config, conditions=two_classes[1], progress=False)
    assert model.score_at(0.5, 1)(jnp.zeros(2)).shape == (2,)
    for condition in (None, -1, jnp.array(-1)):
        with pytest.raises(ValueError, match=r"`condition` must be given: .* `condition_dropout=0`.* got (None|-1)$"):
            model.score_at(0.5, condition)
    for name, settings in (("guidance", {"guidance": 2.0}), ("interval", {"interval": (0.1, 1.0)})):
        with pytest.raises(ValueError, match=f"`{name}` needs a model that was trained with `condition_dropout` > 0"):
            model.sample(jax.random.key(0), 2, condition=1, **settings)


def test_vectors_that_are_not_given(two_classes):
    """For a network that always knew them; one that is traced is not looked at."""
    config = FitConfig(steps=10, batch_size=16, width=8, depth=1, condition_dropout=0.0)
    model = fit(two_classes[0], config, conditions=two_classes[0], progress=False)
    with pytest.raises(ValueError, match="`condition` must be given"):
        model.score_at(0.5, (jnp.ones(2), False))
    score = jax.jit(lambda given: model.score_at(0.5, (jnp.ones(2), given))(jnp.zeros(2)))
    np.testing.assert_allclose(score(True), model.score_at(0.5, jnp.ones(2))(jnp.zeros(2)), rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_a_network_for_conditions_needs_some(two_classes, wrap):
    network = wrap(MLP(2, 8, 1, classes=2, key=jax.random.key(0)))
    batches = (two_classes[0][:16] for _ in range(1000))
    for data in (two_classes[0], batches):
        with pytest.raises(ValueError, match="`conditions` must be given for a `network` that takes them"):
            fit(data, QUICK, network=network, progress=False)


class TestCallbacks:
    def test_a_run_that_was_stopped_does_not_go_on(self, two_classes, tmp_path):
        """Not even off the grid of checkpoints, and the same model comes out."""
        stop = [lambda history: history.steps[-1] >= 20]
        settings = {"progress": False, "checkpoint_dir": tmp_path, "callbacks": stop}
        first, again = (fit(two_classes[0], QUICK, **settings) for _ in range(2))
        assert first.history.steps.tolist() == again.history.steps.tolist() == [10, 20]
        jax.tree.map(np.testing.assert_array_equal, first.weights, again.weights)

    @pytest.mark.parametrize("callbacks", [EarlyStop(5), [3], None])
    def test_what_is_no_function(self, two_classes, callbacks):
        with pytest.raises(TypeError, match="`callbacks` must be a sequence of functions"):
            fit(two_classes[0], QUICK, progress=False, callbacks=callbacks)

    def test_all_are_called_and_one_stops(self, two_classes, tmp_path):
        seen = []
        log = JSONLines(tmp_path / "folder" / "metrics.jsonl")
        callbacks = [lambda history: seen.append(history) or len(history.steps) == 2, log]
        model = fit(two_classes[0], QUICK, progress=False, callbacks=callbacks)
        assert [history.steps.tolist() for history in seen] == [[10], [10, 20]]
        lines = [json.loads(line) for line in (tmp_path / "folder" / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [10, 20]
        assert [line["train_loss"] for line in lines] == model.history.train_loss.tolist()
        assert [line["held_out_loss"] for line in lines] == model.history.held_out_loss.tolist()
        assert [path.name for path in (tmp_path / "folder").iterdir()] == ["metrics.jsonl"]

    def test_a_file_of_losses_grows_by_a_line(self, tmp_path):
        path, columns = (
            tmp_path / "losses.jsonl",
            (np.arange(10, 50, 10), np.arange(4.0), np.array([0.5, np.nan, 2, 3])),
        )
        histories = [TrainingHistory(*(column[:k] for column in columns)) for k in range(1, 5)]
        log = JSONLines(path)

        def steps_after(history):
            log(history)
            return [json.loads(line)["step"] for line in path.read_text().splitlines()]

        assert steps_after(histories[0]) == [10]
        before = path.stat().st_ino
        assert steps_after(histories[1]) == [10, 20]
        assert path.stat().st_ino == before  # appended, not replaced
        assert steps_after(histories[2]) == [10, 20, 30]
        # A run that goes on from an earlier checkpoint, and one whose last line was cut off.
        assert steps_after(histories[1]) == [10, 20]
        path.write_bytes(path.read_bytes()[:-5])
        assert steps_after(histories[2]) == [10, 20, 30]
        assert steps_after(histories[2]) == [10, 20, 30]
        # Another run with the same steps.
        other = TrainingHistory(columns[0], 2 * columns[1], columns[2])
        assert steps_after(other) == [10, 20, 30, 40]
        assert [json.loads(line)["train_loss"] for line in path.read_text().splitlines()] == [0, 2, 4, 6]

    def test_early_stop(self):
        def stops(losses, patience):
            return EarlyStop(patience)(TrainingHistory(np.arange(len(losses)), np.zeros(len(losses)), np.array(losses)))

        assert not stops([0.5, 0.4, 0.3], 1)
        assert stops([0.5, 0.4, 0.45], 1)
        assert not stops([0.5, 0.4, 0.45], 2)
        assert not stops([np.nan, np.nan, np.nan], 1)
        with pytest.raises(ValueError, match="`patience` must be an integer of at least 1, got 0"):
            EarlyStop(0)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (np.zeros(6000), r"`conditions` must be integer labels .* got float64 of shape \(6000,\)"),
        (np.zeros(5, int), "`conditions` must have one entry for each of the 6000 points of `data`, got 5"),
        (np.full(6000, -1), "`conditions` must be labels from 0 on, got -1"),
        (np.where(np.eye(6000, 2) > 0, np.nan, 0.0), "`conditions` must be finite, got nan in row 0, column 0"),
    ],
)
def test_wrong_conditions(two_classes, conditions, message):
    with pytest.raises(ValueError, match=message):
        fit(two_classes[0], QUICK, conditions=conditions, progress=False)


@pytest.mark.slow
def test_conditions_where_there_can_be_none(two_classes, model):
    points, labels = two_classes
    with pytest.raises(ValueError, match="`reference_size` must be 0 with `conditions`"):
        fit(points, FitConfig(steps=10, batch_size=8, reference_size=64), conditions=labels, progress=False)
    with pytest.raises(ValueError, match="takes no conditions"):
        fit(points, QUICK, conditions=labels, network=MLP(2, 8, 1, key=jax.random.key(0)), progress=False)
    with pytest.raises(ValueError, match="`guidance` needs a `condition`, got None with guidance 2"):
        model.sample(jax.random.key(0), 3, guidance=2.0)
    with pytest.raises(ValueError, match="`interval` needs a `condition`"):
        model.sample(jax.random.key(0), 3, interval=(0.1, 1.0))
    with pytest.raises(ValueError, match="must be a label from 0 to 1, or -1 for no condition, got 5"):
        model.sample(jax.random.key(0), 3, condition=5)
