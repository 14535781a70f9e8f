"""The masked-LM head is read strictly from every kind of folder, and the words chosen are those of exact arithmetic."""

import copy
import json
import math
import shutil

import numpy as np
import paddle
import pytest
import safetensors.numpy
from paddlenlp.transformers import BertForMaskedLM

from distill import runtime
from distill.data.wordpiece import Encoded
from distill.encoders import inference, masked_lm
from distill.encoders.masked_lm import load_masked_lm
from distill.errors import UserError
from tests.distill.torch_names import to_torch_names
from tests.tiny import VOCAB, make_bert_folder, make_masked_lm_folder

MASK = VOCAB.index("[MASK]")
ALL = {1: np.arange(len(VOCAB))[:, None]}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_masked_lm_folder(tmp_path_factory.mktemp("mlm") / "bert")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bert")


def questions(rows=40, seed=0):
    """Sequences of different lengths with one to three single blanks each, and the blanks in no order."""
    rng = np.random.default_rng(seed)
    ids, types, blanks = [], [], []
    for row in range(rows):
        length = int(rng.integers(6, 30))
        ids.append(rng.integers(5, len(VOCAB), length))
        types.append((np.arange(length) >= length // 2).astype(int))
        for place in rng.choice(length, rng.integers(1, 4), replace=False):
            ids[-1][place] = MASK
            blanks.append((row, int(place), 1))
    return Encoded.from_rows(ids, types), np.array(blanks)[rng.permutation(len(blanks))]


def paddlenlp_logits(folder, sequences):
    """Logits at all places by PaddleNLP's own class, a row at a time, in float64: list of [L, V]."""
    model = BertForMaskedLM.from_pretrained(str(folder)).to(dtype="float64")
    model.eval()
    found = []
    for row in range(len(sequences)):
        batch = sequences.pad([row])
        with paddle.no_grad():
            open_mask = paddle.zeros([1, 1, 1, batch["input_ids"].shape[1]], "float64")
            ids, types = (paddle.to_tensor(batch[name]) for name in ("input_ids", "token_type_ids"))
            logits = model(ids, types, attention_mask=open_mask)
        found.append(logits.numpy().reshape(-1, len(VOCAB)))
    return found


def edit(folder, change):
    path = folder / "model.safetensors"
    state = safetensors.numpy.load_file(path)
    change(state)
    safetensors.numpy.save_file(state, path, metadata={"format": "np"})


def test_logits_are_paddlenlps(original):
    lm = load_masked_lm(original, 0)
    assert lm.max_length == 64
    sequences, blanks = questions()
    batch, width = sequences.pad(np.arange(40)), int(sequences.lengths.max())
    found = lm._forward(lm._layer, batch, blanks[:, 0] * width + blanks[:, 1])
    expected = paddlenlp_logits(original, sequences)
    np.testing.assert_allclose(found, [expected[row][place] for row, place, _ in blanks], atol=2e-5)


def test_head_by_hand(original):
    """gelu(h W + b), layer norm, wordpiece table and bias, in NumPy float64."""
    lm, state = load_masked_lm(original, 0), safetensors.numpy.load_file(original / "model.safetensors")
    head = {name.removeprefix("cls.predictions."): array.astype(np.float64) for name, array in state.items()}
    states = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    x = states @ head["transform.weight"] + head["transform.bias"]
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-12)
    x = x * head["layer_norm.weight"] + head["layer_norm.bias"]
    expected = x @ state["bert.embeddings.word_embeddings.weight"].T + head["decoder.bias"]
    found = lm._layer.head(paddle.to_tensor(states), lm._layer.bert.embeddings.word_embeddings.weight)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def to_torch(state):
    head = {name: state.pop(name) for name in list(state) if name.startswith("cls.")}
    to_torch_names(state)
    state["cls.predictions.transform.dense.weight"] = head["cls.predictions.transform.weight"].T.copy()
    state["cls.predictions.transform.dense.bias"] = head["cls.predictions.transform.bias"]
    state["cls.predictions.transform.LayerNorm.gamma"] = head["cls.predictions.layer_norm.weight"]
    state["cls.predictions.transform.LayerNorm.beta"] = head["cls.predictions.layer_norm.bias"]
    state["cls.predictions.bias"] = head["cls.predictions.decoder.bias"]


def to_paddlenlp_2(state):
    head = {name: state.pop(name) for name in list(state) if name.startswith("cls.predictions.dec")}
    state["cls.predictions.decoder_weight"] = state["bert.embeddings.word_embeddings.weight"].copy()
    state["cls.predictions.decoder_bias"] = head["cls.predictions.decoder.bias"]
    state["cls.seq_relationship.weight"] = np.zeros((32, 2), np.float32)
    state["cls.seq_relationship.bias"] = np.zeros(2, np.float32)


def with_pytorchs_decoder(state):
    to_torch(state)
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].copy()
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].copy()


def without_pooler(state):
    for name in [name for name in state if "pooler" in name]:
        del state[name]


@pytest.mark.parametrize("change", [to_torch, to_paddlenlp_2, with_pytorchs_decoder, without_pooler])
def test_other_names_and_the_tied_decoder(change, original, folder):
    sequences, blanks = questions(8)
    expected = load_masked_lm(original, 0).best(sequences, blanks, ALL, 5, 8)
    edit(folder, change)
    np.testing.assert_array_equal(load_masked_lm(folder, 0).best(sequences, blanks, ALL, 5, 8), expected)


def test_no_head(tmp_path):
    assert load_masked_lm(make_bert_folder(tmp_path / "classifier"), 0) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("cls.predictions.transform.bias"), "weights missing: transform.bias"),
        (
            lambda s: [s.pop(n) for n in list(s) if n.endswith(("decoder.bias", "decoder_bias"))],
            "missing: decoder.bias",
        ),
        (lambda s: s.update({"cls.predictions.more": np.zeros(3, np.float32)}), "weights too many: more"),
        (
            lambda s: s.update({"cls.predictions.layer_norm.weight": np.zeros(3, np.float32)}),
            "weights of another shape: layer_norm.weight [3], the model's is [32]",
        ),
        (
            lambda s: s.update({"cls.predictions.decoder.weight": np.zeros((len(VOCAB), 32), np.float32)}),
            "the masked-LM decoder is not the wordpiece table",
        ),
        (lambda s: s.pop("bert.encoder.layers.1.linear1.bias"), "weights missing: encoder.layers.1.linear1.bias"),
    ],
)
def test_refused(change, message, folder):
    edit(folder, change)
    with pytest.raises(UserError) as error:
        load_masked_lm(folder, 0)
    assert str(folder / "model.safetensors") in str(error.value) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_best_words(original):
    sequences, blanks = questions()
    exact = paddlenlp_logits(original, sequences)
    expected = [np.sort(np.argsort(-exact[row][place])[:15]) for row, place, _ in blanks]
    lm = load_masked_lm(original, 0)
    found = lm.best(sequences, blanks, ALL, 15, 8)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    some = {1: np.array([[10], [50], [7]])}  # fewer words than asked for
    assert lm.best(sequences, blanks[:2], some, 5, 8).tolist() == [[0, 1, 2, -1, -1]] * 2
    assert lm.best(sequences, blanks[:0], ALL, 15, 8).shape == (0, 15)


def test_words_of_several_pieces(original):
    """A word's score is the sum over its pieces, each at its own place; blanks of all lengths in one batch."""
    sequences, _ = questions(6)
    rng = np.random.default_rng(1)
    words = {k: rng.integers(5, len(VOCAB), (300, k)) for k in (1, 2, 3)}
    blanks = np.array([(row, 1, k) for row in range(6) for k in (3, 1, 2)])
    exact = paddlenlp_logits(original, sequences)
    expected = []
    for row, place, k in blanks:
        scores = sum(exact[row][place + i][words[k][:, i]] for i in range(k))
        expected.append(np.sort(np.argsort(-scores.round(9), kind="stable")[:10]))
    np.testing.assert_array_equal(load_masked_lm(original, 0).best(sequences, blanks, words, 10, 4), expected)


def nearly_tied(state):
    """Every third token's row almost that of the token before, so that the border often falls between two of them."""
    table, bias = state["bert.embeddings.word_embeddings.weight"], state["cls.predictions.decoder.bias"]
    table[2::3], bias[2::3] = table[1::3][: len(table[2::3])], bias[1::3][: len(bias[2::3])]
    bias[2::6] += np.float32(1e-6)
    for name in ("cls.predictions.decoder.weight", "cls.predictions.decoder_bias"):
        if name in state:
            state[name] = (table if "weight" in name else bias).copy()


def test_near_ties_do_not_depend_on_how_it_runs(folder, monkeypatch):
    """Batches of any size, and noise as large as that between two ways of running, choose the same words."""
    edit(folder, nearly_tied)
    sequences, blanks = questions(30)

    lm = load_masked_lm(folder, 0)
    real = lm._forward

    def best(batch_size, noise=0.0, seed=0):
        rng = np.random.default_rng(seed)

        def forward(layer, batch, places):
            logits = real(layer, batch, places)
            if layer is lm._layer:
                logits = logits + np.float32(noise) * rng.uniform(-1, 1, logits.shape).astype(np.float32)
            return logits

        lm._forward = forward
        return lm.best(sequences, blanks, ALL, 15, batch_size)

    expected = best(64)
    exact = paddlenlp_logits(folder, sequences)
    by_hand = [np.sort(np.argsort(-exact[r][p].round(9), kind="stable")[:15]) for r, p, _ in blanks]
    np.testing.assert_array_equal(expected, by_hand)
    for batch_size in (1, 7, 64):
        for seed in range(3):
            np.testing.assert_array_equal(best(batch_size, 5e-6, seed), expected)
    monkeypatch.setattr(masked_lm, "TOLERANCE", -1.0)  # without the second look the noise does change the choice
    assert any((best(64, 5e-6, seed) != expected).any() for seed in range(3))


@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_after_a_while_the_faster_way_gives_the_same_words(original, monkeypatch, way):
    sequences, blanks = questions()
    expected = load_masked_lm(original, 0).best(sequences, blanks, ALL, 15, 16)
    timed = []
    monkeypatch.setattr(masked_lm, "_PATIENCE", -1.0)
    monkeypatch.setattr(inference, "available", lambda: True)
    monkeypatch.setattr(
        inference, "faster", lambda ways, batch, rounds: timed.append([run(batch) for run in ways.values()]) or way
    )
    found = load_masked_lm(original, 0).best(sequences, blanks, ALL, 15, 16)
    np.testing.assert_array_equal(found, expected)
    (((eager,), (compiled,)),) = timed
    np.testing.assert_allclose(eager, compiled, atol=1e-5 * np.abs(eager).max())


def test_bf16_is_always_the_graph_and_has_no_second_look(folder, monkeypatch):
    edit(folder, nearly_tied)
    sequences, blanks = questions()
    fp32 = load_masked_lm(folder, 0)
    expected = fp32.best(sequences, blanks, ALL, 15, 16)
    made, exact = [], []
    monkeypatch.setattr(inference, "require", lambda precision: None)
    monkeypatch.setattr(inference, "compiled", lambda *args: made.append(args[2:]) or inference.eager(*args[:2]))
    monkeypatch.setattr(masked_lm._Float64, "forward", lambda *args: exact.append(args))
    lm = load_masked_lm(folder, 0, "bf16")
    found = lm.best(sequences, blanks, ALL, 15, 16)
    assert made == [("bf16",)] and not exact
    assert 0.9 < (found == expected).mean() < 1  # where float32 cannot tell, here an eager pass in its place
    monkeypatch.undo()
    np.testing.assert_array_equal(lm.in_fp32().best(sequences, blanks, ALL, 15, 16), expected)


@pytest.mark.skipif(not (inference.available() and runtime.has_bfloat16()), reason="needs a processor with bfloat16")
def test_bf16_chooses_nearly_the_same_words(original):
    sequences, blanks = questions()
    expected = load_masked_lm(original, 0).best(sequences, blanks, ALL, 15, 16)
    found = load_masked_lm(original, 0, "bf16").best(sequences, blanks, ALL, 15, 16)
    np.testing.assert_array_equal(load_masked_lm(original, 0, "bf16").best(sequences, blanks, ALL, 15, 16), found)
    shares = [len(np.intersect1d(a, b)) / 15 for a, b in zip(found, expected, strict=True)]
    assert 0.9 < np.mean(shares) < 1


def test_bf16_needs_a_processor_that_has_it(original, monkeypatch):
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: False)
    with pytest.raises(UserError, match="--forward_precision bf16: this processor calculates no bfloat16"):
        load_masked_lm(original, 0, "bf16")


def test_batches_hold_similar_lengths():
    lengths = np.sort(np.random.default_rng(0).integers(5, 200, 3000))[::-1]
    for batch_size in (1, 16, 64):
        batches = list(masked_lm._batches(lengths, batch_size))
        assert [start for start, _ in batches] == [0, *(end for _, end in batches[:-1])] and batches[-1][1] == 3000
        for start, end in batches:
            size, longest = end - start, lengths[start]
            assert 1 <= size <= batch_size and (size == 1 or size * longest <= 64 * batch_size)
            assert lengths[end - 1] >= 0.75 * longest or (size - 1) * longest < 512


@pytest.mark.parametrize("expected, graphs", [(0, 0), (10**9, 1)])
def test_much_ahead_is_worth_a_graph_after_the_first_pass(original, monkeypatch, expected, graphs):
    sequences, blanks = questions()
    made = []
    monkeypatch.setattr(inference, "available", lambda: True)
    monkeypatch.setattr(inference, "compiled", lambda *arguments: made.append(arguments) or inference.eager(*arguments))
    lm = load_masked_lm(original, 0)
    lm.expected_tokens = expected
    lm.best(sequences, blanks, ALL, 15, 1)
    assert len(made) == graphs


def test_float64_is_that_of_a_whole_copy(original):
    lm = load_masked_lm(original, 0)
    before = json.dumps(lm._layer.bert.embeddings.word_embeddings.weight.numpy().tolist())
    batch = questions()[0].pad([0, 1, 2])
    inputs = [paddle.to_tensor(batch[name]) for name in ("input_ids", "token_type_ids", "mask")]
    inputs.append(paddle.to_tensor(np.array([1, 5, batch["mask"].shape[1] + 2])))
    whole = copy.deepcopy(lm._layer).to(dtype="float64")
    with paddle.no_grad():
        found, expected = lm._exact(*inputs), whole(*inputs)
    assert found.dtype == paddle.float64
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)
    assert lm._layer.bert.embeddings.word_embeddings.weight.dtype == paddle.float32
    assert json.dumps(lm._layer.bert.embeddings.word_embeddings.weight.numpy().tolist()) == before


@pytest.mark.parametrize("words", [3, 15, 16, 511, 512, 700, 30522])
def test_the_highest_scores_are_those_of_a_sort(words):
    scores = np.random.default_rng(words).standard_normal((9, words)).astype(np.float32)
    scores[0] = np.arange(words)  # the highest stand together, at the end
    scores[1, : words // 2] = 7.0  # and equal ones
    chosen, gap = masked_lm._highest(scores, 15)
    falling = -np.sort(-scores, axis=1)
    assert (-np.sort(-np.take_along_axis(scores, chosen, axis=1), axis=1) == falling[:, :15]).all()
    assert all(len(set(row)) == min(15, words) for row in chosen.tolist())
    if words > 15:
        largest = np.abs(falling[:, :16]).max(axis=1).clip(1.0)
        assert gap == pytest.approx((falling[:, 14] - falling[:, 15]) / largest, rel=1e-5)
    else:
        assert np.isinf(gap).all()
