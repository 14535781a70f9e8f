"""Weight files: what is read back, what is refused, and that a pickle never runs."""

import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import paddle
import pytest
import safetensors.numpy

from distill.errors import UserError
from distill.tensors import load_pdparams, load_tensors, load_torch, save_tensors


def _one_line(error):
    text = str(error.value)
    assert "\n" not in text and text
    return text


def test_safetensors_round_trip_of_arrays_and_tensors(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.normal(size=(3, 4)).astype(np.float32)
    tensors = {"a": array, "turned": array.T, "paddle": paddle.to_tensor(array), "step": np.array(7, np.int64)}
    save_tensors(tmp_path / "x.safetensors", tensors)
    back = load_tensors(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(back["a"], array)
    np.testing.assert_array_equal(back["turned"], array.T)  # a strided view must not be written in memory order
    np.testing.assert_array_equal(back["paddle"], array)
    assert back["step"] == 7 and back["step"].dtype == np.int64 and back["step"].shape == ()
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_bfloat16_is_widened_exactly(tmp_path):
    values = np.array([1.0, -2.5, 3.140625, 0.0], np.float32)  # exact in bfloat16
    save_tensors(tmp_path / "saved", {"h": paddle.to_tensor(values).astype("bfloat16")})
    np.testing.assert_array_equal(load_tensors(tmp_path / "saved")["h"], values)
    # a file with BF16 in it, as other libraries write: header length, header, data
    header = json.dumps(
        {
            "h": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
            "f": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
        }
    ).encode()
    data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes() + np.float32(9).tobytes()
    (tmp_path / "foreign").write_bytes(len(header).to_bytes(8, "little") + header + data)
    back = load_tensors(tmp_path / "foreign")
    np.testing.assert_array_equal(back["h"], values.reshape(2, 2))
    assert back["f"] == [9.0]


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_truncated_safetensors_is_one_line(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": np.ones(100, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="truncated") as error:
        load_tensors(path)
    assert "model.safetensors" in _one_line(error)


@pytest.mark.parametrize("load", [load_tensors, load_pdparams, load_torch])
def test_missing_file(tmp_path, load):
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pdparams_of_paddle_save(tmp_path, protocol):
    layer = paddle.nn.Linear(3, 2)
    path = str(tmp_path / "model_state.pdparams")
    paddle.save(layer.state_dict(), path, protocol=protocol)
    state = load_pdparams(path)
    assert set(state) == {"weight", "bias"}
    np.testing.assert_array_equal(state["weight"], layer.weight.numpy())


def test_pdparams_pairs_ordered_and_name_table(tmp_path):
    path = tmp_path / "old.pdparams"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = OrderedDict(w=("linear_0.w_0", array), b=array[0])
    state["StructuredToParameterName@@"] = {"w": "linear_0.w_0"}
    path.write_bytes(pickle.dumps(state, protocol=2))
    back = load_pdparams(path)
    assert set(back) == {"w", "b"}
    np.testing.assert_array_equal(back["w"], array)


class _Malicious:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, exec])
def test_malicious_pickle_is_refused_and_not_run(tmp_path, function, protocol):
    witness = tmp_path / "ran"
    code = f"touch {witness}" if function is os.system else f"open({str(witness)!r}, 'w')"
    path = tmp_path / "bad.pdparams"
    path.write_bytes(pickle.dumps({"w": np.ones(2), "x": _Malicious(function, code)}, protocol=protocol))
    with pytest.raises(UserError, match="refused") as error:
        load_pdparams(path)
    assert "bad.pdparams" in _one_line(error)
    assert not witness.exists()
    pickle.loads(path.read_bytes())  # the file would have done it
    assert witness.exists()


def test_codec_trick_is_refused(tmp_path):
    import codecs

    path = tmp_path / "bad.pdparams"
    path.write_bytes(pickle.dumps({"w": _Malicious(codecs.encode, "x", "rot13")}))
    with pytest.raises(UserError, match="codec"):
        load_pdparams(path)


@pytest.mark.parametrize("value", [{"w": "text"}, {"w": np.array([{}], object)}, [1, 2], {3: np.ones(1)}])
def test_pickles_of_other_things_are_refused(tmp_path, value):
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match="only weight files") as error:
        load_pdparams(path)
    _one_line(error)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_truncated_pdparams_is_one_line(tmp_path, share):
    path = tmp_path / "model_state.pdparams"
    paddle.save(paddle.nn.Linear(30, 20).state_dict(), str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="truncated") as error:
        load_pdparams(path)
    assert "model_state.pdparams" in _one_line(error)


def test_text_is_not_a_weight_file(tmp_path):
    path = tmp_path / "x.pdparams"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    for load in (load_pdparams, load_torch, load_tensors):
        with pytest.raises(UserError) as error:
            load(path)
        _one_line(error)


class _Storage:
    """Stands for a torch storage while a file in torch's format is made without torch."""

    def __init__(self, kind, key, array):
        self.kind, self.key, self.array = kind, key, array


def write_torch_file(path, tensors, kinds=None, stride=None):
    """What torch.save writes: {name: array} as archive/data.pkl, and archive/data/KEY for each storage."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        raise AssertionError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    names = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "uint16": "BFloat16Storage"}
    for name in names.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, _Storage):
                return "storage", getattr(torch, value.kind), value.key, "cpu", value.array.size
            return None

        def reducer_override(self, value):
            if isinstance(value, np.ndarray):
                key = str(len(storages))
                storages.append(value)
                steps = stride or tuple(step // value.itemsize for step in value.strides)
                storage = _Storage(names[value.dtype.name], key, value)
                return _rebuild_tensor_v2, (storage, 0, value.shape, steps, False, OrderedDict())
            return NotImplemented

    storages = []
    saved = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    torch._utils = utils
    try:
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("archive/data.pkl", "w") as handle:
                Pickler(handle, protocol=2).dump(OrderedDict(tensors))
            for key, array in enumerate(storages):
                archive.writestr(f"archive/data/{key}", array.tobytes(order="A"))
    finally:
        for name, module in saved.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})


def test_torch_file(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    bfloat16 = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    write_torch_file(path, {"w": array, "turned": np.asfortranarray(array), "ids": np.arange(3), "h": bfloat16})
    assert "torch" not in sys.modules
    back = load_torch(path)
    np.testing.assert_array_equal(back["w"], array)
    np.testing.assert_array_equal(back["turned"], array)
    np.testing.assert_array_equal(back["ids"], [0, 1, 2])
    np.testing.assert_array_equal(back["h"], np.array([1.5, -2.0], np.float32))


def test_torch_file_refusals(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    write_torch_file(path, {"w": np.ones((2, 3), np.float32)}, stride=(300, 1))
    with pytest.raises(UserError, match="beyond its storage"):
        load_torch(path)
    write_torch_file(path, {"w": np.ones((2, 3), np.float32)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"truncated.*model\.safetensors"):
        load_torch(path)
    witness = tmp_path / "ran"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": _Malicious(os.system, f"touch {witness}")}))
    with pytest.raises(UserError, match="refused"):
        load_torch(path)
    assert not witness.exists()
