"""Data sets of Hugging Face's library ``datasets``: saved to disk, or named on their Hub."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from .folders import stack_images
from .raw import Options, Raw, as_labels, chosen, listed
from .tables import of_frame

PREFIX = "hf:"


def is_saved(path: pathlib.Path) -> bool:
    """Whether ``path`` is a folder that ``save_to_disk`` wrote."""
    one = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    return one or (path / "dataset_dict.json").is_file()


def read_hub(path: pathlib.Path, where: str, options: Options) -> Raw:
    """The rows of a data set: the images of its only column of images, or its numeric columns, or the chosen ones.
    ``options.key`` is the split. The only column of classes has the labels, if ``options.label`` names no other."""
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise ImportError(f"reading {where} needs datasets: pip install scoregeo[huggingface]") from error
    name = str(path)
    try:
        if name.startswith(PREFIX):
            repository, _, part = name.removeprefix(PREFIX).partition(":")
            found = datasets.load_dataset(repository, part or None)
        else:
            found = datasets.load_from_disk(name)
    except ConnectionError as error:
        raise ConnectionError(f"{where} cannot be reached: {error}. Is there a way to the internet?") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where} is no data set: {error}") from error
    except (ValueError, TypeError, KeyError, OSError, DatasetsError) as error:
        raise ValueError(f"{where} must be a data set that `datasets` can read: {error}") from error
    data = _split(found, where, options.key)
    if not len(data):
        raise ValueError(f"{where} must hold at least one point and one feature, got 0 rows of {data.column_names}")
    labels, classes, label = _labels(data, where, options.label)
    names = [name for name in data.column_names if name != label]
    kept = names if options.columns is None else [names[j] for j in chosen(options.columns, names, where)]
    images = [name for name in kept if isinstance(data.features[name], datasets.Image)]
    if not images:
        raw = of_frame(data.select_columns(kept).to_pandas(), where, Options(drop=options.drop))
        return dataclasses.replace(raw, labels=labels, label_names=classes)
    left_out = [name for name in kept if name not in images]
    if len(images) > 1 or (left_out and options.columns is not None):
        raise ValueError(f"{where} must have one column of images and nothing else, got {kept}: choose by `columns`")
    opened = data.select_columns(images)
    makers = [lambda i=i: opened[i][images[0]] for i in range(len(opened))]
    values = stack_images(makers, [f"row {i}" for i in range(len(makers))], where, options)
    notes = [f"left out the columns beside the images: {listed([repr(name) for name in left_out])}"] if left_out else []
    return Raw(values=values, labels=labels, label_names=classes, left_out=notes)


def _split(found: Any, where: str, key: str | None) -> Any:
    if not hasattr(found, "keys"):
        if key is not None:
            raise ValueError(f"`key` = {key!r} names a split, but {where} has none")
        return found
    splits = list(found.keys())
    if key is None and len(splits) == 1:
        key = splits[0]
    if key not in splits:
        given = "`key`" if key is None else f"`key` = {key!r}"
        raise ValueError(f"{given} must name one of the splits of {where}, which has {splits}")
    return found[key]


def _labels(data: Any, where: str, label: Any) -> tuple[np.ndarray | None, tuple[str, ...] | None, str | None]:
    """Labels, their names, and the name of their column: by default, the only one of classes."""
    import datasets

    names = data.column_names
    of_classes = [name for name in names if isinstance(data.features[name], datasets.ClassLabel)]
    if label is None and len(of_classes) != 1:
        return None, None, None
    label = of_classes[0] if label is None else names[chosen([label], names, where, "label")[0]]
    if label not in of_classes:
        return *as_labels(data[label][:], where, label), label
    codes = np.asarray([-1 if code is None else code for code in data[label][:]], np.int64)
    return codes, tuple(data.features[label].names), label
