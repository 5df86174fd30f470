"""Training a score: denoising score matching, in chunks of steps between which losses and checkpoints are written.

Everything random in step ``k`` comes from ``fold_in(key, k)``, so the state of a run is its weights, their averages,
the optimiser's moments, ``k`` and the key: a run that was interrupted and goes on is the run that was not.
"""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ..._checks import warn
from ...datasets import Dataset
from ..config import FitConfig, RunConfig
from ..history import TrainingHistory
from ..model import DiffusionModel
from ..networks import Network
from ..networks.denoiser import Denoiser
from ..networks.mlp import MLP
from ..networks.potential import Potential, without_potential
from ..networks.registry import takes_conditions
from .data import RENUMBER, AbstractData, as_data, of_dataset
from .losses import Teacher
from .progress import Progress
from .sharding import (
    check_agreement,
    check_mesh,
    divided,
    has_several_processes,
    in_any_process,
    is_writer,
    local,
    replicated,
)
from .state import WEIGHTING, TrainState
from .steps import Losses, Training, optimiser, run_steps, with_weights

# Samples start from pure noise. If its standard deviation is so many times that of the data, they end 3% too narrow.
_SPREADS = 4
# Labels may leave numbers out, up to this many classes or so many for each label that there is; beyond, they are names.
_FEW_CLASSES, _SPARSEST = 1000, 100


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
    data: Float[Array, "n d"] | np.ndarray | Dataset | Iterable | Callable[[int], Iterable],
    config: FitConfig | None = None,
    *,
    network: Network | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    progress: bool = True,
    standardization: Any = None,
    conditions: Array | None = None,
    callbacks: Sequence[Callable[[TrainingHistory], bool | None]] = (),
    mesh: Mesh | None = None,
    teacher: Teacher | None = None,
) -> DiffusionModel:
    """Learn the score of the distribution that ``data`` was drawn from, at all noise levels.

    **Arguments**

    - ``data``: one of

      - an array ``(n, d)``, at least three points;
      - a `Dataset`: its points, with its ``standardization`` (its labels are ``conditions`` only if they are given);
      - one in a file, from ``numpy.load(path, mmap_mode="r")``: only the rows of a chunk of steps are ever in memory;
      - an iterator of batches ``(b, d)``, or pairs ``(points, conditions)``, tuples or lists, with
        ``b = config.points_per_step`` (or ``config.reference_size``, if that is more), one for each step. The first
        few, about 2048 points, are not trained on: mean and standard deviation of the data, and the held-out loss, are
        theirs. To go on with a run, it must begin from the beginning, and what was used is skipped;
      - a function of the number of batches to leave out that returns such an iterator: nothing has to be skipped.

      Where JAX has float64 enabled, float64 data and whole numbers are trained on in float64, anything else (half
      precision too) in float32; integers that this would round are refused, and so are masked entries.
      The weights of the default network are of that type; those of a given ``network`` keep theirs. The defaults of the
      schedules suit a standard deviation of about 0.5 to 1 (`scoregeo.datasets.Standardization`); one that is more than
      a quarter of the largest noise level gives a warning, and so do a column that varies by less than the smallest or
      300 times less than another (without a ``standardization``), and points a thousand times farther out than half of
      the others.
    - ``config``: settings, see `FitConfig`.
    - ``network``: the initial network, a module ``(x, c_noise) -> (d,)`` with an integer ``dim`` (see `networks`); by
      default an `MLP` as ``config`` says. It is not changed.
    - ``checkpoint_dir``: directory for the state of the run. If it already holds a run with the same settings, data and
      network, that run goes on from its last whole checkpoint; one of fewer ``steps``, done or not, goes on to the new
      number, with the learning rate that a run of so many steps has there (after a finished run it rises again).
    - ``progress``: report the losses on standard error, as a bar on a terminal and as lines elsewhere.
    - ``standardization``: the map that was applied to the data, kept with the model for those who need to undo it.
    - ``conditions``: a class label ``0, 1, ...`` for each point, integers ``(n,)``, or a vector, ``(n, m)``: what
      `DiffusionModel.score_at` and `DiffusionModel.sample` can then be asked for. A given ``network`` must take them,
      and one that does needs them. Without a ``network``, labels that leave most numbers out are refused. Vectors may
      be in any units: the network is told them standardised, and the model keeps the map (``condition_units``) for
      the conditions that it is given.
    - ``callbacks``: functions of the `TrainingHistory` that are called after every chunk of steps, in turn, once a
      checkpoint that is due is kept; one that returns ``True`` (of Python or NumPy, nothing else) ends the training,
      in all processes. See `EarlyStop`, `JSONLines`.
    - ``mesh``: a `jax.sharding.Mesh` with one axis, as of ``jax.make_mesh((8,), ("data",),
      axis_types=(AxisType.Auto,))``: the points of a batch are divided among its devices. After
      ``jax.distributed.initialize`` these may belong to several processes, each of which calls this function with the
      same arguments and gets the model; the one with index 0 writes the checkpoints, in a folder that all can read.
    - ``teacher``: a score to copy in place of that of ``data``, as `distill` makes it.

    **Returns** a `DiffusionModel` with the averaged weights. Noise levels are standard deviations in the units of
    ``data``.

    **Raises** ``ValueError`` or ``TypeError`` for unusable arguments, before anything is trained, and for a bad batch
    of an iterator when it comes; ``OSError`` if a checkpoint cannot be written (the last whole one stays);
    `TrainingDiverged` when the loss is not finite; `TrainingInterrupted`, a ``KeyboardInterrupt``, on Ctrl-C. After
    Ctrl-C, and in a run of one process after an error of the data or of a callback, the last whole chunk is kept.

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
    check_mesh(mesh, config)
    if config.ema.snapshots and checkpoint_dir is None:
        raise ValueError("`checkpoint_dir` must be given with `ema=PowerEMA(snapshots=...)`, got None")
    callbacks = _as_callbacks(callbacks)
    data, standardization = of_dataset(data, standardization)
    source = as_data(data, conditions, config)
    level = float(config.schedule.noise_level(jnp.asarray(config.schedule.t_max)))
    if level < _SPREADS * source.spread:
        warn(
            f"`data` has a standard deviation of {source.spread:.3g}, too much for a largest noise level of "
            f"{level:.3g} (`schedule`): below {_SPREADS} times that, samples come out too narrow. Standardise the data "
            "(scoregeo.datasets.Standardization), or give a schedule with a larger `sigma_max`",
        )
    least = float(config.schedule.noise_level(jnp.asarray(config.schedule.t_min)))
    source.check_resolution(least, standardized=standardization is not None)
    if not (network is None or isinstance(network, nnx.Module)):
        raise TypeError(f"`network` must be a flax nnx.Module, got {type(network).__name__}")
    denoiser = _denoiser(source, config, network)
    graphdef, weights, constants = nnx.split(denoiser, nnx.Param, ...)
    constants = nnx.to_pure_dict(constants)
    run = _Run(graphdef, constants, config, source, mesh, None if teacher is None else teacher.about(source.mean))
    # The model is made before the training, so that a bad argument is noticed before it.
    units = {"standardization": standardization, "condition_units": source.condition_units}
    model = DiffusionModel(denoiser, config, mean=source.mean, **units)
    state, history = run.start(nnx.to_pure_dict(weights)), TrainingHistory.empty()
    # It takes a pass over the data, so it is computed only where it is looked at.
    digest = source.digest() if checkpoint_dir is not None or has_several_processes(mesh) else ""

    if has_several_processes(mesh):
        # The processes also wait for each other here: what the first one wrote before this call is then on disk.
        settings = hashlib.sha256(repr(config).encode()).hexdigest()
        for name, value in (("data", digest), ("config", settings)):
            check_agreement(int(value[:7], 16), mesh, f"`{name}` must be the same in all processes")
    checkpoints = None
    if checkpoint_dir is not None:
        from .checkpoint import Checkpoints, identify_network

        identity = identify_network(denoiser.net, constants.get("net", {}), teacher)
        checkpoints = Checkpoints(checkpoint_dir, config, digest, identity, writes=is_writer(mesh))
    try:
        if checkpoints:
            state, history = checkpoints.restore(state, history)
            check_agreement(int(state.step), mesh, "`checkpoint_dir` must be a folder that all processes can read")
        state, history = _train(run, state, history, checkpoints, callbacks, progress)
    finally:
        if checkpoints:
            with contextlib.suppress(OSError):
                checkpoints.close()
    return model.replace(run.merge(state.average), history)


def _train(
    run: "_Run", state: TrainState, history: TrainingHistory, checkpoints: Any, callbacks: Sequence, progress: bool
) -> tuple[TrainState, TrainingHistory]:
    """State and history at the end of the run; with ``checkpoints`` (may be ``None``), the last one is on disk."""
    config, mesh = run.config.run_config, run.mesh
    # Callbacks see a restored history too: a run that one of them has ended does not go on when started again.
    stopped = len(history.steps) > 0 and _asks_to_stop(callbacks, history, mesh)
    # The state after the last chunk and its losses: one name, so that an interrupt finds what belongs together.
    latest = run.place(state), None
    try:
        with Progress(config.steps, enabled=progress and is_writer(mesh)) as report:
            while (step := history.last_step) < config.steps and not stopped:
                latest = run.chunk(latest[0], config.chunk_after(step))
                history = _record(history, latest, checkpoints)
                # The checkpoint comes first, because a callback of the user's may raise.
                _keep(latest[0], history, checkpoints, config)
                stopped = _asks_to_stop(callbacks, history, mesh)
                if stopped:
                    _keep(latest[0], history, checkpoints, config, ended=True)
                report.update(history)
        if checkpoints:
            checkpoints.close()  # raises if the last one could not be written
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt, OSError):  # a second Ctrl-C: the last whole checkpoint will do
            if not latest[0].step.is_deleted():  # used up by a chunk that was interrupted as it began
                history = _record(history, latest, checkpoints)
                _keep(latest[0], history, checkpoints, config, now=True)
        raise TrainingInterrupted(history.last_step, checkpoints and checkpoints.last) from None
    except TrainingDiverged:
        raise
    except Exception:
        # Other processes may wait for this one, and the last chunk would never be done: nothing is kept then.
        if checkpoints and not checkpoints.failed and not has_several_processes(mesh):
            with contextlib.suppress(KeyboardInterrupt, Exception):  # the error to tell is the one that came first
                _keep(latest[0], _record(history, latest, checkpoints), checkpoints, config, now=True)
        raise
    return latest[0], history


def _as_callbacks(callbacks: Any) -> tuple[Callable, ...]:
    found = tuple(callbacks) if isinstance(callbacks, Iterable) else ()
    if not isinstance(callbacks, Iterable) or not all(callable(callback) for callback in found):
        raise TypeError(f"`callbacks` must be a sequence of functions, got {callbacks!r}")
    return found


def _asks_to_stop(callbacks: Sequence[Callable], history: TrainingHistory, mesh: Mesh | None) -> bool:
    # All callbacks are called: one that stops must not keep the others from seeing the last entry.
    answers = [callback(history) for callback in callbacks]
    return in_any_process(any(isinstance(answer, bool | np.bool_) and answer for answer in answers), mesh)


def _record(history: TrainingHistory, latest: tuple[TrainState, Losses | None], checkpoints: Any) -> TrainingHistory:
    """The history with the losses of the last chunk, unless it has them; waits until they are computed."""
    state, losses = latest
    step = int(state.step)
    if step == history.last_step:
        return history
    losses = jax.device_get(losses)
    if not (math.isfinite(losses.train) and (losses.sigmas.size == 0 or math.isfinite(losses.held_out))):
        raise TrainingDiverged(step, checkpoints and checkpoints.last)
    return history.append(step, float(losses.train), float(losses.held_out), losses.sigmas, losses.by_level)


def _keep(
    state: TrainState,
    history: TrainingHistory,
    checkpoints: Any,
    config: RunConfig,
    *,
    now: bool = False,
    ended: bool = False,
) -> None:
    """Write what is due after the last chunk; a checkpoint at any rate ``now``; everything if the run has ended."""
    step = history.last_step
    if checkpoints is None or step == 0:
        return
    ended = ended or step == config.steps
    # Snapshots come first, so that a run that goes on from a checkpoint has all those of the steps before it.
    if config.snapshots and (ended or config.snapshot_due(step)):
        checkpoints.snapshot(state)
    if now or ended or config.checkpoint_due(step):
        checkpoints.save(state, history)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same during a run: the structure of the denoiser, the settings, the data and the devices."""

    graphdef: Any
    constants: Any
    config: FitConfig
    data: AbstractData
    mesh: Mesh | None
    teacher: Teacher | None

    def start(self, weights: dict[str, Any]) -> TrainState:
        """The state before the first step."""
        weights = weights | {WEIGHTING: self.config.weighting.initial(self.data.dtype)}
        step = jnp.zeros((), jnp.int32)
        averages = dict.fromkeys(self.config.ema.decays(step), weights)
        key = jax.random.key_data(jax.random.fold_in(jax.random.key(self.config.seed), 1))
        return TrainState(weights, averages, optimiser(self.config.step_config).init(weights), step, key)

    def place(self, state: TrainState) -> TrainState:
        """A copy of ``state`` on the devices, which the steps may overwrite."""
        return jax.tree.map(jnp.copy, state) if self.mesh is None else replicated(state, self.mesh)

    @functools.cached_property
    def training(self) -> Training:
        """What every chunk takes besides the state and the batches."""
        arrays = replicated((self.constants, self.data.resident, self.data.held_out, self.teacher), self.mesh)
        return Training(self.graphdef, self.config.step_config, self.mesh, *arrays)

    def chunk(self, state: TrainState, steps: int) -> tuple[TrainState, Losses]:
        """The state after ``steps`` more steps, and the losses; ``state`` is used up."""
        key = jax.random.wrap_key_data(jnp.asarray(np.asarray(state.key)))
        batches = self.data.batches(key, int(state.step), steps)
        if batches is not None:
            place = divided if self.config.reference_size == 0 else replicated
            batches = place(batches, self.mesh)
        return run_steps(self.training, state, batches, steps)

    def merge(self, weights: Any) -> Denoiser:
        """The denoiser with the given weights; the parameters of a weighting are thrown away."""
        return with_weights(self.graphdef, local(weights, self.mesh), self.constants)


def _denoiser(data: AbstractData, config: FitConfig, network: Network | None) -> Denoiser:
    """The untrained denoiser of the data without their mean, with the standard deviation of the training data."""
    dim, dtype, condition = data.dim, data.dtype, data.example
    if network is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        network = MLP(dim, config.width, config.depth, key=key, dtype=dtype, **_kind(data))
        network = Potential(network) if config.potential else network
    elif getattr(network, "dim", None) != dim:
        raise ValueError(f"`network` must have dim {dim} to match `data`, got {getattr(network, 'dim', None)}")
    elif condition is None and takes_conditions(network):
        raise ValueError(
            "`conditions` must be given for a `network` that takes them (as pairs, where `data` are batches), got None"
        )
    denoiser = Denoiser(network, data.spread, jnp.zeros(dim, dtype))
    x, sigma = jnp.zeros(dim, dtype), jnp.ones((), dtype)
    # The condition is the largest label: a network that knows this one knows the others.
    shape = jax.eval_shape(lambda: denoiser.network_output(x, sigma, condition)).shape
    if shape != (dim,):
        raise ValueError(f"`network` must return shape ({dim},) for a point of shape ({dim},), got {shape}")
    data.classes = getattr(without_potential(network), "classes", None)
    return denoiser


def _kind(data: AbstractData) -> dict[str, int]:
    """Which conditions a network has to take, in its own words; raises ``ValueError`` for labels that count nothing."""
    if data.example is None:
        return {}
    if data.example.ndim:
        return {"condition_dim": len(data.example)}
    classes = int(data.example) + 1
    if classes > max(_FEW_CLASSES, _SPARSEST * data.different):
        raise ValueError(
            f"`conditions` must be labels 0, 1, ..., for each of which a network learns a vector: {data.different} "
            f"different labels up to {classes - 1} would take {classes} of them. Please {RENUMBER}, or give a "
            "`network` with as many `classes`"
        )
    return {"classes": classes}


def _where(checkpoint: str | None) -> str:
    if checkpoint is None:
        return (
            "nothing was kept (no checkpoint was written; `checkpoint_dir` and `checkpoint_every` say where and when)"
        )
    return f"the last checkpoint is in {checkpoint} (the same call to `fit` goes on from there)"
