"""Train the BiLSTM student on the labels alone: what distillation is compared with.

    python small.py --task_name sst-2 --data_dir ../data/glue_data --max_epoch 10 --lr 1.0 --dropout_prob 0.4
    python small.py --task_name senta --data_dir ../data --max_epoch 20 --optimizer adam --lr 3e-4 --dropout_prob 0.2

Source: Tang et al. 2019 (arXiv 1903.12136), the BiLSTM without a teacher.
"""

from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill_lstm.args import StudentArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(StudentArgs, argv, __doc__)
    runtime.start(args.device, args.amp)
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.readers import digests
    from distill.data.tasks import load_rows, load_task
    from distill.data.wordpiece import WordPiece
    from distill.encoders.folder import find_model
    from distill.encoders.initialise import start_regression
    from distill.evaluation.evaluate import evaluate_splits, report
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from distill_lstm import data
    from models import bilstm

    # 2. Task and data.
    task = load_task(args)
    rows = {split: load_rows(args, task, split) for split in ("train", *task.dev_splits)}
    words, from_bert = data.reads_words(args, task), args.use_pretrained_emb and not args.embedding_name
    found = find_model(args.model_name) if from_bert or not words else None
    wordpiece = WordPiece.from_folder(found.folder) if found else None
    reader = data.make_reader(args, task, rows["train"], None if words else wordpiece)
    train, dev = data.features(rows["train"], reader, None, args), data.dev_texts(rows, reader, task)

    # 3. There is no teacher. 4. The student.
    embeddings = data.initial_embeddings(args, reader, wordpiece, args.model_name)
    student = bilstm.create(data.student_config(args, task, reader), args.seed, embeddings, args.lazy_embeddings)
    if task.regression:
        start_regression(student.classifier, train.labels)

    # 5. Losses.
    label_loss = label_mse if task.regression else hard_cross_entropy

    def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"label": label_loss(student.logits(batch), batch["labels"])}

    def dev_scores() -> dict[str, float]:
        return evaluate_splits(lambda texts: bilstm.predict(student, texts, args.eval_batch_size), dev, task)

    # 6. Fit.
    folder = Path(args.output_dir or naming.student_dir("bilstm_alone", task.name, run_name(args)))
    this_run = Run(folder, settings(args) | digests(rows), args.overwrite, cosmetic(args))
    if this_run.finished:
        runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
        return folder
    plan = BucketBatches(train.student.lengths, args.batch_size, args.seed, True, runtime.rank(), runtime.world_size())
    batches = Batches(plan, lambda chosen: train.student.batch(chosen) | {"labels": train.labels[chosen]})
    save = lambda best: bilstm.save_student(best, student, reader)  # noqa: E731
    fit(student, losses, batches, args, this_run, dev_scores, task.metric, save)

    # 7. Evaluate the best. 8. Save.
    if runtime.is_main():
        student, reader = bilstm.load_student(this_run.best_dir)
        texts, weights = rows[task.dev_splits[0]], this_run.best_dir / "model.safetensors"
        answer = data.answer(student, reader, texts, args.eval_batch_size)
        report(folder, dev_scores, answer, len(texts), task, student, weights, args.eval_batch_size, args.seed)
    share = round(plan.real_share(0), 4)
    this_run.finish(task=task.name, pair=task.pair, train_rows=len(train), real_token_share=share)
    return folder


def run_name(args: StudentArgs) -> str:
    """As the distilled ones are called."""
    rates = {"epochs": args.num_train_epochs, "learning_rate": args.learning_rate, "weight_decay": args.weight_decay}
    return naming.run_id("bilstm", **rates)


if __name__ == "__main__":
    run(main)
