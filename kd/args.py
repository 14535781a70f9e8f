"""Flags of task_distill.py."""

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
class KDArgs(
    TaskOptions, TrainOptions, SoftTargetOptions, StudentOptions, TeacherOptions, DistillOptions, RuntimeOptions
):
    """Distil a fine-tuned BERT into a smaller one by its logits."""

    alpha: float = option(0.2, "weight of the teacher's term; 1 - alpha weights the labels'", above=0, high=1)
    num_train_epochs: int = option(4, "passes over the training rows", alias=("max_epoch", "epochs"), low=1)
    learning_rate: float = option(2e-5, "peak learning rate", alias="lr", above=0)
    warmup_proportion: float = option(0.1, "share of all steps over which the rate rises from 0", low=0, high=1)
    weight_decay: float = option(1e-4, "decoupled decay of weights (not of biases and layer norms)", low=0)
