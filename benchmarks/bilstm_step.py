"""One training step of the BiLSTM student: this project, paddle as installed, and torch's nn.LSTM of the same shape.

    python benchmarks/bilstm_step.py --torch_python .venv-torch/bin/python

torch lives in an environment of its own: python -m venv .venv-torch && .venv-torch/bin/pip install torch==2.13.0 numpy
Vocabulary 30522, embeddings 300, 300 units in each direction, batch 64 x 16 tokens, dropout 0.3, MSE on two logits,
dense Adam.
"""

import json
import sys
import time
from pathlib import Path

VOCAB, EMBEDDING, HIDDEN, BATCH, LENGTH, DROPOUT, STEPS, WARMUP = 30522, 300, 300, 64, 16, 0.3, 40, 5


def timed(step) -> dict:
    for _ in range(WARMUP):
        step()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    return {"ms": sorted(times)[len(times) // 2]}


def inputs():
    import numpy as np

    rng = np.random.RandomState(0)
    return rng.randint(1, VOCAB, (BATCH, LENGTH)), np.full(BATCH, LENGTH), rng.randn(BATCH, 2).astype("float32")


def with_paddle(tuned: bool, lazy: bool = False) -> dict:
    from distill import runtime

    if tuned:
        runtime.before_paddle()
    import paddle

    from distill.encoders import cpu
    from models.bilstm import BiLSTM, BiLSTMConfig

    paddle.set_device("cpu")
    config = BiLSTMConfig(VOCAB, ("0", "1"), embedding_size=EMBEDDING, hidden_size=HIDDEN, dropout=DROPOUT)
    model = BiLSTM(config, sparse_embeddings=lazy)
    model.train()
    if tuned:
        cpu.arrange(model)
    optimizer = paddle.optimizer.Adam(1e-3, parameters=model.parameters(), lazy_mode=lazy)
    ids, lengths, target = (paddle.to_tensor(value) for value in inputs())

    def step() -> None:
        loss = ((model(ids, lengths) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)

    return timed(step) | {"version": paddle.__version__}


def with_torch() -> dict:
    import torch
    from torch import nn

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCAB, EMBEDDING, padding_idx=0)
            self.lstm = nn.LSTM(EMBEDDING, HIDDEN, bidirectional=True, batch_first=True)
            self.fc, self.classifier, self.dropout = (
                nn.Linear(2 * HIDDEN, HIDDEN),
                nn.Linear(HIDDEN, 2),
                nn.Dropout(DROPOUT),
            )

        def forward(self, ids: "torch.Tensor", lengths: "torch.Tensor") -> "torch.Tensor":
            packed = nn.utils.rnn.pack_padded_sequence(self.dropout(self.embedding(ids)), lengths, batch_first=True)
            _, (states, _) = self.lstm(packed)
            features = torch.cat([states[-2], states[-1]], -1)
            return self.classifier(self.dropout(torch.tanh(self.fc(self.dropout(features)))))

    model = Student()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    ids, lengths, target = (torch.from_numpy(value) for value in inputs())

    def step() -> None:
        loss = ((model(ids, lengths) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss)

    return timed(step) | {"version": torch.__version__, "threads": torch.get_num_threads()}


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch_python", help="python of an environment with torch; without it that side is left out")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from benchmarks.common import in_turn, median, save

    sides = {"here": ("tuned",), "here, lazy embeddings": ("lazy",), "paddle as installed": ("installed",)}
    if args.torch_python:
        sides["torch"] = ("torch",)
    measured = in_turn(args.rounds, sides, Path(__file__), {"torch": args.torch_python})
    ms = {name: round(median(rows, "ms"), 2) for name, rows in measured.items()}
    times_faster = {f"than {name}": round(value / ms["here"], 2) for name, value in ms.items() if name != "here"}
    save(
        "bilstm_step",
        {"what": "training step, ms (median of rounds)", "ms": ms, "times_faster": times_faster, "rounds": measured},
    )


if __name__ == "__main__":
    sides = {
        "tuned": lambda: with_paddle(True),
        "lazy": lambda: with_paddle(True, lazy=True),
        "installed": lambda: with_paddle(False),
        "torch": with_torch,
    }
    if sys.argv[1:2] and sys.argv[1] in sides:
        print(json.dumps(sides[sys.argv[1]]()))
    else:
        main()
