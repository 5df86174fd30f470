"""The networks of this package by name: from a network to a dictionary that describes it, and back."""

from collections.abc import Mapping
from typing import Any, cast

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from . import Network
from .conditioning import ConditionalNetwork
from .dit import DiT
from .mlp import MLP
from .potential import Potential, without_potential
from .unet import UNet

_KINDS = {kind.__name__: kind for kind in (MLP, UNet, DiT)}


def describe_network(network: Network) -> dict[str, Any] | None:
    """What `network_from_dict` needs to build a network of this package; ``None`` for any other."""
    if type(network) is Potential:
        inner = describe_network(network.net)
        return None if inner is None else {"kind": "Potential", "net": inner}
    return cast(ConditionalNetwork, network).to_dict() if type(network) in _KINDS.values() else None


def takes_conditions(network: Network) -> bool:
    """Whether a network of this package was made to take conditions."""
    network = without_potential(network)
    return getattr(network, "classes", None) is not None or getattr(network, "condition_dim", None) is not None


def network_from_dict(values: Any, *, key: PRNGKeyArray, dtype: Any = jnp.float32) -> Network:
    """A new network of the architecture that ``to_dict`` described, with random weights of the given dtype.

    Raises ``ValueError`` for an unknown kind, for settings that are missing or unknown, and for values that make no
    sense. Settings that came later or are seldom given (conditions, ``compute_dtype``, ``attention``) may be left out.
    """
    kinds = [*_KINDS, "Potential"]
    if not isinstance(values, Mapping) or values.get("kind") not in kinds:
        raise ValueError(f"`network` must be a dictionary whose `kind` is one of {kinds}, got {values!r}")
    kind, settings = values["kind"], {name: value for name, value in values.items() if name != "kind"}
    needed, optional = {"net"}, set()
    if kind != "Potential":
        needed, optional = set(_KINDS[kind].settings), set(_KINDS[kind].optional_settings)
    if not needed <= set(settings) <= needed | optional:
        raise ValueError(
            f"`network` of kind {kind} must have {sorted(needed)}"
            + (f" and may have {sorted(optional)}" if optional else "")
            + f", got {sorted(settings)}"
        )
    if kind == "Potential":
        return Potential(network_from_dict(settings["net"], key=key, dtype=dtype))
    return _KINDS[kind](**settings, key=key, dtype=dtype)
