"""Fine-tune a BERT on pairs, `[CLS] a PAD .. [SEP] b PAD .. [SEP]`: the teacher of sbert_distill.py.

    python run_classifier_bipartition.py --config mrpc_cpu_teacher --data_dir ../data/glue_data --output_dir my_teacher
    python run_classifier_bipartition.py --task_name mnli --data_dir datasets/mnli --init_checkpoint bert-base-uncased \
        --max_seq_length 259 --train_batch_size 40 --learning_rate 5e-5 --num_train_epochs 6.0 --pooling_strategy mean

Each text stands where it stands alone in a dual encoder, so that scores between the two can be compared with its own.
"""

from collections.abc import Sequence
from pathlib import Path

from distill import naming, runtime
from distill.cli import cosmetic, parse, run, settings
from virt.args import BipartitionArgs


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the teacher's folder."""
    # 1. Flags, before anything heavy is imported.
    args = parse(BipartitionArgs, argv, __doc__)
    runtime.start(args.device, args.amp)
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.pairs import PairLayout
    from distill.data.readers import digests
    from distill.data.wordpiece import WordPiece
    from distill.encoders.folder import load_bert
    from distill.files import sha256
    from distill.losses.soft_targets import hard_cross_entropy, label_mse
    from distill.teachers.teacher import BertForPairs, load_pair_bert, save_pair_bert
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run
    from virt import data

    # 2. Task and data.
    task, rows = data.load_pairs(args)
    layout = PairLayout(*(args.lengths or (130, 130)))
    found = data.find_start("--init_checkpoint", args.init_checkpoint, args)
    data.check_positions(found, layout.joint, (layout.first, layout.second))
    found.check_pairs()
    wordpiece = WordPiece.from_folder(found.folder)
    texts, labels = layout.encode(wordpiece, rows["train"]), rows["train"].labels
    data.report_cut_texts(texts)
    dev = data.PairDev(rows, layout, wordpiece, task, args.eval_batch_size)

    # 3. There is no teacher. 4. The model that is to be one.
    model = BertForPairs(load_bert(found.weights), task.num_outputs, args.pooling_strategy, args.seed)

    # 5. Losses.
    label_loss = label_mse if task.regression else hard_cross_entropy

    def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"label": label_loss(data.joint_answer(model)(batch), batch["labels"])}

    # 6. Fit.
    rates = {"epochs": int(args.num_train_epochs), "learning_rate": args.learning_rate}
    name = naming.run_id(f"{task.name}_bipartition", **rates, weight_decay=args.weight_decay)
    folder = Path(args.output_dir or naming.teacher_dir(task.name, name))
    content = digests(rows) | {"start": sha256(found.weights)}
    this_run = Run(folder, settings(args) | content, args.overwrite, cosmetic(args))
    if this_run.finished:
        runtime.log(f"{folder} holds this run, finished; --overwrite trains it again")
        return folder
    plan = BucketBatches(texts.lengths, args.batch_size, args.seed, True, runtime.rank(), runtime.world_size())
    batches = Batches(plan, lambda chosen: texts.pad(chosen, wordpiece.pad_id) | {"labels": labels[chosen]})
    scores = lambda: dev.scores(model, data.joint_answer(model))  # noqa: E731
    save = lambda best: save_pair_bert(model, best, wordpiece, task.labels, layout)  # noqa: E731
    fit(model, losses, batches, args, this_run, scores, task.metric, save)

    # 7. Evaluate the best. 8. Save.
    if runtime.is_main():
        best, _ = load_pair_bert(this_run.best_dir, task.num_outputs)
        dev.report(folder, best, data.joint_answer(best), this_run.best_dir / "model.safetensors", args.seed)
    share = round(plan.real_share(0), 4)
    this_run.finish(task=task.name, pair=task.pair, train_rows=len(texts), real_token_share=share)
    return folder


if __name__ == "__main__":
    run(main)
