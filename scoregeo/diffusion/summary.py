"""What a notebook shows of a trained model."""

from typing import Any

import jax
import numpy as np

from .._display import captioned, line_svg, page
from .._numerics import is_traced


def model_html(model: Any) -> str:
    """What a `DiffusionModel` is and how it was trained, as HTML; the picture is its loss over the steps."""
    if is_traced(model.weights["mean"]):
        return page("DiffusionModel, traced", [("dimension", str(model.dim))])
    net = jax.tree.leaves(model.weights["net"])
    kind, dtypes = type(model.denoiser.net).__name__, sorted({str(leaf.dtype) for leaf in net})
    low, high = map(float, model.schedule.noise_range())
    rows = [
        ("dimension", str(model.dim)),
        ("network", f"{kind}, {sum(map(np.size, net)):,} numbers, {', '.join(dtypes)}"),
        ("schedule", f"{type(model.schedule).__name__}, noise levels {low:.3g} to {high:.3g}"),
        ("score", "a gradient field" if model.conservative else "not a gradient field"),
        ("units", "those of the data" if model.standardization is None else "those of `standardization`"),
    ]
    history, picture = model.history, ""
    if history.last_step:
        held_out = bool(np.isfinite(history.held_out_loss).any())
        loss = history.held_out_loss if held_out else history.train_loss
        rows.append(("steps", f"{history.last_step}, {'held-out' if held_out else 'training'} loss {loss[-1]:.4g}"))
        what = "loss over steps, these on a logarithmic scale"
        picture = captioned(line_svg(np.stack([np.log(history.steps), loss], 1), what), what)
    return page("DiffusionModel", rows, picture)
