"""The shapes in annotations are checked while tests run: a wrong one fails the test that meets it."""

import jax.numpy as jnp
import jaxtyping
import pytest

from scoregeo.geodesics.spectral.mesh import merge
from scoregeo.metrics import IdentityPlusRankOne


def test_annotations_are_checked():
    inner_product = IdentityPlusRankOne(jnp.ones(3), jnp.asarray(1.0))
    assert inner_product.mv(jnp.ones(3)).shape == (3,)
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
        inner_product.inner(jnp.ones(3), jnp.ones((3, 1)))
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
        merge(jnp.ones((2, 3)))
