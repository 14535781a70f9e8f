"""The dev rows as a BERT reads them: scores in training, and the report on the finished model."""

import json
from dataclasses import dataclass

import numpy as np
import paddle
import pytest

from distill.data.tasks import get_task, load_rows
from distill.data.wordpiece import WordPiece
from distill.encoders.folder import load_bert
from distill.evaluation.bert import BertDev
from distill.evaluation.predictions import load_predictions
from distill.options import TaskOptions
from tests.recipes import runs
from tests.tiny import make_bert_folder, make_glue_data


@dataclass
class Flags:
    max_seq_length: int = 32
    eval_batch_size: int = 8


@pytest.fixture
def dev(tmp_path):
    task, folder = get_task("MRPC"), make_bert_folder(tmp_path / "bert")
    rows = load_rows(
        TaskOptions(task_name="MRPC", data_dir=str(make_glue_data(tmp_path / "data", "MRPC"))), task, "dev"
    )
    return rows, BertDev({"dev": rows}, WordPiece.from_folder(folder), task, Flags()), folder


def test_scores_are_those_of_one_row_after_the_other(dev):
    rows, its, folder = dev
    model, wordpiece = load_bert(folder, 2), WordPiece.from_folder(folder)
    model.eval()
    answers = []
    for a, b in zip(rows.text_a, rows.text_b, strict=True):
        row = wordpiece.encode([a], [b], 32).pad([0])
        logits = model(paddle.to_tensor(row["input_ids"]), paddle.to_tensor(row["token_type_ids"]))
        answers.append(int(logits.argmax()))
    scores = its.scores(model)
    assert scores["accuracy"] == pytest.approx(np.mean(np.array(answers) == rows.labels))
    assert {"f_1", "precision", "recall"} <= scores.keys()


def test_report_of_the_saved_model(dev, tmp_path, monkeypatch):
    runs.no_clock(monkeypatch)
    rows, its, folder = dev
    its.report(tmp_path / "run", folder / "model.safetensors", seed=7)
    model = load_bert(folder, 2)
    model.eval()
    result = json.loads((tmp_path / "run" / "results_eval.json").read_text())
    assert result["accuracy"] == its.scores(model)["accuracy"] and (result["seed"], result["rows"]) == (7, len(rows))
    assert load_predictions(tmp_path / "run")["dev"].logits.shape == (len(rows), 2)
