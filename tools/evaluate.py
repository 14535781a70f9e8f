"""Score a finished model on every labelled split, apart on the rows that are not also in train, and time it on dev.

    python tools/evaluate.py models/student_model/bilstm_alone/ChnSentiCorp/RUN --task_name senta --data_dir data
    python tools/evaluate.py --method tinybert cpu SST-2 tinybert_epoch-4_lr-2e-5_wd-0.0001

The second form, which the scripts in scripts/ call, takes GPU (its number, or cpu), TASK and MODEL_ID, or TASK where
there is one model only, and finds the model where the recipes save by default. Of the environment it reads DATA_ROOT
(the folder of the tasks' folders, otherwise data/glue_data), STUDENT_DIR (a student's own folder, or the one that holds
TASK/MODEL_ID) and RESULT_DIR (where to write, otherwise the model's folder).

Written are results_eval.json (dev: scores, size, speed), dev_predictions.tsv and evaluation.json: {split: {"rows",
"scores", "rows_not_in_train", "scores_not_in_train"}}.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simple_parsing import field

from distill import naming, runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.options import RuntimeOptions, TaskOptions, option

TRAINED_BY = {
    "teacher": "glue/run_glue.py",
    "kd": "kd/task_distill.py",
    "distilled_lstm": "distill_lstm/bert_distill.py",
    "bert_pkd": "pkd/task_distill.py",
    "tinybert": "tinybert/task_distill.py",
    "theseus": "theseus/task_distill.py",
    "virt": "virt/sbert_distill.py",
}


@dataclass
class EvaluateArgs(TaskOptions, RuntimeOptions):
    """Score and time a finished model."""

    model: list[str] = field(
        default_factory=list, positional=True, nargs="*", help="folder of a model; with --method: GPU TASK MODEL_ID"
    )
    method: str | None = option(None, "what kind of model the MODEL_ID is of", choices=tuple(TRAINED_BY))
    task_name: str | None = option(None, "task; without it that of the model's run.json")
    max_seq_length: int | None = option(
        None, "longest input of a BERT in tokens; without it that of its run.yaml, or 128", low=4
    )
    result_dir: str | None = option(None, "where the results are written; without it the model's folder")
    eval_batch_size: int = option(128, "rows a batch", low=1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns what it writes as evaluation.json."""
    args = parse(EvaluateArgs, argv, __doc__)
    if args.method is None and len(args.model) != 1:
        raise UserError("give one folder: python tools/evaluate.py FOLDER --task_name SST-2 --data_dir ...")
    numbered = args.method is not None and read_words(args)
    if runtime.start(args.device) == "cpu" and numbered:
        runtime.log(f"GPU {args.model[0]}: paddle sees none, evaluating on the CPU")
    import numpy as np

    from distill.data.tasks import find_split, label_complaint, load_rows, load_task
    from distill.evaluation.evaluate import evaluate_splits, report
    from distill.evaluation.metrics import score
    from distill.files import read_json, write_json
    from models.predictor import open_folder, trained_pair

    if args.method:
        task = load_task(args)
        folder = find(args.method, task.name, args.model[2:])
    else:
        folder = Path(args.model[0])
        args.task_name = args.task_name or trained_task(folder, args)
        task = load_task(args)
    facts = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    place = Path(args.result_dir or folder)
    if facts.get("task", task.name) != task.name and place.resolve() == folder.resolve():
        of = facts["task"]
        raise UserError(
            f"{folder}: a run for {of}, not for {task.name}; pass --task_name {of}, or --result_dir to keep its own "
            "results"
        )
    predictor = open_folder(folder, args.max_seq_length)
    reads_pairs = trained_pair(folder) if predictor.pair is None else predictor.pair
    if reads_pairs not in (None, task.pair):
        kinds = ("one text", "two texts")
        raise UserError(f"{folder}: reads {kinds[not task.pair]}, rows of {task.name} have {kinds[task.pair]}")
    if complaint := label_complaint(predictor.labels, task, predictor.named):
        raise UserError(f"{folder}: {complaint}; --task_name names the task that it was trained for")

    rows = {split: load_rows(args, task, split) for split in task.dev_splits}
    for split in ("train", *task.test_splits):
        try:
            find_split(args, task, split)
        except UserError as error:  # these are not always at hand, but one that is must be sound
            runtime.log(f"left out: {error}")
            continue
        rows[split] = load_rows(args, task, split)

    def logits(texts: Any) -> np.ndarray:
        return predictor.logits(texts.text_a, texts.text_b, args.eval_batch_size)

    dev = {split: (rows[split], np.asarray(rows[split].labels)) for split in task.dev_splits}
    first = rows[task.dev_splits[0]]
    scores = evaluate_splits(logits, dev, task)
    report(
        place, lambda: scores, lambda chosen: logits(first.take(chosen)), len(first), task, predictor.model,
        predictor.weights, args.eval_batch_size, facts.get("seed"),
    )  # fmt: skip

    def pairs(texts: Any) -> list[tuple[str, str]]:
        return list(zip(texts.text_a, texts.text_b or texts.text_a, strict=True))

    known = set(pairs(rows["train"])) if "train" in rows else None
    found: dict[str, Any] = {}
    for split, texts in rows.items():
        if split == "train" or texts.labels is None:
            continue
        predicted = scores.predictions[split].logits if split in dev else logits(texts)
        found[split] = {"rows": len(texts), "scores": score(predicted, texts.labels, task)}
        if known is not None:
            fresh = np.array([text not in known for text in pairs(texts)])
            found[split]["rows_not_in_train"] = int(fresh.sum())
            if 0 < fresh.sum() < len(texts):
                found[split]["scores_not_in_train"] = score(predicted[fresh], texts.labels[fresh], task)
        for name in ("scores", "scores_not_in_train"):
            if name in found[split]:
                shown = "  ".join(f"{key} {value:.4f}" for key, value in found[split][name].items())
                which = f"{len(texts)} rows" if name == "scores" else f"{int(fresh.sum())} rows that are not in train"
                runtime.log(f"{task.name} {split}, {which}: {shown}")
    write_json(place / "evaluation.json", found)
    runtime.log(f"written: {place / 'results_eval.json'}, dev_predictions.tsv, evaluation.json")
    return found


def read_words(args: EvaluateArgs) -> bool:
    """Put GPU, TASK and the environment into the flags; True when GPU is a number. UserError for what they are not."""
    if len(args.model) not in (1, 3):
        raise UserError("give GPU TASK MODEL_ID, such as `cpu SST-2 MODEL_ID`, or TASK where there is one model only")
    gpu = args.model[0] if len(args.model) == 3 else None
    args.task_name = args.model[1 if gpu else 0]
    default = naming.ROOT / "data" / "glue_data"
    args.data_dir = args.data_dir or os.environ.get("DATA_ROOT") or (str(default) if default.is_dir() else None)
    args.result_dir = args.result_dir or os.environ.get("RESULT_DIR")
    if gpu == "cpu":
        args.device = "cpu"
    elif gpu is not None:
        if not gpu.isdigit():
            raise UserError(f"{gpu}: GPU is a device's number, such as 0, or cpu")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        return True
    return False


def trained_task(folder: Path, args: EvaluateArgs) -> str:
    """The task of the run in `folder`, or of the rows that are given; UserError where neither says it."""
    from distill.files import read_json

    if args.train_file or args.dev_file or args.test_file:
        return "own"
    facts = folder / "run.json"
    task = read_json(facts).get("task") if facts.is_file() else None
    if not task:
        raise UserError(f"--task_name is needed: no run.json in {folder} says for which task it was trained")
    return str(task)


def find(method: str, task: str, model_id: Sequence[str]) -> Path:
    """The folder of the model; without an ID the only one there is. UserError lists those that are there."""
    from distill.encoders.folder import CONFIG_FILES

    given = os.environ.get("STUDENT_DIR") if method != "teacher" else None
    if given and any((Path(given) / name).is_file() for name in CONFIG_FILES):
        return Path(given)
    home = Path(given) / task if given else _home(method, task)
    there = sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    wanted = model_id[0] if model_id else there[0] if len(there) == 1 else ""
    if wanted in there:
        return home / wanted
    others = [other for other in TRAINED_BY if wanted and (_home(other, task) / wanted).is_dir()]
    hint = f" ({others[0]} has one of this name)" if others else ""
    if not there:
        raise UserError(f"{home}: no model is there{hint}; {TRAINED_BY[method]} trains one")
    what = f"{home / wanted}: no such model" if wanted else f"{home}: several models, give a MODEL_ID"
    raise UserError(f"{what}{hint}; there are: {', '.join(there)}")


def _home(method: str, task: str) -> Path:
    """Where the method's models of a task are saved by default."""
    return (naming.teacher_dir(task, "-") if method == "teacher" else naming.student_dir(method, task, "-")).parent


if __name__ == "__main__":
    run(main)
