"""Teacher outputs on disk, addressed by the content of each row.

CACHE/<teacher>/<output>/segment-*:
    .keys.npy     uint64 [n, 2], the 128-bit addresses of `Encoded.keys`
    .data.npy     float32 [n, ...] for outputs of one size; flat for those that grow with the row
    .offsets.npy  int64 [n + 1], for the flat ones
    .json         written last, the mark of a whole segment: size and SHA-256 of each file, seconds its rows took

Segments are added and removed, never changed. What a killed process left behind has no .json; it is
removed once it is old enough to be nobody's.
"""

import contextlib
import errno
import hashlib
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import UserError
from distill.files import atomic_path, read_json, save_array, sha256, write_json
from distill.runtime import is_main, log

SEGMENT_BYTES = 64 * 2**20
SEGMENT_SECONDS = 30.0  # rows of a few bytes never fill a segment: a kill may cost this much work
TABLE_BYTES = 256 * 2**20  # outputs up to this size are held in memory, larger ones are memory-mapped
BATCH_TOKENS = 4096
_ORPHAN_SECONDS = 600.0  # writing a segment takes seconds
SEGMENT_OVERHEAD = 2048  # bytes of headers and of the .json, at most


@dataclass(frozen=True)
class Output:
    """One output of a teacher. `shape` is that of one row, with -1 for the row's length in tokens, of pairs -2 and -3
    for the lengths of their texts: numbers in a row of `Encoded.extents`.

    logits (C), cls (layers, H), hidden (layers, -1, H), scores (layers, heads, -1, -1); of pairs first_to_second
    (layers, heads, -2, -3), second_to_first (layers, heads, -3, -2).
    """

    kind: str
    layers: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.kind + ("-" + "_".join(map(str, self.layers)) if self.layers else "")

    @property
    def ragged(self) -> bool:
        return min(self.shape) < 0

    def sizes(self, extents: np.ndarray) -> np.ndarray:
        """Numbers in each row, int64 [n], for extents [n, 1] or [n, 3]."""
        grown = [extents[:, -n - 1] for n in self.shape if n < 0]
        return math.prod(grown, start=np.full(len(extents), math.prod(n for n in self.shape if n >= 0), np.int64))

    def row_shape(self, extents: np.ndarray) -> tuple[int, ...]:
        return tuple(int(extents[-n - 1]) if n < 0 else n for n in self.shape)

    def cut(self, row: np.ndarray, extents: np.ndarray) -> np.ndarray:
        """A view of a padded row without its padding."""
        return row[tuple(map(slice, self.row_shape(extents)))]


class _Segment:
    """One whole segment, its data left on disk. Raises _Damaged when a file is not what it was."""

    def __init__(self, mark: Path) -> None:
        self.stem = mark.with_suffix("")
        try:
            about = read_json(mark)
            self.files = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in about["files"].items()}
            self.rows, self.seconds = int(about["rows"]), float(about["seconds"])
        except (UserError, AttributeError, KeyError, TypeError, ValueError):
            raise _Damaged(f"{mark.name} is not readable") from None
        for name, (size, _) in self.files.items():
            path = self.path(name)
            actual = path.stat().st_size if path.is_file() else 0
            if actual != size:
                raise _Damaged(f"{path.name} has {actual:,} of {size:,} bytes")
        self.verify("keys.npy")
        self.keys = np.load(self.path("keys.npy"))

    def path(self, name: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{name}")

    def verify(self, name: str) -> None:
        if sha256(self.path(name)) != self.files[name][1]:
            raise _Damaged(f"{self.path(name).name} has other content than was written")

    def data(self) -> np.ndarray:
        return np.load(self.path("data.npy"), mmap_mode="r")

    def offsets(self) -> np.ndarray:
        return np.load(self.path("offsets.npy"))


class _Damaged(Exception):
    pass


class Store:
    """All segments of one output of one teacher, with an index over their rows."""

    def __init__(self, folder: Path, output: Output) -> None:
        self.folder, self.output = folder, output
        self.segments: list[_Segment] = []

    def open(self) -> None:
        """Read the segments that are on disk now. Damaged ones are left out, named, and removed if they may be."""
        self.segments = []
        for mark in sorted(self.folder.glob("segment-*.json")):
            try:
                segment = _Segment(mark)
                if not self.output.ragged and segment.files["data.npy"][0] <= TABLE_BYTES:
                    segment.verify("data.npy")
                self.segments.append(segment)
            except _Damaged as damage:
                log(f"teacher cache: {self.folder}: {damage}; its rows are computed again")
                if is_main():
                    _remove(self.folder, mark.stem)
        keys = [segment.keys for segment in self.segments]
        joined = np.concatenate(keys) if keys else np.empty((0, 2), np.uint64)
        self._order = np.lexsort((joined[:, 1], joined[:, 0]))
        self._sorted = joined[self._order]
        self._starts = np.cumsum([0] + [segment.rows for segment in self.segments])

    def tidy(self) -> None:
        """Open, and remove what killed processes left half written; for one process of several."""
        self.open()
        whole = {mark.stem for mark in self.folder.glob("segment-*.json")}
        for path in self.folder.glob("*segment-*"):
            stem = path.name.lstrip(".").split(".")[0]
            with contextlib.suppress(OSError):  # renamed by another run since it was listed, or in a read-only cache
                if stem not in whole and time.time() - path.stat().st_mtime > _ORPHAN_SECONDS:
                    path.unlink()

    def find(self, keys: np.ndarray) -> np.ndarray:
        """For uint64 keys [n, 2] the rows' positions in the store, int64 [n]; -1 where there is none."""
        high = self._sorted[:, 0]
        at = np.searchsorted(high, keys[:, 0])
        found = np.full(len(keys), -1, np.int64)
        open_ = np.flatnonzero(at < len(high))
        while len(open_):  # a second round only where two keys share their first 64 bits
            same = open_[high[at[open_]] == keys[open_, 0]]
            match = self._sorted[at[same], 1] == keys[same, 1]
            found[same[match]] = self._order[at[same[match]]]
            open_ = same[~match]
            at[open_] += 1
            open_ = open_[at[open_] < len(high)]
        return found

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment number and row in it, each int64 [n]."""
        segment = np.searchsorted(self._starts, positions, side="right") - 1
        return segment, positions - self._starts[segment]

    def seconds(self, positions: np.ndarray) -> float:
        """What it took to compute the rows at these positions, by the mean of each one's segment."""
        segment, _ = self.locate(positions)
        counts = np.bincount(segment, minlength=len(self.segments))
        return float(sum(n * s.seconds / s.rows for n, s in zip(counts, self.segments, strict=True)))


class Writer:
    """Collects rows and writes a segment when there are enough of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._start()

    def _start(self) -> None:
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []
        self._bytes, self._seconds, self._since = 0, 0.0, time.monotonic()

    def add(self, keys: np.ndarray, rows: np.ndarray, extents: np.ndarray, seconds: float) -> None:
        """keys uint64 [k, 2]; rows float32, padded [k, ...]; extents int64 [k, 1] or [k, 3]; seconds they took."""
        output = self._store.output
        if output.ragged:
            cut = [output.cut(row, extent).ravel() for row, extent in zip(rows, extents, strict=True)]
            self._rows.append(np.concatenate(cut))
        else:
            self._rows.append(np.ascontiguousarray(rows))
        self._keys.append(keys)
        self._sizes.append(output.sizes(extents))
        self._seconds += seconds
        self._bytes += self._rows[-1].nbytes
        if self._bytes >= SEGMENT_BYTES or time.monotonic() - self._since >= SEGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected. UserError when the disk is full; segments written before stay."""
        if self._keys:
            arrays = {"keys.npy": np.concatenate(self._keys), "data.npy": np.concatenate(self._rows)}
            if self._store.output.ragged:
                sizes = np.concatenate([[0], *self._sizes])
                arrays["offsets.npy"] = np.cumsum(sizes, dtype=np.int64)
            _write_segment(self._store.folder, arrays, len(arrays["keys.npy"]), self._seconds)
        self._start()


def _write_segment(folder: Path, arrays: dict[str, np.ndarray], rows: int, seconds: float) -> None:
    stem = f"segment-{uuid.uuid4().hex[:16]}"
    files = {}
    try:
        with _helpful_when_full(folder):
            for name, array in arrays.items():
                with atomic_path(folder / f"{stem}.{name}") as temporary:
                    save_array(temporary, array)
                    files[name] = {"bytes": temporary.stat().st_size, "sha256": sha256(temporary)}
            write_json(folder / f"{stem}.json", {"rows": rows, "seconds": seconds, "files": files})
    except UserError:
        _remove(folder, stem)
        raise


@contextlib.contextmanager
def _helpful_when_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        reason = error.__cause__
        if not isinstance(reason, OSError) or reason.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{folder}: the disk is full; what is cached stays. Free some space, choose another folder by --cache_dir, "
            "or less of it by --cache_limit_gb, then run the same command"
        ) from error


def _remove(folder: Path, stem: str) -> None:
    """The mark first. What may not be removed, as in a read-only cache, stays."""
    for path in (folder / f"{stem}.json", *folder.glob(f"{stem}.*")):
        with contextlib.suppress(OSError):
            path.unlink()


def folder_bytes(folder: Path) -> int:
    """Size of all files below `folder`, in bytes."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:  # another process has just renamed it
                continue
    return total


@dataclass(frozen=True)
class Requests:
    """The distinct rows of a request: keys uint64 [d, 2] and extents int64 [d, 1] or [d, 3], sorted by (length, key).

    inverse int32 [n]: number of the distinct row for each row asked; first int64 [d]: an index of it in the rows.
    """

    keys: np.ndarray
    extents: np.ndarray
    first: np.ndarray
    inverse: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [d]."""
        return self.extents[:, 0]

    @classmethod
    def of(cls, keys: np.ndarray, extents: np.ndarray) -> "Requests":
        """From `Encoded.keys()`, and `.extents` or `.lengths`."""
        extents = extents[:, None] if extents.ndim == 1 else extents
        pairs = np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)
        order = np.lexsort((pairs[:, 1], pairs[:, 0], extents[:, 0]))
        ordered = pairs[order]
        new = np.ones(len(order), bool)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        inverse = np.empty(len(order), np.int32)
        inverse[order] = np.cumsum(new) - 1
        first = order[new]
        return cls(ordered[new], extents[first], first, inverse)

    def batches(self, wanted: np.ndarray) -> list[np.ndarray]:
        """The rows where `wanted` (bool [d]) is true, in batches of neighbours of about BATCH_TOKENS padded tokens."""
        rows = np.flatnonzero(wanted)
        lengths = self.lengths[rows]
        plan, start, n = [], 0, len(rows)
        while start < n:
            end = min(n, start + max(1, BATCH_TOKENS // int(lengths[start])))
            while end - start > 1 and (end - start) * int(lengths[end - 1]) > BATCH_TOKENS:
                end = start + max(1, BATCH_TOKENS // int(lengths[end - 1]))
            plan.append(rows[start:end])
            start = end
        return plan

    def digest(self) -> str:
        """Content address of the set of rows."""
        return hashlib.blake2b(self.keys.tobytes(), digest_size=16).hexdigest()


class Unfinished:
    """What one request lacked when its filling began, kept until the filling ends.

    A filling that is taken up again plans its batches over the same rows as before, so that it gives the same bits, and
    yet computes nothing that another request had left there.
    """

    def __init__(self, folder: Path, requests: Requests, outputs: Sequence[Output]) -> None:
        names = "+".join(output.name for output in outputs)
        self._path = folder / f"unfinished-{requests.digest()}-{names}.npy"
        self._rows = len(requests.keys)

    def begun(self) -> np.ndarray | None:
        """The rows that were absent, bool [d]; None when no such filling was interrupted."""
        try:
            bits = np.load(self._path)
            return np.unpackbits(bits, count=self._rows).astype(bool) if len(bits) == self.size else None
        except (FileNotFoundError, ValueError, EOFError):
            return None

    @property
    def size(self) -> int:
        """Bytes of the rows' bits."""
        return (self._rows + 7) // 8

    def begin(self, absent: np.ndarray) -> None:
        with _helpful_when_full(self._path.parent), atomic_path(self._path) as temporary:
            save_array(temporary, np.packbits(absent))

    def end(self) -> None:
        self._path.unlink(missing_ok=True)


class Column:
    """One output of all rows of a request: a table in memory, or positions in memory-mapped segments."""

    def __init__(self, store: Store, requests: Requests) -> None:
        self.output = store.output
        self._store, self._inverse = store, requests.inverse
        self.positions = store.find(requests.keys)
        sizes = self.output.sizes(requests.extents)
        self.bytes = 4 * int(sizes[self.positions >= 0].sum())
        self._data = [segment.data() for segment in store.segments]
        self._offsets = [segment.offsets() for segment in store.segments] if self.output.ragged else []
        self._table: np.ndarray | None = None
        shape = (len(self.positions), *self.output.shape)
        if not self.output.ragged and 4 * math.prod(shape) <= TABLE_BYTES:
            table = np.zeros(shape, np.float32)
            self._gather(self.positions, table)
            self._table, self._data = table, []

    def _gather(self, positions: np.ndarray, into: np.ndarray) -> None:
        """Copy the rows at these positions; where the position is -1 `into` stays."""
        found = np.flatnonzero(positions >= 0)
        number, row = self._store.locate(positions[found])
        for i in np.unique(number):
            chosen = number == i
            into[found[chosen]] = self._data[i][row[chosen]]

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """Whether each row is not in the cache, bool [B]."""
        return self.positions[self._inverse[indices]] < 0

    def read(self, indices: np.ndarray, extents: np.ndarray, widest: np.ndarray) -> np.ndarray:
        """Float32 [B, ...] as for a row of the extents `widest`, 0 on padding and in missing rows."""
        rows = self._inverse[indices]
        if self._table is not None:
            return self._table[rows]
        positions = self.positions[rows]
        batch = np.zeros((len(indices), *self.output.row_shape(widest)), np.float32)
        if not self.output.ragged:
            self._gather(positions, batch)
            return batch
        found = np.flatnonzero(positions >= 0)
        number, row = self._store.locate(positions[found])
        for b, i, r in zip(found, number, row, strict=True):
            start, end = self._offsets[i][r : r + 2]
            shape = self.output.row_shape(extents[b])
            self.output.cut(batch[b], extents[b])[...] = self._data[i][start:end].reshape(shape)
        return batch


class CachedOutputs:
    """Outputs of a teacher for the rows of one request, from the cache; what did not fit is computed when asked for.

    hit_rate  share of the distinct rows that were in the cache before, 1.0 for an empty request
    bytes     size of the outputs that are in the cache
    live      number of distinct rows that are not
    """

    def __init__(
        self,
        columns: Sequence[Column],
        extents: np.ndarray,
        hit_rate: float,
        compute: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    ) -> None:
        self._columns, self._extents, self._compute = columns, extents, compute
        self.hit_rate = hit_rate
        self.bytes = sum(column.bytes for column in columns)
        absent = [column.positions < 0 for column in columns]
        self.live = int(np.any(absent, axis=0).sum())

    def __len__(self) -> int:
        return len(self._extents)

    def batch(self, indices: Any, width: int | None = None) -> dict[str, np.ndarray]:
        """The outputs of the chosen rows of the request, float32, by kind; zeros on padding.

        logits [B, C]; cls [B, layers, H]; hidden [B, layers, L, H]; scores [B, layers, heads, L, L]; L is `width`, or
        the longest of the rows; first_to_second [B, layers, heads, La, Lb] and second_to_first [..., Lb, La] with the
        longest of their texts, 1 at least. Raises ValueError when a row is longer than `width`.
        """
        indices = np.asarray(indices, np.int64)
        extents = self._extents[indices]
        widest = extents.max(axis=0, initial=0)
        widest[1:] = np.maximum(widest[1:], 1)
        if width is not None:
            if widest[0] > width:
                raise ValueError(f"a row has {widest[0]} tokens, more than the width {width}")
            widest[0] = width
        batch = {column.output.kind: column.read(indices, extents, widest) for column in self._columns}
        if self.live:
            absent = np.flatnonzero(np.any([column.missing(indices) for column in self._columns], axis=0))
            if len(absent):
                computed = self._compute(indices[absent], widest)
                for kind, values in computed.items():
                    batch[kind][absent] = values
        return batch


def summary(asked: int, distinct: int, found: int, hit_rate: float, done: int, seconds: float, saved: float) -> str:
    """What a request found in the cache and what was computed, as a line."""
    among = f" ({distinct:,} distinct)" if distinct != asked else ""
    line = f"teacher cache: {asked:,} rows asked{among}, {found:,} found ({hit_rate:.1%})".replace("%", " %")
    if done:
        line += f", {done:,} computed in {seconds:.1f} s ({done / seconds:,.0f} rows/s)"
    return line + (f", {saved:.1f} s saved" if found else "")
