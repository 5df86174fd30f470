"""Mistakes on one line: what the parser puts into boxes, and messages of the library in the words of users."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

# What the parser says besides, and how Python says that a word is no number.
_BESIDE = re.compile(r"^(For full helptext|Argument helptext|Arguments are applied|Available subcommands)")
_NO_NUMBER = {
    r"Error parsing (--\S+): invalid literal for int\(\) with base 10: (.*)": r"`\1` must be a whole number, got \2",
    r"Error parsing (--\S+): could not convert string to float: (.*)": r"`\1` must be a number, got \2",
    r"Error parsing __tyro\S+ ": "",
    r"Error parsing (--\S+): must": r"`\1` must",
    r"Error parsing (--\S+): ": r"`\1`: ",
}
# Python's words in messages of the library, for somebody at a shell.
_IN_WORDS = {
    "must be None": "must be left out",
    "(make it with `classes` or `condition_dim`)": "(train it with `--labels`)",
}


def unknown_command(word: str, known: Iterable[str]) -> str:
    """What to say where ``word`` is no command."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    meant = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(names)}"
    return f"there is no command {word!r}: {meant}"


def from_box(text: str, name: str) -> str:
    """The mistake in a box of the parser, ``text``, about the command called ``name``, as one line."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()[1:]  # without the title
    sections: list[list[str]] = [[]]
    for line in lines:
        words = line.strip("│╰╯─- \n") if set(line.strip()) <= set("│╰╯─- ") else line.strip("│ ")
        if words:
            sections[-1].append(re.sub(r" *\(applied to .*?\)| *\(required\)| *\(default: .*?\)", "", words))
        else:
            sections.append([])
    told = [" ".join(" ".join(section).split()) for section in sections if section]
    sentence = "; ".join(part for part in told if not _BESIDE.match(part))
    for pattern, better in _NO_NUMBER.items():
        sentence = re.sub(pattern, better, sentence)
    return f"{sentence.rstrip('.')}; see scoregeo {name} --help".replace("  ", " ")


def in_options(message: str, command: Any) -> str:
    """``message`` with the names of what ``command``, or its class, has for arguments as the options that they are:
    the library says `batch_size`, the user wrote `--batch-size`."""
    for name in set(_names(command)):
        message = message.replace(f"`{name}`", f"`--{name.replace('_', '-')}`")
    for words, better in _IN_WORDS.items():
        message = message.replace(words, better)
    return message


def _names(command: Any) -> Iterator[str]:
    for field in dataclasses.fields(command):
        if dataclasses.is_dataclass(field.default):
            yield from _names(field.default)
        else:
            yield field.name
