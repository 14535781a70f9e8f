"""Tiny data, a tiny encoder and tiny teachers that beat chance, made once for all recipe tests."""

import shutil

import pytest

from tests.recipes import runs
from tests.tiny import make_bert_folder, make_glue_data


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
