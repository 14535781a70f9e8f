"""Distil a BERT that reads two texts together into a dual encoder, which reads each alone: a document only once.

    python sbert_distill.py --config mrpc_cpu --data_dir ../data/glue_data --teacher_path my_teacher --control
    python sbert_distill.py --task_name qqp --data_dir datasets/qqp --init_checkpoint_teacher my_teacher \
        --init_checkpoint_student bert-base-uncased --model_type late_fusion --use_resnet_predict true \
        --max_seq_length_bert 259 --max_seq_length_sbert 130 --use_kd_att true --kd_weight_att 700

Source: VIRT, Li et al. 2022 (arXiv 2112.04195): L = CE(student, label) + kd_weight_att * attention + kd_weight_logit *
(squared error | KL divergence) of the logits; attention: between the texts, which the student never pays.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from virt.args import SbertDistillArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(SbertDistillArgs, argv, __doc__)
    if not args.teacher_path:
        raise UserError("--teacher_path is needed: a folder that run_classifier_bipartition.py made")
    runtime.start(args.device, args.amp)
    import numpy as np
    import paddle
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.readers import digests
    from distill.data.wordpiece import WordPiece
    from distill.encoders.folder import load_bert
    from distill.files import sha256
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.teachers.teacher import PairTeacher
    from distill.training.control import run_arms
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from models.dual_encoder import (
        DualEncoder,
        DualEncoderConfig,
        create_dual_encoder,
        load_dual_encoder,
        save_dual_encoder,
    )
    from virt import data
    from virt.losses import distillation_losses, taught_layers

    # 2. Task and data.
    shape: dict[str, Any] = {
        "pooling": args.pooling_strategy, "resnet_predict": args.use_resnet_predict, "plain_mean": args.plain_mean,
        "squared_max": args.squared_max, "poly_first_m": args.poly_first_m, "colbert_dim": args.colbert_dim,
    }  # fmt: skip
    DualEncoderConfig(args.model_type, 1, **shape)  # refuses what does not go together before anything is read
    task, rows = data.load_pairs(args)
    if task.regression and args.use_kd_logit_kl:
        raise UserError(f"--use_kd_logit_kl: {task.name} is a score and has no classes; use --use_kd_logit_mse")
    if task.regression and args.model_type == "col":
        raise UserError(
            f"--model_type col: its sums of cosines have a range of their own, and {task.name} has another; choose "
            "another type"
        )

    # 3. Teacher.
    found = data.find_start("--init_checkpoint_teacher", args.teacher_path, args)
    teacher = PairTeacher(found.weights, task, args, args.fixed)
    layout, wordpiece = teacher.layout, teacher.wordpiece
    lengths = (layout.first, layout.second)
    if args.lengths not in (None, lengths):
        raise UserError(
            f"{found.folder}: the teacher reads texts of {lengths[0]} and {lengths[1]} tokens, the flags say "
            f"{args.lengths[0]} and {args.lengths[1]}; leave them out, or train a teacher with them"
        )
    start = found
    if args.init_checkpoint_student:
        start = data.find_start("--init_checkpoint_student", args.init_checkpoint_student, args)
    else:
        runtime.log("the student starts with the teacher's encoder; --init_checkpoint_student names another")
    data.check_positions(start, max(lengths), lengths)
    if WordPiece.from_folder(start.folder).digest() != wordpiece.digest():
        raise UserError(f"{start.folder}: its wordpieces are not those of the teacher; pass a BERT with the same ones")
    for name in ("num_hidden_layers", "num_attention_heads"):
        if args.use_kd_att and start.config[name] != found.config[name]:
            raise UserError(
                f"{start.folder}: {name} is {start.config[name]}, the teacher's {found.config[name]}: attention is "
                "compared layer by layer and head by head; pass such a BERT, or --use_kd_att false"
            )
    teacher.check(rows[task.dev_splits[0]])
    texts, labels = teacher.encode(rows["train"]), rows["train"].labels
    data.report_cut_texts(texts)
    dev = data.PairDev(rows, layout, wordpiece, task, args.eval_batch_size)
    content = digests(rows) | {"teacher": teacher.digest, "start": sha256(start.weights)}
    first_answer = float(labels.mean()) if task.regression else 0.0
    content |= {"first_answer": first_answer} if task.regression else {}

    def create(seed: int) -> DualEncoder:
        bert = load_bert(start.weights)
        return create_dual_encoder(args.model_type, bert, task.num_outputs, **shape, start=first_answer, seed=seed)

    def train(folder: Path, seed: int, distilled: bool) -> Path:
        """One student; without `distilled` the labels are all it learns from."""
        arm = dataclasses.replace(args, seed=seed)

        # 4. Student.
        student = create(seed)
        inner = ",".join(map(str, taught_layers(student)))
        wanted = [f"{side}:{inner}" for side in ("first_to_second", "second_to_first") if args.use_kd_att]
        wanted += ["logits"] if args.use_kd_logit_mse or args.use_kd_logit_kl else []

        # 5. Losses.
        label_loss = label_mse if task.regression else hard_cross_entropy

        def losses(batch: dict[str, Any]) -> dict[str, Tensor]:
            logits, named = distillation_losses(student, batch, arm, layout) if distilled else (student(batch), {})
            return {"label": label_loss(logits, batch["labels"])} | named

        # 6. Fit, with the teacher's outputs from its cache.
        this_run = Run(folder, settings(arm) | content | {"distilled": distilled}, args.overwrite, cosmetic(args))
        if this_run.finished:
            runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
            return folder
        plan = BucketBatches(texts.lengths, args.batch_size, seed, True, runtime.rank(), runtime.world_size())
        with this_run.timer("teacher"):
            asked = plan.rows_of(args.max_steps * args.gradient_accumulation_steps)
            taught = teacher.outputs(texts, wanted, asked) if distilled else None

        def load(chosen: np.ndarray) -> dict[str, Any]:
            batch = texts.pad(chosen, wordpiece.pad_id) | {"labels": labels[chosen]}
            with this_run.timer("teacher"):
                for name, values in (taught.batch(chosen) if taught else {}).items():
                    by_layer = name != "logits"
                    batch[name] = [paddle.to_tensor(x) for x in values.swapaxes(0, 1)] if by_layer else values
            return batch

        save = lambda best: save_dual_encoder(best, student, wordpiece, task.labels, lengths)  # noqa: E731
        scores = lambda: dev.scores(student, student)  # noqa: E731
        fit(student, losses, Batches(plan, load), arm, this_run, scores, task.metric, save)

        # 7. Evaluate the best. 8. Save.
        if runtime.is_main():
            best = load_dual_encoder(this_run.best_dir)
            dev.report(folder, best, best, this_run.best_dir / "model.safetensors", seed)
        this_run.finish(task=task.name, pair=task.pair, train_rows=len(texts))
        return folder

    return run_arms(train, Path(args.output_dir or naming.student_dir("virt", task.name, run_name(args))), args, task)


def run_name(args: SbertDistillArgs) -> str:
    """`late_fusion_att-700_mse-0.4_epoch-6_...`: the type, what is learned, and the rates."""
    name = args.model_type + (f"_att-{naming.short(args.kd_weight_att)}" if args.use_kd_att else "")
    for flag, soft in (("use_kd_logit_mse", "mse"), ("use_kd_logit_kl", "kl")):
        name += f"_{soft}-{naming.short(args.kd_weight_logit)}" if getattr(args, flag) else ""
    rates = {"epochs": int(args.num_train_epochs), "learning_rate": args.learning_rate}
    return naming.run_id(name, **rates, weight_decay=args.weight_decay)


if __name__ == "__main__":
    run(main)
