"""Distil a fine-tuned BERT into a smaller one: first its layers (embeddings, hidden states, attention scores), then its
predictions.

    python task_distill.py --config sst2_cpu_4l --data_dir ../data/glue_data --teacher_path my_teacher \
        --model_name_or_path my_general_student
    python task_distill.py --task_name SST-2 --data_dir ../data/glue_data --teacher_path my_teacher \
        --model_name_or_path tinybert-6l-768d-v2 --max_seq_length 64 --num_train_epochs 20
    python task_distill.py --task_name SST-2 --data_dir ../data/glue_data --teacher_path my_teacher \
        --student_init 2,4,6 --intermediate_distill

Source: Jiao et al. 2020 (arXiv 1909.10351), eq. 7 to 11.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill import naming, runtime
from distill.cli import parse, run
from distill.errors import UserError
from tinybert.args import TaskDistillArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(TaskDistillArgs, argv, __doc__)
    args.require_teacher()
    if args.control and args.stages == ("intermediate",):
        raise UserError("--control compares dev scores, which the first stage alone has not; leave one of the two out")
    runtime.start(args.device, args.amp)
    from paddle import Tensor, nn

    from distill.data.augmented import load_augmented
    from distill.encoders.folder import load_bert
    from distill.encoders.initialise import start_digest
    from distill.encoders.projections import Projections
    from distill.evaluation.evaluate import bert_forward
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.training.classification import Classification
    from distill.training.control import run_arms
    from distill.training.monitor import Run
    from models import KINDS
    from tinybert import data
    from tinybert.losses import layer_losses, prediction_loss

    # 2. Task and data. 3. Teacher.
    work = Classification(args, load_augmented if args.use_aug else None)
    task, teacher = work.task, work.teacher
    work.content["student"] = start_digest(args, KINDS)

    # 4. Student: that of the first seed before anything is written, since it may have to be refused.
    create = functools.partial(data.create, args, teacher.model, teacher.wordpiece, task)
    made = {args.seed: create(args.seed)}
    label_loss = label_mse if task.regression else hard_cross_entropy
    wanted: dict[str, tuple[str, ...]] = {"prediction": ("logits",)}
    if "intermediate" in args.stages:
        inner = ",".join(map(str, data.layer_map(args, made[args.seed][0], teacher.model)))
        wanted["intermediate"] = (f"hidden:{inner}", f"scores:{inner.removeprefix('0,')}")

    def train_stage(
        stage: str, this_run: Run, student: nn.Layer, projections: Projections | None, distilled: bool, seed: int
    ) -> None:
        """Train `student` and finish the run; without `distilled` the labels are all it learns from."""
        predicts = stage == "prediction"
        options = dataclasses.replace(args, seed=seed)
        names = ("num_train_epochs", "learning_rate")
        if predicts:
            options.num_train_epochs, options.learning_rate = args.prediction_epochs, args.prediction_learning_rate
            names = ("prediction_epochs", "prediction_learning_rate")
        # By their flags: which of them act on this stage is easily taken wrong.
        runtime.log(f"{stage} stage: --{names[0]} {options.num_train_epochs} --{names[1]} {options.learning_rate:g}")

        # 5. Losses.
        def losses(batch: dict[str, Any]) -> dict[str, Tensor]:
            if not distilled:
                return {"label": label_loss(bert_forward(student)(batch), batch["labels"])}
            if predicts:
                return {"prediction": prediction_loss(bert_forward(student)(batch), batch, args, task.regression)}
            return layer_losses(student, projections, batch, args.loss_form)

        # 6. Fit, with the teacher's outputs from its cache. 7. Evaluate the best. 8. Save.
        by_layer = distilled and not predicts
        inside = projections if by_layer else None
        trained = None if inside is None else nn.LayerList([student, inside])
        save = lambda best: data.save(best, student, inside, teacher.wordpiece, task.labels)  # noqa: E731
        # The head has learned nothing before the second stage: no dev score chooses among the models of the first.
        asked = wanted[stage] if distilled else ()
        prepare = data.by_layer if by_layer else None
        work.fit(this_run, options, student, losses, asked, trained, prepare, save, predicts)
        runtime.log(f"written: {this_run.output_dir}")

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        facts = {"seed": seed, "distilled": distilled}
        this_run = work.run(folder, args, **facts)
        if this_run.finished:
            runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
            return folder
        student, projections = made.pop(seed, None) or create(seed)
        *first, last = args.stages
        for stage in first:
            stage_run = work.run(folder / "stages" / stage, dataclasses.replace(args, overwrite=False), **facts)
            if not stage_run.finished:
                train_stage(stage, stage_run, student, projections, distilled, seed)
            runtime.from_main(lambda: None)  # the other ranks wait for what rank 0 has written
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
