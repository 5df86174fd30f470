"""Where the parameters of a distribution may be, and how they become coordinates.

A parameter (a standard deviation, a vector of probabilities, a covariance) has a *value*, which users read and write;
*coordinates*, a flat vector on which the Fisher matrix acts; and *unconstrained* coordinates, in which every vector of
R^m is allowed.
"""

import abc
import math
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_float, check_count, check_finite, is_concrete, plain
from .._types import Scalar, Vector


class AbstractSupport(eqx.Module):
    """The set of values of one parameter. ``closed``: whether its boundary, or a part of it, has distributions too."""

    closed = False

    if TYPE_CHECKING:  # a type checker takes an AbstractVar for an argument, which it is not where it is a property

        @property
        def shape(self) -> tuple[int, ...]: ...

    else:
        shape: eqx.AbstractVar[tuple[int, ...]]

    @property
    @abc.abstractmethod
    def bound(self) -> str:
        """What a value must be, in words: the end of "must be ..."."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The number of coordinates."""

    @property
    @abc.abstractmethod
    def free(self) -> int:
        """The number of unconstrained coordinates."""

    @abc.abstractmethod
    def contains(self, value: np.ndarray) -> bool:
        """Whether a value of the right shape is in the set (its boundary included where that has distributions)."""

    @abc.abstractmethod
    def coordinates(self, value: Array) -> Vector:
        """A value as coordinates ``(size,)``."""

    @abc.abstractmethod
    def value(self, coordinates: Vector) -> Array:
        """The value with these coordinates, shape ``shape``."""

    @abc.abstractmethod
    def margin(self, coordinates: Vector) -> Scalar:
        """Positive inside the set, zero on its boundary, negative outside; continuous."""

    @abc.abstractmethod
    def to_unconstrained(self, coordinates: Vector) -> Float[Array, " free"]:
        """Unconstrained coordinates ``(free,)`` of a point inside."""

    @abc.abstractmethod
    def from_unconstrained(self, u: Float[Array, " free"]) -> Vector:
        """The coordinates ``(size,)`` of an unconstrained point: the inverse of `to_unconstrained`."""

    def check(self, value: Any, name: str) -> Array:
        """``value`` as a floating-point array of shape ``shape``; raises ``ValueError`` if it is not in the set."""
        value = as_float(value, name)
        if value.shape != self.shape:
            raise ValueError(f"`{name}` must have shape {self.shape}, got {value.shape}")
        check_finite(value, name)
        if is_concrete(value) and not self.contains(np.asarray(value)):
            raise ValueError(f"`{name}` must be {self.bound}, {self.problem(np.asarray(value))}")
        return value

    def problem(self, value: np.ndarray) -> str:
        """What is wrong with a value that is not in the set, for the message of `check`."""
        return f"got {_short(value)}"


def _short(value: np.ndarray) -> str:
    if value.ndim == 0:
        return f"{float(value):.6g}"
    text = np.array2string(value, precision=6, threshold=12, separator=", ")
    return " ".join(text.split())


class _Entrywise(AbstractSupport):
    """An array of numbers of the given shape: each entry is a coordinate."""

    shape: tuple[int, ...] = eqx.field(static=True, default=())

    @property
    def size(self) -> int:
        """One coordinate for each entry."""
        return math.prod(self.shape)

    @property
    def free(self) -> int:
        """The number of coordinates: none of them is bound to the others."""
        return self.size

    def coordinates(self, value: Array) -> Vector:
        """The entries, flat."""
        return value.reshape(-1)

    def value(self, coordinates: Vector) -> Array:
        """The entries in their shape."""
        return coordinates.reshape(self.shape)


class Real(_Entrywise):
    """Any real numbers, an array of the given shape."""

    bound: ClassVar[str] = "real"

    def contains(self, value: np.ndarray) -> bool:
        """Always."""
        return True

    def margin(self, coordinates: Vector) -> Scalar:
        """One: there is no boundary."""
        return jnp.ones((), coordinates.dtype)

    def to_unconstrained(self, coordinates: Vector) -> Vector:
        """The coordinates themselves."""
        return coordinates

    def from_unconstrained(self, u: Vector) -> Vector:
        """The coordinates themselves."""
        return u


class Positive(_Entrywise):
    """Numbers above zero, an array of the given shape; unconstrained as logarithms."""

    bound: ClassVar[str] = "positive"

    def contains(self, value: np.ndarray) -> bool:
        """Whether all entries are above zero."""
        return bool((value > 0).all())

    def margin(self, coordinates: Vector) -> Scalar:
        """The smallest entry."""
        return jnp.min(coordinates)

    def to_unconstrained(self, coordinates: Vector) -> Vector:
        """Logarithms."""
        return jnp.log(coordinates)

    def from_unconstrained(self, u: Vector) -> Vector:
        """Exponentials."""
        return jnp.exp(u)


class UnitInterval(AbstractSupport):
    """A probability, in [0, 1], or in (0, 1] with ``zero=False``; unconstrained as its logit."""

    zero: bool = eqx.field(static=True, default=True)
    closed = True
    shape: ClassVar[tuple[int, ...]] = ()
    size: ClassVar[int] = 1
    free: ClassVar[int] = 1

    @property
    def bound(self) -> str:
        """What a value must be, in words."""
        return "between 0 and 1" if self.zero else "above 0 and at most 1"

    def contains(self, value: np.ndarray) -> bool:
        """Whether it is such a probability."""
        return bool((value >= 0 if self.zero else value > 0) and value <= 1)

    def coordinates(self, value: Array) -> Vector:
        """The probability, shape ``(1,)``."""
        return value.reshape(1)

    def value(self, coordinates: Vector) -> Array:
        """The probability, shape ``()``."""
        return coordinates[0]

    def margin(self, coordinates: Vector) -> Scalar:
        """The distance to the nearer of 0 and 1."""
        return jnp.minimum(coordinates[0], 1 - coordinates[0])

    def to_unconstrained(self, coordinates: Vector) -> Vector:
        """The logit."""
        return jax.scipy.special.logit(coordinates)

    def from_unconstrained(self, u: Vector) -> Vector:
        """The logistic function."""
        return jax.nn.sigmoid(u)


class Simplex(AbstractSupport):
    """``count`` probabilities that sum to one; coordinates are all of them, unconstrained log ratios to the last."""

    count: int = eqx.field(static=True, converter=plain)
    closed = True

    def __check_init__(self):
        check_count("count", self.count, 2)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(count,)``."""
        return (self.count,)

    @property
    def bound(self) -> str:
        """What a value must be, in words."""
        return f"{self.count} probabilities that sum to one"

    @property
    def size(self) -> int:
        """``count``."""
        return self.count

    @property
    def free(self) -> int:
        """``count - 1``."""
        return self.count - 1

    def contains(self, value: np.ndarray) -> bool:
        """Whether entries are not negative and sum to one, up to the rounding errors that solvers and files leave."""
        return bool((value >= 0).all() and abs(value.sum() - 1) <= self.rounding(value.dtype))

    def rounding(self, dtype: np.dtype) -> float:
        """How far from one their sum may be."""
        return self.count * float(np.finfo(dtype).eps) ** 0.5

    def problem(self, value: np.ndarray) -> str:
        """Says which entry is negative, or what the sum is."""
        worst = int(value.argmin())
        return f"but entry {worst} is {value[worst]:.6g}" if value[worst] < 0 else f"but their sum is {value.sum():.9g}"

    def coordinates(self, value: Array) -> Vector:
        """The probabilities."""
        return value

    def value(self, coordinates: Vector) -> Array:
        """The probabilities."""
        return coordinates

    def margin(self, coordinates: Vector) -> Scalar:
        """The smallest probability. Their sum is left out: it is one on the simplex and has no inside to measure."""
        return jnp.min(coordinates)

    def to_unconstrained(self, coordinates: Vector) -> Float[Array, " d-1"]:
        """``log(p_i / p_last)``."""
        logs = jnp.log(coordinates)
        return logs[:-1] - logs[-1]

    def from_unconstrained(self, u: Vector) -> Float[Array, " d+1"]:
        """The softmax of ``u``, with zero appended as the last entry."""
        return jax.nn.softmax(jnp.append(u, 0.0))


class PositiveDefinite(AbstractSupport):
    """Symmetric positive definite ``(dim, dim)`` matrices. Coordinates are the entries of the lower triangle, row by
    row; unconstrained, those of the Cholesky factor with logarithms on its diagonal.
    """

    dim: int = eqx.field(static=True, converter=plain)

    def __check_init__(self):
        check_count("dim", self.dim)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(dim, dim)``."""
        return (self.dim, self.dim)

    @property
    def bound(self) -> str:
        """What a value must be, in words."""
        return "symmetric and positive definite"

    @property
    def size(self) -> int:
        """``dim (dim + 1) / 2``."""
        return self.dim * (self.dim + 1) // 2

    @property
    def free(self) -> int:
        """The number of coordinates: none of them is bound to the others."""
        return self.size

    def contains(self, value: np.ndarray) -> bool:
        """Whether it is symmetric up to rounding, with positive eigenvalues."""
        symmetric = np.abs(value - value.T).max() <= 1e3 * np.finfo(value.dtype).eps * np.abs(value).max()
        return bool(symmetric and np.linalg.eigvalsh(value).min() > 0)

    def problem(self, value: np.ndarray) -> str:
        """The smallest eigenvalue and the asymmetry."""
        smallest, asymmetry = np.linalg.eigvalsh(value).min(), np.abs(value - value.T).max()
        return f"but its smallest eigenvalue is {smallest:.3g} and it differs from its transpose by {asymmetry:.2g}"

    def coordinates(self, value: Array) -> Vector:
        """The lower triangle, row by row."""
        return value[np.tril_indices(self.dim)]

    def value(self, coordinates: Vector) -> Float[Array, "dim dim"]:
        """The symmetric matrix; raises ``ValueError`` for another number of coordinates."""
        if coordinates.shape != (self.size,):
            raise ValueError(
                f"a symmetric ({self.dim}, {self.dim}) matrix has {self.size} coordinates, shape ({self.size},); got "
                f"shape {coordinates.shape}"
            )
        rows, columns = np.tril_indices(self.dim)
        index = np.zeros((self.dim, self.dim), int)
        index[rows, columns] = index[columns, rows] = np.arange(self.size)
        return coordinates[index]

    def margin(self, coordinates: Vector) -> Scalar:
        """The smallest eigenvalue."""
        return jnp.linalg.eigvalsh(self.value(coordinates))[0]

    def to_unconstrained(self, coordinates: Vector) -> Vector:
        """The Cholesky factor, with the logarithm of its diagonal."""
        return self._diagonal(self.coordinates(jnp.linalg.cholesky(self.value(coordinates))), jnp.log)

    def from_unconstrained(self, u: Vector) -> Vector:
        """The product of the Cholesky factor with its transpose."""
        rows, columns = np.tril_indices(self.dim)
        lower = jnp.zeros((self.dim, self.dim), u.dtype).at[rows, columns].set(self._diagonal(u, jnp.exp))
        return self.coordinates(lower @ lower.T)

    def _diagonal(self, entries: Vector, function) -> Vector:
        """``function`` applied to the entries that are on the diagonal."""
        rows, columns = np.tril_indices(self.dim)
        on = np.flatnonzero(rows == columns)
        return entries.at[on].set(function(entries[on]))
