"""tinybert/task_distill.py from end to end: both stages, their losses, where students come from, killed runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

from distill.cli import parse
from distill.data.tasks import get_task, load_rows
from distill.encoders.folder import PROJECTIONS, load_bert, load_projections
from distill.encoders.taps import Taps
from distill.evaluation.evaluate import bert_forward, predict
from distill.options import TaskOptions, TeacherOptions
from distill.teachers.teacher import Teacher
from distill.tensors import load_tensors
from tests.recipes.runs import interrupted, metrics, read, refused, taught
from tests.tiny import SPECIAL, VOCAB, make_bert_folder
from tinybert import task_distill
from tinybert.args import TaskDistillArgs

LAYERS = ("embedding", "hidden", "attention")
NARROW = ("--student_layers", 2, "--student_hidden_size", 16)
STILL = ("--learning_rate", "1e-30", "--prediction_learning_rate", "1e-30", "--logging_steps", 1)


def flags(data_dir, teacher, folder, task="SST-2", *more):
    """2 epochs of the first stage, 1 of the second: 12 and 6 steps of 16 of the 96 rows."""
    if not {"--student_layers", "--student_init", "--model_name_or_path"} & set(more):
        more = (*NARROW, *more)
    return taught(data_dir, teacher, folder, task, "--prediction_epochs", 1, "--logging_steps", 3, *more)


def losses(folder):
    return [row["losses"] for row in metrics(folder) if "losses" in row]


def same_weights(a, b):
    return (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def first_stage(folder):
    return folder / "stages" / "intermediate"


# From end to end


@pytest.mark.parametrize("task", ["SST-2", "MRPC", "STS-B"])
def test_both_stages(task, data_dir, deep_teachers, tmp_path):
    folder = task_distill.main(flags(data_dir, deep_teachers(task), tmp_path / "run", task))
    assert {name for row in losses(first_stage(folder)) for name in row} == set(LAYERS)
    assert {name for row in losses(folder) for name in row} == {"prediction"}
    assert [read(home / "run.json")["steps"] for home in (first_stage(folder), folder)] == [12, 6]
    assert not any("dev" in row for row in metrics(first_stage(folder)))
    outputs = 1 if task == "STS-B" else 2
    student = load_bert(folder, outputs, head="stored")
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (2, 16)
    result = read(folder / "results_eval.json")
    assert result["parameters"] == sum(p.size for p in student.parameters())
    rows = load_rows(TaskOptions(task_name=task, data_dir=str(data_dir)), get_task(task), "dev")
    teacher = Teacher(deep_teachers(task), get_task(task), 32, TeacherOptions(cache_dir=str(tmp_path / "cache")))
    student.eval()
    logits = predict(bert_forward(student), teacher.encode(rows), 16)
    if task == "STS-B":
        assert result["pearson"] == pytest.approx(np.corrcoef(logits[:, 0], rows.labels)[0, 1], abs=1e-5)
    else:
        assert result["accuracy"] == pytest.approx((logits.argmax(axis=1) == rows.labels).mean())
    # The projections serve the first stage: they stay with its student and are no part of the last one.
    assert (first_stage(folder) / PROJECTIONS).is_file() and not (folder / PROJECTIONS).exists()
    assert set(load_tensors(folder / "model.safetensors")) == set(student.state_dict())


def test_two_commands_are_one(data_dir, deep_teachers, tmp_path, capsys):
    whole = task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "whole"))
    first = flags(data_dir, deep_teachers("SST-2"), tmp_path / "first", "SST-2", *NARROW, "--intermediate_distill")
    first = task_distill.main(first)
    assert same_weights(first, first_stage(whole)) and not (first / "results_eval.json").exists()
    assert capsys.readouterr().out.endswith(f"written: {first}\n")
    alone = ("--pred_distill", "--model_name_or_path", first)
    second = task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "second", "SST-2", *alone))
    assert same_weights(second, whole)
    assert "prediction stage: --prediction_epochs 1 --prediction_learning_rate 3e-05\n" in capsys.readouterr().out
    assert (second / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_second_run_asks_the_teacher_nothing(data_dir, deep_teachers, tmp_path, monkeypatch):
    first = task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "first"))
    monkeypatch.setattr(Teacher, "_forward", None)
    second = task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "second"))
    assert same_weights(first, second)


def test_a_finished_run_is_left_alone_and_overwritten_whole(data_dir, deep_teachers, tmp_path, monkeypatch, capsys):
    argv = flags(data_dir, deep_teachers("SST-2"), tmp_path / "run")
    folder = task_distill.main(argv)
    with monkeypatch.context() as patch:
        patch.setattr("distill.training.fit.fit", None)
        task_distill.main(argv)
    assert "holds this run, finished" in capsys.readouterr().out
    assert "seed 42 there, 7 now" in refused(task_distill.main, [*argv, "--seed", "7"], folder)
    task_distill.main([*argv, "--seed", "7", "--overwrite", "true"])
    assert [read(home / "run.json")["seed"] for home in (first_stage(folder), folder)] == [7, 7]


def test_it_learns(data_dir, deep_teachers, tmp_path):
    """With a copy of every second layer, in a few epochs."""
    more = ("--student_init", "2,4", "--num_train_epochs", 8, "--prediction_epochs", 4)
    more += ("--prediction_learning_rate", "1e-3")
    folder = task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "run", "SST-2", *more))
    first, *_, last = losses(first_stage(folder))
    assert all(last[name] < 0.8 * first[name] for name in ("hidden", "attention"))
    assert read(folder / "results_eval.json")["accuracy"] > 0.7


# The losses


@pytest.mark.parametrize("task", ["SST-2", "STS-B"])
def test_a_copy_of_the_teacher_has_no_loss(task, data_dir, deep_teachers, tmp_path):
    """At every step, so the rows of the cache are those of the batch; what the predictions leave is entropy."""
    still = shutil.copytree(deep_teachers(task), tmp_path / "still")
    (still / "model_config.json").unlink()
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(read(still / "config.json") | none))
    for form in ("paper", "official"):
        more = ("--student_layers", 4, "--loss_form", form, *STILL)
        folder = task_distill.main(flags(data_dir, still, tmp_path / form, task, *more))
        inner = losses(first_stage(folder))
        assert len(inner) == 12 and all(abs(row[name]) < 1e-8 for row in inner for name in LAYERS)
        if task == "STS-B" and form == "paper":
            assert all(abs(row["prediction"]) < 1e-8 for row in losses(folder))


@pytest.mark.parametrize("form", ["paper", "official"])
def test_the_losses_are_those_of_the_equations(form, data_dir, still_teacher, tmp_path):
    """All rows in one batch with nothing learned, against float64 and the models' own states, row by row.

    Official: one projection for all, padding counts in the means with no difference, predictions are averaged over
    classes.
    """
    more = ("--student_init", "random", *NARROW, "--layer_map", "1,4", "--T", 2, "--batch_size", 1000)
    more += ("--loss_form", form)
    folder = task_distill.main(flags(data_dir, still_teacher, tmp_path / "run", "SST-2", *more, *STILL))
    student, teacher = (load_bert(path, 2, head="stored") for path in (first_stage(folder), still_teacher))
    maps, official = load_projections(first_stage(folder)), form == "official"
    assert ("fit_dense.weight" in maps) == official == (len(maps) == 2)
    rows = load_rows(TaskOptions(data_dir=str(data_dir)), get_task("SST-2"), "train")
    encoded = Teacher(still_teacher, get_task("SST-2"), 32, TeacherOptions(cache_dir=str(tmp_path / "cache"))).encode(
        rows
    )
    expected, longest = dict.fromkeys((*LAYERS, "prediction"), 0.0), encoded.lengths.max()
    student.eval(), teacher.eval()
    for i in range(len(rows)):
        batch = {name: paddle.to_tensor(value) for name, value in encoded.pad([i]).items()}
        with Taps(student, scores=True) as ours, Taps(teacher, scores=True) as theirs, paddle.no_grad():
            s, t = (bert_forward(model)(batch).numpy().astype(np.float64)[0] / 2 for model in (student, teacher))
        real = encoded.lengths[i] / longest if official else 1.0
        for mine, other in ((0, 0), (1, 1), (2, 4)):
            name = "fit_dense" if official else f"fit_denses.{mine}"
            state = ours.hidden[mine].numpy().astype(np.float64) @ maps[f"{name}.weight"] + maps[f"{name}.bias"]
            expected["hidden" if mine else "embedding"] += real * ((state - theirs.hidden[other].numpy()) ** 2).mean()
        for mine, other in ((0, 0), (1, 3)):
            squares = (ours.scores[mine].numpy() - theirs.scores[other].numpy()) ** 2
            expected["attention"] += real**2 * squares.mean()
        p = np.exp(t) / np.exp(t).sum()
        expected["prediction"] -= (p * (s - np.log(np.exp(s).sum()))).sum() / (2 if official else 1)
    assert losses(first_stage(folder))[0] == pytest.approx(
        {name: expected[name] / len(rows) for name in LAYERS}, rel=1e-4
    )
    assert losses(folder)[0] == pytest.approx({"prediction": expected["prediction"] / len(rows)}, rel=1e-4)


def test_forms_of_the_predictions(data_dir, still_teacher, deep_teachers, tmp_path):
    """The published code averages over classes too, and in regression learns from the labels."""

    def prediction(task, teacher, form):
        more = (*NARROW, "--pred_distill", "--loss_form", form, "--batch_size", 1000, *STILL)
        return losses(task_distill.main(flags(data_dir, teacher, tmp_path / f"{task} {form}", task, *more)))[0]

    paper, official = (prediction("SST-2", still_teacher, form)["prediction"] for form in ("paper", "official"))
    assert official == pytest.approx(paper / 2, rel=1e-5)
    paper, official = (
        prediction("STS-B", deep_teachers("STS-B"), form)["prediction"] for form in ("paper", "official")
    )
    labels = load_rows(TaskOptions(task_name="STS-B", data_dir=str(data_dir)), get_task("STS-B"), "train").labels
    assert official == pytest.approx(labels.var(), rel=0.2)  # a new head says about the mean
    assert paper != pytest.approx(official, rel=1e-3)


def test_control_has_the_same_steps_on_the_labels(data_dir, still_teacher, tmp_path):
    argv = flags(data_dir, still_teacher, tmp_path / "run", "SST-2", *NARROW, "--control", *STILL)
    folder = task_distill.main(argv)
    alone = folder / "control" / "alone_seed-42"
    for home, steps in ((first_stage(alone), 12), (alone, 6)):
        assert read(home / "run.json")["steps"] == steps
        assert {name for row in losses(home) for name in row} == {"label"}
    ours, theirs = (load_tensors(path / "model.safetensors") for path in (folder, alone))
    assert all(np.allclose(ours[name], theirs[name], rtol=0, atol=1e-20) for name in ours)
    assert read(folder / "control.json")["seeds"] == [42]


# Students


def test_layers_of_the_teacher(data_dir, still_teacher, tmp_path):
    def start(name, *more):
        folder = task_distill.main(flags(data_dir, still_teacher, tmp_path / name, "SST-2", *more, *STILL))
        assert not (first_stage(folder) / PROJECTIONS).exists()
        return load_tensors(folder / "model.safetensors")

    theirs = load_tensors(still_teacher / "model.safetensors")
    for chosen, found in (
        ((1, 2), start("first", "--student_layers", 2)),
        ((3, 4), start("last", "--student_init", "3,4")),
    ):
        for i, layer in enumerate(chosen):
            name = "bert.encoder.layers.{}.linear1.weight"
            np.testing.assert_allclose(found[name.format(i)], theirs[name.format(layer - 1)], atol=1e-20)
        np.testing.assert_allclose(found["classifier.weight"], theirs["classifier.weight"], atol=1e-20)


@pytest.mark.parametrize("stored", ["fit_denses", "fit_dense", "both"])
def test_students_of_paddlenlp_with_their_projections(stored, data_dir, still_teacher, tmp_path, capsys):
    """As tinybert-*-v2 and the others are stored: the keys decide; what they hold is where the projections start.
    PaddleNLP's own scripts write both kinds, of which one was trained: which is used is said, once."""
    from paddlenlp.transformers import TinyBertConfig, TinyBertForPretraining

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    student = TinyBertForPretraining(
        TinyBertConfig(vocab_size=len(VOCAB), max_position_embeddings=64, type_vocab_size=2, fit_size=32, **sizes)
    )
    student.save_pretrained(str(tmp_path / "student"), safe_serialization=True)
    state = load_tensors(tmp_path / "student" / "model.safetensors")
    kept = {name: array for name, array in state.items() if ".fit_dense" not in name or f".{stored}." in name}
    from distill.tensors import save_tensors

    save_tensors(tmp_path / "student" / "model.safetensors", state if stored == "both" else kept)
    shutil.copy(still_teacher / "vocab.txt", tmp_path / "student")
    more = ("--model_name_or_path", tmp_path / "student", *STILL)
    folder = task_distill.main(flags(data_dir, still_teacher, tmp_path / "run", "SST-2", *more))
    found = load_projections(first_stage(folder))
    assert capsys.readouterr().out.count("--projection shared takes the others") == (stored == "both")
    first = "fit_dense" if stored == "fit_dense" else "fit_denses.0"
    np.testing.assert_allclose(found[f"{first}.weight"], state[f"tinybert.{first}.weight"], atol=1e-20)
    names = {name.rpartition(".")[0] for name in found}
    per_layer = {"fit_denses.0", "fit_denses.1", "fit_denses.2"}
    assert names == ({"fit_dense", "fit_dense_embedding"} if stored == "fit_dense" else per_layer)
    name = "encoder.layers.1.linear2.weight"
    stored = load_tensors(first_stage(folder) / "model.safetensors")[f"bert.{name}"]
    np.testing.assert_allclose(stored, state[f"tinybert.{name}"], atol=1e-20)


def test_a_named_student_keeps_its_weights_whatever_sizes_are_said_too(data_dir, still_teacher, tmp_path):
    student = make_bert_folder(tmp_path / "student", layers=2, hidden=16)
    more = ("--model_name_or_path", student, "--student_hidden_size", 16, "--student_heads", 4, *STILL)
    folder = task_distill.main(flags(data_dir, still_teacher, tmp_path / "run", "SST-2", *more))
    found, theirs = (load_tensors(path / "model.safetensors") for path in (folder, student))
    name = "bert.encoder.layers.1.linear2.weight"
    np.testing.assert_allclose(found[name], theirs[name], atol=1e-20)


def test_the_predictions_alone_need_no_fitting_layers(data_dir, still_teacher, tmp_path):
    argv = ("--student_layers", 3, "--pred_distill", *STILL)  # 3 of 4 cannot be spread evenly
    folder = task_distill.main(flags(data_dir, still_teacher, tmp_path / "run", "SST-2", *argv))
    assert read(folder / "run.json")["steps"] == 6


def test_chinese(home, tmp_path):
    """A vocabulary of characters, and a student stored as PaddleNLP's -zh students are."""
    texts = [
        f"这家{thing}非常{word}。"
        for thing in ("电影", "酒店", "服务", "故事")
        for word in ("好看", "难看", "满意", "失望")
    ]
    folder = tmp_path / "zh" / "ChnSentiCorp"
    folder.mkdir(parents=True)
    rows = [f"{int(text[-3:-1] in ('好看', '满意'))}\t{text}" for text in texts]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(["label\ttext_a", *rows]) + "\n", encoding="utf-8")
    vocabulary = [*SPECIAL, *sorted(set("".join(texts)))]
    teacher = make_bert_folder(tmp_path / "teacher", layers=2, vocab=vocabulary)
    student = make_bert_folder(tmp_path / "student", layers=1, hidden=16, vocab=vocabulary)
    more = ("--model_name_or_path", student, "--skip_teacher_check", "--prediction_learning_rate", "1e-2")
    argv = flags(tmp_path / "zh", teacher, tmp_path / "run", "chnsenticorp", *more)
    run = task_distill.main(argv)
    assert {name for row in losses(first_stage(run)) for name in row} == set(LAYERS)
    assert (run / "vocab.txt").read_text(encoding="utf-8").split() == vocabulary
    assert read(run / "run.json")["finished"]


def test_augmented_rows(data_dir, still_teacher, tmp_path):
    folder = shutil.copytree(data_dir, tmp_path / "data")
    argv = flags(folder, still_teacher, tmp_path / "run", "SST-2", *NARROW, "--use_aug", "--max_steps", 2)
    assert "data_augmentation.py" in refused(task_distill.main, argv, tmp_path / "data")
    lines = (folder / "SST-2" / "train.tsv").read_text().splitlines()
    copies = [line for line in lines[1:] for _ in range(3)]
    (folder / "SST-2" / "train_aug.tsv").write_text("\n".join([lines[0], *copies]) + "\n")
    run = task_distill.main(argv)
    assert [read(home / "run.json")["train_rows"] for home in (first_stage(run), run)] == [3 * 96, 3 * 96]


# Killed runs


@pytest.mark.parametrize("step", [5, 12, 15], ids=["first stage", "between", "second stage"])
def test_interrupted_and_continued(step, data_dir, deep_teachers, tmp_path, monkeypatch):
    def argv(name):
        return flags(data_dir, deep_teachers("SST-2"), tmp_path / name, "SST-2", *NARROW, "--save_steps", 2)

    interrupted(task_distill.main, argv("run"), step, monkeypatch)
    run, whole = task_distill.main(argv("run")), task_distill.main(argv("whole"))
    for home in (lambda folder: folder, first_stage):
        assert same_weights(home(run), home(whole))
        assert (home(run) / "metrics.jsonl").read_bytes() == (home(whole) / "metrics.jsonl").read_bytes()
    assert (first_stage(run) / PROJECTIONS).read_bytes() == (first_stage(whole) / PROJECTIONS).read_bytes()


def start(argv, *launch, cwd):
    command = [sys.executable, *launch, task_distill.__file__, *argv]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_in_both_stages(data_dir, deep_teachers, tmp_path):
    """By SIGKILL, in processes of its own, each time as soon as a stage has a new checkpoint."""

    def argv(name):
        more = (*NARROW, "--save_steps", 1, "--num_train_epochs", 4, "--prediction_epochs", 4)
        return flags(data_dir, deep_teachers("SST-2"), tmp_path / name, "SST-2", *more)

    folder = tmp_path / "run"
    for home in (first_stage(folder), folder):
        process = start(argv("run"), cwd=tmp_path)
        until = time.monotonic() + 120
        while not list(home.glob("checkpoints/step-*")):
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(argv("run"), cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "continuing from" in out and "intermediate stage" not in out
    whole = task_distill.main(argv("whole"))
    assert same_weights(folder, whole) and same_weights(first_stage(folder), first_stage(whole))
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert sorted(os.listdir(folder)) == sorted(os.listdir(whole))


def test_two_ranks_equal_one_with_the_doubled_batch(data_dir, still_teacher, tmp_path):
    def argv(name, batch_size):
        # Without dropout the student's steps depend on the rows alone. 96 rows are no multiple of the batch.
        more = ("--student_layers", 2, "--num_train_epochs", 1, "--batch_size", batch_size, "--logging_steps", 1)
        argv = flags(data_dir, still_teacher, tmp_path / name, "SST-2", *more, "--learning_rate", "1e-3")
        argv[argv.index("--cache_dir") + 1] = str(tmp_path / f"{name} cache")
        return argv

    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "logs"))
    process = start(argv("two", 5), *launch, cwd=tmp_path)
    one = task_distill.main(argv("one", 10))
    out, err = process.communicate(timeout=240)
    logs = "".join(path.read_text() for path in sorted((tmp_path / "logs").glob("workerlog.*")))
    assert process.returncode == 0, out + err + logs
    two = tmp_path / "two"
    for home in (first_stage, lambda folder: folder):
        for a, b in zip(losses(home(one)), losses(home(two)), strict=True):
            assert a == pytest.approx(b, rel=1e-3)
        expected, found = (load_tensors(home(folder) / "model.safetensors") for folder in (one, two))
        assert max(np.abs(expected[name] - found[name]).max() for name in expected) < 1e-4


# Refusals


def test_what_cannot_work_is_refused(data_dir, still_teacher, tmp_path):
    def line(*more, teacher=still_teacher):
        return refused(task_distill.main, flags(data_dir, teacher, tmp_path / "run", "SST-2", *more), tmp_path)

    task_distill.main(flags(data_dir, still_teacher, tmp_path / "warm", "SST-2", "--student_layers", 2))
    assert line("--student_layers", 3).startswith("a student of 3 layers cannot be spread evenly over a teacher of 4")
    assert "--layer_map" in line("--student_layers", 3)
    for layers, message in (
        ("1,2", "--layer_map 1,2: 2 teacher layers given, 3 needed"),
        ("1,2,5", "--layer_map 1,2,5: there is no teacher layer 5"),
        ("2,1,4", "--layer_map 2,1,4: teacher layers must rise"),
        ("0,1,4", "--layer_map 0,1,4: begins with 0, the embeddings"),
        ("all", "--layer_map all: expected teacher layers separated by commas"),
    ):
        assert line("--student_layers", 3, "--layer_map", layers).startswith(message)
    heads = ("--student_layers", 2, "--student_hidden_size", 16, "--student_heads", 2)
    assert line(*heads).startswith("the student has 2 attention heads, the teacher 4") and "--student_heads" in line(
        *heads
    )
    assert line("--student_init", "2,9").startswith("the teacher has no layer 9")
    assert line("--student_layers", 2, "--teacher_path", tmp_path / "none").startswith(f"{tmp_path}/none: no such")
    assert line("--model_name_or_path", "models/none").startswith("models/none: no such folder")
    other = make_bert_folder(tmp_path / "other", layers=2, vocab=[*VOCAB, "more"])
    assert "its wordpieces are not those of the teacher" in line("--model_name_or_path", other)
    assert line("--student_layers", 2, "--control", "--intermediate_distill").startswith("--control compares dev")
    argv = flags(data_dir, still_teacher, tmp_path / "run")
    at = argv.index("--teacher_path")
    assert refused(task_distill.main, argv[:at] + argv[at + 2 :], tmp_path).startswith("--teacher_path is needed")
    at = argv.index("--student_layers")
    assert refused(task_distill.main, argv[:at], tmp_path).startswith("--student_layers is needed")


# The published command and table


def test_the_published_command():
    command = """--model_type tinybert --model_name_or_path tinybert-6l-768d-v2 --task_name SST-2 --max_seq_length 64
        --batch_size 32 --T 1 --teacher_model_type bert --teacher_path ../pretrained_models/SST-2/best_model_610
        --learning_rate 5e-5 --num_train_epochs 10 --logging_steps 10 --save_steps 10 --output_dir ./tmp/SST-2/
        --device gpu"""
    args = parse(TaskDistillArgs, command.split())
    assert (args.student_model_name_or_path, args.stages) == ("tinybert-6l-768d-v2", ("intermediate", "prediction"))
    assert (args.num_train_epochs, args.learning_rate, args.T, args.save_steps) == (10, 5e-5, 1.0, 10)
    assert (args.prediction_epochs, args.prediction_learning_rate, args.warmup_proportion) == (3, 3e-5, 0.1)
    assert parse(TaskDistillArgs, ["--intermediate_distill", "--use_aug"]).stages == ("intermediate",)
    assert parse(TaskDistillArgs, ["--pred_distill"]).stages == ("prediction",)


@pytest.mark.parametrize(
    ("preset", "length", "epochs"),
    [
        ("SST-2", 64, 20), ("QQP", 128, 10), ("MRPC", 128, 20), ("CoLA", 64, 50), ("STS-B", 128, 20), ("RTE", 128, 20),
        ("MNLI", 128, 10), ("QNLI", 128, 10),
    ],
)  # fmt: skip
def test_presets_are_the_published_table(preset, length, epochs):
    args = parse(TaskDistillArgs, ["--config", preset.replace("-", "").lower()])
    assert (get_task(args.task_name).name, args.max_seq_length, args.num_train_epochs) == (preset, length, epochs)
    assert (args.batch_size, args.prediction_epochs) == (32, 3)
    assert (args.learning_rate, args.prediction_learning_rate) == (5e-5, 3e-5)


def test_the_folder_of_presets_is_read():
    names = {path.stem for path in (Path(task_distill.__file__).parent / "presets").glob("*.yaml")}
    assert {"sst2", "sst2_cpu_4l", "sst2_cpu_3l", "general_cpu_4l"} <= names
