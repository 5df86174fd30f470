"""Traces of what is known by its products with vectors: exact by all unit vectors, or estimated by random ones.

Random signs z have mean zero and covariance I, so z^T A z has mean tr A (Hutchinson 1990). A product of two traces is
estimated without bias by two *distinct* probes, averaged over all pairs; the standard error of such averages, and of
quotients of averages, is that of the jackknife (Efron & Stein 1981).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import check_count
from ._types import Scalar

# The largest dimension in which all products with unit vectors are made without being asked for in another way.
MAX_EXACT = 1024


def check_probes(probes: Any, key: Any, dim: int, exact_dim: int = MAX_EXACT) -> int | None:
    """The number of random directions, ``None`` for an exact trace; raises ``ValueError`` for arguments that do not go
    together, and for an exact trace in more than ``exact_dim`` dimensions."""
    if probes is None:
        if key is not None:
            raise ValueError("`probes`, the number of random directions, must be given with `key`, got None")
        if dim > exact_dim:
            raise ValueError(
                f"`probes` and `key` must be given in {dim} dimensions: the exact value is computed up to {exact_dim}"
            )
        return None
    if key is None:
        raise ValueError(f"`key` must be given with probes={probes!r}: the directions are random")
    return check_count("probes", probes, 3)


def directions(probes: int | None, key: PRNGKeyArray | None, dim: int, dtype: Any) -> Float[Array, "n d"]:
    """Random signs, or all ``dim`` unit vectors where ``probes`` is ``None``."""
    if probes is None or key is None:
        return jnp.eye(dim, dtype=dtype)
    # Not `jax.random.rademacher`, which draws in float64 where that is enabled, whatever the type of its result.
    up = jax.random.bernoulli(key, jnp.asarray(0.5, dtype), (probes, dim))
    return jnp.where(up, jnp.ones((), dtype), -1)


def jackknife(statistic: Callable[[Float[Array, " n"]], Scalar], n: int, dtype: Any) -> tuple[Scalar, Scalar]:
    """The value of ``statistic`` of ``n`` independent samples and its standard error. ``statistic`` takes the weights
    of the samples, which are 1, or 0 for the one left out."""
    ones = jnp.ones(n, dtype)
    value = statistic(ones)
    without = jax.vmap(statistic)(ones - jnp.eye(n, dtype=dtype))
    return value, jnp.sqrt((n - 1) / n * jnp.sum((without - jnp.mean(without)) ** 2))


def weighted_mean(values: Float[Array, " n"], weights: Float[Array, " n"]) -> Scalar:
    """The mean of ``values``."""
    return weights @ values / jnp.sum(weights)


def weighted_pair_mean(values: Float[Array, "n n"], weights: Float[Array, " n"]) -> Scalar:
    """The mean of ``values[i, j]`` over ``i != j``, with weight ``weights[i] weights[j]``."""
    diagonal = jnp.diagonal(values) @ weights**2
    return (weights @ values @ weights - diagonal) / (jnp.sum(weights) ** 2 - jnp.sum(weights**2))


def trace(terms: Float[Array, "..."], probes: int | None, mean: Callable = weighted_mean) -> tuple[Scalar, Scalar]:
    """The trace whose terms along the `directions` are ``terms`` ``(n,)``, and its standard error: their sum where
    ``probes`` is ``None``, otherwise their ``mean``, which for terms of pairs ``(n, n)`` is `weighted_pair_mean`."""
    if probes is None:
        return jnp.sum(terms), jnp.zeros((), terms.dtype)
    return jackknife(functools.partial(mean, terms), probes, terms.dtype)
