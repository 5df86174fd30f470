"""Modules of torch in JAX against torch itself: ``.ci/torch`` runs this, elsewhere it is skipped."""

import importlib.util
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")

# Which is not imported here: it needs what the adapter does first.
if importlib.util.find_spec("torchax") is None:
    pytest.skip("torchax is not installed", allow_module_level=True)

from torch_oracle import randomised

from scoregeo import FunctionScore, PullbackMetric, SpectralNewton, SteinMetric, dist
from scoregeo.adapters.diffusers import load_diffusers
from scoregeo.adapters.torch import from_torch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def mlp():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, 16), torch.nn.SiLU(), torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)]
    return torch.nn.Sequential(*layers).eval()


def twin(x, weights):
    """The same network, written in JAX."""

    def linear(h, i):
        return weights[f"{i}.weight"] @ h + weights[f"{i}.bias"]

    return linear(jnp.tanh(linear(jax.nn.silu(linear(x, 0)), 2)), 4)


def test_value_first_and_second_derivatives_are_those_of_torch():
    module = mlp()
    function, weights = from_torch(module, (3,))
    x = jnp.array([0.3, -1.0, 2.0], jnp.float32)
    point = torch.tensor(np.asarray(x))
    first, second = torch.func.jacrev(module)(point), torch.func.hessian(module)(point)
    found = function(x, weights), jax.jacfwd(function)(x, weights), jax.hessian(function)(x, weights)
    for ours, theirs in zip(found, (module(point), first, second), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-6)
    np.testing.assert_allclose(jax.jacrev(function)(x, weights), found[1], atol=1e-6)
    by_weights = jax.grad(lambda w: function(x, w).sum())(weights)
    module(point).sum().backward()
    np.testing.assert_allclose(by_weights["2.weight"], module[2].weight.grad, atol=1e-6)


def test_distances_of_a_torch_score_are_those_of_its_twin():
    function, weights = from_torch(mlp(), (3,))
    x, y = jnp.array([1.0, 0.0, 0.0]), jnp.array([-1.0, 0.5, 1.0])
    theirs, ours = (dist(SteinMetric(FunctionScore(f, weights), 5.0), x, y) for f in (function, twin))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    pulled = [dist(PullbackMetric(f, weights, floor=1.0), x, y) for f in (function, twin)]
    np.testing.assert_allclose(*pulled, rtol=1e-5)


def test_other_weights_do_not_compile_again():
    function, weights = from_torch(mlp(), (3,))
    traces = []

    @jax.jit
    def length(metric):
        traces.append(1)
        return metric.at(jnp.ones(3)).squared_norm(jnp.ones(3))

    scaled = jax.tree.map(lambda w: 2 * w, weights)
    values = [length(SteinMetric(FunctionScore(function, w), 5.0)) for w in (weights, scaled)]
    assert len(traces) == 1
    assert values[0] != values[1]


class NoiseAsScore(torch.nn.Module):
    """The score that a diffusers network for discrete steps has at one of them, of points in units of the data."""

    def __init__(self, unet, scheduler, t):
        super().__init__()
        self.unet, self.t, product = unet, t, float(scheduler.alphas_cumprod[t])
        self.alpha, self.level = product**0.5, ((1 - product) / product) ** 0.5

    def forward(self, x):
        return -self.unet(self.alpha * x, self.t).sample / self.level


SMALL = {
    "sample_size": 4,
    "in_channels": 2,
    "out_channels": 2,
    "block_out_channels": (4, 4),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 2,
    "attention_head_dim": 4,
    "layers_per_block": 1,
}


def test_distances_of_a_diffusers_network_are_those_of_its_twin(tmp_path):
    torch.manual_seed(0)
    unet, scheduler = randomised(diffusers.UNet2DModel(**SMALL), 1), diffusers.DDPMScheduler()
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    model, t = load_diffusers(tmp_path), 600
    function, weights = from_torch(NoiseAsScore(unet, scheduler, t).eval(), (4, 4, 2), channels_last=True)
    scores = FunctionScore(function, weights), model.score_at(model.schedule.noise_level(float(t)))
    x, y = 0.5 * jax.random.normal(jax.random.key(0), (2, 32))
    values = [jax.jit(lambda score, x: score(x))(score, x) for score in scores]
    np.testing.assert_allclose(*values, atol=1e-5 * jnp.abs(values[1]).max())
    solver = SpectralNewton(rtol=1e-4, path_rtol=1e-2, max_elements=1, degree=6, continuation=0)
    lengths = [dist(SteinMetric(score, 0.1), x, y, solver=solver) for score in scores]
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_convolutions_are_those_that_are_fast_inside_loops():
    """And operations whose derivatives JAX is told survive the change."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LogSoftmax(1)]
    module = torch.nn.Sequential(*layers).eval()
    function, weights = from_torch(module, (2, 3, 3))
    x = torch.randn(18)
    expected = torch.func.jacrev(lambda x: module(x.reshape(1, 2, 3, 3)).reshape(-1))(x).detach().numpy()
    jacobian = jax.jit(jax.jacfwd(function))(x.numpy(), weights)
    np.testing.assert_allclose(jacobian, expected, atol=1e-6)
    program = str(jax.make_jaxpr(function)(x.numpy(), weights))
    assert "conv_general_dilated" not in program
    assert "= convolution[" in program


class Tuple(torch.nn.Module):
    def forward(self, x):
        return x, x


class Rare(torch.nn.Module):
    def forward(self, x):
        return torch.special.airy_ai(x)


class Mean(torch.nn.Module):
    def forward(self, x):
        return x.mean()


class Timed(torch.nn.Module):
    def forward(self, x, t):
        return t * x


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"in evaluation mode, but itself \(Sequential\) and 1 more parts train"):
        from_torch(torch.nn.Sequential(torch.nn.Dropout()), (3,))
    partly = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).eval()
    function, weights = from_torch(partly, (3,))
    partly[1].train()
    with pytest.raises(ValueError, match=r"but 1 \(BatchNorm1d\) train"):
        function(jnp.ones(3), weights)
    with pytest.raises(TypeError, match="must return one tensor, got tuple"):
        from_torch(Tuple().eval(), (3,))
    with pytest.raises(TypeError, match="must return one tensor, got UNet2DOutput"):
        from_torch(diffusers.UNet2DModel(**SMALL).eval(), (2, 4, 4), 3)
    with pytest.raises(NotImplementedError, match=r"torchax 0\.\d+\.\d+ does not translate to JAX: .*airy_ai"):
        from_torch(Rare().eval(), (3,))
    with pytest.raises(ValueError, match=r"must return a batch of one for a batch of one, got shape \(\)"):
        from_torch(Mean().eval(), (3,))
    with pytest.raises(TypeError, match=r"`module` must be a torch\.nn\.Module, got function"):
        from_torch(twin, (3,))
    for shape in ((), (0,), 3, (2.0,)):
        with pytest.raises(ValueError, match="`shape` must be positive integers"):
            from_torch(mlp(), shape)
    function, weights = from_torch(mlp(), (3,))
    with pytest.raises(ValueError, match=r"`x` must have shape \(3,\)"):
        function(jnp.ones(4), weights)


def test_arguments_besides_the_point():
    function, weights = from_torch(Timed().eval(), (2,), 3.0)
    assert function(jnp.array([1.0, 2.0]), weights, 3.0).tolist() == [3.0, 6.0]
    score = FunctionScore(function, weights, 2.0)
    assert jax.vmap(score)(jnp.ones((2, 2))).tolist() == [[2.0, 2.0]] * 2
