"""What the benchmarks share: sides in processes of their own, run in turn; ratios; the result file."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from distill import runtime
from distill.files import write_json
from distill.naming import ROOT

# What distill.runtime sets: a side that stands for "paddle as installed" must not inherit it.
_OWN_SETTINGS = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "MKL_NUM_THREADS")


def side(python: str, script: Path, *arguments: str) -> dict[str, Any]:
    """Run `script arguments` in a fresh process without inherited thread settings; its last line of output is JSON."""
    environment = {name: value for name, value in os.environ.items() if name not in _OWN_SETTINGS}
    done = subprocess.run([python, str(script), *arguments], capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join([script.name, *arguments])} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def in_turn(
    rounds: int, sides: dict[str, tuple[str, ...]], script: Path, pythons: dict[str, str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Every side once a round, so that a drift of the machine's speed meets them all alike."""
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, arguments in sides.items():
            measured[name].append(side((pythons or {}).get(name, sys.executable), script, *arguments))
    return measured


def median(measured: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in measured)


def save(name: str, values: dict[str, Any]) -> None:
    """Write results/benchmark_NAME.json with the command, versions and hardware, and print the values."""
    values = {"command": runtime.command(), **values}
    values |= {"versions": runtime.versions(), "hardware": runtime.hardware()}
    path = ROOT / "results" / f"benchmark_{name}.json"
    write_json(path, values)
    print(json.dumps({key: values[key] for key in values if key not in ("versions", "hardware")}, indent=2))
    print(f"written: results/{path.name}")
