"""The result of every solve: a geodesic with its certificates, as a pytree."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from .._checks import is_concrete
from .._display import curves_svg, page
from .._numerics import frozen, program, safe_sqrt
from .._results import RESULTS, raise_if_failed, status_name
from .._types import Point, Points, Scalar
from .certificate import Measurement, impossible, isolated, judge
from .curves import AbstractCurve, Polyline

_Curve = TypeVar("_Curve", bound=AbstractCurve | None)

# What a solve took, as `Geodesic` prints it: entries of ``stats``, and what they count.
_WORK = {
    "elements": "elements",
    "newton_steps": "Newton steps",
    "iterations": "iterations",
    "steps": "steps",
}


class Geodesic(eqx.Module):
    """A geodesic on t in [0, 1], solved; a pytree, so a batch of them is a `Geodesic` with leading axes.

    **Fields**

    - ``ts`` ``(n,)``, ``points`` ``(n, d)``, ``velocities`` ``(n, d)``: samples of the path; dgamma/dt, so their length
      in the metric is ``length`` everywhere.
    - ``length``, ``energy``: scalars; ``energy = 1/2 int <gamma', gamma'>_G dt = length^2 / 2``.
    - ``error``: estimated absolute error of ``length``. No estimate sees what lies between all points at which the
      metric was evaluated: a feature of the density much narrower than their spacing goes unnoticed.
    - ``residual``: largest relative deviation of the squared speed at ``ts`` from its mean, which is zero for a
      geodesic. `verify` is the stronger, independent certificate.
    - ``result``: a `RESULTS` code; ``geodesic.result == RESULTS.successful`` works on batches.
    - ``stats``: dictionary of counts (Newton steps, metric evaluations, degree, ...), and for boundary value solves
      ``path_error``, the estimated relative error of the path (of its velocity, in the mean): the square root, roughly,
      of that of the length. After `shoot`, ``t_end`` is the time reached: where an event or a failure stopped it before
      1, later samples are NaN and ``length`` is that of the part travelled.

    Printed, it is one line: length and error, status, and work. All fields: ``equinox.tree_pprint``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, SpectralNewton, geodesic
    >>> geodesic(EuclideanMetric(), jnp.zeros(2), jnp.array([3.0, 4.0])).reverse()  # doctest: +ELLIPSIS
    Geodesic(length 5 ± ..., converged, 1 element, ... Newton step...)
    """

    ts: Float[Array, " n"]
    points: Points
    velocities: Points
    length: Scalar
    energy: Scalar
    error: Scalar
    residual: Scalar
    result: RESULTS
    stats: dict[str, Any]
    curve: AbstractCurve | None

    def __repr__(self) -> str:
        values = (self.length, self.error, self.result, self.stats)
        if not all(map(_has_value, jax.tree.leaves(values, is_leaf=lambda leaf: leaf is None))):
            shapes = (eqx.tree_pformat(leaf, struct_as_array=True) for leaf in (self.length, self.points))
            return "Geodesic(length {}, points {})".format(*shapes)
        length, status = np.asarray(self.length), status_name(self.result)
        if length.ndim > 0:
            counts = collections.Counter(np.ravel(status).tolist()).most_common()
            finite = length[np.isfinite(length)]
            extent = f", lengths {finite.min():.6g} to {finite.max():.6g}" if finite.size else ""
            return f"Geodesic(batch {length.shape}, {', '.join(f'{n} {name}' for name, n in counts)}{extent})"
        parts = [f"length {length:.6g} ± {np.asarray(self.error):.0e}", status]
        if np.any(np.asarray(self.stats.get("t_end", 1)) < 1):
            parts.append(f"ended at t = {np.asarray(self.stats['t_end']):.4g}")
        for name, unit in _WORK.items():
            if name in self.stats:
                count = np.asarray(self.stats[name]).item()
                parts.append(f"{count} {unit.removesuffix('s') if count == 1 else unit}")
        return f"Geodesic({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """For notebooks: length, error, status and work, and the path beside them (of a batch, up to 50 paths)."""
        if not all(map(_has_value, jax.tree.leaves(self))):
            return page("Geodesic, traced", [("points", str(self.points.shape))])
        d = self.points.shape[-1]
        failed = np.ravel(np.asarray(self.result != RESULTS.successful))
        picture = curves_svg(np.reshape(self.points, (-1, *self.points.shape[-2:])), failed)
        status = np.asarray(status_name(self.result))
        if np.ndim(self.length) > 0:
            ended = collections.Counter(np.ravel(status).tolist()).most_common()
            lengths = np.asarray(self.length)[np.isfinite(self.length)]
            rows = [("status", ", ".join(f"{n} {name}" for name, n in ended))]
            rows += [("lengths", f"{lengths.min():.6g} to {lengths.max():.6g}")] if lengths.size else []
            return page(f"Geodesics, {np.shape(self.length)}, d = {d}", rows, picture)
        rows = [("length", f"{float(self.length):.6g} ± {float(self.error):.0e}"), ("status", str(status))]
        straight = float(np.linalg.norm(self.points[-1] - self.points[0]))
        rows += [("straight, Euclidean", f"{straight:.6g}"), ("residual", f"{float(self.residual):.1e}")]
        rows += [(unit, str(int(self.stats[name]))) for name, unit in _WORK.items() if name in self.stats]
        return page(f"Geodesic, d = {d}", rows, picture)

    @classmethod
    def from_curve(
        cls,
        curve: _Curve,
        ts: Float[Array, " n"],
        measure: Callable[[_Curve, Points, Points], Measurement],
        *,
        ends: tuple[Point, Point] | None,
        energy: Scalar,
        stats: dict[str, Any],
        length: Scalar | None = None,
        error: Scalar | None = None,
        samples: tuple[Points, Points] | None = None,
        causes: Sequence[tuple[Bool[Array, ""] | bool, RESULTS]] = (),
        failures: Sequence[tuple[Bool[Array, ""] | bool, RESULTS]] = (),
    ) -> "Geodesic":
        """What a solver found, sampled, measured and judged: the one way in which solvers make a geodesic.

        **Arguments**

        - ``curve``: the path; ``ts``, where it is sampled. ``samples``, points and velocities there, where the solver
          has them already.
        - ``measure``: a function of the curve and the samples, which come without derivatives; returns a `Measurement`.
          `measure_path` measures in a metric.
        - ``ends``: the end points that the path was to connect, if there are such.
        - ``energy``, ``length``: differentiable as the solver makes them; default ``length = sqrt(2 energy)``.
        - ``error``: of the length; default what the deviation of the squared speed makes of it.
        - ``causes``, ``failures``: what the solver knows, as (condition, code), the first to be true counts. ``causes``
          come before what every path is judged by, ``failures`` after: see `judge`.
        """
        if samples is None:
            assert curve is not None  # a solver without a curve gives samples
            samples = jax.vmap(curve)(ts)
        points, velocities = samples
        measurement = frozen(measure(*isolated((curve, points, velocities))))
        length = safe_sqrt(2 * energy) if length is None else length
        error = measurement.residual * length / 2 if error is None else error
        return cls(
            ts=ts,
            points=points,
            velocities=velocities,
            length=length,
            energy=energy,
            error=error,
            residual=measurement.residual,
            result=judge(measurement, impossible(measurement, ends, length, energy, error), causes, failures),
            stats=stats,
            curve=curve,
        )

    def evaluate(self, t: ArrayLike) -> Float[Array, "... d"]:
        """Points at times ``t`` in [0, 1], of any shape: ``t.shape + (d,)``. Exact to the order of the solver.

        Raises ``ValueError`` for times outside [0, 1], and for a geodesic that was solved without dense output.
        """
        return self._curve_at(t)[0]

    def velocity(self, t: ArrayLike) -> Float[Array, "... d"]:
        """Velocities at times ``t``, like ``evaluate``."""
        return self._curve_at(t)[1]

    def _curve_at(self, t):
        if self.curve is None:
            raise ValueError("this geodesic was solved with `dense=False` and knows only `points` at `ts`")
        self._check_single()
        t = jnp.asarray(t, self.points.dtype)
        if is_concrete(t) and t.size and not (np.asarray(t).min() >= 0 and np.asarray(t).max() <= 1):
            raise ValueError(f"`t` must be in [0, 1], got values from {np.min(t):g} to {np.max(t):g}")
        x, v = _at_times(self.curve, t.reshape(-1))
        return x.reshape(*t.shape, -1), v.reshape(*t.shape, -1)

    def _check_single(self) -> None:
        if self.ts.ndim != 1:
            raise ValueError(
                "this is a batch of geodesics: use jax.vmap, as in `jax.vmap(lambda g: g.evaluate(t))(batch)`"
            )

    def reverse(self) -> "Geodesic":
        """The same geodesic from its end to its start."""
        self._check_single()
        return dataclasses.replace(
            self,
            ts=1 - self.ts[::-1],
            points=self.points[::-1],
            velocities=-self.velocities[::-1],
            curve=None if self.curve is None else self.curve.reverse(),
        )


@program  # op by op, a curve is some twenty programs to compile
def _at_times(curve: AbstractCurve, ts: Float[Array, " n"]) -> tuple[Points, Points]:
    return jax.vmap(curve)(ts)


def _has_value(leaf: Any) -> bool:
    """Whether the value of a leaf can be read here and now; those of a traced, deleted or remote array cannot."""
    if isinstance(leaf, jax.Array):
        return is_concrete(leaf) and leaf.is_fully_addressable and not leaf.is_deleted()
    return isinstance(leaf, np.ndarray | np.generic | float | int)


def curve_of(geodesic: Geodesic) -> AbstractCurve:
    """The curve of ``geodesic``; straight lines between its points, taken to be equally spaced, if it has none."""
    return Polyline(geodesic.points) if geodesic.curve is None else geodesic.curve


def raise_unless_successful(geodesic: Geodesic, result: RESULTS | None = None) -> Geodesic:
    """``geodesic`` itself, raising an error with advice if its solve failed; inside a trace, with NaN for its samples,
    length, energy, error and residual. ``result`` takes the place of its own code."""
    names = ("points", "velocities", "length", "energy", "error", "residual")
    numbers = {name: getattr(geodesic, name) for name in names}
    return dataclasses.replace(geodesic, **raise_if_failed(numbers, geodesic.result if result is None else result))
