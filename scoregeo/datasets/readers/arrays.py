"""Arrays from .npy and .npz files."""

import pathlib
import tokenize
import zipfile
import zlib

import numpy as np

from .raw import Options, Raw, as_labels, check_start


def read_array(path: pathlib.Path, where: str, options: Options) -> Raw:
    """The array of a .npy file, or the one of an .npz file that ``options.key`` names, with the labels that
    ``options.label`` names."""
    kind = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(6)
    check_start(start, (b"\x93NUMPY" if kind == ".npy" else b"PK",), where, f"a NumPy {kind} file")
    try:
        # np.load leaves a file that it opened itself open when the archive is broken.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if kind == ".npy":
                return Raw(values=loaded)
            names = list(loaded.files)
            labels = None if options.label is None else loaded[_key(options.label, names, where, "label")]
            others = [name for name in names if name != options.label]
            key = others[0] if options.key is None and len(others) == 1 else options.key
            values = loaded[_key(key, names, where, "key")]
    except (EOFError, OSError, NotImplementedError, SyntaxError, tokenize.TokenError) as error:
        raise _broken(where, kind, error) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise _broken(where, kind, error) from error
    except _UnknownKey:
        raise
    except ValueError as error:
        raise _broken(where, kind, error) from error
    if labels is None:
        return Raw(values=values)
    if labels.shape != values.shape[:1]:
        raise ValueError(
            f"`label` = {options.label!r} must name labels of shape {values.shape[:1]}, one for each point of {where}, "
            f"got {labels.shape}"
        )
    codes, classes = as_labels(labels, where, options.label)
    return Raw(values=values, labels=codes, label_names=classes)


class _UnknownKey(ValueError):
    """An array that an .npz file does not have: the argument is wrong, not the file."""


def _key(name: object, names: list[str], where: str, option: str) -> str:
    if isinstance(name, str) and name in names:
        return name
    given = f"`{option}`" if name is None else f"`{option}` = {name!r}"
    raise _UnknownKey(f"{given} must name one of the arrays of {where}, which holds {names}")


def _broken(where: str, kind: str, error: Exception) -> ValueError:
    return ValueError(f"{where} must be a NumPy {kind} file with an array of numbers: {error}")
