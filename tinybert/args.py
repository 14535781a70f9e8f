"""Flags of task_distill.py and general_distill.py; names and defaults are those of the published commands."""

from dataclasses import dataclass

from distill.options import (
    DistillOptions,
    RuntimeOptions,
    StudentOptions,
    TaskOptions,
    TeacherOptions,
    TrainOptions,
    option,
)


@dataclass
class LayerOptions(StudentOptions):
    """The student, and what it learns from the inside of its teacher."""

    model_type: str = option("tinybert", "architecture of the student", choices=("tinybert", "bert"))
    student_model_name_or_path: str | None = option(
        None, "student to start from: a folder, or a name such as tinybert-4l-312d-v2", alias="model_name_or_path"
    )
    student_init: str = option(
        "auto", "without a student to start from: first (layers of the teacher), layers by number such as 2,4,6, or "
        "random; auto: random with sizes of its own, else first"
    )  # fmt: skip
    layer_map: str | None = option(
        None, "teacher layers that the student's layers 1, 2, ... learn from, such as 2,3,5,6; without it evenly spaced"
    )
    projection: str = option(
        "auto", "linear maps to the teacher's width: one, or one for each layer; auto: those the student was stored "
        "with, else where the widths differ one for each layer (--loss_form official: shared)",
        choices=("auto", "shared", "per_layer"),
    )  # fmt: skip
    loss_form: str = option(
        "paper", "means over real positions and embeddings with a projection of their own; or as the published code",
        choices=("paper", "official"),
    )  # fmt: skip
    learning_rate: float = option(5e-5, "peak learning rate of the layers' stage", alias="lr", above=0)
    warmup_proportion: float = option(0.1, "share of a stage's steps over which the rate rises from 0", low=0, high=1)


@dataclass
class TaskDistillArgs(LayerOptions, TaskOptions, TrainOptions, TeacherOptions, DistillOptions, RuntimeOptions):
    """Distil a fine-tuned BERT into a smaller one: its layers, then its predictions."""

    teacher_model_type: str = option("bert", "architecture of the teacher", choices=("bert",))
    use_aug: bool = option(False, "train on the rows that data_augmentation/data_augmentation.py wrote")
    intermediate_distill: bool = option(False, "the first stage alone: embeddings, hidden states, attention scores")
    pred_distill: bool = option(False, "the second stage alone: the predictions")
    num_train_epochs: int = option(10, "passes of the first stage", alias=("max_epoch", "epochs"), low=1)
    prediction_epochs: int = option(3, "passes of the second stage", low=1)
    prediction_learning_rate: float = option(3e-5, "peak learning rate of the second stage", above=0)
    max_steps: int = option(-1, "stop each stage after this many steps; -1: by epochs", low=-1)
    T: float = option(1.0, "temperature of both models' logits in the second stage", alias="temperature", above=0)

    @property
    def stages(self) -> tuple[str, ...]:
        """Which of the two stages run, in order."""
        both = self.intermediate_distill == self.pred_distill
        chosen = {"intermediate": self.intermediate_distill, "prediction": self.pred_distill}
        return tuple(stage for stage, wanted in chosen.items() if both or wanted)


@dataclass
class GeneralDistillArgs(LayerOptions, TrainOptions, RuntimeOptions):
    """Distil the layers of a BERT that is not fine-tuned into a smaller one, on plain text."""

    input_dir: str | None = option(
        None, "text, one sentence a line, of any size: a file, or a folder of .txt files", alias="input_file"
    )
    teacher_model_name_or_path: str | None = option(
        None, "BERT to learn from: a folder, or a name that PaddleNLP downloads", alias="teacher_path"
    )
    max_seq_length: int = option(128, "longest input in tokens, special tokens counted; longer lines are cut", low=4)
    batch_size: int = option(256, "lines a step and device", alias="train_batch_size", low=1)
    weight_decay: float = option(0.01, "decoupled decay of weights (not of biases and layer norms)", low=0)
