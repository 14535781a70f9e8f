"""Loss on the attention that two texts would pay each other, were they read together."""

from collections.abc import Sequence
from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from distill.losses.hidden import weighted_mse

Scaling = Literal["mean", "sum"]

_MASKED = -1e4


def interaction_mse(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    query_mask: Tensor | None,
    key_mask: Tensor,
    scaling: Scaling = "sum",
    keys: int | None = None,
) -> Tensor:
    """Squared distance of the attention from one text's tokens to the other's: VIRT, Li et al. 2022
    (arXiv 2112.04195), in one direction; the loss is the sum of both.

    student, teacher   for each layer scores [B, heads, Lq, Lk] before softmax, scaled, without mask: the student's from
                       queries and keys of two texts it has read apart, the teacher's from the part of its scores that
                       lies between them. No gradient reaches the teacher.
    key_mask [B, Lk]   1 at real tokens: softmax is taken over these alone, in the teacher too.
    query_mask [B, Lq] 1 at real tokens: only these rows count, and each pair of texts counts the same. None: all rows
                       count, as in the published code, whose mean includes those of padding.

    With d = softmax(student) - softmax(teacher), the mean over layers and pairs of the mean over counted rows of
        scaling 'sum'   the sum over heads and keys of d^2, whatever the sizes: the released code multiplies its mean by
                        heads and length for this, with weights of 0.1 to 1.
        scaling 'mean'  that sum / (heads * keys), as in the code before its release, with weights of 400 to 700; `keys`
                        is Lk in the fixed layout (128 of 130 positions), so that leaving padding out changes nothing.
    A pair with an empty text has no loss. Raises ValueError for shapes that do not fit and for another scaling.
    """
    shape = list(student[0].shape) if student else []
    fits = len(student) == len(teacher) > 0 and all(list(x.shape) == shape for x in (*student, *teacher))
    if not fits or list(key_mask.shape) != [shape[0], shape[3]]:
        raise ValueError(
            f"interactions do not fit: student {[x.shape for x in student]}, teacher {[x.shape for x in teacher]}, "
            f"mask of keys {key_mask.shape}; both models need the same layers and heads"
        )
    if query_mask is not None and list(query_mask.shape) != [shape[0], shape[2]]:
        raise ValueError(f"interactions do not fit: queries {shape[:3]}, their mask {query_mask.shape}")
    if scaling not in ("mean", "sum") or (scaling == "mean" and keys is None):
        raise ValueError(f"scaling '{scaling}' with {keys} keys: choose sum, or mean with the keys of the fixed layout")
    batch, heads, rows, columns = shape
    dtype = teacher[0].dtype
    key_mask = key_mask.astype(dtype)
    counted = paddle.ones([batch, rows], dtype) if query_mask is None else query_mask.astype(dtype)
    share = counted / counted.sum(axis=1, keepdim=True).clip(min=1.0) * key_mask.max(axis=1, keepdim=True)

    # Repeated by matrix products for the heads: on CPUs paddle broadcasts far more slowly.
    def spread(of_queries: Tensor, of_keys: Tensor) -> Tensor:
        outer = paddle.matmul(paddle.tile(of_queries, [1, heads]).unsqueeze(-1), of_keys.unsqueeze(1))
        return outer.reshape(shape)

    closed = spread(paddle.ones_like(counted), (1.0 - key_mask) * _MASKED)
    # What makes the mean over all of the tensor the sum over heads and keys, and the mean over counted rows.
    weight = spread((share * float(heads * rows * columns)).sqrt(), paddle.ones_like(key_mask))
    total: Tensor = sum(
        weighted_mse(F.softmax(mine.astype(dtype) + closed), F.softmax(theirs + closed), weight)
        for mine, theirs in zip(student, teacher, strict=True)
    )
    total = total / len(student)
    return total if keys is None or scaling == "sum" else total / (heads * keys)
