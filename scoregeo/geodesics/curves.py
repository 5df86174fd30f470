"""Curves gamma : [0, 1] -> R^d that can be evaluated anywhere: what solvers start from and what they return."""

import abc
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Point, Points, Scalar, Vector
from .spectral.legendre import legendre_values

# Points of a curve that stands for another one, at equal times.
NODES = 65


def node_times(dtype: Any) -> Float[Array, " n"]:
    """The times of these points: `NODES` of them, from 0 to 1."""
    return jnp.asarray(np.linspace(0, 1, NODES), dtype)


class AbstractCurve(eqx.Module):
    """A curve gamma : [0, 1] -> R^d with its velocity."""

    @abc.abstractmethod
    def __call__(self, t: Scalar | float) -> tuple[Point, Vector]:
        """Point and velocity at time ``t``."""

    @abc.abstractmethod
    def reverse(self) -> "AbstractCurve":
        """The same curve walked backwards."""


class Polyline(AbstractCurve):
    """Straight segments between ``nodes`` ``(k, d)``, which are passed at equally spaced times."""

    nodes: Points

    def __call__(self, t: Scalar | float) -> tuple[Point, Vector]:
        segments = self.nodes.shape[0] - 1
        i = jnp.clip(jnp.floor(t * segments).astype(jnp.int32), 0, segments - 1)
        start, end = self.nodes[i], self.nodes[i + 1]
        return start + (t * segments - i) * (end - start), segments * (end - start)

    def reverse(self) -> "Polyline":
        return Polyline(self.nodes[::-1])


class PiecewisePolynomial(AbstractCurve):
    """Polynomials on the elements between ``breaks`` ``(k + 1,)``; elements of width zero at the end are unused.

    On an element of width h, with u in [0, 1] its local time: the velocity is ``sum_j velocities[e, j] p_j(u)`` in
    orthonormal Legendre polynomials, and the point ``starts[e]`` plus its integral.
    """

    breaks: Float[Array, " k_plus_1"]
    starts: Points
    velocities: Float[Array, "k m d"]
    backwards: bool = eqx.field(static=True, default=False)

    def __call__(self, t: Scalar | float) -> tuple[Point, Vector]:
        t = 1 - t if self.backwards else t
        e = jnp.sum(self.breaks[1:-1] < t)
        h = self.breaks[e + 1] - self.breaks[e]
        p, phi = legendre_values(self.velocities.shape[1], (t - self.breaks[e]) / h)
        velocity = p @ self.velocities[e]
        return self.starts[e] + h * (phi @ self.velocities[e]), -velocity if self.backwards else velocity

    def reverse(self) -> "PiecewisePolynomial":
        return PiecewisePolynomial(self.breaks, self.starts, self.velocities, not self.backwards)


class IntegratedCurve(AbstractCurve):
    """diffrax's dense solution of the geodesic equation, over times scaled to [0, 1]."""

    dense: diffrax.DenseInterpolation
    backwards: bool = eqx.field(static=True, default=False)

    def __call__(self, t: Scalar | float) -> tuple[Point, Vector]:
        x, v = self.dense.evaluate(1 - t if self.backwards else t)
        return x, -v if self.backwards else v

    def reverse(self) -> "IntegratedCurve":
        return IntegratedCurve(self.dense, not self.backwards)
