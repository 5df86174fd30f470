"""What frames of paths are shown to: classifiers, a likelihood, and images that nobody has learned from."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scoregeo.diffusion import DiffusionModel, ProbabilityFlow

# Good to a tenth of a nat.
_FLOW = ProbabilityFlow(rtol=1e-3, atol=1e-3)


class Judges(NamedTuple):
    """Probabilities that frames ``(n, d)`` are real and no linear mixture of two images; no linear or spherical one;
    and that they are of each class: `interpolation.classifiers`, for frames of any shape ``(..., d)``."""

    linear_flat: Callable
    either_flat: Callable
    classes_flat: Callable

    def linear(self, frames: np.ndarray) -> np.ndarray:
        """Real, against linear mixtures."""
        return _over(self.linear_flat, frames)

    def either(self, frames: np.ndarray) -> np.ndarray:
        """Real, against spherical mixtures too."""
        return _over(self.either_flat, frames)

    def classes(self, frames: np.ndarray) -> np.ndarray:
        """Of each class."""
        return _over(self.classes_flat, frames)


def _over(judge: Callable, frames: np.ndarray) -> np.ndarray:
    found = judge(frames.reshape(-1, frames.shape[-1]))
    return found.reshape(*frames.shape[:-1], *found.shape[1:])


def held_out_distance(frames: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Of frames ``(n, t, d)``: the root mean square, over the frames of a path, of the distance to the nearest image
    ``(m, d)``."""
    squares = (frames**2).sum(-1)[..., None] + (images**2).sum(1) - 2 * frames @ images.T
    return np.sqrt(np.maximum(squares.min(-1), 0).mean(1))


def flow_likelihood(model: DiffusionModel, frames: np.ndarray, batch: int = 36) -> np.ndarray:
    """Of frames ``(n, t, d)``: the mean log density of the model by its probability flow, in nats for each dimension,
    with noise of a tenth and two random probes."""
    flat = np.asarray(frames, np.float32).reshape(-1, frames.shape[-1])
    places = np.arange(-(-len(flat) // batch) * batch) % len(flat)
    found = [
        model.log_prob(
            jnp.asarray(flat[part]), sigma=0.1, probes=2, key=jax.random.key(0), flow=_FLOW, throw=False
        ).log_prob
        for part in places.reshape(-1, batch)
    ]
    logs = np.concatenate([np.asarray(part) for part in found])[: len(flat)]
    return logs.reshape(frames.shape[:2]).mean(1) / frames.shape[-1]
