"""Distil a fine-tuned BERT into a smaller one: first its layers (embeddings, hidden states, attention scores), then its
predictions.

    python task_distill.py --config sst2_cpu_4l --data_dir ../data/glue_data --teacher_path my_teacher
    python task_distill.py --task_name SST-2 --data_dir ../data/glue_data --teacher_path my_teacher \
        --model_name_or_path tinybert-6l-768d-v2 --max_seq_length 64 --num_train_epochs 20
    python task_distill.py --task_name SST-2 --data_dir ../data/glue_data --teacher_path my_teacher \
        --student_init 2,4,6 --intermediate_distill

Source: Jiao et al. 2020 (arXiv 1909.10351), eq. 7 to 11.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from tinybert.args import TaskDistillArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(TaskDistillArgs, argv, __doc__)
    if not args.teacher_path:
        raise UserError("--teacher_path is needed: the folder of a fine-tuned BERT (glue/run_glue.py makes one)")
    if args.control and args.stages == ("intermediate",):
        raise UserError("--control compares dev scores, which the first stage alone has not; leave one of the two out")
    runtime.start(args.device, args.amp)
    import numpy as np
    from paddle import Tensor, nn

    from distill.data.augmented import load_augmented
    from distill.data.batching import BucketBatches
    from distill.data.tasks import load_rows, load_task
    from distill.encoders.folder import load_bert
    from distill.encoders.projections import Projections
    from distill.evaluation.bert import BertDev
    from distill.evaluation.evaluate import bert_forward
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.teachers.teacher import Teacher
    from distill.training.control import run_arms
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run, from_main
    from tinybert import data
    from tinybert.losses import layer_losses, prediction_loss

    # 2. Task and data.
    task = load_task(args)
    rows = {split: load_rows(args, task, split) for split in ("train", *task.dev_splits)}
    if args.use_aug:
        rows["train"] = load_augmented(task, args)

    # 3. Teacher.
    teacher = Teacher(args.teacher_path, task, args.max_seq_length, args)
    teacher.check(rows[task.dev_splits[0]])
    texts, labels = teacher.encode(rows["train"]), rows["train"].labels
    dev = BertDev(rows, teacher.wordpiece, task, args)

    # 4. Student: made here only to be refused, if it must be, before anything is written.
    layers = data.layer_map(
        args, data.create(args, teacher.model, teacher.wordpiece, task, args.seed)[0], teacher.model
    )
    inner = ",".join(map(str, layers))
    label_loss = label_mse if task.regression else hard_cross_entropy
    wanted = {
        "intermediate": (f"hidden:{inner}", f"scores:{inner.removeprefix('0,')}"),
        "prediction": ("logits",),
    }

    def train_stage(
        stage: str, this_run: Run, student: nn.Layer, projections: Projections | None, distilled: bool, seed: int
    ) -> None:
        """Train `student` and finish the run; without `distilled` the labels are all it learns from."""
        predicts = stage == "prediction"
        options = dataclasses.replace(args, seed=seed)
        if predicts:
            options.num_train_epochs, options.learning_rate = args.prediction_epochs, args.prediction_learning_rate
        runtime.log(f"{stage} stage: epochs {options.num_train_epochs}, learning rate {options.learning_rate:g}")

        # 5. Losses.
        def losses(batch: dict[str, Any]) -> dict[str, Tensor]:
            if not distilled:
                return {"label": label_loss(bert_forward(student)(batch), batch["labels"])}
            if predicts:
                return {"prediction": prediction_loss(bert_forward(student)(batch), batch, args, task.regression)}
            return layer_losses(student, projections, batch, args.loss_form)

        # 6. Fit, with the teacher's outputs from its cache.
        with this_run.timer("teacher"):
            taught = teacher.outputs(texts, wanted[stage]) if distilled else None

        def load(chosen: np.ndarray) -> dict[str, Any]:
            batch = texts.pad(chosen, teacher.wordpiece.pad_id) | {"labels": labels[chosen]}
            batch["padded"] = not batch["mask"].all()
            with this_run.timer("teacher"):
                outputs = taught.batch(chosen) if taught else {}
                return batch | (outputs if predicts else data.by_layer(outputs))

        inside = projections if distilled and not predicts else None
        trained = nn.LayerList([student] if inside is None else [student, inside])
        save = lambda best: data.save(best, student, inside, teacher.wordpiece, task.labels)  # noqa: E731
        plan = BucketBatches(texts.lengths, args.batch_size, seed, True, runtime.rank(), runtime.world_size())
        # The head has learned nothing before the second stage: no dev score chooses among the models of the first.
        scores = (lambda: dev.scores(student)) if predicts else None
        fit(trained, losses, Batches(plan, load), options, this_run, scores, task.metric, save)

        # 7. Evaluate the best. 8. Save.
        if predicts and runtime.is_main():
            dev.report(this_run.output_dir, this_run.best_dir / "model.safetensors", seed)
        this_run.finish(task=task.name, train_rows=len(texts), real_token_share=round(plan.real_share(0), 4))

    content = {"teacher": teacher.digest, "rows": rows["train"].digest(), "student": data.digest(args)}

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        facts = settings(args) | content | {"seed": seed, "distilled": distilled}
        this_run = Run(folder, facts, args.overwrite, cosmetic(args))
        if this_run.finished:
            runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
            return folder
        student, projections = data.create(args, teacher.model, teacher.wordpiece, task, seed)
        *first, last = args.stages
        for stage in first:
            stage_run = Run(folder / "stages" / stage, facts, False, cosmetic(args))
            if not stage_run.finished:
                train_stage(stage, stage_run, student, projections, distilled, seed)
            from_main(lambda: None)  # the other ranks wait for what rank 0 has written
            student = load_bert(stage_run.output_dir, task.num_outputs, head="stored")
        train_stage(last, this_run, student, projections, distilled, seed)
        return folder

    return run_arms(
        train, Path(args.output_dir or naming.student_dir("tinybert", task.name, run_name(args))), args, task
    )


def run_name(args: TaskDistillArgs) -> str:
    """The run's name in its default folder, with the epochs and the rate of its first stage."""
    first = args.stages[0] == "intermediate"
    return naming.run_id(
        "tinybert" if len(args.stages) == 2 else f"tinybert-{args.stages[0]}",
        epochs=args.num_train_epochs if first else args.prediction_epochs,
        learning_rate=args.learning_rate if first else args.prediction_learning_rate,
        weight_decay=args.weight_decay,
    )


if __name__ == "__main__":
    run(main)
