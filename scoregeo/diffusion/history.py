"""What is written down while a network trains: the losses after every chunk of steps."""

import equinox as eqx
import numpy as np


class TrainingHistory(eqx.Module):
    """The losses of a run, one entry for each chunk of steps.

    **Fields**

    - ``steps``: number of steps done, ``(k,)``.
    - ``train_loss``: mean loss of those steps since the last entry (of the weights as they were), ``(k,)``.
    - ``held_out_loss``: loss of the averaged weights on the held-out points, always with the same noise, ``(k,)``; NaN
      without any.
    - ``sigmas``: noise levels (geometric means of equally large groups of the levels that are trained on), ``(m,)``;
      empty where nothing is held out.
    - ``held_out_losses``: the held-out loss of each group, ``(k, m)``; its mean over the groups is ``held_out_loss``.

    The held-out loss is always the plain one: 1 for a network that outputs zero, and at best not 0 but what the data
    leave uncertain. The training loss is what was minimised, with weighting and all other terms.
    """

    steps: np.ndarray
    train_loss: np.ndarray
    held_out_loss: np.ndarray
    sigmas: np.ndarray
    held_out_losses: np.ndarray

    def __init__(
        self,
        steps: np.ndarray,
        train_loss: np.ndarray,
        held_out_loss: np.ndarray,
        sigmas: np.ndarray | None = None,
        held_out_losses: np.ndarray | None = None,
    ):
        self.steps, self.train_loss, self.held_out_loss = steps, train_loss, held_out_loss
        self.sigmas = np.zeros(0) if sigmas is None else sigmas
        self.held_out_losses = np.zeros((len(steps), 0)) if held_out_losses is None else held_out_losses

    @classmethod
    def empty(cls) -> "TrainingHistory":
        """The history before the first step."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))

    @property
    def last_step(self) -> int:
        """Number of steps done."""
        return int(self.steps[-1]) if len(self.steps) else 0

    def append(
        self,
        step: int,
        train_loss: float,
        held_out_loss: float,
        sigmas: np.ndarray | None = None,
        held_out_losses: np.ndarray | None = None,
    ) -> "TrainingHistory":
        """This history with one more entry; all entries have the same ``sigmas``, or none has any.

        Raises ``ValueError`` if ``sigmas`` is not of the length of those before.
        """
        steps, train = np.append(self.steps, step), np.append(self.train_loss, train_loss)
        held_out = np.append(self.held_out_loss, held_out_loss)
        sigmas = np.zeros(0) if sigmas is None else np.asarray(sigmas, float)
        if len(self.steps) and len(sigmas) != len(self.sigmas):
            raise ValueError(f"`sigmas` must be the {len(self.sigmas)} of the entries before, got {len(sigmas)}")
        losses = np.asarray([] if held_out_losses is None else held_out_losses, float)[None]
        before = self.held_out_losses if len(self.steps) else losses[:0]
        return TrainingHistory(steps, train, held_out, sigmas, np.concatenate([before, losses]))

    def to_dict(self) -> dict[str, list]:
        """Lists for JSON; NaN (nothing held out) becomes ``None``."""
        held_out = [None if np.isnan(value) else value for value in self.held_out_loss.tolist()]
        return {
            "steps": self.steps.tolist(),
            "train_loss": self.train_loss.tolist(),
            "held_out_loss": held_out,
            "sigmas": self.sigmas.tolist(),
            "held_out_losses": self.held_out_losses.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, list]) -> "TrainingHistory":
        """The inverse of `to_dict`."""
        held_out = [np.nan if value is None else value for value in values["held_out_loss"]]
        sigmas, steps = np.array(values["sigmas"], float), np.array(values["steps"], np.int64)
        return cls(
            steps,
            np.array(values["train_loss"], float),
            np.array(held_out, float),
            sigmas,
            np.array(values["held_out_losses"], float).reshape(len(steps), len(sigmas)),
        )
