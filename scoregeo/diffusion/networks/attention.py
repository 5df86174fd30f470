r"""Self-attention between the places of an image or a sequence, for `UNet` and `DiT`.

With queries ``q``, keys ``k`` and values ``v`` of ``n`` tokens, of ``c`` features in each head, three forms:

    softmax   y_i = sum_j w_ij v_j     w_ij = softmax_j(q_i . k_j / sqrt c)                       (1)
    linear    y_i = sum_j w_ij v_j     w_ij = p(q_i) . p(k_j) / sum_l p(q_i) . p(k_l)             (2)
    focus     y_i = sigmoid(q_i . K / sqrt c) V     K = sum_j w_j k_j     V = sum_j w_j v_j
              with w_j = softmax_j(f_j . k_j / sqrt c)                                            (3)

(1) takes n^2 products. (2) takes n: the sums over ``j`` of ``p(k_j) v_j^T`` and of ``p(k_j)`` serve all tokens. (3)
too: each token weighs itself, by a fourth projection ``f``, and every one takes as much as it asks for of one mean.
``p`` is softplus, which has all derivatives, as geodesics of a score need them.

Sources: Vaswani et al. (2017, arXiv 1706.03762) for (1); Katharopoulos et al. (2020, arXiv 2006.16236) for (2), with
another ``p``; Wu et al. (2021, arXiv 2108.09084) for sums that weigh tokens one by one, and LEAP (M. Tang, 2022) for
their form in (3), here over all tokens.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

_Heads = Float[Array, "n heads c"]


def _at_least_single(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _softmax(queries: _Heads, keys: _Heads, values: _Heads) -> _Heads:
    logits = jnp.einsum("qhc,khc->hqk", queries, keys) * queries.shape[-1] ** -0.5
    weights = jax.nn.softmax(_at_least_single(logits))
    return jnp.einsum("hqk,khc->qhc", weights.astype(values.dtype), values)


def _linear(queries: _Heads, keys: _Heads, values: _Heads) -> _Heads:
    queries, keys = (jax.nn.softplus(_at_least_single(x)) for x in (queries, keys))
    sums = jnp.einsum("khc,khe->hce", keys, _at_least_single(values))
    norms = jnp.einsum("qhc,hc->qh", queries, jnp.sum(keys, 0))
    return (jnp.einsum("qhc,hce->qhe", queries, sums) / norms[..., None]).astype(values.dtype)


def _focus(queries: _Heads, keys: _Heads, values: _Heads, foci: _Heads) -> _Heads:
    scale = queries.shape[-1] ** -0.5
    weights = jax.nn.softmax(_at_least_single(jnp.sum(foci * keys, -1)) * scale, 0)
    key, value = (jnp.einsum("kh,khc->hc", weights, _at_least_single(x)) for x in (keys, values))
    gates = jax.nn.sigmoid(jnp.einsum("qhc,hc->qh", _at_least_single(queries), key) * scale)
    return (gates[..., None] * value).astype(values.dtype)


# For each form its function, and how many projections of the tokens it takes.
FORMS: dict[str, tuple[Callable[..., _Heads], int]] = {
    "softmax": (_softmax, 3),
    "linear": (_linear, 3),
    "focus": (_focus, 4),
}


def check_form(form: Any) -> str:
    """``form`` itself; raises ``ValueError`` unless it is one of `FORMS`."""
    if not (isinstance(form, str) and form in FORMS):
        raise ValueError(f"`attention` must be one of {', '.join(FORMS)}, got {form!r}")
    return form


class SelfAttention(nnx.Module):
    """Multi-head self-attention over tokens, with normalised queries and keys.

    The normalisation (Henry et al. 2020, arXiv 2010.04245) bounds the logits by ``sqrt(width/heads)`` times two learned
    scales, so that attention cannot become a hard choice whose derivative is large.

    **Arguments**

    - ``width``: features of a token; ``heads`` divides it.
    - ``form``: which of the equations above: ``"softmax"`` (1), ``"linear"`` (2) or ``"focus"`` (3).
    - ``compute_dtype``, ``dtype``: types of the arithmetic (``None``: as promoted) and of the weights. Sums over tokens
      have at least single precision.
    - ``kernel_init``: how the weights of the last layer start.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        form: str = "softmax",
        *,
        compute_dtype: Any,
        dtype: Any,
        rngs: nnx.Rngs,
        kernel_init: Any = None,
    ):
        settings = {"dtype": compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.heads, self.form = heads, check_form(form)
        _, parts = FORMS[form]
        self.inputs = nnx.Linear(width, parts * width, use_bias=False, **settings)
        self.query_norm = nnx.RMSNorm(width // heads, use_fast_variance=False, **settings)
        self.key_norm = nnx.RMSNorm(width // heads, use_fast_variance=False, **settings)
        if parts == 4:
            self.focus_norm = nnx.RMSNorm(width // heads, use_fast_variance=False, **settings)
        initial = {} if kernel_init is None else {"kernel_init": kernel_init}
        self.outputs = nnx.Linear(width, width, **initial, **settings)

    def __call__(self, x: Float[Array, "n width"]) -> Float[Array, "n width"]:
        """What each token takes from all tokens."""
        n, width = x.shape
        attend, parts = FORMS[self.form]
        projected = jnp.moveaxis(self.inputs(x).reshape(n, parts, self.heads, width // self.heads), 1, 0)
        queries, keys, values, *foci = projected
        foci = [self.focus_norm(focus) for focus in foci]
        return self.outputs(attend(self.query_norm(queries), self.key_norm(keys), values, *foci).reshape(n, width))
