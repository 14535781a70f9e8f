"""Results are data: keep a finished run as results/NAME.json, and make the READMEs' tables from these files.

    python tools/results.py keep models/teacher_model/SST-2/RUN sst2_teacher
    python tools/results.py tables

`tables` writes the tables of results/tables.yaml into the READMEs.
"""

import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from simple_parsing import field

from distill.cli import parse, run
from distill.errors import UserError
from distill.files import read_json, write_atomic, write_json
from distill.naming import ROOT
from tools.compare import markdown
from tools.comparison.students import points

RESULTS = ROOT / "results"
READMES = ("README.md", "README_zh.md", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/README.md")))
_CHINESE = {
    "model": "模型", "parameters": "参数量", "on disk": "磁盘占用", "ms a text": "每条毫秒", "speed-up": "加速",
    "texts/s in batches": "批量每秒条数",
    "dev accuracy": "dev 准确率", "test accuracy": "test 准确率", "dev, not in train": "dev（不在训练集中）",
    "test, not in train": "test（不在训练集中）",
}  # fmt: skip
_UNMEASURED = {"en": "*Not measured yet.*", "zh": "*尚未测量。*"}
_PARTS = ("sts", "translation", "mse")  # of sentence encoders: scores by language
_SCORES = ("accuracy", "f_1", "MCC", "precision", "recall", "pearson", "spearman", "translation_accuracy")


@dataclass
class ResultsArgs:
    """Keep a run, or make the tables."""

    command: str = field(default="", positional=True, nargs="?", help="keep or tables")
    folder: str = field(default="", positional=True, nargs="?", help="keep: folder of a finished run")
    name: str = field(default="", positional=True, nargs="?", help="keep: name of the result")


def keep(folder: Path, name: str) -> dict[str, Any]:
    """Write results/`name`.json from a finished run's run.json and results_eval.json, or from what multistage/test.py
    found of a model that was not trained here; returns its content."""
    if not (folder / "run.json").is_file() and (folder / "results_eval.json").is_file():
        return _keep_scored(folder, name)
    facts = read_json(folder / "run.json")
    if not facts.get("finished"):
        raise UserError(f"{folder}: the run is not finished; run its command again, it continues")
    scores = read_json(folder / "results_eval.json")
    result = {
        "command": facts["command"],
        "task": facts["task"],
        "metric": scores["metric"],
        "scores": {key: value for key, value in scores.items() if key.startswith(_SCORES) and isinstance(value, float)},
        "dev_rows": scores["rows"],
        "seed": facts["seed"],
        "parameters": scores["parameters"],
        "bytes": scores["bytes"],
        "folder": folder.as_posix(),
        "training": {
            key: facts[key]
            for key in (
                "train_rows",
                "rows",
                "steps",
                "seconds",
                "samples_per_second",
                "resumed",
                "peak_memory_bytes",
                "real_token_share",
            )
            if key in facts  # sentence pairs have no one share of real tokens
        }
        | {
            "teacher_share": {
                f"epoch {epoch}": round(t["teacher_seconds"] / t["seconds"], 6) for epoch, t in facts["epochs"].items()
            }
        },
        "finished_at": facts["finished_at"],
        "versions": facts["versions"],
        "hardware": facts["hardware"],
    }
    result |= {part: scores[part] for part in _PARTS if part in scores}
    if (folder / "test" / "results_eval.json").is_file():
        result["test"] = _test_scores(read_json(folder / "test" / "results_eval.json"))
    if (folder / "control.json").is_file():
        result["control"] = read_json(folder / "control.json")
    if (folder / "evaluation.json").is_file():
        result["splits"] = read_json(folder / "evaluation.json")
    write_json(RESULTS / f"{name}.json", result)
    return result


def _keep_scored(folder: Path, name: str) -> dict[str, Any]:
    found = read_json(folder / "results_eval.json")
    facts = ("command", "metric", "parameters", "bytes", "seed", "versions", "hardware")
    scores = {key: found[key] for key in _SCORES if key in found}
    result = {key: found[key] for key in facts} | {"scores": scores, "test": _test_scores(found)}
    write_json(RESULTS / f"{name}.json", result)
    return result


def _test_scores(found: dict[str, Any]) -> dict[str, Any]:
    return {part: found[part] for part in (*_SCORES, *_PARTS) if part in found}


def table(spec: dict[str, Any] | None, language: str = "en") -> str:
    """A Markdown table of one entry of results/tables.yaml, where an empty one is not measured yet: a line for each of
    `rows`, the mean and range over its runs' seeds.

    `scores` maps a path in a result file (`scores/accuracy`, `splits/test/scores/accuracy`) to the column's name.
    `latency` names the result of tools/latency.py in which all of the table's models were timed together (in each row
    its first run's); speed-ups are relative to the first row. Without `latency` these columns are left out.
    `control: true` adds what each row's first run gains over its control arm (over all seeds that --control trained).
    `lines` are sentences with figures of a result file, below the table or without one.
    """
    if not spec:
        return _UNMEASURED[language]
    if "comparison" in spec:  # what tools/compare.py has found
        return markdown(read_json(RESULTS / f"{spec['comparison']}.json"), language)
    sentences = [
        line[language].format_map(read_json(RESULTS / f"{line['file']}.json")) for line in spec.get("lines", ())
    ]
    listed = "\n".join(f"- {sentence}" for sentence in sentences)
    if "rows" not in spec:
        return listed
    kept = [(row, [read_json(RESULTS / f"{name}.json") for name in row["runs"]]) for row in spec["rows"]]
    control = ["less labels alone"] if spec.get("control") else []
    heads = [spec["head"], *spec["scores"].values(), *control, "parameters", "on disk"]
    timed: list[dict[str, Any]] = []
    if "latency" in spec:
        models = read_json(RESULTS / f"latency_{spec['latency']}.json")["models"]
        timed = [models[runs[0]["folder"]] for _, runs in kept]
        heads += ["ms a text", "speed-up", "texts/s in batches", "speed-up"]
    shown = [_CHINESE.get(head, head) if language == "zh" else head for head in heads]
    lines = ["| " + " | ".join(shown) + " |", "|---" * len(heads) + "|"]
    for number, (row, runs) in enumerate(kept):
        cells = [row.get(f"label_{language}", row["label"])]
        for path in spec["scores"]:
            values = [100 * float(_at(r, path)) for r in runs]
            spread = f" ({min(values):.1f} to {max(values):.1f}, {len(values)} seeds)" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        if control:
            found = runs[0].get("control")
            cells.append(f"{points(found)}: {found['verdict']}" if found else "")
        cells += [f"{runs[0]['parameters'] / 1e6:.1f} M", f"{runs[0]['bytes'] / 1e6:.0f} MB"]
        if timed:
            (first, base), (ms, rate) = (
                (t["latency_ms"]["p50"], t["samples_per_second"]) for t in (timed[0], timed[number])
            )
            cells += [f"{ms:.2f}", f"{first / ms:.1f}x", f"{rate:,.0f}", f"{rate / base:.1f}x"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(["", listed] if listed else [])])


def _at(result: Any, path: str) -> Any:
    for key in path.split("/"):
        result = result[key]
    return result


def filled(text: str, specs: dict[str, Any], language: str = "en") -> str:
    """`text` with what stands between `<!-- table NAME -->` and `<!-- end -->` made anew. Raises UserError for an
    unknown NAME."""

    def replace(match: re.Match[str]) -> str:
        if match[1] not in specs:
            raise UserError(f"results/tables.yaml: no table `{match[1]}`")
        return f"<!-- table {match[1]} -->\n{table(specs[match[1]], language)}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(ResultsArgs, argv, __doc__)
    if args.command == "keep" and args.folder and args.name:
        scores = keep(Path(args.folder), args.name)["scores"]
        print(f"results/{args.name}.json: " + "  ".join(f"{key} {value:.4f}" for key, value in scores.items()))
        return
    if args.command != "tables" or args.folder:
        raise UserError("give one of: python tools/results.py keep FOLDER NAME; python tools/results.py tables")
    specs = yaml.safe_load((RESULTS / "tables.yaml").read_text(encoding="utf-8"))
    for name in READMES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if (new := filled(text, specs, "zh" if path.stem.endswith("_zh") else "en")) != text:
            write_atomic(path, new)
            print(f"{name}: tables made anew", file=sys.stderr)


if __name__ == "__main__":
    run(main)
