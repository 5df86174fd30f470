"""What XLA's compilers for TPUs and for NVIDIA's GPUs make of scoregeo, on a machine that has neither.

    uv run --group accelerators python benchmarks/accelerators.py tpu [--out NAME.json] [PROGRAM ...]
    uv run --with "jax[cuda12]" python benchmarks/accelerators.py cuda [--out NAME.json] [PROGRAM ...]

For a TPU v5e a minute or so on two cores (`libtpu`, 170 MB), for an H100 some minutes (5 GB). Each program is compiled
in a process of its own, ``--alone``, which prints what the compiler says as a line of JSON: seconds of the wall and of
all cores, bytes of code, of scratch, and what the loops of a solve launch. Seconds hold only where nothing else runs.

float64 is enabled and every argument is float32: no array may be of another precision.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time

# The compiler for TPUs refuses flags for that for CPUs, and asks the network where it is unless it is told. Without
# devices nothing speaks against several processes.
os.environ.pop("XLA_FLAGS", None)
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "1",
    "JAX_ENABLE_COMPILATION_CACHE": "0",
}

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import scoregeo as sg
from scoregeo import FunctionScore, GaussianMixtureScore, SteinMetric, dist

# What XLA says of an H100 that it has found.
H100 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000
l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } device_description_str: "NVIDIA H100 80GB HBM3"
"""
TOPOLOGIES = {
    "tpu": {"topology_name": "v5e:2x2x1"},
    "cuda": {"topology_name": "1x1x1", "topology": "1x1x1", "target_config": H100},
}
WIDE = 3072
# Instructions of a compiled program that are no work of their own.
IDLE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "iota", "after-all"}
IDLE |= {"while", "conditional", "call"}  # what they call is counted, or not, for itself


def single(*values) -> jax.Array:
    """An array in float32."""
    return jnp.asarray(values, jnp.float32)


def mixture() -> SteinMetric:
    """The metric of three modes in the plane."""
    covariances = jnp.stack([0.25 * jnp.eye(2, dtype=jnp.float32)] * 3)
    score = GaussianMixtureScore(
        jnp.full(3, 1 / 3, jnp.float32), single([-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]), covariances
    )
    return SteinMetric(score, single(1.0)[0])


X, Y = single(-1.5, 0.2), single(1.4, -0.3)


def network(x, first, second, bias):
    """A score of two layers."""
    return second @ jnp.tanh(first @ x) + bias - x


def learned(d: int) -> SteinMetric:
    """The metric of a network of 128 units."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((128, d)) / d**0.5, random.standard_normal((d, 128)) / 128**0.5, np.zeros(d)
    return SteinMetric(FunctionScore(network, *(jnp.asarray(w, jnp.float32) for w in weights)), single(1.0)[0])


def untrained():
    """What `fit` hands to its compiled steps, and the model that comes out where these do nothing."""
    from scoregeo.diffusion import FitConfig, fit
    from scoregeo.diffusion.training import fit as module
    from scoregeo.diffusion.training.steps import Losses

    seen, steps = [], module.run_steps

    def idle(training, state, batches, steps):
        seen.append((training, jax.tree.map(jnp.copy, state)))
        nothing = np.zeros(8, np.float32)
        return dataclasses.replace(state, step=state.step + steps), Losses(nothing[0], nothing[0], nothing, nothing)

    module.run_steps = idle
    points = np.random.default_rng(0).standard_normal((512, 2)).astype(np.float32) / 2
    model = fit(points, FitConfig(steps=4, batch_size=64, width=32, depth=2, chunk_steps=4), progress=False)
    return model, seen[0], lambda training, state: steps.__wrapped__(training, state, None, 4)


def training_chunk():
    """A chunk of steps of `fit`."""
    _, arguments, chunk = untrained()
    return chunk, *arguments


def sampling():
    """64 samples of a model."""
    model, _, _ = untrained()
    return lambda model, key: model.sample(key, 64), model, jax.random.key(0)


def fisher_rao(family, *ends):
    """A distance of distributions."""
    return lambda: (lambda a, b: family.dist(a, b), *ends)


def of_normals():
    """The distance of normal distributions in the plane."""
    # JAX's own eigenvalues on TPUs do not compile where it has float64 enabled (0.10.2).
    jax.config.update("jax_enable_x64", False)
    return sg.fisher_rao.MultivariateNormal(2).dist, single(0, 0, 1, 0, 1), single(1, 2, 2, 0.5, 1)


def pairs_on_mesh(devices):
    """All distances among nine points, divided among the devices."""
    mesh = Mesh(np.array(devices), ("pairs",))
    points = jnp.asarray(np.random.default_rng(0).standard_normal((9, 2)), jnp.float32)
    return lambda metric, xs: sg.pairwise_dist(metric, xs, mesh=mesh), mixture(), points


def of_wide():
    """`dist` between images of 32 x 32 in three colours."""
    return dist, learned(WIDE), jnp.zeros(WIDE, jnp.float32), jnp.ones(WIDE, jnp.float32)


PROGRAMS = {
    "dist": lambda: (dist, mixture(), X, Y),
    "gradient": lambda: (jax.grad(dist, 1), mixture(), X, Y),
    "256 pairs": lambda: (jax.vmap(dist, (None, 0, 0)), mixture(), jnp.tile(X, (256, 1)), jnp.tile(Y, (256, 1))),
    "exp": lambda: (sg.exp, mixture(), X, Y),
    "normal": fisher_rao(sg.fisher_rao.Normal(), single(0, 1), single(1, 2)),
    "gamma": fisher_rao(sg.fisher_rao.Gamma(), single(1, 2), single(3, 1)),
    "multivariate normal": of_normals,
    "training": training_chunk,
    "sampling": sampling,
    "pairwise": pairs_on_mesh,
    "d = 3072": of_wide,
}


def compiled(name: str, platform: str):
    """The compiled program, the one it is made of, and the seconds that it took, of the wall and of all cores."""
    topology = topologies.get_topology_desc(platform=platform, **TOPOLOGIES[platform])
    # What is traced asks where it will run.
    jax.default_backend = lambda: {"cuda": "gpu"}.get(platform, platform)
    several = PROGRAMS[name] is pairs_on_mesh
    devices = topology.devices if several else topology.devices[:1]
    function, *arguments = pairs_on_mesh(devices) if several else PROGRAMS[name]()
    place = NamedSharding(Mesh(np.array(devices), ("pairs",)), PartitionSpec())
    arrays, static = eqx.partition(arguments, eqx.is_array)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, _narrow(a.dtype), sharding=place), arrays)

    def of_arrays(arrays):
        return eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array)

    wall, cores = time.perf_counter(), cpu_seconds()
    lowered = jax.jit(of_arrays, out_shardings=place).lower(shapes)
    program = lowered.compile()
    return program, lowered, time.perf_counter() - wall, cpu_seconds() - cores


def cpu_seconds() -> float:
    """Of this process, and of those that it started: NVIDIA's assembler is one."""
    return sum(os.times()[:4])


def _narrow(dtype):
    """float32 in place of float64, which the default of a strength has."""
    return jnp.float32 if dtype == jnp.float64 else dtype


def computations(text: str) -> dict[str, list[str]]:
    """The instructions of each computation of a compiled program."""
    found, current = {}, []
    for line in re.sub(r"/\*index=\d+\*/", "", text).splitlines():
        begins = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line)
        if begins:
            current = found.setdefault("ENTRY" if begins[1] else begins[2], [])
        elif " = " in line:
            current.append(line)
    return found


def launched(parts: dict[str, list[str]], name: str) -> int:
    """How many kernels a computation launches, conditions counted with all their branches, and loops not."""
    count = 0
    for line in parts[name]:
        operation = re.search(r" = (?:\([^=]*?\)|\S+) ([\w\-]+)\(", line)
        if operation and operation[1] not in IDLE and not operation[1].endswith("-done"):
            count += 1
        for called in re.findall(r"(?:branch_computations=\{|_computation=|to_apply=)([^},]+(?:, %[^},]+)*)", line):
            if operation and operation[1] in ("conditional", "call"):
                count += sum(launched(parts, part.strip(" %")) for part in called.split(","))
    return count


def steps_of(text: str) -> dict[str, list[int]]:
    """Kernels of a Newton step and of a step of conjugate gradients, on each level of a solve.

    In a batch a level has a loop of its own, in which conjugate gradients are another; a solve on its own has one loop,
    with a branch for each level.
    """
    parts = computations(text)

    def loops(name):
        """Bodies of the loops of conjugate gradients, or of a solve, in a computation."""
        for line in parts[name]:
            loop = re.search(r" while\(.*body=%([\w.\-]+)", line)
            if loop and re.search(r'op_name="[^"]*/while"', line):
                yield loop[1]

    def branches(name):
        for line in parts[name]:
            found = re.search(r" conditional\(.*branch_computations=\{([^}]+)\}", line)
            levels = [part.strip(" %") for part in found[1].split(",")] if found else []
            if any(any(loops(level)) for level in levels):
                yield from levels

    newton, inner = [], []
    for body in loops("ENTRY"):
        levels = list(branches(body))
        shared = launched(parts, body) - sum(launched(parts, level) for level in levels)
        for level in levels or [body]:
            steps = [launched(parts, loop) for loop in loops(level)]
            if steps:
                newton.append(shared + launched(parts, level) if levels else shared)
            inner += steps
    return {"newton_step": newton, "cg_step": inner}


def arithmetic_in_double(text: str) -> list[str]:
    """What a lowered program computes with arrays in float64: not what it converts, selects or hands on, nor scalars,
    as numbers of Python are, and diffrax's step sizes. On TPUs compiled programs show nothing of the type."""
    handed_on = r"stablehlo\.(constant|convert|while|return|broadcast_in_dim|select)|func\.func|call @|return "
    return [line for line in text.splitlines() if "xf64>" in line and not re.search(handed_on, line)]


def report(name: str, platform: str) -> dict:
    """What the compiler says of one program."""
    program, lowered, wall, cores = compiled(name, platform)
    text, memory = program.as_text(), program.memory_analysis()
    if "BENCHMARK_HLO" in os.environ:
        pathlib.Path(os.environ["BENCHMARK_HLO"]).write_text(text)
    return {
        "program": name,
        "seconds": {"wall": wall, "cpu": cores},
        "code": memory.generated_code_size_in_bytes,
        "scratch": memory.temp_size_in_bytes,
        "callbacks": text.count("callback"),
        "float64": len(arithmetic_in_double(lowered.as_text())),
        "custom_calls": sorted(set(re.findall(r"custom_call @([\w.]+)", lowered.as_text()))),
        "compiler_custom_calls": sorted(set(re.findall(r'custom_call_target="([^"]+)"', text))),
        **steps_of(text),
    }


def main() -> None:
    """Compile the programs that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platform", choices=TOPOLOGIES)
    parser.add_argument("programs", nargs="*", help="default all")
    parser.add_argument("--alone", action="store_true", help="in this process, one program")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.alone:
        (name,) = arguments.programs
        print(json.dumps(report(name, arguments.platform)))
        return
    from timing import about

    results = about("jax", "jaxlib", *(["libtpu"] if arguments.platform == "tpu" else ["jax-cuda12-plugin"]))
    results |= {"device": arguments.platform, "rows": []}
    for name in arguments.programs or PROGRAMS:
        if arguments.platform == "cuda" and PROGRAMS[name] is pairs_on_mesh:
            continue  # one device is all that this topology has
        command = [sys.executable, __file__, arguments.platform, name, "--alone"]
        done = subprocess.run(command, capture_output=True, text=True)
        row = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-2000:]}
        row = {"program": name, "load": os.getloadavg()[0], **row}
        results["rows"].append(row)
        print(json.dumps(row), flush=True)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
