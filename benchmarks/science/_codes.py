"""Codes of rotated characters: images that a small autoencoder maps to R^64, with angles that become distances; and
pairs of them.

The loss is that of Bethune et al. 2025 (arXiv 2505.18230, appendix E.2): the error of the reconstruction, and that of
distances between codes of one character, which are to be proportional to the angle between the images,

    |D(E(x)) - x|^2 / pixels + WEIGHT ((|E(x) - E(x+)| - a+)^2 + (|E(x) - E(x-)| - a-)^2)                  (1)

for images x+ at 1 to 11 degrees and x- at 30 to 179 degrees from x, with the angles a in radians.
"""

import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _study import REPORTED, equal_steps

from scoregeo import EuclideanMetric, GraphInit, Spherical, StraightLine
from scoregeo._atomic import replacing
from scoregeo.datasets import rotated_letters
from scoregeo.diffusion import DiffusionModel, FitConfig, LogNormalLevels, fit
from scoregeo.geodesics.baselines import nodes_of

CHARACTERS, ANGLES, SIZE, DIM, WEIGHT = "AF5RGJ4", 360, 32, 64, 0.01
# As in the thesis: frames of a path, and the noise of noisy ends in standard deviations of the codes (which is one).
TIMES, NOISE = 100, 0.25
# So many pairs are drawn at least: the first of them are the same, however many are asked for.
MOST = 100
# A path that is further from the rotation than this, at equal Euclidean steps, went another way.
ASTRAY = 1.0


class Autoencoder(eqx.Module):
    """An encoder and a decoder with one hidden layer each, and the map that standardises codes: less their mean, all
    divided by one standard deviation."""

    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP
    mean: jax.Array
    std: jax.Array

    def __init__(self, key, width: int = 384):
        first, second = jax.random.split(key)
        make = {"width_size": width, "depth": 1, "activation": jax.nn.silu, "dtype": jnp.float32}
        self.encoder = eqx.nn.MLP(SIZE**2, DIM, key=first, **make)
        self.decoder = eqx.nn.MLP(DIM, SIZE**2, key=second, **make)
        self.mean, self.std = jnp.zeros(DIM, jnp.float32), jnp.ones((), jnp.float32)

    def encode(self, images):
        """Codes ``(n, 64)``."""
        return (jax.vmap(self.encoder)(jnp.asarray(images, jnp.float32)) - self.mean) / self.std

    def decode(self, codes):
        """Images ``(n, pixels)``."""
        return jax.vmap(self.decoder)(jnp.asarray(codes, jnp.float32) * self.std + self.mean)


def loss(model: Autoencoder, images, key, batch: int = 128):
    """Equation (1) for a random batch of ``images`` ``(characters, angles, pixels)``; angles are of whole degrees."""
    keys = jax.random.split(key, 6)
    which = jax.random.randint(keys[0], (batch,), 0, len(images))
    angle = jax.random.randint(keys[1], (batch,), 0, ANGLES)
    x = images[which, angle]
    z = model.encode(x)
    total = jnp.mean((jax.vmap(model.decoder)(z) - x) ** 2)
    for low, high, draw, sign in ((1, 12, *keys[2:4]), (30, 180, *keys[4:6])):
        degrees = jax.random.randint(draw, (batch,), low, high)
        turn = degrees * jax.random.rademacher(sign, (batch,))
        distance = jnp.linalg.norm(z - model.encode(images[which, (angle + turn) % ANGLES]), axis=1)
        total += WEIGHT * jnp.mean((distance - jnp.deg2rad(degrees)) ** 2)
    return total


def train(images: np.ndarray, steps: int, seed: int) -> Autoencoder:
    """An autoencoder of ``images`` ``(characters, angles, pixels)``."""
    start, draw = jax.random.split(jax.random.key(seed))
    model, images = Autoencoder(start), jnp.asarray(images, jnp.float32)
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    @eqx.filter_jit
    def run(model, images):
        arrays, rest = eqx.partition(model, eqx.is_array)

        def step(state, key):
            arrays, moments = state
            grads = jax.grad(lambda a: loss(eqx.combine(a, rest), images, key))(arrays)
            updates, moments = optimiser.update(grads, moments)
            return (optax.apply_updates(arrays, updates), moments), None

        state = (arrays, optimiser.init(arrays))
        return eqx.combine(jax.lax.scan(step, state, jax.random.split(draw, steps))[0][0], rest)

    model = run(model, images)
    # Only now standardised: in training the distances of codes are angles.
    model = eqx.tree_at(lambda m: (m.mean, m.std), model, (jnp.zeros(DIM, jnp.float32), jnp.ones((), jnp.float32)))
    codes = model.encode(images.reshape(-1, SIZE**2))
    return eqx.tree_at(lambda m: (m.mean, m.std), model, (codes.mean(0), (codes - codes.mean(0)).std()))


class Characters:
    """The codes of ``characters`` at all half degrees ``(7, 720, 64)``, of which whole degrees are the data, with what
    was learned of these: an autoencoder, and a diffusion model of the codes.

    ``folder``: where the two are kept; they are trained where there are none. ``steps``: of both trainings.
    """

    def __init__(self, folder: pathlib.Path, characters: str, steps: tuple[int, int], seed: int):
        images = rotated_letters(characters, 2 * ANGLES, size=SIZE).points
        self.images = np.asarray(images, np.float32).reshape(len(characters), 2 * ANGLES, -1)
        file = folder / f"autoencoder-{steps[0]}.eqx"
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with replacing(file) as temporary:
                eqx.tree_serialise_leaves(temporary, train(self.images[:, ::2], steps[0], seed))
        self.autoencoder = eqx.tree_deserialise_leaves(file, Autoencoder(jax.random.key(seed)))
        codes = np.asarray(self.autoencoder.encode(self.images.reshape(-1, SIZE**2)))
        self.codes = codes.reshape(len(characters), 2 * ANGLES, DIM).astype(float)
        self.data = self.codes[:, ::2].reshape(-1, DIM)
        if not (folder / f"score-{steps[1]}" / "config.json").exists():
            self._fit(steps[1], seed).save(folder / f"score-{steps[1]}")
        self.model = DiffusionModel.load(folder / f"score-{steps[1]}")

    def _fit(self, steps: int, seed: int) -> DiffusionModel:
        config = FitConfig(
            steps=steps,
            batch_size=256,
            learning_rate=5e-3,
            width=256,
            depth=3,
            reference_size=len(self.data),
            levels=LogNormalLevels(-1.6, 0.5),
            chunk_steps=min(500, steps),
            holdout=0.0,
            seed=seed,
        )
        return fit(jnp.asarray(self.data, jnp.float32), config)

    def errors(self) -> dict[str, np.ndarray]:
        """Of the decoder: mean squared error of the pixels at whole degrees, and between them, in which no image was
        seen in training; for each image."""
        error = np.asarray(self.autoencoder.decode(self.codes.reshape(-1, DIM))).reshape(self.images.shape)
        error = ((error - self.images) ** 2).mean(-1)
        return {"pixels_seen": error[:, ::2].ravel(), "pixels_unseen": error[:, 1::2].ravel()}


class Pairs:
    """The first ``n`` pairs of ends ``xs``, ``ys`` of one kind, with the rotations between them."""

    def __init__(self, characters: Characters, seed: int, ends: str, split: str, n: int):
        random = np.random.default_rng([seed, split == REPORTED])
        self.data = characters.data
        most = max(n, MOST)
        which, angle = random.integers(len(characters.codes), size=most), random.integers(ANGLES, size=most)
        self.turn, noise = random.integers(10, 181, most)[:n], random.normal(size=(most, 2, DIM))[:n]
        half = 2 * angle[:n] + (ends == "between")
        # Frames of the rotation are those of the nearest angles that there are, as in the thesis.
        angles = half[:, None] + np.round(self.turn[:, None] * np.linspace(0, 2, TIMES)).astype(int)
        self.rotation = characters.codes[which[:n, None], angles % (2 * ANGLES)]
        self.xs, self.ys = self.rotation[:, 0], self.rotation[:, -1]
        if ends == "noisy":
            noise = NOISE * characters.data.std() * noise
            self.xs, self.ys = self.xs + noise[:, 0], self.ys + noise[:, 1]

    def starts(self, start: str, graph: GraphInit) -> np.ndarray:
        """Curves ``(n, 65, 64)``; those along the graph are the shortest ones in Euclidean length."""
        rule = {"graph": graph, "spherical": Spherical(jnp.mean(graph.points, 0)), "straight": StraightLine()}[start]
        follow = jax.jit(lambda x, y: nodes_of(rule, EuclideanMetric(), x, y))
        return np.stack([follow(x, y) for x, y in zip(self.xs, self.ys, strict=True)])

    def figures(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Of paths ``(n, 100, 64)`` at equal steps of their metric: root mean squares over the inner frames, as in the
        thesis; then the same at equal Euclidean steps."""
        even = equal_steps(points)
        nearest = [[np.linalg.norm(self.data - x, axis=1).min() for x in path[1:-1]] for path in points]
        to_rotation, at_even_steps = (
            np.sqrt((((paths - self.rotation) ** 2).sum(-1)[:, 1:-1]).mean(1)) for paths in (points, even)
        )
        return {
            "to_data": np.sqrt((np.array(nearest) ** 2).mean(1)),
            "to_rotation": to_rotation,
            "to_rotation_even": at_even_steps,
            "astray": (at_even_steps > ASTRAY).astype(float),
        }


def upsampled(points: np.ndarray) -> np.ndarray:
    """Polylines ``(n, k, d)`` at 100 equal times."""
    old, new = np.linspace(0, 1, points.shape[1]), np.linspace(0, 1, TIMES)
    left = np.minimum((new * (len(old) - 1)).astype(int), len(old) - 2)
    part = ((new - old[left]) * (len(old) - 1))[:, None]
    return (1 - part) * points[:, left] + part * points[:, left + 1]
