"""The shapes in annotations are checked while tests run: a wrong one fails the test that meets it."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from annotations import DOORS, is_door

from scoregeo import Bend
from scoregeo._graphs import neighbor_pairs
from scoregeo.geodesics.spectral.mesh import merge
from scoregeo.metrics import IdentityPlusRankOne


def test_annotations_are_checked():
    inner_product = IdentityPlusRankOne(jnp.ones(3), jnp.asarray(1.0))
    assert inner_product.mv(jnp.ones(3)).shape == (3,)
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
        inner_product.inner(jnp.ones(3), jnp.ones((3, 1)))
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
        merge(jnp.ones((2, 3)))
    # In the whole package; NumPy's integers are integers.
    assert len(neighbor_pairs(np.eye(3), np.int32(1))) > 0
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
        neighbor_pairs(np.eye(3), "one")


def test_doors_check_for_themselves():
    """They take lists, and say in words of their own what is wrong."""
    assert len(DOORS) > 300
    assert is_door("scoregeo.operations", "dist")
    assert is_door("scoregeo.geodesics.starts", "Bend.__init__")
    assert is_door("scoregeo.fisher_rao.base", "AbstractFamily.dist")
    assert not is_door("scoregeo.metrics.inner_products", "IdentityPlusRankOne.mv")
    assert not is_door("scoregeo.fisher_rao.base", "AbstractFamily._answer")
    assert Bend([0.0, 3.0]).offset.shape == (2,)
    with pytest.raises(ValueError, match="`offset` must have shape"):
        Bend([[0.0, 3.0]])
