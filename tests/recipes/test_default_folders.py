"""Runs without --output_dir, called as the published models are, and found again by task and name alone."""

import numpy as np
import pytest

from distill import naming
from distill.cli import parse
from distill.evaluation.predictions import load_predictions
from distill_lstm import bert_distill, small
from distill_lstm.args import DistillArgs
from glue import run_glue
from kd import task_distill as kd
from pkd import task_distill as pkd
from tests.recipes.runs import read
from tests.tiny import make_bert_folder, make_glue_data
from theseus import task_distill as theseus
from tinybert import task_distill as tinybert
from tinybert.args import TaskDistillArgs
from tools import evaluate
from virt import run_classifier_bipartition, sbert_distill

LSTM = "--emb_dim 8 --hidden_size 8 --optimizer adamw --n_iter 1"
# Method of the scripts, recipe, flags of the published run, its name there (Theseus has none there).
RUNS = [
    (
        "teacher", run_glue, "--task_name SST-2 --num_train_epochs 3 --lr 2e-5 --weight_decay 1e-4",
        "SST-2_epoch-3_lr-2e-5_wd-0.0001",
    ),
    (
        "teacher", run_glue, "--task_name MRPC --num_train_epochs 5 --lr 1e-5 --weight_decay 0.001",
        "MRPC_epoch-5_lr-1e-5_wd-0.001",
    ),
    (
        "kd", kd, "--task_name MRPC --num_train_epochs 5 --lr 2e-5 --weight_decay 0.001 --student_layers 3",
        "bert-kd-distl_epoch-5_lr-2e-5_wd-0.001_kd_alpha-0.8",
    ),
    (
        "distilled_lstm", bert_distill,
        f"--task_name MRPC --num_train_epochs 30 --lr 5e-6 --weight_decay 0.001 --alpha 0.7 {LSTM}",
        "bert-distilled_lstm_epoch-30_lr-5e-6_wd-0.001_kd_alpha-0.7",
    ),
    (
        "bert_pkd", pkd,
        "--task_name SST-2 --num_train_epochs 4 --lr 2e-5 --weight_decay 1e-4 --alpha 0.2 --beta 10 --student_layers 3",
        "bert-pkd_3_epoch-4_lr-2e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10",
    ),
    (
        "tinybert", tinybert,
        "--task_name SST-2 --num_train_epochs 4 --lr 2e-5 --weight_decay 1e-4 --student_layers 3",
        "tinybert_epoch-4_lr-2e-5_wd-0.0001",
    ),
    (
        "theseus", theseus, "--config mrpc",
        "bert-theseus_3_epoch-10_lr-1e-5_wd-0",
    ),
]  # fmt: skip
SHORT = "--max_steps 2 --batch_size 4 --max_seq_length 32"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project folder with data/glue_data, and in it a teacher that knows nothing."""
    monkeypatch.setattr(naming, "ROOT", tmp_path)
    for name in ("STUDENT_DIR", "DATA_ROOT", "RESULT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for task in ("SST-2", "MRPC"):
        make_glue_data(tmp_path / "data" / "glue_data", task, rows=16)
    make_bert_folder(tmp_path / "bert", layers=6, hidden=16)
    return tmp_path


def trained(root, recipe, flags):
    """The folder that the recipe has chosen; nothing but it is new in models/."""
    argv = [*f"{SHORT} {flags}".split(), "--data_dir", str(root / "data" / "glue_data")]
    if recipe in (run_glue, small):
        argv += ["--model_name" if recipe is small else "--model_name_or_path", str(root / "bert")]
    else:
        argv += ["--cache_dir", str(root / "cache"), "--skip_teacher_check", "true"]
        argv += [] if "--teacher_path" in flags else ["--teacher_path", str(root / "bert")]
    before = folders(root)
    folder = recipe.main(argv)
    assert folders(root) - before == {folder}
    return folder


def folders(root):
    """The folders in models/ that hold a model, a first stage's student left out."""
    found = {path.parent for path in (root / "models").rglob("model.safetensors")}
    return {path for path in found if "stages" not in path.parts}


def scored_again(folder, *words):
    """`words` make tools/evaluate.py find this folder and write its numbers once more."""

    def numbers():
        scores = {key: read(folder / "results_eval.json")[key] for key in ("accuracy", "f_1", "metric", "rows")}
        return scores, load_predictions(folder)["dev"].logits

    scores, logits = numbers()
    for name in ("results_eval.json", "dev_predictions.tsv"):
        (folder / name).unlink()
    assert evaluate.main(list(words))["dev"]["rows"] == scores["rows"] == 8
    again = numbers()
    assert again[0] == pytest.approx(scores)
    np.testing.assert_allclose(again[1], logits, atol=1e-5)


@pytest.mark.parametrize(("method", "recipe", "flags", "name"), RUNS, ids=[f"{run[0]}-{run[2][:17]}" for run in RUNS])
def test_a_run_is_found_by_its_published_name(method, recipe, flags, name, root):
    folder = trained(root, recipe, flags)
    task = read(folder / "run.json")["task"]
    home = "teacher_model" if method == "teacher" else f"student_model/{method}"
    assert folder == root / "models" / home / task / name
    scored_again(folder, "--method", method, "cpu", task, name)
    scored_again(folder, "--method", method, task)  # the only model needs no name


def test_virt_and_its_teacher_are_found_by_their_names(root):
    rates = "--task_name MRPC --num_train_epochs 2"
    lengths = "--max_seq_length_query 14 --max_seq_length_doc 18 --max_seq_length 31"
    start = f"{SHORT} {rates} {lengths} --init_checkpoint {root / 'bert'} --data_dir {root / 'data' / 'glue_data'}"
    teacher = run_classifier_bipartition.main(start.split())
    name = "MRPC_bipartition_epoch-2_lr-5e-5_wd-0.01"
    assert teacher == root / "models" / "teacher_model" / "MRPC" / name
    scored_again(teacher, "--method", "teacher", "cpu", "MRPC", name)
    student = trained(root, sbert_distill, f"{rates} {lengths} --teacher_path {teacher}")
    name = "late_fusion_att-700_epoch-2_lr-5e-5_wd-0.01"
    assert student == root / "models" / "student_model" / "virt" / "MRPC" / name
    scored_again(student, "--method", "virt", "cpu", "MRPC", name)


def test_every_method_is_run_here():
    run = {method: recipe for method, recipe, *_ in RUNS} | {"virt": sbert_distill}
    assert {method: f"{recipe.__name__.replace('.', '/')}.py" for method, recipe in run.items()} == evaluate.TRAINED_BY


def test_the_bilstm_alone_is_scored_by_its_folder(root):
    folder = trained(root, small, f"--task_name MRPC --lr 1e-2 --num_train_epochs 2 {LSTM}")
    name = "bilstm_epoch-2_lr-0.01_wd-0"
    assert folder == root / "models" / "student_model" / "bilstm_alone" / "MRPC" / name
    scored_again(folder, str(folder), "--task_name", "MRPC", "--data_dir", str(root / "data" / "glue_data"))


@pytest.mark.parametrize(
    ("epochs", "rate", "decay", "rest"),
    [
        (10, "7e-5", "0.0001", "epoch-10_lr-7e-5_wd-0.0001"),
        (30, "5e-5", "1e-4", "epoch-30_lr-5e-5_wd-0.0001"),
        (100, "5e-5", "1e-4", "epoch-100_lr-5e-5_wd-0.0001"),
        (5, "1e-4", "1e-4", "epoch-5_lr-1e-4_wd-0.0001"),
        (100, "0.00007", "1e-4", "epoch-100_lr-7e-5_wd-0.0001"),
    ],
)
def test_published_names_of_the_lstm_and_tinybert(epochs, rate, decay, rest):
    flags = f"--num_train_epochs {epochs} --lr {rate} --weight_decay {decay}".split()
    lstm = parse(DistillArgs, [*flags, "--optimizer", "adamw", "--alpha", "0.7"])
    assert bert_distill.run_name(lstm) == f"bert-distilled_lstm_{rest}_kd_alpha-0.7"
    assert tinybert.run_name(parse(TaskDistillArgs, flags)) == f"tinybert_{rest}"
    one = parse(TaskDistillArgs, [*flags, "--pred_distill", "--prediction_epochs", "2"])
    assert tinybert.run_name(one) == "tinybert-prediction_epoch-2_lr-3e-5_wd-0.0001"
