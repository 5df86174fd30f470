"""Derivatives of batches, called again and again with all of XLA's threads: nothing may wait for itself.

LAPACK calls of jaxlib that run side by side can wait for one another forever (jaxlib 0.10, two cores): the solves that
did stood still after 0 to 8 calls. The other tests run with one thread, where that cannot happen; these start processes
of their own, with a watchdog. ``SCOREGEO_SOAK=500`` soaks for longer, and every solver.
"""

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
import scoregeo as sg
from scoregeo import KernelDensityScore, SteinMetric, dist, log, squared_dist

solver = {
    "SpectralNewton": sg.SpectralNewton() if int(sys.argv[2]) > 30 else sg.SpectralNewton(max_elements=1),
    "Georce": sg.Georce(nodes=17),
    "EnergyDescent": sg.EnergyDescent(nodes=17),
    "Shooting": sg.Shooting(segments=2),
    "Refine": sg.Refine(sg.SpectralNewton(), sg.Shooting(segments=2)),
    "MultiStart": sg.MultiStart(sg.SpectralNewton()),
}[sys.argv[1]]
calls = int(sys.argv[2])
metric = SteinMetric(KernelDensityScore(np.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]]), 0.5), 1.0)
random = np.random.default_rng(0)
pairs = jnp.asarray(random.standard_normal((2, 6, 2)))
how = dict(solver=solver, throw=False)
kinds = {
    "gradient": jax.jit(jax.vmap(jax.grad(lambda x, y: dist(metric, x, y, **how)))),
    "jacobian of log": jax.jit(jax.vmap(jax.jacrev(lambda x, y: log(metric, x, y, **how)))),
    "hessian": jax.jit(jax.vmap(jax.hessian(lambda x, y: squared_dist(metric, x, y, **how)))),
}
for name, kind in kinds.items():
    first = jax.block_until_ready(kind(*pairs))
    print(name, "compiled", flush=True)
    for call in range(calls):
        again = jax.block_until_ready(kind(*pairs))
        if call % 10 == 9:
            print(name, call + 1, flush=True)
    np.testing.assert_allclose(again, first, rtol=1e-9, atol=1e-12)
print("done")
"""


LONG = int(os.environ.get("SCOREGEO_SOAK", "0"))
SOLVERS = ["SpectralNewton", "Georce"] + ["EnergyDescent", "Shooting", "Refine", "MultiStart"] * bool(LONG)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_derivatives_of_batches_never_stand_still(solver):
    calls = LONG or 30
    environment = {k: v for k, v in os.environ.items() if k not in ("NPROC", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, "-c", _SCRIPT, solver, str(calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600 + 20 * calls)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"
