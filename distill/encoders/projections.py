"""Linear maps from a student's width to its teacher's; they serve the distillation and are no part of the student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import paddle
from paddle import Tensor, nn

from distill.encoders.folder import PROJECTIONS
from distill.runtime import log
from distill.tensors import fill, save_tensors

Kind = Literal["per_layer", "shared"]


class Projections(nn.Layer):
    """Maps the hidden states of layers 0 (embeddings) to `layers`, each [B, L, student_width], to `teacher_width`.

    kind 'per_layer'  one map for each, `fit_denses.0` to `fit_denses.LAYERS`, as in PaddleNLP's tinybert-*-v2.
    kind 'shared'     one map for all layers, `fit_dense`, as in the other published weights; with `own_embedding` the
                      embeddings have another one, `fit_dense_embedding` (W_e and W_h of TinyBERT, arXiv 1909.10351).

    What is random follows `seed`; paddle's random state is left as it was.
    """

    def __init__(
        self,
        kind: Kind,
        layers: int,
        student_width: int,
        teacher_width: int,
        own_embedding: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.kind = kind
        state = paddle.get_rng_state()
        paddle.seed(seed)
        if kind == "per_layer":
            self.fit_denses = nn.LayerList([nn.Linear(student_width, teacher_width) for _ in range(layers + 1)])
            self._maps = (list(self.fit_denses),)  # in a tuple: they are registered once
        else:
            self.fit_dense = nn.Linear(student_width, teacher_width)
            if own_embedding:
                self.fit_dense_embedding = nn.Linear(student_width, teacher_width)
            first = self.fit_dense_embedding if own_embedding else self.fit_dense
            self._maps = ([first] + [self.fit_dense] * layers,)
        paddle.set_rng_state(state)

    def forward(self, hidden: Sequence[Tensor]) -> list[Tensor]:
        """The states of layers 0 to `layers`, each [B, L, teacher_width]."""
        return [project(state) for project, state in zip(self._maps[0], hidden, strict=True)]

    def load(self, arrays: dict[str, np.ndarray], source: str | Path) -> None:
        """Set all maps from `arrays` (see `folder.load_projections`); W_e starts as W_h where it is not among them.

        Arrays of the other kind are left out. Raises UserError naming `source` when one is missing or misshapen.
        """
        needed = list(self.state_dict())
        given = dict(arrays)
        for name in ("weight", "bias"):
            if f"fit_dense.{name}" in given:
                given.setdefault(f"fit_dense_embedding.{name}", given[f"fit_dense.{name}"])
        fill(self, {name: array for name, array in given.items() if name in needed}, source)

    def save(self, folder: str | Path) -> None:
        """Write them beside the weights of a model folder, where `folder.load_projections` finds them."""
        save_tensors(Path(folder) / PROJECTIONS, self.state_dict())


def of_layers(arrays: dict[str, np.ndarray], layers: Sequence[int]) -> dict[str, np.ndarray]:
    """Stored projections (see `folder.load_projections`) of a student that keeps these of the model's layers, counted
    from 1: one for each layer follows its layer, and that of the embeddings stays."""
    kept = {name: array for name, array in arrays.items() if not name.startswith("fit_denses.")}
    for number, layer in enumerate((0, *layers)):
        for part in ("weight", "bias"):
            if f"fit_denses.{layer}.{part}" in arrays:
                kept[f"fit_denses.{number}.{part}"] = arrays[f"fit_denses.{layer}.{part}"]
    return kept


def create_projections(
    wanted: Literal["auto", "shared", "per_layer"],
    arrays: dict[str, np.ndarray],
    source: str | Path,
    layers: int,
    student_width: int,
    teacher_width: int,
    own_embedding: bool,
    seed: int,
) -> Projections | None:
    """The projections of a student of `layers` layers, started from what it was stored with as far as that fits.

    arrays, source: what `folder.load_projections` found, and where. wanted 'auto': of the kind that the keys of
    `arrays` show (both: per_layer); without any, None where the widths are equal, else per_layer with `own_embedding`
    and shared without it.
    Stored ones of another kind, or for a teacher of another width, are not used, and a line says so.
    """
    first = {"per_layer": "fit_denses.0.weight", "shared": "fit_dense.weight"}
    stored: list[Kind] = [kind for kind in get_args(Kind) if first[kind] in arrays]
    if wanted != "auto":
        kind: Kind = wanted
    elif stored:
        kind = stored[0]
        if len(stored) > 1:
            log(f"{source}: of its projections those {kind} are used; --projection {stored[1]} takes the others")
    elif student_width != teacher_width:
        kind = "per_layer" if own_embedding else "shared"
    else:
        return None
    made = Projections(kind, layers, student_width, teacher_width, own_embedding, seed)
    if kind in stored and arrays[first[kind]].shape == (student_width, teacher_width):
        made.load(arrays, source)
    elif kind in stored:
        leads = "x".join(map(str, arrays[first[kind]].shape))
        log(f"{source}: its projections are {leads}, {student_width}x{teacher_width} is needed: new ones are drawn")
    elif stored:
        log(f"{source}: its projections are {stored[0]}, not {kind}: new ones are drawn")
    return made
