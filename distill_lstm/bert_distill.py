"""Distil a fine-tuned BERT into the BiLSTM student by its logits on the training rows and on augmented copies of them.

    python bert_distill.py --task_name sst-2 --data_dir data/glue_data --teacher_path models/teacher_model/SST-2/best --max_epoch 6 \
        --lr 1.0 --dropout_prob 0.2 --batch_size 128 --use_pretrained_emb true

Source: Tang et al. 2019 (arXiv 1903.12136), equation 3: L = alpha * MSE(student, teacher logits) + (1 - alpha) * CE(student, label).
"""

from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from distill_lstm.args import DistillArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    args = parse(DistillArgs, argv, __doc__)                                                       # 1. flags
    if not args.teacher_path:
        raise UserError("--teacher_path is needed: the folder of a fine-tuned BERT (glue/run_glue.py makes one)")
    runtime.start(args.device, args.amp)
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.readers import read_unlabelled
    from distill.data.tasks import load_rows, load_task
    from distill.evaluation.evaluate import evaluate_splits, report
    from distill.losses.soft_targets import hard_cross_entropy, label_mse, logit_mse
    from distill.teachers.teacher import Teacher
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from distill_lstm import data
    from models import bilstm

    task = load_task(args)                                                                         # 2. task and data
    rows = {split: load_rows(args, task, split) for split in ("train", *task.dev_splits)}
    if args.unlabelled_file:
        rows["train"] = rows["train"].concat(read_unlabelled(args.unlabelled_file, task.pair))

    teacher = Teacher(args.teacher_path, task, args.max_seq_length, args)                          # 3. teacher
    data.check_model_name(args, teacher.wordpiece)
    teacher.check(rows[task.dev_splits[0]])
    reader = data.make_reader(args, task, rows["train"], None if data.reads_words(args, task) else teacher.wordpiece)
    dev = {split: (reader.texts(rows[split].text_a, rows[split].text_b), rows[split].labels) for split in task.dev_splits}
    train = data.features(rows["train"], reader, teacher.wordpiece, args)
    embeddings = data.initial_embeddings(args, reader, teacher.wordpiece, teacher.folder)
    folder = Path(args.output_dir or naming.student_dir("distilled_lstm", task.name, data.run_name(args, "bert-distilled_lstm", args.alpha)))
    this_run = Run(folder, settings(args) | {"teacher": teacher.digest}, args.overwrite, cosmetic(args))
    if this_run.finished:
        runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
        return folder
    with this_run.timer("teacher"):
        taught = teacher.outputs(train.teacher)

    student = bilstm.create(data.student_config(args, task, reader), args.seed, embeddings, args.lazy_embeddings)   # 4. student

    labelled_share = float(train.labelled.mean())

    def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:                                     # 5. losses
        logits, named = student.logits(batch), {}
        if args.alpha > 0:
            named["teacher"] = args.alpha * logit_mse(logits, batch["logits"])
        if args.alpha < 1:
            # By its batch's labelled rows, as a mean over all rows would be: then the batches of several devices add up to one.
            share = batch["labelled"].mean() / labelled_share
            named["label"] = (1 - args.alpha) * share * (label_mse if task.regression else hard_cross_entropy)(logits, batch["labels"])
        return named

    def load(chosen):
        batch = train.student.batch(chosen) | {"labels": train.labels[chosen], "labelled": train.labelled[chosen]}
        with this_run.timer("teacher"):
            return batch | taught.batch(chosen)

    def dev_scores() -> dict[str, float]:
        return evaluate_splits(lambda texts: bilstm.predict(student, texts, args.eval_batch_size), dev, task)

    plan = BucketBatches(train.student.lengths, args.batch_size, args.seed, rank=runtime.rank(), world_size=runtime.world_size())   # 6. fit
    fit(student, losses, Batches(plan, load), args, this_run, dev_scores, task.metric, lambda best: bilstm.save_student(best, student, reader))

    student, reader = bilstm.load_student(this_run.best_dir)                                       # 7. evaluate
    if runtime.is_main():
        report(folder / "results_eval.json", dev_scores, data.answer(student, reader, rows[task.dev_splits[0]], args.eval_batch_size),
               task, student, this_run.best_dir / "model.safetensors", len(rows[task.dev_splits[0]]), args.eval_batch_size, args.seed)  # fmt: skip
    this_run.finish(task=task.name, train_rows=len(train), real_token_share=round(plan.real_share(0), 4),    # 8. save
                    teacher_hit_rate=round(taught.hit_rate, 4))  # fmt: skip
    return folder


if __name__ == "__main__":
    run(main)
