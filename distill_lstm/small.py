"""Train the BiLSTM student on the labels alone: what distillation is compared with.

    python small.py --task_name sst-2 --data_dir data/glue_data --max_epoch 10 --lr 1.0 --dropout_prob 0.4 --use_pretrained_emb true
    python small.py --task_name senta --data_dir data --max_epoch 20 --optimizer adam --lr 3e-4 --dropout_prob 0.2

Source: Tang et al. 2019 (arXiv 1903.12136), the BiLSTM without a teacher.
"""

from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill_lstm.args import StudentArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    args = parse(StudentArgs, argv, __doc__)                                                       # 1. flags
    runtime.start(args.device, args.amp)
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.tasks import load_rows, load_task
    from distill.data.wordpiece import WordPiece
    from distill.encoders.folder import find_model
    from distill.evaluation.evaluate import evaluate_splits, report
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from distill_lstm import data
    from models import bilstm

    task = load_task(args)                                                                         # 2. task and data
    rows = {split: load_rows(args, task, split) for split in ("train", *task.dev_splits)}
    words, from_bert = data.reads_words(args, task), args.use_pretrained_emb and not args.embedding_name
    found = find_model(args.model_name) if from_bert or not words else None
    wordpiece = WordPiece.from_folder(found.folder) if found else None
    reader = data.make_reader(args, task, rows["train"], None if words else wordpiece)
    dev = {split: (reader.texts(rows[split].text_a, rows[split].text_b), rows[split].labels) for split in task.dev_splits}
    train = data.features(rows["train"], reader, None, args)
    embeddings = data.initial_embeddings(args, reader, wordpiece, args.model_name)
    folder = Path(args.output_dir or naming.student_dir("bilstm_alone", task.name, data.run_name(args, "bilstm")))
    this_run = Run(folder, settings(args), args.overwrite, cosmetic(args))
    if this_run.finished:
        runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
        return folder

    student = bilstm.create(data.student_config(args, task, reader), args.seed, embeddings, args.lazy_embeddings)   # 3. no teacher; 4. student

    def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:                                     # 5. losses
        return {"label": (label_mse if task.regression else hard_cross_entropy)(student.logits(batch), batch["labels"])}

    def dev_scores() -> dict[str, float]:
        return evaluate_splits(lambda texts: bilstm.predict(student, texts, args.eval_batch_size), dev, task)

    plan = BucketBatches(train.student.lengths, args.batch_size, args.seed, rank=runtime.rank(), world_size=runtime.world_size())   # 6. fit
    batches = Batches(plan, lambda chosen: train.student.batch(chosen) | {"labels": train.labels[chosen]})
    fit(student, losses, batches, args, this_run, dev_scores, task.metric, lambda best: bilstm.save_student(best, student, reader))

    student, reader = bilstm.load_student(this_run.best_dir)                                       # 7. evaluate
    if runtime.is_main():
        report(folder / "results_eval.json", dev_scores, data.answer(student, reader, rows[task.dev_splits[0]], args.eval_batch_size),
               task, student, this_run.best_dir / "model.safetensors", len(rows[task.dev_splits[0]]), args.eval_batch_size, args.seed)  # fmt: skip
    this_run.finish(task=task.name, train_rows=len(train), real_token_share=round(plan.real_share(0), 4))    # 8. save
    return folder


if __name__ == "__main__":
    run(main)
