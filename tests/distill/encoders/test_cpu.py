"""The arranged layers compute what paddle's compute: values, gradients, dropout's distribution, and nothing else
changes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paddle import nn
from paddlenlp.transformers import BertConfig, BertForSequenceClassification

from distill.data.wordpiece import WordPiece
from distill.encoders import cpu
from distill.encoders.folder import load_bert, save_bert
from distill.encoders.taps import Taps
from models.bilstm import BiLSTM, BiLSTMConfig
from tests.tiny import make_bert_folder

SHAPES = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def bert(dropout: float = 0.0, layers: int = 2, seed: int = 0) -> nn.Layer:
    paddle.seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=60, hidden_size=24, num_hidden_layers=layers, num_attention_heads=3, intermediate_size=40,
            max_position_embeddings=40, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, num_labels=3,
        )
    )  # fmt: skip


def inputs(rows: int, length: int, shortest: int = 1, seed: int = 0) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Ids and mask; row 0 is `length` long, the last one `shortest`."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, length + 1, rows)
    lengths[-1], lengths[0] = shortest, length
    mask = (np.arange(length) < lengths[:, None]).astype(np.float32)
    return paddle.to_tensor(rng.integers(5, 60, (rows, length)) * mask.astype(np.int64)), paddle.to_tensor(mask)


def values_and_gradients(model: nn.Layer, run: Callable[[], paddle.Tensor]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    out = run()
    weights = paddle.to_tensor(np.random.default_rng(1).standard_normal(out.shape), dtype=out.dtype)
    (out * weights).sum().backward()
    gradients = {name: p.grad.numpy().astype(np.float64) for name, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.clear_gradient(False)
    return out.numpy().astype(np.float64), gradients


def close(found: Any, expected: Any, share: float) -> None:
    """Within `share` of the largest element."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * max(np.abs(expected).max(), 1e-30))


def gradients_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], share: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.endswith("k_proj.bias"):  # softmax does not see it: its gradient is rounding only
            np.testing.assert_allclose(found[name], value, rtol=0, atol=share * np.abs(value).max(), err_msg=name)


@pytest.fixture
def double() -> Iterator[None]:
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


@SHAPES
@given(rows=st.integers(1, 5), length=st.integers(1, 19), data=st.data())
def test_a_bert_gives_the_plain_values_and_gradients(rows: int, length: int, data: st.DataObject) -> None:
    shortest = data.draw(st.integers(1, length))
    ids, mask = inputs(rows, length, shortest, seed=rows * 100 + length)
    model = bert(seed=length)
    run = lambda: model(ids, attention_mask=mask)  # noqa: E731
    expected, plain = values_and_gradients(model, run)
    cpu.arrange(model)
    found, ours = values_and_gradients(model, run)
    close(found, expected, 1e-6)
    gradients_close(ours, plain, 1e-5)


def test_a_bert_agrees_with_float64(double: None) -> None:
    ids, mask = inputs(4, 13)
    model = cpu.arrange(bert())
    model.to(dtype="float32")
    paddle.set_default_dtype("float32")
    found, ours = values_and_gradients(model, lambda: model(ids, attention_mask=mask))
    paddle.set_default_dtype("float64")
    cpu.restore(model).to(dtype="float64")
    expected, exact = values_and_gradients(model, lambda: model(ids, attention_mask=mask.astype("float64")))
    assert next(iter(exact.values())).dtype == np.float64
    close(found, expected, 1e-6)
    gradients_close(ours, exact, 1e-5)


def test_layers_agree_with_numpy_in_float64() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 5, 12)).astype(np.float32) * 3
    linear, norm = nn.Linear(12, 9), nn.LayerNorm(12)
    norm.weight.set_value(rng.standard_normal(12).astype(np.float32))
    norm.bias.set_value(rng.standard_normal(12).astype(np.float32))
    double = x.astype(np.float64)
    weight, bias = (p.numpy().astype(np.float64) for p in (linear.weight, linear.bias))
    close(cpu.arrange(linear)(paddle.to_tensor(x)).numpy(), double @ weight + bias, 1e-6)
    centred = double - double.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * norm.weight.numpy() + norm.bias.numpy()
    close(cpu.arrange(norm)(paddle.to_tensor(x)).numpy(), expected, 1e-6)


@pytest.mark.parametrize("size", [1.0, 30.0, 300.0])
def test_attention_is_right_for_scores_of_any_size(size: float) -> None:
    """Beyond what exp bears without a shift, too."""
    paddle.seed(0)
    layer = nn.MultiHeadAttention(8, 2)
    x = paddle.randn([2, 6, 8]) * size
    x.stop_gradient = False
    mask = paddle.to_tensor(np.where(np.arange(6) < [[6], [2]], 0.0, -1e4).astype(np.float32)).unsqueeze([1, 2])

    def run() -> paddle.Tensor:
        return layer(x, x, x, mask)

    expected, plain = values_and_gradients(layer, run)
    cpu.arrange(layer)
    found, ours = values_and_gradients(layer, run)
    close(found, expected, 2e-6 * max(1.0, size / 30))
    gradients_close(ours, plain, 1e-5 * max(1.0, size / 30))


def test_a_row_that_is_all_padding_and_masks_of_other_shapes_are_as_in_paddle() -> None:
    layer = nn.MultiHeadAttention(8, 2)
    x = paddle.randn([2, 5, 8])
    padding = np.zeros((2, 1, 1, 5), np.float32)
    padding[1] = -1e4
    causal = np.triu(np.full((5, 5), -1e4, np.float32), 1)[None, None]
    soft = np.linspace(-3, 0, 10, dtype=np.float32).reshape(2, 1, 1, 5)
    masks = [paddle.to_tensor(m) for m in (padding, causal, soft, soft[:1], soft > -1)] + [None]
    expected = [layer(x, x, x, mask).numpy() for mask in masks]
    cpu.arrange(layer)
    for mask, value in zip(masks, expected, strict=True):
        close(layer(x, x, x, mask).numpy(), value, 2e-6)


def test_attention_weights_and_other_queries_are_as_in_paddle() -> None:
    paddle.seed(3)
    layer, query, memory = (
        nn.MultiHeadAttention(8, 2, need_weights=True),
        paddle.randn([2, 3, 8]),
        paddle.randn([2, 7, 8]),
    )
    out, weights = layer(query, memory, memory)
    cpu.arrange(layer)
    ours, our_weights = layer(query, memory, memory)
    close(ours.numpy(), out.numpy(), 1e-6)
    close(our_weights.numpy(), weights.numpy(), 1e-6)
    layer.need_weights = False
    close(layer(query, memory, memory).numpy(), out.numpy(), 1e-6)


def test_dropout_keeps_its_mean_and_variance_and_elements_are_independent() -> None:
    layer, p = cpu.arrange(nn.Dropout(0.1)), 0.1
    layer.train()
    paddle.seed(5)
    x = paddle.ones([400, 500])
    first, second = layer(x).numpy(), layer(x).numpy()
    n = first.size
    for mask in (first, second):
        assert set(np.unique(mask)) == {0.0, np.float32(65536 / (65536 - round(p * 65536)))}
        assert abs(mask.mean() - 1) < 5 * np.sqrt(p / (1 - p) / n)
        assert abs(mask.var() - p / (1 - p)) < 0.005
    flat = first.ravel()
    for other in (second.ravel(), np.roll(flat, 1), np.roll(flat, 4), np.roll(flat, 500)):
        assert abs(np.corrcoef(flat, other)[0, 1]) < 5 / np.sqrt(n)


def test_dropout_follows_paddles_seed_passes_gradient_through_the_same_mask_and_rests_in_eval() -> None:
    layer = cpu.arrange(nn.Dropout(0.3))
    layer.train()
    x = paddle.rand([6, 7]) + 1
    x.stop_gradient = False
    paddle.seed(1)
    first = layer(x)
    first.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy() > 0, first.numpy() > 0)
    np.testing.assert_allclose(x.grad.numpy(), first.numpy() / x.numpy(), rtol=1e-6)
    second = layer(x).numpy()
    paddle.seed(1)
    np.testing.assert_array_equal(layer(x).numpy(), first.numpy())
    assert not np.array_equal(second, first.numpy())
    layer.eval()
    assert layer(x) is x


def test_a_bert_with_dropout_repeats_for_a_seed() -> None:
    model, (ids, mask) = cpu.arrange(bert(dropout=0.2)), inputs(3, 9)
    model.train()

    def run() -> np.ndarray:
        paddle.seed(11)
        return model(ids, attention_mask=mask).numpy()

    np.testing.assert_array_equal(run(), run())


def test_training_curves_of_plain_and_arranged_agree() -> None:
    curves = []
    for arranged in (False, True):
        model = bert(seed=4)
        model.train()
        if arranged:
            cpu.arrange(model)
        optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
        rng = np.random.default_rng(0)
        losses = []
        for step in range(50):
            ids, mask = inputs(8, 5 + step % 7, seed=step)
            labels = paddle.to_tensor(rng.integers(0, 3, 8))
            loss = nn.functional.cross_entropy(model(ids, attention_mask=mask), labels)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            losses.append(float(loss))
        curves.append(losses)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    assert curves[0][-1] != curves[0][0]


def test_names_weights_hooks_and_kinds_stay_and_restore_is_the_way_back() -> None:
    model = bert()
    names = [name for name, _ in model.named_parameters()]
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    kinds = [type(layer) for layer in model.sublayers(include_self=True)]
    assert cpu.arrange(model) is model
    changed = [type(layer) for layer in model.sublayers(include_self=True)]
    assert changed != kinds and all(issubclass(new, old) for new, old in zip(changed, kinds, strict=True))
    assert [name for name, _ in model.named_parameters()] == names
    assert {name: value.numpy().tobytes() for name, value in model.state_dict().items()} == {
        name: value.tobytes() for name, value in state.items()
    }
    cpu.restore(model)
    assert [type(layer) for layer in model.sublayers(include_self=True)] == kinds


def test_an_arranged_model_is_saved_as_the_plain_one_and_paddlenlp_opens_it(tmp_path: Any) -> None:
    source = make_bert_folder(tmp_path / "source")
    model = load_bert(source, 2, head="stored")
    wordpiece = WordPiece.from_folder(source)
    save_bert(model, tmp_path / "plain", wordpiece)
    save_bert(cpu.arrange(model), tmp_path / "arranged", wordpiece)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "arranged" / name).read_bytes()
    again = BertForSequenceClassification.from_pretrained(str(tmp_path / "arranged"))
    assert type(again.classifier) is nn.Linear


def test_an_arranged_model_is_exported_as_the_ordinary_graph(tmp_path: Any) -> None:
    def operators(model: nn.Layer, name: str) -> list[str]:
        model.eval()
        spec = [paddle.static.InputSpec([None, None], "int64", "ids")]
        paddle.jit.save(paddle.jit.to_static(model, input_spec=spec, full_graph=True), str(tmp_path / name))
        program = paddle.jit.load(str(tmp_path / name)).program()
        return [op.name() for op in program.global_block().ops]

    assert operators(cpu.arrange(bert()), "arranged") == operators(bert(), "plain")


def test_taps_read_the_same_and_their_gradient_is_the_plain_one() -> None:
    ids, mask = inputs(3, 8)
    found = []
    for arranged in (False, True):
        model = bert(seed=6)
        if arranged:
            cpu.arrange(model)

        def run(model: nn.Layer = model) -> paddle.Tensor:
            with Taps(model, hidden=True, scores=True) as taps:
                model(ids, attention_mask=mask)
            return paddle.concat([x.flatten() for x in (*taps.hidden, *taps.scores)])

        found.append(values_and_gradients(model, run))
    close(found[1][0], found[0][0], 1e-6)
    gradients_close(found[1][1], found[0][1], 1e-5)


def test_split_heads_is_a_transpose_with_its_gradient() -> None:
    x = paddle.randn([3, 5, 8])
    x.stop_gradient = False
    heads, weights = cpu.split_heads(x, 2), paddle.randn([3, 2, 5, 4])
    np.testing.assert_array_equal(heads.numpy(), x.numpy().reshape(3, 5, 2, 4).transpose(0, 2, 1, 3))
    (heads * weights).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), weights.numpy().transpose(0, 2, 1, 3).reshape(3, 5, 8))


def test_frozen_layers_get_no_gradient_and_the_rest_is_as_in_paddle() -> None:
    ids, mask = inputs(3, 8)
    found = []
    for arranged in (False, True):
        model = bert(seed=6)
        for parameter in (*model.bert.embeddings.parameters(), *model.bert.encoder.layers[0].parameters()):
            parameter.stop_gradient = True
        model.bert.encoder.layers[1].linear1.weight.stop_gradient = True
        model.bert.encoder.layers[1].norm1.bias.stop_gradient = True
        if arranged:
            cpu.arrange(model)
        found.append(values_and_gradients(model, lambda: model(ids, attention_mask=mask)))  # noqa: B023
    gradients_close(found[1][1], found[0][1], 1e-5)
    assert not any("layers.0" in name or "embeddings" in name for name in found[1][1])


def test_a_bilstm_gives_the_plain_values_and_gradients() -> None:
    paddle.seed(0)
    model = BiLSTM(BiLSTMConfig(60, ("a", "b"), embedding_size=12, hidden_size=10))
    ids, mask = inputs(5, 9)
    run = lambda: model(ids, mask.sum(1).astype("int64"))  # noqa: E731
    expected, plain = values_and_gradients(model, run)
    cpu.arrange(model)
    found, ours = values_and_gradients(model, run)
    close(found, expected, 1e-6)
    gradients_close(ours, plain, 1e-5)


def test_only_the_cpu_is_arranged(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bert()
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    with cpu.arranged(model):
        assert type(model.classifier) is nn.Linear
    monkeypatch.undo()
    with pytest.raises(KeyError), cpu.arranged(model):
        assert type(model.classifier) is cpu.Linear
        raise KeyError
    assert type(model.classifier) is nn.Linear
    with cpu.arranged(model):
        with cpu.arranged(model):
            assert type(model.classifier) is cpu.Linear
        assert type(model.classifier) is cpu.Linear
    assert type(model.classifier) is nn.Linear


def test_tensors_of_other_kinds_take_paddles_own_way(double: None) -> None:
    layer = nn.Linear(4, 3)
    x = paddle.randn([2, 4])
    assert x.dtype == paddle.float64
    np.testing.assert_array_equal(
        cpu.arrange(layer)(x).numpy(), nn.functional.linear(x, layer.weight, layer.bias).numpy()
    )
