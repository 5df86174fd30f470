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
from .sampling.likelihood import Likelihood, log_prob
from .schedules import AbstractSchedule

_FORMAT = {"format": "scoregeo.DiffusionModel", "version": 1}


class DiffusionModel(eqx.Module):
    """A learned score at every noise level. `fit` and `DiffusionModel.load` make one.

    Points are in the coordinates of the array that `fit` was given, and noise levels are standard deviations in their
    units. The weights and the standardisation are leaves of this pytree, its structure and its settings are static.

    **Fields**

    - ``config``: the `FitConfig` it was trained with.
    - ``standardization``: the map that was applied to the data before `fit`, or ``None``;
      ``model.standardization.undo(x)`` goes back to the original coordinates.
    - ``history``: the `TrainingHistory`.
    """

    graphdef: Any = eqx.field(static=True)
    weights: Any
    config: FitConfig = eqx.field(static=True)
    standardization: Standardization | None
    history: TrainingHistory

    def __init__(
        self,
        denoiser: Denoiser,
        config: FitConfig,
        *,
        standardization: Standardization | None = None,
        history: TrainingHistory | None = None,
    ):
        if standardization is not None:
            if not isinstance(standardization, Standardization):
                kind = type(standardization).__name__
                raise TypeError(f"`standardization` must be a scoregeo.datasets.Standardization, got {kind}")
            if standardization.mean.shape != (denoiser.dim,):
                shape = standardization.mean.shape
                raise ValueError(f"`standardization` must be of dimension {denoiser.dim}, got a mean of shape {shape}")
        self.graphdef, state = nnx.split(denoiser)
        self.weights = nnx.to_pure_dict(state)
        self.config = config
        self.standardization = standardization
        self.history = TrainingHistory.empty() if history is None else history

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
        vector, if the network takes one) it is the score of the data that meet it. The result maps a point ``(d,)`` to
        its score ``(d,)``; ``jax.vmap`` it over batches. Raises ``ValueError`` if ``sigma`` is not positive and finite,
        or the network does not take this ``condition``.

        Weights, ``sigma`` and ``condition`` are leaves of the result: other values do not compile again. Below the
        distance between neighbouring training points a learned score says more about the points than about their
        distribution.
        """
        denoiser, sigma = self.denoiser, _check_sigma(sigma)
        if condition is not None:
            # The network looks at a condition that is known now; in the score it is traced.
            jax.eval_shape(lambda: denoiser.network_output(jnp.zeros(self.dim, self.dtype), sigma, condition))
        if self._needs_condition and is_no_condition(condition):
            raise ValueError(
                "`condition` must be given: this model was trained with `condition_dropout=0` and knows no score "
                f"without one, got {condition}"
            )
        return NetworkScore(denoiser, sigma, conservative=self.conservative, condition=condition)

    def marginal_score(
        self, condition: Any = None, guidance: float | Scalar = 1.0, interval: Any = None
    ) -> LearnedMarginalScore | GuidedScore:
        """The score ``(x_t, t) -> (d,)`` of ``x_t`` on the path of the model's schedule, as samplers use it.

        With a ``condition``, ``guidance`` is the weight of classifier-free guidance (1: the conditional score), and
        ``interval`` the noise levels at which it acts; see `GuidedScore`. Raises ``ValueError`` for guidance without a
        condition, or of a model that was trained with ``condition_dropout=0``.
        """
        score = LearnedMarginalScore(self.score_at(1.0, condition), self.schedule)
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
        unconditional = LearnedMarginalScore(self.score_at(1.0), self.schedule)
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
    ) -> Points:
        """``n`` new points, shape ``(n, d)``, by `ProbabilityFlow()` unless another ``sampler`` is given.

        ``condition`` is one label or vector for all of them, ``guidance`` the weight of classifier-free guidance, and
        ``interval`` the noise levels ``(low, high)`` at which it acts: see `marginal_score`. Raises ``RuntimeError``
        (with advice) if the integration fails for any of them.
        """
        sampler = ProbabilityFlow() if sampler is None else sampler
        if not isinstance(sampler, AbstractSampler):
            raise TypeError(f"`sampler` must be a sampler such as ProbabilityFlow(), got {type(sampler).__name__}")
        score = self.marginal_score(condition, guidance, interval)
        return sample_path(sampler, score, self.schedule, self.denoiser.mean[...], key, n)

    def log_prob(self, x: Point | Points, **settings: Any) -> Likelihood:
        """The log density of the data at ``x``, ``(d,)`` or ``(n, d)``, by the probability flow.

        ``settings`` are those of `scoregeo.diffusion.log_prob`: the noise level, exact trace or probes, tolerances.
        Numbers are in ``.log_prob``, in nats.
        """
        return log_prob(self, x, **settings)

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
        return DiffusionModel(denoiser, self.config, standardization=self.standardization, history=history)

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
            standardization = None
            if config["standardization"]:
                standardization = Standardization(
                    *(arrays.pop(f"standardization.{name}") for name in ("mean", "scale"))
                )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedModelError(f"{path} is damaged: {CONFIG_FILE} does not fit: {error!r}") from error
        if network is None:
            raise TypeError(
                f"the network of the model in {path} is not of this package; give `network`, a module like it"
            )
        graphdef, state = _structure(network, dtype)
        template = {"denoiser": nnx.to_pure_dict(state)}
        weights = jax.tree.map(jnp.asarray, unflatten(template, arrays, f"{path}/{WEIGHTS_FILE}"))["denoiser"]
        return cls(nnx.merge(graphdef, weights), fit_config, standardization=standardization, history=history)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Everything with a value, by name."""
        tree = {"denoiser": self.weights}
        if self.standardization is not None:
            tree["standardization"] = {"mean": self.standardization.mean, "scale": self.standardization.scale}
        return {name: np.asarray(array) for name, array in flatten(tree).items()}


def _without_weights(described: Any, dtype: Any) -> Network:
    """The network that ``described`` stands for, with shapes in place of its weights."""
    return nnx.eval_shape(lambda: network_from_dict(described, key=jax.random.key(0), dtype=dtype))


def _structure(network: Network, dtype: Any) -> tuple[Any, Any]:
    """Structure, and shapes of the weights, of a denoiser around ``network``."""
    return nnx.split(nnx.eval_shape(lambda: Denoiser(network, 1.0, jnp.zeros(network.dim, dtype))))


def _check_sigma(sigma: Any) -> Array:
    """A noise level as a floating-point scalar; positive and finite where it is concrete."""
    sigma = as_float(sigma, "sigma")
    if sigma.shape != ():
        raise ValueError(f"`sigma` must be a scalar, got shape {sigma.shape}")
    if is_concrete(sigma) and not (0 < float(sigma) < float("inf")):
        raise ValueError(f"`sigma` must be a positive noise level (a standard deviation), got {float(sigma)}")
    return sigma
