"""Whole or not at all: what a crash, a full disk or a forbidden folder leaves behind."""

import errno
import os
import sys
from pathlib import Path

import pytest

from distill import files
from distill.errors import UserError


def test_a_failure_in_the_block_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    files.write_atomic(path, "old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["kept.txt"]


@pytest.mark.parametrize(("code", "says"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "cannot be written")])
def test_a_refusing_disk_is_one_line_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, says: str
) -> None:
    path = tmp_path / "kept.txt"
    files.write_atomic(path, "old")

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=says) as error:
        files.write_atomic(path, "new")
    assert str(path) in str(error.value) and path.read_text() == "old" and os.listdir(tmp_path) == ["kept.txt"]


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/new.json: cannot be written"):
        files.write_json(tmp_path / "file" / "new.json", {})


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.disk_errors(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(OSError, match="odd"), files.disk_errors(tmp_path):
        raise OSError(errno.EIO, "odd")


def test_folders_on_the_way_are_made_and_text_is_utf8(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a" / "b" / "c.txt", "好")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "好".encode()


def test_json_round_trip_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"a": [1, 2.5, None, "好"]})
    assert files.read_json(path) == {"a": [1, 2.5, None, "好"]}
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": [1, 2.5, None, "好"]}
    path.write_text('{\n "a": 1,\n}')
    with pytest.raises(UserError, match=r"x\.json:3: not valid JSON"):
        files.read_json(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        files.read_json(path)
    with pytest.raises(UserError, match="no such file"):
        files.read_json(tmp_path / "none.json")


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_text_output_is_a_whole_file_or_what_is_printed_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some" / "out.tsv"
    with pytest.raises(RuntimeError), files.text_output(path, sys.stdout) as out:
        out.write("half")
        raise RuntimeError
    assert not path.exists()
    with files.text_output(path, sys.stdout) as out:
        out.write("é\n")
    with files.text_output(None, sys.stdout) as out:
        out.write("printed\n")
    assert path.read_bytes() == "é\n".encode() and capsys.readouterr().out == "printed\n"


def test_a_link_stays_one_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link, target = tmp_path / "latest.tsv", tmp_path / "far" / "today.tsv"
    link.symlink_to(target)
    for text in ("new", "newer"):
        with files.text_output(link, sys.stdout) as out:
            out.write(text)
        assert link.is_symlink() and target.read_text() == text and os.listdir(tmp_path / "far") == ["today.tsv"]


def test_a_runs_own_file_replaces_a_link_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "shared.json").write_text("of another run")
    (tmp_path / "run.json").symlink_to("shared.json")
    files.write_atomic(tmp_path / "run.json", "mine")
    assert not (tmp_path / "run.json").is_symlink() and (tmp_path / "shared.json").read_text() == "of another run"


def test_standard_output_by_its_name_is_not_replaced(tmp_path: Path, capsys) -> None:
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with files.text_output(name, sys.stdout) as out:
            out.write("a line\n")
    assert capsys.readouterr().out == "a line\n" * 3


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link", tmp_path):
        with pytest.raises(UserError, match=f"{path}: is there and no file"):
            files.write_atomic(path, "new")
    with pytest.raises(UserError, match="cannot be written"), files.text_output(tmp_path, sys.stdout):
        pass
    assert pipe.is_fifo() and sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.parametrize("enough", [False, True])
def test_a_pipe_is_written_to_where_it_stands(tmp_path: Path, enough: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with files.text_output(pipe, sys.stdout) as out:
        out.write("é\n")
        out.flush()
        assert os.read(reading, 9) == "é\n".encode()
        if enough:
            os.close(reading)
        out.write("more\n")
    if not enough:
        assert os.read(reading, 9) == b"more\n"
        os.close(reading)
    assert pipe.is_fifo()


def test_a_folder_is_tried_before_the_work(tmp_path: Path) -> None:
    files.require_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/folder: cannot be written"):
        files.require_writable(tmp_path / "file" / "folder")


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe, files.text_output(None, pipe) as out:
        for _ in range(10_000):
            out.write("a line that nobody reads\n")
