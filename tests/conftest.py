"""Tests run in float64 with strict dtype promotion off the beaten path; float32 is tested by passing float32 arrays."""

import gc
import importlib
import os
import pathlib
import signal
import tempfile
import threading

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# One worker for each core: LAPACK's own threads would only fight with the others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Likewise XLA's. And where as many batched factorisations as it has threads run side by side, each waits for the others
# to make room for its own batch: with several threads jaxlib 0.10 may wait forever, with one it never tries.
os.environ.setdefault("NPROC", "1")
# Tests compile for longer than they run: less optimisation takes a third of the time, one module for LLVM instead of
# many an eighth less again.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

# A shell that starts the tests in the background makes them, and what they start, deaf to interrupts: some test those.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import jaxtyping
import pytest

from scoregeo.cli._cache import program_folder

# Tracing makes objects by the million, and hardly a cycle among them: looking for these takes a sixth of its time.
gc.set_threshold(50_000, 20, 20)

jax.config.update("jax_enable_x64", True)
# A persistent compilation cache, shared by the xdist workers, the processes that tests start, and later runs.
if "SCOREGEO_TEST_CACHE" not in os.environ:
    os.environ["SCOREGEO_TEST_CACHE"] = str(program_folder(pathlib.Path(tempfile.gettempdir())))
jax.config.update("jax_compilation_cache_dir", os.environ["SCOREGEO_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def pytest_configure(config):
    """Annotations are checked in the fast tests, which meet nearly every function, and where both kinds run: in those
    that take seconds, the checks of every call in every trace would take more."""
    jaxtyping.config.update("jaxtyping_disable", config.option.markexpr == "slow")


@pytest.fixture(scope="module", autouse=True)
def _release_programs():
    """Drop what a file compiled when it is done: each program takes memory maps, of which a process has only 65,530.

    Without this a worker of a long run dies of a segmentation fault inside XLA.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def science(monkeypatch):
    """A function from their names to the modules of the studies, which are scripts beside each other."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "benchmarks" / "science")
    return importlib.import_module
