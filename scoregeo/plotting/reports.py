"""How good a learned score is: what `evaluate_score`, `evaluate_held_out` and `memorization` report."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..diffusion import HeldOutReport, MemorizationReport, ScoreReport
from .fields import check_axes

_STYLES = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#555555", "^", ":"))


def score_errors(ax: Axes, report: ScoreReport) -> list[Line2D]:
    """Relative errors of the score and of J v, and the asymmetry of J, by noise level, on logarithmic axes.

    ``report`` is that of `scoregeo.diffusion.evaluate_score`. An asymmetry that is zero, of a gradient field, is not
    drawn. Returns the lines.
    """
    check_axes(ax)
    _check_report(report, ScoreReport, "evaluate_score")
    curves = [("score $s$", report.score_error), ("derivative $Jv$", report.jvp_error)]
    if report.asymmetry.max() > 1e-4 * report.jvp_error.max():
        curves.append(("asymmetry of $J$", report.asymmetry))
    lines = [
        ax.loglog(report.sigmas, values, color=color, marker=marker, ls=dash, label=label)[0]
        for (label, values), (color, marker, dash) in zip(curves, _STYLES, strict=False)
    ]
    ax.set_xlabel("noise level $\\sigma$")
    ax.set_ylabel("relative $L^2$ error")
    ax.legend(fontsize=9)
    return lines


def calibration(ax: Axes, report: HeldOutReport) -> ErrorbarContainer:
    """Calibration of the score's Jacobian on held-out data by noise level, with two standard errors.

    ``report`` is that of `scoregeo.diffusion.evaluate_held_out`. The band is its tolerance around 1, the exact score;
    a vertical line marks the recommended noise level, if there is one. Returns the curve with its bars.
    """
    check_axes(ax)
    _check_report(report, HeldOutReport, "evaluate_held_out")
    color, marker, dash = _STYLES[0]
    ax.axhspan(1 - report.tolerance, 1 + report.tolerance, color="#DDDDDD", lw=0, label="tolerance")
    bars = ax.errorbar(
        report.sigmas,
        report.calibration,
        2 * report.calibration_error,
        color=color,
        marker=marker,
        ls=dash,
        capsize=3,
        label="learned score",
    )
    if report.recommended_sigma == report.recommended_sigma:
        ax.axvline(report.recommended_sigma, color="#D55E00", ls="--", lw=1.5, label="recommended $\\sigma$")
    ax.set_xscale("log")
    ax.set_xlabel("noise level $\\sigma$")
    ax.set_ylabel("denoising error, found / expected")
    ax.legend(fontsize=9)
    return bars


def held_out_loss(ax: Axes, report: HeldOutReport) -> list[Line2D]:
    """The loss on held-out data by noise level, and that of the score of a Gaussian.

    ``report`` is that of `scoregeo.diffusion.evaluate_held_out`. A score of zero has loss 1; where the lines meet, the
    score says no more about the data than their mean and variance do. Returns the lines.
    """
    check_axes(ax)
    _check_report(report, HeldOutReport, "evaluate_held_out")
    curves = (("learned score", report.loss), ("score of a Gaussian", report.trivial_loss))
    lines = [
        ax.semilogx(report.sigmas, values, color=color, marker=marker, ls=dash, label=label)[0]
        for (label, values), (color, marker, dash) in zip(curves, _STYLES, strict=False)
    ]
    ax.set_ylim(bottom=0)
    ax.set_xlabel("noise level $\\sigma$")
    ax.set_ylabel("squared error of the predicted noise")
    ax.legend(fontsize=9)
    return lines


def memorization_gap(ax: Axes, report: MemorizationReport) -> BarContainer:
    """How near samples and held-out points are to the training points, with the fraction of copies beside each bar.

    ``report`` is that of `scoregeo.diffusion.memorization`; the title says its gap. Returns the bars: samples first,
    which are about as long as the other one if nothing was memorised.
    """
    check_axes(ax)
    _check_report(report, MemorizationReport, "memorization")
    distances = report.sample_distance, report.fresh_distance
    bars = ax.barh(["samples", "held-out\npoints"], distances, height=0.5, color=("#D55E00", "#0072B2"))
    ax.bar_label(bars, [f" {share:.1%} copies" for share in (report.copies, report.fresh_copies)], fontsize=9)
    ax.set_xlim(0, 1.4 * max(distances) or 1)
    ax.invert_yaxis()
    ax.set_xlabel("median distance to the\nnearest training point")
    ax.set_title(f"memorisation gap {report.gap:.3f}", fontsize=10)
    return bars


def evaluation_figure(
    report: HeldOutReport, memorization: MemorizationReport | None = None, *, units: str = "data"
) -> Figure:
    """A figure of what held-out data say: `held_out_loss` and `calibration`, and `memorization_gap` if that is given.

    ``units`` names the units of noise levels and distances. Returns the figure, which no window shows.
    """
    count = 2 if memorization is None else 3
    figure = Figure(figsize=(4.5 * count, 4), layout="constrained")
    axes = figure.subplots(1, count)
    held_out_loss(axes[0], report)
    calibration(axes[1], report)
    if memorization is not None:
        memorization_gap(axes[2], memorization)
    for ax in axes:
        ax.set_xlabel(f"{ax.get_xlabel()} ({units} units)")
    return figure


def _check_report(report: Any, kind: type, source: str) -> None:
    if not isinstance(report, kind):
        raise TypeError(f"`report` must be a {kind.__name__}, as of `{source}`, got {type(report).__name__}")
