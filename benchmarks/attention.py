"""What attention costs: one product J v of a `DiT` over long sequences, by the form of its attention.

For each form and number of tokens: milliseconds of J v in float32 (the median of calls in turn), the operations and the
temporary memory that XLA counts for it, all also relative to the softmax.

    uv run python benchmarks/attention.py --out benchmarks/results/attention.csv
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import write_rows

from scoregeo.diffusion import DiT

FORMS = ("softmax", "linear", "focus")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    rows = []
    for tokens in options.tokens:
        x = jnp.asarray(np.random.default_rng(0).normal(size=4 * tokens), jnp.float32)
        programs = {}
        for form in FORMS:
            network = DiT((1, 4 * tokens, 1), 4, options.width, options.depth, 4, attention=form, key=jax.random.key(0))
            product = jax.jit(lambda x, v, network=network: jax.jvp(lambda y: network(y, jnp.float32(0.1)), (x,), (v,)))
            programs[form] = product.lower(x, x).compile()
            jax.block_until_ready(programs[form](x, x))
        seconds = {form: [] for form in FORMS}
        for _ in range(options.rounds):
            for form, program in programs.items():
                start = time.perf_counter()
                jax.block_until_ready(program(x, x))
                seconds[form].append(time.perf_counter() - start)
        for form, program in programs.items():
            row = {
                "attention": form,
                "tokens": tokens,
                "milliseconds": 1e3 * float(np.median(seconds[form])),
                "times_softmax": float(np.median(np.array(seconds["softmax"]) / np.array(seconds[form]))),
                "gigaflops": program.cost_analysis()["flops"] / 1e9,
                "temporary_mb": program.memory_analysis().temp_size_in_bytes / 2**20,
            }
            rows.append(row)
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    write_rows(options.out, rows)


if __name__ == "__main__":
    main()
