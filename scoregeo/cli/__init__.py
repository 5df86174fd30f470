"""The command line: ``scoregeo demo``, models (``train``, ``sample``, ``likelihood``, ``evaluate``), and their geometry
(``geodesic``, ``distance``, ``compare``).

Arguments are dataclasses (tyro). Everything heavy is imported by the command that needs it, so that ``--help`` is
quick. A user's mistake ends with one line on standard error and exit status 2; an interrupt with 130.
"""

import dataclasses
import json
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .diffusion import FitConfig


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Table:
    """Which numbers of a file of points."""

    key: str | None = None
    """Which array of an .npz file that holds several."""
    columns: tuple[str, ...] = ()
    """Which columns of a table, in this order; all by default. Without a header they are called 0, 1, ..."""


@dataclasses.dataclass(frozen=True)
class Train(_Table):
    """Learn the score of the points in a file and save the model. An interrupted run goes on when started again."""

    data: Path
    """A .npy, .npz, .csv or .parquet file; points are standardised, and the model remembers how."""
    out: Path
    """Folder of the model: config.json, model.safetensors, and the points."""
    labels: Path | None = None
    """A .npy file with a class for each point, integers 0, 1, ...: what --condition of the other commands can name."""
    config: tyro.conf.OmitArgPrefixes[FitConfig] = FitConfig()
    """Settings of `fit`; schedule, weighting and levels by name, or as in config.json."""

    def run(self) -> None:
        """Do it."""
        from . import model_commands

        model_commands.run_train(self, _console())


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw samples from a saved model."""

    model: Path
    """Folder of a saved model."""
    out: Path
    """A .npy file for the samples, in the units of the data."""
    n: int = 1000
    """How many."""
    sampler: Literal["ode", "sde", "heun", "ddim", "dpm", "pc"] = "ode"
    """Probability flow, reverse SDE, Heun (EDM), DDIM, DPM-Solver++(2M), predictor-corrector."""
    steps: int | None = None
    """Steps of the sampler; for all but ode, whose steps are adaptive."""
    seed: int = 0
    """The same seed gives the same samples."""
    condition: int | None = None
    """Label of a class that all samples are to be of; for a model trained with --labels."""
    guidance: float = 1.0
    """Weight of classifier-free guidance, with --condition; 1 for none."""

    def run(self) -> None:
        """Do it."""
        from . import model_commands

        model_commands.run_sample(self, _console())


@dataclasses.dataclass(frozen=True)
class Likelihood(_Table):
    """The log density that a saved model gives the points of a file."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of points, in the units of the data."""
    out: Path | None = None
    """A .npy file for the log densities (nats, in the units of the data)."""
    probes: int | None = None
    """Random directions that estimate the trace, for high dimension; by default the trace is exact."""
    seed: int = 0
    """Of the probes."""
    condition: int | None = None
    """Label of a class: the density of its points."""

    def run(self) -> None:
        """Do it."""
        from . import model_commands

        model_commands.run_likelihood(self, _console())


@dataclasses.dataclass(frozen=True)
class Evaluate(_Table):
    """Judge a saved model by points that it was not trained on, and recommend a noise level for geometry."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of held-out points, in the units of the data."""
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    """Noise levels, in standardised units."""
    samples: int = 500
    """How many samples to compare with the training points; 0 for none."""
    out: Path | None = None
    """A .json file for the numbers."""
    picture: Path | None = None
    """A .png file: loss and calibration by noise level, and the memorisation gap."""
    seed: int = 0
    """Of everything random."""
    condition: int | None = None
    """Label of a class that all points of --data are of; samples are too."""

    def run(self) -> None:
        """Do it."""
        from . import model_commands

        model_commands.run_evaluate(self, _console())


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


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare distances between points, or between normal distributions about them, and say how far they agree."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of points, in the units of the data."""
    to: Path | None = None
    """A file of as many points: pairs are made of the same rows. By default, all pairs among the points of --data."""
    n: int = 20
    """How many points of a file to take, at random, if it has more."""
    sigma: float | None = None
    """Noise level of the score; by default the one kept with the model."""
    strengths: tuple[float, ...] = ()
    """Strengths of the metric, one distance for each; by default the one kept with the model."""
    log_snr: float | None = None
    """Also the diffusion edit distance of the model, with noise of this log signal-to-noise ratio at both ends."""
    covariances: Path | None = None
    """A .npy file (n, d, d): also distances of the normal distributions with the points of --data as means and these
    covariances, in the units of the data."""
    to_covariances: Path | None = None
    """The same for the points of --to."""
    out: Path | None = None
    """A .csv file for the distances and the status of every pair."""
    picture: Path | None = None
    """A .png file: correlations, distances against each other, and in the plane the geodesics that bend most."""
    seed: int = 0
    """Of the points drawn, and of the intervals."""

    def run(self) -> None:
        """Do it."""
        from . import compare_command

        compare_command.run_compare(self, _console())


def _console() -> Any:
    from rich.console import Console

    console = Console()
    # Off a terminal rich assumes 80 columns, which cuts the table.
    return console if console.is_terminal else Console(width=110)


def _settings_by_name() -> tyro.constructors.ConstructorRegistry:
    """How settings of `FitConfig` that are objects are written: the name of a kind, or JSON as in config.json."""
    registry = tyro.constructors.ConstructorRegistry()
    defaults = FitConfig().to_dict()
    types = {name: hint for name, hint in typing.get_type_hints(FitConfig).items() if isinstance(defaults[name], dict)}
    types["levels"] = typing.get_type_hints(FitConfig)["levels"]

    @registry.primitive_rule
    def _(info):
        name = next((name for name, hint in types.items() if info.type == hint), None)
        if name is None:
            return None

        def read(words):
            (text,) = words
            if text == "None":
                return None
            values = json.loads(text) if text.startswith("{") else {"kind": text}
            return getattr(FitConfig.from_dict({name: values}), name)

        def write(value):
            values = dataclasses.replace(FitConfig(), **{name: value}).to_dict()[name]
            if values is None:
                return ["None"]
            return [values["kind"] if read([values["kind"]]) == value else json.dumps(values)]

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1, metavar="NAME", instance_from_str=read, is_instance=lambda value: True, str_from_instance=write
        )

    return registry


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: those of the process)."""
    Command = (
        Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[Likelihood, tyro.conf.subcommand("likelihood")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Geodesic, tyro.conf.subcommand("geodesic")]
        | Annotated[Distance, tyro.conf.subcommand("distance")]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
    )
    command = tyro.cli(
        Command,
        prog="scoregeo",
        description="Riemannian geometry of score models: from data to geodesics.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
        registry=_settings_by_name(),
    )
    try:
        command.run()
    # Training that diverges is a FloatingPointError, an integration that fails a RuntimeError.
    except (CommandError, ValueError, TypeError, OSError, ImportError, FloatingPointError, RuntimeError) as error:
        _fail(error, 2)
    except KeyboardInterrupt as error:
        _fail(error if str(error) else "interrupted", 130)


def _fail(error: Any, status: int) -> None:
    line = " ".join(str(error).split())
    print(f"scoregeo: {line}", file=sys.stderr)
    raise SystemExit(status)
