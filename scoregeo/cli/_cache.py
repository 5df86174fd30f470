"""Compiled programs are kept for the next command: JAX's persistent cache, in the user's folder for such files. Beside
them, how long it took to compile them."""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
from importlib import metadata

# XLA's former way to make kernels for CPUs compiles twice as fast, and what it makes is up to a third slower. A process
# dies of a flag that XLA does not know; these versions of jaxlib know this one.
_SOONER, _KNOWN_TO = "--xla_cpu_use_fusion_emitters=false", ("0.10.",)

# As measured on two cores that others used as well, with a network and points as `scoregeo train` takes them for two
# moons. What is not here, nobody has measured.
_MEASURED = {
    "train mlp: training": 7.0,
    "evaluate Potential: the loss on held-out points": 3.0,
    "evaluate Potential: n samples, and their nearest training points": 4.0,
    "sample Potential: samples": 4.0,
    "likelihood Potential: log densities": 5.0,
    "dimension Potential: dimensions": 4.0,
    "geodesic Potential stein: solving the geodesic": 10.0,
    "geodesic Potential score-jacobian: solving the geodesic": 48.0,
    "distance Potential stein: distances": 30.0,
    "compare Potential stein: distances": 57.0,
    "cluster Potential stein: distances": 34.0,
    "mean Potential stein: the mean of n points": 21.0,
    "pca Potential stein: the mean of n points, and directions from it": 26.0,
    "explore model: the score on a grid, and n geodesics in each metric": 80.0,
}


def program_folder(parent: pathlib.Path) -> pathlib.Path:
    """The folder below ``parent`` for programs of this machine: one for each CPU and number of XLA's threads, because
    JAX asks for neither when it looks for a program, and programs differ in last digits, or not run at all."""
    about = pathlib.Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))]
    threads = os.environ.get("NPROC", str(os.cpu_count()))
    made_for = " ".join([platform.machine(), threads, *features[:1]])
    return parent / f"scoregeo-jax-cache-{hashlib.sha256(made_for.encode()).hexdigest()[:12]}"


class CompileTimes:
    """For how many seconds something compiled when it last did on this machine; kept in ``folder``, if there is one.
    Of what was not done here before, as `_MEASURED` has it. Names are those that a `Report` gives."""

    def __init__(self, folder: pathlib.Path | None = None):
        self._path = None if folder is None else folder / "scoregeo-compile-times.json"

    def of(self, name: str) -> float | None:
        """The seconds; ``None`` where nobody knows them."""
        return self._kept().get(name, _MEASURED.get(name))

    def keep(self, name: str, seconds: float, *, partly: bool) -> None:
        """Keep how long something compiled. Where it did so only ``partly``, because some of its programs were kept,
        the whole takes at least as long as before."""
        if self._path is None:
            return
        kept = self._kept()
        least = kept.get(name, _MEASURED.get(name, 0.0)) if partly else 0.0
        kept[name] = round(max(seconds, least), 1)
        from .._atomic import write_json

        with contextlib.suppress(OSError):  # a command that cannot keep times works all the same
            write_json(self._path, kept)

    def _kept(self) -> dict[str, float]:
        try:
            found = json.loads(self._path.read_text()) if self._path is not None else {}
            return {str(key): float(seconds) for key, seconds in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):  # none yet, or damaged
            return {}


def keep_programs() -> pathlib.Path | None:
    """Make JAX keep what it compiles, unless the user's environment has said where or that it shall not. Returns the
    folder, if there is one."""
    disabled = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1").lower() in ("0", "false")
    if disabled or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = program_folder(pathlib.Path(home))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a command that cannot keep programs works all the same
        return None
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder


def compile_sooner() -> None:
    """Make XLA compile for a CPU in half the time, unless the user's environment has flags of its own; to be called
    before JAX compiles anything."""
    if metadata.version("jaxlib").startswith(_KNOWN_TO):
        os.environ.setdefault("XLA_FLAGS", _SOONER)
