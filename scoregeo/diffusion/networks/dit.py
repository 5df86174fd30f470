"""A diffusion transformer for images, through the door of flat vectors."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_count
from ..._types import Point, Scalar, Vector
from .attention import SelfAttention
from .conditioning import ConditionalNetwork, LevelEmbedding, as_sizes


class DiT(ConditionalNetwork):
    """A diffusion transformer (Peebles & Xie 2023, arXiv 2212.09748) over square patches of an image.

    The noise level scales, shifts and gates every block; all gates start at zero ("adaLN-Zero"). Positions are fixed
    sines and cosines. Queries and keys are normalised (see `SelfAttention`).

    **Arguments**

    - ``shape``: ``(h, w, c)`` of the images. A point is the image flattened in this order, ``d = h w c``.
    - ``patch``: side of a patch in pixels; divides ``h`` and ``w``.
    - ``width``: features of a patch, a multiple of 4; ``heads`` (of the attention) divides it.
    - ``depth``: number of blocks.
    - ``classes`` or ``condition_dim``: the network takes a label, or a vector of that length, as its condition (see
      `ConditionalNetwork.__call__`).
    - ``compute_dtype``: such as ``jnp.bfloat16``, in which all but the last layer compute; ``None`` for the dtypes of
      point and weights. Weights and output keep theirs.
    - ``key``: a ``jax.random`` key for the initial weights. The last layer starts at zero.
    - ``dtype``: type of the weights, float32 by default.

    Raises ``ValueError`` naming a setting that makes no sense.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.diffusion import DiT
    >>> network = DiT((8, 8, 1), patch=2, width=16, depth=2, heads=2, key=jax.random.key(0))
    >>> jax.jit(network)(jnp.ones(64), jnp.array(0.1)).shape
    (64,)
    """

    settings = ("shape", "patch", "width", "depth", "heads")

    def __init__(
        self,
        shape: Sequence[int],
        patch: int = 2,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        *,
        classes: int | None = None,
        condition_dim: int | None = None,
        compute_dtype: Any = None,
        key: PRNGKeyArray,
        dtype: Any = jnp.float32,
    ):
        self.shape = as_sizes("shape", shape, 3)
        patch, width = self.patch, self.width = check_count("patch", patch), check_count("width", width)
        depth, heads = self.depth, self.heads = check_count("depth", depth), check_count("heads", heads)
        h, w, c = self.shape
        if h % patch or w % patch:
            raise ValueError(f"`patch` must divide the height and the width of `shape` {self.shape}, got {patch}")
        if width % 4:
            raise ValueError(f"`width` must be a multiple of 4 (sine and cosine of row and column), got {width}")
        if width % heads:
            raise ValueError(f"`heads` must divide `width` {width}, got {heads}")
        super().__init__(h * w * c, classes, condition_dim, compute_dtype)
        rngs, zeros = nnx.Rngs(key), nnx.initializers.zeros
        settings = {"compute_dtype": self.compute_dtype, "dtype": dtype, "rngs": rngs}
        linear = {"dtype": self.compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.embedding = LevelEmbedding(width, self, dtype=dtype, rngs=rngs)
        self.stem = nnx.Linear(patch * patch * c, width, **linear)
        self.layers = nnx.List(_Block(width, heads, **settings) for _ in range(depth))
        self.norm = _layer_norm(width, **settings)
        self.level = nnx.Linear(width, 2 * width, kernel_init=zeros, **linear)
        # The head computes in the precision of the weights: it averages out how features were rounded before.
        self.head = nnx.Linear(width, patch * patch * c, kernel_init=zeros, param_dtype=dtype, rngs=rngs)

    def output(self, x: Point, c_noise: Scalar, condition: Any) -> Vector:
        """The output for one flat image, shape ``(d,)``."""
        (h, w, c), p = self.shape, self.patch
        level = self.embedding(c_noise, condition)
        patches = x.reshape(h // p, p, w // p, p, c).transpose(0, 2, 1, 3, 4).reshape(-1, p * p * c)
        tokens = self.stem(patches)
        tokens = tokens + positions(h // p, w // p, self.width).astype(tokens.dtype)
        for layer in self.layers:
            tokens = layer(tokens, level)
        scale, shift = jnp.split(self.level(level), 2)
        tokens = self.norm(tokens) * (1 + scale) + shift
        patches = self.head(tokens.astype(jnp.promote_types(tokens.dtype, x.dtype)))
        return patches.reshape(h // p, w // p, p, p, c).transpose(0, 2, 1, 3, 4).reshape(-1)


class _Block(nnx.Module):
    """Attention, then a network for each token; both scaled, shifted and gated by the level."""

    def __init__(self, width: int, heads: int, *, compute_dtype: Any, dtype: Any, rngs: nnx.Rngs):
        settings = {"compute_dtype": compute_dtype, "dtype": dtype, "rngs": rngs}
        linear = {"dtype": compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.level = nnx.Linear(width, 6 * width, kernel_init=nnx.initializers.zeros, **linear)
        self.attention_norm = _layer_norm(width, **settings)
        self.attention = SelfAttention(width, heads, **settings)
        self.token_norm = _layer_norm(width, **settings)
        self.first = nnx.Linear(width, 4 * width, **linear)
        self.second = nnx.Linear(4 * width, width, **linear)

    def __call__(self, tokens: Float[Array, "n width"], level: Vector) -> Float[Array, "n width"]:
        scale, shift, gate, token_scale, token_shift, token_gate = jnp.split(self.level(level), 6)
        tokens = tokens + gate * self.attention(self.attention_norm(tokens) * (1 + scale) + shift)
        h = self.token_norm(tokens) * (1 + token_scale) + token_shift
        return tokens + token_gate * self.second(nnx.gelu(self.first(h)))


def positions(rows: int, columns: int, width: int) -> Float[np.ndarray, "n width"]:
    """Fixed features of the places of a ``rows`` by ``columns`` grid, row by row; shape ``(rows * columns, width)``.

    A quarter of the features each for the sine and the cosine of the row and of the column, times ``width/4``
    frequencies from 1 down to nearly 1/10000 (Vaswani et al. 2017, sec. 3.5, once for each axis).
    """
    frequencies = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [np.outer(place, frequencies) for place in (row, column)]
    return np.concatenate([function(angle) for angle in angles for function in (np.sin, np.cos)], 1)


def _layer_norm(width: int, *, compute_dtype: Any, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The normalisation has no weights: the noise level sets scale and shift.
    return nnx.LayerNorm(
        width,
        use_bias=False,
        use_scale=False,
        use_fast_variance=False,
        dtype=compute_dtype,
        param_dtype=dtype,
        rngs=rngs,
    )
