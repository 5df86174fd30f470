"""Time to accuracy: scoregeo on the ladder of settings that the competitors have, and one table for all of them.

A method on a problem is run from its cheapest setting on, until it meets the tightest target or runs out of time; the
quickest attempt that meets a target counts for it (see `competitors` for the protocol, which scoregeo follows too).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from competitors import (
    COMPETITORS,
    CONVERGED,
    NOT_TRIED,
    OUT_OF_TIME,
    Attempt,
    Competitor,
    Solved,
    attempts,
    isolated,
    reached,
    run,
)
from problems import REFERENCE_MAX_DIMENSION, Clock, Kernel, OutOfTime, Problem, curve_length, reference_length

from scoregeo import RESULTS, SpectralNewton, geodesic
from scoregeo.geodesics.base import default_solver

TARGETS = (1e-4, 1e-6, 1e-8)
SCOREGEO = "scoregeo"
# Beyond these dimensions a method has arrays of size (nodes d^2), or steps that cannot be interrupted, which could take
# the memory of the whole run with them: tried only in processes of their own.
SHARED_PROCESS_MAX_DIMENSION = {"scipy_bvp": 64, "georce": 256, "finslerax": 64}
_HOPELESSLY_SLOW = 100  # times scoregeo's seconds: a competitor gets no more for one solve, and not less than a second
_PIECES = 64  # in which an element is cut to measure the length of its curve


def _compiled_solve(problem: Problem, solver: SpectralNewton, clock: Clock) -> Kernel:
    """`geodesic` by this solver as a kernel ``(strength, x, y) -> Geodesic``."""

    def solve(score, strength, x, y):
        return geodesic(problem.family(score, strength), x, y, solver=solver, ts=(0.0, 1.0), throw=False)

    return Kernel(solve, problem, clock)


class Spectral:
    """`SpectralNewton` in the words of the competitors; a setting is (degree, rtol)."""

    def __init__(self, problem: Problem, setting: tuple[int, float], clock: Clock):
        """Prepare a setting of it on a problem."""
        degree, rtol = setting
        self.problem, self.clock = problem, clock
        # The default for this metric, which for a score Jacobian has more elements and a shorter continuation.
        solver = dataclasses.replace(default_solver(problem.metric), rtol=rtol, path_rtol=1.0, degree=degree)
        self.path = _compiled_solve(problem, solver, clock)

    def start(self) -> None:
        """The solver's own, the straight line."""

    def solve(self, strength: float, state: None, deadline: float) -> Solved:
        """One solve; it cannot be interrupted."""
        found = self.path(strength, self.problem.x, self.problem.y)
        if self.clock.now() > deadline:
            raise OutOfTime
        counts = {name: int(found.stats[name]) for name in ("newton_steps", "cg_steps", "metric_evaluations")}
        note = f"error estimate {found.error / found.length:.0e}, {found.stats['elements']} elements, {counts}"
        return Solved(found, bool(found.result == RESULTS.successful), counts["newton_steps"], note)

    def lengths(self, found: Any) -> tuple[float, float]:
        """Length of the curve by a fine quadrature, an upper bound as for the others, and the one reported."""
        breaks = np.unique(found.curve.breaks)
        fine = np.interp(np.arange(_PIECES * (breaks.size - 1) + 1) / _PIECES, np.arange(breaks.size), breaks)
        curve = jax.jit(jax.vmap(jax.tree.map(jnp.asarray, found.curve)))
        return curve_length(self.problem, fine, curve), float(found.length)


# From cheap to accurate, as those of the competitors.
OURS = Competitor(SCOREGEO, Spectral, ((8, 1e-3), (8, 1e-5), (12, 1e-4), (16, 1e-5), (16, 1e-7), (24, 1e-9)))


@dataclasses.dataclass(frozen=True)
class Reference:
    """A length to compare with, by whom, and its estimated relative error where there is one."""

    length: float
    source: str
    error: float | None = None


def reference(problem: Problem, seconds: float = 30) -> Reference | None:
    """From elsewhere, by SciPy, or where it cannot, by scoregeo at a much tighter setting than any that is timed.

    ``seconds``: for each of SciPy's two tries."""
    if problem.length is not None:
        return Reference(problem.length, "known")
    length = reference_length(problem, seconds=seconds) if problem.d <= REFERENCE_MAX_DIMENSION else None
    if length is not None:
        return Reference(length, "scipy.integrate.solve_bvp")
    # The first is enough for smooth problems, and compiles in half the time.
    for degree, elements in ((32, 4), (20, 12), (16, 16), (24, 64)):
        solver = SpectralNewton(rtol=1e-10, path_rtol=1.0, degree=degree, max_elements=elements)
        found = _compiled_solve(problem, solver, Clock())(problem.strength, problem.x, problem.y)
        if found.result == RESULTS.successful:
            source = f"SpectralNewton, degree {degree}, {elements} elements"
            return Reference(float(found.length), source, float(found.error / found.length))
    return None


def ladder(
    name: str,
    problem: Problem,
    length: float | None,
    budget: float,
    isolate: bool,
    cache: pathlib.Path | None,
    ours: Competitor,
) -> Iterator[Attempt]:
    """The attempts of a method, from cheap to accurate, until one meets the tightest target or time is up."""
    spent, kept = 0.0, []
    if name == SCOREGEO:
        found = (run(ours, problem, i, budget, "direct") for i in range(len(ours.settings)))
    elif isolate:
        found = isolated(name, problem.name, budget, cache=cache)
    elif problem.d > SHARED_PROCESS_MAX_DIMENSION.get(name, problem.d):
        limit = SHARED_PROCESS_MAX_DIMENSION[name]
        yield Attempt(name, "-", NOT_TRIED, note=f"d x d arrays at every node: beyond d = {limit} only with --isolate")
        return
    else:
        found = attempts(name, problem, budget)
    for attempt in found:
        yield attempt
        kept.append(attempt)
        spent += attempt.seconds or 0
        if length is not None and reached(kept, length, TARGETS[-1]):
            return
        if spent > budget:
            settings = len(ours.settings if name == SCOREGEO else COMPETITORS[name].settings)
            if len(kept) < settings and attempt.status != OUT_OF_TIME:
                note = f"{settings - len(kept)} finer settings: the time of this method on this problem was used up"
                yield Attempt(name, "-", OUT_OF_TIME, note=note)
            return


def verdict(found: list[Attempt], length: float | None, target: float) -> dict:
    """How a method did at a target: the quickest attempt that met it, or why none did."""
    best = None if length is None else reached(found, length, target)
    if best is not None:
        return {"seconds": best.seconds, "setting": best.setting, "compile_seconds": best.compile_seconds}
    last = found[-1]
    status = last.status
    errors = [min(a.errors(length)) for a in found if a.length is not None] if length is not None else []
    if status == CONVERGED:
        status = "not accurate"
    return {"seconds": None, "status": status, "note": last.note, "best_error": min(errors, default=None)}


def compare(
    problem: Problem,
    names: list[str],
    budget: float,
    isolate: bool,
    cache: pathlib.Path | None,
    progress: Callable[[Attempt], None],
    ours: Competitor = OURS,
    reference_seconds: float = 30,
) -> dict:
    """All methods on one problem: raw attempts, verdicts, and the ratios of the best competitor to scoregeo, whose
    ladder is ``ours``."""
    known = reference(problem, reference_seconds)
    length = None if known is None else known.length
    found, limit = {}, budget
    for name in (SCOREGEO, *names):
        found[name] = []
        for attempt in ladder(name, problem, length, limit, isolate, cache, ours):
            found[name].append(attempt)
            progress(attempt)
        if name == SCOREGEO and length is not None:
            took = [best.seconds for t in TARGETS if (best := reached(found[name], length, t))]
            limit = min(budget, max(1.0, _HOPELESSLY_SLOW * max(took))) if took else budget
    # Programs of other problems serve no more.
    jax.clear_caches()
    verdicts = {name: {f"{t:.0e}": verdict(kept, length, t) for t in TARGETS} for name, kept in found.items()}
    ratios = {}
    for target in (f"{t:.0e}" for t in TARGETS):
        rivals = {name: verdicts[name][target]["seconds"] for name in names}
        best = min((n for n in names if rivals[n] is not None), key=rivals.get, default=None)
        own = verdicts[SCOREGEO][target]["seconds"]
        ratio = rivals[best] / own if best is not None and own is not None else None
        ratios[target] = {"best_competitor": best, "ratio": ratio}
    # The length of a curve is an upper bound: below the reference there is another, shorter geodesic.
    curves = {n: min((a.length for a in kept if a.length is not None), default=np.inf) for n, kept in found.items()}
    shorter = {n: c for n, c in curves.items() if length is not None and c < length * (1 - 1e-7)}
    return {
        "d": problem.d,
        "strength": problem.strength,
        "seconds_for_one_solve": limit,
        "reference": None if known is None else dataclasses.asdict(known),
        "verdicts": verdicts,
        "ratios": ratios,
        "shorter_than_reference": shorter,
        "attempts": [dataclasses.asdict(a) for kept in found.values() for a in kept],
    }
