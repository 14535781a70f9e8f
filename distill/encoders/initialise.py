"""A smaller BERT from a larger one: its shape, and the weights it starts with."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import paddle
from paddle import nn

from distill.encoders.taps import find_bert
from distill.errors import UserError

_LAYER = re.compile(r"^(.*encoder\.layers\.)(\d+)(\..*)$")


def student_config(
    teacher_config: Any,
    layers: int | None = None,
    hidden_size: int | None = None,
    intermediate_size: int | None = None,
    heads: int | None = None,
) -> Any:
    """A copy of a PaddleNLP BertConfig with other sizes; what is not given stays the teacher's.

    With another `hidden_size` and no `intermediate_size`, the feed-forward layer keeps the teacher's proportion to it.
    Raises UserError for a size below 1 and for heads that do not divide the hidden size.
    """
    config = copy.deepcopy(teacher_config)
    if hidden_size is not None and intermediate_size is None:
        intermediate_size = round(hidden_size * config.intermediate_size / config.hidden_size)
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_attention_heads": heads,
    }
    for name, value in sizes.items():
        if value is not None:
            if value < 1:
                raise UserError(f"student {name} {value}: must be at least 1")
            setattr(config, name, value)
    if config.hidden_size % config.num_attention_heads:
        fitting = ", ".join(str(k) for k in range(1, 17) if config.hidden_size % k == 0)
        raise UserError(
            f"a student of hidden size {config.hidden_size} cannot have {config.num_attention_heads} attention heads: "
            f"choose {fitting}"
        )
    return config


def build_student(
    teacher_model: nn.Layer,
    layers: int | None = None,
    init: str = "first",
    layer_indices: Sequence[int] | None = None,
    seed: int = 0,
    hidden_size: int | None = None,
    intermediate_size: int | None = None,
    heads: int | None = None,
) -> nn.Layer:
    """A student of the teacher model's own class (BertModel, BertForSequenceClassification, ...), in train mode.

    init='first'   embeddings, pooler, head and the teacher's layers 1..layers are copied (PKD, Theseus).
    init='layers'  the same with the teacher's layers `layer_indices`, counted from 1, in that order.
    init='random'  nothing is copied: the model's own initialisation, fixed by `seed`; only here may the widths differ.

    The copies are independent of the teacher, and paddle's random state is left as it was. Raises UserError for layers
    the teacher does not have, and for widths other than the teacher's where weights are to be copied.
    """
    teacher_config = find_bert(teacher_model).config
    depth = teacher_config.num_hidden_layers
    if init == "layers":
        if not layer_indices:
            raise UserError(
                "initialising a student from chosen layers needs the list of teacher layers, such as 4,8,12"
            )
        if layers not in (None, len(layer_indices)):
            raise UserError(
                f"{len(layer_indices)} teacher layers were chosen for a student of {layers} layers: give {layers}"
            )
        source = tuple(layer_indices)
    elif layer_indices is not None:
        raise UserError(f"teacher layers {tuple(layer_indices)} were chosen, but init is '{init}': use init 'layers'")
    elif init in ("first", "random"):
        source = tuple(range(1, (depth if layers is None else layers) + 1))
    else:
        raise UserError(f"init '{init}': choose first, layers or random")
    config = student_config(teacher_config, len(source), hidden_size, intermediate_size, heads)
    if init != "random":
        missing = [x for x in source if not 1 <= x <= depth]
        if missing:
            raise UserError(f"the teacher has no layer {missing[0]} to copy: its layers are 1 to {depth}")
        for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
            ours, theirs = getattr(config, name), getattr(teacher_config, name)
            if ours != theirs:
                raise UserError(
                    f"student {name} {ours} differs from the teacher's {theirs}, "
                    "and weights can be copied between equal widths only: use init 'random'"
                )
    state = paddle.get_rng_state()
    paddle.seed(seed)
    student = type(teacher_model)(config)
    paddle.set_rng_state(state)
    if init != "random":
        _copy(teacher_model, student, source)
    return student


def _copy(teacher_model: nn.Layer, student: nn.Layer, source: tuple[int, ...]) -> None:
    weights = teacher_model.state_dict()
    chosen = {}
    for name in student.state_dict():
        match = _LAYER.match(name)
        chosen[name] = weights[f"{match[1]}{source[int(match[2])] - 1}{match[3]}" if match else name]
    student.set_state_dict(chosen)
