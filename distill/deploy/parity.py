"""Whether a model says the same after each step of its export, on real rows, and how fast it says it."""

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from distill.errors import UserError

Kind = Literal["classes", "number", "vectors"]
"""What outputs [n, C] mean: logits of classes, one number, or a vector."""

Batch = Mapping[str, np.ndarray]
Run = Callable[[Batch], np.ndarray]
"""A batch -> its outputs [B, C]."""

HOPS = ("static", "onnx", "int8", "bf16", "bundle")


class ParityError(Exception):
    """A hop went beyond its budget; the message is one line that names it."""


@dataclass(frozen=True)
class Budget:
    """What a hop may change: the outputs' largest absolute difference, the least agreement, the most that the task's
    metric falls."""

    max_logit_difference: float
    min_agreement: float
    max_metric_drop: float


_EXACT, _ROUNDED = Budget(1e-3, 0.995, 0.002), Budget(0.1, 0.99, 0.005)
_NUMBER_SHARE = 0.05  # of the range of a model's numbers: they have a scale of their own, as logits have not
DEFAULTS = {"static": _EXACT, "onnx": _EXACT, "bundle": _EXACT, "bf16": _ROUNDED, "int8": Budget(2.0, 0.97, 0.01)}


def defaults_of_numbers(outputs: np.ndarray) -> dict[str, Budget]:
    """DEFAULTS for a model that predicts numbers, these `outputs` in fp32: int8 and bf16 may change a share of their
    range."""
    most = _NUMBER_SHARE * float(np.ptp(outputs))
    return DEFAULTS | {hop: replace(DEFAULTS[hop], max_logit_difference=most) for hop in ("int8", "bf16")}


def budgets(
    differences: str | None, agreements: str | None, drops: str | None, defaults: Mapping[str, Budget] = DEFAULTS
) -> dict[str, Budget]:
    """The budget of each hop. Each text is a number for all of them, or HOP=NUMBER,... for some; the rest: `defaults`.

    Raises UserError naming the flag.
    """
    flags = ("max_logit_difference", "min_agreement", "max_metric_drop")
    chosen = {
        flag: _numbers(flag, text, {hop: getattr(budget, flag) for hop, budget in defaults.items()})
        for flag, text in zip(flags, (differences, agreements, drops), strict=True)
    }
    return {hop: Budget(*(chosen[flag][hop] for flag in flags)) for hop in HOPS}


def _numbers(flag: str, text: str | None, default: dict[str, float]) -> dict[str, float]:
    if text is None:
        return default
    parts = dict.fromkeys(HOPS, text) if "=" not in text else dict(re.findall(r"(?:^|,)(\w+)=([^,]*)", text))
    try:
        numbers = {hop: float(number) for hop, number in parts.items()}
    except ValueError:
        numbers = {}
    wrong = not numbers or not numbers.keys() <= set(HOPS) or not all(number >= 0 for number in numbers.values())
    if wrong or ("=" in text and len(numbers) != text.count(",") + 1):
        raise UserError(f"--{flag} {text}: a number from 0 on, or HOP=NUMBER,... of the hops {', '.join(HOPS)}")
    return default | numbers


@dataclass(frozen=True)
class Hop:
    """What changed from the step `before` to this one; of the first step, which has none before, the metric alone.

    difference: the outputs' largest absolute difference. agreement: share of the rows with the same class, of vectors
    the lowest cosine; None for numbers. metric: the task's, None without labels. drop: of the metric since `before`.
    """

    name: str
    before: str | None
    difference: float
    agreement: float | None
    metric: float | None
    drop: float | None

    def breach(self, budget: Budget) -> str | None:
        """What went beyond the budget, None when nothing did. A difference that is no number did."""
        beyond = []
        if not self.difference <= budget.max_logit_difference:
            beyond.append(f"outputs differ by {self.difference:.3g}, allowed is {budget.max_logit_difference:g}")
        if self.agreement is not None and not self.agreement >= budget.min_agreement:
            beyond.append(f"agreement is {self.agreement:.4f}, needed is {budget.min_agreement:g}")
        if self.drop is not None and not self.drop <= budget.max_metric_drop + 1e-9:  # 0.81 - 0.805 is above 0.005
            beyond.append(f"the metric falls by {self.drop:.4f}, allowed is {budget.max_metric_drop:g}")
        return f"hop {self.before} -> {self.name}: {'; '.join(beyond)}" if beyond else None


def compare(
    name: str,
    before: str,
    outputs: Mapping[str, np.ndarray],
    kind: Kind,
    metric: Callable[[np.ndarray], float] | None = None,
) -> Hop:
    """The hop from the outputs [n, C] called `before` to those called `name`; metric(outputs) is the task's score."""
    was, now = outputs[before].astype(np.float64), outputs[name].astype(np.float64)
    difference = float(np.abs(now - was).max())  # nan stays nan, which no budget admits
    agreement = None
    if kind == "classes":
        agreement = float((now.argmax(axis=1) == was.argmax(axis=1)).mean())
    elif kind == "vectors":
        lengths = np.linalg.norm(now, axis=1) * np.linalg.norm(was, axis=1)
        agreement = float(((now * was).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
    if metric is None or not np.isfinite(now).all():
        return Hop(name, before, difference, agreement, None, None)
    score = metric(now)
    return Hop(name, before, difference, agreement, score, metric(was) - score)


class Gate:
    """A model's outputs after each step of its export on the same rows, each held against those of a step before.

    batches: (numbers of rows, batch); kind, metric: as in `compare`; budgets: of each hop to come.
    runs, outputs, hops: by name, of the steps so far.
    """

    def __init__(
        self,
        batches: Sequence[tuple[np.ndarray, Batch]],
        kind: Kind,
        metric: Callable[[np.ndarray], float] | None,
        budgets: Mapping[str, Budget],
    ) -> None:
        self._batches, self._kind, self._metric, self.budgets = batches, kind, metric, dict(budgets)
        self.runs: dict[str, Run] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self.hops: dict[str, Hop] = {}

    def answer(self, name: str, run: Run, before: str | None = None) -> str | None:
        """Run all batches; the breach of the hop from `before`, None without one."""
        self.runs[name] = run
        rows, parts = np.concatenate([chosen for chosen, _ in self._batches]), []
        terminal = sys.stderr.isatty()
        with tqdm(
            total=len(rows), desc=name, unit=" rows", leave=False, delay=1 if terminal else 60,
            mininterval=0.2 if terminal else 60,
        ) as bar:  # fmt: skip
            for chosen, batch in self._batches:
                parts.append(run(batch))
                bar.update(len(chosen))
        joined = np.concatenate(parts)
        ordered = np.empty_like(joined)
        ordered[rows] = joined
        return self.add(name, ordered, before)

    def add(self, name: str, outputs: np.ndarray, before: str | None = None) -> str | None:
        """As `answer`, with outputs [n, C] in the rows' order that are there already."""
        self.outputs[name] = outputs
        if before is None:
            self.hops[name] = Hop(name, None, 0.0, None, self._metric(outputs) if self._metric else None, None)
            return None
        self.hops[name] = hop = compare(name, before, self.outputs, self._kind, self._metric)
        return hop.breach(self.budgets[name])


_SPIN_SECONDS = 0.3


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of a row: alone, and its share of a batch."""

    single: float
    batched: float


def latencies(
    runs: Mapping[str, Callable[[Any], object]],
    singles: Sequence[Any],
    batches: Sequence[tuple[int, Any]],
    rounds: int = 3,
) -> dict[str, Latency]:
    """Each run's on `singles`, each one row as the run takes it, and on `batches`, each with its number of rows.

    Paddle's runs and ONNX Runtime's belong into calls of their own: idle threads of paddle spin for 0.2 s on the cores
    that the other wants, and each call waits for that to end. The runs take turns, so that a drift of the machine's
    speed meets all alike; the fastest of the `rounds` with an item counts, so that what else the machine does counts
    little.
    """
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in runs}
    time.sleep(_SPIN_SECONDS)
    for which, items in enumerate(([(1, row) for row in singles], batches)):
        for rows, item in items:
            best = dict.fromkeys(runs, float("inf"))
            for _ in range(rounds):
                for name, run in runs.items():
                    started = time.perf_counter()
                    run(item)
                    best[name] = min(best[name], 1000 * (time.perf_counter() - started) / rows)
            for name, milliseconds in best.items():
                taken[name][which].append(milliseconds)
    return {name: Latency(float(np.median(alone)), float(np.median(many))) for name, (alone, many) in taken.items()}
