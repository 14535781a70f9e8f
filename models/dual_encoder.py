"""Two texts read apart by one BERT and then compared: what is known of a document can be stored before a query comes.

    model_type   kept of the query        kept of the document     compared by
    late_fusion  all states [La, H]       all states [Lb, H]       attention in both directions, pooled; four-way
    sbert        pooled [1, H]            pooled [1, H]            four-way
    bi_encoder   pooled [1, H]            pooled [1, H]            [u; v]
    poly         pooled [1, H]            first 64 states          what u reads of them
    col          C vectors a token        C vectors a token        for each label: best matches of all query tokens
    deformer     states below the last    states below the last    the encoder's last layer over both, pooled
    dipair       first 8 states           first 16 states          a new layer over both, pooled

Four-way is [u; v; |u - v|; max(u, v)]. A linear layer follows, but for col. Source: VIRT, Li et al. 2022
(arXiv 2112.04195), and the models it is compared with there.

States are [B, N, D] with N vectors of which those of padding do not count; `mask` [B, L] is float, 1 at real tokens.
Where fewer vectors than tokens are kept, the real ones come first. Padding changes nothing, wherever it stands.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from distill.data.wordpiece import Encoded, WordPiece
from distill.encoders.folder import find_model, save_bert
from distill.errors import UserError
from distill.files import read_json, sha256, write_json
from distill.tensors import fill, load_tensors, save_tensors

_QUERY_TOKENS, _DOCUMENT_TOKENS = 8, 16  # of dipair
_OWN = "dual_encoder"  # the key of our settings in config.json


@dataclass(frozen=True)
class DualEncoderConfig:
    """What a dual encoder is, beside its BERT; see `create_dual_encoder`."""

    model_type: str
    num_outputs: int
    pooling: str = "mean"
    resnet_predict: bool = False
    plain_mean: bool = False
    squared_max: bool = False
    poly_first_m: int = 64
    colbert_dim: int = 128

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise UserError(f"--model_type {self.model_type}: choose {', '.join(MODEL_TYPES)}")
        fusion = self.model_type == "late_fusion"
        if self.pooling not in ("mean", "cls"):
            raise UserError(f"--pooling_strategy {self.pooling}: choose mean or cls")
        if self.pooling == "cls" and self.model_type in ("late_fusion", "col"):
            raise UserError(f"--pooling_strategy cls: {self.model_type} compares all tokens; use mean")
        if self.resnet_predict and not fusion:
            raise UserError(
                "--use_resnet_predict true belongs to late_fusion; pass --use_resnet_predict false for "
                f"{self.model_type}"
            )
        if self.plain_mean and not fusion:
            raise UserError(f"--plain_mean belongs to late_fusion; leave it out for {self.model_type}")
        if self.squared_max and self.model_type not in ("late_fusion", "sbert"):
            raise UserError(f"--squared_max belongs to late_fusion and sbert; leave it out for {self.model_type}")


class DualEncoder(nn.Layer):
    """Logits of a query and a document; its classes differ in what they keep of each and how they compare it.

    encoder  the PaddleNLP BertModel that reads both, token types 0; it is called for the query, then for the document.
    config   a DualEncoderConfig; model_type is its.
    labels, lengths   as saved with it: label names in index order, () for regression; the longest query and document in
             tokens. None in a model that was not loaded.
    """

    def __init__(self, config: DualEncoderConfig, encoder: nn.Layer) -> None:
        super().__init__()
        self.config, self.model_type, self.encoder = config, config.model_type, encoder
        self.width: int = encoder.config.hidden_size
        self.labels: tuple[str, ...] | None = None
        self.lengths: tuple[int, int] | None = None

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, num_outputs] of `input_ids_a`, `mask_a` [B, La] (the query) and `input_ids_b`, `mask_b` [B, Lb]
        (the document); `positions_a` and `positions_b`, where given, are the tokens' positions if they are not 0, 1, 2,
        ..."""
        query = self.query_states(batch["input_ids_a"], batch["mask_a"], batch.get("positions_a"))
        document = self.document_states(batch["input_ids_b"], batch["mask_b"], batch.get("positions_b"))
        return self.score(query, batch["mask_a"], document, batch["mask_b"])

    def query_states(self, input_ids: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
        """What is kept of queries: [B, N, D]."""
        return self._keep_query(self._hidden(input_ids, mask, positions), mask)

    def document_states(self, input_ids: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
        """What is kept of documents: [B, N, D]. It does not depend on any query."""
        return self._keep_document(self._hidden(input_ids, mask, positions), mask)

    def score(self, query: Tensor, mask_a: Tensor, document: Tensor, mask_b: Tensor) -> Tensor:
        """Logits [B, num_outputs] from states and the masks they were made with.

        A single query, [1, N, D], is compared with all documents. Documents may come without their padding, `mask_b` 1
        at each of their vectors.
        """
        raise NotImplementedError

    @property
    def state_width(self) -> int:
        """D: the numbers in a vector that is kept."""
        return self.width

    def query_vectors(self, tokens: int) -> int:
        """How many vectors are kept of a query of so many tokens."""
        return tokens

    def document_vectors(self, tokens: int) -> int:
        """How many vectors are kept of a document of so many tokens."""
        return tokens

    def _keep_query(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden

    def _keep_document(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden

    def _hidden(self, input_ids: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        hidden: Tensor = self.encoder(input_ids, position_ids=positions, attention_mask=mask)[0]
        return hidden

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[B, L, H] to [B, 1, H]: the mean over real tokens, or BERT's pooler over the first."""
        if self.config.pooling == "cls":
            first: Tensor = self.encoder.pooler(hidden).unsqueeze(1)
            return first
        return paddle.matmul(_shares(mask).unsqueeze(1), hidden)

    def _four_way(self, u: Tensor, v: Tensor) -> Tensor:
        largest = paddle.maximum(u, v)
        return paddle.concat([u, v, paddle.abs(u - v), largest**2 if self.config.squared_max else largest], axis=-1)

    def _classifier(self, width: int) -> nn.Layer:
        dropout = nn.Dropout(self.encoder.config.hidden_dropout_prob)
        return nn.Sequential(dropout, nn.Linear(width, self.config.num_outputs))


class LateFusion(DualEncoder):
    """u is the pooled softmax(Q D^T / sqrt(H)) D over the query's positions, v the same the other way round.

    Pooling is linear, so the attention is pooled first and the vectors are read once: D and Q take part in one large
    product, Q D^T, instead of four.
    """

    def __init__(self, config: DualEncoderConfig, encoder: nn.Layer) -> None:
        super().__init__(config, encoder)
        features = 4 * self.width
        if config.resnet_predict:
            self.dropout = nn.Dropout(encoder.config.hidden_dropout_prob)
            self.residual = nn.Linear(features, features)
            self.classifier = nn.Linear(features, config.num_outputs)
        else:
            self.classifier = self._classifier(features)

    def features(self, query: Tensor, mask_a: Tensor, document: Tensor, mask_b: Tensor) -> Tensor:
        """[B, 4 H]"""
        scores = paddle.matmul(document, query * self.width**-0.5, transpose_y=True)
        # The masks are repeated by products, and softmax goes along the last axis: on CPUs several times faster.
        every_a, every_b = paddle.ones_like(mask_a), paddle.ones_like(mask_b)
        of_query = F.softmax(scores + _outer(every_b, _closed(mask_a)), axis=2)
        of_document = F.softmax(scores.transpose([0, 2, 1]) + _outer(every_a, _closed(mask_b)), axis=2)
        if self.config.plain_mean:
            mask_a, mask_b = every_a, every_b
        u = paddle.matmul(paddle.matmul(_shares(mask_a).unsqueeze(1), of_document), document)
        v = paddle.matmul(paddle.matmul(_shares(mask_b).unsqueeze(1), of_query), query)
        return self._four_way(u, v).squeeze(1)

    def score(self, query: Tensor, mask_a: Tensor, document: Tensor, mask_b: Tensor) -> Tensor:
        x = self.features(query, mask_a, document, mask_b)
        if self.config.resnet_predict:
            x = self.dropout(x)
            x = self.dropout(self.residual(x)) + x
        logits: Tensor = self.classifier(x)
        return logits


class Pooled(DualEncoder):
    """One vector of each text: sbert and bi_encoder."""

    def __init__(self, config: DualEncoderConfig, encoder: nn.Layer) -> None:
        super().__init__(config, encoder)
        self.classifier = self._classifier((4 if config.model_type == "sbert" else 2) * self.width)

    def query_vectors(self, tokens: int) -> int:
        return 1

    def document_vectors(self, tokens: int) -> int:
        return 1

    def _keep_query(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self._pool(hidden, mask)

    def _keep_document(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self._pool(hidden, mask)

    def score(self, query: Tensor, mask_a: Tensor, document: Tensor, mask_b: Tensor) -> Tensor:
        u, v = _repeated(query, document), document
        x = self._four_way(u, v) if self.model_type == "sbert" else paddle.concat([u, v], axis=-1)
        logits: Tensor = self.classifier(x.squeeze(1))
        return logits


class Poly(DualEncoder):
    """The pooled query u reads softmax(u D^T / sqrt(H)) D of the document's first vectors D."""

    def __init__(self, config: DualEncoderConfig, encoder: nn.Layer) -> None:
        super().__init__(config, encoder)
        self.classifier = self._classifier(self.width)

    def query_vectors(self, tokens: int) -> int:
        return 1

    def document_vectors(self, tokens: int) -> int:
        return min(tokens, self.config.poly_first_m)

    def _keep_query(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self._pool(hidden, mask)

    def _keep_document(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return _first(hidden, mask, self.config.poly_first_m)

    def score(self, query: Tensor, mask_a: Tensor, document: Tensor, mask_b: Tensor) -> Tensor:
        scores = paddle.matmul(query * self.width**-0.5, document, transpose_y=True)
        shares = F.softmax(scores + _closed(_kept(document, mask_b)).unsqueeze(1), axis=2)
        logits: Tensor = self.classifier(paddle.matmul(shares, document).squeeze(1))
        return logits


class Col(DualEncoder):
    """For each label the best cosine of each of the query's tokens with one of the document's, summed, / sqrt(H)."""

    def __init__(self, config: DualEncoderConfig, encoder: nn.Layer) -> None:
        super().__init__(config, encoder)
        dim = config.colbert_dim
        self.query_projection, self.document_projection = nn.Linear(self.width, dim), nn.Linear(self.width, dim)
        self.label_projection = nn.Linear(dim, config.num_outputs * dim)

    @property
    def state_width(self) -> int:
        return self.config.num_outputs * self.config.colbert_dim

    def _keep_query(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self._vectors(self.query_projection(hidden))

    def _keep_document(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self._vectors(self.document_projection(hidden))

    def _vectors(self, x: Tensor) -> Tensor:
        """[B, L, dim] to a vector of length 1 for each label, [B, L, C * dim]."""
        vectors = self.label_projection(x).reshape([0, 0, self.config.num_outputs, self.config.colbert_dim])
        return F.normalize(vectors, axis=-1).flatten(2)

    def score(self, query: Tensor, mask_a: Tensor, document: Tensor, mask_b: Tensor) -> Tensor:
        query, document = self._by_label(query), self._by_label(document)
        similarities = paddle.matmul(query * self.width**-0.5, document, transpose_y=True)
        best = (similarities + _closed(mask_b).unsqueeze([1, 2])).max(axis=3)
        return paddle.matmul(best, mask_a.unsqueeze(2)).squeeze(2)

    def _by_label(self, states: Tensor) -> Tensor:
        """[B, N, C * dim] to [B, C, N, dim]"""
        return states.reshape([0, 0, self.config.num_outputs, self.config.colbert_dim]).transpose([0, 2, 1, 3])


class Joint(DualEncoder):
    """A BERT layer over what is kept of both texts: deformer takes the encoder's last one, dipair has a new one."""

    def __init__(self, config: DualEncoderConfig, encoder: nn.Layer) -> None:
        super().__init__(config, encoder)
        self.joint = _last_layer(encoder) if config.model_type == "deformer" else _new_layer(encoder.config)
        self.classifier = self._classifier(self.width)

    def query_vectors(self, tokens: int) -> int:
        return tokens if self.model_type == "deformer" else min(tokens, _QUERY_TOKENS)

    def document_vectors(self, tokens: int) -> int:
        return tokens if self.model_type == "deformer" else min(tokens, _DOCUMENT_TOKENS)

    def _keep_query(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden if self.model_type == "deformer" else _first(hidden, mask, _QUERY_TOKENS)

    def _keep_document(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden if self.model_type == "deformer" else _first(hidden, mask, _DOCUMENT_TOKENS)

    def score(self, query: Tensor, mask_a: Tensor, document: Tensor, mask_b: Tensor) -> Tensor:
        if self.model_type == "dipair":
            mask_a, mask_b = _kept(query, mask_a), _kept(document, mask_b)
        hidden = paddle.concat([_repeated(query, document), document], axis=1)
        mask = paddle.concat([_repeated(mask_a, document), mask_b], axis=1)
        hidden = self.joint(hidden, src_mask=_closed(mask).unsqueeze([1, 2]))
        logits: Tensor = self.classifier(self._pool(hidden, mask).squeeze(1))
        return logits


class Tower(nn.Layer):
    """`query_states` or `document_states` of a dual encoder as a function of TOWER_INPUTS, for a graph of its own."""

    def __init__(self, model: DualEncoder, side: Literal["query", "document"]) -> None:
        super().__init__()
        self.model, self._side = model, side

    def forward(self, input_ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        read = self.model.query_states if self._side == "query" else self.model.document_states
        return read(input_ids, mask, positions)


class Scoring(nn.Layer):
    """`score` of a dual encoder as a function of SCORING_INPUTS, for a graph of its own."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, query: Tensor, mask_a: Tensor, document: Tensor, mask_b: Tensor) -> Tensor:
        return self.model.score(query, mask_a, document, mask_b)


# Rank and type, as `distill.encoders.inference` takes them.
TOWER_INPUTS = {"input_ids": (2, "int64"), "positions": (2, "int64"), "mask": (2, "float32")}
SCORING_INPUTS = dict.fromkeys(("query", "mask_a", "document", "mask_b"), (2, "float32"))
SCORING_INPUTS |= dict.fromkeys(("query", "document"), (3, "float32"))


def tower_inputs(texts: Encoded, rows: np.ndarray, length: int, pad_id: int) -> dict[str, np.ndarray]:
    """TOWER_INPUTS of the chosen rows `[CLS] w .. [SEP]`, which may have `length` tokens.

    [SEP] has the last of the `length` positions, as in training (`distill.data.pairs`); padding comes after it.
    """
    batch = texts.pad(rows, pad_id)
    positions = np.tile(np.arange(batch["mask"].shape[1]), (len(rows), 1))
    positions[np.arange(len(rows)), batch["lengths"] - 1] = length - 1
    return {"input_ids": batch["input_ids"], "positions": positions, "mask": batch["mask"]}


_TYPES: dict[str, type[DualEncoder]] = {
    "late_fusion": LateFusion,
    "sbert": Pooled,
    "bi_encoder": Pooled,
    "poly": Poly,
    "col": Col,
    "deformer": Joint,
    "dipair": Joint,
}
MODEL_TYPES = tuple(_TYPES)


def create_dual_encoder(
    model_type: str,
    encoder: nn.Layer,
    num_outputs: int,
    *,
    pooling: str = "mean",
    resnet_predict: bool = False,
    plain_mean: bool = False,
    squared_max: bool = False,
    poly_first_m: int = 64,
    colbert_dim: int = 128,
    start: float = 0.0,
    seed: int = 0,
) -> DualEncoder:
    """A dual encoder of the given type, in train mode; its new weights are normal(0, initializer_range) by `seed`.

    encoder         a PaddleNLP BertModel, which becomes a part of it; deformer takes its last layer out of it.
    num_outputs     classes, or 1 for regression.
    pooling         `mean` over real tokens, or `cls`: BERT's pooler; late_fusion and col have mean only.
    resnet_predict  late_fusion: y = W x + b + x before the linear layer, with dropout on x and on W x + b.
    plain_mean      late_fusion: padding takes part in the mean, as in the published code; a row's logits then depend on
                    how far it is padded.
    squared_max     late_fusion and sbert: the square of max(u, v), as in the published code.
    poly_first_m, colbert_dim   how many states poly keeps, how long the vectors of col are.
    start           what the last linear layer's bias is (col has none): for regression the mean of the scores, which it
                    would otherwise have to learn first.

    Paddle's random state is left as it was. Raises UserError for settings that do not go with the type.
    """
    options = (pooling, resnet_predict, plain_mean, squared_max, poly_first_m, colbert_dim)
    model = _build(DualEncoderConfig(model_type, num_outputs, *options), encoder, seed)
    for name, parameter in model.named_parameters():
        if name.startswith("classifier.") and name.endswith("bias"):
            parameter.set_value(paddle.full_like(parameter, start))
    return model


def save_dual_encoder(
    folder: str | Path,
    model: DualEncoder,
    wordpiece: WordPiece,
    labels: Sequence[str],
    lengths: tuple[int, int],
) -> None:
    """Write a folder whose encoder opens with PaddleNLP's BertModel: what `save_bert` writes, with our settings in
    config.json and all weights in model.safetensors, the encoder's as `bert.*`.

    labels: in index order, () for regression; lengths: the longest query and document in tokens. Raises ValueError for
    another number of labels than outputs, UserError when the disk is full.
    """
    if (len(labels) or 1) != model.config.num_outputs:
        raise ValueError(f"{len(labels)} labels for {model.config.num_outputs} outputs")
    folder = Path(folder)
    own = asdict(model.config) | {"labels": list(labels), "lengths": list(lengths)}
    save_bert(model.encoder, folder, wordpiece)
    save_tensors(folder / "model.safetensors", {_stored(name): x for name, x in model.state_dict().items()})
    # Last: without it the folder is no dual encoder's.
    write_json(folder / "config.json", read_json(folder / "config.json") | {_OWN: own})


def load_dual_encoder(folder: str | Path) -> DualEncoder:
    """The dual encoder of a folder that `save_dual_encoder` wrote, in eval mode, with its labels and lengths.

    Raises UserError when the folder is not one, or when a weight is missing, superfluous or misshapen.
    """
    found = find_model(folder)
    own = read_json(found.config_file).get(_OWN)
    if not isinstance(own, dict):
        raise UserError(f"{found.config_file}: not a dual encoder's; virt/sbert_distill.py trains one")
    try:
        config = DualEncoderConfig(**{field.name: own[field.name] for field in fields(DualEncoderConfig)})
        labels, (longest_a, longest_b) = tuple(own["labels"]), own["lengths"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{found.config_file}: '{_OWN}' is not a dual encoder's settings ({error})") from None
    from paddlenlp.transformers import BertConfig, BertModel

    whole = config.model_type == "deformer"  # its last layer is counted apart
    depth = found.config["num_hidden_layers"] + whole
    model = _build(config, BertModel(BertConfig(**found.config | {"num_hidden_layers": depth})), 0)
    arrays = load_tensors(found.weights)
    needed = {_stored(name): name for name in model.state_dict()}
    fill(model, {needed.get(name, name): array for name, array in arrays.items()}, found.weights)
    model.labels, model.lengths = labels, (longest_a, longest_b)
    model.eval()
    return model


def model_digest(folder: str | Path) -> str:
    """SHA-256 of a dual encoder's folder: equal digests give equal states and logits."""
    names = ("config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors")
    return hashlib.sha256("".join(sha256(Path(folder) / name) for name in names).encode()).hexdigest()


def _stored(name: str) -> str:
    """The encoder's weights are stored under the names that PaddleNLP looks for."""
    return f"bert.{name.removeprefix('encoder.')}" if name.startswith("encoder.") else name


def _build(config: DualEncoderConfig, encoder: nn.Layer, seed: int) -> DualEncoder:
    state = paddle.get_rng_state()
    paddle.seed(seed)
    old = {id(parameter) for parameter in encoder.parameters()}
    model = _TYPES[config.model_type](config, encoder)
    for layer in model.sublayers():
        if isinstance(layer, nn.Linear) and id(layer.weight) not in old:
            layer.weight.set_value(paddle.normal(0.0, encoder.config.initializer_range, layer.weight.shape))
    paddle.set_rng_state(state)
    return model


def _last_layer(encoder: nn.Layer) -> nn.Layer:
    """Taken out of the encoder."""
    *rest, last = encoder.encoder.layers
    if not rest:
        raise UserError("--model_type deformer needs an encoder of at least 2 layers: the last one reads both texts")
    encoder.encoder.layers = nn.LayerList(rest)
    encoder.config = copy.deepcopy(encoder.config)
    encoder.config.num_hidden_layers = encoder.encoder.num_layers = len(rest)
    return last


def _new_layer(config: Any) -> nn.Layer:
    """As PaddleNLP's BertModel makes them."""
    return nn.TransformerEncoderLayer(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        dropout=config.hidden_dropout_prob,
        activation=config.hidden_act,
        attn_dropout=config.attention_probs_dropout_prob,
        act_dropout=0,
    )


def _shares(mask: Tensor) -> Tensor:
    """[B, L]: the weight of each position in the mean over real tokens."""
    return mask / mask.sum(axis=1, keepdim=True)


def _closed(mask: Tensor) -> Tensor:
    """What is added to scores so that padding is not read."""
    return (1.0 - mask) * -1e4


def _outer(x: Tensor, y: Tensor) -> Tensor:
    """x [B, m] and y [B, n], either of them perhaps [1, ...], to their products [B, m, n]."""
    return paddle.matmul(x.unsqueeze(2), y.unsqueeze(1))


def _first(hidden: Tensor, mask: Tensor, count: int) -> Tensor:
    """The states of the first `count` real tokens, [B, count, H]; zeros where there are fewer."""
    number = (paddle.cumsum(mask, axis=1) * mask).unsqueeze(1)
    chosen = number == paddle.arange(1, count + 1, dtype=mask.dtype).unsqueeze([0, 2])
    return paddle.matmul(chosen.astype(hidden.dtype), hidden)


def _kept(states: Tensor, mask: Tensor) -> Tensor:
    """The mask [B, N] of states [B, N, D] of which the real ones come first, from that of their text's tokens."""
    number = paddle.cumsum(paddle.ones_like(states[:, :, 0]), axis=1)
    return (number <= mask.sum(axis=1, keepdim=True)).astype(mask.dtype)


def _repeated(x: Tensor, like: Tensor) -> Tensor:
    """x [1 or B, ...] for each of the B rows of `like`."""
    return paddle.expand(x, [paddle.shape(like)[0], *[-1] * (x.ndim - 1)])
