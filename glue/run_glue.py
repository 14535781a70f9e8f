"""Fine-tune a BERT on a GLUE task, BoolQ, ChnSentiCorp or your own rows. Its best checkpoint is a teacher for every recipe.

    python run_glue.py --task_name SST-2 --data_dir data/glue_data --model_name_or_path bert-base-uncased --num_train_epochs 3
    python run_glue.py --train_file train.csv --dev_file dev.csv --text_column review --label_column stars --output_dir my_teacher
    python run_glue.py --task_name SST-2 --data_dir data/glue_data --model_name_or_path my_teacher --do_train false --do_predict true
"""

from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from glue.args import GlueArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the folder of the fine-tuned model."""
    args = parse(GlueArgs, argv, __doc__)                                                          # 1. flags
    runtime.start(args.device, args.amp)
    import numpy as np
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.readers import Rows
    from distill.data.tasks import load_rows, load_task, submission_name, write_submission
    from distill.data.wordpiece import Encoded, WordPiece
    from distill.encoders.folder import find_model, load_bert, save_bert, save_pdparams_beside
    from distill.evaluation.evaluate import bert_forward, evaluate_splits, evaluating, predict, report
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run

    task = load_task(args)                                                                         # 2. task and data
    found = find_model(args.model_name_or_path)
    found.check_length(args.max_seq_length)
    wordpiece = WordPiece.from_folder(found.folder)

    def encode(rows: Rows) -> Encoded:
        return wordpiece.encode(rows.text_a, rows.text_b, args.max_seq_length)

    folder, weights = Path(args.output_dir or found.folder), found.weights
    if not args.do_train and (folder / "run.yaml").exists() and folder.resolve() != found.folder.resolve():
        raise UserError(f"--output_dir {folder}: holds a run, whose results would be lost; choose another --output_dir")
    dev_rows = {split: load_rows(args, task, split) for split in task.dev_splits}
    test_rows = {split: load_rows(args, task, split) for split in task.test_splits if args.do_predict}
    dev = {split: (encode(rows), rows.labels) for split, rows in dev_rows.items()}
    model = load_bert(args.model_name_or_path, task.num_outputs, task.labels, args.seed,           # 3., 4. the model to be a teacher
                      head="auto" if args.do_train else "stored")  # fmt: skip

    def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:                                     # 5. losses
        logits = model(batch["input_ids"], batch["token_type_ids"], attention_mask=batch["mask"])
        return {"label": (label_mse if task.regression else hard_cross_entropy)(logits, batch["labels"])}

    def logits_of(texts: Encoded) -> np.ndarray:
        return predict(bert_forward(model), texts, args.eval_batch_size, wordpiece.pad_id)

    def dev_scores() -> dict[str, float]:
        return evaluate_splits(logits_of, dev, task)

    def write_predictions() -> None:
        for split, rows in test_rows.items():
            with evaluating(model):
                logits = logits_of(encode(rows))
            answers = logits[:, 0] if task.regression else logits.argmax(axis=1)
            runtime.log(f"written: {write_submission(task, split, answers, folder / submission_name(task, split))}")

    if args.do_train:                                                                              # 6. fit
        name = naming.run_id(task.name, epochs=args.num_train_epochs, learning_rate=args.learning_rate, weight_decay=args.weight_decay)
        folder = Path(args.output_dir or naming.teacher_dir(task.name, name))
        train = load_rows(args, task, "train")
        this_run = Run(folder, settings(args), args.overwrite, cosmetic(args))
        if this_run.finished:
            runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
            if test_rows and runtime.is_main():
                model = load_bert(folder, task.num_outputs, head="stored")
                write_predictions()
            return folder
        ids, labels = encode(train), train.labels
        plan = BucketBatches(ids.lengths, args.batch_size, args.seed, rank=runtime.rank(), world_size=runtime.world_size())
        batches = Batches(plan, lambda chosen: ids.pad(chosen, wordpiece.pad_id) | {"labels": labels[chosen]})
        fit(model, losses, batches, args, this_run, dev_scores, task.metric, lambda best: save_bert(model, best, wordpiece, task.labels))
        model, weights = load_bert(this_run.best_dir, task.num_outputs, head="stored"), this_run.best_dir / "model.safetensors"

    if runtime.is_main():                                                                          # 7. evaluate
        first = dev_rows[task.dev_splits[0]]
        report(folder / "results_eval.json", dev_scores, lambda chosen: logits_of(encode(first.take(chosen))),
               task, model, weights, len(first), args.eval_batch_size, args.seed)  # fmt: skip
        write_predictions()

    if args.do_train:                                                                              # 8. save
        if runtime.is_main():
            save_pdparams_beside(this_run.best_dir)
        this_run.finish(task=task.name, train_rows=len(ids), real_token_share=round(plan.real_share(0), 4))
    return folder


if __name__ == "__main__":
    run(main)
