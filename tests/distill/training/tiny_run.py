"""A tiny run as a process of its own, for the tests that kill it, stop it and start it on two ranks.

    python tiny_run.py OUTPUT_DIR [--rows 50] [--world_batch 8] [any field of TrainOptions ...]

Prints one JSON line, {"sha256": of the last weights, "best": of the best, "result": ...}, and leaves last.safetensors.
"""

import argparse
import dataclasses
import itertools
import json
import math
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from distill import cli, files, runtime
from distill.options import TrainOptions

VOCABULARY, CLASSES = 40, 3


def rows_of(count):
    import numpy as np

    rng = np.random.default_rng(3)
    ids = rng.integers(0, VOCABULARY, (count, 6))
    return ids, ids.sum(1) % CLASSES


def make(dropout=0.3):
    """A tiny classifier with an embedding, a layer norm, biases and a layer without gradient."""
    from paddle import nn

    class Tiny(nn.Layer):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(VOCABULARY, 8)
            self.norm = nn.LayerNorm(8)
            self.drop = nn.Dropout(dropout)
            self.head = nn.Linear(8, CLASSES)
            self.unused = nn.Linear(2, 2)

        def forward(self, ids):
            return self.head(self.drop(self.norm(self.table(ids).mean(1))))

    return Tiny()


class StridedPlan:
    """Shuffled batches of `batch` rows in all, dealt out to the ranks in turn."""

    def __init__(self, rows, batch, seed=0, rank=0, world=1):
        self.rows, self.batch, self.seed, self.rank, self.world = rows, batch, seed, rank, world

    def __len__(self):
        return math.ceil(self.rows / self.batch)

    def epoch(self, epoch):
        import numpy as np

        order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        return [order[at : at + self.batch][self.rank :: self.world] for at in range(0, self.rows, self.batch)]


def train(output_dir, options, *, rows=50, batch=8, dropout=0.3, pause=0.0, before=None, on_load=None):
    """Run `fit` on the tiny model; returns (model, result, run)."""
    import numpy as np
    import paddle
    import paddle.nn.functional as F

    from distill.tensors import save_tensors
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run

    run = Run(output_dir, dataclasses.asdict(options), options.overwrite, cli.cosmetic(options))
    ids, labels = rows_of(rows)
    runtime.seed_all(options.seed)
    model = make(dropout)

    def load(indices):
        time.sleep(pause)
        if on_load:
            on_load()
        noise = np.random.normal(0, 0.01, (len(indices), CLASSES)).astype(np.float32)  # noqa: NPY002  as in augmentation
        return {"ids": ids[indices], "labels": labels[indices], "noise": noise if dropout else noise * 0}

    def losses(batch):
        logits = model(batch["ids"]) + batch["noise"]
        hard = F.cross_entropy(logits, batch["labels"])
        return {"hard": hard, "size": 0.1 * (logits**2).mean()}

    def evaluate():
        logits = model(paddle.to_tensor(ids)).numpy()
        return {"accuracy": float((logits.argmax(1) == labels).mean()), "spread": float(logits.std())}

    def save(folder):
        save_tensors(folder / "model.safetensors", model.state_dict())

    if before:
        before(model)
    plan = StridedPlan(rows, batch, options.seed, runtime.rank(), runtime.world_size())
    result = fit(model, losses, Batches(plan, load), options, run, evaluate, "accuracy", save)
    return model, result, run


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--world_batch", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--other_layers_first", type=int, default=0)
    parser.add_argument("--signal", type=int, help="sent to itself when it loads the batch of step --signal_at")
    parser.add_argument("--signal_at", type=int)
    own, flags = parser.parse_known_args()
    options = cli.parse(TrainOptions, flags)
    runtime.start("cpu")
    import paddle

    from distill.tensors import save_tensors

    for _ in range(own.other_layers_first):  # moves paddle's global counters of names
        paddle.nn.Linear(2, 2)
        paddle.nn.Embedding(2, 2)
    loads = itertools.count()

    def on_load():
        if next(loads) == own.signal_at:
            signal.raise_signal(own.signal)

    model, result, run = train(
        own.output_dir,
        options,
        rows=own.rows,
        batch=own.world_batch,
        dropout=own.dropout,
        pause=own.pause,
        on_load=on_load,
    )
    if runtime.is_main():
        last = own.output_dir / "last.safetensors"
        save_tensors(last, model.state_dict())
        best = files.sha256(run.best_dir / "model.safetensors")
        print(json.dumps({"sha256": files.sha256(last), "best": best, "result": dataclasses.asdict(result)}))
    run.finish()


if __name__ == "__main__":
    cli.run(main)
