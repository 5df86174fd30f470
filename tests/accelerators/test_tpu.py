"""XLA's compiler for TPUs takes what scoregeo lowers, on a machine without one: what would fail on a device fails here.

    UV_PROJECT_ENVIRONMENT=PLACE uv run --group accelerators pytest tests/accelerators -m slow

The compiler is the package ``libtpu``; without it all of this is skipped. `.ci/run` gives it an environment of its own.
Each program is compiled in a process of its own, by `benchmarks/accelerators.py`, in float32 where float64 is enabled.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu, XLA's compiler for TPUs, is not installed: it is in the dependency group `accelerators`",
    ),
]
SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "accelerators.py"
# What the compiler itself puts into its programs; anything else would be called on a device that may not have it.
OF_XLA = {"AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "GatherScatterIndicesBitpacked"}
# For eigenvalues and orthogonal factors, which XLA knows on TPUs.
OF_ALGEBRA = {"Cholesky", "CompactWyHelper", "Eigh", "EighTpu", "InvertDiagBlocksLowerTriangular"}
OF_ALGEBRA |= {"InvertDiagBlocksUpperTriangular", "ProductOfElementaryHouseholderReflectors", "Qr"}
OF_ALGEBRA |= {"QrDecompositionBlock"}
# What tells JAX's partitioner where arrays are, and is gone from the compiled program.
OF_JAX = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
PROGRAMS = [
    "dist",
    "gradient",
    "256 pairs",
    "exp",
    "normal",
    "gamma",
    "multivariate normal",
    "training",
    "sampling",
    "pairwise",
    "d = 3072",
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiles(name, record_property):
    # Of the other tests' settings none is for this compiler.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XLA_", "JAX_"))}
    command = [sys.executable, SCRIPT, "tpu", name, "--alone"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    for key, value in found.items():
        record_property(key, value)
    assert found["callbacks"] == 0
    # In a batch, the stage of a continuation is a number for each lane: at most a few operations on each level.
    assert found["float64"] <= (24 if name in ("256 pairs", "pairwise") else 0)
    known = OF_XLA | OF_JAX | (OF_ALGEBRA if name == "multivariate normal" else set())
    assert set(found["custom_calls"]) | set(found["compiler_custom_calls"]) <= known
    # In bytes. Large arrays are worked on instruction by instruction, for each of the three levels of the solver.
    assert found["code"] < (40e6 if name in ("d = 3072", "256 pairs") else 20e6)
