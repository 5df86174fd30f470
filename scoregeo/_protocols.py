"""What the package asks of objects whose types it does not import: the methods and attributes, by name."""

from typing import Any, Protocol, runtime_checkable

from ._types import Point, Scalar, Vector


@runtime_checkable
class NoisedScore(Protocol):
    """A score that is known at every noise level, such as a `GaussianMixtureScore`."""

    def noised(self, alpha: Any, sigma: Any) -> Any:
        """The score of ``alpha x + sigma eps``."""
        ...


@runtime_checkable
class ScoreModel(Protocol):
    """A model that has learned the scores of all noise levels, such as a `DiffusionModel`."""

    def score_at(self, sigma: Any) -> Any:
        """The score of the data with Gaussian noise of standard deviation ``sigma`` added."""
        ...


@runtime_checkable
class CentredModel(Protocol):
    """A model that knows the mean of its data in float64, such as a `DiffusionModel`."""

    mean: Any

    def centred(self) -> Any:
        """The model in the coordinates ``x - mean``."""
        ...


@runtime_checkable
class ScoreField(Protocol):
    """A score, or a network that gives one: it says whether it is a gradient field."""

    conservative: bool

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``."""
        ...


@runtime_checkable
class KnowsNoiseLevel(Protocol):
    """A score that knows the standard deviation of the noise in its density, such as a `NetworkScore`."""

    noise_level: Scalar


@runtime_checkable
class NoiseSchedule(Protocol):
    """How the signal and the noise of a diffusion depend on time, such as `scoregeo.diffusion.VP`."""

    t_min: float
    t_max: float

    def alpha(self, t: Scalar) -> Scalar:
        """The factor of the data at time ``t``."""
        ...

    def log_snr(self, t: Scalar) -> Scalar:
        """The logarithm of ``alpha^2 / sigma^2`` at time ``t``."""
        ...

    def time_at_log_snr(self, log_snr: Scalar) -> Scalar:
        """The inverse of ``log_snr``."""
        ...


def some_noise_level(model: Any) -> Any:
    """A noise level that ``model`` knows, for a score whose level is replaced by others: its largest, where it has a
    schedule, else 1."""
    schedule = getattr(model, "schedule", None)
    return 1.0 if schedule is None else schedule.noise_level(schedule.t_max)


def missing_members(value: Any, protocol: type) -> list[str]:
    """The names that ``protocol`` asks for and ``value`` does not have: its attributes, then its methods."""
    methods = [name for name in vars(protocol) if not name.startswith("_")]
    return [name for name in (*protocol.__annotations__, *methods) if not hasattr(value, name)]
