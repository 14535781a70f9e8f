"""Loss on hidden states."""

from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor

Form = Literal["paper", "official"]


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor | None, form: Form = "paper") -> Tensor:
    """Mean squared error of the hidden states of one layer: TinyBERT (arXiv 1909.10351), eq. 8.

    student, teacher [B, L, H], the student's taken to the teacher's width by `distill.encoders.projections` (the matrix
    W_h) where it has another; mask [B, L], 1 or True at real positions, None where nothing is padded. No gradient
    reaches the teacher. With d = student - teacher and n_b real positions in row b:
        form 'paper'     1/B sum_b 1/(n_b H) sum over the row's real positions and H of d^2. The value depends neither
                         on how far a batch is padded nor, weighted by their rows, on how it is split.
        form 'official'  1/(B L H) sum over real positions and H of d^2: as in the published code padding counts in
                         the mean, here with d = 0 (there with whatever the models make of padding).
    Raises ValueError for shapes that do not fit and for another form.
    """
    if student.shape != teacher.shape or (mask is not None and student.shape[:2] != mask.shape):
        raise ValueError(
            f"hidden states do not fit: student {student.shape}, teacher {teacher.shape}, mask "
            f"{mask if mask is None else mask.shape}; between different widths a projection is needed"
        )
    weight = None
    if mask is not None:
        # Repeated by a matrix product: on CPUs paddle broadcasts far more slowly.
        width = paddle.ones([1, student.shape[-1]], teacher.dtype)
        weight = paddle.matmul(position_weights(mask, teacher.dtype, form).reshape([-1, 1]), width)
        weight = weight.reshape(student.shape)
    return weighted_mse(student, teacher, weight)


def position_weights(mask: Tensor, dtype: paddle.dtype, form: Form) -> Tensor:
    """Factors [B, L] for both sides of a difference, 0 on padding, which make a mean over all of B x L the mean that
    `form` asks for (see `hidden_mse`). Raises ValueError for another form."""
    if form not in ("paper", "official"):
        raise ValueError(f"form '{form}': choose paper or official")
    mask = mask.astype(dtype)
    if form == "official":
        return mask
    real = mask.sum(axis=1, keepdim=True).clip(min=1.0)
    return mask * (mask.shape[1] / real).sqrt()


def weighted_mse(student: Tensor, teacher: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over all elements of (weight * (student - teacher))^2; all of one shape. No gradient reaches the teacher."""
    teacher, student = teacher.detach(), student.astype(teacher.dtype)  # which mixed precision may have made bfloat16
    return F.mse_loss(student, teacher) if weight is None else F.mse_loss(student * weight, teacher * weight)
