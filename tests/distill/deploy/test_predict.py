"""A bundle's own predict.py cuts texts into the ids that the model was trained on."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from distill.data.ragged import Ragged
from distill.data.wordpiece import WordPiece
from distill.data.words import WordVocab, segment
from distill.deploy import predict
from distill.files import write_json
from models.bilstm import Reader
from tests.tiny import VOCAB

FURTHER = ("é", "e\u0301", "中", "文", "[", "]", "ASK", "##SK", "M", "mask", "ß", "\u0307", "가", "##\u0301")
PARTS = (
    *"ab[]MASK \t\n!é中文ßİⅧﬁ가", *predict._SPECIAL, "[MA", "SK]", "good", " film ", "wonderful", "boring", "don't",
    "\0", "\1", "\5", "\x0e", "\ufffd", "\u00ad", "\u00b2", "e\u0301", "\u0301", "\u0327", "\u3000", "\u200b", "\ud800",
    "\u2028", "\x85", "😀", "\u0378", "\u20bf", "a" * 101, "中国", "，", "ab" * 40,
)  # fmt: skip
NASTY = ["", " ", "[SEP]", "a [MASK] b", "[MA\0SK]", "[mask]", "x[CLS]y", "中[PAD]文", "good " * 70, "é" * 120, "\0\0"]
texts = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join([*VOCAB, *(token for token in FURTHER if token not in VOCAB)]) + "\n", encoding="utf-8")
    return path


class Stub:
    """An ONNX session of two outputs that says what it was fed."""

    def get_outputs(self):
        return [type("Value", (), {"shape": ["batch", 2]})]

    def run(self, names, feed):
        self.fed = feed
        return [np.stack([feed["mask"].sum(axis=1), feed["input_ids"].sum(axis=1)], axis=1).astype(np.float32)]


def reader(folder, monkeypatch, **own):
    """A Predictor without a model."""
    settings = {"format": predict.FORMAT, "kind": "classes", "pair": None, "pad_id": 0, "max_length": 16, **own}
    write_json(folder / "settings.json", settings)
    write_json(folder / "labels.json", ["no", "yes"])
    monkeypatch.setattr(predict.Predictor, "_session", lambda *_: Stub())
    return predict.Predictor(folder)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False])
def test_wordpieces_are_those_of_the_library(lowercase, strip_accents, vocab):
    theirs = WordPiece(vocab, lowercase, strip_accents)
    ours = predict.WordPieces(theirs.tokens, lowercase, strip_accents)

    @settings(max_examples=400, deadline=None, database=None, derandomize=True)
    @given(texts)
    def check(text):
        assert ours(text) == theirs.pieces([text])[0]

    check()
    assert [ours(text) for text in NASTY] == theirs.pieces(NASTY)
    assert len({tuple(ours(text)) for text in NASTY}) > 6


def test_words_that_are_too_long_to_cut_are_unknown_and_not_kept(vocab, monkeypatch):
    kept, real = [], predict.functools.lru_cache
    monkeypatch.setattr(
        predict.functools, "lru_cache", lambda size: lambda cut: kept.append(real(size)(cut)) or kept[0]
    )
    theirs = WordPiece(vocab, True)
    ours = predict.WordPieces(theirs.tokens, True, True)
    words = ["a" * 100, "b" * 100, "a" * 101, "ab" * 100, "中" * 101, "é" * 101, "é" * 100]
    assert [ours(word) for word in words] == theirs.pieces(words)
    # The two of 100, e of é without its accent, and the one Chinese character, which is a word of its own.
    assert kept[0].cache_info().currsize == 4
    assert ours("a" * 101) == [theirs.unk_id]


@pytest.mark.parametrize("max_length", [5, 6, 7, 16, 64])
def test_rows_are_framed_and_cut_as_in_training(max_length, vocab, tmp_path, monkeypatch):
    theirs = WordPiece(vocab, True)
    theirs.save(tmp_path)
    wordpiece = {"lowercase": True, "strip_accents": True}
    ours = reader(tmp_path, monkeypatch, reads="bert", max_length=max_length, wordpiece=wordpiece)
    second = [*NASTY[3:], *NASTY[:3]]
    lengths = [(a, b) for a in range(9) for b in range(9)]
    first, second = NASTY + ["good " * a for a, _ in lengths], second + ["film " * b for _, b in lengths]
    for b in (None, second):
        expected = theirs.encode(first, b, max_length)
        rows = first if b is None else list(zip(first, second, strict=True))
        for i, row in enumerate(rows):
            ids, types = ours.encode(row)
            assert ids == expected.row(i).tolist()
            assert types == expected.types[expected.offsets[i] : expected.offsets[i + 1]].tolist()
        batch = expected.pad(np.arange(len(rows)))
        ours._run([ours.encode(row) for row in rows])
        assert {name: value.tolist() for name, value in ours._model.fed.items()} == {
            name: batch[name].tolist() for name in ("input_ids", "token_type_ids", "mask")
        }


@pytest.mark.parametrize("language", ["en", "zh", "pieces"])
def test_bare_ids_are_those_of_the_student_that_reads_them(language, vocab, tmp_path, monkeypatch):
    rows = [*NASTY, "这家酒店的服务很好，早餐 也不错 good", "Ａ Good film!", "ok\x1cok"]
    if language == "pieces":
        vocabulary, own = WordPiece(vocab, False), {"wordpiece": {"lowercase": False, "strip_accents": False}}
    else:
        vocabulary = WordVocab.build(segment(rows[-2:], language))
        own = {"language": language}
    theirs = Reader(vocabulary, language, 8)
    theirs.save(tmp_path)
    reads = "pieces" if language == "pieces" else "words"
    ours = reader(tmp_path, monkeypatch, reads=reads, max_length=8, pair=False, **own)
    expected: Ragged = theirs(rows)
    found = [ours.encode(row)[0] for row in rows]
    assert found == [part.tolist() for part in np.split(expected.values, expected.offsets[1:-1])]
    assert max(map(len, found)) == 8 and found[0] == [vocabulary.unk_id]


def test_a_tokenizer_file_is_read_as_the_library_reads_it(vocab, tmp_path, monkeypatch):
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(vocab), lowercase=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = reader(tmp_path, monkeypatch, reads="tokenizer", max_length=6, pair=False)
    tokenizer.enable_truncation(6)
    for text in (" good film ", "good " * 20, "中 文"):
        assert ours.encode(text) == [tokenizer.encode(text.strip()).ids, [0] * len(tokenizer.encode(text.strip()).ids)]


@pytest.fixture
def ours(vocab, tmp_path, monkeypatch):
    WordPiece(vocab, True).save(tmp_path)
    wordpiece = {"lowercase": True, "strip_accents": True}
    return reader(tmp_path, monkeypatch, reads="bert", pair=False, wordpiece=wordpiece, cascade_threshold=0.9)


def test_answers_stand_in_the_order_of_the_rows_whatever_their_lengths(ours):
    rows = ["good film " * (7 * i % 5) for i in range(23)]
    for batch_size in (1, 4, 64, None):
        assert ours.logits(rows, batch_size)[:, 0].tolist() == [len(ours.encode(row)[0]) for row in rows]
    assert ours.predict([]) == []


def test_rows_at_once():
    lengths = [9, 2, 4, 2, 3, 20, 2]
    assert list(predict.parts(lengths, 3)) == [[1, 3, 6], [4, 2, 0], [5]]
    # 2 + 2 + 2, then 3 + 3 and 4 + 4 with their padding; a row that is too long for any part is alone.
    assert list(predict.parts(lengths, 9, 8)) == [[1, 3, 6], [4, 2], [0], [5]]
    assert list(predict.parts(lengths, 2, 8)) == [[1, 3], [6, 4], [2], [0], [5]]
    assert list(predict.parts([], 3, 8)) == []


def shapes_of_runs(ours, monkeypatch, rows, batch_size=None):
    shapes, run = [], ours._model.run
    monkeypatch.setattr(
        ours._model, "run", lambda names, feed: shapes.append(feed["input_ids"].shape) or run(names, feed)
    )
    ours.predict(rows, batch_size)
    return shapes


def test_a_batch_is_not_padded_to_its_longest_row(ours, monkeypatch):
    ours.settings["max_length"] = 64
    rows = ["good " * 62, "film", *["good " * 14] * 33]
    # At most 256 tokens, or as many rows as are asked for.
    assert shapes_of_runs(ours, monkeypatch, rows) == [(16, 16), (16, 16), (3, 64)]
    assert shapes_of_runs(ours, monkeypatch, rows, 32) == [(32, 16), (3, 64)]
    assert shapes_of_runs(ours, monkeypatch, ["film"] * 40) == [(32, 3), (8, 3)]


@pytest.mark.parametrize(
    ("text", "threads"),
    [("250000 100000\n", 2), ("50000 100000\n", 1), ("400000 100000\n", 0), ("max 100000\n", 0), (None, 0)],
)
def test_all_cores_are_those_of_the_containers_quota(text, threads, monkeypatch):
    def read_text(path):
        assert str(path) == "/sys/fs/cgroup/cpu.max"
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(predict.Path, "read_text", read_text)
    monkeypatch.setattr(predict.os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    assert predict.session_options(0).intra_op_num_threads == threads
    assert predict.session_options(3).intra_op_num_threads == 3


def test_sessions_ask_for_int8_products_that_older_processors_cannot_saturate():
    assert predict.session_options(1).get_session_config_entry("session.x64quantprecision") == "1"


def test_sessions_leave_out_the_slower_kernel(tmp_path):
    options = predict.session_options(3)
    assert options.intra_op_num_threads == 3
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("LayerNormalization", ["sum", "scale", "bias"], ["normal"], axis=-1),
        ],
        "residual",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "l", 4]) for name in "ab"],
        [helper.make_tensor_value_info("normal", TensorProto.FLOAT, [1, "l", 4])],
        [numpy_helper.from_array(np.ones(4, np.float32), name) for name in ("scale", "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    for chosen, expected in ((options, ["Add", "LayerNormalization"]), (None, ["SkipLayerNormalization"])):
        chosen = chosen or onnxruntime.SessionOptions()
        chosen.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])
        assert [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node] == expected


def test_probabilities_labels_and_sureness(ours):
    outputs = np.array([[0.0, np.log(3.0)], [1000.0, 0.0], [0.0, np.log(9.0)]], np.float32)
    found = ours._named(outputs)
    assert [row["label"] for row in found] == ["yes", "no", "yes"]
    assert found[0]["score"] == pytest.approx(0.75) and found[0]["probabilities"] == pytest.approx(
        {"no": 0.25, "yes": 0.75}
    )
    assert [row["sure"] for row in found] == [False, True, found[2]["score"] > 0.9]
    del ours.settings["cascade_threshold"]
    assert "sure" not in ours._named(outputs)[0]


@pytest.mark.parametrize("row", [["a", "b"], 3, ["a", "b", "c"], [], None, ["a", 1]])
def test_rows_that_the_model_cannot_read(row, ours):
    with pytest.raises(predict.BundleError):
        ours.predict(["good", row])
