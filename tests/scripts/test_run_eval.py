"""The published evaluation commands, as they stand there, on tiny models saved where the recipes save by default."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill import cli, naming
from distill.data.tasks import get_task, load_rows
from distill.data.wordpiece import WordPiece
from distill.errors import UserError
from distill.evaluation.metrics import score
from distill.evaluation.predictions import load_predictions
from distill.options import TaskOptions
from models import bilstm
from models.predictor import open_folder
from tests.recipes.runs import no_clock, refused
from tests.tiny import FILLERS, NEGATIVE, NOUNS, POSITIVE, make_bert_folder, make_glue_data
from tools import evaluate

SCRIPTS = Path(__file__).parents[2] / "scripts"

PUBLISHED = """
bash run_eval_teacher.sh 0 SST-2 SST-2_epoch-3_lr-2e-5_wd-0.0001
bash run_eval_teacher.sh 0 QQP QQP_epoch-5_lr-2e-5_wd-0.0001
bash run_eval_teacher.sh 0 MRPC MRPC_epoch-5_lr-1e-5_wd-0.001
bash run_eval_teacher.sh 0 RTE RTE_epoch-5_lr-3e-5_wd-0.0001
bash run_eval_teacher.sh 0 CoLA CoLA_epoch-5_lr-1e-5_wd-0.01
bash run_eval_student_kd.sh 0 SST-2 bert-pkd_3_epoch-4_lr-2e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10
bash run_eval_student_kd.sh 0 QQP bert-kd-distl_epoch-5_lr-5e-5_wd-0.0001_kd_alpha-0.8
bash run_eval_student_kd.sh 0 MRPC bert-kd-distl_epoch-5_lr-2e-5_wd-0.001_kd_alpha-0.8
bash run_eval_student_kd.sh 0 RTE bert-kd-distl_epoch-5_lr-2e-5_wd-0.0001_kd_alpha-0.8
bash run_eval_student_kd.sh 0 CoLA bert-kd-distl_epoch-70_lr-5e-5_wd-0.0001_kd_alpha-0.8
bash run_eval_student_distilled_lstm.sh 0 SST-2 bert-lstm_32-distl_epoch-5_lr-1e-4_wd-0.0001_kd_alpha-0.7
bash run_eval_student_distilled_lstm.sh 0 QQP bert-distilled_lstm_epoch-10_lr-7e-5_wd-0.0001_kd_alpha-0.7
bash run_eval_student_distilled_lstm.sh 0 MRPC bert-distilled_lstm_epoch-30_lr-5e-6_wd-0.001_kd_alpha-0.7
bash run_eval_student_distilled_lstm.sh 0 RTE bert-distilled_lstm_epoch-30_lr-5e-5_wd-0.0001_kd_alpha-0.7
bash run_eval_student_distilled_lstm.sh 0 CoLA bert-distilled_lstm_epoch-100_lr-5e-5_wd-0.0001_kd_alpha-0.7
bash run_eval_student_bert_pkd.sh 0 SST-2 bert-pkd_3_epoch-4_lr-2e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10
bash run_eval_student_bert_pkd.sh 0 QQP bert-pkd_3_epoch-5_lr-5e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10
bash run_eval_student_bert_pkd.sh 0 MRPC bert-pkd_3_epoch-5_lr-2e-5_wd-0.001_kd_alpha-0.2_kd_beta-10
bash run_eval_student_bert_pkd.sh 0 RTE bert-pkd_3_epoch-5_lr-3e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10
bash run_eval_student_bert_pkd.sh 0 CoLA bert-pkd_3_epoch-100_lr-5e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10
bash run_eval_student_tinybert.sh 0 SST-2 tinybert_epoch-4_lr-2e-5_wd-0.0001
bash run_eval_student_tinybert.sh 0 QQP tinybert_epoch-5_lr-1e-4_wd-0.0001
bash run_eval_student_tinybert.sh 0 MRPC tinybert_epoch-30_lr-2e-5_wd-0.001
bash run_eval_student_tinybert.sh 0 RTE tinybert_epoch-5_lr-2e-5_wd-0.0001
bash run_eval_student_tinybert.sh 0 CoLA tinybert_epoch-100_lr-7e-5_wd-0.0001
bash run_eval_theseus.sh SST-2
bash run_eval_theseus.sh QQP
bash run_eval_theseus.sh MRPC
bash run_eval_theseus.sh RTE
"""
COMMANDS = [shlex.split(line)[1:] for line in PUBLISHED.strip().splitlines()]


def arguments(script, words):
    """What the script hands to tools/evaluate.py."""
    text = (SCRIPTS / script).read_text()
    (called,) = re.findall(r'^exec python "\$\(dirname "\$0"\)/\.\./tools/evaluate.py" (.*) "\$@"$', text, re.MULTILINE)
    return [*shlex.split(called), *words]


def method_of(script):
    return arguments(script, [])[1]


def folder_of(script, task, model_id="bert-theseus_3_epoch-10_lr-1e-5_wd-0"):
    method = method_of(script)
    if method == "teacher":
        return naming.teacher_dir(task, model_id)
    return naming.student_dir(method, task, model_id)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project folder with data/glue_data of the published tasks, and a tiny model for each published command."""
    root = tmp_path_factory.mktemp("project")
    data, rng = root / "data" / "glue_data", np.random.default_rng(0)
    for task in ("SST-2", "MRPC"):
        make_glue_data(data, task, rows=24)

    def text(label):
        words = (NEGATIVE, POSITIVE)[label]
        return f"{rng.choice(FILLERS)} {rng.choice(words)} {rng.choice(NOUNS)} {rng.choice(NOUNS)}"

    layouts = {
        "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n", "{i}\t0\t1\t{a}\t{b}\t{label}\n"),
        "RTE": ("index\tsentence1\tsentence2\tlabel\n", "{i}\t{a}\t{b}\t{name}\n"),
        "CoLA": ("", "gj04\t{label}\t\t{a}\n"),
    }
    for task, (head, row) in layouts.items():
        (data / task).mkdir()
        for split in ("train", "dev"):
            lines = [
                row.format(i=i, a=text(i % 2), b=text(i % 2), label=i % 2, name=get_task("RTE").labels[i % 2])
                for i in range(12)
            ]
            (data / task / f"{split}.tsv").write_text(head + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(naming, "ROOT", root)
        made = {}
        for script, *words in COMMANDS:
            task, pair = get_task(words[-1] if len(words) == 1 else words[1]), get_task(words[-2:][0]).pair
            folder = folder_of(script, task.name, *words[2:])
            if method_of(script) == "distilled_lstm":
                vocabulary = WordPiece.from_folder(made["0", "1"])
                model = bilstm.create(bilstm.BiLSTMConfig(vocabulary.size, task.labels, pair, 4, 3, max_length=16), 0)
                folder.mkdir(parents=True)
                bilstm.save_student(folder, model, bilstm.Reader(vocabulary, "en", 16))
            elif task.labels in made:
                shutil.copytree(made[task.labels], folder)
            else:
                made[task.labels] = make_bert_folder(folder, task.labels, layers=1, hidden=16)
    return root


@pytest.fixture(autouse=True)
def _place(root, monkeypatch):
    monkeypatch.setattr(naming, "ROOT", root)
    no_clock(monkeypatch)
    for name in ("STUDENT_DIR", "DATA_ROOT", "RESULT_DIR", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_scripts_are_three_lines_that_call_one_tool():
    scripts = sorted(path.name for path in SCRIPTS.glob("run_eval_*.sh"))
    assert scripts == sorted({script for script, *_ in COMMANDS})
    for script in scripts:
        lines = (SCRIPTS / script).read_text().splitlines()
        assert len(lines) == 3 and f"bash {script} GPU TASK MODEL_ID" in lines[1]
        assert method_of(script) in evaluate.TRAINED_BY and os.access(SCRIPTS / script, os.X_OK)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command[:3]))
def test_published_command(command, root, capsys):
    script, *words = command
    evaluate.main(arguments(script, words))
    task = get_task(words[0] if len(words) == 1 else words[1])
    folder = folder_of(script, task.name, *words[2:])
    written = json.loads((folder / "results_eval.json").read_text())
    head = ["accuracy", "MCC", "precision", "recall", "f_1", "modelSize", "reasoningTime"]
    assert list(written)[:7] == head and written["metric"] == ("MCC" if task.name == "CoLA" else "accuracy")
    dev = load_rows(TaskOptions(task_name=task.name, data_dir=str(root / "data" / "glue_data")), task, "dev")
    expected = score(open_folder(folder).logits(dev.text_a, dev.text_b, 8), dev.labels, task)
    assert {name: written[name] for name in head[:5]} == pytest.approx(expected)
    assert written["modelSize"] == f"{(folder / 'model.safetensors').stat().st_size / 1e6:.2f} MB"
    said = capsys.readouterr().out
    assert ("GPU 0: paddle sees none, evaluating on the CPU" in said) == (len(words) == 3)
    assert f"written: {folder / 'results_eval.json'}" in said


def test_a_real_call_from_another_folder(root, tmp_path):
    """cpu, DATA_ROOT, STUDENT_DIR and RESULT_DIR of the environment; relative ones count from where one stands."""
    model = make_bert_folder(tmp_path / "mine" / "RTE" / "my-model", get_task("RTE").labels, layers=1, hidden=16)
    shutil.copytree(root / "data" / "glue_data", tmp_path / "glue")
    places = {"DATA_ROOT": "glue", "STUDENT_DIR": "mine", "RESULT_DIR": "found/here"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPTS / "run_eval_student_kd.sh"), "cpu", "RTE", "my-model"],
        cwd=tmp_path, env=os.environ | places | {"PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {"results_eval.json", "dev_predictions.tsv", "evaluation.json"}
    assert {path.name for path in (tmp_path / "found" / "here").iterdir()} == names
    assert not names & {path.name for path in model.iterdir()}
    assert "RTE dev: accuracy" in done.stdout and "paddle sees none" not in done.stdout


@pytest.mark.parametrize("config", ["config.json", "model_config.json"])
def test_student_dir_may_be_the_model_itself(config, root, tmp_path, monkeypatch):
    script, *words = COMMANDS[20]
    shutil.copytree(folder_of(script, *words[1:]), tmp_path / "own")
    (tmp_path / "own" / "config.json").rename(tmp_path / "own" / config)
    monkeypatch.setenv("STUDENT_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("RESULT_DIR", "")  # as unset
    evaluate.main(arguments(script, words))
    assert (tmp_path / "own" / "results_eval.json").is_file()
    monkeypatch.setenv("STUDENT_DIR", "nowhere")
    evaluate.main(arguments("run_eval_teacher.sh", COMMANDS[0][1:]))  # a teacher is no student


@pytest.mark.parametrize(("more", "length"), [((), 5), (("--max_seq_length", "6"), 6)])
def test_a_bert_reads_as_many_tokens_as_in_its_training(more, length, root, tmp_path):
    model = make_bert_folder(tmp_path / "model", layers=1, hidden=16)
    (model / "run.yaml").write_text("max_seq_length: 5\n")
    data = root / "data" / "glue_data"
    evaluate.main([str(model), "--task_name", "SST-2", "--data_dir", str(data), *more])
    dev = load_rows(TaskOptions(data_dir=str(data)), get_task("SST-2"), "dev")
    logits = {n: open_folder(model, n).logits(dev.text_a, None, 128) for n in (length, 128)}
    found = load_predictions(model)["dev"].logits
    np.testing.assert_allclose(found, logits[length], atol=1e-5)
    assert np.abs(found - logits[128]).max() > 1e-3


def test_a_model_without_label_names_answers_in_the_tasks_order(tmp_path, capsys):
    """Labels that are numbers from 1 on, and a model that numbers its classes from 0 because nobody named them."""
    model = make_bert_folder(tmp_path / "model", [f"LABEL_{i}" for i in range(3)], layers=1, hidden=16)
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\n" + "good\t1\nbad\t2\nfilm\t3\n" * 2)
    own = ["--train_file", str(tmp_path / "train.tsv"), "--dev_file", str(tmp_path / "dev.tsv")]
    assert evaluate.main([str(model), *own])["dev"]["rows"] == 6
    named = make_bert_folder(tmp_path / "named", "012", layers=1, hidden=16)
    assert "has other labels (0, 1, 2) than own (1, 2, 3)" in refused(evaluate.main, [str(named), *own], named)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_may_be_missing_but_not_damaged(split, root, tmp_path, capsys):
    model = make_bert_folder(tmp_path / "model", layers=1, hidden=16)
    data = shutil.copytree(root / "data" / "glue_data" / "SST-2", tmp_path / "data" / "SST-2")
    file = data / f"{split}.tsv"
    file.write_text("sentence\tlabel\na good film\t1\na bad film\t7\n")
    call = lambda: evaluate.main([str(model), "--task_name", "SST-2", "--data_dir", str(data.parent)])  # noqa: E731
    with pytest.raises(SystemExit) as ended:
        cli.run(call)
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.err == f"error: {file}:3: unknown label '7' (known: 0, 1)\n"
    assert "left out" not in said.out and not (model / "results_eval.json").exists()
    file.unlink()
    assert set(call()) == {"dev"}
    assert f"left out: {file}: no such file" in capsys.readouterr().out


def refusal(script, *words):
    with pytest.raises(UserError) as error:
        evaluate.main(arguments(script, words))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_model_that_is_not_there_is_answered_with_those_that_are(root, tmp_path, monkeypatch):
    line = refusal("run_eval_student_tinybert.sh", "cpu", "SST-2", "tinybert_epoch-9")
    assert line.endswith("tinybert_epoch-9: no such model; there are: tinybert_epoch-4_lr-2e-5_wd-0.0001")
    line = refusal("run_eval_student_tinybert.sh", "cpu", "RTE", COMMANDS[8][3])
    assert "no such model (kd has one of this name); there are: tinybert_epoch-5" in line
    line = refusal("run_eval_theseus.sh", "CoLA")
    assert line.endswith(f"{Path('theseus') / 'CoLA'}: no model is there; theseus/task_distill.py trains one")
    line = refusal("run_eval_theseus.sh", "0", "CoLA", COMMANDS[24][3])
    assert line.endswith("no model is there (tinybert has one of this name); theseus/task_distill.py trains one")
    for name in ("b", "a"):
        make_bert_folder(tmp_path / "SST-2" / name, layers=1, hidden=16)
    monkeypatch.setenv("STUDENT_DIR", str(tmp_path))
    assert refusal("run_eval_theseus.sh", "SST-2").endswith("several models, give a MODEL_ID; there are: a, b")
    assert refusal("run_eval_theseus.sh", "0", "SST-2", "c").endswith("no such model; there are: a, b")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "give GPU TASK MODEL_ID"),
        (["0", "SST-2"], "give GPU TASK MODEL_ID"),
        (["gpu", "SST-2", "x"], "gpu: GPU is a device's number, such as 0, or cpu"),
        (["0", "SST2-2", "x"], "--task_name SST2-2: unknown; known are CoLA, SST-2"),
    ],
)
def test_words_that_are_none(words, expected):
    assert refusal("run_eval_student_kd.sh", *words).startswith(expected)


def test_data_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    assert refusal(*COMMANDS[0]).startswith(f"{tmp_path}/dev.tsv: no such file (the dev split of SST-2)")
