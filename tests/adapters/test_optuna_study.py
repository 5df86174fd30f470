"""The study behind a search, without geometry: that it goes on after an interrupt, and refuses other files."""

import sqlite3

import numpy as np
import pytest

from scoregeo.adapters.optuna.study import identity, run_study

optuna = pytest.importorskip("optuna")

SPACE = {"noise_level": (0.01, 1.0), "ratio": (1.0, 1e4), "width": (4, 64)}


def bowl(trial):
    """Best at noise level 0.1, ratio 100 and width 16; told after 1, 2 and 4 pairs."""
    settings = trial.settings
    value = sum(float(np.log(settings[k] / best) ** 2) for k, best in zip(SPACE, (0.1, 100.0, 16), strict=True))
    for seen in (1, 2):
        trial.report(value, seen)
    return trial.end(value, 4)


def study(evaluate=bowl, n=12, storage=None, seed=0, progress=False, pruner=None, **plain):
    def known_by():
        return identity({"ratios": SPACE["ratio"], "seed": seed} | plain, data=np.arange(3))

    settings = {"storage": storage, "seed": seed, "pruner": pruner, "progress": progress}
    return run_study(evaluate, SPACE, known_by, n_trials=n, **settings)


def told(trials):
    """Of trials that count, what does not depend on when they were made."""
    return [(t.state, t.settings, t.value, t.seen) for t in trials if t.state != "failed"]


class Interrupted:
    """`bowl`, that Ctrl-C, or an error, meets in trial ``number``."""

    def __init__(self, number, error=KeyboardInterrupt):
        self.left, self.error = number, error

    def __call__(self, trial):
        self.left -= 1
        if self.left < 0:
            trial.report(1e-9, 1)
            raise self.error
        return bowl(trial)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "seed"), [(3, 0), (10, 1)])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path, k, seed):
    """In the random trials, and in those that TPE proposes; with the same number in all."""
    whole = study(n=14, seed=seed)
    with pytest.raises(KeyboardInterrupt):
        study(Interrupted(k), n=14, storage=tmp_path / "search.db", seed=seed)
    parts = study(n=14, storage=tmp_path / "search.db", seed=seed)
    assert [t.state for t in parts].count("failed") == 1
    assert len(told(parts)) == 14
    assert told(parts) == told(whole)
    # Once done, nothing more is tried; more trials may be asked for, and are those of a longer search.
    refused = Interrupted(0, AssertionError)
    assert study(refused, n=14, storage=str(tmp_path / "search.db"), seed=seed) == parts
    assert told(study(n=16, storage=tmp_path / "search.db", seed=seed)) == told(study(n=16, seed=seed))


def test_seeds_differ_and_tpe_learns():
    first, other = study(n=40), study(n=40, seed=5)
    assert first[0].settings != other[0].settings
    for trials in (first, other):
        values = [t.value for t in trials if t.state == "complete"]
        assert min(values) < 0.5 * min(t.value for t in trials[:8])
        assert all(SPACE[name][0] <= value <= SPACE[name][1] for t in trials for name, value in t.settings.items())
        assert isinstance(trials[0].settings["width"], int)


@pytest.mark.slow
def test_a_killed_process_leaves_a_trial_that_is_failed(tmp_path):
    study(n=3, storage=tmp_path / "search.db")
    left = optuna.load_study(study_name="scoregeo", storage=f"sqlite:///{tmp_path}/search.db")
    left.ask()
    left._storage.remove_session()
    left._storage._backend.engine.dispose()
    trials = study(n=5, storage=tmp_path / "search.db")
    assert [t.state for t in trials[:4]] == ["complete"] * 3 + ["failed"]
    assert len(told(trials)) == 5


def test_errors_end_the_search_and_keep_what_was_done(tmp_path):
    with pytest.raises(ZeroDivisionError):
        study(Interrupted(2, ZeroDivisionError), storage=tmp_path / "search.db")
    assert told(study(n=2, storage=tmp_path / "search.db")) == told(study(n=2))


def test_bad_trials_are_pruned_and_recorded():
    trials = study(n=20)
    pruned = [t for t in trials if t.state == "pruned"]
    assert 3 <= len(pruned) <= 16
    assert all(t.seen in (1, 2) for t in pruned)
    assert all(t.seen == 4 for t in trials if t.state == "complete")
    complete = np.median([t.value for t in trials if t.state == "complete"])
    assert all(t.value > complete for t in pruned)
    assert all(t.state == "complete" for t in study(n=20, pruner=optuna.pruners.NopPruner()))


def test_giving_up_counts_and_has_no_value():
    trials = study(lambda trial: trial.give_up(diverged=3), n=2)
    assert [t.state for t in trials] == ["pruned", "pruned"]
    assert np.isnan(trials[0].value)
    assert trials[0].facts["diverged"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a b.db", "50%20.db", "what?.db", "folder/new.db"])
def test_names_of_files(tmp_path, name):
    study(n=1, storage=tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(b"SQLite")
    assert len(study(n=2, storage=tmp_path / name)) == 2


def test_files_of_something_else_are_refused_as_they_are(tmp_path):
    text, other, foreign = tmp_path / "text.db", tmp_path / "other.db", tmp_path / "foreign.db"
    text.write_text("not a database")
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE cats (name TEXT)")
    connection.close()
    database = optuna.storages.RDBStorage(f"sqlite:///{foreign}")
    optuna.create_study(storage=database, study_name="somebody else's")
    database.remove_session()
    database.engine.dispose()
    for path, found in ((text, "no SQLite file"), (other, r"\['cats'\]"), (foreign, "somebody else's")):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=f"`storage` must be a file of an earlier search, but .*{found}"):
            study(n=1, storage=path)
        assert path.read_bytes() == before
    for storage in (tmp_path, "sqlite:///x.db", 3, ""):
        with pytest.raises(ValueError, match="`storage` must be the path of a SQLite file"):
            study(n=1, storage=storage)


def test_another_search_is_refused(tmp_path):
    path = tmp_path / "search.db"
    before = study(n=2, storage=path, ends=(1, 2))
    with pytest.raises(ValueError, match=r"of another: ends: \(1, 3\) here, \[1, 2\] there; seed: 1 here, 0 there$"):
        study(n=4, storage=path, seed=1, ends=(1, 3))
    other = lambda: identity({"ratios": SPACE["ratio"], "seed": 0, "ends": (1, 2)}, data=np.arange(4))  # noqa: E731
    with pytest.raises(ValueError, match=r"of another: data$"):
        run_study(bowl, SPACE, other, n_trials=4, storage=path, seed=0, pruner=None, progress=False)
    with pytest.raises(TypeError, match="`storage` needs what can be compared"):
        identity({}, objective=(n for n in range(3)))
    assert study(n=2, storage=path, ends=(1, 2)) == before


def test_optuna_is_quiet_and_progress_is_on_standard_error(capsys):
    verbosity = optuna.logging.get_verbosity()
    study(n=3)
    assert optuna.logging.get_verbosity() == verbosity
    assert capsys.readouterr() == ("", "")
    study(n=3, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == [f"trial {k}/3" for k in (1, 2, 3)]
    assert "; best " in err.splitlines()[-1]


def test_unusable_pruner():
    with pytest.raises(TypeError, match="`pruner` must be a pruner of Optuna's or None, got str"):
        study(pruner="median")
