"""Distillation of layers on SST-2 rows: this project and TextBrewer 0.2.1, in samples a second.

    python benchmarks/tinybert_step.py --data_dir data/glue_data --torch_python .venv-torch/bin/python

The peer lives in an environment of its own:
python -m venv .venv-torch && .venv-torch/bin/pip install torch==2.13.0 transformers==5.23.0 textbrewer==0.2.1
MiniLM (6 layers, width 384) into 4 layers of width 312, batch 32, at most 64 tokens, on both sides from the same rows:
hidden states of 5 layers through linear projections and attention of 4, squared error. Here the rows are bucketed, the
teacher's outputs cached and the scores those before softmax; the first epoch is counted with the filling of the cache.
TextBrewer runs its teacher in each step, pads to the batch, compares the attention after softmax, which is what
transformers gives, and adds the logits' cross entropy; its rate is that after the first 10 steps.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

BATCH, LENGTH, EPOCHS, WARMUP, PEER_STEPS = 32, 64, 3, 10, 60
LAYERS, WIDTH, FEED_FORWARD, HEADS, TEACHER_WIDTH = 4, 312, 1200, 12, 384
MAP = (2, 3, 5, 6)


def rows_of(data_dir: str, count: int) -> list[str]:
    """The header and `count` random rows."""
    import numpy as np

    header, *lines = (Path(data_dir) / "SST-2" / "train.tsv").read_text(encoding="utf-8").splitlines()
    return [header, *(lines[i] for i in np.random.default_rng(0).permutation(len(lines))[:count])]


def here(data_dir: str, count: int) -> dict:
    from distill import runtime

    runtime.start("cpu")
    from distill.data.wordpiece import WordPiece
    from distill.encoders.folder import load_bert, save_bert
    from distill.files import read_json
    from distill.pretrained import MINILM, minilm_folder
    from tinybert import task_distill

    with tempfile.TemporaryDirectory() as home:
        data = Path(home) / "data" / "SST-2"
        data.mkdir(parents=True)
        lines = rows_of(data_dir, count)
        for name, kept in (("train", lines), ("dev", lines[:65])):
            (data / f"{name}.tsv").write_text("\n".join(kept) + "\n", encoding="utf-8")
        save_bert(load_bert(MINILM, 2), Path(home) / "teacher", WordPiece.from_folder(minilm_folder()))
        sizes = ("--student_layers", LAYERS, "--student_hidden_size", WIDTH, "--student_heads", HEADS)
        sizes += ("--student_intermediate_size", FEED_FORWARD, "--layer_map", ",".join(map(str, MAP)))
        flags = ("--data_dir", data.parent, "--teacher_path", f"{home}/teacher", "--cache_dir", f"{home}/cache")
        flags += ("--output_dir", f"{home}/run", "--batch_size", BATCH, "--max_seq_length", LENGTH, "--save_steps", 0)
        stage = ("--intermediate_distill", "--num_train_epochs", EPOCHS, "--skip_teacher_check")
        run = task_distill.main([str(value) for value in (*flags, *sizes, *stage)])
        facts = read_json(run / "run.json")
    epochs = list(facts["epochs"].values())
    filling = facts["seconds"]["teacher"] - sum(epoch["teacher_seconds"] for epoch in epochs)
    later = epochs[1:]
    return {
        "first_epoch": epochs[0]["rows"] / (epochs[0]["seconds"] + filling),
        "later_epochs": sum(epoch["rows"] for epoch in later) / sum(epoch["seconds"] for epoch in later),
        "filling_seconds": filling,
    }


def textbrewer(data_dir: str, count: int, model: str) -> dict:
    import torch
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(model)
    texts = [line.split("\t")[0] for line in rows_of(data_dir, count)[1:]]
    ids = [tokenizer(text, max_length=LENGTH, truncation=True)["input_ids"] for text in texts]
    asked = {"output_hidden_states": True, "output_attentions": True, "attn_implementation": "eager"}
    teacher = BertForSequenceClassification.from_pretrained(model, **asked).eval()
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": FEED_FORWARD}
    student = BertForSequenceClassification(BertConfig(num_attention_heads=HEADS, **sizes, **asked))

    def collate(rows: list[list[int]]) -> dict:
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        }

    class Timed(torch.utils.data.DataLoader):
        def __iter__(self):
            for batch in super().__iter__():
                starts.append(time.perf_counter())
                yield batch

    def adaptor(batch: dict, outputs) -> dict:
        return {
            "logits": outputs.logits,
            "hidden": outputs.hidden_states,
            "attention": outputs.attentions,
            "inputs_mask": batch["attention_mask"],
        }

    hidden = [
        {"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
        | {"proj": ["linear", WIDTH, TEACHER_WIDTH]}
        for s, t in enumerate((0, *MAP))
    ]
    attention = [
        {"layer_T": t - 1, "layer_S": s, "feature": "attention", "loss": "attention_mse", "weight": 1}
        for s, t in enumerate(MAP)
    ]
    starts: list[float] = []
    generator = torch.Generator().manual_seed(0)
    batches = Timed(ids[: PEER_STEPS * BATCH], BATCH, shuffle=True, collate_fn=collate, generator=generator)
    with tempfile.TemporaryDirectory() as home:
        distiller = GeneralDistiller(
            TrainingConfig(device="cpu", output_dir=home, ckpt_frequency=1),
            DistillationConfig(temperature=1, intermediate_matches=hidden + attention),
            teacher,
            student,
            adaptor,
            adaptor,
        )
        optimizer = torch.optim.AdamW(student.parameters(), 5e-5)
        with distiller:
            distiller.train(optimizer, batches, num_epochs=1, max_grad_norm=1.0)
    return {
        "samples": BATCH * (len(starts) - 1 - WARMUP) / (starts[-1] - starts[WARMUP]),
        "threads": torch.get_num_threads(),
        "version": torch.__version__,
    }


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/glue_data", help="folder that holds SST-2/train.tsv")
    parser.add_argument("--torch_python", help="python of the peer's environment; without it that side is left out")
    parser.add_argument("--rows", type=int, default=6400, help="rows of an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from benchmarks.common import in_turn, median, save
    from distill.pretrained import minilm_folder

    common = (args.data_dir, str(args.rows))
    sides = {"here": ("here", *common)}
    if args.torch_python:
        sides["textbrewer"] = ("textbrewer", *common, str(minilm_folder()))
    measured = in_turn(args.rounds, sides, Path(__file__), {"textbrewer": args.torch_python})
    epochs = {"first epoch": "first_epoch", "later epochs": "later_epochs"}
    rates = {epoch: round(median(measured["here"], key), 1) for epoch, key in epochs.items()}
    values = {"what": "samples a second (median of rounds)", "samples_per_second": rates}
    if args.torch_python:
        peer = median(measured["textbrewer"], "samples")
        values["times_faster"] = {f"than TextBrewer, {epoch}": round(rate / peer, 2) for epoch, rate in rates.items()}
        rates["TextBrewer 0.2.1"] = round(peer, 1)
    save("tinybert_step", values | {"rows": args.rows, "rounds": measured})


if __name__ == "__main__":
    sides = {"here": here, "textbrewer": textbrewer}
    if sys.argv[1:2] and sys.argv[1] in sides:
        side, data_dir, count, *more = sys.argv[1:]
        print(json.dumps(sides[side](data_dir, int(count), *more)))
    else:
        main()
