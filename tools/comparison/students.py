"""The table of one teacher's students, in words, as Markdown and as comma-separated values.

`result` is what the JSON of such a comparison holds: teacher, students (rows, see `measure.table_rows`), plan, choice.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distill.evaluation.latency import CALLS
from tools.comparison.tables import TIE

_WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "heads": (
            "model", "layers", "parameters", "MB", "dev {metric}", "less teacher", "less labels alone",
            "agrees with teacher", "p50 ms", "p95 ms", "steps", "training, min",
        ),
        "teacher": "teacher",
        "verdicts": {"helps": "helps", "no evidence": "no evidence", "hurts": "hurts"},
        "budget": "Equal training time: a budget of {minutes:g} minutes gives each of {methods} methods, {seeds} "
        "seed(s) and 2 arms {each:.1f} minutes; {warm_up} timed steps of each method said how many steps fit, and its "
        "control arm trains as many. Filling the teacher's cache, evaluating and the timed steps come on top.",
        "steps": "Equal steps: every student and its control arm were trained for {steps} steps, those of "
        "stages together to within one.",
        "score": "Scores on {rows} dev rows: mean of {seeds} seed(s) (95 % interval over {over}, bootstrap). "
        "Bold: the best student; ≈ no evidence that it is worse (paired bootstrap, 95 %).",
        "differences": "Less teacher, less labels alone: differences in points with their paired 95 % intervals; "
        "labels alone is the control arm, the same student, start, steps and batches without the teacher.",
        "over": ("rows; one seed says nothing about others", "rows and seeds"),
        "times": "Latency: one text at a time through eager paddle, the same {timed} rows, all models in one run on "
        "{cores} cores, in turn, median of {rounds}. Training: minutes of one seed's steps, data and live teacher "
        "included.",
        "correlation": "Agrees with teacher: Pearson's correlation of its answers with the teacher's.",
        "of_pairs": "{labels} learns from a teacher of its own, {pair_teacher}, and is compared with the first.",
        "left_out": "Left out: {left_out}.",
    },
    "zh": {
        "heads": (
            "模型", "层数", "参数量", "MB", "dev {metric}", "减去教师", "减去仅标签", "与教师一致",
            "p50 毫秒", "p95 毫秒", "步数", "训练分钟",
        ),
        "teacher": "教师",
        "verdicts": {"helps": "有帮助", "no evidence": "没有证据", "hurts": "有害"},
        "budget": "训练时间相同：{minutes:g} 分钟的预算分给 {methods} 种方法、{seeds} 个种子、2 组，"
        "每次 {each:.1f} 分钟；步数由每种方法 {warm_up} 步的计时得出，对照组步数相同。"
        "填充教师缓存、评估和计时的步数不计在内。",
        "steps": "步数相同：每个学生及其对照组训练 {steps} 步（分阶段的合计，误差不超过一步）。",
        "score": "成绩取自 {rows} 条 dev：{seeds} 个种子的均值（自助法 95 % 区间，对{over}）。"
        "加粗：最好的学生；≈ 没有证据表明更差（配对自助法，95 %）。",
        "differences": "减去教师、减去仅标签：点数之差及其配对 95 % 区间；"
        "仅标签是对照组，即同样的学生、初始化、步数和批次，但没有教师。",
        "over": ("样本；单个种子不能说明其他种子", "样本和种子"),
        "times": "延迟：逐条，动态图 paddle，相同的 {timed} 条，所有模型在同一次运行中轮流测量，{cores} 核，"
        "取 {rounds} 次的中位数。训练：一个种子各步所用分钟，含数据和教师的实时计算。",
        "correlation": "与教师一致：其回答与教师回答的皮尔逊相关系数。",
        "of_pairs": "{labels} 向自己的教师 {pair_teacher} 学习，并与表中的教师比较。",
        "left_out": "未比较：{left_out}。",
    },
}  # fmt: skip


def heads(result: Mapping[str, Any], language: str = "en") -> list[str]:
    """The names of the columns."""
    return [head.format(metric=result["metric"]) for head in _WORDS[language]["heads"]]


def of_numbers(result: Mapping[str, Any]) -> bool:
    """Whether the task asks for numbers: agreement with the teacher then is Pearson's correlation."""
    return bool(result["metric"] == "pearson_spearman")


def student_cells(
    row: Mapping[str, Any],
    correlation: bool,
    language: str = "en",
    bold: tuple[str, str] = ("**", "**"),
    escape: Callable[[str], str] = str,
) -> list[str]:
    """The cells of a row, those of the teacher empty where it is compared with itself; correlation: `of_numbers`."""
    words, score, times = _WORDS[language], row["score"], row["latency_ms"]
    label = row["label"] if "method" in row else words["teacher"]
    shown = f"{100 * score['mean']:.1f}"
    if row.get("mark") == "best":
        shown = bold[0] + shown + bold[1]
    shown += f" {TIE}" * (row.get("mark") == "tie") + f" ({100 * score['low']:.1f} to {100 * score['high']:.1f})"
    cells = [escape(label), str(row["layers"]), f"{row['parameters'] / 1e6:.3g} M", f"{row['bytes'] / 1e6:.3g}", shown]
    if "method" in row:
        verdict = words["verdicts"][row["control"]["verdict"]]
        alone = f"{points(row['control'])}: {verdict}"
        same = f"{row['agreement']:.3f}" if correlation else f"{100 * row['agreement']:.1f} %"
        cells += [points(row["to_teacher"]), alone, same]
    else:
        cells += [""] * 3
    cells += [f"{times['p50']:.2f}", f"{times['p95']:.2f}"]
    training = [f"{row['steps']:,}", f"{row['training_minutes']:.1f}"] if "method" in row else ["", ""]
    return cells + training


def points(difference: Mapping[str, float]) -> str:
    """A difference of scores in points of 100, with its interval: `mean`, `low` and `high`."""
    mean, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def explanations(result: Mapping[str, Any], language: str = "en") -> list[str]:
    """Sentences below the table."""
    words, plan = _WORDS[language], result["plan"]
    facts = {"rows": result["rows"], "timed": min(CALLS, result["rows"]), "cores": result["hardware"]["cores"], **plan}
    facts["over"] = words["over"][plan["seeds"] > 1]
    budget = words["budget"].format(**facts) if plan["minutes"] else words["steps"].format(**facts)
    said = ("score", "differences", *(["correlation"] if of_numbers(result) else []), "times")
    lines = [words[name].format(**facts) for name in said]
    if plan["of_pairs"]:
        lines.append(words["of_pairs"].format(labels=", ".join(plan["of_pairs"]), **facts))
    if plan["left_out"]:
        left_out = "; ".join(f"{name} ({why})" for name, why in plan["left_out"].items())
        lines.append(words["left_out"].format(left_out=left_out))
    return [budget, *lines]


def markdown(result: Mapping[str, Any], language: str = "en") -> str:
    """The table and what it says of itself."""
    names = heads(result, language)
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in (result["teacher"], *result["students"]):
        lines.append("| " + " | ".join(student_cells(row, of_numbers(result), language)) + " |")
    said = explanations(result, language)
    return "\n".join([*lines, "", *(f"*{line}*  " for line in said[:-1]), f"*{said[-1]}*"])


_NUMBERS: dict[str, Sequence[str]] = {
    "layers": ("layers",), "parameters": ("parameters",), "bytes": ("bytes",),
    "score": ("score", "mean"), "low": ("score", "low"), "high": ("score", "high"), "mark": ("mark",),
    "less_teacher": ("to_teacher", "mean"), "less_teacher_low": ("to_teacher", "low"),
    "less_teacher_high": ("to_teacher", "high"), "control": ("control", "score", "mean"),
    "less_control": ("control", "mean"), "less_control_low": ("control", "low"),
    "less_control_high": ("control", "high"), "agreement": ("agreement",),
    "p50_ms": ("latency_ms", "p50"), "p95_ms": ("latency_ms", "p95"), "samples_per_second": ("samples_per_second",),
    "steps": ("steps",), "training_minutes": ("training_minutes",), "control_minutes": ("control_minutes",),
    "minutes_in_all": ("minutes_in_all",),
}  # fmt: skip


def comma_separated(result: Mapping[str, Any]) -> str:
    """The same as numbers: scores and agreement as shares of 1, `mark` best or tie; empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", *_NUMBERS])
    for row in (result["teacher"], *result["students"]):
        writer.writerow([row["label"], *(_at(row, keys) for keys in _NUMBERS.values())])
    return text.getvalue()


def _at(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    value: Any = row
    for key in keys:
        value = value.get(key) if value is not None else None
    return value
