"""Distil a fine-tuned BERT into the BiLSTM student by its logits on the training rows and on augmented copies of them.

    python bert_distill.py --task_name sst-2 --data_dir ../data/glue_data --teacher_path my_teacher --max_epoch 6 \
        --lr 1.0 --dropout_prob 0.2 --batch_size 128 --use_pretrained_emb true

Source: Tang et al. 2019 (arXiv 1903.12136): L = alpha * MSE(student, teacher) + (1 - alpha) * CE(student, label), where
both sides of the MSE are logits.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from distill_lstm.args import DistillArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(DistillArgs, argv, __doc__)
    args.require_teacher()
    if args.alpha == 0:
        raise UserError(
            "--alpha 0: alpha weights the teacher here, which would teach nothing; the published scripts' 0.0 is "
            "--alpha 1, and small.py trains on the labels alone"
        )
    runtime.start(args.device, args.amp)
    import numpy as np
    from paddle import Tensor

    from distill.data.augmented import load_augmented
    from distill.data.batching import BucketBatches
    from distill.data.readers import digests
    from distill.data.tasks import load_rows, load_task, read_texts
    from distill.encoders.initialise import start_regression
    from distill.evaluation.evaluate import Scores, evaluate_splits, report
    from distill.losses.soft_targets import hard_cross_entropy, label_mse, logit_mse
    from distill.teachers.teacher import Teacher
    from distill.training.control import run_arms
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from distill_lstm import data
    from models import bilstm

    # 2. Task and data.
    task = load_task(args)
    rows = {split: load_rows(args, task, split) for split in ("train", *task.dev_splits)}
    if args.use_aug:
        rows["train"] = load_augmented(task, args)
    if args.unlabelled_file:
        rows["train"] = rows["train"].concat(read_texts(args, task, args.unlabelled_file))

    # 3. Teacher.
    teacher = Teacher(args.teacher_path, task, args.max_seq_length, args)
    data.check_model_name(args, teacher.wordpiece)
    teacher.check(rows[task.dev_splits[0]])
    reader = data.make_reader(args, task, rows["train"], None if data.reads_words(args, task) else teacher.wordpiece)
    dev = data.dev_texts(rows, reader, task)
    content = digests(rows) | {"teacher": teacher.digest}

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        arm = dataclasses.replace(args, seed=seed, alpha=args.alpha if distilled else 0.0)
        copies = data.features(rows["train"], reader, teacher.wordpiece if distilled else None, arm)

        # 4. Student.
        embeddings = data.initial_embeddings(arm, reader, teacher.wordpiece, teacher.weights)
        student = bilstm.create(data.student_config(arm, task, reader), seed, embeddings, arm.lazy_embeddings)
        if task.regression:
            start_regression(student.classifier, copies.labels)

        # 5. Losses.
        label_loss = label_mse if task.regression else hard_cross_entropy
        labelled_share = float(copies.labelled.mean())

        def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            logits, named = student.logits(batch), {}
            if arm.alpha > 0:
                named["teacher"] = arm.alpha * logit_mse(logits, batch["logits"])
            if arm.alpha < 1:
                # In proportion to the batch's labelled rows: several devices' batches add up to the joined one.
                share = batch["labelled"].mean() / labelled_share
                named["label"] = (1 - arm.alpha) * share * label_loss(logits, batch["labels"])
            return named

        def dev_scores() -> Scores:
            return evaluate_splits(lambda texts: bilstm.predict(student, texts, args.eval_batch_size), dev, task)

        # 6. Fit, with the teacher's logits from its cache.
        this_run = Run(folder, settings(arm) | content, args.overwrite, cosmetic(args))
        if this_run.finished:
            runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
            return folder
        plan = BucketBatches(copies.student.lengths, args.batch_size, seed, True, runtime.rank(), runtime.world_size())
        with this_run.timer("teacher"):
            asked = plan.rows_of(args.max_steps * args.gradient_accumulation_steps)
            taught = teacher.outputs(copies.teacher, rows=asked) if distilled else None

        def load(chosen: np.ndarray) -> dict[str, Any]:
            batch = copies.student.batch(chosen)
            batch |= {"labels": copies.labels[chosen], "labelled": copies.labelled[chosen]}
            with this_run.timer("teacher"):
                return batch | (taught.batch(chosen) if taught else {})

        save = lambda best: bilstm.save_student(best, student, reader)  # noqa: E731
        fit(student, losses, Batches(plan, load), arm, this_run, dev_scores, task.metric, save)

        # 7. Evaluate the best. 8. Save.
        if runtime.is_main():
            student, its_reader = bilstm.load_student(this_run.best_dir)
            texts, weights = rows[task.dev_splits[0]], this_run.best_dir / "model.safetensors"
            answer = data.answer(student, its_reader, texts, args.eval_batch_size)
            report(folder, dev_scores, answer, len(texts), task, student, weights, args.eval_batch_size, seed)
        facts = {"teacher_hit_rate": round(taught.hit_rate, 4)} if taught else {}
        facts["real_token_share"] = round(plan.real_share(0), 4)
        this_run.finish(task=task.name, pair=task.pair, train_rows=len(copies), **facts)
        return folder

    folder = Path(args.output_dir or naming.student_dir("distilled_lstm", task.name, run_name(args)))
    return run_arms(train, folder, args, task)


def run_name(args: DistillArgs) -> str:
    """The published spelling."""
    rates = {"epochs": args.num_train_epochs, "learning_rate": args.learning_rate, "weight_decay": args.weight_decay}
    return naming.run_id("bert-distilled_lstm", **rates, alpha=args.alpha)


if __name__ == "__main__":
    run(main)
