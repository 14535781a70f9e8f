"""Distil a fine-tuned BERT into a smaller BERT by its logits, beside the labels.

    python task_distill.py --task_name SST-2 --data_dir ../data/glue_data --teacher_path my_teacher --student_layers 3
    python task_distill.py --config sst2 --data_dir ../data/glue_data --teacher_path my_teacher --control

Source: Hinton et al. 2015 (arXiv 1503.02531): L = alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T)) +
(1 - alpha) * CE(student, label).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import parse, run
from kd.args import KDArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(KDArgs, argv, __doc__)
    args.require_teacher()
    runtime.start(args.device, args.amp)
    from paddle import Tensor

    from distill.encoders.initialise import create_student, start_digest, student_depth
    from distill.evaluation.evaluate import bert_forward
    from distill.losses.soft_targets import logit_losses
    from distill.training.classification import Classification
    from distill.training.control import run_arms
    from models import KINDS

    student_depth(args, KINDS)  # refuses flags that leave it open before the teacher has read anything

    # 2. Task and data. 3. Teacher.
    work = Classification(args)
    task, teacher = work.task, work.teacher
    work.content["student"] = start_digest(args, KINDS)

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        """One student; without `distilled` the labels are all it learns from."""
        arm = dataclasses.replace(args, seed=seed, alpha=args.alpha if distilled else 0.0)

        # 4. Student.
        student = create_student(arm, teacher.model, teacher.wordpiece, task, args.max_seq_length, seed, KINDS)

        # 5. Losses.
        parts = logit_losses(arm, task.regression)

        def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return parts(bert_forward(student)(batch), batch)

        # 6. Fit, with the teacher's logits from its cache. 7. Evaluate the best. 8. Save.
        return work.train(folder, arm, student, losses, ["logits"] if distilled else [])

    return run_arms(train, Path(args.output_dir or naming.student_dir("kd", task.name, run_name(args))), args, task)


def run_name(args: KDArgs) -> str:
    """The published spelling, whose kd_alpha is the weight of the labels."""
    return naming.run_id(
        "bert-kd-distl",
        epochs=args.num_train_epochs,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        alpha=1 - args.alpha,
    )


if __name__ == "__main__":
    run(main)
