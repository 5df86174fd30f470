"""Settings as diffusers keeps them: JSON dictionaries with the name of a class."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..._checks import check_count, is_integer, warn
from .layers import groups_of

# What training scripts add to the settings of a network when they save its running average.
_OF_AVERAGES = {"decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one class of diffusers: fields with its names and its defaults."""

    class_name: ClassVar[str] = ""

    if TYPE_CHECKING:  # every class has these two, with defaults of its own

        @property
        def block_out_channels(self) -> tuple[int, ...]: ...

        @property
        def norm_num_groups(self) -> int | None: ...

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), list):  # what JSON has for tuples
                object.__setattr__(self, field.name, tuple(value))

    def check_widths(self, *names: str) -> None:
        """Raise ``ValueError`` unless the fields ``names`` have one entry for each of the ``block_out_channels``, whole
        numbers that the groups of the normalisation divide."""
        widths, groups = list(self.block_out_channels), self.norm_num_groups
        for name in names:
            if len(getattr(self, name)) != len(widths):
                raise ValueError(
                    f"`{name}` must have one entry for each of the {len(widths)} `block_out_channels`, got "
                    f"{len(getattr(self, name))}"
                )
        least = 1 if groups is not None else 4  # of which there is one group
        if not widths or any(check_count("block_out_channels", w, least) % groups_of(w, groups) for w in widths):
            raise ValueError(f"`norm_num_groups` must divide the `block_out_channels` {widths}, got {groups}")

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
            warn(f"{name}: settings that are not known here are left out: {unknown}")
        return cls(**{key: value for key, value in given.items() if key in known})

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them, with the name of their class."""
        return {"_class_name": self.class_name} | dataclasses.asdict(self)


def image_shape(settings: Any) -> tuple[int, int, int]:
    """``(h, w, c)`` of the images of a network; raises ``ValueError`` without a ``sample_size`` that it can halve."""
    size, halvings = settings.sample_size, len(settings.block_out_channels) - 1
    sides = (size, size) if is_integer(size) else tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(is_integer(side) and side > 0 and side % 2**halvings == 0 for side in sides):
        raise ValueError(
            f"`sample_size` must be a positive integer, or two, divisible by {2**halvings}, because {halvings + 1} "
            f"`block_out_channels` halve the resolution {halvings} times; got {size!r}"
        )
    return *sides, settings.in_channels
