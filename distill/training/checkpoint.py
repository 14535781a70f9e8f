"""The training state on disk, from which a run continues bit for bit.

    checkpoints/step-N/weights.safetensors    the model's state dict
                       optimizer.safetensors  moments and the like, by parameter path: "encoder.0.weight/moment1"
                       state.json             what the loop remembers, and length and SHA-256 of the two files

A checkpoint is written in a folder beside and renamed, so it is there whole or not at all; the newest two are kept.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from distill import files, runtime
from distill.errors import UserError
from distill.tensors import load_tensors, save_tensors

KEPT = 2
_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


def save(
    folder: Path, step: int, model: nn.Layer, optimizer: paddle.optimizer.Optimizer, state: dict[str, Any]
) -> Path:
    """Write `folder`/step-`step` and delete all but the newest two. `state` is anything JSON can hold exactly.

    Raises UserError when the disk is full; the checkpoints that were there stay as they are.
    """
    target = folder / f"step-{step}"
    temporary = beside(target)
    try:
        with files.disk_errors(target):
            temporary.mkdir(parents=True)
            save_tensors(temporary / _WEIGHTS, model.state_dict())
            save_tensors(temporary / _OPTIMIZER, optimizer_arrays(optimizer, model))
            written = {
                name: {"bytes": (temporary / name).stat().st_size, "sha256": files.sha256(temporary / name)}
                for name in (_WEIGHTS, _OPTIMIZER)
            }
            files.write_json(temporary / _STATE, {**state, "files": written})
            replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in steps(folder)[:-KEPT]:
        remove_folder(folder / f"step-{old}")
    return target


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None where there is none.

    A damaged one is passed over for an older one, with a line that says so; if none is whole,
    UserError names the newest.
    """
    damage: list[str] = []
    for step in reversed(steps(folder)):
        path = folder / f"step-{step}"
        problem = _problem(path)
        if problem is None:
            if damage:
                runtime.log(f"damaged checkpoint {damage[0]}; continuing from the older {path}")
            return path
        damage.append(f"{path / problem}")
    if damage:
        raise UserError(f"damaged checkpoint {damage[0]}, and no whole one beside it; delete {folder} to start again")
    return None


def load_state(path: Path) -> dict[str, Any]:
    """The `state` that was saved in the checkpoint folder `path`."""
    state: dict[str, Any] = files.read_json(path / _STATE)
    del state["files"]
    return state


def restore(path: Path, model: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> None:
    """Put weights and optimizer state back, exactly; UserError when they are those of another model."""
    arrays, current = load_tensors(path / _WEIGHTS), model.state_dict()
    for name in sorted(arrays.keys() | current.keys()):
        if name not in arrays or name not in current or list(arrays[name].shape) != current[name].shape:
            raise UserError(f"{path / _WEIGHTS}: weight {name} is not as in this model; choose another --output_dir")
    for name, tensor in current.items():
        tensor.set_value(arrays[name])
    restore_optimizer(optimizer, model, load_tensors(path / _OPTIMIZER))


def optimizer_arrays(optimizer: paddle.optimizer.Optimizer, model: nn.Layer) -> dict[str, np.ndarray]:
    """Every accumulator of the optimizer as {"parameter path/accumulator": array}.

    Paddle names accumulators after parameters, and parameters by a counter of all layers made in the process. A process
    that made other layers first would look for other names, so the path in the model's state dict is the key here.
    """
    paths = _paths(model)
    return {
        f"{paths[parameter]}/{kind}": tensor.numpy()
        for kind, tensors in optimizer._accumulators.items()
        for parameter, tensor in tensors.items()
    }


def restore_optimizer(optimizer: paddle.optimizer.Optimizer, model: nn.Layer, arrays: dict[str, np.ndarray]) -> None:
    """Set a fresh optimizer's accumulators from what `optimizer_arrays` returned; KeyError for an unknown parameter."""
    names = {path: name for name, path in _paths(model).items()}
    saved = {(names[key.rpartition("/")[0]], key.rpartition("/")[2]): array for key, array in arrays.items()}
    # Accumulators are made at a parameter's first gradient; one that never had a gradient has none in the file either.
    started = {name for name, _ in saved}
    block = paddle.base.framework.default_main_program().global_block()
    optimizer._create_accumulators(block, [p for p in model.parameters() if p.name in started])
    for (name, kind), array in saved.items():
        optimizer._accumulators[kind][name].set_value(array)


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in `folder`, whole or not, in rising order."""
    return sorted(int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdigit())


def beside(target: Path) -> Path:
    """The path of the unfinished folder beside `target`, cleared of what a killed process left there."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary


def replace_folder(new: Path, target: Path) -> None:
    """Rename `new` to `target`; the former target is moved aside first and deleted last (see `recover_folder`)."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Undo a `replace_folder` that was killed between its two renames: the former folder gets its name back."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        os.rename(old, target)


def remove_folder(target: Path) -> None:
    """Delete a folder so that a half deleted one never bears its name."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)  # what a killed process has left
    if target.exists():
        os.rename(target, old)
        shutil.rmtree(old)


def _paths(model: nn.Layer) -> dict[str, str]:
    paths: dict[str, str] = {}
    for path, parameter in model.named_parameters():
        if parameter.name in paths:
            raise ValueError(f"{path} and {paths[parameter.name]} are two parameters of one name, {parameter.name}")
        paths[parameter.name] = path
    return paths


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint, beginning with the file; None when it is whole."""
    try:
        expected = files.read_json(path / _STATE)["files"]
    except (UserError, KeyError, TypeError):
        return f"{_STATE} (missing or unreadable)"
    for name, facts in expected.items():
        if not (path / name).is_file():
            return f"{name} (missing)"
        size = (path / name).stat().st_size
        if size != facts["bytes"]:
            return f"{name} ({size} bytes of {facts['bytes']})"
        if files.sha256(path / name) != facts["sha256"]:
            return f"{name} (content does not match its SHA-256)"
    return None
