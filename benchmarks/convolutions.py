"""Derivatives of a U-Net in loops, as a solver of geodesics takes them, against the same calls outside of a loop.

    uv run python benchmarks/convolutions.py [--quick] [--out NAME.json]

A few minutes on two cores. XLA's programs for convolutions on CPUs depend on where they are called (see
`scoregeo/diffusion/networks/convolution.py`): what a loop costs is measured for our convolution and for JAX's own.
"""

import argparse
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
from flax import nnx
from timing import about, compiled, in_turns

from scoregeo.diffusion import UNet

jax.config.update("jax_enable_x64", True)

ROUNDS = 3  # of a loop


def network(shape: tuple[int, int, int], width: int, convolution, dtype) -> nnx.Module:
    """A U-Net with random weights whose convolutions are computed by ``convolution``, or as it does itself."""
    net = UNet(shape, width, (1, 2), 1, key=jax.random.key(0), dtype=dtype)
    for _, module in nnx.iter_modules(net):
        if convolution is not None and isinstance(module, nnx.Conv):
            module.conv_general_dilated = convolution
    graphdef, weights = nnx.split(net)
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # Layers that start at zero would leave nothing to differentiate.
    leaves = [a + 0.05 * jax.random.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys, strict=True)]
    return nnx.merge(graphdef, jax.tree.unflatten(structure, leaves))


def calls(net) -> dict:
    """What a solver asks of a network ``s``: each takes points and vectors ``(n, d)``, and returns such vectors."""

    def score(x):
        return net(x, jnp.asarray(0.1, x.dtype))

    def pushed(x, v):
        return jax.jvp(score, (x,), (v,))[1]

    def pulled(x, v):
        return jax.vjp(score, x)[1](v)[0]

    def energy(x, v):
        return jnp.vdot(score(x), v) ** 2

    def hessian(x, v):
        return jax.jvp(lambda x: jax.grad(energy)(x, v), (x,), (v,))[1]

    def by_weights(x, v):
        graphdef, weights = nnx.split(net)
        gradient = jax.grad(lambda w: jnp.mean(jax.vmap(nnx.merge(graphdef, w))(x, v[:, 0]) ** 2))(weights)
        return v * (1 + 1e-30 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(gradient)))

    return {
        "value": lambda x, v: jax.vmap(score)(x),
        "JVP": jax.vmap(pushed),
        "VJP": jax.vmap(pulled),
        "JVP of the gradient": jax.vmap(hessian),
        "VJP in the weights": by_weights,
    }


def once(call):
    """``call``, and from what it returned both arguments of the next: XLA takes out of a loop what stays the same."""

    def step(x, v):
        result = 1e-3 * call(x, v)
        return x + result, v + result

    return step


def in_a_loop(call):
    """`once`, again and again."""
    step = once(call)
    return lambda x, v: jax.lax.fori_loop(0, ROUNDS, lambda _, carry: step(*carry), (x, v))


def measure(shape, width: int, n: int, dtype):
    """Yields a row for each call: seconds outside and in a loop, for our convolution and for JAX's."""
    x, v = jax.random.normal(jax.random.key(2), (2, n, shape[0] * shape[1] * shape[2]), dtype)
    forms = {
        "ours": calls(network(shape, width, None, dtype)),
        "jax": calls(network(shape, width, jax.lax.conv_general_dilated, dtype)),
    }
    for name in forms["ours"]:
        row = {"shape": shape, "width": width, "points": n, "dtype": jnp.dtype(dtype).name, "call": name}
        for form, named in forms.items():
            outside, _ = compiled(once(named[name]), x, v)
            loop, _ = compiled(in_a_loop(named[name]), x, v)
            # One form at a time: a call after a long one on all cores would find them taken.
            times = in_turns(lambda: outside(x, v), lambda: loop(x, v), repeats=9)  # noqa: B023 - called here
            seconds = times[0], times[1] / ROUNDS
            row |= {
                f"{form}, outside": seconds[0],
                f"{form}, loop": seconds[1],
                f"{form}, ratio": seconds[1] / seconds[0],
            }
        yield row


def main() -> None:
    """Run the sizes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small images only")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    results = about("jax", "jaxlib", "flax", "numpy")
    sizes = [((8, 8, 1), 16, 32), ((32, 32, 3), 32, 4)][: 1 if arguments.quick else 2]
    results["rows"] = []
    for size, dtype in itertools.product(sizes, (jnp.float32, jnp.float64)):
        for row in measure(*size, dtype):
            results["rows"].append(row)
            print(json.dumps(row), flush=True)
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
