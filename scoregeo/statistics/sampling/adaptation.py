"""The step size at which a sampler accepts as often as it should: dual averaging (Nesterov 2009; Hoffman & Gelman 2014,
section 3.2), by blackjax."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..._checks import check_count, is_number
from ..._numerics import with_own_settings
from ..._results import RESULTS, first_failure, raise_if_failed
from ..._types import Points, Scalar
from .chains import LEAST_RATE, begin, check_chains
from .lagrangian import LagrangianMonteCarlo
from .langevin import Langevin

# What is best for many independent coordinates: for Langevin's (Roberts & Rosenthal 1998); for trajectories .65, above
# which little is lost and long tails are safer, which is why Stan and blackjax take this.
_BEST = {Langevin: 0.574, LagrangianMonteCarlo: 0.8}

_Sampler = TypeVar("_Sampler", Langevin, LagrangianMonteCarlo)


class AdaptedSampler(eqx.Module):
    """A sampler with the step size that was found, as `adapt_step_size` returns it.

    **Fields**

    - ``sampler``: the sampler, whose ``step_size`` is what was found.
    - ``positions`` ``(chains, d)``: where the chains ended: ``xs`` for `sample`, which need no more ``burn_in``.
    - ``acceptance_rate``: the mean probability of acceptance in the second half of the steps.
    - ``result``: ``RESULTS.successful``, or ``chain_diverged`` if no step size was small enough to move.
    """

    sampler: Any
    positions: Points
    acceptance_rate: Scalar
    result: RESULTS


def adapt_step_size(
    sampler: _Sampler,
    key: PRNGKeyArray,
    xs: Points,
    steps: int = 500,
    *,
    target: float | None = None,
    throw: bool = True,
) -> AdaptedSampler:
    """Run a chain of ``sampler`` from each of ``xs`` ``(chains, d)``, all with one step size, which is adapted after
    every step to the mean probability of acceptance of all chains.

    **Arguments**

    - ``sampler``: `Langevin`, adjusted, or `LagrangianMonteCarlo`; its ``step_size`` is where the search begins.
    - ``steps``: of the search. ``target``: the mean probability of acceptance to reach, between 0 and 1; default 0.574
      for `Langevin`, 0.8 for `LagrangianMonteCarlo`.
    - ``throw``: raise ``RuntimeError`` with advice if chains hardly moved at any step size; inside a trace positions
      are NaN. With ``False``, read ``result``.

    Adaptation makes draws depend on all earlier ones, so that these steps are no sample: draw one with what is
    returned. Raises ``TypeError`` for a sampler without a step size that decides about acceptance.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, GaussianScore
    >>> from scoregeo.statistics import adapt_step_size, Langevin, sample
    >>> sampler = Langevin(EuclideanMetric(), GaussianScore(jnp.zeros(1), 100 * jnp.eye(1)), 0.01)  # far too short
    >>> found = adapt_step_size(sampler, jax.random.key(0), jnp.zeros((4, 1)), 300)
    >>> bool(found.sampler.step_size > 10)
    True
    """
    best = next((best for kind, best in _BEST.items() if isinstance(sampler, kind)), None)
    if best is None or not getattr(sampler, "adjusted", True):
        raise TypeError(
            "`sampler` must be an adjusted Langevin or a LagrangianMonteCarlo, whose step size decides how often they "
            f"accept, got {'an unadjusted ' if best else ''}{type(sampler).__name__}"
        )
    xs = check_chains(sampler, xs)
    steps = check_count("steps", steps)
    if target is not None and not (is_number(target) and 0 < target < 1):
        raise ValueError(f"`target` must be a number between 0 and 1, got {target!r}")
    found = _adapt(sampler, key, xs, steps, jnp.asarray(best if target is None else target, xs.dtype))
    if not throw:
        return found
    positions = raise_if_failed(found.positions, found.result, RESULTS[RESULTS.chain_diverged])
    return eqx.tree_at(lambda f: f.positions, found, positions)


@eqx.filter_jit
@with_own_settings
def _adapt(sampler: Any, key: PRNGKeyArray, xs: Points, steps: int, target: Any) -> AdaptedSampler:
    # Imported when it is first used: it takes a second, and brings optax.
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    start, update, final = dual_averaging_adaptation(target)
    keys = jax.random.split(key, xs.shape[0])

    def of_size(size: Scalar) -> Any:
        return eqx.tree_at(lambda s: s.step_size, sampler, size.astype(sampler.step_size.dtype))

    def step(i, carry):
        states, averaging, total = carry
        moving = of_size(jnp.exp(averaging.log_step_size))
        states, info = jax.vmap(lambda k, state: moving.step(jax.random.fold_in(k, i), state))(keys, states)
        rate = jnp.mean(info.acceptance_rate)
        updated = update(averaging, rate)
        return states, _as_before(updated, averaging), total + jnp.where(i >= steps // 2, rate, 0)

    averaging = start(sampler.step_size.astype(xs.dtype))
    averaging = jax.tree.map(jnp.asarray, averaging)
    averaging = _as_before(averaging, jax.eval_shape(lambda a: update(a, target), averaging))
    carry = (begin(sampler, keys, xs), averaging, jnp.zeros((), xs.dtype))
    states, averaging, total = jax.lax.fori_loop(0, steps, step, carry)
    size, rate = final(averaging), total / (steps - steps // 2)
    failed = ~(jnp.isfinite(size) & (size > 0) & (rate >= LEAST_RATE))
    return AdaptedSampler(of_size(size), states.position, rate, first_failure([(failed, RESULTS.chain_diverged)]))


def _as_before(tree: Any, like: Any) -> Any:
    """In the types of ``like``: blackjax counts in Python's numbers at first."""
    return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), tree, like)
