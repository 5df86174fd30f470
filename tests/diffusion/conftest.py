"""One small trained model for all tests of this folder, and the mixture it learned from."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from scoregeo.datasets import four_modes
from scoregeo.diffusion import MLP, FitConfig, fit
from scoregeo.diffusion.training import fit as training

# Small enough to train in a few seconds in float64-enabled JAX; the accuracy test has its own limits.
CONFIG = FitConfig(steps=1200, batch_size=256, width=64, depth=3, chunk_steps=200)


@pytest.fixture(scope="session")
def modes():
    """20,000 float32 points of the four-mode mixture, with its exact score."""
    data = four_modes(jax.random.key(7), 20_000)
    return data.points.astype("float32"), data.score


@pytest.fixture(scope="session")
def trained(modes):
    """A gradient field learned from the four modes, in float32."""
    return fit(modes[0], CONFIG, progress=False)


@pytest.fixture
def mlp():
    """Makes small networks with random weights everywhere: the zeros of a new last layer would hide mistakes."""

    def make(dim=3, dtype=jnp.float64, seed=0):
        graphdef, state = nnx.split(MLP(dim, width=16, depth=3, key=jax.random.key(seed), dtype=dtype))
        leaves, structure = jax.tree.flatten(state)
        keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
        leaves = [0.4 * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        return nnx.merge(graphdef, jax.tree.unflatten(structure, leaves))

    return make


@pytest.fixture
def interrupt_after(monkeypatch):
    """While ``interrupt_after(step)`` is entered, Ctrl-C arrives as the chunk after ``step`` steps runs."""

    @contextlib.contextmanager
    def entered(step):
        chunk = training._Run.chunk

        def interrupted(self, state, steps):
            if int(state.step) == step:
                raise KeyboardInterrupt
            return chunk(self, state, steps)

        with monkeypatch.context() as patch:
            patch.setattr(training._Run, "chunk", interrupted)
            yield

    return entered
