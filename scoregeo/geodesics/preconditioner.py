"""Preconditioners for the Hessian of the path energy, chosen by the structure that the metric declares.

In the coefficients of `basis`, the Euclidean energy has the identity as Hessian. For G = I + lam u u^T the
Gauss-Newton Hessian is

    P = I + A^T diag(lam w) A,      row q of A:  c -> u_q . (p c)_q + (J^T v)_q . (phi c)_q               (1)

"identity plus rank Q": by Woodbury its solve needs only the Q x Q Gram matrix A A^T, assembled from inner products of
the u_q and (J^T v)_q; nothing d x d is formed. Other metrics use the metric averaged along the path, P = I (x) mean G.
"""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Points
from .basis import Basis

Coefficients = Float[Array, "m d"]


class AbstractPreconditioner(eqx.Module):
    """A symmetric positive definite approximation P of the Hessian of the path energy."""

    @abc.abstractmethod
    def solve(self, r: Coefficients) -> Coefficients:
        """``P^-1 r``."""


class BasisGrams(NamedTuple):
    """Products of the basis functions at pairs of quadrature points, each ``(q, q)``: computed once a solve."""

    p_p: Float[Array, "q q"]
    p_phi: Float[Array, "q q"]
    phi_phi: Float[Array, "q q"]

    @classmethod
    def of(cls, basis: Basis) -> "BasisGrams":
        """The products for ``basis``."""
        return cls(basis.p @ basis.p.T, basis.p @ basis.phi.T, basis.phi @ basis.phi.T)


class WoodburyPreconditioner(AbstractPreconditioner):
    """Equation (1), from ``u`` and ``jtv`` at the quadrature points, each ``(q, d)``, and ``strengths`` lam
    ``(q,)``."""

    basis: Basis
    u: Points
    jtv: Points
    scale: Float[Array, " q"]
    factor: Float[Array, "q q"]

    def __init__(self, basis: Basis, grams: BasisGrams, u: Points, jtv: Points, strengths: Float[Array, " q"]):
        self.basis, self.u, self.jtv = basis, u, jtv
        self.scale = jnp.sqrt(strengths * basis.weights)
        cross = (u @ jtv.T) * grams.p_phi
        gram = (u @ u.T) * grams.p_p + cross + cross.T + (jtv @ jtv.T) * grams.phi_phi
        gram = gram * self.scale[:, None] * self.scale
        # Rounding makes a large Gram matrix slightly indefinite; a preconditioner may be off by that much.
        jitter = 1 + gram.shape[0] * jnp.finfo(gram.dtype).eps * jnp.max(jnp.diagonal(gram))
        self.factor = jnp.linalg.cholesky(gram + jitter * jnp.eye(gram.shape[0], dtype=gram.dtype))

    def solve(self, r: Coefficients) -> Coefficients:
        rows = jnp.sum(self.u * (self.basis.p @ r), -1) + jnp.sum(self.jtv * (self.basis.phi @ r), -1)
        b = self.scale * jax.scipy.linalg.cho_solve((self.factor, True), self.scale * rows)
        return r - self.basis.adjoint(b[:, None] * self.jtv, b[:, None] * self.u)


class DiagonalPreconditioner(AbstractPreconditioner):
    """P = identity on coefficients times a diagonal averaged metric, ``mean`` of shape ``(d,)``."""

    mean: Float[Array, " d"]

    def solve(self, r: Coefficients) -> Coefficients:
        return r / self.mean


class DensePreconditioner(AbstractPreconditioner):
    """P = identity on coefficients times a dense averaged metric, through its Cholesky ``factor`` ``(d, d)``."""

    factor: Float[Array, "d d"]

    def solve(self, r: Coefficients) -> Coefficients:
        return jax.scipy.linalg.cho_solve((self.factor, True), r.T).T
