"""Settings that are objects (a schedule, a weighting, noise levels), as JSON holds them: their kind and its fields."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Kinds:
    """What one setting can be.

    **Fields**

    - ``name``: what the setting is called, for messages.
    - ``base``: the type that its values have.
    - ``wanted``: what a value has to be, in words and with examples, for messages.
    - ``known``: the subclasses of ``base`` that files and the command line know by name.
    - ``optional``: whether ``None`` is a value too.
    """

    name: str
    base: type
    wanted: str
    known: tuple[type, ...]
    optional: bool = False

    @property
    def types(self) -> dict[str, type]:
        """The known types by name."""
        return {kind.__name__: kind for kind in self.known}

    def check(self, value: Any) -> None:
        """Raise ``ValueError`` for what is no value of this setting."""
        if not (isinstance(value, self.base) or (self.optional and value is None)):
            raise ValueError(f"`{self.name}` must be {self.wanted}, got {value!r}")

    def to_dict(self, value: Any) -> dict[str, Any] | None:
        """A value as a dictionary for JSON: the ``kind`` and its fields. ``None`` stays ``None``.

        Raises ``TypeError`` for a type that is not of the table.
        """
        if self.optional and value is None:
            return None
        kind = type(value).__name__
        if self.types.get(kind) is not type(value):
            raise TypeError(f"`{self.name}` must be one of {', '.join(self.types)} to be saved, got {kind}")
        return {"kind": kind} | {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}

    def from_dict(self, values: Any) -> Any:
        """The inverse of `to_dict`; raises ``ValueError`` for an unknown kind or field."""
        if self.optional and values is None:
            return None
        if not isinstance(values, Mapping) or values.get("kind") not in self.types:
            names = ", ".join(self.types)
            raise ValueError(f"`{self.name}` must be a dictionary whose `kind` is one of {names}, got {values!r}")
        kind = self.types[values["kind"]]
        fields = {field: value for field, value in values.items() if field != "kind"}
        known = [field.name for field in dataclasses.fields(kind)]
        if unknown := sorted(set(fields) - set(known)):
            raise ValueError(f"`{self.name}` has unknown fields {unknown}; {kind.__name__} has {known}")
        return kind(**fields)
