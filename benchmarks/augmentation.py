"""Augmenting SST-2 rows with a BERT-base-sized masked LM: this project in both modes, in float32 and, where the
processor has it, in bfloat16; the published loop, one forward pass a word, on torch; and whether memory grows with the
rows.

    python benchmarks/augmentation.py --data_dir data/glue_data --vocab data/vocab/bert-base-uncased-vocab.txt \
        --torch_python .venv-torch/bin/python

torch lives in an environment of its own: python -m venv .venv-torch && .venv-torch/bin/pip install torch==2.13.0 \
    transformers==5.23.0
The loop reads --rows rows and has no cost but by the row; this project, which first makes a graph, reads 10 times as
many in per_word mode and 40 times as many in single_pass mode, which takes each side about as long.
Weights are random, so the proposed words mean nothing, but the work is that of real ones. Timed is what follows the
loading of the model: neighbours, masked LM and copies. The loop is written from the description of the published
script: for each word the sentence is tokenised again and read alone, with a gradient, and logits are computed for all
its places and sorted; words of several pieces are compared with the whole wordpiece table one by one.
"""

import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path

COPIES, WORDS, P = 20, 15, 0.4
TIMES_ROWS = {"per_word": 10, "single_pass": 40}


def make(folder: str, data_dir: str, vocab: str, rows: str, memory_rows: str) -> dict:
    """A BERT with random weights, and for each size a data folder with rows from all over the training file."""
    import shutil

    import numpy as np
    import paddle
    from paddlenlp.transformers import BertConfig, BertForMaskedLM

    from data_augmentation.data import STOP_WORDS
    from distill.data.tasks import get_task, load_rows
    from distill.options import TaskOptions

    paddle.seed(0)
    BertForMaskedLM(BertConfig()).save_pretrained(f"{folder}/model", safe_serialization=True)
    shutil.copyfile(vocab, f"{folder}/model/vocab.txt")
    train = load_rows(TaskOptions(data_dir=data_dir), get_task("SST-2"), "train")
    for count in {int(rows), *(n * int(rows) for n in TIMES_ROWS.values()), int(memory_rows), 10 * int(memory_rows)}:
        chosen = train.take(np.linspace(0, len(train) - 1, count).astype(int))
        place = Path(folder, str(count), "SST-2")
        place.mkdir(parents=True, exist_ok=True)
        lines = [f"{text}\t{label}\n" for text, label in zip(chosen.text_a, chosen.labels, strict=True)]
        (place / "train.tsv").write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")
        if count == int(rows):
            Path(folder, "loop.json").write_text(json.dumps([chosen.text_a, sorted(STOP_WORDS)]))
    return {}


def here(folder: str, mode: str, rows: str, precision: str = "fp32") -> dict:
    """This project's script, and what it wrote down."""
    from data_augmentation import data_augmentation

    flags = ["--pretrained_bert_model", f"{folder}/model", "--data_dir", f"{folder}/{rows}", "--mlm_mode", mode]
    flags += ["--forward_precision", precision]
    path = data_augmentation.main([*flags, "--N", str(COPIES), "--M", str(WORDS), "--p", str(P), "--overwrite", "true"])
    facts = json.loads((path.parent / "train_aug" / "run.json").read_text())
    seconds = sum(facts["seconds"][part] for part in ("neighbours", "masked_lm", "copies"))
    kept = {name: facts[name] for name in ("words_asked", "kept", "overlap", "peak_memory_bytes") if name in facts}
    return {"seconds": seconds, "rows_per_second": int(rows) / seconds, **kept}


def loop(folder: str) -> dict:
    """The published loop, on torch."""
    import numpy as np
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig()).eval()
    tokenizer = BertTokenizer(f"{folder}/model/vocab.txt")
    table = model.bert.embeddings.word_embeddings.weight.detach().numpy()
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    texts, stop_words = json.loads(Path(folder, "loop.json").read_text())
    words_asked = made = 0

    def candidates(words: list[str], i: int) -> list[str]:
        nonlocal words_asked
        pieces = [tokenizer.tokenize(word) for word in words]
        plain = [piece for of_word in pieces for piece in of_word]
        place = sum(len(of_word) for of_word in pieces[:i])
        if len(pieces[i]) > 1:
            vector = table[tokenizer.convert_tokens_to_ids(pieces[i])].mean(axis=0)
            return tokenizer.convert_ids_to_tokens(np.argsort(-(table @ vector))[:WORDS].tolist())
        words_asked += 1
        masked = [*plain[:place], "[MASK]", *plain[place + 1 :]]
        ids = tokenizer.convert_tokens_to_ids(["[CLS]", *masked, "[SEP]", *plain, "[SEP]"])
        types = [0] * (len(plain) + 2) + [1] * (len(plain) + 1)
        logits = model(torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits
        best = torch.argsort(logits[0, place + 1], descending=True)[:WORDS].tolist()
        return [token for token in tokenizer.convert_ids_to_tokens(best) if not token.startswith("##")]

    start = time.perf_counter()
    for text in texts:
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        places = [i for i, word in enumerate(words) if re.fullmatch("[a-z]+", word) and word not in stop_words]
        found = {i: candidates(words, i) or [words[i]] for i in places}
        copies = {text}
        for _ in range(COPIES):
            copies.add(
                " ".join(
                    random.choice(found[i]) if i in found and random.random() < P else w for i, w in enumerate(words)
                )
            )
        made += len(copies) - 1
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds, "rows_per_second": len(texts) / seconds, "words_asked": words_asked, "kept": made,
        "version": torch.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--torch_python", help="python of an environment with torch; without it that side is left out")
    parser.add_argument("--rows", type=int, default=100, help="rows of the loop")
    parser.add_argument(
        "--memory_rows", type=int, default=1000, help="memory is compared with that of ten times as many"
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from benchmarks.common import in_turn, median, save, side
    from distill import runtime

    script = Path(__file__)
    with tempfile.TemporaryDirectory() as folder:
        side(sys.executable, script, "make", folder, args.data_dir, args.vocab, str(args.rows), str(args.memory_rows))
        sides = {mode: ("here", folder, mode, str(times * args.rows)) for mode, times in TIMES_ROWS.items()}
        if runtime.has_bfloat16():
            sides |= {f"{mode} in bf16": (*arguments, "bf16") for mode, arguments in sides.items()}
        modes = list(sides)
        if args.torch_python:
            sides["loop on torch"] = ("loop", folder)
        measured = in_turn(args.rounds, sides, script, {"loop on torch": args.torch_python})
        memory = {
            rows: side(sys.executable, script, "here", folder, "single_pass", str(rows))["peak_memory_bytes"]
            for rows in (args.memory_rows, 10 * args.memory_rows)
        }
    rate = {name: round(median(rows, "rows_per_second"), 3) for name, rows in measured.items()}
    values = {"what": "rows augmented a second (median of rounds)", "rows_per_second": rate}
    if args.torch_python:
        times = {f"{mode} than the loop": round(rate[mode] / rate["loop on torch"], 1) for mode in modes}
        values["times_faster"] = times
    growth = memory[10 * args.memory_rows] / memory[args.memory_rows]
    values |= {"peak_memory_bytes": memory, "memory_with_ten_times_the_rows": round(growth, 3), "rounds": measured}
    save("augmentation", values)


if __name__ == "__main__":
    sides = {"make": make, "here": here, "loop": loop}
    if sys.argv[1:2] and sys.argv[1] in sides:
        print(json.dumps(sides[sys.argv[1]](*sys.argv[2:])))
    else:
        main()
