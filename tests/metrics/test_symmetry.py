"""A metric is symmetric: one that is not is named as that, wherever its values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CURL, X, Y

from scoregeo import (
    AbstractInnerProduct,
    AbstractMetric,
    EuclideanMetric,
    MatrixMetric,
    SteinMetric,
    dist,
    geodesic,
    pairwise_dist,
    shoot,
)
from scoregeo.metrics import DenseInnerProduct, DiagonalInnerProduct
from scoregeo.metrics.base import _matrix_at

SKEW = np.array([[2.0, 0.5], [0.0, 1.0]])


class Operator(AbstractInnerProduct):
    array: jax.Array

    def mv(self, v):
        return self.array @ v


class Own(AbstractMetric):
    """A metric of the user's own, with an inner product of one of several types."""

    product: AbstractInnerProduct

    def at(self, x):
        return self.product


NOT_SYMMETRIC = {
    "matrix": MatrixMetric(lambda x: SKEW),
    "scaled": 3.0 * MatrixMetric(lambda x: SKEW / 3),
    "sum": EuclideanMetric() + MatrixMetric(lambda x: SKEW),
    "own": Own(DenseInnerProduct(jnp.asarray(SKEW))),
    "operator": Own(Operator(jnp.asarray(SKEW))),
}


@pytest.mark.parametrize("name", NOT_SYMMETRIC)
@pytest.mark.parametrize(
    "use",
    [dist, geodesic, shoot, lambda metric, x, y: pairwise_dist(metric, np.stack([x, y]))],
    ids=["dist", "geodesic", "shoot", "pairwise_dist"],
)
def test_it_is_told(name, use):
    found = "0.166667" if name == "scaled" else "0.5"
    message = rf"`metric` must be symmetric, but G\(x\)\[0, 1\] = {found} and G\(x\)\[1, 0\] = 0 at x = \[-1"
    with pytest.raises(ValueError, match=message):
        use(NOT_SYMMETRIC[name], X, Y)


def test_at_either_end():
    metric = MatrixMetric(lambda x: jnp.eye(2) + jnp.where(x[0] > 0, 1.0, 0.0) * jnp.asarray(CURL))
    with pytest.raises(ValueError, match=r"must be symmetric, .* at x = \[1"):
        dist(metric, X, Y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_no_asymmetry(dtype):
    """Of matrices of any size, computed in float32."""
    random = np.random.default_rng(0)
    for size in np.logspace(-15, 15, 7):
        factor = random.normal(size=(7, 5))
        rounded = (size * factor.T @ factor * (1 + 1e-6 * random.normal(size=(5, 5)))).astype(np.float32)
        MatrixMetric(lambda x, a: a, rounded).check(jnp.zeros(5, dtype))
        with pytest.raises(ValueError, match="must be symmetric"):
            MatrixMetric(lambda x, a: a, rounded + np.triu(1e-3 * rounded.max() * np.ones((5, 5)), 1)).check(
                jnp.zeros(5, dtype)
            )


def test_what_has_no_values_yet_or_no_matrix_passes():
    metric = NOT_SYMMETRIC["matrix"]
    assert jax.jit(lambda x: metric.check(x) or x)(jnp.zeros(2)).shape == (2,)
    jax.vmap(lambda x: metric.check(x) or x)(jnp.zeros((3, 2)))
    MatrixMetric(lambda x: jnp.full((2, 2), jnp.nan)).check(jnp.zeros(2))
    MatrixMetric(lambda x: jnp.full((2, 2), jnp.inf)).check(jnp.zeros(2))
    MatrixMetric(lambda x: jnp.zeros((2, 2))).check(jnp.zeros(2))


def test_nothing_is_computed_for_a_type_that_is_symmetric():
    """Nor a matrix of many dimensions."""
    assert _matrix_at(SteinMetric(lambda x: -x), jnp.zeros(2)) is None
    assert _matrix_at(Own(DiagonalInnerProduct(jnp.ones(2))), jnp.zeros(2)) is None
    assert _matrix_at(Own(Operator(jnp.eye(65))), jnp.zeros(65)) is None
