"""A solve with a convolutional network of some million parameters: what the solver costs on top of its network calls.

The score is a U-Net on 32 x 32 x 3 images (d = 3072) with random weights. The network's share of a solve is measured
by `network_calls`: the same derivatives of the network at the same number of points, as often as the solve asked for
them, and nothing else.
"""

import jax
import jax.numpy as jnp
from timing import compiled, in_turns

from scoregeo import RESULTS, FunctionScore, SpectralNewton, SteinMetric, geodesic

SHAPE = (32, 32, 3)
GROUPS = 8
CHANNELS = (16, 64, 152)  # most parameters where there are few pixels: about a million


def _convolution_weights(key, size, into, out):
    """Weights ``(size, size, into, out)`` that keep the variance, and zero biases."""
    scale = (size * size * into) ** -0.5
    return {"w": scale * jax.random.normal(key, (size, size, into, out)), "b": jnp.zeros(out)}


def _convolution(p, x, stride=1):
    """Convolution of an image ``(h, w, c)``, padded to its size."""
    y = jax.lax.conv_general_dilated(
        x[None], p["w"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y[0] + p["b"]


def _normalised(x):
    """Group normalisation without learned factors, in float32 whatever the dtype of ``x``."""
    h, w, c = x.shape
    groups = x.astype(jnp.float32).reshape(h, w, GROUPS, c // GROUPS)
    mean = jnp.mean(groups, (0, 1, 3), keepdims=True)
    variance = jnp.var(groups, (0, 1, 3), keepdims=True)
    return ((groups - mean) * jax.lax.rsqrt(variance + 1e-5)).reshape(h, w, c).astype(x.dtype)


def _block_weights(key, into, out):
    """Weights of `_block`."""
    k = jax.random.split(key, 3)
    return {
        "first": _convolution_weights(k[0], 3, into, out),
        "second": _convolution_weights(k[1], 3, out, out),
        "skip": _convolution_weights(k[2], 1, into, out),
    }


def _block(p, x):
    """Two convolutions with normalisation and silu, and a way around them."""
    y = _convolution(p["first"], jax.nn.silu(_normalised(x)))
    y = _convolution(p["second"], jax.nn.silu(_normalised(y)))
    return y + _convolution(p["skip"], x)


def unet_weights(key: jax.Array, dtype=jnp.float32) -> dict:
    """Random weights of `unet`, with `CHANNELS` at 32, 16 and 8 pixels."""
    k, c = iter(jax.random.split(key, 16)), CHANNELS
    weights = {
        "in": _convolution_weights(next(k), 3, SHAPE[-1], c[0]),
        "down": [_block_weights(next(k), a, b) for a, b in zip((c[0], *c[:-1]), c, strict=True)],
        "middle": _block_weights(next(k), c[2], c[2]),
        "up": [_block_weights(next(k), a, b) for a, b in ((2 * c[2], c[1]), (2 * c[1], c[0]), (2 * c[0], c[0]))],
        "out": _convolution_weights(next(k), 3, c[0], SHAPE[-1]),
    }
    return jax.tree.map(lambda w: w.astype(dtype), weights)


def unet(image: jax.Array, p: dict) -> jax.Array:
    """The network minus its input (a score that points inwards), in the precision of the weights."""
    x = _convolution(p["in"], image.astype(p["in"]["w"].dtype))
    skips = []
    for level, block in enumerate(p["down"]):
        if level > 0:
            h, w, c = x.shape
            x = x.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3))
        x = _block(block, x)
        skips.append(x)
    x = _block(p["middle"], x)
    for level, (block, skip) in enumerate(zip(p["up"], reversed(skips), strict=True)):
        if level > 0:
            x = jnp.repeat(jnp.repeat(x, 2, 0), 2, 1)
        x = _block(block, jnp.concatenate([x, skip], -1))
    x = _convolution(p["out"], jax.nn.silu(_normalised(x)))
    return x.astype(image.dtype) - image


def flat_unet(x, p):
    """`unet` on vectors of length 3072."""
    return unet(x.reshape(SHAPE), p).reshape(-1)


def problem(dtype=jnp.float32):
    """Metric and two points in float32, with weights of ``dtype``; the strength makes lam |s|^2 about 1."""
    key = jax.random.split(jax.random.key(1), 3)
    score = FunctionScore(flat_unet, unet_weights(key[0], dtype))
    x, y = (0.5 * jax.random.normal(k, (3072,), jnp.float32) for k in key[1:])
    return SteinMetric(score, 1 / 3072), x, y


def network_calls(score, points, velocities, newton, cg, judgements):
    """What ``newton`` Newton steps with ``cg`` conjugate gradient steps in all ask of the network, and nothing more.

    A Newton step: energy, gradient and their linearisation; the rows (s, J^T v) of the preconditioner; the energy of
    the new path. A conjugate gradient step: one product with the linearisation. A judgement: energy, gradient and rows.
    """

    def energy(points, velocities):
        return jnp.sum(jnp.sum(jax.vmap(score)(points) * velocities, -1) ** 2)

    def row(point, velocity):
        value, pullback = jax.vjp(score, point)
        return jnp.sum(value) + jnp.sum(pullback(velocity)[0])

    def rows(points):
        return jnp.sum(jax.vmap(row)(points, velocities))

    def unlike(points, value):
        # Every call depends on the one before, or XLA would do it once.
        return points + 1e-30 * value

    def product(_, carry):
        linearised, direction = carry
        result = linearised(direction)[1]
        return linearised, result / jnp.linalg.norm(result)

    def step(i, points):
        (_, gradient), linearised = jax.linearize(jax.value_and_grad(lambda p: energy(p, velocities)), points)
        # The steps are shared out evenly, the first take what is left.
        steps = cg // newton + (i < cg % newton)
        _, direction = jax.lax.fori_loop(0, steps, product, (linearised, gradient))
        points = unlike(points, jnp.sum(direction) + rows(points))
        return unlike(points, energy(points, velocities))

    def judge(_, points):
        gradient = jax.grad(lambda p: energy(p, velocities))(points)
        return unlike(points, jnp.sum(gradient) + rows(points))

    return jax.lax.fori_loop(0, judgements, judge, jax.lax.fori_loop(0, newton, step, points))


def _solve_with(solver):
    """A function to compile: the geodesic by ``solver``."""
    return lambda metric, x, y: geodesic(metric, x, y, solver=solver, ts=(0.0, 1.0), throw=False)


def overhead(dtype=jnp.float32, degree: int = 8, rtol: float = 1e-3) -> dict:
    """One solve at d = 3072, the network calls in it, and the share of time that they take."""
    metric, x, y = problem(dtype)
    solver = SpectralNewton(rtol=rtol, path_rtol=1.0, degree=degree, max_elements=1, adaptations=0, continuation=0)
    solve, compile_seconds = compiled(_solve_with(solver), metric, x, y)
    found = solve(metric, x, y)
    newton, cg, evaluations = (int(found.stats[k]) for k in ("newton_steps", "cg_steps", "metric_evaluations"))
    points = solver.quadrature * degree
    t = (jnp.arange(points, dtype=x.dtype) + 0.5)[:, None] / points
    path = x + t * (y - x)
    velocities = jnp.broadcast_to(y - x, path.shape)
    # The last step finds that there is nothing to gain; the judgement is on two elements, at twice as many points.
    arguments = metric.score, path, velocities, newton + 1, cg, 2
    bare, _ = compiled(network_calls, *arguments)
    seconds, bare_seconds = in_turns(lambda: solve(metric, x, y), lambda: bare(*arguments), repeats=3)
    return {
        "dtype": jnp.dtype(dtype).name,
        "parameters": sum(w.size for w in jax.tree.leaves(metric.score.args)),
        "status": "converged" if bool(found.result == RESULTS.successful) else str(found.result),
        "length": float(found.length),
        "error_estimate": float(found.error),
        "newton_steps": newton,
        "cg_steps": cg,
        "metric_evaluations": evaluations,
        "solve_seconds": seconds,
        "network_seconds": bare_seconds,
        "network_share": bare_seconds / seconds,
        "compile_seconds": compile_seconds["wall"],
        "buffers_MiB": _buffers(solve),
    }


def _buffers(program) -> float | None:
    """MiB of XLA's temporary buffers, where it says."""
    analysis = program.memory_analysis()
    return None if analysis is None else analysis.temp_size_in_bytes / 2**20


def memory(settings: list[dict], degree: int = 8) -> list[dict]:
    """Buffers of a solve with other settings of the solver; compiled, not run."""
    metric, x, y = problem()
    rows = []
    for each in settings:
        solver = SpectralNewton(degree=degree, max_elements=1, adaptations=0, continuation=0, **each)
        rows.append({"settings": each, "buffers_MiB": _buffers(compiled(_solve_with(solver), metric, x, y)[0])})
    return rows
