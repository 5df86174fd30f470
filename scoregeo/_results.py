"""How a solve ended: result codes that extend diffrax's, each with advice on what to try next."""

import diffrax


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """Result codes of scoregeo's solvers. ``successful`` has no message; every other code says what to try.

    Inner failures (diffrax, optimistix, lineax) are promoted to the code of the same name. Compare with ``==``, which
    works on batches: ``geodesic.result == RESULTS.successful``.
    """

    successful = ""
    metric_nonfinite = (
        "The metric returned NaN or infinity. Check that the score is finite at both end points and between them "
        "(`metric.score(x)`), or move the end points away from where it is not."
    )
    newton_steps_reached = (
        "The geodesic solver used all its Newton steps before its gradient was small. Try "
        "`SpectralNewton(max_steps=...)` with a larger number, a smaller `strength`, or a better starting path `init`."
    )
    stalled = (
        "The geodesic solver could not lower the energy any further although its gradient is not small. Try float64 "
        "(`jax.config.update('jax_enable_x64', True)`), a smaller `strength`, or another starting path `init`."
    )
    accuracy_not_reached = (
        "The path is a geodesic of its discretisation, but refinement reached `max_degree` with an estimated error of "
        "the length above `rtol`. Try `SpectralNewton(max_degree=...)` with a larger number, or a larger `rtol`; the "
        "estimate is in `geodesic.error`."
    )


__all__ = ["RESULTS"]
