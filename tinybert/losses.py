"""The losses of the two stages; general distillation has the first one's."""

from typing import Any

from paddle import Tensor, nn

from distill.encoders.projections import Projections
from distill.encoders.taps import Taps, find_bert
from distill.losses.attention import attention_mse
from distill.losses.embedding import embedding_mse
from distill.losses.hidden import Form, hidden_mse
from distill.losses.soft_targets import label_mse, logit_mse, soft_cross_entropy
from tinybert.args import TaskDistillArgs


def layer_losses(
    student: nn.Layer, projections: Projections | None, batch: dict[str, Any], form: Form
) -> dict[str, Tensor]:
    """Each summed over the student's layers, all with weight 1: Jiao et al. 2020 (arXiv 1909.10351), eq. 7 to 9 and 11.

    batch: input_ids, token_type_ids, mask [B, L]; padded (False: mask is 1 everywhere); of the teacher, for the layers
    that the student's learn from, hidden (embeddings first, each [B, L, H]) and scores (each [B, heads, L, L]).
    """
    with Taps(student, scores=True) as taps:
        find_bert(student)(batch["input_ids"], batch["token_type_ids"], attention_mask=batch["mask"])
    hidden = projections(taps.hidden) if projections is not None else taps.hidden
    mask = batch["mask"] if batch["padded"] else None
    first, *layers = zip(hidden, batch["hidden"], strict=True)
    scores = zip(taps.scores, batch["scores"], strict=True)
    return {
        "embedding": embedding_mse(*first, mask, form),
        "hidden": sum(hidden_mse(ours, theirs, mask, form) for ours, theirs in layers),
        "attention": sum(attention_mse(ours, theirs, mask, form) for ours, theirs in scores),
    }


def prediction_loss(logits: Tensor, batch: dict[str, Any], args: TaskDistillArgs, regression: bool) -> Tensor:
    """Jiao et al. 2020 (arXiv 1909.10351), eq. 10: cross entropy at --T, summed over classes.

    The published code averages over classes. Regression has one logit, whose softmax says nothing: squared error, from
    the teacher's logit, in the published code from the label. logits [B, C]; batch: the teacher's logits, labels [B].
    """
    paper = args.loss_form == "paper"
    if regression:
        return logit_mse(logits, batch["logits"]) if paper else label_mse(logits, batch["labels"])
    return soft_cross_entropy(logits, batch["logits"], args.T, reduction="batchmean" if paper else "mean")
