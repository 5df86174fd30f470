"""Matrices that are interrupted: what is kept, what is refused, and that nothing but the time is lost."""

import errno
import functools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from test_pairwise import METRIC, SOLVER, points

from scoregeo import (
    RESULTS,
    AbstractBoundarySolver,
    Bend,
    EuclideanMetric,
    FunctionScore,
    Geodesic,
    SteinMetric,
    iter_pairwise_dist,
    pairwise_dist,
)
from scoregeo._pairs import checkpoint as checkpoints
from scoregeo._pairs import stream
from scoregeo._pairs.identity import describe, differences
from scoregeo._pairs.stream import Pairs, _Group
from scoregeo.geodesics.certificate import Measurement


class Straight(AbstractBoundarySolver):
    """The Euclidean length of the start's chord, at once: what is tested here does not depend on the solver. Ends
    beyond 2.5 fail."""

    def solve(self, metric, x, y, init, ts):
        length = metric.norm(x, y - x)
        return Geodesic.from_curve(
            init,
            ts,
            lambda *_: Measurement(jnp.zeros(())),
            ends=None,
            energy=length**2 / 2,
            stats={},
            failures=[(jnp.max(jnp.abs(y)) > 2.5, RESULTS.stalled)],
        )


XS = np.concatenate([points(12), [[3.0, 0.0]]])
EUCLID = EuclideanMetric()
solve = functools.partial(pairwise_dist, EUCLID, XS, solver=Straight(), batch_size=7)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with every block, the matrix and the codes."""
    folder = tmp_path_factory.mktemp("whole")
    matrix, results = solve(checkpoint=folder)
    return folder, np.asarray(matrix), np.asarray(jax.tree.leaves(results)[0])


def blocks(folder):
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path(folder).glob("[0-9]*.block"))}


def assert_whole(answer, whole):
    matrix, results = answer
    np.testing.assert_array_equal(matrix, whole[1])
    np.testing.assert_array_equal(jax.tree.leaves(results)[0], whole[2])


def test_it_is_the_matrix_without_a_checkpoint(whole):
    matrix, results = solve()
    np.testing.assert_allclose(whole[1], matrix, rtol=1e-14)
    np.testing.assert_array_equal(whole[2], jax.tree.leaves(results)[0])
    distances = np.linalg.norm(XS[:, None] - XS, axis=-1)
    np.testing.assert_allclose(whole[1], distances, rtol=1e-12)
    assert (whole[2] != 0).sum() == 2 * 12  # the pairs of the last point
    assert len(blocks(whole[0])) == -(-13 * 12 // 2 // 7)


def test_an_interrupted_run_goes_on(whole, tmp_path, monkeypatch):
    write, written = checkpoints.Checkpoint.write, []

    def interrupted(self, block, body):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(block)
        write(self, block, body)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Checkpoint, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            solve(checkpoint=tmp_path)
    assert written == [0, 1, 2, 3, 4]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.block")}
    # The size of the blocks is the recorded one; a folder may be given as text.
    assert_whole(pairwise_dist(EUCLID, XS, solver=Straight(), checkpoint=str(tmp_path)), whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a block was solved again"
    assert blocks(tmp_path) == blocks(whole[0])


def test_it_goes_on_with_another_number_of_devices(tmp_path, monkeypatch):
    """Blocks stay those of the devices that it was begun with; no device gets more pairs at once than it was asked
    to."""
    with monkeypatch.context() as patched:  # the tests have one device
        patched.setattr(stream.Problem, "devices", 2)
        matrix, _ = solve(checkpoint=tmp_path)
    kept, widths, solve_block = blocks(tmp_path), [], stream.solve_block
    assert len(kept) == -(-78 // 14)
    for name in list(kept)[::2]:
        (tmp_path / name).unlink()

    def counted(arrays, xs, ys, pairs, static, mesh):
        widths.append(pairs.shape[1])
        return solve_block(arrays, xs, ys, pairs, static, mesh)

    monkeypatch.setattr(stream, "solve_block", counted)
    np.testing.assert_allclose(solve(checkpoint=tmp_path)[0], matrix, rtol=1e-14)
    assert widths == [7] * 6
    assert list(blocks(tmp_path)) == list(kept)
    with pytest.raises(ValueError, match=r"`batch_size` must be that of .*, 7, or left out, got 14"):
        pairwise_dist(EUCLID, XS, solver=Straight(), batch_size=14, checkpoint=tmp_path)


def test_damaged_files_are_solved_again(whole, tmp_path):
    solve(checkpoint=tmp_path)
    first, second, third, fourth, fifth = sorted(tmp_path.glob("*.block"))[:5]
    data = first.read_bytes()
    first.write_bytes(data[:-3])
    second.write_bytes(b"")
    bits = bytearray(third.read_bytes())
    bits[40] ^= 1
    third.write_bytes(bits)
    fourth.write_bytes(data)  # whole, but of another place
    fifth.unlink()
    left = tmp_path / ".0123.000000003.block"  # by a process that was killed a day ago
    left.write_bytes(data[:9])
    os.utime(left, (time.time() - 86400,) * 2)
    assert_whole(solve(checkpoint=tmp_path), whole)
    assert blocks(tmp_path) == blocks(whole[0])
    assert not left.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xs": XS + 1}, "another problem: xs differs. Give another folder"),
        ({"xs": XS.astype(np.float32)}, "another problem: xs differs"),
        ({"ys": XS}, "another problem: ys differs"),
        ({"init": Bend([0.0, 1.0])}, "another problem: init differs"),
        ({"solver": SOLVER}, "another problem: solver.*differ"),
        ({"metric": 4.0 * EUCLID}, "another problem: metric differs"),
        ({"batch_size": 8}, r"`batch_size` must be that of the checkpoint in .*, 7, or left out, got 8"),
    ],
)
def test_another_problem_is_refused(whole, changes, message):
    arguments = {"metric": EUCLID, "xs": XS, "solver": Straight()} | changes
    with pytest.raises(ValueError, match=message):
        pairwise_dist(**arguments, checkpoint=whole[0])


def test_another_version_is_refused(whole, monkeypatch):
    monkeypatch.setattr(checkpoints.metadata, "version", lambda name: "7.0")
    with pytest.raises(ValueError, match=r"the version of scoregeo, .* there and 7.0 here differs"):
        solve(checkpoint=whole[0])


def test_folders_that_are_no_checkpoint(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"must be a new or empty folder, or one that .*holds thesis.tex"):
        solve(checkpoint=tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "blo')
    with pytest.raises(ValueError, match=r"manifest.json is damaged, or of a version of scoregeo"):
        solve(checkpoint=tmp_path)
    with pytest.raises(OSError, match=r"`checkpoint` must be a folder that can be written, got .*thesis.tex"):
        solve(checkpoint=tmp_path / "thesis.tex")
    with pytest.raises(TypeError, match="`checkpoint` must be the path of a folder, got 3"):
        solve(checkpoint=3)


def test_a_full_disk(whole, tmp_path, monkeypatch):
    sync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device. 3 of 12 blocks are kept there"):
            solve(checkpoint=tmp_path)
    assert not list(tmp_path.glob(".*.block")), "a file that is not whole stays behind"
    assert_whole(solve(checkpoint=tmp_path), whole)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB, and a function that mounts it anew with other options."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield tmp_path, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", tmp_path], check=True)
    subprocess.run(["umount", tmp_path], check=True)


def test_a_disk_that_is_full_and_one_that_cannot_be_written(small_disk):
    disk, remount = small_disk
    xs = np.random.default_rng(0).uniform(-2, 2, (300, 2))
    solve = functools.partial(pairwise_dist, EUCLID, xs, solver=Straight(), batch_size=256)
    with pytest.raises(OSError, match=r"No space left on device. \d+ of 176 blocks are kept there, and the same call"):
        solve(checkpoint=disk / "kept")
    kept = blocks(disk / "kept")
    assert len(kept) > 20
    remount("ro")
    for name in ("kept", "new"):
        with pytest.raises(
            OSError, match=r"`checkpoint` must be a folder that can be written, .*: Read-only file system"
        ):
            solve(checkpoint=disk / name)
    assert blocks(disk / "kept") == kept
    remount("rw,size=4m")
    matrix, _ = solve(checkpoint=disk / "kept")
    assert kept.items() <= blocks(disk / "kept").items()
    np.testing.assert_allclose(matrix, np.linalg.norm(xs[:, None] - xs, axis=-1), rtol=1e-12)


def test_rows_come_as_they_are_solved(whole, tmp_path):
    rows = iter_pairwise_dist(EUCLID, XS, solver=Straight(), batch_size=7, checkpoint=tmp_path)
    row, results = next(rows)
    np.testing.assert_array_equal(row, whole[1][0])
    np.testing.assert_array_equal(results == RESULTS.stalled, np.arange(13) == 12)
    assert len(blocks(tmp_path)) == 2, "a row of 12 pairs needs two blocks of 7"
    rest = np.stack([row for row, _ in rows])
    np.testing.assert_array_equal(rest, whole[1][1:])
    rectangle = [row for row, _ in iter_pairwise_dist(EUCLID, XS, XS[:3], solver=Straight())]
    np.testing.assert_allclose(np.stack(rectangle), whole[1][:, :3], rtol=1e-14)
    ((row, results),) = iter_pairwise_dist(EUCLID, XS[:1], solver=Straight())
    np.testing.assert_array_equal(row, [0.0])
    assert bool((results == RESULTS.successful).all())


def test_rows_check_their_arguments_at_once_and_need_values(whole):
    with pytest.raises(ValueError, match="`batch_size` must be"):
        iter_pairwise_dist(EUCLID, XS, batch_size=0)
    with pytest.raises(ValueError, match="another problem: xs differs"):
        iter_pairwise_dist(EUCLID, XS + 1, solver=Straight(), checkpoint=whole[0])
    with pytest.raises(TypeError, match="must be asked for outside of `jit`"):
        jax.jit(lambda xs: list(iter_pairwise_dist(EUCLID, xs, solver=Straight())))(XS)
    with pytest.raises(TypeError, match="must be asked for outside of `jit`"):
        jax.jit(lambda: list(iter_pairwise_dist(EUCLID, XS, solver=Straight())))()


def test_progress_counts_what_was_there(tmp_path, capfd):
    solve(checkpoint=tmp_path)
    (tmp_path / "000000004.block").unlink()
    solve(checkpoint=tmp_path, progress=True)
    shown = capfd.readouterr().err
    assert "78/78" in shown
    assert "pairs/s" in shown


@pytest.mark.parametrize("pairs", [Pairs(5, 5, True), Pairs(1, 1, True), Pairs(3, 4, False), Pairs(200, 200, True)])
def test_numbers_of_pairs(pairs):
    rows, columns = np.triu_indices(pairs.n, 1) if pairs.symmetric else np.indices((pairs.n, pairs.m)).reshape(2, -1)
    found = pairs.indices(np.arange(pairs.count))
    np.testing.assert_array_equal(found[0], rows)
    np.testing.assert_array_equal(found[1], columns)


def _field(scale):
    return lambda x: scale * x


def test_descriptions_tell_functions_by_what_they_do():
    def of(fn, *args):
        return describe(SteinMetric(FunctionScore(fn, *args)))

    assert of(_field(2.0)) == of(_field(2.0))
    assert differences(of(_field(2.0)), of(_field(3.0)), "metric") == ["metric.score.function.rest[0].scale"]
    assert of(lambda x: -x) != of(lambda x: x)
    assert of(jax.jit(_field(2.0))) != of(jax.jit(_field(3.0)))
    partial = jax.tree_util.Partial
    assert of(partial(_scaled, w=jnp.ones(2))) == of(partial(_scaled, w=jnp.ones(2)))
    assert of(partial(_scaled, w=jnp.ones(2))) != of(partial(_scaled, w=jnp.zeros(2)))
    assert of(lambda x, w: w * x, 1.0) != of(lambda x, w: w * x, 2.0)


def _scaled(x, w):
    return _helper(x) * w


def _helper(x):
    return x


def test_descriptions_see_what_a_function_calls(monkeypatch):
    before = describe(_scaled)
    monkeypatch.setattr(sys.modules[__name__], "_helper", lambda x: 2 * x)
    assert describe(_scaled) != before


HELPERS = """
import jax
TABLE = {"scale": 1.0}
def inner(x):
    return TABLE["scale"] * x
@jax.jit
def helper(x):
    return inner(x)
"""
USER = """
import equinox as eqx, jax, jax.numpy as jnp, logging
import user_helpers
from user_helpers import helper
from scoregeo import EuclideanMetric
NETWORK = eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(0))
NESTED = {"a": [jnp.ones(2), ("text",)], "b": {1.0, 2.0}}
LOG = logging.getLogger("user")
def tangled(x):
    return x if x is None else knot.f(tangled(x))
class Knot:
    def __init__(self):
        self.me, self.f = self, tangled
knot = Knot()
class Base(EuclideanMetric):
    @property
    def doubled(self):
        return NESTED["a"][0]
class Own(Base):
    def cometric(self, x, p):
        LOG.info("")
        return [jax.vmap(step)(part) for part in NETWORK(x)]
def step(x):
    return helper(x) + user_helpers.inner(x) + jax.nn.relu(tangled(x)) + jnp.sum(x)
"""


@pytest.fixture
def user(monkeypatch):
    """A module of a user's, and one that it imports."""
    modules = {name: types.ModuleType(name) for name in ("user_helpers", "user_metric")}
    for name, text in zip(modules, (HELPERS, USER), strict=True):
        monkeypatch.setitem(sys.modules, name, modules[name])
        exec(text, modules[name].__dict__)
    return modules["user_metric"]


@pytest.mark.parametrize(
    "change",
    [
        "NETWORK = eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(1))",  # in a method
        "NESTED['a'][0] = jnp.zeros(2)",  # in a property of a base
        "NESTED['a'][1] = ('other',)",
        "NESTED['b'].add(3.0)",
        "user_helpers.TABLE['scale'] = 2.0",  # in a function of another module, in a compiled one
        "user_helpers.inner = lambda x: x",
        "helper = jax.jit(lambda x: -x)",
        "step = lambda x: -x",
        "knot.more = 1",
    ],
)
def test_descriptions_see_every_global_that_is_named(user, change):
    metric = user.Own()
    before = describe(metric)
    assert describe(metric) == before == describe(user.Own())
    exec(change, user.__dict__)
    assert describe(metric) != before


def test_what_cannot_be_described_is_refused(user, tmp_path):
    user.NESTED["b"] = (i for i in range(3))
    message = r"goes on, but metric\..*\['b'\] is <generator .*builtins.generator: use arrays"
    with pytest.raises(TypeError, match=message):
        pairwise_dist(user.Own(), XS, solver=Straight(), checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("error", "other"),
    [
        (OSError("full"), pytest.raises(OSError, match=r"^full$")),
        (TypeError("no text"), pytest.raises(TypeError, match=r"^no text$")),
        (KeyError("x"), pytest.raises(RuntimeError, match=r"^KeyError: 'x'$")),
        (ValueError("/a\udcff"), pytest.raises(ValueError, match=r"^/a\\udcff$")),  # a path that is no text
    ],
)
def test_any_error_of_the_leader_reaches_the_others(monkeypatch, error, other):
    sent = []

    def fails():
        raise error

    group = _Group(None)
    group.several = True
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value, is_source: sent.append(value) or value)
    with pytest.raises(type(error)) as raised:
        group._from_the_leader(fails)
    assert raised.value is error
    group.leads = False
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value, is_source: sent.pop(0))
    with other:
        group._from_the_leader(fails)
    assert not sent


# --- In other processes -----------------------------------------------------------------------------------------------

PROGRAM = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
folder, n, process, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
sys.path.insert(0, {tests!r})
mesh = None
if process >= 0:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{{port}}", num_processes=2, process_id=process)
    mesh = jax.make_mesh((jax.device_count(),), ("pairs",), axis_types=(jax.sharding.AxisType.Auto,))
import numpy as np
from scoregeo import pairwise_dist
from test_pairwise import METRIC, SOLVER, points
from test_pairwise_checkpoint import Straight
solver = SOLVER if mesh is None else Straight()
try:
    matrix, results = pairwise_dist(METRIC, points(n), solver=solver, batch_size=16, mesh=mesh, checkpoint=folder)
except ValueError as error:
    print("REFUSED", error)
else:
    np.save(f"{{folder}}-{{process}}.npy", np.asarray(matrix))
    print("DONE")
"""


def start(folder, n, process=-1, port="0", devices=1):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    if process < 0:
        environment |= {"JAX_COMPILATION_CACHE_DIR": os.environ["SCOREGEO_TEST_CACHE"]}
    words = [sys.executable, "-c", PROGRAM.format(tests=str(pathlib.Path(__file__).parent))]
    return subprocess.Popen(
        [*words, str(folder), str(n), str(process), port],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(run):
    out, err = run.communicate(timeout=400)
    assert out, err[-3000:]
    return out.strip().splitlines()[-1]


def kill_at_random(folder, n, kills, seed=0):
    """Start, kill -9 once some blocks are there, go on: how often it was killed before it was done."""
    random = np.random.default_rng(seed)
    total = -(-n * (n - 1) // 2 // 16)
    killed = 0
    for _ in range(kills):
        run = start(folder, n)
        there = len(blocks(folder))
        enough = there + random.integers(0, max(1, 2 * (total - there) // kills))
        while run.poll() is None and len(blocks(folder)) <= enough:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.02))
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            killed += 1
        run.communicate()
    assert finish(start(folder, n)) == "DONE"
    return killed


@pytest.mark.slow
def test_kill_9(tmp_path):
    """Wherever it is killed, the same bits; the hundred pairs of one batch more or less."""
    folder = tmp_path / "killed"
    folder.mkdir()
    assert kill_at_random(folder, 60, 3) >= 2
    assert finish(start(tmp_path / "whole", 60)) == "DONE"
    np.testing.assert_array_equal(np.load(tmp_path / "killed--1.npy"), np.load(tmp_path / "whole--1.npy"))
    assert blocks(folder) == blocks(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_share_a_checkpoint(tmp_path):
    """Through gloo; both get the matrix, also when they go on from half of it, and both refuse another one."""

    def both(folder, n):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        return [finish(run) for run in [start(folder, n, process, port, devices=2) for process in (0, 1)]]

    folder = tmp_path / "shared"
    assert both(folder, 20) == ["DONE", "DONE"]
    first = [np.load(tmp_path / f"shared-{process}.npy") for process in (0, 1)]
    np.testing.assert_array_equal(*first)
    np.testing.assert_allclose(first[0], pairwise_dist(METRIC, points(20), solver=Straight())[0], rtol=1e-12)
    kept = blocks(folder)
    for name in list(kept)[::2]:
        (folder / name).unlink()
    assert both(folder, 20) == ["DONE", "DONE"]
    assert blocks(folder) == kept
    np.testing.assert_array_equal(np.load(tmp_path / "shared-1.npy"), first[0])
    assert all(line.startswith("REFUSED") and "xs differs" in line for line in both(folder, 21))
