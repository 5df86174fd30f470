"""Copies of a learned score that are smaller than it: a student learns the score and its Jacobian from a teacher.

Geometry asks for products with the Jacobian of a score at thousands of points, so its cost is that of the network. A
student is trained on what the teacher says, not on the noise that the teacher was trained on: a target without
variance, at which its derivative can be trained too. How good a copy is for geometry,
`scoregeo.comparison.evaluate_copy` measures.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_number
from .._protocols import ScoreModel, some_noise_level
from .._types import Scalar
from ..scores import AbstractScore
from .config import FitConfig
from .model import DiffusionModel
from .training.fit import fit
from .training.losses import Teacher


def distill(
    teacher: ScoreModel,
    data: Float[Array, "n d"] | np.ndarray,
    config: FitConfig | None = None,
    *,
    width: int | None = None,
    depth: int | None = None,
    jacobian: float = 1.0,
    **settings: Any,
) -> DiffusionModel:
    """A smaller model that copies the score of ``teacher`` and its Jacobian around ``data``.

    **Arguments**

    - ``teacher``: has ``score_at(sigma)``, for example a `DiffusionModel` without conditions, or what
      `scoregeo.adapters` load; of the same coordinates as ``data``.
    - ``data``: the points around which to copy, ``(n, d)``: noise of the levels that are trained on is added to them.
      Those that the teacher was trained on, or samples of it.
    - ``config``: settings as of `fit`, default those of a teacher that has some (``teacher.config``). ``levels`` says
      which noise levels are copied: give it those that geometry will use. What trains on data alone
      (``reference_size``, ``second_order``, ``asymmetry``) plays no part.
    - ``width``, ``depth``: of the student, in place of those of ``config``.
    - ``jacobian``: weight of the error of the Jacobian, whose units are those of the score's; not negative.
    - ``settings``: further arguments of `fit`, such as ``network`` or ``checkpoint_dir``.

    **Returns** a `DiffusionModel` with the standardisation of the teacher; its ``history.held_out_loss`` is that of
    `fit`, on held-out data, so it compares with the teacher's.

    **Raises** ``TypeError`` for a teacher without ``score_at``, ``ValueError`` for one that has no score without a
    condition, or of another dimension; otherwise as `fit`.

    Source: Hinton, Vinyals & Dean (2015, arXiv 1503.02531) for copies; Czarnecki et al. (2017, arXiv 1706.04859) for
    the training of derivatives.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.diffusion import Denoiser, DiffusionModel, FitConfig, MLP, distill
    >>> teacher = DiffusionModel(Denoiser(MLP(2, width=64, depth=4, key=jax.random.key(0)), 1.0), FitConfig())
    >>> points = jax.random.normal(jax.random.key(1), (500, 2))
    >>> student = distill(teacher, points, FitConfig(steps=20, chunk_steps=10), width=8, depth=1, progress=False)
    >>> student.score_at(0.5)(jnp.ones(2)).shape, student.config.width
    ((2,), 8)
    """
    if not isinstance(teacher, ScoreModel):
        raise TypeError(f"`teacher` must have score_at(sigma), as a DiffusionModel has, got {type(teacher).__name__}")
    if not (is_number(jacobian) and 0 <= jacobian < float("inf")):
        raise ValueError(f"`jacobian` must be a number that is not negative, got {jacobian!r}")
    if settings.get("conditions") is not None:
        raise ValueError("`conditions` must not be given: a student copies one score, without conditions")
    own = getattr(teacher, "config", None)
    config = config or (own if isinstance(own, FitConfig) else FitConfig())
    plain: dict[str, Any] = {"reference_size": 0, "second_order": 0.0, "asymmetry": 0.0}
    sizes = {name: size for name, size in (("width", width), ("depth", depth)) if size is not None}
    settings.setdefault("standardization", getattr(teacher, "standardization", None))
    _check(teacher, np.shape(data))
    arrays = all(eqx.is_array(leaf) for leaf in jax.tree.leaves(teacher))
    return fit(
        data,
        dataclasses.replace(config, **plain, **sizes),
        teacher=Teacher(teacher if arrays else _Opaque(teacher), jnp.asarray(jacobian, jnp.result_type(float))),
        **settings,
    )


class _Opaque(eqx.Module):
    """A model that is no pytree: what it holds are constants of the compiled program."""

    model: Any = eqx.field(static=True)

    def score_at(self, sigma: Scalar) -> AbstractScore:
        return self.model.score_at(sigma)


def _check(teacher: ScoreModel, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` for a teacher of another dimension, or one that has no score without a condition."""
    dim = getattr(teacher, "dim", None)
    if dim is not None and len(shape) == 2 and shape[1] != dim:
        raise ValueError(f"`data` must have shape (n, {dim}) to match `teacher`, got {shape}")
    teacher.score_at(some_noise_level(teacher))
