"""How long a model takes: one row at a time, and the whole set."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Row = TypeVar("Row")
CALLS = 200


@dataclass(frozen=True)
class Latency:
    """Measured times.

    `milliseconds` has p50, p95, p99 and mean of `calls` calls with one row each; `samples_per_second` is for all rows
    in one call, batched as that call does it.
    """

    milliseconds: dict[str, float]
    calls: int
    samples_per_second: float


def measure(
    call: Callable[[Sequence[Row]], object], rows: Sequence[Row], calls: int = CALLS, warm_up: int = 10
) -> Latency:
    """Time `call`, which answers any number of rows (texts, row numbers, ...) and returns when the answer is there.

    First `warm_up` rows are answered one by one without a clock; then `calls` rows (all, if there are fewer), spread
    evenly over `rows`, are timed one by one; then all rows are given at once, again and again for at least a second.
    Raises ValueError without rows.
    """
    if not len(rows):
        raise ValueError("no rows to measure")
    picked = [rows[i] for i in np.linspace(0, len(rows) - 1, min(calls, len(rows))).astype(int)]
    for i in range(warm_up):
        call([picked[i % len(picked)]])
    seconds = np.array([_seconds(call, [row]) for row in picked])
    whole, repeats = _seconds(call, rows), 1
    while whole < 1.0:
        whole, repeats = whole + _seconds(call, rows), repeats + 1
    p50, p95, p99 = (float(x) for x in np.percentile(seconds * 1e3, (50, 95, 99)))
    milliseconds = {"p50": p50, "p95": p95, "p99": p99, "mean": float(seconds.mean() * 1e3)}
    return Latency(milliseconds, len(picked), repeats * len(rows) / whole)


def _seconds(call: Callable[[Sequence[Row]], object], rows: Sequence[Row]) -> float:
    start = time.perf_counter()
    call(rows)
    return time.perf_counter() - start
