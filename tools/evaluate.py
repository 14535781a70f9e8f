"""Score a finished model on every labelled split, and apart on the rows that do not also occur in the training rows.

    python tools/evaluate.py models/student_model/bilstm_alone/ChnSentiCorp/RUN --task_name senta --data_dir data

Writes evaluation.json into the model's folder: {split: {"rows", "scores", "rows_not_in_train", "scores_not_in_train"}}.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.options import RuntimeOptions, TaskOptions, option


@dataclass
class EvaluateArgs(TaskOptions, RuntimeOptions):
    """Score a finished model."""

    folder: str = field(default="", positional=True, help="folder of a model")
    eval_batch_size: int = option(128, "rows a batch", low=1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns what it writes."""
    args = parse(EvaluateArgs, argv, __doc__)
    if not args.folder:
        raise UserError("give the folder of a model: python tools/evaluate.py FOLDER --task_name SST-2 --data_dir ...")
    runtime.start(args.device)
    import numpy as np

    from distill.data.tasks import load_rows, load_task
    from distill.evaluation.metrics import score
    from distill.files import write_json
    from models.predictor import open_folder

    task, predictor = load_task(args), open_folder(args.folder, args.max_seq_length)
    if predictor.pair not in (None, task.pair):
        kinds = ("one text", "two texts")
        raise UserError(f"{args.folder}: reads {kinds[not task.pair]}, rows of {task.name} have {kinds[task.pair]}")
    if predictor.labels not in (task.labels, tuple(map(str, range(len(task.labels))))):
        theirs, ours = (", ".join(labels) or "none (a number)" for labels in (predictor.labels, task.labels))
        raise UserError(f"{args.folder}: its labels are {theirs}, those of {task.name} {ours}")
    train = load_rows(args, task, "train")
    known = set(zip(train.text_a, train.text_b or train.text_a, strict=True))
    found: dict[str, Any] = {}
    for split in (*task.dev_splits, *task.test_splits):
        try:
            rows = load_rows(args, task, split)
        except UserError as error:
            if split in task.dev_splits:
                raise
            runtime.log(f"left out: {error}")  # test rows are not always at hand
            continue
        if rows.labels is None:
            continue
        logits = predictor.logits(rows.text_a, rows.text_b, args.eval_batch_size)
        fresh = np.array([text not in known for text in zip(rows.text_a, rows.text_b or rows.text_a, strict=True)])
        found[split] = {
            "rows": len(rows),
            "scores": score(logits, rows.labels, task),
            "rows_not_in_train": int(fresh.sum()),
        }
        if 0 < fresh.sum() < len(rows):
            found[split]["scores_not_in_train"] = score(logits[fresh], rows.labels[fresh], task)
        for name in ("scores", "scores_not_in_train"):
            if name in found[split]:
                shown = "  ".join(f"{key} {value:.4f}" for key, value in found[split][name].items())
                which = f"{len(rows)} rows" if name == "scores" else f"{int(fresh.sum())} rows that are not in train"
                runtime.log(f"{task.name} {split}, {which}: {shown}")
    write_json(Path(args.folder) / "evaluation.json", found)
    return found


if __name__ == "__main__":
    run(main)
