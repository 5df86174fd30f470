"""Self-attention between the places of an image, for `UNet` and `DiT`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class SelfAttention(nnx.Module):
    """Multi-head self-attention over tokens (Vaswani et al. 2017, arXiv 1706.03762), with normalised queries and keys.

    The normalisation (Henry et al. 2020, arXiv 2010.04245) bounds the logits by ``sqrt(width/heads)`` times two learned
    scales, so that attention cannot become a hard choice whose derivative is large.

    **Arguments**

    - ``width``: features of a token; ``heads`` divides it.
    - ``compute_dtype``, ``dtype``: types of the arithmetic (``None``: as promoted) and of the weights. The
      softmax has at least single precision.
    - ``kernel_init``: how the weights of the last layer start.
    """

    def __init__(
        self, width: int, heads: int, *, compute_dtype: Any, dtype: Any, rngs: nnx.Rngs, kernel_init: Any = None
    ):
        settings = {"dtype": compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.heads = heads
        self.inputs = nnx.Linear(width, 3 * width, use_bias=False, **settings)
        self.query_norm = nnx.RMSNorm(width // heads, use_fast_variance=False, **settings)
        self.key_norm = nnx.RMSNorm(width // heads, use_fast_variance=False, **settings)
        initial = {} if kernel_init is None else {"kernel_init": kernel_init}
        self.outputs = nnx.Linear(width, width, **initial, **settings)

    def __call__(self, x: Float[Array, "n width"]) -> Float[Array, "n width"]:
        """What each token takes from all tokens."""
        n, width = x.shape
        queries, keys, values = jnp.moveaxis(self.inputs(x).reshape(n, 3, self.heads, width // self.heads), 1, 0)
        queries, keys = self.query_norm(queries), self.key_norm(keys)
        logits = jnp.einsum("qhc,khc->hqk", queries, keys) * (width // self.heads) ** -0.5
        weights = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        return self.outputs(jnp.einsum("hqk,khc->qhc", weights.astype(values.dtype), values).reshape(n, width))
