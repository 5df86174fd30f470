"""A solver for tests of what is built on distances: it measures the curve that it is given and changes nothing."""

import jax
import jax.numpy as jnp

from scoregeo import RESULTS, AbstractBoundarySolver, Geodesic
from scoregeo.geodesics.certificate import Measurement


class PathLength(AbstractBoundarySolver):
    """The length of the start in the metric, by the midpoints of 64 pieces: an upper bound of the distance, which the
    straight line and the path on a graph give differently. Ends right of 2.2 fail."""

    def solve(self, metric, x, y, init, ts):
        nodes = jax.vmap(init)(jnp.linspace(0, 1, 65, dtype=x.dtype))[0]
        length = jnp.sum(jax.vmap(metric.norm)((nodes[1:] + nodes[:-1]) / 2, jnp.diff(nodes, axis=0)))
        measure = lambda *_: Measurement(jnp.zeros(()))  # noqa: E731
        failed = [(jnp.maximum(x[0], y[0]) > 2.2, RESULTS.stalled)]
        return Geodesic.from_curve(init, ts, measure, ends=None, energy=length**2 / 2, stats={}, failures=failed)
