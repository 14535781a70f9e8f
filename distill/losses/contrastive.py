"""Losses on pairs of sentences that compare every first with every second sentence of the batch.

Everywhere: source and target [B, H] float are the student's vectors of B sentences and of their translations, row i of
one belonging to row i of the other; cos(a, b) is the matrix [B, B] of the cosines of a's rows, its lines, with b's.
The result is a scalar; no gradient reaches the teacher.

Source: Ding et al. 2022, "Multi-stage Distillation Framework for Cross-Lingual Semantic Similarity Matching" (arXiv
2209.05869) and its ablations.
"""

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from distill.losses.soft_targets import hard_cross_entropy


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """[A, B]: the cosine of each row of a [A, H] with each row of b [B, H]; 0 for a row of zeros."""
    return paddle.matmul(F.normalize(a, axis=-1), F.normalize(b, axis=-1), transpose_y=True)


def similarity_mse(source: Tensor, target: Tensor, teacher: Tensor) -> Tensor:
    """Mean over B x B of (cos(source, target) - cos(teacher, teacher))^2.

    teacher [B, any width]: its vectors of the source sentences. What it says of two sentences is what the student shall
    say of the first and the second's translation, so that sentences alike are no false negatives.
    Raises ValueError for shapes that do not fit.
    """
    found = _checked(source, target)
    if teacher.ndim != 2 or teacher.shape[0] != source.shape[0]:
        raise ValueError(f"the teacher needs a vector for each of {source.shape[0]} sentences: {teacher.shape}")
    teacher = teacher.detach()
    return F.mse_loss(found.astype(teacher.dtype), cosines(teacher, teacher))


def identity_mse(source: Tensor, target: Tensor) -> Tensor:
    """Mean over B x B of (cos(source, target) - I)^2: every other sentence counts as unlike. Raises ValueError for
    shapes that do not fit."""
    found = _checked(source, target)
    return F.mse_loss(found, paddle.eye(found.shape[0], dtype=found.dtype))


def matching_cross_entropy(source: Tensor, target: Tensor, scale: float = 20.0) -> Tensor:
    """Mean over the source sentences of -log softmax(scale * cos(source, target))[own translation].

    Raises ValueError for shapes that do not fit and for a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"the scale must be positive, not {scale}")
    found = _checked(source, target)
    return hard_cross_entropy(scale * found, paddle.arange(found.shape[0]))


def _checked(source: Tensor, target: Tensor) -> Tensor:
    if source.shape != target.shape or source.ndim != 2:
        raise ValueError(f"sentences and translations must both be [B, H]: {source.shape} and {target.shape}")
    return cosines(source, target)
