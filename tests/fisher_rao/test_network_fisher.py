"""The Fisher operator of networks against dense Jacobians, sampled labels and log densities; the natural gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from scoregeo import RESULTS
from scoregeo.fisher_rao.network import (
    BernoulliLogits,
    CategoricalLogits,
    NetworkFisher,
    NormalMeans,
    PoissonLogRates,
)

SD = np.array([0.5, 1.0, 2.0])
LIKELIHOODS = {
    "categorical": CategoricalLogits(),
    "bernoulli": BernoulliLogits(),
    "poisson": PoissonLogRates(),
    "normal": NormalMeans(SD),
}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 5, rngs=rngs, param_dtype=jnp.float64)
        self.out = nnx.Linear(5, 3, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


GRAPHDEF, PARAMS = nnx.split(Net(nnx.Rngs(0)))
INPUTS = np.random.default_rng(0).normal(size=(6, 4))


def apply(params, x):
    return nnx.merge(GRAPHDEF, params)(x)


def covariance_of_score(name, z):
    """E[u u^T] for one output z, from probabilities of labels: sums over all of them, and moments of the normal."""
    if name == "normal":
        return np.diag(1 / SD**2)
    if name == "categorical":
        p = np.exp(z) / np.exp(z).sum()
        u = np.eye(3) - p  # rows: the Fisher score of each class
        return u.T @ np.diag(p) @ u
    if name == "bernoulli":
        p = 1 / (1 + np.exp(-z))
        return np.diag(p * (1 - p) ** 2 + (1 - p) * p**2)
    counts, rate = np.arange(100), np.exp(z)[:, None]
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, 100)))])
    return np.diag(np.sum(np.exp(counts * np.log(rate) - rate - log_factorial) * (counts - rate) ** 2, 1))


def dense(name):
    flat, unravel = ravel_pytree(PARAMS)
    outputs = jax.jit(lambda flat: apply(unravel(flat), INPUTS))
    z, jacobian = np.asarray(outputs(flat)), np.asarray(jax.jacrev(outputs)(flat))
    return sum(j.T @ covariance_of_score(name, zi) @ j for zi, j in zip(z, jacobian, strict=True)) / len(z)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_operator(name):
    """Products equal those with the dense matrix, in both precisions; the natural gradient solves the dense system."""
    flat, unravel = ravel_pytree(PARAMS)
    matrix = dense(name)
    damping = 0.03

    @jax.jit
    def both(params, inputs, v):
        fisher = NetworkFisher(apply, params, inputs, LIKELIHOODS[name], damping=damping)
        return fisher.mv(v), fisher.natural_gradient(v, rtol=1e-9, max_steps=300, throw=False)

    v = np.random.default_rng(1).normal(size=flat.size)
    product, solved = both(PARAMS, INPUTS, unravel(jnp.asarray(v)))
    damped = matrix + damping * np.eye(flat.size)
    np.testing.assert_allclose(ravel_pytree(product)[0], damped @ v, rtol=1e-10, atol=1e-12)
    assert bool(solved.result == RESULTS.successful)
    assert 0 < float(solved.residual) <= 1e-9
    np.testing.assert_allclose(ravel_pytree(solved.direction)[0], np.linalg.solve(damped, v), rtol=1e-6, atol=1e-7)
    if name == "categorical":
        single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (PARAMS, INPUTS, unravel(jnp.asarray(v))))
        product, _ = both(*single)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(product))
        np.testing.assert_allclose(ravel_pytree(product)[0], damped @ v, rtol=1e-4, atol=1e-5)


def test_sampled_labels():
    """E[g g^T] over sampled labels, with g the gradient of the log likelihood of the weights, within 5 standard
    errors."""
    flat, unravel = ravel_pytree(PARAMS)
    n = 20_000

    @jax.jit
    def moments(key):
        z = apply(PARAMS, INPUTS)
        keys = jax.random.split(key, len(INPUTS))
        labels = jax.vmap(lambda key, z: jax.random.categorical(key, z, shape=(n,)))(keys, z)
        jacobian = jax.jacrev(lambda flat: apply(unravel(flat), INPUTS))(flat)
        score = jax.nn.one_hot(labels, 3) - jax.nn.softmax(z)[:, None]
        g = jnp.einsum("bnk,bkp->bnp", score, jacobian)[..., -18:]  # the last layer
        squares = jnp.mean(g**2, 1)
        return jnp.mean(squares, 0), jnp.sqrt(jnp.mean(jnp.var(g**2, 1), 0) / n / len(INPUTS))

    mean, error = moments(jax.random.key(0))
    assert np.all(np.abs(np.asarray(mean) - np.diagonal(dense("categorical"))[-18:]) < 5 * np.asarray(error))


def test_invariance_and_status():
    """The natural gradient does not depend on how the weights are parametrised, undamped; failures are reported."""
    inputs, targets = np.random.default_rng(2).normal(size=(2, 20, 3))
    change = np.array([[2.0, 0.3, 0.0], [0.0, 0.5, 0.2], [0.1, 0.0, 1.5]])
    w = np.ones((3, 3))

    def step(apply, w):
        def loss(w):
            return 0.5 * jnp.mean(jnp.sum((apply(w, inputs) - targets) ** 2, -1))

        return NetworkFisher(apply, w, inputs, NormalMeans()).natural_gradient(jax.grad(loss)(w), rtol=1e-10)

    plain = step(lambda w, x: x @ w, w).direction
    changed = step(lambda w, x: x @ (change @ w), np.linalg.solve(change, w)).direction
    np.testing.assert_allclose(change @ changed, plain, rtol=1e-7)
    # For least squares the natural gradient step is Newton's: it lands on the solution.
    solution = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    np.testing.assert_allclose(w - plain, solution, rtol=1e-8, atol=1e-9)

    fisher = NetworkFisher(lambda w, x: x @ w, w, inputs, NormalMeans(), damping=1e-3)
    gradient = jnp.asarray(np.random.default_rng(3).normal(size=(3, 3)))
    short = fisher.natural_gradient(gradient, rtol=1e-10, max_steps=1, throw=False)
    assert bool(short.result == RESULTS.max_steps_reached)
    left = np.asarray(fisher.mv(short.direction) - gradient)
    np.testing.assert_allclose(short.residual, np.linalg.norm(left) / np.linalg.norm(gradient), rtol=1e-10)
    assert float(short.residual) > 1e-3
    with pytest.raises(RuntimeError, match=r"singular.* larger `damping` of .*`max_steps`"):
        fisher.natural_gradient(gradient, rtol=1e-10, max_steps=1)
    wrong = fisher.natural_gradient(gradient.at[0, 0].set(jnp.nan), throw=False)
    assert bool(wrong.result == RESULTS.nonfinite)
    zero = fisher.natural_gradient(jnp.zeros((3, 3)))
    assert float(zero.residual) == 0
    assert not np.any(zero.direction)


def test_bad_input():
    def linear(w, x):
        return x @ w

    w, x = jnp.ones((2, 1)), jnp.ones((3, 2))
    with pytest.raises(TypeError, match="`likelihood` must be one such as CategoricalLogits"):
        NetworkFisher(linear, w, x, "categorical")
    with pytest.raises(ValueError, match="`damping` must be a number that is not negative, got -1"):
        NetworkFisher(linear, w, x, NormalMeans(), damping=-1.0)
    with pytest.raises(ValueError, match=r"`apply` must return an array of shape \(n, k\)"):
        NetworkFisher(lambda w, x: (x @ w)[:, 0], w, x, NormalMeans())
    with pytest.raises(TypeError, match="`params` must be"):
        NetworkFisher(linear, "weights", x, NormalMeans())
    with pytest.raises(ValueError, match="`sd` must be positive"):
        NormalMeans(0.0)
    fisher = NetworkFisher(linear, w, x, NormalMeans())
    with pytest.raises(ValueError, match="`v` must be a pytree like the weights"):
        fisher.mv(jnp.ones(2))
    with pytest.raises(ValueError, match="`gradient` must be a pytree like the weights"):
        fisher.natural_gradient({"w": w})
    with pytest.raises(ValueError, match="`rtol` must be between 0 and 1"):
        fisher.natural_gradient(w, rtol=0.0)
