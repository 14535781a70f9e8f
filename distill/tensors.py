"""Named arrays in files: safetensors written and read; .pdparams and PyTorch's .bin only read, executing nothing."""

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from distill.errors import UserError
from distill.files import atomic_path


def save_tensors(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Write {name: paddle.Tensor or np.ndarray} as safetensors, whole or not at all.

    bfloat16 paddle tensors are widened to float32, which loses nothing. Raises UserError when the disk is full.
    """
    # safetensors takes the buffer as it lies: a transposed view would be written in the wrong order without this copy.
    arrays = {name: np.asarray(_array(tensor), order="C") for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        # "np" is the one format mark that PaddleNLP's own loader accepts.
        # Written by us, because save_file hides a full disk in an error of its own.
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata={"format": "np"}))


def load_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read a safetensors file as {name: array}; bfloat16 becomes float32.

    Raises UserError when it is missing, cut short or something else.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = list(file.keys())
            halves = {name for name in names if file.get_slice(name).get_dtype() == "BF16"}
            arrays = {name: file.get_tensor(name) for name in names if name not in halves}
        if halves:  # NumPy has no such type
            for name, spec in safetensors.deserialize(Path(path).read_bytes()):
                if name in halves:
                    arrays[name] = _widen_bfloat16(np.frombuffer(spec["data"], np.uint16)).reshape(spec["shape"])
        return arrays
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, TypeError) as error:
        raise UserError(f"{path}: truncated, or not a safetensors file ({error}); copy or save it again") from None


def fill(model: Any, arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Set all of `model`'s weights from `arrays`.

    Raises UserError naming `path` when one is missing, superfluous or of another shape; nothing has been set then.
    """
    needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing, extra = [n for n in needed if n not in arrays], [n for n in arrays if n not in needed]
    other = [n for n in needed if n in arrays and arrays[n].shape != needed[n]]
    for names, what in ((missing, "missing"), (extra, "too many"), (other, "of another shape")):
        if names:
            shown = names[0]
            if names is other:
                shown += f" {list(arrays[shown].shape)}, the model's is {list(needed[shown])}"
            rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{path}: weights {what}: {shown}{rest}; use the config and the weights of the same model")
    model.set_state_dict(dict(arrays))


def load_pdparams(path: str | Path) -> dict[str, np.ndarray]:
    """Read what `paddle.save(model.state_dict())` wrote (a pickle) as {name: array}, executing nothing.

    Tensors are accepted as arrays and as (name, array) pairs; the `StructuredToParameterName@@` entry is left out.
    Raises UserError when the file is missing, cut short, or holds anything but arrays.
    """
    state = _unpickle(path, _ArrayUnpickler)
    arrays = {}
    for name, value in _entries(path, state):
        if name == "StructuredToParameterName@@":
            continue
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            value = value[1]
        if not isinstance(value, np.ndarray) or value.dtype == object:
            raise UserError(f"{path}: {name!r} is not an array of numbers; only weight files are read")
        arrays[name] = value
    return arrays


def load_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Read what `torch.save(model.state_dict())` wrote (a zip with a pickle) as {name: array}, without torch.

    Executes nothing; bfloat16 becomes float32. Raises UserError when the file is missing, cut short, holds anything but
    tensors, or is in the format of PyTorch before 1.6.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path}: not a PyTorch weight file; save the model as model.safetensors")
            with archive.open(pickles[0]) as handle:
                state = _guarded(path, _TorchUnpickler(handle, archive, pickles[0].removesuffix("data.pkl")))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except zipfile.BadZipFile:
        raise UserError(
            f"{path}: truncated, or of PyTorch before 1.6; load it there and save it as model.safetensors"
        ) from None
    for name, value in _entries(path, state):
        if not isinstance(value, np.ndarray):
            raise UserError(f"{path}: {name!r} is not a tensor; only weight files are read")
    return dict(state)


def _array(tensor: Any) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor
    if "bfloat16" in str(tensor.dtype):
        tensor = tensor.astype("float32")
    return tensor.numpy()


def _widen_bfloat16(halves: np.ndarray) -> np.ndarray:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _entries(path: str | Path, state: Any) -> list[tuple[str, Any]]:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path}: holds no dictionary of named weights; only weight files are read")
    return list(state.items())


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what NumPy arrays are rebuilt from, and nothing else."""

    _ARRAYS = {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]  # that function, wherever this NumPy keeps it
        if (module, name) in self._ARRAYS:
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("builtins", "__builtin__") and name == "tuple":
            return tuple
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")


def _latin1(text: str, encoding: str) -> bytes:
    """Protocol 2 writes bytes as text and `_codecs.encode`; any other codec is refused."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


_TORCH_TYPES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip


class _TorchUnpickler(pickle.Unpickler):
    """Admits what PyTorch's tensors are rebuilt from; storages are the archive's members."""

    def __init__(self, handle: Any, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(handle)
        self._archive, self._prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TORCH_TYPES:
            return _TORCH_TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _unwrapped
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key = pid[:3]
        if kind != "storage" or dtype not in _TORCH_TYPES.values():
            raise pickle.UnpicklingError("it refers to something that is not a tensor")
        data = self._archive.read(f"{self._prefix}data/{key}")
        return _widen_bfloat16(np.frombuffer(data, "<u2")) if dtype == "bfloat16" else np.frombuffer(data, dtype)


def _strided(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # as_strided does not look where it reads: a wrong header must not reach memory outside the storage.
    if min((offset, *size, *stride), default=0) < 0 or (0 not in size and last >= storage.size):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.array(np.lib.stride_tricks.as_strided(storage[offset:], size, steps), order="C")


def _unwrapped(tensor: np.ndarray, *_: Any) -> np.ndarray:
    return tensor


def _unpickle(path: str | Path, unpickler: type[pickle.Unpickler]) -> Any:
    try:
        with open(path, "rb") as handle:
            return _guarded(path, unpickler(handle))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None


def _guarded(path: str | Path, unpickler: pickle.Unpickler) -> Any:
    try:
        return unpickler.load()
    except (pickle.UnpicklingError, AttributeError, ImportError, IndexError, KeyError, MemoryError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        truncated = "truncated" in reason
        raise UserError(f"{path}: {'truncated' if truncated else 'refused'} ({reason}); {_WAY_OUT}") from None
    except (EOFError, UnicodeDecodeError, ValueError, OverflowError, struct.error) as error:
        raise UserError(
            f"{path}: truncated or not a weight file ({str(error) or 'it ends too early'}); {_WAY_OUT}"
        ) from None


_WAY_OUT = "copy it again, or save the model as model.safetensors"
