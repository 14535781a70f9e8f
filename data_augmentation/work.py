"""The work on disk, shared by the ranks and continued by a restarted run: answers of the masked LM, then copies."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_augmentation.candidates import Plan
from distill.data.augmented import record_folder
from distill.errors import UserError
from distill.files import atomic_path, read_json, save_array, write_atomic, write_json
from distill.runtime import barrier, from_main, is_main, log, rank, world_size
from distill.training.monitor import Run, differences


def begin(path: Path, settings: Mapping[str, Any], overwrite: bool, cosmetic: Collection[str]) -> Run:
    """The run whose record stands beside the augmented rows at `path`; it is finished only where they are there.

    Raises UserError where `path` was made with other settings, or by something else.
    """
    record = record_folder(path)

    def look() -> bool:
        if path.exists() and not record.exists() and not overwrite:
            raise UserError(f"{path}: not made by this script; move it away, or pass --overwrite to replace it")
        if (record / "run.yaml").exists() and not overwrite:
            differing = differences(record / "run.yaml", settings, cosmetic)
            if differing:
                how = f"made, or begun, with other settings ({'; '.join(differing)})"
                raise UserError(f"{path}: {how}; --overwrite makes it again")
        lost = (record / "run.json").exists() and read_json(record / "run.json").get("finished") and not path.exists()
        return bool(lost)

    lost = from_main(look)
    run = Run(record, settings, overwrite or lost, cosmetic)
    if is_main():
        for unfinished in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed while writing it
            unfinished.unlink()
    return run


def share(items: Sequence[int], sizes: Sequence[int], what: str, unit: str, all_ranks: bool = False) -> Iterator[int]:
    """This rank's part of `items` (with `all_ranks` all of them), with a progress bar in `unit`, of which item i has
    `sizes[i]`; returns when every rank is done."""
    mine = items if all_ranks else items[rank() :: world_size()]
    terminal = sys.stderr.isatty()
    with tqdm(
        total=sum(sizes[item] for item in mine), desc=what, unit=f" {unit}", leave=False, disable=not is_main(),
        delay=1 if terminal else 30, mininterval=0.2 if terminal else 30,
    ) as bar:  # fmt: skip
        for item in mine:
            yield item
            bar.update(sizes[item])
    barrier()


class Answers:
    """The masked LM's answers, a file for each block of the plan, and the neighbours of the other words."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder, plan

    def neighbours(self, find: Callable[[], Mapping[str, list[str]]]) -> dict[str, list[str]]:
        """What `find` returns; it is called once, by one rank."""
        path = self._folder / "neighbours.json"
        from_main(lambda: None if path.exists() else write_json(path, find()))
        found: dict[str, list[str]] = read_json(path)
        return found

    def _path(self, block: int) -> Path:
        return self._folder / f"answers-{block:06d}.npy"

    def todo(self) -> list[int]:
        """The missing blocks, long and short sentences mixed, so that the time left can be told."""
        blocks = len(self._plan.blocks)
        mixed = np.random.default_rng(0).permutation(blocks)
        missing: list[int] = from_main(lambda: [int(block) for block in mixed if not self._path(block).exists()])
        if 0 < len(missing) < blocks:
            log(f"masked LM: {blocks - len(missing)} of {blocks} parts are there, continuing")
        return missing

    def write(self, block: int, answers: np.ndarray) -> None:
        with atomic_path(self._path(block)) as temporary:
            save_array(temporary, answers)

    def read(self, texts: np.ndarray) -> list[np.ndarray]:
        """The answers [count, m] about each of the texts, which are given by number."""
        plan = self._plan
        found = [np.empty((0, 0), np.int32)] * len(texts)
        for block in np.unique(plan.block[texts]):
            if block >= 0:
                file = np.load(self._path(block), mmap_mode="r")
                for i in np.flatnonzero(plan.block[texts] == block):
                    start = plan.start[texts[i]]
                    found[i] = np.array(file[start : start + plan.count[texts[i]]])
        return found


class Parts:
    """The lines of the augmented file, a part for each block of rows, with the number of copies made and kept."""

    def __init__(self, folder: Path, rows: int, size: int) -> None:
        self._folder = folder
        self.ranges = [range(start, min(start + size, rows)) for start in range(0, rows, size)]

    def _path(self, part: int, ending: str) -> Path:
        return self._folder / f"copies-{part:06d}.{ending}"

    def todo(self) -> list[int]:
        parts = range(len(self.ranges))
        missing: list[int] = from_main(lambda: [part for part in parts if not self._path(part, "json").exists()])
        return missing

    def write(self, part: int, lines: str, made: int, kept: int) -> None:
        write_atomic(self._path(part, "tsv"), lines)
        write_json(self._path(part, "json"), {"made": made, "kept": kept})  # last: the mark of a whole part

    def join(self, header: str, path: Path) -> dict[str, int]:
        """Write `path` from the header and all parts; returns how many copies were made and kept."""
        counts = {"made": 0, "kept": 0}
        with atomic_path(path) as temporary, open(temporary, "wb") as out:
            out.write(header.encode())
            for part in range(len(self.ranges)):
                out.write(self._path(part, "tsv").read_bytes())
                for name, count in read_json(self._path(part, "json")).items():
                    counts[name] += count
        return counts
