"""Clusters around medoids: points of the sample itself, from nothing but a matrix of distances. On the host."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import as_float, check_count, is_concrete
from .._results import RESULTS, raise_if_failed
from .._types import Scalar
from ._matrices import check_distances


class KMedoids(eqx.Module):
    """Clusters around medoids; a pytree.

    **Fields**

    - ``medoids`` ``(k,)``: their indices, in increasing order; ``labels`` ``(n,)``, to which of them each point
      belongs; ``distances`` ``(n,)`` to it.
    - ``cost``: the sum of ``distances``, which is what is minimised. ``counts`` ``(k,)``: points in each cluster.
    - ``steps``: how many medoids were exchanged. ``result``: a `RESULTS` code.
    """

    medoids: Int[Array, " k"]
    labels: Int[Array, " n"]
    distances: Float[Array, " n"]
    cost: Scalar
    counts: Int[Array, " k"]
    steps: Int[Array, ""]
    result: RESULTS


def kmedoids(
    distances: Float[Array, "n n"] | np.ndarray,
    k: int,
    key: PRNGKeyArray,
    *,
    init: Any = None,
    restarts: int = 1,
    max_steps: int = 10_000,
    throw: bool = True,
) -> KMedoids:
    """``k`` points of a sample, its medoids, with the least sum of distances from every point to the nearest of them.

    **Arguments**

    - ``distances`` ``(n, n)``, as of `pairwise_dist` or `graph_dist`, concrete: this runs on the host, by NumPy.
    - ``key``: draws the medoids to begin with, and the order in which exchanges are tried; of ``restarts`` runs the one
      with the least cost is returned. ``init`` ``(k,)``: indices to begin with.
    - ``max_steps``: exchanges, at most. They end when exchanging a medoid for any other point helps no more.
    - ``throw``: raise ``RuntimeError`` with advice if they did not end.

    Raises ``ValueError`` for what is no matrix of distances (NaN of failed solves included; the message names pairs),
    and for more clusters than points. One round of trials takes O(n^2). Source: Schubert & Rousseeuw, Fast and eager
    k-medoids clustering (2021), after the PAM of Kaufman & Rousseeuw.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.statistics import kmedoids
    >>> x = jnp.array([0.0, 1.0, 2.0, 10.0, 11.0, 12.0])
    >>> found = kmedoids(jnp.abs(x[:, None] - x), 2, jax.random.key(0))
    >>> found.medoids.tolist(), float(found.cost)
    ([1, 4], 4.0)
    """
    matrix = as_float(distances, "distances")
    if not is_concrete(matrix):
        raise TypeError("`distances` must be concrete: kmedoids runs on the host, outside `jit`, `vmap` and `grad`")
    matrix = check_distances(matrix)
    n = matrix.shape[0]
    k, max_steps = check_count("k", k), check_count("max_steps", max_steps, 0)
    if k > n:
        raise ValueError(f"`k` must be at most the number of points, {n}, got {k}")
    first = None if init is None else _check_init(init, k, n)
    values = np.asarray(matrix, np.float64)
    runs = []
    for run in range(check_count("restarts", restarts)):
        words = np.asarray(jax.random.bits(jax.random.fold_in(key, run), (4,), np.uint32))
        random = np.random.default_rng(words)
        medoids = _seeds(values, k, random) if first is None or run > 0 else first
        runs.append(_exchanged(values, medoids, random, max_steps))
    medoids, steps, over = min(runs, key=lambda run: values[:, run[0]].min(1).sum())
    medoids = np.sort(medoids)
    labels = values[:, medoids].argmin(1)
    # Copies of a medoid are as near to it as it is; it is in its own cluster all the same.
    labels[medoids] = np.arange(k)
    own = values[np.arange(n), medoids[labels]]
    found = KMedoids(
        medoids=jnp.asarray(medoids, jnp.int32),
        labels=jnp.asarray(labels, jnp.int32),
        distances=jnp.asarray(own, matrix.dtype),
        cost=jnp.asarray(own.sum(), matrix.dtype),
        counts=jnp.asarray(np.bincount(labels, minlength=k), jnp.int32),
        steps=jnp.asarray(steps, jnp.int32),
        result=RESULTS.successful if over else RESULTS.not_converged,
    )
    return raise_if_failed(found, found.result) if throw else found


def _check_init(init: Any, k: int, n: int) -> np.ndarray:
    indices = np.asarray(init)
    whole = indices.dtype.kind in "iu" and indices.shape == (k,)
    if not whole or len(np.unique(indices)) < k or indices.min() < 0 or indices.max() >= n:
        raise ValueError(f"`init` must be {k} different indices from 0 to {n - 1}, got {init!r}")
    return indices.astype(int)


def _seeds(distances: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """Points far from one another: each drawn in proportion to its distance from those before it."""
    seeds = [int(random.integers(len(distances)))]
    while len(seeds) < k:
        nearest = distances[:, seeds].min(1)
        # Copies of a seed are left when there is nothing else.
        free = np.setdiff1d(np.arange(len(distances)), seeds)
        chance = nearest[free] if nearest[free].any() else np.ones(len(free))
        seeds.append(int(random.choice(free, p=chance / chance.sum())))
    return np.array(seeds)


def _exchanged(
    distances: np.ndarray, medoids: np.ndarray, random: np.random.Generator, max_steps: int
) -> tuple[np.ndarray, int, bool]:
    """The medoids after all exchanges that help, how many these were, and whether no more would."""
    n, medoids = len(distances), medoids.copy()
    order, at = random.permutation(n), 0
    steps = since = 0
    near, first, second = _nearest(distances, medoids)
    # What rounding gains is nothing.
    slack = 1e-12 * distances.sum(1).mean()
    while since < n:
        point = order[at]
        at, since = (at + 1) % n, since + 1
        change = _changes(distances[:, point], near, first, second, len(medoids))
        if point in medoids or change.min() >= -slack:
            continue
        if steps == max_steps:
            return medoids, steps, False
        medoids[change.argmin()] = point
        near, first, second = _nearest(distances, medoids)
        steps, since = steps + 1, 0
    return medoids, steps, True


def _nearest(distances: np.ndarray, medoids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which medoid is nearest to every point, the distance to it, and the distance to the next."""
    mine = distances[:, medoids]
    near = mine.argmin(1)
    rows = np.arange(len(mine))
    first = mine[rows, near]
    mine[rows, near] = np.inf
    return near, first, mine.min(1)


def _changes(to: np.ndarray, near: np.ndarray, first: np.ndarray, second: np.ndarray, k: int) -> np.ndarray:
    """How the cost changes if each medoid is exchanged for the point at distances ``to``."""
    closer = to < first
    gain = np.sum(to[closer] - first[closer])
    # Points of a medoid that is given up go to the new one or to their second.
    lost = np.where(closer, 0, np.minimum(to, second) - first)
    return gain + np.bincount(near, lost, minlength=k)
