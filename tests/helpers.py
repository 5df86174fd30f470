"""What several test files compare with: end points, score fields, closed-form distances, numerical derivatives.

Nothing here uses the library for what a test then asks of the library: closed forms are NumPy, fields are functions.
"""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import FunctionScore, KernelDensityScore, SteinMetric

# Two points of the plane on either side of the origin: the usual end points.
X, Y = np.array([-1.0, 0.5]), np.array([1.0, 0.7])

# The reference problem: three equal Gaussians of standard deviation 0.5, and the end points of its geodesic.
MODES = np.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])
MODES_SD = 0.5
MODES_X, MODES_Y = np.array([-1.5, 0.2]), np.array([1.4, -0.3])
MODES_LENGTH = 5.0550293850979  # of the shorter of two local geodesics, strength 1

# Neither symmetric nor antisymmetric: fields made of it are not gradients.
CURL = np.array([[0.3, 1.0], [-1.2, 0.2]])


def some_slow(names, fast):
    """Parameters of a test of which those not in ``fast`` are for the slow tests: cases of one kind."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@contextlib.contextmanager
def programs_compiled():
    """A list that has an entry for each program which is compiled, or read from the cache of programs, meanwhile."""
    seen = []

    def listen(name, _, **__):
        if name == "/jax/core/compile/backend_compile_duration":
            seen.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def programs_of(function):
    """How many programs there are of a function that `scoregeo._numerics.program` made, whichever way it compiles."""
    ways = inspect.getclosurevars(function).nonlocals
    return sum(ways[name]._cached._cache_size() for name in ("whole", "sooner"))


def three_modes(strength=1.0):
    """The metric of the reference problem."""
    return SteinMetric(KernelDensityScore(jnp.asarray(MODES), MODES_SD), strength)


def linear_curl(x):
    """A linear field with curl in the plane, which points inwards."""
    return jnp.asarray(CURL) @ x - x


def tanh_field(x, w):
    """A smooth field that is a gradient only if ``w`` is symmetric."""
    return jnp.tanh(w @ x) - x


def tanh_metric(strength, w):
    """The Stein metric of `tanh_field`, whose weights are arguments of what is compiled."""
    return SteinMetric(FunctionScore(tanh_field, w), strength)


def network(x, w, u):
    """One hidden layer minus x."""
    return jnp.tanh(x @ w) @ u - x


def network_score(seed, d, dtype=jnp.float64, width=16):
    """`network` with random weights: a smooth field that is not a gradient."""
    keys = jax.random.split(jax.random.key(seed), 2)
    w = jax.random.normal(keys[0], (d, width), dtype) / np.sqrt(d)
    u = jax.random.normal(keys[1], (width, d), dtype) / np.sqrt(width)
    return FunctionScore(network, w, u)


def radial(r, c=1.0):
    """Distance in the Stein metric of N(0, v I) from the mean to a point at distance r, for c = sqrt(strength) / v.

    The length of a parabola, 1/2 (r sqrt(1 + c^2 r^2) + asinh(c r) / c); odd in r.
    """
    return 0.5 * (r * np.sqrt(1 + (c * r) ** 2) + np.arcsinh(c * r) / c)


def poincare_ball(x, y):
    """Hyperbolic distance (curvature -1) in the unit ball, over the last axis."""
    inside = (1 - np.sum(x * x, -1)) * (1 - np.sum(y * y, -1))
    return np.arccosh(1 + 2 * np.sum((x - y) ** 2, -1) / inside)


def half_space(x, y):
    """Hyperbolic distance (curvature -1) in the upper half-space, over the last axis."""
    return np.arccosh(1 + np.sum((x - y) ** 2, -1) / (2 * x[..., -1] * y[..., -1]))


def stereographic_sphere(x, y):
    """Distance on the unit sphere in stereographic coordinates."""
    return 2 * np.arcsin(np.linalg.norm(x - y) / np.sqrt((1 + x @ x) * (1 + y @ y)))


def central_differences(f, args, argnum, h=1e-5):
    """Derivatives of ``f`` with respect to every entry of one argument; shape of the value + shape of the argument."""
    a = args[argnum]

    def shifted(delta):
        return f(*args[:argnum], a + delta, *args[argnum + 1 :])

    units = jnp.eye(a.size).reshape(a.size, *a.shape)
    slopes = [(shifted(h * e) - shifted(-h * e)) / (2 * h) for e in units]
    return jnp.moveaxis(jnp.stack(slopes), 0, -1).reshape(*slopes[0].shape, *a.shape)
