"""Flags of task_distill.py; those of the replacement are spelled as in the published script."""

from dataclasses import dataclass

from distill.errors import UserError
from distill.options import DistillOptions, RuntimeOptions, TaskOptions, TeacherOptions, TrainOptions, option


@dataclass
class TheseusArgs(TaskOptions, TrainOptions, TeacherOptions, DistillOptions, RuntimeOptions):
    """Replace the modules of a fine-tuned BERT, its teacher, by the layers of a shallower one."""

    student_layers: int = option(
        3, "layers of the successor; each replaces as many of the teacher's", alias="scc_n_layer", low=1
    )
    replacing_rate: float = option(
        0.5, "probability that a module is replaced in a step; linear: its value at the start", low=0, high=1
    )
    scheduler_type: str = option(
        "constant", "course of the replacing rate; none is constant", choices=("constant", "linear", "none")
    )
    scheduler_linear_k: float | None = option(None, "linear: what the rate gains each step", above=0)
    steps_for_replacing: int | None = option(
        None, "steps until the rate is 1 and the successor is fine-tuned alone; without it half of all steps", low=1
    )
    train_embeddings: bool = option(
        False, "train embeddings, pooler and classifier too, which otherwise stay the teacher's"
    )
    num_train_epochs: int = option(10, "passes over the training rows", alias=("max_epoch", "epochs"), low=1)
    learning_rate: float = option(1e-5, "peak learning rate", alias="lr", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheduler_type == "none":
            self.scheduler_type = "constant"
        if self.early_stopping_patience:
            raise UserError(
                "--early_stopping_patience: while modules are replaced the successor alone scores badly, and training "
                "would stop before it is fine-tuned; leave it out, --num_train_epochs says how long"
            )
        if self.scheduler_linear_k is not None and self.scheduler_type != "linear":
            raise UserError("--scheduler_linear_k needs --scheduler_type linear")
        if self.scheduler_linear_k is not None and self.steps_for_replacing is not None:
            raise UserError(
                "--scheduler_linear_k and --steps_for_replacing: each says how long to replace; leave one out"
            )
