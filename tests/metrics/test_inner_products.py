"""Inner products: the defaults from `mv` alone, low-rank updates, scalings and sums, against dense linear algebra."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import AbstractInnerProduct
from scoregeo.metrics import (
    DenseInnerProduct,
    DiagonalInnerProduct,
    IdentityPlusRankOne,
    LowRankUpdate,
    Scaled,
    Sum,
    add,
    as_dense,
    as_diagonal,
    as_low_rank_update,
    scale,
)
from scoregeo.metrics.inner_products import _warn_of_matrix


class ByProducts(AbstractInnerProduct):
    """`mv` alone, of a matrix that no method but `mv` sees."""

    array: jax.Array

    def mv(self, v):
        return self.array @ v


class Outside(AbstractInnerProduct):
    """`mv` alone, of the identity plus a matrix of rank two, which it declares below."""

    rows: jax.Array

    def mv(self, v):
        return v + self.rows.T @ (self.rows @ v)


@as_low_rank_update.register
def _(product: Outside):
    return None, LowRankUpdate(product.rows, jnp.ones(2, product.rows.dtype))


def random(seed, *shape, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def spd(seed, d, dtype=np.float64):
    a = np.random.default_rng(seed).normal(size=(d, d))
    return jnp.asarray((np.eye(d) + a @ a.T / d).astype(dtype))


@eqx.filter_jit
def algebra(product, v, w):
    return {
        "mv": product.mv(v),
        "solve": product.solve(v),
        "sqrt_mv": product.sqrt_mv(v),
        "inv_sqrt_mv": product.inv_sqrt_mv(v),
        "logdet": product.logdet(v.size),
        "inner": product.inner(v, w),
        "squared_norm": product.squared_norm(v),
        "norm": product.norm(v),
        "matrix": product.matrix(v.size),
    }


def check(product, matrix, rtol=1e-12):
    """All methods of ``product`` against NumPy's ``matrix``."""
    matrix = np.asarray(matrix, float)
    dtype = jnp.result_type(*jax.tree.leaves(product))
    v, w = random(99, 2, len(matrix), dtype=dtype)
    values, vectors = np.linalg.eigh(matrix)
    power = lambda a: (vectors * values**a) @ vectors.T @ np.asarray(v, float)  # noqa: E731
    expected = {
        "mv": power(1),
        "solve": power(-1),
        "sqrt_mv": power(0.5),
        "inv_sqrt_mv": power(-0.5),
        "logdet": np.sum(np.log(values)),
        "inner": np.asarray(v, float) @ matrix @ np.asarray(w, float),
        "squared_norm": np.asarray(v, float) @ power(1),
        "norm": np.sqrt(np.asarray(v, float) @ power(1)),
        "matrix": matrix,
    }
    got = algebra(product, v, w)
    for name, value in expected.items():
        assert got[name].dtype == dtype, name
        # The inner product of two vectors may cancel.
        size = max(np.abs(value).max(), 1.0 if name in ("logdet", "inner") else 0.0)
        np.testing.assert_allclose(got[name], value, rtol=0, atol=rtol * size, err_msg=name)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 2e-5)])
@pytest.mark.parametrize("d", [1, 2, 5, 20])
def test_defaults_from_products_alone(d, dtype, rtol):
    g = spd(d, d, dtype)
    check(ByProducts(g), g, rtol)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_default_solve_in_high_dimension(dtype):
    """Conjugate gradients: no d x d array in the program, derivatives, any size of the right side, zero too."""
    d, eps = 90, np.finfo(dtype).eps
    rows, w = random(0, 2, d, dtype=dtype) / 4, random(1, d, dtype=dtype)
    matrix = np.eye(d) + np.asarray(rows, float).T @ np.asarray(rows, float)
    expected = np.linalg.solve(matrix, np.asarray(w, float))
    solve = jax.jit(lambda rows, w: Outside(rows).solve(w))
    for size in (1.0, 1e-12, 1e9):
        value = solve(rows, w * dtype(size))
        assert value.dtype == dtype
        np.testing.assert_allclose(value, size * expected, rtol=0, atol=1e3 * eps * size * np.abs(expected).max())
    np.testing.assert_array_equal(solve(rows, 0 * w), 0)
    assert f"{d},{d}]" not in str(jax.make_jaxpr(solve)(rows, w))

    # d(w^T G^-1 w) = -(G^-1 w)^T dG (G^-1 w), in reverse mode.
    gradient = jax.grad(lambda rows: w @ Outside(rows).solve(w))(rows)
    by_hand = -2 * np.outer(np.asarray(rows, float) @ expected, expected)
    np.testing.assert_allclose(gradient, by_hand, rtol=0, atol=1e4 * eps * np.abs(by_hand).max())


def test_the_default_solve_says_where_it_fails():
    """A matrix too ill-conditioned for conjugate gradients: NaN, not numbers."""
    scales = jnp.asarray(np.geomspace(1e-18, 1e18, 80))
    assert np.isnan(ByProducts(jnp.diag(scales)).solve(jnp.ones(80))).all()


@pytest.mark.slow
def test_the_default_solve_of_many_in_single_precision():
    """None goes on beyond what rounding lets it reach, where conjugate gradients end in NaN."""
    factor = random(0, 300, 300, dtype=np.float32) / 5
    product = ByProducts(jnp.eye(300, dtype=np.float32) + factor.T @ factor)  # eigenvalues from 1 to 48
    signs = jax.random.rademacher(jax.random.key(0), (64, 300), np.float32)
    expected = np.linalg.solve(np.asarray(product.array, float), np.asarray(signs, float).T).T
    np.testing.assert_allclose(jax.jit(jax.vmap(product.solve))(signs), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_defaults_warn_of_large_matrices_once():
    """Above d = 64, when traced, naming class and method; `solve` and `matrix` do not: the first forms none, the second
    was asked for one."""
    _warn_of_matrix.cache_clear()
    product, v = ByProducts(spd(0, 65)), jnp.ones(65)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        product.solve(v)
        product.matrix(65)
        ByProducts(spd(0, 64)).sqrt_mv(jnp.ones(64))
    calls = {
        "logdet": lambda product, v: product.logdet(v.size),
        "sqrt_mv": lambda product, v: product.sqrt_mv(v),
        "inv_sqrt_mv": lambda product, v: product.inv_sqrt_mv(v),
    }
    for name, call in calls.items():
        with pytest.warns(UserWarning, match=rf"ByProducts\.{name} .*65 x 65.* write `{name}`"):
            jax.jit(call).lower(product, v)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(product, v)


def test_logdet_needs_a_dimension():
    with pytest.raises(TypeError, match=r"`logdet` of ByProducts needs the dimension"):
        ByProducts(spd(0, 3)).logdet()

    class WithDim(AbstractInnerProduct):
        dim: int = eqx.field(static=True)

        def mv(self, v):
            return 2.0 * v

    np.testing.assert_allclose(WithDim(3).logdet(), 3 * np.log(2), rtol=1e-14)


def rows_of(kind, k, d, dtype=np.float64):
    rows = np.array(random(k + d, k, d))
    if kind == "zero":
        rows = 0 * rows
    elif kind == "dependent":
        rows[-1] = rows[0] if k < 3 else rows[0] - 2 * rows[1]
    elif kind == "tiny":
        rows = 1e-9 * rows
    elif kind == "some zero":
        rows[0] = 0
    return jnp.asarray(rows.astype(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "zero", "dependent", "tiny", "some zero"])
@pytest.mark.parametrize("d", [1, 5])
def test_low_rank_update(kind, d):
    """Ranks 1, 3 and 7, also above d; weights over four orders of magnitude, one of them zero."""
    for k in (1, 3, 7):
        rows, weights = rows_of(kind, k, d), jnp.asarray(np.geomspace(1e-2, 1e2, k)).at[k // 2].multiply(k != 7)
        check(LowRankUpdate(rows, weights), np.eye(d) + rows.T @ (weights[:, None] * rows), 3e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "zero", "dependent"])
def test_low_rank_update_in_float32(kind):
    rows, weights = rows_of(kind, 3, 8, np.float32), jnp.asarray([0.1, 1.0, 5.0], np.float32)
    check(LowRankUpdate(rows, weights), np.eye(8) + np.asarray(rows.T @ (weights[:, None] * rows), float), 2e-5)
    # The weights take the precision of the rows, as every parameter takes that of the points.
    assert LowRankUpdate(rows, jnp.ones(3)).mv(jnp.ones(8, jnp.float32)).dtype == jnp.float32


def test_low_rank_update_of_one_row_is_identity_plus_rank_one():
    u, strength = random(0, 6), jnp.asarray(2.5)
    one = IdentityPlusRankOne(u, strength)
    check(one, LowRankUpdate(u[None], strength[None]).matrix(6))
    none, update = as_low_rank_update(one)
    assert none is None
    np.testing.assert_array_equal(update.factors, u[None])
    np.testing.assert_array_equal(update.weights, strength[None])


def test_logdet_of_small_rows_keeps_its_digits():
    """Rank two, where 1 + x rounds x away: det = (1 + a)(1 + b) - c^2 with the entries of the Gram matrix."""
    rows = 1e-9 * random(3, 2, 4)
    np.testing.assert_allclose(LowRankUpdate(rows, jnp.ones(2)).logdet(), jnp.sum(rows**2), rtol=1e-14)


def test_low_rank_update_without_rows():
    product = LowRankUpdate(jnp.zeros((0, 3)), jnp.zeros(0))
    check(product, np.eye(3))
    np.testing.assert_array_equal(as_diagonal(product), np.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mv", "solve", "sqrt_mv", "inv_sqrt_mv", "logdet", "squared_norm"])
def test_derivatives_of_low_rank_updates(method):
    """Against those of the matrix, by central differences, in rows and weights: also where eigenvalues coincide."""
    v, direction = random(5, 4), (random(6, 3, 4), random(7, 3))

    @jax.jit
    @jax.vmap
    def compare(rows):
        def along(h):
            product = LowRankUpdate(rows + h * direction[0], jnp.array([0.5, 1.0, 2.0]) + h * direction[1])
            return product.logdet() if method == "logdet" else jnp.sum(jnp.sin(getattr(product, method)(v)))

        return jax.grad(along)(0.0), jax.vmap(along)(jnp.array([1e-5, -1e-5]))

    slopes, values = compare(jnp.stack([rows_of(kind, 3, 4) for kind in ("zero", "dependent", "full")]))
    np.testing.assert_allclose(slopes, (values[:, 0] - values[:, 1]) / 2e-5, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
def test_weights_of_zero_have_derivatives():
    """d/dc at c = 0, where the metric is Euclid's: of G^-1 v it is -u (u . v), of log det |u|^2."""
    u, v = random(0, 4), random(1, 4)
    slope = jax.jacobian(lambda c: LowRankUpdate(u[None], c[None]).solve(v))(0.0)
    np.testing.assert_allclose(slope, -u * (u @ v), rtol=1e-13)
    np.testing.assert_allclose(jax.grad(lambda c: LowRankUpdate(u[None], c[None]).logdet())(0.0), u @ u, rtol=1e-13)


@pytest.mark.slow
def test_what_is_not_positive_gives_nan():
    """Not numbers: indefinite matrices, negative weights, factors that are not positive."""
    v = jnp.array([1.0, 0.3])
    indefinite = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    for product in (
        DenseInnerProduct(indefinite),
        ByProducts(indefinite),
        LowRankUpdate(jnp.eye(2), jnp.array([1.0, -0.5])),
        Scaled(-1.0, IdentityPlusRankOne(v, jnp.asarray(1.0))),
        Scaled(0.0, DiagonalInnerProduct(v)),
        scale(DenseInnerProduct(jnp.eye(2)), -1.0),
        scale(DiagonalInnerProduct(v), -1.0),
    ):
        assert np.isnan(product.solve(v)).all(), product
        assert np.isnan(product.logdet(2)), product
        assert np.isnan(product.sqrt_mv(v)).all(), product


def test_shapes_of_low_rank_updates():
    for factors, weights in (((3,), (3,)), ((2, 3), (3,)), ((2, 3), ())):
        with pytest.raises(ValueError, match=r"`factors` must have shape \(k, d\) and `weights` \(k,\), got"):
            LowRankUpdate(jnp.ones(factors), jnp.ones(weights))


def products(d, dtype=np.float64):
    """One inner product of each kind."""
    one = IdentityPlusRankOne(random(1, d, dtype=dtype), jnp.asarray(2.0, dtype))
    return {
        "rank one": one,
        "rank three": LowRankUpdate(random(2, 3, d, dtype=dtype), jnp.asarray([0.5, 1.0, 3.0], dtype)),
        "scaled rank one": Scaled(jnp.asarray(0.3, dtype), one),
        "declared": Outside(random(3, 2, d, dtype=dtype)),
        "diagonal": DiagonalInnerProduct(jnp.exp(random(4, d, dtype=dtype))),
        "dense": DenseInnerProduct(spd(5, d, dtype)),
        "products": ByProducts(spd(6, d, dtype)),
    }


LOW_RANK = {"rank one", "rank three", "scaled rank one", "declared"}


def kind_of_sum(a, b):
    if {a, b} <= LOW_RANK:
        return Scaled
    if "dense" in (a, b):
        return DenseInnerProduct
    return DiagonalInnerProduct if a == b == "diagonal" else Sum


@pytest.mark.slow
@pytest.mark.parametrize("a", list(products(1)))
def test_sums_keep_structure(a):
    d, kinds = 4, list(products(1))
    left = products(d)[a]
    for b, right in products(d).items():
        total = add(left, right)
        assert type(total) is kind_of_sum(a, b), (a, b)
        if {a, b} <= LOW_RANK:
            assert type(total.inner_product) is LowRankUpdate
        expected = np.asarray(left.matrix(d)) + np.asarray(right.matrix(d))
        np.testing.assert_allclose(total.matrix(d), expected, rtol=1e-13, atol=1e-13)
        # The algebra of the other types is tested above, and that of b + a is that of a + b.
        if type(total) is Sum and kinds.index(a) <= kinds.index(b):
            check(total, expected, 3e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 3e-12), (np.float32, 2e-5)])
@pytest.mark.parametrize("name", list(products(1)))
def test_scalings_keep_structure(name, dtype, rtol):
    product, factor = products(4, dtype)[name], jnp.asarray(2.5, dtype)
    scaled = scale(product, factor)
    expected = {"diagonal": DiagonalInnerProduct, "dense": DenseInnerProduct}.get(name, Scaled)
    assert type(scaled) is expected
    assert (as_low_rank_update(scaled) is not None) == (name in LOW_RANK)
    check(scaled, 2.5 * np.asarray(product.matrix(4), float), rtol)
    check(Scaled(factor, product), 2.5 * np.asarray(product.matrix(4), float), rtol)


def test_questions():
    """Only the types that have a structure answer, scalings with them."""
    answers = {
        as_diagonal: {"diagonal"},
        as_dense: {"dense"},
        as_low_rank_update: LOW_RANK,
    }
    for question, expected in answers.items():
        for wrap in (lambda product: product, lambda product: Scaled(2.0, product)):
            assert {name for name, p in products(3).items() if question(wrap(p)) is not None} == expected
    np.testing.assert_allclose(as_dense(Scaled(2.0, DenseInnerProduct(spd(0, 3)))), 2 * spd(0, 3))
    factor, update = as_low_rank_update(Scaled(2.0, Scaled(3.0, products(3)["declared"])))
    np.testing.assert_allclose(factor, 6.0)
    np.testing.assert_array_equal(update.factors, products(3)["declared"].rows)
    for call in (lambda: add(1.0, 2.0), lambda: scale("x", 2.0)):
        with pytest.raises(TypeError, match="only inner products and metrics can be"):
            call()
