"""One search: trials proposed by TPE, ended early by a pruner, kept in a file from which the same call goes on.

What is proposed next depends on the trials that were counted and on the seed alone, so a search that was interrupted
and goes on is the search that was not (up to what the sampler of another version of Optuna would propose).
"""

import contextlib
import math
import os
import pathlib
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..._checks import check_count, is_number
from ..._display import live_bar
from ..._pairs.identity import describe, differences
from .report import TrialRecord, show, show_value

_NAME = "scoregeo"
_PLAIN, _OBJECTS = "scoregeo: settings", "scoregeo: objects"
# What every SQLite file begins with.
_SQLITE = b"SQLite format 3\0"
# Trials proposed at random before TPE has something to learn from, and those that a pruner lets end before it prunes.
_RANDOM, _UNPRUNED = 8, 4
_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


class Trial:
    """What the evaluation of one trial sees: its settings, and whom to tell how it goes."""

    def __init__(self, trial: Any):
        self._trial = trial
        self.settings = dict(trial.params)

    def report(self, value: float, seen: int) -> None:
        """Tell the objective after ``seen`` pairs or steps; raises Optuna's ``TrialPruned`` if that is too bad."""
        self._trial.report(value, seen)
        if self._trial.should_prune():
            raise load_optuna().TrialPruned

    def end(self, value: float, seen: int) -> float:
        """Keep the objective after all ``seen`` pairs or steps, which is too late to prune; returns it."""
        self._trial.report(value, seen)
        return value

    def note(self, **facts: Any) -> None:
        """Keep facts beside the value."""
        for name, value in facts.items():
            self._trial.set_user_attr(name, value)

    def give_up(self, **facts: Any) -> None:
        """End the trial without a value, as pruned."""
        self.note(**facts)
        raise load_optuna().TrialPruned


def load_optuna() -> Any:
    """The module; raises ``ImportError`` that says how to install it."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError('scoregeo.adapters.optuna needs Optuna: pip install "scoregeo[tune]"') from error
    return optuna


def identity(plain: dict[str, Any], **objects: Any) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """What makes a search this one: ``plain`` settings, which messages show, and descriptions of ``objects``."""
    described = {}
    for name, thing in objects.items():
        try:
            described[name] = describe(thing, name)
        except TypeError as error:
            # The message names another argument, `checkpoint`, where the same is asked.
            raise TypeError(str(error).replace("`checkpoint` needs", "`storage` needs")) from None
    return plain, described


def log_range(name: str, value: Any) -> tuple[float, float]:
    """``(low, high)`` as numbers; raises ``ValueError`` naming the argument unless ``0 < low <= high``."""
    ends = tuple(value) if isinstance(value, tuple | list) else ()
    if len(ends) != 2 or not all(map(is_number, ends)) or not 0 < ends[0] <= ends[1]:
        raise ValueError(f"`{name}` must be two positive numbers (low, high), the smaller one first, got {value!r}")
    return float(ends[0]), float(ends[1])


def count_range(name: str, value: Any) -> tuple[int, int]:
    """``(low, high)`` as integers; raises ``ValueError`` naming the argument unless ``1 <= low <= high``."""
    log_range(name, value)
    return check_count(name, value[0]), check_count(name, value[1])


def run_study(
    evaluate: Callable[[Trial], float],
    space: dict[str, tuple],
    known_by: Callable[[], tuple[dict[str, Any], dict[str, dict[str, str]]]],
    *,
    n_trials: int,
    storage: str | os.PathLike | None,
    seed: int,
    pruner: Any,
    progress: bool,
) -> tuple[TrialRecord, ...]:
    """All trials once ``n_trials`` are complete or pruned, those of earlier calls with the same ``storage`` included.

    ``evaluate`` gives the objective of a trial. ``space`` has the range of every setting, searched on a logarithmic
    scale: of two integers, integers. ``known_by`` gives the `identity`, which is asked for only where there is a file.
    """
    optuna = load_optuna()
    check_count("n_trials", n_trials)
    check_count("seed", seed, least=0)
    if pruner is None:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED)
    elif not isinstance(pruner, optuna.pruners.BasePruner):
        raise TypeError(f"`pruner` must be a pruner of Optuna's or None, got {type(pruner).__name__}")
    with _quiet(optuna), _opened(optuna, storage, known_by, pruner) as study:
        _fail_interrupted(optuna, study)
        with _Progress(n_trials, progress) as report:
            while (done := len(_counted(optuna, study))) < n_trials:
                report.update(done, _records(study), new=False)
                # A sampler of its own for every trial: the state of one that draws for all would be lost with it.
                study.sampler = _sampler(optuna, seed, done)
                _one(optuna, study, evaluate, _distributions(optuna, space))
                report.update(done + 1, _records(study))
        return tuple(_records(study))


def best_of(trials: tuple[TrialRecord, ...]) -> TrialRecord:
    """The complete trial of the smallest value, the first of equal ones; raises ``RuntimeError`` where there is
    none."""
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        raise RuntimeError(f"none of {len(trials)} trials was completed: try other ranges, or more trials")
    return min(complete, key=lambda trial: trial.value)


def _one(optuna: Any, study: Any, evaluate: Callable[[Trial], float], space: dict[str, Any]) -> None:
    trial = study.ask(space)
    started = time.monotonic()
    state, value = optuna.trial.TrialState.FAIL, None
    try:
        value = evaluate(Trial(trial))
        state = optuna.trial.TrialState.COMPLETE
    except optuna.TrialPruned:
        state = optuna.trial.TrialState.PRUNED
    finally:
        # An interrupted trial is told too, and the error goes on its way.
        trial.set_user_attr("seconds", round(time.monotonic() - started, 2))
        study.tell(trial, value, state=state)


def _sampler(optuna: Any, seed: int, done: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the joint model of all settings is called experimental by older versions
        mixed = int(np.random.SeedSequence((seed, done)).generate_state(1)[0])
        return optuna.samplers.TPESampler(n_startup_trials=_RANDOM, multivariate=True, seed=mixed)


def _distributions(optuna: Any, space: dict[str, tuple]) -> dict[str, Any]:
    kinds = {int: optuna.distributions.IntDistribution, float: optuna.distributions.FloatDistribution}
    return {name: kinds[type(low)](low, high, log=True) for name, (low, high) in space.items()}


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """No prints of Optuna's below a warning; what the program had set comes back."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _opened(optuna: Any, storage: Any, known_by: Callable[[], tuple], pruner: Any) -> Iterator[Any]:
    """The study in the file, or in memory. A file that holds anything else is refused before it is written to."""
    if storage is None:
        yield optuna.create_study(study_name=_NAME, direction="minimize", pruner=pruner)
        return
    path = _check_file(storage)
    plain, objects = known_by()
    database = optuna.storages.RDBStorage(_url(path))
    try:
        study = optuna.create_study(
            storage=database, study_name=_NAME, direction="minimize", pruner=pruner, load_if_exists=True
        )
        _refuse_another(study, path, plain, objects)
        yield study
    finally:
        # Connections that are left to the collector of garbage are warned of.
        database.remove_session()
        database.engine.dispose()


def _url(path: pathlib.Path) -> str:
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path)).render_as_string()


def _check_file(storage: Any) -> pathlib.Path:
    """The path of a file that holds a search, or that there is none of yet; raises ``ValueError`` for all others."""
    if not isinstance(storage, str | os.PathLike) or "://" in str(storage) or not str(storage):
        raise ValueError(f"`storage` must be the path of a SQLite file or None, got {storage!r}")
    path = pathlib.Path(storage).absolute()
    if path.is_dir():
        raise ValueError(f"`storage` must be the path of a SQLite file, got the folder {path}")
    if not path.exists() or path.stat().st_size == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            raise ValueError(f"`storage` must be a file of an earlier search, but {path} is no SQLite file")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        studies = connection.execute("SELECT study_name FROM studies").fetchall() if "studies" in tables else []
    names = {name for (name,) in studies}
    if (tables and "studies" not in tables) or (names and _NAME not in names):
        found = f"the studies {sorted(names)}" if names else f"the tables {sorted(tables)}"
        raise ValueError(f"`storage` must be a file of an earlier search, but {path} holds {found}: give another path")
    return path


def _refuse_another(study: Any, path: pathlib.Path, plain: dict, objects: dict) -> None:
    """Raise ``ValueError`` where the file is of a search with other settings; a new one learns what it is of."""
    kept = study.user_attrs
    if _PLAIN not in kept:
        study.set_user_attr(_OBJECTS, objects)
        study.set_user_attr(_PLAIN, plain)
        return
    there, parts = kept[_PLAIN], kept[_OBJECTS]
    lines = [
        f"{name}: {plain.get(name)} here, {there.get(name)} there"
        for name in sorted({*plain, *there})
        if _as_json(plain.get(name)) != _as_json(there.get(name))
    ]
    lines += [part for name in objects for part in differences(parts.get(name, {}), objects[name], name)]
    if lines:
        raise ValueError(f"`storage` must be a file of the same search, but {path} is of another: {'; '.join(lines)}")


def _as_json(value: Any) -> Any:
    return [_as_json(part) for part in value] if isinstance(value, tuple | list) else value


def _fail_interrupted(optuna: Any, study: Any) -> None:
    """Trials that a killed process left running are failed: nobody will end them, and TPE keeps away from them."""
    running = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
    for trial in running:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _counted(optuna: Any, study: Any) -> list:
    states = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
    return study.get_trials(deepcopy=False, states=states)


def _records(study: Any) -> list[TrialRecord]:
    """The trials that have ended."""
    return [
        TrialRecord(
            trial.number,
            _STATES[trial.state.name],
            dict(trial.params),
            math.nan if trial.value is None else float(trial.value),
            max(trial.intermediate_values, default=0),
            dict(trial.user_attrs),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name in _STATES
    ]


class _Progress:
    """A bar of trials on a terminal or in a notebook, elsewhere a line for each on standard error; silent if not
    ``enabled``."""

    def __init__(self, trials: int, enabled: bool):
        self._trials, self._enabled, self._bar = trials, enabled, None

    def __enter__(self) -> "_Progress":
        if self._enabled and (begun := live_bar("trials", self._trials, "")) is not None:
            self._bar, self._task = begun
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, records: list[TrialRecord], *, new: bool = True) -> None:
        """Report that ``done`` trials are counted, the last of ``records`` newly unless not ``new``."""
        complete = [trial for trial in records if trial.state == "complete"]
        least = min(complete, key=lambda trial: trial.value) if complete else None
        best = "" if least is None else f"best {show_value(least.value)} ({show(least.settings)})"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, told=best)
        elif self._enabled and new:
            last = records[-1]
            told = f"trial {done}/{self._trials}: {show(last.settings)}: {show_value(last.value)} {last.state}"
            print(f"{told}; {best}" if best else told, file=sys.stderr, flush=True)
