"""Loss on the first tokens of inner layers, each scaled to length 1."""

from typing import Literal

import paddle.nn.functional as F
from paddle import Tensor

Form = Literal["official", "paper"]


def patience_mse(student: Tensor, teacher: Tensor, normalize: bool = True, form: Form = "official") -> Tensor:
    """Squared distance of the student's [CLS] vectors from the teacher's; no gradient reaches the teacher.

    student, teacher [B, K, H] float: K layers of the student and the K of the teacher that they learn from; h below is
    the vector divided by its L2 norm, or with `normalize` False the vector itself.
    Source: PKD, Sun et al. 2019 (arXiv 1908.09355), eq. 7, where paper and published code differ:
        form 'official'  mean over B, K and H of (h_s - h_t)^2, as in the code; at most 4 / H when normalised, so it
                         goes with a large weight (the published ones are 10 to 1000).
        form 'paper'     the same summed over K and H and averaged over B: K * H times the official value.
    Raises ValueError for shapes that differ and for another form.
    """
    if student.shape != teacher.shape or student.ndim != 3:
        raise ValueError(f"first tokens must both be [B, K, H]: student {student.shape}, teacher {teacher.shape}")
    if form not in ("official", "paper"):
        raise ValueError(f"form '{form}': choose official or paper")
    teacher = teacher.detach()
    if normalize:
        student, teacher = F.normalize(student, axis=-1), F.normalize(teacher, axis=-1)
    mean = F.mse_loss(student, teacher)
    return mean if form == "official" else mean * (student.shape[1] * student.shape[2])
