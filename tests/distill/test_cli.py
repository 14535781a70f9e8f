"""Flags, YAML and bounds: what is refused is refused by its name."""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from distill.naming import ROOT
from distill.options import RuntimeOptions, TaskOptions, TeacherOptions, TrainOptions, option


@dataclass
class Args(TaskOptions, TeacherOptions, TrainOptions, RuntimeOptions):
    """Everything at once."""

    do_train: bool = option(True, "train")
    limit: int | None = option(None, "a limit", low=3)


def refused(*flags: str) -> str:
    with pytest.raises(UserError) as error:
        parse(Args, list(flags))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("spelling", ["True", "true", "1", "yes", "y"])
def test_booleans_are_read_in_the_published_spellings(spelling: str) -> None:
    assert parse(Args, ["--overwrite", spelling]).overwrite is True
    assert parse(Args, [f"--overwrite={spelling}"]).overwrite is True


@pytest.mark.parametrize("spelling", ["False", "false", "0", "no"])
def test_booleans_are_switched_off(spelling: str) -> None:
    assert parse(Args, ["--do_train", spelling]).do_train is False


def test_a_boolean_alone_is_true_and_the_last_of_two_flags_counts() -> None:
    assert parse(Args, ["--overwrite"]).overwrite is True
    assert parse(Args, ["--task_name", "RTE", "--task_name", "qqp"]).task_name == "qqp"


def test_other_spellings_of_a_flag() -> None:
    args = parse(
        Args, ["--max_epoch", "7", "--lr", "0.5", "--glue_dir", "d", "--teacher_dir", "t", "--train_batch_size", "9"]
    )
    assert (args.num_train_epochs, args.learning_rate, args.data_dir, args.teacher_path, args.batch_size) == (
        7,
        0.5,
        "d",
        "t",
        9,
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--batch_size", "0"], "--batch_size 0: must be at least 1"),
        (["--learning_rate", "0"], "--learning_rate 0.0: must be above 0"),
        (["--learning_rate", "inf"], "--learning_rate inf: must be a finite number"),
        (["--learning_rate", "nan"], "--learning_rate nan: must be a finite number"),
        (["--warmup_proportion", "1.5"], "--warmup_proportion 1.5: must be at most 1"),
        (["--optimizer", "sgd"], "--optimizer sgd: must be one of adamw, adam, adadelta"),
        (["--limit", "2"], "--limit 2: must be at least 3"),
        (["--optimizer", "adam", "--weight_decay", "0.1"], "--weight_decay 0.1: acts with --optimizer adamw only"),
        (["--n_gpu", "2"], "paddle.distributed.launch"),
        (["--n_gpu", "0", "--device", "gpu"], "--n_gpu 0 contradicts --device gpu"),
        (["--batch_sise", "3"], "--batch_sise: unknown flag; did you mean --batch_size?"),
        (["--zzz"], "--zzz: unknown flag (--help lists all)"),
        (["--overwrite", "maybe"], "--overwrite"),
        (["--batch_size", "many"], "--batch_size"),
        (["stray"], "stray"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(flags: list[str], says: str) -> None:
    assert says in refused(*flags)


def test_no_gpu_means_the_cpu() -> None:
    assert parse(Args, ["--n_gpu", "0"]).device == "cpu"
    assert parse(Args, ["--n_gpu", "1"]).device == "auto"


def config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_flags_override_the_file_which_overrides_the_defaults(tmp_path: Path) -> None:
    path = config(tmp_path, "learning_rate: 5e-5\nbatch_size: 7\ntask_name: RTE\ndata_dir: null\nlimit: 4\n")
    args = parse(Args, ["--config", path, "--batch_size", "8"])
    assert (args.learning_rate, args.batch_size, args.task_name, args.data_dir, args.limit) == (5e-5, 8, "RTE", None, 4)
    assert args.max_seq_length == 128


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("batchsize: 3\n", "unknown option `batchsize`; did you mean `batch_size`?"),
        ("batch_size: many\n", "`batch_size`: 'many' is not of type int"),
        ("batch_size: true\n", "`batch_size`: True is not of type int"),
        ("learning_rate: fast\n", "`learning_rate`: 'fast' is not of type float"),
        ("batch_size: 0\n", "--batch_size 0: must be at least 1"),
        ("- batch_size\n", ":1: expected `option: value` lines"),
        ("batch_size: 3\n  x: [\n", ":2: not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_by_file_and_line_or_option(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused("--config", config(tmp_path, text))


def test_a_missing_file_lists_the_presets() -> None:
    assert refused("--config", "nowhere") == "--config nowhere: no such file; presets of this recipe: none"


def test_yaml_and_flags_are_judged_together(tmp_path: Path) -> None:
    """What the flags complete or change is neither refused nor settled by the YAML alone."""
    from virt.args import SbertDistillArgs

    path = tmp_path / "own.yaml"
    path.write_text("att_scaling: sum\nmax_seq_length_query: 64\n")
    read = lambda *flags: parse(SbertDistillArgs, ["--config", str(path), "--max_seq_length_doc", "32", *flags])  # noqa: E731
    assert (read().kd_weight_att, read().lengths) == (0.4, (64, 32))
    assert read("--att_scaling", "mean").kd_weight_att == 700
    assert read("--use_kd_att", "false", "--use_kd_logit_mse", "true").use_kd_att is False
    with pytest.raises(UserError, match="--max_seq_length_query and --max_seq_length_doc: give both"):
        parse(SbertDistillArgs, ["--config", str(path)])


def test_a_home_folder_is_found_wherever_a_value_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "own.yaml"
    path.write_text("train_file: ~/train.csv\n")
    words = ["--config", str(path), "--output_dir=~/out", "--teacher_path", "~/teacher", "--data_dir=a~b"]
    args = parse(Args, words)
    assert (args.train_file, args.output_dir) == ("/home/me/train.csv", "/home/me/out")
    assert (args.teacher_path, args.data_dir) == ("/home/me/teacher", "a~b")


def test_lists_in_yaml(tmp_path: Path) -> None:
    from tools.compare import CompareArgs

    path = tmp_path / "own.yaml"
    path.write_text("folders: [a, b]\n")
    assert parse(CompareArgs, ["--config", str(path)]).folders == ["a", "b"]
    for text, message in (("folders: abc", "'abc' is not a list; write"), ("folders: [1]", "1 is not of type str")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            parse(CompareArgs, ["--config", str(path)])


def test_settings_survive_yaml_and_cosmetic_ones_are_named(tmp_path: Path) -> None:
    args = parse(Args, ["--lr", "3e-5", "--limit", "5"])
    path = config(tmp_path, yaml.safe_dump(settings(args)))
    assert parse(Args, ["--config", path]) == args
    assert {"output_dir", "overwrite", "cache_dir"} <= cosmetic(args) and not {
        "seed",
        "batch_size",
        "data_dir",
    } & cosmetic(args)


@pytest.mark.parametrize("paddle", [False, True])
def test_sigterm_lets_files_be_tidied_up(tmp_path: Path, paddle: bool) -> None:
    """Two of them, as `timeout` sends; paddle has a handler of its own."""
    code = f"""
import os, signal
from distill import cli, files, runtime
def main():
    {paddle} and runtime.start("cpu")
    with files.atomic_path({str(tmp_path / "out")!r}) as temporary:
        temporary.write_text("half")
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
cli.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "") and not list(tmp_path.iterdir())


def test_run_leaves_other_handlers_of_sigterm_alone() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit):
            run(lambda: None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_run_exits_with_status_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("file.tsv:3: the text is empty")

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == 2 and capsys.readouterr().err == "error: file.tsv:3: the text is empty\n"
    with pytest.raises(SystemExit) as stop:
        run(lambda: None)
    assert stop.value.code == 0
