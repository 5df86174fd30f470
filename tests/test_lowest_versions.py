"""The lower bounds in pyproject.toml are a promise: with the oldest versions that they allow, the library works."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = """
import importlib, pathlib, pkgutil, tempfile
import jax, jax.numpy as jnp, numpy as np
import scoregeo as sg
from matplotlib.figure import Figure
from scoregeo.diffusion import DiffusionModel, FitConfig, fit
from scoregeo.plotting import density

for module in pkgutil.walk_packages(sg.__path__, "scoregeo."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

metric = sg.SteinMetric(sg.GaussianScore(jnp.zeros(2), jnp.eye(2)))
x, y = jnp.zeros(2), jnp.array([1.2, 0.9])
length, slope = jax.jit(jax.value_and_grad(lambda y: sg.dist(metric, x, y)))(y)
exact = (1.5 * np.sqrt(1 + 1.5**2) + np.arcsinh(1.5)) / 2
assert abs(float(length) - exact) < 1e-5, (length, exact)
np.testing.assert_allclose(slope, np.sqrt(1 + 1.5**2) * y / 1.5, rtol=1e-4)

points = np.asarray(sg.datasets.two_moons(jax.random.key(0), 200).points, np.float32)
config = FitConfig(steps=10, batch_size=16, width=8, depth=1, chunk_steps=5, warmup_steps=2)
with tempfile.TemporaryDirectory() as folder:
    model = fit(points, config, progress=False, checkpoint_dir=pathlib.Path(folder) / "run")
    model.save(pathlib.Path(folder) / "model")
    model = DiffusionModel.load(pathlib.Path(folder) / "model")
assert np.isfinite(model.sample(jax.random.key(1), 4)).all()
axes = Figure().subplots()
density(axes, sg.GaussianScore(jnp.zeros(2), jnp.eye(2)).log_prob, (-1, 1), (-1, 1), resolution=5)
axes.figure.savefig(pathlib.Path(tempfile.mkdtemp()) / "density.png")
print("works")
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv, which makes the environment")
def test_the_lowest_versions_work(tmp_path):
    environment = tmp_path / "venv"
    python = str(environment / "bin" / "python")
    bounds = ["--resolution", "lowest-direct", "-r", str(ROOT / "pyproject.toml")]
    subprocess.run(["uv", "venv", "-q", str(environment)], check=True)
    made = subprocess.run(["uv", "pip", "install", "-q", "--python", python, *bounds], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    # The flags of these tests are for the newest jaxlib.
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "SCOREGEO_", "JAX_"))}
    settings |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([python, "-c", PROGRAM], capture_output=True, text=True, env=settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("works")
