"""Folders as diffusers writes them: JSON settings, and tensors in safetensors files, perhaps in several."""

import json
import math
import operator
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

from ..._atomic import temporary_name
from ...diffusion import DamagedModelError
from ...diffusion.files import check_directory, flatten

WEIGHTS = "diffusion_pytorch_model"
_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth")
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
# How attention was called before diffusers 0.18, and the words that flax has for what torch calls weights.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_WEIGHTS_IN_FLAX = ("kernel", "scale")
# Of many wrong tensors, so many are named.
_NAMED = 5


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The dictionary in a JSON file; raises ``FileNotFoundError`` or `DamagedModelError` that names it."""
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: `folder` must be one that diffusers wrote") from None
    except ValueError as error:
        raise DamagedModelError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise DamagedModelError(f"{path} is damaged: it must hold a dictionary, got {type(values).__name__}")
    return values


def as_dtype(dtype: Any) -> Any:
    """The type of weights in memory; raises ``TypeError`` for one of less than single precision."""
    dtype = jnp.dtype(dtype)
    if not (jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32):
        raise TypeError(f"`dtype` must be a floating-point type of at least single precision, got {dtype}")
    return dtype


def existing_folder(folder: str | os.PathLike, class_name: str) -> pathlib.Path:
    """``folder`` as an absolute path; raises ``FileNotFoundError`` for one that is not there, and ``ValueError`` for a
    pickle, which diffusers' class of this name converts."""
    path = pathlib.Path(folder).absolute()
    if path.suffix in {pattern[1:] for pattern in _PICKLES}:
        raise _refused(path, class_name)
    if not path.is_dir():
        raise FileNotFoundError(f"`folder` must be a folder that diffusers wrote, but {path} is none")
    return path


def read_tensors(folder: pathlib.Path, class_name: str) -> dict[str, np.ndarray]:
    """All tensors of a network of diffusers' class of this name, from one safetensors file or from those that an index
    lists.

    Raises ``FileNotFoundError`` if there are none, ``ValueError`` for a pickle, `DamagedModelError` for a file that is
    not whole.
    """
    index, single = folder / f"{WEIGHTS}.safetensors.index.json", folder / f"{WEIGHTS}.safetensors"
    if single.exists():
        return _read_safetensors(single)
    if index.exists():
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise DamagedModelError(f"{index} is damaged: its `weight_map` must say in which file each tensor is")
        shards = {name: _read_safetensors(folder / pathlib.Path(name).name) for name in sorted(set(places.values()))}
        if lost := sorted(name for name, shard in places.items() if name not in shards[shard]):
            raise DamagedModelError(f"{index} names tensors that are not in their files: {_first(lost)}")
        return {name: shards[shard][name] for name, shard in places.items()}
    variants = sorted(folder.glob(f"{WEIGHTS}*.safetensors"))
    if len(variants) == 1:  # such as diffusion_pytorch_model.fp16.safetensors
        return _read_safetensors(variants[0])
    if pickles := sorted(path for pattern in _PICKLES for path in folder.glob(pattern)):
        raise _refused(pickles[0], class_name)
    raise FileNotFoundError(f"{single} does not exist, and {folder} has no other file of weights")


def _refused(path: pathlib.Path, class_name: str) -> ValueError:
    return ValueError(
        f"{path} is a pickle, which can run any program when it is read. Where it comes from someone you trust, convert"
        f" it with diffusers: `{class_name}.from_pretrained(folder, use_safetensors=False).save_pretrained(new_folder)`"
    )


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays in a file, mapped into memory. BF16 is read too, which safetensors' NumPy door does not."""
    try:
        content = np.memmap(path, np.uint8, "r")
    except FileNotFoundError:
        raise DamagedModelError(f"{path} does not exist, though an index names it") from None
    except ValueError:  # an empty file cannot be mapped
        raise DamagedModelError(f"{path} is damaged: it is empty") from None
    length = int(content[:8].view("<u8")[0]) if len(content) >= 8 else len(content)
    start = 8 + length
    try:
        header = json.loads(content[8:start].tobytes()) if start <= len(content) else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise DamagedModelError(f"{path} is damaged: it is not a whole safetensors file ({len(content)} bytes)")
    header.pop("__metadata__", None)
    arrays = {}
    for name, about in header.items():
        try:
            dtype, shape = _DTYPES.get(about["dtype"]), tuple(map(operator.index, about["shape"]))
            first, last = (start + operator.index(offset) for offset in about["data_offsets"])
        except (TypeError, KeyError, ValueError) as error:
            raise DamagedModelError(f"{path} is damaged: its header does not say where {name!r} is") from error
        if dtype is None:
            raise DamagedModelError(f"{path}: tensor {name!r} must hold floating-point numbers, got {about['dtype']}")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if min(shape, default=0) < 0 or not start <= first == last - size <= len(content) - size:
            raise DamagedModelError(
                f"{path} is damaged: tensor {name!r} of shape {shape} is at bytes {first} to {last}, but the file has "
                f"{len(content)} bytes"
            )
        arrays[name] = content[first:last].view(dtype).reshape(shape)
    return arrays


def _torch_name(name: str) -> str:
    """The name in a file of a parameter of ours."""
    path, _, last = name.rpartition(".")
    return f"{path}.weight" if last in _WEIGHTS_IN_FLAX else name


def _with_new_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of attention by the names that they have since diffusers 0.18."""

    def renamed(name: str) -> str:
        path = name.split(".")
        if "attentions" in path and path[-2] in _OLD_NAMES:
            path[-2] = _OLD_NAMES[path[-2]]
        return ".".join(path)

    return {renamed(name): tensor for name, tensor in tensors.items()}


def _axes(array: Any, back: bool = False) -> Any:
    """A kernel of torch's, outputs first, with flax's axes, or back; anything else as it is."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1) if back else array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


def with_tensors(template: Any, tensors: Mapping[str, np.ndarray], where: str, dtype: Any) -> Any:
    """The module of the structure of ``template`` (shapes in place of arrays) with the weights in ``tensors``.

    Raises `DamagedModelError` that names the first of those that are missing, left over, or of another shape.
    """
    graphdef, state = nnx.split(template)
    state = nnx.to_pure_dict(state)
    wanted, tensors = flatten(state), _with_new_names(tensors)
    names = {name: _torch_name(name) for name in wanted}
    missing, extra = sorted(set(names.values()) - set(tensors)), sorted(set(tensors) - set(names.values()))
    if missing or extra:
        raise DamagedModelError(
            f"{where} does not fit the settings: {len(missing)} tensors are missing{_first(missing)}, "
            f"{len(extra)} are not known{_first(extra)}"
        )
    shapes = {torch: _axes(np.broadcast_to(0.0, wanted[name].shape), back=True).shape for name, torch in names.items()}
    wrong = [f"{name} {tensors[name].shape} for {want}" for name, want in shapes.items() if tensors[name].shape != want]
    if wrong:
        raise DamagedModelError(
            f"{where} does not fit the settings: {len(wrong)} tensors have wrong shapes{_first(wrong)}"
        )
    leaves = [jnp.asarray(np.asarray(_axes(tensors[names[name]]), dtype)) for name in wanted]
    return nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(state), leaves))


def tensors_of(module: nnx.Module) -> dict[str, np.ndarray]:
    """The weights of a module by the names, and with the axes, that they have in a file."""
    arrays = flatten(nnx.to_pure_dict(nnx.split(module)[1]))
    return {_torch_name(name): np.ascontiguousarray(_axes(np.asarray(a), back=True)) for name, a in arrays.items()}


def write_folder(
    folder: str | os.PathLike, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write ``<folder>/<name>`` for every name and dictionary in ``settings``, and the tensors beside the first.

    The weights come first, and every file is written under a temporary name and renamed.
    """
    from safetensors.numpy import save

    path = check_directory(folder, "folder")
    contents = {name: (json.dumps(values, indent=2) + "\n").encode() for name, values in settings.items()}
    if tensors is not None:
        place = pathlib.Path(next(iter(settings))).with_name(f"{WEIGHTS}.safetensors")
        contents = {str(place): save(dict(tensors), {"format": "pt"})} | contents
    for name, content in contents.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary_name(file) as temporary:
            temporary.write_bytes(content)
            os.replace(temporary, file)


def _first(names: list[str]) -> str:
    return "" if not names else f" ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
