"""A diffusion transformer for images and sequences, through the door of flat vectors."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_count
from ..._types import Point, Scalar, Vector
from .attention import SelfAttention, check_form
from .conditioning import ConditionalNetwork, LevelEmbedding, as_sizes, sides


class DiT(ConditionalNetwork):
    """A diffusion transformer (Peebles & Xie 2023, arXiv 2212.09748) over patches of an image or of a sequence.

    The noise level scales, shifts and gates every block; all gates start at zero ("adaLN-Zero"). Positions are fixed
    sines and cosines. Queries and keys are normalised (see `SelfAttention`).

    **Arguments**

    - ``shape``: ``(h, w, c)`` of the images. A point is the image flattened in this order, ``d = h w c``. Images of one
      row, ``(1, n, c)``, are sequences, such as time series of ``c`` channels.
    - ``patch``: side of a patch in pixels; divides ``h`` and ``w``. Of sequences its length, which divides ``n``.
    - ``width``: features of a patch, a multiple of 4; ``heads`` (of the attention) divides it.
    - ``depth``: number of blocks.
    - ``attention``: ``"softmax"``, which takes the square of the number of patches; or ``"linear"`` or ``"focus"``,
      which take as many as there are: for long sequences and large images (see `scoregeo.diffusion.networks.attention`
      for the formulas, docs/diffusion.md for what each costs).
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
    optional_settings = (*ConditionalNetwork.optional_settings, "attention")

    def __init__(
        self,
        shape: Sequence[int],
        patch: int = 2,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        *,
        attention: str = "softmax",
        classes: int | None = None,
        condition_dim: int | None = None,
        compute_dtype: Any = None,
        key: PRNGKeyArray,
        dtype: Any = jnp.float32,
    ):
        self.shape, self.attention = as_sizes("shape", shape, 3), check_form(attention)
        patch, width = self.patch, self.width = check_count("patch", patch), check_count("width", width)
        depth, heads = self.depth, self.heads = check_count("depth", depth), check_count("heads", heads)
        divided, colours = sides(self.shape), self.shape[-1]
        if any(side % patch for side in divided):
            of = "the height and the width of" if len(divided) == 2 else "the length in"
            raise ValueError(f"`patch` must divide {of} `shape` {self.shape}, got {patch}")
        if width % 4:
            raise ValueError(f"`width` must be a multiple of 4 (sine and cosine of row and column), got {width}")
        if width % heads:
            raise ValueError(f"`heads` must divide `width` {width}, got {heads}")
        super().__init__(math.prod(self.shape), classes, condition_dim, compute_dtype)
        patch = patch ** len(divided) * colours
        rngs, zeros = nnx.Rngs(key), nnx.initializers.zeros
        settings = {"compute_dtype": self.compute_dtype, "dtype": dtype, "rngs": rngs}
        linear = {"dtype": self.compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.embedding = LevelEmbedding(width, self, dtype=dtype, rngs=rngs)
        self.stem = nnx.Linear(patch, width, **linear)
        self.layers = nnx.List(_Block(width, heads, attention, **settings) for _ in range(depth))
        self.norm = _layer_norm(width, **settings)
        self.level = nnx.Linear(width, 2 * width, kernel_init=zeros, **linear)
        # The head computes in the precision of the weights: it averages out how features were rounded before.
        self.head = nnx.Linear(width, patch, kernel_init=zeros, param_dtype=dtype, rngs=rngs)

    def output(self, x: Point, c_noise: Scalar, condition: Any) -> Vector:
        """The output for one flat image or sequence, shape ``(d,)``."""
        level = self.embedding(c_noise, condition)
        tokens = self.stem(self._patches(x))
        tokens = tokens + positions(*self._counts, width=self.width).astype(tokens.dtype)
        for layer in self.layers:
            tokens = layer(tokens, level)
        scale, shift = jnp.split(self.level(level), 2)
        tokens = self.norm(tokens) * (1 + scale) + shift
        return self._together(self.head(tokens.astype(jnp.promote_types(tokens.dtype, x.dtype))))

    def to_dict(self) -> dict[str, Any]:
        """What `network_from_dict` needs; without the attention where it is the usual one, as before there was another:
        runs and models of then go on."""
        values = super().to_dict()
        return values if self.attention != "softmax" else {k: v for k, v in values.items() if k != "attention"}

    @property
    def _counts(self) -> tuple[int, ...]:
        """How many patches there are along each side."""
        return tuple(side // self.patch for side in sides(self.shape))

    def _patches(self, x: Point) -> Float[Array, "n features"]:
        c, p, counts = self.shape[-1], self.patch, self._counts
        if len(counts) == 1:
            return x.reshape(*counts, p * c)
        rows, columns = counts
        return x.reshape(rows, p, columns, p, c).transpose(0, 2, 1, 3, 4).reshape(-1, p * p * c)

    def _together(self, patches: Float[Array, "n features"]) -> Vector:
        c, p, counts = self.shape[-1], self.patch, self._counts
        if len(counts) == 1:
            return patches.reshape(-1)
        rows, columns = counts
        return patches.reshape(rows, columns, p, p, c).transpose(0, 2, 1, 3, 4).reshape(-1)


class _Block(nnx.Module):
    """Attention, then a network for each token; both scaled, shifted and gated by the level."""

    def __init__(self, width: int, heads: int, form: str, *, compute_dtype: Any, dtype: Any, rngs: nnx.Rngs):
        settings = {"compute_dtype": compute_dtype, "dtype": dtype, "rngs": rngs}
        linear = {"dtype": compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.level = nnx.Linear(width, 6 * width, kernel_init=nnx.initializers.zeros, **linear)
        self.attention_norm = _layer_norm(width, **settings)
        self.attention = SelfAttention(width, heads, form, **settings)
        self.token_norm = _layer_norm(width, **settings)
        self.first = nnx.Linear(width, 4 * width, **linear)
        self.second = nnx.Linear(4 * width, width, **linear)

    def __call__(self, tokens: Float[Array, "n width"], level: Vector) -> Float[Array, "n width"]:
        scale, shift, gate, token_scale, token_shift, token_gate = jnp.split(self.level(level), 6)
        tokens = tokens + gate * self.attention(self.attention_norm(tokens) * (1 + scale) + shift)
        h = self.token_norm(tokens) * (1 + token_scale) + token_shift
        return tokens + token_gate * self.second(nnx.gelu(self.first(h)))


def positions(*counts: int, width: int) -> Float[np.ndarray, "n width"]:
    """Fixed features of the places of a grid of so many rows and columns, row by row, or of a sequence; shape ``(n,
    width)``.

    For each axis the sine and the cosine of the place times frequencies from 1 down to nearly 1/10000, a half or a
    quarter of the features each (Vaswani et al. 2017, sec. 3.5, once for each axis).
    """
    some = width // (2 * len(counts))
    frequencies = 10_000.0 ** -(np.arange(some) / some)
    places = np.indices(counts).reshape(len(counts), -1)
    angles = [np.outer(place, frequencies) for place in places]
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
