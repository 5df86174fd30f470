r"""What a network predicts: noise, data, v, score or velocity, and the exact map from any of them to any other.

On the path ``x_t = alpha x_0 + sigma eps`` each prediction is a combination ``a x_0 + b eps``:

    eps       (0, 1)
    x0        (1, 0)
    v         (-sigma, alpha)            Salimans & Ho 2022, arXiv 2202.00512
    score     (0, -1/sigma)              the gradient of log p_t(x_t)
    velocity  (alpha', sigma')           dx_t/dt, the right-hand side of the probability flow         (1)

``x_t`` itself is ``(alpha, sigma)``, so a prediction ``(a, b)`` and ``x_t`` give every other prediction ``(c, d)``:
the equations ``c = p a + q alpha`` and ``d = p b + q sigma`` are solved by

    p = (c sigma - d alpha)/D,      q = (a d - b c)/D,      D = a sigma - b alpha,                    (2)

and the prediction is ``p value + q x_t``. The conversions are linear with coefficients of ``t`` alone, so what holds
for ``x_0`` and ``eps`` holds for their conditional means given ``x_t``, which is what a network learns.

``D`` is ``-alpha`` for eps, ``sigma`` for x0, ``-(alpha^2 + sigma^2)`` for v and ``-alpha sigma d log(sigma/alpha)/dt``
for the velocity. No ``D`` cancels, because ``alpha`` does not grow and ``sigma`` does not fall. Digits are lost in
``p value + q x_t`` only where the information is not there:

- from eps or the score at large noise, by a factor of ``sigma/alpha``: noise hides the data;
- from x0 at small noise, by a factor of ``alpha/sigma``: the data hide the noise.

From v, x0 and eps come out to rounding at every noise level, and so they do from the velocity unless ``alpha`` is
constant. Then the velocity is a multiple of eps.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import as_float, check_choice
from .._types import Scalar
from .schedules import AbstractSchedule

PREDICTIONS = ("eps", "x0", "v", "score", "velocity")


def convert(
    value: Float[Array, "..."],
    x_t: Float[Array, "..."],
    t: Scalar,
    schedule: AbstractSchedule,
    *,
    source: str,
    target: str,
) -> Float[Array, "..."]:
    """One prediction from another at the same noisy point: any two of eps, x0, v, score and velocity; exact.

    **Arguments**

    - ``value``: the prediction of kind ``source``.
    - ``x_t``: the noisy point ``alpha x_0 + sigma eps``, of the same shape (any).
    - ``t``: its time, a scalar; for one time for each point, use `jax.vmap`.
    - ``schedule``: gives ``alpha``, ``sigma`` and their derivatives at ``t``.
    - ``source``, ``target``: ``"eps"``, ``"x0"``, ``"v"`` (``alpha eps - sigma x_0``), ``"score"`` (``-eps/sigma``) or
      ``"velocity"`` (``dx_t/dt``); static under ``jit``.

    **Returns** the prediction of kind ``target``, in the shape of ``x_t``. Where ``source`` says nothing about it the
    result is not finite: x0 from eps where ``alpha = 0``, eps from x0 where ``sigma = 0``. The module says how many
    digits are lost on the way there.

    **Raises** ``ValueError`` for unknown kinds or shapes that do not match, ``TypeError`` for what is no schedule.

    >>> import jax.numpy as jnp
    >>> from scoregeo.diffusion.conversions import convert
    >>> from scoregeo.diffusion.schedules import RectifiedFlow
    >>> x0, eps, t = jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0]), 0.25
    >>> x_t = (1 - t) * x0 + t * eps
    >>> print(convert(x0, x_t, t, RectifiedFlow(), source="x0", target="velocity"))  # eps - x0
    [-0.5 -3. ]
    """
    for name, kind in (("source", source), ("target", target)):
        check_choice(name, kind, PREDICTIONS)
    if not isinstance(schedule, AbstractSchedule):
        raise TypeError(f"`schedule` must be a schedule such as EDM() or VP(), got {schedule!r}")
    value, x_t, t = as_float(value, "value"), as_float(x_t, "x_t"), as_float(t, "t")
    if value.shape != x_t.shape:
        raise ValueError(f"`value` must have the shape of `x_t`, {x_t.shape}, got {value.shape}")
    if t.shape != ():
        raise ValueError(f"`t` must be a scalar, got shape {t.shape}; use jax.vmap for a batch of times")
    dtype = jnp.result_type(value, x_t)
    value, t = value.astype(dtype), t.astype(dtype)

    if source == target:
        return value
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    # The score is eps in other units. Going through eps, neither needs alpha to get to the other.
    if source == "score":
        return convert(-sigma * value, x_t, t, schedule, source="eps", target=target)
    if target == "score":
        return -convert(value, x_t, t, schedule, source=source, target="eps") / sigma
    a, b = _coefficients(source, t, schedule)
    c, d = _coefficients(target, t, schedule)
    determinant = a * sigma - b * alpha
    p, q = (c * sigma - d * alpha) / determinant, (a * d - b * c) / determinant
    return p * value + q * x_t


def _coefficients(kind: str, t: Scalar, schedule: AbstractSchedule) -> tuple[Any, Any]:
    """``(a, b)`` of the table in the module docstring."""
    if kind == "eps":
        return 0.0, 1.0
    if kind == "x0":
        return 1.0, 0.0
    if kind == "v":
        return -schedule.sigma(t), schedule.alpha(t)
    one = (jnp.ones_like(t),)
    return jax.jvp(schedule.alpha, (t,), one)[1], jax.jvp(schedule.sigma, (t,), one)[1]
