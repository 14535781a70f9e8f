"""The cache of teacher outputs: exact, shared, survives kills and damage, never larger than allowed."""

import dataclasses
import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distill.data.wordpiece import Encoded
from distill.encoders import inference
from distill.errors import UserError
from distill.options import TeacherOptions
from distill.teachers import cache
from distill.teachers import teacher as teacher_module
from distill.teachers.cache import Output, Requests, Store, Writer, folder_bytes
from distill.teachers.teacher import Teacher
from tests.distill.teachers.fill import rows
from tests.distill.teachers.ranks import two_ranks
from tests.tiny import make_bert_folder

ROOT = Path(__file__).resolve().parents[3]
FILL = Path(__file__).with_name("fill.py")
ALL = ("logits", "cls", "hidden:0,3", "scores:1,3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("bert") / "teacher")


@pytest.fixture
def teacher(folder, tmp_path):
    return Teacher(folder, None, 64, TeacherOptions(cache_dir=str(tmp_path / "cache")))


@pytest.fixture
def small_batches(monkeypatch):
    """Many small batches, each its own segment, and a fixed way to run the teacher, as in fill.py."""
    monkeypatch.setattr(inference, "faster", lambda ways, batch: "compiled")
    monkeypatch.setattr(cache, "BATCH_TOKENS", 64)
    monkeypatch.setattr(cache, "SEGMENT_SECONDS", 0.0)


def everything(found):
    return found.batch(np.arange(len(found)))


def same(a, b):
    assert a.keys() == b.keys()
    for kind in a:
        np.testing.assert_array_equal(a[kind], b[kind], err_msg=kind)


def test_values_are_the_teachers_and_stay(teacher, capsys):
    encoded = rows(50)
    first = teacher.outputs(encoded, ALL)
    assert (first.hit_rate, first.live, len(first)) == (0.0, 0, 50)
    again = teacher.outputs(encoded, ALL)
    assert again.hit_rate == 1.0
    same(everything(first), everything(again))
    way, *lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"forward passes: (\w+) \(a batch of 32 x 32 tokens: eager [\d.]+ ms, compiled [\d.]+ ms\)", way
    )
    assert re.fullmatch(
        r"teacher cache: 50 rows asked \(45 distinct\), 0 found \(0\.0 %\), 45 computed in \d+\.\d s \([\d,]+ rows/s\)",
        lines[0],
    )
    assert re.fullmatch(
        r"teacher cache: 50 rows asked \(45 distinct\), 45 found \(100\.0 %\), \d+\.\d s saved", lines[1]
    )
    chosen = np.array([49, 3, 3, 20])
    batch, live = again.batch(chosen), teacher.forward(encoded.pad(chosen), ALL)
    for kind in live:
        assert batch[kind].shape == live[kind].shape and batch[kind].dtype == np.float32
        np.testing.assert_allclose(batch[kind], live[kind], atol=2e-6)
        assert (batch[kind] == 0).sum() == (live[kind] == 0).sum()  # the padding is 0 in both
    wide = again.batch(chosen, width=30)
    assert wide["hidden"].shape == (4, 2, 30, 32) and wide["scores"].shape == (4, 2, 4, 30, 30)
    longest = batch["hidden"].shape[2]
    np.testing.assert_array_equal(wide["hidden"][:, :, :longest], batch["hidden"])
    assert not wide["hidden"][:, :, longest:].any()
    with pytest.raises(ValueError, match="width"):
        again.batch(chosen, width=3)
    numbers = 2 + 4 * 32 + (2 * 32 + 0) * encoded.take(np.arange(45)).lengths.mean()
    scores = (2 * 4 * encoded.take(np.arange(45)).lengths ** 2).mean()
    assert again.bytes == pytest.approx(45 * 4 * (numbers + scores), abs=1)


def test_rows_are_shared_among_requests(teacher):
    encoded = rows(40)
    part = teacher.outputs(encoded.take(np.arange(10)))
    whole = teacher.outputs(encoded)
    assert whole.hit_rate == pytest.approx(10 / 36)
    np.testing.assert_array_equal(everything(part)["logits"], everything(whole)["logits"][:10])
    assert teacher.outputs(encoded.take(np.arange(39, -1, -1))).hit_rate == 1.0
    both = teacher.outputs(encoded.take(np.arange(5)), ("logits", "hidden:3"))
    assert both.hit_rate == 0.0  # the hidden states were not there
    np.testing.assert_array_equal(everything(both)["logits"], everything(whole)["logits"][:5])


def test_only_the_rows_that_will_be_asked_for_are_filled(teacher, capsys):
    encoded = rows(40, seed=11)
    chosen = np.array([3, 4, 17, 30])
    found = teacher.outputs(encoded, ALL, chosen)
    assert "teacher cache: 4 rows asked, 0 found" in capsys.readouterr().out
    assert len(found) == 40
    part, whole = found.batch(chosen), teacher.outputs(encoded, ALL).batch(chosen)
    same(part, whole)
    assert teacher.outputs(encoded, ALL, chosen).hit_rate == 1.0


def test_other_weights_or_length_share_nothing(teacher, folder, tmp_path):
    encoded = rows(10)
    teacher.outputs(encoded)
    options = TeacherOptions(cache_dir=str(tmp_path / "cache"))
    assert Teacher(folder, None, 32, options).outputs(encoded).hit_rate == 0.0
    other = make_bert_folder(tmp_path / "other", seed=1)
    assert Teacher(other, None, 64, options).outputs(encoded).hit_rate == 0.0
    assert Teacher(folder, None, 64, options).outputs(encoded).hit_rate == 1.0


def test_token_types_are_part_of_the_address(teacher):
    ids = [[2, 50, 3, 60, 3]]
    single, pair = Encoded.from_rows(ids), Encoded.from_rows(ids, [[0, 0, 0, 1, 1]])
    a = everything(teacher.outputs(single))["logits"]
    found = teacher.outputs(pair)
    assert found.hit_rate == 0.0 and np.abs(everything(found)["logits"] - a).max() > 1e-3


def test_no_rows(teacher):
    found = teacher.outputs(rows(10).take(np.arange(0)), ("logits", "hidden:1"))
    assert (len(found), found.hit_rate, found.bytes) == (0, 1.0, 0)


def test_large_tables_stay_on_disk(teacher, monkeypatch):
    encoded = rows(30)
    expected = everything(teacher.outputs(encoded, ("logits", "cls")))
    monkeypatch.setattr(cache, "TABLE_BYTES", 0)
    found = teacher.outputs(encoded, ("logits", "cls"))
    assert found.hit_rate == 1.0 and all(column._table is None for column in found._columns)
    same(everything(found), expected)


def test_a_table_is_made_where_all_rows_fit_into_it(teacher, monkeypatch):
    """Not where those do that are cached: here none is."""
    encoded = rows(30)
    monkeypatch.setattr(teacher, "options", dataclasses.replace(teacher.options, cache_limit_gb=0.0))
    logits = everything(teacher.outputs(encoded, ("logits",)))["logits"]
    size = len(np.unique(encoded.keys())) * logits[0].nbytes  # equal rows share one
    for limit, made in ((size, True), (size - 1, False)):
        monkeypatch.setattr(cache, "TABLE_BYTES", limit)
        found = teacher.outputs(encoded, ("logits",))
        assert found.hit_rate == 0.0 and (found._columns[0]._table is not None) is made


def test_plan_of_batches():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 129, 3000)
    encoded = Encoded.from_rows([rng.integers(0, 999, n) for n in lengths])
    requests = Requests.of(encoded.keys(), encoded.lengths)
    plan = requests.batches(np.ones(len(requests.keys), bool))
    np.testing.assert_array_equal(np.concatenate(plan), np.arange(len(requests.keys)))
    padded = [len(b) * requests.lengths[b].max() for b in plan]
    assert max(padded) <= 4096 and np.mean(padded) > 3500
    assert (np.diff(requests.lengths) >= 0).all()
    np.testing.assert_array_equal(requests.lengths[requests.inverse], encoded.lengths)
    shuffled = rng.permutation(3000)
    other = Requests.of(encoded.keys()[shuffled], encoded.lengths[shuffled])
    np.testing.assert_array_equal(other.keys, requests.keys)  # the order of the request changes nothing
    monster = Requests.of(encoded.keys()[:2], np.array([9000, 9000]))
    assert len(monster.batches(np.ones(2, bool))) == 2
    odd = np.arange(len(requests.keys)) % 2 == 1
    np.testing.assert_array_equal(np.concatenate(requests.batches(odd)), np.flatnonzero(odd))


def test_index_with_equal_first_halves(tmp_path):
    store = Store(tmp_path, Output("logits", (), (1,)))
    keys = np.array([[7, 1], [7, 3], [7, 2], [9, 1], [0, 5], [2**64 - 1, 2**64 - 1]], np.uint64)
    for part in (slice(0, 2), slice(2, 6)):
        writer = Writer(store)
        n = len(keys[part])
        writer.add(keys[part], np.zeros((n, 1), np.float32), np.ones(n, np.int64), 0.5 * n)
        writer.flush()
    store.open()
    assert sorted(store.find(keys)) == list(range(6))
    absent = np.array([[7, 0], [7, 4], [8, 1], [9, 2], [2**64 - 1, 0]], np.uint64)
    assert (store.find(absent) == -1).all()
    assert store.seconds(store.find(keys)) == pytest.approx(3.0)
    segment, row = store.locate(store.find(keys))
    for i in range(6):
        np.testing.assert_array_equal(store.segments[segment[i]].keys[row[i]], keys[i])


@pytest.mark.parametrize("output", ["logits", "hidden:1,2"])
@pytest.mark.parametrize("damage", ["data cut", "keys changed", "json cut", "data gone"])
def test_damaged_segments_are_named_and_computed_again(teacher, small_batches, capsys, output, damage):
    encoded = rows(40)
    expected = everything(teacher.outputs(encoded, (output,)))
    victim = sorted(Path(teacher.options.cache_dir).rglob("*.json"))[2].with_suffix("")
    data, keys, mark = (victim.with_name(f"{victim.name}{end}") for end in (".data.npy", ".keys.npy", ".json"))
    if damage == "data cut":
        data.write_bytes(data.read_bytes()[:-4])
    elif damage == "keys changed":
        keys.write_bytes(keys.read_bytes()[:-1] + bytes([keys.read_bytes()[-1] ^ 1]))
    elif damage == "json cut":
        mark.write_text(mark.read_text()[:40])
    else:
        data.unlink()
    capsys.readouterr()
    found = teacher.outputs(encoded, (output,))
    assert 0.5 < found.hit_rate < 1.0
    said = capsys.readouterr().out
    assert victim.name in said and "computed again" in said
    same(everything(found), expected)
    assert not list(victim.parent.glob(f"{victim.name}.*"))
    assert teacher.outputs(encoded, (output,)).hit_rate == 1.0


def test_changed_values_are_noticed(teacher, capsys):
    encoded = rows(20)
    expected = everything(teacher.outputs(encoded))
    data = next(Path(teacher.options.cache_dir).rglob("*.data.npy"))
    raw = bytearray(data.read_bytes())
    raw[-2] ^= 0x40
    data.write_bytes(raw)
    found = teacher.outputs(encoded)
    assert found.hit_rate == 0.0 and "other content" in capsys.readouterr().out
    same(everything(found), expected)


def test_left_overs_of_killed_processes_go_when_old(teacher):
    encoded = rows(10)
    teacher.outputs(encoded)
    folder = next(Path(teacher.options.cache_dir).rglob("segment-*.json")).parent
    old, new = folder / "segment-dead.keys.npy", folder / ".segment-beef.data.npy.77.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3600,) * 2)
    assert teacher.outputs(encoded).hit_rate == 1.0
    assert not old.exists() and new.exists()


def test_a_left_over_that_another_run_renames_meanwhile(teacher, monkeypatch):
    encoded = rows(10)
    teacher.outputs(encoded)
    folder = next(Path(teacher.options.cache_dir).rglob("segment-*.json")).parent
    glob, gone = Path.glob, folder / ".segment-beef.data.npy.77.tmp"

    def listed(self, pattern):
        return [*glob(self, pattern), *([gone] if pattern == "*segment-*" else [])]

    monkeypatch.setattr(Path, "glob", listed)
    assert gone in folder.glob("*segment-*") and not gone.exists()
    assert teacher.outputs(encoded).hit_rate == 1.0


def test_a_read_only_cache_serves_what_it_holds(teacher, small_batches, monkeypatch, capsys):
    encoded = rows(10)
    expected = everything(teacher.outputs(encoded))
    mark = next(Path(teacher.options.cache_dir).rglob("segment-*.json"))
    old, damaged = mark.with_name("segment-dead.keys.npy"), mark.with_name("segment-feed.json")
    old.write_bytes(b"half")
    os.utime(old, (time.time() - 3600,) * 2)
    damaged.write_text("{")

    def refuse(path, missing_ok=False):
        refused.append(path)
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    refused: list[Path] = []
    monkeypatch.setattr(Path, "unlink", refuse)
    found = teacher.outputs(encoded)
    assert found.hit_rate == 1.0 and {old, damaged} <= set(refused) and old.exists() and damaged.exists()
    assert "segment-feed.json is not readable" in capsys.readouterr().out
    same(everything(found), expected)


@pytest.mark.parametrize("kilobytes", [0, 30, 90])
def test_size_limit_is_kept_and_the_rest_is_live(teacher, folder, tmp_path, small_batches, capsys, kilobytes):
    encoded = rows(60)
    outputs = ("logits", "hidden:1,2")
    unlimited = TeacherOptions(cache_dir=str(tmp_path / "unlimited"))
    expected = everything(Teacher(folder, None, 64, unlimited).outputs(encoded, outputs))
    teacher.options.cache_limit_gb = kilobytes / 1e6
    root = Path(teacher.options.cache_dir)
    for _ in range(2):  # a second request must not squeeze anything in
        capsys.readouterr()
        found = teacher.outputs(encoded, outputs)
        assert folder_bytes(root) <= kilobytes * 1000 + 64  # the note of how the teacher runs
        assert f"{found.live} rows do not fit" in capsys.readouterr().out
    assert 0 < found.live <= 54 and (found.live < 54) == (kilobytes > 0)
    got = everything(found)
    for kind in expected:
        np.testing.assert_allclose(got[kind], expected[kind], atol=2e-6)


@pytest.mark.parametrize("last", [1, 2, 4, 5])
def test_full_disk(teacher, small_batches, monkeypatch, last):
    encoded = rows(40)
    expected = everything(teacher.outputs(encoded.take(np.arange(20))))
    root, real, calls = Path(teacher.options.cache_dir), cache.save_array, []
    before = sorted(root.rglob("*"))

    def full(path, array):
        calls.append(path)
        if (
            len(calls) == last
        ):  # 1: the mark that a filling began; 2, 3: a segment's keys and data; 4, 5: the next one's
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, array)

    monkeypatch.setattr(cache, "save_array", full)
    with pytest.raises(UserError) as error:
        teacher.outputs(encoded)
    text = str(error.value)
    assert "\n" not in text and str(root) in text and "--cache_dir" in text and "--cache_limit_gb" in text
    whole = {1: 0, 2: 1, 4: 1 + 3, 5: 1 + 3}[last]  # the mark, one segment; nothing of what did not fit
    assert len(sorted(root.rglob("*"))) == len(before) + whole
    monkeypatch.setattr(cache, "save_array", real)
    found = teacher.outputs(encoded)
    assert found.hit_rate > 0.5 and found.live == 0
    np.testing.assert_array_equal(everything(found)["logits"][:20], expected["logits"])


def run(*arguments, launch=()):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, str(FILL), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_filling_continues_bit_identical(folder, teacher, tmp_path, small_batches, seed):
    outputs = ("logits", "hidden:2")
    unbroken = Teacher(folder, None, 64, TeacherOptions(cache_dir=str(tmp_path / "unbroken")))
    expected = everything(unbroken.outputs(rows(80), outputs))
    process = run(folder, teacher.options.cache_dir, 80, "+".join(outputs), random.Random(seed).uniform(0.0, 0.6))
    said = process.communicate(timeout=600)[0]
    assert process.returncode == -signal.SIGKILL, said
    found = teacher.outputs(rows(80), outputs)
    assert 0.0 < found.hit_rate < 1.0  # what was finished stayed
    same(everything(found), expected)
    assert not list(Path(teacher.options.cache_dir).rglob("unfinished*"))


def test_interrupted_filling_beside_another_request(folder, tmp_path, small_batches, monkeypatch):
    """Only what is missing is computed, in equal batches whether or not the filling was interrupted, even with gaps"""
    encoded = rows(80)
    part = encoded.take(np.arange(0, 70, 2))
    values, computed = [], []
    for name in ("straight", "broken"):
        teacher = Teacher(folder, None, 64, TeacherOptions(cache_dir=str(tmp_path / name)))
        teacher.outputs(part)
        forward, batches = teacher._forward, []

        def recorded(batch, outputs, forward=forward, batches=batches):
            batches.append(batch["input_ids"].tobytes())
            return forward(batch, outputs)

        teacher._forward = recorded
        if name == "broken":  # as if the other of two ranks had been killed: every second batch is there
            with monkeypatch.context() as patch:
                patch.setattr(teacher_module, "world_size", lambda: 2)

                def killed():
                    raise KeyboardInterrupt

                patch.setattr(teacher_module, "barrier", killed)
                with pytest.raises(KeyboardInterrupt):
                    teacher.outputs(encoded)
            assert len(list((tmp_path / name).rglob("unfinished*"))) == 1 and len(batches) > 2
        values.append(everything(teacher.outputs(encoded)))
        computed.append(batches)
        assert not list((tmp_path / name).rglob("unfinished*"))
    same(*values)
    assert sorted(computed[0]) == sorted(computed[1]) and len(set(computed[0])) == len(computed[0])


def test_ranks_share_what_rank_0_found_missing(folder, tmp_path, small_batches, monkeypatch):
    """Though another run fills the cache before rank 1 looks at it."""
    become, computed = two_ranks(monkeypatch), []
    for number in (0, 1):
        become(number)
        teacher = Teacher(folder, None, 64, TeacherOptions(cache_dir=str(tmp_path / "cache")))
        forward, batches = teacher._forward, []

        def recorded(batch, outputs, forward=forward, batches=batches):
            batches.append(batch["input_ids"].tobytes())
            return forward(batch, outputs)

        teacher._forward = recorded
        found = teacher.outputs(rows(80))
        computed.append(batches)
        if number == 0:
            with monkeypatch.context() as alone:
                alone.setenv("PADDLE_TRAINERS_NUM", "1")
                options = TeacherOptions(cache_dir=str(tmp_path / "cache"))
                assert Teacher(folder, None, 64, options).outputs(rows(80)).live == 0
    requests = Requests.of(rows(80).keys(), rows(80).lengths)
    assert sum(map(len, computed)) == len(requests.batches(np.ones(len(requests.keys), bool)))
    assert len(computed[1]) > 1 and not set(computed[0]) & set(computed[1])
    assert (found.hit_rate, found.live) == (0.0, 0)


def test_two_ranks_share_the_filling(folder, teacher, tmp_path, small_batches):
    outputs = ("logits", "hidden:2")
    logs = tmp_path / "logs"
    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(logs))
    process = run(folder, teacher.options.cache_dir, 80, "+".join(outputs), launch=launch)
    said = process.communicate(timeout=600)[0]
    text = "".join(path.read_text() for path in sorted(logs.glob("workerlog.*")))
    assert process.returncode == 0, said + text
    batches = [int(n) for n in re.findall(r"rank \d: (\d+) batches, 0 rows not cached", text)]
    requests = Requests.of(rows(80).keys(), rows(80).lengths)
    assert len(batches) == 2 and abs(batches[0] - batches[1]) <= 1
    assert sum(batches) == len(requests.batches(np.ones(len(requests.keys), bool)))  # each was computed once
    unbroken = Teacher(folder, None, 64, TeacherOptions(cache_dir=str(tmp_path / "one")))
    expected = everything(unbroken.outputs(rows(80), outputs))
    found = teacher.outputs(rows(80), outputs)
    assert found.hit_rate == 1.0
    same(everything(found), expected)
