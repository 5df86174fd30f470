"""How good a learned score is, measured against a reference whose score is known at every noise level.

Geodesics feel the Jacobian of the score, not only the score, and samples do not show an error that is a rotation: so
the relative error of ``J v`` and the asymmetry of ``J`` are reported beside that of the score.
"""

import abc
import dataclasses
import io
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import as_points, check_count
from ..._display import beside, captioned, grid, line_svg
from ..._numerics import minus
from ..._protocols import CentredModel, ScoreModel
from ..._types import Points, Scalar
from ...scores import AbstractScore

_WIDTH = 110  # columns that a table may take where there is no terminal


@runtime_checkable
class ScoreReference(Protocol):
    """A distribution whose noised score is known, for example a `GaussianMixtureScore`."""

    def noised(self, alpha: Scalar | float, sigma: Scalar | float) -> AbstractScore:
        """The score of ``alpha x + sigma eps``."""
        ...

    def sample(self, key: PRNGKeyArray, n: int) -> Points:
        """``n`` draws, shape ``(n, d)``."""
        ...


@dataclasses.dataclass(frozen=True)
class AbstractReport(abc.ABC):
    """What reports share: they print as one table, by ``rich``, and by ``str`` without lines and colours."""

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers, for JSON."""
        return {name: np.asarray(value).tolist() for name, value in dataclasses.asdict(self).items()}

    @abc.abstractmethod
    def _title(self) -> str: ...

    @abc.abstractmethod
    def _columns(self) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def _rows(self) -> list[list[str]]: ...

    def _caption(self) -> str | None:
        return None

    def table(self) -> Any:
        """The figures as a ``rich.table.Table``."""
        from rich.table import Table

        title, caption = self._title(), self._caption()
        # The table is as wide as title and caption, which would be broken otherwise.
        table = Table(title=title, caption=caption, min_width=max(len(title), len(caption or "")))
        for column in self._columns():
            # Names of the rows have no heading.
            table.add_column(column, justify="right" if column else "left")
        for row in self._rows():
            table.add_row(*row)
        return table

    def __rich__(self) -> Any:
        return self.table()

    def _line(self) -> tuple[str, Any, Any] | None:
        """What the small picture shows: its name, and numbers over numbers. By default the first of the figures by
        noise level, over its logarithm."""
        values = vars(self)
        sigmas = np.asarray(values.get("sigmas", ()), float)
        for name, value in values.items():
            if name != "sigmas" and sigmas.size > 1 and np.shape(value) == sigmas.shape:
                return f"{name.replace('_', ' ')} over noise level", np.log(sigmas), value
        return None

    def _repr_html_(self) -> str:
        table = grid(self._title(), self._columns(), self._rows(), self._caption())
        if (line := self._line()) is None:
            return table
        what, at, value = line
        return beside(table, captioned(line_svg(np.stack([at, np.asarray(value, float)], 1), what), what))

    def __str__(self) -> str:
        from rich.console import Console

        table, text = self.table(), io.StringIO()
        table.box = None
        Console(file=text, width=_WIDTH, color_system=None).print(table)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def held_out_draws(
    model: ScoreModel, points: Any, key: PRNGKeyArray, draws: int
) -> tuple[ScoreModel, Points, Float[Array, "k n d"], Float[Array, "k n d"]]:
    """Held-out ``points`` ``(n, d)``, checked, with ``draws`` of standard normal noise and of random signs for each.

    Model and points are in coordinates that begin at the mean of the model: see `DiffusionModel.centred`.
    """
    given, points = points, as_points(points, "points", dim=getattr(model, "dim", None))
    if points.shape[0] < 2:
        raise ValueError(f"`points` must be at least two held-out points, got {points.shape[0]}")
    check_count("draws", draws)
    dtype = getattr(model, "dtype", points.dtype)
    origin, model = (model.mean, model.centred()) if isinstance(model, CentredModel) else (0.0, model)
    points = minus(given, origin, dtype)
    keys, shape = jax.random.split(key), (draws, *points.shape)
    return model, points, jax.random.normal(keys[0], shape, dtype), jax.random.rademacher(keys[1], shape, dtype)


@dataclasses.dataclass(frozen=True)
class ScoreReport(AbstractReport):
    """Errors of a learned score by noise level; all arrays have shape ``(k,)`` and no unit.

    With ``x`` from the data with noise ``sigma`` added, ``v ~ N(0, I)``, ``s``, ``J`` of the reference and ``s'``,
    ``J'`` learned:

    **Fields**

    - ``sigmas``: noise levels.
    - ``score_error``: ``sqrt(E|s' - s|^2 / E|s|^2)``.
    - ``jvp_error``: ``sqrt(E|J'v - Jv|^2 / E|Jv|^2)``.
    - ``asymmetry``: ``sqrt(E|J'v - J'^T v|^2 / E|J'v|^2)``; zero up to rounding for a gradient field.
    - ``n``: number of points.
    """

    sigmas: np.ndarray
    score_error: np.ndarray
    jvp_error: np.ndarray
    asymmetry: np.ndarray
    n: int

    def _title(self) -> str:
        return f"relative L2 errors over {self.n} points"

    def _columns(self) -> tuple[str, ...]:
        return "sigma", "score", "J v", "asymmetry of J"

    def _rows(self) -> list[list[str]]:
        columns = self.sigmas, self.score_error, self.jvp_error, self.asymmetry
        return [[f"{sigma:g}", *(f"{value:.4f}" for value in rest)] for sigma, *rest in zip(*columns, strict=True)]


def evaluate_score(
    model: ScoreModel,
    reference: ScoreReference,
    sigmas: Sequence[float] | np.ndarray = (0.1, 0.2, 0.5),
    *,
    key: PRNGKeyArray,
    n: int = 2000,
) -> ScoreReport:
    """Compare a learned score with the exact one, at ``n`` points of the reference with noise added, at each noise
    level.

    **Arguments**

    - ``model``: has ``score_at(sigma)``.
    - ``reference``: the distribution of the training data, with ``noised(alpha, sigma)`` and ``sample(key, n)``.
    - ``sigmas``: positive noise levels, in the units of the data.
    - ``key``, ``n``: the random key of the points, and their number. The standard error of a figure is about
      its own size over ``sqrt(n)``.

    **Raises** ``ValueError`` for noise levels that are not positive, ``n < 1``, or a reference of another dimension.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo import GaussianScore
    >>> from scoregeo.diffusion import Denoiser, DiffusionModel, FitConfig, MLP, evaluate_score
    >>> untrained = DiffusionModel(Denoiser(MLP(2, key=jax.random.key(0)), 1.0), FitConfig())  # exact for N(0, I)
    >>> report = evaluate_score(untrained, GaussianScore(jnp.zeros(2), jnp.eye(2)), key=jax.random.key(1), n=100)
    >>> bool((report.score_error < 1e-5).all())
    True
    """
    sigmas = check_levels(sigmas)
    check_count("n", n)
    point_key, noise_key, direction_key = jax.random.split(key, 3)
    points = reference.sample(point_key, n)
    dim = getattr(model, "dim", points.shape[1])
    if points.ndim != 2 or points.shape[1] != dim:
        raise ValueError(f"`reference` must give points of shape ({n}, {dim}) to match `model`, got {points.shape}")
    noise = jax.random.normal(noise_key, points.shape, points.dtype)
    directions = jax.random.normal(direction_key, points.shape, points.dtype)
    rows = []
    for value in sigmas:
        sigma = jnp.asarray(value, points.dtype)
        score, exact = model.score_at(sigma), reference.noised(1.0, sigma)
        rows.append(_errors(score, exact, points + sigma * noise, directions))
    score_error, jvp_error, asymmetry = np.asarray(rows, float).T
    return ScoreReport(sigmas, score_error, jvp_error, asymmetry, n)


def check_levels(sigmas: Any) -> np.ndarray:
    """Noise levels as an array; raises ``ValueError`` unless they are positive."""
    sigmas = np.asarray(sigmas, float)
    if sigmas.ndim != 1 or sigmas.size == 0 or not (np.isfinite(sigmas) & (sigmas > 0)).all():
        raise ValueError(f"`sigmas` must be a sequence of positive noise levels, got {sigmas.tolist()}")
    return sigmas


@eqx.filter_jit
def _errors(score: AbstractScore, exact: AbstractScore, points: Points, directions: Points) -> Float[Array, " 3"]:
    def squares(x, v):
        value, jv = jax.jvp(score, (x,), (v,))
        exact_value, exact_jv = jax.jvp(exact, (x,), (v,))
        (transposed,) = jax.vjp(score, x)[1](v)
        pairs = ((value - exact_value, exact_value), (jv - exact_jv, exact_jv), (jv - transposed, jv))
        return jnp.stack([jnp.stack([jnp.vdot(a, a), jnp.vdot(b, b)]) for a, b in pairs])

    sums = jnp.sum(jax.vmap(squares)(points, directions), 0)
    return jnp.sqrt(sums[:, 0] / sums[:, 1])
