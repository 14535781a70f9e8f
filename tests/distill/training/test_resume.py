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
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def wait_for(process, condition, seconds=300):
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
    flags = ["--save_steps", "1", "--pause", "0.05"]

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
    printed = finish(start(folder, "--save_steps", "1", "--other_layers_first", "9"))
    assert (printed, (folder / "metrics.jsonl").read_bytes()) == uninterrupted
    facts = json.loads((folder / "run.json").read_text())
    assert facts["finished"] and facts["resumed"] == 5 and facts["steps"] == 56 and facts["rows"] == 8 * 50
    left = {"last.safetensors", "metrics.jsonl", "model.safetensors", "run.json", "run.yaml", "vdl"}
    assert set(os.listdir(folder)) == left


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_first(tmp_path, uninterrupted, number, status):
    folder = tmp_path / "run"
    process = start(folder, "--signal", str(int(number)), "--signal_at", "4")  # in the fifth step of the epoch's 7
    out, err = process.communicate(timeout=300)
    assert process.returncode == status and "Traceback" not in err
    assert newest_step(folder) == 5
    assert out.splitlines()[-1] == "stopped at step 5 of 56, everything is saved; the same command continues"
    printed = finish(start(folder))
    assert (printed, (folder / "metrics.jsonl").read_bytes()) == uninterrupted
