"""Documents come one by one, named by file and row where they cannot be read."""

import itertools
from pathlib import Path

import pytest

from distill.data.documents import read_documents
from distill.errors import UserError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", '\ufeffone film\ntwo, "too"\r\n\n'),
        ("a.tsv", 'id\ttext\nx\tone film\ny\ttwo, "too"\n\n'),
        ("a.csv", 'id,text\nx,one film\ny,"two, ""too"""\n'),
        ("a.jsonl", '{"id": "x", "text": "one film"}\n{"id": "y", "text": "two, \\"too\\""}\n\n'),
    ],
)
def test_every_format_gives_the_same_documents(tmp_path, name, text):
    path, texts = write(tmp_path, name, text), ["one film", 'two, "too"']
    assert list(read_documents(path)) == list(zip("12", texts, strict=True))
    if name != "a.txt":
        assert list(read_documents(path, "text", "id")) == list(zip("xy", texts, strict=True))
        assert list(read_documents(path, "id")) == [("1", "x"), ("2", "y")]


def test_the_only_column_needs_no_name_and_numbers_are_names(tmp_path):
    assert list(read_documents(write(tmp_path, "a.csv", "sentence\none\n"))) == [("1", "one")]
    assert list(read_documents(write(tmp_path, "a.csv", "passage\none\n"), "passage")) == [("1", "one")]
    assert list(read_documents(write(tmp_path, "a.jsonl", '{"passage": "one"}\n'))) == [("1", "one")]
    assert list(read_documents(write(tmp_path, "c.jsonl", '{"doc": {"body": "one"}}\n'))) == [("1", "one")]
    path = write(tmp_path, "b.jsonl", '{"id": 7, "body": "one"}\n')
    assert list(read_documents(path, "body", "id")) == [("7", "one")]


def test_rows_are_read_when_they_are_asked_for(tmp_path):
    path = write(tmp_path, "a.tsv", "text\n" + "one\n" * 3 + "bad\trow\n")
    assert len(list(itertools.islice(read_documents(path), 3))) == 3


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("a.txt", "one\n\ntwo\n", (), r"a.txt:2: the text is empty"),
        ("a.txt", "\n", (), "the file is empty"),
        ("a.txt", "one\n", ("text",), "has no columns"),
        ("a.tsv", "id\ttext\nx\t\n", (), r"a.tsv:2: the text is empty"),
        ("a.tsv", "id\ttext\n\nx\tone\n", (), r"a.tsv:2: the text is empty"),
        ("a.tsv", "id\ttext\n\tone\n", ("text", "id"), r"a.tsv:2: the name in 'id' is empty"),
        ("a.csv", 'id,text\n"x\ny",one\n', ("text", "id"), r"a.csv:2: the name in 'id' .* line end"),
        ("a.jsonl", '{"text": "one", "id": "x\\ry"}\n', ("text", "id"), r"a.jsonl:1: the name in 'id' .* line end"),
        ("a.jsonl", '{"text": "one", "id": "\\ud800"}\n', ("text", "id"), r"a.jsonl:1: the name in 'id' .* half a "),
        ("a.tsv", "id\ttext\nx\tone\ttwo\n", (), r"a.tsv:2: 3 columns where 2 are needed"),
        ("a.tsv", "id\ttext\nx\tone\n", ("body",), r"a.tsv:1: no column 'body' \(columns found: id, text\)"),
        ("a.tsv", "id\tbody\nx\tone\n", (), r"a.tsv:1: which column holds the texts\?.*id, body\).*id TAB text"),
        ("a.tsv", "A first document.\nAnd one.\n", (), r"a.tsv:1: is 'A first document.' the column's name\?.*\.txt"),
        ("a.jsonl", '{"text": "one"}\n{"body": "two"}\n', (), r"a.jsonl:2: no key 'text' \(keys found: body\)"),
        ("a.jsonl", '{"text": ["one"]}\n', (), r"a.jsonl:1: 'text' is neither text nor a number"),
        ("a.jsonl", '{"text": "one"\n', (), r"a.jsonl:1: not valid JSON"),
        ("a.doc", "one\n", (), "the suffix does not tell the format"),
        ("a.tsv", "id\ttext\n", (), "the file is empty"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, columns, message):
    with pytest.raises(UserError, match=message):
        list(read_documents(write(tmp_path, name, text), *columns))
