"""Every command in a document, a docstring or a preset, and each published one, is taken by the script's own parser."""

import argparse
import ast
import contextlib
import importlib
import re
import resource
import shlex
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill import runtime

ROOT = Path(__file__).parent.parent
FOLDERS = (
    "glue", "kd", "distill_lstm", "data_augmentation", "pkd", "theseus", "tinybert", "virt", "multistage", "tools",
    "benchmarks",
)  # fmt: skip
SCRIPTS = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
DOCUMENTS = sorted(
    path for path in (ROOT.glob("*.md"), ROOT.glob("*/*.md")) for path in path if ".venv" not in path.parts
)
PRESETS = sorted(ROOT.glob("*/presets/*.yaml"))
OTHER_PROGRAMS = {"cd", "export", "git", "pip", "source", "unzip", "visualdl", "wget", ".ci/run"}

# The published commands, as they stand there.
PUBLISHED = r"""
cd ../../glue
export CUDA_VISIBLE_DEVICES=0
export TASK_NAME=SST-2
python -u ./run_bert_finetune.py \
    --model_type bert \
    --model_name_or_path bert-base-uncased \
    --task_name $TASK_NAME \
    --max_seq_length 128 \
    --batch_size 128   \
    --learning_rate 3e-5 \
    --num_train_epochs 3 \
    --logging_steps 10 \
    --save_steps 10 \
    --output_dir ../distill/ditill_lstm/model/$TASK_NAME/ \
    --n_gpu 1 \

wget https://paddlenlp.bj.bcebos.com/data/senta_word_dict.txt

CUDA_VISIBLE_DEVICES="0" nohup python small.py \
    --task_name senta \
    --max_epoch 20 \
    --vocab_size 29496 \
    --batch_size 64 \
    --model_name bert-wwm-ext-chinese \
    --optimizer adam \
    --lr 3e-4 \
    --dropout_prob 0.2 \
    --use_pretrained_emb False \
    --vocab_path senta_word_dict_subset.txt > senta_small.log &

CUDA_VISIBLE_DEVICES="1" nohup python small.py \
    --task_name sst-2 \
    --vocab_size 30522 \
    --max_epoch 10 \
    --batch_size 64 \
    --lr 1.0 \
    --dropout_prob 0.4 \
    --use_pretrained_emb True > sst-2_small.log &

CUDA_VISIBLE_DEVICES="2" nohup python small.py \
    --task_name qqp \
    --vocab_size 30522 \
    --max_epoch 35 \
    --batch_size 256 \
    --lr 2.0 \
    --dropout_prob 0.4 \
    --use_pretrained_emb True > qqp_small.log &

CUDA_VISIBLE_DEVICES="3" nohup python bert_distill.py \
    --task_name senta \
    --vocab_size 29496 \
    --max_epoch 6 \
    --lr 1.0 \
    --dropout_prob 0.1 \
    --batch_size 64 \
    --model_name bert-wwm-ext-chinese \
    --use_pretrained_emb False \
    --teacher_path model/senta/best_bert_wwm_ext_model_880/model_state.pdparams \
    --vocab_path senta_word_dict_subset.txt > senta_distill_wwm_ext.log &

CUDA_VISIBLE_DEVICES="4" nohup python bert_distill.py \
    --task_name sst-2 \
    --vocab_size 30522 \
    --max_epoch 6 \
    --lr 1.0 \
    --task_name sst-2 \
    --dropout_prob 0.2 \
    --batch_size 128 \
    --model_name bert-base-uncased \
    --use_pretrained_emb True \
    --teacher_path model/SST-2/best_model_610/model_state.pdparams > sst-2_distill.log &

CUDA_VISIBLE_DEVICES="5" nohup python bert_distill.py \
    --task_name qqp \
    --vocab_size 30522 \
    --max_epoch 6 \
    --lr 1.0 \
    --dropout_prob 0.2 \
    --batch_size 256 \
    --model_name bert-base-uncased \
    --use_pretrained_emb True \
    --n_iter 10 \
    --teacher_path model/QQP/best_model_17000/model_state.pdparams > qqp_distill.log &
"""


def commands(text: str) -> list[list[str]]:
    """The commands of a piece of shell: words without redirections, assignments, `nohup` and a final `&`."""
    variables: dict[str, str] = {}
    found = []
    for line in re.sub(r"\\[ \t]*(\n|$)", " ", text).splitlines():
        line = string.Template(line.strip().removesuffix("&")).safe_substitute(variables)
        words = shlex.split(re.sub(r"\s+2?>>?\s*\S+", "", line), comments=True)
        while words and (re.fullmatch(r"[A-Z_]+=.*", words[0]) or words[0] in ("nohup", "nice")):
            words = words[1:]
        if words[:1] == ["export"]:
            variables |= dict(word.split("=", 1) for word in words[1:])
        if words:
            found.append(words)
    return found


def shell_of(path: Path) -> Iterator[str]:
    """The pieces of shell in a document, a script's docstring or a preset's head comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from re.findall(r"^```(?:shell|bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        yield from (" ".join(span.split()) for span in re.findall(r"`((?:python|make) [^`]+)`", prose))
        return
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    else:
        text = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    lines, joined = iter(text.splitlines()), []
    for line in lines:
        if re.match(r"\s*(\w+=\S+ )*(python|make) ", line):
            while line.endswith("\\"):
                line = line[:-1] + " " + next(lines).strip()
            joined.append(line)
    yield "\n".join(joined)


def script_of(words: list[str], folder: Path) -> tuple[Path, list[str]] | None:
    """The script that a `python` command runs, in `folder` or in the root, and its arguments; None for -c and -m."""
    if words[1:3] == ["-m", "paddle.distributed.launch"]:
        first = next(i for i, word in enumerate(words) if word.endswith(".py"))
    elif words[1] in ("-m", "-c"):
        return None
    else:
        first = 2 if words[1] == "-u" else 1
    words = [re.sub(r"^\w+_bundle/", "distill/deploy/", word) for word in words]  # a bundle's script is this copy
    places = [place / words[first] for place in (folder, ROOT) if (place / words[first]).is_file()]
    assert places, f"{words[first]}: no such script, neither from {folder} nor from the root"
    return places[0].resolve(), words[first + 1 :]


class Parsed(Exception):
    """Raised where a script begins to work: its flags are right."""


def parsed(script: Path, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """What the script's own main makes of the flags; it is stopped there."""
    module = importlib.import_module(".".join(script.relative_to(ROOT).with_suffix("").parts))
    found = []

    def begins(*_: object) -> None:
        raise Parsed

    read_all = argparse.ArgumentParser.parse_args
    home = sys.modules[module.main.__module__]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *argv])
        patch.setattr(runtime, "start", begins)
        patch.setattr(argparse.ArgumentParser, "parse_args", lambda *args: begins(read_all(*args)))  # of the benchmarks
        if hasattr(home, "parse"):
            real = home.parse
            patch.setattr(home, "parse", lambda *args, **more: (found.append(real(*args, **more)), found[-1])[1])
        if home.__name__ == "tools.results":
            patch.setattr(home, "keep", begins)
            patch.setattr(home, "READMES", ())
        begun_by = {
            "tools.doctor": "report", "tools.serve": "start", "tools.bench": "bench", "tools.export": "require_folder",
        }  # fmt: skip
        if home.__name__ in begun_by:
            patch.setattr(home, begun_by[home.__name__], begins)
        with contextlib.suppress(Parsed):
            module.main()
    return found[0] if found else None


def given() -> list[tuple[Path, list[str]]]:
    return [
        (path, words)
        for path in (*DOCUMENTS, *SCRIPTS, *PRESETS)
        for shell in shell_of(path)
        for words in commands(shell)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "words"), given(), ids=lambda value: str(value.name if isinstance(value, Path) else value[1:3])
)
def test_given_commands(path, words, monkeypatch):
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[0] == "bash":
        script = next(place / words[1] for place in (path.parent, ROOT) if (place / words[1]).is_file())
        called = shlex.split(script.read_text().splitlines()[-1].replace('"$@"', shlex.join(words[2:])))
        parsed(ROOT / called[2].removeprefix("$(dirname $0)/../"), called[3:], monkeypatch)
    elif words[0] != "python":
        assert words[0] in OTHER_PROGRAMS, f"{path}: {words[0]} is not a program that this test knows"
    else:
        folder = path.parent.parent if path.parent.name == "presets" else path.parent
        found = script_of(words, folder)
        if found is not None:
            parsed(*found, monkeypatch)


def test_every_script_shows_a_command_of_its_own():
    for script in SCRIPTS:
        shown = [words for shell in shell_of(script) for words in commands(shell)]
        by_make = any(words[0] == "make" for words in shown)
        assert by_make or any(
            script_of(words, script.parent)[0] == script for words in shown if words[0] == "python"
        ), script


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets(preset, monkeypatch):
    """The head comment gives a command with this preset."""
    shown = [words for shell in shell_of(preset) for words in commands(shell)]
    assert any(preset.stem in words[words.index("--config") + 1] for words in shown if "--config" in words)


def test_the_published_commands(monkeypatch):
    found = []
    for words in commands(PUBLISHED):
        if words[0] == "python":
            (folder,) = [
                folder for folder in ("glue", "distill_lstm") for word in words if (ROOT / folder / word).is_file()
            ]
            found.append(parsed(*script_of(words, ROOT / folder), monkeypatch))
        else:
            assert words[0] in OTHER_PROGRAMS
    assert [args.task_name for args in found] == ["SST-2", "senta", "sst-2", "qqp", "senta", "sst-2", "qqp"]
    assert [args.num_train_epochs for args in found] == [3, 20, 10, 35, 6, 6, 6]
    assert [args.batch_size for args in found] == [128, 64, 64, 256, 64, 128, 256]
    assert [args.learning_rate for args in found] == [3e-5, 3e-4, 1.0, 2.0, 1.0, 1.0, 1.0]
    teacher, *students = found
    assert (teacher.output_dir, teacher.logging_steps, teacher.save_steps) == (
        "../distill/ditill_lstm/model/SST-2/",
        10,
        10,
    )
    assert [args.optimizer for args in students] == ["adam", *["adadelta"] * 5]
    assert [args.use_pretrained_emb for args in students] == [False, True, True, False, True, True]
    assert [args.dropout_prob for args in students] == [0.2, 0.4, 0.4, 0.1, 0.2, 0.2]
    assert [args.vocab_path for args in students] == ["senta_word_dict_subset.txt", None, None] * 2
    assert [args.n_iter for args in students] == [0, 0, 0, 20, 20, 10]
    assert students[4].teacher_path == "model/SST-2/best_model_610/model_state.pdparams"
    assert all(args.alpha == 1.0 for args in students[3:])  # their alpha weighted the labels, and was 0


def test_reading_of_shell():
    assert commands(
        'export A=b\nX="1" nohup python -u s.py \\\n  --a $A "two words" > log.txt 2>&1 & \n# no\ncd x  # y\n'
    ) == [
        ["export", "A=b"],
        ["python", "-u", "s.py", "--a", "b", "two words"],
        ["cd", "x"],
    ]
    launched = ["python", "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "glue/run_glue.py", "--seed", "1"]
    assert script_of(launched, ROOT) == (ROOT / "glue" / "run_glue.py", ["--seed", "1"])
    assert script_of(["python", "-m", "venv", "x"], ROOT) is None


def test_a_wrong_command_is_noticed(monkeypatch):
    from distill.errors import UserError

    with pytest.raises(UserError, match="--max_epoc: unknown flag"):
        parsed(ROOT / "distill_lstm" / "small.py", ["--max_epoc", "3"], monkeypatch)
    with pytest.raises(AssertionError, match="no such script"):
        script_of(["python", "tools/none.py"], ROOT)


PROBE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("HEAVY", [name for name in ("paddle", "paddlenlp", "jieba", "gensim", "sklearn") if name in sys.modules])
"""


@pytest.mark.parametrize("flag", ["--help", "--no_such_flag"])
@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if path.parent.name != "benchmarks"], ids=lambda path: path.stem
)
def test_help_and_flag_errors_are_quick(script, flag):
    """In under half a second of processor time (the clock would measure what else this machine does)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", PROBE, str(script), flag], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    if flag == "--help":
        assert done.returncode == 0 and done.stdout.startswith("usage: ") and not done.stderr
    else:
        assert done.returncode == 2 and done.stderr.startswith("error: --no_such_flag: unknown flag")
        assert len(done.stderr.splitlines()) == 1


def test_help_is_the_same_every_time_and_names_each_flag_by_its_field():
    command, texts = [sys.executable, str(ROOT / "distill_lstm" / "bert_distill.py"), "--help"], set()
    for seed in "123":
        done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONHASHSEED": seed})
        texts.add(done.stdout)
    assert len(texts) == 1
    assert "--teacher_path [str], --teacher_dir [str]" in texts.pop()
