"""The losses of the nine models, from a sentence's and its translation's vectors and what the teacher says of them."""

from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor

from distill import runtime
from distill.losses.contrastive import identity_mse, matching_cross_entropy, similarity_mse
from distill.losses.hidden import weighted_mse
from multistage.config import Method

CE_WEIGHT = 0.01  # of the published code


def pair_losses(method: Method, scale: float | None) -> Callable[[Tensor, Tensor, dict[str, Any]], dict[str, Tensor]]:
    """A function (source [B, H], target [B, H], batch) -> {name: scalar}.

    source, target: the student's vectors of B sentences and of their translations. batch: `teacher` [B, H], the
    teacher's vectors of the sentences; `teacher_target` [B, H], the assistant's of the translations, where the model
    learns from one. scale: of the cosines in the cross entropy, 20 when None.
    """
    beside: dict[str, Callable[..., Tensor]] = {
        "mcl": similarity_mse,
        "bool": lambda source, target, _: identity_mse(source, target),
        "ce": lambda source, target, _: CE_WEIGHT * matching_cross_entropy(source, target, scale or 20.0),
    }

    def losses(source: Tensor, target: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        teacher = batch["teacher"]
        of_target = teacher if method.learns == "teacher" else batch["teacher_target"]
        named = {"source": weighted_mse(source, teacher, None), "target": weighted_mse(target, of_target, None)}
        if method.beside is not None:
            named[method.beside] = over_ranks(beside[method.beside], source, target, teacher)
        return named

    return losses


def over_ranks(loss: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """`loss` of the rows of all ranks together, so that every sentence meets those of the other devices.

    rows: each [B, any], B may differ by rank. The value is the same on every rank. Its gradient is the whole one for
    this rank's rows, over its share of all rows: by that share `distill.training.fit` weights a rank's loss, and the
    ranks' gradients then add up to that of one process with all rows.
    """
    if runtime.world_size() == 1:
        return loss(*rows)
    counts = [int(count) for count in _from_all(paddle.to_tensor([rows[0].shape[0]], "int64"))]
    value = loss(*(_joined(own, counts) for own in rows))
    share = counts[runtime.rank()] / sum(counts)
    return value.detach() + (value - value.detach()) / share


def _joined(own: Tensor, counts: list[int]) -> Tensor:
    """[sum of counts, H] of all ranks, in their order; gradients flow into this rank's rows."""
    missing = max(counts) - own.shape[0]  # ranks exchange tensors of one shape
    padding = paddle.zeros([missing, own.shape[1]], own.dtype)
    parts = _from_all(paddle.concat([own.detach(), padding]) if missing else own.detach())
    parts = [part[:count] for part, count in zip(parts, counts, strict=True)]
    parts[runtime.rank()] = own
    return paddle.concat(parts)


def _from_all(tensor: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    paddle.distributed.all_gather(found, tensor)
    return found
