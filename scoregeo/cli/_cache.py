"""Compiled programs are kept for the next command: JAX's persistent cache, in the user's folder for such files."""

import hashlib
import os
import pathlib
import platform
from importlib import metadata

# XLA's former way to make kernels for CPUs compiles twice as fast, and what it makes is up to a third slower. A process
# dies of a flag that XLA does not know; these versions of jaxlib know this one.
_SOONER, _KNOWN_TO = "--xla_cpu_use_fusion_emitters=false", ("0.10.",)


def program_folder(parent: pathlib.Path) -> pathlib.Path:
    """The folder below ``parent`` for programs of this machine: one for each CPU and number of XLA's threads, because
    JAX asks for neither when it looks for a program, and programs differ in last digits, or not run at all."""
    about = pathlib.Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))]
    threads = os.environ.get("NPROC", str(os.cpu_count()))
    made_for = " ".join([platform.machine(), threads, *features[:1]])
    return parent / f"scoregeo-jax-cache-{hashlib.sha256(made_for.encode()).hexdigest()[:12]}"


def keep_programs() -> None:
    """Make JAX keep what it compiles, unless the user's environment has said where or that it shall not."""
    disabled = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1").lower() in ("0", "false")
    if disabled or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = program_folder(pathlib.Path(home))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a command that cannot keep programs works all the same
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def compile_sooner() -> None:
    """Make XLA compile for a CPU in half the time, unless the user's environment has flags of its own; to be called
    before JAX compiles anything."""
    if metadata.version("jaxlib").startswith(_KNOWN_TO):
        os.environ.setdefault("XLA_FLAGS", _SOONER)
