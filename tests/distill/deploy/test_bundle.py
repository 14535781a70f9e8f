"""A bundle serves without Paddle and notices what was changed in it."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from distill.data.wordpiece import WordPiece
from distill.deploy import bundle, export, is_bundle, predict
from distill.deploy.export import Graph
from distill.encoders import inference
from distill.encoders.folder import load_bert
from tests.tiny import make_bert_folder

ROWS = ["a good film", "the plot was dull and weak .", "it", "good " * 100]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("bundle") / "bert", ("neg", "pos"), layers=1)


@pytest.fixture(scope="module")
def made(bert, tmp_path_factory):
    """(the folder, what `write_bundle` returned)"""
    work, place = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("made") / "bundle"
    place.mkdir()
    graph, wordpiece = (
        Graph(inference.Classifier(load_bert(bert, 2)), inference.BERT_INPUTS),
        WordPiece.from_folder(bert),
    )
    inference.save_static(graph.layer, graph.inputs, work / "model")
    export.save_onnx(work / "model", work / "model.onnx", graph)
    settings = {"kind": "classes", "reads": "bert", "max_length": 16, "pair": False, "pad_id": wordpiece.pad_id}
    graphs, static = {"model": work / "model.onnx"}, {"model": work / "model"}
    opened = bundle.write_bundle(place, graphs, static, settings, ("neg", "pos"), wordpiece.save, ROWS, 1e-3)
    return place, opened


@pytest.fixture
def folder(made, tmp_path):
    """A copy to be spoilt."""
    return shutil.copytree(made[0], tmp_path / "bundle")


def test_what_is_in_it(made):
    assert sorted(path.name for path in made[0].iterdir()) == [
        "golden.json", "labels.json", "model.onnx", "paddle", "predict.py", "requirements.txt", "settings.json",
        "tokenizer_config.json", "vocab.txt",
    ]  # fmt: skip
    assert sorted(path.name for path in (made[0] / "paddle").iterdir()) == ["model.json", "model.pdiparams"]
    pins = (made[0] / "requirements.txt").read_text().splitlines()
    assert [pin.partition("==")[0] for pin in pins] == ["numpy", "onnxruntime", "tokenizers"]
    assert is_bundle(made[0]) and not is_bundle(made[0] / "paddle")
    assert (made[0] / "predict.py").read_bytes() == Path(predict.__file__).read_bytes()


def test_its_outputs_are_the_models(made, bert):
    layer, wordpiece = inference.Classifier(load_bert(bert, 2)), WordPiece.from_folder(bert)
    batch = wordpiece.encode(ROWS, None, 16).pad(np.arange(len(ROWS)))
    expected = inference.eager(layer, inference.BERT_INPUTS)(batch)[0]
    assert np.abs(made[1].logits(ROWS) - expected).max() < 1e-5
    assert [row["label"] for row in made[1].predict(ROWS)] == [("neg", "pos")[i] for i in expected.argmax(axis=1)]


WITHOUT = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "onnxruntime", "tokenizers", "jieba"}:
            raise ImportError(f"{name} is not to be had here")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def without_paddle(folder, *arguments, texts=""):
    command = [sys.executable, "-c", WITHOUT, str(folder / "predict.py"), *arguments]
    return subprocess.run(command, input=texts.encode(), capture_output=True, cwd=folder.parent)


def test_it_serves_without_paddle(made):
    done = without_paddle(made[0], "--self_test")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"self-test passed: 4 rows, outputs differ from those at export by at most ")
    done = without_paddle(made[0], *ROWS[:2])
    expected = [f"{row['label']}\t{row['score']:.4f}" for row in made[1].predict(ROWS[:2])]
    assert [line.rpartition("\t")[0] for line in done.stdout.decode().splitlines()] == expected
    many = [f"good film {i} é" for i in range(700)]
    done = without_paddle(made[0], texts="\n".join(many) + "\n")
    assert [line.rpartition("\t")[2] for line in done.stdout.decode().splitlines()] == many and not done.stderr
    done = subprocess.run([sys.executable, str(made[0] / "predict.py")], input=b"a \xff film\n", capture_output=True)
    assert done.returncode == 2 and done.stderr.startswith(b"error: standard input is not UTF-8 text")


def test_any_locale_and_readers_that_have_enough(folder):
    """Text comes out as it went in, without the BOM of a file; `| head -1` is no failure."""
    command = [sys.executable, str(folder / "predict.py")]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    for given in ("\ufeff很好\r\n".encode(), "很好\n".encode()):
        done = subprocess.run(command, input=given, capture_output=True, env=environment)
        assert done.stdout.decode().rpartition("\t")[2] == "很好\n" and (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run([*command, b"caf\xe9"], capture_output=True, env=environment)
    assert done.stdout.endswith(b"\tcaf\xe9\n") and (done.returncode, done.stderr) == (0, b"")
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        process.stdin.write(b"a good film\n" * 256)
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"\ta good film\n")
        process.stdout.close()
        process.communicate(b"a good film\n" * 20_000)
        assert process.returncode == 0


def swapped(folder):
    (folder / "labels.json").write_text(json.dumps(["pos", "neg"]))


def truncated(folder):
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])


def other_weights(folder):
    """Still a model: a number in it is another one."""
    model = folder / "model.onnx"
    data = bytearray(model.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 1
    model.write_bytes(data)


def further_label(folder):
    (folder / "labels.json").write_text(json.dumps(["neg", "pos", "neutral"]))


def other_vocabulary(folder):
    path = folder / "vocab.txt"
    path.write_text(path.read_text().replace("good\ngreat", "great\ngood"))


def gone(folder):
    (folder / "vocab.txt").unlink()


def other_settings(folder):
    path = folder / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def half_settings(folder):
    path = folder / "settings.json"
    path.write_text(path.read_text()[:20])


def other_golden(folder):
    """As an ONNX Runtime that calculates otherwise would be seen."""
    path = folder / "golden.json"
    golden = json.loads(path.read_text())
    golden["outputs"][1][0] += 0.01
    path.write_text(json.dumps(golden))


def other_tokens(folder):
    path = folder / "golden.json"
    golden = json.loads(path.read_text())
    golden["ids"][0][0][1] += 1
    path.write_text(json.dumps(golden))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (swapped, "labels.json: not the file that was exported"),
        (truncated, "model.onnx: truncated, or not an ONNX model"),
        (other_weights, "model.onnx: not the file that was exported"),
        (further_label, "labels.json: 3 labels, the model has 2"),
        (other_vocabulary, "vocab.txt: not the file that was exported"),
        (gone, "vocab.txt: cannot be read"),
        (other_settings, "settings.json: not of a bundle that this predict.py reads"),
        (half_settings, "settings.json: not valid JSON"),
        (other_golden, "outputs differ from those at export by 0.01, above 0.001"),
        (other_tokens, "texts are cut into other tokens than at export"),
    ],
)
def test_the_self_test_notices(spoil, expected, folder, capsys):
    assert predict.main(["--folder", str(folder), "--self_test"]) == 0
    spoil(folder)
    capsys.readouterr()
    assert predict.main(["--folder", str(folder), "--self_test"]) == 2
    out, error = capsys.readouterr()
    assert not out and expected in error and error.startswith("error: ") and len(error.splitlines()) == 1


def test_int8_is_tested_when_it_is_opened(folder, capsys):
    settings, golden = (json.loads((folder / name).read_text()) for name in ("settings.json", "golden.json"))
    golden["outputs"][1][0] += 0.01
    del golden["sha256"]["settings.json"]
    (folder / "golden.json").write_text(json.dumps(golden))
    assert predict.main(["--folder", str(folder), "a film"]) == 0
    (folder / "settings.json").write_text(json.dumps(settings | {"precision": "int8"}))
    capsys.readouterr()
    assert predict.main(["--folder", str(folder), "a film"]) == 2
    out, error = capsys.readouterr()
    assert not out and "outputs differ from those at export by 0.01, above 0.001; export the model again" in error


def test_a_wrong_row_is_one_line(made, capsys):
    assert predict.main(["--folder", str(made[0]), "a film\ta movie"]) == 2
    assert capsys.readouterr().err == "error: ['a film', 'a movie']: one text is needed\n"


def test_the_copy_runs_as_the_file_it_is(made, capsys, monkeypatch):
    """Without --folder it serves the folder it lies in."""
    monkeypatch.setattr(sys, "argv", [str(made[0] / "predict.py"), "a good film"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(made[0] / "predict.py"), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.split("\t")[0] in ("neg", "pos")


def test_the_card_says_what_it_was_given():
    facts, limits = {"Data": "SST-2", "Teacher": "big"}, ["It is small."]
    found = bundle.card("A model", facts, "SCORES", "STEPS", "SIZES", limits, None, ["ein Text", "中文"])
    assert found.startswith("# A model\n\n- Data: SST-2\n- Teacher: big\n")
    assert '.predict([["ein Text", "中文"]])' in found and "## Licence\n\nNot stated." in found
    assert "## Limits\n\n- It is small.\n" in found and all(x in found for x in ("SCORES", "STEPS", "SIZES"))
    assert bundle.card("A", {}, "", "", "", [], "Apache-2.0", "a").endswith("## Licence\n\nApache-2.0\n")
    assert bundle.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
