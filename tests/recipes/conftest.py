"""Tiny data, a tiny encoder and tiny teachers that beat chance, made once for all recipe tests."""

import shutil

import numpy as np
import pytest

from tests.recipes import runs
from tests.tiny import SPECIAL, make_bert_folder, make_glue_data

CHINESE = {1: ("好看", "喜欢", "精彩", "满意"), 0: ("难看", "讨厌", "无聊", "失望")}


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch):
    runs.no_clock(monkeypatch)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="session")
def data_dir(home):
    """SST-2, MRPC and STS-B in GLUE's layout: 96 rows to train, 48 dev, 48 test."""
    for task in ("SST-2", "MRPC", "STS-B"):
        make_glue_data(home / "data", task, rows=96)
    return home / "data"


@pytest.fixture(scope="session")
def chinese(home):
    """(data_dir, teacher): ChnSentiCorp's layout with 40 rows and a BERT that knows their characters."""
    folder = home / "zh" / "ChnSentiCorp"
    folder.mkdir(parents=True)
    rng, texts = np.random.default_rng(0), []
    for split, rows in (("train", 40), ("dev", 16), ("test", 16)):
        lines = ["label\ttext_a"]
        for i in range(rows):
            word, thing = rng.choice(CHINESE[i % 2]), rng.choice(["电影", "酒店", "服务", "故事"])
            texts.append(f"这家{thing}非常{word}，我们第{i}次来。")
            lines.append(f"{i % 2}\t{texts[-1]}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    vocabulary = [*SPECIAL, *sorted(set("".join(texts))), *(f"##{digit}" for digit in range(10))]
    return home / "zh", make_bert_folder(home / "zh" / "teacher", layers=1, hidden=16, vocab=vocabulary)


@pytest.fixture(scope="session")
def encoder(home):
    """A BERT of 2 layers without a head."""
    return make_encoder(home, 2)


def make_encoder(home, layers):
    from distill.data.wordpiece import WordPiece
    from distill.encoders.folder import load_bert, save_bert

    folder = home / f"encoder {layers}"
    whole = make_bert_folder(home / f"whole {layers}", layers=layers)
    save_bert(load_bert(whole), folder, WordPiece.from_folder(whole))
    return folder


def fine_tuned(home, data_dir, encoder):
    made = {}

    def of(task):
        if task not in made:
            from glue import run_glue

            with pytest.MonkeyPatch.context() as patch:
                runs.no_clock(patch)
                made[task] = run_glue.main(runs.glue(data_dir, encoder, home / f"{encoder.name} {task}", task))
        return made[task]

    return of


@pytest.fixture(scope="session")
def teachers(home, data_dir, encoder):
    """teachers(task): the folder of a finished run of run_glue.py. Nobody writes into it: see `teacher`."""
    return fine_tuned(home, data_dir, encoder)


@pytest.fixture(scope="session")
def deep_teachers(home, data_dir):
    """deep_teachers(task): as `teachers`, with 4 layers."""
    return fine_tuned(home, data_dir, make_encoder(home, 4))


@pytest.fixture(scope="session")
def still_teacher(home, deep_teachers):
    """The SST-2 teacher of 4 layers without dropout, so that in training too a copy of it gives its numbers."""
    from distill.files import read_json, write_json

    folder = shutil.copytree(deep_teachers("SST-2"), home / "still")
    (folder / "model_config.json").unlink()
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    write_json(folder / "config.json", read_json(folder / "config.json") | none)
    return folder


@pytest.fixture
def teacher(teachers, tmp_path):
    """A copy of the SST-2 teacher, to be spoilt."""
    return shutil.copytree(teachers("SST-2"), tmp_path / "teacher")
