"""Distil a fine-tuned BERT into a smaller BERT by its logits, beside the labels.

    python task_distill.py --task_name SST-2 --data_dir ../data/glue_data --teacher_path my_teacher --student_layers 3
    python task_distill.py --config sst2 --data_dir ../data/glue_data --teacher_path my_teacher --control

Source: Hinton et al. 2015 (arXiv 1503.02531): L = alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T)) +
(1 - alpha) * CE(student, label).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from kd.args import KDArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(KDArgs, argv, __doc__)
    if not args.teacher_path:
        raise UserError("--teacher_path is needed: the folder of a fine-tuned BERT (glue/run_glue.py makes one)")
    runtime.start(args.device, args.amp)
    import numpy as np
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.tasks import load_rows, load_task
    from distill.encoders.folder import save_bert
    from distill.encoders.initialise import create_student
    from distill.evaluation.bert import BertDev
    from distill.evaluation.evaluate import bert_forward
    from distill.losses.soft_targets import logit_losses
    from distill.teachers.teacher import Teacher
    from distill.training.control import run_arms
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run

    # 2. Task and data.
    task = load_task(args)
    rows = {split: load_rows(args, task, split) for split in ("train", *task.dev_splits)}

    # 3. Teacher.
    teacher = Teacher(args.teacher_path, task, args.max_seq_length, args)
    teacher.check(rows[task.dev_splits[0]])
    texts, labels = teacher.encode(rows["train"]), rows["train"].labels
    dev = BertDev(rows, teacher.wordpiece, task, args)

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        """One student; without `distilled` the labels are all it learns from."""
        arm = dataclasses.replace(args, seed=seed, alpha=args.alpha if distilled else 0.0)

        # 4. Student.
        student = create_student(arm, teacher.model, teacher.wordpiece, task, args.max_seq_length, seed)

        # 5. Losses.
        parts = logit_losses(arm, task.regression)

        def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return parts(bert_forward(student)(batch), batch)

        # 6. Fit, with the teacher's logits from its cache.
        content = {"teacher": teacher.digest, "rows": rows["train"].digest()}
        this_run = Run(folder, settings(arm) | content, args.overwrite, cosmetic(args))
        if this_run.finished:
            runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
            return folder
        with this_run.timer("teacher"):
            taught = teacher.outputs(texts) if distilled else None

        def load(chosen: np.ndarray) -> dict[str, Any]:
            batch = texts.pad(chosen, teacher.wordpiece.pad_id) | {"labels": labels[chosen]}
            with this_run.timer("teacher"):
                return batch | (taught.batch(chosen) if taught else {})

        plan = BucketBatches(texts.lengths, args.batch_size, seed, True, runtime.rank(), runtime.world_size())
        save = lambda best: save_bert(student, best, teacher.wordpiece, task.labels)  # noqa: E731
        fit(student, losses, Batches(plan, load), arm, this_run, lambda: dev.scores(student), task.metric, save)

        # 7. Evaluate the best. 8. Save.
        if runtime.is_main():
            dev.report(folder, this_run.best_dir / "model.safetensors", seed)
        this_run.finish(task=task.name, train_rows=len(texts), real_token_share=round(plan.real_share(0), 4))
        return folder

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
