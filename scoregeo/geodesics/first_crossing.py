"""When an event of an integration happened: a root finder for diffrax."""

from collections.abc import Callable

import jax.numpy as jnp
import optimistix as optx


class FirstCrossing(optx.AbstractRootFinder):
    """Bisection for diffrax's event times, by signs alone: positive at ``lower``, not positive at ``upper``.

    Ends when no number is left between the two and returns ``upper``: where the event has just happened. Where none
    has (another lane of a batch had one), diffrax asks for the root of ``upper - t``, and this is ``upper`` exactly;
    `optimistix.Bisection` and `optimistix.Newton` may end below it, and diffrax would drop the sample at ``upper``.
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable = jnp.abs

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        """See `optimistix.AbstractRootFinder`."""
        return jnp.asarray(options["lower"], y.dtype), jnp.asarray(options["upper"], y.dtype)

    def step(self, fn, y, args, options, state, tags):
        """See `optimistix.AbstractRootFinder`."""
        lower, upper = state
        middle = lower + (upper - lower) / 2
        value, aux = fn(middle, args)
        before = value > 0
        return y, (jnp.where(before, middle, lower), jnp.where(before, upper, middle)), aux

    def terminate(self, fn, y, args, options, state, tags):
        """See `optimistix.AbstractRootFinder`."""
        lower, upper = state
        middle = lower + (upper - lower) / 2
        return (middle <= lower) | (middle >= upper), optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        """See `optimistix.AbstractRootFinder`."""
        return state[1], aux, {}
