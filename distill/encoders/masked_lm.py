"""A BERT with its masked-LM head: which words fit a blank best."""

import copy
import functools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import Tensor, nn

from distill.encoders import inference
from distill.encoders.folder import find_model, load_bert, load_mlm_head
from distill.tensors import fill

if TYPE_CHECKING:
    from distill.data.wordpiece import Encoded

# Of float32 logits, relative to the largest. In another batch, with other threads or as a compiled graph they differ by
# about 2e-6; what lies nearer than this is left to float64.
TOLERANCE = 2e-5
_INPUTS = inference.BERT_INPUTS | {"places": (1, "int64")}
TOKENS_A_SENTENCE = 64  # longer sentences come in smaller batches
_EXACT_BATCH = 16
_PATIENCE = 10.0  # seconds of eager passes, behind or ahead, from which making a graph is worth a try
_GROUPS = 256  # of columns, for the highest scores
_SCORED = 256  # blanks at a time: 31 MB of scores for a vocabulary of 30,522
_ENOUGH_TOKENS = 512  # a pass of so many is efficient; it is not padded for the sake of more


class MaskedPlaces(nn.Layer):
    """Logits of a BERT's masked-LM head at chosen places only.

    Arguments of `forward`: input_ids and token_type_ids int64 [B, L], mask [B, L] (1 at real tokens), places int64 [P]
    in the flattened [B * L]. Returns [P, vocabulary].
    """

    def __init__(self, bert: nn.Layer, head: nn.Layer) -> None:
        super().__init__()
        self.bert, self.head = bert, head

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        table = self.bert.embeddings.word_embeddings.weight
        hidden_from = ((1.0 - mask.astype(table.dtype)) * -1e4).unsqueeze([1, 2])
        states = self.bert.embeddings(input_ids, token_type_ids)
        *layers, last = self.bert.encoder.layers
        for layer in layers:
            states = layer(states, src_mask=hidden_from)
        logits: Tensor = self.head(_at(places, last, states, hidden_from), table)
        return logits


def _at(places: Tensor, layer: nn.Layer, states: Tensor, hidden_from: Tensor) -> Tensor:
    """An encoder layer's output [P, H] at `places` alone: what follows the attention, two thirds of its products, is
    computed for them only."""
    attended = layer.self_attn(states, states, states, hidden_from)
    before, attended = (paddle.gather(x.reshape([-1, x.shape[-1]]), places) for x in (states, attended))
    middle = layer.norm1(before + attended)
    found: Tensor = layer.norm2(middle + layer.linear2(layer.activation(layer.linear1(middle))))
    return found


class _Head(nn.Layer):
    """[P, H] and the wordpiece table [V, H], to which the decoder is tied -> logits [P, V]."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, vocabulary = config.hidden_size, config.vocab_size
        self.transform = nn.Linear(hidden, hidden)
        self.activation = getattr(nn.functional, config.hidden_act)
        self.layer_norm = nn.LayerNorm(hidden, epsilon=config.layer_norm_eps)
        self.decoder = nn.Layer()
        self.decoder.bias = self.decoder.create_parameter([vocabulary], is_bias=True)

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        states = self.layer_norm(self.activation(self.transform(states)))
        return paddle.matmul(states, table, transpose_y=True) + self.decoder.bias


class _Float64(nn.Layer):
    """`MaskedPlaces` in float64. One encoder layer at a time has weights of that type: all of them would take twice the
    model's memory."""

    def __init__(self, layer: MaskedPlaces) -> None:
        super().__init__()
        self._single = (layer,)  # in a tuple: it is not a part of this one

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        (layer,) = self._single
        bert = layer.bert
        hidden_from = ((1.0 - mask.astype("float64")) * -1e4).unsqueeze([1, 2])
        states = _float64(bert.embeddings)(input_ids, token_type_ids)
        *layers, last = bert.encoder.layers
        for one in layers:
            states = _float64(one)(states, src_mask=hidden_from)
        chosen = _at(places, _float64(last), states, hidden_from)
        logits: Tensor = _float64(layer.head)(chosen, bert.embeddings.word_embeddings.weight.astype("float64"))
        return logits


def _float64(layer: nn.Layer) -> nn.Layer:
    copied: nn.Layer = copy.deepcopy(layer).to(dtype="float64")
    return copied


class MaskedLM:
    """A BERT with a masked-LM head, in eval mode; see `load_masked_lm`."""

    def __init__(self, layer: MaskedPlaces, pad_id: int, precision: str) -> None:
        inference.require(precision)
        layer.eval()
        self._layer, self._exact, self._pad_id, self._precision = layer, _Float64(layer), pad_id, precision
        self._seconds, self._tokens = 0.0, 0  # of the passes so far
        self.expected_tokens = 0
        """How many tokens are going to be read; where they are many, a faster graph is made at once."""
        self.max_length: int = layer.bert.config.max_position_embeddings

    def in_fp32(self) -> "MaskedLM":
        """The same model, not copied, in fp32."""
        return MaskedLM(self._layer, self._pad_id, "fp32")

    def best(
        self, sequences: "Encoded", blanks: np.ndarray, words: Mapping[int, np.ndarray], m: int, batch_size: int
    ) -> np.ndarray:
        """The `m` words that fit each blank best: int32 [n, m], by rising number; -1 where there are fewer words.

        blanks: int64 [n, 3]: the row of `sequences`, the first masked place in it, and the number k of masked places.
        words: for each k the pieces of all words of k pieces, int [W, k]; a word's number is its row there. Its score
        is the sum of its pieces' logits, each at its own place.
        batch_size: sequences a forward pass, at most; fewer where their tokens are more than 64 on average.

        In fp32 the result depends on nothing but the sequence and the weights. Where the last chosen and the first
        refused word are nearer to each other than float32 can tell (`TOLERANCE`), the pass is repeated in float64, and
        of scores that are equal there (to 1e-9) the lower number is chosen. In bf16 there is no second look: words that
        fit about as well may change places with the batch size.
        """
        chosen = np.full((len(blanks), m), -1, np.int32)
        unsure = []
        for some, scores in self._scores(self._layer, sequences, blanks, words, batch_size):
            found, gap = _highest(scores, m)
            chosen[some, : found.shape[1]] = np.sort(found, axis=1)
            if self._precision == "fp32":
                unsure.append(some[gap <= TOLERANCE])
        left = np.sort(np.concatenate([np.zeros(0, np.int64), *unsure]))
        if len(left):
            size = min(batch_size, _EXACT_BATCH)
            for some, scores in self._scores(self._exact, sequences, blanks[left], words, size):
                found = np.argsort(-scores.round(9), axis=1, kind="stable")[:, :m]
                chosen[left[some], : found.shape[1]] = np.sort(found, axis=1)
        return chosen

    def _scores(
        self,
        layer: MaskedPlaces,
        sequences: "Encoded",
        blanks: np.ndarray,
        words: Mapping[int, np.ndarray],
        batch_size: int,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For some blanks of equal k at a time: which they are, int64 [b], and the scores of all words, [b, W]."""
        rows, row_of = np.unique(blanks[:, 0], return_inverse=True)
        longest_first = np.argsort(-sequences.lengths[rows], kind="stable")
        turn = np.argsort(longest_first)[row_of]
        order = np.argsort(turn, kind="stable")
        for start, end in _batches(sequences.lengths[rows[longest_first]], batch_size):
            batch = sequences.pad(rows[longest_first[start:end]], self._pad_id)
            here = order[slice(*np.searchsorted(turn[order], [start, end]))]
            counts = blanks[here, 2]
            starts = (turn[here] - start) * batch["input_ids"].shape[1] + blanks[here, 1]
            into = np.cumsum(counts) - counts
            logits = self._forward(layer, batch, np.repeat(starts - into, counts) + np.arange(counts.sum()))
            for k in np.unique(counts):
                pieces, same = words[int(k)], np.flatnonzero(counts == k)
                for some in np.array_split(same, -(-len(same) // _SCORED)):
                    yield here[some], sum(logits[into[some] + i][:, pieces[:, i]] for i in range(k))

    def _forward(self, layer: MaskedPlaces, batch: Mapping[str, np.ndarray], places: np.ndarray) -> np.ndarray:
        """The one place where forward passes are made: logits [P, vocabulary] at `places`."""
        if layer is self._exact:
            return inference.eager(layer, _INPUTS)({**batch, "places": places})[0]
        if self._precision == "bf16":
            return self._faster({**batch, "places": places})[0]
        tokens = max(self._tokens, self.expected_tokens) if self._tokens else 0
        slow = tokens * self._seconds > _PATIENCE * self._tokens
        run = self._faster if slow else inference.eager(layer, _INPUTS)
        started = time.perf_counter()
        (logits,) = run({**batch, "places": places})
        self._seconds += time.perf_counter() - started
        self._tokens += batch["input_ids"].size
        return logits

    @functools.cached_property
    def _faster(self) -> inference.Pass:
        """As a graph in bf16, or in float32 where that is faster; which of these makes no difference to `best`."""
        if self._precision == "bf16":
            return inference.compiled(self._layer, _INPUTS, "bf16")
        ways = {"eager": inference.eager(self._layer, _INPUTS)}
        if not inference.available():
            return ways["eager"]
        ways["compiled"] = inference.compiled(self._layer, _INPUTS)
        batch = inference.sample(self._layer.bert.config.vocab_size, 16, min(32, self.max_length))
        return ways[inference.faster(ways, {**batch, "places": np.arange(16)}, rounds=1)]


def load_masked_lm(path: str | Path, pad_id: int, precision: str = "fp32") -> MaskedLM | None:
    """The BERT of a folder with its masked-LM head, None where it has no such head (a sentence encoder, a classifier).

    `path` as in `find_model`; PaddleNLP's and PyTorch's names are read. precision: of its passes, fp32 or bf16. Raises
    UserError as `load_bert` does, when a weight of the head is missing, superfluous or misshapen, and where the
    processor has no bf16.
    """
    weights = load_mlm_head(path)
    if not weights:
        return None
    found = find_model(path)
    bert = load_bert(path)
    head = _Head(bert.config)
    fill(head, weights, found.weights)
    return MaskedLM(MaskedPlaces(bert, head), pad_id, precision)


def _highest(scores: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Of [b, W] the numbers of the m highest in each row, in no order, [b, m]; and by how much the last of them is
    above the next one, relative to the largest (inf where there is none)."""
    words = scores.shape[1]
    if words <= m:
        return np.tile(np.arange(words), (len(scores), 1)), np.full(len(scores), np.inf)
    numbers = _columns_of_highest(scores, m + 1)
    values = np.take_along_axis(scores, numbers, axis=1)
    top = np.argpartition(values, -m - 1, axis=1)[:, -m - 1 :]
    values = np.take_along_axis(values, top, axis=1)
    order = np.argsort(values, axis=1)
    low, lowest_chosen = np.take_along_axis(values, order[:, :2], axis=1).T
    chosen = np.take_along_axis(numbers, np.take_along_axis(top, order[:, 1:], axis=1), axis=1)
    return chosen, (lowest_chosen - low) / np.abs(values).max(axis=1).clip(1.0)


def _columns_of_highest(scores: np.ndarray, m: int) -> np.ndarray:
    """[b, c]: columns of [b, W] among which each row's m highest are; far fewer are left to be partitioned."""
    rows, words = scores.shape
    size = words // _GROUPS
    if m > _GROUPS or size < 2:
        return np.tile(np.arange(words), (rows, 1))
    # The m groups with the highest maxima hold the m highest; a group's columns are _GROUPS apart.
    maxima = scores[:, : size * _GROUPS].reshape(rows, size, _GROUPS).max(axis=1)
    groups = np.argpartition(maxima, -m, axis=1)[:, None, -m:]
    inside = (groups + _GROUPS * np.arange(size)[:, None]).reshape(rows, -1)
    rest = np.tile(np.arange(size * _GROUPS, words), (rows, 1))
    return np.concatenate([inside, rest], axis=1)


def _batches(lengths: np.ndarray, batch_size: int) -> Iterator[tuple[int, int]]:
    """Start and end of batches of rows whose falling lengths are given."""
    start = 0
    while start < len(lengths):
        longest = int(lengths[start])
        size = min(batch_size, max(1, TOKENS_A_SENTENCE * batch_size // longest), len(lengths) - start)
        similar = np.searchsorted(-lengths[start : start + size], -0.75 * longest, side="right")
        size = min(size, max(int(similar), -(-_ENOUGH_TOKENS // longest)))
        yield start, start + size
        start += size
