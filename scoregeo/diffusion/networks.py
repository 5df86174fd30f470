"""Networks that a denoiser wraps: ``(x, c_noise) -> (d,)`` for one point ``x`` of shape ``(d,)`` and a scalar
``c_noise``.

They see the preconditioned point and ``c_noise = log(sigma)/4`` (see `parameterization`), so their input and their
target are of order one at every noise level. They hold no random state, use smooth activations only (geodesics need the
Jacobian of the score, and smooth ones), and are ``flax.nnx`` modules whose weights can be traced.

A network says in ``conservative`` whether its output is the gradient of a function of ``x`` by construction, and in
``dim`` its dimension. ``to_dict`` names what is needed to build it again from saved weights.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PRNGKeyArray

from .._types import Point, Scalar, Vector

# Angular frequencies of the noise features. log(sigma)/4 runs over about [-1.6, 1.1]: the highest one resolves a factor
# of about two in sigma, beyond which a denoiser hardly changes.
_FREQUENCIES = (1.0, 2.0, 4.0, 8.0)


def noise_features(c_noise: Scalar) -> Vector:
    """Fourier features of the noise coordinate, with the coordinate itself; shape ``(9,)``."""
    angles = jnp.asarray(_FREQUENCIES, jnp.result_type(c_noise)) * c_noise
    return jnp.concatenate([jnp.reshape(c_noise, (1,)), jnp.sin(angles), jnp.cos(angles)])


class MLP(nnx.Module):
    """A fully connected network with ``depth`` hidden layers of ``width`` units, told the noise level in every layer.

    **Arguments**

    - ``dim``: dimension d of the points.
    - ``width``, ``depth``: size and number of the hidden layers; layers after the first are residual.
    - ``key``: a ``jax.random`` key for the initial weights. The last layer starts at zero.
    - ``dtype``: of the weights, float32 by default.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.diffusion import MLP
    >>> network = MLP(dim=2, width=64, depth=4, key=jax.random.key(0))
    >>> network(jnp.ones(2), jnp.array(0.1)).shape
    (2,)
    """

    conservative = False

    def __init__(self, dim: int, width: int = 64, depth: int = 4, *, key: PRNGKeyArray, dtype: Any = jnp.float32):
        for name, value in (("dim", dim), ("width", width), ("depth", depth)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}")
        rngs = nnx.Rngs(key)
        self.dim, self.width, self.depth = dim, width, depth
        features = 1 + 2 * len(_FREQUENCIES)
        self.layers = nnx.List(
            nnx.Linear(dim if i == 0 else width, width, param_dtype=dtype, rngs=rngs) for i in range(depth)
        )
        self.noise = nnx.List(
            nnx.Linear(features, width, use_bias=False, param_dtype=dtype, rngs=rngs) for _ in range(depth)
        )
        self.head = nnx.Linear(width, dim, kernel_init=nnx.initializers.zeros, param_dtype=dtype, rngs=rngs)

    def __call__(self, x: Point, c_noise: Scalar) -> Vector:
        """The output at one point ``x`` of shape ``(d,)``; ``c_noise`` is a scalar. Shape ``(d,)``."""
        features = noise_features(c_noise)
        h = nnx.silu(self.layers[0](x) + self.noise[0](features))
        for layer, noise in zip(self.layers[1:], self.noise[1:], strict=True):
            h = h + nnx.silu(layer(h) + noise(features))
        return self.head(h)

    def to_dict(self) -> dict[str, Any]:
        """What `network_from_dict` needs to build this network (without its weights)."""
        return {"kind": "MLP", "dim": self.dim, "width": self.width, "depth": self.depth}


class Potential(nnx.Module):
    """The gradient in ``x`` of the scalar ``sum(net(x, c_noise))``: a gradient field by construction.

    Its Jacobian is symmetric, so geodesics of its score need no curl term, and the score has a log density up to a
    constant (`Denoiser.log_prob`). One evaluation costs about two to three of ``net``. The sum is the scalar that
    learned best here (docs/diffusion.md): against ``<x, net>`` the error of ``J v`` in 2-D was a quarter lower, at the
    same cost.

    **Arguments**

    - ``net``: a network ``(x, c_noise) -> (d,)``, for example an `MLP`, with an integer ``dim``.
    """

    conservative = True

    def __init__(self, net: nnx.Module):
        self.net = net
        self.dim = net.dim

    def potential(self, x: Point, c_noise: Scalar) -> Scalar:
        """The scalar whose gradient this network is."""
        return jnp.sum(self.net(x, c_noise))

    def __call__(self, x: Point, c_noise: Scalar) -> Vector:
        """The gradient of `potential` in ``x``, shape ``(d,)``."""
        return jax.grad(self.potential)(x, c_noise)

    def to_dict(self) -> dict[str, Any]:
        """What `network_from_dict` needs to build this network (without its weights)."""
        return {"kind": "Potential", "net": self.net.to_dict()}


def network_from_dict(values: Mapping[str, Any], *, key: PRNGKeyArray, dtype: Any = jnp.float32) -> nnx.Module:
    """A new network of the architecture that ``to_dict`` described, with random weights of the given dtype."""
    if not isinstance(values, Mapping) or values.get("kind") not in ("MLP", "Potential"):
        raise ValueError(f"`network` must be a dictionary whose `kind` is MLP or Potential, got {values!r}")
    parameters = {name: value for name, value in values.items() if name != "kind"}
    expected = {"net"} if values["kind"] == "Potential" else {"dim", "width", "depth"}
    if set(parameters) != expected:
        raise ValueError(f"`network` of kind {values['kind']} must have {sorted(expected)}, got {sorted(parameters)}")
    if values["kind"] == "Potential":
        return Potential(network_from_dict(parameters["net"], key=key, dtype=dtype))
    return MLP(**parameters, key=key, dtype=dtype)
