"""What a data set is: points, and the change of units between them and the data that they came from."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import as_array, as_float, as_native, as_point, as_points, check_finite, is_concrete, is_integer, is_real
from .._numerics import as_double, is_traced, warn_if_unresolved
from .._types import Point, Points, Scalar
from ..scores import AbstractScore


class Standardization(eqx.Module):
    """The affine change of units ``z = axes (x - mean) / scale``, kept so that it can be undone.

    Mean and scale are NumPy arrays in float64, whether or not JAX has float64 enabled, and on the host both ways are
    computed in it: dates, coordinates and times have offsets that float32 cannot hold. Traced (under ``jit``, ``vmap``,
    ``grad``) everything has the type of the points, and an offset of more than about 1e5 scales drowns them: there,
    work in standardised coordinates.

    **Arguments**

    - ``mean``: ``(d,)``, in the units of the data.
    - ``scale``: positive, in the units of the data; ``()`` for one common scale, or one for each coordinate of ``z``.
      One common scale only zooms: straight lines, angles and ratios of Euclidean distances stay what they were.
    - ``axes``: ``(k, d)``, k orthonormal rows (principal components, say); ``z`` has k coordinates, and what is
      orthogonal to them is lost, so that undoing gives the mean there. ``None`` for the axes of the data themselves.

    Raises ``ValueError`` for another shape, values that are not finite, a scale that is not positive, or axes that are
    not orthonormal.

    >>> import jax.numpy as jnp
    >>> from scoregeo.datasets import Standardization
    >>> units = Standardization(jnp.array([10.0, 0.0]), 2.0)
    >>> units.apply(jnp.array([12.0, 4.0])).tolist(), units.undo(jnp.array([1.0, 2.0])).tolist()
    ([1.0, 2.0], [12.0, 4.0])
    """

    mean: Array | np.ndarray
    scale: Array | np.ndarray
    axes: Array | np.ndarray | None = None

    def __init__(
        self,
        mean: Point | np.ndarray,
        scale: Scalar | Point | np.ndarray | float,
        axes: Points | np.ndarray | None = None,
    ):
        self.mean = _kept(mean, as_point(mean, "mean"))
        if axes is not None:
            self.axes = _kept(axes, as_points(axes, "axes"))
            if self.axes.shape[1] != self.mean.size:
                raise ValueError(f"`axes` must have shape (k, {self.mean.size}), got {self.axes.shape}")
            if is_concrete(self.axes) and np.abs(self.axes @ self.axes.T - np.eye(len(self.axes))).max() > 1e-4:
                raise ValueError("`axes` must have orthonormal rows, but they are not")
        given, scale = scale, as_float(scale, "scale")
        check_finite(scale, "scale")
        self.scale = _kept(given, scale)
        if self.scale.shape not in ((), (self.dim,)):
            raise ValueError(f"`scale` must have shape () or ({self.dim},), got {self.scale.shape}")
        if is_concrete(self.scale) and not bool((self.scale > 0).all()):
            raise ValueError(f"`scale` must be positive, got a smallest value of {float(self.scale.min()):.3g}")

    @property
    def dim(self) -> int:
        """How many coordinates ``z`` has: d, or as many as there are axes."""
        return self.mean.size if self.axes is None else self.axes.shape[0]

    @staticmethod
    def fit(x: Points | np.ndarray, *, per_feature: bool = True, components: int | None = None) -> "Standardization":
        """The standardisation that gives the rows of ``x``, shape ``(n, d)``, mean zero and variance one.

        - ``per_feature=True``: every column has variance one, which is right for tables whose columns have different
          units. A constant column gets scale 1.
        - ``per_feature=False``: one common scale, which is right where all columns share a unit (pixels, coordinates);
          the variance is one on average over the columns.
        - ``components``: keep so many principal components, from 1 to the smaller of n and d, and standardise those
          (with ``per_feature``, this whitens). A score is learned far better without the hundreds of directions in
          which images do not vary.

        Raises ``ValueError`` for another shape, entries that are not finite numbers, or too many components. Runs on
        the host, not under ``jit``.
        """
        single, x = getattr(x, "dtype", None) == np.float32, as_float64(x, "`x`")
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"`x` must have shape (n, d) with n, d >= 1, got {x.shape}")
        check_entries(x, "`x`")
        if components is not None:
            mean, axes = x.mean(0), principal_axes(x, components)
            return Standardization(mean, moments((x - mean) @ axes.T, per_feature)[1], axes)
        mean, scale = moments(x, per_feature)
        if single:
            # A constant column is the same number in any precision.
            varies = np.where(x.max(0) == x.min(0), np.inf, scale)
            warn_if_unresolved(mean, varies, "`x` is float32 and has", "digits are lost; give a NumPy array in float64")
        return Standardization(mean, scale)

    def apply(self, x: Float[Array, "... d"] | np.ndarray) -> Float[Array, "... d"]:
        """From the units of the data to standardised coordinates; shape ``(..., d)`` in, ``(..., dim)`` out.

        A NumPy array in float64 keeps its digits until the mean is subtracted; the result has JAX's type.
        """
        checked = self._checked(x, "x", self.mean.size)
        if getattr(x, "dtype", None) == np.float32 and self._on_host(x):
            advice = "digits are lost; give a NumPy array in float64"
            warn_if_unresolved(self.mean, self.scale, "`x` is float32, with units of", advice)
        if not self._on_host(x):
            mean, scale, axes = self._in(checked.dtype)
            moved = checked - mean
            return (moved if axes is None else jnp.matmul(moved, axes.T, precision="highest")) / scale
        moved = as_double(x) - as_double(self.mean)
        moved = moved if self.axes is None else moved @ as_double(self.axes).T
        return jnp.asarray(moved / as_double(self.scale), checked.dtype)

    def undo(self, z: Float[Array, "... d"] | np.ndarray) -> Float[Array, "... d"] | np.ndarray:
        """From standardised coordinates back to the units of the data; shape ``(..., dim)`` in, ``(..., d)`` out.

        On the host the result is a NumPy array in float64; traced, it has the type of ``z``.
        """
        checked = self._checked(z, "z", self.dim)
        if not self._on_host(z):
            mean, scale, axes = self._in(checked.dtype)
            scaled = checked * scale
            return (scaled if axes is None else jnp.matmul(scaled, axes, precision="highest")) + mean
        scaled = as_double(z) * as_double(self.scale)
        return (scaled if self.axes is None else scaled @ as_double(self.axes)) + as_double(self.mean)

    def undo_vectors(self, v: Float[Array, "... d"] | np.ndarray) -> np.ndarray:
        """Tangent vectors back in the units of the data: as `undo`, without the mean; ``(..., dim)`` in, ``(..., d)``
        out. On the host, in float64."""
        scaled = as_double(self._checked(v, "v", self.dim)) * as_double(self.scale)
        return scaled if self.axes is None else scaled @ as_double(self.axes)

    def _checked(self, x: Any, name: str, size: int) -> Array:
        # Integers of NumPy's, such as time stamps, keep their digits: the mean is subtracted in float64.
        whole = isinstance(x, np.ndarray) and x.dtype.kind in "iu"
        checked = as_float(as_float64(x, f"`{name}`") if whole else x, name)
        if checked.ndim == 0 or checked.shape[-1] != size:
            raise ValueError(f"`{name}` must have shape (..., {size}), got {checked.shape}")
        return checked

    def _in(self, dtype: Any) -> tuple[Array, Array, Array | None]:
        axes = None if self.axes is None else jnp.asarray(self.axes, dtype)
        return jnp.asarray(self.mean, dtype), jnp.asarray(self.scale, dtype), axes

    def _on_host(self, x: Any) -> bool:
        return not is_traced((x, self.mean, self.scale, self.axes))


def _kept(given: Any, checked: Array) -> Array | np.ndarray:
    return checked if is_traced(given) else as_double(given)


class Dataset(eqx.Module):
    """Points, with what is known about them.

    **Fields**

    - ``points``: ``(n, d)``; in standardised coordinates where ``standardization`` is not ``None``.
    - ``name``: what to call it in a title or a file name.
    - ``labels``: ``(n,)`` integers (class, mixture component, which curve), or ``None``.
    - ``score``: the exact score of the density that the points were drawn from, with ``log_prob`` (normalised), in the
      coordinates of ``points``; ``None`` where nobody knows it (real data).
    - ``standardization``: the change of units that was applied, or ``None``.
    - ``image_shape``: ``(height, width)`` or ``(height, width, channels)`` where a point, in the units of the data, is
      a flattened image; or ``None``.
    - ``feature_names``: what the coordinates are called in the units of the data, or ``None``.
    - ``label_names``: what the labels 0, 1, ... stand for, or ``None``.

    Raises ``ValueError`` naming the field if their shapes do not agree.
    """

    points: Points
    name: str = eqx.field(static=True)
    labels: Int[Array, " n"] | None
    score: AbstractScore | None
    standardization: Standardization | None
    image_shape: tuple[int, ...] | None = eqx.field(static=True)
    feature_names: tuple[str, ...] | None = eqx.field(static=True)
    label_names: tuple[str, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        points: Points | np.ndarray,
        name: str,
        *,
        labels: Int[Array, " n"] | np.ndarray | None = None,
        score: AbstractScore | None = None,
        standardization: Standardization | None = None,
        image_shape: Sequence[int] | None = None,
        feature_names: Sequence | np.ndarray | None = None,
        label_names: Sequence | np.ndarray | None = None,
    ):
        self.points = as_points(points, "points")
        if self.points.dtype == np.float32 and not is_traced(points):
            _check_resolution(np.asarray(points))
        n, d = self.points.shape
        self.name = name
        self.labels = None if labels is None else as_array(labels, "labels")
        self.score = score
        self.standardization = standardization
        self.image_shape = None if image_shape is None else tuple(int(side) for side in image_shape)
        if self.labels is not None and self.labels.shape != (n,):
            raise ValueError(f"`labels` must have shape ({n},) to match `points`, got {self.labels.shape}")
        if standardization is not None and standardization.dim != d:
            got = standardization.dim
            raise ValueError(f"`standardization` must have dimension {d} to match `points`, got {got}")
        pixels = d if standardization is None else standardization.mean.size
        if self.image_shape is not None and np.prod(self.image_shape) != pixels:
            raise ValueError(f"`image_shape` must have {pixels} pixels to match `points`, got {self.image_shape}")
        self.feature_names = None if feature_names is None else tuple(map(str, feature_names))
        self.label_names = None if label_names is None else tuple(map(str, label_names))
        if self.feature_names is not None and len(self.feature_names) != pixels:
            raise ValueError(f"`feature_names` must be {pixels} names to match `points`, got {len(self.feature_names)}")
        if self.label_names is not None and is_concrete(self.labels):
            _check_label_names(self.labels, len(self.label_names))

    def principal_components(self, k: int) -> "Dataset":
        """The same points as coordinates on their first ``k`` principal components, in the units of the data.

        Its ``standardization`` has the axes, so that `undo` gives images and tables as they were, but for what the
        other components hold. Raises ``ValueError`` unless k is from 1 to the smaller of n and d, and for a data set
        with an exact score, which is one of all directions.
        """
        if self.score is not None:
            raise ValueError("`principal_components` is for data without an exact score, but this data set has one")
        values = np.asarray(self.undo(self.points), np.float64)
        units = Standardization(values.mean(0), 1.0, principal_axes(values, k))
        return Dataset(
            np.asarray(units.apply(values)), self.name, labels=self.labels, standardization=units,
            image_shape=self.image_shape, feature_names=self.feature_names, label_names=self.label_names,
        )  # fmt: skip

    def undo(self, z: Float[Array, "... d"] | np.ndarray) -> Float[Array, "... d"] | np.ndarray:
        """Points (``self.points``, samples, a geodesic) back in the units of the data; ``(..., d)`` in and out."""
        return as_float(z, "z") if self.standardization is None else self.standardization.undo(z)


def as_float64(x: Any, where: str) -> np.ndarray:
    """``x`` in float64 on the host. Raises ``ValueError`` that begins with ``where`` for text, complex, boolean and
    other dtypes, and for masked entries."""
    x = as_native(x, where, ValueError)
    if not is_real(x.dtype):
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


def _check_label_names(labels: Array | None, count: int) -> None:
    """Raise ``ValueError`` unless all ``labels`` have one of ``count`` names."""
    if labels is None:
        raise ValueError("`label_names` must come with `labels`")
    values = np.asarray(labels)
    if values.min() < 0 or values.max() >= count:
        raise ValueError(
            f"`label_names` must name each of the labels {values.min()} to {values.max()}, from 0 on, got {count} names"
        )


def moments(x: np.ndarray, per_feature: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of ``x`` ``(n, d)``; without ``per_feature`` one common scale ``()``,
    the root mean square of the standard deviations."""
    mean, variance = x.mean(0), x.var(0)
    # Compared exactly: the computed variance of a constant column is rounding noise, not zero.
    constant = x.max(0) == x.min(0)
    if per_feature:
        return mean, np.where(constant, 1.0, np.sqrt(variance))
    return mean, np.asarray(1.0 if constant.all() else np.sqrt(variance.mean()))


def principal_axes(x: np.ndarray, k: int) -> np.ndarray:
    """The first ``k`` principal axes of ``x`` ``(n, d)``, as orthonormal rows, largest variance first."""
    if not (is_integer(k) and 1 <= k <= min(x.shape)):
        raise ValueError(f"the number of components must be an integer from 1 to {min(x.shape)}, got {k!r}")
    _, _, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    # The sign of an axis is free: so that it is the same on every machine, the largest entry is positive.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
    return (axes * np.sign(largest))[: int(k)]


def _check_resolution(points: np.ndarray) -> None:
    """Warn where float32, which JAX is left with, cannot hold ``points`` ``(n, d)``; looks at no more than ranges."""
    least, most = as_double(points.min(0)), as_double(points.max(0))
    scale = np.where(most > least, (most - least) / 4, np.inf)  # a range has about four standard deviations
    advice = "standardise them in float64 first (`datasets.load`, `Standardization`), or enable JAX's float64"
    warn_if_unresolved((least + most) / 2, scale, "`points` have", advice)


def moments_of_pixels(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One mean and one standard deviation for all entries, so that an image stays the same image in other units."""
    scale = 1.0 if x.max() == x.min() else x.std()
    return np.full(x.shape[1], x.mean()), np.asarray(scale)
