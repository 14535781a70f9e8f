"""Runs in processes of their own are really killed, and started again by the same command."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("tiny_run.py")
COMMON = ["--learning_rate", "0.01", "--num_train_epochs", "8", "--eval_steps", "5", "--logging_steps", "3"]


def start(folder, *flags):
    command = [sys.executable, str(SCRIPT), str(folder), *COMMON, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def wait_for(process, condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.0005)


def newest_step(folder):
    return max((int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")), default=0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What a run of 56 steps that nothing disturbs ends with: (printed line, metrics.jsonl)."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return finish(start(folder)), (folder / "metrics.jsonl").read_bytes()


def test_killed_at_random_moments(tmp_path, uninterrupted):
    """Each restart makes other layers first, so names of parameters differ; save_steps=1 writes all the time."""
    folder = tmp_path / "run"
    flags = ["--save_steps", "1", "--pause", "0.02"]

    def writing():  # a checkpoint or the best model is half written
        unfinished = [*(folder / "checkpoints").glob(".step-*.tmp"), *folder.glob(".best.tmp")]
        return any(any(path.glob("*")) for path in unfinished if path.exists())

    pauses = random.Random()
    for kill in range(5):
        before = newest_step(folder)
        process = start(folder, *flags, "--other_layers_first", str(kill))
        wait_for(process, lambda before=before: newest_step(folder) > before)
        if kill >= 3:
            wait_for(process, writing)
        else:
            time.sleep(pauses.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    printed = finish(start(folder, *flags, "--other_layers_first", "9"))
    assert (printed, (folder / "metrics.jsonl").read_bytes()) == uninterrupted
    facts = json.loads((folder / "run.json").read_text())
    assert facts["finished"] and facts["resumed"] == 5 and facts["steps"] == 56 and facts["rows"] == 8 * 50
    left = {"last.safetensors", "metrics.jsonl", "model.safetensors", "run.json", "run.yaml", "vdl"}
    assert set(os.listdir(folder)) == left


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_first(tmp_path, uninterrupted, number, status):
    folder = tmp_path / "run"
    metrics = folder / "metrics.jsonl"
    process = start(folder, "--pause", "0.1")
    # The first line comes after step 3 of the epoch's 7, the first checkpoint would come after the last of them.
    wait_for(process, lambda: metrics.exists() and metrics.stat().st_size > 0)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in err
    step = newest_step(folder)
    assert 3 <= step < 7
    assert out.splitlines()[-1] == f"stopped at step {step} of 56, everything is saved; the same command continues"
    process = start(folder)
    printed, after = finish(process), metrics.read_bytes()
    assert (printed, after) == uninterrupted
