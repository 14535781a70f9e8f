"""A smaller BERT from a larger one: its shape, and the weights it starts with."""

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import nn

from distill.encoders.folder import PROJECTIONS, find_model, load_bert
from distill.encoders.taps import find_bert
from distill.errors import UserError
from distill.files import sha256
from distill.options import StudentOptions
from distill.runtime import log

if TYPE_CHECKING:
    from distill.data.tasks import Task
    from distill.data.wordpiece import WordPiece

_LAYER = re.compile(r"^(.*encoder\.layers\.)(\d+)(\..*)$")


def create_student(
    options: StudentOptions,
    teacher: nn.Layer,
    wordpiece: "WordPiece",
    task: "Task | None",
    max_length: int,
    seed: int,
    kinds: Sequence[str] = ("Bert",),
) -> nn.Layer:
    """The BertForSequenceClassification that the flags ask for, in train mode; what is random in it follows `seed`.

    teacher: the BertForSequenceClassification that it starts from when no other model is named; wordpiece: what both
    read, so that a named model may differ in lower-casing; task: None for a plain BertModel, which `teacher` must be
    then; kinds: of a named model, see `find_model`.
    Raises UserError for a model with another vocabulary or too few positions for `max_length` tokens, for layers
    it does not have, for other widths where weights are copied, and for a named model of which nothing would be.
    """
    source, path, chosen = teacher, options.student_model_name_or_path, chosen_layers(options)
    if path is not None and options.student_init == "random":
        raise UserError(
            f"--student_init random draws new weights, and those of --student_model_name_or_path {path} would not be "
            "used; leave that flag out, or pass --student_init first"
        )
    layers = student_depth(options, kinds)
    if path is not None:
        found = find_model(path, kinds)
        found.check_length(max_length)
        if task is not None and task.pair:
            found.check_pairs()
        own = type(wordpiece).from_folder(found.folder)
        if own.tokens != wordpiece.tokens:
            raise UserError(
                f"--student_model_name_or_path {path}: its wordpieces are not those of the teacher, "
                f"{wordpiece.vocab_file}; pass a student with the same vocabulary"
            )
        if own.digest() != wordpiece.digest():
            log(
                f"--student_model_name_or_path {path}: treats capitals or accents otherwise than the teacher; the "
                "student will read as the teacher does"
            )
        outputs, labels = (task.num_outputs, task.labels) if task else (None, None)
        source = load_bert(path, outputs, labels, seed, kinds=kinds)
    return build_student(
        source,
        layers,
        "layers" if chosen else options.student_init,
        chosen,
        seed,
        options.student_hidden_size,
        options.student_intermediate_size,
        options.student_heads,
    )


def student_depth(options: StudentOptions, kinds: Sequence[str] = ("Bert",)) -> int:
    """How many layers the student of these flags has; UserError where they do not say it."""
    if options.student_layers is not None:
        return options.student_layers
    if chosen := chosen_layers(options):
        return len(chosen)
    if options.student_model_name_or_path is not None:
        depth: int = find_model(options.student_model_name_or_path, kinds).config["num_hidden_layers"]
        return depth
    raise UserError(
        "--student_layers is needed: how deep the student is; or --student_model_name_or_path, a smaller BERT"
    )


def start_digest(options: StudentOptions, kinds: Sequence[str] = ("Bert",)) -> str | None:
    """SHA-256 of the weights and projections that the student starts from; None where it starts from the teacher."""
    if options.student_model_name_or_path is None:
        return None
    found = find_model(options.student_model_name_or_path, kinds)
    beside = found.folder / PROJECTIONS
    return sha256(found.weights) + (sha256(beside) if beside.is_file() else "")


def chosen_layers(options: StudentOptions) -> tuple[int, ...] | None:
    """The layers that --student_init lists, None for `first` and `random`."""
    if options.student_init in ("first", "random"):
        return None
    if not re.fullmatch(r"\d+(,\d+)*", options.student_init):
        raise UserError(
            f"--student_init {options.student_init}: choose first, random, or layers by number such as 4,8,12"
        )
    return tuple(map(int, options.student_init.split(",")))


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
                f"{len(layer_indices)} teacher layers were chosen for a student of {layers} layers: give {layers}; "
                "see --student_init and --student_layers"
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
            raise UserError(
                f"the teacher has no layer {missing[0]} to copy: its layers are 1 to {depth}; see --student_init and "
                "--student_layers"
            )
        for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
            ours, theirs = getattr(config, name), getattr(teacher_config, name)
            if ours != theirs:
                raise UserError(
                    f"student {name} {ours} differs from the teacher's {theirs}, and weights can be copied between "
                    "equal widths only: use init 'random' (--student_init random)"
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


def start_regression(head: nn.Linear, labels: np.ndarray) -> None:
    """Let a new head of one output begin at the mean of `labels` [n] (nan where there is none), with weights as many
    times larger as their standard deviation is: no step is then spent on the scale of the scores.

    A head whose bias is not 0 has been trained, and stays as it is.
    """
    known = labels[~np.isnan(labels)]
    if len(known) and not head.bias.numpy().any():
        start = float(known.mean()) or 1e-30  # not 0, which marks a new head
        head.bias.set_value(paddle.full_like(head.bias, start))
        head.weight.set_value(head.weight * float(known.std() or 1.0))
