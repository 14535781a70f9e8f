"""Any finished model folder as one call from texts to logits: a teacher (BERT) or a student."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paddle import nn

from distill.data.wordpiece import WordPiece
from distill.encoders.folder import find_model, load_bert
from distill.evaluation.evaluate import bert_forward, evaluating, predict
from distill.files import read_json
from models import bilstm


@dataclass(frozen=True)
class Predictor:
    """labels: class names in index order, () for regression; pair: whether it reads two texts, None: either;
    logits(text_a, text_b, batch_size): [n, outputs] float32 in the texts' order; weights: the file that holds them."""

    model: nn.Layer
    weights: Path
    labels: tuple[str, ...]
    pair: bool | None
    logits: Callable[[Sequence[str], Sequence[str] | None, int], np.ndarray]


def open_folder(folder: str | Path, max_length: int = 128) -> Predictor:
    """Open a folder that a recipe has written. `max_length`, at most its positions, is for BERT; a BiLSTM has its own.

    Raises UserError when there is no model, or its parts do not fit each other.
    """
    config = Path(folder) / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "bilstm":
        student, reader = bilstm.load_student(folder)

        def read(text_a: Sequence[str], text_b: Sequence[str] | None, batch_size: int) -> np.ndarray:
            return bilstm.predict(student, reader.texts(text_a, text_b), batch_size)

        weights = config.with_name("model.safetensors")
        return Predictor(student, weights, student.config.labels, student.config.pair, read)

    found = find_model(folder)
    model, wordpiece = load_bert(folder, found.num_outputs, head="stored"), WordPiece.from_folder(found.folder)

    max_length = min(max_length, found.config.get("max_position_embeddings", max_length))

    def logits(text_a: Sequence[str], text_b: Sequence[str] | None, batch_size: int) -> np.ndarray:
        with evaluating(model):
            return predict(
                bert_forward(model), wordpiece.encode(text_a, text_b, max_length), batch_size, wordpiece.pad_id
            )

    # A config without names: the classes are called by their numbers.
    names = found.labels or tuple(map(str, range(found.num_outputs)))
    return Predictor(model, found.weights, names if found.num_outputs > 1 else (), None, logits)
