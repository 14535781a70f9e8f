import fcntl
import json
import os
import signal
import sys
import time

import pytest
import yaml

from distill.errors import UserError
from distill.training import monitor
from distill.training.monitor import Progress, Run, Signals

SETTINGS = {"learning_rate": 5e-05, "seed": 3, "logging_steps": 10, "layers": (0, 3), "preset": None, "pair": True}


def test_settings_are_written_and_the_same_ones_continue(tmp_path):
    run = Run(tmp_path / "a" / "run", SETTINGS)
    assert not run.finished
    assert yaml.safe_load((run.output_dir / "run.yaml").read_text()) == {**SETTINGS, "layers": [0, 3]}
    assert not Run(run.output_dir, SETTINGS).finished
    assert json.loads((run.output_dir / "run.json").read_text())["resumed"] == 1


def test_other_settings_are_refused_by_name(tmp_path):
    Run(tmp_path, SETTINGS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError) as error:
        Run(
            tmp_path, {**SETTINGS, "learning_rate": 3e-05, "alpha": 0.5, "logging_steps": 1}, cosmetic={"logging_steps"}
        )
    message = str(error.value)
    assert "learning_rate 5e-05 there, 3e-05 now; alpha not set there, 0.5 now" in message
    assert "logging_steps" not in message and "seed" not in message and "\n" not in message
    assert "--overwrite" in message and "--output_dir" in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_cosmetic_settings_may_change(tmp_path):
    Run(tmp_path, SETTINGS)
    assert not Run(tmp_path, {**SETTINGS, "logging_steps": 1}, cosmetic={"logging_steps"}).finished


def test_a_folder_of_something_else_is_refused_and_overwriting_spares_it(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"is not empty \(thesis.tex\) and holds no run.yaml"):
        Run(tmp_path, SETTINGS)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    Run(tmp_path, SETTINGS, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("given", ["", "model.safetensors"])
def test_the_folder_of_the_teacher_is_never_overwritten(given, tmp_path):
    (tmp_path / "model.safetensors").write_text("weights")
    with pytest.raises(UserError, match=f"--output_dir {tmp_path}: is the folder of --teacher_path; choose another"):
        Run(tmp_path, {**SETTINGS, "teacher_path": str(tmp_path / given)}, overwrite=True)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    Run(tmp_path / "student", {**SETTINGS, "teacher_path": str(tmp_path / given)})


@pytest.mark.parametrize(
    "flag", ["init_checkpoint", "init_checkpoint_student", "student_model_name_or_path", "model_name"]
)
def test_the_folder_that_a_run_starts_from_is_never_overwritten(flag, tmp_path):
    (tmp_path / "model.safetensors").write_text("weights")
    with pytest.raises(UserError, match=f"is the folder of --{flag}; choose another"):
        Run(tmp_path, {**SETTINGS, flag: str(tmp_path)}, overwrite=True)
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_nor_what_lies_where_a_run_would_write(tmp_path):
    (tmp_path / "stages" / "intermediate").mkdir(parents=True)
    (tmp_path / "teacher").mkdir()
    with pytest.raises(UserError, match="holds the model of --student_path; choose another"):
        Run(tmp_path, {**SETTINGS, "student_path": str(tmp_path / "stages" / "intermediate")}, overwrite=True)
    with pytest.raises(UserError, match="holds stages, which a run would replace, and no run.yaml says"):
        Run(tmp_path, SETTINGS, overwrite=True)  # somebody's own folder of that name
    (tmp_path / "stages" / "intermediate").rmdir()
    (tmp_path / "stages").rmdir()
    for name in ("model.safetensors", "config.json", "vocab.txt", "words.txt"):  # of a model that no run made
        (tmp_path / name).write_text("mine")
        with pytest.raises(UserError, match=f"holds {name}, which a run would replace, and no run.yaml says"):
            Run(tmp_path, SETTINGS, overwrite=True)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    Run(tmp_path, {**SETTINGS, "teacher_path": str(tmp_path / "teacher")}, overwrite=True)
    assert (tmp_path / "teacher").is_dir()


def test_two_processes_do_not_run_in_one_folder(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as another process does it
    with pytest.raises(UserError, match=f"--output_dir {tmp_path}: another process is running there; wait for its end"):
        Run(tmp_path, SETTINGS)
    assert not os.listdir(tmp_path)
    os.close(handle)
    runs = [Run(tmp_path / "new", SETTINGS) for _ in range(2)]  # one process may
    handle = os.open(tmp_path / "new", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    runs.clear()
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_what_a_killed_start_left_is_no_obstacle(tmp_path):
    (tmp_path / ".run.yaml.123.tmp").write_text("lear")
    assert not Run(tmp_path, SETTINGS).finished
    assert sorted(os.listdir(tmp_path)) == ["run.json", "run.yaml"]


def test_overwriting_deletes_the_other_runs_content(tmp_path):
    Run(tmp_path, {**SETTINGS, "seed": 4})
    for name in ("best", "checkpoints/step-3", "vdl"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    run = Run(tmp_path, SETTINGS, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["run.json", "run.yaml"]
    assert json.loads((run.output_dir / "run.json").read_text())["resumed"] == 0


def test_overwriting_an_unfinished_run_of_the_same_settings_continues_it(tmp_path):
    (Run(tmp_path, SETTINGS, overwrite=True).checkpoints / "step-3").mkdir(parents=True)
    assert (Run(tmp_path, SETTINGS, overwrite=True).checkpoints / "step-3").exists()


def test_a_finished_run_says_so_and_is_overwritten_on_demand(tmp_path):
    run = Run(tmp_path, SETTINGS)
    run.checkpoints.mkdir()
    run.best_dir.mkdir()
    (run.best_dir / "model.safetensors").write_text("weights")
    run.finish(rows=7)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert run.finished and facts["finished"] and facts["rows"] == 7 and facts["finished_at"]
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "run.json", "run.yaml"]
    run.checkpoints.mkdir()  # as if it had been killed just after it was marked as finished
    assert Run(tmp_path, SETTINGS).finished and not run.checkpoints.exists()
    assert json.loads((tmp_path / "run.json").read_text()) == facts  # looking at it changes nothing
    assert not Run(tmp_path, SETTINGS, overwrite=True).finished
    assert sorted(os.listdir(tmp_path)) == ["run.json", "run.yaml"]


def test_unreadable_settings_and_a_file_in_the_way(tmp_path):
    (tmp_path / "run.yaml").write_text("{")
    with pytest.raises(UserError, match="run.yaml: not readable as settings"):
        Run(tmp_path, SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        Run(tmp_path / "file", SETTINGS)


def test_facts(tmp_path):
    run = Run(tmp_path, SETTINGS)
    run.count(1, rows=30, seconds=2.0)
    run.count(1, rows=30, seconds=1.0)
    run.count(2, rows=60, seconds=1.5)
    run.write_facts(steps=4, rows=120)
    again = Run(tmp_path, SETTINGS)  # after a kill: sums go on
    again.count(2, rows=60, seconds=1.5)
    again.finish()
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["samples_per_second"] == {"1": 20.0, "2": 40.0}
    assert facts["steps"] == 4 and facts["rows"] == 120 and facts["seed"] == 3 and facts["resumed"] == 1
    assert facts["command"].startswith("python ") and facts["versions"]["paddlepaddle"] and facts["hardware"]["cores"]
    assert facts["hardware"]["settings"]["OMP_NUM_THREADS"] and facts["peak_memory_bytes"] > 2**20
    assert facts["started_at"] <= facts["finished_at"]


def test_timers_exclude_what_runs_inside_them(tmp_path, monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 1.0, 6.0, 8.0]).__next__
    run = Run(tmp_path, SETTINGS)
    monkeypatch.setattr(monitor.time, "perf_counter", clock)
    with run.timer("data"), run.timer("teacher"):  # 0-1 data, 1-6 teacher, 6-8 data
        pass
    monkeypatch.undo()
    run.write_facts()
    seconds = json.loads((tmp_path / "run.json").read_text())["seconds"]
    assert seconds == {"teacher": 5.0, "student": 0.0, "data": 3.0, "evaluation": 0.0}


def points(run):
    from visualdl import LogReader

    (name,) = os.listdir(run.output_dir / "vdl")
    reader = LogReader(file_path=str(run.output_dir / "vdl" / name))
    return {tag: [point.id for point in reader.get_data("scalar", tag)] for tag in reader.get_tags()["scalar"]}


def test_curves_go_on_from_the_checkpoint_without_doubled_steps(tmp_path):
    run = Run(tmp_path, SETTINGS)
    run.begin(0, "accuracy")
    for step in (1, 2, 3):
        run.record(step, step / 2, loss=0.5, losses={"hard": 0.5}, lr=1e-5)
        run.record(step, step / 2, dev={"accuracy": 0.25 * step})
    run.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"step": 1, "epoch": 0.5, "loss": 0.5, "losses": {"hard": 0.5}, "lr": 1e-5}
    assert json.loads(lines[5]) == {"step": 3, "epoch": 1.5, "dev": {"accuracy": 0.75}}
    with open(tmp_path / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 4, "epo')  # cut off by a kill

    run = Run(tmp_path, SETTINGS)
    run.begin(2, "accuracy")
    run.record(3, 1.5, loss=0.4, losses={"hard": 0.4}, lr=1e-5)
    run.close()
    after = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert after[:4] == lines[:4] and [json.loads(line)["step"] for line in after] == [1, 1, 2, 2, 3]
    assert points(run) == {
        "dev/accuracy": [1, 2], "dev/best_accuracy": [1, 2], "loss/hard": [1, 2, 3],
        "train/loss": [1, 2, 3], "train/lr": [1, 2, 3],
    }  # fmt: skip


def test_digests_are_told_apart_by_their_first_digits(tmp_path):
    Run(tmp_path, {"rows": "a" * 64})
    with pytest.raises(UserError, match=r"\(rows aaaaaaaa\.\.\. there, bbbbbbbb\.\.\. now\)"):
        Run(tmp_path, {"rows": "b" * 64})


def test_a_full_disk_is_one_line(tmp_path):
    run = Run(tmp_path, SETTINGS)
    run.begin(0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match="metrics.jsonl: the disk is full"):
        run.record(1, 0.1, loss=0.5)
    run.close()


def test_progress_as_lines_and_as_a_bar(capsys, monkeypatch):
    lines = Progress(total=100, done=20, interval=0.0)
    time.sleep(0.01)
    lines.update(30, 0.51234)
    lines.close()
    out = capsys.readouterr().out
    assert out.startswith("step 30/100  loss 0.5123  ") and " steps/s  " in out and out.endswith(" left\n")
    quiet = Progress(total=100, done=20)  # the next line is 30 s away
    quiet.update(30, 0.5)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = Progress(total=100, done=20)
    bar.update(30, 0.5)
    bar.close()
    shown = capsys.readouterr()
    assert "30/100" in shown.err and "loss=0.5000" in shown.err and shown.out == ""


def test_signals_are_noted_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        assert signals.received == 0
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_run_of_an_unexpanded_home_folder_continues(tmp_path, monkeypatch):
    """As versions wrote it that left the ~ of a flag as it is."""
    monkeypatch.setenv("HOME", "/home/me")
    Run(tmp_path / "run", {**SETTINGS, "data_dir": "~/data"})
    Run(tmp_path / "run", {**SETTINGS, "data_dir": "/home/me/data"})
    with pytest.raises(UserError, match="data_dir /home/me/data there, /data now"):
        Run(tmp_path / "run", {**SETTINGS, "data_dir": "/data"})
