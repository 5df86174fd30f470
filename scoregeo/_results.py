"""How a solve ended: result codes that extend diffrax's, each with advice on what to try next."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ._checks import is_concrete


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """Result codes of scoregeo's solvers. ``successful`` has no message; every other code says what to try.

    Inner failures (diffrax, optimistix, lineax) are promoted to the code of the same name. Compare with ``==``, which
    works on batches: ``geodesic.result == RESULTS.successful``.
    """

    successful = ""
    metric_nonfinite = (
        "The metric returned NaN or infinity, or is not positive. Check `metric.at(x)` at both end points and between "
        "them (of Stein metrics the score, `metric.score(x)`; of a family of distributions `family.fisher(theta)`), or "
        "move the end points away from where it is not finite."
    )
    outside_domain = (
        "An end point lies outside the domain of the metric, or the path could not be kept inside it. Check "
        "`metric.domain(x)`, which must be positive, at both end points; where the domain is not convex, give a path "
        "inside it as `init`. From a point and a velocity (`shoot`): the geodesic leaves the domain; `stats['t_end']` "
        "says when."
    )
    solver_steps_reached = (
        "The boundary solver used all its steps before its gradient was small. Try a larger `max_steps`, a better "
        "starting path (`init=GraphInit(points)`, `FlatPriorStart()` in spacetime), `MultiStart(solver)`, a smaller "
        "`strength` of a SteinMetric, or a larger `rtol` where the score has kinks (ReLU) or is rounded to few digits "
        "(bfloat16)."
    )
    stalled = (
        "The geodesic solver could not lower the energy any further although its gradient is not small. Try float64 "
        "(`jax.config.update('jax_enable_x64', True)`), another starting path `init`, a smaller `strength` of a "
        "SteinMetric, more `nodes` of SpacetimeDescent, or a larger `rtol` where the score has kinks (ReLU) or is "
        "rounded to few digits (bfloat16)."
    )
    accuracy_not_reached = (
        "The path is a geodesic of its discretisation, but the estimated error of the length is above `rtol`. Try "
        "more `max_elements` (SpectralNewton) or `nodes` (Georce, EnergyDescent, SpacetimeDescent), "
        "`Refine(SpectralNewton(), Shooting())`, or a larger `rtol`; for a closed form, float64. The estimate is in "
        "`geodesic.error`."
    )
    ends_missed = (
        "Shooting did not reach the end point: the root find stopped before its defects were small. Try more "
        "`segments`, or start from a solved geodesic: `Refine(SpectralNewton(), Shooting())`. From `Refine` or "
        "`MultiStart` itself: solved again from the geodesic that was found, the path went to another one."
    )
    not_converged = (
        "A statistic (a mean, a median, a regression) did not converge: its gradient is not small, and more steps were "
        "not allowed or did not lower it. Try a larger `max_steps`, a larger `gtol`, another starting point `init`, "
        "float64 (`jax.config.update('jax_enable_x64', True)`), or a `solver` with a smaller `tolerance`."
    )
    no_maximum = (
        "No distribution of the family is most likely. Give more samples that differ (a normal needs two, a "
        "multivariate one more of them than dimensions; counts need one above zero), and check that samples are finite "
        "and in the support of the family, and weights not negative with a positive sum."
    )
    on_boundary = (
        "The most likely distribution is on the boundary of its family, where some probability is 0 or 1: `dist` to it "
        "is finite, but the Fisher matrix is not, and `log` and `exp` are NaN. Add a fraction of a count to each "
        "outcome, or leave out outcomes that never occur."
    )
    chain_diverged = (
        "A chain of samples failed: it began where log p or the metric is not finite, was never accepted, or diverged "
        "in many of its steps. Try a smaller `step_size` (or `width`), a start where `log_prob` is finite, a smaller "
        "`strength` of a SteinMetric, or `adjusted=True`. `samples.result` says which chains."
    )


@contextlib.contextmanager
def no_host_checks() -> Iterator[None]:
    """Within it, what libraries check at run time by calls back to the host is not compiled into programs.

    diffrax compares the times to save at with the ends of the integration in this way, which scoregeo has checked.
    equinox has a setting for it, of the process as a whole; where a version has none of that name, the checks stay.
    """
    errors: Any = sys.modules.get("equinox._errors")
    before = getattr(errors, "EQX_ON_ERROR", None)
    if before != "raise":  # unknown, or somebody's own choice
        yield
        return
    errors.EQX_ON_ERROR = "off"
    try:
        yield
    finally:
        errors.EQX_ON_ERROR = before


def first_failure(
    conditions: Sequence[tuple[Bool[Array, ""] | bool, RESULTS]], otherwise: RESULTS = RESULTS.successful
) -> RESULTS:
    """The code of the first condition that is true, ``otherwise`` if none is.

    ``conditions`` are pairs of a scalar boolean and a code, the most telling first; both may be traced.

    >>> import jax.numpy as jnp
    >>> missed, inaccurate = jnp.asarray(False), jnp.asarray(True)
    >>> result = first_failure([(missed, RESULTS.ends_missed), (inaccurate, RESULTS.accuracy_not_reached)])
    >>> bool(result == RESULTS.accuracy_not_reached)
    True
    """
    result = otherwise
    for condition, code in reversed(conditions):
        result = RESULTS.where(condition, code, result)
    return result


def status_name(result: RESULTS) -> Any:
    """The name of a code as a string: "converged" for ``successful``, else as it is spelt in `RESULTS`.

    For a batch of codes, a NumPy array of names of the same shape. Raises ``TypeError`` for a traced code, which has no
    value yet.

    >>> status_name(RESULTS.ends_missed), status_name(RESULTS.successful)
    ('ends_missed', 'converged')
    """
    (code,) = jax.tree.leaves(result)
    if not is_concrete(code):
        raise TypeError("`result` must be concrete: a traced code has no name yet")
    spelt = {int(jax.tree.leaves(item)[0]): name for name, item in RESULTS._name_to_item.items()}
    spelt[int(jax.tree.leaves(RESULTS.successful)[0])] = "converged"
    names = np.array([spelt[number] for number in range(len(RESULTS))])[np.asarray(code)]
    return str(names) if names.ndim == 0 else names


def raise_if_failed(value: Any, result: RESULTS, advice: str | None = None) -> Any:
    """``value`` itself, raising ``RuntimeError`` with ``advice``, or that of ``result``, if that is a failure.

    Inside a trace nothing can be raised without a call back to the host, which would keep programs out of JAX's
    persistent cache and off some devices, and let one lane end a batch: there, the numbers in ``value`` are NaN where
    ``result`` is a failure, with derivatives of zero.
    """
    failed = result != RESULTS.successful
    if is_concrete(failed):
        if bool(jnp.any(failed)):
            raise RuntimeError(RESULTS[result] if advice is None else advice)
        return value

    def spoilt(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        return jnp.where(jnp.reshape(failed, failed.shape + (1,) * (leaf.ndim - failed.ndim)), jnp.nan, leaf)

    return jax.tree.map(spoilt, value)
