"""The numbers of the pages on science: every one comes from a row of a table, and is written into the page from there.

In a page, a number of a table follows a comment that names it,

    <!--ucg_wcg UCG/exact/Stein share-->.93

the table, its row, its figure, and if it is not the mean a column; with a sign of percent it is in hundredths. Tables
stand between ``<!--table ucg_wcg NAME-->`` and ``<!--end-->``; the study ``ucg_wcg`` writes them (its ``tables``). No
line of text begins with a comment, which would end its paragraph. Any other number with a decimal point must be
mathematics, code, or marked as taken from a source: ``<!--published-->.79``.

    uv run python benchmarks/science/pages.py            # write the numbers
    uv run python benchmarks/science/pages.py --check    # or say which differ
"""

import importlib
import math
import pathlib
import re
import sys

from _study import DOCS, HERE, read, value

_NUMBER = r"[−-]?\d*\.?\d+%?"
_QUOTED = re.compile(rf"<!--(?P<table>\w+) (?P<row>\S+) (?P<figure>\w+)(?: (?P<column>\w+))?-->(?P<number>{_NUMBER})")
_TABLE = re.compile(r"(?P<begin><!--table (?P<study>\w+) (?P<name>\w+)-->\n).*?(?P<end><!--end-->)", re.DOTALL)
_UNQUOTED = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|<!--table .*?<!--end-->|\]\([^)]*\)|<!--published-->" + _NUMBER, re.DOTALL
)


def number(found: float, like: str) -> str:
    """``found`` with as many digits as ``like`` has, as it is written: ``.79``, ``−12%``.

    >>> number(0.7864, ".79"), number(-0.123, "4%"), number(12.31, "9.1")
    ('.79', '−12%', '12.3')
    """
    percent = like.endswith("%")
    digits = len(like.rstrip("%").partition(".")[2])
    if not math.isfinite(found):
        raise ValueError(f"a number that is quoted must be finite, got {found}")
    text = f"{abs(found) * (100 if percent else 1):.{digits}f}"
    text = text.removeprefix("0") if text.startswith("0.") else text
    sign = "−" if found < 0 and float(text) else ""
    return sign + text + "%" * percent


def rebuilt(text: str, results: pathlib.Path = HERE / "results") -> str:
    """The text of a page with the numbers and tables that the results hold. Raises ``KeyError`` where they hold
    none."""

    def quote(match: re.Match) -> str:
        rows = read(results / f"{match['table']}.csv")
        found = value(rows, match["row"], match["figure"], match["column"] or "mean")
        return match[0].removesuffix(match["number"]) + number(found, match["number"])

    def table(match: re.Match) -> str:
        made = importlib.import_module(match["study"]).tables(read(results / f"{match['study']}.csv"))
        return match["begin"] + made[match["name"]] + match["end"]

    return _QUOTED.sub(quote, _TABLE.sub(table, text))


def unquoted(text: str) -> list[str]:
    """The numbers with a decimal point in a page that no row stands behind, and lines that begin with a comment."""
    broken = re.findall(r"^ *<!--(?!table |end-->).*", text, re.MULTILINE)
    rest = _UNQUOTED.sub(" ", _QUOTED.sub(" ", text))
    # Not the numbers of papers on arXiv.
    rest = re.sub(r"\d{4}\.\d{5}(v\d+)?", " ", rest)
    return broken + re.findall(r"(?<![\w.])\d*\.\d+", rest)


def main() -> None:
    """Write the numbers into the pages, or check them."""
    wrong = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        new = rebuilt(text)
        wrong += [f"{page.name}: {found} has no row, or is out of place" for found in unquoted(text)]
        if "--check" in sys.argv:
            wrong += [f"{page.name} differs from its tables"] if new != text else []
        else:
            page.write_text(new)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
