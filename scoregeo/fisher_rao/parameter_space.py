"""Parameters of distributions as points: how they become coordinates, and the Fisher information there.

For a family p(x; theta) the Fisher information

    F(theta) = E[ u u^T ],   u = grad_theta log p(x; theta)   (the Fisher score),                          (1)

is a Riemannian metric on the parameters (Rao 1945), the only one, up to scale, that no change of the sample space
can tell from another (Chentsov).

A point is a flat vector ``theta``: the coordinates of the parameters, one after the other.
`AbstractParameterSpace.pack` makes it from the parameters that users know, `AbstractParameterSpace.unpack` gives them
back. Batches are made by ``jax.vmap``.
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_point, is_concrete
from .._types import Matrix, Point, Scalar, Vector
from ..metrics.inner_products import AbstractInnerProduct
from .supports import AbstractSupport


class AbstractParameterSpace(eqx.Module):
    """The parameters of a family as points ``theta``, flat ``(size,)``, with the Fisher information at each of them.

    It is what a metric needs to know of a family; `AbstractFamily` adds the distributions.
    """

    @property
    @abc.abstractmethod
    def parameters(self) -> dict[str, AbstractSupport]:
        """The parameters by name, in the order of `pack`, and where each may be."""

    @abc.abstractmethod
    def inner_product(self, theta: Point) -> AbstractInnerProduct:
        """The Fisher information (1) at ``theta``, as an operator with its structure (diagonal, dense)."""

    def acceleration(self, theta: Point, v: Vector) -> Vector | None:
        """The geodesic equation ``theta'' = acceleration(theta, theta')`` where it is known in closed form, else
        ``None``."""
        return None

    def fisher(self, theta: Point) -> Matrix:
        """The Fisher information (1) at ``theta``, shape ``(size, size)``."""
        return self.inner_product(self.check(theta)).matrix(self.size)

    @property
    def size(self) -> int:
        """The number of coordinates of ``theta``."""
        return sum(support.size for support in self.parameters.values())

    @property
    def dof(self) -> int:
        """The number of degrees of freedom: of unconstrained coordinates."""
        return sum(support.free for support in self.parameters.values())

    def pack(self, *values: Any, **named: Any) -> Point:
        """``theta`` from the parameters, in order or by name.

        Raises ``ValueError`` naming the parameter, what it must be and what it is, and ``TypeError`` for missing or
        unknown names.
        """
        supports = self.parameters
        given = dict(zip(supports, values, strict=False))
        wrong = [name for name in named if name not in supports or name in given]
        missing = [name for name in supports if name not in given and name not in named]
        if len(values) > len(supports) or wrong or missing:
            raise TypeError(
                f"{type(self).__name__} has the parameters {', '.join(supports)}: got {len(values)} by position and "
                f"{', '.join(named) or 'none'} by name"
            )
        given |= named
        coordinates = [s.coordinates(s.check(given[name], name)) for name, s in supports.items()]
        dtype = jnp.result_type(*coordinates)
        return jnp.concatenate([c.astype(dtype) for c in coordinates])

    def unpack(self, theta: Point) -> tuple[Array, ...]:
        """The parameters at ``theta``, each in its shape, in the order of `pack`."""
        return tuple(s.value(c) for s, c in self._parts(theta))

    def check(self, theta: Any, name: str = "theta") -> Point:
        """``theta`` as a point ``(size,)``; raises ``ValueError`` if a parameter is outside its domain.

        Values are checked where they are known, so not under ``jit``.
        """
        theta = as_point(theta, name, dim=self.size)
        if is_concrete(theta):
            for (support, part), parameter in zip(self._parts(theta), self.parameters, strict=True):
                support.check(support.value(part), f"{parameter}` of `{name}")
        return theta

    def check_information(self, theta: Point) -> None:
        """Raise or warn if the Fisher information at ``theta`` is degenerate or a coarse estimate, where values are
        known. It never is in a family that has it in closed form, so this does nothing there."""
        return

    def check_tangent(self, theta: Any, v: Any) -> tuple[Point, Vector]:
        """``theta`` as a point of the family and ``v`` as a vector at it, of the same dtype."""
        theta, v = self.check(theta), as_point(v, "v", dim=self.size)
        dtype = jnp.result_type(theta, v)
        return theta.astype(dtype), v.astype(dtype)

    def check_pair(self, a: Any, b: Any) -> tuple[Point, Point]:
        """``a`` and ``b`` as points of the family, of the same dtype."""
        a, b = self.check(a, "a"), self.check(b, "b")
        dtype = jnp.result_type(a, b)
        return a.astype(dtype), b.astype(dtype)

    def domain(self, theta: Point) -> Scalar:
        """Positive where all parameters are inside their domains, zero at the boundary, negative outside."""
        return jnp.min(jnp.stack([s.margin(c) for s, c in self._parts(theta)]))

    def to_unconstrained(self, theta: Point) -> Float[Array, " dof"]:
        """Coordinates ``(dof,)`` in which every vector is allowed: logarithms, logits, log-Cholesky factors."""
        return jnp.concatenate([s.to_unconstrained(c) for s, c in self._parts(theta)])

    def from_unconstrained(self, u: Float[Array, " dof"]) -> Point:
        """The inverse of `to_unconstrained`."""
        supports = list(self.parameters.values())
        cuts = np.cumsum([s.free for s in supports])[:-1]
        return jnp.concatenate(
            [s.from_unconstrained(part) for s, part in zip(supports, jnp.split(u, cuts), strict=True)]
        )

    def _parts(self, theta: Point | Float[np.ndarray, " d"]) -> list[tuple[AbstractSupport, Float[Array, " _"]]]:
        supports = list(self.parameters.values())
        cuts = np.cumsum([s.size for s in supports])[:-1]
        return list(zip(supports, jnp.split(theta, cuts), strict=True))
