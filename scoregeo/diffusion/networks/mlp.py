"""Networks that a denoiser wraps: ``(x, c_noise, condition) -> (d,)`` for one point ``x`` of shape ``(d,)`` and a
scalar ``c_noise``.

They see the preconditioned point and ``c_noise = log(sigma)/4`` (see `parameterization`), so their input and their
target are of order one at every noise level. They hold no random state, use smooth activations only (geodesics need the
Jacobian of the score, and smooth ones), and are ``flax.nnx`` modules whose weights can be traced. The condition is left
out, or a label or a vector (see `conditioning`).

A network says in ``conservative`` whether its output is the gradient of a function of ``x`` by construction, and in
``dim`` its dimension. ``to_dict`` names what is needed to build it again from saved weights.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PRNGKeyArray

from ..._checks import check_count
from ..._types import Point, Scalar, Vector
from .conditioning import NOISE_FEATURES, ConditionalNetwork, noise_features
from .dit import DiT
from .unet import UNet


class MLP(ConditionalNetwork):
    """A fully connected network with ``depth`` hidden layers of ``width`` units, told the noise level in every layer.

    **Arguments**

    - ``dim``: dimension d of the points.
    - ``width``, ``depth``: size and number of the hidden layers; layers after the first are residual.
    - ``classes`` or ``condition_dim``: the network takes a label, or a vector of that length, as its condition, and is
      told it in every layer (see `ConditionalNetwork.__call__`).
    - ``compute_dtype``: such as ``jnp.bfloat16``, in which all but the last layer compute; ``None`` for the dtypes of
      point and weights. Weights and output keep theirs.
    - ``key``: a ``jax.random`` key for the initial weights. The last layer starts at zero.
    - ``dtype``: of the weights, float32 by default.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.diffusion import MLP
    >>> network = MLP(dim=2, width=64, depth=4, key=jax.random.key(0))
    >>> network(jnp.ones(2), jnp.array(0.1)).shape
    (2,)
    """

    settings = ("dim", "width", "depth")

    def __init__(
        self,
        dim: int,
        width: int = 64,
        depth: int = 4,
        *,
        classes: int | None = None,
        condition_dim: int | None = None,
        compute_dtype: Any = None,
        key: PRNGKeyArray,
        dtype: Any = jnp.float32,
    ):
        for name, value in (("dim", dim), ("width", width), ("depth", depth)):
            check_count(name, value)
        super().__init__(dim, classes, condition_dim, compute_dtype)
        self.width, self.depth = width, depth
        rngs = nnx.Rngs(key)
        linear = {"dtype": self.compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.layers = nnx.List(nnx.Linear(dim if i == 0 else width, width, **linear) for i in range(depth))
        self.noise = nnx.List(nnx.Linear(NOISE_FEATURES, width, use_bias=False, **linear) for _ in range(depth))
        # In the weights' own precision: the rounding of all features before it averages out.
        self.head = nnx.Linear(width, dim, kernel_init=nnx.initializers.zeros, param_dtype=dtype, rngs=rngs)
        embeddings = [self.condition_embedding(width, dtype=dtype, rngs=rngs) for _ in range(depth)]
        self.conditions = None if embeddings[0] is None else nnx.List(embeddings)

    def output(self, x: Point, c_noise: Scalar, condition: Any) -> Vector:
        """The output at one point, shape ``(d,)``."""
        features = noise_features(c_noise)
        shifts = [noise(features) for noise in self.noise]
        if self.conditions is not None:
            shifts = [shift + embed(condition) for shift, embed in zip(shifts, self.conditions, strict=True)]
        h = nnx.silu(self.layers[0](x) + shifts[0])
        for layer, shift in zip(self.layers[1:], shifts[1:], strict=True):
            h = h + nnx.silu(layer(h) + shift)
        return self.head(h.astype(jnp.promote_types(h.dtype, x.dtype)))


class Potential(nnx.Module):
    """The gradient in ``x`` of the scalar ``sum(net(x, c_noise, condition))``: a gradient field by construction.

    Its Jacobian is symmetric, so geodesics of its score need no curl term, and the score has a log density up to a
    constant (`Denoiser.log_prob`). One evaluation costs about two to three of ``net``. The sum is the scalar that
    learned best here (docs/diffusion.md): against ``<x, net>`` the error of ``J v`` in 2-D was a quarter lower, at the
    same cost.

    **Arguments**

    - ``net``: a network ``(x, c_noise) -> (d,)``, for example an `MLP`, `UNet` or `DiT`, with an integer ``dim``; its
      conditions are passed on to it.
    """

    conservative = True

    def __init__(self, net: nnx.Module):
        self.net = net
        self.dim = net.dim

    def potential(self, x: Point, c_noise: Scalar, condition: Any = None) -> Scalar:
        """The scalar whose gradient this network is."""
        # A network of the user's own need not know of conditions.
        return jnp.sum(self.net(x, c_noise) if condition is None else self.net(x, c_noise, condition))

    def __call__(self, x: Point, c_noise: Scalar, condition: Any = None) -> Vector:
        """The gradient of `potential` in ``x``, shape ``(d,)``."""
        return jax.grad(self.potential)(x, c_noise, condition)

    def to_dict(self) -> dict[str, Any]:
        """What `network_from_dict` needs to build this network (without its weights)."""
        return {"kind": "Potential", "net": self.net.to_dict()}


_KINDS = {kind.__name__: kind for kind in (MLP, UNet, DiT)}


def describe_network(network: nnx.Module) -> dict[str, Any] | None:
    """What `network_from_dict` needs to build a network of this package; ``None`` for any other."""
    if type(network) is Potential:
        inner = describe_network(network.net)
        return None if inner is None else {"kind": "Potential", "net": inner}
    return network.to_dict() if type(network) in _KINDS.values() else None


def takes_conditions(network: nnx.Module) -> bool:
    """Whether a network of this package was made to take conditions."""
    while type(network) is Potential:
        network = network.net
    return getattr(network, "classes", None) is not None or getattr(network, "condition_dim", None) is not None


def network_from_dict(values: Mapping[str, Any], *, key: PRNGKeyArray, dtype: Any = jnp.float32) -> nnx.Module:
    """A new network of the architecture that ``to_dict`` described, with random weights of the given dtype.

    Raises ``ValueError`` for an unknown kind, for settings that are missing or unknown, and for values that make no
    sense. The settings that all kinds share (conditions, ``compute_dtype``) may be left out.
    """
    kinds = [*_KINDS, "Potential"]
    if not isinstance(values, Mapping) or values.get("kind") not in kinds:
        raise ValueError(f"`network` must be a dictionary whose `kind` is one of {kinds}, got {values!r}")
    kind, settings = values["kind"], {name: value for name, value in values.items() if name != "kind"}
    needed, optional = {"net"}, set()
    if kind != "Potential":
        needed, optional = set(_KINDS[kind].settings), set(_KINDS[kind].shared_settings)
    if not needed <= set(settings) <= needed | optional:
        raise ValueError(
            f"`network` of kind {kind} must have {sorted(needed)}"
            + (f" and may have {sorted(optional)}" if optional else "")
            + f", got {sorted(settings)}"
        )
    if kind == "Potential":
        return Potential(network_from_dict(settings["net"], key=key, dtype=dtype))
    return _KINDS[kind](**settings, key=key, dtype=dtype)
