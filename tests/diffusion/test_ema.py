"""Averages of the weights: what share each step has in them, and averages of another width made afterwards."""

import dataclasses
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo.diffusion import MLP, DamagedModelError, DiffusionModel, FitConfig, fit
from scoregeo.diffusion.training import fit as training
from scoregeo.diffusion.training.ema import ConstantEMA, PowerEMA, WarmupEMA, exponent, shares
from scoregeo.diffusion.training.posthoc import combination, posthoc_ema

WIDTHS = (0.03, 0.05, 0.1, 0.15, 0.25)


POINTS = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
CONFIG = FitConfig(
    steps=200, batch_size=32, width=8, depth=1, potential=False, chunk_steps=20, ema=PowerEMA(0.1, snapshots=10)
)


def distance(a, b):
    leaves = zip(jax.tree.leaves(a.weights), jax.tree.leaves(b.weights), strict=True)
    return np.sqrt(sum(float(jnp.sum((x - y) ** 2)) for x, y in leaves))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that leaves snapshots, stopped and resumed."""
    folder = tmp_path_factory.mktemp("run")
    stop = [lambda history: history.last_step == 60]
    fit(POINTS, CONFIG, checkpoint_dir=folder, callbacks=stop, progress=False)
    return fit(POINTS, CONFIG, checkpoint_dir=folder, progress=False), folder


class Scaled(nnx.Module):
    """A network with a number that is not trained."""

    dim = 2

    def __init__(self, scale):
        self.net = MLP(2, 8, 1, key=jax.random.key(0))
        self.scale = nnx.Variable(jnp.asarray(scale, jnp.float32))

    def __call__(self, x, c_noise):
        return self.scale[...] * self.net(x, c_noise)


def recursion(ema, steps, dtype=jnp.float64):
    """The share of the start and of every step in the average, by the definition: one update after another."""

    def update(carry, step):
        decay = ema.decays(step)["average"].astype(dtype)
        return decay * carry + (1 - decay) * (jnp.arange(steps + 1) == step + 1), None

    start = jnp.zeros(steps + 1, dtype).at[0].set(1)
    return np.asarray(jax.jit(lambda: jax.lax.scan(update, start, jnp.arange(steps)))()[0])


class TestShares:
    def test_constant_and_warm_up(self):
        decay, steps = 0.9, 50
        expected = np.append(decay**steps, (1 - decay) * decay ** np.arange(steps)[::-1])
        np.testing.assert_allclose(recursion(ConstantEMA(decay), steps), expected, rtol=1e-12)
        # The decay of the warm-up stays below 0.9 until step 81 = (1 + 80)/(10 + 80); then it is constant.
        late, early = recursion(WarmupEMA(decay), 100), recursion(WarmupEMA(decay), 80)
        np.testing.assert_allclose(late[:81], early * decay**20, rtol=1e-10)
        np.testing.assert_allclose(late[81:], (1 - decay) * decay ** np.arange(20)[::-1], rtol=1e-10)
        assert early[0] < 1e-9 < decay**80 / 1e3  # the random start has left it

    def test_power_function(self):
        """Against its closed form, and its width against that of the density that it stands for."""
        for width in WIDTHS:
            by_definition = recursion(PowerEMA(width, second_width=0.2), 300)
            np.testing.assert_allclose(by_definition[1:], shares(width, 300, np.arange(301)), rtol=1e-9, atol=1e-15)
            assert by_definition[0] == 0
            single = recursion(PowerEMA(width, second_width=0.2), 300, jnp.float32)
            np.testing.assert_allclose(single, by_definition, rtol=1e-3, atol=1e-7)
            # Fine bins of tau/t: mean and standard deviation by quadrature.
            edges = np.linspace(0, 1, 200_001)
            density, centres = shares(width, 1, edges), (edges[1:] + edges[:-1]) / 2
            mean = density @ centres
            np.testing.assert_allclose(np.sqrt(density @ (centres - mean) ** 2), width, rtol=1e-6)
        # The table of Karras et al. (2024, sec. 3.1).
        np.testing.assert_allclose([exponent(0.05), exponent(0.1)], [16.97, 6.94], atol=0.005)

    def test_bad_settings_are_named(self):
        for make, message in [
            (lambda: ConstantEMA(1.0), r"`decay` must be a number that is in \[0, 1\), got 1.0"),
            (lambda: WarmupEMA(-0.1), r"`decay` must be a number that is in \[0, 1\)"),
            (lambda: PowerEMA(0.3), r"`width` must be a number that is in \(0, 0.28\], got 0.3"),
            (lambda: PowerEMA(0.1, -1), "`snapshots` must be an integer of at least 0, got -1"),
            (lambda: PowerEMA(0.05), "`second_width` must differ from `width`"),
            (
                lambda: FitConfig(steps=1000, chunk_steps=300, ema=PowerEMA(snapshots=5)),
                "`ema` must take at most one snapshot for each of the 4 chunks of steps, got 5",
            ),
            (lambda: FitConfig(ema=0.999), r"`ema` must be an average such as WarmupEMA\(\)"),
            (
                lambda: FitConfig.from_dict({"ema": {"kind": "EMA"}}),
                "`ema` must be a dictionary whose `kind` is one of",
            ),
        ]:
            with pytest.raises(ValueError, match=message):
                make()


class TestPostHoc:
    def test_a_combination_is_the_average_itself(self):
        """Random walks as weights: all averages computed directly, one of them also from the others."""
        steps, count = 2000, 16
        walks = np.random.default_rng(0).normal(size=(steps, 5)).cumsum(0)
        kept = [(width, steps * (i + 1) // count) for i in range(count) for width in (0.05, 0.1)]
        averages = [shares(width, step, np.arange(step + 1)) @ walks[:step] for width, step in kept]
        for width, error in [(0.04, 0.02), (0.05, 1e-9), (0.07, 0.01), (0.1, 1e-9), (0.15, 0.02), (0.2, 0.04)]:
            factors, misfit = combination(kept, width, steps)
            assert misfit < error
            np.testing.assert_allclose(factors.sum(), 1)
            direct = shares(width, steps, np.arange(steps + 1)) @ walks
            nearest = min(np.linalg.norm(average - direct) for average in averages)
            assert np.linalg.norm(factors @ averages - direct) <= max(0.1 * nearest, 1e-8), width
        assert combination(kept, 0.01, steps)[1] > 0.2  # too narrow for so few: and known to be

    @pytest.mark.slow
    def test_a_run_gives_any_width(self, run, tmp_path):
        """The training is the same whatever is averaged, so a run with another average says what is right."""
        model, folder = run[0], shutil.copytree(run[1], tmp_path / "run")
        names = sorted(int(path.stem) for path in (folder / "averages").iterdir())
        (folder / "averages" / ".5f.20.safetensors").write_bytes(b"was being written")
        assert names == list(range(20, 201, 20))
        for width in (0.07, 0.15):
            direct = fit(POINTS, dataclasses.replace(CONFIG, ema=PowerEMA(width)), progress=False)
            made = posthoc_ema(model, folder, width)
            error, shift = (distance(made, direct), distance(model, direct))
            assert error < 0.05 * shift, width
            assert made.dtype == model.dtype
        assert distance(posthoc_ema(model, folder, 0.1), model) < 1e-5 * distance(model, direct)
        single = fit(POINTS, dataclasses.replace(CONFIG, ema=PowerEMA(0.1)), progress=False)
        assert distance(single, model) < 1e-4 * distance(model, direct)

    def test_variables_that_are_not_trained(self, tmp_path):
        """They are kept as they are, and tell a network from another in a checkpoint."""
        config = dataclasses.replace(CONFIG, steps=40, ema=PowerEMA(0.1, snapshots=2))
        model = fit(POINTS, config, network=Scaled(2.0), checkpoint_dir=tmp_path, progress=False)
        same = posthoc_ema(model, tmp_path, 0.1)
        assert same.weights["net"]["scale"] == 2
        assert distance(same, model) < 1e-5
        with pytest.raises(ValueError, match=r"holds a run with another network in .*: constants: .* here, .* there"):
            fit(POINTS, config, network=Scaled(3.0), checkpoint_dir=tmp_path, progress=False)

    def test_what_cannot_be_made(self, run, tmp_path, monkeypatch):
        model, folder = run[0], shutil.copytree(run[1], tmp_path / "run")
        monkeypatch.setattr(training._Run, "chunk", lambda *_: pytest.fail("nothing may be trained"))
        with pytest.raises(ValueError, match=r"`checkpoint_dir` must be given with `ema=PowerEMA\(snapshots=...\)`"):
            fit(POINTS, CONFIG, progress=False)
        with pytest.raises(ValueError, match=r"`width` must be one that the snapshots can make; 0.01 is off by \d+%"):
            posthoc_ema(model, folder, 0.01)
        with pytest.raises(ValueError, match=r"`width` must be a number that is in"):
            posthoc_ema(model, folder, 0.5)
        with pytest.raises(ValueError, match="`checkpoint_dir` must have the snapshots of this run"):
            posthoc_ema(model, tmp_path / "other", 0.1)
        other = eqx.tree_at(lambda m: m.weights, model, jax.tree.map(lambda leaf: leaf + 1, model.weights))
        with pytest.raises(ValueError, match="holds the snapshots of another run"):
            posthoc_ema(other, folder, 0.1)
        with pytest.raises(ValueError, match=r"`model` must be trained with `ema=PowerEMA\(snapshots=...\)`"):
            posthoc_ema(DiffusionModel(model.denoiser, FitConfig()), folder, 0.1)
        (folder / "averages" / "100.safetensors").write_bytes(b"garbage")
        with pytest.raises(DamagedModelError, match=r"100.safetensors is damaged"):
            posthoc_ema(model, folder, 0.1)
