"""Two processes on the CPU do what one does with the doubled batch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.tensors import load_tensors

SCRIPT = str(Path(__file__).with_name("tiny_run.py"))
# 51 rows: the last step has 3 rows, two on one rank and one on the other.
COMMON = [
    "--learning_rate",
    "0.01",
    "--num_train_epochs",
    "2",
    "--rows",
    "51",
    "--dropout",
    "0",
    "--logging_steps",
    "1",
]


def run(folder, *flags, ranks=1):
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(folder.parent / "logs")]
    command = [sys.executable, *(launch if ranks > 1 else []), SCRIPT, str(folder), *COMMON, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder.parent)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert run(folder, "--world_batch", "8").returncode == 0
    return folder


@pytest.mark.parametrize(("batch", "accumulation"), [("8", "1"), ("4", "2")])
def test_two_ranks_equal_one(tmp_path, alone, batch, accumulation):
    folder = tmp_path / "run"
    done = run(folder, "--world_batch", batch, "--gradient_accumulation_steps", accumulation, ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    expected, found = load_tensors(alone / "last.safetensors"), load_tensors(folder / "last.safetensors")
    assert expected.keys() == found.keys()
    assert max(np.abs(expected[name] - found[name]).max() for name in expected) < 1e-5
    rows = [list(map(json.loads, (path / "metrics.jsonl").read_text().splitlines())) for path in (alone, folder)]
    assert len(rows[0]) == len(rows[1]) == 14 + 2
    for a, b in zip(*rows, strict=True):
        assert {k: a[k] for k in ("step", "epoch")} == {k: b[k] for k in ("step", "epoch")}
        for part in ("losses", "dev"):
            assert a.get(part, {}) == pytest.approx(b.get(part, {}), abs=1e-5)
    facts = json.loads((folder / "run.json").read_text())
    assert facts["rows"] == 102 and facts["hardware"]["ranks"] == 2


def test_a_refusal_ends_all_ranks(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.tex").write_text("")
    done = run(folder, ranks=2)
    assert done.returncode == 2
    for rank in (0, 1):
        log = (tmp_path / "logs" / f"workerlog.{rank}").read_text()
        assert f"error: --output_dir {folder}: is not empty (thesis.tex)" in log and "Traceback" not in log
