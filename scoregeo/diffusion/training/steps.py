"""A chunk of optimiser steps as one compiled loop, and the losses that it reports."""

import functools
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from ..._types import Points, Scalar
from ..config import StepConfig
from ..networks.conditioning import drop_condition
from ..networks.denoiser import Denoiser
from .data import HELD_OUT_DRAWS, Sample, points_drawn, step_keys
from .losses import Teacher, asymmetry_penalty, denoising_loss, distillation_loss, second_order_loss, stable_loss
from .sharding import keep_divided, keep_replicated
from .state import WEIGHTING, TrainState
from .targets import Posterior

_HELD_OUT_LEVELS = 8  # groups of noise levels in the held-out loss


class Losses(NamedTuple):
    """What a chunk of steps reports: mean training loss, held-out loss, noise levels ``(m,)``, and the held-out loss at
    each of them, ``(m,)``."""

    train: Any
    held_out: Any
    sigmas: Any
    by_level: Any


class Training(eqx.Module):
    """What all steps of a run have in common. Structure, settings and devices are static, the rest is arrays.

    **Fields**

    - ``graphdef``, ``constants``: structure of the denoiser, and its variables that are not trained.
    - ``config``: the settings of a step.
    - ``mesh``: the devices that share a batch, or ``None``.
    - ``train``: the training points, if they are in memory; else ``None``, and each step is given its batch.
    - ``held_out``: the points that are not trained on, or ``None``.
    - ``teacher``: whose score is the target, or ``None`` for that of the data.
    """

    graphdef: Any = eqx.field(static=True)
    config: StepConfig = eqx.field(static=True)
    mesh: Mesh | None = eqx.field(static=True)
    constants: Any
    train: Sample | None
    held_out: Sample | None
    teacher: Teacher | None = None

    def denoiser(self, weights: dict[str, Any]) -> Denoiser:
        """The denoiser with the given weights; the parameters of a weighting are left out."""
        return with_weights(self.graphdef, weights, self.constants)

    def step(self, state: TrainState, batch: Sample | None) -> tuple[TrainState, Scalar]:
        """One step: the next state, and the training loss of the weights before it."""
        config = self.config
        batch_key, loss_key = step_keys(jax.random.wrap_key_data(state.key), state.step)
        sample, reference = self._draw(batch, batch_key, loss_key)
        noise, levels = self._noise(sample.points, loss_key)
        directions = jax.random.normal(jax.random.fold_in(loss_key, 2), noise.shape, noise.dtype)
        loss, gradient = self._loss_and_gradient(state.weights, reference, (sample, noise, levels, directions))
        with jax.numpy_dtype_promotion("standard"):  # optax multiplies numbers of Python with integer counts
            updates, moments = optimiser(config).update(gradient, state.optimiser)
        # optax's annotation loses that the result has the structure of the first argument.
        weights = cast(dict[str, Any], optax.apply_updates(state.weights, updates))
        averages = {
            name: jax.tree.map(functools.partial(_averaged, decay), state.averages[name], weights)
            for name, decay in config.ema.decays(state.step).items()
        }
        return TrainState(weights, averages, moments, state.step + 1, state.key), loss

    def held_out_losses(self, weights: dict[str, Any]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Noise levels, and the plain loss at each; held-out points and noise are the same every time.

        So the curve of losses shows the weights, not the draw; and as weighting and targets play no part, runs that
        differ in them can be compared.
        """
        assert self.held_out is not None  # nobody asks for the loss of points that there are not
        sample = self.held_out.take(jnp.arange(HELD_OUT_DRAWS) % len(self.held_out.points))
        noise, levels = self._noise(sample.points, jax.random.key(0))
        loss = functools.partial(denoising_loss, self.denoiser(weights))
        arrays = keep_divided((sample.points, noise, levels, sample.conditions), self.mesh)
        if self.mesh is not None:  # the devices share the memory
            return levels, jax.vmap(loss)(*arrays)
        # No more side by side than in a step, because the intermediate values of so many images fill the memory.
        side_by_side = min(1 << (self.config.batch_size.bit_length() - 1), HELD_OUT_DRAWS)
        return levels, jax.lax.map(lambda point: loss(*point), arrays, batch_size=side_by_side)

    def _draw(
        self, batch: Sample | None, batch_key: PRNGKeyArray, loss_key: PRNGKeyArray
    ) -> tuple[Sample, Points | None]:
        """The points of a step with some conditions dropped, and the reference set of their targets."""
        config, train = self.config, self.train
        every = train if train is not None and config.reference_size >= len(train.points) else None
        if train is not None:
            n = len(train.points)
            batch = train.take(jax.random.randint(batch_key, (points_drawn(config, n),), 0, n))
        assert batch is not None  # it is given where no training points are in memory
        reference = (batch if every is None else every).points if config.reference_size else None
        count = config.points_per_step
        sample = batch.take(slice(count))
        if sample.conditions is not None:
            drop = jax.random.bernoulli(jax.random.fold_in(loss_key, 3), config.condition_dropout, (count,))
            sample = sample._replace(conditions=drop_condition(sample.conditions, drop))
        return sample, reference

    def _noise(self, points: Points, key: PRNGKeyArray) -> tuple[Points, Float[Array, " n"]]:
        """Standard normal noise for each point, and its noise level."""
        config = self.config
        level_key, noise_key = jax.random.split(key)
        if config.levels is None:
            levels = config.schedule.training_levels(level_key, len(points), points.dtype)
        else:
            levels = config.levels(level_key, len(points), config.schedule, points.dtype)
        return jax.random.normal(noise_key, points.shape, points.dtype), levels

    def _loss_and_gradient(self, weights, reference, batch) -> tuple[Scalar, Any]:
        """The mean loss of a batch and its gradient in the weights, with ``accumulation`` in as many parts."""
        config, function = self.config, jax.value_and_grad(self._mean_loss)
        if config.accumulation == 1:
            return function(weights, reference, *keep_divided(batch, self.mesh))
        parts = jax.tree.map(lambda a: a.reshape(config.accumulation, config.batch_size, *a.shape[1:]), batch)
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(function, weights, reference, *batch))

        def add(total, part):
            return jax.tree.map(jnp.add, total, function(weights, reference, *part)), None

        total, _ = jax.lax.scan(add, zero, keep_divided(parts, self.mesh, axis=1))
        return jax.tree.map(lambda a: a / config.accumulation, total)

    def _mean_loss(self, weights, reference, sample, noise, levels, directions) -> Scalar:
        loss = functools.partial(
            _point_loss, self.config, self.denoiser(weights), weights.get(WEIGHTING, {}), reference, self.teacher
        )
        return jnp.mean(jax.vmap(loss)(sample.points, noise, levels, directions, sample.conditions))


@functools.partial(jax.jit, static_argnames="steps", donate_argnames="state")
def run_steps(training: Training, state: TrainState, batches: Sample | None, steps: int) -> tuple[TrainState, Losses]:
    """The state after ``steps`` more steps, and their `Losses`; the memory of ``state`` is used again.

    ``batches`` has the points of each step, ``(steps, n, d)``, or is ``None`` to draw them from ``training.train``.
    """
    # A function of its own: JAX hashes what it scans, and a method would be hashed with the arrays of its module.
    state, losses = jax.lax.scan(lambda *arguments: training.step(*arguments), state, batches, length=steps)
    state = keep_replicated(state, training.mesh)
    held_out_loss, sigmas, by_level = jnp.full((), jnp.nan, losses.dtype), jnp.zeros(0), jnp.zeros(0)
    if training.held_out is not None:
        levels, values = training.held_out_losses(state.average)
        held_out_loss = jnp.mean(values)
        order = jnp.argsort(levels)
        sigmas = jnp.exp(jnp.mean(jnp.log(levels)[order].reshape(_HELD_OUT_LEVELS, -1), 1))
        by_level = jnp.mean(values[order].reshape(_HELD_OUT_LEVELS, -1), 1)
    # Each loss is that of the weights before its step, so only the weights show whether the last step was finite.
    finite = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.average)]))
    train_loss = jnp.where(finite, jnp.mean(losses), jnp.nan)
    return state, keep_replicated(Losses(train_loss, held_out_loss, sigmas, by_level), training.mesh)


def _averaged(decay: Scalar, old: Array, now: Array) -> Array:
    # optax.incremental_update takes 1 - decay, and its 1 - (1 - decay) loses digits of a decay close to 1.
    decay = decay.astype(old.dtype)  # weights may be of another type than the points
    return decay * old + (1 - decay) * now


def with_weights(graphdef: Any, weights: dict[str, Any], constants: Any) -> Denoiser:
    """The denoiser with the given weights; the parameters of a weighting are left out."""
    return nnx.merge(graphdef, {name: weights[name] for name in weights if name != WEIGHTING}, constants)


def _point_loss(config, denoiser, parameters, reference, teacher, x, noise, sigma, v, condition) -> Scalar:
    """The loss of one clean point, with everything that ``config`` adds to it, times its weight."""
    noisy = x + sigma * noise
    if teacher is not None:
        loss = distillation_loss(denoiser, teacher, noisy, sigma, v)
    elif reference is None:
        loss = denoising_loss(denoiser, x, noise, sigma, condition)
    else:
        posterior = Posterior(reference, noisy, sigma)
        loss = stable_loss(denoiser, posterior)
        if config.second_order:
            loss = loss + config.second_order * second_order_loss(denoiser, posterior, v)
    if config.asymmetry and not denoiser.conservative:
        loss = loss + config.asymmetry * asymmetry_penalty(denoiser, noisy, sigma, v, condition)
    return config.weighting.apply(parameters, loss, sigma, denoiser.sigma_data[...], config.schedule)


def optimiser(config: StepConfig) -> optax.GradientTransformation:
    """Adam with a warm-up and a cosine decay of the rate, after clipping."""
    warmup = min(config.warmup_steps, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, config.steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(rate))
