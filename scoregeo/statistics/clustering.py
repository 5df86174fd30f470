"""Clusters: around means, of points in a metric, and around medoids, of anything with a matrix of distances."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._checks import as_points, check_count, is_concrete
from .._numerics import by_precision, frozen, is_traced, program, safe_sqrt, with_own_settings
from .._pairs.progress import progress_bar
from .._results import RESULTS, first_failure, raise_if_failed
from .._types import Point, Points, Scalar
from ..geodesics import AbstractBoundarySolver, AbstractStart, geodesic
from ..geodesics.base import default_solver
from ..metrics import AbstractMetric
from ._center import MEAN, CenterObjective, Found, center
from ._tangent import check_effort, check_sample, check_ways, failure, weighted_sum

_ENDS = (0.0, 1.0)
# Evaluations of a mean, at most. In all iterations but the first it starts close.
_MEAN_STEPS = 100


class KMeans(eqx.Module):
    """Clusters around Frechet means; a pytree.

    **Fields**

    - ``centers`` ``(k, d)``; ``labels`` ``(n,)``, which center each point belongs to; ``distances`` ``(n,)`` to it.
    - ``distortion``: ``sum w_i d(x_i, center_i)^2`` with weights that sum to one (of one cluster, the variance).
    - ``counts`` ``(k,)``: how many points each cluster has.
    - ``history`` ``(max_steps,)``: the distortion after every iteration, the first one that of the seeds; NaN beyond.
    - ``steps``: iterations of the best run. ``result``: a `RESULTS` code.
    """

    centers: Float[Array, "k d"]
    labels: Int[Array, " n"]
    distances: Float[Array, " n"]
    distortion: Scalar
    counts: Int[Array, " k"]
    history: Float[Array, " steps"]
    steps: Int[Array, ""]
    result: RESULTS


class _Settings(NamedTuple):
    k: int
    restarts: int
    max_steps: int
    gtol: float


class _Problem(NamedTuple):
    """What clusters depend on."""

    metric: AbstractMetric
    xs: Points
    weights: Float[Array, " n"]


class _Solvers(NamedTuple):
    mean: AbstractBoundarySolver
    length: AbstractBoundarySolver
    start: AbstractStart


def kmeans(
    metric: AbstractMetric,
    xs: Points,
    k: int,
    key: PRNGKeyArray,
    *,
    weights: Float[Array, " n"] | None = None,
    init: Float[Array, "k d"] | None = None,
    restarts: int = 1,
    solver: AbstractBoundarySolver | None = None,
    start: AbstractStart | None = None,
    gtol: float | None = None,
    max_steps: int = 100,
    progress: bool = False,
    throw: bool = True,
) -> KMeans:
    """``k`` clusters of points around their Frechet means, each point in that of the nearest (Lloyd's iterations).

    **Arguments**

    - ``metric``; ``xs`` ``(n, d)``; ``weights`` ``(n,)``, not negative, default equal.
    - ``key``: draws the seeds, by k-means++ on geodesic distances; of ``restarts`` runs the one with the least
      distortion is returned. ``init`` ``(k, d)``: centers to begin with, in place of seeds.
    - ``solver``, ``start``: of all geodesics, as for `frechet_mean`; ``gtol`` is that of the means, default 1e-6 in
      float64, 1e-4 in float32. Which cluster a point is in seldom asks for more.
    - ``max_steps``: iterations, at most. They end when no point changes its cluster.
    - ``progress``: show a progress bar of the iterations on standard error, of which those that are not needed count as
      done (not under ``jit``).
    - ``throw``: raise ``RuntimeError`` with advice if they did not end, a mean did not converge, or a geodesic from a
      center to a point that has weight failed, for nobody knows then whether that center is nearer; inside a trace all
      numbers are NaN. With ``False``, the best found.

    A cluster that loses all its points begins anew at the point that is farthest from its center; clusters stay empty
    only where there are fewer different points than clusters. Distances whose solve gave no geodesic (``successful`` or
    ``accuracy_not_reached``) count as infinite, of seeds too. Centers, distances and distortion are differentiable with
    respect to ``xs``, ``weights`` and everything in the metric, at fixed labels.

    Raises ``ValueError`` for more clusters than points with weight. Sources: Lloyd (1982); Arthur & Vassilvitskii,
    k-means++ (2007).

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Normal
    >>> from scoregeo.statistics import kmeans
    >>> normals = jnp.array([[0.0, 1.0], [0.0, 1.5], [0.0, 40.0], [0.0, 60.0]])
    >>> found = kmeans(FisherRaoMetric(Normal()), normals, 2, jax.random.key(0))
    >>> bool(found.labels[0] == found.labels[1]), found.counts.tolist()
    (True, [2, 2])
    """
    xs, weights = check_sample(metric, xs, weights)
    k, restarts = check_count("k", k), check_count("restarts", restarts)
    usable = int((weights > 0).sum()) if is_concrete(weights) else xs.shape[0]
    if k > usable:
        raise ValueError(f"`k` must be at most the number of points that have weight, {usable}, got {k}")
    if init is not None:
        init = as_points(init, "init", dim=xs.shape[1]).astype(xs.dtype)
        if init.shape[0] != k:
            raise ValueError(
                f"`init` must have shape ({k}, {xs.shape[1]}), one center for each cluster, got {init.shape}"
            )
        if restarts > 1:
            raise ValueError(
                f"`restarts` must be 1 with `init`, from which every run would be the same, got {restarts}"
            )
    gtol, max_steps = check_effort(gtol, max_steps, xs.dtype, (1e-6, 1e-4))
    lengths = default_solver(metric, length_only=True) if solver is None else solver
    solver, start = check_ways(metric, xs.shape[1], solver, start)
    settings = _Settings(k, restarts, max_steps, gtol)
    ways, problem = _Solvers(solver, lengths, start), _Problem(metric, xs, weights)
    shown = progress and not is_traced((ways, problem, key, init))
    found = (_kmeans_step_by_step if shown else _kmeans)(settings, ways, problem, key, init)
    return raise_if_failed(found, found.result) if throw else found


@program
def _kmeans(
    settings: _Settings, solvers: _Solvers, problem: _Problem, key: PRNGKeyArray, init: Float[Array, "k d"] | None
) -> KMeans:
    return _clusters(settings, solvers, problem, key, init)


@eqx.filter_custom_jvp
def _clusters(
    settings: _Settings, solvers: _Solvers, problem: _Problem, key: PRNGKeyArray, init: Float[Array, "k d"] | None
):
    """The best of all runs, differentiable with respect to what is in ``problem``."""
    if settings.restarts == 1:
        return _run(settings, solvers, problem, key, init)
    # One run after the other: side by side, each would take as long as the longest.
    return _best(jax.lax.map(lambda k: _run(settings, solvers, problem, k, init), _keys(settings, key)))


def _keys(settings: _Settings, key: PRNGKeyArray) -> Array:
    """The keys of the runs."""
    return key[None] if settings.restarts == 1 else jax.random.split(key, settings.restarts)


def _best(runs: KMeans) -> KMeans:
    """Of several runs, the converged one with the least distortion."""
    good = runs.result == RESULTS.successful
    order = jnp.where(good | (~jnp.any(good) & jnp.isfinite(runs.distortion)), runs.distortion, jnp.inf)
    return jax.tree.map(lambda leaf: leaf[jnp.argmin(order)], runs)


@_clusters.def_jvp
@with_own_settings
def _clusters_jvp(primals, tangents):
    settings, solvers, problem, key, init = primals
    found = _clusters(settings, solvers, problem, key, init)
    labels, centers = found.labels, jax.lax.stop_gradient(found.centers)

    def outcome(problem):
        means = _means(settings, solvers, problem, labels, centers)
        squared = 2 * means.at.energies[labels, jnp.arange(labels.size)]
        return means.point, safe_sqrt(squared), weighted_sum(problem.weights, squared)

    _, (points, distances, distortion) = eqx.filter_jvp(outcome, (problem,), (tangents[2],))
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else None, found)
    fields = lambda f: (f.centers, f.distances, f.distortion)  # noqa: E731
    return found, eqx.tree_at(fields, zeros, (points, distances, distortion))


class _State(NamedTuple):
    centers: Points
    squared: Float[Array, "k n"]
    labels: Int[Array, " n"]
    history: Float[Array, " steps"]
    steps: Int[Array, ""]
    means: RESULTS  # how the means ended
    lengths: RESULTS  # how the geodesics to all centers ended
    over: Bool[Array, ""]


def _run(
    settings: _Settings, solvers: _Solvers, problem: _Problem, key: PRNGKeyArray, init: Float[Array, "k d"] | None
) -> KMeans:
    """Seeds, and iterations until labels stay."""
    problem = frozen(problem)
    step = lambda state: _step(settings, solvers, problem, key, init is None, state)  # noqa: E731
    more = lambda state: ~state.over & (state.steps < settings.max_steps)  # noqa: E731
    return _outcome(settings, problem, jax.lax.while_loop(more, step, _begin(settings, problem, init)))


def _kmeans_step_by_step(
    settings: _Settings, solvers: _Solvers, problem: _Problem, key: PRNGKeyArray, init: Float[Array, "k d"] | None
) -> KMeans:
    """The same, by a program for one iteration, so that a bar can move."""
    runs = []
    with progress_bar(settings.max_steps * settings.restarts, name="clusters", unit="iterations") as advance:
        for own in _keys(settings, key):
            state = _begin(settings, problem, init)
            while not state.over and state.steps < settings.max_steps:
                state = _one_step(settings, solvers, problem, own, init is None, state)
                advance(1 if not state.over else settings.max_steps - int(state.steps) + 1)
            runs.append(_outcome(settings, problem, state))
    return _best(jax.tree.map(lambda *parts: jnp.stack(parts), *runs))


@program
def _one_step(
    settings: _Settings, solvers: _Solvers, problem: _Problem, key: PRNGKeyArray, draw: bool, state: _State
) -> _State:
    return _step(settings, solvers, problem, key, draw, state)


def _begin(settings: _Settings, problem: _Problem, init: Float[Array, "k d"] | None) -> _State:
    """Before the first iteration."""
    k, n, dtype = settings.k, problem.xs.shape[0], problem.xs.dtype
    codes = lambda *shape: jax.tree.map(lambda code: jnp.full(shape, code), RESULTS.successful)  # noqa: E731
    return _State(
        centers=jnp.zeros((k, problem.xs.shape[1]), dtype) if init is None else init,
        squared=jnp.full((k, n), jnp.inf, dtype),
        labels=jnp.zeros(n, jnp.int32),
        history=jnp.full(settings.max_steps, jnp.nan, dtype),
        steps=jnp.zeros((), jnp.int32),
        means=codes(k),
        lengths=codes(k, n),
        over=jnp.asarray(False),
    )


def _outcome(settings: _Settings, problem: _Problem, state: _State) -> KMeans:
    """What the iterations led to, and how they ended."""
    k, n = state.squared.shape
    points = jnp.arange(n)
    own = jax.tree.map(lambda code: code[state.labels, points], state.lengths)
    everywhere = jax.tree.map(jnp.ravel, state.lengths)
    lost = jnp.tile(problem.weights > 0, k) & ~_known(everywhere)
    squared = state.squared[state.labels, points]
    result = first_failure(
        [
            (jnp.any(jnp.isnan(problem.weights)), RESULTS.metric_nonfinite),
            (True, failure(own, problem.weights > 0)),
        ]
    )
    for condition, code in (
        (True, failure(everywhere, lost)),
        (True, failure(state.means, jnp.ones(k, bool))),
        (~state.over, RESULTS.not_converged),
    ):
        result = RESULTS.where((result == RESULTS.successful) & condition, code, result)
    return KMeans(
        centers=state.centers,
        labels=state.labels,
        distances=safe_sqrt(squared),
        distortion=weighted_sum(problem.weights, squared),
        counts=_members(k, state.labels, jnp.ones(n, jnp.int32)),
        history=state.history,
        steps=state.steps,
        result=result,
    )


def _step(
    settings: _Settings, solvers: _Solvers, problem: _Problem, key: PRNGKeyArray, draw: bool, state: _State
) -> _State:
    """The means of all clusters, and the clusters of these means; in the first step, the seeds and theirs."""
    k, n = state.squared.shape
    first = state.steps == 0
    labels, anew = _reseeded(k, problem, state)

    def update(state):
        starts = jnp.where((anew >= 0)[:, None], problem.xs[jnp.maximum(anew, 0)], state.centers)
        found = _means(settings, solvers, problem, labels, starts)
        # What failed may be nowhere.
        moved = jnp.all(jnp.isfinite(found.point), 1)
        return jnp.where(moved[:, None], found.point, starts), found.result

    centers, means = jax.lax.cond(first, lambda s: (s.centers, s.means), update, state)
    squared = jnp.full_like(state.squared, jnp.inf)

    def reach(c, known):
        centers, squared, codes = known
        if draw:
            chance = jnp.where(c == 0, problem.weights, problem.weights * jnp.min(squared, 0))
            chance = jnp.where((problem.weights > 0) & ~jnp.isnan(chance), chance, 0)
            # Points that no seed reaches are infinitely far, and among each other as likely as they weigh.
            unreached = jnp.isinf(chance)
            chance = jnp.where(jnp.any(unreached), jnp.where(unreached, problem.weights, 0), chance)
            seed = problem.xs[jax.random.categorical(jax.random.fold_in(key, c), jnp.log(chance))]
            centers = centers.at[c].set(jnp.where(first, seed, centers[c]))
        found, code = _squares(problem.metric, solvers, centers[c], problem.xs)
        codes = jax.tree.map(lambda all_codes, own: all_codes.at[c].set(own), codes, code)
        return centers, squared.at[c].set(found), codes

    centers, squared, codes = jax.lax.fori_loop(0, k, reach, (centers, squared, state.lengths))
    nearest = jnp.argmin(squared, 0).astype(labels.dtype)
    points = jnp.arange(n)
    own, best = squared[labels, points], squared[nearest, points]
    # A point that is as near to two centers, up to the accuracy of distances, stays where it is.
    changed = jnp.where(first, nearest != labels, best < (1 - by_precision(own.dtype, 1e-6, 1e-4)) * own)
    labels = jnp.where(changed, nearest, labels)
    distortion = weighted_sum(problem.weights, squared[labels, points])
    return _State(
        centers=centers,
        squared=squared,
        labels=labels,
        history=state.history.at[state.steps].set(distortion),
        steps=state.steps + 1,
        means=means,
        lengths=codes,
        over=~first & ~jnp.any(changed & (problem.weights > 0)),
    )


def _squares(metric: AbstractMetric, solvers: _Solvers, m: Point, xs: Points) -> tuple[Float[Array, " n"], RESULTS]:
    """Squared distances from ``m`` to ``xs``, infinite where no geodesic was found, and how each solve ended."""

    def one(x):
        return geodesic(metric, m, x, solver=solvers.length, init=solvers.start, ts=_ENDS, throw=False)

    found = jax.vmap(one)(xs)
    known = jnp.isfinite(found.energy) & _known(found.result)
    return jnp.where(known, 2 * found.energy, jnp.inf), found.result


def _known(results: RESULTS) -> Bool[Array, " n"]:
    """Whether a solve gave a geodesic, whose length means something."""
    return (results == RESULTS.successful) | (results == RESULTS.accuracy_not_reached)


def _means(
    settings: _Settings, solvers: _Solvers, problem: _Problem, labels: Int[Array, " n"], starts: Float[Array, "k d"]
) -> Found:
    """The means of all clusters, from ``starts`` ``(k, d)``; that of an empty one is its start."""
    metric, xs, weights = problem

    def one(c, m):
        mine = labels == c
        share = jnp.where(mine, weights, 0)
        total = jnp.sum(share)
        empty = ~jnp.any(mine & (weights > 0))
        share = jnp.where(empty, 1 / weights.size, share / jnp.where(empty, 1, total))
        # The others are put where they cost nothing: a geodesic of no length is solved at once.
        points = jnp.where((mine & (weights > 0))[:, None], xs, jax.lax.stop_gradient(m))
        objective = CenterObjective(metric, points, share, solvers.mean, solvers.start, MEAN, settings.gtol)
        return center(_MEAN_STEPS, objective, m)

    return jax.vmap(one)(jnp.arange(settings.k), starts)


def _reseeded(k: int, problem: _Problem, state: _State) -> tuple[Int[Array, " n"], Int[Array, " k"]]:
    """Labels in which empty clusters have the points that are farthest from their centers; and which, or -1."""
    weighted = problem.weights > 0
    sizes = _members(k, state.labels, weighted.astype(jnp.int32))
    # Taking the only point of a cluster would empty that.
    far = state.squared[state.labels, jnp.arange(state.labels.size)]
    far = jnp.where(weighted & (sizes[state.labels] > 1), far, 0)
    worst = jnp.argsort(-far)[:k]
    empty = (sizes == 0) & (state.steps > 0)
    turn = jnp.cumsum(empty) - 1
    anew = jnp.where(empty & (far[worst[turn]] > 0), worst[turn], -1)
    labels = state.labels.at[jnp.where(anew >= 0, anew, state.labels.size)].set(
        jnp.arange(k, dtype=state.labels.dtype), mode="drop"
    )
    return labels, anew


def _members(k: int, labels: Int[Array, " n"], amounts: Int[Array, " n"]) -> Int[Array, " k"]:
    return jnp.zeros(k, amounts.dtype).at[labels].add(amounts)
