"""How good a learned score is, against the noise level: what `evaluate_score` and `evaluate_held_out` report."""

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from ..diffusion import HeldOutReport, ScoreReport
from .fields import check_axes

_STYLES = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#555555", "^", ":"))


def score_errors(ax: Axes, report: ScoreReport) -> list[Line2D]:
    """Relative errors of the score and of J v, and the asymmetry of J, by noise level, on logarithmic axes.

    ``report`` is that of `scoregeo.diffusion.evaluate_score`. An asymmetry that is zero, of a gradient field, is not
    drawn. Returns the lines.
    """
    check_axes(ax)
    if not isinstance(report, ScoreReport):
        raise TypeError(f"`report` must be a ScoreReport, as of `evaluate_score`, got {type(report).__name__}")
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
    if not isinstance(report, HeldOutReport):
        raise TypeError(f"`report` must be a HeldOutReport, as of `evaluate_held_out`, got {type(report).__name__}")
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
