"""`compacted_while_loop` on a toy iteration: what it computes, what it costs, and how it nests."""

import collections

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import _batching
from scoregeo._batching import (
    Rare,
    branch,
    compacted_while_loop,
    over_columns,
    over_rows,
    staged_while_loop,
    sum_over_columns,
)

STARTS = np.array([27, 1, 2, 97, 16, 6, 871, 3, 5, 7, 1, 11], np.int32)


def collatz(args, state):
    """One step of Collatz's iteration; ``args`` are the factor and the summand of odd numbers."""
    factor, summand = args
    n, steps, total = state
    n = jnp.where(n % 2 == 0, n // 2, factor * n + summand)
    return n, steps + 1, total + jnp.sqrt(n.astype(total.dtype))


def start(n):
    return n, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float64)


def going(state):
    return state[0] != 1


def compacted(n, factor=3, summand=1, **settings):
    args = jnp.asarray(factor, jnp.int32), jnp.asarray(summand, jnp.int32)
    return compacted_while_loop(going, collatz, start(n), args, **settings)


def plain(n):
    return jax.lax.while_loop(going, lambda s: collatz((3, 1), s), start(n))


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)


@pytest.mark.parametrize("numbers", [1, 64, 10_000], ids=["one chunk", "chunks of four", "one lane at a time"])
def test_equals_the_plain_loop_lane_by_lane(numbers):
    found = jax.jit(jax.vmap(lambda n: compacted(n, numbers_per_lane=numbers)))(STARTS)
    assert_same(found, jax.vmap(plain)(STARTS))
    assert int(found[1][0]) == 111  # from 27


def test_alone_it_is_the_plain_loop():
    assert_same(compacted(STARTS[6]), plain(STARTS[6]))


def test_arguments_may_differ_between_lanes_or_not():
    # 5 n + 1 ends too, for some n.
    lanes, factors = np.array([27, 3, 1, 3], np.int32), np.array([3, 5, 5, 3], np.int32)
    found = jax.vmap(lambda n, a: compacted(n, a, numbers_per_lane=100))(lanes, factors)
    assert found[1].tolist() == [111, 5, 0, 7]
    # The same start in every lane, and arguments that make the loop longer: only those are batched.
    limits = jnp.array([3, 40, 7])
    count = jax.vmap(
        lambda limit: compacted_while_loop(lambda s: s[0] < s[1], lambda _, s: (s[0] + 1, s[1]), (0, limit))
    )
    assert count(limits)[0].tolist() == limits.tolist()


@pytest.mark.parametrize("numbers", [1, 100])
def test_nests_under_a_second_vmap(numbers):
    lanes = STARTS.reshape(3, 4)
    found = jax.jit(jax.vmap(jax.vmap(lambda n: compacted(n, numbers_per_lane=numbers))))(lanes)
    assert_same(found, jax.vmap(jax.vmap(plain))(lanes))
    # Batched over the inner axis alone, the outer one belonging to the arguments.
    summands = jnp.ones(2, jnp.int32)
    found = jax.vmap(lambda a: jax.vmap(lambda n: compacted(n, summand=a, numbers_per_lane=numbers))(STARTS))(summands)
    expected = jax.vmap(plain)(STARTS)
    assert_same(jax.tree.map(lambda leaf: leaf[0], found), expected)
    assert_same(jax.tree.map(lambda leaf: leaf[1], found), expected)


def counted(numbers):
    """How many times the body ran, for all lanes, against the sum of what they need, and lanes times the worst."""
    calls = collections.Counter()

    def body(args, state):
        jax.debug.callback(lambda n: calls.update(body=1), state[0])
        return collatz(args, state)

    def solve(n):
        return compacted_while_loop(going, body, start(n), (3, 1), numbers_per_lane=numbers)

    lanes = np.concatenate([np.full(60, 4, np.int32), [27], np.full(60, 8, np.int32), [871]])
    _, steps, _ = jax.block_until_ready(jax.vmap(solve)(lanes))
    jax.effects_barrier()
    return calls["body"], int(jnp.sum(steps)), int(lanes.size * jnp.max(steps))


@pytest.mark.parametrize("numbers", [32, 1000])
def test_costs_the_sum_of_the_lanes(numbers):
    body, needed, worst = counted(numbers)
    width = max(1, 2**8 // numbers)
    assert needed <= body
    # Lanes of a chunk wait for one another, until half of it is done; the last chunk is not refilled.
    assert body <= 2 * needed + width * 178
    assert body < worst / 8
    if width == 1:
        assert body == needed


def test_rare_work_is_done_where_it_is_needed_alone():
    """`prepare` restarts a lane from its argument after three steps, unless it is done by then."""
    rare = Rare(lambda s: s[1] == 3, lambda args, s, stage: (args, s[1] + 1, s[2]))

    def solve(n, numbers):
        body = lambda _, s, stage: (s[0] // 2, s[1] + 1, s[2] + 1)  # noqa: E731
        zero = jnp.zeros((), jnp.int32)
        stages = dict(stage=lambda _: 0, numbers_per_lane=(numbers,))
        return staged_while_loop(lambda s: s[0] > 0, body, (n, zero, zero), n, rare=rare, **stages)

    lanes = np.array([3, 8, 100, 7, 1000], np.int32)
    expected = [2, 3 + 4, 3 + 7, 3, 3 + 10]
    for numbers in (1, 10_000):
        found = jax.vmap(lambda n, numbers=numbers: solve(n, numbers))(lanes)
        assert found[2].tolist() == expected
    assert [int(solve(n, 1)[2]) for n in lanes] == expected


def staged(n, numbers=(1, 1)):
    """Collatz's iteration through odd numbers from there in a stage of its own: what was done in each stage."""

    def body(args, s, stage):
        n, done, late = s
        n = branch(stage, [lambda: jnp.where(n % 2 == 0, n // 2, 3 * n + 1), lambda: n - args])
        return n, done.at[stage].add(1), late | (n % 8 == 5)

    state = (n, jnp.zeros(2, jnp.int32), jnp.asarray(False))
    stage = lambda s: jnp.where(s[2], 1, 0)  # noqa: E731
    return staged_while_loop(lambda s: s[0] > 1, body, state, 3, stage=stage, numbers_per_lane=numbers)


def staged_in_python(n):
    done, late = [0, 0], n < 0
    while n > 1:
        stage = int(late)
        n = n - 3 if late else (n // 2 if n % 2 == 0 else 3 * n + 1)
        done[stage] += 1
        late |= n % 8 == 5
    return n, done, late


@pytest.mark.parametrize("numbers", [(1, 1), (1, 100_000), (100, 60), (100_000, 1)])
def test_stages_are_those_of_the_plain_loop_in_batches_of_any_size(numbers):
    lanes = np.arange(1, 40, dtype=np.int32)
    expected = [staged_in_python(int(n)) for n in lanes]
    assert {len([d for d in done if d]) for _, done, _ in expected} == {0, 1, 2}
    found = jax.jit(jax.vmap(lambda n: staged(n, numbers)))(lanes)
    nested = jax.jit(jax.vmap(jax.vmap(lambda n: staged(n, numbers))))(lanes.reshape(3, 13))
    for values in (found, jax.tree.map(lambda a: a.reshape(39, *a.shape[2:]), nested)):
        assert [(int(n), done.tolist(), bool(late)) for n, done, late in zip(*values, strict=True)] == expected
    alone = [jax.jit(staged)(n) for n in lanes[:12]]
    assert [(int(n), done.tolist(), bool(late)) for n, done, late in alone] == expected[:12]


def test_one_lane_is_compiled_once_for_all_stages_and_a_batch_takes_no_branch_of_another():
    alone = jax.make_jaxpr(staged)(np.int32(7))
    assert str(alone).count(" cond[") == 1
    batch = str(jax.make_jaxpr(jax.vmap(staged))(np.arange(4, dtype=np.int32)))
    assert " cond[" not in batch


def test_states_may_hold_more_than_arrays():
    class State(eqx.Module):
        n: jax.Array
        name: str
        function: object = eqx.field(static=True)

    def body(args, state):
        return eqx.tree_at(lambda s: s.n, state, args["step"](state.n))

    args = {"step": jnp.square, "unused": None}
    solve = lambda n: compacted_while_loop(lambda s: s.n < 100, body, State(n, "x", abs), args).n  # noqa: E731
    assert jax.vmap(solve)(jnp.array([2, 3, 200])).tolist() == [256, 6561, 200]


@pytest.fixture
def small_programs(monkeypatch):
    """As on a TPU, though with few numbers already, loops take the place of large operations."""
    monkeypatch.setattr(_batching, "_NUMBERS_WRITTEN_OUT", {"cpu": 600})
    jax.clear_caches()
    yield
    jax.clear_caches()


def loops(function, *arrays):
    return str(jax.make_jaxpr(function)(*arrays)).count("scan[")


@pytest.mark.parametrize("rows", [1, 6, 7, 12, 64, 97])
def test_rows_in_a_loop_are_what_they_are_side_by_side(rows, small_programs):
    random = np.random.default_rng(rows)
    matrix, points = random.standard_normal((50, 50)), random.standard_normal((rows, 50))

    def function(point, weight):
        return jnp.tanh(matrix @ point) * weight, point @ point

    def total(over):
        return lambda points, weights: jnp.sum(jnp.sin(over(function, points, weights)[0]))

    def vmapped(function, *arrays):
        return jax.vmap(function)(*arrays)

    points, weights = jnp.asarray(points), jnp.asarray(random.standard_normal(rows))
    assert loops(lambda *a: over_rows(function, *a), points, weights) == (rows > 12)
    for found, expected in [
        (over_rows(function, points, weights), vmapped(function, points, weights)),
        (jax.grad(total(over_rows))(points, weights), jax.grad(total(vmapped))(points, weights)),
        (
            jax.jvp(total(over_rows), (points, weights), (points, weights)),
            jax.jvp(total(vmapped), (points, weights), (points, weights)),
        ),
    ]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13), found, expected)


@pytest.mark.parametrize("columns", [5, 128, 300, 512])
def test_columns_in_a_loop_are_what_they_are_together(columns, small_programs):
    random = np.random.default_rng(columns)
    matrix, c = random.standard_normal((3, 4)), jnp.asarray(random.standard_normal((2, 4, columns)))

    def product(c):
        return jnp.einsum("qm,kmd->kqd", matrix, c), jnp.sum(c, 1)

    def gram(a):
        return a @ a.T, a @ a[::-1].T

    def energy(over):
        return lambda c: sum(jnp.sum(jnp.sin(part)) for part in over(product, c))

    assert loops(lambda c: over_columns(product, c), c) == (columns > 128)
    for found, expected in [
        (over_columns(product, c), product(c)),
        (sum_over_columns(gram, c[0]), gram(c[0])),
        (jax.grad(energy(over_columns))(c), jax.grad(energy(lambda function, c: function(c)))(c)),
        (jax.vmap(lambda c: sum_over_columns(gram, c))(c), jax.vmap(gram)(c)),
    ]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13), found, expected)


def test_chunks_on_a_tpu_are_powers_of_two(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    starts, numbers = np.resize(STARTS, 200), _batching._NUMBERS_TOGETHER["tpu"] // 170
    solve = jax.vmap(lambda n: compacted(n, numbers_per_lane=numbers))
    text = str(jax.make_jaxpr(solve)(starts))
    assert "i32[128]" in text
    assert "i32[170]" not in text
    assert_same(jax.jit(solve)(starts), jax.vmap(plain)(starts))
