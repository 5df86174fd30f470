"""The Fisher information of a network's weights, as an operator, and the natural gradient.

A network with weights w turns an input into the parameters z = f(w; input) of a distribution of the label. With the
Jacobian J of z and the Fisher matrix F_z of that distribution,

    F(w) = mean over inputs of  J^T F_z J,                                                                 (1)

so that F v costs one Jacobian-vector product and one vector-Jacobian product. No matrix is formed.
"""

import abc
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, PyTree

from .._checks import as_float, check_count, is_concrete
from .._function import TracedFunction
from .._results import RESULTS, first_failure, raise_if_failed
from .._types import Scalar

_ADVICE = (
    "Conjugate gradients did not reach `rtol`: the Fisher information may be singular, where outputs do not depend on "
    "all weights, or ill-conditioned. Try a larger `damping` of the NetworkFisher, or more `max_steps`; and check that "
    "`gradient` is finite."
)


class AbstractLikelihood(eqx.Module):
    """The distribution of a label, given the output of a network."""

    @abc.abstractmethod
    def fisher_mv(self, z: Float[Array, "n k"], v: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """``F_z v`` for each output: its Fisher information, with respect to the output, times ``v``."""


class CategoricalLogits(AbstractLikelihood):
    """One of k classes, with probabilities ``softmax(z)``."""

    def fisher_mv(self, z: Float[Array, "n k"], v: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """``(diag(p) - p p^T) v``."""
        p = jax.nn.softmax(z, -1)
        return p * (v - jnp.sum(p * v, -1, keepdims=True))


class BernoulliLogits(AbstractLikelihood):
    """Independent yes or no for each output, with probabilities ``sigmoid(z)``."""

    def fisher_mv(self, z: Float[Array, "n k"], v: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """``p (1 - p) v``."""
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z) * v


class PoissonLogRates(AbstractLikelihood):
    """Independent counts for each output, with rates ``exp(z)``."""

    def fisher_mv(self, z: Float[Array, "n k"], v: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """``exp(z) v``."""
        return jnp.exp(z) * v


class NormalMeans(AbstractLikelihood):
    """Independent normal labels with means ``z`` and the given standard deviation ``sd``, a number or ``(k,)``."""

    sd: Array

    def __init__(self, sd: Any = 1.0):
        self.sd = as_float(sd, "sd")
        if is_concrete(self.sd) and not bool((self.sd > 0).all()):
            raise ValueError(f"`sd` must be positive, got {sd!r}")

    def fisher_mv(self, z: Float[Array, "n k"], v: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """``v / sd^2``."""
        return v / self.sd.astype(v.dtype) ** 2


class NaturalGradient(eqx.Module):
    """What `NetworkFisher.natural_gradient` found: ``direction``, a pytree like the weights; the relative ``residual``
    ``|(F + damping I) direction - gradient| / |gradient|``, computed anew at the end; and ``result``, a code of
    `RESULTS`, by that residual."""

    direction: PyTree
    residual: Scalar
    result: RESULTS


class NetworkFisher(eqx.Module):
    """The Fisher information (1) of a network's weights, averaged over ``inputs``, plus ``damping`` times the identity.

    **Arguments**

    - ``apply``: function ``(params, inputs) -> z`` of all inputs at once, with ``z`` of shape ``(n, k)``; any function,
      such as ``lambda params, x: nnx.merge(graphdef, params)(x)`` of a flax network after
      ``graphdef, params = nnx.split(network)``.
    - ``params``: the weights, a pytree of floating-point arrays.
    - ``inputs``: an array, or a pytree of arrays, with leading axis n.
    - ``likelihood``: what the outputs mean: `CategoricalLogits`, `BernoulliLogits`, `PoissonLogRates` or `NormalMeans`.
    - ``damping``: not negative; makes the operator positive definite where outputs do not depend on all weights.

    Weights, inputs and damping are traced. The memory of a product is that of one backward pass over ``inputs``.

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import NetworkFisher, NormalMeans
    >>> fisher = NetworkFisher(lambda w, x: x @ w, jnp.ones((2, 1)), jnp.eye(2), NormalMeans())
    >>> fisher.mv(jnp.array([[1.0], [3.0]])).tolist()  # X^T X / n
    [[0.5], [1.5]]
    """

    apply: TracedFunction
    params: PyTree
    inputs: PyTree
    likelihood: AbstractLikelihood
    damping: Scalar

    def __init__(
        self,
        apply: Callable[[PyTree, PyTree], Float[Array, "n k"]],
        params: PyTree,
        inputs: PyTree,
        likelihood: AbstractLikelihood,
        *,
        damping: float | Scalar = 0.0,
    ):
        self.apply = TracedFunction(apply, "apply")
        if not isinstance(likelihood, AbstractLikelihood):
            raise TypeError(f"`likelihood` must be one such as CategoricalLogits(), got {type(likelihood).__name__}")
        self.params = jax.tree.map(lambda leaf: as_float(leaf, "params"), params)
        self.inputs = jax.tree.map(jnp.asarray, inputs)
        self.likelihood = likelihood
        self.damping = as_float(damping, "damping")
        if self.damping.ndim != 0 or (is_concrete(self.damping) and not float(self.damping) >= 0):
            raise ValueError(f"`damping` must be a number that is not negative, got {damping!r}")
        z = jax.eval_shape(self.apply, self.params, self.inputs)
        if not (eqx.is_array(z) or isinstance(z, jax.ShapeDtypeStruct)) or z.ndim != 2:
            raise ValueError(f"`apply` must return an array of shape (n, k), got {z}")

    def mv(self, v: PyTree) -> PyTree:
        """``(F + damping I) v``, for ``v`` a pytree like the weights."""
        self._check_like_params(v, "v")

        def outputs(params):
            return self.apply(params, self.inputs)

        z, tangent = jax.jvp(outputs, (self.params,), (v,))
        (product,) = jax.vjp(outputs, self.params)[1](self.likelihood.fisher_mv(z, tangent) / len(z))
        return jax.tree.map(lambda p, v: p + self.damping.astype(v.dtype) * v, product, v)

    def natural_gradient(
        self, gradient: PyTree, *, rtol: float = 1e-4, max_steps: int = 200, throw: bool = True
    ) -> NaturalGradient:
        """The solution of ``(F + damping I) direction = gradient`` by conjugate gradients, a pytree like the weights.

        **Arguments**

        - ``gradient``: of a loss with respect to the weights, such as ``jax.grad`` gives.
        - ``rtol``: the residual, relative to ``gradient``, to reach.
        - ``max_steps``: products with the operator, at most.
        - ``throw``: raise an error if the residual is not reached; otherwise see ``result``. More ``damping`` makes it
          easier. Inside a trace nothing is raised: ``direction`` is NaN then.
        """
        self._check_like_params(gradient, "gradient")
        check_count("max_steps", max_steps)
        if not 0 < rtol < 1:
            raise ValueError(f"`rtol` must be between 0 and 1, got {rtol!r}")
        # Half of rtol, because the residual that conjugate gradients carry along drifts from the true one.
        direction, _ = cg(self.mv, gradient, tol=rtol / 2, maxiter=max_steps)
        norm = _norm(gradient)
        residual = _norm(jax.tree.map(jnp.subtract, self.mv(direction), gradient)) / jnp.where(norm > 0, norm, 1)
        # To a type checker, codes that are inherited belong to the class of optimistix alone.
        steps_reached, nonfinite = cast(tuple[RESULTS, RESULTS], (RESULTS.max_steps_reached, RESULTS.nonfinite))
        result = first_failure([(~jnp.isfinite(residual), nonfinite), (residual > rtol, steps_reached)])
        if throw:
            direction = raise_if_failed(direction, result, _ADVICE)
        return NaturalGradient(direction, residual, result)

    def _check_like_params(self, tree: PyTree, name: str) -> None:
        def shapes(tree):
            return jax.tree.map(jnp.shape, tree)

        if jax.tree.structure(tree) != jax.tree.structure(self.params) or shapes(tree) != shapes(self.params):
            raise ValueError(f"`{name}` must be a pytree like the weights, {shapes(self.params)}, got {shapes(tree)}")


def _norm(tree: PyTree) -> Scalar:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
