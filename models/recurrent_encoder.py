"""A BERT (or XLM-RoBERTa) with two savings of parameters: a narrow wordpiece table, and layers that are used again.

Source: Ding et al. 2022, "Multi-stage Distillation Framework for Cross-Lingual Semantic Similarity Matching" (arXiv
2209.05869). With neither saving it is a plain BERT or XLM-RoBERTa.

    table        [V, d], followed by a linear map d to H without bias (the bottleneck); positions, types as in BERT
    recurrence   the kept layers in order, `repeat` times: 1, 2, 3, 1, 2, 3, ...; computes as much as so many layers

A folder of it holds config.json and model.safetensors. Names and settings are those of PaddleNLP's BERT, with
`embedding_size` and `repeat` for the savings; a plain BERT's folder opens with PaddleNLP's `BertModel.from_pretrained`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from paddle import Tensor, nn

from distill.errors import UserError
from distill.files import write_json
from distill.tensors import save_tensors

TABLE = "embeddings.word_embeddings.weight"
PROJECTION = "embeddings.projection.weight"
ARCHITECTURE = "RecurrentEncoder"


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder. embedding_size: width of a bottleneck's table, None without one; num_hidden_layers: the
    layers that it has, 0 for the embeddings alone; repeat: how often they are gone through."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    model_type: Literal["bert", "xlm-roberta"] = "bert"
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    initializer_range: float = 0.02
    embedding_size: int | None = None
    repeat: int = 1

    @property
    def position_offset(self) -> int:
        """The position of the first token: RoBERTa counts from behind that of its padding."""
        return self.pad_token_id + 1 if self.model_type == "xlm-roberta" else 0

    @property
    def max_length(self) -> int:
        """The longest input in tokens."""
        return self.max_position_embeddings - self.position_offset


class RecurrentEncoder(nn.Layer):
    """Hidden states of the last layer: [B, L] ids, token types and mask (1 at real tokens, padding behind them) ->
    [B, L, H]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.embeddings(input_ids, token_type_ids)
        return self.encoder(hidden, (1.0 - mask.unsqueeze([1, 2])) * -1e4)


class _Embeddings(nn.Layer):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.offset = config.position_offset
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size or width)
        if config.embedding_size is not None:
            self.projection = nn.Linear(config.embedding_size, width, bias_attr=False)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.layer_norm = nn.LayerNorm(width, epsilon=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        words = self.word_embeddings(input_ids)
        if hasattr(self, "projection"):
            words = self.projection(words)
        # Counted along each row, so that a traced graph takes any length.
        positions = paddle.cumsum(paddle.ones_like(input_ids), axis=-1) + (self.offset - 1)
        total = words + self.position_embeddings(positions) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.layer_norm(total))


class _Layers(nn.Layer):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.repeat = config.repeat
        self.layers = nn.LayerList([_layer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        for _ in range(self.repeat):
            for layer in self.layers:
                hidden = layer(hidden, mask)
        return hidden


def _layer(config: EncoderConfig) -> nn.Layer:
    layer = nn.TransformerEncoderLayer(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        dropout=config.hidden_dropout_prob,
        activation=config.hidden_act,
        attn_dropout=config.attention_probs_dropout_prob,
        act_dropout=0.0,
    )
    layer.norm1._epsilon = layer.norm2._epsilon = config.layer_norm_eps
    return layer


def parameter_count(config: EncoderConfig) -> int:
    """Parameters of an encoder of this shape, counted without allocating them."""
    with paddle.LazyGuard():
        return sum(int(np.prod(p.shape)) for p in RecurrentEncoder(config).parameters())


def kept_layers(
    config: EncoderConfig, arrays: Mapping[str, np.ndarray], keep: int, repeat: int
) -> tuple[EncoderConfig, dict[str, np.ndarray]]:
    """Shape and weights with the first `keep` layers alone, gone through `repeat` times. keep 0: the embeddings.

    Raises UserError for more layers than there are.
    """
    if keep > config.num_hidden_layers:
        raise UserError(f"layers_to_keep {keep}: the model has {config.num_hidden_layers} layers; keep at most as many")
    kept = {name: a for name, a in arrays.items() if layer_number(name) < keep}
    return dataclasses.replace(config, num_hidden_layers=keep, repeat=repeat if keep else 1), kept


def layer_number(name: str) -> int:
    """The layer that a weight belongs to, from 0; -1 for the embeddings."""
    return int(name.split(".")[2]) if name.startswith("encoder.layers.") else -1


def narrowed(
    config: EncoderConfig, arrays: Mapping[str, np.ndarray], width: int, how: str, seed: int
) -> tuple[EncoderConfig, dict[str, np.ndarray]]:
    """Shape and weights with a table of `width` columns and its projection in place of the full table.

    how='random'  both are drawn from normal(0, initializer_range) by `seed`.
    how='svd'     the table of that rank whose product with its projection is nearest to the full table.
    Positions, types and layer norm stay. Raises UserError when the table is no wider than `width`.
    """
    if config.embedding_size is not None or width >= config.hidden_size:
        have = config.embedding_size or config.hidden_size
        raise UserError(f"embedding_size {width}: the model's table has {have} columns already; take a smaller number")
    table = arrays[TABLE]
    if how == "svd":
        # The right singular vectors are the eigenvectors of a small matrix.
        _, vectors = np.linalg.eigh(table.T.astype(np.float64) @ table.astype(np.float64))
        basis = vectors[:, ::-1][:, :width].astype(np.float32)
        words, projection = table @ basis, np.ascontiguousarray(basis.T)
    elif how == "random":
        rng, spread = np.random.default_rng(seed), np.float32(config.initializer_range)
        words = spread * rng.standard_normal((len(table), width), np.float32)
        projection = spread * rng.standard_normal((width, config.hidden_size), np.float32)
    else:
        raise ValueError(f"how '{how}': choose random or svd")
    return dataclasses.replace(config, embedding_size=width), {**arrays, TABLE: words, PROJECTION: projection}


def revocabularied(
    config: EncoderConfig,
    arrays: Mapping[str, np.ndarray],
    tokens: list[str],
    wanted: list[str],
    pad_id: int,
    seed: int,
) -> tuple[EncoderConfig, dict[str, np.ndarray], int]:
    """Shape and weights for the vocabulary `wanted` in place of `tokens`, and how many tokens they share.

    A shared token keeps its vector; a new one is drawn, by `seed`, from a normal distribution with the mean and the
    standard deviation that each column has over the old table.
    """
    table, old = arrays[TABLE], {token: i for i, token in enumerate(tokens)}
    rng = np.random.default_rng(seed)
    new = table.mean(0) + table.std(0) * rng.standard_normal((len(wanted), table.shape[1]), np.float32)
    shared = np.array([(i, old[token]) for i, token in enumerate(wanted) if token in old], np.int64).reshape(-1, 2)
    new[shared[:, 0]] = table[shared[:, 1]]
    changed = dataclasses.replace(config, vocab_size=len(wanted))
    if config.model_type != "xlm-roberta":  # whose positions are counted from that of the old padding
        changed = dataclasses.replace(changed, pad_token_id=pad_id)
    return changed, {**arrays, TABLE: new.astype(np.float32)}, len(shared)


def save_encoder(encoder: RecurrentEncoder, folder: str | Path, **settings: Any) -> None:
    """Write config.json, with `settings` added, and model.safetensors, each beside and renamed, the weights last."""
    config = encoder.config
    plain = config.embedding_size is None and config.repeat == 1 and config.model_type == "bert"
    own = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    own |= {"architectures": ["BertModel" if plain else ARCHITECTURE]}
    write_json(Path(folder) / "config.json", own | settings)
    save_tensors(Path(folder) / "model.safetensors", encoder.state_dict())
