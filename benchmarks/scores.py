"""What a network of another library costs as a score: against the function that it computes, compiled.

    uv run python benchmarks/scores.py [--out benchmarks/results/NAME.json]

The score of a batch of points and the distance of a pair of points, of one network: as a function of its weights, and
in flax linen, flax nnx (as it is, and as a `NetworkScore`) and equinox. Equinox keeps its matrices transposed, which
costs something by itself, and is compared with a function that does so too. Floating-point operations and instructions
are counted in the optimised programs, which no load of the machine changes, and `same_program` says whether these are
equal but for names. Times are of the processor, for the same reason, and their ratios medians of those within a turn,
each of many calls, with an interval that holds the median of many more turns with 95%; that of the function to itself
says how far a ratio of one is from one. Every turn has an order of its own: what runs after itself finds its memory
warm. The number of traces is that for three sets of weights.
"""

import argparse
import json
import pathlib
import re
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from foundation import network, random_network
from timing import about

from scoregeo import FunctionScore, NetworkScore, SteinMetric, dist

WIDTH, BATCH = 64, 256


class LinenNet(linen.Module):
    """`network` in flax linen."""

    @linen.compact
    def __call__(self, x):
        hidden = x
        for name in ("w1", "w2"):
            hidden = jnp.tanh(linen.Dense(WIDTH, use_bias=False, name=name)(hidden))
        return linen.Dense(x.shape[-1], use_bias=False, name="w3")(hidden) - x


class NNXNet(nnx.Module):
    """`network` in flax nnx, with a noise level that it does not need."""

    def __init__(self, w1, w2, w3):
        sizes = [w.shape for w in (w1, w2, w3)]
        settings = {"use_bias": False, "param_dtype": w1.dtype, "rngs": nnx.Rngs(0)}
        self.layers = nnx.List([nnx.Linear(*size, **settings) for size in sizes])
        for layer, w in zip(self.layers, (w1, w2, w3), strict=True):
            layer.kernel[...] = w

    def __call__(self, x, noise_level=None):
        first, second, last = self.layers
        return last(jnp.tanh(second(jnp.tanh(first(x))))) - x


class EqxNet(eqx.Module):
    """`network` in equinox."""

    layers: list

    def __init__(self, *weights):
        layers = [eqx.nn.Linear(*w.shape, use_bias=False, key=jax.random.key(0)) for w in weights]
        self.layers = [eqx.tree_at(lambda n: n.weight, n, w.T) for n, w in zip(layers, weights, strict=True)]

    def __call__(self, x):
        first, second, last = self.layers
        return last(jnp.tanh(second(jnp.tanh(first(x))))) - x


def transposed(x, w1, w2, w3):
    """`network` with its matrices as equinox keeps them."""
    return w3 @ jnp.tanh(w2 @ jnp.tanh(w1 @ x)) - x


LINEN = LinenNet()
BARE = {"equinox": "function, transposed"}  # of the others, the function
KINDS = {
    "function": lambda *w: FunctionScore(network, *w),
    "function, again": lambda *w: FunctionScore(network, *w),
    "linen": lambda *w: FunctionScore(LINEN.apply, {"params": {f"w{i}": {"kernel": v} for i, v in enumerate(w, 1)}}),
    "nnx": lambda *w: FunctionScore(NNXNet(*w)),
    "nnx, NetworkScore": lambda *w: NetworkScore(NNXNet(*w), 1.0),
    "function, transposed": lambda *w: FunctionScore(transposed, *(v.T for v in w)),
    "equinox": lambda *w: FunctionScore(EqxNet(*w)),
}


def counted(program) -> dict[str, float]:
    """Floating-point operations and instructions of a compiled program."""
    analysis = program.cost_analysis()
    instructions = len(re.findall(r"^\s+(?:ROOT )?%?[\w.-]+ = ", program.as_text(), re.MULTILINE))
    return {"flops": float(analysis["flops"]), "instructions": instructions}


def nameless(program) -> str:
    """The text of an optimised program with names in the order in which they come, and without places in sources."""
    text = program.as_text()
    header, body = text.split("\n", 1)
    body = body[re.search(r"^(%|ENTRY)", body, re.MULTILINE).start() :]  # after tables of sources
    body = re.sub(r", metadata=\{[^}]*\}", "", body)
    body = re.sub(r"[\w.-]+: (?=\w+\[)", "", body)  # names of parameters where a computation begins
    numbers = {}
    return re.sub(r"^HloModule \S+", "", header) + re.sub(
        r"%[\w.-]+", lambda name: f"%{numbers.setdefault(name[0], len(numbers))}", body
    )


def interval(ratios: np.ndarray) -> list[float]:
    """What holds the median of all ratios with 95%, by drawing as many of these again and again."""
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    return np.quantile(np.median(drawn, 1), (0.025, 0.975)).tolist()


def seconds(call, calls: int) -> float:
    """Seconds of processor time of one of many calls after one that is not counted; the last is waited for."""
    jax.block_until_ready(call())
    start = time.process_time()
    for _ in range(calls):
        out = call()
    jax.block_until_ready(out)
    return (time.process_time() - start) / calls


def compared(programs: dict, arguments: dict, calls: int, turns: int) -> dict[str, dict[str, float]]:
    """For each kind, what is counted and how long a call takes, relative to the function."""
    times, random = {kind: [] for kind in KINDS}, np.random.default_rng(0)
    for _ in range(turns + 1):  # the first one is not counted
        for kind in random.permutation(list(KINDS)).tolist():
            times[kind].append(seconds(lambda kind=kind: programs[kind](*arguments[kind]), calls))
    counts = {kind: counted(program) for kind, program in programs.items()}
    texts = {kind: nameless(program) for kind, program in programs.items()}
    rows = {}
    for kind in KINDS:
        twin = BARE.get(kind, "function")
        own, bare = np.array(times[kind][1:]), np.array(times[twin][1:])
        rows[kind] = {
            **counts[kind],
            "microseconds": 1e6 * float(np.median(own)),
            "time_ratio": float(np.median(own / bare)),
            "time_ratio_95": interval(own / bare),
            "same_program": texts[kind] == texts[twin],
            "flops_ratio": counts[kind]["flops"] / counts[twin]["flops"],
            "instructions_ratio": counts[kind]["instructions"] / counts[twin]["instructions"],
        }
    return rows


def traces(function, kind: str, d: int, *points) -> int:
    """How often ``function`` is traced for three sets of weights."""
    count = 0

    def counting(*arguments):
        nonlocal count
        count += 1
        return function(*arguments)

    program = jax.jit(counting)
    for seed in range(3):
        jax.block_until_ready(program(KINDS[kind](*random_network(d, WIDTH, seed)[0]), *points))
    return count


def batch_of_scores(score, xs):
    return jax.vmap(score)(xs)


def distance(score, x, y):
    return dist(SteinMetric(score), x, y)


def measured(d: int, turns: int) -> dict:
    """All kinds in dimension ``d``."""
    weights, x, y = random_network(d, WIDTH)
    xs = jax.random.normal(jax.random.key(1), (BATCH, d))
    scores = {kind: make(*weights) for kind, make in KINDS.items()}
    report = {}
    several = 20 if d < 10 else 5
    for name, function, points, calls in (("score", batch_of_scores, (xs,), 100), ("dist", distance, (x, y), several)):
        programs = {kind: jax.jit(function).lower(score, *points).compile() for kind, score in scores.items()}
        values = [programs[kind](score, *points) for kind, score in scores.items()]
        apart = max(float(jnp.max(jnp.abs(value - values[0]))) for value in values)
        rows = compared(programs, {kind: (score, *points) for kind, score in scores.items()}, calls, turns)
        report[name] = {"largest_difference": apart, "kinds": rows}
    for kind in KINDS:
        report["score"]["kinds"][kind]["traces"] = traces(batch_of_scores, kind, d, xs)
    return report


def shown(value):
    """A number or numbers with few digits, and whatever else as it is."""
    return value if isinstance(value, bool) else np.round(value, 3).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="where to write the figures as JSON")
    parser.add_argument("--turns", type=int, default=40, help="how often each is timed")
    arguments = parser.parse_args()
    report = about("scoregeo", "jax", "flax", "equinox")
    for d in (2, 64):
        report[f"d{d}"] = measured(d, arguments.turns)
        for name, part in report[f"d{d}"].items():
            print(f"{name}, d = {d}; values differ by at most {part['largest_difference']:.2g}")
            for kind, row in part["kinds"].items():
                print(f"  {kind:20}", {key: shown(value) for key, value in row.items()}, flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
