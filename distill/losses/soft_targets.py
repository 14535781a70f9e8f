"""Losses on logits: gold labels and a teacher's soft targets.

Everywhere: student first, teacher second; logits [B, C] float; the result is a scalar; no gradient reaches the teacher.

Soft targets (Hinton et al. 2015, arXiv 1503.02531): p = softmax(t / T), q = softmax(s / T).
Published systems differ in two choices, so both are arguments:
    reduction  'batchmean' sums over classes and averages over B; 'mean' averages over B * C, which is C times smaller.
    scale_t2   multiplies by T^2, which keeps the size of the gradient when T changes (Hinton et al., section 2).
    TinyBERT (Huawei): cross entropy, 'mean', no T^2.  PaddleNLP's TinyBERT: cross entropy, 'batchmean', no T^2.
    PKD: KL, 'mean', T^2.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from distill.options import SoftTargetOptions

Reduction = Literal["batchmean", "mean"]


def hard_cross_entropy(student_logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled rows of -log softmax(student_logits)[label]; 0 when no row has a label.

    student_logits [B, C]; labels [B] int64, where -1 marks a row without a label.
    """
    labelled = labels >= 0
    each = F.cross_entropy(student_logits, labels, ignore_index=-1, reduction="none").reshape([-1])
    return each.sum() / labelled.astype(each.dtype).sum().clip(min=1.0)


def label_mse(student: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled rows of (student - label)^2, for regression; 0 when no row has a label.

    student [B, 1] or [B]; labels [B] float, where nan marks a row without a label.
    """
    labelled = paddle.logical_not(paddle.isnan(labels))
    # The nan is replaced before the subtraction: nan * 0 would still be nan in the gradient.
    target = paddle.where(labelled, labels, paddle.zeros_like(labels))
    weight = labelled.astype(labels.dtype)
    if student.size != labels.size:
        raise ValueError(f"one prediction per label is needed: predictions {student.shape}, labels {labels.shape}")
    # In the labels' precision: mixed precision would round them.
    return (weight * (student.reshape([-1]).astype(labels.dtype) - target) ** 2).sum() / weight.sum().clip(min=1.0)


def soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    scale_t2: bool = False,
    reduction: Reduction = "batchmean",
) -> Tensor:
    """- sum p log q, reduced as the head of this file says. Its minimum over the student is the teacher's entropy, not
    0.

    Raises ValueError for logits of different shapes, for fewer than two classes (softmax of one logit is always 1: use
    `logit_mse`) and for a temperature that is not positive.
    """
    _check(student_logits, teacher_logits, temperature)
    p = F.softmax(teacher_logits.detach() / temperature, axis=-1)
    total = -(p * _log_softmax(student_logits / temperature)).sum()
    return _reduce(total, student_logits, temperature, scale_t2, reduction)


def kl_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    scale_t2: bool = False,
    reduction: Reduction = "batchmean",
) -> Tensor:
    """sum p (log p - log q): `soft_cross_entropy` less the teacher's entropy; the same gradient, 0 when both agree.

    Raises ValueError as `soft_cross_entropy` does.
    """
    _check(student_logits, teacher_logits, temperature)
    log_p = _log_softmax(teacher_logits.detach() / temperature)
    total = (log_p.exp() * (log_p - _log_softmax(student_logits / temperature))).sum()
    return _reduce(total, student_logits, temperature, scale_t2, reduction)


def logit_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean over B * C of (s - t)^2 (Tang et al. 2019, arXiv 1903.12136, where the norm is summed over C and not
    averaged).

    Also for regression, where C is 1. Raises ValueError for different shapes.
    """
    _check_shapes(student_logits, teacher_logits)
    return F.mse_loss(student_logits, teacher_logits.detach())


def logit_losses(
    options: SoftTargetOptions, regression: bool
) -> Callable[[Tensor, Mapping[str, Any]], dict[str, Tensor]]:
    """The flags' alpha * soft + (1 - alpha) * hard, as a function (student logits, batch) -> the two parts by name.

    The batch holds the teacher's `logits` and the `labels`. A part of weight 0 is left out: with alpha 0 the batch
    needs no logits. Regression has no classes to be softened: its parts are `logit_mse` and `label_mse`.
    """
    soft: Callable[[Tensor, Tensor], Tensor] = logit_mse
    if options.soft_loss == "kl" and not regression:
        reduction: Reduction = "mean" if options.soft_reduction == "mean" else "batchmean"
        soft = functools.partial(kl_divergence, temperature=options.T, scale_t2=options.scale_t2, reduction=reduction)
    hard = label_mse if regression else hard_cross_entropy

    def losses(logits: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        named = {}
        if options.alpha > 0:
            named["teacher"] = options.alpha * soft(logits, batch["logits"])
        if options.alpha < 1:
            named["label"] = (1 - options.alpha) * hard(logits, batch["labels"])
        return named

    return losses


def _log_softmax(x: Tensor) -> Tensor:
    # paddle's own log_softmax (3.3.1, CPU) cuts its values off at -64.
    return x - paddle.logsumexp(x, axis=-1, keepdim=True)


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    # Checked because [B, 1] against [B] would broadcast to [B, B] without a word.
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(
            f"student and teacher logits must both be [B, C]: student {student.shape}, teacher {teacher.shape}"
        )


def _check(student: Tensor, teacher: Tensor, temperature: float) -> None:
    _check_shapes(student, teacher)
    if student.shape[1] < 2:
        raise ValueError("soft targets need at least two classes: for regression use logit_mse")
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")


def _reduce(total: Tensor, logits: Tensor, temperature: float, scale_t2: bool, reduction: Reduction) -> Tensor:
    if reduction not in ("batchmean", "mean"):
        raise ValueError(f"reduction '{reduction}': choose batchmean or mean")
    rows, classes = logits.shape
    mean = total / (rows if reduction == "batchmean" else rows * classes)
    return mean * temperature**2 if scale_t2 else mean
