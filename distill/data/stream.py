"""Plain text of any size, a sentence a line, read in windows: memory does not grow with the text.

    lines = TextLines("wiki.txt")
    stream = StreamBatches(lines, wordpiece, 128, batch_size=256, seed=42)
    fit(..., Batches(stream, stream.load), ...)

The text is read once at the start: its lines are counted, and the place of every block of lines is kept. An epoch takes
the blocks in a new order, a window of them at a time; within a window lines are bucketed by length. What a step holds
is a function of (text, seed, step), so a killed run finds its place again without reading what lies before.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from distill.data.batching import BucketBatches
from distill.data.wordpiece import WordPiece
from distill.errors import UserError
from distill.runtime import is_main

_BLOCK = 256  # lines that stay together when an epoch is shuffled
_WINDOW = 100  # steps whose lines are read and bucketed together
_BOM = b"\xef\xbb\xbf"


class TextLines:
    """The lines of a file, or of a folder's .txt files in the order of their names; empty lines are left out.

    rows: how many; digest: SHA-256 of all of them, as hexadecimal digits. UTF-8, with or without BOM, LF or CRLF.
    Raises UserError when there are none, naming file and line for bytes that are not UTF-8.
    """

    def __init__(self, path: str | Path, block: int = _BLOCK) -> None:
        self._files = _files(Path(path).expanduser())
        self._block = block
        content, places, sizes = hashlib.sha256(), [], []
        with tqdm(
            total=sum(file.stat().st_size for file in self._files), desc="text", unit="B", unit_scale=True,
            leave=False, disable=not is_main(), delay=1,
        ) as bar:  # fmt: skip
            for number, file in enumerate(self._files):
                for offset, lines in _blocks(file, block):
                    content.update(b"\n".join([*lines, b""]))
                    places.append((number, offset))
                    sizes.append(len(lines))
                    bar.update(sum(map(len, lines)) + len(lines))
        self._places = np.array(places, np.int64).reshape(-1, 2)
        self.sizes = np.array(sizes, np.int64)
        """Lines of each block, [blocks]."""
        self.rows, self.digest = int(self.sizes.sum()), content.hexdigest()
        if not self.rows:
            raise UserError(f"{path}: no text in it; one sentence a line is needed")

    def read(self, block: int) -> list[str]:
        """The lines of a block, without white space around them. Raises UserError when it has another number of
        them than before."""
        number, offset = self._places[block].tolist()
        _, lines = next(_blocks(self._files[number], self._block, offset), (0, []))
        if len(lines) != self.sizes[block]:
            raise UserError(f"{self._files[number]}: changed while it was being read; run the same command again")
        return [line.decode() for line in lines]


class StreamBatches:
    """Batches of lines of similar length, a plan for `distill.training.fit` and the function that reads them.

    Deterministic for (seed, epoch); every line occurs once an epoch. A step takes at most batch_size * world_size lines
    of one window, which are dealt out to the ranks in turn. Memory holds one window: about 100 steps' lines.
    Raises UserError as `BucketBatches` does.
    """

    def __init__(
        self,
        lines: TextLines,
        wordpiece: WordPiece,
        max_length: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._lines, self._wordpiece, self._max_length = lines, wordpiece, max_length
        self._batch_size, self._seed, self._rank, self._world_size = batch_size, seed, rank, world_size
        # All windows are alike but the last, which takes the rest.
        window = min(_WINDOW * batch_size * world_size, lines.rows)
        self._count = lines.rows // window
        self._bounds = [*range(0, self._count * window, window), lines.rows]
        self._steps = [len(self._plan(np.zeros(self._rows(w)))) for w in (0, self._count - 1)]
        self._current: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Steps in an epoch, the same on every rank."""
        return (self._count - 1) * self._steps[0] + self._steps[1]

    def epoch(self, epoch: int) -> "_Epoch":
        """This rank's steps of the epoch, counted from 0. A step is an array that holds, once for each of its lines,
        the step's number since the first epoch; `load` reads the lines."""
        # Sizes do not depend on the lengths of the lines, so nothing has to be read for them.
        sizes = [[len(b) for b in self._plan(np.zeros(self._rows(w))).epoch(epoch)] for w in (0, self._count - 1)]
        return _Epoch(epoch * len(self), len(self), *sizes)

    def load(self, step: np.ndarray) -> dict[str, np.ndarray]:
        """The step's lines as `Encoded.pad` gives them."""
        epoch, position = divmod(int(step[0]), len(self))
        window = min(position // self._steps[0], self._count - 1)
        if self._current != (epoch, window):
            texts = self._read(epoch, window)
            self._encoded = self._wordpiece.encode(texts, None, self._max_length)
            self._batches = self._plan(self._encoded.lengths).epoch(epoch)
            self._current = (epoch, window)
        return self._encoded.pad(self._batches[position - window * self._steps[0]], self._wordpiece.pad_id)

    def _plan(self, lengths: np.ndarray) -> BucketBatches:
        return BucketBatches(lengths, self._batch_size, self._seed, True, self._rank, self._world_size)

    def _rows(self, window: int) -> int:
        return self._bounds[window + 1] - self._bounds[window]

    def _read(self, epoch: int, window: int) -> list[str]:
        """The window's lines: those from one place to another of all blocks, in the epoch's order."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._lines.sizes))
        ends = np.cumsum(self._lines.sizes[order])
        start, end = self._bounds[window : window + 2]
        first, last = np.searchsorted(ends, [start, end - 1], side="right")
        texts = [text for block in order[first : last + 1] for text in self._lines.read(block)]
        begins = int(ends[first] - self._lines.sizes[order[first]])
        return texts[start - begins : end - begins]


class _Epoch(Sequence[np.ndarray]):
    """See `StreamBatches.epoch`; `usual` and `final` are the sizes of the steps of a window and of the last window."""

    def __init__(self, first: int, steps: int, usual: list[int], final: list[int]) -> None:
        self._first, self._steps, self._usual, self._final = first, steps, usual, final

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step):  # type: ignore[no-untyped-def, override]
        if not 0 <= step < self._steps:
            raise IndexError(step)
        before = self._steps - len(self._final)
        size = self._usual[step % len(self._usual)] if step < before else self._final[step - before]
        return np.full(size, self._first + step)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.glob("*.txt") if file.is_file())
        if not found:
            raise UserError(f"{path}: no .txt file in it; one sentence a line is needed")
        return found
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    return [path]


def _blocks(path: Path, size: int, offset: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """Each block's place in the file, in bytes, and its lines, stripped, the empty ones left out."""
    with open(path, "rb") as handle:
        handle.seek(offset)
        place = offset
        lines: list[bytes] = []
        for number, raw in enumerate(handle, 1):
            line = (raw.removeprefix(_BOM) if not offset and number == 1 else raw).strip()
            if line:
                try:
                    line.decode()
                except UnicodeDecodeError:
                    raise UserError(f"{path}:{number}: not UTF-8 text; save the file as UTF-8") from None
                place = place if lines else offset
                lines.append(line)
            offset += len(raw)
            if len(lines) == size:
                yield place, lines
                lines = []
        if lines:
            yield place, lines
