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
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from .._types import Scalar, as_points
from .conditioning import drop_condition
from .config import FitConfig
from .files import check_directory
from .losses import asymmetry_penalty, denoising_loss, second_order_loss, stable_loss
from .model import DiffusionModel, TrainingHistory
from .networks import MLP, Potential
from .parameterization import Denoiser
from .progress import Progress
from .targets import Posterior
from .weightings import LearnedWeighting

_HELD_OUT_DRAWS = 2048  # noisy points in the held-out loss: enough for a standard error of about two per cent
_WEIGHTING = "weighting"  # where the parameters of a learned weighting are among the weights of a run


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
    conditions: Array | None = None,
    callbacks: Sequence[Callable[[TrainingHistory], bool | None]] = (),
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
    - ``conditions``: a class label ``0, 1, ...`` for each point, integers ``(n,)``, or a vector, ``(n, m)``: what
      `DiffusionModel.score_at` and `DiffusionModel.sample` can then be asked for. A given ``network`` must take them.
    - ``callbacks``: functions of the `TrainingHistory` that are called after every chunk of steps, in turn; one that
      returns ``True`` ends the training. See `EarlyStop`, `JSONLines`.

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
    callbacks = _as_callbacks(callbacks)
    data = as_points(data, "data")
    data = data if data.dtype == jnp.float64 else data.astype(jnp.float32)
    conditions = _as_conditions(conditions, len(data), config, data.dtype)
    train, held_out = _split(_Sample(data, conditions), config)
    denoiser = _denoiser(train.points, conditions, config, network)
    graphdef, weights, constants = nnx.split(denoiser, nnx.Param, ...)
    run = _Run(graphdef, nnx.to_pure_dict(constants), config, train, held_out)
    # Made before the training, so that a bad argument is not noticed after it.
    model = DiffusionModel(denoiser, config, standardization=standardization)
    state, history = run.start(nnx.to_pure_dict(weights)), TrainingHistory.empty()

    checkpoints = None
    if checkpoint_dir is not None:
        from .checkpoint import Checkpoints

        check_directory(checkpoint_dir, "checkpoint_dir")
        config.to_dict()  # raises now for settings that cannot be written
        checkpoints = Checkpoints(checkpoint_dir, config, _fingerprint(data, conditions))
        state, history = checkpoints.restore(state, history)
    # Also of a history that was restored: a run that a callback has ended does not go on when started again.
    stopped = len(history.steps) > 0 and _asks_to_stop(callbacks, history)
    try:
        with Progress(config.steps, enabled=progress) as report:
            while (step := int(state["step"])) < config.steps and not stopped:
                new, losses = run.chunk(state, min(config.chunk_steps, config.steps - step))
                train_loss, held_out_loss = (float(x) for x in jax.device_get(losses))
                done = int(new["step"])
                if not (math.isfinite(train_loss) and (held_out is None or math.isfinite(held_out_loss))):
                    raise TrainingDiverged(done, checkpoints and checkpoints.last)
                # Both at once, so that an interrupt finds them of the same step.
                state, history = new, history.append(done, train_loss, held_out_loss)
                stopped = _asks_to_stop(callbacks, history)
                due = done // config.checkpoint_every > step // config.checkpoint_every
                if checkpoints and (due or stopped or done == config.steps):
                    checkpoints.save(state, history)
                report.update(done, train_loss, held_out_loss)
    except KeyboardInterrupt:
        if checkpoints:
            with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: the checkpoint before this one will do
                checkpoints.save(state, history)
        raise TrainingInterrupted(int(state["step"]), checkpoints and checkpoints.last) from None
    return model.replace(run.merge(state["average"]), history)


def _as_callbacks(callbacks: Any) -> tuple[Callable, ...]:
    found = tuple(callbacks) if isinstance(callbacks, Iterable) else (None,)
    if not all(callable(callback) for callback in found):
        raise TypeError(f"`callbacks` must be a sequence of functions, got {callbacks!r}")
    return found


def _asks_to_stop(callbacks: Sequence[Callable], history: TrainingHistory) -> bool:
    # All of them: one that stops must not keep the others from seeing the last entry.
    return any([callback(history) for callback in callbacks])


class _Sample(NamedTuple):
    """Points ``(n, d)`` and their conditions: labels ``(n,)``, vectors ``(n, m)``, or ``None``."""

    points: Array
    conditions: Array | None

    def take(self, index: Any) -> "_Sample":
        """Those with the given numbers."""
        return jax.tree.map(lambda a: a[index], self)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same during a run: the structure of the denoiser, the settings and the data."""

    graphdef: Any
    constants: Any
    config: FitConfig
    train: _Sample
    held_out: _Sample | None

    def start(self, weights: Any) -> dict[str, Any]:
        """The state before the first step: pure dictionaries of arrays."""
        if isinstance(self.config.weighting, LearnedWeighting):
            weights = weights | {_WEIGHTING: self.config.weighting.initial(self.train.points.dtype)}
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
        """The denoiser with the given weights; those of a learned weighting are thrown away."""
        return _denoiser_with(self.graphdef, weights, self.constants)


# The state is not donated: the one before the chunk must survive an interrupt or a loss that is not finite.
@functools.partial(jax.jit, static_argnames=("graphdef", "config", "steps"))
def _chunk(graphdef, config, steps, state, constants, train, held_out):
    optimiser = _optimiser(config)
    key = jax.random.wrap_key_data(state["key"])

    def noise_and_levels(points, key):
        level_key, noise_key = jax.random.split(key)
        if config.levels is None:
            levels = config.schedule.training_levels(level_key, len(points), points.dtype)
        else:
            levels = config.levels(level_key, len(points), config.schedule, points.dtype)
        return jax.random.normal(noise_key, points.shape, points.dtype), levels

    def mean_loss(weights, sample, noise, levels, reference, directions):
        denoiser = _denoiser_with(graphdef, weights, constants)
        loss = functools.partial(_point_loss, config, denoiser, weights.get(_WEIGHTING), reference)
        return jnp.mean(jax.vmap(loss)(sample.points, noise, levels, directions, sample.conditions))

    def one_step(state, _):
        batch_key, loss_key = jax.random.split(jax.random.fold_in(key, state["step"]))
        n = len(train.points)
        every = config.reference_size >= n
        drawn = config.batch_size if every else max(config.batch_size, config.reference_size)
        sample = train.take(jax.random.randint(batch_key, (drawn,), 0, n))
        reference = (train if every else sample).points if config.reference_size else None
        sample = sample.take(slice(config.batch_size))
        if sample.conditions is not None:
            drop = jax.random.bernoulli(jax.random.fold_in(loss_key, 3), config.condition_dropout, (config.batch_size,))
            sample = sample._replace(conditions=drop_condition(sample.conditions, drop))
        noise, levels = noise_and_levels(sample.points, loss_key)
        directions = jax.random.normal(jax.random.fold_in(loss_key, 2), noise.shape, noise.dtype)
        loss, gradient = jax.value_and_grad(mean_loss)(state["weights"], sample, noise, levels, reference, directions)
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
        # The same noise every time: the curve shows the weights, not the draw. Always the plain loss, so that runs with
        # other weightings and targets can be compared.
        sample = held_out.take(jnp.arange(_HELD_OUT_DRAWS) % len(held_out.points))
        noise, levels = noise_and_levels(sample.points, jax.random.key(0))
        average = _denoiser_with(graphdef, state["average"], constants)
        loss = functools.partial(denoising_loss, average)
        held_out_loss = jnp.mean(jax.vmap(loss)(sample.points, noise, levels, sample.conditions))
    # A loss is that of the weights before its step: the last step shows in the weights alone.
    finite = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state["average"])]))
    return state, (jnp.where(finite, jnp.mean(losses), jnp.nan), held_out_loss)


def _denoiser_with(graphdef, weights, constants):
    return nnx.merge(graphdef, {name: weights[name] for name in weights if name != _WEIGHTING}, constants)


def _point_loss(config, denoiser, parameters, reference, x, noise, sigma, v, condition):
    """The loss of one clean point, with everything that ``config`` adds to it, times its weight."""
    noisy = x + sigma * noise
    if reference is None:
        loss = denoising_loss(denoiser, x, noise, sigma, condition)
    else:
        posterior = Posterior(reference, noisy, sigma)
        loss = stable_loss(denoiser, posterior)
        if config.second_order:
            loss = loss + config.second_order * second_order_loss(denoiser, posterior, v)
    if config.asymmetry and not denoiser.conservative:
        loss = loss + config.asymmetry * asymmetry_penalty(denoiser, noisy, sigma, v, condition)
    if isinstance(config.weighting, LearnedWeighting):
        return config.weighting.apply(parameters, loss, sigma)
    return config.weighting(sigma, denoiser.sigma_data[...], config.schedule) * loss


def _optimiser(config: FitConfig) -> optax.GradientTransformation:
    warmup = min(config.warmup_steps, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, config.steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(rate))


def _as_conditions(conditions: Any, n: int, config: FitConfig, dtype: Any) -> Array | None:
    """Labels as integers or vectors as floats; raises ``ValueError`` for anything else."""
    if conditions is None:
        return None
    values = np.asarray(conditions)
    labels = values.ndim == 1 and values.dtype.kind in "iu"
    vectors = values.ndim == 2 and values.dtype.kind in "iuf" and values.shape[1] > 0
    if not (labels or vectors):
        raise ValueError(
            "`conditions` must be integer labels of shape (n,) or vectors of shape (n, m), "
            f"got {values.dtype} of shape {values.shape}"
        )
    if len(values) != n:
        raise ValueError(f"`conditions` must have one entry for each of the {n} points of `data`, got {len(values)}")
    if labels and values.min() < 0:
        raise ValueError(f"`conditions` must be labels from 0 on, got {values.min()}")
    if vectors and not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"`conditions` must be finite, got {values[row, column]} in row {row}, column {column}")
    if config.reference_size:
        raise ValueError("`reference_size` must be 0 with `conditions`: the reference is drawn from all points")
    return jnp.asarray(values, jnp.int32 if labels else dtype)


def _split(data: _Sample, config: FitConfig) -> tuple[_Sample, _Sample | None]:
    """Training and held-out points, by a permutation that depends on the seed."""
    n = len(data.points)
    if n < 3:
        raise ValueError(f"`data` must have at least 3 points, got {n}")
    if config.holdout == 0:
        return data, None
    count = max(1, round(config.holdout * n))
    order = jax.random.permutation(jax.random.fold_in(jax.random.key(config.seed), 2), n)
    return data.take(order[count:]), data.take(order[:count])


def _denoiser(train: Array, conditions: Array | None, config: FitConfig, network: nnx.Module | None) -> Denoiser:
    """The untrained denoiser, with the mean and the standard deviation of the training data."""
    # On the host in float64: the mean of many points must not lose digits.
    points = np.asarray(train, np.float64)
    mean = points.mean(0)
    spread = float(np.sqrt(np.mean((points - mean) ** 2)))
    if not spread > 0:
        raise ValueError("`data` must have points that differ, got copies of one point (standard deviation 0)")
    dim, dtype = points.shape[1], train.dtype
    if network is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        network = MLP(dim, config.width, config.depth, key=key, dtype=dtype, **_kind(conditions))
        network = Potential(network) if config.potential else network
    elif not isinstance(network, nnx.Module):
        raise TypeError(f"`network` must be a flax nnx.Module, got {type(network).__name__}")
    elif getattr(network, "dim", None) != dim:
        raise ValueError(f"`network` must have dim {dim} to match `data`, got {getattr(network, 'dim', None)}")
    denoiser = Denoiser(network, spread, jnp.asarray(mean, dtype))
    x, sigma = jnp.zeros(dim, dtype), jnp.ones((), dtype)
    # Of all labels the largest: a network that knows it knows the others.
    condition = None if conditions is None else jnp.max(conditions, 0)
    shape = jax.eval_shape(lambda: denoiser.network_output(x, sigma, condition)).shape
    if shape != (dim,):
        raise ValueError(f"`network` must return shape ({dim},) for a point of shape ({dim},), got {shape}")
    return denoiser


def _kind(conditions: Array | None) -> dict[str, int]:
    """Which conditions a network has to take, in its own words."""
    if conditions is None:
        return {}
    return {"classes": int(conditions.max()) + 1} if conditions.ndim == 1 else {"condition_dim": conditions.shape[1]}


def _fingerprint(*arrays: Array | None) -> str:
    """A digest of the data, so that a checkpoint is not continued with other data."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            values = np.ascontiguousarray(array)
            digest.update(f"{values.shape}{values.dtype}".encode() + values.tobytes())
    return digest.hexdigest()


def _where(checkpoint: str | None) -> str:
    if checkpoint is None:
        return (
            "nothing was kept (no checkpoint was written; `checkpoint_dir` and `checkpoint_every` say where and when)"
        )
    return f"the last checkpoint is in {checkpoint} (the same call to `fit` goes on from there)"
