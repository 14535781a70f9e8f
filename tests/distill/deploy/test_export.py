"""From layers to graphs: any batch and length, the lengths of recurrent layers kept, integers where they are said."""

import sys

import numpy as np
import onnx
import onnxruntime
import paddle
import pytest
from paddle import nn

from distill.deploy import export
from distill.deploy.export import Graph
from distill.deploy.predict import session_options
from distill.encoders import inference
from distill.encoders.folder import load_bert
from distill.errors import UserError
from models import bilstm
from tests.tiny import make_bert_folder


def bert_batch(rows, length, seed=0):
    rng = np.random.default_rng(seed)
    ids, mask = rng.integers(5, 100, (rows, length)), np.ones((rows, length), np.float32)
    mask[0, max(1, length // 2) :] = 0
    types = (np.arange(length) > length // 2).astype(np.int64) * np.ones((rows, 1), np.int64)
    return {"input_ids": ids, "token_type_ids": types, "mask": mask}


def ids_batch(rows, length, pair, seed=0):
    rng, batch = np.random.default_rng(seed), {}
    for side in ("", "_b") if pair else ("",):
        lengths = rng.integers(1, length + 1, rows)
        lengths[rng.integers(rows)] = length
        ids = rng.integers(1, 100, (rows, length))
        ids[np.arange(length) >= lengths[:, None]] = 0
        batch |= {f"ids{side}": ids, f"lengths{side}": lengths}
    return batch


def recurrent(pair, layers=1):
    model = bilstm.create(bilstm.BiLSTMConfig(100, ("0", "1"), pair, 8, 6, num_layers=layers), 0)
    model.fc.weight.set_value(20 * model.fc.weight)
    model.eval()
    names = ("ids", "lengths", "ids_b", "lengths_b")[: 4 if pair else 2]
    inputs = {name: (2 if name.startswith("ids") else 1, "int64") for name in names}
    return Graph(model, inputs, dict(zip(names[::2], names[1::2], strict=True)))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = make_bert_folder(tmp_path_factory.mktemp("export") / "bert", layers=2)
    return Graph(inference.Classifier(load_bert(folder, 2, head="stored")), inference.BERT_INPUTS)


@pytest.fixture(scope="module")
def exported(bert, tmp_path_factory):
    """Prefix of the static graph; the ONNX file and its int8 form beside it."""
    prefix = tmp_path_factory.mktemp("graphs") / "model"
    inference.save_static(bert.layer, bert.inputs, prefix)
    export.save_onnx(prefix, prefix.with_suffix(".onnx"), bert)
    export.quantise(prefix.with_suffix(".onnx"), prefix.with_suffix(".int8"))
    return prefix


def differences(graph, run, batches):
    eager = inference.eager(graph.layer, graph.inputs)
    return [float(np.abs(eager(batch)[0] - run(batch)[0]).max()) for batch in batches]


def test_a_bert_says_the_same_at_any_batch_and_length(bert, exported):
    batches = [bert_batch(rows, length, rows) for rows, length in ((1, 1), (1, 5), (3, 9), (40, 64))]
    assert max(differences(bert, inference.open_static(exported), batches)) < 1e-5
    assert max(differences(bert, export.open_onnx(exported.with_suffix(".onnx")), batches)) < 1e-5
    assert 0 < max(differences(bert, export.open_onnx(exported.with_suffix(".int8")), batches)) < 0.1


def test_sizes_are_free_in_the_file(exported):
    for value in onnx.load(str(exported.with_suffix(".onnx"))).graph.input:
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [0, 0], value.name


def test_a_size_that_became_fixed_is_refused(tmp_path):
    class Fixed(nn.Layer):
        def forward(self, x):
            return x.reshape([2, 3]) + 1.0

    graph = Graph(Fixed(), {"x": (2, "float32")})
    specs = [paddle.static.InputSpec([2, 3], "float32", "x")]
    paddle.jit.save(paddle.jit.to_static(graph.layer, input_spec=specs, full_graph=True), str(tmp_path / "model"))
    with pytest.raises(UserError, match="its input x has the fixed sizes"):
        export.save_onnx(tmp_path / "model", tmp_path / "model.onnx", graph)


def test_what_onnx_has_no_word_for_is_refused_in_one_line(tmp_path, capfd):
    class Odd(nn.Layer):
        def forward(self, x):
            return paddle.linalg.eigh(paddle.matmul(x, x, transpose_x=True))[0]

    graph = Graph(Odd(), {"x": (2, "float32")})
    inference.save_static(graph.layer, graph.inputs, tmp_path / "model")
    with pytest.raises(UserError, match="paddle2onnx cannot convert it to ONNX") as error:
        export.save_onnx(tmp_path / "model", tmp_path / "model.onnx", graph)
    assert "\n" not in str(error.value) and "unsupported operators" in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.skipif(not inference.available(), reason="Paddle Inference with oneDNN runs on x86")
def test_bfloat16_is_another_arithmetic(bert, exported):
    assert 1e-6 < max(differences(bert, inference.open_static(exported, "bf16"), [bert_batch(3, 9)])) < 0.1


def test_the_layer_is_left_as_it_was(bert, exported):
    assert type(bert.layer.forward).__name__ == "method"
    assert all(not parameter.name.startswith("@") for parameter in bert.layer.parameters())


@pytest.mark.parametrize(("pair", "layers"), [(False, 1), (True, 2)])
def test_a_recurrent_layer_reads_no_padding(pair, layers, tmp_path):
    graph, prefix = recurrent(pair, layers), tmp_path / "model"
    inference.save_static(graph.layer, graph.inputs, prefix)
    export.save_onnx(prefix, tmp_path / "model.onnx", graph)
    batches = [ids_batch(rows, length, pair, rows) for rows, length in ((1, 1), (1, 6), (5, 9), (40, 30))]
    run = export.open_onnx(tmp_path / "model.onnx")
    assert max(differences(graph, run, batches)) < 1e-5
    assert max(differences(graph, inference.open_static(prefix), batches)) < 1e-5
    wider = {name: np.pad(v, ((0, 0), (0, 7))) if v.ndim == 2 else v for name, v in batches[2].items()}
    assert np.abs(run(wider)[0] - run(batches[2])[0]).max() < 1e-6
    export.quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "int8.onnx")).graph.node]
    assert kinds.count("DynamicQuantizeLSTM") == layers * (1 + pair) and "LSTM" not in kinds
    assert 0 < max(differences(graph, export.open_onnx(tmp_path / "int8.onnx"), batches)) < 0.1


def test_without_the_lengths_nothing_is_exported(tmp_path):
    graph, prefix = recurrent(False), tmp_path / "model"
    inference.save_static(graph.layer, graph.inputs, prefix)
    with pytest.raises(UserError, match="a recurrent layer without the lengths of its rows"):
        export.save_onnx(prefix, tmp_path / "model.onnx", Graph(graph.layer, graph.inputs))


def test_int8_holds_matrix_products_of_integers(exported):
    whole, quantised = exported.with_suffix(".onnx"), exported.with_suffix(".int8")
    kinds = [node.op_type for node in onnx.load(str(quantised)).graph.node]
    # Of each of 2 layers q, k, v, out and two of the feed-forward part; pooler and classifier.
    assert kinds.count("MatMulInteger") == 2 * 6 + 2
    assert export.quantise(whole, exported.with_suffix(".again")) == 14
    assert quantised.stat().st_size < 0.6 * whole.stat().st_size  # the graph's own bytes are much of a tiny model


def test_a_model_without_a_matrix_product_is_not_called_int8(tmp_path):
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "length"])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "length"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Tanh", ["x"], ["y"])], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", export.OPSET)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(tmp_path / "model.onnx"))
    with pytest.raises(UserError, match="not one matrix product"):
        export.quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_unfolded_graphs_quantise_nothing(exported, tmp_path):
    """Why `save_onnx` folds: the day this fails, the folding may be dropped."""
    import paddle2onnx

    raw = tmp_path / "raw.onnx"
    files = [f"{exported}{suffix}" for suffix in inference.STATIC_SUFFIXES]
    paddle2onnx.export(*files, str(raw), opset_version=export.OPSET, optimize_tool="None")
    with pytest.raises(UserError, match="not one matrix product"):
        export.quantise(raw, tmp_path / "int8.onnx")


def test_nothing_is_installed_during_an_export(bert, exported, tmp_path, monkeypatch):
    """paddle2onnx's default finish imports polygraphy, which runs pip."""
    marker = tmp_path / "imported"
    for name in ("polygraphy", "pip", "onnxsim"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = set(sys.modules)
    export.save_onnx(exported, tmp_path / "model.onnx", bert)
    export.quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert not marker.exists()
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] in ("polygraphy", "pip")}


def test_an_onnx_file_takes_the_threads_of_paddle(exported, monkeypatch):
    seen = []
    real = onnxruntime.InferenceSession

    def session(path, options, **more):
        seen.append(options)
        return real(path, options, **more)

    monkeypatch.setattr(export.onnxruntime, "InferenceSession", session)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    export.open_onnx(exported.with_suffix(".onnx"))
    assert [options.intra_op_num_threads for options in seen] == [1]
    # Another kernel's last digit would turn a rounding of int8, which the hop to the bundle would take for an error.
    name = "optimization.disable_specified_optimizers"
    assert seen[0].get_session_config_entry(name) == session_options(1).get_session_config_entry(name) != ""
