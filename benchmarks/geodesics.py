"""The main benchmark: seconds to a geodesic length of a given accuracy, against competitors, and what batches, size,
large networks and compiling cost.

    python benchmarks/geodesics.py [--quick] [--parts accuracy batches scaling unet compile] [--problems NAME ...]
        [--budget S] [--out benchmarks/results/NAME] [--cache DIR] [--isolate]

It needs the extra `benchmark` (finslerax, autograd, threadpoolctl). Writes NAME.json with every raw attempt, NAME.txt
with the tables and NAME.png. Parts:

- accuracy: for every problem of `problems` and every method, seconds of one solve to a length within 1e-4, 1e-6 and
  1e-8 (relative) of a reference: by SciPy's collocation up to d = 16, beyond that, and where SciPy fails, by scoregeo
  at a much tighter setting. Methods have ladders of settings and all start from the straight line (`competitors` has
  the protocol); failures stay in the tables. The budget is for one solve; where scoregeo is quick, competitors get 100
  times as long as it (but a second) and no more. The ladder of a method on a problem ends when it has met 1e-8, or when
  its settings together took more than the budget.
- batches: pairs of points under `jax.vmap` against one at a time, and a hard pair among easy ones.
- scaling: exponents of the time in the dimension and in the coefficients of the path.
- unet: the share of network calls in the time of a solve with a convolutional network at d = 3072.
- compile: seconds to compile `dist`, and whether other weights compile again.

Everything is compiled and run before it is timed, results are waited for, and times are medians. float64, but for the
networks of `unet`. Machines are shared and have different numbers of cores: read times as ratios within one run, and
look at the load averages first.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from typing import Any

import accuracy
import batches
import jax
import jax.numpy as jnp
import pictures
import scaling
import unet
from competitors import COMPETITORS, Attempt
from problems import NAMES, OTHER_METRICS, problems
from rich import box
from rich.console import Console
from rich.table import Table

QUICK_PROBLEMS = ("three_modes", "mixture-16", "mlp-64", "mlp-784", "ring-0.3-1000")
# Refining from coarser nodes is hardly ever slower than starting afresh: one of the two is enough. A method for other
# metrics has nothing to do here: `science/peers.py` has those.
DEFAULT_COMPETITORS = tuple(
    name for name in COMPETITORS if name not in ("lbfgs", "georce_lowrank", "georce_nested", "georce_conformal_nested")
)
QUICK_COMPETITORS = ("scipy_bvp", "georce_lowrank_nested", "lbfgs_nested", "finslerax")
PARTS = ("accuracy", "batches", "scaling", "unet", "compile")
QUICK_PARTS = ("accuracy", "batches", "scaling", "compile")
_PACKAGES = ("scoregeo", "jax", "jaxlib", "equinox", "numpy", "scipy", "geomstats", "finslerax", "autograd", "flax")


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that take part."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def environment() -> dict[str, Any]:
    """Where and when."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": os.getloadavg(),
        "versions": versions(),
        "command": sys.argv,
    }


def number(value: float | None, form: str = ".3g") -> str:
    """A number, or a dash."""
    return "-" if value is None else format(value, form)


def verdict_cell(verdict: dict) -> str:
    """Seconds, or why there are none."""
    if verdict["seconds"] is not None:
        return number(verdict["seconds"])
    error = verdict["best_error"]
    return verdict["status"] + ("" if error is None else f", {error:.0e}")


def problem_table(name: str, entry: dict) -> Table:
    """All methods on one problem."""
    reference = entry["reference"]
    by = "no reference" if reference is None else f"length {reference['length']:.9f} ({reference['source']})"
    table = Table(title=f"{name}: d {entry['d']}, strength {entry['strength']:g}, {by}", box=box.SIMPLE)
    table.add_column("method")
    for target in entry["ratios"]:
        table.add_column(f"s to {target}, or why not", justify="right")
    table.add_column("compile s", justify="right")
    table.add_column("note", overflow="fold", max_width=46)
    for method, verdicts in entry["verdicts"].items():
        met = [v for v in verdicts.values() if v["seconds"] is not None]
        compile_seconds = met[-1]["compile_seconds"] if met else None
        note = "" if len(met) == len(verdicts) else list(verdicts.values())[-1]["note"]
        cells = map(verdict_cell, verdicts.values())
        table.add_row(method, *cells, number(compile_seconds), note, style="bold" if method == "scoregeo" else None)
    return table


def ratio_table(entries: dict[str, dict]) -> Table:
    """scoregeo's seconds and the best competitor's, as multiples of them."""
    targets = [f"{t:.0e}" for t in accuracy.TARGETS]
    table = Table(
        title="Time to accuracy: scoregeo, and how many times longer the best competitor takes", box=box.SIMPLE
    )
    table.add_column("problem")
    for target in targets:
        table.add_column(f"s to {target}", justify="right")
        table.add_column("best competitor", justify="right")
    for name, entry in entries.items():
        cells = []
        for target in targets:
            ours, rival = entry["verdicts"]["scoregeo"][target], entry["ratios"][target]
            cells.append(verdict_cell(ours))
            # No ratio where only one of the two got there.
            other = rival["best_competitor"] or "none"
            if rival["ratio"] is not None:
                other += f" {rival['ratio']:.3g}x"
            elif rival["best_competitor"] is not None:
                other += f" {number(entry['verdicts'][other][target]['seconds'])} s"
            cells.append(other)
        table.add_row(name, *cells)
    return table


def rows_table(title: str, rows: list[dict]) -> Table:
    """Dictionaries with the same keys, one a row."""
    table = Table(title=title, box=box.SIMPLE)
    for key in rows[0]:
        table.add_column(key.replace("_", " "), justify="right")
    for row in rows:
        cells = [number(v, ".4g") if isinstance(v, float) else str(v) for v in row.values()]
        table.add_row(*cells)
    return table


def turned_table(title: str, columns: list[dict], name: str) -> Table:
    """Dictionaries with the same keys, one a column, headed by the value of ``name``."""
    rows = [{"": key, **{str(c[name]): c[key] for c in columns}} for key in columns[0] if key != name]
    return rows_table(title, rows)


def run_accuracy(options: argparse.Namespace, console: Console, save: Any) -> dict[str, dict]:
    """Part `accuracy`, saved after every problem."""
    entries = {}
    for i, name in enumerate(options.problems):
        (problem,) = problems([name], options.cache)
        start = time.perf_counter()

        def progress(attempt: Attempt, i=i, name=name) -> None:
            where = f"[{i + 1}/{len(options.problems)}] {name} {attempt.competitor} {attempt.setting}"
            print(f"{where}: {attempt.status}, {number(attempt.seconds)} s", file=sys.stderr, flush=True)

        entries[name] = accuracy.compare(
            problem, options.competitors, options.budget, options.isolate, options.cache, progress
        )
        entries[name]["wall_seconds"] = time.perf_counter() - start
        console.print(problem_table(name, entries[name]))
        if entries[name]["shorter_than_reference"]:
            console.print(f"Shorter than the reference, another geodesic: {entries[name]['shorter_than_reference']}\n")
        save(accuracy=entries)
    console.print(ratio_table(entries))
    return entries


def run_batches(quick: bool, console: Console) -> dict:
    """Part `batches`."""
    pairs = 500 if quick else 2000
    throughput = [batches.throughput(name, pairs) for name in (("three_modes",) if quick else ("three_modes", "mlp-2"))]
    stall = [batches.stall(name) for name in (("three_modes",) if quick else ("three_modes", "ring-0.3-10"))]
    console.print(turned_table("Batches, rtol 1e-5 (target: ratio at least 20)", throughput, "metric"))
    title = "One hard pair among easy ones (target: over easy and hard alone at most 1.5)"
    console.print(turned_table(title, stall, "metric"))
    return {"throughput": throughput, "stall": stall}


def run_scaling(quick: bool, console: Console) -> dict:
    """Part `scaling`."""
    results = {"dimension": scaling.growth_with_dimension((64, 784, 3072) if quick else (64, 192, 784, 3072))}
    for d in (2,) if quick else (2, 64):
        results[f"coefficients, d = {d}"] = scaling.growth_with_coefficients(d)
    for name, result in results.items():
        console.print(rows_table(f"Growth with {name}", result["rows"]))
        for key in ("seconds", "seconds_per_sweep"):
            fit = result[key]
            console.print(
                f"  {key}: exponent {fit['exponent']:.2f}, points off the line by {fit['residual_factor']:.2f}x"
            )
        console.print(f"  between the last two, seconds per sweep: {result['last_two_exponent']:.2f}\n")
    return results


def run_unet(quick: bool, console: Console) -> dict:
    """Part `unet`."""
    overhead = [unet.overhead()]
    if not quick:
        overhead.append(unet.overhead(jnp.bfloat16))
    console.print(turned_table("A U-Net at d = 3072 (target: network share at least 0.7)", overhead, "dtype"))
    # Each takes half a minute to compile.
    savings = [{"batch_size": 8}, {"checkpoint": True}, {"batch_size": 8, "checkpoint": True}]
    memory = [{"settings": {}, "buffers_MiB": overhead[0]["buffers_MiB"]}, *unet.memory([] if quick else savings)]
    console.print(rows_table("Memory of a solve with it", memory))
    return {"overhead": overhead, "memory": memory}


def run_compile(console: Console) -> list[dict]:
    """Part `compile`."""
    rows = scaling.compile_times()
    console.print(rows_table("Compiling `dist`, in seconds (target: below 6 on two idle cores, one trace)", rows))
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few problems and competitors, smaller batches")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="what to run; all, or all but unet with --quick")
    parser.add_argument(
        "--problems", nargs="+", choices=(*NAMES, *OTHER_METRICS), metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument(
        "--competitors", nargs="+", choices=COMPETITORS, metavar="NAME", help=", ".join(DEFAULT_COMPETITORS)
    )
    parser.add_argument("--budget", type=float, help="seconds for one solve; 10 by default, 3 with --quick")
    parser.add_argument("--out", type=pathlib.Path, help="where to write: NAME for NAME.json, NAME.txt and NAME.png")
    parser.add_argument("--cache", type=pathlib.Path, help="folder that keeps the model of the digits")
    parser.add_argument("--isolate", action="store_true", help="competitors in processes of their own, memory limited")
    options = parser.parse_args()
    quick = options.quick
    options.budget = options.budget or (3 if quick else 10)
    options.parts = options.parts or list(QUICK_PARTS if quick else PARTS)
    options.problems = options.problems or list(QUICK_PROBLEMS if quick else NAMES)
    options.competitors = options.competitors or list(QUICK_COMPETITORS if quick else DEFAULT_COMPETITORS)
    return options


def estimate(options: argparse.Namespace) -> float:
    """Minutes that the run may take on two idle cores."""
    # Most of it compiles: scoregeo two or three settings of ten seconds, competitors many of half a second.
    method = 0.1 * options.budget + 2 + (8 if options.isolate else 0)
    minutes = {
        "accuracy": len(options.problems) * (25 + len(options.competitors) * method) / 60,
        "batches": 0.6 if options.quick else 2,
        "scaling": 0.5 if options.quick else 1.5,
        "unet": 0.5 if options.quick else 2,
        "compile": 0.4,
    }
    return sum(minutes[part] for part in options.parts)


def main() -> None:
    """Run the parts, print tables, and write what was asked for."""
    options = parse()
    console = Console(record=True, width=150)
    report = {"start": environment()}
    console.print(", ".join(f"{key} {report['start'][key]}" for key in ("date", "device", "cores", "load_average")))
    console.print(f"About {estimate(options):.0f} minutes on two idle cores, several times as long on busy ones.\n")
    begun = time.perf_counter()

    def save(**parts) -> None:
        report.update(parts)
        report["end"] = {"load_average": os.getloadavg(), "seconds": time.perf_counter() - begun}
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.with_name(options.out.name + ".json").write_text(json.dumps(report, indent=1) + "\n")

    # Small parts first: a run that is stopped has them.
    if "compile" in options.parts:
        save(compile=run_compile(console))
    if "batches" in options.parts:
        save(batches=run_batches(options.quick, console))
    if "scaling" in options.parts:
        save(scaling=run_scaling(options.quick, console))
    if "unet" in options.parts:
        save(unet=run_unet(options.quick, console))
    if "accuracy" in options.parts:
        entries = run_accuracy(options, console, save)
        if options.out is not None:
            pictures.draw(entries, options.out.with_name(options.out.name + ".png"))
    save()
    loads = report["start"]["load_average"], report["end"]["load_average"]
    console.print(f"Load averages {loads[0]} at the start, {loads[1]} after {report['end']['seconds']:.0f} s.")
    if options.out is not None:
        options.out.with_name(options.out.name + ".txt").write_text(console.export_text())


if __name__ == "__main__":
    main()
