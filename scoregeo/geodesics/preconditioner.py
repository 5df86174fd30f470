"""Preconditioners for the Hessian of the path energy, chosen by the structure that the metric declares.

In the coefficients of `basis`, the Euclidean energy has the identity as Hessian. For G = I + lam u u^T the
Gauss-Newton Hessian is

    P = I + A^T diag(lam w) A,      row q of A:  c -> u_q . c'(t_q) + (J^T v)_q . c(t_q)                  (1)

"identity plus rank Q", where c(t), c'(t) are what the coefficients add to point and velocity: by Woodbury its solve
needs only the Q x Q Gram matrix A A^T, assembled from inner products of the u_q and (J^T v)_q; nothing d x d is formed.

For any other metric, P is the energy of the velocities alone, int c'^T G(gamma(t)) c' dt. Without the condition that
the path ends at y, its inverse would be multiplication by G^-1 at each time; with it, a constant covector is added:

    P^-1 r = B r - B e (e^T B e)^-1 e^T B r,      B = projection of multiplication by G(gamma(t))^-1           (2)

with e the constant velocities, so that e^T B e = int G^-1 dt is d x d, or diagonal where G is.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Matrix, Points
from .basis import Basis, Coefficients


class AbstractPreconditioner(eqx.Module):
    """A symmetric positive definite approximation P of the Hessian of the path energy."""

    @abc.abstractmethod
    def solve(self, r: Coefficients) -> Coefficients:
        """``P^-1 r``."""


class WoodburyPreconditioner(AbstractPreconditioner):
    """Equation (1), from ``u`` and ``jtv`` at the quadrature points, each ``(q, d)``, and ``strengths`` lam
    ``(q,)``."""

    basis: Basis
    u: Points
    jtv: Points
    scale: Float[Array, " q"]
    factor: Float[Array, "q q"]

    def __init__(self, basis: Basis, u: Points, jtv: Points, strengths: Float[Array, " q"]):
        self.basis, self.u, self.jtv = basis, u, jtv
        self.scale = jnp.sqrt(strengths * basis.weights)
        grams = basis.grams()
        cross = (u @ jtv.T) * grams.p_phi
        gram = (u @ u.T) * grams.p_p + cross + cross.T + (jtv @ jtv.T) * grams.phi_phi
        gram = gram * self.scale[:, None] * self.scale
        # Rounding makes a large Gram matrix slightly indefinite; a preconditioner may be off by that much.
        jitter = 1 + gram.shape[0] * jnp.finfo(gram.dtype).eps * jnp.max(jnp.diagonal(gram))
        self.factor = jnp.linalg.cholesky(gram + jitter * jnp.eye(gram.shape[0], dtype=gram.dtype))

    def solve(self, r: Coefficients) -> Coefficients:
        points, velocities = self.basis.deviation(r)
        rows = jnp.sum(self.u * velocities, -1) + jnp.sum(self.jtv * points, -1)
        b = self.scale * jax.scipy.linalg.cho_solve((self.factor, True), self.scale * rows)
        return r - self.basis.adjoint(b[:, None] * self.jtv, b[:, None] * self.u)


class DiagonalPreconditioner(AbstractPreconditioner):
    """Equation (2) for diagonal metrics: ``inverse`` holds the diagonals of G^-1 at the quadrature points ``(q,
    d)``."""

    basis: Basis
    inverse: Points

    def solve(self, r: Coefficients) -> Coefficients:
        weights = self.basis.weights[:, None]
        velocity = self.inverse * self.basis.deviation(r)[1]
        mean = jnp.sum(weights * velocity, 0) / jnp.sum(weights * self.inverse, 0)
        return self.basis.adjoint(jnp.zeros_like(velocity), weights * (velocity - self.inverse * mean))


class DensePreconditioner(AbstractPreconditioner):
    """Equation (2) for small d: ``inverse`` holds G^-1 at the quadrature points ``(q, d, d)``."""

    basis: Basis
    inverse: Float[Array, "q d d"]
    mean: Matrix

    def __init__(self, basis: Basis, inverse: Float[Array, "q d d"]):
        self.basis, self.inverse = basis, inverse
        self.mean = jnp.tensordot(basis.weights, inverse, 1)

    def solve(self, r: Coefficients) -> Coefficients:
        weights = self.basis.weights[:, None]
        velocity = jnp.einsum("qij,qj->qi", self.inverse, self.basis.deviation(r)[1])
        constant = jax.scipy.linalg.solve(self.mean, jnp.sum(weights * velocity, 0), assume_a="pos")
        velocity = velocity - self.inverse @ constant
        return self.basis.adjoint(jnp.zeros_like(velocity), weights * velocity)
