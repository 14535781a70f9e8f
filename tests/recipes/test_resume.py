"""A whole recipe in processes of its own: killed at random moments, and on two ranks."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distill.files import sha256
from distill.tensors import load_tensors
from distill_lstm import bert_distill
from tests.recipes.runs import lstm, metrics, read

SCRIPT = Path(bert_distill.__file__)


def start(argv, *launch, cwd):
    command = [sys.executable, *launch, str(SCRIPT), *argv]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process, condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.001)


def test_killed_at_random_moments(data_dir, teachers, tmp_path):
    """Before the first step and twice in training, where every step writes a checkpoint; 108 steps in all."""
    folder = tmp_path / "run"
    flags = (
        "--teacher_path",
        teachers("SST-2"),
        "--cache_dir",
        tmp_path / "cache",
        "--save_steps",
        1,
        "--logging_steps",
        5,
    )
    more = ("--num_train_epochs", 6, "--dropout_prob", 0.3, "--eval_steps", 9, "--use_pretrained_emb", "true")
    argv = lstm(data_dir, folder, "SST-2", *flags, *more)

    def newest():
        return max((int(path.name[5:]) for path in folder.glob("checkpoints/step-*")), default=0)

    for kill in range(3):
        before = newest()
        process = start(argv, cwd=tmp_path)
        wait_for(process, (folder / "run.yaml").exists if kill == 0 else lambda before=before: newest() > before)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(argv, cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "continuing from" in out
    facts = read(folder / "run.json")
    assert facts["finished"] and facts["resumed"] in (2, 3) and (facts["steps"], facts["rows"]) == (108, 6 * 288)

    # An uninterrupted run, with the teacher's outputs computed anew.
    argv[argv.index(str(folder))] = str(tmp_path / "whole")
    argv[argv.index(str(tmp_path / "cache"))] = str(tmp_path / "other cache")
    whole = bert_distill.main(argv)
    assert sha256(folder / "model.safetensors") == sha256(whole / "model.safetensors")
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert sorted(os.listdir(folder)) == sorted(os.listdir(whole))


def test_two_ranks_equal_one_with_the_doubled_batch(data_dir, teachers, tmp_path):
    def flags(name, batch_size):
        taught = ("--teacher_path", teachers("MRPC"), "--cache_dir", tmp_path / f"{name} cache", "--alpha", 0.5)
        # 297 rows are no multiple of the batch; one evaluation, so that the best model is the last on both.
        more = ("--unlabelled_file", tmp_path / "more.txt", "--num_train_epochs", 1, "--logging_steps", 1)
        return lstm(data_dir, tmp_path / name, "MRPC", *taught, *more, "--batch_size", batch_size)

    (tmp_path / "more.txt").write_text("a film\tthe film too\n" * 3)
    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "logs"))
    process = start(flags("two", 8), *launch, cwd=tmp_path)
    one = bert_distill.main(flags("one", 16))
    out, err = process.communicate(timeout=180)
    logs = "".join(path.read_text() for path in sorted((tmp_path / "logs").glob("workerlog.*")))
    assert process.returncode == 0, out + err + logs
    expected, found = (load_tensors(folder / "model.safetensors") for folder in (one, tmp_path / "two"))
    assert expected.keys() == found.keys()
    assert max(np.abs(expected[name] - found[name]).max() for name in expected) < 1e-5
    for a, b in zip(metrics(one), metrics(tmp_path / "two"), strict=True):
        assert a["step"] == b["step"]
        for part in ("losses", "dev"):
            assert a.get(part, {}) == pytest.approx(b.get(part, {}), abs=1e-4)
    facts = read(tmp_path / "two" / "run.json")
    assert facts["finished"] and facts["rows"] == 3 * 99 and facts["hardware"]["ranks"] == 2
    assert "teacher cache: 297 rows asked" in logs
