"""What a comparison trains: every recipe of the table, the shares of a budget, and what a killed one has done."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from distill.cli import parse
from distill.errors import UserError
from distill.options import TaskOptions
from tests.recipes.runs import tree
from tools.compare import RECIPES
from tools.comparison import plan as planned
from tools.comparison.plan import Plan, Recipe, chosen, launch, read_recipes, student_layers, task_words

TEACHER = {"num_hidden_layers": 12, "hidden_size": 768}
SHIPPED = read_recipes(RECIPES)
ARGUMENTS = {
    "kd": ("kd.args", "KDArgs"), "distill_lstm": ("distill_lstm.args", "DistillArgs"), "pkd": ("pkd.args", "PKDArgs"),
    "tinybert": ("tinybert.args", "TaskDistillArgs"), "theseus": ("theseus.args", "TheseusArgs"),
    "virt": ("virt.args", "SbertDistillArgs"),
}  # fmt: skip


# The table of recipes


def test_every_distillation_is_in_the_table():
    assert set(SHIPPED) == set(ARGUMENTS)
    for recipe in SHIPPED.values():
        assert recipe.script.is_file() and "run_arms" in recipe.script.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_flags_are_taken_by_the_recipes_own_parser(name):
    """And say what they say: no spelling of a value is read as another."""
    module, cls = ARGUMENTS[name]
    words = SHIPPED[name].words(6, TEACHER)
    common = ["--teacher_path", "t", "--max_steps", "7", "--control", "3", "--output_dir", "o", "--seed", "1"]
    common += ["--device", "cpu", "--forward_precision", "fp32", "--cache_dir", "c", "--cache_limit_gb", "2.0"]
    common += ["--skip_teacher_check", "true", "--overwrite", "true"]
    args = parse(getattr(importlib.import_module(module), cls), [*common, *words])
    assert (args.teacher_path, args.max_steps, args.control, args.seed) == ("t", 7, 3, 1)
    for flag, value in zip(words[::2], words[1::2], strict=True):
        found = getattr(args, flag.removeprefix("--"))
        kinds = {str: str, bool: lambda text: {"true": True, "false": False}[text]}
        assert found == kinds.get(type(found), float)(value)


def test_placeholders():
    assert SHIPPED["theseus"].words(6, TEACHER)[:2] == ["--student_layers", "6"]
    assert "2,4,6,8,10,12" in SHIPPED["tinybert"].words(6, TEACHER)
    words = SHIPPED["distill_lstm"].words(2, {"num_hidden_layers": 4, "hidden_size": 128})
    assert words[words.index("--emb_dim") + 1] == "128" and words[words.index("--lazy_embeddings") + 1] == "true"


def recipe(name, pairs=False, least=1, script=RECIPES):
    return Recipe(name, name.upper(), Path(script), {"a": 1}, pairs, least)


TABLE = {r.name: r for r in (recipe("one"), recipe("pairs", pairs=True), recipe("deep", least=2))}


def test_all_that_fit_the_task():
    names = lambda found: [r.name for r in found[0]]  # noqa: E731
    assert names(chosen(TABLE, "all", True, True, 2)) == ["one", "pairs", "deep"]
    found = chosen(TABLE, "all", True, False, 2)
    assert names(found) == ["one", "deep"] and "--pair_teacher" in found[1]["pairs"]
    found = chosen(TABLE, "all", False, True, 1)
    assert names(found) == ["one"] and set(found[1]) == {"pairs", "deep"} and "two texts" in found[1]["pairs"]
    assert names(chosen(TABLE, "deep, one", False, False, 2)) == ["deep", "one"]
    absent = TABLE | {"new": recipe("new", script="/nowhere/new.py")}
    assert chosen(absent, "all", True, True, 2)[1] == {"new": "/nowhere/new.py is not there"}


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ("one,two", "`two` is unknown; there are one, pairs, deep, and all"),
        ("one,one", "a method is named twice"),
        ("one,pairs", "pairs: for tasks of two texts only"),
        ("deep", "deep: its students have at least 2 layers"),
    ],
)
def test_methods_that_cannot_be(methods, expected):
    with pytest.raises(UserError, match=expected):
        chosen(TABLE, methods, False, True, 1)
    with pytest.raises(UserError, match="none of them can be used here .pairs: for tasks of two texts only."):
        chosen({"pairs": TABLE["pairs"]}, "all", False, True, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kd: [", r"r\.yaml:1: not valid YAML"),
        ("", "expected methods, each with its script and flags"),
        ("kd: {flags: {}}", "`kd`: it has a script and may have flags, label"),
        ("kd: {script: a, colour: b}", "`kd`: it has a script"),
        ("kd: {script: a, label: X}\nk2: {script: a, label: X}", "`k2`: it needs a name .* and a label of its own"),
        ("a/b: {script: a}", "`a/b`: it needs a name without spaces"),
        ("kd: {script: a, flags: [T]}", "`kd`: flags are {name: value}, least_layers and stages numbers"),
        ("kd: {script: a, least_layers: two}", "`kd`: flags are {name: value}, least_layers and stages numbers"),
        (
            "kd: {script: a, flags: {T: '{layer}'}}",
            r"`kd`: T: {layer}: there are {layers}, {spread} and {embedding}, no",
        ),
    ],
)
def test_tables_that_are_none(text, expected, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match=expected):
        read_recipes(tmp_path / "r.yaml")
    with pytest.raises(UserError, match="no such file"):
        read_recipes(tmp_path / "none.yaml")


def test_student_layers():
    assert [student_layers(n, None) for n in (12, 6, 4, 9, 3, 5, 1)] == [6, 3, 2, 3, 1, 1, 1]
    assert student_layers(12, 4) == 4 and student_layers(6, 6) == 6
    with pytest.raises(UserError, match="--student_layers 5: the teacher's 12 layers .* 1, 2, 3, 4, 6, 12"):
        student_layers(12, 5)


def test_the_tasks_flags():
    assert task_words(TaskOptions()) == []
    own = TaskOptions(task_name="own", train_file="a b.csv", regression=True, max_seq_length=64)
    words = ["--task_name", "own", "--train_file", "a b.csv", "--regression", "true", "--max_seq_length", "64"]
    assert task_words(own) == words and parse(TaskOptions, words) == own


# The plan


@pytest.fixture
def launched(monkeypatch):
    """launch without processes: notes the words; a run of `one` takes 0.5 s a step, of `two` 2 s, in two stages."""
    seen, broken = [], []

    def fake(recipe, words):
        seen.append((recipe.name, dict(zip(words[::2], words[1::2], strict=True))))
        if recipe.name in broken:
            raise UserError(f"{recipe.name}: its run ended")
        flags = seen[-1][1]
        folder, steps = Path(flags["--output_dir"]), int(flags["--max_steps"])
        seconds = {"one": 0.5, "two": 1.5}[recipe.name] * steps
        for place, of in ((folder, seconds), (folder / "stages" / "first", 0.5 * steps)):
            if recipe.name == "two" or place == folder:
                place.mkdir(parents=True)
                epochs = {"1": {"seconds": 0.25 * of}, "2": {"seconds": 0.75 * of}}
                (place / "run.json").write_text(json.dumps({"epochs": epochs}))

    monkeypatch.setattr(planned, "launch", fake)
    return SimpleNamespace(seen=seen, broken=broken)


ONE, TWO = recipe("one"), recipe("two")


def test_equal_shares_in_steps(launched, tmp_path):
    plan = Plan(tmp_path / "out", {"seeds": 1})
    for each in (ONE, TWO):
        plan.warm_up(each, ["--x", "1"])
    assert plan.seconds_a_step == {"one": 0.5, "two": 2.0}
    assert [flags["--max_steps"] for _, flags in launched.seen] == ["50", "50"] and "--control" not in launched.seen[0][
        1
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plan.json"]  # warm-ups leave nothing
    plan.fix_steps([ONE, TWO], 0, 61.0)
    assert plan.steps == {"one": 122, "two": 30}
    plan.fix_steps([ONE, TWO], 0, 1000.0)
    assert plan.steps == {"one": 122, "two": 30}  # once for all


def test_a_step_at_least_and_equal_steps(launched, tmp_path):
    plan = Plan(tmp_path / "a", {})
    plan.warm_up(TWO, [])
    plan.fix_steps([TWO], 0, 0.1)
    assert plan.steps == {"two": 1}
    plan = Plan(tmp_path / "b", {})
    plan.fix_steps([ONE, TWO], 9, 0.0)
    assert plan.steps == {"one": 9, "two": 9}


def test_equal_steps_of_stages(launched, tmp_path):
    """A recipe of two stages trains each of them for half of the steps."""
    staged = dataclasses.replace(ONE, name="staged", stages=2)
    plan = Plan(tmp_path / "out", {})
    plan.fix_steps([ONE, staged], 9, 0.0)
    assert plan.steps == {"one": 9, "staged": 4}
    assert SHIPPED["tinybert"].stages == 2 and SHIPPED["kd"].stages == 1
    facts = {"steps": 4, "epochs": {"1": {"seconds": 2.0}}}
    for folder in ("run", "run/stages/intermediate"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "run.json").write_text(json.dumps(facts))
    assert (planned.training_steps(tmp_path / "run"), planned.training_seconds(tmp_path / "run")) == (8, 4.0)


def test_a_killed_plan_goes_on_where_it_was(launched, tmp_path):
    plan = Plan(tmp_path, {"a": 1})
    plan.warm_up(ONE, [])
    launched.broken.append("two")
    with pytest.raises(UserError):
        plan.warm_up(TWO, [])
    launched.broken.clear()

    plan = Plan(tmp_path, {"a": 1})
    for each in (ONE, TWO):
        plan.warm_up(each, [])
    assert [name for name, _ in launched.seen] == ["one", "two", "two"]
    plan.fix_steps([ONE, TWO], 0, 10.0)
    plan.train(ONE, ["--x", "1"], 2)
    name, flags = launched.seen[-1]
    assert (name, flags["--control"], flags["--max_steps"], flags["--x"]) == ("one", "2", "20", "1")
    launched.broken.append("two")
    with pytest.raises(UserError):
        plan.train(TWO, [], 2)
    launched.broken.clear()

    plan = Plan(tmp_path, {"a": 1})
    for each in (ONE, TWO):
        plan.train(each, [], 2)
    assert [name for name, _ in launched.seen[4:]] == ["two", "two"] and set(plan.minutes) == {"one", "two"}


def test_other_settings_and_other_content_are_refused(tmp_path):
    settings = {"teachers": ["0eab"], "methods": {"kd": "--T 1", "pkd": "--T 2"}, "seeds": 1, "budget_minutes": 5.0}
    Plan(tmp_path / "a", settings)
    (tmp_path / "a" / "students").mkdir()
    before = tree(tmp_path)
    other = {"teachers": ["b2a8"], "methods": {"kd": "--T 3", "virt": "--T 2"}, "seeds": 2, "budget_minutes": 5.0}
    with pytest.raises(UserError) as error:
        Plan(tmp_path / "a", other)
    assert str(error.value) == (
        f"--output_dir {tmp_path / 'a'}: holds another comparison (other teachers; other flags of kd; methods kd,pkd "
        "there, kd,virt now; seeds 1 there, 2 now); choose another --output_dir"
    )
    assert tree(tmp_path) == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no comparison"):
        Plan(tmp_path / "b", {})
    assert os.listdir(tmp_path / "b") == ["thesis.txt"]


def test_a_folder_in_which_nothing_was_trained_takes_other_settings(launched, tmp_path):
    launched.broken.append("one")
    plan = Plan(tmp_path, {"teachers": ["wrong"]})
    plan.fix_steps([ONE], 5, 0.0)
    with pytest.raises(UserError):
        plan.train(ONE, [], 1)
    launched.broken.clear()
    plan = Plan(tmp_path, {"teachers": ["right"]})
    assert plan.steps == {} and json.loads((tmp_path / "plan.json").read_text())["settings"] == {"teachers": ["right"]}


# Processes

STUB = """
import signal, sys, time
from pathlib import Path
def stop(number, frame):
    Path("stopped").write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
Path("words").write_text(" ".join(sys.argv[1:]))
if "--wait" in sys.argv:
    time.sleep(30)
sys.exit(3 if "--fail" in sys.argv else 0)
"""


def test_a_failing_recipe_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    launch(recipe("stub", script=stub), ["--a", "1"])
    assert (tmp_path / "words").read_text() == "--a 1"
    with pytest.raises(UserError, match=r"stub: its run ended with status 3, .*stub\.py --fail"):
        launch(recipe("stub", script=stub), ["--fail"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_recipe_stops_with_the_comparison(number, tmp_path):
    """Asked to, or because the comparison was killed outright: never do two processes train in one folder."""
    if number == signal.SIGKILL and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells a process that its parent died")
    (tmp_path / "stub.py").write_text(STUB)
    code = (
        "from pathlib import Path; from distill.cli import run; from tools.comparison.plan import Recipe, launch; "
        "run(lambda: launch(Recipe('stub', 'stub', Path('stub.py'), {}, False, 1), ['--wait']))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    wait_for(tmp_path / "words")
    time.sleep(0.2)
    parent.send_signal(number)
    wait_for(tmp_path / "stopped")
    assert parent.wait(10) == (143 if number == signal.SIGTERM else -signal.SIGKILL)


def wait_for(path):
    until = time.monotonic() + 20
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < until, f"{path} has not appeared"
        time.sleep(0.02)


def test_the_table_is_data_only():
    """Its head comment explains every key that occurs."""
    table = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))
    used = {key for entry in table.values() for key in entry}
    head = RECIPES.read_text(encoding="utf-8").split("\nkd:")[0]
    assert used <= {"script", "flags", "label", "teacher", "least_layers", "stages"}
    assert all(f"#   {key}" in head for key in used - {"script"})
