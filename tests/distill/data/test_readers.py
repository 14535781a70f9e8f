"""Files into columns: exact rows, exact row numbers in every refusal, and speed on a file of QQP's size."""

import json
import time

import numpy as np
import pytest

from distill.data.readers import Rows, column_names, read_columns, read_rows, read_unlabelled, shortened, stream_columns
from distill.errors import UserError


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def test_tsv_keeps_quotes_and_strange_line_separators_inside_texts(write):
    texts = ['"she said', 'a "b" c"', "x\u2028y", "x\u0085y", "x\ry", "x\x1cy", "\u597d\u3000\u7684"]
    path = write("a.tsv", "text\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts)))
    rows, _ = read_rows(path, "text", label="label", labels=("0", "1"))
    assert rows.text_a == texts
    assert rows.labels.tolist() == [0, 1, 0, 1, 0, 1, 0] and rows.labels.dtype == np.int64
    assert rows.text_b is None and rows.source == str(path)


@pytest.mark.parametrize(
    "content", ["text\tlabel\na b\t1\nc\t0\n", "text\tlabel\na b\t1\nc\t0", "text\tlabel\na b\t1\nc\t0\n\n \n"]
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bom_crlf_and_empty_lines_at_the_end_change_nothing(write, content, bom, end):
    path = write("a.tsv", bom + content.replace("\n", end).encode())
    assert column_names(path) == ["text", "label"]
    columns, numbers = read_columns(path, ["text", "label"])
    assert columns == [["a b", "c"], ["1", "0"]]
    assert list(numbers) == [2, 3]


def test_csv_follows_quoting_and_counts_lines_of_the_file(write):
    path = write("a.csv", 'text,label\r\n"one, two",1\r\n"say ""hi""\r\nagain",0\r\nlast,2\r\n')
    columns, numbers = read_columns(path, ["label", "text"])
    assert columns == [["1", "0", "2"], ["one, two", 'say "hi"\r\nagain', "last"]]
    assert list(numbers) == [2, 3, 5]
    assert refusal(read_rows, path, "text", label="label", labels=("0", "1")).startswith(f"{path}:5: unknown label '2'")


def test_csv_of_very_long_texts(write):
    long = "word " * 50_000 + "end"
    assert read_rows(write("a.csv", f"text,label\n{long},1\n"), "text", None, "label", labels=("0", "1"))[0].text_a == [
        long
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_files_whose_lines_end_with_cr_alone(write, name):
    path = write(name, "text,label\ra,1\r")
    assert refusal(column_names, path) == f"{path}:1: lines end with CR alone; save the file with LF or CRLF"
    assert "lines end with CR alone" in refusal(read_unlabelled, path, False)
    with pytest.raises(UserError, match=r"b.csv:2: not valid csv \(lines end with CR alone"):
        read_columns(write("b.csv", "text,label\na,1\rb,0\r"), ["text"])


def test_names_in_messages_are_short_and_in_one_line(write):
    assert shortened(["a\n  b", "x" * 41, "c"]) == f"a b, {'x' * 37}..., c"
    assert shortened(map(str, range(30)), 2) == "0, 1, ... (30 in all)"
    path = write("a.csv", 'text,label\na,"two\nlines"\n')
    message = f"{path}:2: unknown label 'two lines' (known: an other)"
    assert refusal(read_rows, path, "text", label="label", labels=("an\nother",)) == message
    assert "the score 'two lines' is not" in refusal(read_rows, path, "text", label="label")


def test_csv_with_an_open_quote_is_refused_at_its_row(write):
    path = write("a.csv", 'text,label\nfine,1\n"never closed,0\nlost,1\n')
    assert refusal(read_columns, path, ["text"]).startswith(f"{path}:3: not valid csv")


def test_jsonl_values_by_key(write):
    lines = [{"q": "a", "y": True, "n": 1}, {"n": 2.5, "y": False, "q": "tab\there"}]
    path = write("a.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    assert column_names(path) == ["q", "y", "n"]
    assert read_columns(path, ["q", "y", "n"])[0] == [["a", "tab\there"], ["true", "false"], ["1", "2.5"]]


def test_keys_of_an_object_in_jsonl_are_columns(write):
    row = {"q": "a", "label": {"cls": 1, "by": "me"}, "n": None}
    path = write("a.jsonl", json.dumps(row) + "\n")
    assert column_names(path) == ["q", "label.cls", "label.by", "n"]
    assert read_columns(path, ["label.cls", "q"])[0] == [["1"], ["a"]]
    offered = []
    assert list(stream_columns(path, lambda names: offered.extend(names) or ["label.by"])) == [(1, ("me",))]
    assert offered == ["q", "label.cls", "label.by", "n"]
    for name in ("label", "q.cls", "label.no", "other.cls"):
        assert f"{path}:1: " in refusal(read_columns, path, [name])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"q": "b"', "not valid JSON"),
        ("[", "not valid JSON (Expecting value at column 1); each line must be a JSON object"),
        ('["b"]', 'not a JSON object; each line must be one, such as {"text": "...", "label": "..."}'),
        ('{"q": NaN}', "'q' is neither text nor a number nor true or false"),
        ('{"text": "b"}', "no key 'q' (keys found: text)"),
        ('{"q": null}', "'q' is neither text nor a number nor true or false"),
        ('{"q": ["b"]}', "'q' is neither text nor a number nor true or false"),
        ('\n{"q": "b"}', "the row is empty"),
        ('{"q": "half \\ud83d"}', "'q' has half of a surrogate pair; write whole characters"),
        ('{"q": ' + "9" * 5000 + "}", "JSON with a number too long or nested too deeply"),
        ('{"q": ' + "[" * 100_000, "JSON with a number too long or nested too deeply"),
    ],
)
def test_jsonl_refusals_name_the_row(write, line, message):
    path = write("a.jsonl", '{"q": "a"}\n' + line + "\n")
    assert refusal(read_columns, path, ["q"]).startswith(f"{path}:2: {message}")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b", ":4: 1 columns where 2 are needed"),
        ("b\t1\tc", ":4: 3 columns where 2 are needed"),
        ("\t1", ":4: the text in 'text' is empty"),
        ("  \t1", ":4: the text in 'text' is empty"),
        ("b\tyes", ":4: unknown label 'yes' (known: 0, 1)"),
        ("b\t", ":4: the label is empty"),
        ("\nb\t1", ":4: the row is empty"),
    ],
)
def test_tsv_refusals_name_the_row(write, row, message):
    path = write("a.tsv", "text\tlabel\na\t0\na\t1\n" + row + "\nz\t1\n")
    assert refusal(read_rows, path, "text", label="label", labels=("0", "1")).startswith(str(path) + message)


def test_empty_columns_beyond_the_header_are_accepted(write):
    path = write("a.tsv", "text\tlabel\na\t0\t\t \n")
    assert read_columns(path, ["text", "label"])[0] == [["a"], ["0"]]


def test_file_without_header_takes_the_names_given(write):
    path = write("a.tsv", "gj04\t1\t\tfirst\ngj04\t0\t*\tsecond\n")
    rows, _ = read_rows(path, "s", label="y", labels=("0", "1"), header=("source", "y", "mark", "s"))
    assert rows.text_a == ["first", "second"] and rows.labels.tolist() == [1, 0]
    assert ":1: 2 columns where 4" in refusal(read_rows, write("b.tsv", "s\ty\n"), "s", header=("a", "b", "c", "s"))


def test_missing_and_doubled_columns(write):
    path = write("a.tsv", "text\tx\tx\na\t0\t1\n")
    assert refusal(read_columns, path, ["label"]) == f"{path}:1: no column 'label' (columns found: text, x, x)"
    assert "more than one column 'x'" in refusal(read_columns, path, ["x"])


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_missing_empty_and_header_only_files(write, tmp_path, name):
    missing = tmp_path / "none" / name
    assert refusal(read_columns, missing, ["text"]) == f"{missing}: no such file"
    assert "the file is empty" in refusal(column_names, write(name, ""))
    content = "" if name == "a.jsonl" else "text\n"
    assert "the split is empty" in refusal(read_columns, write(name, content), ["text"])
    folder = tmp_path / f"folder-{name}"
    folder.mkdir()
    assert "cannot be read" in refusal(read_columns, folder, ["text"])


def test_unknown_suffix_is_refused(write):
    assert "use .tsv, .csv or .jsonl" in refusal(read_columns, write("a.parquet", "text\na\n"), ["text"])


def test_what_is_no_json_is_refused_only_where_it_is_read(write):
    assert read_columns(write("a.jsonl", '{"q": "a", "n": NaN}\n'), ["q"])[0] == [["a"]]


@pytest.mark.parametrize("mark", ["", "-1", "-1.0"])
def test_labels_that_are_kept_secret(write, mark):
    path = write("a.tsv", f"s\ty\na\t{mark}\nb\t{mark}\n")
    for labels in (("0", "1"), ()):
        assert read_rows(path, "s", label="y", labels=labels, test=True)[0].labels is None
    refusal(read_rows, path, "s", label="y", labels=("0", "1"))
    mixed = write("b.tsv", f"s\ty\na\t0\nb\t{mark}\n")
    assert refusal(read_rows, mixed, "s", label="y", labels=("0", "1"), test=True).startswith(f"{mixed}:3: ")
    if mark:
        found, _ = read_rows(path, "s", label="y", labels=("0", mark), test=True)
        assert found.labels.tolist() == [1, 1]


def test_texts_quoted_as_in_csv(write):
    path = write("a.tsv", 's\ty\n"he said" \t1\n"he said ""hi"""\t1\n')
    assert read_rows(path, "s")[0].text_a == ['"he said"', '"he said ""hi"""']
    message = refusal(read_rows, path, "s", refuse_quoted=True)
    assert message.startswith(f"{path}:3: 's' is quoted as in csv")
    assert message.endswith("save the rows as .csv, with commas, or with tabs and without quoting")
    fine = write("b.tsv", 's\n"a" and "b"\n""a"" b "c"\n"\n""\n6"" pipe\n')
    assert len(read_rows(fine, "s", refuse_quoted=True)[0]) == 5
    assert len(read_rows(write("c.csv", 's\n"""a ""b"""""\n'), "s", refuse_quoted=True)[0]) == 1


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_bytes_that_are_not_utf8_are_named_by_row_and_offset(write, name):
    path = write(name, b"text\ngood\nbad \xe9t\xe9\n")
    assert refusal(read_columns, path, ["text"]).startswith(f"{path}:3: not UTF-8 text (byte 14)")
    assert ":1: not UTF-8 text (byte 0)" in refusal(read_unlabelled, write("b.txt", "text".encode("utf-16")), False)


@pytest.mark.parametrize(
    ("text", "fine"),
    [("5.000", True), ("0", True), (" 2.5", True), ("5.1", False), ("nan", False), ("", False), ("x", False)],
)
def test_scores(write, text, fine):
    path = write("a.tsv", f"s\ty\na\t1\nb\t{text}\n")
    if fine:
        rows, _ = read_rows(path, "s", label="y", score_range=(0.0, 5.0))
        assert rows.labels.dtype == np.float32
        np.testing.assert_array_equal(rows.labels, np.float32([1, float(text)]))
    else:
        assert refusal(read_rows, path, "s", label="y", score_range=(0.0, 5.0)).startswith(
            f"{path}:3: the score '{text}'"
        )


def test_scores_without_range_are_any_finite_number(write):
    rows, _ = read_rows(write("a.tsv", "s\ty\na\t-1e3\nb\t7\n"), "s", label="y")
    assert rows.labels.tolist() == [-1000.0, 7.0]
    assert "not a finite number" in refusal(read_rows, write("b.tsv", "s\ty\na\tinf\n"), "s", label="y")


def test_empty_text_in_pairs_only_where_allowed(write):
    path = write("a.tsv", "a\tb\nx\ty\nx\t\n\ty\n")
    assert refusal(read_rows, path, "a", "b").startswith(f"{path}:4: the text in 'a' is empty")
    rows, incomplete = read_rows(path, "a", "b", empty_in_pairs=True)
    assert incomplete == 2 and rows.text_a == ["x", "x", ""] and rows.text_b == ["y", "", "y"]
    assert ":2: both texts are empty" in refusal(read_rows, write("b.tsv", "a\tb\n\t\n"), "a", "b", empty_in_pairs=True)
    single = write("c.tsv", "a\n\nx\n")
    assert ":2: the row is empty" in refusal(read_rows, single, "a", empty_in_pairs=True)


def test_unlabelled_lines(write):
    rows = read_unlabelled(write("a.txt", b'\xef\xbb\xbfone\ttwo\r\n"three"\r\n\r\n'), False)
    assert rows.text_a == ["one\ttwo", '"three"'] and rows.text_b is None and rows.labels is None
    rows = read_unlabelled(write("b.txt", "one\ttwo\n"), True)
    assert (rows.text_a, rows.text_b) == (["one"], ["two"])


@pytest.mark.parametrize(
    ("content", "pair", "message"),
    [
        ("a\n\nb\n", False, ":2: the text is empty"),
        ("a\tb\nc\n", True, ":2: 1 columns where 2 are needed"),
        ("a\tb\nc\td\te\n", True, ":2: 3 columns where 2 are needed"),
        ("a\tb\nc\t\n", True, ":2: the second text is empty"),
        ("\n", False, ": the file is empty"),
    ],
)
def test_unlabelled_refusals(write, content, pair, message):
    path = write("a.txt", content)
    assert refusal(read_unlabelled, path, pair).startswith(str(path) + message)


def test_take_and_concat():
    labelled = Rows(["a", "b", "c"], None, np.array([0, 1, 2]), "x")
    taken = labelled.take(np.array([2, 0, 2]))
    assert taken.text_a == ["c", "a", "c"] and taken.labels.tolist() == [2, 0, 2] and taken.source == "x"
    assert len(labelled.take([])) == 0
    bare = Rows(["d"], None, None, "y")
    assert labelled.concat(bare).labels.tolist() == [0, 1, 2, -1]
    joined = bare.concat(labelled)
    assert (
        joined.labels.tolist() == [-1, 0, 1, 2] and joined.text_a == ["d", "a", "b", "c"] and joined.source == "y + x"
    )
    assert bare.concat(bare).labels is None
    scored = Rows(["a"], ["b"], np.float32([1.5]), "z").concat(Rows(["c"], ["d"], None, "w"))
    assert scored.labels.dtype == np.float32 and scored.labels[0] == 1.5 and np.isnan(scored.labels[1])
    assert scored.text_b == ["b", "d"]
    with pytest.raises(ValueError, match="cannot be joined"):
        labelled.concat(scored)
    with pytest.raises(ValueError, match="rows"):
        Rows(["a"], ["b", "c"], None, "x")


def test_a_file_of_qqp_size_is_read_quickly(write):
    n = 363_846
    line = (
        "{0}\t{1}\t{2}\tHow can I learn the {0} th thing about cooking at home?\tWhat is the best way to learn it?\t{3}"
    )
    path = write(
        "train.tsv",
        "id\tqid1\tqid2\tq1\tq2\ty\n" + "\n".join(line.format(i, 2 * i, 2 * i + 1, i % 2) for i in range(n)),
    )
    begun = time.process_time()
    rows, incomplete = read_rows(path, "q1", "q2", "y", labels=("0", "1"), empty_in_pairs=True)
    seconds = time.process_time() - begun
    print(f"{n} rows in {seconds:.2f} s of processor time")
    assert len(rows) == n and incomplete == 0 and int(rows.labels.sum()) == n // 2
    assert seconds < 5  # about 1 s on an idle core; other work on the machine stretches it


def test_digest_tells_rows_apart_and_nothing_else():
    rows = Rows(["a", "bc"], ["d", "e"], np.array([0, 1]), "here")
    assert rows.digest() == Rows(["a", "bc"], ["d", "e"], np.array([0, 1]), "there").digest()
    others = [
        Rows(["bc", "a"], ["e", "d"], np.array([1, 0]), "here"),  # order
        Rows(["ab", "c"], ["d", "e"], np.array([0, 1]), "here"),  # the border between two texts
        Rows(["a", "bc"], ["d", "e"], np.array([0, 0]), "here"),
        Rows(["a", "bc"], ["d", "e"], None, "here"),
        Rows(["a", "bc", "d", "e"], None, None, "here"),
    ]
    assert len({other.digest() for other in [rows, *others]}) == 6


@pytest.mark.parametrize(("kind", "content"), [("tsv", b"text\tid\na\t1\n"), ("jsonl", b'{"text": "a", "id": 1}\n')])
def test_a_stream_is_read_row_by_row_under_the_name_it_is_given(kind, content):
    """The first row is there before the second one has been read; names may be chosen when the columns are known."""
    seen = []

    class Lines:
        closed = False

        def __iter__(self):
            yield from content.splitlines(keepends=True)
            seen.append("more was asked for")
            yield b"\xff\n"

        def close(self):
            self.closed = True

    def choose(names):
        seen.append(list(names))
        return ["id", "text"]

    lines = Lines()
    rows = stream_columns("the input", choose, kind=kind, stream=lines)
    assert next(rows) == (2 if kind == "tsv" else 1, ("1", "a")) and seen == [["text", "id"]]
    with pytest.raises(UserError) as error:
        next(rows)
    number = content.count(b"\n") + 1
    assert str(error.value) == f"the input:{number}: not UTF-8 text (byte {len(content)}); save the file as UTF-8"
    assert lines.closed
