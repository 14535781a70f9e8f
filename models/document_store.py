"""States of documents on disk, memory-mapped: computed once, then compared with every query.

STORE/
    states.bin    float16 [vectors, D], document after document, without padding
    counts.bin    int32 [documents]: the vectors of each
    names.txt     what each is called, a line each
    store.json    what made it: the model's digest and type, the documents' digest, ...; and how much it holds

While it is written it lies beside, as .STORE.unfinished; what a killed process left there is continued.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from distill.data.wordpiece import WordPiece
from distill.encoders import cpu, inference
from distill.errors import UserError
from distill.files import disk_errors, read_json, write_json
from distill.training.checkpoint import recover_folder, replace_folder
from models.dual_encoder import TOWER_INPUTS, DualEncoder, Joint, Tower, tower_inputs

_FILES = ("states.bin", "counts.bin", "names.txt")
_VECTORS = 16384  # compared at a time: 25 MB at width 384
_WINDOW = 4096  # documents that are sorted by length together, so that disks read on from where they are
_QUERIES = 64  # answered in one reading of the store


class StoreWriter:
    """Appends blocks of documents to a store; a block is there whole or not at all, and a killed process goes on after
    its last one.

    about: what decides the content, kept in store.json. finished: whether such a store is there already; documents: how
    many the unfinished one holds. Raises UserError when the folder holds something else than a store, and for one of
    other content unless `overwrite`; that is lost only when the new store is whole.
    """

    def __init__(self, folder: str | Path, about: Mapping[str, Any], overwrite: bool = False) -> None:
        self._folder = Path(folder).resolve()  # beside it stands what it is to become
        if self._folder.is_mount():
            raise UserError(f"{folder}: a mount, which cannot be exchanged as a whole; choose a folder in it")
        self._unfinished = _unfinished(self._folder)
        self._mark = self._unfinished / "unfinished.json"
        self._state: dict[str, Any] = {"about": dict(about), "documents": 0, "bytes": [0] * len(_FILES)}
        with disk_errors(self._folder):
            recover_folder(self._folder)
            self.finished = self._is_there(overwrite)
            if not self.finished:
                self._continue(overwrite)

    @property
    def documents(self) -> int:
        documents: int = self._state["documents"]
        return documents

    def _is_there(self, overwrite: bool) -> bool:
        if not self._folder.exists() or (self._folder.is_dir() and not any(self._folder.iterdir())):
            return False
        mark = self._folder / "store.json"
        if not mark.is_file():
            raise UserError(f"{self._folder}: holds something else than documents; choose another folder")
        if overwrite:
            return False
        if read_json(mark)["about"] != self._state["about"]:
            raise UserError(
                f"{self._folder}: holds other documents, or those of another model; --overwrite replaces them"
            )
        return True

    def _continue(self, overwrite: bool) -> None:
        """Cut the files to their last whole block; there is none in a new store."""
        if self._mark.is_file():
            state = read_json(self._mark)
            if state["about"] == self._state["about"]:
                self._state = state
            elif not overwrite:
                raise UserError(
                    f"{self._unfinished}: unfinished store of other documents or of another model; complete it by its "
                    "own command, or --overwrite drops it"
                )
        self._unfinished.mkdir(parents=True, exist_ok=True)
        for name, size in zip(_FILES, self._state["bytes"], strict=True):
            with open(self._unfinished / name, "ab") as file:
                if file.tell() < size:
                    have = f"{file.tell():,} of {size:,} bytes"
                    raise UserError(f"{self._unfinished / name}: {have}; delete that folder and run the same command")
                file.truncate(size)
        write_json(self._mark, self._state)

    def add(self, names: Sequence[str], states: Sequence[np.ndarray]) -> None:
        """Append documents with their vectors, each [n, D]. Raises UserError when the disk is full, when a number is
        too large for float16, and when another process writes the same store."""
        with np.errstate(over="ignore"):
            block = np.concatenate(states).astype(np.float16)
        if not np.isfinite(block).all():
            raise UserError(f"{self._folder}: a state is too large for float16; this model's cannot be stored")
        counts = np.array([len(x) for x in states], np.int32)
        content = (block, counts, "".join(f"{name}\n" for name in names).encode())
        sizes = []
        with disk_errors(self._folder):
            for name, data, size in zip(_FILES, content, self._state["bytes"], strict=True):
                with open(self._unfinished / name, "ab") as file:
                    if file.tell() != size:
                        raise UserError(
                            f"{self._folder}: another process writes there too; wait for its end, then run the same "
                            "command"
                        )
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    sizes.append(file.tell())
        self._state |= {"documents": self.documents + len(names), "bytes": sizes}
        write_json(self._mark, self._state)

    def finish(self) -> None:
        """Put the store in its place."""
        with disk_errors(self._folder):
            write_json(self._unfinished / "store.json", self._state)
            replace_folder(self._unfinished, self._folder)
            (self._folder / self._mark.name).unlink()


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished")


class DocumentStore:
    """A store for reading: `len(store)` documents, called `names`; `about` is what the writer was given.

    lengths: vectors of each document, int64 [n]. Raises UserError when the folder holds no whole store.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        mark = self.folder / "store.json"
        if not mark.is_file():
            begun = _unfinished(self.folder).exists()
            way_out = "run the same command of encode.py again to complete it" if begun else "encode.py makes one"
            raise UserError(f"{self.folder}: no whole document store; {way_out}")
        state = read_json(mark)
        self.about: dict[str, Any] = state["about"]
        for name, size in zip(_FILES, state["bytes"], strict=True):
            actual = (self.folder / name).stat().st_size if (self.folder / name).is_file() else 0
            if actual != size:
                raise UserError(f"{self.folder / name}: {actual:,} of {size:,} bytes; copy the store again")
        self.lengths = np.fromfile(self.folder / "counts.bin", np.int32).astype(np.int64)
        self.names = (self.folder / "names.txt").read_text(encoding="utf-8").split("\n")[:-1]
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        shape = (int(self._starts[-1]), self.about["width"])
        self._states = np.memmap(self.folder / "states.bin", np.float16, "r", shape=shape)

    def __len__(self) -> int:
        return len(self.names)

    def check_model(self, digest: str, folder: str | Path) -> None:
        """Raise UserError when another model made the store."""
        if self.about["model"] != digest:
            raise UserError(
                f"{self.folder}: was made by another model than {folder}; pass that one, or encode the documents anew"
            )

    def batch(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States float16 [B, N, D] of these documents, padded with zeros, and the mask float32 [B, N]."""
        lengths = self.lengths[documents]
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        states = np.zeros((*mask.shape, self._states.shape[1]), np.float16)
        for row, start, length in zip(states, self._starts[documents], lengths, strict=True):
            row[:length] = self._states[start : start + length]
        return states, mask.astype(np.float32)


@dataclass(frozen=True)
class Ranking:
    """The documents for one query, the best first: their numbers in the store, int64 [k], and logits [k, C]."""

    documents: np.ndarray
    logits: np.ndarray


class Ranker:
    """Compares queries with stored documents.

    Raises UserError when the store was made by another model (`digest` is that of this one, whose folder is `folder`).
    """

    def __init__(
        self, model: DualEncoder, wordpiece: WordPiece, store: DocumentStore, digest: str, folder: str | Path
    ) -> None:
        store.check_model(digest, folder)
        self.model, self.store, self._wordpiece = model, store, wordpiece
        self._read = inference.eager(Tower(model, "query"), TOWER_INPUTS)

    def rank(
        self, queries: Sequence[str], k: int, candidates: Sequence[Sequence[int]] | None = None, label: int = -1
    ) -> Iterator[Ranking]:
        """For each query the k best of its `candidates` (numbers in the store, perhaps none; None: all documents).

        The best have the highest log-odds of the class `label`, or the highest score in regression; of equal ones the
        first in the store. Memory does not grow with the store.
        """
        for start in range(0, len(queries), _QUERIES):
            group = queries[start : start + _QUERIES]
            if candidates is None:
                yield from self._best(group, np.arange(len(self.store)), k, label)
            else:
                for query, documents in zip(group, candidates[start:], strict=False):
                    yield from self._best([query], np.unique(np.asarray(documents, np.int64)), k, label)

    def _best(self, queries: Sequence[str], documents: np.ndarray, k: int, label: int) -> list[Ranking]:
        outputs = self.model.config.num_outputs
        best = [Ranking(np.empty(0, np.int64), np.empty((0, outputs), np.float32)) for _ in queries]
        with cpu.arranged(self.model), inference.evaluating(self.model):
            for query, chosen, logits in self._compared(queries, documents):
                numbers = np.concatenate([best[query].documents, documents[chosen]])
                joined = np.concatenate([best[query].logits, logits])
                order = np.lexsort((numbers, -relevance(joined, label)))[:k]
                best[query] = Ranking(numbers[order], joined[order])
        return best

    def _compared(self, queries: Sequence[str], documents: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(number of the query, indices into `documents`, logits [n, C]), until each was compared with each."""
        read = [self._query(text) for text in queries]
        beside = max(states.shape[1] for states, _ in read) if isinstance(self.model, Joint) else 0
        for chosen in self._parts(documents, beside):
            states, mask = self.store.batch(documents[chosen])
            # Widened by paddle, which takes a third of NumPy's time.
            found, real = paddle.to_tensor(states).astype("float32"), paddle.to_tensor(mask)
            for query, of_query in enumerate(read):
                yield query, chosen, self.model.score(*of_query, found, real).numpy()

    def _query(self, text: str) -> tuple[Tensor, Tensor]:
        """What is kept of a query, and its mask."""
        assert self.model.lengths  # of a model that was loaded
        longest = self.model.lengths[0]
        encoded = self._wordpiece.encode([text], None, longest)
        batch = tower_inputs(encoded, np.array([0]), longest, self._wordpiece.pad_id)
        return paddle.to_tensor(self._read(batch)[0]), paddle.to_tensor(batch["mask"])

    def _parts(self, documents: np.ndarray, beside: int) -> Iterator[np.ndarray]:
        """Indices into `documents`, those of similar length together, about _VECTORS vectors at a time, with the
        `beside` of a query that are read with each."""
        lengths = self.store.lengths[documents] + beside
        for start in range(0, len(documents), _WINDOW):
            order = start + np.argsort(lengths[start : start + _WINDOW], kind="stable")
            begin = 0
            while begin < len(order):
                end = begin + 1
                while end < len(order) and (end + 1 - begin) * lengths[order[end]] <= _VECTORS:
                    end += 1
                yield order[begin:end]
                begin = end


def relevance(logits: np.ndarray, label: int) -> np.ndarray:
    """[n]: the log-odds of the class `label` by logits [n, C], or the one output of a regression model."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    chosen = np.zeros(logits.shape[1], bool)
    chosen[label] = True
    rest: np.ndarray = np.logaddexp.reduce(logits[:, ~chosen].astype(np.float64), axis=1)
    return logits[:, label] - rest
