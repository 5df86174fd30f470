"""The command line: ``scoregeo demo``, ``scoregeo geodesic``, ``scoregeo distance``.

Arguments are dataclasses (tyro). Everything heavy is imported by the command that needs it, so that ``--help`` is
quick. A user's mistake ends with one line on standard error and exit status 2; an interrupt with 130.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro


class CommandError(Exception):
    """A command could not be done for a reason that one line can tell."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """Train a score on data, build the Stein metric, solve geodesics between real points, certify and draw them."""

    data: str = "all"
    """moons, digits, all (both), or the path of a .npy, .npz, .csv or .parquet file."""
    out: Path = Path("scoregeo-demo")
    """Folder for pictures, report.json and the models."""
    quick: bool = False
    """Train briefly: to see that everything runs, not how good it gets."""
    seed: int = 0
    """Of everything random: the same seed gives the same numbers."""

    def run(self) -> None:
        """Do it."""
        from .demo import run_demo

        console = _console()
        report = run_demo(self.data, self.out, quick=self.quick, seed=self.seed, console=console)
        console.print(f"wrote {self.out / 'report.json'} ({report['seconds']:.0f} s)")
        failed = [g for data in report["data"].values() for g in data["geodesics"] if not g["converged"]]
        if failed:
            raise CommandError(
                f"{len(failed)} geodesics did not converge: see the status in {self.out / 'report.json'}"
            )


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Which model, which metric of it, and which two points."""

    model: Path
    """Folder of a saved model, such as scoregeo-demo/moons/model."""
    start: Annotated[str, tyro.conf.arg(name="from")]
    """Index of a point of the data that the model was trained on, or a .npy file with one point."""
    end: Annotated[str, tyro.conf.arg(name="to")]
    """Likewise. Points are in the units of the data."""
    sigma: float | None = None
    """Noise level of the score; by default the one kept with the model."""
    strength: float | None = None
    """Strength of the metric; by default the one kept with the model."""


@dataclasses.dataclass(frozen=True)
class Geodesic(_Pair):
    """Solve one geodesic of a saved model, certify it, and optionally write and draw it."""

    out: Path | None = None
    """A .npz file for ts, points (units of the data), velocities and the report."""
    picture: Path | None = None
    """A .png file: the path in the plane, as a strip of images, or in principal components."""

    def run(self) -> None:
        """Do it."""
        from . import commands

        commands.run_geodesic(self, _console())


@dataclasses.dataclass(frozen=True)
class Distance(_Pair):
    """Print the geodesic distance of two points under a saved model, with its error estimate and status."""

    def run(self) -> None:
        """Do it."""
        from . import commands

        commands.run_distance(self, _console())


def _console() -> Any:
    from rich.console import Console

    console = Console()
    # Off a terminal rich assumes 80 columns, which cuts the table.
    return console if console.is_terminal else Console(width=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: those of the process)."""
    Command = (
        Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Geodesic, tyro.conf.subcommand("geodesic")]
        | Annotated[Distance, tyro.conf.subcommand("distance")]
    )
    command = tyro.cli(
        Command,
        prog="scoregeo",
        description="Riemannian geometry of score models: from data to geodesics.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    try:
        command.run()
    except (CommandError, ValueError, TypeError, OSError, ImportError) as error:
        _fail(error, 2)
    except KeyboardInterrupt as error:
        _fail(error if str(error) else "interrupted", 130)


def _fail(error: Any, status: int) -> None:
    line = " ".join(str(error).split())
    print(f"scoregeo: {line}", file=sys.stderr)
    raise SystemExit(status)
