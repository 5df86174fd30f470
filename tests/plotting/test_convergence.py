"""The picture of a solve shows what its history holds."""

import numpy as np

from scoregeo.geodesics import SolveHistory
from scoregeo.plotting import convergence_figure


def made(**changes) -> SolveHistory:
    n = 5
    history = SolveHistory(
        energy=np.array([2.0, 1.0, 1.0, 0.75, 0.5]),
        path_error=np.array([1.0, 0.5, 0.5, 1e-3, 1e-6]),
        step_size=np.array([1.0, 1.0, 1.0, 0.25, 1.0]),
        accepted=np.array([True, True, False, True, True]),
        elements=np.array([1, 1, 1, 1, 4]),
        attempt=np.zeros(n, int),
        error=np.array([np.inf, np.inf, np.inf, np.inf, 1e-7]),
        newton_steps=np.arange(n),
        cg_steps=2 * np.arange(n),
        metric_evaluations=10 * np.arange(1, n + 1),
        status="converged",
    )
    return history._replace(**changes)


def test_panels_show_the_numbers():
    above, middle, below = convergence_figure(made()).axes
    energy = above.lines[0]
    np.testing.assert_array_equal(energy.get_xdata(), [10, 20, 30, 40, 50])
    np.testing.assert_allclose(energy.get_ydata()[:4], [3.0, 1.0, 1.0, 0.5])
    assert np.isnan(energy.get_ydata()[-1])
    accepted, refused = middle.lines
    assert list(refused.get_xdata()) == [30]
    assert list(accepted.get_xdata()) == [10, 20, 40, 50]
    assert "converged: 4 Newton steps" in above.get_title()
    assert below.get_ylim()[0] == 0


def test_continuations_are_shaded():
    figure = convergence_figure(made(attempt=np.array([0, 0, 1, 2, 0])))
    for ax in figure.axes:
        (span,) = ax.patches
        assert span.get_x() == 20
        assert span.get_x() + span.get_width() == 40
