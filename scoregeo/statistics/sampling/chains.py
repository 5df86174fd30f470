"""Several chains of a sampler side by side, and how well they have mixed."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._checks import as_points, check_count
from ..._numerics import with_own_settings
from ..._results import RESULTS, first_failure, raise_if_failed
from ..._types import Points
from .base import AbstractSampler, check_start
from .targets import knows_density

# Diagnostics compare halves of chains.
_LEAST_DRAWS = 4
# Below this mean probability of acceptance, a chain that has not moved is stuck.
_LEAST_RATE = 0.01


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
    throw: bool = True,
) -> Samples:
    """Run a chain of ``sampler`` from each of ``xs`` ``(chains, d)``, side by side, and keep ``n`` draws of each.

    **Arguments**

    - ``sampler``: `Langevin`, `LagrangianMonteCarlo` or `GeodesicSlice`.
    - ``burn_in``: steps that are made first and not kept; ``thin``: steps from one draw to the next.
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
    if not isinstance(sampler, AbstractSampler):
        raise TypeError(f"`sampler` must be one such as Langevin(metric, log_prob, 0.1), got {type(sampler).__name__}")
    xs = as_points(xs, "xs")
    n, thin = check_count("n", n), check_count("thin", thin)
    burn_in = check_count("burn_in", burn_in, 0)
    for x in xs:
        check_start(sampler.metric, x)
    jax.eval_shape(sampler.init, xs[0])
    samples = _run(sampler, key, xs, n, burn_in, thin)
    if not throw:
        return samples
    draws = raise_if_failed(samples.draws, samples.result, RESULTS[RESULTS.chain_diverged])
    return eqx.tree_at(lambda s: s.draws, samples, draws)


@eqx.filter_jit
@with_own_settings
def _run(sampler: AbstractSampler, key: PRNGKeyArray, xs: Points, n: int, burn_in: int, thin: int) -> Samples:
    target: Any = getattr(sampler, "target", None)

    def chain(x, key):
        state = sampler.init(x)
        # The state has the types that a step returns: counters, say, may be weakly typed at first.
        state = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), state, jax.eval_shape(sampler.step, key, state)[0])
        start = state.position

        def step(i, carry):
            state, rate, diverged = carry
            state, info = sampler.step(jax.random.fold_in(key, i), state)
            return state, rate + info.acceptance_rate, diverged + info.diverged

        nothing = jnp.zeros((), x.dtype), jnp.zeros((), jnp.int32)
        state, *_ = jax.lax.fori_loop(0, burn_in, step, (state, *nothing))

        def draw(carry, i):
            first = burn_in + i * thin
            carry = jax.lax.fori_loop(first, first + thin, step, carry)
            return carry, carry[0].position

        (state, rate, diverged), draws = jax.lax.scan(draw, (state, *nothing), jnp.arange(n))
        steps = n * thin
        # Some steps in a row that are refused are bad luck, unless none had a chance.
        stuck = jnp.all(draws == start) & (rate < _LEAST_RATE * steps)
        limit = steps / 2 if getattr(sampler, "adjusted", True) else 0
        # Once it has moved, nothing tells any more.
        nowhere = ~jnp.isfinite(jnp.asarray(target.log_prob(x))) if knows_density(target) else jnp.asarray(False)
        failed = nowhere | stuck | (diverged > limit) | ~jnp.all(jnp.isfinite(draws))
        return draws, rate / steps, diverged, first_failure([(failed, RESULTS.chain_diverged)])

    draws, rate, diverged, result = jax.vmap(chain)(xs, jax.random.split(key, xs.shape[0]))
    ess, rhat = _diagnostics(draws)
    return Samples(draws, rate, diverged, ess, rhat, result)


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
