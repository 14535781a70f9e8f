"""Wordpiece ids of SST-2's training rows: this project and PaddleNLP's BertTokenizer, and how much of a batch is
padding.

python benchmarks/wordpiece.py --data_dir data/glue_data --vocab data/vocab/bert-base-uncased-vocab.txt
"""

import argparse
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

PADDLENLP_ROWS = 10_000  # for its tokenizer, which is slow; both sides' ids of these are compared


def measure(which: str, data_dir: str, vocab: str) -> dict:
    from distill.data.tasks import get_task, load_rows

    options = SimpleNamespace(data_dir=data_dir, train_file=None, dev_file=None, test_file=None)
    texts = load_rows(options, get_task("SST-2"), "train").text_a
    if which == "here":
        from distill.data.batching import BucketBatches
        from distill.data.wordpiece import WordPiece

        tokenizer = WordPiece(vocab, lowercase=True)
        start = time.perf_counter()
        encoded = tokenizer.encode(texts, None, 128)
        seconds = time.perf_counter() - start
        shares = {str(b): round(BucketBatches(encoded.lengths, b).real_share(0), 4) for b in (32, 64, 128)}
        return {
            "rows": len(texts),
            "seconds": seconds,
            "real_token_share_by_batch_size": shares,
            "check": encoded.ids[: encoded.offsets[PADDLENLP_ROWS]].tolist(),
        }
    from paddlenlp.transformers import BertTokenizer

    tokenizer = BertTokenizer(vocab, do_lower_case=True)
    texts = texts[:PADDLENLP_ROWS]
    start = time.perf_counter()
    ids = tokenizer(texts, max_seq_length=128, truncation=True)["input_ids"]
    seconds = time.perf_counter() - start
    return {"rows": len(texts), "seconds": seconds, "check": [i for row in ids for i in row]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from benchmarks.common import in_turn, median, save

    sides = {name: (name, args.data_dir, args.vocab) for name in ("here", "paddlenlp")}
    measured = in_turn(args.rounds, sides, Path(__file__))
    if measured["here"][0].pop("check") != measured["paddlenlp"][0].pop("check"):
        sys.exit("the two sides give different ids")
    for row in (*measured["here"], *measured["paddlenlp"]):
        row.pop("check", None)
        row["sentences_per_second"] = round(row["rows"] / row["seconds"])
    rate = {name: round(median(rows, "sentences_per_second")) for name, rows in measured.items()}
    times_faster = {"than PaddleNLP's BertTokenizer": round(rate["here"] / rate["paddlenlp"], 1)}
    save(
        "wordpiece",
        {
            "what": "sentences tokenised a second (median of rounds)",
            "sentences_per_second": rate,
            "times_faster": times_faster,
            "rounds": measured,
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("here", "paddlenlp"):
        print(json.dumps(measure(*sys.argv[1:4])))
    else:
        main()
