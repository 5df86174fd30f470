"""Arithmetic that keeps derivatives and signs right, and constants that depend on the precision."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from scoregeo._numerics import by_precision, frozen, safe_sqrt


def test_safe_sqrt():
    np.testing.assert_array_equal(safe_sqrt(jnp.array([4.0, 0.0, -1e-20, jnp.nan])), [2, 0, 0, np.nan])
    np.testing.assert_array_equal(jax.vmap(jax.grad(safe_sqrt))(jnp.array([4.0, 0.0, -1.0])), [0.25, 0, 0])


def test_frozen():
    slope = jax.grad(lambda x: frozen({"a": x, "b": 3})["a"] * frozen({"a": x, "b": 3})["b"] + x)(2.0)
    assert slope == 1


def test_by_precision():
    assert by_precision(jnp.float64, "double", "single") == "double"
    for dtype in (jnp.float32, jnp.bfloat16):
        assert by_precision(dtype, "double", "single") == "single"


_PROGRAM = """
import jax, jax.numpy as jnp
from scoregeo import _numerics

@_numerics.program
def double(x, name="x"):
    return jnp.sin(2 * x)

known, three = _numerics._knows_sooner(), jnp.array(3.0)
calls = {
    "plain": lambda: double(three),
    "jit": lambda: jax.jit(double)(three),
    "jit of a constant": lambda: jax.jit(lambda: double(three))(),
    "grad": lambda: jax.grad(double)(three),
    "grad of another": lambda: jax.grad(lambda z: z * double(three))(1.0),
    "jvp of jit": lambda: jax.jvp(jax.jit(double), (three,), (three,))[1] / 3,
    "vmap": lambda: jax.vmap(double)(three[None])[0],
    "scan": lambda: jax.lax.map(lambda z: z * double(three), jnp.ones(1))[0],
    "cond": lambda: jax.lax.cond(three > 0, lambda: double(three), lambda: 0.0),
    "checkpoint": lambda: jax.grad(jax.checkpoint(lambda z: z * double(three)))(1.0),
    "compile-time": lambda: jax.jit(lambda: _at_compile_time())(),
}

def _at_compile_time():
    with jax.ensure_compile_time_eval():
        return double(three)

sine, slope = float(jnp.sin(6.0)), float(2 * jnp.cos(6.0))
for name, call in calls.items():
    expected = slope if name in ("grad", "jvp of jit") else sine
    assert abs(float(call()) - expected) < 1e-6, name
print(known)
"""


def test_programs_compile_sooner_where_nothing_is_traced():
    """In processes without the flags of the tests, which would hide it. A compiler that does not know how, and a user
    who has chosen, are left alone."""
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    unknown = "scoregeo._numerics._SOONER = {'xla_cpu_no_such_flag': True}\n"
    chosen = {"XLA_FLAGS": "--xla_backend_optimization_level=2"}
    for before, more, known in [
        ("", {}, True),
        ("import scoregeo._numerics\n" + unknown, {}, False),
        ("", chosen, False),
    ]:
        command = [sys.executable, "-c", before + _PROGRAM]
        done = subprocess.run(command, env=environment | more, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(known)]
