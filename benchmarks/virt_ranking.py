"""One query against many documents: read together with each of them, or compared with what was stored of them.

    python benchmarks/virt_ranking.py --documents 1000

MiniLM (6 layers, width 384) on both sides, a query of 64 tokens, documents of 328, all of them that long. The
cross-encoder reads the pairs of 391 tokens in batches of 32, its input ids made beforehand; late fusion begins with the
query's text and the store on disk, made before and read once. Both have random heads, which take as long as trained
ones. Each side runs in a process of its own, in turn.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

QUERY, DOCUMENT, BATCH, CALLS = 64, 328, 32, 5


def texts(count: int) -> tuple[str, list[str]]:
    """A query and documents of random whole words, longer than what is read of them."""
    import numpy as np

    from distill.data.wordpiece import WordPiece
    from distill.pretrained import minilm_folder

    words = [token for token in WordPiece.from_folder(minilm_folder()).tokens if token.isalpha() and token.isascii()]
    rng = np.random.default_rng(0)
    query, *documents = (" ".join(rng.choice(words, DOCUMENT)) for _ in range(1 + count))
    return query, documents


def cross_encoder(count: int) -> dict:
    from distill import runtime

    runtime.start("cpu")
    import numpy as np

    from distill.data.pairs import PairLayout
    from distill.data.readers import Rows
    from distill.data.wordpiece import WordPiece
    from distill.encoders import inference
    from distill.encoders.folder import load_bert
    from distill.encoders.taps import Reading
    from distill.pretrained import MINILM, minilm_folder
    from distill.teachers.teacher import BertForPairs

    query, documents = texts(count)
    rows = Rows([query] * count, documents, None, "random words")
    pairs = PairLayout(QUERY, DOCUMENT).encode(WordPiece.from_folder(minilm_folder()), rows)
    inputs = inference.BERT_INPUTS | {"positions": (2, "int64")}
    layer = Reading(BertForPairs(load_bert(MINILM), 2), (), ())
    run = inference.compiled(layer, inputs) if inference.available() else inference.eager(layer, inputs)
    batches = [pairs.pad(np.arange(start, min(start + BATCH, count))) for start in range(0, count, BATCH)]
    run(batches[0])
    started = time.perf_counter()
    for batch in batches:
        run(batch)
    return {"ms": 1000 * (time.perf_counter() - started), "tokens": batches[0]["mask"].shape[1]}


def late_fusion(count: int) -> dict:
    from distill import runtime

    runtime.start("cpu")
    from distill.data.wordpiece import WordPiece
    from distill.encoders.folder import load_bert
    from distill.pretrained import MINILM, minilm_folder
    from models.document_store import DocumentStore, Ranker
    from models.dual_encoder import create_dual_encoder, load_dual_encoder, model_digest, save_dual_encoder
    from virt import encode

    query, documents = texts(count)
    with tempfile.TemporaryDirectory() as home:
        student, store = Path(home) / "student", Path(home) / "store"
        wordpiece = WordPiece.from_folder(minilm_folder())
        model = create_dual_encoder("late_fusion", load_bert(MINILM), 2, resnet_predict=True)
        save_dual_encoder(student, model, wordpiece, ("0", "1"), (QUERY, DOCUMENT))
        corpus = Path(home) / "corpus.txt"
        corpus.write_text("\n".join(documents) + "\n", encoding="utf-8")
        started = time.perf_counter()
        encode.main(["--model_path", str(student), "--corpus", str(corpus), "--store", str(store)])
        encoding = time.perf_counter() - started
        opened = DocumentStore(store)
        ranker = Ranker(load_dual_encoder(student), wordpiece, opened, model_digest(student), student)
        seconds = []
        for _ in range(1 + CALLS):
            started = time.perf_counter()
            list(ranker.rank([query], 10))
            seconds.append(time.perf_counter() - started)
        size = (store / "states.bin").stat().st_size
        return {
            "ms": 1000 * sorted(seconds[1:])[CALLS // 2],
            "first_ms": 1000 * seconds[0],
            "encoding_seconds": encoding,
            "store_bytes": size,
            "tokens": int(opened.lengths.max()),
        }


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from benchmarks.common import in_turn, median, save

    sides = {name: (name, str(args.documents)) for name in SIDES}
    measured = in_turn(args.rounds, sides, Path(__file__))
    times = {name: round(median(rows, "ms"), 1) for name, rows in measured.items()}
    faster = round(median(measured["cross_encoder"], "ms") / median(measured["late_fusion"], "ms"), 1)
    save(
        "virt_ranking",
        {
            "what": f"ms for a query of {QUERY} tokens against documents of {DOCUMENT} (median of rounds)",
            "ms": times,
            "times_faster": {"late fusion with stored documents than the cross-encoder": faster},
            "encoding_seconds": round(median(measured["late_fusion"], "encoding_seconds"), 1),
            "store_megabytes": round(median(measured["late_fusion"], "store_bytes") / 1e6, 1),
            "documents": args.documents,
            "rounds": measured,
        },
    )


SIDES = {"cross_encoder": cross_encoder, "late_fusion": late_fusion}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        print(json.dumps(SIDES[sys.argv[1]](int(sys.argv[2]))))
    else:
        main()
