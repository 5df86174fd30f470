"""Compiled programs never call back to the host: failures are NaN and a code there, errors where called plainly."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoregeo as sg
from scoregeo import RESULTS, GaussianScore, MatrixMetric, SteinMetric, dist, squared_dist

METRIC = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)), 3.0)
X, Y = jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7])
# Not finite where x > 2: pairs that end there fail.
SPOILT = MatrixMetric(lambda x: jnp.where(x[0] > 2, jnp.nan, 1 + x[1] ** 2) * jnp.eye(2))


# The default solver is asked for `dist` alone: what else calls a solver, calls any in the same way.
QUICK = sg.SpectralNewton(max_elements=1, continuation=0, adaptations=0)


def transported(metric, x, y):
    return sg.parallel_transport(metric, sg.geodesic(metric, x, y, solver=QUICK), y - x)


def slice_step(metric, x, y):
    sampler = sg.statistics.GeodesicSlice(metric, lambda z: -z @ z, 1.0)
    return sampler.step(jax.random.key(0), sampler.init(x))


OPERATIONS = {
    "dist": dist,
    "squared_dist": lambda metric, x, y: squared_dist(metric, x, y, solver=QUICK),
    "log": lambda metric, x, y: sg.log(metric, x, y, solver=QUICK),
    "lower bound": sg.metrics.lower_bound,
    "exp": lambda metric, x, v: sg.exp(metric, x, v),
    "geodesic": lambda metric, x, y: sg.geodesic(metric, x, y, solver=QUICK),
    "shoot": sg.shoot,
    "transport": transported,
    "slice": slice_step,
    "brownian": lambda metric, x, y: sg.statistics.brownian_motion(metric, x, 1.0, jax.random.key(0)),
    "gradient": lambda metric, x, y: jax.grad(lambda x: dist(metric, x, y, solver=QUICK))(x),
    "gradient of exp": lambda metric, x, v: jax.grad(lambda x: sg.exp(metric, x, v)[0])(x),
    "mean": lambda metric, x, y: sg.statistics.frechet_mean(metric, jnp.stack([x, y]), solver=QUICK).point,
    "clusters": lambda metric, x, y: (
        sg.statistics.kmeans(metric, jnp.stack([x, y, x - y]), 2, jax.random.key(0), solver=QUICK).centers
    ),
    "georce": lambda metric, x, y: dist(metric, x, y, solver=sg.Georce(nodes=9)),
    "energy descent": lambda metric, x, y: dist(metric, x, y, solver=sg.EnergyDescent(nodes=9)),
    "shooting": lambda metric, x, y: dist(metric, x, y, solver=sg.Shooting()),
    "fisher-rao": lambda metric, x, y: sg.fisher_rao.Gamma().dist(jnp.exp(x), jnp.exp(y)),
    "fit": lambda metric, x, y: sg.fisher_rao.Gamma().fit(jnp.exp(x), jnp.exp(y)),
    "fit by descent": lambda metric, x, y: sg.fisher_rao.Cauchy().fit(jnp.append(x, 0.0), jnp.exp(jnp.append(y, 0.0))),
    "normals": lambda metric, x, y: sg.fisher_rao.Normal().geodesic(jnp.exp(x), jnp.exp(y)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_callback_is_lowered(name):
    text = jax.jit(lambda x, y: OPERATIONS[name](METRIC, x, y)).lower(X, Y).as_text()
    assert "callback" not in text
    # The root find of shooting has matrices that are not symmetric.
    assert ("lapack" in text) == (name == "shooting")


@pytest.mark.slow
def test_called_plainly_a_failure_raises_and_inside_a_trace_it_is_nan():
    far = jnp.array([3.0, 0.0])
    with pytest.raises(RuntimeError, match="NaN or infinity"):
        dist(SPOILT, X, far, solver=QUICK)
    assert jnp.isnan(jax.jit(lambda y: dist(SPOILT, X, y, solver=QUICK))(far))
    value, code = dist(SPOILT, X, far, solver=QUICK, with_result=True)
    assert code == RESULTS.metric_nonfinite
    assert value.shape == ()


@pytest.mark.slow
def test_a_lane_that_fails_costs_the_others_nothing():
    ends = jnp.stack([Y, jnp.array([3.0, 0.0]), -Y])
    found = jax.jit(jax.vmap(lambda y: sg.geodesic(SPOILT, X, y, solver=QUICK)))(ends)
    for numbers in (found.length, found.points, found.velocities, found.energy, found.error):
        np.testing.assert_array_equal(jnp.isnan(numbers.reshape(3, -1)).all(1), [False, True, False])


@pytest.mark.slow
def test_a_loss_masks_what_failed():
    """Its gradient is that of the lanes which did not fail."""
    ends = jnp.stack([Y, jnp.array([1.0, 30.0])])
    # One Newton step on one element does not get there; the metric itself is finite everywhere.
    solver = sg.SpectralNewton(max_elements=1, max_steps=1, continuation=0)
    stiff = SteinMetric(sg.KernelDensityScore(np.array([[-1.0, 0.0], [1.0, 0.0]]), 0.3), 30.0)

    def loss(x, y):
        values, codes = jax.vmap(lambda y: dist(stiff, x, y, solver=solver, with_result=True))(y)
        good = codes == RESULTS.successful
        return jnp.sum(jnp.where(good, values, 0)), good

    gradient, good = jax.jit(jax.grad(loss, has_aux=True))(X, ends)
    assert not good.all()
    alone = sum(jax.grad(lambda x, y: loss(x, y[None])[0])(X, y) for y in ends)
    np.testing.assert_allclose(gradient, alone, atol=1e-10)
    assert jnp.isfinite(gradient).all()
    # Without a mask: NaN in the value, zero in the gradient.
    value, slope = jax.jit(jax.value_and_grad(lambda x: dist(stiff, x, ends[1], solver=solver)))(X)
    assert jnp.isnan(value)
    np.testing.assert_array_equal(slope, 0)


_SCRIPT = """
import jax, jax.numpy as jnp, logging
from scoregeo import EuclideanMetric, SpectralNewton, dist
seen = []
jax.monitoring.register_event_listener(lambda name, **_: seen.append(name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
solver = SpectralNewton(max_elements=1, continuation=0, adaptations=0)
solve = jax.jit(jax.vmap(lambda x, y: dist(EuclideanMetric(), x, y, solver=solver)))
solve(jnp.zeros((3, 2)), jnp.ones((3, 2))).block_until_ready()
print(*(seen.count(f"/jax/compilation_cache/cache_{kind}") for kind in ("misses", "hits")))
"""


@pytest.mark.slow
def test_another_process_reads_the_program_from_the_cache(tmp_path):
    def run():
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        misses, hits = done.stdout.split()
        return int(misses), int(hits)

    first, second = run(), run()
    assert first[0] > 0
    assert second[0] == 0
    assert second[1] >= first[0]
