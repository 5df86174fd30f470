"""What a command is. This file imports nothing of scoregeo, so that every file of the command line can import it."""

import abc
import typing

import tyro

if typing.TYPE_CHECKING:
    from rich.console import Console

# How tyro reads arguments whose types are our own. A command with such an argument adds a rule.
ARGUMENT_TYPES = tyro.constructors.ConstructorRegistry()


class CommandError(Exception):
    """A command could not be done, for a reason that fits on one line."""


class Command(abc.ABC):
    """One command. A subclass is a frozen dataclass: its fields are the arguments, their docstrings the help."""

    @abc.abstractmethod
    def run(self, console: "Console") -> None:
        """Do what the command says, and print to ``console``.

        Raises `CommandError`, or any exception that `scoregeo.cli.main` reports as a user's mistake.
        """
