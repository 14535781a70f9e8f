"""Loss on hidden states."""

from collections.abc import Callable

from paddle import Tensor


def hidden_mse(
    student: Tensor, teacher: Tensor, mask: Tensor, project: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Mean over the real positions and the teacher's width of (project(student) - teacher)^2; 0 if all is padding.

    student [B, L, Hs]; teacher [B, L, Ht]; mask [B, L], 1 or True at real positions; `project` maps Hs to Ht (a
    Linear, the matrix W_h of TinyBERT, arXiv 1909.10351, eq. 8) and may be left out when the widths are equal. No
    gradient reaches the teacher. The published codes average over padding too; here the value does not depend on how
    far a batch is padded. Raises ValueError for shapes that do not fit.
    """
    if project is not None:
        student = project(student)
    if student.shape != teacher.shape or student.shape[:2] != mask.shape:
        raise ValueError(
            f"hidden states do not fit: student {student.shape}{'' if project is None else ' after projection'}, "
            f"teacher {teacher.shape}, mask {mask.shape}; between different widths a projection is needed"
        )
    weight = mask.astype(student.dtype)
    square = ((student - teacher.detach()) ** 2).sum(axis=-1)
    return (weight * square).sum() / (weight.sum().clip(min=1.0) * teacher.shape[-1])
