"""Hidden states, attention scores and Q/K/V of a PaddleNLP BERT, read by hooks while it runs."""

from typing import Any

import paddle
from paddle import Tensor, nn

from distill.encoders.cpu import split_heads


class Taps:
    """Collects inner tensors of each forward pass made inside the `with` block; the last pass is what can be read.

        with Taps(model, scores=True) as taps:
            logits = model(input_ids, token_type_ids, attention_mask=mask)
        taps.hidden[0], taps.scores[2]

    `model` is a BertModel or any BertFor* of PaddleNLP, in train or eval mode; gradients flow through what is read
    unless the pass ran under `paddle.no_grad()`. The hooks are removed when the block ends, also by an exception; the
    tensors stay.

    hidden   tuple of layers + 1 tensors [B, L, H]; 0 is the output of the embeddings, i that of layer i.
    scores   tuple of layers tensors [B, heads, L, L], element i - 1 for layer i: q k^T / sqrt(d) before softmax, as
             TinyBERT (arXiv 1909.10351, eq. 7) compares them, and WITHOUT the padding mask, so that a loss can leave
             padding out instead of comparing masks.
    queries, keys, values   tuples of layers tensors [B, heads, L, d] (`qkv=True`).

    What was not asked for is an empty tuple. Raises TypeError when `model` holds no such BERT, or a fused one.
    """

    def __init__(self, model: nn.Layer, hidden: bool = True, scores: bool = False, qkv: bool = False) -> None:
        self._bert = find_bert(model)
        self._want_hidden, self._want_scores, self._want_qkv = hidden, scores, qkv
        self._hooks: list[Any] = []
        self._start_pass()

    def _start_pass(self) -> None:
        self._hidden: list[Tensor] = []
        self._projections: dict[str, list[Tensor]] = {"q_proj": [], "k_proj": [], "v_proj": []}
        self._scores: tuple[Tensor, ...] | None = None

    def __enter__(self) -> "Taps":
        try:
            self._register()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _register(self) -> None:
        self._hooks.append(self._bert.register_forward_pre_hook(lambda layer, inputs: self._start_pass()))
        if self._want_hidden:
            for layer in (self._bert.embeddings, *self._bert.encoder.layers):
                self._hooks.append(layer.register_forward_post_hook(self._keep_hidden))
        names = ("q_proj", "k_proj", "v_proj") if self._want_qkv else ("q_proj", "k_proj") if self._want_scores else ()
        for layer in self._bert.encoder.layers:
            for name in names:
                self._hooks.append(getattr(layer.self_attn, name).register_forward_post_hook(self._keeper(name)))

    def _remove(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    # Hooks must return None: anything else would replace the layer's output.
    def _keep_hidden(self, layer: nn.Layer, inputs: Any, output: Any) -> None:
        self._hidden.append(output[0] if isinstance(output, (tuple, list)) else output)

    def _keeper(self, name: str) -> Any:
        def keep(layer: nn.Layer, inputs: Any, output: Tensor) -> None:
            self._projections[name].append(output)

        return keep

    def _heads(self, name: str) -> tuple[Tensor, ...]:
        heads = self._bert.encoder.layers[0].self_attn.num_heads
        return tuple(split_heads(x, heads) for x in self._projections[name])

    def projections(self, name: str, layers: tuple[int, ...]) -> list[Tensor]:
        """Outputs [B, L, H] of `q_proj`, `k_proj` or `v_proj` in these layers."""
        return [self._projections[name][layer - 1] for layer in layers]

    @property
    def hidden(self) -> tuple[Tensor, ...]:
        return tuple(self._hidden)

    @property
    def scores(self) -> tuple[Tensor, ...]:
        if not self._want_scores:
            return ()
        if self._scores is None:
            self._scores = tuple(
                scaled_scores(q, k) for q, k in zip(self._heads("q_proj"), self._heads("k_proj"), strict=True)
            )
        return self._scores

    @property
    def queries(self) -> tuple[Tensor, ...]:
        return self._heads("q_proj") if self._want_qkv else ()

    @property
    def keys(self) -> tuple[Tensor, ...]:
        return self._heads("k_proj") if self._want_qkv else ()

    @property
    def values(self) -> tuple[Tensor, ...]:
        return self._heads("v_proj") if self._want_qkv else ()


def scaled_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """[B, heads, Lq, d] and [B, heads, Lk, d] to q k^T / sqrt(d), [B, heads, Lq, Lk]."""
    # The queries are scaled, not the product: the order of the model's own arithmetic, hence the same bits.
    return paddle.matmul(queries * queries.shape[-1] ** -0.5, keys, transpose_y=True)


class Reading(nn.Layer):
    """A BERT as one function from (input_ids, token_type_ids, mask) to a flat list: its logits if it has a head, the
    hidden states [B, L, H] of the layers `hidden`, then the queries and then the keys [B, L, H] of the layers
    `projected`. Positions are 0, 1, ... where none are given. Unlike Taps it can be traced."""

    def __init__(self, model: nn.Layer, hidden: tuple[int, ...], projected: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self._hidden, self._projected = model, hidden, projected
        self._taps = Taps(model, hidden=bool(hidden), scores=bool(projected))

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor, positions: Tensor | None = None
    ) -> list[Tensor]:
        with self._taps:
            out = self.model(input_ids, token_type_ids, position_ids=positions, attention_mask=mask)
        logits = [] if isinstance(out, tuple) else [out]
        hidden = [self._taps.hidden[layer] for layer in self._hidden]
        queries, keys = (self._taps.projections(name, self._projected) for name in ("q_proj", "k_proj"))
        return [*logits, *hidden, *queries, *keys]


def find_bert(model: nn.Layer) -> nn.Layer:
    """The BertModel inside `model`, or `model` itself. Raises TypeError when there is none whose layers can be read."""
    bert = getattr(model, "bert", model)
    if not (hasattr(bert, "embeddings") and hasattr(getattr(bert, "encoder", None), "layers")):
        raise TypeError(f"{type(model).__name__} is not a PaddleNLP BertModel or BertFor* with unfused layers")
    return bert
