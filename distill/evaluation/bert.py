"""A BERT classifier on the dev rows: its scores while it trains, and the report on the finished one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from paddle import nn

from distill.data.readers import Rows
from distill.data.tasks import Task
from distill.data.wordpiece import Encoded, WordPiece
from distill.encoders.folder import load_bert
from distill.evaluation.evaluate import Scores, bert_forward, evaluate_splits, predict, report


class Flags(Protocol):
    """The flags that are read here."""

    max_seq_length: int
    eval_batch_size: int


class BertDev:
    """The dev splits of a task, as a BERT with the given wordpieces reads them."""

    def __init__(self, rows: Mapping[str, Rows], wordpiece: WordPiece, task: Task, flags: Flags) -> None:
        self._wordpiece, self._task, self._flags = wordpiece, task, flags
        self._first = rows[task.dev_splits[0]]
        self._splits = {split: (self._encode(rows[split]), np.asarray(rows[split].labels)) for split in task.dev_splits}

    def _encode(self, rows: Rows) -> Encoded:
        return self._wordpiece.encode(rows.text_a, rows.text_b, self._flags.max_seq_length)

    def _logits(self, model: nn.Layer, texts: Encoded) -> np.ndarray:
        return predict(bert_forward(model), texts, self._flags.eval_batch_size, self._wordpiece.pad_id)

    def scores(self, model: nn.Layer) -> Scores:
        """Scores of a BertForSequenceClassification in eval mode."""
        return evaluate_splits(lambda texts: self._logits(model, texts), self._splits, self._task)

    def report(self, folder: Path, weights: Path, seed: int) -> None:
        """Load the model of the weight file `weights`; score and time it from the text on; write what
        `evaluate.report` does into `folder`."""
        model = load_bert(weights, self._task.num_outputs, head="stored")
        report(
            folder,
            lambda: self.scores(model),
            lambda chosen: self._logits(model, self._encode(self._first.take(chosen))),
            len(self._first),
            self._task,
            model,
            weights,
            self._flags.eval_batch_size,
            seed,
        )
