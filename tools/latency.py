"""Time several finished models on the same rows, in turn, in one process: the latencies of the results' tables.

    python tools/latency.py sst2 --task_name SST-2 --data_dir data/glue_data --folders my_teacher my_student

Writes results/latency_NAME.json: {"models": {folder: {"latency_ms", "samples_per_second"}}, "rows", "rounds",
command, versions, hardware}.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.naming import ROOT
from distill.options import RuntimeOptions, TaskOptions, option

if TYPE_CHECKING:
    from distill.data.readers import Rows


@dataclass
class LatencyArgs(TaskOptions, RuntimeOptions):
    """Time several finished models side by side."""

    name: str = field(default="", positional=True, help="name of the result")
    folders: list[str] = field(default_factory=list, help="folders of the models")
    max_seq_length: int | None = option(
        None, "longest input in tokens, special tokens counted; without it that of each folder's run.yaml", low=4
    )
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
    from distill.files import write_json

    task = load_task(args)
    rows = load_rows(args, task, task.dev_splits[0])
    found = side_by_side(args.folders, rows, args.rounds, args.eval_batch_size, args.max_seq_length)
    for folder, values in found.items():
        runtime.log(f"{values['latency_ms']['p50']:8.3f} ms  {values['samples_per_second']:10.1f} texts/s  {folder}")
    facts = {"command": runtime.command(), "rows": len(rows), "rounds": args.rounds}
    result = {"models": found, **facts, "versions": runtime.versions(), "hardware": runtime.hardware()}
    write_json(ROOT / "results" / f"latency_{args.name}.json", result)
    return result


def side_by_side(
    folders: Sequence[str], rows: "Rows", rounds: int, batch_size: int = 128, max_length: int | None = None
) -> dict[str, dict[str, Any]]:
    """{folder: {"latency_ms", "samples_per_second"}} of the models, from the texts of `rows` on.

    Each figure is the median of `rounds` measurements, made in turn, so that a drift of the machine's speed meets all
    models alike.
    """
    from distill.evaluation.latency import Latency, measure
    from models.predictor import open_folder

    models = {folder: open_folder(folder, max_length) for folder in folders}
    measured: dict[str, list[Latency]] = {folder: [] for folder in models}
    for _ in range(rounds):
        for folder, model in models.items():

            def answer(chosen: Sequence[int], call: Any = model.logits) -> None:
                texts = rows.take(chosen)
                call(texts.text_a, texts.text_b, batch_size)

            measured[folder].append(measure(answer, range(len(rows))))
    return {
        folder: {
            "latency_ms": {key: statistics.median(m.milliseconds[key] for m in every) for key in every[0].milliseconds},
            "samples_per_second": statistics.median(m.samples_per_second for m in every),
        }
        for folder, every in measured.items()
    }


if __name__ == "__main__":
    run(main)
