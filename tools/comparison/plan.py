"""Every method trained under one budget: which recipes, how many steps each, and what a killed comparison has done.

Each recipe runs as a process of its own, so that memory and threads are as in any run of it, and with --control, which
trains all its seeds, each beside its control arm. The recipes resume by themselves; plan.json says which are finished.
"""

import ctypes
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from distill import runtime
from distill.errors import UserError
from distill.files import read_json, write_json
from distill.naming import ROOT
from distill.options import TaskOptions

WARM_UP_STEPS = 50
_KEYS = {"label", "script", "flags", "teacher", "least_layers", "stages"}


@dataclass(frozen=True)
class Recipe:
    """A line of recipes.yaml; flags hold {layers}, {spread} and {embedding} still."""

    name: str
    label: str
    script: Path
    flags: Mapping[str, Any]
    of_pairs: bool
    least_layers: int
    stages: int = 1

    def refusal(self, pair: bool, pair_teacher: bool, layers: int) -> str | None:
        """Why it cannot be used for a task of two texts, `pair`, or one, with a teacher of pairs or without, and a
        student of so many layers."""
        if not self.script.is_file():
            return f"{self.script} is not there"
        if self.of_pairs and not pair:
            return "for tasks of two texts only"
        if self.of_pairs and not pair_teacher:
            return "it needs --pair_teacher, a folder that virt/run_classifier_bipartition.py made"
        if layers < self.least_layers:
            return f"its students have at least {self.least_layers} layers"
        return None

    def words(self, layers: int, teacher: Mapping[str, Any]) -> list[str]:
        """Its own flags for a student of so many layers; teacher: the config of a BERT."""
        depth = teacher["num_hidden_layers"]
        spread = ",".join(str(i * depth // layers) for i in range(1, layers + 1))
        sizes = {"layers": layers, "spread": spread, "embedding": min(300, teacher["hidden_size"])}
        return _words({name: _spelled(value).format(**sizes) for name, value in self.flags.items()})


def read_recipes(path: str | Path) -> dict[str, Recipe]:
    """The recipes of a YAML in the form of recipes.yaml, whose scripts are relative to the project.

    Raises UserError naming file and method.
    """
    try:
        table = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise UserError(f"{path}:{line}: not valid YAML") from None
    if not isinstance(table, dict) or not table:
        raise UserError(
            f"{path}: expected methods, each with its script and flags, as in tools/comparison/recipes.yaml"
        )
    found: dict[str, Recipe] = {}
    for name, entry in table.items():
        if not isinstance(entry, dict) or "script" not in entry or not set(entry) <= _KEYS:
            raise UserError(f"{path}: `{name}`: it has a script and may have {', '.join(sorted(_KEYS - {'script'}))}")
        pairs, least, stages = entry.get("teacher") == "pairs", entry.get("least_layers", 1), entry.get("stages", 1)
        label, flags = str(entry.get("label", name)), entry.get("flags") or {}
        if not isinstance(flags, dict) or not isinstance(least, int) or not isinstance(stages, int) or stages < 1:
            raise UserError(f"{path}: `{name}`: flags are {{name: value}}, least_layers and stages numbers")
        for flag, value in flags.items():
            try:
                _spelled(value).format(layers=1, spread="1", embedding=1)
            except (KeyError, IndexError, ValueError):
                known = "{layers}, {spread} and {embedding}"
                raise UserError(f"{path}: `{name}`: {flag}: {value}: there are {known}, no others") from None
        if not re.fullmatch(r"[\w.-]+", str(name)) or label in {other.label for other in found.values()}:
            raise UserError(f"{path}: `{name}`: it needs a name without spaces, for its folder, and a label of its own")
        found[str(name)] = Recipe(str(name), label, ROOT / str(entry["script"]), flags, pairs, least, stages)
    return found


def chosen(
    recipes: Mapping[str, Recipe], methods: str, pair: bool, pair_teacher: bool, layers: int
) -> tuple[list[Recipe], dict[str, str]]:
    """(the recipes of `methods`, those left out of `all` with the reason). UserError for one that cannot be used."""
    wanted = list(recipes) if methods == "all" else [name.strip() for name in methods.split(",")]
    for name in wanted:
        if name not in recipes:
            raise UserError(f"--methods {methods}: `{name}` is unknown; there are {', '.join(recipes)}, and all")
    if len(set(wanted)) < len(wanted):
        raise UserError(f"--methods {methods}: a method is named twice")
    refused = {name: why for name in wanted if (why := recipes[name].refusal(pair, pair_teacher, layers))}
    if refused and methods != "all":
        name, why = next(iter(refused.items()))
        raise UserError(f"--methods {methods}: {name}: {why}")
    if len(refused) == len(wanted):
        why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise UserError(f"--methods {methods}: none of them can be used here ({why})")
    return [recipes[name] for name in wanted if name not in refused], refused


def student_layers(teacher_layers: int, wanted: int | None) -> int:
    """`wanted`, or the largest divisor of the teacher's layers that is at most half of them.

    UserError unless it divides the teacher's layers: methods that pair layers need that.
    """
    fitting = [k for k in range(1, teacher_layers + 1) if teacher_layers % k == 0]
    if wanted is None:
        return max((k for k in fitting if 2 * k <= teacher_layers), default=1)
    if wanted not in fitting:
        known = ", ".join(map(str, fitting))
        raise UserError(f"--student_layers {wanted}: the teacher's {teacher_layers} layers must divide evenly: {known}")
    return wanted


def task_words(options: TaskOptions, leave_out: Collection[str] = ()) -> list[str]:
    """The flags of a task that are not the defaults, but for those called `leave_out`."""
    values = {f.name: (getattr(options, f.name), f.default) for f in fields(TaskOptions) if f.name not in leave_out}
    return _words({name: _spelled(value) for name, (value, default) in values.items() if value != default})


class Plan:
    """plan.json of a comparison's folder: its settings, the seconds of a step, the steps, and what is finished.

    A folder whose settings are the same is continued. Raises UserError for one with students of other settings, and for
    one that holds something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self._path = folder, folder / "plan.json"
        if self._path.is_file():
            self._state: dict[str, Any] = read_json(self._path)
            differing = _differences(self._state["settings"], settings)
            if not differing:
                return
            if (folder / "students").exists():
                raise UserError(
                    f"--output_dir {folder}: holds another comparison ({'; '.join(differing)}); choose another "
                    "--output_dir"
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--output_dir {folder}: is not empty and holds no comparison; choose another --output_dir")
        self._state = {"settings": dict(settings), "seconds_a_step": {}, "steps": {}, "minutes": {}, "finished": []}
        self._write()

    def _write(self) -> None:
        write_json(self._path, self._state)

    @property
    def seconds_a_step(self) -> dict[str, float]:
        """Of each method, as the warm-up found them; {} without a budget."""
        return dict(self._state["seconds_a_step"])

    @property
    def steps(self) -> dict[str, int]:
        """Of each method, once they are fixed: those of each of its stages."""
        return dict(self._state["steps"])

    @property
    def minutes(self) -> dict[str, float]:
        """What each method's processes have taken in all."""
        return dict(self._state["minutes"])

    def student(self, name: str) -> Path:
        """The folder of a method's student; its other seeds and control arms are below it."""
        return self.folder / "students" / name

    def warm_up(self, recipe: Recipe, words: Sequence[str]) -> None:
        """Find out how long one of its steps takes, unless that is known."""
        if recipe.name in self._state["seconds_a_step"]:
            return
        folder = self.folder / "warm_up" / recipe.name
        runtime.log(f"\n== {recipe.label}: {WARM_UP_STEPS} steps to find its speed")
        launch(recipe, [*words, "--max_steps", str(WARM_UP_STEPS), "--output_dir", str(folder), "--overwrite", "true"])
        self._state["seconds_a_step"][recipe.name] = training_seconds(folder) / WARM_UP_STEPS
        self._write()
        shutil.rmtree(self.folder / "warm_up")

    def fix_steps(self, recipes: Sequence[Recipe], steps: int, share: float) -> None:
        """`steps` for each of the recipes, its stages together, or, when that is 0, as many as take `share` seconds.

        They are fixed once for all.
        """
        if not self._state["steps"]:
            each = self._state["seconds_a_step"]
            fitting = {r.name: steps // r.stages if steps else int(share / each[r.name]) for r in recipes}
            self._state["steps"] = {name: max(1, count) for name, count in fitting.items()}
            self._write()

    def train(self, recipe: Recipe, words: Sequence[str], seeds: int) -> None:
        """Train all seeds of it and their control arms, unless that is done."""
        if recipe.name in self._state["finished"]:
            runtime.log(f"{recipe.label}: finished before")
            return
        started, steps = time.monotonic(), self.steps[recipe.name]
        words = [*words, "--max_steps", str(steps), "--output_dir", str(self.student(recipe.name))]
        try:
            launch(recipe, [*words, "--control", str(seeds)])
        finally:
            spent = self._state["minutes"].get(recipe.name, 0.0)
            self._state["minutes"][recipe.name] = round(spent + (time.monotonic() - started) / 60, 3)
            self._write()
        self._state["finished"].append(recipe.name)
        self._write()


def _differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what a plan's settings differ: values where they are short, methods by their names."""
    found = []
    for name in {**there, **now}:
        before, after = there.get(name), now.get(name)
        if before == after:
            continue
        if name == "methods" and before and after:
            found += [
                f"other flags of {method}" for method in before if before[method] != after.get(method, before[method])
            ]
            before, after = ",".join(before), ",".join(after)
        if name in ("teachers", "rows"):
            found.append(f"other {name}")
        elif before != after:
            found.append(f"{name} {before} there, {after} now")
    return found


def training_steps(folder: Path) -> int:
    """Steps of a run and of its earlier stages."""
    return sum(facts["steps"] for facts in _stages(folder))


def training_seconds(folder: Path) -> float:
    """Wall-clock seconds of the steps of a run and of its earlier stages: data, teacher and student, no evaluation."""
    return sum(epoch["seconds"] for facts in _stages(folder) for epoch in facts["epochs"].values())


def _stages(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path) for path in (folder / "run.json", *sorted(folder.glob("stages/*/run.json")))]


def launch(recipe: Recipe, words: Sequence[str]) -> None:
    """Run a recipe's script to its end, its output as it comes. Raises UserError when it fails.

    When this process is asked to stop, the recipe is, and saves its state first.
    """
    command = [sys.executable, str(recipe.script), *words]
    child = subprocess.Popen(command, preexec_fn=_die_with_parent if sys.platform.startswith("linux") else None)
    try:
        status = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if status in (130, 143):
        raise SystemExit(status)
    if status:
        shown = shlex.join(["python", *command[1:]])
        raise UserError(
            f"{recipe.name}: its run ended with status {status}, see above; mend that and run the same command, it "
            f"continues ({shown})"
        )


def _die_with_parent() -> None:
    """Killed outright this process asks nobody to stop: the kernel does, lest two processes train in one folder."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(values: Mapping[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", value)]
