"""What `SpectralNewton` of version 0.1.0 did, problem by problem: in ``characterisation.json``, compared by its test.

`digits` is not in it: its score is trained anew on every machine.
"""

import functools
import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import problems

from scoregeo import RESULTS, SpectralNewton, geodesic

RECORD = pathlib.Path(__file__).with_name("characterisation.json")
FAST = ("three_modes", "mlp-2", *(name for name in problems.NAMES if name.startswith("ring")))
# The others of `problems.NAMES` are compared by hand: `measure(name)` takes minutes in all, most of them to compile.
SLOW = ("mixture-2", "mixture-16", "mlp-64", "mlp-256")
CODES = (
    "successful",
    "metric_nonfinite",
    "outside_domain",
    "solver_steps_reached",
    "stalled",
    "accuracy_not_reached",
    "ends_missed",
)
COUNTS = ("newton_steps", "cg_steps", "metric_evaluations", "elements")


def pairs(problem) -> tuple[np.ndarray, np.ndarray]:
    """Four pairs of end points, each ``(4, d)``: that of the problem, its reverse, and two that are nearer."""
    x, y = problem.x, problem.y
    return np.stack([x, y, x + 0.1 * (y - x), x]), np.stack([y, x, y, y - 0.2 * (y - x)])


def _solve(metric, x, y):
    solved = geodesic(metric, x, y, solver=SpectralNewton(rtol=1e-8, path_rtol=1e-8), throw=False)
    codes = {name: solved.result == getattr(RESULTS, name) for name in CODES}
    return codes, {name: solved.stats[name] for name in COUNTS}, solved.length


_single, _batch = eqx.filter_jit(_solve), eqx.filter_jit(jax.vmap(_solve, in_axes=(None, 0, 0)))


def _row(codes, counts, length) -> dict:
    (status,) = (name for name in CODES if codes[name])
    return {"status": status, **{name: int(count) for name, count in counts.items()}, "length": float(length)}


def measure(name: str) -> dict:
    """Status, work and length of the problem ``name``, solved alone and, with three more pairs, under `jax.vmap`."""
    (problem,) = problems.problems([name])
    xs, ys = map(jnp.asarray, pairs(problem))
    batch = jax.device_get(_batch(problem.metric, xs, ys))
    lanes = [_row(*jax.tree.map(lambda leaf: leaf[lane], batch)) for lane in range(len(xs))]  # noqa: B023
    return {"single": alone(problem.metric, xs[0], ys[0]), "vmap": lanes}


def alone(metric, x, y) -> dict:
    """The same for one pair."""
    return _row(*jax.device_get(_single(metric, x, y)))


@functools.cache
def recorded() -> dict:
    """The contents of the file."""
    return json.loads(RECORD.read_text())
