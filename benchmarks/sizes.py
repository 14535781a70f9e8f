"""The architectures of the published table with random weights, for their sizes and times alone.

    python benchmarks/sizes.py

Rows of random ids, as long as the published setting padded them: 128 tokens, 32 for the BiLSTM (of 10,002 words).
All models are timed in one process, in turn. Writes results/benchmark_sizes.json and prints its table.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

LENGTH, LSTM_LENGTH, VOCABULARY, LSTM_VOCABULARY = 128, 32, 30522, 10002
# label: layers, hidden, feed-forward, heads
BERTS = {
    "BERT-base": (12, 768, 3072, 12),
    "KD, TinyBERT (published: 7.5× smaller, 5.0× and 6.2× faster)": (4, 312, 1200, 12),
    "BERT-PKD, BERT-of-Theseus (published: 2.4× and 2.05× smaller, 2.4× and 2.0× faster)": (3, 768, 3072, 12),
}
BILSTM = "BiLSTM (published: 7.2× smaller, 4.8× faster)"


def make_bert(layers: int, hidden: int, feed_forward: int, heads: int) -> Any:
    """A BertForSequenceClassification with random weights; `.bert` is it without the head."""
    from paddlenlp.transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        type_vocab_size=2,
        num_labels=2,
    )
    return BertForSequenceClassification(config)


def make_bilstm() -> Any:
    from models.bilstm import BiLSTM, BiLSTMConfig

    return BiLSTM(BiLSTMConfig(LSTM_VOCABULARY, ("0", "1"), max_length=LSTM_LENGTH, reads="words"))


def parameters(model: Any) -> int:
    """How many numbers `model` has without its last layer, the one that depends on the task."""
    return sum(int(p.size) for name, p in model.named_parameters() if not name.startswith("classifier."))


def calls(rows: int, batch_size: int) -> dict[str, tuple[dict[str, int], Callable[[Sequence[int]], object]]]:
    """{label: (the sizes, the call that answers the rows of these numbers)}."""
    import numpy as np

    from distill.data.ragged import Ragged
    from distill.data.wordpiece import Encoded
    from distill.evaluation.evaluate import bert_forward, predict
    from models import bilstm

    rng = np.random.default_rng(0)
    texts = Encoded.from_rows(list(rng.integers(1, VOCABULARY, (rows, LENGTH))))
    words = Ragged.from_lists(rng.integers(1, LSTM_VOCABULARY, (rows, LSTM_LENGTH)).tolist())
    found = {}
    for label, sizes in BERTS.items():
        bert = make_bert(*sizes)
        bert.eval()
        facts = dict(zip(("layers", "hidden", "feed_forward"), sizes, strict=False)) | {"parameters": parameters(bert)}
        found[label] = (facts, lambda chosen, model=bert: predict(bert_forward(model), texts.take(chosen), batch_size))
    lstm = make_bilstm()
    hidden = lstm.config.hidden_size
    facts = {"layers": 1, "hidden": hidden, "feed_forward": hidden, "parameters": parameters(lstm)}
    found[BILSTM] = (
        facts,
        lambda chosen: bilstm.predict(lstm, bilstm.Texts(words.take(np.asarray(chosen))), batch_size),
    )
    return found


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128, help="rows that are timed at once")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from distill import runtime

    runtime.start("cpu")
    from benchmarks.common import save
    from distill.evaluation.latency import measure
    from tools.compare import markdown

    models = calls(args.rows, args.batch_size)
    measured: dict[str, list[Any]] = {label: [] for label in models}
    for number in range(args.rounds):
        for label, (_, call) in models.items():
            print(f"round {number + 1} of {args.rounds}: {label}", file=sys.stderr)
            measured[label].append(measure(call, range(args.rows), calls=20, warm_up=2))
    rows = [
        {
            "label": label,
            **facts,
            "seconds": statistics.median(args.rows / m.samples_per_second for m in measured[label]),
            "latency_ms": statistics.median(m.milliseconds["p50"] for m in measured[label]),
            "scores": {},
        }
        for label, (facts, _) in models.items()
    ]
    timed = {"what": f"random ids, {LENGTH} tokens a row ({LSTM_LENGTH} for the BiLSTM)", "rounds": args.rounds}
    result = {"models": rows, "timed": timed | {"rows": args.rows, "batch_size": args.batch_size}}
    save("sizes", result)
    print(markdown(result | {"hardware": runtime.hardware()}))


if __name__ == "__main__":
    main()
