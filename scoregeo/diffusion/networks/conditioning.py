"""What a network is told besides the point: the noise level, and perhaps a condition.

A condition is a class (an integer label) or a vector. A network that takes one also takes "no condition": ``None`` in
its place, the label ``-1``, or for vectors a pair ``(vector, False)``. All three give the same learned embedding, so
one network holds the score with and without the condition, and training drops conditions at random (`drop_condition`;
Ho & Salimans 2022, arXiv 2207.12598). The label and the second entry of the pair are arrays and may be traced.
"""

import abc
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool

from ..._checks import as_array, as_native, check_count, is_concrete, is_integer
from ..._types import Point, Scalar, Vector

# Angular frequencies of the noise features. log(sigma)/4 runs over about [-1.6, 1.1]: the highest one resolves a factor
# of about two in sigma, beyond which a denoiser hardly changes.
_FREQUENCIES = (1.0, 2.0, 4.0, 8.0)
NOISE_FEATURES = 1 + 2 * len(_FREQUENCIES)


def noise_features(c_noise: Scalar) -> Vector:
    """Fourier features of the noise coordinate, with the coordinate itself; shape ``(9,)``."""
    angles = jnp.asarray(_FREQUENCIES, jnp.result_type(c_noise)) * c_noise
    return jnp.concatenate([jnp.reshape(c_noise, (1,)), jnp.sin(angles), jnp.cos(angles)])


def drop_condition(condition: Any, drop: Bool[Array, "..."]) -> Any:
    """The condition, or "no condition" where ``drop`` is true; both may be traced.

    **Arguments**

    - ``condition``: an integer label, a floating-point vector ``(m,)``, or a pair ``(vector, given)``.
    - ``drop``: a boolean.

    **Returns** what a network takes: a label (``-1`` where dropped), or a pair ``(vector, given)``. A batch of labels
    ``(n,)`` or vectors ``(n, m)`` with ``drop`` of shape ``(n,)`` gives a batch, to be mapped over with the network.

    >>> import jax.numpy as jnp
    >>> from scoregeo.diffusion import drop_condition
    >>> drop_condition(jnp.array([3, 7]), jnp.array([True, False])).tolist()
    [-1, 7]
    """
    if isinstance(condition, tuple):
        vector, given = condition
        return vector, jnp.logical_and(given, jnp.logical_not(drop))
    condition = as_array(condition, "condition")
    if jnp.issubdtype(condition.dtype, jnp.integer):
        return jnp.where(drop, -1, condition.astype(jnp.int32))
    return condition, jnp.logical_not(drop)


def is_no_condition(condition: Any) -> bool:
    """Whether a condition that some network takes is known to be "no condition"; false for one that is traced."""
    if isinstance(condition, tuple):
        return is_concrete(condition[1]) and not condition[1]
    if condition is None or not is_concrete(condition):
        return condition is None
    return np.ndim(condition) == 0 and int(condition) == -1


class ConditionalNetwork(nnx.Module):
    """What the networks of this package share: checked settings, one door for points and conditions, and ``to_dict``.

    Subclasses list their own settings by name, and compute ``output(x, c_noise, condition)`` for what `__call__` has
    checked.
    """

    conservative = False
    settings: tuple[str, ...] = ()
    optional_settings = ("classes", "condition_dim", "compute_dtype")

    def __init__(self, dim: int, classes: int | None, condition_dim: int | None, compute_dtype: Any):
        classes = None if classes is None else check_count("classes", classes)
        condition_dim = None if condition_dim is None else check_count("condition_dim", condition_dim)
        if classes is not None and condition_dim is not None:
            raise ValueError(
                "`classes` and `condition_dim` are two kinds of condition, and a network takes one: "
                f"one must be None, got {classes} and {condition_dim}"
            )
        self.dim, self.classes, self.condition_dim = dim, classes, condition_dim
        self.compute_dtype = _as_compute_dtype(compute_dtype)

    def __call__(self, x: Point, c_noise: Scalar, condition: Any = None) -> Vector:
        """The output at one point ``x`` of shape ``(d,)``, in the dtype of ``x``; ``c_noise`` is a scalar.

        ``condition`` is a label in ``0 .. classes - 1``, or a vector ``(condition_dim,)``; for "no condition" it is
        ``None``, the label ``-1``, or a pair ``(vector, False)``. Raises ``ValueError`` for a condition that this
        network does not take; a traced label out of range gives NaN.
        """
        if jnp.shape(x) != (self.dim,):
            raise ValueError(f"`x` must have shape ({self.dim},), got {jnp.shape(x)}; use jax.vmap for a batch")
        condition = self._checked(condition, x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32)
        return self.output(x, c_noise, condition).astype(jnp.result_type(x, 0.0))

    @abc.abstractmethod
    def output(self, x: Point, c_noise: Scalar, condition: Any) -> Vector:
        """The output, shape ``(d,)``; ``condition`` is what a `ConditionEmbedding` takes."""

    def to_dict(self) -> dict[str, Any]:
        """What `network_from_dict` needs to build this network (without its weights); JSON can hold it."""
        values = {name: getattr(self, name) for name in (*self.settings, *self.optional_settings)}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        compute = None if self.compute_dtype is None else str(self.compute_dtype)
        return {"kind": type(self).__name__} | values | {"compute_dtype": compute}

    def condition_embedding(self, features: int, *, dtype: Any, rngs: nnx.Rngs) -> "ConditionEmbedding | None":
        """A new embedding of this network's conditions, or ``None`` if it takes none."""
        if self.classes is None and self.condition_dim is None:
            return None
        return ConditionEmbedding(features, self.classes, self.condition_dim, self.compute_dtype, dtype, rngs)

    def _checked(self, condition: Any, dtype: Any) -> Any:
        """The row of the label's embedding, a pair ``(vector, given)``, or ``None`` for a network without conditions.

        Whatever says "no condition" becomes the last row, or a pair whose ``given`` is false.
        """
        kind = type(self).__name__
        if self.classes is not None:
            return self.classes if condition is None else _as_row(condition, self.classes, kind)
        if self.condition_dim is not None:
            return _as_pair(condition, self.condition_dim, kind, dtype)
        if condition is not None:
            raise ValueError(
                f"`condition` must be None: this {kind} takes no conditions (make it with `classes` or `condition_dim`)"
            )
        return None


class ConditionEmbedding(nnx.Module):
    """A learned vector of ``features`` entries for a condition, with a vector of its own for "no condition"."""

    def __init__(
        self,
        features: int,
        classes: int | None,
        condition_dim: int | None,
        compute_dtype: Any,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.compute_dtype = compute_dtype
        normal = nnx.initializers.normal(1.0)
        if classes is not None:
            self.linear, self.rows = None, nnx.Param(normal(rngs.params(), (classes + 1, features), dtype))
        else:
            assert condition_dim is not None  # a network that takes no conditions has no embedding of them
            self.linear = nnx.Linear(
                condition_dim, features, use_bias=False, dtype=compute_dtype, param_dtype=dtype, rngs=rngs
            )
            self.rows = nnx.Param(normal(rngs.params(), (1, features), dtype))

    def __call__(self, condition: Any) -> Vector:
        """The embedding of a row number, or of a pair ``(vector, given)``; shape ``(features,)``."""
        rows = self.rows[...] if self.compute_dtype is None else self.rows[...].astype(self.compute_dtype)
        if self.linear is None:
            return jnp.take(rows, condition, axis=0, mode="fill", fill_value=jnp.nan)
        vector, given = condition
        # The vector is replaced by zeros first: it may hold NaN, which would reach the gradient through `where`.
        return jnp.where(given, self.linear(jnp.where(given, vector, 0)), rows[0])


class LevelEmbedding(nnx.Module):
    """A learned vector for noise level and condition together (Karras et al. 2022, arXiv 2206.00364, app. F.2)."""

    def __init__(self, features: int, network: ConditionalNetwork, *, dtype: Any, rngs: nnx.Rngs):
        settings = {"dtype": network.compute_dtype, "param_dtype": dtype, "rngs": rngs}
        self.first = nnx.Linear(NOISE_FEATURES, features, **settings)
        self.second = nnx.Linear(features, features, **settings)
        self.condition = network.condition_embedding(features, dtype=dtype, rngs=rngs)

    def __call__(self, c_noise: Scalar, condition: Any) -> Vector:
        """The embedding, shape ``(features,)``."""
        h = self.first(noise_features(c_noise))
        if self.condition is not None:
            h = h + self.condition(condition)
        return nnx.silu(self.second(nnx.silu(h)))


def as_sizes(name: str, values: Any, length: int | None = None) -> tuple[int, ...]:
    """A tuple of integers of at least 1, of the given length if one is given; raises ``ValueError`` naming it."""
    expected = "a sequence" if length is None else f"{length}"
    good = isinstance(values, list | tuple) and (length is None or len(values) == length)
    if not good or not all(is_integer(v) and v >= 1 for v in values):
        raise ValueError(f"`{name}` must be {expected} of integers of at least 1, got {values!r}")
    return tuple(int(v) for v in values)


def sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of images of ``shape`` ``(h, w, c)``; of one row, which are sequences, the length alone."""
    h, w, _ = shape
    return (w,) if h == 1 else (h, w)


def _as_compute_dtype(value: Any) -> Any:
    if value is None:
        return None
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"`compute_dtype` must be None or a floating-point type such as jnp.bfloat16, got {value!r}")
    return dtype


def _as_row(condition: Any, classes: int, kind: str) -> Array:
    # A concrete label is looked at with NumPy: inside `jit` even jax.numpy of a concrete array is traced.
    look = is_concrete(condition) and not isinstance(condition, tuple)
    label = as_native(condition, f"`condition` of this {kind}", ValueError) if look else condition
    if isinstance(label, tuple) or label.shape != () or not jnp.issubdtype(label.dtype, jnp.integer):
        got = "a tuple" if isinstance(label, tuple) else f"shape {label.shape} and dtype {label.dtype}"
        raise ValueError(f"`condition` of this {kind} must be an integer label of shape (), got {got}")
    if is_concrete(label) and not -1 <= int(label) < classes:
        raise ValueError(
            f"`condition` of this {kind} must be a label from 0 to {classes - 1}, or -1 for no condition, "
            f"got {int(label)}"
        )
    # The type is made signed first: in an unsigned one, -1 would be its largest number.
    label = jnp.asarray(label).astype(jnp.int32)
    inside = jnp.logical_and(label >= -1, label < classes)
    # A label out of range becomes a row that does not exist, which gives NaN: it must not count as another one.
    return jnp.where(inside, jnp.where(label == -1, classes, label), classes + 1)


def _as_pair(condition: Any, size: int, kind: str, dtype: Any) -> tuple[Vector, Array]:
    if condition is None:
        return jnp.zeros(size, dtype), jnp.array(False)
    vector, given = condition if isinstance(condition, tuple) and len(condition) == 2 else (condition, True)
    vector, given = as_array(vector, "condition"), jnp.asarray(given)
    if vector.shape != (size,) or given.shape != ():
        raise ValueError(
            f"`condition` of this {kind} must be a vector of shape ({size},), or a pair of it and a boolean, "
            f"got shape {vector.shape}" + (f" and {given.shape}" if isinstance(condition, tuple) else "")
        )
    return vector.astype(dtype), given.astype(bool)
