"""Augment the training rows of a task: a masked LM and word vectors propose words, each copy takes some of them.

    python data_augmentation.py --pretrained_bert_model bert-base-uncased --glove_embs glove/glove.6B.300d.txt \
        --glue_dir ../data/glue_data --task_name SST-2
    python data_augmentation.py --pretrained_bert_model bert-base-chinese --task_name ChnSentiCorp --data_dir ../data

Source: Jiao et al. 2020, TinyBERT (arXiv 1909.10351), algorithm 1. The rows and their copies are written as
train_aug.tsv beside the training rows, where --use_aug of the distillation recipes reads them.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # in the script's own folder `data_augmentation` is this file, not its package
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

from data_augmentation.args import COPIES, AugmentArgs
from distill import runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError

ROWS = 1024  # rows whose copies are made and written together
SAMPLE = 32  # sentences on which an approximation is compared with per_word in fp32
# What these flags name is compared by its content.
PLACES = {"data_dir", "train_file", "dev_file", "test_file", "pretrained_bert_model", "glove_embs", "teacher_path"}


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the file of augmented rows."""
    # 1. Flags, before anything heavy is imported.
    args = parse(AugmentArgs, argv, __doc__)
    runtime.start(args.device)
    import numpy as np

    from data_augmentation import candidates, data, work
    from distill.data.augmented import augmented_file, augmented_header, augmented_lines
    from distill.data.readers import Rows
    from distill.data.tasks import load_rows, load_task
    from distill.data.vectors import mapped_vectors
    from distill.data.wordpiece import WordPiece
    from distill.encoders.folder import find_model
    from distill.encoders.masked_lm import load_masked_lm
    from distill.files import sha256
    from distill.teachers.teacher import Teacher

    # 2. Task and data.
    task = load_task(args)
    rows = load_rows(args, task, "train")
    columns = [column for column in (rows.text_a, rows.text_b) if column is not None]
    texts = [text for column in columns for text in column]
    args.N = args.N or COPIES.get(task.name, 30)

    # 3. The teacher, where its confidence decides which copies are kept.
    teacher = None
    if args.keep_confidence:
        if task.regression:
            raise UserError(f"--keep_confidence: {task.name} has scores, not classes; leave the flag out")
        teacher = Teacher(args.teacher_path, task, args.max_seq_length, args)
        teacher.check(load_rows(args, task, task.dev_splits[0]))

    # 4. Who proposes words: a masked LM for words of one piece, word vectors for the others.
    found = find_model(args.pretrained_bert_model)
    reader = data.Reader(WordPiece.from_folder(found.folder), task.language)
    lm = load_masked_lm(found.weights, reader.wordpiece.pad_id, args.forward_precision)
    if lm:
        found.check_pairs()  # it reads a masked sentence beside the sentence itself
    if args.forward_precision == "bf16" and lm is None and teacher is None:
        raise UserError(
            f"--forward_precision bf16: {args.pretrained_bert_model} has no masked-LM head, so no passes are made; "
            "leave the flag out"
        )
    file = candidates.vector_file(args.glove_embs)
    blanks = candidates.blanks(reader, any_length=file is None) if lm else None
    runtime.log(candidates.described(args.pretrained_bert_model, blanks, file, args.mlm_mode))
    if file:
        runtime.from_main(lambda: mapped_vectors(file, args.cache_dir))  # a file that cannot be read begins no run

    # 5. The run, or where it was interrupted.
    path = augmented_file(task, args)
    content = {"rows": rows.digest(), "encoder": sha256(found.weights), "vocabulary": reader.wordpiece.digest()}
    content |= {"vectors": file and sha256(file), "teacher": teacher and teacher.digest}
    unread = cosmetic(args) | PLACES
    if lm and args.forward_precision == "bf16":
        unread -= {"batch_size"}  # with it, words that fit about as well may change places
        content["masked_lm"] = "bf16"
    this_run = work.begin(path, settings(args) | content, args.overwrite, unread)
    if this_run.finished:
        runtime.log(f"{path} holds these rows already; --overwrite makes them again")
        return path

    # 6. Candidates for every word that may be replaced.
    plan = candidates.make_plan(texts, reader, blanks, args.mlm_mode, lm.max_length if lm else 0)
    answers = work.Answers(this_run.checkpoints, plan)
    facts = {"task": task.name, "train_rows": len(rows), "words_asked": plan.asked}

    def neighbours() -> dict[str, list[str]]:
        with this_run.timer("vectors"):
            if file:
                vectors = candidates.vectors_of_file(file, args.cache_dir)
            else:
                vectors = candidates.vectors_of_table(found.weights, reader)
        with this_run.timer("neighbours"):
            return candidates.neighbours(plan.words, *vectors, args.M)

    near = answers.neighbours(neighbours)
    if lm and blanks and plan.blocks:
        ask = partial(candidates.read_blanks, lm=lm, blanks=blanks, reader=reader, m=args.M, size=args.batch_size)
        sizes = [len(block) for block in plan.blocks]
        lm.expected_tokens = plan.tokens // runtime.world_size()
        with this_run.timer("masked_lm"):
            for block in work.share(answers.todo(), sizes, "masked LM", "sentences"):
                answers.write(block, ask([texts[i] for i in plan.blocks[block]], args.mlm_mode))
                runtime.return_freed_memory()
        if (args.mlm_mode, args.forward_precision) != ("per_word", "fp32"):
            some = [texts[i] for i in plan.sample(SAMPLE)]
            exact = partial(ask, some, "per_word", lm=lm.in_fp32())
            share = runtime.from_main(lambda: candidates.overlap(ask(some, args.mlm_mode), exact()))
            way = f"{args.mlm_mode} in {args.forward_precision}"
            runtime.log(f"{way}: {share:.1%} of its words are those of per_word in fp32 ({len(some)} sentences)")
            facts["overlap"] = round(share, 4)

    # 7. Copies: in each of N tries every word is replaced with probability p.
    def with_copies(chunk: range) -> tuple[Rows, np.ndarray]:
        copied = []
        for side, column in enumerate(columns):
            sentences = reader(column[chunk.start : chunk.stop])
            numbers = answers.read(np.array(chunk) + side * len(rows))
            proposed = [candidates.proposals(s, blanks, n, near) for s, n in zip(sentences, numbers, strict=True)]
            each = zip(chunk, sentences, proposed, strict=True)
            copied.append([data.copies(s, words, args.N, args.p, args.seed, row, side) for row, s, words in each])
        return data.with_copies(rows.take(chunk), copied)

    parts = work.Parts(this_run.checkpoints, len(rows), ROWS)
    sizes = [len(chunk) for chunk in parts.ranges]
    for part in work.share(parts.todo(), sizes, "copies", "rows", all_ranks=teacher is not None):
        with this_run.timer("copies"):
            made, own = with_copies(parts.ranges[part])
        kept = np.arange(len(made))
        if teacher:
            with this_run.timer("teacher"):
                kept = np.flatnonzero(data.stays_confident(data.logits(teacher, made), own, args.keep_confidence))
        if runtime.is_main() or not teacher:
            parts.write(part, augmented_lines(made.take(kept), task), len(made) - sizes[part], len(kept) - sizes[part])

    # 8. Save.
    if runtime.is_main():
        facts |= parts.join(augmented_header(task, args), path)
        share = facts["kept"] / max(facts["made"], 1)
        filtered = f" ({share:.1%} of {facts['made']:,})" if teacher else ""
        runtime.log(f"written: {path}: {len(rows):,} rows and {facts['kept']:,} copies{filtered}")
    this_run.finish(**facts)
    return path


if __name__ == "__main__":
    run(main)
