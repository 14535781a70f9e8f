"""Folders of teachers and students as one call, and what predict.py and evaluate.py print of them."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy.special import softmax

from distill.data.pairs import PairLayout
from distill.data.readers import Rows
from distill.data.wordpiece import WordPiece
from distill.data.words import WordVocab
from distill.errors import UserError
from models import bilstm
from models.predictor import open_folder
from tests.recipes.runs import refused
from tests.tiny import VOCAB, make_bert_folder, make_glue_data
from tools import evaluate, predict

TEXTS = ["a good film", "the plot was dull and weak ."]
TABLE = np.random.default_rng(0).normal(size=(len(VOCAB), 2)).astype(np.float32)


def make_bundle(folder, labels=("neg", "pos")):
    """A bundle without an export: the logits are the sums of a table's rows over the tokens."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["real"]),
        helper.make_node("Mul", ["rows", "real"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sums"], keepdims=0),
        helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["types", "middle"], ["second"], keepdims=1),
        helper.make_node("Add", ["sums", "second"], ["logits"]),  # the same for all classes
    ]
    inputs = [
        helper.make_tensor_value_info(name, kind, ["b", "l"])
        for name, kind in (
            ("input_ids", TensorProto.INT64), ("token_type_ids", TensorProto.INT64), ("mask", TensorProto.FLOAT)
        )
    ]  # fmt: skip
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", max(len(labels), 1)])]
    table = TABLE if labels else TABLE[:, :1]
    constants = [("table", table), ("last", np.array([2], np.int64)), ("middle", np.array([1], np.int64))]
    graph = helper.make_graph(nodes, "bag", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    settings = {"format": 1, "kind": "classifier", "reads": "bert", "pair": None, "max_length": 64, "pad_id": 0}
    settings |= {"wordpiece": {"lowercase": True, "strip_accents": True}}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "labels.json").write_text(json.dumps(labels))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")

    from distill.deploy.predict import Predictor

    predictor = Predictor(folder)
    golden = {"rows": TEXTS, "ids": [predictor.encode(text) for text in TEXTS], "tolerance": 1e-4}
    golden["outputs"] = predictor.logits(TEXTS).tolist()
    golden["sha256"] = {"model.onnx": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()}
    (folder / "golden.json").write_text(json.dumps(golden))
    return folder


def of_bundle(text):
    """The label and the probability that `make_bundle` gives a text of whole words."""
    ids = [VOCAB.index(word) for word in ("[CLS]", *text.split(), "[SEP]")]
    share = softmax(TABLE[ids].astype(np.float64).sum(axis=0))
    return ("neg", "pos")[share.argmax()], share.max()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("models") / "bert", ("neg", "pos"), layers=1)


def make_student(folder, labels=("0", "1"), pair=False, vocabulary=None):
    size, reads = len(vocabulary.tokens), "wordpieces" if isinstance(vocabulary, WordPiece) else "words"
    config = bilstm.BiLSTMConfig(size, labels, pair, 4, 3, max_length=16, reads=reads)
    model, reader = bilstm.create(config, 0), bilstm.Reader(vocabulary, "en", 16)
    model.classifier.weight.set_value(10 * model.classifier.weight)
    bilstm.save_student(folder, model, reader)
    return model, reader


@pytest.mark.parametrize("reads", ["wordpieces", "words"])
def test_a_student_classifies(reads, bert, tmp_path, capsys):
    vocabulary = WordPiece.from_folder(bert) if reads == "wordpieces" else WordVocab(["film", "good", "dull"])
    model, reader = make_student(tmp_path / "student", ("bad", "good"), vocabulary=vocabulary)
    shares = softmax(bilstm.predict(model, reader.texts(TEXTS), 2).astype(np.float64), axis=1)
    predict.main([str(tmp_path / "student"), *TEXTS])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [("bad", "good")[i] for i in shares.argmax(axis=1)]
    assert [float(line[1]) for line in lines] == pytest.approx(shares.max(axis=1), abs=6e-5)
    assert [line[2] for line in lines] == TEXTS


def test_a_teacher_classifies_texts_and_pairs(bert, capsys):
    from paddlenlp.transformers import BertForSequenceClassification

    predict.main([str(bert), TEXTS[0], "--device", "cpu"])
    assert capsys.readouterr().out.split("\t")[0] in ("neg", "pos")
    (line,) = predict.classify(str(bert), ["\t".join(TEXTS)])
    model = BertForSequenceClassification.from_pretrained(str(bert))
    model.eval()
    import paddle

    batch = WordPiece.from_folder(bert).encode(TEXTS[:1], TEXTS[1:], 64).pad([0])
    with paddle.no_grad():
        logits = model(paddle.to_tensor(batch["input_ids"]), paddle.to_tensor(batch["token_type_ids"])).numpy()
    share = softmax(logits.astype(np.float64))
    assert line == f"{('neg', 'pos')[share.argmax()]}\t{share.max():.4f}\t{TEXTS[0]}\t{TEXTS[1]}"


def test_a_text_longer_than_the_model_is_cut(bert):
    long = predict.classify(str(bert), ["good film " * 100, "good film " * 40])
    assert [line.split("\t")[:2] for line in long] == [long[0].split("\t")[:2]] * 2


def test_as_many_tokens_are_read_as_in_training(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "trained")
    (folder / "run.yaml").write_text("max_seq_length: 5\ntask_name: SST-2\n")
    short, long = "good film is\t", "good film is bad\t"
    assert open_folder(bert).logits(["good film is"], None, 1) != pytest.approx(
        open_folder(bert).logits(["good film is bad"], None, 1), abs=1e-3
    )
    cut, whole = (open_folder(folder, length).logits(["good film is bad"], None, 1) for length in (None, 6))
    assert cut == pytest.approx(open_folder(bert).logits(["good film is"], None, 1), abs=1e-6)
    assert whole == pytest.approx(open_folder(bert).logits(["good film is bad"], None, 1), abs=1e-6)
    answers = predict.classify(str(folder), [short.strip(), long.strip()])
    assert answers[0].split("\t")[:2] == answers[1].split("\t")[:2]
    assert predict.classify(str(bert), [long.strip()])[0].split("\t")[:2] != answers[1].split("\t")[:2]
    # Nor two texts where it has learnt from one.
    with pytest.raises(UserError, match="one text without a TAB needed"):
        predict.classify(str(folder), ["a film\ta movie"])
    for settings in ("task_name: MNLI\n", "train_file: a.csv\ntext_pair_column: b\ntask_name: SST-2\n"):
        (folder / "run.yaml").write_text(settings)
        with pytest.raises(UserError, match="two texts with a TAB between needed"):
            predict.classify(str(folder), ["a film"])
    for pair, answered in ((True, "a\tb"), (False, "a film")):
        (folder / "run.json").write_text(json.dumps({"pair": pair}))  # more certain than the flags
        assert len(predict.classify(str(folder), [answered])) == 1
        with pytest.raises(UserError, match="needed"):
            predict.classify(str(folder), ["a film" if pair else "a\tb"])
    (folder / "run.json").unlink()
    (folder / "run.yaml").write_text("train_file: a.csv\ntask_name: SST-2\n")  # may have found the columns of two
    assert len(predict.classify(str(folder), ["a film"])) == len(predict.classify(str(folder), ["a\tb"])) == 1


def test_classes_without_names_are_called_by_their_numbers(tmp_path):
    folder = make_bert_folder(tmp_path, ("LABEL_0", "LABEL_1", "LABEL_2"), layers=1)
    assert open_folder(folder).labels == ("0", "1", "2")
    assert predict.classify(str(folder), TEXTS)[0].split("\t")[0] in "012"


def test_numbers_are_predicted_as_numbers(bert, tmp_path):
    folder = make_bert_folder(tmp_path / "bert", (), layers=1)
    student, reader = make_student(tmp_path / "student", (), pair=True, vocabulary=WordPiece.from_folder(bert))
    (line,) = predict.classify(str(folder), TEXTS[:1])
    value, text = line.split("\t")
    assert (
        float(value) == pytest.approx(open_folder(folder).logits(TEXTS[:1], None, 1)[0, 0], abs=6e-5)
        and text == TEXTS[0]
    )
    (line,) = predict.classify(str(tmp_path / "student"), ["a film\ta movie"])
    expected = bilstm.predict(student, reader.texts(["a film"], ["a movie"]), 1)[0, 0]
    assert line == f"{expected:.4f}\ta film\ta movie"


@pytest.mark.parametrize(
    ("pair", "texts", "expected"),
    [
        (False, ["a film\ta movie"], "one text without a TAB needed"),
        (True, ["a film"], "two texts with a TAB between needed"),
        (True, ["a film\ta movie", "a film\t "], "two texts with a TAB between needed"),
        (False, ["a film", " "], "one text without a TAB needed"),
    ],
)
def test_texts_that_do_not_fit_the_model(pair, texts, expected, bert, tmp_path):
    make_student(tmp_path, pair=pair, vocabulary=WordPiece.from_folder(bert))
    with pytest.raises(UserError) as error:
        predict.main([str(tmp_path), *texts])
    assert str(error.value) == f"{texts[-1]!r}: {expected}"


def test_refusals(tmp_path):
    for argv, expected in (
        ([], "give a folder"),
        ([str(tmp_path)], "give a folder"),
        ([str(tmp_path), "a"], "no weight file in it"),
    ):
        with pytest.raises(UserError, match=expected):
            predict.main(argv)
    (tmp_path / "config.json").write_text('{"model_type": "bilstm", "labels": [], "colour": 3}')
    with pytest.raises(UserError, match="config.json: not a BiLSTM's settings"):
        predict.main([str(tmp_path), "a"])


def test_evaluation_of_every_labelled_split(bert, tmp_path, capsys):
    make_student(tmp_path / "student", vocabulary=WordPiece.from_folder(bert))
    folder = make_glue_data(tmp_path / "data", "SST-2", rows=12) / "SST-2"
    header, *train = (folder / "train.tsv").read_text().splitlines()
    dev = (folder / "dev.tsv").read_text().splitlines()[1:]
    (folder / "dev.tsv").write_text("\n".join([header, *dev, *train[:4]]) + "\n")  # four dev rows are also in train
    (folder / "test.tsv").write_text("\n".join([header, *dev]) + "\n")
    argv = [str(tmp_path / "student"), "--task_name", "SST-2", "--data_dir", str(tmp_path / "data")]
    found = evaluate.main(argv)
    assert json.loads((tmp_path / "student" / "evaluation.json").read_text()) == found
    assert (found["dev"]["rows"], found["dev"]["rows_not_in_train"]) == (10, 6)
    assert found["dev"]["scores_not_in_train"] == found["test"]["scores"]
    assert "scores_not_in_train" not in found["test"]  # all of them are
    assert "SST-2 dev, 6 rows that are not in train: accuracy" in capsys.readouterr().out
    (folder / "test.tsv").write_text("\n".join([header, *(f"{row[:-1]}-1" for row in dev)]) + "\n")
    assert evaluate.main(argv).keys() == {"dev"}
    assert "every 'label' is empty or -1; the rows are read as unlabelled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "pair", "expected"),
    [
        (("1", "0"), False, "has labels in another order .1, 0. than SST-2 .0, 1."),
        ((), False, "has other labels .none, a score. than SST-2 .0, 1."),
        (("0", "1"), True, "reads two texts, rows of SST-2 have one text"),
    ],
)
def test_models_of_another_task_are_not_evaluated(labels, pair, expected, bert, tmp_path):
    make_student(tmp_path / "student", labels, pair, WordPiece.from_folder(bert))
    make_glue_data(tmp_path / "data", "SST-2", rows=4)
    with pytest.raises(UserError, match=expected):
        evaluate.main([str(tmp_path / "student"), "--task_name", "SST-2", "--data_dir", str(tmp_path / "data")])
    assert not (tmp_path / "student" / "evaluation.json").exists()


def test_a_run_is_evaluated_on_its_own_task(tmp_path):
    """The labels 0 and 1 of SST-2, MRPC and CoLA are alike, and a BERT reads one text or two: run.json tells."""
    folder = make_bert_folder(tmp_path / "student", layers=1)
    make_glue_data(tmp_path / "data", "SST-2", rows=4)
    make_glue_data(tmp_path / "data", "MRPC", rows=4)
    argv = [str(folder), "--data_dir", str(tmp_path / "data")]
    assert "--task_name is needed: no run.json in" in refused(evaluate.main, argv, tmp_path)
    (folder / "run.json").write_text(json.dumps({"task": "MRPC", "pair": True}))
    line = refused(evaluate.main, [*argv, "--task_name", "SST-2"], tmp_path)
    assert line.startswith(f"{folder}: a run for MRPC, not for SST-2; pass --task_name MRPC, or --result_dir")
    evaluate.main(argv)
    assert len((folder / "dev_predictions.tsv").read_text().splitlines()) == 1 + len(
        (tmp_path / "data" / "MRPC" / "dev.tsv").read_text().splitlines()[1:]
    )
    before = (folder / "results_eval.json").read_bytes()
    line = refused(evaluate.main, [*argv, "--task_name", "SST-2", "--result_dir", str(tmp_path / "other")], folder)
    assert "reads two texts, rows of SST-2 have one text" in line
    (folder / "run.json").write_text(json.dumps({"task": "CoLA", "pair": False}))
    evaluate.main([*argv, "--task_name", "SST-2", "--result_dir", str(tmp_path / "other")])
    assert (tmp_path / "other" / "results_eval.json").is_file()
    assert (folder / "results_eval.json").read_bytes() == before


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


def run_script(*argv, **more):
    command = [sys.executable, predict.__file__, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, **more)


def test_a_bundle_classifies_without_paddle(bundle, tmp_path):
    probe = "import runpy, sys; sys.argv = sys.argv[1:]\ntry:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    probe += "finally:\n    print([name for name in sys.modules if name.startswith('paddle')])\n"
    done = subprocess.run(
        [sys.executable, "-c", probe, predict.__file__, bundle, *TEXTS], capture_output=True, text=True
    )
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]" and not done.stderr
    expected = [of_bundle(text) for text in TEXTS]
    assert lines == [f"{label}\t{share:.4f}\t{text}" for (label, share), text in zip(expected, TEXTS, strict=True)]
    assert predict.classify(str(bundle), ["\t".join(TEXTS)])[0].count("\t") == 3  # a pair is read too
    numbers = make_bundle(tmp_path / "numbers", ())
    (line,) = predict.classify(str(numbers), TEXTS[:1])
    assert line == f"{TABLE[[VOCAB.index(w) for w in ('[CLS]', *TEXTS[0].split(), '[SEP]')], 0].sum():.4f}\t{TEXTS[0]}"


def test_a_damaged_bundle_and_a_device_it_cannot_use(bundle, tmp_path):
    spoilt = make_bundle(tmp_path / "spoilt")
    (spoilt / "model.onnx").write_bytes((spoilt / "model.onnx").read_bytes()[:100])
    with pytest.raises(UserError, match="model.onnx: truncated"):
        predict.main([str(spoilt), "a"])
    with pytest.raises(UserError, match="--device gpu: a bundle runs on the CPU"):
        predict.main([str(bundle), "a", "--device", "gpu"])
    other = make_bundle(tmp_path / "of another processor")
    settings, golden = (json.loads((other / name).read_text()) for name in ("settings.json", "golden.json"))
    golden["outputs"][0][0] += 1
    (other / "golden.json").write_text(json.dumps(golden))
    predict.main([str(other), "a"])
    (other / "settings.json").write_text(json.dumps(settings | {"precision": "int8"}))
    with pytest.raises(UserError, match="outputs differ from those at export by 1, above 0.0001"):
        predict.main([str(other), "a"])


def test_links_stay_and_pipes_get_the_rows(bundle, tmp_path):
    (tmp_path / "latest.tsv").symlink_to(tmp_path / "today.tsv")
    predict.main([str(bundle), "a good film", "--output", str(tmp_path / "latest.tsv")])
    assert (tmp_path / "latest.tsv").is_symlink() and (tmp_path / "today.tsv").read_text().endswith("\ta good film\n")
    os.mkfifo(tmp_path / "pipe.tsv")
    reading = os.open(tmp_path / "pipe.tsv", os.O_RDONLY | os.O_NONBLOCK)
    predict.main([str(bundle), "a good film", "--output", str(tmp_path / "pipe.tsv")])
    assert (tmp_path / "pipe.tsv").is_fifo() and os.read(reading, 99) == (tmp_path / "today.tsv").read_bytes()
    os.close(reading)


FILES = {
    "txt": "a good film\nthe plot was dull and weak .\n\n",
    "tsv": "\ufeffid\ttext\r\n1\ta good film\r\n2\t the plot was dull and weak .\r\n",
    "csv": 'id,sentence\n1,a good film\n2,"the plot was dull and weak ."\n',
    "jsonl": '{"text": "a good film"}\n{"id": 2, "text": "the plot was dull and weak ."}\n',
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("where", ["file", "standard input"])
def test_every_format_of_input(kind, where, bundle, tmp_path, capsys, monkeypatch):
    """The output has a header where the input has one; a file and standard input give the same."""
    content = FILES[kind].encode()
    source = ["--input", str(tmp_path / f"texts.{kind}")]
    if where == "file":
        (tmp_path / f"texts.{kind}").write_bytes(content)
    else:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        source = ["--input", "-", "--input_format", kind]
    predict.main([str(bundle), *source])
    header, lines = ["label\tprobability\ttext"] * (kind in ("tsv", "csv")), predict.classify(str(bundle), TEXTS)
    assert capsys.readouterr().out.splitlines() == header + lines


def test_pairs_and_json(bundle, tmp_path, capsys):
    (tmp_path / "a.csv").write_text('sentence1,sentence2,label\n"a\tgood\nfilm",the movie,1\nbad,"a, b",0\n')
    predict.main([str(bundle), "--input", str(tmp_path / "a.csv"), "--output", str(tmp_path / "out.tsv")])
    header, first, second = (tmp_path / "out.tsv").read_text().splitlines()
    assert header == "label\tprobability\ttext\ttext_pair"
    assert first.split("\t")[2:] == ["a good film", "the movie"] and second.split("\t")[2:] == ["bad", "a, b"]
    predict.main([str(bundle), "--input", str(tmp_path / "a.csv"), "--output", str(tmp_path / "out.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["text"], row["text_pair"]) for row in rows] == [("a\tgood\nfilm", "the movie"), ("bad", "a, b")]
    for row, line in zip(rows, (first, second), strict=True):
        assert [row["label"], f"{row['score']:.4f}"] == line.split("\t")[:2]
        assert sum(row["probabilities"].values()) == pytest.approx(1) and list(row["probabilities"]) == ["neg", "pos"]
        assert row["probabilities"][row["label"]] == row["score"] == max(row["probabilities"].values())
    flags = ["--text_column", "sentence2", "--output_format", "jsonl"]
    predict.main([str(bundle), "--input", str(tmp_path / "a.csv"), *flags])
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["the movie", "a, b"]


class Counting:
    """A model whose answers tell its rows: the label of a text `row N` is N."""

    def __init__(self):
        self.sizes, self.many = [], []

    def model(self):
        def answers(rows):
            self.sizes.append(len(rows))
            return [{"label": row[0].split()[1], "score": 0.5, "probabilities": {}} for row in rows]

        return predict.Model(False, answers, lambda rows: self.many.append(len(rows)))


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_100_000_rows_keep_their_order_and_count(kind, tmp_path, monkeypatch):
    counting = Counting()
    predicted(counting, kind, 100_000, tmp_path, monkeypatch)
    found = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert [label for label, _, _ in found] == [str(i) for i in range(100_000)]
    assert all(text.startswith(f"row {label}") for label, _, text in found)
    assert max(counting.sizes) == counting.many[0] == 4096 and len(counting.many) == 1


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "_CHUNK", 256)
    peaks = []
    for count in (100, 2_000, 10_000):  # the first one imports what there is to import
        tracemalloc.start()
        predicted(Counting(), "jsonl", count, tmp_path, monkeypatch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]


def predicted(counting, kind, count, folder, monkeypatch):
    line = {"txt": "row {0} {1}\n", "jsonl": '{{"text": "row {0} {1}"}}\n'}[kind]
    with open(folder / f"texts.{kind}", "w") as out:
        out.writelines(line.format(i, "x" * (i % 50)) for i in range(count))
    monkeypatch.setattr(predict, "open_model", lambda *_: counting.model())
    predict.main(["model", "--input", str(folder / f"texts.{kind}"), "--output", str(folder / "out.tsv")])


def test_many_rows_take_the_fastest_way_with_the_same_answers(bert, tmp_path, monkeypatch):
    """Whichever way is taken, a folder of any kind gives the numbers of its plain one."""
    import paddle

    from distill.encoders import inference
    from distill.encoders.folder import load_bert
    from distill.teachers.teacher import BertForPairs, save_pair_bert
    from models.dual_encoder import create_dual_encoder, save_dual_encoder

    wordpiece = WordPiece.from_folder(bert)
    make_student(tmp_path / "one", vocabulary=wordpiece)
    make_student(tmp_path / "two", pair=True, vocabulary=wordpiece)
    dual = create_dual_encoder("late_fusion", load_bert(bert), 2, seed=1)
    save_dual_encoder(tmp_path / "dual", dual, wordpiece, ("0", "1"), (16, 12))
    joint = BertForPairs(load_bert(bert), 2, "mean", seed=1)
    save_pair_bert(joint, tmp_path / "joint", wordpiece, ("a", "b"), PairLayout(16, 12))
    texts = ["a good film", "the plot was dull and weak .", "bad"] * 7
    turned = texts[::-1]
    second_texts = {bert: turned, tmp_path / "one": None, tmp_path / "two": turned, tmp_path / "dual": turned}
    second_texts[tmp_path / "joint"] = turned
    pairs = PairLayout(16, 12).encode(wordpiece, Rows(texts, turned, None, "texts")).lay_out(np.arange(21))
    batch = {name: paddle.to_tensor(value) for name, value in pairs.items()}
    with inference.evaluating(dual), inference.evaluating(joint):
        tokens = [batch[name] for name in ("input_ids", "token_type_ids", "positions")]
        own = {"dual": dual(batch), "joint": joint(*tokens, attention_mask=batch["mask"])}
    for folder, second in second_texts.items():
        predictor = open_folder(folder)
        assert predictor.pair in (None, second is not None)
        plain = predictor.logits(texts, second, 4)
        assert np.ptp(plain) > 1e-3 and np.abs(predictor.logits(texts, second, 21) - plain).max() < 1e-5
        assert folder.name not in own or np.abs(own[folder.name].numpy() - plain).max() < 1e-5
        monkeypatch.setattr(inference, "faster", lambda ways, batch: "compiled")
        fastest = predictor.fastest(texts, second, 4)
        assert fastest is not predictor.logits and np.abs(fastest(texts, second, 4) - plain).max() < 1e-5
    monkeypatch.setattr(inference, "faster", lambda ways, batch: "eager")
    assert predictor.fastest(texts, second, 4) is predictor.logits
    assert predictor.labels == ("a", "b")
    with pytest.raises(UserError, match="reads two texts"):
        predictor.logits(texts, None, 4)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "a film\n\na movie\n", ":2: the text is empty; fill it or remove the line"),
        ("a.txt", "a film\na film\ta movie\n", ":2: one text without a TAB needed"),
        ("a.txt", "a film\ta movie\na film\n", ":2: two texts with a TAB between needed"),
        ("a.txt", "\n", ": no rows in it"),
        ("a.tsv", "text\n", ": no rows in it"),
        ("a.tsv", "text\tid\na film\t1\n \t2\n", ":3: the text in 'text' is empty; fill it or remove the row"),
        ("a.tsv", "text\tid\na film\t1\nb\n", ":3: 1 columns where 2 are needed"),
        ("a.tsv", "review\tid\na film\t1\n", ": no column text, sentence, text_a, sentence1 (columns found: review"),
        ("a.csv", 'text\n"a film\n', ":2: not valid csv"),
        ("a.jsonl", '{"text": "a"}\n{"text": 1\n', ":2: not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n{"sentence": "b"}\n', ":2: no key 'text'"),
        ("a.doc", "a", ": the suffix does not tell the format; use --input_format txt|tsv|csv|jsonl"),
    ],
)
def test_bad_rows_are_named_before_anything_is_written(name, content, expected, bundle, tmp_path, capsys):
    (tmp_path / name).write_text(content)
    (tmp_path / "out.tsv").write_text("kept\n")
    with pytest.raises(UserError) as error:
        predict.main([str(bundle), "--input", str(tmp_path / name), "--output", str(tmp_path / "out.tsv")])
    assert str(error.value).startswith(f"{tmp_path / name}{expected}") and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out.tsv"])
    assert (tmp_path / "out.tsv").read_text() == "kept\n" and not capsys.readouterr().out


def test_bytes_that_are_no_text_and_a_failure_in_the_middle(bundle, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"a film\n\xff\n")
    done = run_script(bundle, "--input", "-", stdin=(tmp_path / "a.txt").open())
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "error: standard input:2: not UTF-8 text (byte 7); save the file as UTF-8\n"

    def failing(rows):
        if rows[0] != ("row 0",) and rows[0] != ["row 0"]:
            raise RuntimeError("power cut")
        return [{"label": "0", "score": 1.0} for _ in rows]

    (tmp_path / "b.txt").write_text("".join(f"row {i}\n" for i in range(5000)))
    monkeypatch.setattr(predict, "open_model", lambda *_: predict.Model(False, failing))
    with pytest.raises(RuntimeError, match="power cut"):
        predict.main(["model", "--input", str(tmp_path / "b.txt"), "--output", str(tmp_path / "out.tsv")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_reader_that_has_enough(bundle, tmp_path):
    """As `| head -1`: no traceback, status 0."""
    (tmp_path / "a.txt").write_text("a good film\n" * 20_000)
    command = [sys.executable, predict.__file__, str(bundle), "--input", str(tmp_path / "a.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == predict.classify(str(bundle), ["a good film"])[0] + "\n"
        process.stdout.close()
        assert process.wait(30) == 0 and "Traceback" not in process.stderr.read()


def test_what_others_print_is_not_in_the_output(tmp_path, monkeypatch, capsys):
    def talking(rows):
        print("forward passes: eager")
        return [{"label": "0", "score": 1.0} for _ in rows]

    monkeypatch.setattr(predict, "open_model", lambda *_: predict.Model(False, talking))
    predict.main(["model", "a film"])
    captured = capsys.readouterr()
    assert captured.out == "0\t1.0000\ta film\n" and "forward passes" in captured.err


def test_flags_that_do_not_go_together(bundle, tmp_path, monkeypatch):
    (tmp_path / "a.tsv").write_text("text\na\n")
    for argv, expected in (
        (["a", "--input", "-"], "give a folder, and texts or --input"),
        (["a", "--output", str(tmp_path / "out.csv")], "the suffix does not tell the format; use .tsv or .jsonl"),
        (["--input", str(tmp_path / "a.tsv"), "--output", str(tmp_path / "." / "a.tsv")], "is the input; name another"),
        (["--input", str(tmp_path / "b.tsv")], "b.tsv: no such file"),
        (["a", "--max_seq_length", "16"], "--max_seq_length 16: a bundle reads as many tokens as its export settled"),
    ):
        with pytest.raises(UserError, match=expected):
            predict.main([str(bundle), *argv])
    vectors = predict.Model(False, lambda rows: [{"vector": [1.0]} for _ in rows])
    monkeypatch.setattr(predict, "open_model", lambda *_: vectors)
    with pytest.raises(UserError, match="the model gives vectors; write them with --output_format jsonl"):
        predict.main(["model", "a"])
    pairs = predict.Model(True, lambda rows: [])
    monkeypatch.setattr(predict, "open_model", lambda *_: pairs)
    with pytest.raises(UserError, match="a.tsv: the model reads two texts; name it with --text_column and"):
        predict.main(["model", "--input", str(tmp_path / "a.tsv")])


def test_the_output_is_utf_8_whatever_the_locale(bundle, tmp_path):
    (tmp_path / "a.txt").write_text("un café à Paris 很好\n", encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for more in (["--output", tmp_path / "out.tsv"], []):
        done = run_script(bundle, "--input", tmp_path / "a.txt", *more, env=environment)
        said = (tmp_path / "out.tsv").read_text(encoding="utf-8") if more else done.stdout
        assert done.returncode == 0 and "很好" in said


def test_an_argument_that_is_no_text(bundle, tmp_path):
    done = subprocess.run(
        [sys.executable, predict.__file__, str(bundle), b"caf\xe9", "--output", str(tmp_path / "out.jsonl")],
        capture_output=True,
    )
    assert done.returncode == 2 and done.stderr == b"error: 'caf\\udce9': not UTF-8 text\n"
    assert not list(tmp_path.iterdir())
