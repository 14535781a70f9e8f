"""Folders of every kind to bundles that say what the model says, and the gate that lets nothing else through."""

import json
import re
import shutil

import numpy as np
import pytest

from distill.data.pairs import PairLayout
from distill.data.readers import Rows
from distill.data.wordpiece import WordPiece
from distill.data.words import WordVocab, segment
from distill.deploy import export as graphs
from distill.deploy import is_bundle, parity
from distill.deploy.parity import Latency
from distill.deploy.predict import Predictor
from distill.encoders import inference
from distill.encoders.folder import load_bert
from distill.errors import UserError
from models import bilstm
from models.predictor import open_folder
from tests.recipes.runs import refused, tree
from tests.tiny import keep_one_token_type, make_bert_folder, make_glue_data
from tools import export

FAST, SLOW = Latency(1.0, 0.5), Latency(2.0, 1.0)
ZH = ["这家酒店的服务很好", "早餐不错，房间有点小", "不会再来了", "很好 good"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def data_dir(home):
    for task in ("SST-2", "MRPC", "STS-B"):
        make_glue_data(home / "data", task, rows=24)
    return home / "data"


@pytest.fixture(scope="module")
def bert(home):
    """With the facts of a run, of its teacher and of a control arm."""
    folder = make_bert_folder(home / "student", layers=1)
    (home / "big").mkdir()
    results = {"metric": "accuracy", "accuracy": 0.75, "bytes": 2_500_000, "rows": 12}
    (home / "big" / "results_eval.json").write_text(json.dumps(results | {"accuracy": 0.8125, "bytes": 91_000_000}))
    (folder / "results_eval.json").write_text(json.dumps(results))
    (folder / "run.yaml").write_text(f"task_name: SST-2\nmax_seq_length: 32\nteacher_path: {home / 'big'}\n")
    facts = {"task": "SST-2", "train_rows": 24_000, "script": "kd/task_distill.py"}
    (folder / "run.json").write_text(json.dumps(facts))
    control = {"first": 0.75, "second": 0.6875, "mean": 0.0625, "low": -0.01, "high": 0.13, "seeds": [1, 2]}
    (folder / "control.json").write_text(json.dumps(control | {"verdict": "no evidence", "rows": 12}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _converted_here():
    """Without the conversion's own process, which tests/distill/deploy has: its start takes longer than the work."""
    import paddle2onnx

    def convert(*files):
        paddle2onnx.export(*files, opset_version=graphs.OPSET, optimize_tool="None")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "_converted", convert)
        yield


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The times that are measured, by step; int8 and bf16 are the faster ones."""
    times = {"int8": FAST, "bf16": FAST}
    monkeypatch.setattr(parity, "latencies", lambda runs, *_: {name: times.get(name, SLOW) for name in runs})
    return times


def flags(folder, target, data_dir, *more):
    return [str(value) for value in (folder, "--output_dir", target, "--data_dir", data_dir, *more)]


@pytest.fixture(scope="module")
def made(bert, home, data_dir):
    """The bundle of `bert` with everything tried."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "latencies", lambda runs, *_: {n: FAST if n == "int8" else SLOW for n in runs})
        patch.setattr(export.runtime, "has_bfloat16", lambda: False)
        more = ("--cascade_threshold", 0.8, "--licence", "Apache-2.0")
        return export.main(flags(bert, home / "bundle", data_dir, *more))


def test_paddle_and_onnx_runtime_are_not_timed_in_turn(bert, tmp_path, data_dir, monkeypatch):
    groups = []
    monkeypatch.setattr(parity, "latencies", lambda runs, *_: groups.append(set(runs)) or dict.fromkeys(runs, SLOW))
    export.main(flags(bert, tmp_path / "bundle", data_dir, "--variant", "int8"))
    assert groups == [{"dygraph", "static"}, {"onnx", "int8"}, {"bundle"}]


def sst2(data_dir):
    lines = (data_dir / "SST-2" / "dev.tsv").read_text().splitlines()[1:]
    return [line.split("\t")[0] for line in lines]


def differs(bundle, expected, rows):
    found = Predictor(bundle, 1).logits(rows)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def test_the_bundle_says_what_the_model_says(made, bert, data_dir):
    texts = [*sst2(data_dir), "good " * 50]
    expected = open_folder(bert, 32).logits(texts, None, 8)
    assert 0 < differs(made, expected, texts) < 0.05
    settings = json.loads((made / "settings.json").read_text())
    assert (settings["precision"], settings["paddle_precision"], settings["max_length"]) == ("int8", "fp32", 32)
    assert (settings["pair"], settings["kind"], settings["cascade_threshold"]) == (False, "classes", 0.8)
    (answer,) = Predictor(made, 1).predict(["good"])
    assert set(answer) == {"label", "score", "probabilities", "sure"}
    assert Predictor(made, 1).self_test().startswith("self-test passed: 8 rows")
    batch = WordPiece.from_folder(bert).encode(texts, None, 32).pad(np.arange(len(texts)))
    static = inference.open_static(made / "paddle" / "model")
    assert np.abs(static(batch)[0] - expected).max() < 1e-5
    assert not list(made.glob("work*")) and not list(made.parent.glob(".*"))


def test_its_card(made):
    card = (made / "README.md").read_text()
    assert card.startswith(
        "# SST-2, kd\n\n- Data: SST-2, 24,000 training rows\n- Method: `kd/task_distill.py`\n- Teacher: big"
    )
    for line in (
        "| this model | 0.7500 | 2.5 MB |",
        "| its teacher | 0.8125 | 91.0 MB |",
        "| the same student on the labels alone | 0.6875 |  |",
        "12 dev rows. With its teacher 0.7500, without 0.6875 (seeds 1, 2), a difference of +0.0625, 95 % interval",
        "- Precision: int8",
        "- Cascade: an answer with a probability of at most 0.8 is not sure; ask the teacher",
        "In int8 a row's outputs depend a little on the rows that share its batch.",
        "## Licence\n\nApache-2.0",
        "| int8 | onnx | ",
    ):
        assert line in card, line
    assert "/exports" not in card  # no path of this machine


def test_regression_of_pairs(home, data_dir, tmp_path):
    folder = make_bert_folder(tmp_path / "bert", (), layers=1)
    target = export.main(flags(folder, tmp_path / "bundle", data_dir, "--task_name", "STS-B", "--variant", "fp32"))
    rows = [["a good film", "a film"], ["the plot", "good " * 80]]
    expected = open_folder(folder, 64).logits([a for a, _ in rows], [b for _, b in rows], 8)
    assert differs(target, expected, rows) < 1e-5
    assert [row["score"] for row in Predictor(target, 1).predict(rows)] == pytest.approx(
        expected[:, 0].tolist(), abs=1e-5
    )
    assert "pearson_spearman" in (target / "README.md").read_text()


def test_int8_of_numbers_is_held_against_their_range(home, data_dir, tmp_path, monkeypatch, capsys):
    """A shift of all of them by as much as their range leaves the correlation as it was."""
    folder = make_bert_folder(tmp_path / "bert", (), layers=1)
    pairs = [line.split("\t")[7:9] for line in (data_dir / "STS-B" / "dev.tsv").read_text().splitlines()[1:]]
    shift = float(np.ptp(open_folder(folder, 64).logits([a for a, _ in pairs], [b for _, b in pairs], 8)))
    assert 0 < shift < parity.DEFAULTS["int8"].max_logit_difference
    real = graphs.open_onnx
    monkeypatch.setattr(
        graphs, "open_onnx", lambda path: lambda batch: [real(path)(batch)[0] + shift * ("int8" in path.name)]
    )
    target = export.main(flags(folder, tmp_path / "bundle", data_dir, "--task_name", "STS-B"))
    assert "int8 is not used, fp32 is: hop onnx -> int8: outputs differ by" in capsys.readouterr().out
    assert json.loads((target / "settings.json").read_text())["precision"] == "fp32"


def make_recurrent(folder, vocabulary, pair, language="en"):
    reads = "pieces" if isinstance(vocabulary, WordPiece) else "words"
    size = len(vocabulary.tokens)
    config = bilstm.BiLSTMConfig(
        size, ("0", "1"), pair, 8, 6, max_length=16, reads=reads.replace("pieces", "wordpieces"), language=language
    )
    model, reader = bilstm.create(config, 0), bilstm.Reader(vocabulary, language, 16)
    model.fc.weight.set_value(20 * model.fc.weight)
    bilstm.save_student(folder, model, reader)
    return folder


@pytest.mark.parametrize("kind", ["pieces, a pair", "words", "Chinese words"])
def test_recurrent_students(kind, bert, data_dir, tmp_path):
    pair, texts, more = False, sst2(data_dir), ("--task_name", "SST-2")
    if kind == "pieces, a pair":
        pair, vocabulary, more = True, WordPiece.from_folder(bert), ("--task_name", "MRPC")
    elif kind == "words":
        vocabulary = WordVocab.build(segment(texts, "en"))
    else:
        texts, vocabulary = ZH, WordVocab.build(segment(ZH[:3], "zh"))
        (tmp_path / "rows.txt").write_text("\n".join(ZH), encoding="utf-8")
        more = ("--rows", tmp_path / "rows.txt")
    folder = make_recurrent(tmp_path / "student", vocabulary, pair, "zh" if "Chinese" in kind else "en")
    target = export.main(flags(folder, tmp_path / "bundle", data_dir, *more, "--variant", "fp32"))
    second = texts[::-1] if pair else None
    expected = open_folder(folder).logits(texts, second, 4)
    rows = texts if second is None else list(zip(texts, second, strict=True))
    assert differs(target, expected, rows) < 1e-5
    assert np.ptp(expected, axis=0).max() > 1e-3  # rows differ
    if pair:
        target = export.main(flags(folder, tmp_path / "int8", data_dir, *more, "--variant", "int8"))
        assert 0 < differs(target, expected, rows) < 0.1
    assert ("jieba" in (target / "requirements.txt").read_text()) == (kind == "Chinese words")


def test_sentence_encoders(bert, tmp_path, capsys):
    from models.sentence_encoder import load_sentence_encoder

    load_sentence_encoder(bert, 24, True).save(tmp_path / "encoder")
    (tmp_path / "rows.txt").write_text("a good film\nthe plot was dull .\nit\n")
    (tmp_path / "encoder" / "run.yaml").write_text(f"train_file: {tmp_path}/reviews.csv\n")
    target = export.main([str(tmp_path / "encoder"), "--rows", str(tmp_path / "rows.txt"), "--variant", "fp32"])
    assert target == tmp_path / "encoder" / "bundle"
    texts = ["a good film", "good " * 40, ""]
    expected = load_sentence_encoder(tmp_path / "encoder").encode(texts)
    assert differs(target, expected, texts) < 1e-5
    assert np.array(Predictor(target, 1).predict(texts)[0]["vector"]) == pytest.approx(expected[0], abs=1e-5)
    card = (target / "README.md").read_text()
    assert card.startswith("# reviews.csv, exported\n\n- Data: reviews.csv\n") and "Cascade" not in card
    assert "a vector" in card and "accuracy" not in capsys.readouterr().out
    # Parallel sentences: each text has a vector of its own.
    (tmp_path / "pairs.tsv").write_text("a good film\tthe film\nit\tthe plot\n")
    pairs = ("--rows", str(tmp_path / "pairs.tsv"), "--variant", "fp32", "--output_dir", str(tmp_path / "pairs"))
    golden = json.loads((export.main([str(tmp_path / "encoder"), *pairs]) / "golden.json").read_text())
    assert golden["rows"] == ["a good film", "it", "the film", "the plot"]


@pytest.mark.parametrize("model_type", ["late_fusion", "sbert"])
def test_dual_encoders(model_type, bert, data_dir, tmp_path):
    from models.dual_encoder import create_dual_encoder, load_dual_encoder, save_dual_encoder

    wordpiece = WordPiece.from_folder(bert)
    model = create_dual_encoder(model_type, load_bert(bert), 2, seed=1)
    save_dual_encoder(tmp_path / "dual", model, wordpiece, ("no", "yes"), (12, 20))
    (tmp_path / "rows.txt").write_text("a good film\tthe film was dull .\nit\tthe plot is not good , not at all\n")
    more = ("--rows", tmp_path / "rows.txt", "--variant", "fp32")
    target = export.main(flags(tmp_path / "dual", tmp_path / "bundle", data_dir, *more))
    assert sorted(path.name for path in target.glob("*.onnx")) == ["document.onnx", "model.onnx"]
    queries, documents = ["a good film"] * 4, ["the film was dull .", "it", "good " * 40, "a [SEP] story , boring"]
    pairs = PairLayout(12, 20).encode(wordpiece, Rows(queries, documents, None, "rows"))
    batch = pairs.lay_out(np.arange(4), wordpiece.pad_id)
    import paddle

    with paddle.no_grad():
        expected = load_dual_encoder(tmp_path / "dual")(
            {name: paddle.to_tensor(x) for name, x in batch.items()}
        ).numpy()
    predictor = Predictor(target, 1)
    rows = list(zip(queries, documents, strict=True))
    assert differs(target, expected, rows) < 1e-5
    kept = predictor.documents(documents, 2)
    tokens = [len(predictor.encode(row)[1]) for row in rows]
    assert [len(states) for states in kept] == (tokens if model_type == "late_fusion" else [1] * 4)
    for matched, row in zip(predictor.match("a good film", kept), predictor.predict(rows), strict=True):
        assert matched["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)


# The gate.


@pytest.mark.parametrize(
    ("hop", "flag", "value"),
    [
        ("dygraph -> static", "--max_logit_difference", "static=0"),
        ("static -> onnx", "--max_logit_difference", "onnx=1e-12"),
        ("onnx -> int8", "--max_logit_difference", "int8=1e-6"),
        ("onnx -> bundle", "--min_agreement", "bundle=1.5"),
    ],
)
def test_a_hop_beyond_its_budget_ends_it(hop, flag, value, bert, data_dir, tmp_path, capsys):
    variant = "int8" if "int8" in hop else "fp32"
    before = tree(bert)
    with pytest.raises(SystemExit) as ended:
        export.main(flags(bert, tmp_path / "bundle", data_dir, "--variant", variant, flag, value))
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: hop {hop}: ") and error.endswith("; no bundle was written\n")
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir()) and tree(bert) == before


def test_a_broken_conversion_is_caught(bert, data_dir, tmp_path, monkeypatch, capsys):
    """What paddle2onnx does to a recurrent layer, which then reads the padding."""
    monkeypatch.setattr(graphs, "_restore_lengths", lambda *_: None)
    folder = make_recurrent(tmp_path / "student", WordPiece.from_folder(bert), False)
    with pytest.raises(SystemExit):
        export.main(flags(folder, tmp_path / "bundle", data_dir, "--task_name", "SST-2"))
    assert "error: hop static -> onnx: outputs differ by" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"]


def test_the_metric_is_watched_too(bert, data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("distill.evaluation.metrics.score", lambda outputs, *_: {"accuracy": outputs[:, 0].mean()})
    real = inference.open_static
    monkeypatch.setattr(inference, "open_static", lambda *paths: lambda batch: [real(*paths)(batch)[0] - 0.25])
    budget = ("--max_logit_difference", 1, "--max_metric_drop")
    with pytest.raises(SystemExit):
        export.main(flags(bert, tmp_path / "bundle", data_dir, *budget, "static=0.125"))
    assert "error: hop dygraph -> static: the metric falls by 0.2500, allowed is 0.125; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reason", "times", "budget"),
    [
        ("2 ms a row alone, fp32 takes 1.9 ms", {"int8": SLOW, "onnx": Latency(1.9, 1.0)}, ()),
        ("1.1 ms a row in batches of 32, fp32 takes 1 ms", {"int8": Latency(1.0, 1.1), "onnx": SLOW}, ()),
        ("hop onnx -> int8: outputs differ by", {}, ("--max_logit_difference", "int8=1e-6")),
    ],
    ids=["alone", "in batches", "worse"],
)
def test_int8_that_is_slower_or_worse_is_not_shipped(reason, times, budget, bert, data_dir, tmp_path, capsys, clock):
    clock |= times
    target = export.main(flags(bert, tmp_path / "bundle", data_dir, *budget))
    out = capsys.readouterr().out
    assert "int8 is not used, fp32 is: " in out and reason in out
    assert json.loads((target / "settings.json").read_text())["precision"] == "fp32"
    assert "- Precision: fp32; not int8, because " in (target / "README.md").read_text()
    texts = sst2(data_dir)
    assert differs(target, open_folder(bert, 32).logits(texts, None, 8), texts) < 1e-5


def test_int8_that_was_asked_for_is_shipped_though_it_is_slower(bert, data_dir, tmp_path, capsys, clock):
    clock |= {"int8": SLOW, "onnx": FAST}
    target = export.main(flags(bert, tmp_path / "bundle", data_dir, "--variant", "int8"))
    assert "int8: 2 ms a row alone, fp32 takes 1 ms; " in capsys.readouterr().out
    assert json.loads((target / "settings.json").read_text())["precision"] == "int8"


def test_bfloat16(bert, data_dir, tmp_path, monkeypatch):
    argv = flags(bert, tmp_path / "bundle", data_dir, "--variant", "bf16")
    with monkeypatch.context() as patch:
        patch.setattr("distill.runtime.has_bfloat16", lambda: False)
        assert "this processor calculates no bfloat16" in refused(export.main, argv, bert)
    if not inference.available():
        pytest.skip("graphs run through oneDNN on x86 processors alone")
    monkeypatch.setattr("distill.runtime.has_bfloat16", lambda: True)
    target = export.main(argv)
    settings = json.loads((target / "settings.json").read_text())
    assert (settings["precision"], settings["paddle_precision"]) == ("fp32", "bf16")


# Bad input.


def test_a_bundle_is_not_exported_again(made, tmp_path):
    line = refused(export.main, [str(made), "--output_dir", str(tmp_path / "b")], tmp_path)
    assert line == f"{made}: a bundle already; give the folder of the model that it was made of"


def test_a_bundle_is_replaced_only_when_asked(made, bert, data_dir, tmp_path):
    target = shutil.copytree(made, tmp_path / "bundle")
    argv = flags(bert, target, data_dir, "--variant", "fp32", "--max_rows", 5)
    assert "holds a bundle; choose another folder or pass --overwrite" in refused(export.main, argv, tmp_path)
    before = tree(target)
    with pytest.raises(SystemExit):  # a failed export leaves the old one
        export.main([*argv, "--overwrite", "--max_logit_difference", "0"])
    assert tree(target) == before
    export.main([*argv, "--overwrite"])
    golden = json.loads((target / "golden.json").read_text())
    assert len(golden["rows"]) == 5 and is_bundle(target)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--task_name", "MRPC"), "1 and 2"),
        (("--task_name", "MNLI"), "no such file"),
        (("--task_name", "STS-B"), "has other labels .0, 1. than STS-B .none, a score."),
        (("--rows", "nowhere.txt"), "nowhere.txt: no such file"),
        (
            ("--rows", "texts.csv"),
            "--rows texts.csv: a text a line is read, or two with a TAB between; save it as .txt",
        ),
        (("--rows", "pairs.txt"), "student: reads one text, rows of pairs.txt have two texts"),
        (("--max_seq_length", "65"), "the model in .* reads at most 64 tokens"),
        (("--max_logit_difference", "int4=1"), "--max_logit_difference int4=1: a number from 0 on"),
        (("--output_dir", "."), "exists and is no bundle"),
    ],
)
def test_refusals(more, expected, bert, data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.txt").write_text("sentence\tlabel\na good film\t1\n")  # a BERT that was trained on single texts
    argv = flags(bert, tmp_path / "bundle", data_dir, *more)
    if expected == "1 and 2":  # a BERT reads either; a recurrent student of one text does not
        folder = make_recurrent(tmp_path / "student", WordPiece.from_folder(bert), False)
        argv, expected = (
            flags(folder, tmp_path / "bundle", data_dir, *more),
            "reads one text, rows of .* have two texts",
        )
    line = refused(export.main, argv, tmp_path)
    assert re.search(expected, line), line


def test_classes_without_names_take_the_tasks(tmp_path):
    model = make_bert_folder(tmp_path / "student", ("LABEL_0", "LABEL_1"), layers=1)
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\n" + "good\tyes\nbad\tno\n" * 4)
    own = ["--train_file", str(tmp_path / "train.tsv"), "--dev_file", str(tmp_path / "dev.tsv")]
    argv = [str(model), "--output_dir", str(tmp_path / "bundle"), *own, "--variant", "fp32"]
    export.main(argv)
    assert json.loads((tmp_path / "bundle" / "labels.json").read_text()) == ["no", "yes"]


def test_more_refusals(bert, data_dir, tmp_path):
    with pytest.raises(UserError, match="give the folder of a model"):
        export.main([])
    nowhere = refused(export.main, flags(tmp_path / "nowhere", tmp_path / "b", data_dir), tmp_path)
    assert nowhere == f"{tmp_path / 'nowhere'}: no such folder; give that of a finished model"
    single = keep_one_token_type(shutil.copytree(bert, tmp_path / "single"))
    argv = flags(single, tmp_path / "b", data_dir, "--task_name", "MRPC")
    assert refused(export.main, argv, tmp_path).startswith(f"{single}/config.json: type_vocab_size 1, and two texts")
    (tmp_path / "file").write_text("")
    argv = flags(bert, tmp_path / "file" / "b", data_dir)
    assert "file/b: cannot be written (Not a directory); choose another folder" in refused(export.main, argv, tmp_path)
    recurrent = make_recurrent(tmp_path / "lstm", WordPiece.from_folder(bert), False)
    argv = flags(recurrent, tmp_path / "b", data_dir, "--task_name", "SST-2", "--max_seq_length", 7)
    assert re.search("--max_seq_length 7: .*lstm reads [0-9]+ tokens; leave", refused(export.main, argv, tmp_path))
    plain = make_bert_folder(tmp_path / "plain", (), layers=1)
    assert "no run.yaml says its task" in refused(export.main, flags(plain, tmp_path / "b", data_dir), tmp_path)
    for content in (b"task_name: [SST-2\n", b"task_name: \xe9\n", b"SST-2\n"):
        (plain / "run.yaml").write_bytes(content)
        line = refused(export.main, flags(plain, tmp_path / "b", data_dir), tmp_path)
        assert line.startswith(f"{plain / 'run.yaml'}: not the settings of a run; copy it again")
    (plain / "run.yaml").unlink()
    argv = flags(plain, tmp_path / "b", data_dir, "--task_name", "STS-B", "--cascade_threshold", "0.5")
    assert "only classes have a probability" in refused(export.main, argv, tmp_path)
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | {"pairs": {}}))
    assert "a layout of its own" in refused(
        export.main,
        flags(plain, tmp_path / "b", data_dir, "--task_name", "RTE", "--rows", data_dir / "SST-2" / "dev.tsv"),
        tmp_path,
    )
