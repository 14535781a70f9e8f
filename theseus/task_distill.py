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
from typing import Any

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from theseus.args import TheseusArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(TheseusArgs, argv, __doc__)
    if not args.teacher_path:
        raise UserError("--teacher_path is needed: the folder of a fine-tuned BERT (glue/run_glue.py makes one)")
    runtime.start(args.device, args.amp)
    import numpy as np
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.tasks import load_rows, load_task
    from distill.encoders.folder import save_bert
    from distill.evaluation.bert import BertDev
    from distill.evaluation.evaluate import bert_forward
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.teachers.teacher import Teacher
    from distill.training.control import run_arms
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from models.module_replacing import ModuleReplacing, replacement_rate

    # 2. Task and data.
    task = load_task(args)
    rows = {split: load_rows(args, task, split) for split in ("train", *task.dev_splits)}

    # 3. Teacher: the predecessor.
    teacher = Teacher(args.teacher_path, task, args.max_seq_length, args)
    teacher.check(rows[task.dev_splits[0]])
    texts, labels = teacher.encode(rows["train"]), rows["train"].labels
    dev = BertDev(rows, teacher.wordpiece, task, args)

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        """One successor; without `distilled` it is fine-tuned alone from the first step."""
        arm = dataclasses.replace(args, seed=seed, replacing_rate=args.replacing_rate if distilled else 1.0)
        plan = BucketBatches(texts.lengths, args.batch_size, seed, True, runtime.rank(), runtime.world_size())

        # 4. Student: the successor, inside the model that it takes over.
        steps_an_epoch = math.ceil(len(plan) / args.gradient_accumulation_steps)
        steps = args.max_steps if args.max_steps > 0 else steps_an_epoch * args.num_train_epochs
        half = None if args.scheduler_linear_k else math.ceil(steps / 2)
        rate = replacement_rate(
            arm.scheduler_type, arm.replacing_rate, arm.steps_for_replacing or half, arm.scheduler_linear_k
        )

        def rate_at(batches: int) -> float:
            epoch, batch = divmod(batches, len(plan))
            return rate(epoch * steps_an_epoch + batch // args.gradient_accumulation_steps)

        model = ModuleReplacing(teacher.model, args.student_layers, rate_at, seed, args.train_embeddings)
        if distilled and rate(steps - 1) < 1:
            last = f"replacing rate {rate(steps - 1):.2f} in the last of {steps} steps"
            runtime.log(f"{last}: the successor is never fine-tuned alone")

        # 5. Losses.
        label_loss = label_mse if task.regression else hard_cross_entropy

        def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"label": label_loss(bert_forward(model)(batch), batch["labels"])}

        # 6. Fit.
        content = {"teacher": teacher.digest, "rows": rows["train"].digest()}
        this_run = Run(folder, settings(arm) | content, args.overwrite, cosmetic(args))
        if this_run.finished:
            runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
            return folder

        def load(chosen: np.ndarray) -> dict[str, Any]:
            return texts.pad(chosen, teacher.wordpiece.pad_id) | {"labels": labels[chosen]}

        save = lambda best: save_bert(model.successor, best, teacher.wordpiece, task.labels)  # noqa: E731
        fit(model, losses, Batches(plan, load), arm, this_run, lambda: dev.scores(model.successor), task.metric, save)

        # 7. Evaluate the best. 8. Save.
        if runtime.is_main():
            dev.report(folder, this_run.best_dir / "model.safetensors", seed)
        this_run.finish(task=task.name, train_rows=len(texts), real_token_share=round(plan.real_share(0), 4))
        return folder

    return run_arms(
        train, Path(args.output_dir or naming.student_dir("theseus", task.name, run_name(args))), args, task
    )


def run_name(args: TheseusArgs) -> str:
    """As the other students are called."""
    rates = {"epochs": args.num_train_epochs, "learning_rate": args.learning_rate, "weight_decay": args.weight_decay}
    return naming.run_id(f"bert-theseus_{args.student_layers}", **rates)


if __name__ == "__main__":
    run(main)
