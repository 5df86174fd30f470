"""Matrices of distances: symmetry, blocks, progress, and sharding over devices and processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import linear_curl

from scoregeo import RESULTS, Bend, SpectralNewton, SteinMetric, dist, models, pairwise_dist

SOLVER = SpectralNewton(degree=12, max_elements=1, rtol=1e-4, path_rtol=1.0, continuation=0)


def swirl(x):
    """A field with curl; NaN far to the right."""
    return jnp.where(x[0] > 3, jnp.nan, linear_curl(x))


def points(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2))


METRIC = SteinMetric(swirl, 0.5)


@pytest.mark.slow
def test_symmetric_blocks_and_rectangles():
    xs = points(5)
    matrix, results = pairwise_dist(METRIC, xs, solver=SOLVER)
    assert matrix.shape == (5, 5)
    assert bool((results == RESULTS.successful).all())
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(jnp.diagonal(matrix), 0)
    one = dist(METRIC, jnp.asarray(xs[1]), jnp.asarray(xs[3]), solver=SOLVER)
    np.testing.assert_allclose(matrix[1, 3], one, rtol=1e-10)
    blocks, _ = pairwise_dist(METRIC, xs, solver=SOLVER, batch_size=3)
    np.testing.assert_allclose(blocks, matrix, rtol=1e-10)
    rectangle, _ = pairwise_dist(METRIC, xs, xs[:2], solver=SOLVER)
    np.testing.assert_allclose(rectangle, matrix[:, :2], rtol=1e-9, atol=1e-12)
    single, results = pairwise_dist(METRIC, xs[:1], solver=SOLVER)
    assert single.shape == (1, 1)
    assert float(single[0, 0]) == 0
    assert bool((results == RESULTS.successful).all())


@pytest.mark.slow
def test_traced_and_differentiable():
    xs = jnp.asarray(points(4))

    def total(strength, batch_size):
        matrix, _ = pairwise_dist(SteinMetric(swirl, strength), xs, solver=SOLVER, batch_size=batch_size)
        return jnp.sum(matrix)

    value, slope = jax.jit(jax.value_and_grad(total), static_argnums=1)(0.5, 4)
    np.testing.assert_allclose(value, total(0.5, 6), rtol=1e-10)
    h = 1e-5
    np.testing.assert_allclose(slope, (total(0.5 + h, 6) - total(0.5 - h, 6)) / (2 * h), rtol=1e-6)


@pytest.mark.slow
def test_a_bad_pair_spoils_no_other():
    xs = np.concatenate([points(4), [[4.0, 0.0]]])
    matrix, results = pairwise_dist(METRIC, xs, solver=SOLVER)
    clean, _ = pairwise_dist(METRIC, xs[:4], solver=SOLVER)
    np.testing.assert_allclose(matrix[:4, :4], clean, rtol=1e-12)
    bad = np.asarray(results == RESULTS.metric_nonfinite)
    np.testing.assert_array_equal(bad[4, :4], True)
    np.testing.assert_array_equal(bad[:4, :4], False)
    assert not np.isfinite(matrix[4, :4]).any()


@pytest.mark.slow
def test_points_outside_the_domain():
    xs = np.array([[0.0, 1.0], [0.5, 2.0], [0.3, -1.0]])
    matrix, results = pairwise_dist(models.HyperbolicHalfSpace(), xs, solver=SOLVER)
    np.testing.assert_allclose(matrix[0, 1], models.HyperbolicHalfSpace().closed_dist(xs[0], xs[1]), rtol=1e-4)
    outside = np.array([[False, False, True], [False, False, True], [True, True, False]])
    np.testing.assert_array_equal(results == RESULTS.outside_domain, outside)
    np.testing.assert_array_equal(results == RESULTS.successful, ~outside)


@pytest.mark.slow
def test_progress_reaches_the_end(capfd):
    pairwise_dist(METRIC, points(3), solver=SOLVER, progress=True)
    assert "100%" in capfd.readouterr().err
    pairwise_dist(METRIC, points(3), solver=SOLVER)
    assert capfd.readouterr().err == ""


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`mesh` must be a jax.sharding.Mesh with one axis, got 8"):
        pairwise_dist(METRIC, points(3), mesh=8)
    with pytest.raises(ValueError, match=r"`batch_size` must be an integer of at least 1, got -1"):
        pairwise_dist(METRIC, points(3), batch_size=-1)
    with pytest.raises(TypeError, match=r"`init` must be a starting rule such as StraightLine\(\), got ndarray"):
        pairwise_dist(METRIC, points(3), init=points(3))
    with pytest.raises(ValueError, match=r"`offset` must have shape \(2,\), got \(3,\)"):
        pairwise_dist(METRIC, points(3), init=Bend([0.0, 1.0, 0.0]))


# What every sharded run computes: 45 pairs, which 8 devices do not divide.
PROGRAM = """
import json, sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", None)
sys.path.insert(0, {tests!r})
process, port = int(sys.argv[1]), sys.argv[2]
if process >= 0:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{{port}}", num_processes=2, process_id=process)
import numpy as np
from jax.sharding import AxisType
from scoregeo import RESULTS, pairwise_dist
from test_pairwise import METRIC, SOLVER, points
devices = jax.device_count()
mesh = jax.make_mesh((devices,), ("pairs",), axis_types=(AxisType.Auto,))
matrix, results = pairwise_dist(METRIC, points(10), solver=SOLVER, mesh=mesh, batch_size=4)
good = bool(np.asarray(results == RESULTS.successful).all())
print("RESULT" + json.dumps([devices, jax.process_count(), good, np.asarray(matrix).tolist()]))
"""


def run_program(process=-1, port="0", devices=1):
    program = PROGRAM.format(tests=str(pathlib.Path(__file__).parent))
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(process), port],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def answer(process):
    out, err = process.communicate(timeout=400)
    lines = [line for line in out.splitlines() if line.startswith("RESULT")]
    assert lines, err[-3000:]
    return json.loads(lines[-1].removeprefix("RESULT"))


@pytest.fixture(scope="module")
def on_one_device():
    return pairwise_dist(METRIC, points(10), solver=SOLVER)[0]


@pytest.mark.slow
def test_eight_devices(on_one_device):
    devices, processes, good, matrix = answer(run_program(devices=8))
    assert (devices, processes, good) == (8, 1, True)
    np.testing.assert_allclose(matrix, on_one_device, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_two_processes(on_one_device):
    """Two processes with two devices each, talking through gloo: each gets the whole matrix."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    runs = [run_program(process, port, devices=2) for process in (0, 1)]
    for run in runs:
        devices, processes, good, matrix = answer(run)
        assert (devices, processes, good) == (4, 2, True)
        np.testing.assert_allclose(matrix, on_one_device, rtol=1e-9, atol=1e-12)
