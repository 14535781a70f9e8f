"""Is it the teacher, or only the training? The same student with and without it, compared by a paired bootstrap."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from distill import runtime
from distill.data.tasks import Task
from distill.errors import UserError
from distill.evaluation.predictions import Predictions, load_predictions
from distill.evaluation.statistics import Difference, paired_bootstrap
from distill.files import write_json
from distill.training.monitor import COMPARED, hold


class Arms(Protocol):
    """The flags that are read here."""

    control: int
    seed: int


def run_arms(train: Callable[[Path, int, bool], Path], folder: Path, args: Arms, task: Task) -> Path:
    """Train the distilled student into `folder` and return it; with --control N compare N seeds with N control arms.

    train(folder, seed, distilled): build the student from `seed`, fit it into `folder` (a Run; nothing is done when
        that is finished), evaluate and save, which leaves its dev predictions there. With distilled=False the same
        student, initialisation, steps and batches, on the labels alone. All ranks call it.

    Seeds count up from args.seed. The further runs are folder/control/distilled_seed-SEED and .../alone_seed-SEED. The
    comparison is printed and written to folder/control.json: the fields of `Difference`, mean, verdict and the seeds.
    """
    distilled, alone = [train(folder, args.seed, True)], []
    if not args.control:
        return folder
    if runtime.is_main():
        held = hold(folder)  # until all arms are compared
        (folder / COMPARED).mkdir(exist_ok=True)  # from here on --overwrite leaves finished runs alone
    seeds = range(args.seed, args.seed + args.control)
    for number, seed in enumerate(seeds, start=1):
        if seed != args.seed:
            runtime.log(f"control, seed {seed} ({number} of {args.control}): distilled")
            distilled.append(train(folder / COMPARED / f"distilled_seed-{seed}", seed, True))
        runtime.log(f"control, seed {seed} ({number} of {args.control}): on the labels alone")
        alone.append(train(folder / COMPARED / f"alone_seed-{seed}", seed, False))
    if runtime.is_main():
        found = compare(distilled, alone, task)
        facts = asdict(found) | {"mean": found.mean, "verdict": found.verdict, "seeds": list(seeds)}
        write_json(folder / f"{COMPARED}.json", facts)
        runtime.log(sentence(found))
        del held
    return folder


def compare(first: list[Path], second: list[Path], task: Task) -> Difference:
    """The paired bootstrap of two models' runs, a folder for each seed, on the task's first dev split."""
    ours, theirs = ([dev_predictions(folder, task) for folder in runs] for runs in (first, second))
    return paired_bootstrap(ours, theirs, task)


def dev_predictions(folder: Path, task: Task) -> Predictions:
    """Those of a run on the task's first dev split; UserError where it has none."""
    found, split = load_predictions(folder), task.dev_splits[0]
    if split not in found:
        what = f"its predictions are of {', '.join(found)}, not of {task.name}'s {split}"
        raise UserError(f"{folder}: {what}; evaluate it again")
    return found[split]


def sentence(found: Difference) -> str:
    """The comparison in a line."""
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds} seeds"
    return (
        f"control, {found.metric}: {found.first:.4f} distilled, {found.second:.4f} on the labels alone, difference "
        f"{found.mean:+.4f} (95 % interval {found.low:+.4f} to {found.high:+.4f}; {seeds}, {found.rows} rows): "
        f"{found.verdict}"
    )
