"""Time finished models as they will be used: your own texts, from the text to its label, each runtime on its own.

    python tools/bench.py my_teacher my_student --texts reviews.txt
    python tools/bench.py my_bundle my_student --texts reviews.csv --runtimes dygraph onnxruntime --threads 1 2 4

Models are folders of teachers, students and bundles, the one to compare with first. Of a model's folder each runtime
is timed: dygraph (eager paddle with this project's arithmetic for a CPU, distill/encoders/cpu.py), paddle_inference (a
fixed graph with oneDNN), onnxruntime and int8 (its bundles by tools/export.py, without paddle; what that refuses stands
below the table). Of a bundle it is what is in it.

For every number of threads each of these runs in a process of its own, --rounds times, and all take turns, so that a
drift of the machine's speed meets them alike. A process is timed cold (from its start to the first label, what it
imports and loads included), then warm, batch size by batch size. Written are --output's .json, .md, .csv and .png.
"""

import csv
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.files import atomic_path, read_json, require_writable, write_atomic, write_json
from distill.options import option
from tools.terminal import show

VARIANTS = {"onnxruntime": "fp32", "int8": "int8"}  # of tools/export.py
PADDLE = ("dygraph", "paddle_inference")
RUNTIMES = (*PADDLE, *VARIANTS)
_WARM_UP, _LEAST_CALLS = 3, 5
_HEADS = (
    "model", "runtime", "threads", "batch", "p50 ms", "p95 ms", "p99 ms", "texts/s", "faster", "cold s", "memory MB",
    "disk MB",
)  # fmt: skip


@dataclass
class BenchArgs:
    """Time finished models."""

    folders: list[str] = field(default_factory=list, positional=True, nargs="*", help="models and bundles")
    texts: str | None = option(None, "file of your texts: txt, tsv, csv or jsonl, as tools/predict.py reads them")
    text_column: str | None = option(None, "tsv, csv, jsonl: name of the text's column; text, sentence, ... are found")
    text_pair_column: str | None = option(None, "the same of the second text, for pairs")
    max_texts: int = option(512, "texts that are used, spread evenly over the file", low=1)
    runtimes: list[str] = field(
        default_factory=lambda: list(RUNTIMES), help=f"what a model's folder is run by ({' | '.join(RUNTIMES)})"
    )
    threads: list[int] = field(default_factory=list, help="numbers of threads; without it 1 and one for each core")
    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 32], help="texts a call")
    rounds: int = option(3, "each process is started this often, in turn", low=1)
    seconds: float = option(1.0, "seconds a batch size is timed in each process; 5 calls at least", above=0)
    max_seq_length: int | None = option(
        None, "longest input of a BERT in tokens; without it that of its run.yaml, or 128", low=4
    )
    output: str = option("bench", "path of the written files, without their suffixes")

    def __post_init__(self) -> None:
        wrong = [name for name in self.runtimes if name not in RUNTIMES]
        if wrong:
            raise UserError(f"--runtimes {wrong[0]}: must be one of {', '.join(RUNTIMES)}")
        for flag in ("threads", "batch_sizes"):
            if any(number < 1 for number in getattr(self, flag)):
                raise UserError(f"--{flag} {min(getattr(self, flag))}: must be at least 1")


@dataclass(frozen=True)
class Side:
    """One model in one runtime: its name, `runtime`, the folder that a process of its own opens, and how many tokens
    a BERT reads of a text (a bundle knows that itself)."""

    model: str
    runtime: str
    folder: str
    max_length: int


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns what the JSON holds."""
    args = parse(BenchArgs, argv, __doc__)
    if not args.folders or not args.texts:
        raise UserError("give folders and --texts: python tools/bench.py MODEL ... --texts FILE")
    return bench(args)


def bench(args: BenchArgs) -> dict[str, Any]:
    threads = args.threads or default_threads()
    texts = load_texts(args)
    names = called(args.folders)
    require_writable(Path(args.output).parent)
    with tempfile.TemporaryDirectory() as work:
        rows = Path(work) / "rows.json"
        rows.write_text(json.dumps(texts), encoding="utf-8")
        sides, refused = open_sides(dict(zip(names, args.folders, strict=True)), args, texts, Path(work))
        measured, failed = in_turn([(side, number) for number in threads for side in sides], args, rows)
    refused |= failed
    if not measured:
        raise UserError(f"nothing is left to time: {'; '.join(refused.values())}")
    result: dict[str, Any] = {
        "rows": [row for (side, number), found in measured.items() for row in summary(side, number, found)],
        "refused": refused,
        "texts": {"file": Path(str(args.texts)).name, "used": len(texts), "characters": characters(texts)},
        "rounds": args.rounds,
        "command": runtime.command(),
        "versions": runtime.versions(),
        "hardware": runtime.hardware(),
    }
    write_json(f"{args.output}.json", result)
    write_atomic(f"{args.output}.md", markdown(result) + "\n")
    write_atomic(f"{args.output}.csv", comma_separated(result))
    chart(result, Path(f"{args.output}.png"))
    show(markdown(result))
    return result


def default_threads() -> list[int]:
    """1, and as many as `distill.runtime` would take."""
    cores = int(runtime.before_paddle()["OMP_NUM_THREADS"])
    return sorted({1, cores})


def load_texts(args: BenchArgs) -> list[list[str]]:
    """At most --max_texts rows of --texts, spread evenly over the file."""
    from tools.predict import PredictArgs, rows

    reading = PredictArgs(input=args.texts, text_column=args.text_column, text_pair_column=args.text_pair_column)
    if args.texts == "-" or not Path(args.texts or "").is_file():
        raise UserError(f"--texts {args.texts}: no such file")
    count = sum(1 for _ in rows(reading, None))
    used = min(args.max_texts, count)
    chosen = {i * count // used for i in range(used)}
    return [list(row) for number, row in enumerate(rows(reading, None)) if number in chosen]


def characters(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Length of the rows: {"median", "longest"}."""
    lengths = [sum(map(len, row)) for row in texts]
    return {"median": statistics.median(lengths), "longest": max(lengths)}


def called(folders: Sequence[str]) -> list[str]:
    """The folders by as much of their paths as tells them apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    depth = next((n for n in range(1, 20) if len({p[-n:] for p in parts}) == len(parts)), None)
    if depth is None:
        raise UserError("a folder is given twice")
    return ["/".join(p[-depth:]) for p in parts]


def open_sides(
    folders: dict[str, str], args: BenchArgs, texts: Sequence[Sequence[str]], work: Path
) -> tuple[list[Side], dict[str, str]]:
    """What is timed, and {which is not: why}. Bundles of models are made in `work`."""
    from distill.deploy import is_bundle
    from models.predictor import trained_length

    sides, refused = [], {}
    for number, (name, folder) in enumerate(folders.items()):
        if is_bundle(folder):
            if args.max_seq_length is not None:
                raise UserError(f"--max_seq_length: {folder} is a bundle, which has its own length; leave the flag out")
            precision = read_json(Path(folder) / "settings.json").get("precision", "")
            sides.append(Side(name, f"bundle {precision}".strip(), folder, 0))
            continue
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder")
        length = args.max_seq_length or trained_length(folder)
        for kind in args.runtimes:
            if kind not in VARIANTS:
                sides.append(Side(name, kind, folder, length))
                continue
            made = work / f"{number} {kind}"
            why = export(folder, made, VARIANTS[kind], texts, args.max_seq_length)
            if why is None:
                sides.append(Side(name, kind, str(made), length))
            else:
                refused[f"{name}, {kind}"] = why
    return sides, refused


def export(
    folder: str, target: Path, variant: str, texts: Sequence[Sequence[str]], max_length: int | None
) -> str | None:
    """Make a bundle of a model; why there is none, or None. A process of its own keeps paddle out of this one."""
    rows = target.with_suffix(".txt")
    rows.write_text("".join("\t".join(" ".join(part.split()) for part in row) + "\n" for row in texts), "utf-8")
    script = Path(__file__).with_name("export.py")
    command = [sys.executable, script, folder, "--output_dir", target, "--variant", variant, "--rows", rows]
    command += [] if max_length is None else ["--max_seq_length", max_length]
    print(f"exporting {folder} ({variant})", file=sys.stderr, flush=True)
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    return None if done.returncode == 0 else last_line(done.stderr)


def last_line(text: str) -> str:
    """Why a process failed, without the name of its exception."""
    line = (text.strip().splitlines() or ["it ended without a word"])[-1]
    return re.sub(r"^(error|[\w.]*Error): ", "", line)


def in_turn(
    every: Sequence[tuple[Side, int]], args: BenchArgs, rows: Path
) -> tuple[dict[tuple[Side, int], list[dict[str, Any]]], dict[str, str]]:
    """What the processes of each side and number of threads said, and {which failed: why}. Each round begins with
    another one."""
    from tqdm import tqdm

    measured: dict[tuple[Side, int], list[dict[str, Any]]] = {key: [] for key in every}
    failed: dict[str, str] = {}
    with tqdm(total=args.rounds * len(every), desc="timing", unit=" processes", leave=False) as bar:
        for turn in range(args.rounds):
            first = turn * len(every) // args.rounds
            for side, number in [*every[first:], *every[:first]]:
                bar.update()
                try:
                    if (side, number) in measured:
                        measured[side, number].append(alone(side, number, args, rows))
                except UserError as error:
                    del measured[side, number]
                    failed[f"{side.model}, {side.runtime}, {number} threads"] = str(error)
    return measured, failed


def alone(side: Side, threads: int, args: BenchArgs, rows: Path) -> dict[str, Any]:
    """What `measure` finds in a fresh process. Raises UserError with its last line when it fails."""
    task = {
        "runtime": side.runtime, "folder": side.folder, "threads": threads, "rows": str(rows), "started": time.time(),
        "batch_sizes": args.batch_sizes, "seconds": args.seconds, "max_length": side.max_length,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, "side", json.dumps(task)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode:
        raise UserError(last_line(done.stderr))
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """In the fresh process: {"cold_seconds", "milliseconds" {batch size: of each call}, "memory_bytes", "disk_bytes"}.

    task: runtime, folder, threads, batch_sizes, seconds, max_length; rows, the file of the texts; started, when the
    process was (Unix time).
    """
    texts = json.loads(Path(task["rows"]).read_text(encoding="utf-8"))
    answer, disk = opened(task)
    answer(texts[:1])
    cold = time.time() - task["started"]
    milliseconds = {}
    for size in task["batch_sizes"]:
        # Calls begin where the one before ended, so that all texts are used.
        taken, place, began = [], 0, None
        for call in range(10**9):
            batch = [texts[(place + i) % len(texts)] for i in range(size)]
            place = (place + size) % len(texts)
            start = time.perf_counter()
            answer(batch)
            now = time.perf_counter()
            if call < _WARM_UP:
                continue
            began = start if began is None else began
            taken.append(1000 * (now - start))
            if now - began >= task["seconds"] and len(taken) >= _LEAST_CALLS:
                break
        milliseconds[size] = taken
    return {
        "cold_seconds": cold,
        "milliseconds": milliseconds,
        "memory_bytes": runtime.peak_memory_bytes(),
        "disk_bytes": disk,
    }


def opened(task: dict[str, Any]) -> tuple[Callable[[Sequence[Sequence[str]]], object], int]:
    """The model as answers to rows, and the bytes of the files that hold its weights."""
    from tools.predict import columns, named

    if task["runtime"] not in PADDLE:
        from distill.deploy.predict import Predictor

        bundle = Predictor(task["folder"], task["threads"])
        size = sum(path.stat().st_size for path in Path(task["folder"]).glob("*.onnx"))
        return lambda rows: bundle.predict([row[0] if len(row) == 1 else row for row in rows], len(rows)), size
    runtime.start("cpu")
    from distill.encoders import inference
    from models.predictor import open_folder

    model = open_folder(task["folder"], task["max_length"])
    logits = model.logits
    if task["runtime"] == "paddle_inference":
        logits = model.by(inference.compiled(model.layer, model.inputs))
    return lambda rows: named(model.labels, logits(*columns(rows), len(rows))), model.weights.stat().st_size


def summary(side: Side, threads: int, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each batch size: percentiles over the calls of all rounds, medians of what a process has once."""
    import numpy as np

    rows = []
    for size in found[0]["milliseconds"]:
        taken = np.concatenate([one["milliseconds"][size] for one in found])
        p50, p95, p99 = (float(value) for value in np.percentile(taken, (50, 95, 99)))
        rows.append(
            {
                "model": side.model, "runtime": side.runtime, "threads": threads, "batch": int(size),
                "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "calls": len(taken),
                "texts_per_second": 1000 * int(size) / float(taken.mean()),
                "cold_seconds": statistics.median(one["cold_seconds"] for one in found),
                "memory_mb": max(one["memory_bytes"] for one in found) / 1e6,
                "disk_mb": found[0]["disk_bytes"] / 1e6,
            }
        )  # fmt: skip
    return rows


def faster(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> float:
    """How many times as fast as the first side with the same threads and batch, by the median."""
    first = next(other for other in rows if (other["threads"], other["batch"]) == (row["threads"], row["batch"]))
    return float(first["p50_ms"] / row["p50_ms"])


def markdown(result: dict[str, Any]) -> str:
    """The table, and what must be known of it."""
    rows = result["rows"]
    lines = ["| " + " | ".join(_HEADS) + " |", "|" + "---|" * 2 + "---:|" * (len(_HEADS) - 2)]
    for row in rows:
        figures = [f"{row[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
        figures += [f"{row['texts_per_second']:.0f}", f"{faster(row, rows):.1f}×", f"{row['cold_seconds']:.1f}"]
        figures += [f"{row['memory_mb']:.0f}", f"{row['disk_mb']:.1f}"]
        lines.append(
            "| " + " | ".join([row["model"], row["runtime"], str(row["threads"]), str(row["batch"]), *figures])
        )
        lines[-1] += " |"
    texts = result["texts"]
    notes = [
        f"From text to label, {texts['used']} texts of {texts['file']} (median {texts['characters']['median']:g} "
        f"characters), {result['rounds']} processes each, in turn, on {result['hardware']['processor']}.",
        "faster: against the first line of the same threads and batch. cold: from the start of the process to the "
        "first label. memory: the process's peak. disk: the weights.",
        *(f"Not timed: {what}: {why}." for what, why in result["refused"].items()),
    ]
    return "\n".join([*lines, "", *(f"*{note}*  " for note in notes[:-1]), f"*{notes[-1]}*"])


def comma_separated(result: dict[str, Any]) -> str:
    """The rows with all their digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(result["rows"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["rows"])
    return text.getvalue()


def chart(result: dict[str, Any], path: Path) -> None:
    """A PNG with the most threads: how long one call takes (to p95), and texts a second by the batch size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    threads = max(row["threads"] for row in result["rows"])
    rows = [row for row in result["rows"] if row["threads"] == threads]
    sides = list(dict.fromkeys((row["model"], row["runtime"]) for row in rows))
    least = min(row["batch"] for row in rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 1.6 + 0.4 * max(len(sides), 7)), dpi=130)
    for number, side in enumerate(sides):
        mine = sorted((row for row in rows if (row["model"], row["runtime"]) == side), key=lambda row: row["batch"])
        colour, label = f"C{number % 10}", f"{side[0]}, {side[1]}"
        p50, p95 = mine[0]["p50_ms"], mine[0]["p95_ms"]
        left.barh(number, p50, color=colour)
        left.plot([p50, p95], [number, number], color="black", linewidth=1.5)
        left.text(p95, number, f"  {p50:.2f} ms", va="center", fontsize=8)
        batches, rates = [row["batch"] for row in mine], [row["texts_per_second"] for row in mine]
        right.plot(batches, rates, marker="osD^v"[number // 10 % 5], color=colour, label=label)
    left.set_yticks(range(len(sides)), [f"{model}\n{kind}" for model, kind in sides], fontsize=7)
    left.invert_yaxis()
    left.margins(x=0.25)
    left.set(xlabel="milliseconds", title=f"A call of {least} text{'s' if least > 1 else ''}: p50, line to p95")
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_xticks(sorted({row["batch"] for row in rows}), sorted({row["batch"] for row in rows}))
    right.set(xlabel="texts a call", ylabel="texts a second", title=f"Throughput, threads: {threads}")
    right.grid(alpha=0.3, which="both")
    right.legend(fontsize=7)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)


def side_main() -> None:
    """A process of one side: `bench.py side TASK`."""
    print(json.dumps(measure(json.loads(sys.argv[2]))))


if __name__ == "__main__":
    run(side_main if sys.argv[1:2] == ["side"] else main)
