"""A score that PyTorch trained, and geodesics in JAX.

    pip install torch "scoregeo[torch]"
    python examples/torch_score.py [--out torch_score.png] [--quick]

Two moons with noise, and a module of PyTorch that learns to say which noise was added. `from_torch` makes it a
function of JAX, once: derivatives of every order, `jit` and `vmap` work, and nothing of torch runs afterwards. Prints
lengths beside those of the moons' own score.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from scoregeo import FunctionScore, SpectralNewton, SteinMetric, datasets, geodesic, plotting
from scoregeo.adapters.torch import from_torch

try:
    import torch
except ImportError as error:
    raise SystemExit('this example needs torch: pip install torch "scoregeo[torch]"') from error

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="torch_score.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="300 steps of training in place of 4,000")
options = parser.parse_args()

sigma = 0.25
data = datasets.two_moons(jax.random.key(0), 4000)
points = torch.tensor(np.asarray(data.points))

# Training, in torch alone: denoising score matching at one noise level (Vincent 2011).
torch.manual_seed(0)
torch.set_num_threads(1)  # for a network so small, more of them wait for each other
layers = [torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)]
network = torch.nn.Sequential(*layers)
steps = 300 if options.quick else 4000
optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
for _ in range(steps):
    noise = torch.randn(512, 2)
    noisy = points[torch.randint(len(points), (512,))] + sigma * noise
    loss = ((sigma * network(noisy) + noise) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

# Geometry, in JAX alone.
function, weights = from_torch(network.eval(), (2,))
scores = {"learned by torch": FunctionScore(function, weights), "true": data.score.noised(1.0, sigma)}
x, y = jnp.array([-1.4, 0.2]), jnp.array([0.4, 0.2])
solver = SpectralNewton(rtol=1e-3, path_rtol=1e-1)
paths = {}
for name, score in scores.items():
    paths[name] = geodesic(SteinMetric(score, strength=0.5), x, y, solver=solver)
    print(f"{name:17} {paths[name]}")
error = jax.vmap(lambda p: scores["learned by torch"](p) - scores["true"](p))(data.points)
size = jnp.mean(jnp.sum(jax.vmap(scores["true"])(data.points) ** 2, -1))
print(f"mean squared error of the score, relative: {jnp.mean(jnp.sum(error**2, -1)) / size:.3f}")

figure = Figure(figsize=(6, 4.4), layout="constrained")
ax = figure.subplots()
limits = (-2.1, 2.1), (-1.5, 1.5)
plotting.density(ax, scores["true"].log_prob, *limits)
plotting.score_field(ax, scores["learned by torch"], *limits, n=24, cmap="Greys", clim=(-3, 10))
plotting.geodesics(ax, paths["true"], colors="#111111", straight=False, linewidths=4, label="of the true score")
plotting.geodesics(ax, paths["learned by torch"], path_effects=None, label="of torch's network")
ax.set(xlim=limits[0], ylim=limits[1], title="A score that PyTorch trained")
ax.legend(loc="lower left", fontsize=8, framealpha=0.9)
figure.savefig(options.out, dpi=150)
