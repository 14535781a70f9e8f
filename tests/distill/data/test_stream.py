import numpy as np
import pytest

from distill.data import stream
from distill.data.stream import StreamBatches, TextLines
from distill.data.wordpiece import WordPiece
from distill.errors import UserError
from tests.tiny import FILLERS, VOCAB

ROWS = 230


@pytest.fixture
def wordpiece(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return WordPiece(tmp_path / "vocab.txt", lowercase=True)


@pytest.fixture
def text(tmp_path):
    """Lines that are told apart by their ids, of 1 to 9 words."""
    rng, path = np.random.default_rng(0), tmp_path / "text.txt"
    lines = [" ".join([*rng.choice(FILLERS, 1 + i % 6), *f"{i:03d}".translate(LETTERS)]) for i in range(ROWS)]
    path.write_text("\n".join(lines) + "\n")
    return path, lines


LETTERS = str.maketrans("0123456789", "bcdefghijk")


@pytest.fixture
def small(monkeypatch):
    """Windows of 6 steps."""
    monkeypatch.setattr(stream, "_WINDOW", 6)


def made(text, wordpiece, **more):
    return StreamBatches(TextLines(text, block=8), wordpiece, 16, **{"batch_size": 5, "seed": 3} | more)


def rows_of(batch):
    """Each row's ids without padding."""
    return [tuple(ids[:n]) for ids, n in zip(batch["input_ids"].tolist(), batch["lengths"], strict=True)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_line_once_an_epoch(epoch, text, wordpiece):
    path, lines = text
    batches = made(path, wordpiece)
    steps = batches.epoch(epoch)
    assert len(steps) == len(batches)
    read = [batches.load(step) for step in steps]
    assert [len(step) for step in steps] == [len(batch["input_ids"]) for batch in read]
    assert all(len(step) <= 5 for step in steps)
    expected = [tuple(wordpiece.encode([line], None, 16).row(0).tolist()) for line in lines]
    assert sorted(row for batch in read for row in rows_of(batch)) == sorted(expected)


@pytest.mark.usefixtures("small")
def test_epochs_differ_and_lines_are_mixed_and_bucketed(text, wordpiece):
    path, lines = text
    batches = made(path, wordpiece)
    first, second = ([rows_of(batches.load(step)) for step in batches.epoch(epoch)] for epoch in (0, 1))
    assert first != second
    places = {tuple(wordpiece.encode([line], None, 16).row(0).tolist()): i for i, line in enumerate(lines)}
    spread = [max(places[row] for row in step) - min(places[row] for row in step) for step in first]
    assert np.mean(spread) > ROWS / 4
    padding = sum(max(map(len, step)) * len(step) - sum(map(len, step)) for step in first)
    assert padding < 0.06 * sum(len(row) for step in first for row in step)


@pytest.mark.usefixtures("small")
def test_any_step_can_be_read_first(text, wordpiece):
    path, _ = text
    whole = made(path, wordpiece)
    expected = {(epoch, i): whole.load(step) for epoch in (0, 1) for i, step in enumerate(whole.epoch(epoch))}
    for epoch, i in ((1, 20), (0, 7), (0, 0), (1, len(whole) - 1)):
        fresh = made(path, wordpiece)
        found = fresh.load(fresh.epoch(epoch)[i])
        np.testing.assert_array_equal(found["input_ids"], expected[epoch, i]["input_ids"])


@pytest.mark.usefixtures("small")
def test_two_ranks_share_the_steps_of_one(text, wordpiece):
    path, _ = text
    one = made(path, wordpiece, batch_size=10)
    two = [made(path, wordpiece, rank=rank, world_size=2) for rank in (0, 1)]
    assert len(one) == len(two[0]) == len(two[1])
    for i in range(len(one)):
        parts = [row for batches in two for row in rows_of(batches.load(batches.epoch(1)[i]))]
        assert sorted(parts) == sorted(rows_of(one.load(one.epoch(1)[i])))


@pytest.mark.usefixtures("small")
def test_no_more_than_a_window_is_read_for_a_step(text, wordpiece, monkeypatch):
    path, _ = text
    batches, blocks, read = made(path, wordpiece), [], TextLines.read
    steps = batches.epoch(0)
    monkeypatch.setattr(TextLines, "read", lambda self, block: blocks.append(block) or read(self, block))
    batches.load(steps[8])
    assert 0 < len(blocks) <= 6 * 5 // 8 + 2
    batches.load(steps[9])
    assert len(blocks) <= 6 * 5 // 8 + 2  # the same window


def test_fewer_lines_than_a_window(tmp_path, wordpiece):
    (tmp_path / "one.txt").write_text("a film\n")
    batches = made(tmp_path / "one.txt", wordpiece)
    assert len(batches) == 1 and rows_of(batches.load(batches.epoch(0)[0])) == [
        tuple(wordpiece.encode(["a film"], None, 16).row(0).tolist())
    ]
    with pytest.raises(UserError, match="1 rows cannot be shared among 2 devices"):
        made(tmp_path / "one.txt", wordpiece, world_size=2)


# The text


def texts(lines):
    return [text for block in range(len(lines.sizes)) for text in lines.read(block)]


def test_files_of_a_folder_in_order_without_empty_lines(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"two\r\n\r\n  three \r\n")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf\n\n" + "zero\nüñï 中文".encode())
    (tmp_path / "notes.md").write_text("not read")
    for block in (1, 2, 256):
        lines = TextLines(tmp_path, block)
        assert (texts(lines), lines.rows) == (["zero", "üñï 中文", "two", "three"], 4)
    assert TextLines(tmp_path / "b.txt").rows == 2


def test_digest_is_that_of_the_lines(tmp_path):
    for name, content in (("a", "x\ny\n"), ("b", "x\r\n\r\ny"), ("c", "x\nz\n")):
        (tmp_path / name).write_text(content, newline="")
    a, b, c = (TextLines(tmp_path / name, block).digest for name, block in (("a", 1), ("b", 256), ("c", 256)))
    assert a == b != c


def test_what_cannot_be_read_is_refused(tmp_path):
    for content, message in (
        (None, "none.txt: no such file or folder"),
        (b"", "none.txt: no text in it; one sentence a line is needed"),
        (b"\n \n", "none.txt: no text in it"),
        (b"good\n\ncaf\xe9\n", "none.txt:3: not UTF-8 text; save the file as UTF-8"),
    ):
        if content is not None:
            (tmp_path / "none.txt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            TextLines(tmp_path / "none.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: no .txt file in it"):
        TextLines(tmp_path / "folder")


def test_a_file_that_changes_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("a\nb\nc\n")
    lines = TextLines(tmp_path / "text.txt", 2)
    (tmp_path / "text.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="text.txt: changed while it was being read"):
        lines.read(1)
