"""Settings as diffusers keeps them: JSON dictionaries with the name of a class."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Self

# What training scripts add to the settings of a network when they save its running average.
_OF_AVERAGES = {"decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one class of diffusers: fields with its names and its defaults."""

    class_name: ClassVar[str] = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), list):  # what JSON has for tuples
                object.__setattr__(self, field.name, tuple(value))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings in a dictionary, as JSON has them; those that are not named keep their defaults.

        Raises ``ValueError`` for the settings of another class; warns of unknown ones, which are left out.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"`settings` must be a dictionary, got {type(values).__name__}")
        name = values.get("_class_name", cls.class_name)
        if name != cls.class_name:
            raise ValueError(f"`settings` must be those of a {cls.class_name}, got those of a {name}")
        given = {key: value for key, value in values.items() if not key.startswith("_") and key not in _OF_AVERAGES}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - known):
            warnings.warn(f"{name}: settings that are not known here are left out: {unknown}", stacklevel=3)
        return cls(**{key: value for key, value in given.items() if key in known})

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them, with the name of their class."""
        return {"_class_name": self.class_name} | dataclasses.asdict(self)
