"""The student with its projections, which layers are compared, and what a step reads of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from distill.data.tasks import Task
from distill.data.wordpiece import WordPiece
from distill.encoders.folder import load_projections, save_bert
from distill.encoders.initialise import chosen_layers, create_student
from distill.encoders.layer_map import explicit, uniform
from distill.encoders.projections import Projections, create_projections, of_layers
from distill.encoders.taps import find_bert
from distill.errors import UserError
from models import KINDS
from tinybert.args import LayerOptions


def create(
    args: LayerOptions, teacher: nn.Layer, wordpiece: WordPiece, task: Task | None, seed: int
) -> tuple[nn.Layer, Projections | None]:
    """The student of the flags, of the teacher's class, and its projections where it has any; both follow `seed`."""
    sizes = (args.student_hidden_size, args.student_intermediate_size, args.student_heads)
    if args.student_init == "auto":
        shaped = any(sizes) and args.student_model_name_or_path is None
        args = dataclasses.replace(args, student_init="random" if shaped else "first")
    student = create_student(args, teacher, wordpiece, task, args.max_seq_length, seed, KINDS)
    path = args.student_model_name_or_path
    stored = load_projections(path, KINDS) if path else {}
    if chosen := chosen_layers(args):
        stored = of_layers(stored, chosen)
    ours, theirs = (find_bert(model).config for model in (student, teacher))
    projections = create_projections(
        args.projection,
        stored,
        path or "the teacher",
        ours.num_hidden_layers,
        ours.hidden_size,
        theirs.hidden_size,
        args.loss_form == "paper",
        seed,
    )
    return student, projections


def layer_map(args: LayerOptions, student: nn.Layer, teacher: nn.Layer) -> tuple[int, ...]:
    """The teacher's layer for each of the student's, 0 (the embeddings, from the embeddings) included.

    Raises UserError for depths that do not divide without --layer_map, and for another number of attention heads.
    """
    ours, theirs = (find_bert(model).config for model in (student, teacher))
    if ours.num_attention_heads != theirs.num_attention_heads:
        raise UserError(
            f"the student has {ours.num_attention_heads} attention heads, the teacher {theirs.num_attention_heads}: "
            "their scores are compared head by head; give the student as many by --student_heads"
        )
    if args.layer_map is None:
        return uniform(ours.num_hidden_layers, theirs.num_hidden_layers)
    chosen = explicit(args.layer_map, ours.num_hidden_layers, theirs.num_hidden_layers)
    if chosen[0] == 0:
        raise UserError(
            f"--layer_map {args.layer_map}: begins with 0, the embeddings, which always learn from the embeddings; "
            "give one layer from 1 on for each layer of the student"
        )
    return (0, *chosen)


def by_layer(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """The batch with the teacher's `hidden` [B, layers, L, H] and `scores` [B, layers, heads, L, L] as a tensor for
    each layer, and whether a row of it is `padded`."""

    def tensors(values: np.ndarray) -> list[paddle.Tensor]:
        return [paddle.to_tensor(values[:, layer]) for layer in range(values.shape[1])]

    layers = {name: tensors(batch[name]) for name in ("hidden", "scores")}
    return batch | layers | {"padded": not batch["mask"].all()}


def save(
    folder: Path, student: nn.Layer, projections: Projections | None, wordpiece: WordPiece, labels: Any = None
) -> None:
    """Write a student that is to be distilled further, with its projections."""
    save_bert(student, folder, wordpiece, labels)
    if projections is not None:
        projections.save(folder)
