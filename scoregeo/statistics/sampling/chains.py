"""Several chains of a sampler side by side, and how well they have mixed."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._checks import as_points, check_count
from ..._numerics import is_traced, with_own_settings
from ..._pairs.progress import progress_bar
from ..._results import RESULTS, first_failure, raise_if_failed
from ..._types import Points
from .base import AbstractSampler, check_start
from .targets import knows_density

# Diagnostics compare halves of chains.
_LEAST_DRAWS = 4
# Below this mean probability of acceptance, a chain that has not moved is stuck.
LEAST_RATE = 0.01
# A bar moves so many times.
_PARTS = 50


class Samples(eqx.Module):
    """Draws of several chains, and what they are worth.

    **Fields**

    - ``draws`` ``(chains, n, d)``: where the chains were.
    - ``acceptance_rate`` ``(chains,)``: the mean probability of acceptance, of all steps after those of ``burn_in``.
    - ``diverged`` ``(chains,)``: how many of these steps diverged, see `Info`.
    - ``ess`` ``(d,)``: the effective sample size of all chains together, of each coordinate; ``rhat`` ``(d,)``: the
      rank-normalized split R-hat (Vehtari et al. 2021), close to 1 where chains agree, 1.01 is a usual limit. Both by
      blackjax; NaN for fewer than 4 draws.
    - ``result`` ``(chains,)``: ``RESULTS.successful`` or ``chain_diverged`` of each chain.
    """

    draws: Float[Array, "chains n d"]
    acceptance_rate: Float[Array, " chains"]
    diverged: Int[Array, " chains"]
    ess: Float[Array, " d"]
    rhat: Float[Array, " d"]
    result: RESULTS


def sample(
    sampler: AbstractSampler,
    key: PRNGKeyArray,
    xs: Points,
    n: int,
    *,
    burn_in: int = 0,
    thin: int = 1,
    progress: bool = False,
    throw: bool = True,
) -> Samples:
    """Run a chain of ``sampler`` from each of ``xs`` ``(chains, d)``, side by side, and keep ``n`` draws of each.

    **Arguments**

    - ``sampler``: `Langevin`, `LagrangianMonteCarlo` or `GeodesicSlice`.
    - ``burn_in``: steps that are made first and not kept; ``thin``: steps from one draw to the next.
    - ``progress``: show a progress bar of the steps with rate and remaining time on standard error (not under ``jit``);
      the draws are the same.
    - ``throw``: raise ``RuntimeError`` with advice if a chain failed: it began where log p or the metric is not finite
      (even if it moved from there), never moved with a mean probability below 0.01 to do so, or diverged in more than
      half of its steps, an unadjusted one in any. Inside a trace the draws of such chains are NaN. With ``False``, read
      ``result``.

    Compiled once for each shape: new settings, targets and weights of the same shapes do not compile again.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, GaussianScore
    >>> from scoregeo.statistics import Langevin, sample
    >>> sampler = Langevin(EuclideanMetric(), GaussianScore(jnp.zeros(1), jnp.eye(1)), 0.6)
    >>> samples = sample(sampler, jax.random.key(0), jnp.zeros((4, 1)), 500, burn_in=50)
    >>> samples.draws.shape, bool(samples.rhat[0] < 1.05), bool(samples.ess[0] > 200)
    ((4, 500, 1), True, True)
    """
    xs = check_chains(sampler, xs)
    n, thin = check_count("n", n), check_count("thin", thin)
    burn_in = check_count("burn_in", burn_in, 0)
    if progress and not is_traced((sampler, key, xs)):
        samples = _run_in_parts(sampler, key, xs, n, burn_in, thin)
    else:
        samples = _run(sampler, key, xs, n, burn_in, thin)
    if not throw:
        return samples
    draws = raise_if_failed(samples.draws, samples.result, RESULTS[RESULTS.chain_diverged])
    return eqx.tree_at(lambda s: s.draws, samples, draws)


def check_chains(sampler: Any, xs: Any) -> Points:
    """The starts of chains ``(chains, d)``, if ``sampler`` is one and can start there."""
    if not isinstance(sampler, AbstractSampler):
        raise TypeError(f"`sampler` must be one such as Langevin(metric, log_prob, 0.1), got {type(sampler).__name__}")
    xs = as_points(xs, "xs")
    for x in xs:
        check_start(sampler.metric, x)
    jax.eval_shape(sampler.init, xs[0])
    return xs


class _Chains(NamedTuple):
    """Chains under way: of each its state, and the sums of what its steps reported."""

    state: Any
    rate: Float[Array, " chains"]
    diverged: Int[Array, " chains"]

    def counted_anew(self) -> "_Chains":
        """As if no step had been made."""
        return self._replace(rate=jnp.zeros_like(self.rate), diverged=jnp.zeros_like(self.diverged))


def begin(sampler: AbstractSampler, keys: Array, xs: Points) -> Any:
    """The states of chains that start at ``xs`` ``(chains, d)``."""

    def one(key, x):
        state = sampler.init(x)
        # The state has the types that a step returns: counters, say, may be weakly typed at first.
        return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), state, jax.eval_shape(sampler.step, key, state)[0])

    return jax.vmap(one)(keys, xs)


def _begin(sampler: AbstractSampler, keys: Array, xs: Points) -> _Chains:
    chains = xs.shape[0]
    return _Chains(begin(sampler, keys, xs), jnp.zeros(chains, xs.dtype), jnp.zeros(chains, jnp.int32))


def _move(sampler: AbstractSampler, keys: Array, chains: _Chains, first: Any, last: Any) -> _Chains:
    """The steps with numbers from ``first`` to ``last``, excluded, of every chain."""

    def one(key, chain):
        def step(i, chain):
            state, info = sampler.step(jax.random.fold_in(key, i), chain.state)
            return _Chains(state, chain.rate + info.acceptance_rate, chain.diverged + info.diverged)

        return jax.lax.fori_loop(first, last, step, chain)

    return jax.vmap(one)(keys, chains)


def _draw(
    sampler: AbstractSampler, keys: Array, chains: _Chains, first: Any, thin: int, n: int
) -> tuple[_Chains, Float[Array, "chains n d"]]:
    """``n`` draws of every chain, ``thin`` steps apart, the first of which has the number ``first``."""

    def draw(chains, i):
        at = first + i * thin
        chains = _move(sampler, keys, chains, at, at + thin)
        return chains, chains.state.position

    chains, draws = jax.lax.scan(draw, chains, jnp.arange(n))
    return chains, jnp.swapaxes(draws, 0, 1)


def _judged(sampler: AbstractSampler, xs: Points, chains: _Chains, draws: Array, steps: int) -> Samples:
    """What the draws of so many steps are worth."""
    target: Any = getattr(sampler, "target", None)

    def one(x, rate, diverged, draws):
        # Some steps in a row that are refused are bad luck, unless none had a chance.
        stuck = jnp.all(draws == x) & (rate < LEAST_RATE * steps)
        limit = steps / 2 if getattr(sampler, "adjusted", True) else 0
        # Once it has moved, nothing tells any more.
        nowhere = ~jnp.isfinite(jnp.asarray(target.log_prob(x))) if knows_density(target) else jnp.asarray(False)
        failed = nowhere | stuck | (diverged > limit) | ~jnp.all(jnp.isfinite(draws))
        return first_failure([(failed, RESULTS.chain_diverged)])

    result = jax.vmap(one)(xs, chains.rate, chains.diverged, draws)
    return Samples(draws, chains.rate / steps, chains.diverged, *_diagnostics(draws), result)


@eqx.filter_jit
@with_own_settings
def _run(sampler: AbstractSampler, key: PRNGKeyArray, xs: Points, n: int, burn_in: int, thin: int) -> Samples:
    keys = jax.random.split(key, xs.shape[0])
    chains = _move(sampler, keys, _begin(sampler, keys, xs), 0, burn_in).counted_anew()
    chains, draws = _draw(sampler, keys, chains, burn_in, thin, n)
    return _judged(sampler, xs, chains, draws, n * thin)


def _run_in_parts(sampler: AbstractSampler, key: PRNGKeyArray, xs: Points, n: int, burn_in: int, thin: int) -> Samples:
    """The same, by programs that return from time to time, so that a bar can move."""
    move, draw = _compiled(_move), _compiled(_draw)
    keys = jax.random.split(key, xs.shape[0])
    chains, parts = _compiled(_begin)(sampler, keys, xs), []
    with progress_bar(burn_in + n * thin, name="samples", unit="steps") as advance:
        size = -(-burn_in // _PARTS)
        for first in range(0, burn_in, max(1, size)):
            last = min(first + size, burn_in)
            chains = jax.block_until_ready(move(sampler, keys, chains, jnp.asarray(first), jnp.asarray(last)))
            advance(last - first)
        chains, size = chains.counted_anew(), -(-n // _PARTS)
        for first in range(0, n, size):
            some = min(size, n - first)
            chains, draws = draw(sampler, keys, chains, jnp.asarray(burn_in + first * thin), thin, some)
            parts.append(jax.block_until_ready(draws))
            advance(some * thin)
    return _compiled(_judged)(sampler, xs, chains, jnp.concatenate(parts, 1), n * thin)


@functools.cache
def _compiled(function: Callable) -> Callable:
    return eqx.filter_jit(with_own_settings(function))


def _diagnostics(draws: Float[Array, "chains n d"]) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Effective sample sizes and R-hat of each coordinate."""
    _, n, d = draws.shape
    if n < _LEAST_DRAWS:
        return jnp.full(d, jnp.nan, draws.dtype), jnp.full(d, jnp.nan, draws.dtype)
    diagnostics = _blackjax()
    # Which drops axes of length one.
    ess = jax.vmap(diagnostics.effective_sample_size, 2)(draws)
    return ess.astype(draws.dtype), jax.vmap(diagnostics.rhat, 2)(draws).astype(draws.dtype)


@functools.cache
def _blackjax() -> Any:
    """Imported when it is first used: it takes a second, and brings optax."""
    import blackjax.diagnostics

    return blackjax.diagnostics
