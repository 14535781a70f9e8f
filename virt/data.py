"""The pairs; the BERT to start from; the dev rows."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paddle import Tensor, nn

from distill.data.pairs import PairLayout, Pairs
from distill.data.readers import Rows
from distill.data.tasks import Task, load_rows, load_task
from distill.data.wordpiece import WordPiece, report_cut
from distill.data.words import read_vocabulary
from distill.encoders import cpu
from distill.encoders.folder import ModelFolder, find_model, flatten_config
from distill.errors import UserError
from distill.evaluation.evaluate import Scores, evaluate_splits, predict, report
from distill.files import read_settings
from virt.args import PairOptions
from virt.tensorflow_checkpoint import converted, is_prefix

Answer = Callable[[Mapping[str, Tensor]], Tensor]
"""A batch of `Pairs` as tensors -> logits [B, C]."""


def load_pairs(args: PairOptions) -> tuple[Task, dict[str, Rows]]:
    """The task, and the rows of its training and dev splits.

    Raises UserError naming file and row for what cannot be read, and for a task whose rows have one text.
    """
    task = load_task(args)
    if not task.pair:
        own = f"{args.train_file or args.dev_file}: no second text; name its column by --text_pair_column"
        raise UserError(
            own if task.name == "own" else f"--task_name {args.task_name}: its rows have one text, and two are compared"
        )
    return task, {split: load_rows(args, task, split) for split in ("train", *task.dev_splits)}


def find_start(flag: str, path: str, args: PairOptions) -> ModelFolder:
    """The BERT that `flag` names by `path`; a TensorFlow checkpoint is converted.

    Raises UserError when --bert_config_file or --vocab_file is given and is not that BERT's own.
    """
    if is_prefix(path):
        return find_model(converted(flag, path, args))
    found = find_model(path)
    if args.bert_config_file is not None:
        theirs = flatten_config(read_settings(args.bert_config_file))
        for name, value in found.config.items():
            if theirs.get(name, value) != value:
                what = f"{name} is {theirs[name]}, in {found.config_file} {value}"
                raise UserError(f"--bert_config_file {args.bert_config_file}: {what}; leave the flag out")
    if args.vocab_file is not None and read_vocabulary(args.vocab_file) != WordPiece.from_folder(found.folder).tokens:
        raise UserError(f"--vocab_file {args.vocab_file}: not the vocabulary in {found.folder}; leave the flag out")
    return found


def check_positions(found: ModelFolder, longest: int, lengths: tuple[int, int]) -> None:
    """Raise UserError when the model has too few positions for rows of `longest` tokens."""
    positions = found.config.get("max_position_embeddings", 512)
    if longest > positions:
        raise UserError(
            f"texts of {lengths[0]} and {lengths[1]} tokens are read as {longest}, and the model in {found.folder} "
            f"reads at most {positions}: give smaller --max_seq_length_query and --max_seq_length_doc"
        )


def report_cut_texts(texts: Pairs) -> None:
    """A line for each side of the training rows with texts that are longer than their tower."""
    report_cut("first texts", texts.cut[:, 0], f"--max_seq_length_query {texts.layout.first}")
    report_cut("second texts", texts.cut[:, 1], f"--max_seq_length_doc {texts.layout.second}")


class PairDev:
    """The dev splits in a layout: a model's scores while it trains, and the report on the finished one."""

    def __init__(
        self, rows: Mapping[str, Rows], layout: PairLayout, wordpiece: WordPiece, task: Task, batch_size: int
    ) -> None:
        self._layout, self._wordpiece, self._task, self._batch_size = layout, wordpiece, task, batch_size
        self._first = rows[task.dev_splits[0]]
        self._splits = {
            split: (layout.encode(wordpiece, rows[split]), np.asarray(rows[split].labels)) for split in task.dev_splits
        }

    def _logits(self, model: nn.Layer, answer: Answer, texts: Any) -> np.ndarray:
        with cpu.arranged(model):
            return predict(answer, texts, self._batch_size, self._wordpiece.pad_id)

    def scores(self, model: nn.Layer, answer: Answer) -> Scores:
        """Scores of a model in eval mode by its `answer`."""
        return evaluate_splits(lambda texts: self._logits(model, answer, texts), self._splits, self._task)

    def report(self, folder: Path, model: nn.Layer, answer: Answer, weights: Path, seed: int) -> None:
        """Score the model and time it from the text on; write what `evaluate.report` does into `folder`."""

        def from_text(chosen: Any) -> np.ndarray:
            return self._logits(model, answer, self._layout.encode(self._wordpiece, self._first.take(chosen)))

        scores = lambda: self.scores(model, answer)  # noqa: E731
        report(folder, scores, from_text, len(self._first), self._task, model, weights, self._batch_size, seed)


def joint_answer(model: nn.Layer) -> Answer:
    """Logits of a BertForPairs; gradients flow through them."""
    return lambda batch: model(
        batch["input_ids"], batch["token_type_ids"], batch["positions"], attention_mask=batch["mask"]
    )
