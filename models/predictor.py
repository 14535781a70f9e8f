"""Any finished model folder as one call from texts to logits: a teacher (BERT) or a student."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from paddle import Tensor, nn

from distill.data.pairs import PairLayout
from distill.data.readers import Rows
from distill.data.tasks import get_task
from distill.data.wordpiece import WordPiece
from distill.encoders import inference
from distill.encoders.folder import ModelFolder, find_model, load_bert
from distill.errors import UserError
from distill.evaluation.evaluate import bert_forward, evaluating, predict
from distill.files import read_json
from distill.teachers.teacher import BertForPairs, load_pair_bert
from models import bilstm
from models.dual_encoder import TOWER_INPUTS, DualEncoder, load_dual_encoder

Logits = Callable[[Sequence[str], Sequence[str] | None, int], np.ndarray]


@dataclass(frozen=True)
class Read:
    """Texts as a model reads them. lengths: tokens of each row, [n]; batch(numbers of rows): the model's inputs, padded
    to the longest of these rows."""

    lengths: np.ndarray
    batch: Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Predictor:
    """labels: class names in index order, () for regression; named: whether they are the model's own, and not numbers
    in place of names that it does not have; pair: whether it reads two texts, None: either;
    logits(text_a, text_b, batch_size): [n, outputs] float32 in the texts' order; weights: the file that holds them.

    layer is `model` as a function of `inputs` (rank and type of each, as `distill.encoders.inference` takes them) to
    logits [B, outputs], and `read` makes these inputs from texts: what another way of running it needs.
    """

    model: nn.Layer
    weights: Path
    labels: tuple[str, ...]
    pair: bool | None
    logits: Logits
    layer: nn.Layer
    inputs: Mapping[str, tuple[int, str]]
    read: Callable[[Sequence[str], Sequence[str] | None], Read]
    named: bool = True

    def by(self, run: inference.Pass) -> Logits:
        """As `logits`, its forward passes made by `run`: `inference.compiled(layer, inputs)`, an ONNX session, ..."""
        return lambda text_a, text_b, batch_size: _in_batches(run, self.read(text_a, text_b), batch_size)

    def fastest(self, text_a: Sequence[str], text_b: Sequence[str] | None, batch_size: int) -> Logits:
        """For many rows like these: `logits`, or a graph made once, whichever took less time on a batch of them."""
        if not inference.available():
            return self.logits
        read = self.read(text_a[:batch_size], text_b and text_b[:batch_size])
        graph = inference.compiled(self.layer, self.inputs)
        ways = {"eager": inference.eager(self.layer, self.inputs), "compiled": graph}
        chosen = inference.faster(ways, read.batch(np.arange(len(read.lengths))))
        return self.by(graph) if chosen == "compiled" else self.logits


def open_folder(folder: str | Path, max_length: int | None = None) -> Predictor:
    """Open a folder that a recipe has written. `max_length`, at most its positions, is for a BERT and without it that
    of its training; a BiLSTM and what reads pairs in a layout of its own have theirs.

    Raises UserError when there is no model, or its parts do not fit each other.
    """
    config = Path(folder) / "config.json"
    settings = read_json(config) if config.is_file() else {}
    if settings.get("model_type") == "bilstm":
        return _open_bilstm(Path(folder))
    if "dual_encoder" in settings:
        return _open_dual_encoder(Path(folder))
    if "pairs" in settings:
        return _open_pair_bert(Path(folder))
    return _open_bert(folder, max_length or trained_length(folder))


def read_run(folder: str | Path) -> dict[str, Any]:
    """What run.yaml in the folder says; {} without one."""
    path = Path(folder) / "run.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not the settings of a run; copy it again, or delete it and pass --task_name")
    return found


def trained_length(folder: str | Path) -> int:
    """How many tokens a BERT read in its training, by its run.yaml; 128 where that does not say it."""
    return read_run(folder).get("max_seq_length") or 128


def trained_pair(folder: str | Path) -> bool | None:
    """Whether a BERT, which would read both, was trained on two texts; None where its folder does not say it."""
    facts = Path(folder) / "run.json"
    found: bool | None = read_json(facts).get("pair") if facts.is_file() else None
    if found is not None:
        return found
    run_settings = read_run(folder)
    if run_settings.get("train_file"):
        return True if run_settings.get("text_pair_column") else None
    return get_task(run_settings["task_name"]).pair if run_settings.get("task_name") else None


def _open_bert(folder: str | Path, max_length: int) -> Predictor:
    found = find_model(folder)
    model, wordpiece = load_bert(folder, found.num_outputs, head="stored"), WordPiece.from_folder(found.folder)
    max_length = min(max_length, found.config.get("max_position_embeddings", max_length))

    def logits(text_a: Sequence[str], text_b: Sequence[str] | None, batch_size: int) -> np.ndarray:
        with evaluating(model):
            return predict(
                bert_forward(model), wordpiece.encode(text_a, text_b, max_length), batch_size, wordpiece.pad_id
            )

    def read(text_a: Sequence[str], text_b: Sequence[str] | None) -> Read:
        encoded = wordpiece.encode(text_a, text_b, max_length)
        return Read(encoded.lengths, lambda rows: encoded.pad(rows, wordpiece.pad_id))

    layer = inference.Classifier(model)
    named, inputs = found.labels is not None, inference.BERT_INPUTS
    return Predictor(model, found.weights, _labels(found), None, logits, layer, inputs, read, named)


def _labels(found: ModelFolder) -> tuple[str, ...]:
    """Of a config without names the classes are called by their numbers."""
    names = found.labels or tuple(map(str, range(found.num_outputs)))
    return names if found.num_outputs > 1 else ()


def _open_bilstm(folder: Path) -> Predictor:
    student, reader = bilstm.load_student(folder)

    def logits(text_a: Sequence[str], text_b: Sequence[str] | None, batch_size: int) -> np.ndarray:
        return bilstm.predict(student, reader.texts(text_a, text_b), batch_size)

    def read(text_a: Sequence[str], text_b: Sequence[str] | None) -> Read:
        texts = reader.texts(text_a, text_b)
        return Read(texts.lengths, texts.batch)

    names = ("ids", "lengths", "ids_b", "lengths_b")[: 4 if student.config.pair else 2]
    inputs = {name: (2 if name.startswith("ids") else 1, "int64") for name in names}
    config = student.config
    return Predictor(student, folder / "model.safetensors", config.labels, config.pair, logits, student, inputs, read)


class _Towers(nn.Layer):
    """A dual encoder as a function of _TOWERS: logits [B, C]."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids_a: Tensor, positions_a: Tensor, mask_a: Tensor,
        input_ids_b: Tensor, positions_b: Tensor, mask_b: Tensor,
    ) -> Tensor:  # fmt: skip
        of_a = {"input_ids_a": input_ids_a, "positions_a": positions_a, "mask_a": mask_a}
        of_b = {"input_ids_b": input_ids_b, "positions_b": positions_b, "mask_b": mask_b}
        logits: Tensor = self.model(of_a | of_b)
        return logits


class _Joint(nn.Layer):
    """A BertForPairs as a function of _JOINT: logits [B, C]."""

    def __init__(self, model: BertForPairs) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids, token_type_ids, positions, attention_mask=mask)
        return logits


_TOWERS = {f"{name}_{side}": of for side in "ab" for name, of in TOWER_INPUTS.items()}
_JOINT = {"input_ids": (2, "int64"), "token_type_ids": (2, "int64"), "positions": (2, "int64"), "mask": (2, "float32")}


def _open_dual_encoder(folder: Path) -> Predictor:
    model = load_dual_encoder(folder)
    assert model.lengths is not None and model.labels is not None
    layout = PairLayout(*model.lengths, fixed=model.config.plain_mean)
    return _of_pairs(folder, model, _Towers(model), _TOWERS, layout, model.labels)


def _open_pair_bert(folder: Path) -> Predictor:
    found, (model, layout) = find_model(folder), load_pair_bert(folder)
    return _of_pairs(folder, model, _Joint(model), _JOINT, layout, _labels(found))


def _of_pairs(
    folder: Path,
    model: nn.Layer,
    layer: nn.Layer,
    inputs: Mapping[str, tuple[int, str]],
    layout: PairLayout,
    labels: tuple[str, ...],
) -> Predictor:
    wordpiece, run = WordPiece.from_folder(folder), inference.eager(layer, inputs)

    def read(text_a: Sequence[str], text_b: Sequence[str] | None) -> Read:
        if text_b is None:
            raise UserError(f"{folder}: reads two texts")
        pairs = layout.encode(wordpiece, Rows(list(text_a), list(text_b), None, "texts"))
        return Read(pairs.lengths, lambda rows: pairs.lay_out(rows, wordpiece.pad_id))

    def logits(text_a: Sequence[str], text_b: Sequence[str] | None, batch_size: int) -> np.ndarray:
        return _in_batches(run, read(text_a, text_b), batch_size)

    return Predictor(model, find_model(folder).weights, labels, True, logits, layer, inputs, read)


def _in_batches(run: inference.Pass, read: Read, batch_size: int) -> np.ndarray:
    """Logits [n, C] float32 in row order; rows of similar length share a batch. Raises ValueError without rows."""
    if not len(read.lengths):
        raise ValueError("no rows to predict")
    order = np.argsort(read.lengths, kind="stable")
    ordered = np.concatenate(
        [run(read.batch(order[start : start + batch_size]))[0] for start in range(0, len(order), batch_size)]
    ).astype(np.float32)
    logits = np.empty_like(ordered)
    logits[order] = ordered
    return logits
