"""Against peers, again: seconds to a geodesic length of a given accuracy in metrics other than Stein's.

The power of p, the score Jacobian and the pull-back of a decoder (`problems.OTHER_METRICS`), by scoregeo, SciPy's
`solve_bvp`, GEORCE (with the closed form that a conformal metric allows it), L-BFGS-B, Adam on a spline (the method of
stochman), finslerax and, in the plane, geomstats. The protocol is that of the main benchmark, `geodesics.py`: ladders
of settings, a straight start, a continuation where that fails, the quickest setting that meets a target counts, and
failures stay. Seconds are those of the processor on one thread, because the machine is shared; compiling is apart. All
methods on a problem run in one process one after the other, and what is compared are ratios.

It needs the extra `benchmark`. What is not installed is left out, and said in its row.

    uv run python benchmarks/science/peers.py
    uv run python benchmarks/science/peers.py --quick --out /tmp/peers.csv
"""

import dataclasses
import os
import pathlib
import tempfile
import time
from typing import Any

# Before JAX starts its threads: the time of the processor is then that of one.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _study import COLOURS, Estimate, Table, main, value

NAME, SEED = "peers", 0
ORDER = (
    *("power-three_modes", "jacobian-three_modes", "decoder-2", "power-curve-10", "jacobian-curve-10", "decoder-8"),
    *("power-digits", "jacobian-digits", "power-curve-256", "decoder-64"),
)
# Nested ladders are those that were quicker in the main benchmark.
PEERS = {
    "scipy_bvp": "SciPy solve_bvp",
    "georce_nested": "GEORCE",
    "georce_conformal_nested": "GEORCE, conformal",
    "lbfgs_nested": "L-BFGS",
    "adam_spline": "Adam on a spline",
    "finslerax": "finslerax",
    "geomstats": "geomstats",
}
OURS = "scoregeo"
# Fewer settings than in the main benchmark, as each is compiled: a disadvantage of scoregeo's only.
SETTINGS = ((8, 1e-4), (16, 1e-6), (24, 1e-9))
# For one of the two tries of `solve_bvp` at a reference; where both fail it is scoregeo at a tighter setting.
REFERENCE_SECONDS = 10.0
# Digits of the length, and what `accuracy.TARGETS` calls them.
TARGETS = {"4": "1e-04", "6": "1e-06", "8": "1e-08"}
WORDS = {"4": "four", "6": "six", "8": "eight"}
BUDGET = 5.0
CACHE = pathlib.Path(tempfile.gettempdir()) / "scoregeo-science" / "peers"


def peers_of(problem: str) -> list[str]:
    """Those that a problem is for: GEORCE in the form that its metric allows."""
    left_out = "georce_nested" if problem.startswith("power") else "georce_conformal_nested"
    return [name for name in PEERS if name != left_out and (name != "geomstats" or problem.endswith(("-2", "modes")))]


def run(table: Table, quick: bool) -> None:
    """All problems, one after the other; what is interrupted in one of them runs it again as a whole."""
    import accuracy
    import problems

    problems.Clock.timer = staticmethod(time.process_time)
    settings = SETTINGS[:1] if quick else SETTINGS
    ours = dataclasses.replace(accuracy.OURS, settings=settings)
    for name in ("three_modes",) if quick else ORDER:
        if f"{name}/{OURS}" in table:
            continue
        peers = ["lbfgs_nested"] if quick else peers_of(name)
        (problem,) = problems.problems([name], CACHE)
        budget = 0.2 if quick else BUDGET

        def progress(attempt: Any, name: str = name) -> None:
            print(name, attempt.competitor, attempt.setting, attempt.status, attempt.seconds, flush=True)

        found = accuracy.compare(problem, peers, budget, False, CACHE, progress, ours, REFERENCE_SECONDS)
        for method in (*peers, OURS):
            add(table, name, method, found)


def add(table: Table, problem: str, method: str, found: dict) -> None:
    """One row: what a method took to each target, in seconds and as a multiple of scoregeo's; why not, if it did not.

    ``error`` is the least relative error of its lengths; there is none where it has no length.
    """
    if f"{problem}/{method}" in table:
        return
    figures, why = {}, []
    for target, name in TARGETS.items():
        verdict, own = found["verdicts"][method][name], found["verdicts"][OURS][name]["seconds"]
        figures[f"met_{target}"] = np.array([float(verdict["seconds"] is not None)])
        if verdict["seconds"] is not None:
            figures[f"seconds_{target}"] = np.array([verdict["seconds"]])
            if own is not None:
                figures[f"ratio_{target}"] = np.array([verdict["seconds"] / own])
        else:
            why.append(f"{name}: {verdict['status']}")
    attempts = [a for a in found["attempts"] if a["competitor"] == method]
    reference = found["reference"]
    lengths = [a["length"] for a in attempts if a["length"] is not None]
    if lengths and reference is not None:
        errors = [length / reference["length"] - 1 for length in lengths]
        figures["error"] = np.array([min(errors, key=abs)])
    if method == OURS and reference is not None:
        figures["length"] = Estimate(reference["length"], np.nan, 1)
        why.append(f"reference by {reference['source']}")
    converged = np.mean([a["status"] == "converged" for a in attempts])
    seconds = sum(a["seconds"] or 0 for a in attempts)
    table.add(f"{problem}/{method}", figures, converged=converged, seconds=seconds, setting="; ".join(why))


def solved(rows: list[dict[str, str]]) -> list[str]:
    """The problems that are in the table."""
    found = dict.fromkeys(line["row"].split("/")[0] for line in rows if line["row"].endswith(f"/{OURS}"))
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else -1)


def _cell(rows: list[dict[str, str]], row: str, target: str) -> str:
    """Seconds of ours, multiples of peers, or why there are none."""
    try:
        if not value(rows, row, f"met_{target}"):
            why = next(line["setting"] for line in rows if line["row"] == row)
            why = dict(part.split(": ", 1) for part in why.split("; ") if part.startswith("1e"))[TARGETS[target]]
            known = any(line["row"] == row and line["figure"] == "error" for line in rows)
            return f"{why} ({abs(value(rows, row, 'error')):.0e})" if known else why
        if row.endswith(f"/{OURS}"):
            return f"{1e3 * value(rows, row, f'seconds_{target}'):.1f} ms"
        return f"{value(rows, row, f'ratio_{target}'):.1f}"
    except KeyError:
        return "–"


def tables(rows: list[dict[str, str]]) -> dict[str, str]:
    """What the page shows: a table for each target."""
    done = solved(rows)
    found = {}
    for target in TARGETS:
        heads = ["problem", "scoregeo", *PEERS.values()]
        lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for name in done:
            cells = [_cell(rows, f"{name}/{method}", target) for method in (OURS, *PEERS)]
            lines.append("| " + " | ".join([name, *cells]) + " |")
        found[f"target_{WORDS[target]}"] = "\n".join(lines) + "\n"
    return found


def figure(rows: list[dict[str, str]]):
    """Multiples of scoregeo's seconds at six digits; a cross at the right edge is a failure."""
    from matplotlib.figure import Figure

    target = "6"
    done = solved(rows)
    ratios = {(n, m): _ratio(rows, f"{n}/{m}", target) for n in done for m in PEERS}
    largest = max((r for r in ratios.values() if r and np.isfinite(r)), default=10.0)
    page = Figure(figsize=(8, 1.6 + 0.45 * len(done)), layout="constrained")
    ax = page.subplots()
    edge = 3 * max(largest, 10.0)
    for colour, (method, label) in zip(COLOURS, PEERS.items(), strict=False):
        shift = 0.09 * (list(PEERS).index(method) - 3)
        for place, name in enumerate(done):
            ratio = ratios[name, method]
            if ratio is None:
                continue
            failed = not np.isfinite(ratio)
            ax.plot(edge if failed else ratio, -place - shift, "x" if failed else "o", color=colour, markersize=6)
        ax.plot([], [], "o", color=colour, label=label)
    ax.plot([], [], "x", color="#555555", label="did not get there")
    ax.axvline(1, color="#999999", linewidth=1)
    ax.set_xscale("log")
    ax.set_ylim(-len(done) + 0.5, 0.5)
    ax.set_yticks(-np.arange(len(done)), done)
    ax.set_xlabel("seconds to six digits of the length, as a multiple of scoregeo's")
    ax.grid(axis="both", color="#e4e4e4", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    page.legend(loc="outside right upper", frameon=False, fontsize=8)
    return page


def _ratio(rows: list[dict[str, str]], row: str, target: str) -> float | None:
    """Infinite for a failure of the peer, ``None`` where there is nothing to compare."""
    try:
        return value(rows, row, f"ratio_{target}") if value(rows, row, f"met_{target}") else np.inf
    except KeyError:
        return None


if __name__ == "__main__":
    main(__doc__, NAME, SEED, run, figure)
