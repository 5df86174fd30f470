"""Settings that are objects (a schedule, a weighting, noise levels), as JSON holds them: their kind and its fields."""

import dataclasses
from collections.abc import Mapping
from typing import Any


def settings_to_dict(settings: Any, name: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Settings of one of the given kinds as a dictionary for JSON: the ``kind`` and its fields."""
    kind = type(settings).__name__
    if kinds.get(kind) is not type(settings):
        raise TypeError(f"`{name}` must be one of {', '.join(kinds)} to be saved, got {kind}")
    return {"kind": kind} | {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def settings_from_dict(values: Any, name: str, kinds: Mapping[str, type]) -> Any:
    """The inverse of `settings_to_dict`; raises ``ValueError`` for an unknown kind or field."""
    if not isinstance(values, Mapping) or values.get("kind") not in kinds:
        raise ValueError(f"`{name}` must be a dictionary whose `kind` is one of {', '.join(kinds)}, got {values!r}")
    kind = kinds[values["kind"]]
    fields = {field: value for field, value in values.items() if field != "kind"}
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"`{name}` has unknown fields {unknown}; {kind.__name__} has {known}")
    return kind(**fields)
