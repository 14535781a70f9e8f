"""Vectors of sentences: an encoder, the pooling of its last hidden states, and the text that it reads.

encoder = load_sentence_encoder("my_student")
vectors = encoder.encode(["A man is walking.", "Ein Mann geht."])      # float32 [2, dim]
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from distill.data.wordpiece import Encoded, WordPiece
from distill.encoders import inference
from distill.encoders.folder import CONFIG_FILES, WEIGHT_FILES, flatten_config, from_torch
from distill.errors import UserError
from distill.files import read_json, read_settings, write_atomic
from distill.pretrained import MINILM, minilm_folder
from distill.tensors import fill, load_pdparams, load_tensors, load_torch
from models.recurrent_encoder import EncoderConfig, RecurrentEncoder, kept_layers, layer_number, save_encoder

POOLINGS = ("mean", "mean_sqrt_len", "cls", "max")
_MANY_TOKENS = 100_000  # from here on a graph is worth the half second that it takes to make
_READERS = {".safetensors": load_tensors, ".pdparams": load_pdparams, ".bin": load_torch}
# How `model_type`, or the beginning of the name of the class, calls the two shapes.
_KINDS: dict[str, Literal["bert", "xlm-roberta"]] = {
    "bert": "bert", "xlm-roberta": "xlm-roberta", "roberta": "xlm-roberta",
    "Bert": "bert", "XLMRoberta": "xlm-roberta", "Roberta": "xlm-roberta",
}  # fmt: skip
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_PREFIXES = ("bert.", "roberta.")
_NEVER_READ = ("pooler.", "classifier.", "cls.", "lm_head.", "fit_dense")  # heads, which no sentence vector asks


class Reader(Protocol):
    """From texts to ids: `distill.data.wordpiece.WordPiece`, or `Subwords`."""

    pad_id: int
    size: int

    @property
    def tokens(self) -> list[str]: ...
    def encode(self, text_a: Sequence[str], text_b: None, max_length: int) -> Encoded: ...
    def save(self, folder: str | Path, **settings: Any) -> None: ...
    def digest(self) -> str: ...


class Subwords:
    """The tokenizer of a tokenizer.json (XLM-RoBERTa's pieces, RoBERTa's bytes), as the `tokenizers` library reads it.

    Raises UserError when the file is missing or not a tokenizer.
    """

    def __init__(self, path: Path, pad_id: int) -> None:
        from tokenizers import Tokenizer

        if not path.is_file():
            raise UserError(f"{path}: no such file, nor a vocab.txt; save the model with its fast tokenizer")
        self._content = path.read_text(encoding="utf-8")
        try:
            self._tokenizer = Tokenizer.from_str(self._content)
        except Exception as error:  # the library has no exception of its own
            raise UserError(f"{path}: not a tokenizer of the tokenizers library ({error})") from None
        self._tokenizer.no_padding()
        self.pad_id, self.size = pad_id, self._tokenizer.get_vocab_size()

    @property
    def tokens(self) -> list[str]:
        ids = self._tokenizer.get_vocab()
        return sorted(ids, key=ids.__getitem__)

    def encode(self, text_a: Sequence[str], text_b: None, max_length: int) -> Encoded:
        """As `WordPiece.encode`; all token types are 0."""
        self._tokenizer.enable_truncation(max_length)
        return Encoded.from_rows([row.ids for row in self._tokenizer.encode_batch_fast(list(text_a))])

    def save(self, folder: str | Path, **settings: Any) -> None:
        write_atomic(Path(folder) / "tokenizer.json", self._content)

    def digest(self) -> str:
        """SHA-256 of what decides the ids: how a file is laid out, cuts and pads does not."""
        content = json.loads(self._content)
        deciding = {key: value for key, value in content.items() if key not in ("truncation", "padding")}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


class SentenceEncoder(nn.Layer):
    """encoder + pooling [+ normalise].

    encoder: a RecurrentEncoder; reader: what cuts its texts; max_length: longest input in tokens, longer ones are cut;
    pooling: `mean` over real tokens, `mean_sqrt_len` (their sum over the root of their number), `cls` (the first) or
    `max`; normalize: scale the vectors to length 1.
    As a layer it maps [B, L] ids, token types and mask to vectors [B, dim]. Raises UserError when vocabulary, length
    and encoder do not fit.
    """

    def __init__(
        self,
        encoder: RecurrentEncoder,
        reader: Reader,
        max_length: int,
        pooling: str = "mean",
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.reader, self.max_length = encoder, reader, max_length
        self.pooling, self.normalize = pooling, normalize
        self._fixed: bool = False
        self._graph: inference.Pass | None = None
        self.dim: int = encoder.config.hidden_size
        if max_length > encoder.config.max_length:
            raise UserError(f"max_seq_length {max_length}: the model reads at most {encoder.config.max_length} tokens")
        if reader.size > encoder.config.vocab_size:
            have = encoder.config.vocab_size
            raise UserError(f"a vocabulary of {reader.size} tokens for a model of {have}; use those of the same model")

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor) -> Tensor:
        vectors = _pooled(self.encoder(input_ids, token_type_ids, mask), mask, self.pooling)
        return F.normalize(vectors, axis=-1) if self.normalize else vectors

    def tokens(self, texts: Sequence[str]) -> Encoded:
        """The texts as this model reads them. Raises TypeError for one text, which would be taken letter by letter."""
        if isinstance(texts, str):
            raise TypeError("a list of texts is needed, such as [text]")
        return self.reader.encode([text.strip() for text in texts], None, self.max_length)

    def batch(self, encoded: Encoded, rows: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of `forward` for the chosen rows of `tokens`."""
        padded = encoded.pad(rows, self.reader.pad_id)
        ids, types, mask = (paddle.to_tensor(padded[name]) for name in inference.BERT_INPUTS)
        return ids, types, mask

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Vectors of the texts, float32 [N, dim], in their order; without gradient, texts of similar length together.

        On a CPU many texts are run by Paddle Inference.
        """
        encoded = self.tokens(texts)
        vectors = np.empty((len(encoded), self.dim), np.float32)
        run = self._pass(int(encoded.lengths.sum()))
        order = np.argsort(encoded.lengths, kind="stable")
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors[rows] = run(encoded.pad(rows, self.reader.pad_id))[0]
        return vectors

    def fix(self) -> Self:
        """Keep the weights of now: `encode` then makes its graph once, and runs few texts by it too. Returns itself."""
        self._fixed, self._graph = True, None
        return self

    def _pass(self, tokens: int) -> inference.Pass:
        if not inference.available() or not (self._fixed or tokens >= _MANY_TOKENS):
            return inference.eager(self, inference.BERT_INPUTS)
        graph = self._graph or inference.compiled(self, inference.BERT_INPUTS)
        self._graph = graph if self._fixed else None
        return graph

    def without_layers(self) -> Self:
        """The mean of its embeddings: what the encoder makes of a text before its first layer. Weights are copied."""
        config, arrays = kept_layers(self.encoder.config, weights(self.encoder), 0, 1)
        return type(self)(build(config, arrays, "the model"), self.reader, self.max_length, "mean")

    def digest(self) -> str:
        """SHA-256 of weights, shape, vocabulary, length and pooling, as hexadecimal digits: equal digests give equal
        vectors."""
        about = [self.max_length, self.pooling, self.normalize, self.reader.digest()]
        found = hashlib.sha256(json.dumps([dataclasses.asdict(self.encoder.config), *about]).encode())
        for name, array in sorted(weights(self.encoder).items()):
            found.update(name.encode() + np.ascontiguousarray(array).data)
        return found.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load_sentence_encoder` opens."""
        self.reader.save(folder)
        pooling = {"pooling": self.pooling, "normalize": self.normalize, "max_seq_length": self.max_length}
        save_encoder(self.encoder, folder, **pooling)


def weights(encoder: RecurrentEncoder) -> dict[str, np.ndarray]:
    """The encoder's weights by name."""
    return {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}


def build(config: EncoderConfig, arrays: dict[str, np.ndarray], source: str | Path) -> RecurrentEncoder:
    """An encoder with these weights. Raises UserError naming `source` when one is missing, superfluous or misshapen."""
    encoder = RecurrentEncoder(config)
    fill(encoder, arrays, source)
    return encoder


def load_sentence_encoder(
    path: str | Path, max_length: int | None = None, normalize: bool | None = None
) -> SentenceEncoder:
    """Open a sentence encoder, in eval mode: a finished student's folder, a folder in the layout of
    sentence-transformers (modules.json), or a plain BERT or XLM-RoBERTa, whose tokens are then averaged.

    path: the folder, a weight file in a folder without modules, or `all-MiniLM-L6-v2`, which is found where it is
        installed. Weights of PyTorch (.safetensors, .bin) and of PaddleNLP are read, without torch and without
        executing anything.
    max_length: cut longer texts, in tokens; at most what the folder says. normalize: scale the vectors to length 1 or
        not, whatever the folder says.
    Raises UserError when a file is missing, damaged or of another kind of model or module, naming it.
    """
    found = read_folder(path)
    encoder = build(found.config, found.arrays, found.weights)
    longest = found.max_length if max_length is None else min(found.max_length, max_length)
    scaled = found.normalize if normalize is None else normalize
    model = SentenceEncoder(encoder, found.reader, longest, found.pooling, scaled)
    model.eval()
    return model


@dataclasses.dataclass(frozen=True)
class EncoderFolder:
    """What the folder of a sentence encoder holds, without the layers being built."""

    config: EncoderConfig
    arrays: dict[str, np.ndarray]
    weights: Path
    reader: Reader
    max_length: int
    pooling: str
    normalize: bool


def read_folder(path: str | Path) -> EncoderFolder:
    """The content of a folder as `load_sentence_encoder` takes it; raises as it does."""
    place = minilm_folder() if str(path) == MINILM else Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{path}: no such folder; pass the folder of a sentence encoder")
    pooling, normalize, inner = "mean", False, place
    if (place / "modules.json").is_file():
        pooling, normalize, inner = _modules(place)
    folder, file = (inner.parent, inner) if inner.is_file() else (inner, _weight_file(inner))
    config_file = next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), folder / CONFIG_FILES[0])
    raw = flatten_config(read_settings(config_file))
    config = _config(raw, config_file)
    arrays = _arrays(file, config)
    missing = {"pooling", "normalize"} - raw.keys()
    if not missing:  # a student's
        pooling, normalize = raw["pooling"], raw["normalize"]
        if pooling not in POOLINGS:
            raise UserError(f"{config_file}: pooling {pooling}; one of {', '.join(POOLINGS)} is read")
    reader, said_in = _reader(folder, config), config_file
    longest = raw.get("max_seq_length")
    # sentence_bert_config.json, or called after another kind of model in older folders.
    settings = next(iter(sorted(folder.glob("sentence_*_config.json"))), None)
    if longest is None and settings is not None:
        about, said_in = read_settings(settings), settings
        longest = about.get("max_seq_length")
        if about.get("do_lower_case") and not getattr(reader, "lowercase", False):
            raise UserError(f"{settings}: do_lower_case with a tokenizer that keeps capitals is not supported")
    if longest is None:
        longest = config.max_length
    if type(longest) is not int or longest < 3:
        raise UserError(f"{said_in}: max_seq_length is {longest}; a whole number from 3 on is needed")
    return EncoderFolder(config, arrays, file, reader, min(longest, config.max_length), pooling, normalize)


def _pooled(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """[B, L, H] and [B, L] to [B, H]"""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        return (hidden + (mask.unsqueeze(-1) - 1.0) * 1e9).max(axis=1)
    # Weighted sums as matrix products: on CPUs paddle broadcasts far more slowly.
    total = paddle.matmul(mask.unsqueeze(1), hidden).squeeze(1)
    real = mask.sum(axis=1, keepdim=True).clip(min=1.0)
    return total / (real if pooling == "mean" else real.sqrt())


def _modules(folder: Path) -> tuple[str, bool, Path]:
    """Pooling, normalisation and the folder of the transformer that a modules.json names."""
    file = folder / "modules.json"
    try:
        modules = [(str(module["type"]).rpartition(".")[2], folder / module["path"]) for module in read_json(file)]
    except (KeyError, TypeError):
        raise UserError(f"{file}: not a list of modules with type and path") from None
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UserError(f"{file}: modules {', '.join(kinds)}; Transformer, Pooling[, Normalize] are read")
    about = modules[1][1] / "config.json"
    settings = read_settings(about)
    modes = [name.removeprefix("pooling_mode_") for name, on in settings.items() if on is True and "_mode_" in name]
    names = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len"}
    if isinstance(settings.get("pooling_mode"), str):  # newer releases
        modes, names = [settings["pooling_mode"]], {name: name for name in POOLINGS}
    if len(modes) != 1 or modes[0] not in names:
        raise UserError(f"{about}: pooling {' and '.join(modes) or 'none'}; one of {', '.join(POOLINGS)} is read")
    return names[modes[0]], len(kinds) == 3, modules[0][1]


def _weight_file(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: no weight file in it ({', '.join(WEIGHT_FILES)}); pass the folder of a trained model")


def _config(raw: dict[str, Any], file: Path) -> EncoderConfig:
    said = str(raw.get("model_type") or (raw.get("architectures") or ["Bert"])[0])
    kind = _KINDS.get(re.sub(r"(Model|For\w+)$", "", said))
    if kind is None:
        raise UserError(f"{file}: describes {said}, which is neither a BERT nor an XLM-RoBERTa")
    for name in _SIZES:
        least = 0 if name == "num_hidden_layers" else 1
        if not isinstance(raw.get(name), int) or raw[name] < least:
            raise UserError(f"{file}: {name} is {raw.get(name, 'missing')}; a whole number from {least} on is needed")
    if raw["hidden_size"] % raw["num_attention_heads"]:
        raise UserError(f"{file}: hidden_size {raw['hidden_size']} is no multiple of num_attention_heads")
    for name, read in (("hidden_act", ("gelu", "relu")), ("position_embedding_type", ("absolute",))):
        if raw.get(name, read[0]) not in read:
            raise UserError(f"{file}: {name} {raw[name]}; {' or '.join(read)} is read")
    names = {field.name for field in dataclasses.fields(EncoderConfig)} - {"model_type"}
    known = {name: raw[name] for name in names if raw.get(name) is not None}
    standard = {"pad_token_id": 1, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return EncoderConfig(model_type=kind, **((standard if kind == "xlm-roberta" else {}) | known))


def _arrays(file: Path, config: EncoderConfig) -> dict[str, np.ndarray]:
    """The encoder's weights, float32, under PaddleNLP's names for a BERT and in its layout."""
    raw = _READERS[file.suffix](file) if file.suffix in _READERS else {}
    state: dict[str, np.ndarray] = {}
    for name, array in raw.items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if not name.startswith(_NEVER_READ) and name != "embeddings.position_ids":
            state[name] = array
    if any(re.match(r"encoder\.layer\.\d", name) for name in state) or "embeddings.LayerNorm.weight" in state:
        # PaddleNLP writes an XLM-RoBERTa under PyTorch's names in its own layout; these weights are square but one.
        first = state.get("encoder.layer.0.intermediate.dense.weight")
        turned = first is not None and first.shape[0] == config.hidden_size != config.intermediate_size
        state = dict(from_torch(name, array) for name, array in state.items())
        if turned:
            state = {name: a.T if layer_number(name) >= 0 and a.ndim == 2 else a for name, a in state.items()}
    return {name: np.asarray(array, np.float32, order="C") for name, array in state.items()}


def _reader(folder: Path, config: EncoderConfig) -> Reader:
    if (folder / "vocab.txt").is_file():
        return WordPiece.from_folder(folder)
    return Subwords(folder / "tokenizer.json", config.pad_token_id)
