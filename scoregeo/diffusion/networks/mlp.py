"""A fully connected network."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import PRNGKeyArray

from ..._checks import check_count
from ..._types import Point, Scalar, Vector
from .conditioning import NOISE_FEATURES, ConditionalNetwork, noise_features


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
    - ``dtype``: type of the weights, float32 by default.

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
        dim, width, depth = check_count("dim", dim), check_count("width", width), check_count("depth", depth)
        super().__init__(dim, classes, condition_dim, compute_dtype)
        self.width, self.depth = width, depth
        rngs = nnx.Rngs(key)
        linear = {"dtype": self.compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.layers = nnx.List(nnx.Linear(dim if i == 0 else width, width, **linear) for i in range(depth))
        self.noise = nnx.List(nnx.Linear(NOISE_FEATURES, width, use_bias=False, **linear) for _ in range(depth))
        # The head computes in the precision of the weights: it averages out how features were rounded before.
        self.head = nnx.Linear(width, dim, kernel_init=nnx.initializers.zeros, param_dtype=dtype, rngs=rngs)
        embeddings = [self.condition_embedding(width, dtype=dtype, rngs=rngs) for _ in range(depth)]
        given = [embedding for embedding in embeddings if embedding is not None]  # all of them, or none
        self.conditions = nnx.List(given) if given else None

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
