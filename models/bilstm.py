"""The BiLSTM student of Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks",
section 3.

One text:   embedding -> BiLSTM -> h = [last forward; last backward] -> tanh(W1 h) -> W2
Two texts:  the same BiLSTM reads both (siamese); W1 reads [u; v; u + v; |u - v|].
The states are those of the last real token and the first: padding is never read. Dropout acts on the embeddings and
before each linear layer, so it acts with one layer too.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from distill.data.ragged import Ragged
from distill.data.wordpiece import WordPiece
from distill.data.words import WordVocab, segment
from distill.errors import UserError
from distill.evaluation.evaluate import evaluating
from distill.files import read_json, write_json
from distill.tensors import fill, load_tensors, save_tensors


@dataclass(frozen=True)
class BiLSTMConfig:
    """Sizes of a BiLSTM student. `labels` are in index order, empty for regression; `reads` is `wordpieces` or
    `words`; `pad_id` is that of [PAD] in its vocabulary."""

    vocab_size: int
    labels: tuple[str, ...]
    pair: bool = False
    embedding_size: int = 300
    hidden_size: int = 300
    num_layers: int = 1
    dropout: float = 0.0
    init_scale: float = 0.1
    max_length: int = 128
    reads: str = "wordpieces"
    language: str = "en"
    pad_id: int = 0

    @property
    def num_outputs(self) -> int:
        return len(self.labels) or 1


class BiLSTM(nn.Layer):
    """Logits of one text or of a pair.

    embeddings: [vocab_size, embedding_size] float32 to start from; without it the table is uniform(-init_scale,
    init_scale). Row `pad_id` stays zero. sparse_embeddings: the table's gradient holds only the rows of
    the batch (for Adam with lazy_mode).
    """

    def __init__(
        self, config: BiLSTMConfig, embeddings: np.ndarray | None = None, sparse_embeddings: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        scale = nn.initializer.Uniform(-config.init_scale, config.init_scale)
        hidden, features = config.hidden_size, (8 if config.pair else 2) * config.hidden_size
        self.embedding = nn.Embedding(
            config.vocab_size,
            config.embedding_size,
            padding_idx=config.pad_id,
            sparse=sparse_embeddings,
            weight_attr=paddle.ParamAttr(initializer=scale),
        )
        self.lstm = nn.LSTM(
            config.embedding_size,
            hidden,
            num_layers=config.num_layers,
            direction="bidirect",
            dropout=config.dropout if config.num_layers > 1 else 0.0,
        )
        self.fc = nn.Linear(features, hidden, weight_attr=paddle.ParamAttr(initializer=scale))
        self.classifier = nn.Linear(hidden, config.num_outputs, weight_attr=paddle.ParamAttr(initializer=scale))
        self.dropout = nn.Dropout(config.dropout)
        table = self.embedding.weight.numpy() if embeddings is None else np.array(embeddings, dtype=np.float32)
        table[config.pad_id] = 0.0
        self.embedding.weight.set_value(table)

    def encode(self, ids: paddle.Tensor, lengths: paddle.Tensor) -> paddle.Tensor:
        """[B, L] ids and [B] lengths -> [B, 2 * hidden]: last forward state beside last backward state of the top
        layer."""
        _, (states, _) = self.lstm(self.dropout(self.embedding(ids)), sequence_length=lengths)
        return paddle.concat([states[-2], states[-1]], axis=-1)

    def forward(
        self,
        ids: paddle.Tensor,
        lengths: paddle.Tensor,
        ids_b: paddle.Tensor | None = None,
        lengths_b: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """[B, L] ids of the text (and of the second text) -> [B, outputs] logits."""
        features = self.encode(ids, lengths)
        if self.config.pair:
            v = self.encode(ids_b, lengths_b)
            features = paddle.concat([features, v, features + v, paddle.abs(features - v)], axis=-1)
        return self.classifier(self.dropout(paddle.tanh(self.fc(self.dropout(features)))))

    def logits(self, batch: dict[str, paddle.Tensor]) -> paddle.Tensor:
        """`forward` on what `Texts.batch` returned."""
        return self(batch["ids"], batch["lengths"], batch.get("ids_b"), batch.get("lengths_b"))


class Reader:
    """From text to the ids that a student reads: BERT's wordpieces without special tokens, or the words of its own
    vocabulary."""

    def __init__(self, vocabulary: WordPiece | WordVocab, language: str, max_length: int) -> None:
        self.vocabulary, self.language, self.max_length = vocabulary, language, max_length

    @property
    def reads(self) -> str:
        return "wordpieces" if isinstance(self.vocabulary, WordPiece) else "words"

    def __call__(self, texts: Sequence[str]) -> Ragged:
        """Ids of each text, cut to `max_length`; a text of which nothing is left is read as one unknown token."""
        return self.fit(self.whole(texts))

    def whole(self, texts: Sequence[str]) -> Ragged:
        """Ids of each text, not cut."""
        if isinstance(self.vocabulary, WordPiece):
            rows = self.vocabulary.pieces(texts)
        else:
            rows = self.vocabulary.lookup(segment(texts, self.language))
        return Ragged.from_lists(rows)

    def texts(self, text_a: Sequence[str], text_b: Sequence[str] | None = None) -> "Texts":
        """One text a row, or two, as the student reads them."""
        return Texts(self(text_a), None if text_b is None else self(text_b), self.vocabulary.pad_id)

    def fit(self, rows: Ragged) -> Ragged:
        """Rows of ids cut to `max_length`; an empty one becomes one unknown token."""
        lengths = rows.lengths
        if (lengths == 0).any():
            unknown = Ragged(
                np.append(rows.values, np.int32(self.vocabulary.unk_id)), np.append(rows.offsets, len(rows.values) + 1)
            )
            rows = unknown.take(np.where(lengths == 0, len(rows), np.arange(len(rows))))
        return rows.take(np.arange(len(rows)), 0, np.minimum(rows.lengths, self.max_length))

    def save(self, folder: Path) -> None:
        if isinstance(self.vocabulary, WordPiece):
            self.vocabulary.save(folder)
        else:
            self.vocabulary.save(folder / "words.txt")

    @classmethod
    def load(cls, folder: Path, config: BiLSTMConfig) -> "Reader":
        vocabulary = (
            WordPiece.from_folder(folder) if config.reads == "wordpieces" else WordVocab.from_file(folder / "words.txt")
        )
        return cls(vocabulary, config.language, config.max_length)


@dataclass
class Texts:
    """What the student reads of n rows: ids of one text, or of two; pad_id fills them up."""

    a: Ragged
    b: Ragged | None = None
    pad_id: int = 0

    def __len__(self) -> int:
        return len(self.a)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens a row, of both texts together."""
        return self.a.lengths if self.b is None else self.a.lengths + self.b.lengths

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The arguments of BiLSTM.forward for these rows, padded to the longest text."""
        values = dict(zip(("ids", "lengths"), self.a.padded(rows, self.pad_id), strict=True))
        if self.b is not None:
            values |= dict(zip(("ids_b", "lengths_b"), self.b.padded(rows, self.pad_id), strict=True))
        return values


def predict(model: BiLSTM, texts: Texts, batch_size: int) -> np.ndarray:
    """[n, outputs] logits in row order, in eval mode without gradient; rows of similar length share a batch."""
    order = np.argsort(texts.lengths, kind="stable")
    logits = np.empty((len(texts), model.config.num_outputs), np.float32)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = {name: paddle.to_tensor(value) for name, value in texts.batch(rows).items()}
            logits[rows] = model.logits(batch).numpy()
    return logits


def create(
    config: BiLSTMConfig, seed: int, embeddings: np.ndarray | None = None, sparse_embeddings: bool = False
) -> BiLSTM:
    """A student whose random weights depend on `config` and `seed` alone, whether or not it is given embeddings."""
    paddle.seed(seed)
    return BiLSTM(config, embeddings, sparse_embeddings)


def save_student(folder: Path, model: BiLSTM, reader: Reader) -> None:
    """Write config.json, model.safetensors and the vocabulary into `folder`."""
    write_json(folder / "config.json", {"model_type": "bilstm", **asdict(model.config)})
    save_tensors(folder / "model.safetensors", model.state_dict())
    reader.save(folder)


def load_student(folder: str | Path) -> tuple[BiLSTM, Reader]:
    """The student of a folder written by `save_student`, in eval mode.

    Raises UserError when the folder is not one, or weights and configuration or vocabulary do not fit.
    """
    folder = Path(folder)
    values: dict[str, Any] = read_json(folder / "config.json")
    if values.pop("model_type", None) != "bilstm":
        raise UserError(f"{folder / 'config.json'}: not the folder of a BiLSTM student")
    try:
        config = BiLSTMConfig(**{**values, "labels": tuple(values["labels"])})
    except (TypeError, KeyError) as error:
        raise UserError(f"{folder / 'config.json'}: not a BiLSTM's settings ({error})") from None
    reader = Reader.load(folder, config)
    if len(reader.vocabulary.tokens) != config.vocab_size:
        tokens = len(reader.vocabulary.tokens)
        raise UserError(f"{folder}: {tokens} tokens, the model has {config.vocab_size}; copy the whole folder again")
    model = BiLSTM(config)
    fill(model, load_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    model.eval()
    return model, reader
