"""A chunk of optimiser steps as one compiled loop, and the losses that it reports."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ..config import FitConfig
from ..networks.conditioning import drop_condition
from ..networks.denoiser import Denoiser
from .data import HELD_OUT_DRAWS, points_drawn, step_keys
from .losses import asymmetry_penalty, denoising_loss, second_order_loss, stable_loss
from .sharding import keep_divided, keep_replicated
from .state import WEIGHTING, TrainState
from .targets import Posterior
from .weightings import LearnedWeighting

_HELD_OUT_LEVELS = 8  # groups of noise levels in the held-out loss


class Losses(NamedTuple):
    """Of a chunk of steps: mean training loss, held-out loss, noise levels ``(m,)``, the held-out loss at each
    ``(m,)``."""

    train: Any
    held_out: Any
    sigmas: Any
    by_level: Any


@functools.partial(jax.jit, static_argnames=("graphdef", "config", "steps", "mesh"), donate_argnames="state")
def run_steps(graphdef, config, steps, mesh, state, batches, constants, train, held_out):
    """The state after ``steps`` more steps, and their `Losses`; the memory of ``state`` is used again.

    **Arguments**

    - ``graphdef``, ``constants``: what `with_weights` needs besides the weights.
    - ``config``, ``mesh``: as `fit` has them.
    - ``batches``: a `Sample` with the points of each step, or ``None`` to draw them from ``train``.
    - ``held_out``: a `Sample`, or ``None``.
    """
    adam = optimiser(config)
    key = jax.random.wrap_key_data(state.key)

    def noise_and_levels(points, key):
        level_key, noise_key = jax.random.split(key)
        if config.levels is None:
            levels = config.schedule.training_levels(level_key, len(points), points.dtype)
        else:
            levels = config.levels(level_key, len(points), config.schedule, points.dtype)
        return jax.random.normal(noise_key, points.shape, points.dtype), levels

    def mean_loss(weights, reference, sample, noise, levels, directions):
        denoiser = with_weights(graphdef, weights, constants)
        loss = functools.partial(_point_loss, config, denoiser, weights.get(WEIGHTING), reference)
        return jnp.mean(jax.vmap(loss)(sample.points, noise, levels, directions, sample.conditions))

    def loss_and_gradient(weights, reference, batch):
        function = jax.value_and_grad(mean_loss)
        if config.accumulation == 1:
            return function(weights, reference, *keep_divided(batch, mesh))
        parts = jax.tree.map(lambda a: a.reshape(config.accumulation, config.batch_size, *a.shape[1:]), batch)
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(function, weights, reference, *batch))

        def add(total, part):
            return jax.tree.map(jnp.add, total, function(weights, reference, *part)), None

        total, _ = jax.lax.scan(add, zero, keep_divided(parts, mesh, axis=1))
        return jax.tree.map(lambda a: a / config.accumulation, total)

    def one_step(state, sample):
        batch_key, loss_key = step_keys(key, state.step)
        every = train is not None and config.reference_size >= len(train.points)
        if train is not None:
            n = len(train.points)
            sample = train.take(jax.random.randint(batch_key, (points_drawn(config, n),), 0, n))
        reference = (train if every else sample).points if config.reference_size else None
        count = config.points_per_step
        sample = sample.take(slice(count))
        if sample.conditions is not None:
            drop = jax.random.bernoulli(jax.random.fold_in(loss_key, 3), config.condition_dropout, (count,))
            sample = sample._replace(conditions=drop_condition(sample.conditions, drop))
        noise, levels = noise_and_levels(sample.points, loss_key)
        directions = jax.random.normal(jax.random.fold_in(loss_key, 2), noise.shape, noise.dtype)
        loss, gradient = loss_and_gradient(state.weights, reference, (sample, noise, levels, directions))
        updates, moments = adam.update(gradient, state.optimiser)
        weights = optax.apply_updates(state.weights, updates)
        averages = {
            name: jax.tree.map(functools.partial(_averaged, decay), state.averages[name], weights)
            for name, decay in config.ema.decays(state.step).items()
        }
        return TrainState(weights, averages, moments, state.step + 1, state.key), loss

    state, losses = jax.lax.scan(one_step, state, batches, length=steps)
    state = keep_replicated(state, mesh)
    held_out_loss, sigmas, by_level = jnp.full((), jnp.nan, losses.dtype), jnp.zeros(0), jnp.zeros(0)
    if held_out is not None:
        # The same noise every time: the curve shows the weights, not the draw. Always the plain loss, so that runs with
        # other weightings and targets can be compared.
        sample = held_out.take(jnp.arange(HELD_OUT_DRAWS) % len(held_out.points))
        noise, levels = noise_and_levels(sample.points, jax.random.key(0))
        average = with_weights(graphdef, state.average, constants)
        loss = functools.partial(denoising_loss, average)
        sample, noise, levels = keep_divided((sample, noise, levels), mesh)
        values = jax.vmap(loss)(sample.points, noise, levels, sample.conditions)
        held_out_loss = jnp.mean(values)
        order = jnp.argsort(levels)
        sigmas = jnp.exp(jnp.mean(jnp.log(levels)[order].reshape(_HELD_OUT_LEVELS, -1), 1))
        by_level = jnp.mean(values[order].reshape(_HELD_OUT_LEVELS, -1), 1)
    # A loss is that of the weights before its step: the last step shows in the weights alone.
    finite = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.average)]))
    train_loss = jnp.where(finite, jnp.mean(losses), jnp.nan)
    return state, keep_replicated(Losses(train_loss, held_out_loss, sigmas, by_level), mesh)


def _averaged(decay, old, now):
    decay = decay.astype(old.dtype)  # weights may be of another type than the points
    return decay * old + (1 - decay) * now


def with_weights(graphdef: Any, weights: dict, constants: Any) -> Denoiser:
    """The denoiser with the given weights; those of a learned weighting are left out."""
    return nnx.merge(graphdef, {name: weights[name] for name in weights if name != WEIGHTING}, constants)


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


def optimiser(config: FitConfig) -> optax.GradientTransformation:
    """Adam with a warm-up and a cosine decay of the rate, after clipping."""
    warmup = min(config.warmup_steps, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, config.steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(rate))
