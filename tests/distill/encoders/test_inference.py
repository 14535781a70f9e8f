"""The compiled forward pass gives the model's own logits, whatever the batch."""

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle.base import core

from distill import runtime
from distill.encoders import inference
from distill.encoders.folder import load_bert
from tests.tiny import VOCAB, make_bert_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> paddle.nn.Layer:
    return load_bert(make_bert_folder(tmp_path_factory.mktemp("bert"), labels=("a", "b", "c")), 3, head="stored")


def batch(rows: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, rows)
    lengths[0] = width
    mask = (np.arange(width) < lengths[:, None]).astype(np.float32)
    ids = rng.integers(5, len(VOCAB), (rows, width)) * mask.astype(np.int64)
    return {"input_ids": ids, "token_type_ids": rng.integers(0, 2, (rows, width)), "mask": mask, "lengths": lengths}


def forward_of(model: paddle.nn.Layer) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    run = inference.compiled(inference.Classifier(model), inference.BERT_INPUTS)
    return lambda values: run(values)[0]


def eager(model: paddle.nn.Layer, values: dict[str, np.ndarray]) -> np.ndarray:
    model.eval()
    with paddle.no_grad():
        tensors = {name: paddle.to_tensor(value) for name, value in values.items()}
        return model(tensors["input_ids"], tensors["token_type_ids"], attention_mask=tensors["mask"]).numpy()


def test_logits_are_the_models_own_for_every_shape_and_the_same_each_time(model: paddle.nn.Layer) -> None:
    forward = forward_of(model)
    for rows, width in ((1, 1), (1, 17), (5, 9), (40, 33), (5, 9)):
        values = batch(rows, width, seed=rows + width)
        logits = forward(values)
        np.testing.assert_allclose(logits, eager(model, values), atol=1e-5)
        assert logits.dtype == np.float32 and np.array_equal(logits, forward(values))


def test_padding_does_not_change_a_rows_logits(model: paddle.nn.Layer) -> None:
    forward, values = forward_of(model), batch(3, 6)
    wider = {name: np.pad(value, ((0, 0), (0, 5))) for name, value in values.items() if name != "lengths"}
    np.testing.assert_allclose(forward(wider), forward(values), atol=1e-5)


def test_the_weights_are_those_of_the_moment_and_the_mode_is_left_alone(model: paddle.nn.Layer) -> None:
    values = batch(4, 8)
    model.train()
    forward = forward_of(model)
    assert model.training
    before = forward(values)
    weight = model.classifier.weight.clone()
    model.classifier.weight.set_value(weight * 2)
    assert np.array_equal(forward(values), before)
    assert np.abs(forward_of(model)(values) - before).max() > 1e-3
    model.classifier.weight.set_value(weight)


def test_it_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.platform, "machine", lambda: "x86_64")
    assert inference.available() == (paddle.get_device() == "cpu")
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    assert not inference.available()
    monkeypatch.undo()
    monkeypatch.setattr(inference.platform, "machine", lambda: "arm64")
    assert not inference.available()


def test_the_faster_way_is_chosen_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    def slow(values: object) -> list[np.ndarray]:
        time.sleep(0.02)
        return []

    values = inference.sample(50, 4, 6)
    assert inference.faster({"eager": slow, "compiled": lambda values: []}, values, rounds=1) == "compiled"
    assert inference.faster({"eager": lambda values: [], "compiled": slow}, values, rounds=1) == "eager"
    assert "forward passes: eager (a batch of 4 x 6 tokens: eager 0.0 ms, compiled 2" in capsys.readouterr().out


def test_an_eager_pass_leaves_mode_and_arithmetic_as_they_were(model: paddle.nn.Layer) -> None:
    layer, values = inference.Classifier(model), batch(5, 9)
    model.train()
    (logits,) = inference.eager(layer, inference.BERT_INPUTS)(values)
    assert model.training and type(model.classifier) is paddle.nn.Linear
    np.testing.assert_allclose(logits, eager(model, values), atol=1e-5)


@pytest.mark.skipif(not inference.available(), reason="graphs run through oneDNN on x86 processors only")
def test_matrix_products_keep_their_threads_after_a_graph_has_run(
    model: paddle.nn.Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkl = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libmklml_intel.so"))
    monkeypatch.setattr(runtime, "threads", lambda: 2)
    core.set_num_threads(2)
    forward_of(model)(batch(2, 5))
    assert mkl.MKL_Get_Max_Threads() == 2
    core.set_num_threads(1)
