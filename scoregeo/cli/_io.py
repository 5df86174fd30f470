"""What the commands read: saved models, and points in files.

Points in files are in the units of the data; the standardisation that a model keeps stands between them and the model.
"""

import contextlib
import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..datasets.files import FilePoints, read_points
from ..diffusion import DiffusionModel
from ._report import Report

# The file beside a model with the points that it was trained on, in the units of the data.
POINTS_FILE = "points.npy"
# Delimiters that are hard to type, by name.
_DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " "}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointsOptions:
    """Which numbers of a file are the points. Most files need none of these."""

    key: str | None = None
    """Which array of an .npz file that holds several, layer or embedding of an .h5ad file, or split of a data set of
    Hugging Face."""
    columns: tuple[str, ...] = ()
    """Which columns of a table, in this order; all by default. Without names they are called 0, 1, ..."""
    delimiter: str | None = None
    """What separates the values of a .csv file: a character, or tab or space; by default it is guessed."""
    header: bool | None = None
    """Whether the first row of a .csv file has the names of its columns; by default it is guessed."""
    label: str | None = None
    """Which column of a table has the labels, and is none of the points."""
    drop: bool = False
    """Leave out columns in which nothing is a number, then rows in which something is missing."""
    impute: Literal["median"] | None = None
    """What to put for a number that is missing: the median of its column."""
    size: tuple[int, ...] = ()
    """To how many pixels images are stretched: a side, or height and width."""
    channels: Literal[1, 3] | None = None
    """1 to read images as grey, 3 as colour."""

    def chosen(self) -> list[str]:
        """The options that are given."""
        fields = dataclasses.fields(PointsOptions)
        return [f"--{field.name}" for field in fields if getattr(self, field.name) != field.default]

    def read(self, path: pathlib.Path, report: Report, name: str = "data") -> FilePoints:
        """The points of the file that the option ``--name`` gives; what was guessed for a .csv file, left out or filled
        is printed. Raises as `scoregeo.datasets.load` does."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(PointsOptions)}
        given |= {name: given[name] or None for name in ("columns", "size")}
        given["delimiter"] = self.delimiter and _DELIMITERS.get(self.delimiter, self.delimiter)
        with naming(name, path):
            found = read_points(path, **given)
        layout = () if found.layout is None else (f"read {path} with {found.layout}",)
        for sentence in (*layout, *(f"of {path}: {done}" for done in (*found.left_out, *found.notes))):
            report.note(sentence)
        return found

    def points_for(self, model: DiffusionModel, path: pathlib.Path, report: Report) -> jax.Array | np.ndarray:
        """The points of ``--data``, in the coordinates of ``model``; raises ``ValueError`` for another dimension."""
        return self.rows_for(model, path, report).points

    def rows_for(self, model: DiffusionModel, path: pathlib.Path, report: Report, name: str = "data") -> "Rows":
        """The points of the file that the option ``--name`` gives, with the rows of the file that they are."""
        found = self.read(path, report, name)
        return Rows(in_coordinates(model, found.points, path), found.rows, found.total)


@contextlib.contextmanager
def naming(name: str, path: pathlib.Path) -> Iterator[None]:
    """What is raised about ``path`` names the option ``--name``."""
    try:
        yield
    except (OSError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(str(error).replace(f"`path` = {str(path)!r}", f"`--{name}` {path}")) from error


class Rows(NamedTuple):
    """Points in the coordinates of a model, ``(n, dim)``; the rows of the file that they are, ``(n,)``; how many these
    are in total."""

    points: jax.Array | np.ndarray
    rows: np.ndarray
    total: int


def some_rows(total: int, n: int, seed: int, report: Report) -> np.ndarray:
    """Which rows of ``total`` are taken, in order: all, or ``n`` at random, which is told."""
    if total <= n:
        return np.arange(total)
    report.note(f"{n} of {total} rows are taken at random, by --seed {seed}")
    return np.sort(np.random.default_rng(seed).choice(total, n, replace=False))


def load_model(folder: pathlib.Path, report: Report) -> DiffusionModel:
    """The saved model; raises ``ValueError`` that names the argument."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(
            f"`--model` {folder} cannot be used: it {what}, but must be a folder that `scoregeo train` wrote"
        )
    try:
        with report.busy("loading the model"):
            model = DiffusionModel.load(folder)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"`--model` {folder} cannot be used: {error}") from error
    report.compiles_for(type(model.denoiser.net).__name__)
    return model


def training_points(model: DiffusionModel, folder: pathlib.Path) -> jax.Array | np.ndarray | None:
    """The points kept beside a model, in its coordinates; ``None`` if there are none."""
    path = folder / POINTS_FILE
    return in_coordinates(model, read_points(path).points, path) if path.exists() else None


def in_coordinates(model: DiffusionModel, points: np.ndarray, path: pathlib.Path) -> jax.Array | np.ndarray:
    """The points ``(n, d)`` of a file in the coordinates of ``model``; raises ``ValueError`` for another dimension.

    Without a standardisation they stay in float64: what takes them subtracts the mean of the model first.
    """
    if points.shape[1] != model.dim:
        raise ValueError(f"{path} must have points of dimension {model.dim}, as the model has, got {points.shape[1]}")
    if model.standardization is None:
        return points
    return jnp.asarray(model.standardization.apply(points), model.dtype)


def unit_of_length(model: DiffusionModel) -> str:
    """What to call the units in which ``model`` measures distances."""
    return "units of the data" if model.standardization is None else "standardised units"


def read_npy(path: pathlib.Path, name: str) -> np.ndarray:
    """Real numbers of any shape from the .npy file that the option ``--name`` gives."""
    try:
        # Opened here: NumPy leaves a file open that it finds damaged.
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
            array = array if isinstance(array, np.ndarray) else None
    except FileNotFoundError as error:
        raise FileNotFoundError(f"`--{name}`: no such file {path}") from error
    except OSError as error:
        raise OSError(f"`--{name}`: {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"`--{name}`: {path} is not a .npy file of numbers") from error
    if array is None or array.dtype.kind not in "fiu":
        raise ValueError(f"`--{name}`: {path} is not a .npy file of real numbers")
    return array
