"""What the dual encoder learns from its teacher: Li et al. 2022 (arXiv 2112.04195)."""

from collections.abc import Mapping
from typing import Any

import paddle
from paddle import Tensor

from distill.data.pairs import PairLayout
from distill.encoders.cpu import split_heads
from distill.encoders.taps import Taps, scaled_scores
from distill.losses.interaction import interaction_mse
from distill.losses.soft_targets import kl_divergence, logit_mse
from models.dual_encoder import DualEncoder
from virt.args import SbertDistillArgs


def taught_layers(student: DualEncoder) -> tuple[int, ...]:
    """The layers, of student and teacher alike, in which the student reads the two texts apart."""
    return tuple(range(1, len(student.encoder.encoder.layers) + 1))


def virtual_scores(student: DualEncoder, batch: Mapping[str, Any]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits, and for each layer the scores that the first text's tokens [B, heads, La, Lb] would give the second's,
    and these those [B, heads, Lb, La], had they been read together."""
    heads, layers = student.encoder.config.num_attention_heads, taught_layers(student)
    taps = Taps(student.encoder, hidden=False, scores=True)
    states, queries, keys = {}, {}, {}
    for side, read in (("a", student.query_states), ("b", student.document_states)):
        with taps:
            states[side] = read(batch[f"input_ids_{side}"], batch[f"mask_{side}"], batch[f"positions_{side}"])
        # Without [CLS] and [SEP], by gathering: on CPUs the gradient of a slice takes far longer.
        inner = paddle.arange(1, batch[f"mask_{side}"].shape[1] - 1)
        queries[side], keys[side] = (
            [split_heads(paddle.gather(x, inner, axis=1), heads) for x in taps.projections(name, layers)]
            for name in ("q_proj", "k_proj")
        )
    logits = student.score(states["a"], batch["mask_a"], states["b"], batch["mask_b"])
    first, second = (
        [scaled_scores(q, k) for q, k in zip(queries[asking], keys[asked], strict=True)]
        for asking, asked in ("ab", "ba")
    )
    return logits, first, second


def distillation_losses(
    student: DualEncoder, batch: Mapping[str, Any], args: SbertDistillArgs, layout: PairLayout
) -> tuple[Tensor, dict[str, Tensor]]:
    """The student's logits, and the teacher's terms by name, weighted.

    batch: the towers of `Pairs.lay_out`, and of the teacher, where they are learned, `logits` [B, C], `first_to_second`
    and `second_to_first`, for each layer [B, heads, queries, keys]. KL divergence is summed over classes.
    """
    named = {}
    if args.use_kd_att:
        logits, first, second = virtual_scores(student, batch)
        a, b = batch["mask_a"][:, 1:-1], batch["mask_b"][:, 1:-1]
        asking = (a, b) if args.att_query_mask else (None, None)
        there = interaction_mse(first, batch["first_to_second"], asking[0], b, args.att_scaling, layout.second - 2)
        back = interaction_mse(second, batch["second_to_first"], asking[1], a, args.att_scaling, layout.first - 2)
        named["attention"] = args.kd_weight_att * (there + back)
    else:
        logits = student(batch)
    if args.use_kd_logit_mse or args.use_kd_logit_kl:
        soft = logit_mse if args.use_kd_logit_mse else kl_divergence
        named["teacher"] = args.kd_weight_logit * soft(logits, batch["logits"])
    return logits, named
