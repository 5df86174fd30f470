"""Training a score: denoising score matching on an array, as compiled chunks of optimiser steps.

Everything random in step ``k`` comes from ``fold_in(key, k)``, so the state of a run is its weights, their average, the
optimiser's moments, ``k`` and the key: a run that was interrupted and goes on is the run that was not.
"""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from .._types import Scalar, as_points
from .config import FitConfig
from .files import check_directory
from .losses import denoising_loss
from .model import DiffusionModel, TrainingHistory
from .networks import MLP, Potential
from .parameterization import Denoiser
from .progress import Progress

_HELD_OUT_DRAWS = 2048  # noisy points in the held-out loss: enough for a standard error of about two per cent


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted (Ctrl-C).

    **Fields**

    - ``step``: steps that were completed.
    - ``checkpoint``: directory of the last checkpoint, or ``None`` if there is none.
    """

    def __init__(self, step: int, checkpoint: str | None):
        self.step, self.checkpoint = step, checkpoint
        super().__init__(f"training was interrupted after {step} steps; {_where(checkpoint)}")


class TrainingDiverged(FloatingPointError):
    """The loss became NaN or infinite.

    **Fields**

    - ``step``: number of steps after which it was seen.
    - ``checkpoint``: directory of the last checkpoint (all finite), or ``None`` if there is none.
    """

    def __init__(self, step: int, checkpoint: str | None):
        self.step, self.checkpoint = step, checkpoint
        super().__init__(
            f"the loss is not finite after {step} steps; {_where(checkpoint)}. Try a smaller `learning_rate` or "
            "`clip_norm`, and data scaled to a standard deviation of about one"
        )


def fit(
    data: Float[Array, "n d"],
    config: FitConfig | None = None,
    *,
    network: nnx.Module | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    progress: bool = True,
    standardization: Any = None,
) -> DiffusionModel:
    """Learn the score of the distribution that ``data`` was drawn from, at all noise levels.

    **Arguments**

    - ``data``: array ``(n, d)``, at least three points. Float64 data gives float64 weights, anything else float32. The
      defaults of the schedules suit a standard deviation of about 0.5 to 1 (`scoregeo.datasets.Standardization`).
    - ``config``: settings, see `FitConfig`.
    - ``network``: the initial network, a module ``(x, c_noise) -> (d,)`` with an integer ``dim`` (see `networks`); by
      default an `MLP` as ``config`` says. It is not changed.
    - ``checkpoint_dir``: directory for the state of the run. If it already holds a run with the same settings and data,
      that run goes on from its last whole checkpoint.
    - ``progress``: report the loss on standard error, as a bar on a terminal and as lines elsewhere.
    - ``standardization``: the map that was applied to the data, kept with the model for those who need to undo it.

    **Returns** a `DiffusionModel` with the averaged weights. Noise levels are standard deviations in the units of
    ``data``.

    **Raises** ``ValueError`` or ``TypeError`` for unusable arguments, before anything is written; `TrainingDiverged`
    when the loss is not finite; `TrainingInterrupted`, a ``KeyboardInterrupt``, on Ctrl-C.

    >>> import jax
    >>> from scoregeo.diffusion import FitConfig, fit
    >>> data = jax.random.normal(jax.random.key(0), (1000, 2))
    >>> model = fit(data, FitConfig(steps=20, chunk_steps=10, width=8, depth=1), progress=False)
    >>> score = model.score_at(0.2)  # of the distribution of the data, blurred by noise of standard deviation 0.2
    >>> score(data[0]).shape
    (2,)
    """
    config = FitConfig() if config is None else config
    if not isinstance(config, FitConfig):
        raise TypeError(f"`config` must be a FitConfig, got {type(config).__name__}")
    data = as_points(data, "data")
    data = data if data.dtype == jnp.float64 else data.astype(jnp.float32)
    train, held_out = _split(data, config)
    denoiser = _denoiser(train, config, network)
    graphdef, weights, constants = nnx.split(denoiser, nnx.Param, ...)
    run = _Run(graphdef, nnx.to_pure_dict(constants), config, train, held_out)
    # Made before the training, so that a bad argument is not noticed after it.
    model = DiffusionModel(denoiser, config, standardization=standardization)
    state, history = run.start(nnx.to_pure_dict(weights)), TrainingHistory.empty()

    checkpoints = None
    if checkpoint_dir is not None:
        from .checkpoint import Checkpoints

        check_directory(checkpoint_dir, "checkpoint_dir")
        checkpoints = Checkpoints(checkpoint_dir, config, _fingerprint(data))
        state, history = checkpoints.restore(state, history)
    try:
        with Progress(config.steps, enabled=progress) as report:
            while (step := int(state["step"])) < config.steps:
                new, losses = run.chunk(state, min(config.chunk_steps, config.steps - step))
                train_loss, held_out_loss = (float(x) for x in jax.device_get(losses))
                done = int(new["step"])
                if not (math.isfinite(train_loss) and (held_out is None or math.isfinite(held_out_loss))):
                    raise TrainingDiverged(done, checkpoints and checkpoints.last)
                # Both at once, so that an interrupt finds them of the same step.
                state, history = new, history.append(done, train_loss, held_out_loss)
                if checkpoints and (
                    done // config.checkpoint_every > step // config.checkpoint_every or done == config.steps
                ):
                    checkpoints.save(state, history)
                report.update(done, train_loss, held_out_loss)
    except KeyboardInterrupt:
        if checkpoints:
            with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: the checkpoint before this one will do
                checkpoints.save(state, history)
        raise TrainingInterrupted(int(state["step"]), checkpoints and checkpoints.last) from None
    return model.replace(run.merge(state["average"]), history)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same during a run: the structure of the denoiser, the settings and the data."""

    graphdef: Any
    constants: Any
    config: FitConfig
    train: Array
    held_out: Array | None

    def start(self, weights: Any) -> dict[str, Any]:
        """The state before the first step: pure dictionaries of arrays."""
        optimiser = _optimiser(self.config).init(weights)
        key = jax.random.key_data(jax.random.fold_in(jax.random.key(self.config.seed), 1))
        return {
            "weights": weights,
            "average": weights,
            "optimiser": optimiser,
            "step": jnp.zeros((), jnp.int32),
            "key": key,
        }

    def chunk(self, state: dict[str, Any], steps: int) -> tuple[dict[str, Any], tuple[Scalar, Scalar]]:
        """The state after ``steps`` more steps, their mean training loss, and the held-out loss of the average."""
        # The seed reaches the computation through the key: with another seed, nothing compiles again.
        config = dataclasses.replace(self.config, seed=0)
        return _chunk(self.graphdef, config, steps, state, self.constants, self.train, self.held_out)

    def merge(self, weights: Any) -> Denoiser:
        """The denoiser with the given weights."""
        return nnx.merge(self.graphdef, weights, self.constants)


# The state is not donated: the one before the chunk must survive an interrupt or a loss that is not finite.
@functools.partial(jax.jit, static_argnames=("graphdef", "config", "steps"))
def _chunk(graphdef, config, steps, state, constants, train, held_out):
    optimiser = _optimiser(config)
    key = jax.random.wrap_key_data(state["key"])

    def mean_loss(weights, points, key):
        denoiser = nnx.merge(graphdef, weights, constants)
        level_key, noise_key = jax.random.split(key)
        levels = config.schedule.training_levels(level_key, len(points), points.dtype)
        noise = jax.random.normal(noise_key, points.shape, points.dtype)
        return jnp.mean(jax.vmap(denoising_loss, in_axes=(None, 0, 0, 0))(denoiser, points, noise, levels))

    def one_step(state, _):
        batch_key, loss_key = jax.random.split(jax.random.fold_in(key, state["step"]))
        batch = train[jax.random.randint(batch_key, (config.batch_size,), 0, len(train))]
        loss, gradient = jax.value_and_grad(mean_loss)(state["weights"], batch, loss_key)
        updates, moments = optimiser.update(gradient, state["optimiser"])
        weights = optax.apply_updates(state["weights"], updates)
        # Early on the average forgets faster, so that the random start has left it after a few dozen steps.
        decay = jnp.minimum(config.ema_decay, (1 + state["step"]) / (10 + state["step"])).astype(loss.dtype)
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state["average"], weights)
        new = {"weights": weights, "average": average, "optimiser": moments, "step": state["step"] + 1}
        return state | new, loss

    state, losses = jax.lax.scan(one_step, state, length=steps)
    if held_out is None:
        held_out_loss = jnp.full((), jnp.nan, losses.dtype)
    else:
        # The same noise every time: the curve shows the weights, not the draw.
        points = held_out[jnp.arange(_HELD_OUT_DRAWS) % len(held_out)]
        held_out_loss = mean_loss(state["average"], points, jax.random.key(0))
    return state, (jnp.mean(losses), held_out_loss)


def _optimiser(config: FitConfig) -> optax.GradientTransformation:
    warmup = min(config.warmup_steps, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, config.steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(rate))


def _split(data: Array, config: FitConfig) -> tuple[Array, Array | None]:
    """Training and held-out points, by a permutation that depends on the seed."""
    if len(data) < 3:
        raise ValueError(f"`data` must have at least 3 points, got {len(data)}")
    if config.holdout == 0:
        return data, None
    count = max(1, round(config.holdout * len(data)))
    order = jax.random.permutation(jax.random.fold_in(jax.random.key(config.seed), 2), len(data))
    return data[order[count:]], data[order[:count]]


def _denoiser(train: Array, config: FitConfig, network: nnx.Module | None) -> Denoiser:
    """The untrained denoiser, with the mean and the standard deviation of the training data."""
    # On the host in float64: the mean of many points must not lose digits.
    points = np.asarray(train, np.float64)
    mean = points.mean(0)
    spread = float(np.sqrt(np.mean((points - mean) ** 2)))
    if not spread > 0:
        raise ValueError("`data` must have points that differ, got copies of one point (standard deviation 0)")
    dim = train.shape[1]
    if network is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        network = MLP(dim, config.width, config.depth, key=key, dtype=train.dtype)
        network = Potential(network) if config.potential else network
    elif not isinstance(network, nnx.Module):
        raise TypeError(f"`network` must be a flax nnx.Module, got {type(network).__name__}")
    elif getattr(network, "dim", None) != dim:
        raise ValueError(f"`network` must have dim {dim} to match `data`, got {getattr(network, 'dim', None)}")
    denoiser = Denoiser(network, spread, jnp.asarray(mean, train.dtype))
    x, sigma = jnp.zeros(dim, train.dtype), jnp.ones((), train.dtype)
    shape = jax.eval_shape(lambda: denoiser.network_output(x, sigma)).shape
    if shape != (dim,):
        raise ValueError(f"`network` must return shape ({dim},) for a point of shape ({dim},), got {shape}")
    return denoiser


def _fingerprint(data: Array) -> str:
    """A digest of the data, so that a checkpoint is not continued with other data."""
    values = np.ascontiguousarray(data)
    return hashlib.sha256(f"{values.shape}{values.dtype}".encode() + values.tobytes()).hexdigest()


def _where(checkpoint: str | None) -> str:
    if checkpoint is None:
        return (
            "nothing was kept (no checkpoint was written; `checkpoint_dir` and `checkpoint_every` say where and when)"
        )
    return f"the last checkpoint is in {checkpoint} (the same call to `fit` goes on from there)"
