"""The identity plus a positive matrix of low rank, by matrices as small as the rank (Woodbury 1950).

With U of shape (k, d), C = diag(c), the Gram matrix K = U U^T and its scaled form H = C^{1/2} K C^{1/2}, both k x k,

    G       = I + U^T C U                                                                               (1)
    G^-1    = I - U^T (I + C K)^-1 C U,       det G = det(I + C K)                                      (2)
    G^{1/2} = I + B^T (I + S)^-1 B,       G^{-1/2} = I - B^T (I + H + S)^-1 B                           (3)

where B = C^{1/2} U and S = (I + H)^{1/2}. No expression divides by K or C, so all hold for rows that are zero or
depend on each other, and for weights that are zero. (2) takes no root of C: a weight of zero has derivatives.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._cholesky import inverse_factor, refined, solve_factored
from .._numerics import frozen
from .._types import Matrix, Scalar, Vector
from .inner_products import AbstractInnerProduct


class LowRankUpdate(AbstractInnerProduct):
    """``G = I + U^T diag(c) U`` with ``factors`` U ``(k, d)`` and ``weights`` c ``(k,)``, not negative: everything in
    O(k d + k^3), nothing d x d.

    Zero rows, rows that depend on each other, and k = 0 are allowed. A negative weight makes every result NaN, because
    G may then be indefinite. Raises ``ValueError`` for shapes that do not fit.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import LowRankUpdate
    >>> product = LowRankUpdate(jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), jnp.array([3.0, 8.0]))
    >>> product.sqrt_mv(jnp.ones(3)).round(4).tolist()
    [2.0, 3.0, 1.0]
    >>> round(float(product.logdet()), 4)  # log 36
    3.5835
    """

    factors: Float[Array, "k d"]
    weights: Float[Array, " k"]

    def __init__(self, factors: Float[Array, "k d"], weights: Float[Array, " k"]):
        self.factors, weights = jnp.asarray(factors), jnp.asarray(weights)
        if self.factors.ndim != 2 or weights.shape != self.factors.shape[:1]:
            shapes = f"{self.factors.shape} and {weights.shape}"
            raise ValueError(f"`factors` must have shape (k, d) and `weights` (k,), got {shapes}")
        self.weights = weights.astype(self.factors.dtype)

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.factors.shape[-1]

    def _checked_weights(self) -> Float[Array, " k"]:
        return jnp.where(self.weights < 0, jnp.nan, self.weights)

    def mv(self, v: Vector) -> Vector:
        return v + (self._checked_weights() * (self.factors @ v)) @ self.factors

    def squared_norm(self, v: Vector) -> Scalar:
        return v @ v + self._checked_weights() @ (self.factors @ v) ** 2

    def solve(self, w: Vector) -> Vector:
        """Equation (2)."""
        scaled = self._scaled_gram()
        gram, roots = frozen((self.factors @ self.factors.T, jnp.sqrt(self._checked_weights())))
        inverse = inverse_factor(jnp.eye(*gram.shape, dtype=gram.dtype) + roots[:, None] * gram * roots)

        # I + C K and its transpose by Woodbury, because I + C^{1/2} K C^{1/2} is positive, and the other not symmetric.
        rows = jax.lax.custom_linear_solve(
            lambda rows: rows + scaled @ rows,
            self.weights * (self.factors @ w),
            refined(lambda b: b - roots * solve_factored(inverse, roots * (gram @ b))),
            refined(lambda b: b - gram @ (roots * solve_factored(inverse, roots * b))),
        )
        return w - rows @ self.factors

    def logdet(self, dim: int | None = None) -> Scalar:
        """Equation (2), by elimination in ``I + C K`` that never adds the identity: small determinants keep their
        digits."""

        def eliminate(i, carry):
            excess, total = carry
            pivot = excess[i, i]
            return excess - jnp.outer(excess[:, i], excess[i]) / (1 + pivot), total + jnp.log1p(pivot)

        scaled = self._scaled_gram()
        start = scaled, jnp.zeros((), scaled.dtype)
        return jax.lax.fori_loop(0, scaled.shape[0], eliminate, start)[1] if scaled.size else start[1]

    def sqrt_mv(self, v: Vector) -> Vector:
        """Equation (3)."""
        roots, _, root = self._roots()
        rows = jnp.linalg.solve(jnp.eye(*root.shape, dtype=root.dtype) + root, roots @ v)
        return v + rows @ roots

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        """Equation (3)."""
        roots, plus_identity, root = self._roots()
        return v - jnp.linalg.solve(plus_identity + root, roots @ v) @ roots

    def _scaled_gram(self) -> Float[Array, "k k"]:
        return self._checked_weights()[:, None] * (self.factors @ self.factors.T)

    def _roots(self) -> tuple[Float[Array, "k d"], Float[Array, "k k"], Float[Array, "k k"]]:
        """B, I + H and S of equation (3)."""
        roots = jnp.sqrt(self.weights)[:, None] * self.factors
        plus_identity = jnp.eye(roots.shape[0], dtype=roots.dtype) + roots @ roots.T
        return roots, plus_identity, _matrix_sqrt(plus_identity)


@jax.custom_jvp
def _matrix_sqrt(matrix: Matrix) -> Matrix:
    """The root S of a symmetric positive definite ``matrix``."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(values)) @ vectors.T


@_matrix_sqrt.defjvp
def _matrix_sqrt_jvp(primals, tangents):
    """``S dS + dS S = dA``: smooth, to any order, also at repeated eigenvalues."""
    root = _matrix_sqrt(*primals)
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(root))

    def solve(_, b):
        return vectors @ ((vectors.T @ b @ vectors) / (values[:, None] + values)) @ vectors.T

    return root, jax.lax.custom_linear_solve(lambda s: root @ s + s @ root, tangents[0], solve, symmetric=True)
