"""Sentence vectors of a teacher, computed once: on disk, addressed by the teacher and by each sentence's text.

    vectors = teacher_vectors(teacher.encode, teacher.digest, train.sources, args.cache_dir, args.cache_limit_gb)
    batch["teacher"] = vectors.batch(indices)                                       # [B, H]

The files are those of `distill.teachers.cache`, in CACHE/<teacher>/vectors, and have its properties: shared by all
runs, checked by SHA-256, added to and never changed; a killed filling is taken up where it stopped.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import UserError
from distill.runtime import barrier, from_main, is_main, log, rank, world_size
from distill.teachers.cache import (
    SEGMENT_OVERHEAD,
    CachedOutputs,
    Column,
    Output,
    Requests,
    Store,
    Unfinished,
    Writer,
    folder_bytes,
    summary,
)

Encode = Callable[[list[str]], np.ndarray]


class Vectors:
    """The vectors of N texts, which stay on disk, memory-mapped, where they are large.

    dim: numbers in a vector; hit_rate: share of the distinct texts that were in the cache before; live: distinct texts
    that are not in it now and are computed whenever they are asked for.
    """

    def __init__(self, found: CachedOutputs, dim: int) -> None:
        self._found, self.dim = found, dim
        self.hit_rate, self.live = found.hit_rate, found.live

    def __len__(self) -> int:
        return len(self._found)

    def batch(self, indices: Any) -> np.ndarray:
        """Those of the texts at `indices`, float32 [B, dim], for the caller to keep and change."""
        return self._found.batch(indices)["vectors"]


def teacher_vectors(
    encode: Encode, digest: str, texts: Sequence[str], cache_dir: str | Path, limit_gb: float
) -> Vectors:
    """The teacher's vectors of `texts`, from the cache, which is filled first where it lacks some.

    encode: texts -> float32 [n, dim], the same for a text whatever the others are, but for rounding. digest: equal ones
    mean equal vectors, so it is made of weights, vocabulary, pooling and whatever else changes them. A text that occurs
    several times is encoded once; when all are there `encode` is not called. Texts that do not fit into a cache of
    `limit_gb` (10^9 bytes, everything in `cache_dir` counted) are computed whenever they are asked for.

    Under paddle.distributed.launch the ranks share the filling, so all of them must call this. Raises UserError for a
    vector that is not finite and when the disk is full; ValueError without texts, and for vectors of another shape than
    the cached ones.
    """
    if not texts:
        raise ValueError("no texts, so no vectors")
    root = Path(cache_dir).expanduser()
    folder = root / digest[:16]
    requests = Requests.of(_keys(texts), np.maximum([len(text) for text in texts], 1))
    store = Store(folder / "vectors", Output("vectors", (), (0,)))
    unfinished = Unfinished(folder, requests, [store.output])

    def decide() -> tuple[int, np.ndarray, list[np.ndarray], float]:
        store.tidy()
        # The width of those that are there, otherwise of the first text's.
        dim = store.segments[0].data().shape[1] if store.segments else np.asarray(encode([texts[0]])).shape[-1]
        positions = store.find(requests.keys)
        absent = positions < 0
        begun = unfinished.begun()
        begun = absent if begun is None else begun | absent
        room = limit_gb * 1e9 - folder_bytes(root) - unfinished.size - SEGMENT_OVERHEAD
        plan = _admitted(requests, absent, begun, 4 * dim + 16, room, f"{root} (limit {limit_gb:g} GB)")
        if plan:
            unfinished.begin(begun)
        return int(dim), absent, plan, store.seconds(positions[~absent])

    # Another run may add to the cache meanwhile, and ranks that counted by themselves would share out other texts.
    dim, absent, plan, saved = from_main(decide)
    store.output = Output("vectors", (), (dim,))
    started = time.perf_counter()
    if plan:
        _fill(encode, dim, texts, requests, store, absent, plan)
        barrier()
        if is_main():
            unfinished.end()
    if plan or not is_main():
        store.open()
    done = sum(int(absent[rows].sum()) for rows in plan)
    distinct, found = len(absent), int((~absent).sum())
    seconds = time.perf_counter() - started
    log(summary(len(texts), distinct, found, found / distinct, done, seconds, saved))

    def compute(indices: np.ndarray, _: Any) -> dict[str, np.ndarray]:
        return {"vectors": _encoded(encode, [texts[i] for i in indices], dim)}

    extents = requests.extents[requests.inverse]
    return Vectors(CachedOutputs([Column(store, requests)], extents, found / distinct, compute), dim)


def _keys(texts: Sequence[str]) -> np.ndarray:
    """Content address of each text, [n] of dtype V16: 128-bit BLAKE2b of its UTF-8 bytes."""
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    return np.frombuffer(b"".join(digests), "V16")


def _admitted(
    requests: Requests, absent: np.ndarray, begun: np.ndarray, size: int, room: float, where: str
) -> list[np.ndarray]:
    """Of the rows `begun` the batches that lack some, as many as fit into `room` bytes with `size` bytes a row."""
    needed = [rows for rows in requests.batches(begun) if absent[rows].any()]
    for number, rows in enumerate(needed):
        room -= size * int(absent[rows].sum()) + SEGMENT_OVERHEAD
        if room < 0:
            left = sum(int(absent[late].sum()) for late in needed[number:])
            log(f"teacher cache: {left:,} rows do not fit into {where}; they are computed each time they are needed")
            return needed[:number]
    return needed


def _fill(
    encode: Encode,
    dim: int,
    texts: Sequence[str],
    requests: Requests,
    store: Store,
    absent: np.ndarray,
    plan: Sequence[np.ndarray],
) -> None:
    """Compute this rank's batches, each whole whatever it lacks: its values then depend on the request alone."""
    from tqdm import tqdm

    mine, writer, terminal = plan[rank() :: world_size()], Writer(store), sys.stderr.isatty()
    with tqdm(
        total=sum(int(absent[rows].sum()) for rows in mine), desc="teacher", unit=" rows", unit_scale=True,
        leave=False, disable=not is_main(), delay=1 if terminal else 60, mininterval=0.2 if terminal else 60,
    ) as bar:  # fmt: skip
        for rows in mine:
            start = time.perf_counter()
            vectors = _encoded(encode, [texts[i] for i in requests.first[rows]], dim)
            seconds, kept = time.perf_counter() - start, np.flatnonzero(absent[rows])
            share = len(kept) / len(rows)
            writer.add(requests.keys[rows][kept], vectors[kept], requests.extents[rows][kept], seconds * share)
            bar.update(len(kept))
        writer.flush()


def _encoded(encode: Encode, texts: list[str], dim: int) -> np.ndarray:
    vectors = np.asarray(encode(texts), np.float32)
    if vectors.shape != (len(texts), dim):
        raise ValueError(f"{len(texts)} texts have vectors {list(vectors.shape)}; the cache has {dim} numbers each")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise UserError(f"the teacher's vector of {texts[broken[0]][:60]!r} is not finite; choose another teacher")
    return vectors
