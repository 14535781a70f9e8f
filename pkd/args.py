"""Flags of task_distill.py; the defaults are those of the published code's patient runs, the
learning rate in the middle of its grid (theirs on SST-2: 1e-5)."""

from dataclasses import dataclass

from distill.options import (
    DistillOptions,
    RuntimeOptions,
    SoftTargetOptions,
    StudentOptions,
    TaskOptions,
    TeacherOptions,
    TrainOptions,
    option,
)


@dataclass
class PKDArgs(
    TaskOptions, TrainOptions, SoftTargetOptions, StudentOptions, TeacherOptions, DistillOptions, RuntimeOptions
):
    """Distil a fine-tuned BERT into a smaller one by its logits and by what its layers say of the first token."""

    alpha: float = option(0.7, "weight of the teacher's logits; 1 - alpha weights the labels", low=0, high=1)
    T: float = option(10.0, "temperature that divides both models' logits in kl", alias="temperature", above=0)
    soft_reduction: str = option(
        "mean", "kl: sum over classes, or mean over them too, which is as many times smaller",
        choices=("batchmean", "mean"),
    )  # fmt: skip
    beta: float = option(500.0, "weight of the patience: cls 10 to 1000, tokens about 10; 0: off", low=0)
    patience: str = option(
        "cls", "what is compared: [CLS] of the layers below the last; or all tokens, of the embeddings and every layer",
        choices=("cls", "tokens"),
    )  # fmt: skip
    normalize_patience: bool = option(True, "cls: scale each vector to length 1")
    loss_form: str = option(
        "official", "cls: mean over layers and width as in the published code, or their sum as in the paper",
        choices=("official", "paper"),
    )  # fmt: skip
    layer_map: str | None = option(
        None, "teacher layers to learn from: skip or last (cls), uniform (tokens), or a list such as 4,8; "
        "without it skip, or uniform"
    )  # fmt: skip
    num_train_epochs: int = option(4, "passes over the training rows", alias=("max_epoch", "epochs"), low=1)
    learning_rate: float = option(2e-5, "peak learning rate", alias="lr", above=0)
    warmup_proportion: float = option(0.1, "share of all steps over which the rate rises from 0", low=0, high=1)
    weight_decay: float = option(0.01, "decoupled decay of weights (not of biases and layer norms)", low=0)
