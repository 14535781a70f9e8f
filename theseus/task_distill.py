"""Compress a fine-tuned BERT by replacing its modules, step by step at random, with the layers of a shallower one.

    python task_distill.py --task_name SST-2 --data_dir ../data/glue_data --teacher_path my_teacher --student_layers 3
    python task_distill.py --config mrpc --data_dir ../data/glue_data --teacher_path my_teacher --control

Source: BERT-of-Theseus, Xu et al. 2020 (arXiv 2002.02925). The labels' loss is the only one: what the successor learns
from the predecessor it learns by working in its place.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import parse, run
from theseus.args import TheseusArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(TheseusArgs, argv, __doc__)
    args.require_teacher()
    runtime.start(args.device, args.amp)
    from paddle import Tensor

    from distill.evaluation.evaluate import bert_forward
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.training.classification import Classification
    from distill.training.control import run_arms
    from models.module_replacing import ModuleReplacing, replacement_rate

    # 2. Task and data. 3. Teacher: the predecessor.
    work = Classification(args)
    task, teacher = work.task, work.teacher

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        """One successor; without `distilled` it is fine-tuned alone from the first step."""
        arm = dataclasses.replace(args, seed=seed, replacing_rate=args.replacing_rate if distilled else 1.0)
        batches_an_epoch = len(work.plan(arm))

        # 4. Student: the successor, inside the model that it takes over.
        steps_an_epoch = math.ceil(batches_an_epoch / args.gradient_accumulation_steps)
        steps = args.max_steps if args.max_steps > 0 else steps_an_epoch * args.num_train_epochs
        half = None if args.scheduler_linear_k else math.ceil(steps / 2)
        rate = replacement_rate(
            arm.scheduler_type, arm.replacing_rate, arm.steps_for_replacing or half, arm.scheduler_linear_k
        )

        def rate_at(batches: int) -> float:
            epoch, batch = divmod(batches, batches_an_epoch)
            return rate(epoch * steps_an_epoch + batch // args.gradient_accumulation_steps)

        model = ModuleReplacing(teacher.model, args.student_layers, rate_at, seed, args.train_embeddings)
        if distilled and rate(steps - 1) < 1:
            last = f"replacing rate {rate(steps - 1):.2f} in the last of {steps} steps"
            runtime.log(f"{last}: the successor is never fine-tuned alone")

        # 5. Losses.
        label_loss = label_mse if task.regression else hard_cross_entropy

        def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"label": label_loss(bert_forward(model)(batch), batch["labels"])}

        # 6. Fit. 7. Evaluate the best. 8. Save.
        return work.train(folder, arm, model.successor, losses, trained=model)

    return run_arms(
        train, Path(args.output_dir or naming.student_dir("theseus", task.name, run_name(args))), args, task
    )


def run_name(args: TheseusArgs) -> str:
    """As the other students are called."""
    rates = {"epochs": args.num_train_epochs, "learning_rate": args.learning_rate, "weight_decay": args.weight_decay}
    return naming.run_id(f"bert-theseus_{args.student_layers}", **rates)


if __name__ == "__main__":
    run(main)
