"""A run and its folder: what it was asked to do, how far it came, and how long each part took.

In the folder:

    run.yaml       settings, compared when the same folder is used again
    metrics.jsonl  a line per log point and evaluation; no clock times, so a resumed run writes the same bytes
    run.json       command, rows, steps, speed, seconds by part, memory, versions, hardware
    vdl/           for VisualDL: the same curves, drawn anew from metrics.jsonl at each start, so no step occurs twice;
                   a row of the table of hyper-parameters, with the best dev score so far; command and results
    checkpoints/   until the run is finished
    best/          the best model so far, in the recipe's own format; its files move up when the run is finished
    stages/        the runs of earlier stages, each with its model, where the training has several
"""

import contextlib
import datetime
import fcntl
import io
import json
import math
import os
import re
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from distill import files, runtime
from distill.errors import UserError
from distill.training import checkpoint

COMPARED = "control"
"""Of a run with --control: the folder of its further runs, and with .json the comparison."""
_OWN = (
    *("run.json", "metrics.jsonl", "results_eval.json", "evaluation.json", "dev_predictions.tsv", f"{COMPARED}.json"),
    *(COMPARED, "results_eval.csv", "spearman.png", "test", "vdl", "checkpoints", "best", "stages", "run.yaml"),
)


_OF_MODELS = (
    *("config.json", "model_config.json", "model.safetensors", "model_state.pdparams", "projections.safetensors"),
    *("vocab.txt", "words.txt", "tokenizer_config.json", "tokenizer.json"),
)


class Held:
    """A folder in which no other process may run: an advisory lock, which ends with this object or this process."""

    alive: "weakref.WeakValueDictionary[Path, Held]" = weakref.WeakValueDictionary()

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __del__(self) -> None:
        os.close(self._handle)


def hold(folder: Path) -> Held:
    """The lock on a folder, which is made where it is missing; this process may hold it several times.

    Raises UserError where another process holds it.
    """
    if held := Held.alive.get(folder.resolve()):
        return held
    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        held = Held(os.open(folder, os.O_RDONLY))
    try:
        fcntl.flock(held._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"--output_dir {folder}: another process is running there; wait for its end, or choose another folder"
        ) from None
    except OSError:
        pass  # a file system without locks
    Held.alive[folder.resolve()] = held
    return held


class Run:
    """The folder `output_dir` as the home of one run; all ranks make one, rank 0 alone writes.

    settings: what run.yaml keeps, e.g. `distill.cli.settings(args)`.
    cosmetic: names of those that cannot change a result and may differ when the run continues, e.g.
        `distill.cli.cosmetic(args)`.

    A folder with the same settings is continued, and `finished` says when nothing is left to do. A folder with other
    settings is refused by UserError, unless `overwrite`: then what that run wrote (and nothing else) is deleted. One
    with files but no run.yaml needs `overwrite` too, and none of them may be called as what a run writes. An unfinished
    run of the same settings is continued even so, and a finished one is kept while its comparison (--control) is not
    finished: the same command resumes. The folder of a model that a setting called `..._path`, `init_checkpoint...` or
    `model_name` names is always refused: the model would be lost; and so is one in which another process is running.
    """

    def __init__(
        self,
        output_dir: str | Path,
        settings: Mapping[str, Any],
        overwrite: bool = False,
        cosmetic: Collection[str] = (),
    ) -> None:
        self.output_dir = Path(output_dir).expanduser()
        self.best_dir = self.output_dir / "best"
        self.checkpoints = self.output_dir / "checkpoints"
        # Through YAML and back, so that a tuple equals the list it is read as.
        self.settings: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(settings), sort_keys=False)) or {}
        self._cosmetic = cosmetic
        self._timers: list[list[Any]] = []
        self._writer: Any = None
        self._metric: str | None = None
        self._best = -math.inf
        self._asked = 0.0  # seconds of the teacher that `count` has seen
        # The other ranks look at the folder through rank 0's eyes only: it may be changing it right now.
        self._facts: dict[str, Any] = runtime.from_main(lambda: self._open(overwrite, cosmetic))
        self.finished: bool = self._facts["finished"]

    def _open(self, overwrite: bool, cosmetic: Collection[str]) -> dict[str, Any]:
        """Refuse, continue, overwrite or make the folder; returns the content of its run.json."""
        path, folder = self.output_dir / "run.yaml", self.output_dir
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output_dir {folder}: is a file, not a folder")
        for name, value in self.settings.items():
            if (name.endswith("_path") or name.startswith("init_checkpoint") or name == "model_name") and value:
                refuse_loss(folder, f"--{name}", value)
        self._held = hold(folder)
        facts: dict[str, Any] = {"finished": False}
        content = [p for p in folder.iterdir() if not p.name.endswith(".tmp")] if folder.exists() else []
        if path.exists():
            differing = differences(path, self.settings, cosmetic)
            facts = self._read_facts()
            if overwrite and (differing or (facts["finished"] and not self._half_compared())):
                self._delete_own(facts.get("model_files", []))
                facts = {"finished": False}
            elif differing:
                raise UserError(
                    f"--output_dir {folder}: holds a run with other settings ({'; '.join(differing)}); "
                    "choose another --output_dir or pass --overwrite"
                )
        elif content and not overwrite:
            found = f"is not empty ({content[0].name}) and holds no run.yaml"
            raise UserError(f"--output_dir {folder}: {found}; choose another --output_dir or pass --overwrite")
        elif foreign := [entry.name for entry in content if entry.name in (*_OWN, *_OF_MODELS)]:
            raise UserError(
                f"--output_dir {folder}: holds {foreign[0]}, which a run would replace, and no run.yaml says that one "
                "made it; move it away, or choose another --output_dir"
            )
        for unfinished in folder.glob(".*.tmp"):  # of a process that was killed while writing it
            if unfinished.is_file():
                unfinished.unlink()
        checkpoint.recover_folder(self.best_dir)
        if facts["finished"]:
            self._delete_leftovers()  # `finish` may have been killed before it had done so
            return facts
        files.write_atomic(path, yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True))
        fresh = {
            "command": runtime.command(),
            "script": runtime.script(),
            "resumed": -1,
            "seed": self.settings.get("seed"),
            "rows": 0,
            "steps": 0,
            "samples_per_second": {},
            "seconds": {"teacher": 0.0, "student": 0.0, "data": 0.0, "evaluation": 0.0},
            "epochs": {},
            "peak_memory_bytes": 0,
            "versions": runtime.versions(),
            "hardware": runtime.hardware(),
            "started_at": _now(),
            "finished_at": None,
        }
        facts = {**fresh, **facts}
        facts["resumed"] += 1
        files.write_json(folder / "run.json", facts)
        return facts

    def _half_compared(self) -> bool:
        """Whether a command with --control, which made this run or goes on after it, was stopped before its end."""
        home = self.output_dir.parent.parent if self.output_dir.parent.name == COMPARED else self.output_dir
        begun = bool(self.settings.get("control")) and (home / COMPARED).is_dir()
        return begun and not (home / f"{COMPARED}.json").exists()

    def _read_facts(self) -> dict[str, Any]:
        path = self.output_dir / "run.json"
        return {"finished": False, **(files.read_json(path) if path.exists() else {})}

    def _delete_own(self, model_files: list[str]) -> None:
        for name in (*model_files, *_OWN):
            path = self.output_dir / Path(name).name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def begin(self, step: int, metric: str | None = None) -> None:
        """Cut metrics.jsonl back to `step` (that of the checkpoint to continue from) and draw the curves so far.

        metric: the dev score whose best VisualDL shows beside the hyper-parameters.
        """
        self._asked = self._facts["seconds"]["teacher"]
        self._metric, self._best = metric, -math.inf
        if not runtime.is_main():
            return
        from visualdl import LogWriter  # here, because it imports paddle

        path = self.output_dir / "metrics.jsonl"
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
        files.write_atomic(path, "".join(kept))
        shutil.rmtree(self.output_dir / "vdl", ignore_errors=True)
        self._writer = LogWriter(str(self.output_dir / "vdl"))
        # The table is wide: what is not set and what cannot change a result only hide the rest.
        given = {k: v for k, v in self.settings.items() if v is not None and k not in self._cosmetic}
        shown = {name: value if type(value) in (int, float) else str(value) for name, value in given.items()}
        self._writer.add_hparams(shown, [f"dev/best_{metric}" if metric else "train/loss"])
        self._writer.add_text("run/command", self._facts["command"], 0)
        for line in kept:
            self._draw(json.loads(line))

    def record(self, step: int, epoch: float, **values: Any) -> None:
        """Append a line to metrics.jsonl and its points to VisualDL.

        At a log point: loss, losses {name: mean since the last one}, lr. After an evaluation: dev {metric: score}.
        """
        if not runtime.is_main():
            return
        row = {"step": step, "epoch": round(epoch, 4), **values}
        path = self.output_dir / "metrics.jsonl"
        with files.disk_errors(path), open(path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row, allow_nan=False) + "\n")
        self._draw(row)

    def _draw(self, row: dict[str, Any]) -> None:
        points = {f"dev/{name}": value for name, value in row.get("dev", {}).items()}
        if self._metric in row.get("dev", {}):
            self._best = max(self._best, row["dev"][self._metric])
            points[f"dev/best_{self._metric}"] = self._best
        points |= {f"loss/{name}": value for name, value in row.get("losses", {}).items()}
        points |= {f"train/{name}": row[name] for name in ("loss", "lr") if name in row}
        for tag, value in points.items():
            self._writer.add_scalar(tag, value, row["step"])

    @contextlib.contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Add the block's wall-clock time to seconds[name] of run.json, less that of the timers inside it."""
        self._tick()
        self._timers.append([name, time.perf_counter()])
        try:
            yield
        finally:
            self._tick()
            self._timers.pop()

    def _tick(self) -> None:
        """Charge the time since timers last changed to the innermost one, and restart the outer one's clock."""
        now = time.perf_counter()
        if self._timers:
            name, since = self._timers[-1]
            seconds = self._facts["seconds"]
            seconds[name] = seconds.get(name, 0.0) + now - since
            for timer in self._timers[-2:]:
                timer[1] = now

    def count(self, epoch: int, rows: int, seconds: float) -> None:
        """Note `rows`, of all ranks, trained on in `seconds` of data, teacher and student; `epoch` counts from 1.

        The teacher's part is what its timer has gained since the last call, or since `begin`.
        """
        total = self._facts["epochs"].setdefault(str(epoch), {"rows": 0, "seconds": 0.0, "teacher_seconds": 0.0})
        total["rows"] += rows
        total["seconds"] += seconds
        asked = self._facts["seconds"]["teacher"]
        total["teacher_seconds"] += asked - self._asked
        self._asked = asked

    def write_facts(self, **facts: Any) -> None:
        """Write run.json as things stand; `facts` (e.g. steps=, rows=) are set first."""
        self._facts.update(facts)
        if not runtime.is_main():
            return
        now = self._facts
        now["peak_memory_bytes"] = max(now["peak_memory_bytes"], runtime.peak_memory_bytes())
        speed = {epoch: total["rows"] / total["seconds"] for epoch, total in now["epochs"].items()}
        now["samples_per_second"] = {epoch: round(rate, 2) for epoch, rate in speed.items()}
        now["seconds"] = {name: round(value, 3) for name, value in now["seconds"].items()}
        files.write_json(self.output_dir / "run.json", now)

    def finish(self, **facts: Any) -> None:
        """Move the best model's files up into output_dir, mark the run finished, with `facts`, drop checkpoints.

        The recipe's last act; killed in its midst, it is completed by the same command.
        """
        self.finished = True
        self.close()
        if not runtime.is_main():
            return
        model_files = sorted(path.name for path in self.best_dir.iterdir()) if self.best_dir.exists() else []
        for name in model_files:
            with files.atomic_path(self.output_dir / name) as temporary:
                shutil.copyfile(self.best_dir / name, temporary)
        self._show_results()
        self.write_facts(**facts, model_files=model_files, finished=True, finished_at=_now())
        self._delete_leftovers()

    def _show_results(self) -> None:
        """Add the numbers of results_eval.json to the texts that VisualDL shows."""
        logs, results = list(self.output_dir.glob("vdl/vdlrecords.*")), self.output_dir / "results_eval.json"
        if not logs or not results.exists():
            return
        from visualdl import LogWriter

        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it adds to a file
            writer = LogWriter(str(logs[0].parent), file_name=logs[0].name)
        # In one line: the page joins lines.
        found = {name: value for name, value in files.read_json(results).items() if not isinstance(value, (dict, list))}
        writer.add_text("run/results", ", ".join(f"{name} {value}" for name, value in found.items()), 0)
        writer.close()

    def _delete_leftovers(self) -> None:
        checkpoint.remove_folder(self.checkpoints)
        checkpoint.remove_folder(self.best_dir)

    def close(self) -> None:
        """Flush the curves."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Progress:
    """Loss, rate and time left: a bar on a terminal, elsewhere a plain line every `interval` seconds; on rank 0."""

    def __init__(self, total: int, done: int, interval: float = 30.0) -> None:
        self._start, self._first, self._total = time.monotonic(), done, total
        self._interval, self._printed = interval, self._start
        wanted = runtime.is_main() and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True) if wanted else None

    def update(self, step: int, loss: float) -> None:
        """`step` steps are done; the last one had this loss."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._printed >= self._interval:
            self._printed = now
            rate = (step - self._first) / (now - self._start)
            left = tqdm.format_interval((self._total - step) / rate)
            runtime.log(f"step {step}/{self._total}  loss {loss:.4f}  {rate:.2f} steps/s  {left} left")

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()


class Signals:
    """Within the block SIGTERM and Ctrl-C are noted in `received` for the loop; a second Ctrl-C does not wait."""

    received = 0

    def __enter__(self) -> "Signals":
        # Signals can be handled in the main thread only; elsewhere (a notebook's worker) they keep their meaning.
        numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.received = self.received or number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def refuse_loss(folder: Path, name: str, place: str | Path) -> None:
    """Raise UserError where a run in `folder` would replace the model at `place`; `name` is its flag or key."""
    at, home = _folder_of(place), folder.resolve()
    if at == home or (home in at.parents and at.relative_to(home).parts[0] in _OWN):
        what = "is the folder" if at == home else "holds the model"
        raise UserError(f"--output_dir {folder}: {what} of {name}; choose another one")


def _folder_of(path: str | Path) -> Path:
    """The folder itself, or that of a file."""
    place = Path(path).expanduser().resolve()
    return place.parent if place.is_file() else place


def differences(path: Path, settings: Mapping[str, Any], cosmetic: Collection[str]) -> list[str]:
    """The settings of the run.yaml at `path` that differ from `settings`, in words; those that are cosmetic left out.

    Raises UserError when the file cannot be read.
    """
    try:
        there = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        there = None
    if not isinstance(there, dict):
        raise UserError(f"{path}: not readable as settings; choose another --output_dir, or delete it")
    names = [name for name in {**there, **settings} if name not in cosmetic]
    missing = "not set"
    return [
        f"{name} {_short(there.get(name, missing))} there, {_short(settings.get(name, missing))} now"
        for name in names
        if _at_home(there.get(name, missing)) != _at_home(settings.get(name, missing))
    ]


def _at_home(value: Any) -> Any:
    return os.path.expanduser(value) if isinstance(value, str) else value


def _short(value: Any) -> str:
    """A digest by its first digits, which tell it from another; anything else as it is."""
    return f"{value:.8}..." if re.fullmatch("[0-9a-f]{64}", str(value)) else str(value)


def _whole_lines(path: Path) -> list[str]:
    """The lines of metrics.jsonl without a last one that was cut off when the process was killed."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
