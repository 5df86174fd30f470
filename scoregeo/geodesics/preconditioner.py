"""Preconditioners for the Hessian of the path energy, chosen by the structure that the metric declares.

In the coefficients of `basis`, the Euclidean energy has the identity as Hessian. For G = I + lam u u^T the
Gauss-Newton Hessian is

    P = I + A^T diag(lam w) A,      row q of A:  c -> u_q . c'(t_q) + (J^T v)_q . c(t_q)                  (1)

"identity plus rank Q", where c(t), c'(t) are what the coefficients add to point and velocity. In high dimension its
solve needs, by Woodbury, only the Q x Q Gram matrix A A^T, assembled from inner products of the u_q and (J^T v)_q;
nothing d x d is formed. In low dimension the elements are taken apart: what vanishes at the ends of an element couples
with nothing outside it, so that, again by Woodbury, one small Gram matrix for each element leaves a system for the
displacements X of the ends alone (static condensation).

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


class CondensedPreconditioner(AbstractPreconditioner):
    """Equation (1), as `WoodburyPreconditioner`, element by element; for ``(k - 1) d`` small against the number of
    points.

    With A_b the rows of A for coefficients j >= 1 and A_x those for the displacements of the ends of the element, the
    system for the displacements is S = Euclid + A_x^T (I + A_b A_b^T)^-1 A_x, summed over elements.
    """

    basis: Basis
    u: Float[Array, "k q d"]  # both scaled by sqrt(lam w)
    jtv: Float[Array, "k q d"]
    ends: Float[Array, "k q 2 d"]  # A_x
    factors: Float[Array, "k q q"]  # Cholesky factors of I + A_b A_b^T
    schur: Matrix  # and that of S

    def __init__(self, basis: Basis, u: Points, jtv: Points, strengths: Float[Array, " q"]):
        self.basis = basis
        k, n, d = basis.breaks.size - 1, basis.u.size, u.shape[-1]
        scale = jnp.sqrt(strengths * basis.weights)[:, None]
        self.u, self.jtv = (scale * u).reshape(k, n, d), (scale * jtv).reshape(k, n, d)
        h = basis.widths[:, None, None]
        p, phi = basis.p[:, 1:], basis.phi[:, 1:]

        def products(a, b):
            # Many small products: in few dimensions one fused loop is faster than as many calls for matrix products.
            if d <= 4:
                return jnp.sum(a[:, :, None] * b[:, None], -1)
            return jnp.einsum("kqd,krd->kqr", a, b)

        cross = products(self.u, self.jtv) * (p @ phi.T)
        gram = products(self.u, self.u) * (p @ p.T) / h + cross + cross.swapaxes(1, 2)
        gram = gram + products(self.jtv, self.jtv) * (phi @ phi.T) * h
        # Rounding makes a large Gram matrix slightly indefinite; a preconditioner may be off by that much.
        jitter = 1 + n * jnp.finfo(gram.dtype).eps * jnp.max(jnp.diagonal(gram, axis1=1, axis2=2), 1)
        self.factors = jnp.linalg.cholesky(gram + jitter[:, None, None] * jnp.eye(n, dtype=gram.dtype))
        late = basis.u[:, None]
        self.ends = jnp.stack([(1 - late) * self.jtv - self.u / h, late * self.jtv + self.u / h], 2)

        flat = self.ends.reshape(k, n, 2 * d)
        half = jax.scipy.linalg.solve_triangular(self.factors, flat, lower=True)
        local = jnp.einsum("kqi,kqj->kij", half, half).reshape(k, 2, d, 2, d)
        euclid = jnp.asarray([[1.0, -1.0], [-1.0, 1.0]], h.dtype)[:, None, :, None] * jnp.eye(d, dtype=h.dtype)[:, None]
        local = local + euclid / h[..., None, None]
        e = jnp.arange(k)
        schur = jnp.zeros((k + 1, d, k + 1, d), h.dtype)
        for left in (0, 1):
            for right in (0, 1):
                schur = schur.at[e + left, :, e + right].add(local[:, left, :, right])
        inner = (k - 1) * d
        self.schur = jnp.linalg.cholesky(schur[1:-1, :, 1:-1].reshape(inner, inner))

    def solve(self, r: Coefficients) -> Coefficients:
        k, _, d = r.shape
        root = jnp.sqrt(self.basis.widths)[:, None]
        p, phi = self.basis.p[:, 1:], self.basis.phi[:, 1:]
        inside = r[:, 1:]
        rows = jnp.einsum("kqd,qm,kmd->kq", self.u, p, inside) / root
        rows = rows + jnp.einsum("kqd,qm,kmd->kq", self.jtv, phi, inside) * root

        def inverse(rows):
            return jax.scipy.linalg.cho_solve((self.factors, True), rows[..., None])[..., 0]

        moved = -jnp.einsum("kqed,kq->ked", self.ends, inverse(rows))
        flux = r[:, 0] / root
        loads = (moved[:-1, 1] + flux[:-1]) + (moved[1:, 0] - flux[1:])
        displacements = jax.scipy.linalg.cho_solve((self.schur, True), loads.reshape(-1)).reshape(k - 1, d)
        displacements = jnp.pad(displacements, ((1, 1), (0, 0)))
        ends = jnp.stack([displacements[:-1], displacements[1:]], 1)
        b = inverse(rows + jnp.einsum("kqed,ked->kq", self.ends, ends))
        correction = jnp.einsum("kq,kqd,qm->kmd", b, self.u, p) / root[..., None]
        correction = correction + jnp.einsum("kq,kqd,qm->kmd", b, self.jtv, phi) * root[..., None]
        first = (displacements[1:] - displacements[:-1]) / root
        return jnp.concatenate([first[:, None], inside - correction], 1)


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
