"""Array aliases. Points are flat vectors of shape ``(d,)``; batches are made by ``jax.vmap``."""

from typing import TypeAlias

from jaxtyping import Array, Float

Scalar: TypeAlias = Float[Array, ""]
Point: TypeAlias = Float[Array, " d"]
Vector: TypeAlias = Float[Array, " d"]
Points: TypeAlias = Float[Array, "n d"]
Matrix: TypeAlias = Float[Array, "d d"]
