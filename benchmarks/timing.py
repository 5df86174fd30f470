"""How the benchmarks take times: compiled before, results waited for, medians, compile time apart."""

import csv
import datetime
import os
import pathlib
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import numpy as np


def write_rows(path: str | pathlib.Path | None, rows: list[dict[str, Any]]) -> None:
    """The rows as a .csv file, if one is asked for. Each is told when it was first written, and on what."""
    if path is None:
        return
    facts = about("jax")
    stamp = {"date": facts["date"], "cores": facts["cores"], "load": round(facts["load"][0], 2)}
    for row in rows:
        row |= {key: value for key, value in (stamp | {"jax": facts["versions"]["jax"]}).items() if key not in row}
    with pathlib.Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def about(*packages: str) -> dict[str, Any]:
    """Of a run: when, on what, how busy that was, and the versions of ``packages``."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {name: metadata.version(name) for name in packages},
    }


def compiled(function: Callable, *arguments: Any) -> tuple[Callable, dict[str, float]]:
    """``function`` compiled for these arguments, and the seconds that took: of the wall, and of all cores."""
    wall, cores = time.perf_counter(), time.process_time()
    program = jax.jit(function).lower(*arguments).compile()
    return program, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cores}


def in_turns(*calls: Callable, repeats: int = 5, limit: float = 10.0) -> list[float]:
    """Median seconds of each of ``calls``, run in turns, as the load of a machine changes.

    At most ``repeats`` rounds, no more once all took ``limit``, and at least one; one before them is not counted.
    """
    rounds = []
    while len(rounds) < 2 or (len(rounds) <= repeats and np.sum(rounds) < limit):
        times = []
        for call in calls:
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
        rounds.append(times)
    return np.median(rounds[1:], 0).tolist()


def median_seconds(function: Callable, *arguments: Any, repeats: int = 5, limit: float = 10.0) -> float:
    """`in_turns` of one function."""
    return in_turns(lambda: function(*arguments), repeats=repeats, limit=limit)[0]
