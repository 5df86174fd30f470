"""``print(geodesic)`` is one line, whatever it holds."""

import io
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from scoregeo import EuclideanMetric, SpectralNewton, geodesic, shoot
from scoregeo.geodesics import Geodesic

X, Y = jnp.zeros(2), jnp.array([3.0, 4.0])
SOLVER = SpectralNewton(degree=8, max_elements=1)


def solve(x, y):
    return geodesic(EuclideanMetric(), x, y, solver=SOLVER, ts=(0.0, 1.0), throw=False)


def printed(*args, **kwargs):
    """What rich prints, on a line as long as it takes."""
    console = rich.console.Console(file=io.StringIO(), width=200, **kwargs)
    console.print(*args)
    return console.file.getvalue().rstrip("\n")


@pytest.mark.slow
def test_one():
    path = solve(X, Y)
    assert re.fullmatch(r"Geodesic\(length 5 ± \d+e-\d+, converged, 1 element, \d+ Newton steps?\)", repr(path))
    assert str(path) == f"{path}" == printed(path) == repr(path)
    assert f"[{path!r}]" == repr([path])
    failed = eqx.tree_at(lambda g: g.error, path, jnp.asarray(jnp.nan))
    assert "± nan" in repr(failed)


@pytest.mark.slow
def test_stopped():
    path = shoot(EuclideanMetric(), X, Y, event=lambda x, v: x[0] - 1.5)
    assert re.fullmatch(
        r"Geodesic\(length 2.5 ± \d+e[+-]\d+, event_occurred, ended at t = 0.5, \d+ steps\)", repr(path)
    )


@pytest.mark.slow
def test_batch():
    batch = jax.vmap(solve, in_axes=(None, 0))(X, jnp.stack([Y, 2 * Y, Y * jnp.nan]))
    assert repr(batch) == "Geodesic(batch (3,), 2 converged, 1 metric_nonfinite, lengths 5 to 10)"
    nested = jax.tree.map(lambda leaf: leaf[None], batch)
    assert repr(nested).startswith("Geodesic(batch (1, 3), 2 converged")
    nothing = jax.tree.map(lambda leaf: leaf[2:], batch)
    assert repr(nothing) == "Geodesic(batch (1,), 1 metric_nonfinite)"


@pytest.mark.slow
def test_without_values():
    """Traced, abstract, or with placeholders for its arrays."""
    seen = []

    @jax.jit
    def traced(x, y):
        path = solve(x, y)
        seen.append(repr(path))
        return path

    path = traced(X, Y)
    expected = "Geodesic(length f64[], points f64[2,2])"
    assert seen == [expected]
    assert repr(jax.eval_shape(traced, X, Y)) == expected
    lanes = []
    jax.vmap(lambda scale: lanes.append(repr(jax.tree.map(lambda a: a * scale, path))))(np.ones(3, np.int32))
    assert lanes == [expected]
    assert repr(jax.tree.map(lambda _: None, path)).startswith("Geodesic(")
    assert isinstance(path, Geodesic)
    assert "velocities=f64[2,2]" in eqx.tree_pformat(path)
