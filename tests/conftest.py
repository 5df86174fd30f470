"""Tests run in float64 with strict dtype promotion off the beaten path; float32 is tested by passing float32 arrays."""

import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax

jax.config.update("jax_enable_x64", True)
# A persistent compilation cache, shared by the xdist workers and by later runs.
cache = pathlib.Path(os.environ.get("SCOREGEO_TEST_CACHE", pathlib.Path(tempfile.gettempdir()) / "scoregeo-jax-cache"))
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
