"""Time several finished models on the same rows, in turn, in one process: the latencies of the results' tables.

    python tools/latency.py sst2 --task_name SST-2 --data_dir data/glue_data --folders my_teacher my_student

Writes results/latency_NAME.json: {"models": {folder: {"latency_ms", "samples_per_second"}}, "rows", "rounds",
command, versions, hardware}.
"""

import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.naming import ROOT
from distill.options import RuntimeOptions, TaskOptions, option


@dataclass
class LatencyArgs(TaskOptions, RuntimeOptions):
    """Time several finished models side by side."""

    name: str = field(default="", positional=True, help="name of the result")
    folders: list[str] = field(default_factory=list, help="folders of the models")
    rounds: int = option(3, "each model is measured this often, in turn; the median counts", low=1)
    eval_batch_size: int = option(128, "rows a batch, for the throughput", low=1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns what it writes."""
    args = parse(LatencyArgs, argv, __doc__)
    if not args.name or not args.folders:
        raise UserError(
            "give a name and --folders: python tools/latency.py NAME --task_name SST-2 --folders FOLDER ..."
        )
    runtime.start(args.device)
    from distill.data.tasks import load_rows, load_task
    from distill.evaluation.latency import Latency, measure
    from distill.files import write_json
    from models.predictor import Predictor, open_folder

    task = load_task(args)
    rows = load_rows(args, task, task.dev_splits[0])
    models = {folder: open_folder(folder, args.max_seq_length) for folder in args.folders}

    def timed(model: Predictor) -> Latency:
        def answer(chosen: Sequence[int]) -> None:
            texts = rows.take(chosen)
            model.logits(texts.text_a, texts.text_b, args.eval_batch_size)

        return measure(answer, range(len(rows)))

    measured: dict[str, list[Latency]] = {folder: [] for folder in models}
    for _ in range(args.rounds):
        for folder, model in models.items():
            measured[folder].append(timed(model))
    found = {
        folder: {
            "latency_ms": {key: statistics.median(m.milliseconds[key] for m in every) for key in every[0].milliseconds},
            "samples_per_second": statistics.median(m.samples_per_second for m in every),
        }
        for folder, every in measured.items()
    }
    for folder, values in found.items():
        runtime.log(f"{values['latency_ms']['p50']:8.3f} ms  {values['samples_per_second']:10.1f} texts/s  {folder}")
    facts = {"command": shlex.join(["python", *sys.argv]), "rows": len(rows), "rounds": args.rounds}
    result = {"models": found, **facts, "versions": runtime.versions(), "hardware": runtime.hardware()}
    write_json(ROOT / "results" / f"latency_{args.name}.json", result)
    return result


if __name__ == "__main__":
    run(main)
