"""Convolution against JAX's own, in value and derivatives, and what is compiled for each platform."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from scipy.signal import correlate

from scoregeo.diffusion.networks.convolution import convolution
from scoregeo.diffusion.networks.unet import UNet

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
TOLERANCE = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2e-2}


def arrays(seed, shape, kernel, dtype="float64"):
    """Images, a kernel, and tangents of both."""
    keys = jax.random.split(jax.random.key(seed), 4)
    return tuple(jax.random.normal(k, s, dtype) for k, s in zip(keys, 2 * (shape, kernel), strict=True))


def everything(function, x, kernel, dx, dkernel):
    """Value, gradient, and the gradient's derivative, of and in both arguments."""

    def energy(x, kernel):
        return jnp.sum(jnp.tanh(function(x, kernel)) ** 2)

    gradient, curvature = jax.jvp(jax.grad(energy, (0, 1)), (x, kernel), (dx, dkernel))
    turned = jax.grad(lambda x, kernel: jax.jvp(energy, (x, kernel), (dx, dkernel))[1], (0, 1))(x, kernel)
    return function(x, kernel), jax.jvp(function, (x, kernel), (dx, dkernel))[1], gradient, curvature, turned


def close(value, expected, dtype):
    for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype == dtype
        a, b = np.asarray(a, float), np.asarray(b, float)
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * np.abs(b).max())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(
    ("seed", "shape", "size", "outputs", "settings"),
    [
        (0, (2, 8, 8, 3), (3, 3), 4, {"padding": "SAME"}),
        (1, (1, 6, 5, 2), (1, 1), 3, {"padding": "SAME"}),
        (2, (2, 9, 8, 3), (4, 3), 2, {"padding": "SAME", "window_strides": (2, 1)}),
        (3, (1, 7, 7, 20), (5, 5), 3, {"padding": "VALID"}),
        (4, (2, 8, 7, 2), (3, 2), 2, {"padding": ((2, 0), (1, 3)), "window_strides": (2, 3)}),
        (5, (1, 9, 8, 3), (3, 3), 2, {"padding": "SAME", "rhs_dilation": (2, 1)}),
        (6, (1, 5, 4, 3), (3, 3), 2, {"padding": ((1, 2), (2, 1)), "lhs_dilation": (2, 1)}),
        (7, (2, 6, 6, 4), (3, 3), 6, {"padding": "SAME", "feature_group_count": 2}),
    ],
)
def test_it_is_jaxs_convolution(seed, shape, size, outputs, settings, dtype):
    inputs = shape[-1] // settings.get("feature_group_count", 1)
    points = arrays(seed, shape, (*size, inputs, outputs), dtype)
    settings = {"window_strides": (1, 1), "dimension_numbers": CHANNELS_LAST} | settings
    results = [
        jax.jit(functools.partial(everything, functools.partial(function, **settings)))(*points)
        for function in (convolution, lax.conv_general_dilated)
    ]
    close(*results, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_the_correlation_of_scipy(seed):
    x, kernel, *_ = arrays(seed, (1, 6, 7, 3), (3, 3, 3, 2))
    value = convolution(x, kernel, (1, 1), "SAME", dimension_numbers=CHANNELS_LAST)
    expected = [
        sum(correlate(np.asarray(x[0, ..., i]), np.asarray(kernel[..., i, o]), mode="same") for i in range(3))
        for o in range(2)
    ]
    np.testing.assert_allclose(value[0], np.stack(expected, -1), rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 0), (None, 4), (0, 0), (2, 1)])
def test_batches(axes):
    """Of images, of kernels, of both, along any axis; their derivatives too."""
    x, kernel, *_ = arrays(0, (1, 5, 4, 2), (3, 3, 2, 3))
    x, kernel = (
        a if axis is None else jnp.stack([a, 2 * a - 1, a**2], axis) for a, axis in zip((x, kernel), axes, strict=True)
    )
    results = []
    for function in (convolution, lax.conv_general_dilated):
        one = functools.partial(function, window_strides=(1, 1), padding="SAME", dimension_numbers=CHANNELS_LAST)
        energy = lambda x, k, one=one: jnp.sum(one(x, k) ** 3)  # noqa: E731
        results.append(jax.jit(jax.vmap(jax.value_and_grad(energy, (0, 1)), axes))(x, kernel))
    close(*results, "float64")


def test_other_orders_of_the_axes_and_no_jit():
    x, kernel, *_ = arrays(0, (2, 3, 6, 5), (4, 3, 3, 2))
    for settings in ({}, {"dimension_numbers": ("NCHW", "OIHW", "NHWC")}):
        value, expected = (
            function(x, kernel, (1, 2), "SAME", **settings) for function in (convolution, lax.conv_general_dilated)
        )
        close(value, expected, "float64")


def test_the_precision_is_that_of_where_it_is_called():
    """Also where the program is made only later."""
    x, kernel, *_ = arrays(0, (1, 4, 4, 2), (3, 3, 2, 2), "float32")

    def gradient(x, kernel):
        with jax.default_matmul_precision("highest"):
            return jax.grad(lambda k: jnp.sum(convolution(x, k, (1, 1), "SAME", dimension_numbers=CHANNELS_LAST) ** 2))(
                kernel
            )

    text = jax.export.export(jax.jit(gradient), platforms=["tpu"])(x, kernel).mlir_module()
    assert len(re.findall("precision HIGHEST", text)) == 2 * text.count("stablehlo.convolution") > 0


def exported(dtype, channels, platform):
    x, kernel, *_ = arrays(0, (1, 6, 6, channels), (3, 3, channels, channels), dtype)

    def gradient(x, kernel):
        return jax.grad(
            lambda x, k: jnp.sum(convolution(x, k, (1, 1), "SAME", dimension_numbers=CHANNELS_LAST) ** 2), (0, 1)
        )(x, kernel)

    return jax.export.export(jax.jit(gradient), platforms=[platform])(x, kernel).mlir_module()


@pytest.mark.parametrize("platform", ["tpu", "cuda", "rocm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elsewhere_the_program_is_that_of_jaxs_convolution(platform, dtype):
    text = exported(dtype, 4, platform)
    assert text.count("stablehlo.convolution") == 3  # the value, and the derivative in each argument
    assert "stablehlo.dot" not in text
    assert "stablehlo.transpose" not in text


@pytest.mark.parametrize(("dtype", "channels"), [("float32", 4), ("float32", 20), ("bfloat16", 4), ("float64", 20)])
def test_on_cpus_all_convolutions_have_their_channels_last(dtype, channels):
    text = exported(dtype, channels, "cpu")
    orders = re.findall(r"stablehlo\.convolution.*dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text)
    assert orders == 3 * ["[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"]


def test_on_cpus_few_channels_in_double_precision_are_matrix_products():
    text = exported("float64", 4, "cpu")
    assert "stablehlo.convolution" not in text
    assert text.count("stablehlo.dot_general") == 3 * 9  # for each place of the kernel


@pytest.mark.slow
def test_a_network_is_served_wherever_its_convolutions_are():
    """Every convolution of a U-Net, in both directions and in a loop, is compiled with its channels last."""
    net = UNet((4, 4, 1), 4, (1, 2), 1, key=jax.random.key(0))
    graphdef, weights = nnx.split(net)

    def loss(weights, xs):
        return jnp.mean(jax.vmap(nnx.merge(graphdef, weights), (0, None))(xs, jnp.float32(0.1)) ** 2)

    @jax.jit
    def descend(weights, xs):
        def step(weights, _):
            return jax.tree.map(lambda w, g: w - g, weights, jax.grad(loss)(weights, xs)), None

        return lax.scan(step, weights, length=2)[0]

    text = descend.lower(weights, jnp.ones((2, 16), jnp.float32)).as_text()
    orders = set(re.findall(r"stablehlo\.convolution.*dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text))
    assert orders == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
