"""Rank the documents of a store for queries: `query, rank, document, score` by TABs, the best first.

    python score.py "who wrote it" --model_path my_student --store my_store --top_k 5
    python score.py --queries queries.tsv --query_column question --candidates found.tsv --model_path my_student \
        --store my_store --output ranked.tsv

The score is the probability of --label, or what a regression model predicts.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from virt.product_args import ScoreArgs


def main(argv: Sequence[str] | None = None) -> None:
    # 1. Flags, before anything heavy is imported.
    args = parse(ScoreArgs, argv, __doc__)
    args.require()
    if bool(args.texts) == bool(args.queries):
        raise UserError("give queries, or a file of them by --queries, and not both")
    if args.output and Path(args.output).is_dir():
        raise UserError(f"--output {args.output}: is a folder; name a file")
    for flag, path in (("--queries", args.queries), ("--candidates", args.candidates)):
        if args.output and path and Path(args.output).resolve() == Path(path).resolve():
            raise UserError(f"--output {args.output}: is {flag}; name another file")
    runtime.require_one_process()
    runtime.start(args.device)
    from scipy.special import softmax

    from distill.data.documents import read_documents
    from distill.data.wordpiece import WordPiece, report_cut
    from distill.files import text_output
    from models.document_store import DocumentStore, Ranker
    from models.dual_encoder import load_dual_encoder, model_digest

    # 2. Queries, model, store and candidates.
    if args.queries:
        named = list(read_documents(args.queries, args.query_column, args.query_id_column))
    else:
        named = [(str(number), text) for number, text in enumerate(args.texts, 1)]
    names, texts = [name for name, _ in named], [text for _, text in named]
    if not all(text.strip() for text in texts):
        raise UserError("a query is empty; give its text or leave it out")
    if len(set(names)) < len(names):
        repeated = next(name for number, name in enumerate(names) if name in names[:number])
        raise UserError(f"{args.queries}: '{repeated}' is the name of several queries in '{args.query_id_column}'")
    model, wordpiece = load_dual_encoder(args.model_path), WordPiece.from_folder(args.model_path)
    store = DocumentStore(args.store)
    ranker = Ranker(model, wordpiece, store, model_digest(args.model_path), args.model_path)
    label = chosen_label(args, model.labels)
    longest = model.lengths[0]
    with contextlib.redirect_stdout(sys.stderr):  # apart from the ranking
        report_cut("queries", wordpiece.encode(texts, None, longest).cut, f"the model's {longest} tokens")
    candidates = read_candidates(args.candidates, names, store.names) if args.candidates else None

    # 3. Rank.
    with text_output(args.output, sys.stdout) as out:
        out.write("query\trank\tdocument\tscore\n")
        for name, found in zip(names, ranker.rank(texts, args.top_k, candidates, label), strict=True):
            regression = found.logits.shape[1] == 1
            scores = found.logits[:, 0] if regression else softmax(found.logits.astype("float64"), axis=1)[:, label]
            for rank, (document, score) in enumerate(zip(found.documents, scores, strict=True), 1):
                out.write(f"{name}\t{rank}\t{store.names[document]}\t{score:.6f}\n")


def chosen_label(args: ScoreArgs, labels: Sequence[str]) -> int:
    """The index of --label; without it that of `entailment`, RTE's first and MNLI's second class, else of the last."""
    if args.label is None:
        return labels.index("entailment") if "entailment" in labels else -1
    if args.label not in labels:
        known = f"one of {', '.join(labels)}" if labels else "left out: the model predicts a number"
        raise UserError(f"--label {args.label}: must be {known}")
    return labels.index(args.label)


def read_candidates(path: str, queries: Sequence[str], documents: Sequence[str]) -> list[list[int]]:
    """For each query the numbers of its candidates, from a file of `document` lines, which are for all, or of `query
    TAB document` lines. Raises UserError naming file and row for a name that is not known."""
    from distill.data.readers import column_names, one_line, read_columns

    header = ("query", "document")[-len(column_names(path)) :]
    columns, rows = read_columns(path, header, header)
    number = {name: i for i, name in enumerate(documents)}
    found: dict[str, list[int]] = {name: [] for name in queries}
    for row, document, query in zip(rows, columns[-1], columns[0], strict=True):
        if document not in number:
            raise UserError(f"{path}:{row}: no document '{one_line(document)}' in the store")
        if len(header) == 1:
            for of_query in found.values():
                of_query.append(number[document])
        elif query in found:
            found[query].append(number[document])
        else:
            raise UserError(f"{path}:{row}: no query '{one_line(query)}'")
    return [found[name] for name in queries]


if __name__ == "__main__":
    run(main)
