"""A trained diffusion model: a denoiser with its weights, its settings, and how it was trained."""

import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from .._checks import as_float, is_concrete
from .._numerics import as_double, is_resolved, is_traced, warn_if_unresolved
from .._protocols import some_noise_level
from .._types import Point, Points, Scalar
from ..datasets import Standardization
from ..scores import NetworkScore
from .config import FitConfig
from .files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    DamagedModelError,
    flatten,
    read_config,
    read_weights,
    unflatten,
    write_model,
)
from .history import TrainingHistory
from .networks import Network
from .networks.conditioning import is_no_condition
from .networks.denoiser import Denoiser
from .networks.registry import describe_network, network_from_dict, takes_conditions
from .sampling.base import AbstractSampler, LearnedMarginalScore, ProbabilityFlow, sample_path
from .sampling.guidance import GuidedScore
from .sampling.latent import LatentFlow
from .sampling.likelihood import Likelihood, log_prob
from .schedules import AbstractSchedule
from .summary import model_html

_FORMAT = {"format": "scoregeo.DiffusionModel", "version": 1}
# By how much of a noise level rounding may leave the range of the schedule.
_SLACK = 1e-5
_UNITS = ("standardization", "condition_units")


class DiffusionModel(eqx.Module):
    """A learned score at every noise level. `fit` and `DiffusionModel.load` make one.

    Points are in the coordinates of the array that `fit` was given, and noise levels are standard deviations in their
    units. The weights and the standardisation are leaves of this pytree, its structure and its settings are static.

    Where JAX has float64 disabled, `sample` and `log_prob` still add and subtract the mean of the data in float64, on
    the host. A score takes its points in float32: about a mean of more than 1e5 standard deviations these say
    nothing, and work has to be done in standardised coordinates (`fit` warns).

    **Fields**

    - ``config``: the `FitConfig` it was trained with.
    - ``standardization``: the map that was applied to the data before `fit`, or ``None``;
      ``model.standardization.undo(x)`` goes back to the original coordinates.
    - ``mean``: mean of the training data, ``(d,)``, a NumPy array in float64; the denoiser has it in its own type.
    - ``condition_units``: the map that the network wants applied to a vector that conditions, in the units of the
      ``conditions`` of `fit`; or ``None`` (labels, no conditions, models of version 0.1). Whatever is given to this
      class is in these units, what is given to ``denoiser`` is standardised.
    - ``history``: the `TrainingHistory`.
    """

    graphdef: Any = eqx.field(static=True)
    weights: Any
    config: FitConfig = eqx.field(static=True)
    standardization: Standardization | None
    mean: Any
    condition_units: Standardization | None
    history: TrainingHistory

    def __init__(
        self,
        denoiser: Denoiser,
        config: FitConfig,
        *,
        standardization: Standardization | None = None,
        history: TrainingHistory | None = None,
        mean: np.ndarray | None = None,
        condition_units: Standardization | None = None,
    ):
        """``mean`` and ``condition_units`` are the fields; by default, the mean is that of ``denoiser``."""
        for name, units in (("standardization", standardization), ("condition_units", condition_units)):
            if not isinstance(units, Standardization | None):
                kind = type(units).__name__
                raise TypeError(f"`{name}` must be a scoregeo.datasets.Standardization, got {kind}")
        if standardization is not None and standardization.dim != denoiser.dim:
            got = standardization.dim
            raise ValueError(f"`standardization` must be of dimension {denoiser.dim}, got one of dimension {got}")
        self.mean = denoiser.mean[...] if mean is None else mean
        if np.shape(self.mean) != (denoiser.dim,):
            raise ValueError(f"`mean` must have shape ({denoiser.dim},), got {np.shape(self.mean)}")
        if not is_traced(self.mean):
            self.mean = as_double(self.mean)
        self.condition_units = condition_units
        self.graphdef, state = nnx.split(denoiser)
        self.weights = nnx.to_pure_dict(state)
        if mean is not None:
            self.weights["mean"] = jnp.asarray(mean, self.weights["mean"].dtype)
        self.config = config
        self.standardization = standardization
        self.history = TrainingHistory.empty() if history is None else history

    def _repr_html_(self) -> str:
        return model_html(self)

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser, a flax module with this model's weights."""
        return nnx.merge(self.graphdef, self.weights)

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return self.weights["mean"].shape[0]

    @property
    def dtype(self) -> Any:
        """The floating-point type of the weights and of samples."""
        return self.weights["mean"].dtype

    @property
    def _network_dtype(self) -> Any:
        """That of the network's weights, which need not be that of the points."""
        leaves = [leaf.dtype for leaf in jax.tree.leaves(self.weights["net"])]
        return jnp.result_type(*(dtype for dtype in leaves if jnp.issubdtype(dtype, jnp.floating)))

    @property
    def conservative(self) -> bool:
        """Whether the score is a gradient field by construction."""
        return self.denoiser.conservative

    @property
    def _needs_condition(self) -> bool:
        """Whether there is no score without a condition, because training always told one."""
        return self.config.condition_dropout == 0 and takes_conditions(self.denoiser.net)

    @property
    def schedule(self) -> AbstractSchedule:
        """The schedule that the model was trained with and samples by."""
        return self.config.schedule

    def score_at(self, sigma: float | Scalar, condition: Any = None) -> NetworkScore:
        """The score of the data with Gaussian noise of standard deviation ``sigma`` added.

        ``sigma`` is a positive scalar in the units of the data, and may be traced. With a ``condition`` (a label or a
        vector in the units of those that `fit` was given, if the network takes one) it is the score of the data that
        meet it. The result maps a point ``(d,)`` to
        its score ``(d,)``; ``jax.vmap`` it over batches. Raises ``ValueError`` if ``sigma`` is outside the noise levels
        of the model's schedule (no network knows more than it was trained for), or the network does not take this
        ``condition``.

        Weights, ``sigma`` and ``condition`` (a vector as the network is told it, standardised) are leaves of the
        result: other values do not compile again. Below the distance between neighbouring training points a learned
        score says more about the points than about their distribution.
        """
        # A score that is used in float64 has all digits of the mean, whatever the weights are trained in.
        weights = self.weights | {"mean": jnp.asarray(self.mean)}
        denoiser, sigma = nnx.merge(self.graphdef, weights), _check_sigma(sigma, self.schedule)
        if condition is not None:
            # The network looks at a condition that is known now; in the score it is traced.
            x, level = jnp.zeros(self.dim, self.dtype), sigma.astype(self.dtype)
            jax.eval_shape(lambda: denoiser.network_output(x, level, condition))
        if self._needs_condition and is_no_condition(condition):
            raise ValueError(
                "`condition` must be given: this model was trained with `condition_dropout=0` and knows no score "
                f"without one, got {condition}"
            )
        condition = self._standardized(condition)
        return NetworkScore(denoiser, sigma, conservative=self.conservative, condition=condition)

    def marginal_score(
        self, condition: Any = None, guidance: float | Scalar = 1.0, interval: Any = None
    ) -> LearnedMarginalScore | GuidedScore:
        """The score ``(x_t, t) -> (d,)`` of ``x_t`` on the path of the model's schedule, as samplers use it.

        With a ``condition``, ``guidance`` is the weight of classifier-free guidance (1: the conditional score), and
        ``interval`` the noise levels at which it acts; see `GuidedScore`. Raises ``ValueError`` for guidance without a
        condition, or of a model that was trained with ``condition_dropout=0``.
        """
        score = LearnedMarginalScore(self.score_at(some_noise_level(self), condition), self.schedule)
        plain = isinstance(guidance, int | float) and guidance == 1
        if plain and interval is None:
            return score
        name, value = ("interval", interval) if plain else ("guidance", guidance)
        if condition is None:
            raise ValueError(f"`{name}` needs a `condition`, got None with {name} {value}")
        if self._needs_condition:
            raise ValueError(
                f"`{name}` needs a model that was trained with `condition_dropout` > 0, because guidance also asks for "
                f"the score without a condition; got {name} {value} and a model with `condition_dropout=0`"
            )
        unconditional = LearnedMarginalScore(self.score_at(some_noise_level(self)), self.schedule)
        return GuidedScore(score, unconditional, guidance, interval=interval, schedule=self.schedule)

    def sample(
        self,
        key: PRNGKeyArray,
        n: int,
        *,
        sampler: AbstractSampler | None = None,
        condition: Any = None,
        guidance: float | Scalar = 1.0,
        interval: Any = None,
    ) -> Points | np.ndarray:
        """``n`` new points, shape ``(n, d)``, by `ProbabilityFlow()` unless another ``sampler`` is given.

        They are of the type of the model; where this is float32, which cannot hold what varies about the mean of the
        data (more than 1e5 standard deviations), they are a NumPy array in float64.

        ``condition`` is one label or vector for all of them, ``guidance`` the weight of classifier-free guidance, and
        ``interval`` the noise levels ``(low, high)`` at which it acts: see `marginal_score`. Raises ``RuntimeError``
        (with advice) if the integration fails for any of them.
        """
        sampler = ProbabilityFlow() if sampler is None else sampler
        if not isinstance(sampler, AbstractSampler):
            raise TypeError(f"`sampler` must be a sampler such as ProbabilityFlow(), got {type(sampler).__name__}")
        score = self.centred().marginal_score(condition, guidance, interval)
        points = sample_path(sampler, score, self.schedule, jnp.zeros(self.dim, self.dtype), key, n)
        if is_traced((points, self.mean)):
            return points + jnp.asarray(self.mean, points.dtype)
        moved = as_double(points) + self.mean
        if points.dtype == np.float32 and not is_resolved(self.mean, self.weights["sigma_data"]):
            return moved
        return jnp.asarray(moved, points.dtype)

    def centred(self) -> "DiffusionModel":
        """This model in the coordinates ``x - mean``, which float32 resolves however large the mean is."""
        zero = jnp.zeros_like(self.weights["mean"])
        return eqx.tree_at(lambda m: (m.weights["mean"], m.mean), self, (zero, np.zeros(self.dim)))

    def log_prob(self, x: Point | Points | np.ndarray, **settings: Any) -> Likelihood:
        """The log density of the data at ``x``, ``(d,)`` or ``(n, d)``, by the probability flow.

        ``settings`` are those of `scoregeo.diffusion.log_prob`: the noise level, exact trace or probes, tolerances.
        Numbers are in ``.log_prob``, in nats.
        """
        return log_prob(self, x, **settings)

    def latent(self, condition: Any = None) -> LatentFlow:
        """The map between points ``(d,)`` and their latents, by the probability flow; see `LatentFlow`.

        Points are of the type of the model. With a ``condition``, the flow is that of the data that meet it.
        """
        variance = jnp.asarray(self.weights["sigma_data"]) ** 2
        return LatentFlow(self.marginal_score(condition), self.schedule, jnp.asarray(self.mean, self.dtype), variance)

    def with_compute_dtype(self, compute_dtype: Any) -> "DiffusionModel":
        """This model with the same weights and a network that computes in another type; ``None`` for that of the
        weights, as geometry wants it. Raises ``TypeError`` for a network that is not of this package."""
        described = describe_network(self.denoiser.net)
        if described is None:
            raise TypeError("`with_compute_dtype` needs a network of scoregeo.diffusion")
        inner = described
        while inner["kind"] == "Potential":
            inner = inner["net"]
        inner["compute_dtype"] = compute_dtype
        graphdef, _ = _structure(_without_weights(described, self._network_dtype), self.dtype)
        return self.replace(nnx.merge(graphdef, self.weights), self.history)

    def replace(self, denoiser: Denoiser, history: TrainingHistory) -> "DiffusionModel":
        """This model with another denoiser and another history."""
        units = {"standardization": self.standardization, "condition_units": self.condition_units}
        return DiffusionModel(denoiser, self.config, history=history, mean=self.mean, **units)

    def save(self, directory: str | os.PathLike) -> None:
        """Write ``config.json`` and ``model.safetensors`` to a directory, made if needed; a model in it is replaced.

        Raises ``NotADirectoryError`` or ``PermissionError`` if it cannot be written to; then nothing was written.
        """
        config = _FORMAT | {
            # A network of the user's own is not described: `load` must be given it.
            "network": describe_network(self.denoiser.net),
            "dtype": str(self.dtype),
            "network_dtype": str(self._network_dtype),
            "fit": self.config.to_dict(),
            "standardization": self.standardization is not None,
            "history": self.history.to_dict(),
        }
        if self.condition_units is not None:
            config["condition_units"] = True
        write_model(directory, config, self._arrays())

    @classmethod
    def load(cls, directory: str | os.PathLike, *, network: Network | None = None) -> "DiffusionModel":
        """Read a model that `save` wrote; weights come back bit for bit.

        ``network`` is a module of the same structure, whose weights are replaced: needed for a model whose network is
        not of this package.

        Raises ``FileNotFoundError`` if the directory does not exist, `DamagedModelError` (a ``ValueError``) if a file
        in it is missing, garbled or does not fit the rest, ``TypeError`` for float64 weights while JAX has float64
        disabled.
        """
        config, path = read_config(directory), os.path.abspath(directory)
        if {name: config.get(name) for name in _FORMAT} != _FORMAT:
            raise DamagedModelError(
                f"{path}/{CONFIG_FILE} is not a model of this version of scoregeo (expected {_FORMAT})"
            )
        arrays = read_weights(directory, config.get("weights_sha256"))
        try:
            dtype, network_dtype = jnp.dtype(config["dtype"]), jnp.dtype(config["network_dtype"])
        except (KeyError, TypeError) as error:
            raise DamagedModelError(f"{path}/{CONFIG_FILE} is damaged: {error!r}") from error
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise TypeError(f"the weights in {path} are {dtype}; call jax.config.update('jax_enable_x64', True) first")
        try:
            fit_config, history = FitConfig.from_dict(config["fit"]), TrainingHistory.from_dict(config["history"])
            if network is None and config["network"] is not None:
                network = _without_weights(config["network"], network_dtype)
            # Neither is there in models of version 0.1: their mean is as it is in the denoiser.
            mean = arrays.pop("mean", arrays.get("denoiser.mean"))
            units = {name: _units(arrays, name) if config.get(name) else None for name in _UNITS}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedModelError(f"{path} is damaged: {CONFIG_FILE} does not fit: {error!r}") from error
        if network is None:
            raise TypeError(
                f"the network of the model in {path} is not of this package; give `network`, a module like it"
            )
        graphdef, state = _structure(network, dtype)
        template = {"denoiser": nnx.to_pure_dict(state)}
        weights = jax.tree.map(jnp.asarray, unflatten(template, arrays, f"{path}/{WEIGHTS_FILE}"))["denoiser"]
        return cls(nnx.merge(graphdef, weights), fit_config, history=history, mean=mean, **units)

    def _standardized(self, condition: Any) -> Any:
        """A condition as the network wants it."""
        if self.condition_units is None or is_no_condition(condition):
            return condition
        if isinstance(condition, tuple):
            return self.condition_units.apply(condition[0]), condition[1]
        return self.condition_units.apply(condition)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Everything with a value, by name."""
        tree = {"denoiser": self.weights}
        if not np.array_equal(self.mean, self.weights["mean"]):
            tree["mean"] = self.mean
        for name in _UNITS:
            if (units := getattr(self, name)) is not None:
                tree[name] = {"mean": units.mean, "scale": units.scale}
                if units.axes is not None:
                    tree[name]["axes"] = units.axes
        return {name: np.asarray(array) for name, array in flatten(tree).items()}


def _units(arrays: dict[str, np.ndarray], name: str) -> Standardization:
    """The standardisation among the ``arrays`` of a file, taken out of them."""
    mean, scale = arrays.pop(f"{name}.mean"), arrays.pop(f"{name}.scale")
    axes = arrays.pop(f"{name}.axes", None)
    if mean.dtype == np.float32:
        advice = "version 0.1 wrote it in float32, so points are off by as much; train the model again"
        warn_if_unresolved(mean, scale, f"the `{name}` of the model has", advice)
    return Standardization(mean, scale, axes)


def _without_weights(described: Any, dtype: Any) -> Network:
    """The network that ``described`` stands for, with shapes in place of its weights."""
    return nnx.eval_shape(lambda: network_from_dict(described, key=jax.random.key(0), dtype=dtype))


def _structure(network: Network, dtype: Any) -> tuple[Any, Any]:
    """Structure, and shapes of the weights, of a denoiser around ``network``."""
    return nnx.split(nnx.eval_shape(lambda: Denoiser(network, 1.0, jnp.zeros(network.dim, dtype))))


def _check_sigma(sigma: Any, schedule: AbstractSchedule) -> Array:
    """A noise level as a floating-point scalar; where it is concrete, positive and one that was trained."""
    sigma = as_float(sigma, "sigma")
    if sigma.shape != ():
        raise ValueError(f"`sigma` must be a scalar, got shape {sigma.shape}")
    least, most = schedule.noise_range()
    if not all(map(is_concrete, (sigma, least, most))):
        return sigma
    if not 0 < float(sigma) < float("inf"):
        raise ValueError(f"`sigma` must be a positive noise level (a standard deviation), got {float(sigma)}")
    if not float(least) * (1 - _SLACK) <= float(sigma) <= float(most) * (1 + _SLACK):
        raise ValueError(
            f"`sigma` must be a noise level that the model knows, from {float(least):.4g} to {float(most):.4g} by its "
            f"{type(schedule).__name__} schedule, got {float(sigma):.4g}"
        )
    return sigma
