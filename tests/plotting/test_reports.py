"""Pictures of reports: what is drawn is what was reported."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo.diffusion import HeldOutReport, MemorizationReport, ScoreReport
from scoregeo.plotting import calibration, evaluation_figure, held_out_loss, memorization_gap, score_errors

SIGMAS = np.array([0.1, 0.5, 1.0])


def held_out(recommended):
    errors = np.array([0.02, 0.01, 0.01])
    values = np.array([1.3, 1.02, 0.99])
    return HeldOutReport(SIGMAS, values, values, values, errors, values, recommended, 100, 0.1)


@pytest.fixture
def ax():
    return Figure().subplots()


def test_score_errors(ax):
    errors = np.array([[0.1, 0.05, 0.02], [0.2, 0.1, 0.05], [0.03, 0.02, 0.01]])
    report = ScoreReport(SIGMAS, *errors, 9)
    lines = score_errors(ax, report)
    for line, values in zip(lines, errors, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([SIGMAS, values], -1))
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == 3
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_a_gradient_field_has_no_asymmetry_to_draw(ax):
    report = ScoreReport(SIGMAS, np.ones(3), np.ones(3), np.full(3, 1e-8), 9)
    assert len(score_errors(ax, report)) == 2


@pytest.mark.parametrize("recommended", [0.5, float("nan")])
def test_calibration(ax, recommended):
    report = held_out(recommended)
    line, _, (bars,) = calibration(ax, report)
    np.testing.assert_array_equal(line.get_xydata(), np.stack([SIGMAS, report.calibration], -1))
    for segment, value, error in zip(bars.get_segments(), report.calibration, report.calibration_error, strict=True):
        np.testing.assert_allclose(segment[:, 1], [value - 2 * error, value + 2 * error])
    marks = [each for each in ax.lines if "recommended" in str(each.get_label())]
    assert [mark.get_xdata()[0] for mark in marks] == ([0.5] if recommended == 0.5 else [])


def test_held_out_loss(ax):
    report = held_out(0.5)
    lines = held_out_loss(ax, report)
    for line, values in zip(lines, (report.loss, report.trivial_loss), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([SIGMAS, values], -1))
    assert (ax.get_xscale(), ax.get_ylim()[0]) == ("log", 0)
    assert ax.get_xlabel()
    assert ax.get_ylabel()


@pytest.mark.parametrize("values", [(0.5, 1.0, 0.5, 0.25, 0.0), (0.0, 0.0, np.nan, 1.0, 1.0)])
def test_memorization_gap(ax, values):
    report = MemorizationReport(*values)
    bars = memorization_gap(ax, report)
    assert [bar.get_width() for bar in bars] == list(values[:2])
    assert [text.get_text() for text in ax.texts] == [f" {share:.1%} copies" for share in values[3:]]
    assert f"{report.gap:.3f}" in ax.get_title()
    assert ax.get_xlabel()
    assert ax.yaxis_inverted()  # samples above


def test_evaluation_figure():
    found = MemorizationReport(0.5, 1.0, 0.5, 0.25, 0.0)
    for given, count in ((None, 2), (found, 3)):
        axes = evaluation_figure(held_out(0.5), given, units="standardised").axes
        assert len(axes) == count
        assert all(ax.get_xlabel().endswith("(standardised units)") for ax in axes)


def test_wrong_reports(ax):
    with pytest.raises(TypeError, match="`report` must be a MemorizationReport, as of `memorization`, got HeldOutRe"):
        memorization_gap(ax, held_out(0.5))
    with pytest.raises(TypeError, match="`report` must be a HeldOutReport, as of `evaluate_held_out`, got int"):
        held_out_loss(ax, 3)
    with pytest.raises(TypeError, match="`report` must be a ScoreReport, as of `evaluate_score`, got HeldOutReport"):
        score_errors(ax, held_out(0.5))
    with pytest.raises(TypeError, match="`report` must be a HeldOutReport, as of `evaluate_held_out`, got int"):
        calibration(ax, 3)
    with pytest.raises(TypeError, match="`ax`"):
        calibration(None, held_out(0.5))
