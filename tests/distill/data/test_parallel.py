"""Sentences and translations: read exactly or refused by file and line; every language has its share in every step."""

import gzip
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.batching import BucketBatches
from distill.data.parallel import (
    GroupedBatches,
    InterleavedBatches,
    Parallel,
    check_apart,
    language_of,
    load_parallel,
    load_sts,
    numbered,
    read_sts,
)
from distill.errors import UserError


@pytest.fixture
def write(tmp_path):
    def written(name, content):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path

    return written


def columns(rows):
    return list(zip(rows.sources, rows.targets, rows.languages, strict=True))


# Files


def test_rows_of_several_files_and_targets(write):
    files = [
        write("ted.en-de.tsv", "\ufeffA cat.\tEine Katze.\r\nA dog. \t Ein Hund.\tDer Hund.\n\n"),
        write("TED2020-en-zh-cn-train.tsv.gz", "A cat.\t一只猫。\u2028x"),
    ]
    rows = load_parallel(files)
    assert columns(rows) == [
        ("A cat.", "Eine Katze.", "de"),
        ("A dog.", "Ein Hund.", "de"),
        ("A dog.", "Der Hund.", "de"),
        ("A cat.", "一只猫。\u2028x", "zh-cn"),
    ]
    assert rows.files == tuple(map(str, files)) and len(rows) == 4
    assert rows.sources[0] is rows.sources[3]  # held once
    assert columns(rows.take(np.array([3, 1]))) == [columns(rows)[3], columns(rows)[1]]
    assert {name: len(some) for name, some in rows.by_language().items()} == {"de": 3, "zh-cn": 1}
    assert rows.by_language()["zh-cn"].targets == ["一只猫。\u2028x"]


def test_the_digest_is_that_of_the_rows():
    a = Parallel(["x", "y"], ["u", "v"], ["de", "de"], ("1",))
    same = Parallel(["x", "y"], ["u", "v"], ["de", "de"], ("2",))
    others = [
        Parallel(["x", "y"], ["u", "v"], ["de", "fr"], ("1",)),
        Parallel(["y", "x"], ["v", "u"], ["de", "de"], ("1",)),
        Parallel(["x", "u"], ["y", "v"], ["de", "de"], ("1",)),
        Parallel(["x"], ["y"], ["u"], ("1",)),
    ]
    assert a.digest() == same.digest()
    assert len({a.digest(), *(other.digest() for other in others)}) == 5


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("stsb_train.en-de.tsv", "de"),
        ("TED2020-en-tr-train.tsv.gz", "tr"),
        ("en-fr.tsv", "fr"),
        ("x-en-pt-br-dev.tsv.gz", "pt-br"),
        ("WikiMatrix-en-nl-all.tsv", "nl"),
        ("Tatoeba-en-zh-hant.dev.tsv", "zh-hant"),
        ("Tatoeba-en-de-eval.tsv", "de"),
        ("talks-en-de-val.tsv.gz", "de"),
    ],
)
def test_languages_by_name(name, language):
    assert language_of("some.en-xx.folder/" + name) == language


@pytest.mark.parametrize("name", ["train.tsv", "open-de.tsv", "de-en.tsv", "en-de", "en.tsv"])
def test_a_name_without_a_language_is_refused(name):
    with pytest.raises(UserError, match=f"{name}: the name does not tell the language"):
        language_of(name)


def test_limits(write, capsys):
    file = write("a.en-de.tsv", "".join(f"{'x' * n}\t{'y' * (n + 1)}\n" for n in (1, 9, 2, 3, 9, 4)))
    assert [len(text) for text in load_parallel([file], max_sentences=3).sources] == [1, 9, 2]
    assert capsys.readouterr().out == ""
    assert [len(text) for text in load_parallel([file], 3, max_characters=4).sources] == [1, 2, 3]
    assert capsys.readouterr().out == f"{file}: 1 lines with more than 4 characters in a text are left out\n"
    with pytest.raises(UserError, match="a.en-de.tsv: all 6 lines have texts of more than 1 characters"):
        load_parallel([file], max_characters=1)


def test_no_more_is_read_than_asked_for(write):
    file = write("a.en-de.tsv", "a\tb\nno tab\n")
    assert len(load_parallel([file], max_sentences=1)) == 1
    with pytest.raises(UserError, match=r"a.en-de.tsv:2: no tab"):
        load_parallel([file], max_sentences=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"{}: no text in it; one line is `English TAB translation`"),
        (b"\n\n", r"{}: no text in it"),
        (b"a\tb\nonly English\n", r"{}:2: no tab; one line is `English TAB translation` \(only English\)"),
        (b"a\tb\n \tc\n", r"{}:2: the English text is empty; fill it or remove the row"),
        (b"a\tb\nc\td\t \n", r"{}:2: translation 2 is empty"),
        (b"12\ta\t345\tb\n", r"{}:1: number, text, number, text, as in Tatoeba; keep the texts: cut -f2,4"),
        (b"a\tb\tc\td\n1999\t1999\t1999\t1999\nonly\n", r"{}:3: no tab"),  # line 2 is sound
        (b"1.04\ta\tb\n", r"{}:1: number, text, text, as in WikiMatrix; keep the texts: cut -f2,3"),
        (b"a\tb\tCC-BY 2.0 (France)\n", r"{}:1: text, text, licence, as in manythings.org; keep the texts: cut -f1,2"),
        (b"a\tb\rc\td\r", r"{}:1: lines end with CR alone; save the file with LF or CRLF"),
        (b"a\tb\n\nc\td\n", r"{}:2: the row is empty; remove it"),
        (b"a\tb\nc\tcaf\xe9\n", r"{}:2: not UTF-8 text; save the file as UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["bad.en-de.tsv", "bad.en-de.tsv.gz"])
def test_bad_rows_are_named(write, name, content, message):
    with pytest.raises(UserError, match=message.format(name)) as error:
        load_parallel([write("good.en-de.tsv", "a\tb\n"), write(name, content)])
    assert "\n" not in str(error.value)


def test_numbers_may_be_sentences(write):
    for content in ("2004\t2004\t2004 and so\n", "a\tb\tc\n2004\tin 2004\tthe year 2004\n", "2004\tin 2004\n"):
        rows = load_parallel([write("a.en-de.tsv", content)])
        assert "2004" in rows.sources


def test_bad_files_are_named(write, tmp_path):
    with pytest.raises(UserError, match="none.en-de.tsv: no such file"):
        load_parallel([tmp_path / "none.en-de.tsv"])
    with pytest.raises(UserError, match=r"dir.en-de.tsv: cannot be read \(Is a directory\)"):
        (tmp_path / "dir.en-de.tsv").mkdir()
        load_parallel([tmp_path / "dir.en-de.tsv"])
    with pytest.raises(UserError, match="no file of parallel sentences"):
        load_parallel([])
    packed = write("cut.en-de.tsv.gz", "a\tb\n" * 9999)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cut.en-de.tsv.gz:\d+: not whole as a gzip file"):
        load_parallel([packed])
    packed.write_bytes(b"a\tb\n")
    with pytest.raises(UserError, match=r"cut.en-de.tsv.gz:1: not whole as a gzip file"):
        load_parallel([packed])
    assert not (tmp_path / "none.en-de.tsv").exists()  # nothing is made in place of what is missing


def test_splits_are_kept_apart(write, capsys):
    train = load_parallel([write("t.en-de.tsv", "a\tb\nc\td\n")])
    dev, other = load_parallel([write("d.en-de.tsv", "c\td\n")]), Parallel(["c"], ["x"], ["de"], ("f",))
    check_apart({"train": train})
    assert capsys.readouterr().out == ""
    check_apart({"train": train, "dev": dev, "test": other})
    assert capsys.readouterr().out == "dev: 1 of its 1 pairs occur in train too\n"
    with pytest.raises(UserError, match="t.en-de.tsv: stands in train and in test; give each split files of its own"):
        check_apart({"train": train, "dev": dev, "test": train.take([0])})


# Batches


def made(sizes, multiples=False, seed=0):
    """Rows of languages of these sizes; the n-th row of each translates the same sentence, or every second does."""
    rng = np.random.default_rng(seed)
    sources, languages = [], []
    for language, size in zip("abcdefgh", sizes, strict=False):
        sources += [f"s{i // 2 if multiples else i}" for i in range(size)]
        languages += [language] * size
    return Parallel(sources, [f"t{i}" for i in range(len(sources))], languages, ("f",)), rng.geometric(0.1, sum(sizes))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 150), min_size=1, max_size=5),
    st.integers(1, 30),
    st.integers(1, 3),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_row_once_in_steps_of_equal_size(sizes, batch_size, world, epoch, multiples):
    rows, lengths = made(sizes, multiples)
    if len(rows) < world:
        return
    ranks = [InterleavedBatches(lengths, rows, batch_size, 1, rank, world) for rank in range(world)]
    assert len({len(plan) for plan in ranks}) == 1
    steps = list(zip(*(plan.epoch(epoch) for plan in ranks), strict=True))
    assert len(steps) == len(ranks[0])
    assert np.array_equal(np.sort(np.concatenate([part for step in steps for part in step])), np.arange(len(rows)))
    assert all(1 <= len(part) <= max(batch_size, 2) for step in steps for part in step)
    joined = [sum(map(len, step)) for step in steps]
    assert max(joined) - min(joined) <= 1
    if batch_size > 1 or len(rows) % world == 0:
        # One process with the joined batch sees the same rows in each step.
        alone = InterleavedBatches(lengths, rows, batch_size * world, 1).epoch(epoch)
        assert [set(batch.tolist()) for batch in alone] == [set(np.concatenate(step).tolist()) for step in steps]


@pytest.mark.parametrize("sizes", [(400, 400, 400, 400), (1600, 320, 32), (700, 90)])
def test_every_language_has_its_share_in_every_step(sizes):
    rows, lengths = made(sizes)
    languages, share = np.array(rows.languages), np.array(sizes) / sum(sizes)
    for epoch in (0, 1):
        for batch in InterleavedBatches(lengths, rows, 16, 3).epoch(epoch):
            counts = [(languages[batch] == name).sum() for name in "abcdefgh"[: len(sizes)]]
            assert np.abs(counts - share * len(batch)).max() < (0.5 if len(sizes) == 4 else 1.6), counts


def test_the_trace_of_two_languages():
    """Steps of 2 of 3 + 3 rows: one of each language, and of the ranks each gets either."""
    rows, lengths = made((3, 3))
    steps = InterleavedBatches(lengths, rows, 2, 7).epoch(0)
    assert [sorted(rows.languages[i] for i in step) for step in steps] == [["a", "b"]] * 3
    dealt = [InterleavedBatches(lengths, rows, 1, 7, 0, 2).epoch(epoch) for epoch in range(20)]
    seen = Counter(rows.languages[i] for plan in dealt for step in plan for i in step)
    assert min(seen["a"], seen["b"]) > 15  # of 60


def test_translations_of_one_sentence_do_not_meet():
    rows, lengths = made((600, 600, 600), multiples=True)
    lengths = np.tile(lengths[:600], 3)  # they are equally long, so that buckets would bring them together
    for epoch in range(3):
        batches = InterleavedBatches(lengths, rows, 20, 5).epoch(epoch)
        meetings = sum(len(batch) - len({rows.sources[i] for i in batch}) for batch in batches)
        assert meetings == 0
        plain = BucketBatches(lengths, 20, 5).epoch(epoch)
        assert sum(len(batch) - len({rows.sources[i] for i in batch}) for batch in plain) > 300


def test_lengths_are_bucketed_and_epochs_differ():
    rows, lengths = made((2000, 2000))
    plan = InterleavedBatches(lengths, rows, 20, 5)
    first, second = plan.epoch(0), plan.epoch(1)
    mixed = lengths[np.random.default_rng(0).permutation(4000)].reshape(-1, 20)
    assert plan.real_share(0) > 0.85 > 0.4 > mixed.sum() / (20 * mixed.max(axis=1).sum())
    assert [b.tolist() for b in first] == [b.tolist() for b in plan.epoch(0)] != [b.tolist() for b in second]
    assert [b.tolist() for b in first] != [b.tolist() for b in InterleavedBatches(lengths, rows, 20, 6).epoch(0)]
    longest = [lengths[batch].max() for batch in first]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=5), st.integers(1, 30), st.integers(1, 3), st.integers(0, 3))
def test_grouped_rows_come_once_in_steps_of_equal_size(sizes, batch_size, world, epoch):
    rows, lengths = made(sizes)
    if len(rows) < world:
        return
    sources = numbered(rows.sources)
    ranks = [GroupedBatches(lengths, sources, batch_size, 1, rank, world).epoch(epoch) for rank in range(world)]
    steps = list(zip(*ranks, strict=True))
    assert np.array_equal(np.sort(np.concatenate([part for step in steps for part in step])), np.arange(len(rows)))
    joined = [sum(map(len, step)) for step in steps]
    assert max(joined) - min(joined) <= 1
    if batch_size > 1 or len(rows) % world == 0:
        alone = GroupedBatches(lengths, sources, batch_size * world, 1).epoch(epoch)
        assert [set(batch.tolist()) for batch in alone] == [set(np.concatenate(step).tolist()) for step in steps]


def test_grouped_rows_meet_the_translations_of_their_sentence():
    rows, lengths = made((600, 600, 600, 600))
    sources = numbered(rows.sources)
    plan = GroupedBatches(lengths, sources, 20, 5)
    for epoch in range(2):
        batches = plan.epoch(epoch)
        assert max(len(set(sources[batch])) for batch in batches) <= 6  # 20 rows of 4 each, two of them cut in two
        assert sum(len(set(sources[batch])) for batch in batches) <= 600 + len(batches)
        assert len({tuple(rows.languages[i] for i in batch) for batch in batches}) > 50  # mixed within a step
    first, second = plan.epoch(0), plan.epoch(1)
    assert [b.tolist() for b in first] == [b.tolist() for b in plan.epoch(0)] != [b.tolist() for b in second]
    longest = [lengths[batch].max() for batch in first]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    same = np.repeat(lengths[:600], 4)  # where translations are as long as their sentence
    of_row = np.repeat(np.arange(600), 4)
    assert GroupedBatches(same, of_row, 20, 5).real_share(0) > 0.9


def test_plans_that_cannot_be():
    rows, lengths = made((3,))
    with pytest.raises(ValueError, match="3 rows but 2 lengths"):
        InterleavedBatches(lengths[:2], rows, 2)
    with pytest.raises(UserError, match="3 rows cannot be shared among 4 devices"):
        InterleavedBatches(lengths, rows, 2, world_size=4)


# Scored pairs


def test_scored_pairs(write):
    rows = read_sts(write("stsb-en-dev.csv", '"A man, dancing.",A man.,4.75\nA ""plane"".,A bird.,0\n'))
    assert rows.text_a == ["A man, dancing.", 'A ""plane"".'] and rows.text_b == ["A man.", "A bird."]
    np.testing.assert_array_equal(rows.labels, np.float32([4.75, 0]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,5\nc,d,5.5\n", r":2: the score '5.5' is not a number from 0 to 5"),
        ("sentence1,sentence2,score\na,b,1\n", r":1: the score 'score' is not a number"),
        ("a,b,5\nc,d\n", r":2: 2 columns where 3 are needed"),
        ("a,b,5\nc,,5\n", r":2: the text in 'sentence2' is empty"),
        ("", r": the split is empty"),
    ],
)
def test_bad_scored_pairs(write, content, message):
    with pytest.raises(UserError, match="stsb-en-dev.csv" + message):
        read_sts(write("stsb-en-dev.csv", content))


def test_pairs_of_every_two_languages(write, tmp_path):
    for language in ("en", "de", "fr"):
        write(f"stsb-{language}-dev.csv", f"{language} 1,{language} 2,1\n{language} 3,{language} 4,2\n")
    found = load_sts(tmp_path, "dev", ["en", "de"])
    assert list(found) == ["en-en", "en-de", "de-en", "de-de"]
    assert (found["en-de"].text_a, found["en-de"].text_b) == (["en 1", "en 3"], ["de 2", "de 4"])
    assert found["de-en"].text_a == ["de 1", "de 3"] and found["de-en"].labels.tolist() == [1, 2]
    write("stsb-fr-dev.csv", "a,b,1\nc,d,3\n")
    with pytest.raises(UserError, match="stsb-fr-dev.csv: data row 2: another score than in .*stsb-en-dev.csv"):
        load_sts(tmp_path, "dev", ["en", "fr"])
    write("stsb-fr-dev.csv", "a,b,1\n")
    with pytest.raises(UserError, match="stsb-fr-dev.csv: 1 rows, .*stsb-en-dev.csv has 2; they must be translations"):
        load_sts(tmp_path, "dev", ["en", "fr"])
    with pytest.raises(UserError, match="stsb-it-dev.csv: no such file"):
        load_sts(tmp_path, "dev", ["en", "it"])
    for languages, named in ((["zh-cn"], "zh-cn"), ([], "no language")):
        with pytest.raises(UserError, match=f"{named}: languages are given by letters"):
            load_sts(tmp_path, "dev", languages)
