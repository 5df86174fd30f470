"""What is refused as a matrix of distances, and what the message says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.statistics._matrices import check_distances


def matrix(**entries):
    """A matrix of three points on a line, with ``i_j`` entries replaced."""
    values = np.abs(np.subtract.outer([0.0, 1.0, 3.0], [0.0, 1.0, 3.0]))
    for name, value in entries.items():
        values[int(name[1]), int(name[2])] = value
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3)), r"must have shape \(n, n\) with n >= 1, got \(2, 3\)"),
        (matrix(d02=np.nan, d20=np.nan), r"`d` must be finite, but 1 pair, \(0, 2\), is NaN or infinite: leave out"),
        (np.where(np.eye(4) == 1, 0, np.inf), r"but 6 pairs, \(0, 1\), \(0, 2\), \(0, 3\), ..., are NaN"),
        (matrix(d01=-1.0), r"must be non-negative, but 1 pair, \(0, 1\), is negative"),
        (matrix(d11=0.5), r"diagonal of zeros, but 1 of 3 entries are not: the first is 0.5 of point 1"),
        (matrix(d12=2.5), r"must be symmetric, but 1 pair, \(1, 2\), is not: 2.5 one way and 2 the other for \(1, 2\)"),
    ],
)
def test_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_distances(values, "d")


def test_accepted():
    np.testing.assert_array_equal(check_distances(matrix()), matrix())
    assert check_distances(matrix().astype(np.float32)).dtype == jnp.float32
    assert check_distances(np.array([[0, 2], [2, 0]])).dtype == jnp.float64
    check_distances(matrix(d01=1 + 1e-6))  # rounding
    assert jax.jit(check_distances)(matrix(d01=np.nan)).shape == (3, 3)  # a traced value cannot be looked at
    with pytest.raises(TypeError, match="must be an array of real numbers"):
        check_distances(matrix() > 1)
    with pytest.raises(ValueError, match="n >= 4"):
        check_distances(matrix(), least=4)
