"""Does a search find settings that are no worse than the documented ones? Rotated letters, whose true path is known.

For each metric: thirty trials of noise level and ratio, which know nothing of the settings that the page on choosing a
metric reports, on a few pairs of ends. What is found, and what is documented, is then judged on the same pairs, which
neither was chosen on. One row for each of the two: mean distance to the rotation at the same time and to the nearest
one, in pixels, with standard errors, the share of solves that converged, the seconds of the search, and the difference
of the two by pairs.

    OPENBLAS_NUM_THREADS=1 uv run python benchmarks/tune.py --out benchmarks/results/tune.csv
"""

import argparse
import dataclasses
import pathlib
import time

import numpy as np
from interpolation import Letters, Method, solve_all
from timing import write_rows

from scoregeo import ConformalMetric, GraphInit, SteinMetric, StraightLine
from scoregeo.adapters.optuna import metric_of, search_metric

FRAMES = 63  # `interpolation` judges 65 points of a path, with the ends
TUNING, JUDGING = 2, 3  # seeds of pairs; the documented settings were chosen on those of 0, and reported on those of 1


@dataclasses.dataclass(frozen=True)
class Case:
    """A metric, where its solves start, how many degrees apart the ends are, the documented settings, and the range of
    ratios that is searched."""

    name: str
    family: object
    from_the_graph: bool
    group: int
    noise_level: float
    ratio: float
    ratios: tuple[float, float] = (3.0, 1e6)


CASES = (
    Case("power of p", ConformalMetric.power, False, 45, 0.1, 1e5),
    Case("power of p, from the graph", ConformalMetric.power, True, 90, 0.1, 1e5),
    # At ratios of 1e5 and more, single trials of the Stein metric take ten minutes.
    Case("Stein", SteinMetric, False, 45, 0.1, 100.0, (3.0, 1e4)),
)


class ToTheSameTime:
    """The objective: the mean distance of a path to the rotation at the same time."""

    def __init__(self, study: Letters, pairs: list, group: int):
        self._study, self._pairs, self._group = study, pairs, group

    def __call__(self, paths: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return self._study.judge(paths, [self._pairs[i] for i in indices], self._group)["to_the_same_time"]

    def __str__(self) -> str:
        return "distance to the rotation at the same time"


def unused(study: Letters, group: int, n: int, used: list) -> list:
    """``n`` pairs that are not among those ``used``, nor among the first that the documented settings were chosen or
    reported on."""
    known = {pair[2:] for pair in [*used, *study.pairs(group, 12, 0), *study.pairs(group, 50, 1)]}
    found = {pair[2:]: pair for pair in study.pairs(group, 4 * n, JUDGING) if pair[2:] not in known}
    return list(found.values())[:n]


def run(study: Letters, case: Case, options) -> list[dict]:
    """The rows of the settings found and of those documented."""
    chosen = study.pairs(case.group, options.tuning, TUNING)
    reported = unused(study, case.group, options.pairs, chosen)
    start = GraphInit(study.points) if case.from_the_graph else StraightLine()
    storage = None if options.storage is None else options.storage / f"{case.name.replace(' ', '-')}-{case.group}.db"
    wall, cores = time.perf_counter(), time.process_time()
    found = search_metric(
        study.model,
        case.family,
        study.points,
        np.stack([np.stack(pair[:2]) for pair in chosen]),
        ToTheSameTime(study, chosen, case.group),
        ratios=case.ratios,
        n_trials=options.trials,
        storage=storage,
        init=start,
        frames=FRAMES,
        batch_size=options.batch_size,
        progress=True,
    )
    spent = {"search_seconds": time.perf_counter() - wall, "search_cpu_seconds": time.process_time() - cores}
    print(found, flush=True)
    pruned = sum(trial.state == "pruned" for trial in found.trials)
    documented = metric_of(study.model, case.family, study.points, case.noise_level, case.ratio)
    kinds = {
        "found": (found.metric, found.settings),
        "documented": (documented, {"noise_level": case.noise_level, "ratio": case.ratio}),
    }
    rows, figures = [], {}
    for name, (metric, settings) in kinds.items():
        paths, converged, seconds = solve_all(Method(start), metric, reported)
        figures[name] = study.judge(paths, reported, case.group)
        row = {"method": case.name, "group": case.group, "settings": name, **settings}
        row |= {"tuning_pairs": options.tuning, "trials": options.trials, "pruned": pruned, "pairs": len(reported)}
        row["converged"] = converged
        for key, values in figures[name].items():
            row[key], row[f"{key}_se"] = mean_and_error(values)
        worse = figures[name]["to_the_same_time"] - figures["found"]["to_the_same_time"]
        row["worse_than_found"], row["worse_than_found_se"] = mean_and_error(worse)
        rows.append(row | {"seconds": seconds} | (spent if name == "found" else dict.fromkeys(spent, "")))
    return rows


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30, help="pairs on which settings are judged")
    parser.add_argument("--tuning", type=int, default=8, help="pairs on which settings are searched for")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6000, help="of training")
    parser.add_argument("--only", nargs="+", help="methods")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("scoregeo-models"))
    parser.add_argument("--storage", type=pathlib.Path, help="folder of the files that searches go on from")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    study, rows = Letters(options.models, options.steps), []
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        for row in run(study, case, options):
            rows.append(row)
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        write_rows(options.out, rows)


if __name__ == "__main__":
    main()
