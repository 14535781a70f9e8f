"""Distil a fine-tuned BERT into a smaller one by its logits and, patiently, by its inner layers.

    python task_distill.py --task_name SST-2 --data_dir ../data/glue_data --teacher_path my_teacher --student_layers 3
    python task_distill.py --config sst2 --data_dir ../data/glue_data --teacher_path my_teacher --control

Source: PKD, Sun et al. 2019 (arXiv 1908.09355): L = alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE(student,
label) + beta * patience, the squared distance of normalised [CLS] vectors (eq. 7).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import parse, run
from distill.errors import UserError
from pkd.args import PKDArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(PKDArgs, argv, __doc__)
    args.require_teacher()
    if not (args.alpha or args.beta):
        raise UserError("--alpha 0 --beta 0: nothing of the teacher is left; glue/run_glue.py learns from labels alone")
    runtime.start(args.device, args.amp)
    import paddle
    from paddle import Tensor, nn

    from distill.encoders.initialise import create_student, start_digest, student_depth
    from distill.encoders.projections import Projections
    from distill.encoders.taps import Taps
    from distill.evaluation.evaluate import bert_forward
    from distill.losses.hidden import hidden_mse
    from distill.losses.patience import patience_mse
    from distill.losses.soft_targets import logit_losses
    from distill.training.classification import Classification
    from distill.training.control import run_arms
    from models import KINDS

    depth = student_depth(args, KINDS)

    # 2. Task and data. 3. Teacher.
    work = Classification(args)
    task, teacher = work.task, work.teacher
    work.content["student"] = start_digest(args, KINDS)
    pairs = layer_pairs(args, depth, teacher.model.config.num_hidden_layers) if args.beta else []
    inner = ("cls:" if args.patience == "cls" else "hidden:") + ",".join(str(layer) for _, layer in pairs)
    wanted = [*(["logits"] if args.alpha else []), *([inner] if args.beta else [])]

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        """One student; without `distilled` the labels are all it learns from."""
        arm = dataclasses.replace(args, seed=seed, **({} if distilled else {"alpha": 0.0, "beta": 0.0}))

        # 4. Student, and for tokens what takes its width to the teacher's.
        student = create_student(arm, teacher.model, teacher.wordpiece, task, args.max_seq_length, seed, KINDS)
        ours, theirs = (model.config.hidden_size for model in (student, teacher.model))
        if args.beta and args.patience == "cls" and ours != theirs:
            raise UserError(
                f"--patience cls compares vectors of one width, these are {ours} and {theirs}: build the student from "
                "the teacher's layers, or use --patience tokens, which has a projection"
            )
        project = Projections("shared", depth, ours, theirs, seed=seed) if args.patience == "tokens" else None
        trained = nn.LayerList([student, *([project] if project else [])])

        # 5. Losses.
        parts = logit_losses(arm, task.regression)

        def patience(hidden: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Tensor:
            if project is None:
                first = paddle.stack([hidden[mine][:, 0] for mine, _ in pairs], axis=1)
                return patience_mse(first, batch["cls"], args.normalize_patience, args.loss_form)
            states = zip(project(hidden), paddle.unstack(batch["hidden"], axis=1), strict=True)
            return sum(hidden_mse(mine, theirs, batch["mask"]) for mine, theirs in states)

        def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            with Taps(student, hidden=arm.beta > 0) as taps:
                named = parts(bert_forward(student)(batch), batch)
            return named | ({"patience": arm.beta * patience(taps.hidden, batch)} if arm.beta else {})

        # 6. Fit, with the teacher's outputs from its cache. 7. Evaluate the best. 8. Save.
        return work.train(folder, arm, student, losses, wanted if distilled else [], trained)

    default = naming.student_dir("bert_pkd", task.name, run_name(args, depth))
    return run_arms(train, Path(args.output_dir or default), args, task)


def layer_pairs(args: PKDArgs, student: int, teacher: int) -> list[tuple[int, int]]:
    """(layer of the student, layer of the teacher) for each that takes part, in models of so many layers."""
    from distill.encoders.layer_map import explicit, last, skip, uniform

    cls = args.patience == "cls"
    if cls and student == 1:
        raise UserError(
            "--patience cls compares the layers below the last, and a student of 1 layer has none: choose at least 2 "
            "--student_layers, or --patience tokens"
        )
    mine = range(1, student) if cls else range(student + 1)
    maps = {"skip": skip, "last": last} if cls else {"uniform": uniform}
    chosen = args.layer_map or next(iter(maps))
    if chosen in maps:
        theirs = maps[chosen](student, teacher)
    elif chosen[0].isdigit():
        theirs = explicit(chosen, len(mine), teacher)
    else:
        raise UserError(
            f"--layer_map {chosen}: for --patience {args.patience} choose {' or '.join(maps)}, or list the layers"
        )
    return list(zip(mine, theirs, strict=True))


def run_name(args: PKDArgs, depth: int) -> str:
    """The published spelling."""
    rates = {"epochs": args.num_train_epochs, "learning_rate": args.learning_rate, "weight_decay": args.weight_decay}
    return naming.run_id(f"bert-pkd_{depth}", **rates, alpha=args.alpha, beta=args.beta)


if __name__ == "__main__":
    run(main)
