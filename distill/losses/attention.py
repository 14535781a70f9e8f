"""Loss on attention scores."""

import paddle
from paddle import Tensor

from distill.losses.hidden import Form, position_weights, weighted_mse

_CLIP = -1e2  # the published code takes scores up to here for those of masked positions


def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor | None, form: Form = "paper") -> Tensor:
    """Mean squared error of one layer's attention scores before softmax: TinyBERT (arXiv 1909.10351), eq. 7.

    student, teacher [B, heads, L, L]: q k^T / sqrt(d) without the padding mask, such as `distill.encoders.taps` reads;
    mask [B, L], 1 or True at real positions, None where nothing is padded. No gradient reaches the teacher. With the
    difference d and n_b real positions in row b:
        form 'paper'     1/B sum_b 1/(heads n_b^2) sum over heads and the row's pairs of real positions of d^2. The
                         value depends neither on how far a batch is padded nor, weighted by their rows, on its split.
        form 'official'  1/(B heads L^2) sum over heads and pairs of real positions of d^2, where in both models a score
                         of -100 or less is 0, as in the published code. There that rule is what takes padded keys out;
                         padded queries, which it compares, count here with d = 0.
    Raises ValueError for shapes that do not fit and for another form.
    """
    if student.shape != teacher.shape or (mask is not None and [student.shape[0], student.shape[-1]] != mask.shape):
        raise ValueError(
            f"attention scores do not fit: student {student.shape}, teacher {teacher.shape}, mask "
            f"{mask if mask is None else mask.shape}; both models need the same number of heads"
        )
    weight = None
    if mask is not None:
        one = position_weights(mask, teacher.dtype, form)
        # Outer product in each row, repeated for the heads: on CPUs paddle broadcasts far more slowly.
        queries = paddle.tile(one, [1, student.shape[1]]).unsqueeze(-1)
        weight = paddle.matmul(queries, one.unsqueeze(1)).reshape(student.shape)
    if form == "official":
        student, teacher = _clipped(student), _clipped(teacher)
    return weighted_mse(student, teacher, weight)


def _clipped(scores: Tensor) -> Tensor:
    return paddle.where(scores <= _CLIP, paddle.zeros_like(scores), scores)
