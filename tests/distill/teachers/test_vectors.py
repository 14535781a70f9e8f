"""A teacher's sentence vectors: computed once, exact, resumed bit for bit, never larger than allowed.

As a script it fills a cache, CACHE ROWS, and kills itself in the midst of it.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.errors import UserError
from distill.teachers import cache, vectors
from distill.teachers.cache import Requests, folder_bytes
from distill.teachers.vectors import teacher_vectors
from tests.distill.teachers.ranks import two_ranks

ROOT = Path(__file__).resolve().parents[3]
DIM = 8
DIGEST = "0123456789abcdef0123"


class Encoder:
    """Vectors that depend in their last bits on the rows beside, as those of a padded model do."""

    def __init__(self, dim=DIM):
        self.dim, self.calls = dim, []

    def __call__(self, texts):
        self.calls.append(list(texts))
        rows = [np.random.default_rng([ord(c) for c in text] or [0]).normal(size=self.dim) for text in texts]
        return np.float32(rows) * np.float32(1 + len(texts) * 2**-23)

    @property
    def texts(self):
        return [text for call in self.calls for text in call]


def some(n, seed=0):
    """n sentences of 1 to 40 characters in several scripts; one in ten occurs twice."""
    rng = np.random.default_rng(seed)
    distinct = [f"{i} " + "".join(rng.choice(list("abc é猫"), rng.integers(0, 37))) for i in range(n - n // 10)]
    return distinct + distinct[: n // 10]


@pytest.fixture
def small(monkeypatch):
    """Small batches, each its own segment."""
    monkeypatch.setattr(cache, "BATCH_TOKENS", 100)
    monkeypatch.setattr(cache, "SEGMENT_SECONDS", 0.0)


def made(texts, folder, encoder=None, limit=1.0, digest=DIGEST):
    return teacher_vectors(encoder or Encoder(), digest, texts, folder, limit)


def whole(found):
    return found.batch(np.arange(len(found)))


def test_vectors_are_the_encoders_and_come_from_the_cache(tmp_path, capsys):
    texts, encoder = some(50), Encoder()
    first = made(texts, tmp_path, encoder)
    assert (len(first), first.dim, first.hit_rate, first.live) == (50, DIM, 0.0, 0)
    probe, *batches = encoder.calls
    assert len(probe) == 1 and sorted(text for batch in batches for text in batch) == sorted(set(texts))
    np.testing.assert_allclose(whole(first), Encoder()(texts), rtol=1e-5)
    again = Encoder()
    found = made(texts, tmp_path, again)
    assert (found.hit_rate, found.dim, again.calls) == (1.0, DIM, [])  # not even to learn the width
    np.testing.assert_array_equal(whole(found), whole(first))
    chosen = found.batch([49, 3, 3])
    assert chosen.shape == (3, DIM) and chosen.dtype == np.float32
    np.testing.assert_array_equal(chosen, whole(first)[[49, 3, 3]])
    chosen[:] = 0  # the caller's own
    np.testing.assert_array_equal(whole(found), whole(first))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("teacher cache: 50 rows asked (45 distinct), 0 found (0.0 %), 45 computed in ")
    assert lines[1].startswith("teacher cache: 50 rows asked (45 distinct), 45 found (100.0 %), ")


def test_texts_are_shared_among_requests_and_teachers_share_nothing(tmp_path):
    texts, encoder = some(40), Encoder()
    part = made(texts[:10], tmp_path)
    found = made(texts[::-1], tmp_path, encoder)
    assert found.hit_rate == pytest.approx(10 / 36)
    np.testing.assert_array_equal(found.batch(np.arange(39, 29, -1)), whole(part))
    assert made(texts, tmp_path, digest="f" + DIGEST).hit_rate == 0.0
    assert made([texts[0] + " "], tmp_path).hit_rate == 0.0


def test_odd_texts(tmp_path):
    texts = ["", "\n", "\ud800", "a\0b", "a", "b", "é", "e\u0301"]
    found = made(texts, tmp_path)
    assert len(np.unique(whole(found), axis=0)) == len(texts)
    with pytest.raises(ValueError, match="no texts"):
        made([], tmp_path)


def test_large_ones_stay_on_disk(tmp_path, monkeypatch, small):
    texts = some(30)
    expected = whole(made(texts, tmp_path))
    monkeypatch.setattr(cache, "TABLE_BYTES", 0)
    found = made(texts, tmp_path)
    (column,) = found._found._columns
    assert column._table is None and all(isinstance(data, np.memmap) for data in column._data)
    np.testing.assert_array_equal(whole(found), expected)


@pytest.mark.parametrize("damage", ["data cut", "data changed", "json cut", "keys gone"])
def test_damaged_segments_are_named_and_computed_again(tmp_path, small, capsys, damage):
    texts = some(40)
    expected = whole(made(texts, tmp_path))
    victim = sorted(tmp_path.rglob("segment-*.json"))[1].with_suffix("")
    data, keys, mark = (victim.with_name(f"{victim.name}{end}") for end in (".data.npy", ".keys.npy", ".json"))
    content = data.read_bytes()
    if damage == "data cut":
        data.write_bytes(content[:-4])
    elif damage == "data changed":
        data.write_bytes(content[:-2] + bytes([content[-2] ^ 0x40]) + content[-1:])
    elif damage == "json cut":
        mark.write_text(mark.read_text()[:40])
    else:
        keys.unlink()
    capsys.readouterr()
    encoder = Encoder()
    found = made(texts, tmp_path, encoder)
    assert 0.5 < found.hit_rate < 1.0 and 0 < len(encoder.texts) < 20
    said = capsys.readouterr().out
    assert victim.name in said and "computed again" in said
    np.testing.assert_allclose(whole(found), expected, rtol=1e-5)
    assert made(texts, tmp_path).hit_rate == 1.0


@pytest.mark.parametrize("kilobytes", [0, 10])
def test_the_limit_is_kept_and_the_rest_is_live(tmp_path, small, capsys, kilobytes):
    texts = some(60)
    expected = whole(made(texts, tmp_path / "unlimited"))
    for _ in range(2):  # a second request must not squeeze anything in
        capsys.readouterr()
        encoder = Encoder()
        found = made(texts, tmp_path / "limited", encoder, kilobytes / 1e6)
        assert folder_bytes(tmp_path / "limited") <= kilobytes * 1000
        assert f"{found.live} rows do not fit into {tmp_path / 'limited'}" in capsys.readouterr().out
    assert 0 < found.live <= 54 and (found.live < 54) == (kilobytes > 0)
    encoder.calls.clear()
    np.testing.assert_allclose(whole(found), expected, rtol=1e-5)
    assert len(set(encoder.texts)) == found.live


def test_a_filling_that_was_interrupted_continues_bit_identical(tmp_path, small, monkeypatch):
    """Nothing is computed twice, in the batches of an unbroken filling, even where another one of two ranks died."""
    texts = some(80)
    straight, broken = Encoder(), Encoder()
    expected = whole(made(texts, tmp_path / "straight", straight))
    with monkeypatch.context() as patch:
        patch.setattr(vectors, "world_size", lambda: 2)

        def killed():
            raise KeyboardInterrupt

        patch.setattr(vectors, "barrier", killed)
        with pytest.raises(KeyboardInterrupt):
            made(texts, tmp_path / "broken", broken)
    assert len(list((tmp_path / "broken").rglob("unfinished*"))) == 1
    half = len(broken.calls)
    assert 2 < half < len(straight.calls) - 2
    found = made(texts, tmp_path / "broken", broken)
    np.testing.assert_array_equal(whole(found), expected)
    assert sorted(broken.calls[1:]) == sorted(straight.calls[1:])  # the first call asks for the width
    assert not list((tmp_path / "broken").rglob("unfinished*"))


def test_ranks_share_what_rank_0_found_missing(tmp_path, small, monkeypatch):
    """Though another run fills the cache before rank 1 looks at it."""
    texts, become, encoders = some(50), two_ranks(monkeypatch), [Encoder(), Encoder()]
    for number, encoder in enumerate(encoders):
        become(number)
        found = made(texts, tmp_path, encoder)
        if number == 0:
            with monkeypatch.context() as alone:
                alone.setenv("PADDLE_TRAINERS_NUM", "1")
                assert made(texts, tmp_path).live == 0
    probe, *first = encoders[0].calls
    second = encoders[1].calls
    assert probe == texts[:1] and len(second) > 1
    assert sorted(text for batch in [*first, *second] for text in batch) == sorted(set(texts))
    assert (found.hit_rate, found.live, found.dim) == (0.0, 0, DIM)
    np.testing.assert_allclose(whole(found), Encoder()(texts), rtol=1e-5)


def test_a_killed_filling_continues_bit_identical(tmp_path, small):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path / "killed"), "80"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    encoder = Encoder()
    found = made(some(80), tmp_path / "killed", encoder)
    assert 0.0 < found.hit_rate < 1.0  # what was finished stayed
    np.testing.assert_array_equal(whole(found), whole(made(some(80), tmp_path / "unbroken")))
    assert len(set(encoder.texts)) < 60


def test_a_full_disk(tmp_path, small, monkeypatch):
    texts, real, calls = some(40), cache.save_array, []

    def full(path, array):
        calls.append(path)
        if len(calls) == 5:  # the second segment's data
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, array)

    monkeypatch.setattr(cache, "save_array", full)
    with pytest.raises(UserError, match="the disk is full; what is cached stays") as error:
        made(texts, tmp_path)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(cache, "save_array", real)
    found = made(texts, tmp_path)
    assert 0.0 < found.hit_rate < 1.0 and found.live == 0
    np.testing.assert_allclose(whole(found), Encoder()(texts), rtol=1e-5)


def test_what_is_no_vector_is_refused_and_not_kept(tmp_path):
    def spoilt(texts):
        found = Encoder()(texts)
        found[["bad" in text for text in texts]] = np.nan
        return found

    with pytest.raises(UserError, match="the teacher's vector of 'bad text' is not finite"):
        made(["good", "bad text"], tmp_path, spoilt)
    assert not list(tmp_path.rglob("segment-*"))
    made(["good"], tmp_path)
    with pytest.raises(ValueError, match=r"1 texts have vectors \[1, 5\]; the cache has 8 numbers each"):
        made(["good", "other"], tmp_path, Encoder(5))  # another encoder under the same digest


def test_batches_are_of_similar_length(tmp_path, small):
    encoder = Encoder()
    made(some(60), tmp_path, encoder)
    lengths = [[len(text) for text in call] for call in encoder.calls[1:]]
    assert [max(call) for call in lengths] == sorted(max(call) for call in lengths)
    assert all(len(call) * max(call) <= 100 or len(call) == 1 for call in lengths)
    texts = some(60)
    requests = Requests.of(vectors._keys(texts), np.array([len(text) for text in texts]))
    assert len(lengths) == len(requests.batches(np.ones(len(requests.keys), bool)))


class Killed(Encoder):
    def __call__(self, texts):
        if len(self.calls) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(texts)


if __name__ == "__main__":
    cache.BATCH_TOKENS, cache.SEGMENT_SECONDS = 100, 0.0
    made(some(int(sys.argv[2])), sys.argv[1], Killed())
