"""The house keeps its floors: imports go downward only, no recipe knows another, nothing goes in circles, and the
code of the library names no method (docstrings and comments may: a formula names its paper).

Read from the source by `ast`; nothing is imported.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RECIPES = ("glue", "kd", "distill_lstm", "tinybert", "data_augmentation", "pkd", "theseus", "virt", "multistage")

# A unit is a recipe, `tools`, `models` or a package of the library. It may import itself and the units of lower floors,
# nothing beside it. Modules that lie directly in distill/ are one unit, the ground. Tools may run recipes (as
# the demo does); no recipe may know a tool.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("distill",),
    ("distill.data", "distill.losses", "distill.encoders"),
    ("distill.teachers",),
    ("distill.evaluation", "distill.deploy"),
    ("distill.training",),
    ("models",),
    RECIPES,
    ("tools",),
    ("benchmarks",),
)
FLOOR = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}

METHODS = (
    ("tinybert",), ("tiny", "bert"), ("pkd",), ("patient",), ("theseus",), ("virt",),
    ("lstm",), ("bilstm",), ("bi", "lstm"), ("multistage",), ("multi", "stage"),
)  # fmt: skip


def sources() -> dict[str, Path]:
    """Dotted module name -> file, for every module of the house."""
    found = {}
    for top in {unit.split(".")[0] for unit in FLOOR}:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def unit_of(module: str) -> str | None:
    """The unit a module belongs to; None for what is not of the house."""
    parts = module.split(".")
    if parts[0] == "distill":
        return ".".join(parts[:2]) if ".".join(parts[:2]) in FLOOR else "distill"
    return parts[0] if parts[0] in FLOOR else None


def for_annotations(tree: ast.AST) -> set[int]:
    """The lines under `if TYPE_CHECKING:`; what is imported there is named in annotations and never runs."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for line in range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1)
    }


def imports(tree: ast.AST, known: set[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, wherever it stands: at the top, in a function, or by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
            else:
                for alias in node.names:  # `from distill.data import tasks` imports the module distill.data.tasks
                    inner = f"{node.module}.{alias.name}"
                    yield node.lineno, inner if inner in known else str(node.module)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def refusal(importer: str, imported: str, annotation: bool = False) -> str | None:
    """Why `importer` must not import `imported`, or None. Annotations may name a neighbour's class."""
    if imported.startswith("."):
        return "relative import; the house imports by full names"
    here, there = unit_of(importer), unit_of(imported)
    if imported.split(".")[0] in ("tests", "conftest"):
        return "a test is no part of the house"
    if here is None or there is None or here == there:
        return None
    if here in RECIPES and there in RECIPES:
        return "a recipe imports another; what two need goes into distill/"
    if FLOOR[there] > FLOOR[here]:
        return "upward import"
    if FLOOR[there] == FLOOR[here] and not annotation:
        return "import from the same floor"
    return None


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """One circle as a path that ends where it began, or None."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return path[path.index(module) :] + [module]
        if module in done:
            return None
        for following in sorted(graph.get(module, ())):
            if found := walk(following, [*path, module]):
                return found
        done.add(module)
        return None

    for module in sorted(graph):
        if found := walk(module, []):
            return found
    return None


def words(text: str) -> list[str]:
    """The lower-cased words of source text, identifiers taken apart: `nn.GRU(myBert_dir)` -> nn gru my bert dir."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    return re.findall(r"[a-z]+", apart.lower())


def methods_named(text: str) -> list[str]:
    seen = words(text)
    return ["".join(m) for m in METHODS if any(tuple(seen[i : i + len(m)]) == m for i in range(len(seen)))]


def code_tokens(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every token but comments and docstrings: identifiers, and the strings that the program uses."""
    prose = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT and not (token.type == tokenize.STRING and token.start[0] in prose):
            yield token.start[0], token.string


SOURCES = sources()
TREES = {module: ast.parse(path.read_bytes(), str(path)) for module, path in SOURCES.items()}


def test_no_import_goes_upward_or_sideways() -> None:
    wrong = []
    for module, tree in TREES.items():
        named_only = for_annotations(tree)
        for line, imported in imports(tree, set(SOURCES)):
            if why := refusal(module, imported, line in named_only):
                wrong.append(f"{SOURCES[module].relative_to(ROOT)}:{line}: imports {imported}: {why}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_no_circle() -> None:
    graph = {
        module: {imported for _, imported in imports(tree, set(SOURCES)) if imported in SOURCES and imported != module}
        for module, tree in TREES.items()
    }
    found = circle(graph)
    assert found is None, " -> ".join(found or [])


def test_the_library_names_no_method() -> None:
    wrong = []
    for module, path in SOURCES.items():
        if module.split(".")[0] == "distill":
            wrong += [f"{path.relative_to(ROOT)}: its name: {m}" for m in methods_named(module)]
            for line, text in code_tokens(path.read_text(encoding="utf-8")):
                wrong += [f"{path.relative_to(ROOT)}:{line}: {m}" for m in methods_named(text)]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_package_of_the_library_has_a_floor() -> None:
    packages = {f"distill.{path.parent.name}" for path in (ROOT / "distill").glob("*/__init__.py")}
    assert packages and packages <= set(FLOOR)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("distill.training.fit", "distill.errors", True),
        ("distill.training.fit", "distill.training.schedule", True),
        ("distill.training.fit", "numpy", True),
        ("glue.run_glue", "models.bilstm", True),
        ("tools.demo", "distill.data.demo", True),
        ("tools.demo", "glue.run_glue", True),
        ("distill.errors", "distill.data.tasks", False),
        ("distill.training.control", "distill.evaluation.statistics", True),
        ("distill.evaluation.evaluate", "distill.training.fit", False),
        ("distill.deploy.export", "distill.evaluation.evaluate", False),
        ("distill.data.tasks", "models", False),
        ("distill_lstm.small", "glue.args", False),
        ("distill_lstm.small", "tools.demo", False),
        ("glue.run_glue", ".args", False),
        ("tools.demo", "tests.tiny", False),
    ],
)
def test_refusal(importer: str, imported: str, allowed: bool) -> None:
    assert (refusal(importer, imported) is None) == allowed


def test_annotations_may_name_a_neighbour_but_nothing_above() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    import a\n    import b\nelse:\n    import c\nimport d")
    assert for_annotations(tree) == {2, 3}
    assert refusal("distill.encoders.folder", "distill.data.wordpiece") is not None
    assert refusal("distill.encoders.folder", "distill.data.wordpiece", annotation=True) is None
    assert refusal("distill.encoders.folder", "distill.teachers.teacher", annotation=True) is not None


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b\nfrom c import d, e\nfrom . import f\ndef g():\n    import h\nimportlib.import_module('i')\n"
    assert sorted(imports(ast.parse(source), {"c", "c.d"})) == [
        (1, "a.b"), (2, "c"), (2, "c.d"), (3, "."), (5, "h"), (6, "i"),
    ]  # fmt: skip


def test_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_methods_are_recognised_and_their_neighbours_are_not() -> None:
    assert methods_named("class TinyBertLoss: pkd_beta = 'TinyBERT'") == ["tinybert", "tinybert", "pkd"]
    assert methods_named("nn.LSTM, BiLSTM, multi-stage") == ["lstm", "bilstm", "multistage"]
    assert methods_named("a virtual environment, patience, virtue, a tiny Bertram") == []


def test_docstrings_and_comments_are_no_code() -> None:
    source = '"""PKD."""\ndef f():\n    """TinyBERT, eq. 7,\n    and Theseus."""\n    return "virt", pkd  # LSTM\n'
    named = [(line, m) for line, text in code_tokens(source) for m in methods_named(text)]
    assert named == [(5, "virt"), (5, "pkd")]
