"""Networks of ours against arrays that torch computed."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

NAMES = ("value", "jvp", "vjp")
PLACE = pathlib.Path(__file__).parent / "golden_diffusers"


def golden(name):
    """The folder of a tiny network, what torch computed with it, and at which timestep."""
    folder = PLACE / name
    return folder, load_file(folder / "expected.safetensors"), json.loads((folder / "timestep.json").read_text())


def computed(function, expected):
    """Value, ``J v`` and ``J^T w`` of ``function`` for the ``x``, ``v`` and ``w`` in ``expected``."""
    x, v, w = (jnp.asarray(expected[name]) for name in "xvw")

    @jax.jit
    def ours(x, v, w):
        value, jvp = jax.jvp(function, (x,), (v,))
        return value, jvp, jax.vjp(function, x)[1](w)[0]

    found = dict(zip(NAMES, ours(x, v, w), strict=True))
    assert all(found[name].dtype == x.dtype and found[name].shape == expected[name].shape for name in NAMES)
    return found


def apart(found, expected):
    """Largest differences of value, ``J v`` and ``J^T w``, relative to the largest entry of each."""
    return {n: float(np.abs(found[n] - expected[n]).max() / np.abs(expected[n]).max()) for n in NAMES}


def errors(function, expected):
    """How far what ``function`` computes is `apart` from what is expected."""
    return apart(computed(function, expected), expected)
