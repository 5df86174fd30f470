"""What a command is. This file imports nothing of scoregeo, so that every file of the command line can import it."""

import abc
import dataclasses
import typing

import tyro

if typing.TYPE_CHECKING:
    from ._report import Report

# How tyro reads arguments whose types are our own. A command with such an argument adds a rule.
ARGUMENT_TYPES = tyro.constructors.ConstructorRegistry()


class CommandError(Exception):
    """What a command was asked for could not be computed, for a reason that fits on one line: a solve, a training."""


class Command(abc.ABC):
    """One command. A subclass is a frozen dataclass: its fields are the arguments, their docstrings the help."""

    # Command lines that the help ends with, without "scoregeo" and the name of the command.
    examples: typing.ClassVar[tuple[str, ...]] = ()
    # Whether its programs take longer to compile than they run.
    compiles_most: typing.ClassVar[bool] = False

    @abc.abstractmethod
    def run(self, report: "Report") -> None:
        """Do what the command says, and tell ``report``.

        Raises `CommandError`, or any exception that `scoregeo.cli.main` reports as a user's mistake.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is printed. Every command has these."""

    json: bool = False
    """Print the results as one JSON object on standard output, and nothing else there."""
    quiet: bool = False
    """Print no progress, tables or sentences; errors stay."""
