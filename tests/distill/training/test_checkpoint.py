import errno
import json
import os

import numpy as np
import paddle
import pytest

from distill.errors import UserError
from distill.options import TrainOptions
from distill.training import checkpoint
from distill.training.optimizer import build_optimizer
from tests.distill.training.tiny_run import make, rows_of


def steps_of(model, optimizer, count, first=0):
    ids, labels = rows_of(8)
    for step in range(first, first + count):
        paddle.seed(step)
        paddle.nn.functional.cross_entropy(model(paddle.to_tensor(ids)), paddle.to_tensor(labels)).backward()
        optimizer.set_lr(0.1 / (step + 1))
        optimizer.step()
        optimizer.clear_grad()


def fresh(kind="adamw", seed=1):
    paddle.seed(seed)
    model = make()
    return model, build_optimizer(model, TrainOptions(optimizer=kind, weight_decay=0.01 if kind == "adamw" else 0.0))


def equal(a, b):
    return all(np.array_equal(x.numpy(), b[name].numpy()) for name, x in a.items())


@pytest.mark.parametrize("kind", ["adamw", "adam", "adadelta"])
def test_resumed_steps_are_bit_identical_whatever_layers_were_made_before(tmp_path, kind):
    model, optimizer = fresh(kind)
    steps_of(model, optimizer, 3)
    path = checkpoint.save(tmp_path, 3, model, optimizer, {"step": 3})
    steps_of(model, optimizer, 3, first=3)

    for _ in range(3):  # other names for all parameters of the second model
        paddle.nn.Linear(2, 2), paddle.nn.Embedding(2, 2), paddle.nn.LayerNorm(2)
    again, other = fresh(kind, seed=99)
    assert not equal(model.state_dict(), again.state_dict())
    checkpoint.restore(path, again, other)
    assert checkpoint.load_state(path) == {"step": 3}
    steps_of(again, other, 3, first=3)
    assert equal(model.state_dict(), again.state_dict())
    first, second = checkpoint.optimizer_arrays(optimizer, model), checkpoint.optimizer_arrays(other, again)
    assert first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)
    expected = {"adadelta": {"_avg_squared_grad", "_avg_squared_update"}}.get(
        kind, {"moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"}
    )
    assert {name.rpartition("/")[2] for name in first} == expected
    assert not any(name.startswith("unused") for name in first)  # never had a gradient


def test_only_the_newest_two_are_kept(tmp_path):
    model, optimizer = fresh()
    for step in (9, 10, 11):
        checkpoint.save(tmp_path, step, model, optimizer, {})
    assert sorted(os.listdir(tmp_path)) == ["step-10", "step-11"]


def test_saving_a_step_again_replaces_it(tmp_path):
    model, optimizer = fresh()
    checkpoint.save(tmp_path, 1, model, optimizer, {"try": 1})
    path = checkpoint.save(tmp_path, 1, model, optimizer, {"try": 2})
    assert checkpoint.load_state(path) == {"try": 2} and os.listdir(tmp_path) == ["step-1"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", [truncate, flip, os.remove])
def test_a_damaged_newest_checkpoint_gives_way_to_the_older(tmp_path, capsys, name, harm):
    model, optimizer = fresh()
    steps_of(model, optimizer, 1)
    for step in (5, 6):
        checkpoint.save(tmp_path, step, model, optimizer, {})
    harm(tmp_path / "step-6" / name)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-5"
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{tmp_path / 'step-6' / name}" in line and f"{tmp_path / 'step-5'}" in line


def test_no_whole_checkpoint_is_an_error_and_none_at_all_is_not(tmp_path):
    assert checkpoint.newest(tmp_path / "none") is None
    model, optimizer = fresh()
    for step in (5, 6):
        truncate(checkpoint.save(tmp_path, step, model, optimizer, {}) / "weights.safetensors")
    with pytest.raises(UserError, match=r"step-6/weights.safetensors \(\d+ bytes of \d+\).*start again"):
        checkpoint.newest(tmp_path)


def test_a_full_disk_leaves_the_former_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    model, optimizer = fresh()
    checkpoint.save(tmp_path, 1, model, optimizer, {})
    save_tensors = checkpoint.save_tensors

    def full(path, tensors):
        if path.name.startswith("optimizer"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save_tensors(path, tensors)

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(UserError, match="step-2: the disk is full") as error:
        checkpoint.save(tmp_path, 2, model, optimizer, {})
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["step-1"] and checkpoint.newest(tmp_path) == tmp_path / "step-1"


def test_the_checkpoint_of_another_model_is_refused_unchanged(tmp_path):
    model, optimizer = fresh()
    path = checkpoint.save(tmp_path, 1, model, optimizer, {})
    other = make()
    other.head = paddle.nn.Linear(8, 5)
    before = other.table.weight.numpy()
    with pytest.raises(UserError, match=r"weights.safetensors: weight head\.(bias|weight) is not as in this model"):
        checkpoint.restore(path, other, build_optimizer(other, TrainOptions()))
    assert np.array_equal(before, other.table.weight.numpy())


def test_two_parameters_of_one_name_are_refused(tmp_path):
    model, optimizer = fresh()
    model.head.weight.name = model.table.weight.name  # paddle would give both the same moments
    with pytest.raises(ValueError, match="two parameters of one name"):
        checkpoint.save(tmp_path, 1, model, optimizer, {})


def test_folders_are_replaced_and_recovered(tmp_path):
    target, new = tmp_path / "best", tmp_path / "new"
    for text in ("one", "two"):
        new.mkdir()
        (new / "file").write_text(text)
        checkpoint.replace_folder(new, target)
        assert (target / "file").read_text() == text and os.listdir(tmp_path) == ["best"]
    os.rename(target, tmp_path / ".best.old")  # killed between the two renames
    checkpoint.recover_folder(target)
    assert (target / "file").read_text() == "two"


def test_what_a_killed_removal_has_left_is_removed(tmp_path):
    target = tmp_path / "checkpoints"
    target.mkdir()
    os.rename(target, tmp_path / ".checkpoints.old")  # killed before it was deleted
    checkpoint.remove_folder(target)
    assert not os.listdir(tmp_path)


def test_state_survives_exactly(tmp_path):
    model, optimizer = fresh()
    state = {"sums": {"hard": 0.1 + 0.2, "tiny": 5e-324}, "scaler": {"scale": [32768.0], "incr_count": 7}}
    path = checkpoint.save(tmp_path, 1, model, optimizer, state)
    assert checkpoint.load_state(path) == state
    assert json.loads((path / "state.json").read_text())["files"].keys() == {
        "weights.safetensors",
        "optimizer.safetensors",
    }
