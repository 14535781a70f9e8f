"""A BERT's training step and its forward pass on a CPU: this project, paddle as installed, and transformers on torch.

    python benchmarks/bert_step.py --torch_python .venv-torch/bin/python

torch lives in an environment of its own: python -m venv .venv-torch && .venv-torch/bin/pip install torch==2.13.0
transformers numpy. A step is forward, backward, clipping to norm 1 and dense AdamW of a BertForSequenceClassification
with vocabulary 30522, dropout 0.1 and cross-entropy, all tokens real; paddle as installed is timed on the first size
only. The share of the peak is the step's matrix
products over its time, beside the best matrix product that paddle does here.
"""

import json
import sys
import time
from pathlib import Path

SIZES = {
    "6L/384, 32x64": (6, 384, 1536, 12, 32, 64),
    "4L/312, 32x64": (4, 312, 1200, 12, 32, 64),
    "4L/312, 32x16": (4, 312, 1200, 12, 32, 16),
    "12L/768, 8x64": (12, 768, 3072, 12, 8, 64),
}
STEPS, WARMUP, VOCAB = 7, 2, 30522


def median_ms(run, steps: int = STEPS) -> float:
    for _ in range(WARMUP):
        run()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[steps // 2]


def forward_flops(layers: int, hidden: int, inner: int, heads: int, rows: int, length: int) -> float:
    """Multiplications and additions of the encoder's matrix products in one forward pass; training does three times as
    many."""
    tokens = rows * length
    return 2.0 * layers * tokens * (4 * hidden**2 + 2 * hidden * inner + 2 * length * hidden)


def inputs(rows: int, length: int):
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.integers(1000, VOCAB, (rows, length)), np.ones((rows, length), np.float32), rng.integers(0, 2, rows)


def with_paddle(size: tuple[int, ...], way: str, profile: bool) -> dict:
    """One side: `here`, `tuned` (paddle's own arithmetic, our threads and allocator) or `installed`."""
    from distill import runtime

    if way != "installed":
        runtime.before_paddle()
    import paddle
    from paddlenlp.transformers import BertConfig, BertForSequenceClassification

    from distill.encoders import cpu, inference
    from distill.training.optimizer import ClipByGlobalNorm

    paddle.set_device("cpu")
    paddle.seed(0)
    layers, hidden, inner, heads, rows, length = size
    config = BertConfig(
        vocab_size=VOCAB,
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        num_attention_heads=heads,
    )
    model = BertForSequenceClassification(config)
    clip = ClipByGlobalNorm(1.0) if way == "here" else paddle.nn.ClipGradByGlobalNorm(1.0)
    optimizer = paddle.optimizer.AdamW(5e-5, parameters=model.parameters(), weight_decay=0.01, grad_clip=clip)
    ids, mask, labels = (paddle.to_tensor(value) for value in inputs(rows, length))
    model.train()
    if way == "here":
        cpu.arrange(model)

    def step() -> None:
        loss = paddle.nn.functional.cross_entropy(model(ids, attention_mask=mask), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)

    found: dict = {"version": paddle.__version__}
    if profile:
        found["operators"] = operators(step)
        return found
    if way == "here":
        x, weight = paddle.randn([2048, 384]), paddle.randn([384, 1536])
        best = min(median_ms(lambda: paddle.matmul(x, weight), 41) for _ in range(3))
        found["peak GFLOP/s"] = 2 * 2048 * 384 * 1536 / best / 1e6
    found["step"] = median_ms(step)
    cpu.restore(model)
    layer, batch = inference.Classifier(model), inference.sample(VOCAB, rows, length)
    if way == "here":
        compiled = inference.compiled(layer, inference.BERT_INPUTS)
        found["forward"] = median_ms(lambda: compiled(batch))
        eager = inference.eager(layer, inference.BERT_INPUTS)
        found["forward, eager"] = median_ms(lambda: eager(batch))
        if runtime.has_bfloat16():
            half = inference.compiled(layer, inference.BERT_INPUTS, "bf16")
            found["forward, bf16"] = median_ms(lambda: half(batch))
            found["bf16 differs by"] = float(abs(half(batch)[0] - compiled(batch)[0]).max())
    else:
        model.eval()
        with paddle.no_grad():
            found["forward"] = median_ms(lambda: model(ids, attention_mask=mask).numpy())
    return found


def parts() -> dict[str, dict[str, float]]:
    """Forward and backward of single layers at 6L/384, 32 x 64, in ms: paddle's own and arranged."""
    from distill import runtime

    runtime.before_paddle()
    import paddle
    from paddle import nn

    from distill.encoders import cpu

    paddle.set_device("cpu")
    hidden, mask = [32, 64, 384], paddle.zeros([32, 1, 1, 64])
    mask[0, 0, 0, 60:] = -1e4

    attention = nn.MultiHeadAttention(384, 12)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        setattr(attention, name, nn.Identity())
    layers = {
        "linear 384 to 1536": (nn.Linear(384, 1536), hidden, ()),
        "attention without its projections": (attention, hidden, (None, None, mask)),
        "dropout": (nn.Dropout(0.1), hidden, ()),
        "layer norm": (nn.LayerNorm(384), hidden, ()),
    }
    found = {}
    for name, (layer, shape, more) in layers.items():
        x = paddle.randn(shape)
        x.stop_gradient = False
        g = paddle.randn(layer(x, *more).shape)

        def run(layer=layer, x=x, more=more, g=g) -> None:
            layer(x, *more).backward(g)
            x.clear_gradient()

        found[name] = {}
        for way in ("before", "after"):
            if way == "after":
                cpu.arrange(layer)
            found[name][way] = round(median_ms(run, 15), 2)
    return found


def operators(step) -> dict[str, dict[str, float]]:
    """Milliseconds and calls of each operator in one step, forward and backward apart, the largest first."""
    import contextlib
    import io

    import paddle.profiler as profiler

    for _ in range(WARMUP):
        step()
    table = io.StringIO()
    with contextlib.redirect_stdout(table):
        recorder = profiler.Profiler(targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda _: None)
        recorder.start()
        for _ in range(3):
            step()
            recorder.step()
        recorder.stop()
        recorder.summary(op_detail=False, thread_sep=False, time_unit="ms", sorted_by=profiler.SortedKeys.CPUTotal)
    found = {}
    for line in table.getvalue().splitlines():
        parts = line.replace(" dygraph", "").split()
        if (" dygraph " in line or line.startswith("Global_")) and len(parts) > 2 and parts[1].isdigit():
            name = parts[0].removeprefix("Global_").replace("GradNodePyLayer_", "arranged backward of ")
            found[name] = {"ms": round(float(parts[2]) / 3, 1), "calls": int(parts[1]) // 3}
    return dict(list(found.items())[:20])


def with_torch(size: tuple[int, ...]) -> dict:
    import torch
    import transformers

    layers, hidden, inner, heads, rows, length = size
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        num_attention_heads=heads,
    )
    model = transformers.BertForSequenceClassification(config)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-5, weight_decay=0.01)
    ids, mask, labels = (torch.from_numpy(value) for value in inputs(rows, length))

    def step() -> None:
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    found = {"version": torch.__version__, "transformers": transformers.__version__, "step": median_ms(step)}
    model.eval()
    with torch.inference_mode():
        found["forward"] = median_ms(lambda: model(input_ids=ids, attention_mask=mask))
    return found | {"threads": torch.get_num_threads()}


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch_python", help="python of an environment with torch; without it that side is left out")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from benchmarks.common import in_turn, median, save, side

    this, found = Path(__file__), {}
    for name in SIZES:
        ways = ("here", "tuned", "installed") if not found else ("here", "tuned")
        sides = {way: (way, name) for way in ways}
        if args.torch_python:
            sides["torch"] = ("torch", name)
        measured = in_turn(args.rounds, sides, this, {"torch": args.torch_python})
        kinds = ("step", "forward", "forward, eager", "forward, bf16")
        ms = {
            kind: {way: round(median(rows, kind), 1) for way, rows in measured.items() if kind in rows[0]}
            for kind in kinds
        }
        peak, flops = median(measured["here"], "peak GFLOP/s"), forward_flops(*SIZES[name])
        found[name] = {
            "ms": ms,
            "samples_per_second": {way: round(1000 * SIZES[name][4] / value, 1) for way, value in ms["step"].items()},
            "times_faster_step": {
                f"than {way}": round(value / ms["step"]["here"], 2)
                for way, value in ms["step"].items()
                if way != "here"
            },
            "times_faster_forward": {
                f"than {way}": round(value / ms["forward"]["here"], 2)
                for way, value in ms["forward"].items()
                if way != "here"
            },
            "peak_gflops": round(peak),
            "share_of_peak_step": {way: round(3 * flops / value / 1e6 / peak, 3) for way, value in ms["step"].items()},
            "share_of_peak_forward": {way: round(flops / v / 1e6 / peak, 3) for way, v in ms["forward"].items()},
            "rounds": measured,
        }
    layers = side(sys.executable, this, "parts")
    profiles = {
        way: side(sys.executable, this, way, next(iter(SIZES)), "profile")["operators"] for way in ("tuned", "here")
    }
    what = "ms, median of rounds; here: arranged, forward compiled; tuned: threads, MKL path and allocator only"
    save(
        "bert_step",
        {
            "what": what,
            "sizes": found,
            "operators_6L384": {"before": profiles["tuned"], "after": profiles["here"]},
            "layers": layers,
        },
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["parts"]:
        print(json.dumps(parts()))
    elif sys.argv[1:2] and sys.argv[1] in ("here", "tuned", "installed", "torch"):
        chosen = SIZES[sys.argv[2]]
        if sys.argv[1] == "torch":
            print(json.dumps(with_torch(chosen)))
        else:
            print(json.dumps(with_paddle(chosen, sys.argv[1], sys.argv[3:] == ["profile"])))
    else:
        main()
