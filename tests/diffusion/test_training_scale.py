"""Training on several devices and processes, with larger batches than memory holds, and on machines that fail."""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from flax import nnx

from scoregeo.diffusion import MLP, FitConfig, fit
from scoregeo.diffusion.training import fit as training
from scoregeo.diffusion.training.ema import PowerEMA
from scoregeo.diffusion.training.weightings import LearnedWeighting

pytestmark = pytest.mark.slow

CONFIG = FitConfig(
    steps=60, batch_size=32, width=8, depth=2, potential=False, chunk_steps=20, checkpoint_every=20, ema=PowerEMA(0.1)
)
POINTS = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@pytest.fixture(scope="module")
def whole():
    """The run that nothing disturbs."""
    return fit(POINTS, CONFIG, progress=False)


class TestAccumulation:
    def test_it_is_a_larger_batch(self):
        """In float64 up to rounding, with everything that a step draws."""
        config = dataclasses.replace(CONFIG, reference_size=100, second_order=0.5, weighting=LearnedWeighting())
        parts, large = (
            fit(POINTS.astype(np.float64), dataclasses.replace(config, **sizes), progress=False)
            for sizes in ({"batch_size": 16, "accumulation": 4}, {"batch_size": 64})
        )
        # The loss of a learned weighting has a logarithm in it and goes through zero.
        np.testing.assert_allclose(parts.history.train_loss, large.history.train_loss, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(parts.history.held_out_losses, large.history.held_out_losses, rtol=1e-8)

    def test_sizes_that_do_not_fit(self):
        with pytest.raises(ValueError, match="`batch_size` times `accumulation` = 128, got 100"):
            FitConfig(batch_size=32, accumulation=4, reference_size=100)
        with pytest.raises(ValueError, match="`accumulation` must be an integer of at least 1, got 0"):
            FitConfig(accumulation=0)


def test_the_state_is_used_again_and_the_network_is_not(whole, monkeypatch):
    """No second copy of weights, averages and moments is kept; what the user gave is untouched."""
    chunk, states = training._Run.chunk, []

    def remember(self, state, steps):
        states.append(state)
        return chunk(self, state, steps)

    monkeypatch.setattr(training._Run, "chunk", remember)
    network = MLP(2, width=8, depth=2, key=jax.random.fold_in(jax.random.key(0), 0))
    model = fit(POINTS, CONFIG, network=network, progress=False)
    for state in states:
        arrays = dataclasses.replace(state, key=None)  # no step changes the key
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(arrays))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(nnx.state(network)))
    assert equal(model.weights, whole.weights)


# What every process of a divided run computes.
DIVIDED = """
import dataclasses, json, os, sys
import jax

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, {tests!r})
process, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if process >= 0:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{{port}}", num_processes=2, process_id=process)
import numpy as np
from jax.sharding import AxisType
from scoregeo.diffusion import JSONLines, fit
from scoregeo.diffusion.training.checkpoint import Checkpoints
from test_training_scale import CONFIG, POINTS
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
saved = []
save = Checkpoints.save
def counted(self, state, history):
    before = self._open_manager
    save(self, state, history)
    saved.append(self._open_manager is not None and self._writes)
Checkpoints.save = counted
# One process stops, and so do all.
stop = [lambda history: process == 1 and history.last_step == 40, JSONLines(f"{{folder}}/{{process}}.jsonl")]
if process >= 0:
    fit(POINTS, CONFIG, mesh=mesh, checkpoint_dir=folder + "/run", callbacks=stop, progress=False)
    model = fit(POINTS, CONFIG, mesh=mesh, checkpoint_dir=folder + "/run", progress=False)
else:
    np.save(folder + "/points.npy", POINTS)
    points = np.load(folder + "/points.npy", mmap_mode="r")
    config = dataclasses.replace(CONFIG, batch_size=16, accumulation=2)
    model = fit(points, config, mesh=mesh, progress=False)
score = model.score_at(0.2)(POINTS[0])  # of this process alone
print("RESULT" + json.dumps([jax.device_count(), jax.process_count(), model.history.to_dict(), any(saved), len(score)]))
"""


def start(process, port, folder, devices):
    program = DIVIDED.format(tests=str(pathlib.Path(__file__).parent))
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags}
    command = [sys.executable, "-c", program, str(process), port, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def answer(process):
    out, err = process.communicate(timeout=400)
    lines = [line for line in out.splitlines() if line.startswith("RESULT")]
    assert lines, err[-3000:]
    return json.loads(lines[-1].removeprefix("RESULT"))


def same_losses(history, expected):
    for name in ("train_loss", "held_out_loss", "held_out_losses"):
        np.testing.assert_allclose(history[name], getattr(expected, name), rtol=1e-5, err_msg=name)


class TestMesh:
    def test_eight_devices(self, whole, tmp_path):
        """Among them a batch in parts, from a file: the same points, so the same losses."""
        devices, processes, history, _, dim = answer(start(-1, "0", tmp_path, devices=8))
        assert (devices, processes, dim) == (8, 1, 2)
        same_losses(history, whole.history)

    def test_two_processes(self, whole, tmp_path):
        """Two processes that talk through gloo: stopped and resumed; only the first one writes."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        runs = [start(process, port, tmp_path, devices=1) for process in (0, 1)]
        for run, writes in zip(runs, (True, False), strict=True):
            devices, processes, history, wrote, dim = answer(run)
            assert (devices, processes, wrote, dim) == (2, 2, writes, 2)
            same_losses(history, whole.history)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0.jsonl", "run"]
        # One process goes on with what two have written.
        resumed = fit(POINTS, CONFIG, checkpoint_dir=tmp_path / "run", progress=False)
        same_losses(resumed.history.to_dict(), whole.history)

    def test_meshes_that_cannot_be_used(self):
        auto = (jax.sharding.AxisType.Auto,)
        two = jax.make_mesh((1, 1), ("a", "b"), axis_types=2 * auto)
        explicit = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
        for mesh in (8, two, explicit):
            with pytest.raises(ValueError, match=r"`mesh` must be a jax.sharding.Mesh with one axis of type Auto"):
                fit(POINTS, CONFIG, mesh=mesh, progress=False)


# Runs that end in other ways than by returning, in processes forked before JAX has started any thread.
ENDED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import scoregeo.diffusion
heavy = {{"orbax.checkpoint", "matplotlib", "geomstats", "torch", "safetensors", "sklearn", "pandas", "rich.progress"}}
print("heavy", sorted(heavy & set(sys.modules)), flush=True)
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", sys.argv[1] + "/cache")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
import orbax.checkpoint
from test_training_scale import CONFIG, POINTS
from scoregeo.diffusion import TrainingInterrupted, fit
from scoregeo.diffusion.training import fit as training
from scoregeo.diffusion.training.checkpoint import Checkpoints

def kill(number=signal.SIGKILL):
    os.kill(os.getpid(), number)

def before_the_first_checkpoint(folder):
    Checkpoints.save = lambda self, state, history: kill()

def during_a_chunk(folder):
    chunk = training._Run.chunk
    def killed(self, state, steps):
        step = int(state.step)
        after = chunk(self, state, steps)
        if step == 40:
            kill()
        return after
    training._Run.chunk = killed

def while_writing(folder):
    def look(event, arguments):
        # A file in a folder of the second checkpoint, which has others by then, is about to be opened.
        path = str(arguments[0]) if event == "open" else ""
        if path.startswith(folder + "/40.") and path.count("/") == folder.count("/") + 3:
            kill()
    sys.addaudithook(look)

def before_the_rename(folder):
    for name in ("rename", "replace"):
        def guarded(source, target, *args, real=getattr(os, name), **settings):
            if os.path.basename(os.fspath(target)) == "40":
                kill()
            return real(source, target, *args, **settings)
        setattr(os, name, guarded)

def interrupted(folder):
    save = Checkpoints.save
    def save_and_interrupt(self, state, history):
        save(self, state, history)
        Checkpoints.save = save
        kill(signal.SIGINT)
    Checkpoints.save = save_and_interrupt

for place in (before_the_first_checkpoint, during_a_chunk, while_writing, before_the_rename, interrupted):
    child = os.fork()
    if child == 0:
        folder = sys.argv[1] + "/" + place.__name__
        place(folder)
        try:
            fit(POINTS, CONFIG, checkpoint_dir=folder, progress=False)
        except TrainingInterrupted as error:
            print("message", error, flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(place.__name__, os.WTERMSIG(status) if os.WIFSIGNALED(status) else "returned", flush=True)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What the program printed, and its folder."""
    program, folder = ENDED.format(tests=str(pathlib.Path(__file__).parent)), tmp_path_factory.mktemp("ended")
    command = [sys.executable, "-W", "ignore", "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "interrupted returned" in done.stdout, done.stdout + done.stderr[-3000:]
    return dict(line.split(" ", 1) for line in done.stdout.splitlines()), folder


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


class TestEnded:
    def test_killed_runs_end_bit_for_bit_where_they_would_have(self, whole, ended):
        """SIGKILL, also while a checkpoint is being written; then the same call again."""
        printed, folder = ended
        names = ["before_the_first_checkpoint", "during_a_chunk", "while_writing", "before_the_rename"]
        assert {name: printed[name] for name in names} == dict.fromkeys(names, "9")
        left = {name: names_in(folder / name) for name in names}
        assert left["before_the_first_checkpoint"] == []
        for name in ("while_writing", "before_the_rename"):  # one whole checkpoint, one that was being written
            assert "20" in left[name]
            assert "40" not in left[name]
            assert any(entry.startswith("40.") for entry in left[name])
        for name in names:
            resumed = fit(POINTS, CONFIG, checkpoint_dir=folder / name, progress=False)
            assert equal(resumed.weights, whole.weights), name
            assert resumed.history.to_dict() == whole.history.to_dict()
            assert names_in(folder / name) == ["40", "60"], name

    def test_a_real_interrupt_names_a_checkpoint_to_go_on_from(self, whole, ended):
        printed, folder = ended
        assert f"the last checkpoint is in {folder / 'interrupted' / '20'} (the same call" in printed["message"]
        assert names_in(folder / "interrupted") == ["20"]
        resumed = fit(POINTS, CONFIG, checkpoint_dir=folder / "interrupted", progress=False)
        assert equal(resumed.weights, whole.weights)

    def test_importing_loads_nothing_heavy(self, ended):
        assert ended[0]["heavy"] == "[]"


@contextlib.contextmanager
def no_file_larger_than(size):
    """A disk that is full: the system refuses to let files of this process grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, which can be full or read-only; skipped where the system does not let us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no permission to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def wait_for(folder):
    deadline = time.monotonic() + 60
    while not folder.is_dir():
        assert time.monotonic() < deadline, f"{folder} was not written"
        time.sleep(1e-3)


# Of the writes that one checkpoint consists of, those that fail after the first complain to nobody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestDisk:
    def test_a_disk_that_fills_up(self, whole, tmp_path, monkeypatch):
        """The error says where and why, the checkpoint before stays, and the run goes on from it."""
        monkeypatch.chdir(tmp_path)
        with contextlib.ExitStack() as stack:

            def fill(history):
                if history.last_step == 20:  # whose checkpoint has been begun
                    wait_for(tmp_path / "run" / "20")
                    stack.enter_context(no_file_larger_than(64))

            with pytest.raises(OSError, match="a checkpoint could not be written") as caught:
                fit(POINTS, CONFIG, checkpoint_dir=tmp_path / "run", callbacks=[fill], progress=False)
        assert f"the last whole one is {tmp_path / 'run' / '20'}. " in str(caught.value)
        resumed = fit(POINTS, CONFIG, checkpoint_dir=tmp_path / "run", progress=False)
        assert equal(resumed.weights, whole.weights)

    def test_a_failed_save_that_is_still_going(self, whole, tmp_path):
        """Its threads make and delete files in its directory while the run is resumed."""
        stop = [lambda history: history.last_step == 20]
        fit(POINTS, CONFIG, checkpoint_dir=tmp_path / "run", callbacks=stop, progress=False)
        unfinished = tmp_path / "run" / "40.orbax-checkpoint-tmp" / "state"
        unfinished.mkdir(parents=True)
        done = threading.Event()

        def go_on():
            while not done.is_set():
                for number in range(50):
                    with contextlib.suppress(OSError):
                        (unfinished / f"{number}.__lock").write_bytes(b"")
                for number in range(50):
                    with contextlib.suppress(OSError):
                        (unfinished / f"{number}.__lock").unlink()

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            resumed = fit(POINTS, CONFIG, checkpoint_dir=tmp_path / "run", progress=False)
        finally:
            done.set()
            thread.join()
        assert equal(resumed.weights, whole.weights)

    def test_a_real_one(self, whole, small_disk):
        def fill(history):
            if history.last_step == 20:
                wait_for(small_disk / "run" / "20")
                with contextlib.suppress(OSError), open(small_disk / "filler", "wb") as file:
                    while True:
                        file.write(bytes(4096))
                        file.flush()

        with pytest.raises(OSError, match=r"a checkpoint could not be written .*No space left.* the last whole one is"):
            fit(POINTS, CONFIG, checkpoint_dir=small_disk / "run", callbacks=[fill], progress=False)
        (small_disk / "filler").unlink()
        resumed = fit(POINTS, CONFIG, checkpoint_dir=small_disk / "run", progress=False)
        assert equal(resumed.weights, whole.weights)

    def test_read_only(self, whole, small_disk):
        """Noticed before anything is trained; a run that is there already is not touched."""
        stop = [lambda history: history.last_step == 20]
        fit(POINTS, CONFIG, checkpoint_dir=small_disk / "run", callbacks=stop, progress=False)
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        seen = []
        for folder in ("run", "other"):
            with pytest.raises(OSError, match=r"`checkpoint_dir` must be a .*[Rr]ead-only"):
                fit(POINTS, CONFIG, checkpoint_dir=small_disk / folder, callbacks=[seen.append], progress=False)
        assert seen == []
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        resumed = fit(POINTS, CONFIG, checkpoint_dir=small_disk / "run", progress=False)
        assert equal(resumed.weights, whole.weights)
