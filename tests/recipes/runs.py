"""Flags of small runs, and what the recipe tests ask of a run's folder."""

import json
from pathlib import Path

import pytest

from distill.errors import UserError
from distill.evaluation.latency import Latency

EPOCHS = {"SST-2": 6, "MRPC": 6, "STS-B": 6}  # enough for a tiny teacher to beat chance


def glue(data_dir, model, folder, task="SST-2", *more):
    """Flags of run_glue.py; later ones win."""
    return _flags(
        *("--task_name", task, "--data_dir", data_dir, "--model_name_or_path", model, "--output_dir", folder),
        *("--max_seq_length", 32),
        *("--learning_rate", "3e-3", "--batch_size", 8, "--num_train_epochs", EPOCHS.get(task, 1), *more),
    )  # fmt: skip


def lstm(data_dir, folder, task="SST-2", *more):
    """Flags of small.py, and with --teacher_path and --cache_dir of bert_distill.py; later ones win."""
    return _flags(
        *("--task_name", task, "--data_dir", data_dir, "--output_dir", folder, "--max_seq_length", 32),
        *("--emb_dim", 8, "--hidden_size", 8),
        *("--num_train_epochs", 2, "--batch_size", 16, "--optimizer", "adam", "--lr", "1e-2", "--n_iter", 2, *more),
    )  # fmt: skip


def taught(data_dir, teacher, folder, task="SST-2", *more):
    """Flags of the task_distill.py of the recipes whose student is a BERT; later ones win."""
    return _flags(
        *("--task_name", task, "--data_dir", data_dir, "--teacher_path", teacher, "--output_dir", folder),
        *("--cache_dir", Path(folder).parent / "cache", "--max_seq_length", 32),
        *("--num_train_epochs", 2, "--batch_size", 16, "--learning_rate", "1e-3", *more),
    )  # fmt: skip


def interrupted(main, argv, step, monkeypatch):
    """Start a run that dies after `step` steps, one of the next and before its checkpoint."""
    from distill.training.monitor import Run

    counted, count = [], Run.count

    class Dies(Exception):
        pass

    def dies(self, *values):
        count(self, *values)
        counted.append(values)
        if len(counted) > step:
            raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(Run, "count", dies)
        with pytest.raises(Dies):
            main(argv)


def _flags(*values):
    return [str(value) for value in values]


def no_clock(monkeypatch):
    """The measurement of speed takes a second or more; instead the timed call is made once, with two rows."""

    def once(call, rows):
        call([rows[0], rows[-1]])
        return Latency({"p50": 1.0, "p95": 2.0, "p99": 3.0, "mean": 1.5}, 2, 4.0)

    monkeypatch.setattr("distill.evaluation.evaluate.measure", once)


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def metrics(folder):
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def tree(*folders):
    """Every file below the folders with its content."""
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*"))]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def refused(main, argv, *folders):
    """The one line with which `main` refuses; nothing in `folders` is written or lost by it."""
    before = tree(*folders)
    with pytest.raises(UserError) as error:
        main(argv)
    line = str(error.value)
    assert line and "\n" not in line
    after = tree(*folders)
    assert sorted(after) == sorted(before)
    assert after == before
    return line
