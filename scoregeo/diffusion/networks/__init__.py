"""Networks that a denoiser wraps: ``(x, c_noise, condition) -> (d,)`` for one point ``x`` of shape ``(d,)`` and a
scalar ``c_noise``.

They see the preconditioned point and ``c_noise = log(sigma)/4`` (see `denoiser`), so their input and their
target are of order one at every noise level. They hold no random state, use smooth activations only (geodesics need the
Jacobian of the score, and smooth ones), and are ``flax.nnx`` modules whose weights can be traced. The condition is left
out, or a label or a vector (see `conditioning`).

A network says in ``conservative`` whether its output is the gradient of a function of ``x`` by construction, and in
``dim`` its dimension. ``to_dict`` names what is needed to build it again from saved weights.
"""

from typing import Any, Protocol, runtime_checkable

from ..._types import Vector


@runtime_checkable
class Network(Protocol):
    """What a denoiser asks of the module that it wraps."""

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Vector:
        """The output at one point, for ``(x, c_noise)``, or ``(x, c_noise, condition)`` where there is a condition."""
        ...
