"""Which teacher layer a student layer learns from.

Layers are counted from 1; 0 is the output of the embeddings. A map is a tuple of teacher layers; its i-th entry
belongs to the i-th student layer that takes part. With a teacher of 12 layers and a student of 4:

    uniform  0, 3, 6, 9, 12   for student layers 0..4: hidden states of TinyBERT (arXiv 1909.10351), [1:] its scores
    skip     3, 6, 9          for student layers 1..3: PKD-skip (arXiv 1908.09355), the last layer is left to the logits
    last     9, 10, 11        for student layers 1..3: PKD-last
"""

import itertools
from collections.abc import Sequence

from distill.errors import UserError


def uniform(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """i -> i * teacher_layers / student_layers for student layers 0..student_layers.

    Raises UserError unless the teacher's layers divide evenly among the student's.
    """
    step = _step(student_layers, teacher_layers)
    return tuple(range(0, teacher_layers + 1, step))


def skip(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """i -> i * teacher_layers / student_layers for student layers 1..student_layers - 1.

    Raises UserError unless the teacher's layers divide evenly among the student's, and for a student of one layer.
    """
    _check_depths(student_layers, teacher_layers)
    _check_inner(student_layers)
    return uniform(student_layers, teacher_layers)[1:-1]


def last(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """i -> teacher_layers - student_layers + i for student layers 1..student_layers - 1.

    Raises UserError for a student deeper than the teacher, and for a student of one layer.
    """
    _check_depths(student_layers, teacher_layers)
    _check_inner(student_layers)
    return tuple(range(teacher_layers - student_layers + 1, teacher_layers))


def explicit(
    layers: str | Sequence[int], count: int, teacher_layers: int, flag: str = "--layer_map"
) -> tuple[int, ...]:
    """The user's own map: '0,4,8,12' or a sequence of integers, one teacher layer for each of `count` student layers.

    Raises UserError, naming `flag`, unless it holds `count` rising numbers from 0 to `teacher_layers`.
    """
    try:
        chosen = tuple(int(x) for x in (layers.split(",") if isinstance(layers, str) else layers))
    except ValueError:
        raise UserError(f"{flag} {layers}: expected teacher layers separated by commas, such as 3,6,9") from None
    shown = ",".join(map(str, chosen))
    if len(chosen) != count:
        raise UserError(
            f"{flag} {shown}: {len(chosen)} teacher layers given, {count} needed, one for each student layer"
        )
    outside = [x for x in chosen if not 0 <= x <= teacher_layers]
    if outside:
        raise UserError(
            f"{flag} {shown}: there is no teacher layer {outside[0]}; "
            f"choose from 0 (embeddings) to {teacher_layers} (the last layer)"
        )
    if any(b <= a for a, b in itertools.pairwise(chosen)):
        raise UserError(f"{flag} {shown}: teacher layers must rise from left to right")
    return chosen


def _check_depths(student_layers: int, teacher_layers: int) -> None:
    if not 1 <= student_layers <= teacher_layers:
        raise UserError(
            f"a student of {student_layers} layers cannot be mapped to a teacher of {teacher_layers}: "
            f"choose from 1 to {teacher_layers} student layers"
        )


def _check_inner(student_layers: int) -> None:
    if student_layers == 1:
        raise UserError(
            "a student of 1 layer has no layer below its last to match: "
            "choose at least 2 student layers, or the uniform map"
        )


def _step(student_layers: int, teacher_layers: int) -> int:
    _check_depths(student_layers, teacher_layers)
    step, rest = divmod(teacher_layers, student_layers)
    if rest:
        fitting = ", ".join(str(k) for k in range(1, teacher_layers + 1) if teacher_layers % k == 0)
        raise UserError(
            f"a student of {student_layers} layers cannot be spread evenly over a teacher of {teacher_layers}: "
            f"choose {fitting} student layers, or name the teacher layers one by one (--layer_map)"
        )
    return step
