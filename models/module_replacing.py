"""BERT-of-Theseus: modules of a BERT's encoder are replaced at random by single layers while these are trained.

Source: Xu et al. 2020 (arXiv 2002.02925), section 3; module i of k is the predecessor's layers (i - 1) b + 1 to i b,
b = layers / k, and its replacement is layer i of the successor.
"""

from collections.abc import Callable

import numpy as np
import paddle
from paddle import Tensor, nn

from distill.encoders.initialise import build_student
from distill.errors import UserError


class ModuleReplacing(nn.Layer):
    """A fine-tuned BertForSequenceClassification whose encoder modules give way to a shallower successor.

    predecessor       the fine-tuned model; its encoder layers are used as they are and never change.
    layers            k, the layers of the successor.
    rate              the probability that a module is replaced, for the number of batches seen so far.
    seed              of the draws.
    train_embeddings  train embeddings, pooler and classifier too; as published they stay the predecessor's.

    In train mode each forward pass draws once for each module, for the whole batch, and computes the drawn branch only;
    the draws depend on (seed, batches seen) alone, so every rank makes the same and a resumed run repeats them. In eval
    mode every module is replaced, which is the successor.

    successor     the plain BertForSequenceClassification of k layers, at first a copy of the predecessor's first k; its
                  embeddings, pooler and classifier are those in use. It is what is kept of the training.
    batches_seen  int64 tensor []; saved with the weights.

    Raises UserError unless k divides the predecessor's layers.
    """

    def __init__(
        self,
        predecessor: nn.Layer,
        layers: int,
        rate: Callable[[int], float],
        seed: int,
        train_embeddings: bool = False,
    ) -> None:
        super().__init__()
        depth = predecessor.config.num_hidden_layers
        if layers > depth or depth % layers:
            fitting = ", ".join(str(k) for k in range(1, depth + 1) if depth % k == 0)
            raise UserError(
                f"--student_layers {layers}: each must replace as many of the predecessor's {depth} layers; "
                f"choose {fitting}"
            )
        self.rate, self.seed = rate, seed
        self.module_layers = depth // layers
        self.successor = build_student(predecessor, layers)
        self.predecessor = predecessor.bert.encoder.layers
        self.register_buffer("batches_seen", paddle.zeros([], dtype="int64"))
        trained = self.successor if train_embeddings else self.successor.bert.encoder
        for parameter in self.parameters():
            parameter.stop_gradient = True
        for parameter in trained.parameters():
            parameter.stop_gradient = False

    def draw(self, batches_seen: int) -> np.ndarray:
        """Which modules are replaced in the batch after so many, bool [k]."""
        modules = self.successor.config.num_hidden_layers
        return np.random.default_rng([self.seed, batches_seen]).random(modules) < self.rate(batches_seen)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, L] ids, token types and mask (1 at real tokens) -> logits [B, C]."""
        if not self.training:
            return self.successor(input_ids, token_type_ids, attention_mask=attention_mask)
        replaced = self.draw(int(self.batches_seen))
        self.batches_seen += 1
        bert = self.successor.bert
        mask = (1.0 - attention_mask.unsqueeze([1, 2]).astype(paddle.get_default_dtype())) * -1e4
        hidden = bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        for i, own in enumerate(bert.encoder.layers):
            start = i * self.module_layers
            for layer in [own] if replaced[i] else self.predecessor[start : start + self.module_layers]:
                hidden = layer(hidden, src_mask=mask)
        return self.successor.classifier(self.successor.dropout(bert.pooler(hidden)))


def replacement_rate(
    kind: str, base: float, steps: int | None = None, slope: float | None = None
) -> Callable[[int], float]:
    """The replacement rate as a function of the step (0 is the first).

    `constant`: base during the first `steps` steps, then 1.  `linear`: min(1, base + slope * step), where without a
    `slope` it is the one that reaches 1 after `steps` steps.  At rate 1 the successor is fine-tuned alone.
    Source: arXiv 2002.02925, sections 3.2 and 3.3 (there p; k and b of the curriculum are slope and base here).
    Raises ValueError for another kind, and when neither `steps` nor `slope` says how long it lasts.
    """
    if kind == "constant" and steps is not None:
        return lambda step: base if step < steps else 1.0
    if kind == "linear" and slope is not None:
        return lambda step: min(1.0, base + slope * step)
    if kind == "linear" and steps is not None:
        return lambda step: min(1.0, base + (1.0 - base) * step / steps)
    raise ValueError(f"schedule {kind}, steps {steps}, slope {slope}: choose constant (steps) or linear (either)")
