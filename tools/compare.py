"""Train every method for one teacher under one budget and choose a student; or put finished models beside each other.

    python tools/compare.py --task_name SST-2 --data_dir data/glue_data --teacher my_teacher --methods all \
        --budget_minutes 240 --seeds 3 --output_dir comparison
    python tools/compare.py --train_file train.csv --dev_file dev.csv --text_column review --label_column stars \
        --teacher my_teacher --methods kd,pkd --budget_minutes 60 --max_p95_ms 5 --max_drop 1 --output_dir comparison
    python tools/compare.py --folders my_teacher my_student --task_name SST-2 --data_dir data/glue_data
    python tools/compare.py my_models.yaml --task_name SST-2 --data_dir data/glue_data --output_dir my_table
    python tools/compare.py own_models.yaml --train_file train.csv --dev_file dev.csv --output_dir my_table

With --teacher the methods of tools/comparison/recipes.yaml are trained, each beside its control arm, with one cache of
the teacher's outputs and equal training time; the same command continues a comparison that was killed. Written are
compare.json, .md, .csv, .html (the report), analysis.json, pictures/, vdl_log/ for VisualDL and cascade/METHOD.json,
whose cascade_threshold a bundle can carry. --max_p95_ms, --max_drop and --max_mb choose the cheapest student that keeps
them all, that of the lowest p95 latency; when none does, all is written and the exit status is 1.

A YAML names finished models, the reference first, each with the folder of its run for every task: the runs of further
seeds and the control arms that --control has put into that folder are found there. Your own data, whose rows are given
by --train_file and --dev_file, is called own in it. The models of --task_name, or of your own data, are timed side by
side, on the same rows, in this process. Written are NAME.json (everything that was found), and from it NAME.md, .csv,
.html and .png; such a JSON in place of the YAML is only written out again.

    models:
      - label: BERT_base (reported)
        scores: {SST-2: 0.927, MRPC: 0.886}
      - label: teacher
        runs: {SST-2: models/teacher_model/SST-2/ID, MRPC: models/teacher_model/MRPC/ID}
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simple_parsing import field

from distill import runtime
from distill.cli import parse, run
from distill.errors import UserError
from distill.files import read_json, require_writable, write_atomic, write_json
from distill.options import RuntimeOptions, TaskOptions, TeacherOptions, option
from tools.comparison import students, tables
from tools.comparison.tables import chart
from tools.terminal import show

if TYPE_CHECKING:
    from distill.data.readers import Rows
    from distill.data.tasks import Task
    from distill.encoders.folder import ModelFolder
    from tools.comparison.plan import Plan, Recipe

__all__ = ["chart", "main", "markdown"]

RECIPES = Path(__file__).parent / "comparison" / "recipes.yaml"
_LIMITS = ("max_p95_ms", "max_drop", "max_mb")


@dataclass
class CompareArgs(TaskOptions, TeacherOptions, RuntimeOptions):
    """Compare models: train them all for one teacher, or read finished ones."""

    source: str = field(default="", positional=True, nargs="?", help="YAML of the models, or JSON of a comparison")
    folders: list[str] = field(default_factory=list, help="instead of a YAML: folders of models of --task_name")
    teacher_path: str | None = option(
        None, "train students of this teacher, a fine-tuned BERT: its folder, or a weight file in it",
        alias=("teacher", "teacher_dir"),
    )  # fmt: skip
    pair_teacher: str | None = option(
        None, "tasks of two texts: the teacher of VIRT, a folder that virt/run_classifier_bipartition.py made; without "
        "it that method is left out",
    )  # fmt: skip
    max_seq_length: int | None = option(
        None, "longest input in tokens, special tokens counted; without it that of the teacher's run.yaml, or of each "
        "finished model's", low=4,
    )  # fmt: skip
    methods: str = option("all", "with --teacher: methods of --recipes, such as kd,pkd, or all that fit the task")
    recipes: str | None = option(
        None, "with --teacher: YAML with each method's script and flags; without it tools/comparison/recipes.yaml"
    )
    budget_minutes: float | None = option(
        None, "time for all training together, in equal shares; cache, evaluation and 50 timed steps each come on top",
        above=0,
    )  # fmt: skip
    max_steps: int | None = option(None, "instead of a budget: steps of each student", low=1)
    seeds: int = option(1, "with --teacher: runs of each method, and of its control arm", low=1)
    seed: int = option(42, "the first of the seeds, which count up", low=0)
    student_layers: int | None = option(
        None, "layers of the students that are BERTs; without it at most half of the teacher's", low=1
    )
    max_p95_ms: float | None = option(None, "choose a student: highest p95 latency of one text, in ms", above=0)
    max_drop: float | None = option(None, "choose a student: most points of 100 below the teacher", low=0)
    max_mb: float | None = option(None, "choose a student: largest weight file in MB of 10^6 bytes", above=0)
    output_dir: str | None = option(
        None, "where the results are written: a new folder with --teacher; otherwise without it the current one"
    )
    name: str = option("", "name of the results; without it the YAML's, or compare")
    rounds: int = option(3, "each model is timed this often, in turn; the median counts", low=1)
    eval_batch_size: int = option(128, "rows a batch, for the time of the whole dev set", low=1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns what the JSON holds; raises SystemExit with status 1 when no student keeps the limits."""
    args = parse(CompareArgs, argv, __doc__)
    if bool(args.source) + bool(args.folders) + bool(args.teacher_path) != 1:
        raise UserError(
            "give a YAML of the models, or --folders, or --teacher to train students: "
            "python tools/compare.py --folders TEACHER STUDENT ..."
        )
    if args.teacher_path:
        _check_training(args)
        return train_and_compare(args)
    for name in ("budget_minutes", "max_steps", "student_layers", *_LIMITS):
        if getattr(args, name) is not None:
            raise UserError(f"--{name}: needs --teacher, whose students are trained and compared")
    if args.source.endswith(".json"):
        result = read_json(args.source)
        if not _is_comparison(result):
            raise UserError(f"{args.source}: not a comparison that this tool has written")
        write_tables(result, Path(args.source).with_suffix(""))
        return dict(result)
    return compare_finished(args)


def _is_comparison(result: Any) -> bool:
    if not isinstance(result, dict) or "hardware" not in result:
        return False
    return "students" in result or isinstance(result.get("models"), list)


def _require_own(path: Path) -> None:
    """Raise UserError where the table `path`.* would replace files that this tool has not written."""
    there = [Path(f"{path}{suffix}") for suffix in (".json", ".md", ".csv", ".html", ".png")]
    there = [file for file in there if file.exists()]
    if there and not (there[0].suffix == ".json" and _is_comparison(read_json(there[0]))):
        raise UserError(
            f"{there[0]}: would be replaced, and is of no comparison; choose another --name or --output_dir"
        )


def compare_finished(args: CompareArgs) -> dict[str, Any]:
    """The table of finished models."""
    runtime.start(args.device)
    from distill.data.tasks import load_task
    from tools.comparison.finished import gather, of_folders, read_models, require_results, time_them

    timed = load_task(args)
    models = read_models(args.source, timed) if args.source else of_folders(args.folders, timed.name)
    require_results(models)
    path = Path(args.output_dir or ".") / (args.name or (Path(args.source).stem if args.source else "compare"))
    require_writable(path.parent)
    _require_own(path)
    times = time_them(models, timed, args, args.rounds, args.eval_batch_size)
    result: dict[str, Any] = {"models": gather(models, timed), "timed": times}
    for row, model in zip(result["models"], models, strict=True):
        row.update(result["timed"]["models"].get(model["runs"].get(timed.name), {}))
    del result["timed"]["models"]
    result |= {"command": runtime.command(), "versions": runtime.versions(), "hardware": runtime.hardware()}
    write_json(f"{path}.json", result)
    write_tables(result, path)
    show(markdown(result))
    return result


def _check_training(args: CompareArgs) -> None:
    if (args.budget_minutes is None) == (args.max_steps is None):
        raise UserError("--teacher needs --budget_minutes, the time for all training, or --max_steps of each student")
    if args.output_dir is None:
        raise UserError("--teacher needs --output_dir, a new folder for the students and the report")
    if args.name in ("plan", "analysis"):
        raise UserError(f"--name {args.name}: a file of the comparison itself is called so; choose another name")


def _teacher(flag: str, path: str, task: "Task", of_pairs: bool) -> "ModelFolder":
    """The teacher's folder. Raises UserError for one of the other kind or of another task."""
    from distill.encoders.folder import find_model

    found = find_model(path)
    if ("pairs" in read_json(found.config_file)) != of_pairs:
        needed = (
            "virt/run_classifier_bipartition.py makes" if of_pairs else "glue/run_glue.py makes; that is --pair_teacher"
        )
        raise UserError(f"{flag} {path}: not a teacher such as {needed}")
    if found.num_outputs != task.num_outputs:
        raise UserError(
            f"{flag} {path}: its head has {found.num_outputs} outputs, {task.name} needs {task.num_outputs}; pass a "
            "model that was fine-tuned on this task"
        )
    return found


def train_and_compare(args: CompareArgs) -> dict[str, Any]:
    """The students of one teacher: trained where they are not yet, then compared."""
    assert args.teacher_path is not None and args.output_dir is not None
    runtime.start(args.device)
    import numpy as np

    from distill.data.tasks import load_rows, load_task
    from distill.files import sha256
    from models.predictor import trained_length
    from tools.comparison import plan as planned

    # What is to be done, checked as far as it can be before the first step.
    task, home = load_task(args), Path(args.output_dir)
    teacher = _teacher("--teacher", args.teacher_path, task, False)
    args.max_seq_length = args.max_seq_length or trained_length(teacher.folder)
    rows = {split: load_rows(args, task, split) for split in ("train", task.dev_splits[0])}
    teacher.check_length(args.max_seq_length)
    if task.pair:
        teacher.check_pairs()
    answers = np.asarray(rows[task.dev_splits[0]].labels, np.float64)
    if (answers >= 0 if task.num_outputs > 1 else np.isfinite(answers)).sum() < 2:
        raise UserError(f"{rows[task.dev_splits[0]].source}: fewer than 2 rows with a label; models cannot be compared")
    layers = planned.student_layers(teacher.config["num_hidden_layers"], args.student_layers)
    recipes, left_out = planned.chosen(
        planned.read_recipes(args.recipes or RECIPES), args.methods, task.pair, args.pair_teacher is not None, layers
    )
    common = [*planned.task_words(args), "--teacher_path", args.teacher_path]
    if args.pair_teacher:  # which knows how long its texts are
        of_pairs = [*planned.task_words(args, ["max_seq_length"]), "--teacher_path", args.pair_teacher]
    words = {r.name: (of_pairs if r.of_pairs else common) + r.words(layers, teacher.config) for r in recipes}
    flags = ["--seed", str(args.seed), "--device", args.device, "--forward_precision", args.forward_precision]
    cosmetic = ["--cache_dir", args.cache_dir, "--cache_limit_gb", str(args.cache_limit_gb)]
    cosmetic += ["--skip_teacher_check", "true"] if args.skip_teacher_check else []
    teachers = [teacher, *([_teacher("--pair_teacher", args.pair_teacher, task, True)] if args.pair_teacher else [])]
    settings = {
        "teachers": [sha256(of.weights) for of in teachers], "rows": [split.digest() for split in rows.values()],
        "flags": flags, "methods": {name: shlex.join(own) for name, own in words.items()},
        "budget_minutes": args.budget_minutes, "max_steps": args.max_steps, "seeds": args.seeds,
    }  # fmt: skip
    if args.max_steps:
        settings["stages"] = {recipe.name: recipe.stages for recipe in recipes if recipe.stages > 1}
    words = {name: [*own, *flags, *cosmetic] for name, own in words.items()}
    plan = planned.Plan(home, settings)
    for name, why in left_out.items():
        runtime.log(f"left out: {name}: {why}")

    # Equal shares of the budget, in steps.
    arms = 2 * args.seeds * len(recipes)
    share = 60 * (args.budget_minutes or 0) / arms
    if args.budget_minutes:
        for recipe in recipes:
            plan.warm_up(recipe, words[recipe.name])
    plan.fix_steps(recipes, args.max_steps or 0, share)
    for recipe in recipes:
        each = plan.seconds_a_step.get(recipe.name)
        speed = f", {each:.3g} s each" if each else ""
        stages = f" of each of {recipe.stages} stages" if recipe.stages > 1 else ""
        runtime.log(f"{recipe.label}: {plan.steps[recipe.name]:,} steps{stages}{speed}")

    for number, recipe in enumerate(recipes, start=1):
        minutes = share * 2 * args.seeds * (len(recipes) - number + 1) / 60
        left = f", about {minutes:.0f} min of training left" if share else ""
        runtime.log(f"\n== {number}/{len(recipes)}  {recipe.label}: {args.seeds} seed(s) with and without it{left}")
        plan.train(recipe, words[recipe.name], args.seeds)

    facts: dict[str, Any] = {
        "minutes": args.budget_minutes, "each": share / 60, "steps": args.max_steps, "methods": len(recipes),
        "seeds": args.seeds, "warm_up": planned.WARM_UP_STEPS, "rounds": args.rounds, "left_out": left_out,
        "of_pairs": [recipe.label for recipe in recipes if recipe.of_pairs], "pair_teacher": args.pair_teacher,
    }  # fmt: skip
    return report(args, task, rows[task.dev_splits[0]], plan, recipes, facts)


def report(
    args: CompareArgs, task: "Task", dev: "Rows", plan: "Plan", recipes: "Sequence[Recipe]", facts: dict[str, Any]
) -> dict[str, Any]:
    """Measure the finished students beside their teacher and write everything."""
    from tools.comparison import analysis, measure
    from tools.comparison.board import write_board
    from tools.comparison.report import write_report
    from tools.latency import side_by_side

    assert args.teacher_path is not None
    runtime.log("\n== the students beside their teacher")
    found = measure.read_students(plan, recipes, task)
    teacher = measure.predict(
        args.teacher_path, dev, args.max_seq_length, args.eval_batch_size, plan.folder / "teacher"
    )
    folders = [args.teacher_path, *(str(student.folder) for student in found)]
    times = side_by_side(folders, dev, args.rounds, args.eval_batch_size, args.max_seq_length)
    first, *others = measure.table_rows(found, (args.teacher_path, *teacher), times, plan, task)
    result: dict[str, Any] = {"teacher": first, "students": others, "plan": facts, "choice": None}
    result |= {"command": runtime.command(), **measure.facts(task, len(dev))}
    if limits := {name: getattr(args, name) for name in _LIMITS if getattr(args, name) is not None}:
        result["choice"] = measure.choose(others, limits)
        result["choice"]["said"] = measure.verdict(result["choice"])

    tolerance = (analysis.TOLERANCE if args.max_drop is None else args.max_drop) / 100
    analysed = analysis.analyse(found, teacher[0], dev, task, tolerance)
    home = plan.folder
    kept = {row["label"]: row["folder"] for row in others}
    analysis.write_cascades(analysed, kept, args.teacher_path, task, home / "cascade")
    path = home / (args.name or "compare")
    write_json(home / "analysis.json", analysed)
    write_json(f"{path}.json", result)
    write_tables(result, path)
    write_board(result, write_report(result, analysed, Path(f"{path}.html")), home / "vdl_log")
    show(markdown(result))
    print(f"\nreport: {path}.html")
    if result["choice"]:
        print("\n".join(result["choice"]["said"]))
        if result["choice"]["chosen"] is None:
            raise SystemExit(1)
    return result


def write_tables(result: dict[str, Any], path: Path) -> None:
    """Write `path`.md and .csv, and of finished models .html and .png."""
    if "students" in result:
        write_atomic(f"{path}.md", markdown(result) + "\n")
        write_atomic(f"{path}.csv", students.comma_separated(result))
    else:
        tables.write_tables(result, path)


def markdown(result: dict[str, Any], language: str = "en") -> str:
    """The table of a result of either kind."""
    return students.markdown(result, language) if "students" in result else tables.markdown(result, language)


if __name__ == "__main__":
    run(main)
