"""A student from SST-2 dev texts to labels, one text and 32 at a time: the bundle of tools/export.py and Paddle
Inference beside transformers on torch and ONNX Runtime of torch's own export.

    python benchmarks/deployment.py --student my_student --torch_python .venv-torch/bin/python

torch lives in an environment of its own: python -m venv .venv-torch && .venv-torch/bin/pip install torch==2.13.0
transformers==5.23.0 onnx==1.17.0 onnxruntime==1.31.1 onnxscript==0.7.2
All sides hold the same weights, have the same threads, get the same calls in the file's order and give a label with its
probability. Theirs read with transformers' tokenizer and pad a call to its longest text, as it does by default; so does
Paddle Inference. The bundle cuts a call into runs of similar length; `one run` is the bundle made to pad like the
others. Outputs of the fp32 sides must agree to 1e-4, or nothing is written.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BATCHES, PASSES = (1, 32), 2
TOLERANCE = 1e-4  # of fp32 logits
TORCH, TORCH_ONNX = "torch", "torch onnx"
PEERS = {TORCH: "than torch", TORCH_ONNX: "than torch's ONNX"}
# The parts of a layer by PaddleNLP's names, and PyTorch's.
_PARTS = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}

Texts = Sequence[str]
Side = tuple[Callable[[Texts], list[list[float]]], Callable[[Texts], object]]
"""Texts -> logits [n, C]; texts -> labels with their probabilities."""


def save_for_torch(student: str, folder: Path) -> None:
    """Write a folder that transformers opens: the student's weights under PyTorch's names and in its layout."""
    from distill.encoders.folder import find_model
    from distill.tensors import load_tensors, save_tensors

    found = find_model(student)
    renamed = {}
    for name, array in load_tensors(found.weights).items():
        new = name.replace("layer_norm", "LayerNorm")
        if name.startswith("bert.encoder.layers."):
            number, part = name.removeprefix("bert.encoder.layers.").split(".", 1)
            part, kind = part.rsplit(".", 1)
            new = f"bert.encoder.layer.{number}.{_PARTS[part]}.{kind}"
        # PyTorch keeps the weight of a linear layer as [out, in].
        renamed[new] = array.T if array.ndim == 2 and "embeddings" not in name else array
    save_tensors(folder / "model.safetensors", renamed)
    for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
        shutil.copyfile(found.folder / name, folder / name)


def export_bundle(student: str, data_dir: str, target: Path, variant: str, most_rows: int, threads: int) -> str | None:
    """Make a bundle by tools/export.py; why there is none, or None."""
    from distill.naming import ROOT

    print(f"exporting the bundle ({variant})", file=sys.stderr, flush=True)
    command = [sys.executable, ROOT / "tools" / "export.py", student, "--task_name", "SST-2", "--data_dir", data_dir]
    command += ["--output_dir", target, "--variant", variant, "--max_rows", most_rows]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    if done.returncode and (target.exists() or not done.stderr.startswith("error: ")):
        sys.exit(f"tools/export.py failed:\n{done.stderr[-2000:]}")
    return done.stderr.strip().removeprefix("error: ") if done.returncode else None


def export_by_torch(folder: str) -> dict[str, str]:
    """Write model.onnx into a folder of `save_for_torch`, batch and length free; returns the peer's versions."""
    import importlib.metadata

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    example = dict(AutoTokenizer.from_pretrained(folder)(["a text", "another one"], padding=True, return_tensors="pt"))
    free = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in example}
    torch.onnx.export(
        model, (), f"{folder}/model.onnx", kwargs=example, input_names=list(example), output_names=["logits"],
        dynamic_shapes=free, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    names = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "onnxscript")
    return {name: importlib.metadata.version(name) for name in names}


def open_torch(task: Mapping[str, Any]) -> Side:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(task["threads"])
    tokenizer = AutoTokenizer.from_pretrained(task["folder"])
    model = AutoModelForSequenceClassification.from_pretrained(task["folder"]).eval()
    reading = {"padding": True, "truncation": True, "max_length": task["max_length"], "return_tensors": "pt"}

    @torch.inference_mode()
    def logits(texts: Texts) -> torch.Tensor:
        return model(**tokenizer(texts, **reading)).logits

    def answer(texts: Texts) -> list[tuple[str, float]]:
        best = logits(texts).softmax(dim=-1).max(dim=-1)
        labels = [model.config.id2label[i] for i in best.indices.tolist()]
        return list(zip(labels, best.values.tolist(), strict=True))

    return lambda texts: logits(texts).tolist(), answer


def open_torch_onnx(task: Mapping[str, Any]) -> Side:
    import numpy as np
    import onnxruntime
    from transformers import AutoConfig, AutoTokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    session = onnxruntime.InferenceSession(f"{task['folder']}/model.onnx", options, providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(task["folder"])
    names = AutoConfig.from_pretrained(task["folder"]).id2label
    reading = {"padding": True, "truncation": True, "max_length": task["max_length"], "return_tensors": "np"}

    def logits(texts: Texts) -> np.ndarray:
        return session.run(None, dict(tokenizer(texts, **reading)))[0]

    def answer(texts: Texts) -> list[tuple[str, float]]:
        outputs = logits(texts)
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        labels = [names[i] for i in shares.argmax(axis=1).tolist()]
        return list(zip(labels, shares.max(axis=1).tolist(), strict=True))

    return lambda texts: logits(texts).tolist(), answer


def open_bundle(task: Mapping[str, Any]) -> Side:
    from distill.deploy.predict import Predictor

    predictor = Predictor(task["folder"], task["threads"])
    size = max(BATCHES) if task["one_run"] else None
    return lambda texts: predictor.logits(texts, size).tolist(), lambda texts: predictor.predict(texts, size)


def open_paddle(task: Mapping[str, Any]) -> Side:
    os.environ["OMP_NUM_THREADS"] = str(task["threads"])
    from distill import runtime

    runtime.start("cpu")
    import numpy as np

    from distill.data.wordpiece import WordPiece
    from distill.deploy.bundle import PADDLE
    from distill.encoders import inference
    from distill.files import read_json
    from tools.predict import named

    folder = Path(task["folder"])
    run = inference.open_static(folder / PADDLE / "model", task["precision"])
    wordpiece, labels = WordPiece.from_folder(folder), read_json(folder / "labels.json")

    def logits(texts: Texts) -> np.ndarray:
        encoded = wordpiece.encode(texts, None, task["max_length"])
        return run(encoded.pad(np.arange(len(texts)), wordpiece.pad_id))[0]

    return lambda texts: logits(texts).tolist(), lambda texts: named(labels, logits(texts))


OPEN = {"torch": open_torch, "torch_onnx": open_torch_onnx, "bundle": open_bundle, "paddle": open_paddle}


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """In a side's process: by the batch size as text the logits [n, C] of all texts, which warms the side up, and then
    the median ms a text of calls with so many.

    task: opens (a name in OPEN), folder, threads, max_length, precision, one_run; texts: their JSON file.
    """
    texts = json.loads(Path(task["texts"]).read_text(encoding="utf-8"))
    logits, answer = OPEN[task["opens"]](task)
    found: dict[str, Any] = {"logits": {}, "ms": {}}
    for size in BATCHES:
        calls = [texts[start : start + size] for start in range(0, len(texts), size)]
        found["logits"][str(size)] = [row for call in calls for row in logits(call)]
        taken = []
        for call in [call for call in calls if len(call) == size] * PASSES:
            start = time.perf_counter()
            answer(call)
            taken.append(1000 * (time.perf_counter() - start) / size)
        found["ms"][str(size)] = statistics.median(taken)
    return found


def deviations(logits: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> dict[str, dict[str, float]]:
    """Of {side: {batch size: logits [n, C]}}: how each side differs from torch with one text at a time, at most, and
    the share of texts with the same label.

    Ends the process when a side that is neither int8 nor bf16 differs by more than TOLERANCE.
    """
    import numpy as np

    expected = np.array(logits[TORCH]["1"])
    found = {}
    for side, by_size in logits.items():
        outputs = [np.array(rows) for rows in by_size.values()]
        difference = max(float(np.abs(rows - expected).max()) for rows in outputs)
        if not difference <= TOLERANCE and not {"int8", "bf16"} & set(side.replace(",", "").split()):
            sys.exit(f"{side}: logits differ from torch's by {difference:.2g}, above {TOLERANCE:g}")
        same = min(float((rows.argmax(axis=1) == expected.argmax(axis=1)).mean()) for rows in outputs)
        found[side] = {"logits_differ_by": difference, "same_label": same}
    return found


def times_faster(ms: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Of {batch: {side: ms a text}}: how many times each other side is as fast as either peer."""
    return {
        side: {
            batch: {than: round(sides[peer] / sides[side], 2) for peer, than in PEERS.items()}
            for batch, sides in ms.items()
        }
        for side in next(iter(ms.values()))
        if side not in PEERS
    }


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="folder of a BERT that was trained on SST-2")
    parser.add_argument("--data_dir", default="data/glue_data", help="folder that holds SST-2/dev.tsv")
    parser.add_argument("--torch_python", required=True, help="python of the peers' environment")
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    parser.add_argument("--most_texts", type=int, default=1000, help="the first of the dev texts")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.most_texts < max(BATCHES):
        parser.error(f"--most_texts {args.most_texts}: at least {max(BATCHES)} are needed")
    with tempfile.TemporaryDirectory() as work:
        compare(args, Path(work))


def compare(args: Any, work: Path) -> None:
    """Write results/benchmark_deployment.json; models are made in `work`."""
    from types import SimpleNamespace

    from benchmarks.common import in_turn, median, save, side
    from distill import runtime
    from distill.data.tasks import get_task, load_rows
    from distill.files import read_json

    options = SimpleNamespace(data_dir=args.data_dir, train_file=None, dev_file=None, test_file=None)
    texts = load_rows(options, get_task("SST-2"), "dev").text_a[: args.most_texts]
    (work / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    bundles = {"auto": work / "auto"}
    exporting = (args.student, args.data_dir, *bundles.values(), "auto", len(texts), args.threads)
    if why := export_bundle(*exporting):
        sys.exit(f"tools/export.py refuses the student: {why}")
    settings = read_json(bundles["auto"] / "settings.json")
    shipped = settings["precision"]
    other = "fp32" if shipped == "int8" else "int8"
    bundles = {shipped: bundles["auto"], other: work / other}
    refused = export_bundle(args.student, args.data_dir, bundles[other], other, len(texts), args.threads)
    if refused:
        del bundles[other]
    (work / "torch").mkdir()
    save_for_torch(args.student, work / "torch")
    print("exporting by torch", file=sys.stderr, flush=True)
    this = Path(__file__)
    peer_versions = side(args.torch_python, this, "export_by_torch", str(work / "torch"))

    common = {"texts": str(work / "texts.json"), "threads": args.threads, "max_length": settings["max_length"]}
    peers = common | {"folder": str(work / "torch")}
    tasks = {TORCH: peers | {"opens": "torch"}, TORCH_ONNX: peers | {"opens": "torch_onnx"}}
    for precision, folder in bundles.items():
        own = common | {"opens": "bundle", "folder": str(folder)}
        tasks[f"bundle {precision}"] = own | {"one_run": False}
        tasks[f"bundle {precision}, one run"] = own | {"one_run": True}
    for precision in ("fp32", "bf16") if runtime.has_bfloat16() else ("fp32",):
        own = {"opens": "paddle", "folder": str(bundles[shipped]), "precision": precision}
        tasks[f"paddle {precision}"] = common | own
    sides = {name: ("measure", json.dumps(task)) for name, task in tasks.items()}
    measured = in_turn(args.rounds, sides, this, dict.fromkeys(PEERS, args.torch_python))

    differences = deviations({name: rows[0]["logits"] for name, rows in measured.items()})
    rounds = {name: [row["ms"] for row in rows] for name, rows in measured.items()}
    ms = {
        f"batch {size}": {name: round(median(rows, str(size)), 4) for name, rows in rounds.items()} for size in BATCHES
    }
    faster = times_faster(ms)
    save(
        "deployment",
        {
            "what": "ms a text, from text to label and probability (median of a round's calls, median of rounds)",
            "texts": len(texts),
            "threads": args.threads,
            "ms": ms,
            "times_faster": faster,
            "shipped": {"precision": shipped, **faster[f"bundle {shipped}"], **differences[f"bundle {shipped}"]},
            "refused": {other: refused} if refused else {},
            "differences": differences,
            "peer_versions": peer_versions,
            "rounds": rounds,
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["export_by_torch"]:
        print(json.dumps(export_by_torch(sys.argv[2])))
    elif sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(json.loads(sys.argv[2]))))
    else:
        main()
