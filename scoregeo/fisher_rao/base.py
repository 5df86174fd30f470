"""Families of distributions, as manifolds: the points are parameters, the metric is Fisher information."""

import abc

from jaxtyping import Array, Num, PRNGKeyArray

from .._types import Point, Scalar, Vector
from .parameter_space import AbstractParameterSpace


class AbstractFamily(AbstractParameterSpace):
    """A family of distributions with parameters ``theta``, flat ``(size,)``.

    Families are pytrees, some with traced arrays (numbers of trials, outcomes): compile a method with
    ``equinox.filter_jit(family.dist)`` or ``jax.jit(lambda a, b: family.dist(a, b))``, not ``jax.jit(family.dist)``.
    """

    @property
    @abc.abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample ``x``: ``()`` for univariate families."""

    @abc.abstractmethod
    def log_prob(self, theta: Point, x: Num[Array, "..."]) -> Scalar:
        """The log density (or log probability) of one sample; minus infinity outside the support."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Num[Array, "n ..."]:
        """``n`` independent samples, shape ``(n, *sample_shape)``; integers from families of counts."""


class AbstractExponentialFamily(AbstractFamily):
    """A family with densities ``h(x) exp(<eta, T(x)> - A(eta))``: it has natural parameters ``eta`` and expectation
    parameters ``mu = E[T(x)] = grad A(eta)``, dual affine coordinates of the same manifold.

    The Fisher matrix is the Hessian of A in natural coordinates, and its inverse in expectation coordinates.
    """

    @abc.abstractmethod
    def sufficient_statistic(self, x: Num[Array, "..."]) -> Vector:
        """``T(x)`` of one sample, shape ``(dof,)``."""

    @abc.abstractmethod
    def log_partition(self, eta: Vector) -> Scalar:
        """``A(eta)``, convex."""

    @abc.abstractmethod
    def natural(self, theta: Point) -> Vector:
        """The natural parameters ``eta`` at ``theta``, shape ``(dof,)``."""

    @abc.abstractmethod
    def from_natural(self, eta: Vector) -> Point:
        """The point with natural parameters ``eta``."""

    @abc.abstractmethod
    def expectation(self, theta: Point) -> Vector:
        """The expectation parameters ``mu = E[T(x)]`` at ``theta``, shape ``(dof,)``."""
