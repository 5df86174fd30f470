"""What a data set is: points, and the change of units between them and the data that they came from."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import as_float, as_point, as_points, check_finite, is_concrete
from .._types import Point, Points, Scalar
from ..scores import AbstractScore


class Standardization(eqx.Module):
    """The affine change of units ``z = (x - mean) / scale``, kept so that it can be undone.

    **Arguments**

    - ``mean``: ``(d,)``, in the units of the data.
    - ``scale``: positive, in the units of the data; ``()`` for one common scale, ``(d,)`` for one scale per column. One
      common scale only zooms: straight lines, angles and ratios of Euclidean distances stay what they were.

    Raises ``ValueError`` for another shape, or values that are not finite or a scale that is not positive.

    >>> import jax.numpy as jnp
    >>> from scoregeo.datasets import Standardization
    >>> units = Standardization(jnp.array([10.0, 0.0]), 2.0)
    >>> units.apply(jnp.array([12.0, 4.0])).tolist(), units.undo(jnp.array([1.0, 2.0])).tolist()
    ([1.0, 2.0], [12.0, 4.0])
    """

    mean: Float[Array, " d"]
    scale: Float[Array, ""] | Float[Array, " d"]

    def __init__(self, mean: Point | np.ndarray, scale: Scalar | Point | np.ndarray | float):
        self.mean = as_point(mean, "mean")
        self.scale = as_float(scale, "scale")
        if self.scale.shape not in ((), self.mean.shape):
            raise ValueError(f"`scale` must have shape () or {self.mean.shape} to match `mean`, got {self.scale.shape}")
        check_finite(self.scale, "scale")
        if is_concrete(self.scale) and not bool((self.scale > 0).all()):
            raise ValueError(f"`scale` must be positive, got a smallest value of {float(self.scale.min()):.3g}")

    @staticmethod
    def fit(x: Points | np.ndarray, *, per_feature: bool = True) -> "Standardization":
        """The standardisation that gives the rows of ``x``, shape ``(n, d)``, mean zero and variance one.

        - ``per_feature=True``: every column has variance one, which is right for tables whose columns have different
          units. A constant column gets scale 1.
        - ``per_feature=False``: one common scale, which is right where all columns share a unit (pixels, coordinates);
          the variance is one on average over the columns.

        Raises ``ValueError`` for another shape, or entries that are not finite numbers. Runs on the host, not under
        ``jit``.
        """
        x = as_numbers(np.asarray(x), "`x`")
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"`x` must have shape (n, d) with n, d >= 1, got {x.shape}")
        check_entries(x, "`x`")
        return Standardization(*moments(x, per_feature))

    def apply(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """From the units of the data to standardised coordinates; shape ``(..., d)`` in and out."""
        return (self._checked(x, "x") - self.mean) / self.scale

    def undo(self, z: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """From standardised coordinates back to the units of the data; shape ``(..., d)`` in and out."""
        return self._checked(z, "z") * self.scale + self.mean

    def _checked(self, x: Array, name: str) -> Array:
        x = as_float(x, name)
        if x.ndim == 0 or x.shape[-1] != self.mean.size:
            raise ValueError(f"`{name}` must have shape (..., {self.mean.size}), got {x.shape}")
        return x


class Dataset(eqx.Module):
    """Points, with what is known about them.

    **Fields**

    - ``points``: ``(n, d)``; in standardised coordinates where ``standardization`` is not ``None``.
    - ``name``: what to call it in a title or a file name.
    - ``labels``: ``(n,)`` integers (class, mixture component, which curve), or ``None``.
    - ``score``: the exact score of the density that the points were drawn from, with ``log_prob`` (normalised), in the
      coordinates of ``points``; ``None`` where nobody knows it (real data).
    - ``standardization``: the change of units that was applied, or ``None``.
    - ``image_shape``: ``(height, width)`` or ``(height, width, channels)`` where a point is a flattened image, or
      ``None``.

    Raises ``ValueError`` naming the field if their shapes do not agree.
    """

    points: Points
    name: str = eqx.field(static=True)
    labels: Int[Array, " n"] | None
    score: AbstractScore | None
    standardization: Standardization | None
    image_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        points: Points | np.ndarray,
        name: str,
        *,
        labels: Int[Array, " n"] | np.ndarray | None = None,
        score: AbstractScore | None = None,
        standardization: Standardization | None = None,
        image_shape: Sequence[int] | None = None,
    ):
        self.points = as_points(points, "points")
        n, d = self.points.shape
        self.name = name
        self.labels = None if labels is None else jnp.asarray(labels)
        self.score = score
        self.standardization = standardization
        self.image_shape = None if image_shape is None else tuple(int(side) for side in image_shape)
        if self.labels is not None and self.labels.shape != (n,):
            raise ValueError(f"`labels` must have shape ({n},) to match `points`, got {self.labels.shape}")
        if standardization is not None and standardization.mean.shape != (d,):
            got = standardization.mean.size
            raise ValueError(f"`standardization` must have dimension {d} to match `points`, got {got}")
        if self.image_shape is not None and np.prod(self.image_shape) != d:
            raise ValueError(f"`image_shape` must have {d} pixels to match `points`, got {self.image_shape}")

    def undo(self, z: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Points (``self.points``, samples, a geodesic) back in the units of the data; ``(..., d)`` in and out."""
        return as_float(z, "z") if self.standardization is None else self.standardization.undo(z)


def as_numbers(x: np.ndarray, where: str) -> np.ndarray:
    """``x`` in float64. Raises ``ValueError`` that begins with ``where`` for text, complex, boolean and other
    dtypes."""
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise ValueError(f"{where} must hold real numbers, got dtype {x.dtype}")
    return x.astype(np.float64)


def check_entries(x: np.ndarray, where: str, names: Sequence | None = None) -> None:
    """Raise ``ValueError`` where a table ``(n, d)`` has NaN or infinite entries; counts them and locates the first."""
    bad = ~np.isfinite(x)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        column = column if names is None else names[column]
        count = f"{int(bad.sum())} of {x.size} values are NaN or infinite"
        raise ValueError(f"{where} must hold finite numbers, but {count} (first in row {row}, column {column!r})")


def moments(x: np.ndarray, per_feature: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of ``x`` ``(n, d)``; without ``per_feature`` one common scale ``()``,
    the root mean square of the standard deviations."""
    mean, variance = x.mean(0), x.var(0)
    # Compared exactly: the computed variance of a constant column is rounding noise, not zero.
    constant = x.max(0) == x.min(0)
    if per_feature:
        return mean, np.where(constant, 1.0, np.sqrt(variance))
    return mean, np.asarray(1.0 if constant.all() else np.sqrt(variance.mean()))


def moments_of_pixels(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One mean and one standard deviation for all entries, so that an image stays the same image in other units."""
    scale = 1.0 if x.max() == x.min() else x.std()
    return np.full(x.shape[1], x.mean()), np.asarray(scale)
