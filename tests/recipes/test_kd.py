"""kd/task_distill.py from end to end: students of every origin, the loss by hand, control arm, resuming, names."""

import json
import shutil

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import BertForSequenceClassification

from distill.cli import parse
from distill.data.tasks import get_task, load_rows
from distill.encoders.folder import load_bert
from distill.errors import UserError
from distill.evaluation.predictions import load_predictions
from distill.options import TaskOptions, TeacherOptions
from distill.teachers.teacher import Teacher
from distill.tensors import load_tensors
from kd import task_distill
from kd.args import KDArgs
from tests.recipes.runs import interrupted, metrics, read, refused, taught
from tests.tiny import make_bert_folder

STUDENTS = {
    "SST-2": ("--student_init", "random", "--student_layers", 2, "--student_hidden_size", 16, "--student_heads", 2),
    "MRPC": ("--student_layers", 2),
    "STS-B": ("--student_init", "2,4"),
}


@pytest.mark.parametrize("task", STUDENTS)
def test_from_end_to_end(task, data_dir, deep_teachers, tmp_path):
    argv = taught(data_dir, deep_teachers(task), tmp_path / "run", task, *STUDENTS[task])
    folder = task_distill.main(argv)
    names = {"run.yaml", "run.json", "metrics.jsonl", "results_eval.json", "dev_predictions.tsv", "vdl"}
    names |= {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names
    facts, result, metric = read(folder / "run.json"), read(folder / "results_eval.json"), get_task(task).metric
    assert facts["finished"] and facts["rows"] == 2 * 96 == 2 * facts["train_rows"]
    assert result[metric] == pytest.approx(max(row["dev"][metric] for row in metrics(folder) if "dev" in row), abs=1e-6)
    assert metrics(folder)[0]["losses"].keys() == {"teacher", "label"}

    # The student is a plain BERT for PaddleNLP, and its predictions are those of the results.
    student = BertForSequenceClassification.from_pretrained(str(folder))
    student.eval()
    assert student.config.num_hidden_layers == 2
    assert result["parameters"] == sum(p.size for p in student.parameters())
    rows = load_rows(TaskOptions(task_name=task, data_dir=str(data_dir)), get_task(task), "dev")
    row = Teacher(deep_teachers(task), get_task(task), 32, TeacherOptions()).encode(rows).pad([3])
    logits = student(paddle.to_tensor(row["input_ids"]), paddle.to_tensor(row["token_type_ids"]))
    np.testing.assert_allclose(load_predictions(folder)["dev"].logits[3], logits.numpy()[0], atol=1e-5)


def test_a_random_student_of_scores_starts_at_their_mean(data_dir, deep_teachers, tmp_path):
    flags = ("--student_init", "random", "--student_layers", 2, "--learning_rate", "1e-30", "--max_steps", 1)
    folder = task_distill.main(taught(data_dir, deep_teachers("STS-B"), tmp_path / "run", "STS-B", *flags))
    labels = load_rows(TaskOptions(task_name="STS-B", data_dir=str(data_dir)), get_task("STS-B"), "train").labels
    bias = load_bert(folder, 1, head="stored").classifier.bias.numpy()
    assert bias == pytest.approx(labels.mean(), abs=1e-4) and bias > 1


def test_a_short_run_asks_the_teacher_about_its_own_rows_only(data_dir, deep_teachers, tmp_path, capsys):
    flags = ("--student_layers", 2, "--max_steps", 3, "--batch_size", 8)
    task_distill.main(taught(data_dir, deep_teachers("SST-2"), tmp_path / "run", "SST-2", *flags))
    said = capsys.readouterr().out
    assert "teacher cache: 24 rows asked" in said and "are cut" not in said


def test_how_many_rows_are_cut_is_said(data_dir, deep_teachers, tmp_path, capsys):
    flags = ("--student_layers", 2, "--max_steps", 1, "--max_seq_length", 4, "--skip_teacher_check", "true")
    task_distill.main(taught(data_dir, deep_teachers("SST-2"), tmp_path / "run", "SST-2", *flags))
    assert "96 of 96 training rows are longer than --max_seq_length 4 and are cut\n" in capsys.readouterr().out


def test_from_a_general_distilled_folder(data_dir, deep_teachers, encoder, tmp_path):
    flags = ("--student_model_name_or_path", encoder, "--learning_rate", "1e-30", "--num_train_epochs", 1)
    folder = task_distill.main(taught(data_dir, deep_teachers("SST-2"), tmp_path / "run", "SST-2", *flags))
    start, end = load_tensors(encoder / "model.safetensors"), load_tensors(folder / "model.safetensors")
    for name, value in start.items():
        np.testing.assert_allclose(end[f"bert.{name}"], value, atol=1e-20)


def test_from_a_general_distilled_student_of_paddlenlp(data_dir, deep_teachers, encoder, tmp_path):
    """It is a BERT under another name, with projections; the run knows it by its weights."""
    from paddlenlp.transformers import TinyBertConfig, TinyBertForPretraining

    sizes = json.loads((encoder / "config.json").read_text())
    sizes = {k: v for k, v in sizes.items() if k.endswith("_size") or k.startswith(("num_", "max_"))}
    for seed in (1, 2):
        paddle.seed(seed)
        model = TinyBertForPretraining(TinyBertConfig(**sizes, fit_size=24))
        model.save_pretrained(str(tmp_path / "general"), safe_serialization=True)
        shutil.copy(encoder / "vocab.txt", tmp_path / "general")
        flags = ("--student_model_name_or_path", tmp_path / "general", "--max_steps", 1, "--learning_rate", "1e-30")
        argv = taught(data_dir, deep_teachers("SST-2"), tmp_path / "run", "SST-2", *flags)
        if seed == 2:  # other weights in the same place are another run
            assert "holds a run with other settings (student " in refused(task_distill.main, argv, tmp_path / "run")
            continue
        folder = task_distill.main(argv)
        start, end = model.state_dict(), load_tensors(folder / "model.safetensors")
        name = "encoder.layers.1.linear2.weight"
        np.testing.assert_allclose(end[f"bert.{name}"], start[f"tinybert.{name}"].numpy(), atol=1e-20)
        assert not any("fit_dense" in name for name in end)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("flags", "soft"),
    [
        ((), lambda s, t: (softmax(t) * (np.log(softmax(t)) - np.log(softmax(s)))).sum(-1)),
        (
            ("--T", 4, "--soft_reduction", "mean"),
            lambda s, t: 16 / 2 * (softmax(t / 4) * np.log(softmax(t / 4) / softmax(s / 4))).sum(-1),
        ),
        (("--T", 4, "--soft_loss", "mse"), lambda s, t: ((s - t) ** 2).mean(-1)),
    ],
)
def test_the_logged_loss_by_hand(flags, soft, data_dir, still_teacher, tmp_path):
    """Over an epoch at standstill the mean of the logged losses is that over all training rows."""
    still = ("--learning_rate", "1e-30", "--num_train_epochs", 1, "--alpha", 0.3, *flags)
    folder = task_distill.main(
        taught(data_dir, still_teacher, tmp_path / "run", "SST-2", *still, "--student_layers", 2)
    )
    task = get_task("SST-2")
    rows = load_rows(TaskOptions(data_dir=str(data_dir)), task, "train")
    teacher = Teacher(still_teacher, task, 32, TeacherOptions(cache_dir=str(tmp_path / "cache")))
    batch = teacher.encode(rows).pad(np.arange(96))
    inputs = [paddle.to_tensor(batch[name]) for name in ("input_ids", "token_type_ids")]
    s, t = (
        model(*inputs, attention_mask=paddle.to_tensor(batch["mask"])).numpy().astype(np.float64)
        for model in (_eval(load_bert(folder, 2)), teacher.model)
    )
    (row,) = [row for row in metrics(folder) if "losses" in row]
    assert row["losses"]["teacher"] == pytest.approx(0.3 * soft(s, t).mean(), rel=1e-4)
    label = -np.log(softmax(s)[np.arange(96), rows.labels]).mean()
    assert row["losses"]["label"] == pytest.approx(0.7 * label, rel=1e-4)


def _eval(model):
    model.eval()
    return model


def test_a_copy_of_the_teacher_has_nothing_to_learn(data_dir, still_teacher, tmp_path):
    """Whatever the order of the rows: each one meets its own row of the cache."""
    flags = ("--student_layers", 4, "--alpha", 1, "--learning_rate", "1e-30", "--logging_steps", 1)
    folder = task_distill.main(taught(data_dir, still_teacher, tmp_path / "run", "SST-2", *flags))
    losses = [row["losses"] for row in metrics(folder) if "losses" in row]
    assert len(losses) == 12 and all(row.keys() == {"teacher"} and abs(row["teacher"]) < 1e-6 for row in losses)


def test_control_arm(data_dir, deep_teachers, tmp_path):
    """The same student, rows and steps without the teacher; at standstill even the same weights."""
    flags = ("--student_init", "random", "--student_layers", 1, "--logging_steps", 1, "--control")
    argv = taught(data_dir, deep_teachers("SST-2"), tmp_path / "run", "SST-2", "--learning_rate", "1e-30", *flags)
    folder = task_distill.main(argv)
    alone = folder / "control" / "alone_seed-42"
    ours, theirs = (load_tensors(path / "model.safetensors") for path in (folder, alone))
    assert all(np.allclose(ours[name], theirs[name], rtol=0, atol=1e-20) for name in ours)
    for a, b in zip(metrics(folder), metrics(alone), strict=True):
        assert a["step"] == b["step"]
        if "losses" in a:
            assert b["losses"] == {"label": pytest.approx(a["losses"]["label"] / 0.8, rel=1e-5)}
    assert read(folder / "control.json")["verdict"] == "no evidence"


def test_interrupted_and_continued(data_dir, deep_teachers, tmp_path, monkeypatch):
    def argv(name):
        flags = ("--student_layers", 2, "--save_steps", 1, "--logging_steps", 3)
        return taught(data_dir, deep_teachers("SST-2"), tmp_path / name, "SST-2", *flags)

    interrupted(task_distill.main, argv("run"), 7, monkeypatch)
    run, whole = task_distill.main(argv("run")), task_distill.main(argv("whole"))
    assert read(run / "run.json")["resumed"] == 1
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("sst2", "bert-kd-distl_epoch-4_lr-2e-5_wd-0.0001_kd_alpha-0.8"),
        ("qqp", "bert-kd-distl_epoch-5_lr-5e-5_wd-0.0001_kd_alpha-0.8"),
        ("mrpc", "bert-kd-distl_epoch-5_lr-2e-5_wd-0.001_kd_alpha-0.8"),
        ("rte", "bert-kd-distl_epoch-5_lr-2e-5_wd-0.0001_kd_alpha-0.8"),
        ("cola", "bert-kd-distl_epoch-70_lr-5e-5_wd-0.0001_kd_alpha-0.8"),
    ],
)
def test_presets_make_the_published_students(preset, name):
    args = parse(KDArgs, ["--config", preset])
    assert task_distill.run_name(args) == name
    shape = (args.student_layers, args.student_hidden_size, args.student_intermediate_size, args.student_heads)
    assert (args.student_init, *shape, args.T) == ("random", 4, 312, 1200, 12, 1.0)


def test_what_cannot_work_is_refused(data_dir, deep_teachers, tmp_path):
    def line(*flags):
        return refused(task_distill.main, taught(data_dir, deep_teachers("SST-2"), tmp_path / "run", *flags), tmp_path)

    cached = tmp_path / "warm"
    task_distill.main(taught(data_dir, deep_teachers("SST-2"), cached, "SST-2", "--student_layers", 1))
    assert "--student_layers is needed" in line("SST-2")
    assert line("SST-2", "--alpha", 0) == "--alpha 0.0: must be above 0"
    assert line("SST-2", "--student_layers", 9).startswith("the teacher has no layer 5 to copy")
    assert "its head has 2 outputs, the task needs 1" in line("STS-B", "--student_layers", 1)
    other = make_bert_folder(tmp_path / "other", layers=1, vocab=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"))
    assert "its wordpieces are not those of the teacher" in line("SST-2", "--student_model_name_or_path", other)
    with pytest.raises(UserError, match="--teacher_path is needed"):
        task_distill.main(["--task_name", "SST-2"])
