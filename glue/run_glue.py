"""Fine-tune a BERT on a GLUE task, BoolQ, ChnSentiCorp or your own rows: the teacher of every recipe.

    python run_glue.py --task_name SST-2 --data_dir ../data/glue_data --model_name_or_path bert-base-uncased
    python run_glue.py --train_file train.csv --dev_file dev.csv --text_column review --output_dir my_teacher
    python run_glue.py --task_name SST-2 --data_dir ../data/glue_data --model_name_or_path my_teacher \
        --do_train false --do_predict true
"""

from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from glue.args import GlueArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the folder of the fine-tuned model."""
    # 1. Flags, before anything heavy is imported.
    args = parse(GlueArgs, argv, __doc__)
    runtime.start(args.device, args.amp)
    import numpy as np
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.readers import Rows, digests
    from distill.data.tasks import label_complaint, load_rows, load_task, submission_name, write_submission
    from distill.data.wordpiece import Encoded, WordPiece, report_cut
    from distill.encoders.folder import find_model, load_bert, save_bert, save_pdparams_beside
    from distill.encoders.initialise import start_regression
    from distill.evaluation.evaluate import bert_forward, evaluate_splits, evaluating, predict, report
    from distill.files import sha256
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from models.predictor import read_run

    # 2. Task and data.
    task = load_task(args)
    found = find_model(args.model_name_or_path)
    trained_by = {} if args.do_train else read_run(found.folder)
    length: int = args.max_seq_length or trained_by.get("max_seq_length") or 128
    args.max_seq_length = length
    found.check_length(length)
    if task.pair:
        found.check_pairs()
    wordpiece = WordPiece.from_folder(found.folder)

    def encode(rows: Rows) -> Encoded:
        return wordpiece.encode(rows.text_a, rows.text_b, length)

    rows = {split: load_rows(args, task, split) for split in (*(("train",) if args.do_train else ()), *task.dev_splits)}
    test_rows = {split: load_rows(args, task, split) for split in task.test_splits if args.do_predict}
    dev = {split: (encode(rows[split]), rows[split].labels) for split in task.dev_splits}

    # 3. There is no teacher. 4. The model that is to be one.
    head = "auto" if args.do_train else "stored"
    model = load_bert(args.model_name_or_path, task.num_outputs, task.labels, args.seed, head)
    if task.regression and args.do_train:
        start_regression(model.classifier, rows["train"].labels)

    # 5. Losses.
    label_loss = label_mse if task.regression else hard_cross_entropy

    def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"label": label_loss(bert_forward(model)(batch), batch["labels"])}

    def logits_of(texts: Encoded) -> np.ndarray:
        return predict(bert_forward(model), texts, args.eval_batch_size, wordpiece.pad_id)

    def dev_scores() -> dict[str, float]:
        return evaluate_splits(logits_of, dev, task)

    def evaluate(folder: Path, weights: Path, seed: int | None) -> None:
        """Score the model, trained with the seed, and write the predictions that were asked for."""
        first = rows[task.dev_splits[0]]
        answer = lambda chosen: logits_of(encode(first.take(chosen)))  # noqa: E731
        report(folder, dev_scores, answer, len(first), task, model, weights, args.eval_batch_size, seed)
        write_predictions(folder)

    def write_predictions(folder: Path) -> None:
        for split, texts in test_rows.items():
            with evaluating(model):
                logits = logits_of(encode(texts))
            answers = logits[:, 0] if task.regression else logits.argmax(axis=1)
            runtime.log(f"written: {write_submission(task, split, answers, folder / submission_name(task, split))}")

    if not args.do_train:
        folder = Path(args.output_dir or found.folder)
        if (folder / "run.yaml").exists() and folder.resolve() != found.folder.resolve():
            raise UserError(f"--output_dir {folder}: holds a run, whose results would be lost; choose another one")
        if not task.regression and found.labels and (complaint := label_complaint(found.labels, task)):
            raise UserError(f"{found.folder}: {complaint}; train it on this task first")
        if runtime.is_main():
            evaluate(folder, found.weights, trained_by.get("seed"))
        return folder

    # 6. Fit.
    rates = {"epochs": args.num_train_epochs, "learning_rate": args.learning_rate, "weight_decay": args.weight_decay}
    folder = Path(args.output_dir or naming.teacher_dir(task.name, naming.run_id(task.name, **rates)))
    content = digests(rows) | {"start": sha256(found.weights)}
    this_run = Run(folder, settings(args) | content, args.overwrite, cosmetic(args))
    if this_run.finished:
        runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
        if test_rows and runtime.is_main():
            model = load_bert(folder, task.num_outputs, head="stored")
            write_predictions(folder)
        return folder
    train, labels = encode(rows["train"]), rows["train"].labels
    report_cut("training rows", train.cut, f"--max_seq_length {length}")
    plan = BucketBatches(train.lengths, args.batch_size, args.seed, True, runtime.rank(), runtime.world_size())
    batches = Batches(plan, lambda chosen: train.pad(chosen, wordpiece.pad_id) | {"labels": labels[chosen]})
    save = lambda best: save_bert(model, best, wordpiece, task.labels)  # noqa: E731
    fit(model, losses, batches, args, this_run, dev_scores, task.metric, save)

    # 7. Evaluate the best. 8. Save.
    if runtime.is_main():
        model = load_bert(this_run.best_dir, task.num_outputs, head="stored")
        evaluate(folder, this_run.best_dir / "model.safetensors", args.seed)
        save_pdparams_beside(this_run.best_dir)
    share = round(plan.real_share(0), 4)
    this_run.finish(task=task.name, pair=task.pair, train_rows=len(train), real_token_share=share)
    return folder


if __name__ == "__main__":
    run(main)
