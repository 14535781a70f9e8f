"""theseus/task_distill.py from end to end: what is saved and frozen, the phases, killed in both, on two ranks."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from paddlenlp.transformers import BertForSequenceClassification

from distill.cli import parse
from distill.data.tasks import get_task
from distill.errors import UserError
from distill.tensors import load_tensors
from models.module_replacing import ModuleReplacing
from tests.recipes.runs import interrupted, metrics, read, refused, taught
from theseus import task_distill
from theseus.args import TheseusArgs

SCRIPT = Path(task_distill.__file__)


def flags(data_dir, teacher, folder, *more, task="SST-2"):
    return taught(data_dir, teacher, folder, task, "--student_layers", 2, *more)


@pytest.mark.parametrize("task", ["SST-2", "MRPC", "STS-B"])
def test_from_end_to_end(task, data_dir, deep_teachers, tmp_path):
    folder = task_distill.main(flags(data_dir, deep_teachers(task), tmp_path / "run", task=task))
    names = {"run.yaml", "run.json", "metrics.jsonl", "results_eval.json", "dev_predictions.tsv", "vdl"}
    names |= {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names
    result, metric = read(folder / "results_eval.json"), get_task(task).metric
    assert result[metric] == pytest.approx(max(row["dev"][metric] for row in metrics(folder) if "dev" in row), abs=1e-6)
    assert metrics(folder)[0]["losses"].keys() == {"label"}
    successor = BertForSequenceClassification.from_pretrained(str(folder))
    assert successor.config.num_hidden_layers == 2
    assert result["parameters"] == sum(p.size for p in successor.parameters())


@pytest.mark.parametrize("train_embeddings", [False, True])
def test_what_is_frozen_stays_the_teachers_to_the_bit(train_embeddings, data_dir, deep_teachers, tmp_path):
    teacher = deep_teachers("SST-2")
    before = (teacher / "model.safetensors").read_bytes()
    folder = task_distill.main(
        flags(data_dir, teacher, tmp_path / "run", "--train_embeddings", train_embeddings, "--weight_decay", 0.1)
    )
    ours, theirs = load_tensors(folder / "model.safetensors"), load_tensors(teacher / "model.safetensors")
    same = {name for name in ours if np.array_equal(ours[name], theirs[name])}
    layers = {name for name in ours if ".layers." in name}
    # The keys' bias has no gradient: softmax does not see what it adds to all of a row's scores.
    assert same - {name for name in ours if "k_proj.bias" in name} == (
        {"bert.embeddings.token_type_embeddings.weight"} & same if train_embeddings else ours.keys() - layers
    )
    assert (teacher / "model.safetensors").read_bytes() == before


@pytest.fixture
def rates(monkeypatch):
    """The rates of the batches that were trained on, in their order."""
    seen, draw = [], ModuleReplacing.draw
    monkeypatch.setattr(
        ModuleReplacing, "draw", lambda self, batches: (seen.append(self.rate(batches)), draw(self, batches))[1]
    )
    return seen


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), [0.5] * 6 + [1.0] * 6),  # half of all steps
        (("--steps_for_replacing", 4, "--replacing_rate", 0.2), [0.2] * 4 + [1.0] * 8),
        (("--max_steps", 5), [0.5] * 3 + [1.0] * 2),
        (
            ("--scheduler_type", "linear", "--replacing_rate", 0.4, "--scheduler_linear_k", 0.2),
            [0.4, 0.6, 0.8] + [1.0] * 9,
        ),
        (
            ("--scheduler_type", "linear", "--replacing_rate", 0, "--steps_for_replacing", 4),
            [0, 0.25, 0.5, 0.75] + [1.0] * 8,
        ),
        # 6 batches an epoch are 2 steps of 4 and 2 batches; of the 4 steps 2 are for replacing.
        (("--gradient_accumulation_steps", 4), [0.5] * 6 + [1.0] * 6),
        (("--gradient_accumulation_steps", 4, "--steps_for_replacing", 3), [0.5] * 10 + [1.0] * 2),
    ],
)
def test_rate_of_each_batch(more, expected, data_dir, deep_teachers, rates, tmp_path):
    task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "run", *more))
    assert rates == pytest.approx(expected)


def test_a_run_without_fine_tuning_says_so(data_dir, deep_teachers, rates, tmp_path, capsys):
    task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "run", "--steps_for_replacing", 100))
    assert (
        "replacing rate 0.50 in the last of 12 steps: the successor is never fine-tuned alone"
        in capsys.readouterr().out
    )
    assert rates == [0.5] * 12


def test_control_arm_is_the_successor_fine_tuned_alone(data_dir, deep_teachers, rates, tmp_path):
    """With nothing learned both are what they start from, the same."""
    more = ("--control", "--learning_rate", "1e-30")
    folder = task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "run", *more))
    assert rates == [0.5] * 6 + [1.0] * 18
    arms = (folder, folder / "control" / "alone_seed-42")
    ours, theirs = (load_tensors(path / "model.safetensors") for path in arms)
    assert all(np.allclose(ours[name], theirs[name], rtol=0, atol=1e-20) for name in ours)
    steps = [read(path / "run.json")["steps"] for path in arms]
    assert steps == [12, 12] and read(folder / "control.json")["seeds"] == [42]


@pytest.mark.parametrize("step", [3, 9], ids=["replacing", "fine-tuning"])
def test_interrupted_and_continued(step, data_dir, deep_teachers, tmp_path, monkeypatch):
    def argv(name):
        return flags(data_dir, deep_teachers("SST-2"), tmp_path / name, "--save_steps", 1, "--logging_steps", 1)

    interrupted(task_distill.main, argv("run"), step, monkeypatch)
    run, whole = task_distill.main(argv("run")), task_distill.main(argv("whole"))
    assert read(run / "run.json")["resumed"] == 1
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_killed_in_each_phase(data_dir, deep_teachers, tmp_path):
    """By SIGKILL at a random moment of the replacing, then of the fine-tuning: 60 steps each, a checkpoint a step."""
    folder = tmp_path / "run"
    argv = flags(
        data_dir, deep_teachers("SST-2"), folder, "--num_train_epochs", 20, "--save_steps", 1, "--logging_steps", 5
    )  # fmt: skip

    def start():
        command = [sys.executable, str(SCRIPT), *argv]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def newest():
        return max((int(path.name[5:]) for path in folder.glob("checkpoints/step-*")), default=0)

    for least in (1, 62):
        process, until = start(), time.monotonic() + 120
        while newest() < least:
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "continuing from" in out
    assert read(folder / "run.json")["resumed"] == 2 and read(folder / "run.json")["steps"] == 120
    argv[argv.index(str(folder))] = str(tmp_path / "whole")
    whole = task_distill.main(argv)
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert sorted(os.listdir(folder)) == sorted(os.listdir(whole))


def test_two_ranks_equal_one_with_the_doubled_batch(data_dir, still_teacher, tmp_path):
    """At a rate at which in some steps one module, in some none is trained."""

    def argv(name, batch_size):
        more = ("--batch_size", batch_size, "--replacing_rate", 0.3, "--logging_steps", 1, "--num_train_epochs", 3)
        return flags(data_dir, still_teacher, tmp_path / name, *more)

    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "logs"))
    command = [sys.executable, *launch, str(SCRIPT), *argv("two", 8)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    one = task_distill.main(argv("one", 16))
    out, err = process.communicate(timeout=180)
    logs = "".join(path.read_text() for path in sorted((tmp_path / "logs").glob("workerlog.*")))
    assert process.returncode == 0, out + err + logs
    expected, found = (load_tensors(folder / "model.safetensors") for folder in (one, tmp_path / "two"))
    assert max(np.abs(expected[name] - found[name]).max() for name in expected) < 1e-5
    for a, b in zip(metrics(one), metrics(tmp_path / "two"), strict=True):
        assert a.get("losses", {}) == pytest.approx(b.get("losses", {}), abs=1e-5)


@pytest.mark.parametrize("task", ["sst2", "qqp", "mrpc", "rte"])
def test_presets_have_the_published_phases(task):
    args = parse(TheseusArgs, ["--config", task])
    assert (args.student_layers, args.replacing_rate, args.num_train_epochs, args.learning_rate) == (3, 0.5, 10, 1e-5)
    assert args.steps_for_replacing is None and not args.train_embeddings
    assert task_distill.run_name(args) == "bert-theseus_3_epoch-10_lr-1e-5_wd-0"


def test_the_published_name_of_a_constant_rate():
    args = parse(TheseusArgs, ["--scheduler_type", "none", "--steps_for_replacing", "2500"])
    assert (args.scheduler_type, args.steps_for_replacing) == ("constant", 2500)


def test_flags_that_cannot_work_are_refused():
    for argv, message in (
        (["--steps_for_replacing", "0"], "--steps_for_replacing 0: must be at least 1"),
        (["--replacing_rate", "1.5"], "--replacing_rate 1.5: must be at most 1"),
        (["--scheduler_linear_k", "0.1"], "--scheduler_linear_k needs --scheduler_type linear"),
        (
            ["--scheduler_type", "linear", "--scheduler_linear_k", "0.1", "--steps_for_replacing", "5"],
            "each says how long to replace; leave one out",
        ),
    ):
        with pytest.raises(UserError, match=message):
            parse(TheseusArgs, argv)
    with pytest.raises(UserError, match="--teacher_path is needed"):
        task_distill.main(["--task_name", "SST-2"])


def test_layers_that_do_not_divide_are_refused(data_dir, deep_teachers, tmp_path):
    task_distill.main(flags(data_dir, deep_teachers("SST-2"), tmp_path / "warm", "--max_steps", 1))
    argv = flags(data_dir, deep_teachers("SST-2"), tmp_path / "run", "--student_layers", 3)
    line = refused(task_distill.main, argv, tmp_path)
    assert line == "--student_layers 3: each must replace as many of the predecessor's 4 layers; choose 1, 2, 4"
