"""Convolution that is as fast inside a loop as outside, on CPUs too.

XLA has fast programs for convolutions on CPUs if the axes come in one order: channels last in the images, the channels
that come out last in the kernel. It brings them into that order at the top level of a program only, not inside a loop
(`jax-ml/jax#12868`), and there the derivatives, whose axes come in another order, take plain loops: up to 100 times
longer. In double precision it has no fast program for few channels, wherever they are.

`convolution` is a primitive of its own. All that JAX knows about its convolution (derivatives, batches, shapes) is
asked of that one, and whatever comes out goes on with this primitive, so that derivatives of every order are served.
What is compiled depends on the platform that it is compiled for: on CPUs the axes are brought into the good order,
elsewhere it is JAX's convolution.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal, Primitive, primitives
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

# What so few channels, in and out, cost in double precision: XLA takes plain loops, and matrix products are faster.
_FEW_CHANNELS = 16

_plain = primitives.conv_general_dilated_p
_primitive = Primitive("convolution")


def convolution(inputs: Array, kernel: Array, *arguments: Any, **settings: Any) -> Array:
    """``jax.lax.conv_general_dilated``: the same arguments, the same result to rounding."""
    return with_our_convolution(
        lambda inputs, kernel: lax.conv_general_dilated(inputs, kernel, *arguments, **settings), inputs, kernel
    )


def with_our_convolution(function: Callable[..., Array], *arrays: Array) -> Array:
    """``function(*arrays)``, an array, with `convolution` in place of the convolutions of JAX that it takes itself (not
    inside functions that it has compiled)."""
    closed = jax.make_jaxpr(function)(*arrays)
    values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(closed.jaxpr.invars, arrays, strict=True))

    def read(variable):
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in closed.jaxpr.eqns:
        primitive = _primitive if equation.primitive is _plain else equation.primitive
        parameters = equation.primitive.get_bind_params(equation.params)
        # Some versions of JAX give functions, such as rules for derivatives, apart.
        functions, parameters = parameters if isinstance(parameters, tuple) else ((), parameters)
        results = primitive.bind(*functions, *map(read, equation.invars), **parameters)
        values |= dict(zip(equation.outvars, results if primitive.multiple_results else [results], strict=True))
    return read(closed.jaxpr.outvars[0])


def _inputs_cotangent(g, inputs, kernel, **settings):
    def transposed(g, kernel):
        return jax.linear_transpose(lambda inputs: _plain.bind(inputs, kernel, **settings), inputs.aval)(g)[0]

    return with_our_convolution(transposed, g, kernel)


def _kernel_cotangent(g, inputs, kernel, **settings):
    def transposed(g, inputs):
        return jax.linear_transpose(lambda kernel: _plain.bind(inputs, kernel, **settings), kernel.aval)(g)[0]

    return with_our_convolution(transposed, g, inputs)


def _batch(arrays, axes, **settings):
    return with_our_convolution(jax.vmap(functools.partial(_plain.bind, **settings), tuple(axes)), *arrays), 0


def _on_cpu(inputs, kernel, *, dimension_numbers, **settings):
    """The convolution with its axes in the order that XLA is fast at."""
    (n, f, *space), (o, i, *size), out = dimension_numbers
    inputs, kernel = inputs.transpose(n, *space, f), kernel.transpose(*size, i, o)
    ungrouped = settings["feature_group_count"] == settings["batch_group_count"] == 1
    if inputs.dtype == jnp.float64 and max(kernel.shape[-2:]) <= _FEW_CHANNELS and ungrouped:
        result = _matrix_products(inputs, kernel, **settings)
    else:
        last, axes = inputs.ndim - 1, range(1, inputs.ndim - 1)
        images, weights = (0, last, *axes), (last, last - 1, *range(last - 1))
        numbers = lax.ConvDimensionNumbers(images, weights, images)
        result = _plain.bind(inputs, kernel, dimension_numbers=numbers, **settings)
    n, f, *space = out
    return result.transpose(*np.argsort([n, *space, f]))


def _matrix_products(
    inputs, kernel, *, window_strides, padding, lhs_dilation, rhs_dilation, precision, preferred_element_type, **_
):
    """The convolution, channels last, as a sum of matrix products: one for each place in the kernel, or in the result
    if that has fewer."""
    edges = [(low, high, step - 1) for (low, high), step in zip(padding, lhs_dilation, strict=True)]
    inputs = lax.pad(inputs, jnp.zeros((), inputs.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    size, axes = kernel.shape[:-2], len(edges)
    result = [
        (length - (n - 1) * step - 1) // stride + 1
        for length, n, step, stride in zip(inputs.shape[1:-1], size, rhs_dilation, window_strides, strict=True)
    ]
    product = functools.partial(jnp.tensordot, precision=precision, preferred_element_type=preferred_element_type)
    if math.prod(result) < math.prod(size):
        windows = _slices(inputs, result, window_strides, size, rhs_dilation)
        places = [product(window, kernel, axes=axes + 1) for _, window in windows]
        return jnp.stack(places, 1).reshape(len(inputs), *result, kernel.shape[-1])
    shifted = _slices(inputs, size, rhs_dilation, result, window_strides)
    return functools.reduce(jnp.add, (product(image, kernel[place], axes=1) for place, image in shifted))


def _slices(
    images: Array, counts: Sequence[int], shifts: Sequence[int], lengths: Sequence[int], strides: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For every place in ``counts``, the part of the images that begins there times ``shifts``, of ``lengths`` and
    with ``strides``."""
    for place in np.ndindex(*counts):
        starts = [k * shift for k, shift in zip(place, shifts, strict=True)]
        parts = [slice(s, s + (n - 1) * step + 1, step) for s, n, step in zip(starts, lengths, strides, strict=True)]
        yield place, images[(slice(None), *parts)]


_primitive.def_impl(_plain.bind)
_primitive.def_effectful_abstract_eval(_plain.abstract_eval)
ad.defbilinear(_primitive, _inputs_cotangent, _kernel_cotangent)
batching.primitive_batchers[_primitive] = _batch
mlir.register_lowering(_primitive, mlir.lower_fun(_plain.bind, multiple_results=False))
mlir.register_lowering(_primitive, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")
